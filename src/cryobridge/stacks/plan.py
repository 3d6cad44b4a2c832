"""Planning output stacks: which images go into which stack, and everything that can be checked before the work.

A plan is a list of independent tasks, one an output stack, so that where they run is a choice made outside.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.formats.descriptor import ImageDescriptor
from cryobridge.formats.mrc_header import MrcHeader, read_header
from cryobridge.paths import ImageSearch, suggest

if TYPE_CHECKING:
    from cryobridge.particles import ImageRefs, ParticleSet

# float32 pixel sizes of one nominal value differ by less than this.
PIXEL_SIZE_TOLERANCE = 1e-4
_LENS_VALUES = {
    "voltage_kV": "voltage",
    "spherical_aberration_mm": "spherical aberration",
    "amplitude_contrast": "amplitude contrast",
}
_N_SHOWN = 10


@dataclass(frozen=True)
class StackTask:
    """One output stack: its number, and the rows of the particle set in the order of its images."""

    number: int
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class StackPlan:
    """Everything needed to make the stacks.

    Parameters
    ----------
    particles
        The particle set that rows refer to.
    images
        Its image references.
    files
        The image file of each of ``images.path.values``.
    descriptor
        The description of the images and of the polar grid.
    tasks
        The stacks to make.
    notes
        What was assumed, in sentences.
    """

    particles: ParticleSet
    images: ImageRefs
    files: tuple[Path, ...]
    descriptor: ImageDescriptor
    tasks: tuple[StackTask, ...]
    notes: tuple[str, ...]


def plan_stacks(
    particles: ParticleSet,
    search: ImageSearch,
    *,
    descriptor: ImageDescriptor | None = None,
    batch_size: int = 1024,
    order: Literal["row", "file"] = "row",
    resolution_factor: float = 1.0,
    n_inplanes: int | None = None,
    precision: Literal["single", "double"] = "single",
) -> StackPlan:
    """Plan the stacks of an indexed particle set, and check all that metadata and headers can tell.

    Parameters
    ----------
    particles
        Particles with image references, CTF and optics.
    search
        Where the image files are looked for.
    descriptor
        The grid to use; without one the default grid for the box and pixel size of the data is taken, adjusted by
        ``resolution_factor``, ``n_inplanes`` and ``precision``.
    batch_size
        Images in a stack.
    order
        ``"row"`` keeps the order of the metadata, ``"file"`` sorts by file name as CryoLike does.

    Raises
    ------
    MissingDataError
        If columns or image files are missing, or an index lies beyond the end of its file; all are listed at once.
    CryobridgeError
        If boxes, pixel sizes or the lens values within a stack disagree.
    """
    images = _require(particles)
    files, headers = _find_files(images, search)
    _check_indices(images, files, headers)
    box_px = _one_box(files, headers)
    pixel_size_A, notes = _one_pixel_size(particles, files, headers, descriptor)
    if descriptor is None:
        descriptor = ImageDescriptor.for_box(
            box_px, pixel_size_A, resolution_factor=resolution_factor, n_inplanes=n_inplanes, precision=precision
        )
    _check_descriptor(descriptor, box_px, pixel_size_A, particles.source)
    tasks = _cut(_ordered_rows(images, order), batch_size)
    _check_lens(particles, tasks)
    return StackPlan(particles, images, files, descriptor, tasks, (*particles.notes, *notes, *_defaults(particles)))


def _require(particles: ParticleSet) -> ImageRefs:
    if particles.n_rows == 0:
        raise MissingDataError("there are no particles in it", path=particles.source, hint="Choose another file.")
    parts = {"image references": particles.images, "CTF values": particles.ctf, "optics": particles.optics}
    missing = [name for name, part in parts.items() if part is None]
    if missing or particles.images is None:
        raise MissingDataError(
            f"no {', no '.join(missing)}",
            path=particles.source,
            hint=f"`cryobridge inspect {particles.source}` says which file beside it has them.",
        )
    return particles.images


def _find_files(images: ImageRefs, search: ImageSearch) -> tuple[tuple[Path, ...], tuple[MrcHeader, ...]]:
    names = images.path.values
    if search.folder is not None:
        _refuse_equal_names(names, search)
    found = [search.resolve(name) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        remedy = suggest(missing[:200], search.metadata)
        raise MissingDataError(
            f"{len(missing)} of {len(names)} image files are missing: {', '.join(missing[:_N_SHOWN])}"
            + (" …" if len(missing) > _N_SHOWN else ""),
            path=search.metadata,
            count=len(missing),
            hint=f"Give {remedy.as_options()}." if remedy else "Say where they are with --folder-mrc or --datadir.",
        )
    files = tuple(path for path in found if path is not None)
    problems: list[str] = []
    headers: list[MrcHeader] = []
    for path in files:
        try:
            headers.append(read_header(path))
        except FormatError as error:
            problems.append(str(error))
    if problems:
        raise FormatError("; ".join(problems[:_N_SHOWN]), count=len(problems), hint="Copy those files again.")
    return files, tuple(headers)


def _refuse_equal_names(names: tuple[str, ...], search: ImageSearch) -> None:
    by_name: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_name[Path(name).name].append(name)
    clashes = [" and ".join(group) for group in by_name.values() if len(group) > 1]
    if clashes:
        raise CryobridgeError(
            f"different files have one name in --folder-mrc: {'; '.join(clashes[:3])}",
            path=search.metadata,
            count=len(clashes),
            hint="Use --datadir, which keeps their folders apart.",
        )


def _check_indices(images: ImageRefs, files: tuple[Path, ...], headers: tuple[MrcHeader, ...]) -> None:
    available = np.array(
        [header.nz if header.whole_sections is None else min(header.nz, header.whole_sections) for header in headers]
    )
    beyond = np.flatnonzero((images.index >= available[images.path.codes]) | (images.index < 0))
    if len(beyond):
        row = int(beyond[0])
        file = int(images.path.codes[row])
        raise MissingDataError(
            f"image {images.index[row] + 1} is asked for, the file has {available[file]} whole ones",
            path=files[file],
            rows=tuple(int(row) for row in beyond[:3]),
            count=len(beyond),
            hint="The stack is truncated or is another one; copy it again, or correct the metadata.",
        )


def _one_box(files: tuple[Path, ...], headers: tuple[MrcHeader, ...]) -> int:
    boxes = {(header.ny, header.nx) for header in headers}
    if len(boxes) > 1 or any(ny != nx for ny, nx in boxes):
        shown = ", ".join(
            f"{path.name} {header.ny} × {header.nx}"
            for path, header in list(zip(files, headers, strict=True))[:_N_SHOWN]
        )
        raise CryobridgeError(
            f"the images of one set of stacks must be square and of one size: {shown}",
            hint="Convert each box size on its own.",
        )
    return boxes.pop()[0]


def _one_pixel_size(
    particles: ParticleSet,
    files: tuple[Path, ...],
    headers: tuple[MrcHeader, ...],
    descriptor: ImageDescriptor | None,
) -> tuple[float, tuple[str, ...]]:
    """Return the pixel size of the metadata, else of the image files, else of the descriptor that was given."""
    assert particles.optics is not None
    sizes = particles.optics.pixel_size_A
    known, source = sizes[np.isfinite(sizes)], ""
    if len(known) == 0:
        known, source = np.array([header.pixel_size_A for header in headers if header.pixel_size_A]), files[0].name
    if len(known) == 0 and descriptor is not None:
        known, source = np.array(descriptor.pixel_size_A), "the parameter file"
    if len(known) == 0:
        raise MissingDataError(
            "neither the metadata nor the image files say the pixel size",
            path=particles.source,
            hint="Give a parameter file with -p that holds it.",
        )
    if np.ptp(known) > PIXEL_SIZE_TOLERANCE * known[0]:
        raise CryobridgeError(
            f"several pixel sizes: {', '.join(f'{size:g} Å' for size in np.unique(known))}",
            path=particles.source,
            hint="Convert each pixel size on its own.",
        )
    notes = (f"the pixel size is that of {source}: {known[0]:g} Å",) if source else ()
    return float(known[0]), notes


def _check_descriptor(descriptor: ImageDescriptor, box_px: int, pixel_size_A: float, source: Path) -> None:
    if tuple(descriptor.n_pixels) != (box_px, box_px):
        raise CryobridgeError(
            f"the grid is for {descriptor.n_pixels[0]} × {descriptor.n_pixels[1]} px, the images have {box_px}",
            path=source,
            hint="Use the parameter file that was made for these images, or leave -p out.",
        )
    if any(abs(size - pixel_size_A) > PIXEL_SIZE_TOLERANCE * pixel_size_A for size in descriptor.pixel_size_A):
        raise CryobridgeError(
            f"the grid is for pixels of {descriptor.pixel_size_A[0]:g} Å, the images have {pixel_size_A:g} Å",
            path=source,
            hint="Use the parameter file that was made for these images, or leave -p out.",
        )


def _ordered_rows(images: ImageRefs, order: Literal["row", "file"]) -> NDArray[np.int64]:
    if order == "row":
        return np.arange(len(images.index))
    rank = np.argsort(np.argsort(images.path.values))
    return np.argsort(rank[images.path.codes], kind="stable")


def _cut(rows: NDArray[np.int64], batch_size: int) -> tuple[StackTask, ...]:
    return tuple(
        StackTask(number, rows[first : first + batch_size])
        for number, first in enumerate(range(0, len(rows), batch_size))
    )


def _check_lens(particles: ParticleSet, tasks: tuple[StackTask, ...]) -> None:
    """Refuse stacks whose particles differ in a lens value of which the format holds one."""
    assert particles.optics is not None and particles.optics_index is not None
    problems: list[str] = []
    for name, title in _LENS_VALUES.items():
        values: NDArray[np.float64] = getattr(particles.optics, name)
        if len(np.unique(values)) <= 1:
            continue
        of_rows = values[particles.optics_index]
        mixed = [task.number for task in tasks if len(np.unique(of_rows[task.rows])) > 1]
        if mixed:
            groups = ", ".join(f"group {g}: {v:g}" for g, v in zip(particles.optics.group_id, values, strict=True))
            problems.append(f"stack {mixed[0]} would mix values of the {title} ({groups})")
    if problems:
        raise CryobridgeError(
            "; ".join(problems),
            path=particles.source,
            hint="A stack holds one value of each; convert the optics groups one by one.",
        )
    for name in ("voltage_kV", "spherical_aberration_mm"):
        if np.isnan(getattr(particles.optics, name)).any():
            raise MissingDataError(
                f"the {_LENS_VALUES[name]} is not known", path=particles.source, hint="It must be in the metadata."
            )


def _defaults(particles: ParticleSet) -> tuple[str, ...]:
    """Say which defaults stand in for columns that are not there."""
    assert particles.ctf is not None and particles.optics is not None
    notes = []
    if particles.ctf.phase_shift_rad is None:
        notes.append("no phase shift in the metadata: 0")
    if np.isnan(particles.optics.amplitude_contrast).any():
        notes.append("no amplitude contrast in the metadata: 0.1")
    if particles.ctf.bfactor_A2 is None:
        notes.append("no CTF B-factor in the metadata: 0")
    if particles.ctf.scale is None:
        notes.append("no CTF scale factor in the metadata: 1")
    return tuple(notes)
