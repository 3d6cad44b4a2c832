"""Which files of a job folder are its iterations."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import FormatError, MissingDataError, option
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
from cryobridge.jobs.converge.assignments import has_classes
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cryobridge.formats.relion.names import RelionIteration

# Of a folder that is neither a job nor a project so many others in it are looked into.
_MOST_FOLDERS = 100


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
    """A job that has iterations.

    Parameters
    ----------
    job
        Its folder.
    program
        ``RELION`` or ``cryoSPARC``.
    iterations
        How many are there.
    last
        The number of the last one.
    ended
        ``success``, ``failure`` or ``aborted``; None while the job runs, and where it is unknown.
    """

    job: Path
    program: str
    iterations: int
    last: int
    ended: str | None


@dataclass(frozen=True)
class FoundJobs:
    """The jobs in a folder that have iterations.

    Parameters
    ----------
    folder
        The folder of a project, or one that holds jobs or projects.
    jobs
        The jobs, at least one.
    """

    folder: Path
    jobs: tuple[FoundJob, ...]


def jobs_in(folder: Path) -> FoundJobs | None:
    """Return the jobs with iterations in a folder that is no job itself; None where there are none.

    Parameters
    ----------
    folder
        The folder of a project, such as the one with default_pipeline.star, or one that holds jobs or projects, such
        as Class2D. Jobs of cryoSPARC count that have a class for each particle.

    Raises
    ------
    FormatError
        If the folder can't be listed.
    MissingDataError
        If it is a project's, and no job of it has such iterations.
    """
    listing = list_folder(folder)
    if find_iterations(listing).iterations:
        return None
    project = project_jobs(listing)
    if project is not None:
        found = [job for name in project[1] if (job := _found(list_if_there(folder / name))) is not None]
        if not found:
            raise MissingDataError(
                f"no job of this {project[0]} project has iterations with classes",
                path=folder,
                hint="Give the folder of a job that classifies or refines and keeps its iterations.",
            )
    else:
        found = list(_found_below(folder, sorted(listing.folders)[:_MOST_FOLDERS]))
    return FoundJobs(folder, tuple(found)) if found else None


def _found(listing: Listing) -> FoundJob | None:
    job = find_iterations(listing)
    if not job.iterations or (job.program == "cryoSPARC" and not has_classes(job.iterations[-1].data)):
        return None
    return FoundJob(job.folder, job.program, len(job.iterations), job.iterations[-1].number, job.ended or None)


def _found_below(folder: Path, names: Iterable[str]) -> Iterator[FoundJob]:
    """Yield the jobs that a folder holds, and those of the projects that it holds."""
    for name in names:
        try:
            listing = list_folder(folder / name)
            jobs = (project_jobs(listing) or ("", ()))[1]
            for found in (_found(listing), *(_found(list_if_there(listing.path / job)) for job in jobs)):
                if found is not None:
                    yield found
        except FormatError:  # one may not look into it
            continue


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
        found = jobs_in(job.folder)
        if found is not None:
            raise several_jobs_error(found)
        raise MissingDataError(
            "no iterations: neither run_it…_data.star nor J…_000_particles.cs",
            path=job.folder,
            hint="Give the folder of a Class2D, Class3D or Refine3D job; "
            f"{option('watch')} waits for the first iteration.",
        )


def several_jobs_error(found: FoundJobs) -> MissingDataError:
    """Return the error for a folder that holds jobs where that of a job is needed."""
    hint = f"Give one of its jobs, such as {shlex.quote(str(found.jobs[-1].job))}."
    return MissingDataError("this folder holds jobs, and is none itself", path=found.folder, hint=hint)


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
