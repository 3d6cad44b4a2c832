"""RELION columns -> the particle set, from the layouts of 3.0 (one block) and 3.1 to 5 (optics and particles)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.aberrations import BEAM_TILT, RELION_COLUMNS, from_relion
from cryobridge.formats.arrow import arrow_numbers, numbers_to_arrow
from cryobridge.formats.fields import lookup
from cryobridge.formats.helical import from_first_segment, tube_codes
from cryobridge.formats.latent import read_latent
from cryobridge.formats.optics import KnownOptics, fill_optics, first_rows, group_optics, optics_of
from cryobridge.formats.relion.star import StarBlock, StarFile, open_star, to_labels
from cryobridge.formats.relion.tomography import refuse_tomography
from cryobridge.formats.table import ColumnReader
from cryobridge.model.fields import FIELDS, field, fields_of, numbered
from cryobridge.model.geometry import euler_to_matrix, shift_px_to_A
from cryobridge.model.particles import (
    ExtraColumns,
    Helix,
    ImageRefs,
    Labels,
    Locations,
    Optics,
    ParticleSet,
    Poses,
    ctf_of,
)
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.formats.table import Values
    from cryobridge.model.particles import Floats

_NOTHING_KNOWN = KnownOptics()
_POSES, _SHIFTS, _LOCATIONS = field("poses.matrix"), field("poses.shift_A"), field("locations")
# Where RELION 3.0 has the pixel size: detector pixel in µm over magnification.
PIXEL_SIZE_3_0 = ("rlnMagnification", "rlnDetectorPixelSize")
# Values of particles and of their optics groups that differ by less, relatively, are the same.
_SAME = 1e-3
# 2 for images of single particles, whatever the file says: no quantity of the model.
DIMENSIONALITY = "rlnImageDimensionality"

_NAME_HINT = "RELION counts images from 1, as in 000001@Extract/job012/stack.mrcs."
_WHOLE_FILE_HINT = (
    "A name without number@ is that of a file of its own, a subtomogram or a single image, which are not supported; "
    "images in stacks are named as in 000001@Extract/job012/stack.mrcs."
)
# A number from 1, of as many digits as fit an int64, and a name.
_IMAGE_NAME = r"^0*[1-9]\d{0,17}@."


def read_particles_star(path: str | os.PathLike[str]) -> ParticleSet:
    """Read a RELION STAR file of particles.

    Parameters
    ----------
    path
        The file, in the layout of any release from 3.0 to 5.

    Raises
    ------
    FormatError
        If the file is not STAR, an image name is not ``number@stack``, a value is not a number, or it holds
        subtomograms.
    MissingDataError
        If a particle names an optics group that the file does not define.
    """
    star = open_star(path)
    refuse_tomography(star)
    return particles_from_star(star)


def particles_from_star(
    star: StarFile, *, known: KnownOptics = _NOTHING_KNOWN, images: ImageRefs | None = None
) -> ParticleSet:
    """Turn the main block of a STAR file, and its optics, into a particle set; what the file lacks is None.

    Degrees become radians, Euler angles matrices, pixel shifts (3.0) ångström; ``000001@`` becomes slice 0.

    Parameters
    ----------
    star
        The file.
    known
        Optics values that the user gives for a file that lacks them.
    images
        The images, where their names have been parsed already.

    Raises
    ------
    FormatError, MissingDataError
        As `read_particles_star`.
    UsageError
        If ``known`` contradicts the file.
    """
    block = _with_prefix(star[star.main])
    columns = ColumnReader(block)
    has_optics = "optics" in star
    block_of_optics = _with_prefix(star["optics"]) if has_optics else None
    optics, optics_index = (
        optics_of_rows(columns) if block_of_optics is None else optics_of_block(block_of_optics, columns)
    )
    if has_optics and optics is not None and optics_index is not None:
        assert block_of_optics is not None  # it has optics
        columns.messages += _contradictions(columns, block_of_optics, optics, optics_index)
    optics, optics_index = fill_optics(optics, optics_index, block.n_rows, known, star.path)
    ctf = ctf_of(columns.part("ctf", "relion"))
    if optics is not None and optics_index is not None:
        optics, shift_A = with_aberrations(optics, optics_index, block_of_optics, columns)
        if ctf is not None and shift_A is not None:
            ctf = replace(ctf, shift_A=shift_A[optics_index])
    pixel_size_A = None if optics is None or optics_index is None else optics.pixel_size_A[optics_index]
    particles = ParticleSet(
        n_rows=block.n_rows,
        source=star.path,
        images=parse_image_names(block) if images is None and "rlnImageName" in block else images,
        optics=optics,
        optics_index=optics_index,
        ctf=ctf,
        poses=_poses(columns, pixel_size_A, has_optics=has_optics),
        locations=_locations(columns),
        helix=_helix(columns),
        latent=read_latent(columns, "relion"),
        columns={name: values for name, values in columns.part("columns", "relion").items() if values is not None},
        **columns.part("", "relion"),
    )
    return replace(particles, extra=_extra(star, block, particles), messages=(*star.messages, *columns.messages))


class AsWritten:
    """Columns of a block as the file has them, texts to the letter."""

    def __init__(self, block: StarBlock) -> None:
        self._block = block

    def read(self, names: Iterable[str]) -> dict[str, Values]:
        """Return arrays for what was parsed as numbers, `Labels` for the rest."""
        columns = {name: self._block.table[name] for name in names}
        return {
            name: to_labels(values) if pa.types.is_string(values.type) else arrow_numbers(values.combine_chunks())
            for name, values in columns.items()
        }


def _extra(star: StarFile, block: StarBlock, particles: ParticleSet) -> ExtraColumns:
    """Return what is carried from STAR file to STAR file; columns of a part that is not whole are among it."""
    modelled = [item for item in FIELDS if particles.is_modelled(item) and item.part != "optics.aberrations"]
    of_optics = {column for item in modelled if item.is_of_optics for column in item.names("relion")}
    own = [item.names("relion") for item in modelled if not item.is_of_optics]
    of_particles = {column for names in own for column in numbered(names, block.names)}
    of_particles |= {"rlnOpticsGroup"}
    optics: dict[str, Any] = {}
    if "optics" in star:
        others = [name for name in star["optics"].names if name not in of_optics | {DIMENSIONALITY}]
        read = AsWritten(star["optics"]).read(others)
        optics = {name: values.to_numpy() if isinstance(values, Labels) else values for name, values in read.items()}
    elif particles.optics is not None:
        of_particles |= {*of_optics, *PIXEL_SIZE_3_0, *BEAM_TILT}
    carried = tuple(name for name in block.names if name not in of_particles)
    of_file = frozenset((*block.names, *(star["optics"].names if "optics" in star else ())))
    return ExtraColumns("relion", carried, AsWritten(block), optics=optics, of_file=of_file)


def _with_prefix(block: StarBlock) -> StarBlock:
    """Put ``rln`` before the labels that lack it and are RELION's with it, as CryoLike does."""
    labels = [f"rln{label}" if lookup(f"rln{label}") and f"rln{label}" not in block else label for label in block.names]
    if labels == list(block.names):
        return block
    # Read anew, for what is text or number depends on the label.
    values = dict(zip(labels, block.read(block.names).values(), strict=True))
    table = StarBlock.from_columns(block.name, values).table
    return StarBlock(block.path, block.name, table, is_loop=block.is_loop, comments=block.comments)


def parse_image_names(block: StarBlock) -> ImageRefs:
    """Split ``000001@stack.mrcs`` into stack and 0-based slice.

    Raises
    ------
    FormatError
        If a name has no ``@`` or no whole number above 0 before it.
    """
    names = block.texts("rlnImageName").combine_chunks()
    if len(names) == 0:
        return ImageRefs(Labels(np.zeros(0, np.int32), ()), np.zeros(0, np.int64))
    bad = arrow_numbers(pc.indices_nonzero(pc.invert(pc.match_substring_regex(names, _IMAGE_NAME))))
    if len(bad):
        raise FormatError(
            f"image name {names[int(bad[0])].as_py()!r} is not number@stack",
            path=block.path,
            field="rlnImageName",
            rows=tuple(int(row) for row in bad[:3]),
            count=len(bad),
            hint=_WHOLE_FILE_HINT if len(bad) == len(names) and "@" not in names[0].as_py() else _NAME_HINT,
        )
    flat = pc.list_flatten(pc.split_pattern(names, "@", max_splits=1))
    number, path = (flat.take(numbers_to_arrow(np.arange(first, len(flat), 2))) for first in (0, 1))
    return ImageRefs(to_labels(pa.chunked_array([path])), arrow_numbers(number.cast(pa.int64())) - 1)


def optics_of_block(optics: StarBlock, columns: ColumnReader) -> tuple[Optics, NDArray[np.int32]]:
    """Return the optics groups of a block of optics, and (n,) the group of each row of the other block.

    Raises
    ------
    MissingDataError
        If groups have no numbers, or that of a row is not defined.
    """
    table = ColumnReader(optics)
    group_id = table.integers(*field("optics.group_id").names("relion"))
    if group_id is None:
        raise MissingDataError(
            "the optics block has no rlnOpticsGroup",
            path=optics.path,
            hint="Number the optics groups from 1, in the optics block and in the particles.",
        )
    values = table.part("optics", "relion")
    if values["pixel_size_A"] is None:
        values["pixel_size_A"] = values["micrograph_pixel_size_A"]
    name = table.labels("rlnOpticsGroupName")
    groups = optics_of(group_id, None if name is None else tuple(name.to_numpy()), values)
    wanted = columns.integers("rlnOpticsGroup")
    if wanted is None:
        if len(groups) != 1:
            raise MissingDataError(
                f"{len(groups)} optics groups are defined, but no row says which is its own",
                path=optics.path,
                field="rlnOpticsGroup",
                hint="Add the column rlnOpticsGroup.",
            )
        columns.note("one-optics-group", "no rlnOpticsGroup column; the one optics group is taken for all")
        return groups, np.zeros(columns.n_rows, np.int32)
    return groups, _rows_of(group_id, wanted, optics.path)


def _contradictions(columns: ColumnReader, block: StarBlock, optics: Optics, index: NDArray[np.int32]) -> list[Message]:
    """Warn of values of particles that differ from those of their optics groups."""
    of_groups: dict[str, tuple[NDArray[Any] | None, NDArray[Any]]] = {}
    table = ColumnReader(block)
    for item in fields_of("optics"):
        if not item.is_coded and item.needed_for:
            name = item.columns("relion")[0]
            of_groups[name] = columns.floats(*item.names("relion")), getattr(optics, item.key)[index]
    for name in block.names:
        if name in columns.names and name not in {*of_groups, "rlnOpticsGroup", "rlnOpticsGroupName"}:
            of_groups[name] = _of_rows(columns, name), _of_rows(table, name)[index]
    of_groups[", ".join(PIXEL_SIZE_3_0)] = pixel_size_3_0(columns), optics.pixel_size_A[index]
    differing = [name for name, (own, group) in of_groups.items() if own is not None and _differs(own, group)]
    if not differing:
        return []
    text = f"{', '.join(differing)} of the particles differ from the optics table, whose values are taken"
    return [warning("optics-contradiction", text)]


def _of_rows(columns: ColumnReader, name: str) -> NDArray[Any]:
    """Return the numbers or texts of a column that is there, (n,)."""
    labels = columns.labels(name)
    values = columns.floats(name) if labels is None else labels.to_numpy()
    assert values is not None  # it is there
    return values


def _differs(values: NDArray[Any], expected: NDArray[Any]) -> bool:
    if values.dtype.kind != "f" or expected.dtype.kind != "f":
        return bool((values != expected).any())
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((np.abs(values - expected) > _SAME * np.abs(expected)).any())


def _rows_of(group_id: NDArray[np.int64], wanted: NDArray[np.int64], path: Path) -> NDArray[np.int32]:
    order = np.argsort(group_id, kind="stable")
    place = np.minimum(np.searchsorted(group_id[order], wanted), max(len(group_id) - 1, 0))
    bad = np.flatnonzero(group_id[order][place] != wanted) if len(group_id) else np.arange(len(wanted))
    if len(bad):
        raise MissingDataError(
            f"optics group {wanted[bad[0]]} is not defined",
            path=path,
            field="rlnOpticsGroup",
            rows=tuple(int(row) for row in bad[:3]),
            count=len(bad),
            hint=f"The optics block defines {', '.join(map(str, group_id[:8]))}; add the group, or correct the rows.",
        )
    index: NDArray[np.int32] = order[place].astype(np.int32)
    return index


def optics_of_rows(columns: ColumnReader) -> tuple[Optics | None, NDArray[np.int32] | None]:
    """Return the optics groups of RELION 3.0, which keeps optics with each row, and (n,) the group of each row."""
    rows = [item for item in fields_of("optics") if item.needed_for]
    values = {item.key: columns.get(*item.names("relion")) for item in rows}
    if values["pixel_size_A"] is None:
        values["pixel_size_A"] = pixel_size_3_0(columns)
    if values["voltage_kV"] is None and values["pixel_size_A"] is None:
        return None, None
    tilts = [columns.floats(name) for name in BEAM_TILT]
    group_id = columns.integers(*field("optics.group_id").names("relion"))
    also = [tilt for tilt in tilts if tilt is not None]
    optics, index = group_optics(columns.n_rows, also=also, group_id=group_id, **values)
    return optics, index


def pixel_size_3_0(columns: ColumnReader) -> Floats | None:
    """Return the pixel size in Å of each row, by detector and magnification; None where a column is absent."""
    magnification, detector_um = (columns.floats(name) for name in PIXEL_SIZE_3_0)
    if magnification is None or detector_um is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(magnification > 0, 1e4 * detector_um / magnification, np.nan)


def with_aberrations(
    optics: Optics, index: NDArray[np.int32], block: StarBlock | None, columns: ColumnReader
) -> tuple[Optics, Floats | None]:
    """Return optics groups with their aberrations, and how far these move the images of each, (g, 2) or None.

    Without a block of optics there is the beam tilt that RELION 3.0 keeps with each particle, of which groups have one.
    """
    found: dict[str, Any]
    if block is None:
        rows = first_rows(index)
        found = {name: values[rows] for name in BEAM_TILT if (values := columns.floats(name)) is not None}
    else:
        read = AsWritten(block).read(name for name in RELION_COLUMNS if name in block)
        found = {name: values.to_numpy() if isinstance(values, Labels) else values for name, values in read.items()}
    aberrations, shift_A, messages = from_relion(found, optics, Path() if block is None else block.path)
    columns.messages += messages
    return replace(optics, aberrations=aberrations), shift_A


def _poses(columns: ColumnReader, pixel_size_A: Floats | None, *, has_optics: bool) -> Poses | None:
    names = _POSES.columns("relion")
    angles = [columns.floats(name) for name in names]
    if all(angle is None for angle in angles):
        return None
    absent = [name for name, angle in zip(names, angles, strict=True) if angle is None]
    if absent:
        columns.note("angles-taken-as-zero", f"no {', '.join(absent)}; taken as 0")
    matrix = euler_to_matrix(*(np.zeros(columns.n_rows) if angle is None else angle for angle in angles))
    is_2d = _are_2d(columns, angles)
    shift_A = _pair(columns, *_SHIFTS.columns("relion"))
    if shift_A is not None:
        return Poses(matrix, shift_A, "rlnAngle*, rlnOrigin*Angst", is_2d)
    shift_px = _pair(columns, *_SHIFTS.star_also)
    if shift_px is None:
        return Poses(matrix, None, "rlnAngle*", is_2d)
    if pixel_size_A is None or np.isnan(pixel_size_A).any():
        columns.note(
            "shifts-left-out", "no pixel size, so the shifts (rlnOriginX/Y, in pixels) are unknown in Å and left out"
        )
        return Poses(matrix, None, "rlnAngle*", is_2d)
    if has_optics:
        columns.note(
            "shifts-in-pixels", "shifts are in pixels (rlnOriginX/Y), which RELION ignores in a file with optics"
        )
    return Poses(matrix, shift_px_to_A(shift_px, pixel_size_A), "rlnAngle*, rlnOrigin*", is_2d)


def has_2d_poses(columns: ColumnReader) -> bool:
    """Whether the angles of particles are those in the plane alone, as 2D classification leaves them."""
    angles = [columns.floats(angle) for angle in _POSES.columns("relion")]
    return any(angle is not None for angle in angles) and _are_2d(columns, angles)


def _are_2d(columns: ColumnReader, angles: list[Floats | None]) -> bool:
    # 2D classification leaves out rot and tilt, or writes zeros; one particle of a refinement may have zeros too.
    is_flat = columns.n_rows > 0 and not any(angle is not None and angle.any() for angle in angles[:2])
    return is_flat and (columns.n_rows > 1 or "rlnRandomSubset" not in columns)


def _pair(columns: ColumnReader, x_name: str, y_name: str) -> Floats | None:
    x, y = columns.floats(x_name), columns.floats(y_name)
    return None if x is None or y is None else np.column_stack([x, y])


def _locations(columns: ColumnReader) -> Locations | None:
    name, x, y = _LOCATIONS.columns("relion")
    micrograph, coordinate_px = columns.labels(name), _pair(columns, x, y)
    return None if micrograph is None or coordinate_px is None else Locations(micrograph, coordinate_px)


def _helix(columns: ColumnReader) -> Helix | None:
    values = columns.part("helix", "relion")
    tube, track_A = values["tube"], values["track_length_A"]
    if tube is None:
        return None
    if track_A is not None:
        micrograph = columns.labels(_LOCATIONS.columns("relion")[0])
        codes = np.zeros(len(tube), np.int32) if micrograph is None else micrograph.codes
        track_A = from_first_segment(track_A, tube_codes(codes, tube))
    return Helix(tube, track_A)
