"""What an inspection is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryobridge.options import as_path
from cryobridge.progress import Reporter, Silent


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
        Where to look for them (see `cryobridge.formats.image_search.ImageSearch`).
    reporter
        Who is told how far the work is.

    Raises
    ------
    UsageError
        If ``datadir`` is neither a text nor a path.
    """

    statistics: bool = True
    field_patterns: tuple[str, ...] = ()
    n_rows: int = 0
    check_paths: bool = False
    datadir: Path | None = None
    strip_prefix: str | None = None
    reporter: Reporter = field(default_factory=Silent, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "datadir", None if self.datadir is None else as_path(self.datadir, "datadir"))
