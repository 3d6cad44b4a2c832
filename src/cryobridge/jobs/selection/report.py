"""What a selection reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryobridge.report import Report


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
    """

    inputs: tuple[Path, ...]
    attached: tuple[str, ...]
    files: Mapping[str, int]
    rows_are: Literal["particles", "exposures", "micrographs"] = "particles"
    random: int | None = None
    seed: int | None = None
