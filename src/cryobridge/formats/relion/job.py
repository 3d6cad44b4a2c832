"""RELION job folders: which job it was, its iterations, its outputs and how it ended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from cryobridge.errors import FormatError
from cryobridge.formats.image_search import as_given
from cryobridge.formats.input_file import open_input, resolved
from cryobridge.formats.listing import Listing, is_there, list_folder
from cryobridge.formats.relion.branches import branch_messages, branches_of
from cryobridge.formats.relion.names import RelionIteration, iteration_problems, sort_iterations
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    import os

# What a job ends with.
Ended: TypeAlias = Literal["success", "failure", "aborted"]

EXIT_MARKERS: dict[str, Ended] = {
    "RELION_JOB_EXIT_SUCCESS": "success",
    "RELION_JOB_EXIT_FAILURE": "failure",
    "RELION_JOB_EXIT_ABORTED": "aborted",
}
# The second part of rlnJobTypeLabel (RELION 4 and later), rlnJobType (3.1), and the folder's name.
_KIND_OF_LABEL = {
    "import": "Import",
    "motioncorr": "MotionCorr",
    "ctffind": "CtfFind",
    "manualpick": "ManualPick",
    "autopick": "AutoPick",
    "extract": "Extract",
    "select": "Select",
    "class2d": "Class2D",
    "initialmodel": "InitialModel",
    "class3d": "Class3D",
    "refine3d": "Refine3D",
    "multibody": "MultiBody",
    "maskcreate": "MaskCreate",
    "joinstar": "JoinStar",
    "subtract": "Subtract",
    "postprocess": "PostProcess",
    "localres": "LocalRes",
    "polish": "Polish",
    "ctfrefine": "CtfRefine",
    "external": "External",
}
_KIND_OF_NUMBER = {
    0: "Import",
    1: "MotionCorr",
    2: "CtfFind",
    3: "ManualPick",
    4: "AutoPick",
    5: "Extract",
    7: "Select",
    8: "Class2D",
    9: "Class3D",
    10: "Refine3D",
    12: "MaskCreate",
    13: "JoinStar",
    14: "Subtract",
    15: "PostProcess",
    16: "LocalRes",
    18: "InitialModel",
    19: "MultiBody",
    20: "Polish",
    21: "CtfRefine",
    99: "External",
}
JOB_KINDS = frozenset(_KIND_OF_LABEL.values())
# Files that only one kind of job writes, the telling ones first.
_KIND_OF_FILE = {
    "corrected_micrographs.star": "MotionCorr",
    "micrographs_ctf.star": "CtfFind",
    "extractpick.star": "Extract",
    "autopick.star": "AutoPick",
    "manualpick.star": "ManualPick",
    "class_averages.star": "Select",
    "initial_model.mrc": "InitialModel",
    "postprocess.star": "PostProcess",
    "particles_ctf_refine.star": "CtfRefine",
    "shiny.star": "Polish",
    "particles_subtracted.star": "Subtract",
    "join_particles.star": "JoinStar",
    "mask.mrc": "MaskCreate",
    "movies.star": "Import",
}
# The results that list particles and micrographs, those of later steps first.
PARTICLE_STARS = (
    *("shiny.star", "particles_ctf_refine.star", "particles_subtracted.star", "join_particles.star"),
    "particles.star",
)
MICROGRAPH_STARS = ("micrographs_ctf.star", "corrected_micrographs.star", "micrographs.star")
_OUTPUTS = (*_KIND_OF_FILE, "particles.star", "micrographs.star", "coords_suffix_autopick.star", "optics.star")
_JOB_TYPE = re.compile(rb"^_rlnJobType(?P<label>Label)?\s+(?P<value>\S+)", re.MULTILINE)
_JOB_STAR_HEAD_BYTES = 64 << 10
_PROJECT_LEVELS = 4
_FINAL_DATA = re.compile(r"run(_ct\d+)?_data\.star")
PIPELINE = "default_pipeline.star"


@dataclass(frozen=True)
class RelionJob:
    """What a job folder holds.

    Parameters
    ----------
    kind
        ``Class2D``, ``Refine3D``, ``Extract`` … as RELION names the folder; empty where it is unknown.
    known_by
        What the kind is known by: ``job.star``, ``folder name``, ``files``, or nothing.
    project
        The folder above that has default_pipeline.star, or None. Paths in STAR files are relative to it.
    status
        ``success``, ``failure`` or ``aborted``; ``running`` or ``scheduled`` where the project says so; else
        ``unknown`` (see `status_of`).
    iterations
        All of them, ascending.
    chain
        Those that lead to the newest one, without those of other branches of a job that was continued.
    final
        The files without an iteration number that a refinement ends with, of the run that counts, or None.
    outputs
        Other known results, such as micrographs_ctf.star.
    problems
        Missing and half-written iterations, in sentences.
    """

    path: Path
    kind: str
    known_by: str
    project: Path | None
    status: str
    iterations: tuple[RelionIteration, ...] = ()
    chain: tuple[RelionIteration, ...] = ()
    final: RelionIteration | None = None
    outputs: tuple[Path, ...] = ()
    problems: tuple[Message, ...] = ()

    @property
    def last(self) -> RelionIteration | None:
        """The final files, or the last iteration of the chain, or None."""
        if self.final is not None and self.final.data is not None:
            return self.final
        return self.chain[-1] if self.chain else self.final


def looks_like_relion_job(listing: Listing) -> bool:
    """Whether a folder's files are those of a RELION job."""
    if listing.files & EXIT_MARKERS.keys():
        return True
    if "job_pipeline.star" in listing.files or {"run.job", "note.txt"} <= listing.files:
        return True
    if "job.star" in listing.files and _kind_in_job_star(listing.path / "job.star"):
        return True
    if any(_is_run_star(name) for name in listing.files):
        return True
    return _kind_by_folder(listing.path) != "" and bool(listing.files & set(_OUTPUTS))


def read_relion_job(folder: str | os.PathLike[str]) -> RelionJob:
    """Describe a job folder.

    Raises
    ------
    FormatError
        If it can't be listed, or is no RELION job's.
    """
    listing = list_folder(Path(folder))
    if not looks_like_relion_job(listing):
        raise FormatError(
            "not a RELION job: no RELION_JOB_EXIT_…, no job.star and no run_it…_data.star",
            path=listing.path,
            hint="Give the folder of one job, such as Class3D/job012.",
        )
    iterations, finals, problems = sort_iterations(listing.path, listing.files)
    branches = branches_of(iterations)
    final = final_of(branches.chain, finals)
    if len(finals) > 1:
        text = "There are several final sets, of continued runs; the one of the run that counts is taken"
        problems.append(warning("several-final-sets", text, where=listing.path))
    kind, known_by = _guess_kind(listing, iterations)
    problems += [*iteration_problems(iterations, branches.chain), *branch_messages(branches)]
    problems += _empty_files((*branches.chain[-1:], *((final,) if final is not None else ())))
    project = _project_of(listing.path)
    status = status_of(listing, _status_in_project(listing.path, project, problems))
    return RelionJob(
        listing.path,
        kind,
        known_by,
        project,
        status or "unknown",
        iterations,
        branches.chain,
        final,
        tuple(listing.path / name for name in _OUTPUTS if name in listing.files),
        tuple(problems),
    )


def status_of(listing: Listing, in_project: str) -> str:
    """Return how a job stands, however it is reached.

    That it ended stands in the project's list once RELION's window has seen it, or the user has said so; until then
    the file that the job leaves tells. A refinement that has written its final files has ended, also where it was
    started by hand and leaves no such file.

    Parameters
    ----------
    listing
        Its folder.
    in_project
        What the project's list says, or nothing.

    Returns
    -------
    str
        ``success``, ``failure``, ``aborted``, or what the list says; empty where nothing does.
    """
    if in_project in EXIT_MARKERS.values():
        return in_project
    exits = (status for name, status in EXIT_MARKERS.items() if name in listing.files)
    return next(exits, "success" if _has_final_files(listing) else in_project)


def _has_final_files(listing: Listing) -> bool:
    if not any(_FINAL_DATA.fullmatch(name) for name in listing.files):
        return False
    iterations, finals, _ = sort_iterations(listing.path, listing.files)
    return is_final(final_of(branches_of(iterations).chain, finals))


def final_of(chain: tuple[RelionIteration, ...], finals: tuple[RelionIteration, ...]) -> RelionIteration | None:
    """Return the final files of the run that the newest iteration is of; those of an earlier run are no end of it.

    Parameters
    ----------
    chain
        The iterations that lead to the newest one; none where they were cleaned up.
    finals
        All final sets, as `sort_iterations` returns them.
    """
    if not chain:
        return finals[-1] if finals else None
    return next((item for item in finals if item.continued_from == chain[-1].continued_from), None)


def is_final(final: RelionIteration | None) -> bool:
    """Whether these are the files that an automatic refinement of RELION ends with, and only then writes.

    RELION decides at the start of an iteration whether it has converged: the optimiser of the one before does not say
    so. RELION 3.1 writes `run_data.star` and then `run_model.star`, RELION 4 and later `run_optimiser.star` as well.
    """
    return final is not None and final.data is not None and final.model is not None


def particles_in(job: RelionJob) -> Path | None:
    """Return the STAR file of a job's particles: the final one, that of the last iteration, or its result."""
    if job.last is not None and job.last.data is not None:
        return job.last.data
    outputs = {path.name: path for path in job.outputs}
    return next((outputs[name] for name in PARTICLE_STARS if name in outputs), None)


def _is_run_star(name: str) -> bool:
    return re.fullmatch(r"run(_ct\d+)?(_it\d{3,})?_(data|optimiser)\.star", name) is not None


def _guess_kind(listing: Listing, iterations: tuple[RelionIteration, ...]) -> tuple[str, str]:
    if "job.star" in listing.files and (kind := _kind_in_job_star(listing.path / "job.star")):
        return kind, "job.star"
    if kind := _kind_by_folder(listing.path):
        return kind, "folder name"
    if kind := _kind_by_files(listing, iterations):
        return kind, "files"
    return "", ""


def _kind_in_job_star(path: Path) -> str:
    """Read the job's type off the head of job.star, which starts with it."""
    try:
        if not is_there(path):
            return ""
        with open_input(path) as file:
            head = file.read(_JOB_STAR_HEAD_BYTES)
    except OSError:
        return ""
    for match in _JOB_TYPE.finditer(head):
        value = match["value"].decode("utf-8", "replace")
        if match["label"]:
            parts = value.split(".")
            kind = _KIND_OF_LABEL.get(parts[1], "") if len(parts) > 1 else ""
        else:
            kind = _KIND_OF_NUMBER.get(int(value), "") if value.isdecimal() else ""
        if kind:
            return kind
    return ""


def _kind_by_folder(path: Path) -> str:
    """Return the kind out of ``Class3D/job012``; an alias such as ``Class3D/first_try`` counts too."""
    return next((place.parent.name for place in _places(path) if place.parent.name in JOB_KINDS), "")


def _places(path: Path) -> tuple[Path, ...]:
    """Return a folder's path from the root, as it was given and without links."""
    return as_named(path), resolved(path)


def as_named(path: Path) -> Path:
    """Return a path from the root, without ``..``; links stay, since RELION's projects are full of them.

    What ``..`` goes up from is where a link before it leads.
    """
    parts = path.parts
    n_before = max((n for n, part in enumerate(parts, 1) if part == ".."), default=0)
    return resolved(Path(*parts[:n_before])).joinpath(*parts[n_before:]) if n_before else path.absolute()


def _kind_by_files(listing: Listing, iterations: tuple[RelionIteration, ...]) -> str:
    if iterations:
        last = iterations[-1]
        names = [path.name for path in (*last.volumes, *last.half_volumes)]
        if last.class_averages:
            return "Class2D"
        if any("_body" in name for name in names):
            return "MultiBody"
        if last.half1_model or last.half2_model:
            return "Refine3D"
        return "InitialModel" if "initial_model.mrc" in listing.files else "Class3D" if names else ""
    return next((kind for name, kind in _KIND_OF_FILE.items() if name in listing.files), "")


def _empty_files(sets: tuple[RelionIteration, ...]) -> list[Message]:
    """Find files of no bytes among the last ones, which a job that was stopped leaves behind."""
    paths = [
        path
        for item in sets
        for path in (item.data, item.model, item.half1_model, item.half2_model, item.optimiser, item.sampling)
        if path is not None
    ]
    problems: list[Message] = []
    for path in paths:
        try:
            size = path.stat().st_size
        except OSError as error:
            text = f"{path.name} can't be read ({error.strerror or error})"
            problems.append(warning("file-not-read", text, where=path))
            continue
        if size == 0:
            problems.append(warning("file-empty", f"{path.name} is empty", where=path))
    return problems


def _project_of(path: Path) -> Path | None:
    for place in _places(path):
        for parent in list(place.parents)[:_PROJECT_LEVELS]:
            if is_there(parent / PIPELINE):
                return as_given(parent, path)
    return None


def _status_in_project(path: Path, project: Path | None, problems: list[Message]) -> str:
    """Return what the project's list says of a job: by its folder's name, which a link may have changed."""
    if project is None:
        return ""
    from cryobridge.formats.relion.pipeline import Process, read_pipeline  # late: it loads the reader of STAR files

    processes = read_pipeline(list_folder(project), problems)
    names = (f"{place.parent.name}/{place.name}" for place in _places(path))
    return next((processes[name] for name in names if name in processes), Process()).status
