"""Several STAR files as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.formats.arrow import arrow_numbers, numbers_to_arrow
from cryobridge.formats.merged.columns import SharedColumns, shared_columns
from cryobridge.formats.merged.groups import Numbering, rounded
from cryobridge.formats.relion.star import StarBlock, StarFile, StarInMemory, to_labels
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles

_GROUP, _GROUP_NAME = "rlnOpticsGroup", "rlnOpticsGroupName"
_NUMBER, _NAME = "rlnGroupNumber", "rlnGroupName"
_N_NAMED = 3


class _MergedBlock(StarBlock):
    """Rows of several files; an error names the file that a row is of."""

    def __init__(self, table: pa.Table, blocks: Sequence[StarBlock]) -> None:
        first = blocks[0]
        super().__init__(first.path, first.name, table, is_loop=True, comments=first.comments)
        self._paths = [block.path for block in blocks]
        self._starts = np.cumsum([0, *(block.n_rows for block in blocks)])

    def located(self, _name: str, rows: NDArray[np.int64]) -> tuple[Path, NDArray[np.int64]]:
        """Return the file of the first of the rows, and which of its rows these are."""
        place = int(np.searchsorted(self._starts, rows[0], side="right")) - 1 if len(rows) else 0
        place = min(place, len(self._paths) - 1)
        own = rows[(rows >= self._starts[place]) & (rows < self._starts[place + 1])]
        return self._paths[place], own - self._starts[place]


def merged_star(parts: Sequence[ParticleFiles], labels: list[str]) -> tuple[StarFile, SharedColumns, list[Message]]:
    """Return STAR files as one, the columns that they have in common, and what is to be said.

    Raises
    ------
    UsageError
        If only some of them have optics groups.
    MissingDataError
        If one of them lacks what its rows are of no use without.
    """
    stars = [part.star for part in parts if part.star is not None]
    blocks = [star[star.main] for star in stars]
    paths = [star.path for star in stars]
    optics = [star.optics for star in stars]
    _refuse_layouts(stars, labels)
    has_optics = optics[0] is not None and stars[0].main != "optics"
    named = [block.names if not has_optics or _GROUP in block else (*block.names, _GROUP) for block in blocks]
    shared = shared_columns(named, paths, labels, "relion")
    messages: list[Message] = []
    replaced: list[dict[str, NDArray[np.int64]]] = [{} for _ in blocks]
    found: dict[str, StarBlock] = {}
    if has_optics:
        united = _united([block for block in optics if block is not None], paths, labels)
        messages += united.messages
        found["optics"] = united.block
        for block, groups, columns in zip(blocks, united.groups, replaced, strict=True):
            columns[_GROUP] = _renumbered(block, groups)
    if _NUMBER in shared.names:
        for columns, numbers in zip(replaced, _group_numbers(blocks, has_names=_NAME in shared.names), strict=True):
            columns[_NUMBER] = numbers
    found[stars[0].main] = _MergedBlock(_after_another(blocks, shared, replaced), blocks)
    others, said = _other_blocks(stars, labels, found)
    return StarInMemory(paths[0], [found.get(name) or others[name] for name in stars[0].names]), shared, messages + said


def _refuse_layouts(stars: Sequence[StarFile], labels: Sequence[str]) -> None:
    has_optics = [star.optics is not None for star in stars]
    if len(set(has_optics)) > 1:
        old = has_optics.index(False)
        new = labels[has_optics.index(True)]
        raise UsageError(
            f"the layout of RELION 3.0, without optics groups, where {new} has the layout of 3.1",
            path=stars[old].path,
            hint=f"Convert it first: `cryobridge convert {stars[old].path}` with {option('relion', '3.1')} to a new "
            "STAR file.",
        )


def _after_another(
    blocks: Sequence[StarBlock], shared: SharedColumns, replaced: Sequence[Mapping[str, NDArray[np.int64]]]
) -> pa.Table:
    """Return the rows of blocks one after another; the columns themselves are not copied."""
    tables = []
    for block, columns in zip(blocks, replaced, strict=True):
        arrays = []
        for name in shared.names:
            if name in columns:
                arrays.append(pa.chunked_array([numbers_to_arrow(columns[name])]))
            elif name in block:
                arrays.append(block.table[name])
            else:
                arrays.append(_constant(name, shared.filled[name], block.n_rows, blocks))
        tables.append(pa.table(arrays, names=list(shared.names)))
    return pa.concat_tables(_of_one_type(tables))


def _of_one_type(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return tables whose columns are of one type: texts where one is, else numbers of the widest kind."""
    for place, name in enumerate(tables[0].column_names):
        kinds = {table.schema.field(place).type for table in tables}
        if len(kinds) > 1:
            is_text = any(pa.types.is_string(kind) or pa.types.is_dictionary(kind) for kind in kinds)
            kind = pa.string() if is_text else pa.float64()
            tables = [table.set_column(place, name, table[name].cast(kind)) for table in tables]
    return list(tables)


def _constant(name: str, value: float, n_rows: int, blocks: Sequence[StarBlock]) -> pa.ChunkedArray:
    """Return a column of one value, of the type that it has elsewhere; a list of as many numbers as there."""
    like = next(block.table[name] for block in blocks if name in block)
    if pa.types.is_string(like.type) or pa.types.is_dictionary(like.type):
        text = str(like[0].as_py()) if len(like) else ""
        is_list = text.startswith("[") and text.endswith("]")
        shown = f"[{','.join([f'{value:g}'] * len(text.split(',')))}]" if is_list else f"{value:g}"
        return pa.chunked_array(
            [pa.array([shown]).dictionary_encode().take(pa.array(np.zeros(n_rows, np.int64)))]
        ).cast(pa.string())
    filled = np.full(n_rows, value, np.float64 if pa.types.is_floating(like.type) else np.int64)
    return pa.chunked_array([numbers_to_arrow(filled)]).cast(like.type)


@dataclass(frozen=True, eq=False)
class _Optics:
    block: StarBlock
    groups: list[dict[int, int]]  # of each file, the new number by the old one
    messages: list[Message]


def _united(optics: Sequence[StarBlock], paths: Sequence[Path], labels: Sequence[str]) -> _Optics:
    """Return the optics groups of several files: one where name and all values are equal."""
    for block, path in zip(optics, paths, strict=True):
        if _GROUP not in block:
            raise MissingDataError(
                f"no {_GROUP} in data_optics",
                path=path,
                field=_GROUP,
                hint="`cryobridge convert` to a new STAR file adds it.",
            )
    shared = shared_columns([block.names for block in optics], paths, labels, "relion")
    tables = _of_one_type([_after_another_one(block, shared, optics) for block in optics])
    numbering, rows, maps = Numbering(), [], []
    names: set[str] = set()
    messages = list(shared.messages)
    for table, label in zip(tables, labels, strict=True):
        found = table.to_pylist()
        keys = {int(row[_GROUP]): _key(row) for row in found}
        known = set(numbering.number_of)
        new = numbering.of_file(keys)
        renamed = []
        for row in found:
            old = int(row[_GROUP])
            if keys[old] in known:
                continue
            name = _free_name(row.get(_GROUP_NAME), old, new[old], names)
            if name is not None:
                renamed += [f"{row[_GROUP_NAME]} {name}"] if name != row[_GROUP_NAME] else []
                names.add(name)
                row[_GROUP_NAME] = name
            rows.append({**row, _GROUP: new[old]})
        maps.append(new)
        if renamed:
            shown = ", ".join(item.replace(" ", " is ", 1) for item in renamed[:_N_NAMED])
            more = f" and {len(renamed) - _N_NAMED} more" if len(renamed) > _N_NAMED else ""
            text = f"optics groups of {label} are called otherwise, since their names have other values: {shown}{more}"
            messages.append(note("optics-groups-renamed", text))
    if numbering.n_renumbered:
        text = f"{_groups(numbering.n_renumbered, 'has', 'have')} a new number: groups of several files had the same"
        messages.append(note("optics-groups-renumbered", text))
    if numbering.n_united:
        text = f"{_groups(numbering.n_united, 'is', 'are')} the same as in an earlier file, in name and all values"
        messages.append(note("optics-groups-united", text))
    merged = pa.Table.from_pylist(rows, schema=tables[0].schema)
    first = optics[0]
    return _Optics(StarBlock(first.path, first.name, merged, comments=first.comments), maps, messages)


def _groups(count: int, one: str, several: str) -> str:
    return f"{count:,} optics group {one}" if count == 1 else f"{count:,} optics groups {several}"


def _after_another_one(block: StarBlock, shared: SharedColumns, optics: Sequence[StarBlock]) -> pa.Table:
    arrays = [
        block.table[name] if name in block else _constant(name, shared.filled[name], block.n_rows, optics)
        for name in shared.names
    ]
    return pa.table(arrays, names=list(shared.names))


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what two groups have in common if they are one: all but the number."""
    return tuple(f"{name} {_canonical(value)}" for name, value in row.items() if name != _GROUP)


def _canonical(value: Any) -> str:
    """Return a value as it is compared; columns that the catalogue does not know hold numbers as text."""
    if isinstance(value, str):
        try:
            return rounded(float(value))
        except ValueError:
            return value
    return rounded(value)


def _free_name(name: Any, old: int, new: int, taken: set[str]) -> str | None:
    """Return a name that no group has: with another number where it has its own in it, else with one appended."""
    if name is None or str(name) not in taken:
        return None if name is None else str(name)
    text = str(name)
    candidate = f"opticsGroup{new}" if text == f"opticsGroup{old}" else f"{text}_{new}"
    number = new
    while candidate in taken:
        number += 1
        candidate = f"{text}_{number}"
    return candidate


def _renumbered(block: StarBlock, groups: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the optics group of each row by its new number; the only one where the rows don't say."""
    if _GROUP not in block:
        if len(groups) != 1:
            raise MissingDataError(
                f"no {_GROUP}, and several optics groups",
                path=block.path,
                field=_GROUP,
                hint="Take the file that RELION wrote itself.",
            )
        return np.full(block.n_rows, next(iter(groups.values())), np.int64)
    values = arrow_numbers(block.table[_GROUP])
    old = np.array(sorted(groups), np.int64)
    new = np.array([groups[int(number)] for number in old], np.int64)
    place = np.minimum(np.searchsorted(old, values), len(old) - 1)
    undefined = np.flatnonzero(old[place] != values)
    if len(undefined):
        raise MissingDataError(
            "not defined in data_optics",
            path=block.path,
            field=_GROUP,
            rows=tuple(int(row) for row in undefined[:3]),
            count=len(undefined),
            hint="Add the group, or leave these rows out.",
        )
    numbers: NDArray[np.int64] = new[place]
    return numbers


def _group_numbers(blocks: Sequence[StarBlock], *, has_names: bool) -> list[NDArray[np.int64]]:
    """Return the numbers of the groups that share an intensity scale: one a name, or other ones for each file."""
    found: list[NDArray[np.int64]] = []
    of_name: dict[str, int] = {}
    highest = 0
    for block in blocks:
        numbers = arrow_numbers(block.table[_NUMBER]).astype(np.int64)
        if has_names:
            names = to_labels(block.table[_NAME])
            first = np.zeros(len(names.values), np.int64)
            first[names.codes[::-1]] = numbers[::-1]
            for name, number in zip(names.values, first.tolist(), strict=True):
                if name not in of_name:
                    of_name[name] = number if number > highest or not found else highest + 1
                    highest = max(highest, of_name[name])
            if found:
                numbers = np.array([of_name[name] for name in names.values], np.int64)[names.codes]
        elif found:
            numbers = numbers + highest
        highest = max(highest, int(numbers.max(initial=0)))
        found.append(numbers)
    return found


def _other_blocks(
    stars: Sequence[StarFile], labels: Sequence[str], found: Mapping[str, StarBlock]
) -> tuple[dict[str, StarBlock], list[Message]]:
    """Return the blocks of the first file that are neither its rows nor optics, and which others are left out."""
    own = {name: stars[0][name] for name in stars[0].names if name not in found}
    lost = []
    for star, label in zip(stars[1:], labels[1:], strict=True):
        others = [name for name in star.names if name not in found]
        differing = [name for name in others if name not in own or not star[name].table.equals(own[name].table)]
        lost += [f"data_{name} of {label}" for name in differing]
    if not lost:
        return own, []
    more = f" and {len(lost) - _N_NAMED} more" if len(lost) > _N_NAMED else ""
    return own, [warning("blocks-left-out", f"left out: {', '.join(lost[:_N_NAMED])}{more}")]
