"""Project folders of cryoSPARC and RELION: which jobs are in them, of what type, and how they ended.

Also what to give instead of a folder that a command does not take.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from cryobridge.errors import CryobridgeError, FormatError, UsageError
from cryobridge.formats.cryosparc.job import is_cryosparc_description
from cryobridge.formats.folders import CRYOSPARC_JOB, FOLDER_WORDS, OWN_OUTPUT, RELION_JOB, identify_folder
from cryobridge.formats.listing import list_folder, list_if_there, object_of, read_json_of, text_of
from cryobridge.formats.own_output import read_own_output
from cryobridge.formats.relion.job import (
    JOB_KINDS,
    MICROGRAPH_STARS,
    PIPELINE,
    particles_in,
    read_relion_job,
    status_of,
)
from cryobridge.formats.relion.pipeline import Process, read_pipeline
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.listing import Listing

Program: TypeAlias = Literal["cryoSPARC", "RELION"]
Wanted: TypeAlias = Literal["cryoSPARC particles", "RELION particles", "particles", "micrographs", "exposures"]

# Those with the highest numbers are described: the jobs that people are at.
MOST_JOBS: Final = 40
_CRYOSPARC_JOB = re.compile(r"J(?P<number>\d{1,9})")
_RELION_JOB = re.compile(r"job(?P<number>\d{3,9})")
# What to give where a folder has nothing of it, and the files that may be it.
INSTEAD: dict[Wanted, tuple[str, tuple[str, ...]]] = {
    "cryoSPARC particles": (
        "Give a .cs file, a .csg file, or the folder of one cryoSPARC job, such as J42.",
        (".csg", ".cs"),
    ),
    "RELION particles": ("Give a STAR file of particles, such as run_data.star.", (".star",)),
    "particles": (
        "Give a .cs, .csg or .star file of particles, or the folder of one job, such as J42 or Class2D/job004.",
        (".csg", ".cs", ".star"),
    ),
    "micrographs": ("Give the list of RELION's micrographs: CtfFind/jobXXX/micrographs_ctf.star.", (".star",)),
    "exposures": (
        "Give cryoSPARC's exposures: a .cs file, a .csg file, or the folder of one job, such as J3.",
        (".csg", ".cs"),
    ),
}


@dataclass(frozen=True)
class ListedJob:
    """A job of a project, as far as its description says.

    Parameters
    ----------
    path
        Its folder.
    name
        ``J42`` or ``Class3D/job012``.
    job_type
        As the program calls it, such as ``homo_refine_new`` or ``Class3D``; empty where it is unknown.
    status
        cryoSPARC's own word; of RELION ``success``, ``failure``, ``aborted``, ``running`` or ``scheduled``. Empty
        where it is not known.
    title
        The title that a user gave it, or RELION's alias.
    """

    path: Path
    name: str
    job_type: str = ""
    status: str = ""
    title: str = ""


@dataclass(frozen=True)
class Project:
    """The folder of a project.

    Parameters
    ----------
    names
        All jobs, such as ``J42`` or ``Class3D/job012``, by number.
    jobs
        The last of them, at most `MOST_JOBS`.
    problems
        What could not be read.
    """

    path: Path
    program: Program
    names: tuple[str, ...]
    jobs: tuple[ListedJob, ...]
    problems: tuple[Message, ...] = ()


def project_jobs(listing: Listing) -> tuple[Program, tuple[str, ...]] | None:
    """Return whose project a folder is, and the names of the jobs in it by number; None where it is no project.

    cryoSPARC's has folders J1, J2 …; RELION's has default_pipeline.star, or folders such as Class3D/job012.
    """
    matches = [match for name in listing.folders if (match := _CRYOSPARC_JOB.fullmatch(name))]
    if matches:
        return "cryoSPARC", tuple(match[0] for match in sorted(matches, key=lambda match: int(match["number"])))
    names = _relion_folders(listing)
    return ("RELION", names) if names or PIPELINE in listing.files else None


def read_project(listing: Listing) -> Project | None:
    """List the jobs of a project; None where the folder is none. One job's damage does not hide the others."""
    found = project_jobs(listing)
    if found is None:
        return None
    program, names = found
    problems: list[Message] = []
    if program == "cryoSPARC":
        jobs = [_cryosparc_job(listing.path / name, problems) for name in names[-MOST_JOBS:]]
    else:
        jobs = _relion_jobs(listing, names, problems)
    return Project(listing.path, program, names, tuple(jobs), tuple(problems))


def folder_refusal(folder: Path, wanted: Wanted) -> UsageError:
    """Return the error for a folder that a command does not take: what it is, and what to give instead.

    Parameters
    ----------
    folder
        The folder.
    wanted
        What the command takes: a job folder or a file of cryoSPARC's, a STAR file of particles, either, a STAR file
        of micrographs, or exposures of cryoSPARC's.
    """
    kind, listing = identify_folder(folder), list_folder(folder)
    program, names = (None if kind else project_jobs(listing)) or ("", ())
    jobs = [folder / name for name in reversed(names[-MOST_JOBS:])] or [folder]
    words = f"{program} project" if program else FOLDER_WORDS[kind] if kind else "folder of unknown content"
    otherwise, suffixes = INSTEAD[wanted]
    found = next((path for job in jobs if (path := _in_job(job, wanted)) is not None), None)
    if found is None and not program and _has_loose_files(folder, kind):
        found = next((folder / name for name in sorted(listing.files) if name.endswith(suffixes)), None)
    pickles = [folder / name for name in ("poses.pkl", "ctf.pkl") if name in listing.files]
    if found is None and pickles and not kind:
        # They don't say which images they are of.
        given = " ".join(shlex.quote(str(path)) for path in pickles)
        words, hint = "folder of pickles", f"Give their images with them, such as particles.mrcs {given}."
    elif found is None:
        hint = otherwise
    else:
        such_as = "" if kind else f"one of its {'jobs' if found.is_dir() else 'files'}, such as "
        hint = f"Give {such_as}{shlex.quote(str(found))}."
    return UsageError(f"this is a {words}", path=folder, hint=hint)


def _has_loose_files(folder: Path, kind: str | None) -> bool:
    """Whether any file of a folder may be the one that is meant: no job's folder, nor one of our stacks or picks."""
    return kind is None or (kind == OWN_OUTPUT and read_own_output(folder).kind == "other")


def _in_job(folder: Path, wanted: Wanted) -> Path | None:
    """Return what a command takes of a job: the folder itself of cryoSPARC's, a STAR file of RELION's; else None."""
    try:
        kind = identify_folder(folder)
        if kind == CRYOSPARC_JOB and wanted in {"cryoSPARC particles", "particles", "exposures"}:
            return folder
        if kind != RELION_JOB or wanted in {"cryoSPARC particles", "exposures"}:
            return None
        job = read_relion_job(folder)
    except CryobridgeError:
        return None
    if wanted != "micrographs":
        return particles_in(job)
    outputs = {path.name: path for path in job.outputs}
    return next((outputs[name] for name in MICROGRAPH_STARS if name in outputs), None)


def _cryosparc_job(folder: Path, problems: list[Message]) -> ListedJob:
    try:
        content = read_json_of(list_folder(folder), "job.json", problems)
    except FormatError as error:
        problems.append(warning("file-not-read", str(error), where=folder))
        content = {}
    if not is_cryosparc_description(content):
        return ListedJob(folder, folder.name)
    job_type = text_of(object_of(content, "spec"), "type") or text_of(content, "job_type", "type")
    return ListedJob(folder, folder.name, job_type, text_of(content, "status"), text_of(content, "title"))


def _relion_jobs(listing: Listing, names: tuple[str, ...], problems: list[Message]) -> list[ListedJob]:
    listed = read_pipeline(listing, problems)
    absent = listed.keys() - set(names)
    if absent:
        text = f"{len(absent)} of the {len(listed)} jobs of {PIPELINE} are not in this folder"
        problems.append(warning("jobs-not-found", text, where=listing.path))
    jobs = []
    for name in names[-MOST_JOBS:]:
        folder, process = listing.path / name, listed.get(name, Process())
        status = status_of(list_if_there(folder), process.status)
        jobs.append(ListedJob(folder, name, name.partition("/")[0], status, process.alias))
    return jobs


def _relion_folders(listing: Listing) -> tuple[str, ...]:
    """Return the jobs that are there, such as ``Class3D/job012``, by number."""
    found = []
    for kind in listing.folders & JOB_KINDS:
        for name in list_if_there(listing.path / kind).folders:
            if match := _RELION_JOB.fullmatch(name):
                found.append((int(match["number"]), f"{kind}/{name}"))
    return tuple(name for _, name in sorted(found))
