"""What a selection reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryobridge.formats.particle_files import FromAncestor
from cryobridge.jobs.identity.report import Matched
from cryobridge.report import Report


@dataclass(frozen=True, kw_only=True)
class CollapseReport:
    """What became of the copies of particles.

    Parameters
    ----------
    rows
        Rows that were chosen among.
    particles
        Particles that these are copies of; one row of each stays.
    by
        The column of the score that decided, or that the first copy was taken.
    ties
        Particles of which several copies are equally good.
    other_copies
        Rows that stay and are another copy than the first, so that an operator of the symmetry is in their poses.
    """

    rows: int
    particles: int
    by: str
    ties: int
    other_copies: int


@dataclass(frozen=True)
class SetReport:
    """How the rows were compared with those of another file.

    Parameters
    ----------
    operation
        ``or`` for a file whose particles are added, ``and`` for one that has to have a particle, ``not`` for one that
        may not have it.
    file
        The other file.
    by
        What they were compared by; None where no particle is in both.
    rows
        How many rows have a partner: of the other file where its particles are added, else of those that are chosen
        among.
    other_rows
        Rows of the other file.
    """

    operation: Literal["or", "and", "not"]
    file: str
    by: Literal["uid", "image", "place"] | None
    rows: int
    other_rows: int


@dataclass(frozen=True, kw_only=True)
class SelectReport(Report):
    """What a selection reads and writes.

    Parameters
    ----------
    inputs
        The files that were read.
    attached
        Columns that are added or replaced.
    files
        How many rows each particle file has that is written.
    rows_are
        What is chosen among.
    random, seed
        What a repetition of the draw needs to know; None where rows are not drawn.
    collapsed
        What became of copies; None where they were not collapsed.
    sets
        How the rows were compared with those of other files, in the order in which that was done.
    dedupe_A
        How near particles may be to a better one on their micrograph; None for however near.
    ranked_by
        The column that says which one is better; empty where none does. None where that is not asked.
    from_ancestors
        Columns that were fetched from jobs that the particles come from.
    matched
        How its particles were compared with another file's; None where they were not.
    """

    inputs: tuple[Path, ...]
    attached: tuple[str, ...]
    files: Mapping[str, int]
    rows_are: Literal["particles", "exposures", "micrographs"] = "particles"
    random: int | None = None
    seed: int | None = None
    collapsed: CollapseReport | None = None
    sets: tuple[SetReport, ...] = ()
    dedupe_A: float | None = None
    ranked_by: str | None = None
    from_ancestors: tuple[FromAncestor, ...] = ()
    matched: Matched | None = None
