"""What a merge reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from cryobridge.report import Report

Unit: TypeAlias = Literal["micrographs", "filaments", "particles"]


@dataclass(frozen=True, kw_only=True)
class MergeReport(Report):
    """What a merge reads and writes.

    Parameters
    ----------
    inputs
        The files that were read.
    merged
        How many rows of each file are written.
    dropped
        Columns that only some of the files have, and are left out.
    half_sets
        How many rows are written of half set 1 and of half set 2, and how many of none (0); None where the files have
        no half sets.
    halves_of
        What was put into one half as a whole; None where half sets were kept.
    seed
        Of the random numbers; None likewise.
    dedupe_A
        How near particles may be to a better one on their micrograph; None for however near.
    ranked_by
        The column that says which one is better; empty where none does. None where that is not asked.
    """

    inputs: tuple[Path, ...]
    merged: Mapping[str, int]
    dropped: tuple[str, ...] = ()
    half_sets: Mapping[str, int] | None = None
    halves_of: Unit | None = None
    seed: int | None = None
    dedupe_A: float | None = None
    ranked_by: str | None = None
