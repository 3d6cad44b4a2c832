"""Whether RECOVAR 1.0.5 reads a particle file rightly by itself, and what to do where it does not."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.needs import missing_columns
from cryobridge.formats.relion.accepted import PREMULTIPLIED
from cryobridge.formats.relion.particles import PIXEL_SIZE_3_0, has_2d_poses
from cryobridge.formats.relion.tomography import GROUP, tilted_particles
from cryobridge.formats.table import ColumnReader, Table
from cryobridge.model.fields import Program, field
from cryobridge.report import counted

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.formats.relion.star import StarBlock

# numpy.load reads no longer header than this unless it is asked to, and RECOVAR does not ask.
LONGEST_HEADER_BYTES = 10_000
# RECOVAR refuses pixel sizes that differ by more than this (numpy.isclose with 0), in Å.
_SAME_PIXEL_SIZE_A = 1e-8
# Relative to the pixel size; with 1e-3 a shift of 10 px is off by 0.01 px.
_SAME_SHIFT_UNIT = 1e-3
# The box that RECOVAR works with unless it is asked for another, in pixels.
_NEW_BOX = 128
_CTF = (
    *("ctf.defocus_u_A", "ctf.defocus_v_A", "ctf.defocus_angle_rad"),
    *("optics.voltage_kV", "optics.spherical_aberration_mm", "optics.amplitude_contrast"),
)


def _columns(program: Program, *names: str) -> tuple[str, ...]:
    return tuple(column for name in names for column in field(name).columns(program))


_PIXEL_SIZE = _columns("relion", "optics.pixel_size_A")[0]
_BOX = _columns("relion", "optics.box_px")[0]
# What it reads in the layouts of RELION 3.1 and of 3.0. It takes the box from the images where rlnImageSize is not
# there, does not know rlnPixelSize, and takes shifts that are not there for 0.
_STAR_NEEDS = (
    _columns("relion", "images")[0],
    f"{_PIXEL_SIZE}|{'+'.join(reversed(PIXEL_SIZE_3_0))}",
    *_columns("relion", *_CTF, "poses.matrix"),
)
_SHIFTS = field("poses.shift_A")
_POSE, _SHIFT, _SHIFT_PIXEL_SIZE = "alignments3D/pose", "alignments3D/shift", "alignments3D/psize_A"
_CS_BOX, _CS_PIXEL_SIZE = _columns("cryosparc", "optics.box_px", "optics.pixel_size_A")
_CS_NEEDS = (*_columns("cryosparc", "images"), _CS_BOX, _CS_PIXEL_SIZE, *_columns("cryosparc", *_CTF), _POSE, _SHIFT)

FLAT_ANGLES = "rlnAngleRot and rlnAngleTilt are 0 in every row, as 2D classification leaves them"


@dataclass(frozen=True)
class Reading:
    """How RECOVAR reads a particle file.

    Parameters
    ----------
    columns
        Needs that are not met (`cryobridge.formats.needs`).
    faults
        What else keeps it from reading the file, or is read wrongly, as sentences.
    hint
        What to do about that, or what to mind where it reads it.
    options
        Options that it must be given.
    """

    columns: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    hint: str = ""
    options: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether it reads the file, and rightly."""
        return not (self.columns or self.faults)


def reading_of_star(path: Path, block: StarBlock, optics: StarBlock | None) -> Reading:
    """Judge a STAR file of particles.

    Parameters
    ----------
    path
        Its path, for commands in the hint.
    block, optics
        Its main block, and its optics block if it has one.
    """
    columns = missing_columns(_star_needs(block), (*block.names, *(() if optics is None else optics.names)))
    if columns:
        return Reading(columns)
    if has_2d_poses(ColumnReader(block)):
        return Reading(faults=(FLAT_ANGLES,), hint="Give run_data.star of a Refine3D or Class3D job.")
    per_group = block if optics is None else optics
    if PREMULTIPLIED in per_group and _values(per_group, PREMULTIPLIED).any():
        text = f"the images are multiplied by their CTF ({PREMULTIPLIED} 1), which RECOVAR would do again"
        return Reading(faults=(text,), hint="Extract the particles again without it.")
    for name, what in ((_BOX, "box"), (_PIXEL_SIZE, "pixel size"), *((name, name) for name in PIXEL_SIZE_3_0)):
        if name in per_group and (fault := _several(per_group, name, what)):
            one = "rlnOpticsGroup" if optics is not None else name
            return Reading(faults=(fault,), hint=_split(path, per_group, one, one, "NEW.star"))
    n_particles = tilted_particles(block)
    hints = []
    options: tuple[str, ...] = ()
    if n_particles is not None:
        options = ("--tilt-series", "--tilt-series-ctf", "warp")
        text = f"Rows of one {GROUP} are tilts of one particle ({counted(n_particles, 'particle')}): RECOVAR needs "
        hints.append(f"{text}{' '.join(options)}.")
    if not _has_shifts(block):
        hints.append("There are no shifts: RECOVAR takes 0, with a warning.")
    return Reading(hint=" ".join(hints), options=options)


def reading_of_cs(path: Path, table: Table, n_header_bytes: int | None) -> Reading:
    """Judge a `.cs` file, or the columns of several.

    Parameters
    ----------
    path
        The file, group or folder, for commands in the hint.
    table
        Its columns.
    n_header_bytes
        The length of its header where it is a NumPy array; None where it is not.
    """
    columns = missing_columns(_CS_NEEDS, table.names)
    if columns:
        return Reading(columns)
    new = f"{downsampling(path, table)} makes files that RECOVAR takes."
    if n_header_bytes is None:
        return Reading(faults=("it is a CSDAT stream, which RECOVAR does not read",), hint=new)
    if n_header_bytes > LONGEST_HEADER_BYTES:
        text = f"its header has {n_header_bytes:,} bytes, of which NumPy reads at most {LONGEST_HEADER_BYTES:,}"
        return Reading(faults=(text,), hint=new)
    for name, what in ((_CS_BOX, "box"), (_CS_PIXEL_SIZE, "pixel size")):
        if fault := _several(table, name, what):
            place = f"{name}[0]" if name == _CS_BOX else name
            return Reading(faults=(fault,), hint=_split(path, table, name, place, "NEW.cs"))
    if fault := _shifts_in_other_pixels(table):
        return Reading(faults=(fault,), hint=new)
    return Reading()


def downsampling(path: Path, table: Table | None = None) -> str:
    """Return the command that makes files which RECOVAR reads, from files of one box."""
    is_known = table is not None and _CS_BOX in table and table.n_rows
    boxes = _values(table, _CS_BOX) if table is not None and is_known else np.zeros(0)
    box_px = int(boxes.max()) if boxes.size and np.isfinite(boxes).all() else _NEW_BOX
    new_px = min(box_px - box_px % 2, _NEW_BOX)
    return f"`{shlex.join(['cryobridge', 'stacks', 'downsample', str(path), '-D', str(new_px), '-o', 'NEW'])}`"


def _star_needs(block: StarBlock) -> tuple[str, ...]:
    """Return what is needed: of the shifts both or none, since of one alone it takes neither."""
    pairs = (_SHIFTS.columns("relion"), _SHIFTS.star_also)
    is_half = not _has_shifts(block) and any(name in block for pair in pairs for name in pair)
    return (*_STAR_NEEDS, *(("|".join("+".join(pair) for pair in pairs),) if is_half else ()))


def _has_shifts(block: StarBlock) -> bool:
    return any(all(name in block for name in pair) for pair in (_SHIFTS.columns("relion"), _SHIFTS.star_also))


def _split(path: Path, table: Table, name: str, place: str, output: str) -> str:
    """Say how the rows are taken that have the first row's value."""
    value = np.ravel(np.asarray(table.read([name], slice(0, 1))[name]))[0]
    where = f"{place} == {value.item()!r}" if value.dtype.kind != "f" else f"{place} == {value!s}"
    command = shlex.join(["cryobridge", "select", str(path), "--where", where, "-o", output])
    return f"`{command}` takes those of one; each goes to RECOVAR by itself."


def _several(table: Table, name: str, what: str) -> str:
    values = _values(table, name)
    if not values.size:
        return ""
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        return f"{name} is not a number in all rows, and RECOVAR takes one {what} for all"
    is_one = low == high if what == "box" else high <= low + _SAME_PIXEL_SIZE_A
    return "" if is_one else f"{name} is {low:g} to {high:g}, and RECOVAR takes one {what} for all"


def _shifts_in_other_pixels(table: Table) -> str:
    """Say that RECOVAR takes shifts wrongly: it divides pixels of the alignment by the box of the images."""
    if _SHIFT_PIXEL_SIZE not in table or not table.n_rows:
        return ""
    own, images = _values(table, _SHIFT_PIXEL_SIZE), _values(table, _CS_PIXEL_SIZE)
    if own.ndim != 1 or own.shape != images.shape:
        return ""  # which the readers refuse
    with np.errstate(invalid="ignore", over="ignore"):
        differ = np.abs(own - images) > _SAME_SHIFT_UNIT * np.abs(images)
    if not differ.any() or not _values(table, _SHIFT)[differ].any():
        return ""
    row = int(np.flatnonzero(differ)[0])
    return (
        f"{_SHIFT_PIXEL_SIZE} is {own[row]:g} Å and {_CS_PIXEL_SIZE} {images[row]:g} Å: RECOVAR would take shifts "
        f"{images[row] / own[row] if own[row] else np.inf:.4g} times as long"
    )


def _values(table: Table, name: str) -> NDArray[np.float64]:
    """Return a column; NaN for what is not numbers."""
    values = np.asarray(table.read([name])[name])
    return values.astype(np.float64) if values.dtype.kind in "biuf" else np.full(values.shape, np.nan)
