"""Writing picks as RELION's AutoPick does: one STAR file a micrograph, and the files that lead to them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.table import Array

RAW_DATA = "Raw_data"
AUTOPICK_STAR = "autopick.star"
COORDS_SUFFIX = "coords_suffix_autopick.star"
PICK_FILES = "*_autopick.star"
# The first folder of a micrograph's name that RELION takes for one of a job (decomposePipelineFileName).
_JOB_FOLDER = re.compile(r"(?:.*?/)??job\d{3}[^/]*/")
_WIDTH = 12
_SMALLEST_PLAIN, _LARGEST_PLAIN = 0.001, 100000
# Below, the exponent would take a thirteenth character.
_SMALLEST = 1e-99


def pick_file_name(micrograph: str) -> str:
    """Return the name of a micrograph's pick file: a bare name, whatever folders the micrograph's names."""
    return f"{posixpath.splitext(posixpath.basename(micrograph))[0]}_autopick.star"


def pick_file_place(micrograph: str) -> str:
    """Return where RELION 3.1 looks for a micrograph's pick file, below the folder of ``coords_suffix_autopick.star``.

    That is the micrograph's name after the folder of its job, as RELION 3.1.3 names the files that it misses. Parts
    that would lead out of the folder are left out.

    Examples
    --------
    >>> pick_file_place("MotionCorr/job002/Movies/mic1.mrc")
    'Movies/mic1_autopick.star'
    """
    job = _JOB_FOLDER.match(micrograph)
    folders = (micrograph[job.end() :] if job else micrograph).split("/")[:-1]
    safe = [part for part in folders if part not in {"", ".", ".."}]
    return "/".join([*safe, pick_file_name(micrograph)])


def is_in_raw_data(place: str) -> bool:
    """Whether a pick file's place is in the folder that reliosparc has."""
    return place.startswith(f"{RAW_DATA}/")


def relion_number(value: float) -> str:
    """Return a number as RELION prints it: 12 wide, six digits (five when negative), or with an exponent."""
    magnitude = abs(value)
    if magnitude < _SMALLEST:
        value = magnitude = 0.0
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
    """Format numbers as `relion_number` does: plain ones digit by digit for all rows at once, the rest one by one."""
    if values.dtype.kind in "iu":
        distinct, inverse = np.unique(values, return_inverse=True)
        texts: NDArray[np.bytes_] = np.array([f"{value:12d}" for value in distinct.tolist()], dtype=f"S{_WIDTH}")
        return texts[inverse]
    values = values.astype(np.float64)
    is_plain = (values == 0) | ((values >= _SMALLEST_PLAIN) & (values < _LARGEST_PLAIN - 1))
    millionths = np.where(is_plain, values, 0.0) * 1e6
    # Where the sixth digit is a near tie, the product's own rounding could decide; printf looks at all digits.
    is_plain &= np.abs(millionths - np.floor(millionths) - 0.5) >= 1e-4
    cells = np.full((len(values), _WIDTH), ord(" "), np.uint8)
    cells[is_plain] = _plain_digits(np.rint(millionths[is_plain]).astype(np.int64))
    formatted: NDArray[np.bytes_] = cells.view(f"S{_WIDTH}").reshape(len(values))
    for row in np.flatnonzero(~is_plain):
        formatted[row] = relion_number(float(values[row])).encode()
    return formatted


def _plain_digits(millionths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return numbers from 0 to 99,999 with six digits after the point, 12 characters each."""
    cells = np.full((len(millionths), _WIDTH), ord(" "), np.uint8)
    cells[:, -7] = ord(".")
    rest = millionths
    for place in (-1, -2, -3, -4, -5, -6, -8, -9, -10, -11, -12):
        higher = rest // 10
        digit = (rest - 10 * higher + ord("0")).astype(np.uint8)
        # Before the point nothing but spaces stands left of the first digit.
        cells[:, place] = digit if place >= -8 else np.where(rest > 0, digit, ord(" "))
        rest = higher
    return cells


def pick_file_head(labels: Mapping[str, Array]) -> bytes:
    """Return what stands before the rows of a pick file."""
    lines = ["", "# version 30001", "", "data_", "", "loop_ "]
    lines += [f"_{label} #{number} " for number, label in enumerate(labels, 1)]
    return ("\n".join(lines) + "\n").encode()


def write_pick_files(paths: Sequence[str], columns: Mapping[str, Array], rows: list[NDArray[np.int64]]) -> None:
    """Write one pick file for each path, with its rows of the columns.

    The folders are there, and nobody else looks into them yet: whole files are the caller's care.
    """
    head = pick_file_head(columns)
    lines = format_rows(columns)
    for path, chosen in zip(paths, rows, strict=True):
        with open(path, "wb") as file:  # noqa: PTH123 -- texts, since a Path for each of many costs time
            file.write(head + lines[chosen].tobytes() + b"\n")


def rows_by_micrograph(codes: NDArray[np.int32], n_micrographs: int) -> list[NDArray[np.int64]]:
    """Return for each micrograph the rows of its picks, in the file's order."""
    order = np.argsort(codes, kind="stable")
    cuts = np.cumsum(np.bincount(codes, minlength=n_micrographs))[:-1]
    return np.split(order, cuts)
