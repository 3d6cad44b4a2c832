"""What can be asked of an inspection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryobridge.errors import UsageError, option
from cryobridge.jobs.inspection.use_list import CHECK_NAMES, CheckName
from cryobridge.jobs.offers import columns
from cryobridge.jobs.shared_options import ImageSearchOptions
from cryobridge.options import Opt


@dataclass(frozen=True, kw_only=True)
class InspectOptions(ImageSearchOptions):
    """What is described of a file or folder, and what it is held to.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.

    Examples
    --------
    >>> InspectOptions(fields=("ctf/*",), rows=3, check=("poses",)).statistics
    True
    """

    fields: Annotated[
        tuple[str, ...],
        Opt(
            "Show only these columns, such as 'ctf/*'. Repeatable.",
            metavar="PATTERN",
            panel="What is shown",
            complete=columns,
        ),
    ] = ()
    rows: Annotated[int, Opt("Show the first N rows.", metavar="N", panel="What is shown", low=0, default="")] = 0
    statistics: Annotated[
        bool,
        Opt(
            "Read the columns and show their ranges, or read headers only.",
            flags=("--stats/--no-stats",),
            panel="What is shown",
        ),
    ] = True
    plot: Annotated[
        Path | None,
        Opt("Draw distributions, images or slices into this file.", metavar="FILE.png", panel="What is shown"),
    ] = None
    check: Annotated[
        tuple[CheckName, ...],
        Opt(
            f"Exit with code 3 unless the file is ready for this: {', '.join(CHECK_NAMES)}. Repeatable.",
            metavar="JOB",
            panel="Checks",
            complete=CHECK_NAMES,
        ),
    ] = ()
    check_paths: Annotated[
        bool,
        Opt("Check that the image files it names exist and are long enough.", flags=("--paths",), panel="Checks"),
    ] = False

    @property
    def asks_for_columns(self) -> bool:
        """Whether something is asked that only tables of particles have."""
        return bool(self.fields or self.rows or self.check_paths)

    def refuse_idle(self) -> None:
        """Refuse options that would do nothing.

        Raises
        ------
        UsageError
            If image files are to be looked for somewhere, but are not looked for.
        """
        if self.says_where and not (self.check_paths or "relion" in self.check):
            raise UsageError(
                f"{option('datadir')} and {option('strip_prefix')} go with {option('check_paths', True)}",
                hint=f"Add {option('check_paths', True)}.",
            )
