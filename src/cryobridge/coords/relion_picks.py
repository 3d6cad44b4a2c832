"""Writing picks as RELION's AutoPick does: one STAR file a micrograph, and the list of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.table import Array

RAW_DATA = "Raw_data"
AUTOPICK_STAR = "autopick.star"
PICK_FILES = "*_autopick.star"
_WIDTH = 12
_SMALLEST_PLAIN, _LARGEST_PLAIN = 0.001, 100000


def pick_file_name(micrograph: str) -> str:
    """Return the name of a micrograph's pick file: a bare name, whatever folders the micrograph's names."""
    return f"{PurePath(micrograph).stem}_autopick.star"


def relion_number(value: float) -> str:
    """Return a number as RELION prints it: 12 wide, six digits (five when negative), or with an exponent."""
    magnitude = abs(value)
    if 0 < magnitude < _SMALLEST_PLAIN or magnitude > _LARGEST_PLAIN:
        return f"{value:12.5e}" if value < 0 else f"{value:12.6e}"
    return f"{value:12.5f}" if value < 0 else f"{value:12.6f}"


def format_rows(columns: Mapping[str, Array]) -> NDArray[np.bytes_]:
    """Return one line for each row, (n,) fixed-width bytes: every number of RELION's is 12 characters wide.

    Parameters
    ----------
    columns
        Label -> (n,) floats or integers; integers are written without a point.
    """
    cells = [_format_column(values) for values in columns.values()]
    n_rows, n_columns = len(cells[0]), len(cells)
    lines = np.full((n_rows, n_columns * (_WIDTH + 1)), ord(" "), np.uint8)
    for place, cell in enumerate(cells):
        start = place * (_WIDTH + 1)
        lines[:, start : start + _WIDTH] = cell.view(np.uint8).reshape(n_rows, _WIDTH)
    lines[:, -1] = ord("\n")
    return lines.view(f"S{lines.shape[1]}").reshape(n_rows)


def _format_column(values: Array) -> NDArray[np.bytes_]:
    """Format the distinct values; coordinates, classes and angles repeat."""
    distinct, inverse = np.unique(values, return_inverse=True)
    if distinct.dtype.kind in "iu":
        texts = [f"{value:12d}" for value in distinct.tolist()]
    else:
        texts = [relion_number(value) for value in distinct.tolist()]
    formatted: NDArray[np.bytes_] = np.array(texts, dtype=f"S{_WIDTH}")[inverse]
    return formatted


def pick_file_head(labels: Mapping[str, Array]) -> bytes:
    """Return what stands before the rows of a pick file."""
    lines = ["", "# version 30001", "", "data_", "", "loop_ "]
    lines += [f"_{label} #{number} " for number, label in enumerate(labels, 1)]
    return ("\n".join(lines) + "\n").encode()


def write_pick_files(paths: list[Path], columns: Mapping[str, Array], rows: list[NDArray[np.int64]]) -> None:
    """Write one pick file for each path, with its rows of the columns.

    The folder is one that nobody else looks into yet: whole files are the caller's care.
    """
    head = pick_file_head(columns)
    lines = format_rows(columns)
    for path, chosen in zip(paths, rows, strict=True):
        path.write_bytes(head + lines[chosen].tobytes() + b"\n")


def rows_by_micrograph(codes: NDArray[np.int32], n_micrographs: int) -> list[NDArray[np.int64]]:
    """Return for each micrograph the rows of its picks, in the file's order."""
    order = np.argsort(codes, kind="stable")
    cuts = np.cumsum(np.bincount(codes, minlength=n_micrographs))[:-1]
    return np.split(order, cuts)
