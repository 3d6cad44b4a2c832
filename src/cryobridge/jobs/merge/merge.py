"""Merging particle files from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.jobs.job import carried_out
from cryobridge.jobs.merge.options import MergeOptions
from cryobridge.jobs.merge.plan import plan_merge
from cryobridge.options import checked, made, takes

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryobridge.jobs.merge.report import MergeReport
    from cryobridge.progress import Reporter


@takes(MergeOptions)
def merge(
    particles: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> MergeReport:
    """Write the particles of several files of one program as one file, with all their columns.

    Parameters
    ----------
    particles
        Two or more `.star`, `.cs` or `.csg` files or job folders.
    output
        The file to write, of the same program.
    overwrite
        Replace outputs that are there.
    dry_run
        Check everything and write nothing.
    reporter
        Who hears of the progress.
    **options
        The fields of `MergeOptions`.

    Returns
    -------
    MergeReport
        What was written.

    Raises
    ------
    UsageError
        If the files are of several programs or layouts, or one is named twice.
    OutputExistsError
        If an output is there and may not be replaced.
    CryobridgeError
        If a particle stands in more than one of the files, or they do not go together.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.merge(["first.star", "second.star"], "both.star", split_halves=1)
    """
    paths: tuple[Path, ...] = checked(particles, tuple[Path, ...], "particles")
    job = plan_merge(paths, output, made(MergeOptions, options))
    return carried_out(job, overwrite=overwrite, dry_run=dry_run, reporter=reporter)
