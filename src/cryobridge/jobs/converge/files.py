"""Which files of a job folder are its iterations."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.cryosparc.names import parse_cs_name
from cryobridge.formats.listing import Listing, list_folder, list_if_there
from cryobridge.formats.projects import project_jobs
from cryobridge.formats.relion.branches import branch_messages, branches_of
from cryobridge.formats.relion.job import (
    final_of,
    is_final,
    looks_like_relion_job,
    read_relion_job,
    status_of,
)
from cryobridge.formats.relion.names import sort_iterations
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from cryobridge.formats.relion.names import RelionIteration


@dataclass(frozen=True)
class IterationFiles:
    """The files of one iteration.

    Parameters
    ----------
    number
        The iteration.
    data
        The particles with their classes: `_data.star`, or `_particles.cs`.
    models
        One `_model.star`, or one for each half set; empty where there is none.
    optimiser
        `_optimiser.star`, or None.
    """

    number: int
    data: Path
    models: tuple[Path, ...] = ()
    optimiser: Path | None = None


@dataclass(frozen=True)
class JobFiles:
    """What a job folder holds at one moment.

    Parameters
    ----------
    folder
        The job folder.
    program
        ``RELION`` or ``cryoSPARC``; empty where there is no iteration.
    iterations
        Ascending, each number once.
    ended
        ``success``, ``failure`` or ``aborted``; empty while the job runs, and where it is unknown.
    messages
        What was passed over.
    final
        What an automatic refinement that has converged ends with, or None; counted as one more iteration, which it
        is.
    is_continued
        Whether a run was continued, so that there may be branches.
    """

    folder: Path
    program: str
    iterations: tuple[IterationFiles, ...]
    ended: str = ""
    messages: tuple[Message, ...] = ()
    final: IterationFiles | None = None
    is_continued: bool = False


def find_iterations(listing: Listing) -> JobFiles:
    """Find the iterations of a RELION job, or those that a cryoSPARC job kept, in the listing of its folder.

    Of a job that was continued, those that lead to the newest one count.
    """
    folder = listing.path
    ended = status_of(listing, "")
    found, finals, problems = sort_iterations(folder, listing.files)
    branches = branches_of(item for item in found if item.data is not None)
    if branches.chain:
        messages = (*problems, *branch_messages(branches))
        is_continued = any(item.continued_from is not None for item in found)
        final = _final(branches.chain, finals)
        return JobFiles(folder, "RELION", _relion(branches.chain), ended, messages, final, is_continued)
    kept = _kept_by_cryosparc(listing)
    if kept:
        numbering = warning("classes-from-zero", "cryoSPARC counts classes from 0; its class 0 is class 1 here")
        return JobFiles(folder, "cryoSPARC", kept, ended, (numbering,))
    return JobFiles(folder, "", (), ended)


@dataclass(frozen=True)
class FoundJob:
    """A job of a project that has iterations.

    Parameters
    ----------
    folder
        Its folder.
    n_iterations
        How many are there.
    last
        The number of the last one.
    ended
        As in `JobFiles`.
    """

    folder: Path
    n_iterations: int
    last: int
    ended: str


def jobs_of_project(folder: Path) -> list[FoundJob] | None:
    """Return the jobs with iterations, by number, where a folder is that of a project and no job; else None.

    Raises
    ------
    FormatError
        If the folder can't be listed.
    MissingDataError
        If no job of the project has iterations.
    """
    listing = list_folder(folder)
    project = None if find_iterations(listing).iterations else project_jobs(listing)
    if project is None:
        return None
    program, names = project
    jobs = [find_iterations(list_if_there(folder / name)) for name in names]
    found = [
        FoundJob(job.folder, len(job.iterations), job.iterations[-1].number, job.ended)
        for job in jobs
        if job.iterations
    ]
    if not found:
        raise MissingDataError(
            f"no job of this {program} project has iterations", path=folder, hint="Give the folder of a job."
        )
    return found


def kind_of(folder: Path) -> str:
    """Return Class2D, Class3D, Refine3D …; empty where it is unknown, as in cryoSPARC's folders."""
    return read_relion_job(folder).kind if looks_like_relion_job(list_folder(folder)) else ""


def require_iterations(job: JobFiles) -> None:
    """Raise where a folder has no iterations at all.

    Raises
    ------
    MissingDataError
        Then.
    """
    if not job.iterations:
        jobs = jobs_of_project(job.folder)
        if jobs is not None:
            raise project_error(job.folder, jobs)
        raise MissingDataError(
            "no iterations: neither run_it…_data.star nor J…_000_particles.cs",
            path=job.folder,
            hint="Give the folder of a Class2D, Class3D or Refine3D job; "
            f"{option('watch')} waits for the first iteration.",
        )


def project_error(folder: Path, jobs: list[FoundJob]) -> MissingDataError:
    """Return the error for the folder of a project where that of a job is needed."""
    hint = f"Give one of its jobs, such as {shlex.quote(str(jobs[-1].folder))}."
    return MissingDataError("this is the folder of a project, not of a job", path=folder, hint=hint)


def _relion(chain: tuple[RelionIteration, ...]) -> tuple[IterationFiles, ...]:
    return tuple(
        IterationFiles(item.number, item.data, _models(item), item.optimiser)
        for item in chain
        if item.number is not None and item.data is not None
    )


def _final(chain: tuple[RelionIteration, ...], finals: tuple[RelionIteration, ...]) -> IterationFiles | None:
    final = final_of(chain, finals)
    if final is None or final.data is None or not is_final(final):
        return None
    return IterationFiles((chain[-1].number or 0) + 1, final.data, _models(final), final.optimiser)


def _models(item: RelionIteration) -> tuple[Path, ...]:
    return tuple(path for path in (item.model, item.half1_model, item.half2_model) if path is not None)


def _kept_by_cryosparc(listing: Listing) -> tuple[IterationFiles, ...]:
    """Return the particles that a job wrote at each iteration, such as ``J2_000_particles.cs``."""
    found = {}
    for name in sorted(listing.files):
        parsed = parse_cs_name(name) if name.endswith(".cs") else None
        if parsed is None or not parsed.job or parsed.group != "particles" or parsed.is_passthrough:
            continue
        if isinstance(parsed.iteration, int):
            found[parsed.iteration] = IterationFiles(parsed.iteration, listing.path / name)
    return tuple(found[number] for number in sorted(found))
