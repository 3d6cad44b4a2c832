"""cryoSPARC columns -> the particle set."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.optics import group_optics
from cryobridge.formats.table import Array, ColumnReader, Table
from cryobridge.geometry import euler_to_matrix, fractions_to_px, rotvec_to_matrix, shift_px_to_A
from cryobridge.particles import CTF, ImageRefs, Locations, ParticleSet, Poses

if TYPE_CHECKING:
    from cryobridge.particles import Optics

AMPLITUDE_CONTRAST_NAMES = ("ctf/amp_contrast", "ctf/amp_constrast", "ctf/ac")
# What one row of an alignment holds for a class; a number where not said.
_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {"pose": ((3,),), "shift": ((2,),)}
_MULTI = "alignments3D_multi"
_CLASS_GROUP = re.compile(r"(.*class_(\d+))/pose$")


def read_particles_cs(path: str | os.PathLike[str]) -> ParticleSet:
    """Read a `.cs` file of particles.

    Raises
    ------
    FormatError
        If the file is not a whole `.cs` file.
    """
    return particles_from_cs(open_cs(path))


def particles_from_cs(table: Table) -> ParticleSet:
    """Turn cryoSPARC columns into a particle set; what the table lacks is None.

    Angles become matrices, shifts ångström by the pixel size of their own alignment (format facts B1 and B2),
    coordinates pixels of the micrograph as stored, without a flip. Classes and half sets count from 1.
    """
    columns = ColumnReader(table)
    optics, optics_index = _optics(columns)
    alignment = _Alignment.choose(columns)
    return ParticleSet(
        n_rows=table.n_rows,
        source=table.path,
        uid=_uid(columns),
        images=images_of(columns),
        optics=optics,
        optics_index=optics_index,
        ctf=_ctf(columns),
        poses=alignment.poses() if alignment else None,
        locations=_locations(columns),
        half_set=alignment.half_set() if alignment else None,
        class_number=alignment.class_number() if alignment else None,
        notes=tuple(columns.notes),
    )


def _uid(columns: ColumnReader) -> NDArray[np.uint64] | None:
    uid = columns.get("uid", shapes=((),))
    if uid is None or uid.dtype.kind not in "iu" or uid.dtype.itemsize != 8:
        if uid is not None:
            columns.notes.append(f"uid is of type {uid.dtype}, not an integer of 64 bits; it identifies no row")
        return None
    return uid.view(np.uint64)


def images_of(columns: ColumnReader) -> ImageRefs | None:
    """Return the image references of cryoSPARC columns, or None where there are none."""
    path, index = columns.labels("blob/path"), columns.integers("blob/idx")
    return None if path is None or index is None else ImageRefs(path, index)


def _optics(columns: ColumnReader) -> tuple[Optics | None, NDArray[np.int32] | None]:
    if "ctf/accel_kv" not in columns and "blob/psize_A" not in columns:
        return None, None
    contrast_name = next((name for name in AMPLITUDE_CONTRAST_NAMES if name in columns), None)
    if contrast_name not in (None, AMPLITUDE_CONTRAST_NAMES[0]):
        columns.notes.append(f"amplitude contrast is taken from {contrast_name}, an unusual spelling")
    group = next((name for name in ("ctf/exp_group_id", "location/exp_group_id") if name in columns), None)
    shape = columns.get("blob/shape", shapes=((2,),))
    return group_optics(
        columns.n_rows,
        group_id=None if group is None else columns.integers(group),
        voltage_kV=columns.floats("ctf/accel_kv"),
        spherical_aberration_mm=columns.floats("ctf/cs_mm"),
        amplitude_contrast=None if contrast_name is None else columns.floats(contrast_name),
        pixel_size_A=columns.floats("blob/psize_A"),
        box_px=None if shape is None else shape[:, 0],
    )


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
    fraction = np.column_stack([x, y])
    return Locations(micrograph, fractions_to_px(fraction, shape), shape.astype(np.int64))


class _Alignment:
    """The alignment that a file's poses are read from, whichever of cryoSPARC's groups holds it."""

    def __init__(self, columns: ColumnReader, source: str, groups: tuple[str, ...]) -> None:
        self.source = source
        self._columns = columns
        self._groups = groups
        self._best = self._best_of_several() if source == _MULTI or len(groups) > 1 else None

    @classmethod
    def choose(cls, columns: ColumnReader) -> _Alignment | None:
        """Take 3D before several classes before 2D."""
        for group in ("alignments3D", _MULTI):
            if f"{group}/pose" in columns:
                return cls(columns, group, (group,))
        classes = {int(match[2]): match[1] for name in columns.names if (match := _CLASS_GROUP.match(name))}
        if classes:
            groups = tuple(classes[number] for number in sorted(classes))
            return cls(columns, ", ".join(groups), groups)
        if "alignments2D/pose" in columns:
            return cls(columns, "alignments2D", ("alignments2D",))
        return None

    def _best_of_several(self) -> Array:
        """Return for each particle the place of its most probable class."""
        posterior = self._stack("class_posterior")
        if posterior is None:
            self._columns.notes.append(f"{self.source}: no class_posterior; the first class is taken for all")
            return np.zeros(self._columns.n_rows, np.int64)
        self._columns.notes.append(f"{self.source}: each particle's pose is that of its most probable class")
        best: Array = np.argmax(posterior, axis=1)
        return best

    def _read(self, group: str, name: str) -> Array | None:
        """Return a sub-field as it stands, (n, …), or (n, K, …) where one group holds all classes."""
        shapes = ((),) if group == "alignments2D" and name == "pose" else _SHAPES.get(name, ((),))
        if group == _MULTI:
            n_classes = max((1, *self._columns.shapes[f"{_MULTI}/pose"][:1]))
            shapes = tuple((n_classes, *shape) for shape in shapes)
            # Which class is chosen does not change these.
            shapes = (*shapes, ()) if name in {"psize_A", "split"} else shapes
        return self._columns.get(f"{group}/{name}", shapes=shapes)

    def _stack(self, name: str) -> Array | None:
        """Return a sub-field for all classes, (n, K, …)."""
        parts = [self._read(group, name) for group in self._groups]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return known[0] if self.source == _MULTI else np.stack(known, axis=1)

    def _get(self, name: str) -> Array | None:
        if self._best is None:
            return self._read(self._groups[0], name)
        values = self._stack(name)
        if values is None or values.ndim == 1:  # one value for all classes
            return values
        chosen: Array = values[np.arange(len(values)), self._best]
        return chosen

    def poses(self) -> Poses:
        """Return matrices and shifts in ångström."""
        pose = self._get("pose")
        assert pose is not None  # `choose` found it
        if pose.ndim == 1:
            flat = np.zeros(len(pose))
            matrix = euler_to_matrix(flat, flat, np.degrees(pose.astype(np.float64)))
        else:
            matrix = rotvec_to_matrix(pose)
        shift_px = self._get("shift")
        if shift_px is None:
            return Poses(matrix, None, self.source)
        pixel_size = self._get("psize_A")
        if pixel_size is None:
            pixel_size = self._columns.floats("blob/psize_A")
            self._columns.notes.append(f"{self.source}: no psize_A; shifts are taken as pixels of the image")
        if pixel_size is None:
            self._columns.notes.append(f"{self.source}: no pixel size; shifts can't be told in Å and are left out")
            return Poses(matrix, None, self.source)
        return Poses(matrix, shift_px_to_A(shift_px, pixel_size), self.source)

    def half_set(self) -> NDArray[np.int64] | None:
        """Return split + 1; 2D jobs have no half sets, whatever the column says."""
        split = None if self.source == "alignments2D" else self._get("split")
        return None if split is None else split.astype(np.int64) + 1

    def class_number(self) -> NDArray[np.int64] | None:
        """Return class + 1."""
        number = self._get("class")
        return None if number is None else number.astype(np.int64) + 1
