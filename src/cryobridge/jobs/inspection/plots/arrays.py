"""Histograms, scatter plots and densities of arrays and pickles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cryobridge.errors import CryobridgeError, UnsafeFileError
from cryobridge.formats import registry
from cryobridge.formats.arrays import describe_arrays
from cryobridge.formats.pickle_data import load_pickle, peek_pickle
from cryobridge.formats.pickles import classify_pickle, read_density
from cryobridge.formats.table import Array, Column, numpy_dtype_label
from cryobridge.jobs.inspection.files import pickle_arrays, read_array
from cryobridge.jobs.inspection.plots.images import LEAST_IMAGE_PX
from cryobridge.jobs.inspection.plots.tables import MAX_COMPONENTS, distribution, even_runs
from cryobridge.jobs.inspection.stats import is_identifier
from cryobridge.model.geometry import matrix_to_euler
from cryobridge.plots.images import contact_sheet
from cryobridge.plots.inspection import draw_grid, draw_points
from cryobridge.plots.page import (
    LABELLED_MARGIN_IN,
    LARGEST,
    MAX_PANELS,
    PageNotes,
    Panel,
    Sheet,
    image_count,
    labelled,
    path_title,
)

# An array of an archive can't be read in part.
_MAX_ARRAY_BYTES = 1 << 30
_FEWEST_POINTS = 10


def arrays_sheet(path: Path) -> Sheet:
    """Draw the arrays of a `.npy`, `.npz` or `.pt` file."""
    kind = registry.identify_file(path)
    infos = describe_arrays(path)
    if len(infos) == 1 and infos[0].is_dense and len(infos[0].shape) == 3 and min(infos[0].shape[1:]) >= LEAST_IMAGE_PX:
        array = read_array(path, kind, infos[0].name)
        if array is not None and array.dtype.kind in "fiu" and len(array):
            return array_images_sheet(path, array)
    found = PageNotes()

    def arrays() -> Iterator[tuple[str, Any]]:
        for info in infos:
            name = info.name or path.stem
            if kind == registry.NPZ and info.nbytes > _MAX_ARRAY_BYTES:
                found.leave_out("too large", [name])
            elif not info.is_dense:
                found.leave_out(f"stored as {info.stored}", [name])
            else:
                yield name, read_array(path, kind, info.name)

    return _arrays_page(path, _array_panels(arrays(), len(infos), found), found)


def _arrays_page(path: Path, panels: tuple[Panel, ...], found: PageNotes) -> Sheet:
    return Sheet(path_title(path), panels, found.notes(), margin_in=LABELLED_MARGIN_IN)


def array_images_sheet(path: Path, array: Array) -> Sheet:
    """Draw an array of images as a contact sheet."""
    n_images, ny, nx = array.shape
    return contact_sheet(
        f"{path_title(path)}: {image_count(n_images)} of {nx} × {ny} px", n_images, array.__getitem__, []
    )


def _array_panels(arrays: Iterable[tuple[str, Any]], n_arrays: int, found: PageNotes) -> tuple[Panel, ...]:
    """Draw the distribution of each array; before it, the points of what may be coordinates."""
    panels: list[Panel] = []
    for name, value in arrays:
        array = np.atleast_1d(np.asarray(value))
        if array.dtype.kind not in "biufc":
            found.leave_out("no numbers", [name])
            continue
        column = Column(name, numpy_dtype_label(array.dtype))
        if is_identifier(column) or len(panels) >= MAX_PANELS:
            found.leave_out("identifiers" if is_identifier(column) else f"beyond {MAX_PANELS} panels", [name])
            continue
        panel = distribution(column, _sampled(name, array, found), found)
        if panel and _are_coordinates(array, is_alone=n_arrays == 1):
            panels.append(points_panel(name if array.shape[1] == 2 else f"{name}, first two", array))
        panels += [panel] if panel else []
    return tuple(panels[:MAX_PANELS])


def _are_coordinates(array: Array, *, is_alone: bool) -> bool:
    if array.ndim != 2 or array.dtype.kind != "f":
        return False
    n_rows, n_components = array.shape
    is_long = n_rows >= max(_FEWEST_POINTS, n_components)
    return is_long and (n_components == 2 or (is_alone and n_components > 2))


def _sampled(name: str, array: Array, found: PageNotes) -> Array:
    """Return what is drawn of an array, and say so where it is not all."""
    sample = _sample_array(array)
    if sample.size < array.size:
        found.sentences.append(f"{name}: drawn from {sample.size:,} of {array.size:,} elements, in evenly spaced runs.")
    return sample


def _sample_array(array: Array) -> Array:
    """Take evenly spaced rows of an array; of one with long rows, evenly spaced elements."""
    rows = array if math.prod(array.shape[1:]) <= MAX_COMPONENTS else array.ravel(order="K")
    runs = even_runs(len(rows), rows.itemsize * math.prod(rows.shape[1:]))
    sample = np.concatenate([rows[run] for run in runs])
    return sample.astype(np.uint8) if sample.dtype.kind == "b" else sample


def points_panel(title: str, coordinates: Array) -> Panel:
    """Draw the first two of the coordinates, (n, 2 or more), as points."""
    points = _sample_array(coordinates[:, :2]).astype(np.float64)
    points = points[(np.abs(points) < LARGEST).all(axis=1)]
    return Panel(title, labelled(draw_points(points), "dimension 0", "dimension 1"))


def pickle_sheet(path: Path) -> Sheet:
    """Draw the arrays of a pickle."""
    found = PageNotes()
    try:
        value = load_pickle(path)
        content = classify_pickle(value)
    except UnsafeFileError as error:
        value, content = peek_pickle(path)[0], "unknown"
        found.sentences.append(f"Only the plain data in it: {error.message}.")
    if content == "density":
        return _density_sheet(path)
    arrays = {path.stem if name == "value" else name: array for name, array in pickle_arrays(content, value).items()}
    if content == "poses":
        arrays = _with_angles(arrays, found)
    return _arrays_page(path, _array_panels(arrays.items(), len(arrays), found), found)


def _with_angles(poses: dict[str, Any], found: PageNotes) -> dict[str, Any]:
    """Replace the matrices, which come first, by RELION's angles; leave them where they are no rotations."""
    name, matrices = next(iter(poses.items()))
    try:
        angles_deg = matrix_to_euler(_sampled(name, matrices, found))
    except CryobridgeError as error:
        found.sentences.append(f"⚠ {name}: {error.message}.")
        return poses
    angles = dict(zip(("rot (degrees)", "tilt (degrees)", "psi (degrees)"), angles_deg, strict=True))
    return {**angles, **{other: array for other, array in poses.items() if other != name}}


def _density_sheet(path: Path) -> Sheet:
    """Show a density in latent space along its first two dimensions."""
    density = read_density(path)
    grid, bounds = density.density, density.bounds
    alpha = "" if density.alpha is None else f", alpha {density.alpha:.4g}"
    heading = f"{path_title(path)}: density on a grid of {' × '.join(map(str, grid.shape))}{alpha}"
    notes = [f"Summed over the other {grid.ndim - 2} dimensions."] if grid.ndim > 2 else []
    grid = grid.sum(axis=tuple(range(2, grid.ndim)))
    ends = [(float(low), float(high)) for low, high in bounds]

    labels = ("dimension 0", "density" if grid.ndim == 1 else "dimension 1")
    return Sheet(
        heading,
        (Panel("density", labelled(draw_grid(grid, ends), *labels)),),
        tuple(notes),
        (3.0, 2.3),
        LABELLED_MARGIN_IN,
    )
