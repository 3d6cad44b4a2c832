"""Where the boxes of one file lie beside those of another, and which way the micrographs lie under them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.model.convention import AS_STORED, Convention
from cryobridge.report import counted, note

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import Program
    from cryobridge.jobs.identity.pairs import Pairs
    from cryobridge.model.particles import Floats, Labels, ParticleSet
    from cryobridge.report import Message

# Less is the rounding of single-precision fractions of a micrograph's size.
_ROUNDED_PX = 0.02


@dataclass(frozen=True, eq=False)
class Frame:
    """From the images of one file to those of another.

    Parameters
    ----------
    convention
        How the micrographs of the other lie.
    offset_A
        (n, 2) x, y: position of the other's box minus that of the first's, in the frame of the other; None for none.
    messages
        What was assumed.
    """

    convention: Convention = AS_STORED
    offset_A: Floats | None = None
    messages: tuple[Message, ...] = ()


def frame_of(source: ParticleSet, base: ParticleSet, pairs: Pairs, programs: tuple[Program, Program]) -> Frame:
    """Return what lies between the images of particles and those of the same particles in another file.

    Parameters
    ----------
    source, base
        The particles of ``pairs``, row by row.
    pairs
        Which they are.
    programs
        Of the source and the base.

    Raises
    ------
    CryobridgeError
        If particles that should be the same lie further from each other than half of the box.
    MissingDataError
        If boxes lie elsewhere, and the pixel size of the micrographs is not known.
    """
    match = pairs.match
    if match.by == "place":
        assert match.convention is not None and match.offset_A is not None  # by place
        return Frame(match.convention, match.offset_A[pairs.source])
    offset_px, messages = _by_coordinates(source, base, programs)
    if offset_px is None:
        return Frame(messages=messages)
    return Frame(AS_STORED, _in_A(offset_px, source, base), messages)


def _micrograph_pixel_size_A(particles: ParticleSet) -> Floats | None:
    optics = particles.optics
    if optics is None or optics.micrograph_pixel_size_A is None:
        return None
    found: Floats = particles.per_particle("micrograph_pixel_size_A")
    return None if np.isnan(found).any() else found


def _by_coordinates(
    source: ParticleSet, base: ParticleSet, programs: tuple[Program, Program]
) -> tuple[Floats | None, tuple[Message, ...]]:
    """Return how far the boxes of one program's files are apart, (n, 2) px of the base's micrographs; None for not."""
    if programs[0] != programs[1] or programs[0] == "pickles":  # the names of the images are the same
        return None, ()
    is_same = _are_same_images(source, base)
    if is_same.all():
        return None, ()
    first, other = source.locations, base.locations
    if first is None or other is None or not _same_names(first.micrograph, other.micrograph)[~is_same].all():
        text = (
            "the two files name other images of the same particles, whose boxes are taken to lie at the same place "
            "of the micrograph"
        )
        return None, (note("boxes-taken-as-equal", text),)
    from_px, to_px = first.coordinate_px, other.coordinate_px
    if programs[0] == "relion":
        from_px, to_px = np.trunc(from_px), np.trunc(to_px)
    elif first.shape_px is not None and other.shape_px is not None:  # fractions hold for any binning
        from_px = from_px / first.shape_px[:, ::-1] * other.shape_px[:, ::-1]
    offset_px = np.where(is_same[:, np.newaxis], 0.0, to_px - from_px)
    offset_px[np.abs(offset_px).max(axis=1) < _ROUNDED_PX] = 0.0
    return (offset_px if offset_px.any() else None), ()


def _in_A(offset_px: Floats, source: ParticleSet, base: ParticleSet) -> Floats:
    size_A = _micrograph_pixel_size_A(base)
    size_A = _micrograph_pixel_size_A(source) if size_A is None else size_A
    moved = offset_px.any(axis=1)
    if size_A is None:
        raise MissingDataError(
            f"{counted(int(moved.sum()), 'particle has its box', 'particles have their boxes')} "
            "elsewhere on the micrograph than in "
            f"{source.source.name}, and the micrograph's pixel size is not known, without which shifts can't follow",
            path=base.source,
            option="onto",
            hint=f"Take no poses ({option('take', 'ctf')}), or give files that have the pixel size.",
        )
    offset_A = offset_px * size_A[:, np.newaxis]
    box_A = _box_A(base)
    far = np.flatnonzero(np.abs(offset_A).max(axis=1) > box_A / 2)
    if len(far):
        raise CryobridgeError(
            f"particles of the same uid or image lie up to {np.abs(offset_A).max():,.0f} Å from those of "
            f"{source.source.name}, further than half of the box",
            path=base.source,
            rows=tuple(far[:3].tolist()),
            count=len(far),
            hint="They are others that have the same names. Check that both files are of one extraction.",
        )
    return offset_A


def _box_A(particles: ParticleSet) -> Floats:
    """Return the edge of each image, (n,), infinite where it is not known."""
    if particles.optics is None:
        return np.full(len(particles), np.inf)
    box_A = particles.per_particle("box_px") * particles.per_particle("pixel_size_A")
    return np.where(box_A > 0, box_A, np.inf)


def _are_same_images(source: ParticleSet, base: ParticleSet) -> NDArray[np.bool_]:
    """Return which images are one section of one file, (n,), where both name it alike."""
    if source.images is None or base.images is None:
        return np.zeros(len(source), bool)
    same: NDArray[np.bool_] = source.images.index == base.images.index
    return np.logical_and(same, _same_names(source.images.path, base.images.path))


def _same_names(first: Labels, other: Labels) -> NDArray[np.bool_]:
    place = {text.removeprefix(">"): code for code, text in enumerate(other.values)}
    own = np.array([place.get(text.removeprefix(">"), -1) for text in first.values], np.int64)
    alike = np.array([place[text.removeprefix(">")] for text in other.values], np.int64)
    same: NDArray[np.bool_] = own[first.codes] == alike[other.codes]
    return same
