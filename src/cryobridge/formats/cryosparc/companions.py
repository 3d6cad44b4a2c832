"""The files that make one set of particles: of a `.cs` file, a result group (`.csg`) or a job folder."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.job import siblings_with
from cryobridge.formats.cryosparc.join import join_on_uid
from cryobridge.formats.cryosparc.names import group_by_name, parse_cs_name
from cryobridge.formats.listing import list_if_there

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cryobridge.formats.cryosparc.outputs import JobOutput
    from cryobridge.formats.projects import Wanted
    from cryobridge.formats.table import Table

# Columns that tell whether the groups are there which images are read by.
IMAGES_AND_CTF = ("blob/path", "ctf/df1_A")
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
        job = particles_of_job(path, "cryoSPARC particles")
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


def particles_of_job(folder: Path, wanted: Wanted = "particles") -> JobParticles:
    """Find the one result of particles that a job folder holds; what the job threw out does not count.

    Parameters
    ----------
    folder
        The folder.
    wanted
        What the command takes, for the hint about a folder of another kind.

    Raises
    ------
    UsageError
        If the folder is no cryoSPARC job's, or several results have particles; they are named.
    MissingDataError
        If none has.
    """
    from cryobridge.formats.cryosparc.job import read_job
    from cryobridge.formats.folders import CRYOSPARC_JOB, identify_folder

    if identify_folder(folder) != CRYOSPARC_JOB:
        from cryobridge.formats.projects import folder_refusal

        raise folder_refusal(folder, wanted)
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


def companions_by_name(path: Path) -> tuple[Path, ...]:
    """Return the passthrough files of a main file, or the main file of a passthrough first, as the names tell."""
    own = parse_cs_name(path.name)
    beside = [parse_cs_name(name) for name in list_if_there(path.parent).files if name.endswith(".cs")]
    if own.main:
        found = [item.name for item in beside if own.main in {item.name, item.main} and item.name != path.name]
        return tuple(path.parent / name for name in sorted(found, key=lambda name: (name != own.main, name)))
    of_it = sorted(item.name for item in beside if item.main == path.name)
    if of_it:
        return tuple(path.parent / name for name in of_it)
    # Copies of several jobs' files may lie in one folder.
    names = {item.name for item in beside if not item.main and (not own.job or item.job == own.job)} | {path.name}
    for group in group_by_name(names):
        passthroughs = [item.name for item in group.passthroughs]
        if own.is_passthrough:
            if path.name in passthroughs and group.main is not None:
                return (path.parent / group.main.name,)
        elif group.name == own.group:
            return tuple(path.parent / name for name in passthroughs)
    return ()


def companions_of(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the companions by name that share uids; and why one that is there does not count, in sentences."""
    found, notes = [], []
    for partner in companions_by_name(path):
        try:
            own, others = (uids_of(open_cs(item)) for item in (path, partner))
        except (FormatError, MissingDataError) as error:
            notes.append(f"not joined: {error}")
            continue
        # A file without rows shares those it would have.
        if len(own) and not np.isin(others, own).any():
            notes.append(f"{partner.name} beside it has none of its uids and is not joined")
        else:
            found.append(partner)
    return tuple(found), tuple(notes)


def companion_names(path: Path) -> tuple[str, ...]:
    """Return the names by which the passthrough file of a main file is looked for, or the other way round."""
    own = parse_cs_name(path.name)
    if own.main:
        return (own.main,)
    start = path.name[: path.name.index(f"{own.job}_") + len(own.job) + 1] if own.job else ""
    if own.is_passthrough:
        return (f"{start}[NUMBER_]{own.group}.cs",)
    return f"{start}passthrough_{own.group}.cs", f"{path.stem}_passthrough.cs"


@dataclass(frozen=True)
class Beside:
    """Files beside a `.cs` file that have columns which it lacks, for the same particles.

    Parameters
    ----------
    fit
        The one to be joined; several where nothing tells which of them is meant.
    n_shared
        How many of the particles each one has, of `fit` and of those that are not taken because they lack some.
    """

    fit: tuple[Path, ...]
    n_shared: dict[Path, int]


def files_beside(main: Table, columns: Collection[str]) -> Beside:
    """Look for what particles lack in the files beside them.

    One that has all of their uids is taken, a passthrough file and one of the same result before others. One that
    lacks some is taken if its name says that it belongs to them.

    Parameters
    ----------
    main
        The particles; files are looked for beside ``main.path``.
    columns
        The columns that a file must have, all in one column group.
    """
    if "uid" not in main:
        return Beside((), {})
    own = uids_of(main)
    n_shared: dict[Path, int] = {}
    for path in siblings_with(main.path, next(iter(columns)).partition("/")[0] + "/"):
        other = open_cs(path)
        if {"uid", *columns} <= set(other.names) and (count := int(np.isin(own, uids_of(other)).sum())):
            n_shared[path] = count
    named = [path for path in companions_by_name(main.path) if path in n_shared]
    group = parse_cs_name(main.path.name).group
    fit = [path for path, count in n_shared.items() if count == len(own)] or named
    for preferred in (
        named,
        [path for path in fit if parse_cs_name(path.name).is_passthrough],
        [path for path in fit if parse_cs_name(path.name).group == group],
    ):
        fit = [path for path in fit if path in preferred] or fit
    return Beside(tuple(fit), n_shared)


def uids_of(table: Table) -> NDArray[np.uint64]:
    """Return the uid of each row, (n,).

    Raises
    ------
    MissingDataError
        If the table has none.
    """
    return np.asarray(table.read(["uid"])["uid"])


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
        partners, more = companions_of(path)
        notes = (*notes, *more)
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
            hint=f"`cryobridge select {shlex.quote(str(path))} -o subset.cs` leaves these rows out.",
        )


def _has(table: Table, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in table.names)
