"""cryoSPARC columns -> the particle set."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError
from cryobridge.formats.aberrations import CRYOSPARC_COLUMNS, from_cryosparc
from cryobridge.formats.cryosparc.alignments import Alignment, choose_alignment
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.helical import from_first_segment, number_tubes, tube_codes
from cryobridge.formats.latent import read_latent
from cryobridge.formats.optics import KnownOptics, fill_optics, first_rows, group_optics
from cryobridge.formats.table import ColumnReader, Table, TableInMemory, rows_of_file
from cryobridge.model.fields import ALIGNMENT_GROUP, FIELDS, Field, fields_of, numbered
from cryobridge.model.geometry import fractions_to_px
from cryobridge.model.particles import CTF, ExtraColumns, Helix, ImageRefs, Locations, ParticleSet, ctf_of
from cryobridge.report import Message, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from cryobridge.formats.table import Array
    from cryobridge.model.particles import Optics

_NOTHING_KNOWN = KnownOptics()


def read_particles_cs(path: str | os.PathLike[str]) -> ParticleSet:
    """Read a `.cs` file of particles.

    Parameters
    ----------
    path
        The file alone; `cryobridge.formats.open.open_particles` joins what belongs to it.

    Raises
    ------
    FormatError
        If the file is not a whole `.cs` file.
    """
    return particles_from_cs(open_cs(path))


def particles_from_cs(
    table: Table, *, pose_from: str | None = None, known: KnownOptics = _NOTHING_KNOWN
) -> ParticleSet:
    """Turn cryoSPARC columns into a particle set; what the table lacks is None.

    Angles become matrices, shifts ångström by the pixel size of their own alignment (docs/conventions.md),
    coordinates pixels of the micrograph as stored, without a flip. Classes and half sets count from 1.

    Parameters
    ----------
    table
        One file, or several joined on uid.
    pose_from
        The alignment to take (see `alignments.alignments_in`), the first one if not given.
    known
        Optics values that the user gives for a file that lacks them.

    Raises
    ------
    UsageError
        If there is no such alignment, or ``known`` contradicts the file.
    FormatError
        If a column has another shape than cryoSPARC gives it.
    """
    with rows_of_file(table):
        return _particles(table, pose_from, known)


def _particles(table: Table, pose_from: str | None, known: KnownOptics) -> ParticleSet:
    chosen = choose_alignment(table.names, pose_from, table.path)
    groups = chosen[1] if chosen else ()
    names = [column for item in FIELDS for column in _columns(item, groups, table) if column in table]
    columns = ColumnReader(InMemory(table, list(dict.fromkeys(names))))
    optics, optics_index = fill_optics(*_optics(columns, table), table.n_rows, known, table.path)
    particles = ParticleSet(
        n_rows=table.n_rows,
        source=table.path,
        uid=uid_of(columns),
        images=images_of(columns),
        optics=optics,
        optics_index=optics_index,
        ctf=ctf_of_columns(columns),
        locations=_locations(columns),
        latent=read_latent(columns, "cryosparc"),
        columns={name: values for name, values in columns.part("columns", "cryosparc").items() if values is not None},
        **{item.key: columns.field(item, "cryosparc") for item in fields_of("") if _is_direct(item)},
    )
    particles = replace(particles, helix=_helix(columns, particles.locations))
    if chosen is not None:
        alignment = Alignment(columns, *chosen)
        particles = replace(
            particles,
            poses=alignment.poses(None if optics is None else particles.per_particle("pixel_size_A")),
            half_set=alignment.half_set(),
            class_number=alignment.class_number(),
            class_posterior=alignment.class_posterior(),
        )
    return replace(particles, extra=_extra(table, particles, groups), messages=tuple(columns.messages))


def _columns(item: Field, groups: tuple[str, ...], table: Table) -> list[str]:
    """Return the columns that a quantity is read from, in the groups of the alignment for those that it has."""
    return [
        column
        for name in numbered(item.names("cryosparc"), table.names)
        for column in ([name.format(alignment=group) for group in groups] if _is_aligned(name) else [name])
    ]


def _is_aligned(column: str) -> bool:
    return column.startswith(ALIGNMENT_GROUP)


def _is_direct(item: Field) -> bool:
    """Whether one column, and not the alignment, has a quantity of the set itself."""
    return not item.is_coded and not any(map(_is_aligned, item.names("cryosparc")))


def _extra(table: Table, particles: ParticleSet, groups: tuple[str, ...]) -> ExtraColumns:
    """Return what is carried to another `.cs` file; columns of a part that is not whole are among it."""
    modelled = {column for item in FIELDS if particles.is_modelled(item) for column in _columns(item, groups, table)}
    others = tuple(name for name in table.names if name not in modelled)
    return ExtraColumns("cryosparc", others, table, of_file=frozenset(table.names))


class InMemory(TableInMemory):
    """Columns that were read in one pass over the file, which holds them row by row."""

    def __init__(self, table: Table, names: list[str]) -> None:
        columns = tuple(column for column in table.columns if column.name in names)
        super().__init__(table.path, table.n_rows, columns, table.read(names))


def repeated_uids(uid: NDArray[np.uint64] | None, rows: NDArray[np.int64] | slice = slice(None)) -> list[Message]:
    """Return a warning where chosen rows have one uid.

    Parameters
    ----------
    uid
        (n,) of each row; None where there is none.
    rows
        The chosen ones.
    """
    if uid is None:
        return []
    chosen = uid[rows]
    n_repeated = len(chosen) - len(np.unique(chosen))
    text = (
        f"{part_of(n_repeated, len(chosen), 'row', 'repeat', of_one='repeats')} another row's uid, by which "
        "cryoSPARC tells them apart"
    )
    return [warning("uid-repeated", text)] if n_repeated else []


def uid_of(columns: ColumnReader) -> NDArray[np.uint64] | None:
    """Return the identity of each row, (n,), or None where there is none."""
    uid = columns.get("uid", shapes=((),))
    if uid is None or uid.dtype.kind not in "iu" or uid.dtype.itemsize != 8:
        if uid is not None:
            columns.note(
                "uid-not-64-bit", f"uid is of type {uid.dtype}, not an integer of 64 bits; it identifies no row"
            )
        return None
    return uid.view(np.uint64)


def images_of(columns: ColumnReader) -> ImageRefs | None:
    """Return the image references of cryoSPARC columns, or None where there are none."""
    path, index = columns.labels("blob/path"), columns.integers("blob/idx")
    if path is None and "blob/path" in columns and columns.n_rows:
        raise FormatError(
            "a column of numbers, where names of image files are needed",
            path=columns.path,
            field="blob/path",
            hint="Take the file that the program wrote itself.",
        )
    if path is None or index is None:
        return None
    nameless = np.array([not text.removeprefix(">") for text in path.values], bool)
    rows = np.flatnonzero(nameless[path.codes]) if nameless.any() else ()
    if len(rows):
        raise FormatError(
            "the name of the image file is empty",
            path=columns.path,
            field="blob/path",
            rows=tuple(int(row) for row in rows[:3]),
            count=len(rows),
            hint="Leave these rows out, or give the file that names their images.",
        )
    return ImageRefs(path, index)


def ctf_of_columns(columns: ColumnReader) -> CTF | None:
    """Return the contrast transfer of cryoSPARC columns, or None where it is not whole."""
    ctf = ctf_of(columns.part("ctf", "cryosparc"))
    shift_A = columns.get("ctf/shift_A", shapes=((2,),))
    return replace(ctf, shift_A=shift_A.astype(np.float64)) if ctf and shift_A is not None and shift_A.any() else ctf


def optics_of_table(table: Table, names: Collection[str]) -> Optics | None:
    """Return the distinct optics values in the named columns of a table, with the exposure groups that have them."""
    own = [*(name for item in fields_of("optics") for name in item.names("cryosparc")), *CRYOSPARC_COLUMNS]
    columns = ColumnReader(InMemory(table, [name for name in dict.fromkeys(own) if name in table and name in names]))
    return _optics(columns, table)[0]


def _optics(columns: ColumnReader, table: Table) -> tuple[Optics | None, NDArray[np.int32] | None]:
    if "ctf/accel_kv" not in columns and "blob/psize_A" not in columns:
        return None, None
    return optics_of_columns(columns, table.path)


def optics_of_columns(
    columns: ColumnReader, path: Path, instead: Mapping[str, str] | None = None
) -> tuple[Optics, NDArray[np.int32]]:
    """Return the optics groups of cryoSPARC columns, with their aberrations, and (n,) the group of each row.

    Parameters
    ----------
    columns
        The columns.
    path
        Their file, for messages.
    instead
        By the name of a field of `Optics`, a column that is read where those of the field are absent.
    """
    bent = {
        name: values
        for name, width in CRYOSPARC_COLUMNS.items()
        if (values := columns.get(name, shapes=((width,),))) is not None and values.any()
    }
    found = {item.key: _of_optics(item, columns) for item in fields_of("optics") if item.kind != "text"}
    for key, name in (instead or {}).items():
        if found.get(key) is None and name in columns:
            found[key] = columns.get(name, shapes=((),))
    optics, index = group_optics(columns.n_rows, also=bent.values(), **found)
    if bent:
        first = first_rows(index)
        of_groups = {name: values[first] for name, values in bent.items()}
        optics = replace(optics, aberrations=from_cryosparc(of_groups, first, path))
    return optics, index


def _of_optics(item: Field, columns: ColumnReader) -> Array | None:
    """Return an optics value of each particle, (n,), as the file has it."""
    name = next((name for name in item.names("cryosparc") if name in columns), None)
    if name is None or (item.kind == "int" and not item.cs_width):
        return None if name is None else columns.integers(name)
    if name not in item.columns("cryosparc") and name.partition("/")[0] in _groups_of(item):
        columns.note("old-spelling", f"{item.title} is taken from {name}, an unusual spelling")
    values = columns.get(name, shapes=((item.cs_width,) if item.cs_width else (),))
    return values[:, 0] if values is not None and item.cs_width else values


def _groups_of(item: Field) -> set[str]:
    return {column.partition("/")[0] for column in item.columns("cryosparc")}


def _locations(columns: ColumnReader) -> Locations | None:
    micrograph = columns.labels("location/micrograph_path")
    shape = columns.get("location/micrograph_shape", shapes=((2,),))
    x, y = columns.floats("location/center_x_frac"), columns.floats("location/center_y_frac")
    if micrograph is None or shape is None or x is None or y is None:
        return None
    # cryoSPARC writes zeros where it does not know, as for imported particles without exposures.
    if len(shape) and not (shape.any() and x.any() and y.any()):
        columns.note("locations-are-zero", "location columns hold zeros: where the particles lie is not known")
        return None
    fraction = np.column_stack([x, y])
    return Locations(micrograph, fractions_to_px(fraction, shape), shape.astype(np.int64))


def _helix(columns: ColumnReader, locations: Locations | None) -> Helix | None:
    uid = columns.get("filament/filament_uid", shapes=((),))
    if uid is None or uid.dtype.kind not in "iu":
        return None
    micrograph = np.zeros(len(uid), np.int32) if locations is None else locations.micrograph.codes
    tube = number_tubes(micrograph, uid)
    position_A = columns.part("helix", "cryosparc")["track_length_A"]
    if position_A is not None:
        position_A = from_first_segment(position_A, tube_codes(micrograph, tube))
    return Helix(tube, position_A, uid.astype(np.uint64))
