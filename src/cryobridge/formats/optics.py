"""Grouping particles by their optics, for files that hold optics values a particle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.table import Array
from cryobridge.particles import Floats, Optics

# float32 pixel sizes are 1.3099979 for a nominal 1.31: groups are told apart by this many significant digits.
_SIGNIFICANT_DIGITS = 6


def group_optics(
    n_rows: int,
    *,
    group_id: Array | None,
    voltage_kV: Array | None,
    spherical_aberration_mm: Array | None,
    amplitude_contrast: Array | None,
    pixel_size_A: Array | None,
    box_px: Array | None,
) -> tuple[Optics, NDArray[np.int32]]:
    """Return one optics group for each distinct set of values, and each particle's group.

    Parameters are (n,) arrays, or None where the file does not say (NaN in the groups, 0 for the box). Where one
    ``group_id`` goes with several sets of values, each set is a group of its own with the same id.

    Returns
    -------
    optics
        Groups ordered by id, then by the values.
    optics_index
        (n,) int32.
    """
    ids = np.zeros(n_rows, np.int64) if group_id is None else group_id.astype(np.int64)
    voltage, aberration, contrast, pixel_size = (
        np.full(n_rows, np.nan) if column is None else column.astype(np.float64)
        for column in (voltage_kV, spherical_aberration_mm, amplitude_contrast, pixel_size_A)
    )
    boxes = np.zeros(n_rows, np.int64) if box_px is None else box_px.astype(np.int64)
    lens = [_rounded(column) for column in (voltage, aberration, contrast, pixel_size)]
    first, index = distinct_rows([ids, *lens, boxes])
    optics = Optics(
        group_id=ids[first],
        name=tuple(str(number) for number in ids[first]),
        voltage_kV=voltage[first],
        spherical_aberration_mm=aberration[first],
        amplitude_contrast=contrast[first],
        pixel_size_A=pixel_size[first],
        box_px=boxes[first],
    )
    return optics, index


def distinct_rows(columns: list[Array]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the first row of each distinct combination of values, ordered by value, and each row's combination.

    Parameters
    ----------
    columns
        Arrays (n,); NaN equals NaN.
    """
    n_rows = len(columns[0])
    code = np.zeros(n_rows, np.int64)
    for column in columns:
        if n_rows and not np.array_equal(column[:-1], column[1:], equal_nan=column.dtype.kind == "f"):
            distinct, inverse = np.unique(column, return_inverse=True)
            code = np.unique(code * len(distinct) + inverse, return_inverse=True)[1]
    _, first, index = np.unique(code, return_index=True, return_inverse=True)
    return first.astype(np.int64), index.astype(np.int32)


def _rounded(values: Floats) -> Floats:
    """Round to `_SIGNIFICANT_DIGITS` significant digits."""
    magnitude = np.where(np.isfinite(values) & (values != 0), np.abs(values), 1.0)
    scale = 10.0 ** (_SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(magnitude)))
    rounded: Floats = np.round(values * scale) / scale
    return rounded
