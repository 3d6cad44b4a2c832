"""Turning cryoSPARC's picks into RELION's coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryobridge.jobs.coords.job import prepare_coords
from cryobridge.jobs.coords.options import CoordsOptions
from cryobridge.jobs.job import carried_out
from cryobridge.options import made, takes

if TYPE_CHECKING:
    import os

    from cryobridge.jobs.coords.report import CoordsReport
    from cryobridge.progress import Reporter


@takes(CoordsOptions)
def coords(
    picks: str | os.PathLike[str],
    micrographs: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> CoordsReport:
    """Turn cryoSPARC's picks into coordinates that RELION's Extract takes.

    Coordinates are in pixels of RELION's micrographs, x = nx·fx and y = ny − ny·fy unless flips are given
    (`cryobridge.model.convention.Convention`). Nobody is asked: columns that were inferred are a warning with the code
    ``"columns-inferred"``; with ``nudge=False`` nothing is inferred.

    Parameters
    ----------
    picks
        Picks or particles of cryoSPARC: a `.cs` or `.csg` file or a job folder.
    micrographs
        The STAR file with RELION's names of the micrographs, such as ``CtfFind/job003/micrographs_ctf.star``.
    output
        The folder that ``autopick.star`` and ``Raw_data`` are written to.
    overwrite
        Replace picks that are there.
    dry_run
        Check everything and write nothing.
    reporter
        Who hears of the progress.
    **options
        The fields of `CoordsOptions`.

    Returns
    -------
    CoordsReport
        What was done; its ``warnings`` say what may make the coordinates wrong.

    Raises
    ------
    UsageError
        If a value is of the wrong type, or the files are given in the wrong order.
    OutputExistsError
        If there are picks in the folder already and they may not be replaced.
    OrientationError
        If ``strict_orientation`` is given and another axis convention fits.
    CryobridgeError
        If a file lacks columns, rows or values, a micrograph is not in the STAR file, or picks lie outside theirs.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.coords("J4/J4_003_particles.cs", "CtfFind/job003/micrographs_ctf.star", "AutoPick/cryosparc")
    >>> report.outputs[0]
    PosixPath('AutoPick/cryosparc/autopick.star')
    """
    given = made(CoordsOptions, options)
    job = prepare_coords(picks, micrographs, output, given, may_exist=overwrite or dry_run, reporter=reporter)
    return carried_out(job, overwrite=overwrite, dry_run=dry_run, reporter=reporter)
