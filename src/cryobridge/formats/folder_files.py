"""Which particle file is meant by a folder: of a RELION job, a RECOVAR run or our own output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.formats.folders import CRYOSPARC_JOB, OWN_OUTPUT, RECOVAR_RESULT, RELION_JOB, identify_folder
from cryobridge.formats.listing import list_folder
from cryobridge.formats.own_output import read_own_output
from cryobridge.formats.particle_files import TABLE_SUFFIXES, Program
from cryobridge.formats.projects import Wanted, folder_refusal
from cryobridge.report import Message, note

_WANTED: dict[Program | None, Wanted] = {
    None: "particles",
    "pickles": "particles",
    "cryosparc": "cryoSPARC particles",
    "relion": "RELION particles",
}


def kind_of_folder(folder: Path, program: Program | None) -> str:
    """Return the kind of a folder that has particles.

    Raises
    ------
    UsageError
        If it has none of this program.
    """
    kind = identify_folder(folder)
    taken = {
        None: (CRYOSPARC_JOB, RELION_JOB, RECOVAR_RESULT, OWN_OUTPUT),
        "cryosparc": (CRYOSPARC_JOB,),
        "relion": (RELION_JOB, OWN_OUTPUT),
        "pickles": (),
    }[program]
    if kind is None or kind not in taken:
        raise _refusal(folder, program)
    return kind


def file_in_folder(folder: Path, kind: str, program: Program | None) -> tuple[Path, list[Message]]:
    """Return the particle file that is meant by a folder, and a note on which it is.

    Raises
    ------
    CryobridgeError
        If there is none, or several may be meant.
    """
    if kind == RELION_JOB:
        return _in_relion_job(folder, program)
    return _of_run(folder) if kind == RECOVAR_RESULT else _in_own_output(folder, program)


def _refusal(folder: Path, program: Program | None) -> UsageError:
    return folder_refusal(folder, _WANTED[program])


def _in_relion_job(folder: Path, program: Program | None) -> tuple[Path, list[Message]]:
    from cryobridge.formats.relion.job import particles_in, read_relion_job

    job = read_relion_job(folder)
    path = particles_in(job)
    if path is None:
        raise _refusal(folder, program)
    number = job.last.number if job.last is not None and job.last.data == path else None
    last = "" if number is None else f", the last iteration ({number})"
    name = f"{folder.absolute().parent.name}/{folder.absolute().name}" if job.kind else folder.name
    messages = [note("result-chosen", f"{name}: the particles are those of {path.name}{last}", where=path)]
    return path, [*messages, *(replace(problem, severity="note") for problem in job.problems)]


def _of_run(folder: Path) -> tuple[Path, list[Message]]:
    from cryobridge.formats.recovar import open_recovar

    run = open_recovar(folder)
    path = run.particles_file
    if path is None:
        raise MissingDataError(
            "; ".join(map(str, run.particles.messages)) or "the run's particle file was not found",
            path=run.path,
            hint="Name the particle file that the run was given.",
        )
    if path.suffix not in TABLE_SUFFIXES:
        raise MissingDataError(
            f"the run was made from {path.name}, which has no metadata of particles",
            path=run.path,
            hint="Name the .star or .cs file of the same images.",
        )
    text = f"{folder.name}: the particles are those of {path.name}, which the run was made from"
    return path, [note("result-chosen", text, where=path), *run.particles.messages]


def _in_own_output(folder: Path, program: Program | None) -> tuple[Path, list[Message]]:
    files = sorted(name for name in list_folder(folder).files if name.endswith(TABLE_SUFFIXES))
    kind = read_own_output(folder).kind
    if kind != "other" or len(files) != 1:
        error = _refusal(folder, program)
        if kind == "stacks":
            error.add_hint("Fourier stacks have no particles; command.txt beside them names those they are made of.")
        raise error
    path = folder / files[0]
    return path, [note("result-chosen", f"{folder.name}: the particles are those of {path.name}", where=path)]
