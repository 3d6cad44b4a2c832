"""Particle files as tables of which rows can be written: STAR files, and `.cs` files with what belongs to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.arrow import numbers_to_arrow
from cryobridge.formats.cryosparc.companions import companions_by_name, particles_of_job
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.cryosparc.csg import ResultGroup, open_group, read_csg, slot_types, write_csg
from cryobridge.formats.cryosparc.join import JoinedTable, join_on_uid
from cryobridge.formats.cryosparc.names import parse_cs_name
from cryobridge.formats.cryosparc.particles import images_of
from cryobridge.formats.listing import list_folder
from cryobridge.formats.registry import CS, CSG, STAR, identify_file
from cryobridge.formats.relion.particles import parse_image_names
from cryobridge.formats.relion.star import StarBlock, StarFile, open_star
from cryobridge.formats.relion.star_write import write_star
from cryobridge.formats.table import ColumnReader
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryobridge.formats.table import Table, Values
    from cryobridge.model.particles import ImageRefs

Rows = NDArray[np.int64]
_EXPOSURE_SLOTS = ("micrograph_blob", "movie_blob")
_NOT_JOINED = "uid not in the joined files"


class ParticleTable(ABC):
    """The rows of a particle file.

    Attributes
    ----------
    path
        The file that was named.
    table
        Its columns; those of passthrough files are among them.
    file_rows
        (n,) row of the file, counted from 0, for each row of `table`: where files are joined, some may be missing.
    n_file_rows
        Rows of the file.
    inputs
        The files that are read.
    left_out
        Rows of the file that `table` lacks, by reason.
    notes
        What was joined or assumed, in sentences.
    """

    suffixes: tuple[str, ...]

    def __init__(
        self,
        path: Path,
        table: Table,
        file_rows: Rows,
        n_file_rows: int,
        *,
        inputs: tuple[Path, ...],
        notes: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.table = table
        self.file_rows = file_rows
        self.n_file_rows = n_file_rows
        self.inputs = inputs
        missing = n_file_rows - table.n_rows
        self.left_out = {_NOT_JOINED: missing} if missing else {}
        self.notes = tuple(notes)

    @property
    def n_rows(self) -> int:
        """Number of rows of `table`."""
        return self.table.n_rows

    @abstractmethod
    def uid(self) -> NDArray[np.uint64] | None:
        """Return cryoSPARC's identity of each row, (n,), or None."""

    @abstractmethod
    def images(self) -> ImageRefs | None:
        """Return the images of the rows, or None."""

    @abstractmethod
    def stacks(self, kept: NDArray[np.bool_]) -> list[str]:
        """Return the distinct files of the chosen rows' images as they are written; none where no row says."""

    @abstractmethod
    def outputs(self, path: Path) -> tuple[Path, ...]:
        """Return the files that `write` makes, the one that the user names first."""

    @abstractmethod
    def write(self, path: Path, kept: NDArray[np.bool_], added: Mapping[str, Values]) -> None:
        """Write the chosen rows with all their columns.

        Parameters
        ----------
        path
            The file; others may come beside it (see `outputs`).
        kept
            (n,) whether a row is written.
        added
            Columns of (n,) values, which replace those of the same name.
        """


class StarParticles(ParticleTable):
    """The main block of a STAR file; the other blocks are written as they are."""

    suffixes = (".star",)

    def __init__(self, path: Path, star: StarFile) -> None:
        self._star = star
        self._block = star[star.main]
        rows = np.arange(self._block.n_rows)
        super().__init__(path, self._block, rows, self._block.n_rows, inputs=(path,), notes=star.notes)

    def uid(self) -> None:
        """Return None: a STAR file has no uids."""

    def images(self) -> ImageRefs | None:
        """Return the images of the rows, or None."""
        return parse_image_names(self._block) if "rlnImageName" in self._block else None

    def stacks(self, kept: NDArray[np.bool_]) -> list[str]:
        """Return the distinct files of the chosen rows' images; none where no row says."""
        if "rlnImageName" not in self._block:
            return []
        names = self._block.texts("rlnImageName").filter(_arrow_mask(kept))
        found: dict[str, None] = {}
        for chunk in names.chunks:  # some hundred times as fast as row by row
            parts = pc.split_pattern(chunk, "@", max_splits=1)
            last = numbers_to_arrow(parts.offsets.to_numpy()[1:].astype(np.int64) - 1)
            found |= dict.fromkeys(parts.flatten().take(last).unique().to_pylist())
        return list(found)

    def outputs(self, path: Path) -> tuple[Path, ...]:
        """Return the one file that is written."""
        return (path,)

    def write(self, path: Path, kept: NDArray[np.bool_], added: Mapping[str, Values]) -> None:
        """Write the chosen rows of the main block and all of the others."""
        table = self._block.table
        extra = StarBlock.from_columns("", dict(added)).table
        for name in added:
            if name in table.column_names:
                table = table.set_column(table.column_names.index(name), name, extra[name])
            else:
                table = table.append_column(name, extra[name])
        block = self._block
        chosen = StarBlock(
            path, block.name, table.filter(_arrow_mask(kept)), is_loop=block.is_loop, comments=block.comments
        )
        write_star(path, [chosen if name == block.name else self._star[name] for name in self._star.names])


class CsParticles(ParticleTable):
    """A `.cs` file, those that are joined with it, and the result group that names them."""

    suffixes = (".cs", ".csg")

    def __init__(self, path: Path, joined: JoinedTable, group: ResultGroup | None, notes: Sequence[str]) -> None:
        main, main_rows = joined.members[0]
        super().__init__(
            path,
            joined,
            np.arange(main.n_rows) if main_rows is None else main_rows,
            main.n_rows,
            inputs=tuple(dict.fromkeys([path, *(table.path for table, _ in joined.members)])),
            notes=notes,
        )
        self._joined = joined
        self._group = group
        self._read: dict[int, dict[str, Values]] = {}

    def uid(self) -> NDArray[np.uint64] | None:
        """Return the uids of the rows, (n,)."""
        if "uid" not in self.table:
            return None
        uid = np.asarray(self.table.read(["uid"])["uid"])
        return uid.view(np.uint64) if uid.dtype.kind in "iu" and uid.dtype.itemsize == 8 else None

    def images(self) -> ImageRefs | None:
        """Return the images of the rows, or None."""
        return images_of(ColumnReader(self.table))

    def stacks(self, kept: NDArray[np.bool_]) -> list[str]:
        """Return the distinct files of the chosen rows' images; none where no row says."""
        names = self.table.read(["blob/path"])["blob/path"] if "blob/path" in self.table else None
        if not isinstance(names, Labels):
            return []
        return [names.values[code] for code in np.unique(names.codes[kept])]

    def outputs(self, path: Path) -> tuple[Path, ...]:
        """Return the `.cs` file, those of the other columns, and the result group."""
        stem = path.with_suffix("")
        others = [f"{stem.name}_passthrough{f'_{n}' if n > 1 else ''}.cs" for n in range(1, len(self._joined.members))]
        group = stem.with_name(f"{stem.name}.csg")
        files = (stem.with_name(f"{stem.name}.cs"), *(stem.with_name(name) for name in others))
        return (group, *files) if path.suffix == ".csg" else (*files, group)

    def write(self, path: Path, kept: NDArray[np.bool_], added: Mapping[str, Values]) -> None:
        """Write each of the joined files, rows in one order and in the container that it has, and the group."""
        chosen = np.flatnonzero(kept)
        files = [output for output in self.outputs(path) if output.suffix == ".cs"]
        homes = {name: self._home(name) for name in added}
        columns_of: list[tuple[str, ...]] = []
        for place, ((table, rows), file) in enumerate(zip(self._joined.members, files, strict=True)):
            own = chosen if rows is None else rows[chosen]
            columns = {name: _take(values, own) for name, values in self._columns(place).items()}
            columns |= {name: _take(values, chosen) for name, values in added.items() if homes[name] == place}
            write_cs(file, columns, container=getattr(table, "container", "npy"))
            columns_of.append(tuple(columns))
        self._write_group(path, files, columns_of, len(chosen))

    def _home(self, name: str) -> int:
        """Return the place of the file that a new column goes to: where the others of its group are, or the first."""
        prefix = name.partition("/")[0] + "/"
        sources = [table for table, _ in self._joined.members]
        relatives = [column for column in self.table.names if column.startswith(prefix)]
        return sources.index(self._joined.source_of(relatives[0])) if relatives else 0

    def _columns(self, place: int) -> dict[str, Values]:
        if place not in self._read:
            table, _ = self._joined.members[place]
            self._read[place] = table.read(table.names)
        return self._read[place]

    def _write_group(self, path: Path, files: list[Path], columns: list[tuple[str, ...]], n_rows: int) -> None:
        group_path = next(output for output in self.outputs(path) if output.suffix == ".csg")
        group = self._group
        if group is None:
            self._write_new_group(group_path, files, columns, n_rows)
            return
        sources = [table.path.resolve() for table, _ in self._joined.members]
        slots = {slot.name: (slot.type, files[sources.index(slot.metafile.resolve())].name) for slot in group.slots}
        told = {slot for names in (table.names for table, _ in self._joined.members) for slot in slot_types(names)}
        for file, names in zip(files, columns, strict=True):
            new = {slot: kind for slot, kind in slot_types(names, group.kind or "particle").items() if slot not in told}
            slots |= {slot: (kind, file.name) for slot, kind in new.items()}
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

    def _write_new_group(self, path: Path, files: list[Path], columns: list[tuple[str, ...]], n_rows: int) -> None:
        """Write a group with a slot for every group of columns; where files share one the first has it."""
        is_exposures = "blob/path" not in self.table and any(f"{name}/path" in self.table for name in _EXPOSURE_SLOTS)
        kind = "exposure" if is_exposures else "particle"
        slots: dict[str, tuple[str, str]] = {}
        for file, names in zip(files, columns, strict=True):
            slots = {slot: (type_name, file.name) for slot, type_name in slot_types(names, kind).items()} | slots
        if slots:
            write_csg(path, slots, n_rows, name=f"{kind}s", kind=kind)


def open_particles(path: Path, passthroughs: Sequence[Path] = (), *, join: bool = True) -> ParticleTable:
    """Open a particle file.

    Parameters
    ----------
    path
        A `.star`, `.cs` or `.csg` file, or a cryoSPARC job folder, which stands for the `.cs` file of its particles.
    passthroughs
        `.cs` files to be joined with a `.cs` file. Without them those are taken that a `.csg` beside it names along
        with it, else those that the job names, or the passthrough file that its name tells.
    join
        False for a `.cs` file by itself.

    Raises
    ------
    UsageError
        If it is of another kind, or files are to be joined with one that is no `.cs`.
    FormatError, MissingDataError
        If a file can't be read, or files have no uids in common.
    """
    if path.is_dir():
        job = particles_of_job(path)
        return _open_cs(job.main, passthroughs, job.passthroughs, job.notes, join=join)
    kind = identify_file(path)
    if kind != CS and (passthroughs or not join):
        option = "--passthrough" if passthroughs else "--no-passthrough"
        raise UsageError(f"{option} is for a .cs file", path=path, hint=f"Leave {option} out.")
    if kind == STAR:
        return StarParticles(path, open_star(path))
    if kind == CSG:
        joined = open_group(path)
        _refuse_disjoint(joined)
        return CsParticles(path, joined, read_csg(path), _join_notes(joined))
    if kind != CS:
        raise UsageError(
            f"not a particle file, but {kind}",
            path=path,
            hint="Give a .star, .cs or .csg file with one row a particle, or a cryoSPARC job folder.",
        )
    return _open_cs(path, passthroughs, join=join)


def _open_cs(
    path: Path, passthroughs: Sequence[Path], of_job: Sequence[Path] = (), notes: Sequence[str] = (), *, join: bool
) -> CsParticles:
    group = None
    if not passthroughs and join:
        group, passthroughs = _companions(path)
        passthroughs = passthroughs or of_job
    joined = _join(path, passthroughs)
    _refuse_disjoint(joined)
    return CsParticles(path, joined, group, [*notes, *_join_notes(joined)])


def _join(path: Path, passthroughs: Sequence[Path]) -> JoinedTable:
    main = open_cs(path)
    if not passthroughs and "uid" not in main:
        raise MissingDataError(
            "no column uid, which every cryoSPARC table has",
            path=path,
            field="uid",
            hint="Take the .cs file that cryoSPARC wrote itself.",
        )
    return join_on_uid(main, *(open_cs(other) for other in passthroughs))


def _refuse_disjoint(joined: JoinedTable) -> None:
    (main, _), *others = joined.members
    if main.n_rows and not joined.n_rows:
        raise MissingDataError(
            f"none of its {main.n_rows:,} uids is in {' and '.join(table.path.name for table, _ in others)}",
            path=main.path,
            field="uid",
            hint="Name the passthrough file of the same job with --passthrough, or give --no-passthrough.",
        )


def _join_notes(joined: JoinedTable) -> list[str]:
    others = [table.path.name for table, _ in joined.members[1:]]
    return [*([f"joined on uid with {', '.join(others)}"] if others else []), *joined.notes]


def _companions(path: Path) -> tuple[ResultGroup | None, list[Path]]:
    """Return the result group beside a `.cs` file that names it, and the files that belong to it."""
    names = list_folder(path.absolute().parent).files
    for name in sorted(name for name in names if name.endswith(".csg")):
        try:
            group = read_csg(path.parent / name)
        except CryobridgeError:
            continue
        others = [member for member in group.members if member.resolve() != path.resolve()]
        if len(others) < len(group.members) and all(member.is_file() for member in others):
            return group, others
    return None, [] if parse_cs_name(path.name).is_passthrough else list(companions_by_name(path))


def _arrow_mask(kept: NDArray[np.bool_]) -> pa.Array:
    """Return a mask as an Arrow array over its own bits; Arrow's conversion imports pandas."""
    bits = np.packbits(kept, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(kept), [None, pa.py_buffer(bits)])


def _take(values: Values, rows: Rows) -> Values:
    return values[rows] if isinstance(values, np.ndarray) else values.take(rows)
