"""The particles that still jump between classes, and those that settled, as STAR files for RELION."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError, UsageError, option
from cryobridge.formats.relion.star import StarBlock, open_star
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.converge.assignments import particle_block, read_assignments
from cryobridge.options import as_path

if TYPE_CHECKING:
    from cryobridge.jobs.converge.tracking import ClassTracker


def require_star(program: str) -> None:
    """Raise where the job has no STAR file that particles could be taken from.

    Raises
    ------
    UsageError
        Then.
    """
    if program != "RELION":
        raise UsageError(
            "a STAR file of particles can only be written of a RELION job",
            hint=f"Leave {option('volatile')} and {option('settled')} out, or convert the particles first.",
        )


def is_volatile(tracker: ClassTracker, last: int, least: int) -> tuple[Path, NDArray[np.bool_]]:
    """Return which particles of the last iteration still jump.

    Parameters
    ----------
    tracker
        The iterations.
    last
        Steps to look back.
    least
        A particle that changed class in so many of them, or more, is volatile.

    Returns
    -------
    tuple
        The last iteration's file, and (n,) whether the particle in each of its rows is volatile.

    Raises
    ------
    FormatError
        If the file was written again since it was read.
    """
    newest = tracker.last_iteration
    if newest is None:
        raise MissingDataError("there is no iteration", path=tracker.folder)
    source = newest.source
    assignments = read_assignments(source)
    if not tracker.holds(newest.number, assignments):
        raise FormatError("the file was written again meanwhile", path=source, hint="Run the command again.")
    _, changes = tracker.jumps(last)
    return source, changes[tracker.rows_of(assignments)] >= least


def write_particles(source: str | os.PathLike[str], chosen: NDArray[np.bool_], path: str | os.PathLike[str]) -> int:
    """Write the chosen rows of a `_data.star` with all its columns and its other blocks, such as the optics.

    Parameters
    ----------
    source
        The file to take them from.
    chosen
        (n,) whether the particle in a row is written.
    path
        The file to write; one that is there is replaced.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    CryobridgeError
        If the file can't be written.
    """
    path = as_path(path, "path")
    star = open_star(source)
    name = particle_block(star)
    blocks = []
    for block in star.blocks:
        if block.name == name:
            table = block.table.filter(_as_mask(chosen))
            blocks.append(StarBlock(path, name, table, comments=block.comments))
        else:
            blocks.append(block)
    write_star(path, blocks)
    return int(np.count_nonzero(chosen))


def _as_mask(flags: NDArray[Any]) -> pa.Array:
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, pa.py_buffer(np.packbits(flags, bitorder="little"))])
