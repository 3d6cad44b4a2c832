"""Half sets of merged particles: drawn anew, or counted as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.cryosparc.alignments import ALIGNED_2D, alignments_in
from cryobridge.formats.optics import distinct_rows
from cryobridge.formats.relion.accepted import HALF_SETS
from cryobridge.model.particles import Labels
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Array, Values
    from cryobridge.jobs.merge.options import HalvesOf
    from cryobridge.jobs.merge.report import Unit

# With a smaller share of the rows in one half, the two are too unlike.
_LEAST_SHARE = 0.45


@dataclass(frozen=True, eq=False)
class Halves:
    """New half sets.

    Attributes
    ----------
    half_set
        (n,) 1 or 2; 0 for rows that are not written.
    of
        What is in one half as a whole.
    columns
        The columns that say so.
    messages
        What they were made of.
    """

    half_set: NDArray[np.int64]
    of: Unit
    columns: Mapping[str, Values]
    messages: tuple[Message, ...]


def split_halves(files: ParticleFiles, kept: NDArray[np.bool_], seed: int, of: HalvesOf) -> Halves:
    """Draw two half sets of about the same size, of whole micrographs, filaments, or particles with all their copies.

    Units are put, in a random order, into the half that has fewer rows. Of the units that the files tell apart, the
    largest are taken by which the smaller half has at least 45 % of the rows.

    Parameters
    ----------
    files
        The files.
    kept
        (n,) the rows that are written.
    seed
        Of the random numbers, `numpy.random.PCG64`.
    of
        ``particles`` for particles with their copies even where micrographs are known.

    Raises
    ------
    MissingDataError
        If the files have no micrographs and these are asked for, or no alignments that half sets belong to.
    """
    rows = np.flatnonzero(kept)
    messages: list[Message] = []
    half_set = np.zeros(len(kept), np.int64)
    taken: Unit = "particles"
    for unit, codes in _units(files, of):
        taken = unit
        half_set[rows] = _drawn(codes[rows], seed)
        smaller = min(int(np.count_nonzero(half_set == half)) for half in (1, 2))
        if unit == "particles" or smaller >= _LEAST_SHARE * len(rows):
            break
        share = f"{smaller:,} of {counted(len(rows), 'row')}"
        if of == "micrographs":
            messages.append(warning("halves-unequal", f"the smaller half has {share}", option="halves_of"))
            break
        text = f"with whole {unit} the smaller half would have {share}: smaller units are taken"
        messages.append(note("halves-of-smaller-units", text, option="halves_of"))
    text = f"half sets are drawn anew, whole {taken} in one half"
    if taken == "particles":
        text = "half sets are drawn anew, all copies of a particle in one half"
    messages.append(note("halves-drawn", text, option="split_halves"))
    return Halves(half_set, taken, _columns(files, half_set), tuple(messages))


def half_sets_of(files: ParticleFiles) -> NDArray[np.int64] | None:
    """Return the half sets that files have, (n,), 0 for none; None where they have none."""
    name = HALF_SETS if files.program == "relion" else next(iter(_split_columns(files)), "")
    if name not in files.columns:
        return None
    values = files.columns.read([name])[name]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        return None
    values = values if values.ndim == 1 else values[:, 0]
    return values.astype(np.int64) + (files.program == "cryosparc")


def _units(files: ParticleFiles, of: HalvesOf) -> Iterator[tuple[Unit, NDArray[np.int64]]]:
    """Yield numbers of the units that rows are of, (n,), the largest units first."""
    micrograph = _micrographs(files)
    if of == "micrographs" and micrograph is None:
        raise MissingDataError(
            "it does not say which micrographs particles are on",
            path=files.metadata,
            hint=f"Leave {option('halves_of')} out: particles are drawn one by one then.",
        )
    if of != "particles" and micrograph is not None:
        yield "micrographs", micrograph
    tube = _numbers(files, "rlnHelicalTubeID" if files.program == "relion" else "filament/filament_uid")
    if tube is not None:
        yield "filaments", distinct_rows([tube] if micrograph is None else [micrograph, tube]).astype(np.int64)
    parent = files.parent_uid()
    images = files.images()
    if parent is not None:
        yield "particles", np.unique(parent, return_inverse=True)[1].astype(np.int64)
    elif images is not None:
        yield "particles", distinct_rows([images.path.codes, images.index]).astype(np.int64)
    else:
        yield "particles", np.arange(len(files))


def _micrographs(files: ParticleFiles) -> NDArray[np.int64] | None:
    uid = _numbers(files, "location/micrograph_uid")
    if uid is not None and uid.any():
        return np.unique(uid, return_inverse=True)[1].astype(np.int64)
    name = "rlnMicrographName" if files.program == "relion" else "location/micrograph_path"
    values = files.columns.read([name])[name] if name in files.columns else None
    return values.codes.astype(np.int64) if isinstance(values, Labels) and any(values.values) else None


def _numbers(files: ParticleFiles, name: str) -> Array | None:
    values = files.columns.read([name])[name] if name in files.columns else None
    return values if isinstance(values, np.ndarray) and values.ndim == 1 else None


def _drawn(unit: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the half of each row, (n,), 1 or 2: units go, in a random order, into the half that has fewer rows."""
    if not len(unit):
        return np.zeros(0, np.int64)
    number, size = np.unique(unit, return_inverse=True, return_counts=True)[1:]
    random = np.random.Generator(np.random.PCG64(seed))
    half, n_rows = np.zeros(len(size), np.int64), [0, 0]
    first = int(random.integers(2))
    for one in random.permutation(len(size)).tolist():
        place = first if n_rows[0] == n_rows[1] else int(n_rows[1] < n_rows[0])
        half[one] = place + 1
        n_rows[place] += int(size[one])
    drawn: NDArray[np.int64] = half[number]
    return drawn


def _split_columns(files: ParticleFiles) -> list[str]:
    """Return the columns of a `.cs` file that have half sets: of each 3D alignment."""
    groups = dict.fromkeys(group for own in alignments_in(files.columns.names).values() for group in own)
    return [f"{group}/split" for group in groups if group != ALIGNED_2D]


def _columns(files: ParticleFiles, half_set: NDArray[np.int64]) -> dict[str, Values]:
    if files.program == "relion":
        return {HALF_SETS: half_set}
    names = _split_columns(files)
    if not names:
        raise MissingDataError(
            "no 3D alignments, to which cryoSPARC's half sets belong",
            path=files.metadata,
            hint=f"Leave {option('split_halves')} out: cryoSPARC's refinements draw half sets by themselves.",
        )
    shapes = {column.name: column.shape for column in files.columns.columns}
    split = np.maximum(half_set - 1, 0).astype(np.uint32)
    return {
        name: np.broadcast_to(split.reshape(-1, *[1] * len(shape)), (len(split), *shape)).copy()
        for name in names
        for shape in [shapes.get(name, ())]
    }
