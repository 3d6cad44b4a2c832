"""Inspecting what is no job itself: project folders, and folders with known files or jobs in them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryobridge.errors import CryobridgeError
from cryobridge.formats.folders import FOLDER_WORDS, RELION_JOB, identify_folder
from cryobridge.formats.listing import list_folder
from cryobridge.formats.projects import MOST_JOBS, ListedJob, Project, project_jobs, read_project
from cryobridge.formats.relion.job import MICROGRAPH_STARS, read_relion_job
from cryobridge.jobs.inspection.report import Inspection
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.formats.listing import Listing
    from cryobridge.jobs.inspection.options import InspectOptions
    from cryobridge.jobs.inspection.tables import Facts
    from cryobridge.progress import Reporter

CRYOSPARC_PROJECT: Final = "cryosparc project"
RELION_PROJECT: Final = "relion project"
FOLDER: Final = "folder"

_PROJECTS = {"cryoSPARC": CRYOSPARC_PROJECT, "RELION": RELION_PROJECT}
# What a file is called here, the most telling first: the next step is to look at the first of them.
_SUFFIXES = (".csg", ".cs", ".star", ".mrcs", ".mrc", ".map", ".st", ".rec", ".ccp4", ".pkl", ".pt", ".npz", ".npy")
_MOST_FOLDERS = 40
_MOST_NAMES = 4


@dataclass(frozen=True)
class Subfolder:
    """A folder in a folder: what is known of it, as a kind and in words; the kind is empty for one of files alone."""

    path: Path
    kind: str
    words: str


@dataclass(frozen=True)
class Contents:
    """What a folder that is no job holds.

    Parameters
    ----------
    project
        The project that it is, or None.
    files
        Names of the files whose suffix is known, the most telling first.
    folders
        Those of which something is known, at most `_MOST_FOLDERS` of them looked at.
    n_unseen
        How many were not looked at.
    """

    path: Path
    project: Project | None
    files: tuple[str, ...]
    folders: tuple[Subfolder, ...]
    n_unseen: int

    @property
    def kind(self) -> str:
        """``cryosparc project``, ``relion project`` or ``folder``; empty where nothing is known in it."""
        if self.project is not None:
            return _PROJECTS[self.project.program]
        return FOLDER if self.files or self.folders else ""

    def next_path(self) -> Path | None:
        """Return what is worth a look next: the last job, else a job or project in it, else its most telling file."""
        jobs = [job.path for job in reversed(self.project.jobs)] if self.project is not None else []
        known = [next((path for path in jobs if _kind_of(path)), None)]
        known += [folder.path for folder in self.folders if folder.kind]
        known += [self.path / name for name in self.files[:1]]
        known += [*jobs, *(folder.path for folder in self.folders)]
        return next((path for path in known if path is not None), None)


def read_contents(path: Path) -> Contents:
    """Look into a folder: its project, its files, and what its subfolders are.

    Raises
    ------
    FormatError
        If it can't be listed.
    """
    listing = list_folder(path)
    project = read_project(listing)
    of_jobs = set() if project is None else {name.partition("/")[0] for name in project.names}
    names = sorted(listing.folders - of_jobs, key=_natural)
    seen = [folder for name in names[:_MOST_FOLDERS] if (folder := _subfolder(path / name))]
    # Beside the jobs of a project lie folders of raw data, which say nothing; results of other programs do.
    folders = tuple(folder for folder in seen if folder.kind or project is None)
    n_unseen = 0 if project is not None else max(0, len(names) - _MOST_FOLDERS)
    return Contents(path, project, known_files(listing), folders, n_unseen)


def known_files(listing: Listing) -> tuple[str, ...]:
    """Return the files whose suffix is that of a format which is known here, the most telling first."""
    order = {suffix: place for place, suffix in enumerate(_SUFFIXES)}
    lists = {name: place for place, name in enumerate(MICROGRAPH_STARS)}
    found = [
        (order[suffix], lists.get(name, len(lists)), _natural(name), name)
        for name in listing.files
        if (suffix := _suffix(name)) in order
    ]
    return tuple(name for *_, name in sorted(found))


def inspect_folder(path: Path, _options: InspectOptions, _reporter: Reporter) -> Inspection:
    """Describe a project, or a folder that has known files or jobs in it, and say what to look at next."""
    contents = read_contents(path)
    project = contents.project
    facts: Facts = []
    if project is not None:
        facts = [("jobs", f"{len(project.names):,}"), *((job.name, _job_text(job)) for job in project.jobs)]
        if n_more := len(project.names) - len(project.jobs):
            facts.append(("…", f"and {n_more:,} more, with lower numbers"))
    facts += [(f"{folder.path.name}/", folder.words) for folder in contents.folders]
    if contents.n_unseen:
        facts.append(("…", f"and {counted(contents.n_unseen, 'more folder')}, not looked at"))
    if contents.files:
        facts.append(("files", files_text(contents.files)))
    following = contents.next_path()
    command = ["cryobridge", "inspect", str(following)] if following is not None else None
    if command is not None:
        facts.append(("next", shlex.join(command)))
    title = f"{project.program} project" if project is not None else "folder"
    details = {
        "jobs": None if project is None else _job_details(project),
        "n_jobs": None if project is None else len(project.names),
        "folders": [{"path": str(folder.path), "kind": folder.kind or None} for folder in contents.folders],
        "files": dict(Counter(_suffix(name) for name in contents.files)),
        "next": command,
    }
    messages = () if project is None else project.problems
    return Inspection(str(path), contents.kind, title, facts=tuple(facts), messages=messages, details=details)


def _job_details(project: Project) -> list[dict[str, Any]]:
    return [
        {"path": str(job.path), "name": job.name, "type": job.job_type, "status": job.status, "title": job.title}
        for job in project.jobs
    ]


def _job_text(job: ListedJob) -> str:
    # RELION's names begin with the type.
    job_type = "" if job.name.startswith(f"{job.job_type}/") else job.job_type
    words = ", ".join(part for part in (job_type, job.status, f"“{job.title}”" if job.title else "") if part)
    return words or _words_of_files(job.path) or "nothing known in it"


def _subfolder(path: Path) -> Subfolder | None:
    """Say what a subfolder is; None where nothing in it is known."""
    if kind := _kind_of(path):
        return Subfolder(path, kind, ", ".join(filter(None, [FOLDER_WORDS[kind], _status_of(path, kind)])))
    try:
        project = project_jobs(list_folder(path))
    except CryobridgeError:
        return None
    if project is not None:
        program, names = project
        # Folders of other things are named like jobs too, such as links to cryoSPARC's stacks below RELION's Extract/.
        if any(_kind_of(path / name) for name in reversed(names[-MOST_JOBS:])):
            return Subfolder(path, _PROJECTS[program], f"{program} project, {counted(len(names), 'job')}")
    words = _words_of_files(path)
    return Subfolder(path, "", words) if words else None


def _status_of(path: Path, kind: str) -> str:
    if kind != RELION_JOB:
        return ""
    try:
        status = read_relion_job(path).status
    except CryobridgeError:
        return ""
    return "" if status == "unknown" else status


def _kind_of(path: Path) -> str:
    try:
        return identify_folder(path) or ""
    except CryobridgeError:
        return ""


def _words_of_files(path: Path) -> str:
    """Count the known files of a folder and of those in it, such as ``extract/: 6 .mrc``."""
    try:
        listing = list_folder(path)
        inner = {
            f"{name}/": known_files(list_folder(path / name))
            for name in sorted(listing.folders, key=_natural)[:_MOST_NAMES]
        }
    except CryobridgeError:
        return ""
    parts = [_counts(known_files(listing)), *(f"{name}: {_counts(files)}" for name, files in inner.items() if files)]
    return "; ".join(part for part in parts if part)


def files_text(names: tuple[str, ...]) -> str:
    """Name a few files, and count many."""
    return ", ".join(names) if len(names) <= _MOST_NAMES else _counts(names)


def _counts(names: tuple[str, ...]) -> str:
    return ", ".join(f"{n:,} {suffix}" for suffix, n in Counter(map(_suffix, names)).items())


def _suffix(name: str) -> str:
    path = Path(name)
    inner = Path(path.stem).suffix if path.suffix in {".gz", ".bz2"} else path.suffix
    return inner.lower()


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts ``J9`` before ``J10``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d{1,18})", name)]
