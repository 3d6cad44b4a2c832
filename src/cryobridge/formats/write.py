"""Writing chosen rows of particle files in their own program's form: with all columns, passthrough files and groups."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.formats.arrow import mask_to_arrow, numbers_to_arrow
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.cryosparc.csg import slot_types, write_csg
from cryobridge.formats.cryosparc.join import JoinedTable
from cryobridge.formats.cryosparc.names import holds_exposures, relative_to_file
from cryobridge.formats.input_file import resolved
from cryobridge.formats.particle_files import EXPANDED
from cryobridge.formats.results import result_columns, results_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from cryobridge.formats.cryosparc.csg import ResultGroup
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.relion.star import StarFile
    from cryobridge.formats.table import Values
    from cryobridge.model.particles import Origin, ParticleSet
    from cryobridge.report import Message

Rows: TypeAlias = "NDArray[Any]"
_UID = "uid"  # which each file of a set has


def suffixes_of(files: ParticleFiles) -> tuple[str, ...]:
    """Return what a file of the same program may end in, the usual one first; nothing for pickles."""
    return {"relion": (".star",), "cryosparc": (".cs", ".csg"), "pickles": ()}[files.program]


def require_suffix(files: ParticleFiles, path: Path, what: str) -> None:
    """Refuse an output that would not end as files of the same program do.

    Raises
    ------
    UsageError
        If so; ``what`` says what such a file is, as in "a selection of run_data.star is".
    """
    suffixes = suffixes_of(files)
    if path.suffix not in suffixes:
        raise UsageError(
            f"{what} a {' or '.join(suffixes)} file",
            path=path,
            hint=f"Give {option('output')} a name with that suffix; `cryobridge convert` changes the format.",
        )


def outputs_of(files: ParticleFiles, path: Path) -> tuple[Path, ...]:
    """Return the files that `write_rows` makes, the one that the user names first."""
    if files.program != "cryosparc":
        return (path,)
    stem = path.with_suffix("")
    others = [f"{stem.name}_passthrough{f'_{n}' if n > 1 else ''}.cs" for n in range(1, len(files.members))]
    group = stem.with_name(f"{stem.name}.csg")
    tables = (stem.with_name(f"{stem.name}.cs"), *(stem.with_name(name) for name in others))
    return (group, *tables) if path.suffix == ".csg" else (*tables, group)


def origin_for(particles: ParticleSet, path: Path) -> Origin:
    """Return where particles were read from, to be written to a file of the same program.

    Raises
    ------
    UsageError
        If the particles were changed, or the file is of another program.
    """
    origin = particles.origin
    if origin is None or path.suffix not in suffixes_of(origin.files):
        why = "the particles are not those of a file any more" if origin is None else "a file of another program"
        raise UsageError(why, path=path, hint="Convert them: cryobridge.write does.")
    return origin


def warnings_of_rows(origin: Origin) -> list[Message]:
    """Return what RELION would not take of particles and is left out when they are written as they were read.

    Raises
    ------
    FormatError
        If a pose, shift, CTF value or coordinate in a STAR file is not a number.
    """
    if origin.files.star is None:
        return []
    from cryobridge.formats.relion.accepted import check_star_rows

    rows = np.arange(len(origin.files)) if origin.rows is None else origin.rows
    return check_star_rows(origin.files.star, rows)


def write_as_read(particles: ParticleSet, path: Path) -> tuple[Path, ...]:
    """Write particles to a file of the program that they were read from, with all columns, passthrough files and group.

    Parameters
    ----------
    particles
        As they were read, or some of them in any order, with results that they were given since; ones that were changed
        otherwise have no files any more.
    path
        A `.star`, `.cs` or `.csg` file, as the program of the particles has.

    Returns
    -------
    tuple
        The files that are written.

    Raises
    ------
    UsageError
        If the particles were changed, or the file is of another program.
    MissingDataError
        If they were given classes, and a `.cs` file has no group for them.

    Examples
    --------
    >>> particles = open_particles("cryosparc/J4/J4_003_particles.cs").particles
    >>> write_as_read(particles.take(particles.half_set == 1), Path("half.cs"))
    (PosixPath('half.cs'), PosixPath('half_passthrough.cs'), PosixPath('half.csg'))
    """
    origin = origin_for(particles, path)
    rows = np.arange(len(particles)) if origin.rows is None else origin.rows
    made, without = result_columns(results_of(particles), origin.files)
    RowWriter(origin.files).write(path, rows, Changes(made=made, without=without))
    return outputs_of(origin.files, path)


@dataclass(frozen=True)
class Changes:
    """What differs in rows that are written from those that were read.

    Parameters
    ----------
    added
        Columns of (n,) values, one for each row of the file, which replace those of the same name.
    made
        The same, with one value for each row that is written: for rows that are written several times.
    without
        Names of columns that are left out.
    optics
        Columns of the optics groups of a STAR file, (g,), which replace those of the same name; None for one that is
        left out.
    """

    added: Mapping[str, Values] = field(default_factory=dict)
    made: Mapping[str, Values] = field(default_factory=dict)
    without: Collection[str] = ()
    optics: Mapping[str, Any] = field(default_factory=dict)

    def of_written(self, rows: NDArray[np.int64]) -> dict[str, Values]:
        """Return all new columns of the rows that are written, in their order."""
        return {name: _take(values, rows) for name, values in self.added.items()} | dict(self.made)


class RowWriter:
    """Writes rows of particle files; each table is read once, however many files are written.

    Parameters
    ----------
    files
        The files, of cryoSPARC or RELION.

    Raises
    ------
    MissingDataError
        If a `.cs` file has no uid, without which cryoSPARC can't read what is written.
    """

    def __init__(self, files: ParticleFiles) -> None:
        if files.program == "cryosparc" and "uid" not in files.columns:
            raise MissingDataError(
                "no column uid, which every cryoSPARC table has",
                path=files.metadata,
                field="uid",
                hint="Take the .cs file that cryoSPARC wrote itself.",
            )
        self._files = files
        self._read: dict[int, dict[str, Values]] = {}
        # Columns that were fetched from elsewhere stand under the path of the file that they are beside.
        self._own = {resolved(table.path): table for table, _ in reversed(files.members)}

    def write(
        self,
        path: Path,
        kept: Rows,
        added: Mapping[str, Values] | Changes,
        *,
        parents: NDArray[np.uint64] | None = None,
    ) -> None:
        """Write the chosen rows with all their columns.

        Parameters
        ----------
        path
            The file; others may come beside it (see `outputs_of`).
        kept
            (n,) whether a row is written; or the rows to write, in their order.
        added
            What differs; or columns of (n,) values, which replace those of the same name.
        parents
            (n,) the uid of the particle that each row is a copy of by symmetry expansion. They become the rows' own
            uids, in each `.cs` file, and what says that they are copies is left out.
        """
        changes = added if isinstance(added, Changes) else Changes(added)
        if parents is not None:
            copied = [name for name in self._files.columns.names if name.startswith(f"{EXPANDED}/")]
            changes = replace(changes, added={**changes.added, _UID: parents}, without=(*changes.without, *copied))
        chosen = np.flatnonzero(kept) if kept.dtype == bool else kept
        if self._files.star is not None:
            _write_star_rows(self._files.star, path, chosen, changes)
        else:
            self._write_cs_rows(path, chosen, changes)

    def _write_cs_rows(self, path: Path, chosen: NDArray[np.int64], changes: Changes) -> None:
        """Write each of the joined files, rows in one order and in the container that it has, and the group."""
        outputs = [output for output in outputs_of(self._files, path) if output.suffix == ".cs"]
        new = changes.of_written(chosen)
        homes = {name: self._place_of(name) for name in new}
        columns_of: list[tuple[str, ...]] = []
        for place, ((table, rows), output) in enumerate(zip(self._files.members, outputs, strict=True)):
            own = chosen if rows is None else rows[chosen]
            columns = {
                name: _take(values, own) for name, values in self._columns(place).items() if name not in changes.without
            }
            # An old column of another file, from which it was not taken, would contradict the new one.
            columns = {
                name: values for name, values in columns.items() if homes.get(name, place) == place or name == _UID
            }
            columns |= {name: values for name, values in new.items() if homes[name] == place or name == _UID}
            columns = _as_seen_from(output.parent, columns, table.path.parent)
            write_cs(output, columns, container=getattr(table, "container", "npy"))
            columns_of.append(tuple(columns))
        self._write_group(path, outputs, columns_of, len(chosen))

    def _place_of(self, name: str) -> int:
        """Return the place of the file that a new column goes to: where the others of its group are, or the first."""
        prefix, table = name.partition("/")[0] + "/", self._files.columns
        relative = next((column for column in table.names if column.startswith(prefix)), None)
        if relative is None or not isinstance(table, JoinedTable):
            return 0
        return [member for member, _ in self._files.members].index(table.source_of(relative))

    def _columns(self, place: int) -> dict[str, Values]:
        if place not in self._read:
            table, _ = self._files.members[place]
            self._read[place] = table.read(table.names)
        return self._read[place]

    def _write_group(self, path: Path, outputs: list[Path], columns: list[tuple[str, ...]], n_rows: int) -> None:
        group_path = next(output for output in outputs_of(self._files, path) if output.suffix == ".csg")
        group = self._files.group
        if group is None:
            self._write_new_group(group_path, outputs, columns, n_rows)
            return
        written = slot_types(name for names in columns for name in names)
        removed = slot_types(self._files.columns.names).keys() - written.keys()
        members = [table for table, _ in self._files.members]
        output_of = {path: outputs[members.index(table)] for path, table in self._own.items()}
        slots = {
            slot.name: (slot.type, output_of[resolved(slot.metafile)].name)
            for slot in group.slots
            if resolved(slot.metafile) in output_of and slot.name not in removed
        }
        slots |= self._new_slots(group, outputs, columns)
        write_csg(
            group_path,
            slots,
            n_rows,
            name=group.name or "particles",
            title=group.title,
            description=group.description,
            kind=group.kind or "particle",
            version=group.version or "v4.4.1",
        )

    def _new_slots(
        self, group: ResultGroup, outputs: list[Path], columns: list[tuple[str, ...]]
    ) -> dict[str, tuple[str, str]]:
        """Return slots for groups of columns that none of the files that the group names had."""
        named = {resolved(slot.metafile) for slot in group.slots}
        known = {slot for path in named & self._own.keys() for slot in slot_types(self._own[path].names)}
        found: dict[str, tuple[str, str]] = {}
        for output, names in zip(outputs, columns, strict=True):
            for slot, kind in slot_types(names, group.kind or "particle").items():
                if slot not in known:
                    found.setdefault(slot, (kind, output.name))
        return found

    def _write_new_group(self, path: Path, outputs: list[Path], columns: list[tuple[str, ...]], n_rows: int) -> None:
        """Write a group with a slot for every group of columns; where files share one the first has it."""
        kind = "exposure" if holds_exposures(self._files.columns.names) else "particle"
        slots: dict[str, tuple[str, str]] = {}
        for output, names in zip(outputs, columns, strict=True):
            slots = {slot: (type_name, output.name) for slot, type_name in slot_types(names, kind).items()} | slots
        if slots:
            write_csg(path, slots, n_rows, name=f"{kind}s", kind=kind)


def _write_star_rows(star: StarFile, path: Path, chosen: NDArray[np.int64], changes: Changes) -> None:
    """Write the chosen rows of the main block and all of the other blocks, without half sets that RELION refuses."""
    from cryobridge.formats.relion.accepted import HALF_SETS, half_sets_left_out, half_sets_of_rows
    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.formats.relion.star_write import write_star

    block = star[star.main]
    new = changes.of_written(chosen)
    without = {name for name in changes.without if name in block}
    if HALF_SETS not in new and half_sets_left_out(half_sets_of_rows(block, chosen)):
        without.add(HALF_SETS)
    table = _rows_of(block.table.drop_columns(sorted(without)), chosen)
    table = _with_columns(table, StarBlock.from_columns("", new).table)
    blocks = {name: star[name] for name in star.names}
    blocks[block.name] = StarBlock(path, block.name, table, is_loop=block.is_loop, comments=block.comments)
    if changes.optics:
        optics = star["optics"]
        gone = [name for name, values in changes.optics.items() if values is None and name in optics]
        given = {name: values for name, values in changes.optics.items() if values is not None}
        table = _with_columns(optics.table.drop_columns(gone), StarBlock.from_columns("", given).table)
        blocks["optics"] = StarBlock(path, "optics", table, is_loop=optics.is_loop, comments=optics.comments)
    write_star(path, list(blocks.values()))


def _rows_of(table: pa.Table, chosen: NDArray[np.int64]) -> pa.Table:
    if (np.diff(chosen) <= 0).any():
        return table.take(numbers_to_arrow(chosen))
    kept = np.zeros(table.num_rows, bool)  # in their order: a mask is faster than numbers
    kept[chosen] = True
    return table.filter(mask_to_arrow(kept))


def _with_columns(table: pa.Table, new: pa.Table) -> pa.Table:
    """Return a table with new columns, in the place of those of the same name."""
    for name in new.column_names:
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, new[name])
        else:
            table = table.append_column(name, new[name])
    return table


def _take(values: Values, rows: NDArray[np.int64]) -> Values:
    return values[rows] if isinstance(values, np.ndarray) else values.take(rows)


def _as_seen_from(new_folder: Path, columns: dict[str, Values], folder: Path) -> dict[str, Values]:
    """Return columns of a `.cs` file as they have to stand in another folder: names with ``>`` start at the file's."""
    if resolved(new_folder) == resolved(folder):
        return columns
    return {
        name: values.renamed([relative_to_file(text, folder, new_folder) for text in values.values])
        if name.endswith("path") and not isinstance(values, np.ndarray)
        else values
        for name, values in columns.items()
    }
