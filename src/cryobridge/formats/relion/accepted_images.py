"""What RELION refuses, or warns of, in the images themselves; a few of them stand for all.

RELION normalises images when it extracts them: the background, which is what lies outside of a circle around the
particle, has mean 0 and standard deviation 1. Its programs look whether that is so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.relion.accepted import Refusal
from cryobridge.model.background import default_radius_px, outside_circle
from cryobridge.report import Message, counted, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.model.particles import ImageRefs

# Of all stacks; the rest of a project is made alike.
_N_STACKS = 8
_N_IMAGES = 16
_SAMPLED_BYTES = 64 << 20
_HALF_PRECISION = 12
# The limits of RELION (ml_optimiser.cpp).
_LARGEST_MEAN, _LEAST_STD, _LARGEST_STD = 0.5, 0.5, 2.0


@dataclass(frozen=True)
class Sample:
    """A few of the stacks and images of a particle set; those that are not found are passed over.

    Parameters
    ----------
    headers
        Of at most 8 stacks, by name.
    pixels
        Of at most 16 images, by name and number (counted from 1).
    references
        The images of the set.
    unreadable
        Why others of the stacks can't be read, by name.
    """

    headers: Mapping[str, MrcHeader]
    pixels: Mapping[tuple[str, int], NDArray[Any]]
    references: ImageRefs
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def damage(self) -> tuple[Refusal, ...]:
        """Return why no program can use these stacks and images, whatever it is."""
        return (*self._not_read(), *self._beyond_the_end(), *self._no_numbers(), *self._empty())

    @property
    def text(self) -> str:
        """How many of the images were looked at; empty where none was."""
        n_all = len(self.references.index)
        return f"{len(self.pixels):,} of {n_all:,} were looked at" if self.pixels else ""

    def refused(self, box_px: NDArray[Any] | None = None) -> tuple[Refusal, ...]:
        """Return why RELION stops at these stacks and images, or reads them wrongly.

        Parameters
        ----------
        box_px
            (n,) the size of each image by the metadata, 0 where unknown; None in a file without optics groups.
        """
        return (*self._odd_shapes(box_px), *self._beyond_the_end(), *self._no_numbers())

    def warnings(
        self,
        *,
        reads_float16: bool = False,
        made: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        remedy: str = "",
    ) -> list[Message]:
        """Return warnings of what only some releases refuse, and of images that are not normalised.

        Parameters
        ----------
        reads_float16
            Whether the files are for a release that reads float16, 4 or later.
        made
            What becomes of an image (ny, nx) before RELION reads it; nothing if not given.
        remedy
            What normalises them, as in `not_normalised`.
        """
        n_half = sum(header.mode == _HALF_PRECISION for header in self.headers.values())
        half = n_half and not reads_float16
        messages = (
            half_precision(
                f"{part_of(n_half, len(self.headers), 'stack that was looked at', plural='stacks that were looked at')}"
            )
            if half
            else []
        )
        pixels = [image if made is None else made(image) for image in self.pixels.values()]
        return [*messages, *not_normalised([image for image in pixels if np.isfinite(image).all()], remedy)]

    def _odd_shapes(self, box_px: NDArray[Any] | None) -> Iterator[Refusal]:
        for name, header in self.headers.items():
            if header.nx != header.ny:
                reason = f"{name}: images of {header.nx} × {header.ny} px, and RELION takes square ones"
                yield Refusal(reason, "Extract the particles again.")
                continue
            if box_px is None and header.nx % 2:
                reason = f"{name}: images of {header.nx} px, and without optics groups RELION takes even boxes only"
                yield Refusal(reason, "`cryobridge convert` to a new STAR file writes optics groups.")
            said = np.zeros(0) if box_px is None else np.unique(box_px[self._rows(name)])
            wrong = said[(said > 0) & (said != header.nx)]
            if len(wrong):
                reason = f"{name}: images of {header.nx} px, and rlnImageSize is {wrong[0]:g}"
                yield Refusal(reason, "Correct the size in data_optics, or give the stack that it is of.")

    def _beyond_the_end(self) -> Iterator[Refusal]:
        for name, header in self.headers.items():
            highest = 1 + int(self.references.index[self._rows(name)].max(initial=-1))
            if highest > header.n_whole:
                reason = f"{name} has {counted(header.n_whole, 'image')}, and image {highest:,} is referred to"
                yield Refusal(reason, "Copy the stack again, or leave these particles out.")

    def _not_read(self) -> Iterator[Refusal]:
        for name, reason in self.unreadable.items():
            yield Refusal(f"{name}: {reason}", "Copy the stack again.")

    def _empty(self) -> Iterator[Refusal]:
        wrong = [f"{number}@{name}" for (name, number), image in self.pixels.items() if image.min() == image.max()]
        if wrong:
            n_all, plural = len(self.pixels), "images that were looked at"
            said = part_of(len(wrong), n_all, "image that was looked at", plural=plural)
            reason = f"{said} empty, all pixels having one value: {wrong[0]}"
            yield Refusal(reason, "Extract these particles again, or leave them out.")

    def _no_numbers(self) -> Iterator[Refusal]:
        wrong = [f"{number}@{name}" for (name, number), image in self.pixels.items() if not np.isfinite(image).all()]
        if wrong:
            looked_at = {"noun": "image that was looked at", "plural": "images that were looked at"}
            said = part_of(len(wrong), len(self.pixels), verb="hold", of_one="holds", **looked_at)
            reason = f"{said} NaN or infinity: {wrong[0]}"
            yield Refusal(reason, "Extract these particles again, or leave them out.")

    def _rows(self, name: str) -> NDArray[np.bool_]:
        path = self.references.path
        rows: NDArray[np.bool_] = path.codes == path.values.index(name)
        return rows


def look_at(images: ImageRefs, search: ImageSearch, *, reads_pixels: bool = True) -> Sample:
    """Read a few headers and images.

    Parameters
    ----------
    images
        (n,) of the particles, by the names in the metadata.
    search
        Where the stacks are looked for.
    reads_pixels
        Whether images are read, or headers alone.
    """
    search = search.among(images.path.values)
    names = {int(code): images.path.values[code] for code in _evenly(np.unique(images.path.codes), _N_STACKS)}
    headers: dict[int, MrcHeader] = {}
    unreadable: dict[str, str] = {}
    for code, path in ((code, search.resolve(name)) for code, name in names.items()):
        try:
            if path is not None:
                headers[code] = read_header(path)
        except CryobridgeError as error:
            unreadable[names[code]] = error.message
    pixels: dict[tuple[str, int], NDArray[Any]] = {}
    at_once = max(1, _N_IMAGES // max(1, len(headers)))
    for code, header in headers.items():
        n_fit = max(1, _SAMPLED_BYTES // max(1, _N_IMAGES * header.section_bytes)) if header.section_bytes else 0
        own = images.index[images.path.codes == code]
        # Compressed stacks are unpacked as a whole, which is no quick look.
        if reads_pixels and n_fit and header.whole_sections is not None:
            index = _evenly(own[own < header.n_whole], min(at_once, n_fit))
            read = zip(index.tolist(), _images_of(header.path, index), strict=False)
            pixels |= {(names[code], number + 1): image for number, image in read}
    return Sample({names[code]: header for code, header in headers.items()}, pixels, images, unreadable)


def about_images(
    images: ImageRefs,
    search: ImageSearch,
    box_px: NDArray[Any] | None,
    *,
    reads_float16: bool,
    made: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    remedy: str = "",
) -> list[Message]:
    """Return warnings of images that RELION refuses or reads wrongly, for what is to be written for it.

    Parameters
    ----------
    images, search
        As in `look_at`.
    box_px, reads_float16, made, remedy
        As in `Sample.refused` and `Sample.warnings`.
    """
    sample = look_at(images, search)
    refused = [warning("images-refused", item.reason) for item in sample.refused(box_px)]
    return [*refused, *sample.warnings(reads_float16=reads_float16, made=made, remedy=remedy)]


def half_precision(who: str) -> list[Message]:
    """Return a warning of stacks in half precision, which RELION reads from release 4 on."""
    text = (
        f"{who} float16, which RELION 3.1 refuses and 4 and later read; `cryobridge stacks downsample` with the box "
        "that they have writes float32"
    )
    return [warning("float16-stacks", text)]


def not_normalised(images: list[NDArray[Any]], remedy: str = "") -> list[Message]:
    """Return a warning where some of these images, (ny, nx) each, have a background that RELION does not take.

    Parameters
    ----------
    images
        The images.
    remedy
        The end of the sentence: what normalises them; RELION's own program if not given.

    Examples
    --------
    >>> not_normalised([np.random.default_rng(0).normal(size=(64, 64))])
    []
    """
    found = np.array([background(image) for image in images]).reshape(-1, 2)
    mean, std = found.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # Written as what must hold, so that NaN fails it.
        is_good = (np.abs(mean / std) <= _LARGEST_MEAN) & (std >= _LEAST_STD) & (std <= _LARGEST_STD)
    bad = np.flatnonzero(~is_good)
    if not len(bad):
        return []
    if not remedy:
        radius_px = default_radius_px(min(images[0].shape))
        words = f"relion_preprocess --norm --bg_radius {radius_px} --operate_on STACK.mrcs --operate_out NEW.mrcs"
        remedy = f"`{words}` normalises a stack"
    shown_mean = "0" if abs(mean[bad[0]]) < 0.005 else f"{mean[bad[0]]:.2g}"
    background_shown = f"{shown_mean} ± {std[bad[0]]:.2g}"
    text = f"{part_of(len(bad), len(found), 'sampled image')} not normalised ({background_shown}): {remedy}"
    return [warning("not-normalised", text)]


def background(image: NDArray[Any]) -> tuple[float, float]:
    """Return mean and standard deviation of what lies outside of a circle of 3/4 of the box; NaN if nothing does."""
    ny, nx = image.shape
    outside = image[outside_circle((ny, nx), default_radius_px(min(ny, nx)))].astype(np.float64)
    if not outside.size:
        return np.nan, np.nan
    with np.errstate(over="ignore", invalid="ignore"):
        return float(outside.mean()), float(outside.std())


def _evenly(values: NDArray[Any], n: int) -> NDArray[Any]:
    return values[np.unique(np.linspace(0, len(values) - 1, min(n, len(values))).astype(np.int64))]


def _images_of(path: Path, index: NDArray[Any]) -> Iterator[NDArray[Any]]:
    try:
        yield from open_mrc(path).read(index)
    except CryobridgeError:
        return  # who reads the images says what is wrong with them
