"""The files that make one set of particles: of a `.cs` file, a result group (`.csg`) or a job folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.join import join_on_uid
from cryobridge.formats.cryosparc.names import group_by_name, parse_cs_name
from cryobridge.formats.listing import list_if_there

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.formats.cryosparc.outputs import JobOutput
    from cryobridge.formats.table import Table

_N_NAMED = 8


@dataclass(frozen=True)
class JobParticles:
    """The particles of a job folder.

    Parameters
    ----------
    main
        The `.cs` file with the columns that the job computed, of the last iteration.
    passthroughs
        The files to be joined with it.
    notes
        Which result that is, and what is odd about the job, in sentences.
    """

    main: Path
    passthroughs: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class OpenParticles:
    """The particles of a `.cs` file, a result group or a job folder.

    Parameters
    ----------
    table
        The `.cs` file, or the members of the group as one; ``table.path`` is the main `.cs` file.
    n_rows
        Rows of the main file: where a group's files are joined, some may be missing in the table.
    passthroughs
        The files that are to be joined with the table where it lacks columns; None where only names can tell them.
    notes
        Which files were taken, in sentences.
    """

    table: Table
    n_rows: int
    passthroughs: tuple[Path, ...] | None = None
    notes: tuple[str, ...] = ()


def open_particle_files(path: str | os.PathLike[str]) -> OpenParticles:
    """Open the particles of a `.cs` file, a result group (`.csg`) or a job folder; nothing is joined by name.

    Parameters
    ----------
    path
        The file or folder.

    Raises
    ------
    UsageError
        If a file is of another program, a folder no cryoSPARC job's, or a job has several results with particles.
    MissingDataError
        If a job has no particles, or a group names files that do not exist.
    FormatError
        If a file can't be read.
    """
    path = Path(path)
    if path.is_dir():
        job = particles_of_job(path)
        table = open_cs(job.main)
        return OpenParticles(table, table.n_rows, job.passthroughs, job.notes)
    from cryobridge.formats.registry import CS, CSG, identify_file

    kind = CS if path.suffix == ".cs" else identify_file(path)
    if kind == CSG:
        from cryobridge.formats.cryosparc.csg import open_group

        group = open_group(path)
        names = ", ".join(member.path.name for member, _ in group.members)
        return OpenParticles(group, group.members[0][0].n_rows, (), (f"{path.name}: {names}", *group.notes))
    if kind != CS:
        raise UsageError(
            f"not a cryoSPARC file, but {kind}",
            path=path,
            hint="Give the .cs file, the .csg file or the job folder of the particles.",
        )
    table = open_cs(path)
    return OpenParticles(table, table.n_rows)


def particles_of_job(folder: Path) -> JobParticles:
    """Find the one result of particles that a job folder holds; what the job threw out does not count.

    Raises
    ------
    UsageError
        If the folder is no cryoSPARC job's, or several results have particles; they are named.
    MissingDataError
        If none has.
    """
    from cryobridge.formats.cryosparc.job import read_job
    from cryobridge.formats.folders import CRYOSPARC_JOB, identify_folder

    kind = identify_folder(folder)
    if kind != CRYOSPARC_JOB:
        raise UsageError(
            "a folder of unknown content, not a cryoSPARC job" if kind is None else f"this folder is a {kind}",
            path=folder,
            hint="Of folders, those of one cryoSPARC job are taken, such as J42; else give a file of particles.",
        )
    job = read_job(folder)
    output = _one_of(folder, [item for item in job.outputs if item.kind == "particle" and not item.is_excluded])
    assert output.main is not None  # asked for there
    iteration = "" if output.iteration is None else f", iteration {output.iteration}"
    which = f"{job.uid or folder.name}: the result {output.name}{iteration}: {output.main.name}"
    return JobParticles(output.main, output.passthroughs, (which, *job.problems))


def _one_of(folder: Path, outputs: Sequence[JobOutput]) -> JobOutput:
    whole = [item for item in outputs if item.main is not None]
    found = [item for item in whole if item.name.endswith("_all_classes")] or whole
    if not found:
        raise MissingDataError(
            "no result with particles in this job", path=folder, hint="Give the .cs file that is meant."
        )
    if len(found) > 1:
        names = ", ".join(f"{item.name} ({item.main.name if item.main else ''})" for item in found[:_N_NAMED])
        raise UsageError(
            f"{len(found)} results have particles: {names}{' …' if len(found) > _N_NAMED else ''}",
            path=folder,
            hint="Give the .cs file of the one that is meant.",
        )
    return found[0]


def companion_by_name(path: Path) -> Path | None:
    """Return the passthrough file of a main file, or the main file of a passthrough, as the names tell; else None."""
    own = parse_cs_name(path.name)
    names = {name for name in list_if_there(path.parent).files if name.endswith(".cs")} | {path.name}
    # Copies of several jobs' files may lie in one folder.
    names = {name for name in names if not own.job or parse_cs_name(name).job == own.job}
    for group in group_by_name(names):
        if own.is_passthrough:
            if group.passthrough is not None and group.passthrough.name == path.name and group.main is not None:
                return path.parent / group.main.name
        elif group.name == own.group and group.passthrough is not None:
            return path.parent / group.passthrough.name
    return None


def companion_of(path: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Return the companion by name if it shares uids; and why one that is there does not count, in sentences."""
    partner = companion_by_name(path)
    if partner is None:
        return None, ()
    try:
        own, others = (np.asarray(open_cs(item).read(["uid"])["uid"]) for item in (path, partner))
    except (FormatError, MissingDataError) as error:
        return None, (f"not joined: {error}",)
    # A file without rows shares those it would have.
    if len(own) and not np.isin(others, own).any():
        return None, (f"{partner.name} beside it has none of its uids and is not joined",)
    return partner, ()


def open_completed(path: str | os.PathLike[str], *prefixes: str) -> tuple[Table, tuple[str, ...]]:
    """Open particles; where a `.cs` file lacks columns, joined on uid with what belongs to it, in its own row order.

    Parameters
    ----------
    path
        A `.cs` file, whose companion is found by its name; a result group, or a job folder, which name theirs.
    prefixes
        What the names of needed columns start with, such as ``"ctf/"``; nothing is joined for one that the file has
        columns of.

    Returns
    -------
    tuple
        The table, with all rows of the main file, and what was taken and joined, in sentences.

    Raises
    ------
    MissingDataError
        If a file that is joined lacks some of its rows.
    CryobridgeError
        As `open_particle_files`.
    """
    path = Path(path)
    opened = open_particle_files(path)
    table, notes = opened.table, opened.notes
    _refuse_lost_rows(opened.n_rows, table, "another file of the group", path)
    lacking = [prefix for prefix in prefixes if not _has(table, prefix)]
    if not lacking:
        return table, notes
    partners = opened.passthroughs
    if partners is None:
        partner, more = companion_of(path)
        partners, notes = () if partner is None else (partner,), (*notes, *more)
    others = [other for other in map(open_cs, partners) if any(_has(other, prefix) for prefix in lacking)]
    if not others:
        return table, notes
    joined = join_on_uid(table, *others)
    names = ", ".join(other.path.name for other in others)
    _refuse_lost_rows(table.n_rows, joined, f"{names}, which has columns that it lacks", table.path)
    return joined, (*notes, f"joined on uid with {names}", *joined.notes)


def _refuse_lost_rows(n_rows: int, joined: Table, where: str, path: Path) -> None:
    absent = n_rows - joined.n_rows
    if absent:
        raise MissingDataError(
            f"{absent:,} of its {n_rows:,} uids are not in {where}",
            path=path,
            field="uid",
            count=absent,
            hint=f"`cryobridge select {path} -o subset.cs` leaves these rows out.",
        )


def _has(table: Table, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in table.names)
