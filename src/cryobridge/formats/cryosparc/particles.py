"""cryoSPARC columns -> the particle set."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.aberrations import CRYOSPARC_COLUMNS, from_cryosparc
from cryobridge.formats.cryosparc.alignments import Alignment, choose_alignment, columns_of
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.helical import from_first_segment, number_tubes, tube_codes
from cryobridge.formats.optics import KnownOptics, fill_optics, first_rows, group_optics
from cryobridge.formats.table import ColumnReader, Table
from cryobridge.model.geometry import fractions_to_px
from cryobridge.model.particles import CTF, ExtraColumns, Helix, ImageRefs, Locations, ParticleSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.formats.table import Values
    from cryobridge.model.particles import Optics

AMPLITUDE_CONTRAST_NAMES = ("ctf/amp_contrast", "ctf/amp_constrast", "ctf/ac")
_NOTHING_KNOWN = KnownOptics()
_CTF = tuple(f"ctf/{name}" for name in ("df1_A", "df2_A", "df_angle_rad", "phase_shift_rad", "bfactor", "scale"))
_LOCATION = tuple(
    f"location/{name}" for name in ("micrograph_path", "micrograph_shape", "center_x_frac", "center_y_frac")
)
_FILAMENT = ("filament/filament_uid", "filament/position_A", "filament/arc_length_A")
# Columns that the model has a place for, besides those of the alignment.
_MODELLED = (
    *("uid", "blob/path", "blob/idx", "blob/shape", "blob/psize_A", "ctf/exp_group_id", "location/exp_group_id"),
    *("ctf/accel_kv", "ctf/cs_mm", *AMPLITUDE_CONTRAST_NAMES, *CRYOSPARC_COLUMNS, *_CTF, *_LOCATION, *_FILAMENT),
    *("location/micrograph_psize_A", "micrograph_blob/psize_A", "movie_blob/psize_A", "pick_stats/ncc_score"),
)


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
    chosen = choose_alignment(table.names, pose_from, table.path)
    modelled = [name for name in (*_MODELLED, *columns_of(chosen[1] if chosen else ())) if name in table]
    columns = ColumnReader(_InMemory(table, modelled))
    optics, optics_index = fill_optics(*_optics(columns, table), table.n_rows, known, table.path)
    particles = ParticleSet(
        n_rows=table.n_rows,
        source=table.path,
        uid=_uid(columns),
        images=images_of(columns),
        optics=optics,
        optics_index=optics_index,
        ctf=_ctf(columns),
        locations=_locations(columns),
        pick_score=columns.floats("pick_stats/ncc_score"),
    )
    particles = replace(particles, helix=_helix(columns, particles.locations))
    particles = replace(particles, extra=_extra(table, particles, set(modelled)))
    if chosen is not None:
        alignment = Alignment(columns, *chosen)
        particles = replace(
            particles,
            poses=alignment.poses(None if optics is None else particles.per_particle("pixel_size_A")),
            half_set=alignment.half_set(),
            class_number=alignment.class_number(),
            class_posterior=alignment.class_posterior(),
        )
    return replace(particles, messages=tuple(columns.messages))


def _extra(table: Table, particles: ParticleSet, modelled: set[str]) -> ExtraColumns:
    """Return what is carried to another `.cs` file; columns of a part that is not whole are among it."""
    parts = ((particles.ctf, _CTF), (particles.locations, _LOCATION), (particles.helix, _FILAMENT))
    for part, names in parts:
        modelled = modelled - set(names) if part is None else modelled
    return ExtraColumns("cryosparc", tuple(name for name in table.names if name not in modelled), table)


class _InMemory(Table):
    """Columns that were read in one pass over the file, which holds them row by row."""

    def __init__(self, table: Table, names: list[str]) -> None:
        super().__init__(table.path, table.n_rows, tuple(column for column in table.columns if column.name in names))
        self._values = table.read(names)

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Return columns: arrays for numbers, `Labels` for text (see `formats.table.Table`)."""
        found = {name: self._values[name] for name in self._wanted(names)}
        return {
            name: values[rows] if isinstance(values, np.ndarray) else values.take(rows)
            for name, values in found.items()
        }


def _uid(columns: ColumnReader) -> NDArray[np.uint64] | None:
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
    return None if path is None or index is None else ImageRefs(path, index)


def _optics(columns: ColumnReader, table: Table) -> tuple[Optics | None, NDArray[np.int32] | None]:
    if "ctf/accel_kv" not in columns and "blob/psize_A" not in columns:
        return None, None
    contrast_name = next((name for name in AMPLITUDE_CONTRAST_NAMES if name in columns), None)
    if contrast_name not in (None, AMPLITUDE_CONTRAST_NAMES[0]):
        columns.note("old-spelling", f"amplitude contrast is taken from {contrast_name}, an unusual spelling")
    group = next((name for name in ("ctf/exp_group_id", "location/exp_group_id") if name in columns), None)
    shape = columns.get("blob/shape", shapes=((2,),))
    bent = {
        name: values
        for name, width in CRYOSPARC_COLUMNS.items()
        if (values := columns.get(name, shapes=((width,),))) is not None and values.any()
    }
    optics, index = group_optics(
        columns.n_rows,
        group_id=None if group is None else columns.integers(group),
        voltage_kV=columns.get("ctf/accel_kv", shapes=((),)),
        spherical_aberration_mm=columns.get("ctf/cs_mm", shapes=((),)),
        amplitude_contrast=None if contrast_name is None else columns.get(contrast_name, shapes=((),)),
        pixel_size_A=columns.get("blob/psize_A", shapes=((),)),
        box_px=None if shape is None else shape[:, 0],
        micrograph_pixel_size_A=columns.get("location/micrograph_psize_A", "micrograph_blob/psize_A", shapes=((),)),
        movie_pixel_size_A=columns.get("movie_blob/psize_A", shapes=((),)),
        also=bent.values(),
    )
    if bent:
        first = first_rows(index)
        of_groups = {name: values[first] for name, values in bent.items()}
        optics = replace(optics, aberrations=from_cryosparc(of_groups, optics.spherical_aberration_mm, table.path))
    return optics, index


def _ctf(columns: ColumnReader) -> CTF | None:
    u, v, angle = (columns.floats(f"ctf/{name}") for name in ("df1_A", "df2_A", "df_angle_rad"))
    if u is None or v is None or angle is None:
        return None
    return CTF(
        u,
        v,
        angle,
        phase_shift_rad=columns.floats("ctf/phase_shift_rad"),
        bfactor_A2=columns.floats("ctf/bfactor"),
        scale=columns.floats("ctf/scale"),
    )


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
    position_A = columns.floats("filament/position_A", "filament/arc_length_A")
    if position_A is not None:
        position_A = from_first_segment(position_A, tube_codes(micrograph, tube))
    return Helix(tube, position_A, uid.astype(np.uint64))
