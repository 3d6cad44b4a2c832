"""Values that other programs give for each particle, lined up with a file's rows: labels and latent coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, UsageError, option
from cryobridge.formats.arrays import read_npy
from cryobridge.formats.input_file import read_error, read_input, readable_size
from cryobridge.formats.pickle_data import load_pickle
from cryobridge.formats.recovar.clusters import read_clusters
from cryobridge.report import counted

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.model.particles import Floats

Rows = NDArray[np.int64]
_N_SHOWN = 3
_PICKLES = (".pkl", ".pickle")
_KINDS_HINT = "Rows and labels are read from .pkl, .npy and .txt files."


@dataclass(frozen=True, eq=False)
class RowLabels:
    """A label for each row of a particle file.

    Attributes
    ----------
    labels
        (n,) counted from 0; -1 for rows without one.
    n_labels
        How many different labels there can be.
    source
        Where they are from, in a few words.
    """

    labels: Rows
    n_labels: int
    source: str


def read_rows(path: Path, n_rows: int, particles: Path) -> Rows:
    """Read row numbers, counted from 0: an ind.pkl, a `.npy` or a text file with one number a line.

    Raises
    ------
    FormatError
        If they are no whole numbers, or one is negative.
    CryobridgeError
        If a row is named twice or the particle file has no such row.
    """
    return check_rows(_read_list(path), path, n_rows, particles)


def check_rows(given: Any, path: Path | None, n_rows: int, particles: Path) -> Rows:
    """Return row numbers as an array, as `read_rows` does; ``path`` is where they are from, if it is a file."""
    rows = _whole_numbers(path, given, "row numbers")
    if (rows < 0).any():
        raise FormatError(
            f"the row number {rows.min()} is negative",
            path=path,
            count=int((rows < 0).sum()),
            hint="Rows are counted from 0.",
        )
    beyond = rows[rows >= n_rows]
    if len(beyond):
        raise CryobridgeError(
            f"row {beyond.max():,} (counted from 0) is asked for, {particles.name} has {counted(n_rows, 'row')}",
            path=path,
            count=len(beyond),
            hint="The list belongs to another particle file; name the one that it was made from.",
        )
    times = np.bincount(rows, minlength=n_rows)
    if (times > 1).any():
        twice = np.flatnonzero(times > 1)
        raise CryobridgeError(
            f"{counted(len(rows), 'row is', 'rows are')} listed, {len(np.unique(rows)):,} different "
            f"ones: row {twice[0]:,} stands "
            f"{times[twice[0]]} times",
            path=path,
            count=len(twice),
            hint="A selection has each row once; make the list again.",
        )
    return rows


def read_labels(path: Path, n_rows: int, particles: Path, of_rows: Rows | None = None) -> RowLabels:
    """Read a label for each row: a kmeans_result.pkl, or a plain list of whole numbers (`.pkl`, `.npy`, `.txt`).

    Parameters
    ----------
    path
        The file.
    n_rows
        Rows of the particle file.
    particles
        Its name, for errors.
    of_rows
        The rows that the labels belong to; all, if not given.

    Raises
    ------
    FormatError
        If the file holds no labels.
    CryobridgeError
        If their number is another than that of the rows.
    """
    value = load_pickle(path) if path.suffix in _PICKLES else None
    if isinstance(value, dict):
        result = read_clusters(path)
        labels, n_labels = result.labels, len(result.centers)
    else:
        labels = _whole_numbers(path, _read_list(path) if value is None else value, "labels")
        labels = np.maximum(labels, -1)
        n_labels = int(labels.max(initial=-1)) + 1
    return RowLabels(line_up(labels, -1, n_rows, of_rows, path, particles, "labels"), n_labels, path.name)


def read_latent(path: Path, n_rows: int, particles: Path, of_rows: Rows | None = None) -> Floats:
    """Read latent coordinates (n_rows, zdim), NaN where a row has none, from a `.npy` or a plain array in a `.pkl`.

    Raises
    ------
    FormatError
        If the file holds no table of numbers.
    CryobridgeError
        If its number of rows is another one.
    """
    value = load_pickle(path) if path.suffix in _PICKLES else read_npy(path)
    array = value if isinstance(value, np.ndarray) else np.zeros(0)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
        found = f"an array of {array.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise FormatError(
            f"latent coordinates are a table of numbers (N, zdim), this is {found}",
            path=path,
            hint="Name a file such as model/zdim_4/latent_coords.npy.",
        )
    coordinates = array.astype(np.float64)
    return line_up(coordinates, np.nan, n_rows, of_rows, path, particles, "latent coordinates")


def line_up(
    values: NDArray[Any], nothing: float, n_rows: int, of_rows: Rows | None, path: Path, particles: Path, what: str
) -> NDArray[Any]:
    """Return values (n_rows, …) in the order of the particle file's rows, ``nothing`` where a row has none.

    Raises
    ------
    CryobridgeError
        If there are more or fewer values than rows; they are never cut to fit.
    """
    expected = n_rows if of_rows is None else len(of_rows)
    if len(values) != expected:
        whose = f"{particles.name} has" if of_rows is None else f"{option('label_rows')} names"
        raise CryobridgeError(
            f"it has {len(values):,} {what}, {whose} {counted(expected, 'row')}",
            path=path,
            hint=f"For a run that was given only some rows, name those with {option('label_rows', 'IND.pkl')}; "
            f"{option('run', 'RUNDIR')} finds the rows of a RECOVAR run by itself.",
        )
    if of_rows is None:
        return values
    whole = np.full((n_rows, *values.shape[1:]), nothing, dtype=values.dtype)
    whole[of_rows] = values
    return whole


def _read_list(path: Path) -> Any:
    if path.suffix in _PICKLES:
        return load_pickle(path)
    return read_npy(path) if path.suffix == ".npy" else _read_text(path)


def _read_text(path: Path) -> NDArray[np.int64]:
    """Read whole numbers between white space; ``#`` starts a comment."""
    if path.suffix != ".txt":
        raise UsageError(f"{path.suffix or 'no suffix'} is not known here", path=path, hint=_KINDS_HINT)
    readable_size(path)
    try:
        lines = read_input(path).decode("utf-8").splitlines()
    except OSError as error:
        raise read_error(path, error) from error
    except UnicodeDecodeError as error:
        raise FormatError("not text", path=path, hint=_KINDS_HINT) from error
    numbers = []
    for place, line in enumerate(lines, 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            if not word.removeprefix("-").isdecimal() or len(word) > 18:
                raise FormatError(f"line {place}: {word!r} is not a whole number", path=path, hint=_KINDS_HINT)
            numbers.append(int(word))
    return np.array(numbers, dtype=np.int64)


def _whole_numbers(path: Path | None, value: Any, what: str) -> Rows:
    if isinstance(value, list) and all(type(item) is int and abs(item) < 1 << 62 for item in value):
        value = np.array(value, dtype=np.int64)
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iu":
        found = (
            f"an array of shape {value.shape} and type {value.dtype}"
            if isinstance(value, np.ndarray)
            else f"a {type(value).__name__}"
        )
        raise FormatError(
            f"{what} are a list of whole numbers, this is {found}",
            path=path,
            hint="`cryobridge inspect` shows what a file is.",
        )
    return value.astype(np.int64)


def join_numbers(numbers: Iterable[int]) -> str:
    """Return numbers with commas between them."""
    return ", ".join(str(number) for number in numbers)


def checked_list(given: object, n_rows: int, path: Path) -> NDArray[np.int64]:
    """Return row numbers that were given in Python."""
    if not isinstance(given, Iterable):
        raise UsageError(f"row numbers are needed, not {given!r:.60}", option="rows", hint="Give a list or an array.")
    array = given if isinstance(given, np.ndarray) else np.array(list(given))
    try:
        array = array if array.size else array.astype(np.int64)
        return check_rows(array, None, n_rows, path)
    except CryobridgeError as error:
        error.option = "rows"
        raise
