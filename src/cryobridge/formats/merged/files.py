"""Several particle files as one, to be chosen from and written like any other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError, UsageError, option
from cryobridge.formats.cryosparc.csg import slot_types
from cryobridge.formats.cryosparc.join import JoinedTable, side_by_side
from cryobridge.formats.cryosparc.names import holds_exposures, relative_to_file
from cryobridge.formats.image_search import ImageSearch, names_lead_elsewhere, not_found
from cryobridge.formats.input_file import resolved
from cryobridge.formats.merged.columns import SharedColumns, shared_columns
from cryobridge.formats.merged.cs import EXPOSURE_GROUP, MergedTable, Part, unlike_columns, widened
from cryobridge.formats.merged.groups import exposure_groups_of
from cryobridge.formats.particle_files import ParticleFiles
from cryobridge.formats.relion.accepted import check_star_rows
from cryobridge.formats.write import suffixes_of
from cryobridge.report import Message, distinct, note, warning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.formats.cryosparc.csg import ResultGroup
    from cryobridge.formats.table import Column, Table

_N_COMPARED = 3


@dataclass(frozen=True, eq=False)
class MergedFiles(ParticleFiles):
    """Rows of several particle files, those of the first one first.

    Attributes
    ----------
    merged
        The files.
    dropped
        Columns that only some of them have, and are left out.
    """

    merged: tuple[ParticleFiles, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where the rows of each file start, and the number of rows, (files + 1,)."""
        return np.cumsum([0, *map(len, self.merged)])


def merged_files(parts: Sequence[ParticleFiles]) -> ParticleFiles:
    """Return several particle files of one program as one.

    Optics groups that agree in name and all values are one group, others get a number, and if needed a name, of their
    own; cryoSPARC's exposure groups likewise, by their values. Names that are relative to a `.cs` file are given as
    they would stand beside the first one. Columns are those of all files, in the layout of the first one's; what only
    some of them have is filled in where its absence says as much, and otherwise left out with a warning.

    Parameters
    ----------
    parts
        One or more, with rows in tables.

    Raises
    ------
    UsageError
        If they are of several programs or layouts, or hold rows of different kinds.
    MissingDataError
        If one of them lacks what the rows are of no use without.
    CryobridgeError
        If one name leads to different images in two of them.

    Examples
    --------
    >>> both = merged_files([open_particles("J4/J4_003_particles.cs"), open_particles("J7/J7_003_particles.cs")])
    >>> both.n_rows
    32
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for other in parts[1:]:
        _refuse_unlike(first, other)
    said = _compared_names(parts)
    labels = names_of(parts)
    if first.program == "relion":
        from cryobridge.formats.merged.star import merged_star

        star, shared, messages = merged_star(parts, labels)
        block: Table = star[star.main]
        found = MergedFiles(first.path, "relion", (), ((block, None),), block, block.n_rows, star=star)
    else:
        table, shared, messages = _merged_table(parts, labels)
        members = table.members if isinstance(table, JoinedTable) else ((table, None),)
        group = _group_of(parts, table)
        found = MergedFiles(first.path, "cryosparc", (), members, table, table.n_rows, group)
    of_parts = [message for part in parts for message in part.messages]
    left_out: Counter[str] = Counter()
    for part in parts:
        left_out.update(part.left_out)
    return replace(
        found,
        files=tuple(dict.fromkeys(path for part in parts for path in part.files)),
        n_rows=sum(part.n_rows for part in parts),
        left_out=dict(left_out),
        messages=distinct([*of_parts, *shared.messages, *messages, *said]),
        from_ancestors=tuple(item for part in parts for item in part.from_ancestors),
        merged=tuple(parts),
        dropped=shared.dropped,
    )


def check_rows(files: ParticleFiles, rows: NDArray[np.bool_]) -> list[Message]:
    """Ask the rules of what RELION takes of rows that are to be written as they are (`accepted.check_star_rows`).

    Raises
    ------
    FormatError
        If a value that RELION calculates with is not a number, with the file and the rows that it is in.
    """
    if files.star is None:
        return []
    if isinstance(files, MergedFiles):
        for part, start in zip(files.merged, files.starts[:-1], strict=True):
            if part.star is not None:
                check_star_rows(part.star, rows[start : start + len(part)])
    return check_star_rows(files.star, rows)


def found_from(files: ParticleFiles, rows: NDArray[np.bool_], folder: Path) -> list[Message]:
    """Warn of stacks of the chosen rows that are not found, or say how they are found from another folder."""
    if isinstance(files, MergedFiles):
        bounds = pairwise(files.starts.tolist())
        return [
            message
            for part, (start, stop) in zip(files.merged, bounds, strict=True)
            for message in found_from(part, rows[start:stop], folder)
        ]
    metadata = files.metadata
    names, search = files.image_files(rows), ImageSearch(metadata)
    message = not_found(names, search)
    found = search.resolve(names[0]) if names else None
    if message is None and found is not None:
        of_cs = files.program == "cryosparc"
        name = relative_to_file(names[0], metadata.parent, folder) if of_cs else names[0]
        message = names_lead_elsewhere(name, found, folder / metadata.name, metadata)
    return [message] if message else []


def names_of(parts: Sequence[ParticleFiles]) -> list[str]:
    """Return how files are called in messages: by name, or by the whole path where two have one name."""
    names = [part.metadata.name for part in parts]
    return names if len(set(names)) == len(names) else [str(part.metadata) for part in parts]


def _refuse_unlike(first: ParticleFiles, other: ParticleFiles) -> None:
    """Refuse a file that is of another program, or has rows of another kind."""
    for files in (first, other):
        if files.program == "pickles" or files.table is None:
            raise UsageError(
                "not a table, but particles in memory or a stack of images",
                path=files.metadata,
                hint="Give .star or .cs files.",
            )
    if first.program != other.program:
        suffix = suffixes_of(first)[0]
        raise UsageError(
            f"a file of another program than {first.metadata.name}",
            path=other.metadata,
            hint=f"Convert it first: `cryobridge convert {other.path}` to a {suffix} file.",
        )
    kinds = [_kind_of(files) for files in (first, other)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"it holds {kinds[1]}, and {first.metadata.name} {kinds[0]}",
            path=other.metadata,
            hint="Give files whose rows are of one kind.",
        )


def _kind_of(files: ParticleFiles) -> str:
    if files.star is not None:
        return files.star.main or "rows without a name"
    return "exposures" if holds_exposures(files.columns.names) else "particles"


def _compared_names(parts: Sequence[ParticleFiles]) -> list[Message]:
    """Say where images of several files are named from different folders, so that one output can't name them all.

    Raises
    ------
    CryobridgeError
        If one name leads to different images.
    """
    stacks = [part.image_files(np.ones(len(part), bool)) for part in parts]
    searches = [ImageSearch(part.metadata) for part in parts]
    known: dict[str, int] = {}
    for place, names in enumerate(stacks):
        shared = [name for name in names if name in known and not name.startswith(">")]
        for name in shared[:_N_COMPARED]:
            paths = [searches[which].resolve(name) for which in (known[name], place)]
            if paths[0] is not None and paths[1] is not None and resolved(paths[0]) != resolved(paths[1]):
                raise _one_name_for_two(name, paths[0], paths[1], parts[place])
        known |= {name: place for name in names if name not in known}
    roots = [_root(names, search) for names, search in zip(stacks, searches, strict=True)]
    first = roots[0]
    others = [place for place, root in enumerate(roots) if None not in (root, first) and root != first]
    if not others:
        return []
    text = (
        f"the images of {parts[others[0]].metadata.name} are named from {roots[others[0]]}, those of "
        f"{parts[0].metadata.name} from {first}: from one folder not all of them are found; `cryobridge convert` with "
        f"{option('link_stacks', 'DIR')} gives each file names that one folder has"
    )
    return [warning("images-named-from-several-folders", text, where=parts[others[0]].metadata)]


def _root(names: Sequence[str], search: ImageSearch) -> Path | None:
    """Return the folder that names start at; None where they are absolute, relative to the file, or not found."""
    name = next(iter(names), "")
    found = None if not name or name.startswith((">", "/")) else search.resolve(name)
    if found is None:
        return None
    whole, depth = resolved(found), len([part for part in name.split("/") if part not in {"", "."}])
    return whole.parents[depth - 1] if ".." not in name.split("/") and depth <= len(whole.parents) else None


def _one_name_for_two(name: str, one: Path, other: Path, part: ParticleFiles) -> CryobridgeError:
    return CryobridgeError(
        f"the stack {name} is {other} in it, and {one} in one before it: they could not be distinguished",
        path=part.metadata,
        hint=f"`cryobridge convert` with {option('link_stacks', 'DIR')} gives the stacks of one of them other names.",
    )


def _merged_table(parts: Sequence[ParticleFiles], labels: list[str]) -> tuple[Table, SharedColumns, list[Message]]:
    """Return the rows of `.cs` files as one table, its columns in the files that the first one has them in."""
    tables = [part.columns for part in parts]
    paths = [part.metadata for part in parts]
    unlike = unlike_columns(tables, labels)
    shared = shared_columns([table.names for table in tables], paths, labels, "cryosparc", unlike)
    columns = {name: _widest(name, tables) for name in shared.names}
    messages = _widened_columns(columns, tables[0])
    is_grouped = any(name.endswith(EXPOSURE_GROUP) for name in columns)
    groups, said = exposure_groups_of(tables, labels, columns) if is_grouped else ([{} for _ in parts], [])
    rows = [Part(part, of_part) for part, of_part in zip(parts, groups, strict=True)]
    members = [member for member, _ in parts[0].members]
    homes = {name: _home(name, tables[0], members) for name in columns}
    merged = [
        MergedTable(
            member.path,
            rows,
            tuple(column for name, column in columns.items() if name == "uid" or homes[name] == place),
            shared.filled,
            getattr(member, "container", "npy"),
        )
        for place, member in enumerate(members)
    ]
    table = merged[0] if len(merged) == 1 else side_by_side(merged)
    return table, shared, [*messages, *said]


def _widest(name: str, tables: Sequence[Table]) -> Column:
    found: Column | None = None
    for table in tables:
        own = next((column for column in table.columns if column.name == name), None)
        if own is not None:
            found = own if found is None else widened(found, own)
    assert found is not None  # those that go with none were left out
    return found


def _widened_columns(columns: dict[str, Column], first: Table) -> list[Message]:
    own = {column.name: column for column in first.columns}
    changed = [f"{name} {column.dtype}" for name, column in columns.items() if name in own and own[name] != column]
    return [note("columns-widened", f"in a wider type than in all files: {', '.join(changed)}")] if changed else []


def _home(name: str, table: Table, members: Sequence[Table]) -> int:
    """Return the file of the first ones that a column goes to: its own, or where the others of its group are."""
    if not isinstance(table, JoinedTable):
        return 0
    prefix = name.partition("/")[0] + "/"
    relative = name if name in table else next((own for own in table.names if own.startswith(prefix)), None)
    return 0 if relative is None else members.index(table.source_of(relative))


def _group_of(parts: Sequence[ParticleFiles], table: Table) -> ResultGroup | None:
    """Return the group of the first file with the slots that are left, and the latest version of all groups."""
    group = parts[0].group
    if group is None:
        return None
    left = slot_types(table.names)
    slots = tuple(slot for slot in group.slots if slot.name in left)
    versions = [part.group.version for part in parts if part.group is not None]
    return replace(group, slots=slots, version=max(versions, key=_version)) if slots else None


def _version(text: str) -> tuple[Any, ...]:
    numbers = [int(part) if part.isdecimal() else 0 for part in text.removeprefix("v").split("+")[0].split(".")]
    return tuple(numbers)
