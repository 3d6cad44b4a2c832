"""What becomes of the pixels of stacks that are copied: contrast, and RELION's norm of the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError, UsageError, option
from cryobridge.formats.contrast import to_be_inverted
from cryobridge.formats.helical import norm_of_filaments
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.relion.accepted_images import about_images
from cryobridge.jobs.links import Link, is_made

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc import Images
    from cryobridge.fourier.background import BackgroundNorm
    from cryobridge.jobs.convert.options import ConvertOptions, Target
    from cryobridge.jobs.shared_options import PixelOptions
    from cryobridge.model.particles import ImageRefs, ParticleSet
    from cryobridge.report import Message

_N_SHOWN = 3


@dataclass(frozen=True, eq=False)
class PixelChange:
    """What becomes of the pixels of one stack.

    Parameters
    ----------
    stack
        The stack.
    metadata
        The file whose particles it has.
    images, rows
        (n,) the images of particles, counted from 0, and the rows of the particles.
    is_kept
        (n,) whether they are not multiplied by -1, which all others of the stack are; None where nothing is.
    radius_px
        The radius outside of which the background is normalised; None where it is not.
    ramp
        Whether a plane is subtracted for that.
    """

    stack: Path
    metadata: Path
    images: NDArray[np.int64]
    rows: NDArray[np.int64]
    is_kept: NDArray[np.bool_] | None = None
    radius_px: int | None = None
    ramp: bool = True

    def __call__(self, chosen: NDArray[np.int64], pixels: Images) -> Images:
        """Return the new pixels (n, ny, nx) of these images of the stack.

        Raises
        ------
        CryobridgeError
            If an image of a particle can't be normalised; others stay as they are then.
        """
        if self.radius_px is not None:
            made = _norm(pixels.shape[1:], self.radius_px, self.ramp)(pixels)
            without = np.isnan(made[:, 0, 0])
            if without.any():
                self._refuse(chosen[without], pixels[without])
                made[without] = pixels[without]
            pixels = made
        if self.is_kept is not None:
            kept = np.isin(chosen, self.images[self.is_kept])
            np.negative(pixels, out=pixels, where=~kept[:, np.newaxis, np.newaxis])
        return pixels

    def _refuse(self, chosen: NDArray[np.int64], pixels: Images) -> None:
        used = np.isin(chosen, self.images)
        if not used.any():
            return
        finite = np.isfinite(pixels[used][0]).all()
        why = f"a constant background, which {option('normalise')} can't give a deviation of 1"
        rows = self.rows[np.isin(self.images, chosen)]
        raise CryobridgeError(
            f"image {chosen[used][0] + 1} has {why if finite else 'NaN or infinity in it'}",
            path=self.stack,
            rows=tuple(rows[:_N_SHOWN].tolist()),
            count=len(rows),
            hint=f"Take these rows out of {self.metadata}, or leave {option('normalise')} out.",
        )


def changed_links(
    links: Sequence[Link],
    particles: ParticleSet,
    images: ImageRefs,
    rows: NDArray[np.int64],
    options: PixelOptions,
    metadata: Path,
) -> tuple[Link, ...]:
    """Return links with what becomes of the pixels of their copies.

    Parameters
    ----------
    links
        Of each stack.
    particles, rows
        (n,) the particles, and their rows in the input.
    images
        (n,) their images, without unused names of stacks.
    options
        What is asked for.
    metadata
        The input, for messages.

    Raises
    ------
    FormatError
        If an image is of two particles of which one is to be inverted.
    UsageError
        If a copy would stand where the stack itself is, or the circle of the background does not fit into an image.
    """
    is_inverted = to_be_inverted(particles) if options.invert else np.zeros(len(particles), bool)
    _refuse_contrary(images, is_inverted, metadata)
    order = np.argsort(images.path.codes, kind="stable")
    ends = np.searchsorted(images.path.codes[order], np.arange(len(links) + 1))
    changed = []
    for link, start, end in zip(links, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        own = order[start:end]
        radius_px = None
        if options.normalise is not None:
            header = read_header(link.target)
            radius_px = options.background_radius_px(min(header.nx, header.ny))
        is_kept = ~is_inverted[own] if is_inverted[own].any() else None
        change = None
        if radius_px is not None or is_kept is not None:
            _refuse_changing_itself(link)
            change = PixelChange(
                link.target, metadata, images.index[own], rows[own], is_kept, radius_px, ramp=options.ramp
            )
        changed.append(replace(link, change=change))
    return tuple(changed)


def about_pixels(particles: ParticleSet, target: Target, search: ImageSearch, options: ConvertOptions) -> list[Message]:
    """Return warnings of images that RELION does not take as they are written, by a few of them, and of their norm."""
    messages = norm_of_filaments(particles) if options.normalise is not None else []
    if target != "star" or particles.images is None or options.keeps_old_images:
        return messages
    words = (option("link_stacks", "DIR"), option("copy", True), option("normalise", "auto"))
    found = about_images(
        particles.images,
        search,
        None if particles.optics is None else particles.per_particle("box_px"),
        reads_float16=(options.relion or "3.1")[0] >= "4",
        made=_normalised(options),
        remedy=f"{' '.join(words)} writes copies that are",
    )
    return [*found, *messages]


def _normalised(options: PixelOptions) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """Return what gives an image (ny, nx) the norm that is asked for; None where none is."""
    if options.normalise is None:
        return None

    def made(image: NDArray[Any]) -> NDArray[Any]:
        radius_px = options.background_radius_px(min(image.shape))
        assert radius_px is not None
        single: NDArray[Any] = _norm(image.shape, radius_px, options.ramp)(image[np.newaxis])[0]
        return single

    return made


def radii_px(links: Sequence[Link]) -> tuple[int, ...]:
    """Return the radii outside of which copies are normalised, one for each size of the images."""
    changes = [link.change for link in links if isinstance(link.change, PixelChange)]
    return tuple(sorted({change.radius_px for change in changes if change.radius_px is not None}))


@lru_cache(maxsize=8)
def _norm(shape_px: tuple[int, int], radius_px: int, ramp: bool) -> BackgroundNorm:
    from cryobridge.fourier.background import BackgroundNorm

    return BackgroundNorm(shape_px, radius_px, ramp=ramp)


def _refuse_changing_itself(link: Link) -> None:
    """Refuse a copy that would stand where the stack itself is, which would be changed again in each run."""
    if is_made(replace(link, change=None), copy=True):
        raise UsageError(
            "the stack itself is there, which no changed copy replaces",
            path=link.path,
            option="link_stacks",
            hint=f"Give another folder to {option('link_stacks')}.",
        )


def _refuse_contrary(images: ImageRefs, is_inverted: NDArray[np.bool_], path: Path) -> None:
    """Refuse an image of two particles of which one is to be inverted."""
    order = np.lexsort((images.index, images.path.codes))
    is_same = (np.diff(images.path.codes[order]) == 0) & (np.diff(images.index[order]) == 0)
    contrary = np.flatnonzero(is_same & (np.diff(is_inverted[order].astype(int)) != 0))
    if len(contrary):
        rows = order[contrary[0] : contrary[0] + 2]
        raise FormatError(
            "one image is said to be dark and bright",
            path=path,
            rows=tuple(sorted(int(row) for row in rows)),
            count=len(contrary),
            hint="Look at the image, and correct blob/sign.",
        )
