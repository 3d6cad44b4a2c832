"""The pixel size of the image files: the one rule which source counts, and what others say against it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, option
from cryobridge.formats.optics import KnownOptics
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.jobs.stacks.inputs import StackInput
    from cryobridge.model.particles import Floats

# float32 pixel sizes of one nominal value differ by less than this.
PIXEL_SIZE_TOLERANCE = 1e-4
# What is typed has fewer digits than what a file says.
_SAME_AS_TYPED = 1e-3
# Of the headers' pixel sizes from the metadata's: less is rounding, and more than a calibration changes is a mistake.
_ROUNDING = 0.01
_CALIBRATION = 0.05


@dataclass(frozen=True)
class PixelSizes:
    """The pixel sizes of the images, before they are binned or cropped.

    Parameters
    ----------
    known_A
        The distinct sizes in Å that the metadata give; empty where they are silent.
    missing_A
        The size in Å of images whose metadata lack it; None where all have it, or it is unknown.
    messages
        What was assumed, and what the image files say against it.
    """

    known_A: Floats
    missing_A: float | None
    messages: tuple[Message, ...] = ()

    @property
    def all_A(self) -> Floats:
        """All distinct sizes in Å."""
        return self.known_A if self.missing_A is None else np.append(self.known_A, self.missing_A)


def settle_pixel_size(source: StackInput, given_A: float | None, of_parameters_A: float | None = None) -> PixelSizes:
    """Return the pixel sizes: those of the metadata, and what images whose metadata lack it are taken to have.

    That is the size given by hand, else the others' if they have one, else that of the image files, else that of the
    parameter file.

    Parameters
    ----------
    source
        The particles and their image files.
    given_A
        Given by hand; it must not contradict the metadata.
    of_parameters_A
        Of a parameter file.

    Raises
    ------
    UsageError
        If the size given by hand contradicts the metadata.
    CryobridgeError
        If the image files are of several sizes where they count.
    MissingDataError
        If it is missing.
    """
    metadata, headers = source.particles.source, list(source.headers.values())
    sizes_A = metadata_sizes(source)
    known_A = sizes_A[_is_known(sizes_A)]
    if given_A is not None:
        _refuse_contradiction(given_A, known_A, metadata)
    if len(known_A) == len(sizes_A) > 0:
        return PixelSizes(known_A, None, _compare(known_A, metadata.name, headers))
    in_files = [header.pixel_size_A for header in headers if header.pixel_size_A]
    if given_A is not None:
        return PixelSizes(known_A, given_A, _compare(np.array([given_A]), option("pixel_size_A"), headers))
    if len(known_A) and _are_one(known_A):
        message = note(
            "pixel-size-of-others", f"particles without pixel size are taken to have the others' {known_A[0]:g} Å"
        )
        return PixelSizes(known_A, float(known_A[0]), (message, *_compare(known_A, metadata.name, headers)))
    if in_files:
        size_A = one_pixel_size(in_files, metadata)
        return PixelSizes(known_A, size_A, (_taken_from("image files", size_A),))
    if not headers:
        return PixelSizes(known_A, None)  # that is an error of its own
    if of_parameters_A is not None:
        return PixelSizes(known_A, of_parameters_A, (_taken_from("parameter file", of_parameters_A),))
    raise MissingDataError(
        "neither the metadata nor the image files say the pixel size",
        path=metadata,
        hint=f"Give it with {option('pixel_size_A')}, in Å.",
    )


def with_pixel_size(source: StackInput, given_A: float | None) -> tuple[StackInput, PixelSizes]:
    """Return the input, read again with what `settle_pixel_size` finds where that is needed; raises as it does."""
    sizes = settle_pixel_size(source, given_A)
    if sizes.missing_A is None or source.reread is None:
        return source, sizes
    # Shifts in pixels are read with it.
    return replace(source, particles=source.reread(KnownOptics(pixel_size_A=sizes.missing_A))), sizes


def pixel_size_of_parameters(source: StackInput, size_A: float) -> PixelSizes:
    """Return the pixel size of a parameter file that stands against the metadata, as in CryoLike's paired mode."""
    sizes_A = metadata_sizes(source)
    known_A = sizes_A[_is_known(sizes_A)]
    others_A = np.unique([other for other in known_A.tolist() if not same_size(other, size_A)])
    compared = _compare(np.array([size_A]), "the parameter file", source.headers.values())
    if not len(others_A):
        return PixelSizes(known_A, size_A, compared)
    listed = ", ".join(f"{other:g}" for other in others_A[:3])
    message = warning(
        "pixel-size-contradicts",
        f"pixel size: {source.particles.source.name} says {listed} Å, but the parameter file {size_A:g} Å, which "
        "stands",
    )
    return PixelSizes(np.zeros(0), size_A, (message, *compared))


def metadata_sizes(source: StackInput) -> Floats:
    """Return the pixel size in Å of each optics group that has rows; NaN where the metadata do not say."""
    optics, index = source.particles.optics, source.particles.optics_index
    if optics is None or index is None:
        return np.array([np.nan])
    return optics.pixel_size_A[np.unique(index)]


def one_pixel_size(sizes_A: Sequence[float] | Floats, source: Path) -> float:
    """Return the pixel size in Å that all agree on.

    Raises
    ------
    CryobridgeError
        If there are several.
    """
    sizes = np.asarray(sizes_A, np.float64)
    if not _are_one(sizes):
        raise CryobridgeError(
            f"several pixel sizes: {', '.join(f'{size:g} Å' for size in np.unique(sizes))}",
            path=source,
            hint="Convert each pixel size on its own.",
        )
    return float(sizes[0])


def same_size(size_A: float, other_A: float) -> bool:
    """Whether two pixel sizes are one nominal value."""
    return abs(size_A - other_A) <= PIXEL_SIZE_TOLERANCE * other_A


def _are_one(sizes_A: Floats) -> bool:
    return bool(np.ptp(sizes_A) <= PIXEL_SIZE_TOLERANCE * sizes_A[0])


def _is_known(sizes_A: Floats) -> NDArray[np.bool_]:
    return np.isfinite(sizes_A) & (sizes_A > 0)


def _refuse_contradiction(given_A: float, known_A: Floats, metadata: Path) -> None:
    others = known_A[np.abs(known_A - given_A) > _SAME_AS_TYPED * known_A]
    if len(others):
        raise UsageError(
            f"{option('pixel_size_A', f'{given_A:g}')} contradicts the {others[0]:g} Å of the metadata",
            path=metadata,
            hint=f"Leave {option('pixel_size_A')} out, or correct the metadata.",
        )


def _taken_from(what: str, size_A: float) -> Message:
    return note("pixel-size-assumed", f"the pixel size is that of the {what}: {size_A:g} Å")


@np.errstate(over="ignore")
def _compare(sizes_A: Floats, who_says: str, headers: Iterable[MrcHeader]) -> tuple[Message, ...]:
    """Compare pixel sizes in Å with those in the headers of image files, of which some have none."""
    in_files = np.unique([round(header.pixel_size_A, 4) for header in headers if header.pixel_size_A])
    if len(in_files) == 0 or len(sizes_A) == 0:
        return ()
    factor = in_files[:, None] / sizes_A
    deviation = np.abs(factor - 1).min(axis=1)
    if not (deviation > _ROUNDING).any():
        return ()
    in_files = in_files[deviation > _ROUNDING]
    listed = ", ".join(f"{size:g}" for size in in_files[:3])
    if deviation.max() <= _CALIBRATION:
        text = f"the image files say pixels of {listed} Å; {sizes_A[0]:g} Å is taken"
        return (note("pixel-size-in-image-files", text),)
    nm = ", as if it were in nm" if (np.abs(in_files / sizes_A[0] - 10) < _CALIBRATION * 10).any() else ""
    return (
        warning(
            "pixel-size-contradicts",
            f"pixel size: {who_says} says {sizes_A[0]:g} Å{nm}, but the image files {listed} Å; {sizes_A[0]:g} Å "
            "is taken; correct it if the images are right",
        ),
    )
