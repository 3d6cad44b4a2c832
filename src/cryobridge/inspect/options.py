"""What an inspection is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class InspectOptions:
    """What an inspection is asked for.

    Parameters
    ----------
    statistics
        Read the columns, not only the header.
    field_patterns
        Shell patterns of the columns to describe; empty means all.
    n_rows
        How many first rows to give.
    check_paths
        Look for the image files that the metadata name.
    datadir, strip_prefix
        Where to look for them (see `cryobridge.paths.ImageSearch`).
    """

    statistics: bool = True
    field_patterns: tuple[str, ...] = ()
    n_rows: int = 0
    check_paths: bool = False
    datadir: Path | None = None
    strip_prefix: str | None = None
