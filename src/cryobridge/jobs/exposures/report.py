"""What `micrographs` reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryobridge.jobs.exposures.motion_fit import MotionFit
from cryobridge.report import Report


@dataclass(frozen=True, kw_only=True)
class MicrographsReport(Report):
    """What `micrographs` reads and writes.

    Parameters
    ----------
    inputs
        The files that were read.
    lists
        How many rows each list has, by the name of its file.
    optics_groups
        Optics groups that have micrographs.
    links, copies
        Image files that are linked, and that are copied.
    rewritten
        Of the copies, micrographs of half precision that became float32.
    flipped
        Of the copies, micrographs whose rows are reversed.
    missing
        Names of micrographs and movies that were not found.
    motion
        How well RELION's model holds the motion; None where no metadata of motion are written.
    motion_left_out
        Micrographs without metadata of motion, by reason.
    gain_references
        The gain references that are written for RELION.
    dose_per_frame_e_A2
        Least and greatest dose of a frame, e/Å²; None where it is not known.
    relion_project
        The folder that names start from; None on the way to cryoSPARC.
    dropped_columns
        On that way, RELION's columns that there is no place for.
    """

    inputs: tuple[Path, ...]
    lists: Mapping[str, int]
    optics_groups: int
    links: int = 0
    copies: int = 0
    rewritten: int = 0
    flipped: int = 0
    missing: tuple[str, ...] = ()
    motion: MotionFit | None = None
    motion_left_out: Mapping[str, int] = field(default_factory=dict)
    gain_references: tuple[Path, ...] = ()
    dose_per_frame_e_A2: tuple[float, float] | None = None
    relion_project: Path | None = None
    dropped_columns: tuple[str, ...] = ()
