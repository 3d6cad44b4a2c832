"""Columns that particles lack and the jobs that they come from have: found by uid, one group of columns at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, option
from cryobridge.formats.cryosparc.ancestors import Ancestry
from cryobridge.formats.cryosparc.join import Matched, UidJoin
from cryobridge.formats.cryosparc.names import relative_to_file
from cryobridge.formats.particle_files import EXPANDED, FromAncestor, ParticleFiles
from cryobridge.formats.table import Column, Table
from cryobridge.model.fields import ALIGNMENT
from cryobridge.model.particles import Labels
from cryobridge.report import Message, counted, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryobridge.formats.particle_files import Rows
    from cryobridge.formats.table import Values

# Results of a job about its own images and copies, which don't hold for what was made of the particles later.
_OF_THE_JOB = re.compile(rf"blob|{EXPANDED}|components_mode_\d+|{ALIGNMENT}")
_HINT = "Give the .cs file in the folder of its job, beside job.json, in the project of cryoSPARC."


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows of an ancestor's file: (n,) the one of each particle, -1 where another file has it."""

    table: Table
    rows: Rows


@dataclass
class _Group:
    """What is known of a group of columns: the files that have it, and (n,) the particles that none has so far."""

    lacking: NDArray[np.bool_]
    parts: list[_Part] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)

    def columns(self, name: str) -> tuple[list[Column], list[str]]:
        """Return the columns that all of the files have in one form, and the names of others."""
        start = f"{name}/"
        first, *others = [{c.name: c for c in part.table.columns if c.name.startswith(start)} for part in self.parts]
        shared = [column for column in first.values() if all(other.get(column.name) == column for other in others)]
        names = {column.name for column in shared}
        return shared, sorted({other for found in (first, *others) for other in found} - names)


class AncestorTable(Table):
    """Groups of columns of ancestors' files, one row for each particle.

    Parameters
    ----------
    uid
        (n,) the particles.
    groups
        Group -> the parts that have it.
    columns
        The columns, ``uid`` among them.
    path
        The file of the particles: names with ``>`` are given as they would stand in its folder.
    """

    def __init__(
        self, uid: NDArray[np.uint64], groups: Mapping[str, Sequence[_Part]], columns: tuple[Column, ...], path: Path
    ) -> None:
        super().__init__(path, len(uid), columns)
        self._uid = uid
        self._groups = groups
        self._whole: dict[str, Values] = {}

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read columns (see `formats.table.Table`); each is read whole, once."""
        wanted = self._wanted(names)
        for name in wanted:
            if name not in self._whole:
                self._whole[name] = self._uid if name == "uid" else self._read_whole(name)
        values = {name: self._whole[name] for name in wanted}
        return {name: v[rows] if isinstance(v, np.ndarray) else v.take(rows) for name, v in values.items()}

    def located(self, name: str, rows: NDArray[Any]) -> tuple[Path, NDArray[Any]]:
        """Return the file that a column is read from, and which of its rows these are, as far as that is one file."""
        parts = self._groups.get(name.partition("/")[0], ())
        for part in parts:
            own = part.rows[rows]
            if len(own) and (own >= 0).all():
                return part.table.path, own
        return self.path, rows

    def _read_whole(self, name: str) -> Values:
        parts = self._groups[name.partition("/")[0]]
        read = [part.table.read([name])[name] for part in parts]
        first = read[0]
        if isinstance(first, np.ndarray):
            found = np.zeros((self.n_rows, *first.shape[1:]), first.dtype)
            for part, values in zip(parts, read, strict=True):
                has = part.rows >= 0
                found[has] = np.asarray(values)[part.rows[has]]
            return found
        codes = np.zeros(self.n_rows, np.int32)
        texts: list[str] = []
        for part, labels in zip(parts, read, strict=True):
            assert isinstance(labels, Labels)  # columns are of one form
            has = part.rows >= 0
            codes[has] = labels.codes[part.rows[has]] + len(texts)
            to_own = partial(relative_to_file, folder=part.table.path.parent, new_folder=self.path.parent)
            texts += [to_own(text) if name.endswith("path") else text for text in labels.values]
        return Labels(codes, tuple(texts)).renamed(texts).without_unused()


class AncestorRows:
    """Finds particles in the tables of jobs before theirs; copies by symmetry expansion by their parents too.

    Parameters
    ----------
    files
        The particles.
    """

    def __init__(self, files: ParticleFiles) -> None:
        self._join = UidJoin(files.columns)
        parent = files.parent_uid()
        self._parent_join = None if parent is None else UidJoin(files.columns, parent)

    def rows_in(self, table: Table) -> Rows:
        """Return the row of a table for each particle, (n,), -1 where it has neither it nor its parent.

        Raises
        ------
        CryobridgeError
            If the table has no uids, or they can't be read.
        """
        rows = _rows_of(self._join.match(table))
        if self._parent_join is None:
            return rows
        return np.where(rows < 0, _rows_of(self._parent_join.match(table)), rows)


def with_ancestors(files: ParticleFiles) -> ParticleFiles:
    """Join particles with groups of columns that they lack, of the jobs that they come from.

    The nearest job's count first; for particles of several jobs, each has its own. A group that some of the particles
    get from none is not taken: no row is lost.

    Parameters
    ----------
    files
        The particles.

    Returns
    -------
    ParticleFiles
        With the columns that were found; ``from_ancestors`` and the messages say which.

    Raises
    ------
    UsageError
        If they are not cryoSPARC's.
    MissingDataError
        If it is not known from which jobs they come.
    """
    if files.program != "cryosparc" or files.table is None:
        raise UsageError(
            "it is for files of cryoSPARC's, whose jobs say what they were made from",
            path=files.path,
            option="from_ancestors",
            hint="Leave it out.",
        )
    ancestry = Ancestry(files)
    if not ancestry.is_known:
        raise MissingDataError(
            "it is not known which jobs these particles come from: no job.json is beside them, and none is in the jobs "
            "that the names of their images begin with",
            path=files.metadata,
            option="from_ancestors",
            hint=_HINT,
        )
    search = _Search(files, ancestry)
    search.run()
    return search.joined()


class _Search:
    """Goes through the ancestors' files, the nearest first."""

    def __init__(self, files: ParticleFiles, ancestry: Ancestry) -> None:
        self._files = files
        self._ancestry = ancestry
        self._own = {name.partition("/")[0] for name in files.columns.names}
        self._rows = AncestorRows(files)
        self._groups: dict[str, _Group] = {}
        self._found: list[FromAncestor] = []

    def run(self) -> None:
        n_rows = len(self._files)
        for job, table in self._ancestry.tables():
            names = dict.fromkeys(name.partition("/")[0] for name in table.names if "/" in name)
            groups = {
                name: self._groups.setdefault(name, _Group(np.ones(n_rows, dtype=bool)))
                for name in names
                if name not in self._own and not _OF_THE_JOB.fullmatch(name)
            }
            if "uid" not in table or not any(group.lacking.any() for group in groups.values()):
                continue
            try:
                rows = self._rows.rows_in(table)
            except CryobridgeError as error:
                self._ancestry.messages.append(warning("file-not-read", f"{job.uid}: {error}", where=table.path))
                continue
            for name, group in groups.items():
                new = group.lacking & (rows >= 0)
                if new.any():
                    group.parts.append(_Part(table, np.where(new, rows, -1)))
                    group.lacking = group.lacking & ~new
                    self._found.append(FromAncestor(job.uid, table.path, name, int(np.count_nonzero(new))))

    def joined(self) -> ParticleFiles:
        files, n_rows = self._files, len(self._files)
        whole = {name: group for name, group in self._groups.items() if not group.lacking.any() and group.parts}
        found = tuple(item for item in self._found if item.group in whole)
        messages = [*files.messages, *self._ancestry.messages, *_taken(found, n_rows), *self._not_taken()]
        columns: list[Column] = [Column("uid", "u8")]
        for name, group in whole.items():
            shared, others = group.columns(name)
            columns += shared
            if others:
                text = f"{', '.join(others)}: the jobs {', '.join(_jobs_of(name, found))} don't have it alike"
                messages.append(note("columns-left-out", f"{text}, and it is left out"))
        if not whole:
            text = f"no job that {files.metadata.name} comes from has columns of all its particles that it lacks"
            return replace(files, messages=(*messages, warning("ancestors-have-nothing", text)))
        uid = np.asarray(files.columns.read(["uid"])["uid"]).view(np.uint64)
        parts = {name: group.parts for name, group in whole.items()}
        table = AncestorTable(uid, parts, tuple(columns), files.columns.path)
        joined = UidJoin(files.columns).joined([Matched(table, None, n_rows, 0)])
        return replace(
            files,
            table=joined,
            members=(*files.members, (table, None)),
            files=tuple(dict.fromkeys((*files.files, *(item.file for item in found)))),
            messages=tuple(messages),
            from_ancestors=found,
        )

    def _not_taken(self) -> list[Message]:
        messages = []
        for name, group in self._groups.items():
            n_lacking = int(np.count_nonzero(group.lacking))
            if group.parts and n_lacking:
                path = group.parts[0].table.path
                text = (
                    f"{name}/* is not taken: {part_of(n_lacking, len(self._files), 'particle')} in no result that has "
                    f"it; a selection by {option('like', path)} has those that are"
                )
                messages.append(warning("group-not-taken", text, where=path))
        return messages


def _rows_of(match: Matched) -> Rows:
    return np.arange(match.table.n_rows) if match.rows is None else match.rows


def _jobs_of(group: str, found: Sequence[FromAncestor]) -> list[str]:
    return list(dict.fromkeys(item.job for item in found if item.group == group))


def _taken(found: Sequence[FromAncestor], n_rows: int) -> list[Message]:
    """Say which file gave which groups, those of as many rows together."""
    by_file: dict[tuple[str, Path, int], list[str]] = {}
    for item in found:
        by_file.setdefault((item.job, item.file, item.rows), []).append(item.group)
    return [
        note(
            "columns-of-ancestor",
            f"{', '.join(groups)} of {rows:,} of {counted(n_rows, 'particle')} from {job}: {file.name}",
            where=file,
        )
        for (job, file, rows), groups in by_file.items()
    ]
