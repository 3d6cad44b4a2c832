"""The particle set and the pickles of cryoDRGN and RECOVAR: a stack of images with poses.pkl and ctf.pkl."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.formats.aberrations import folded, held_after, left_out
from cryobridge.formats.dropped import FileContent, dropped_columns
from cryobridge.formats.image_list import ImageStack, read_image_stack
from cryobridge.formats.optics import KnownOptics, fill_optics, group_optics, needed, require_optics, unknown_optics
from cryobridge.formats.pickles import read_ctf, read_poses, write_ctf, write_indices, write_poses
from cryobridge.formats.relion.accepted import premultiplied
from cryobridge.formats.unusable import refuse_unusable, zero_defocus
from cryobridge.model.fields import ctf_fields
from cryobridge.model.geometry import box_fraction_to_shift_A, orthonormalise, rounded, shift_A_to_box_fraction
from cryobridge.model.particles import CTF, ParticleSet, Poses
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryobridge.model.particles import Floats

# What CTF values need and poses do not, and files often lack.
_OF_CTF_ALONE = "amplitude_contrast"
POSES, CTF_TABLE, INDICES = "poses.pkl", "ctf.pkl", "ind.pkl"
_NOTHING_KNOWN = KnownOptics()


def particles_from_pickles(
    stack: str | os.PathLike[str],
    poses: str | os.PathLike[str] | None,
    ctf: str | os.PathLike[str] | None,
    *,
    known: KnownOptics = _NOTHING_KNOWN,
) -> ParticleSet:
    """Put a stack and its pickles together, row by row.

    Box and pixel size in ctf.pkl are those of the stack that the poses were found with. Where the stack at hand is
    a downsampled one, its own box is taken, and the pixel size that gives the same field of view.

    Parameters
    ----------
    stack
        The `.mrcs` file, or the list of several (`.txt`); all images, in their order.
    poses, ctf
        The pickles, or None.
    known
        Optics values that the user gives for files that lack them.

    Raises
    ------
    UsageError
        If the files differ in their number of rows, or ``known`` contradicts them.
    FormatError
        If a file is not what it should be.
    """
    stack, poses, ctf = Path(stack), None if poses is None else Path(poses), None if ctf is None else Path(ctf)
    header = read_image_stack(stack)
    n = header.n_sections
    messages: list[Message] = []
    table = None if ctf is None else read_ctf(ctf).values
    optics, index = None, None
    values: dict[str, Any] = {}
    if ctf is not None and table is not None:
        _require_rows(ctf, len(table), stack, n)
        values = from_table(table)
        box_px, own_box = values["optics.box_px"], np.full(n, header.nx)
        pixel_size_A = values["optics.pixel_size_A"] * box_px / own_box
        if (box_px != own_box).any():
            text = (
                f"ctf.pkl is of images of {box_px[0]:g} px, the stack has {header.nx} px: its pixel size is "
                f"taken to be {pixel_size_A[0]:g} Å"
            )
            messages.append(note("other-box", text, where=ctf))
        of_stack = {"optics.pixel_size_A": pixel_size_A, "optics.box_px": own_box}
        optics, index = group_optics(n, **part_of(values | of_stack, "optics"))
    else:
        optics, index = group_optics(n, pixel_size_A=_pixel_size(header, n), box_px=np.full(n, header.nx))
    optics, index = fill_optics(optics, index, n, known, stack)
    assert optics is not None and index is not None  # made above
    particles = ParticleSet(
        n,
        stack,
        images=header.images(are_whole=False),
        optics=optics,
        optics_index=index,
        ctf=CTF(**part_of(values, "ctf")) if values else None,
        messages=tuple(messages),
    )
    return particles if poses is None else _with_poses(particles, poses)


def _pixel_size(header: ImageStack, n: int) -> Floats | None:
    return None if header.pixel_size_A is None else np.full(n, header.pixel_size_A)


def from_table(table: Floats) -> dict[str, Floats]:
    """Return the columns (n,) of a ctf.pkl in the model's units, by the names of the quantities."""
    return {
        item.name: table[:, item.pkl] if item.pkl_unit is None else item.pkl_unit.to_model(table[:, item.pkl])
        for item in ctf_fields()
    }


def part_of(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the quantities of a part by their keys, out of all by their names."""
    return {name.rpartition(".")[2]: column for name, column in values.items() if name.rpartition(".")[0] == part}


def _with_poses(particles: ParticleSet, path: Path) -> ParticleSet:
    found = read_poses(path)
    _require_rows(path, len(found.rotations), particles.source, len(particles))
    pixel_size_A = particles.per_particle("pixel_size_A")
    shift_A, messages = None, list(particles.messages)
    if found.shifts_box is not None and np.isnan(pixel_size_A).any():
        text = "no pixel size, so the shifts are unknown in Å and left out"
        messages.append(note("shifts-left-out", text, where=path))
    elif found.shifts_box is not None:
        shift_A = box_fraction_to_shift_A(found.shifts_box, pixel_size_A, particles.per_particle("box_px"))
    return replace(
        particles, poses=Poses(orthonormalise(found.rotations), shift_A, path.name), messages=tuple(messages)
    )


def _require_rows(path: Path, n_rows: int, stack: Path, n_images: int) -> None:
    if n_rows != n_images:
        raise UsageError(
            f"{counted(n_rows, 'row')}, but {stack.name} has {counted(n_images, 'image')}",
            path=path,
            hint="Rows and images belong together by their places: give the pickle that was made for this stack.",
        )


@dataclass(frozen=True, kw_only=True)
class PickleContent(FileContent):
    """What becomes of a particle set in pickles.

    Parameters
    ----------
    rotations, shifts_box
        (n, 3, 3) and (n, 2), or None.
    ctf
        (n, 9) table of a ctf.pkl, or None.
    indices
        Rows that were chosen, or None for all.
    """

    rotations: Floats | None
    shifts_box: Floats | None
    ctf: Floats | None
    indices: NDArray[np.int64] | None

    @property
    def names(self) -> tuple[str, ...]:
        """The files that are written."""
        parts = {POSES: self.rotations, CTF_TABLE: self.ctf, INDICES: self.indices}
        return tuple(name for name, part in parts.items() if part is not None)


def pickle_content(
    particles: ParticleSet, chosen: NDArray[np.int64] | None = None, *, aberrations: bool = True
) -> PickleContent:
    """Turn particles into cryoDRGN's and RECOVAR's arrays, one row for each row of the particle file.

    Parameters
    ----------
    particles
        All rows of the file.
    chosen
        Rows that are to be used, for ind.pkl; None for all.
    aberrations
        Put what fits of the aberrations into shifts and CTF.

    Raises
    ------
    MissingDataError
        If there are neither poses nor CTF, or the CTF's microscope is not known.
    FormatError
        If a pose, shift or CTF value is not a number.
    """
    if particles.ctf is None and particles.poses is None:
        raise MissingDataError(
            "neither poses nor CTF are in it",
            path=particles.source,
            hint="Give the file that has them as another input.",
        )
    refuse_unusable(particles, without=("images", "locations", "ctf.bfactor_A2", "ctf.scale"))
    messages: list[Message] = [*premultiplied(particles, "cryoDRGN and RECOVAR"), *zero_defocus(particles)]
    source = particles
    if aberrations:
        particles, found = folded(particles)
        messages += found
    rotations: Floats | None = None
    shifts: Floats | None = None
    table: Floats | None = None
    if particles.ctf is not None:
        absent = unknown_optics(particles, needed("ctf", "image"))
        if particles.poses is None or {item.key for item in absent} - {_OF_CTF_ALONE}:
            require_optics(particles, needed("ctf", "image"))
        if absent:
            text = f"ctf.pkl is left out: no {absent[0].title} is known; {option(_OF_CTF_ALONE, 'X')} would make it"
            messages.append(warning("ctf-left-out", text, option=_OF_CTF_ALONE))
        else:
            table = to_table(particles, messages)
    if particles.poses is not None:
        rotations = particles.poses.matrix
        if particles.poses.is_2d:
            text = "the poses are in-plane angles of a 2D alignment; a reconstruction needs 3D ones"
            messages.append(warning("poses-are-2d", text))
        if particles.poses.shift_A is None:
            messages.append(note("shifts-taken-as-zero", "no shifts are known; taken as 0"))
            shifts = np.zeros((len(particles), 2))
        else:
            require_optics(particles, needed("image"))
            shifts = shift_A_to_box_fraction(
                particles.poses.shift_A, particles.per_particle("pixel_size_A"), particles.per_particle("box_px")
            )
    optics = particles.optics
    if optics is not None and len({*rounded(optics.pixel_size_A, 4).tolist()}) * len({*optics.box_px.tolist()}) > 1:
        text = "pixel sizes or boxes differ; cryoDRGN and RECOVAR take the first row's for all"
        messages.append(warning("several-pixel-sizes", text))
    held = set() if table is None else {item.name for item in ctf_fields()}
    held |= {"poses.matrix"} if rotations is not None else set()
    held |= {"poses.shift_A"} if shifts is not None else set()
    held |= held_after(aberrations=aberrations, only=())
    messages += left_out(source, held, "cryoDRGN and RECOVAR", aberrations=aberrations)
    dropped = dropped_columns(source, held, None)
    return PickleContent(
        rotations=rotations,
        shifts_box=shifts,
        ctf=table,
        indices=chosen,
        held=frozenset(held),
        dropped_columns=dropped,
        messages=tuple(messages),
    )


def write_pickles(folder: Path, content: PickleContent) -> None:
    """Write poses.pkl, ctf.pkl and ind.pkl, those that there is something for."""
    if content.rotations is not None:
        write_poses(folder / POSES, content.rotations, content.shifts_box)
    if content.ctf is not None:
        write_ctf(folder / CTF_TABLE, content.ctf)
    if content.indices is not None:
        write_indices(folder / INDICES, content.indices)


def to_table(particles: ParticleSet, messages: list[Message]) -> Floats:
    """Return the table (n, 9) of a ctf.pkl; what is assumed for lack of a column is added to the messages."""
    columns = []
    for item in ctf_fields():
        values = particles.per_particle(item.key) if item.is_of_optics else particles.get(item.name)
        if values is None:
            text = f"no {item.title} in the file; taken as {item.absent:g}"
            messages.append(note(f"{item.title.replace(' ', '-')}-assumed", text))
            values = np.full(len(particles), item.absent)
        columns.append(values if item.pkl_unit is None else item.pkl_unit.from_model(values))
    return np.column_stack(columns).astype(np.float64)
