"""What a file or folder holds and what it is good for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.jobs.inspection.options import InspectOptions

if TYPE_CHECKING:
    from os import PathLike

    from cryobridge.jobs.inspection.report import Inspection

__all__ = ["InspectOptions", "inspect_path"]


def inspect_path(path: str | PathLike[str], options: InspectOptions | None = None) -> Inspection:
    """Describe a file or folder, recognised by its content.

    Parameters
    ----------
    path
        A file, a folder of a job or a project, or a RECOVAR result.
    options
        What is asked for; if not given, all columns with their statistics.

    Raises
    ------
    FormatError
        If it can't be read, is damaged, or is nothing that is known here.
    MissingDataError
        If `InspectOptions.field_patterns` match nothing.
    """
    from cryobridge.jobs.inspection.dispatch import describe

    return describe(Path(path), options or InspectOptions())
