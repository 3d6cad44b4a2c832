"""Which `.cs` files make one set of particles: what a result group or job.json names, then what file names show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.csg import ResultGroup, names_file, read_csg
from cryobridge.formats.cryosparc.job import is_cryosparc_description, read_job, siblings_with
from cryobridge.formats.cryosparc.names import group_by_name, instead_of_exposures, kind_of, parse_cs_name
from cryobridge.formats.cryosparc.outputs import JobOutput, described_outputs
from cryobridge.formats.listing import is_there, list_if_there, read_json
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cryobridge.formats.table import Table

_N_NAMED = 8


@dataclass(frozen=True)
class Members:
    """The files of one set of particles; nothing of their rows is read yet.

    Parameters
    ----------
    main
        The file with the columns that the job computed, in whose order the rows are.
    others
        Files to be joined with it on uid, the more certain ones first.
    named
        The file that the user named; its passthrough file may be named in the main one's place.
    group
        The result group beside it that names it, or None.
    messages
        Which files were taken, and those that are named and can't be.
    sought
        Why there are no others, as the end of a sentence; empty where there are some.
    """

    main: Path
    others: tuple[Path, ...] = ()
    named: Path = Path()
    group: ResultGroup | None = None
    messages: tuple[Message, ...] = ()
    sought: str = ""


def members_of(path: Path, output: JobOutput | None = None) -> Members:
    """Find the files that belong to a `.cs` file.

    What a `.csg` beside it names along with it comes first, then what job.json does. Where neither names a file that is
    there, the names of the files beside it decide. For a passthrough file the main file is found.

    Parameters
    ----------
    path
        The file.
    output
        The job's result that it is of, where that is known; else job.json beside it is looked at.
    """
    group, messages = _group_beside(path)
    output = output or _output_with(path)
    named = list(main_first(group)) if group is not None else []
    named += _files_of(output) if output is not None else []
    found = list(dict.fromkeys(item for item in named if is_there(item)))
    absent = [item for item in named if item not in found]
    source = group.path.name if group is not None else "job.json"
    messages += [
        warning("file-not-found", f"{source} names {item.name}, which is not there", where=item)
        for item in dict.fromkeys(absent)
        if not _is_same(item, path)
    ]
    by_name = () if len(found) > 1 and not absent else related_by_name(path)
    main = path
    if parse_cs_name(path.name).is_passthrough:
        main = next((item for item in (*found, *by_name) if not parse_cs_name(item.name).is_passthrough), path)
    others = _without(main, [*([path] if main is not path else []), *found, *by_name])
    if main is not path:
        last = ", the last iteration" if _is_one_of_several(main, path) else ""
        words = "exposures" if kind_of(parse_cs_name(main.name).group) == "exposure" else "particles"
        text = f"{path.name} is a passthrough file: the {words} are those of {main.name}{last}"
        messages.append(note("main-file-found", text, where=main))
    return Members(main, others, path, group, tuple(messages), "" if others else _sought(path))


def members_of_job(folder: Path, kind: str = "particle") -> Members:
    """Find the files of the one result of particles that a job has; what the job threw out does not count.

    Parameters
    ----------
    folder
        The job's.
    kind
        ``exposure`` for its exposures, or, if it has none, for its particles.

    Raises
    ------
    FormatError
        If the folder is no cryoSPARC job's.
    UsageError
        If several results have them; they are named.
    MissingDataError
        If none has.
    """
    job, asked = read_job(folder), kind
    kept = [item for item in job.outputs if item.main is not None and not item.is_excluded]
    if kind == "exposure" and all(item.kind != kind for item in kept):
        kind = "particle"
    found = [item for item in kept if item.kind == kind]
    if asked == "particle" and not found and any(item.kind == "exposure" for item in kept):
        raise MissingDataError(
            "no result with particles in this job, but exposures",
            path=folder,
            hint=instead_of_exposures(folder),
        )
    output = _one_of(folder, found, f"{kind}s")
    assert output.main is not None  # asked for there
    iteration = "" if output.iteration is None else f", iteration {output.iteration}"
    which = f"{job.uid or folder.name}: the result {output.name}{iteration}: {output.main.name}"
    members = members_of(output.main, output)
    problems = (replace(problem, severity="note") for problem in job.problems)
    return replace(members, messages=(note("result-chosen", which, where=output.main), *problems, *members.messages))


def _one_of(folder: Path, outputs: Sequence[JobOutput], words: str) -> JobOutput:
    found = [item for item in outputs if item.name.endswith("_all_classes")] or outputs
    if not found:
        raise MissingDataError(
            f"no result with {words} in this job", path=folder, hint="Give the .cs file that is meant."
        )
    if len(found) > 1:
        names = ", ".join(f"{item.name} ({item.main.name if item.main else ''})" for item in found[:_N_NAMED])
        raise UsageError(
            f"{len(found)} results have {words}: {names}{' …' if len(found) > _N_NAMED else ''}",
            path=folder,
            hint="Give the .cs file of the one that is meant.",
        )
    return found[0]


def main_first(group: ResultGroup) -> tuple[Path, ...]:
    """Return the members of a group: the one with most slots first, passthrough files last."""
    votes = Counter(slot.metafile for slot in group.slots)
    return tuple(sorted(group.members, key=lambda member: ("passthrough" in member.name, -votes[member])))


def _group_beside(path: Path) -> tuple[ResultGroup | None, list[Message]]:
    """Return the group beside a file that names it, one whose files are all there before others."""
    folder = path.absolute().parent
    names = sorted(name for name in list_if_there(folder).files if name.endswith(".csg"))
    groups: list[ResultGroup] = []
    messages: list[Message] = []
    for name in names:
        beside = path.parent / name
        if not names_file(beside, path.name):
            continue
        try:
            group = read_csg(beside)
        except CryobridgeError as error:
            text = f"{name} can't be read, so that the files which it names are not known: {error.message}"
            messages.append(warning("file-not-read", text, where=beside))
            continue
        if any(_is_same(member, path) for member in group.members):
            groups.append(group)
    whole = [group for group in groups if all(map(is_there, group.members))]
    return next(iter([*whole, *groups]), None), [] if groups else messages


def _output_with(path: Path) -> JobOutput | None:
    """Return the result of the job's last iteration that a file is of, as job.json beside it says."""
    description = path.parent / "job.json"
    if not is_there(description):
        return None
    try:
        content = read_json(description)
    except FormatError:
        return None  # reported where the job's folder is read; the names of the files show as much
    if not is_cryosparc_description(content):
        return None
    outputs = [item for item in described_outputs(path.parent, content) if item.main is not None]
    of_file = [item for item in outputs if any(_is_same(file, path) for file in _files_of(item))]
    as_main = [item for item in of_file if item.main is not None and _is_same(item.main, path)]
    # A passthrough file of several results: which of them is meant, only its name shows.
    return as_main[0] if as_main else of_file[0] if len(of_file) == 1 else None


def _files_of(output: JobOutput) -> list[Path]:
    return [file for file in (output.main, *output.passthroughs) if file is not None]


def _without(main: Path, files: Iterable[Path]) -> tuple[Path, ...]:
    """Return files, each once, without the main one."""
    by_place = {_resolved(file): file for file in reversed(list(files))}
    by_place.pop(_resolved(main), None)
    return tuple(reversed(by_place.values()))


def _is_same(one: Path, other: Path) -> bool:
    return one.name == other.name and _resolved(one) == _resolved(other)


def _resolved(path: Path) -> Path:
    """Return where a path leads; one that no file system takes, such as one with a NUL, as it is."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return path


def _is_one_of_several(main: Path, passthrough: Path) -> bool:
    """Whether a main file was taken as the last of those that the passthrough file goes with."""
    return parse_cs_name(main.name).iteration is not None and not parse_cs_name(passthrough.name).main


def related_by_name(path: Path) -> tuple[Path, ...]:
    """Return the passthrough files of a main file, or the main file of a passthrough first, by their names."""
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


def _sought(path: Path) -> str:
    """Say by which names the passthrough file of a main file is looked for, or the other way round."""
    own = parse_cs_name(path.name)
    start = path.name[: path.name.index(f"{own.job}_") + len(own.job) + 1] if own.job else ""
    if own.main:
        names = [own.main]
    elif own.is_passthrough:
        names = [f"{start}[NUMBER_]{own.group}.cs"]
    else:
        names = [f"{start}passthrough_{own.group}.cs", f"{path.stem}_passthrough.cs"]
    sought = f"no {names[0]} lies" if len(names) == 1 else f"neither {' nor '.join(names)} lies"
    return f"{sought} beside {path.name}"


@dataclass(frozen=True)
class Beside:
    """Files beside a `.cs` file that have columns which it lacks, for the same particles.

    Parameters
    ----------
    fit
        The one to be joined; several where it is unknown which of them is meant.
    n_shared
        How many of the particles each one has, of `fit` and of those that are not taken because they lack some.
    """

    fit: tuple[Path, ...]
    n_shared: dict[Path, int]


def files_beside(main: Table, columns: Collection[str]) -> Beside:
    """Look for columns that particles lack in the files beside them, whatever their names.

    One that has all of their uids is taken, a passthrough file and one of the same result before others.

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
    group = parse_cs_name(main.path.name).group
    fit = [path for path, count in n_shared.items() if count == len(own)]
    for preferred in (
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
