"""Micrographs from one program to the other, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.jobs.exposures.job import micrographs_job
from cryobridge.jobs.exposures.options import MicrographsOptions
from cryobridge.jobs.job import carried_out
from cryobridge.options import as_path, checked, made, takes

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryobridge.jobs.exposures.report import MicrographsReport
    from cryobridge.progress import Reporter


@takes(MicrographsOptions)
def micrographs(
    exposures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> MicrographsReport:
    """Write cryoSPARC's micrographs as RELION's lists, with files under names that RELION takes; or RELION's back.

    Parameters
    ----------
    exposures
        Exposures of cryoSPARC, a `.cs` or `.csg` file or a job folder; or several, of which the others are `.cs` files
        to be joined with the first. Or a STAR file of RELION's micrographs, which become exposures.
    output
        The folder to write to: one such as ``MotionCorr/job002`` in a RELION project, or one of its own. On the way to
        cryoSPARC a `.cs` file.
    overwrite
        Replace lists that are there.
    dry_run
        Check everything and write nothing.
    reporter
        Who hears of the progress.
    **options
        The fields of `MicrographsOptions`.

    Returns
    -------
    MicrographsReport
        What was written.

    Raises
    ------
    UsageError
        If a value is of the wrong type, the input has no exposures, or the output is another program's folder.
    OutputExistsError
        If lists are there and may not be replaced.
    CryobridgeError
        If files are not found, or what a list needs is not known.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.micrographs("J3", "relion/MotionCorr/job002")
    >>> report.lists["micrographs_ctf.star"]
    """
    paths: tuple[Path, ...] = checked(exposures, tuple[Path, ...], "exposures")
    job = micrographs_job(paths, as_path(output, "output"), made(MicrographsOptions, options), reporter=reporter)
    return carried_out(job, overwrite=overwrite, dry_run=dry_run, reporter=reporter)
