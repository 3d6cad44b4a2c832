"""The `.cs` files of one set of particles, joined on uid: which are taken, and in what they contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.csg import read_csg, refuse_missing_members, slot_origin
from cryobridge.formats.cryosparc.join import JoinedTable, Matched, UidJoin
from cryobridge.formats.cryosparc.members import Members, files_beside, main_first, members_of
from cryobridge.formats.cryosparc.names import parse_cs_name
from cryobridge.formats.input_file import resolved
from cryobridge.formats.particle_files import ParticleFiles
from cryobridge.formats.table import Table, wide_texts
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from cryobridge.formats.cryosparc.csg import ResultGroup
    from cryobridge.formats.table import Values

NOT_JOINED = "uid not in the joined files"
_N_NAMED = 6


def open_cs_files(
    path: Path, more: Sequence[Path] = (), *, join: bool = True, needs: Sequence[str] = ()
) -> ParticleFiles:
    """Join a `.cs` file with those that the user names, and with those that belong to it.

    Parameters
    ----------
    path, more, join, needs
        See `cryobridge.formats.open.open_particles`, which raises as this does.
    """
    is_alone = not join or (more and parse_cs_name(path.name).is_passthrough)
    members = Members(path, named=path) if is_alone else members_of(path)
    return open_members(members, more, join=join, needs=needs)


def open_members(
    members: Members, more: Sequence[Path] = (), *, join: bool = True, needs: Sequence[str] = ()
) -> ParticleFiles:
    """Join a main file with the files that the user names, then with those that were found."""
    messages = list(members.messages)
    joining = _with_main(members, needs, messages)
    taken = set() if members.named == members.main else {resolved(path) for path in (members.main, members.named)}
    for path in more:
        if resolved(path) not in taken:
            joining.add(open_cs(path), is_named=True)
            taken.add(resolved(path))
    for path in members.others if join else ():
        if resolved(path) not in taken:
            joining.add_found(path)
    table = joining.joined(members.group)
    return _files_of_cryosparc(members.named, table, members.group, (), messages, joining.why_alone or members.sought)


def _with_main(members: Members, needs: Sequence[str], messages: list[Message]) -> Joining:
    """Start a join with the main file; with the passthrough file that was named where that has others' particles."""
    if members.main == members.named:
        return Joining(open_cs(members.main), needs, messages)
    named = open_cs(members.named)
    try:
        joining = Joining(open_cs(members.main), needs, messages)
        joining.add(named, is_named=True)
    except CryobridgeError as error:
        text = f"{members.main.name} beside it is not joined: {error}"
        messages[:] = [warning("file-not-joined", text, where=members.main)]
        return Joining(named, needs, messages)
    return joining


def open_group(path: Path, more: Sequence[Path] = (), *, needs: Sequence[str] = ()) -> ParticleFiles:
    """Join the members of a result group: each column from the file of its slot."""
    group = read_csg(path)
    refuse_missing_members(group)
    messages = list(group.problems)
    main, *others = [open_cs(member) for member in main_first(group)]
    joining = Joining(main, needs, messages)
    for table in others:
        joining.add(table, is_named=True, may_be_left_out=True)
    known = {resolved(table.path) for table in (main, *others)}
    extra = [open_cs(item) for item in more if resolved(item) not in known]
    for table in extra:
        joining.add(table, is_named=True)
    joined = joining.joined(group, only_slots_of=[main, *others])
    return _files_of_cryosparc(main.path, joined, group, (path,), messages, "")


class Joining:
    """Collects the tables that are joined with a main one.

    Parameters
    ----------
    main
        The table whose row order is kept.
    needs
        See `cryobridge.formats.open.open_particles`.
    messages
        What is to be said is added to it.
    """

    def __init__(self, main: Table, needs: Sequence[str], messages: list[Message]) -> None:
        self.main = main
        self.why_alone = ""
        self._needs = needs
        self._messages = messages
        self._names = set(main.names)
        self._join: UidJoin | None = None
        self._taken: list[Matched] = []

    def add_found(self, path: Path) -> None:
        """Add a file that belongs to the main one; one that can't be read is passed over with a warning."""
        try:
            table = open_cs(path)
            if not set(table.names) <= self._names:
                self.add(table, is_named=False)
        except CryobridgeError as error:
            self._pass_over("file-not-read", f"{path.name} beside it is not joined: {error}", path, is_warning=True)

    def add(self, table: Table, *, is_named: bool, may_be_left_out: bool = False) -> None:
        """Add a table.

        Parameters
        ----------
        table
            The table.
        is_named
            Whether it is an error if it has none of the uids.
        may_be_left_out
            Whether it may be passed over although it was named, as a member of a group.
        """
        if self._join is None:
            self._join = UidJoin(self.main)
        match, n_rows, name = self._join.match(table), self.main.n_rows, table.path.name
        if n_rows and not match.n_rows:
            if is_named:
                raise _disjoint(self.main, [table])
            text = f"{name} beside it has none of its uids and is not joined"
            self._pass_over("file-not-joined", text, table.path)
            return
        is_optional = may_be_left_out or not is_named
        if match.n_rows < n_rows and is_optional and self._needs and not self._has_what_is_needed(table):
            text = f"{name} lacks {n_rows - match.n_rows:,} of its uids, and nothing of it is needed: it is not joined"
            self._pass_over("file-not-joined", text, table.path)
            return
        self._taken.append(match)
        self._names |= set(table.names)

    def joined(self, group: ResultGroup | None, only_slots_of: Sequence[Table] = ()) -> Table:
        """Return the tables as one; the main one itself where it is alone.

        Parameters
        ----------
        group
            Where it names the file of a slot, the columns are taken from that.
        only_slots_of
            Tables of which no other columns are taken.
        """
        tables = [self.main, *(match.table for match in self._taken)]
        if len(tables) == 1 and not only_slots_of:
            return self.main
        origin: dict[str, int] = {}
        for place, table in enumerate(tables):
            if table not in only_slots_of:
                for column in table.columns:
                    origin.setdefault(column.name, place)
        slots = {} if group is None else slot_origin(group, tables)
        order = {**slots, **origin} if only_slots_of else origin
        joined = (self._join or UidJoin(self.main)).joined(self._taken, {**order, **slots})
        if self.main.n_rows and not joined.n_rows:
            raise _disjoint(self.main, tables[1:])
        if tables[1:]:
            text = f"joined on uid with {', '.join(table.path.name for table in tables[1:])}"
            self._messages.append(note("files-joined", text, where=self.main.path))
        self._messages += joined.messages
        self._messages += _contradictions(joined, slots)
        return joined

    def _has_what_is_needed(self, table: Table) -> bool:
        lacking = [need for need in self._needs if not any(name.startswith(need) for name in self._names)]
        return any(name.startswith(need) for need in lacking for name in table.names)

    def _pass_over(self, code: str, text: str, path: Path, *, is_warning: bool = False) -> None:
        self._messages.append((warning if is_warning else note)(code, text, where=path))
        self.why_alone = f"{self.why_alone}; {text}" if self.why_alone else text


def _disjoint(main: Table, others: Sequence[Table]) -> MissingDataError:
    return MissingDataError(
        f"none of its uids is in {' and '.join(table.path.name for table in others)}",
        path=main.path,
        field="uid",
        count=main.n_rows,
        hint="Give the passthrough file of the same job.",
    )


def _files_of_cryosparc(
    named: Path,
    table: Table,
    group: ResultGroup | None,
    first: tuple[Path, ...],
    messages: Sequence[Message],
    sought: str,
) -> ParticleFiles:
    members = table.members if isinstance(table, JoinedTable) else ((table, None),)
    place = next((place for place, (member, _) in enumerate(members) if member.path == named), 0)
    counted = members[place][0]
    absent = max(0, counted.n_rows - table.n_rows)
    return ParticleFiles(
        named,
        "cryosparc",
        tuple(dict.fromkeys([*first, *(member.path for member, _ in members)])),
        tuple(members),
        table,
        counted.n_rows,
        group,
        left_out={NOT_JOINED: absent} if absent else {},
        messages=(*messages, *wide_texts(table)),
        sought="" if len(members) > 1 else sought,
        _counted=place,
    )


def _contradictions(joined: JoinedTable, decided: Mapping[str, int]) -> list[Message]:
    """Say which columns two files have with different values, where no group decides which is taken."""
    messages = []
    for table, rows in joined.members[1:]:
        shared = [name for name in table.names if name in joined and name not in {"uid", *decided}]
        differing = []
        for name in shared:
            if joined.source_of(name) is table:
                continue
            taken, other = joined.read([name])[name], table.read([name])[name]
            if rows is not None:
                other = other[rows] if isinstance(other, np.ndarray) else other.take(rows)
            if not _is_equal(taken, other):
                differing.append(name)
        if differing:
            more = f" and {len(differing) - _N_NAMED} more" if len(differing) > _N_NAMED else ""
            first = joined.path.name
            text = f"{table.path.name} has other values than {first} in {', '.join(differing[:_N_NAMED])}{more}"
            text = f"{text}: those of {first} are taken"
            messages.append(warning("values-contradict", text, where=table.path))
    return messages


def _is_equal(one: Values, other: Values) -> bool:
    a, b = (values if isinstance(values, np.ndarray) else values.to_numpy() for values in (one, other))
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


def with_columns_beside(files: ParticleFiles, columns: Sequence[str]) -> tuple[ParticleFiles, dict[Path, int]]:
    """Join cryoSPARC particles with a file beside them that has columns which they lack, whatever its name.

    Parameters
    ----------
    files
        The particles.
    columns
        The columns, all in one column group.

    Returns
    -------
    tuple
        The particles, joined where one file beside them has the columns for all of them; else as they are, and how many
        of the particles each file beside them has.

    Raises
    ------
    MissingDataError
        If several files have the columns; they are named.
    """
    if all(name in files.columns for name in columns):
        return files, {}
    beside = files_beside(files.columns, columns)
    if len(beside.fit) > 1:
        names = ", ".join(path.name for path in beside.fit[:_N_NAMED])
        raise MissingDataError(
            f"no {columns[0].partition('/')[0]} columns; {len(beside.fit)} files beside it have them: {names}",
            path=files.metadata,
            hint=f"Choose one with {option('passthrough')}.",
        )
    if not beside.fit:
        return files, beside.n_shared
    messages = list(files.messages)
    joining = Joining(files.columns, (), messages)
    joining.add(open_cs(beside.fit[0]), is_named=True)
    table = joining.joined(None)
    assert isinstance(table, JoinedTable)  # two tables
    members = (*files.members, table.members[1])
    return replace(
        files, table=table, members=members, files=(*files.files, beside.fit[0]), messages=tuple(messages)
    ), {}
