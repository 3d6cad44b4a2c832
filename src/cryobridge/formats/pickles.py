"""The pickles of cryoDRGN and RECOVAR: poses, CTF, indices, clusters, densities and half sets."""

from __future__ import annotations

import os
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError
from cryobridge.formats.atomic import atomic_path
from cryobridge.model.fields import ctf_fields
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
from cryobridge.formats.pickle_data import SHOWN, load_pickle
from cryobridge.formats.pickle_objects import is_array
from cryobridge.formats.table import Array

PickleKind = Literal[
    "poses", "ctf", "indices", "halfsets", "kmeans", "density", "umap", "trajectory_endpoints", "unknown"
]
# In their order in a ctf.pkl; angles are in degrees there.
CTF_COLUMNS = tuple(item.key.replace("_rad", "_deg") for item in ctf_fields())
_ORTHONORMAL_TOLERANCE = 1e-3
# What is not finite is refused or named, not by NumPy's warnings.
_QUIETLY = np.errstate(over="ignore", invalid="ignore")


@_QUIETLY
def classify_pickle(source: object) -> PickleKind:
    """Find out what a pickle of cryoDRGN or RECOVAR is, by its content.

    Parameters
    ----------
    source
        What `load_pickle` returned, or the path of the file.

    Returns
    -------
    str
        "unknown" for anything that is not unmistakable: an (N, 2) table within ±1, say, may be an embedding or
        the shifts of a pair of pose files.
    """
    value = load_pickle(source) if isinstance(source, os.PathLike) else source
    if isinstance(value, dict):
        for kind, keys in _DICTIONARIES.items():
            if keys <= value.keys():
                return kind
        return "unknown"
    if isinstance(value, list | tuple) and len(value) == 2 and all(is_array(part) for part in value):
        first, second = value
        if _is_table(first, 3, 3) and _is_table(second, 2):
            return "poses"
        return "halfsets" if _is_index_list(first) and _is_index_list(second) else "unknown"
    if not is_array(value):
        return "unknown"
    if _is_table(value, 3, 3):
        return "poses"
    if _is_table(value, len(CTF_COLUMNS)) and not _ctf_fault(value.astype(np.float64))[0]:
        return "ctf"
    if _is_table(value, 2) and bool((np.abs(value) > 1).any()):
        return "umap"
    return "indices" if _is_index_list(value) else "unknown"


_DICTIONARIES: dict[PickleKind, set[str]] = {
    "kmeans": {"centers", "labels"},
    "density": {"density", "latent_space_bounds"},
    "trajectory_endpoints": {"centers", "pairs"},
}


def _is_table(value: Array, *row: int) -> bool:
    return value.dtype.kind == "f" and value.ndim == 1 + len(row) and value.shape[1:] == row


def _is_index_list(value: Array) -> bool:
    return value.dtype.kind in "iu" and value.ndim == 1 and not bool((value < 0).any())


@dataclass(frozen=True, eq=False)
class PickledPoses:
    """Content of a poses.pkl.

    Attributes
    ----------
    rotations
        (N, 3, 3) float64: RELION's A matrices, reference to view.
    shifts_box
        (N, 2) float64: shifts along x and y in fractions of the box, with RELION's sign; None if there are none.
    """

    rotations: NDArray[np.float64]
    shifts_box: NDArray[np.float64] | None


@_QUIETLY
def read_poses(path: str | os.PathLike[str]) -> PickledPoses:
    """Read a poses.pkl: a pair of rotations and shifts, or rotations alone.

    Raises
    ------
    FormatError
        If the shapes are others, a matrix is no rotation to 1e-3, or a shift is larger than the box.
    """
    value = load_pickle(path)
    pair = value if isinstance(value, list | tuple) else (value,)
    if not 1 <= len(pair) <= 2 or not all(is_array(part) and part.dtype.kind in "fiu" for part in pair):
        raise _not_a(path, "poses", "a pair of arrays (rotations, shifts), or an array of rotations", value)
    rotations = np.asarray(pair[0], np.float64)
    shifts = np.asarray(pair[1], np.float64) if len(pair) == 2 else None
    check_poses(Path(path), rotations, shifts)
    return PickledPoses(rotations, shifts)


def write_poses(path: str | os.PathLike[str], rotations: Array, shifts_box: Array | None) -> None:
    """Write a poses.pkl as cryoDRGN and RECOVAR read it: float32; rotations alone when ``shifts_box`` is None.

    See `PickledPoses` for the meaning, and `read_poses` for what is refused.
    """
    path = Path(path)
    check_poses(path, rotations, shifts_box)
    matrices = np.asarray(rotations, np.float32)
    write_pickle(path, matrices if shifts_box is None else (matrices, np.asarray(shifts_box, np.float32)))


def check_poses(path: Path, rotations: Array, shifts: Array | None) -> None:
    """Check what is to be written, or was read, as poses.

    Raises
    ------
    FormatError
        If the arrays are not (N, 3, 3) and (N, 2), or hold something else than rotations and finite shifts.
    """
    n = len(rotations)
    if rotations.shape != (n, 3, 3) or (shifts is not None and shifts.shape != (n, 2)):
        shapes = " and ".join(str(part.shape) for part in (rotations, shifts) if part is not None)
        raise FormatError(
            f"poses are arrays of (N, 3, 3) and (N, 2), not of {shapes}",
            path=path,
            hint="Check that this is a poses.pkl of single particles.",
        )
    with np.errstate(all="ignore"):
        errors = np.abs(rotations @ np.swapaxes(rotations, 1, 2) - np.eye(3)).max(axis=(1, 2), initial=0)
        # Written as what must hold, so that NaN fails it.
        rotates = (errors <= _ORTHONORMAL_TOLERANCE) & (np.linalg.det(rotations) > 0)
    _refuse_no_numbers(path, rotations, ~rotates, "the matrix", "rotations")
    _refuse_rows(path, ~rotates, "the matrix is no rotation", "rotations", "Check that this is a poses.pkl.")
    if shifts is not None:
        inside = (np.abs(shifts) <= 1).all(axis=1)
        _refuse_no_numbers(path, shifts, np.asarray(~inside), "the shift", "shifts")
        _refuse_rows(
            path,
            np.asarray(~inside),
            "the shift is larger than the box; shifts are in fractions of the box",
            "shifts",
            "If they are in pixels (files of old versions are), divide them by the box size.",
        )


@dataclass(frozen=True, eq=False)
class CtfTable:
    """Content of a ctf.pkl.

    Attributes
    ----------
    values
        (N, 9) float64; the columns are `CTF_COLUMNS`. Box and pixel size are those of the original stack.
    problems
        What cryoDRGN or RECOVAR would object to.
    """

    values: NDArray[np.float64]
    problems: tuple[Message, ...] = ()


@_QUIETLY
def read_ctf(path: str | os.PathLike[str]) -> CtfTable:
    """Read a ctf.pkl.

    Raises
    ------
    FormatError
        If it is no table of nine columns, or a number in it is impossible.
    """
    value = load_pickle(path)
    if not is_array(value) or value.dtype.kind not in "fiu" or value.ndim != 2:
        raise _not_a(path, "CTF parameters", "a table of (N, 9)", value)
    table = np.asarray(value, np.float64)
    check_ctf(Path(path), table)
    return CtfTable(table, tuple(warning("ctf-table", text, where=Path(path)) for text in _ctf_problems(table)))


def write_ctf(path: str | os.PathLike[str], values: Array) -> None:
    """Write a ctf.pkl as cryoDRGN and RECOVAR read it: (N, 9) float32 with the columns of `CTF_COLUMNS`."""
    path = Path(path)
    check_ctf(path, np.asarray(values, np.float64))
    with np.errstate(over="ignore"):  # what single precision can't hold is infinite, which reading back shows
        single = np.asarray(values, np.float32)
    write_pickle(path, single)


@_QUIETLY
def check_ctf(path: Path, table: NDArray[np.float64]) -> None:
    """Check what is to be written, or was read, as CTF values.

    Raises
    ------
    FormatError
        If the table is not (N, 9), or holds something that is no CTF.
    """
    if table.ndim != 2 or table.shape[1] != len(CTF_COLUMNS):
        old = "; eight were written by old versions of cryoDRGN" if table.shape[1:] == (8,) else ""
        raise FormatError(
            f"a table of shape {table.shape}, where (N, 9) is needed: {', '.join(CTF_COLUMNS)}{old}",
            path=path,
            hint="Write the CTF parameters again from the .cs or .star file.",
        )
    fault, rows = _ctf_fault(table)
    if fault:
        _refuse_rows(path, rows, fault, None, "Check that this is a ctf.pkl and its columns are in order.")


def _ctf_fault(table: NDArray[np.float64]) -> tuple[str, NDArray[np.bool_]]:
    """Return the first impossibility in a CTF table and the rows that have it; an empty text where there is none."""
    box, pixel_size, voltage = table[:, 0], table[:, 1], table[:, 5]
    for fault, rows in (
        ("a CTF parameter is not a finite number", ~np.isfinite(table).all(axis=1)),
        ("the box size is not a positive whole number", (box < 1) | (box != np.round(box))),
        ("the pixel size is not positive", pixel_size <= 0),
        ("the voltage is not between 10 and 2000 kV", (voltage < 10) | (voltage > 2000)),
    ):
        if np.any(rows):
            return fault, np.asarray(rows)
    return "", np.zeros(len(table), np.bool_)


def _ctf_problems(table: NDArray[np.float64]) -> Iterable[str]:
    for column, what in ((0, "box sizes"), (1, "pixel sizes")):
        if len(values := np.unique(table[:, column])) > 1:
            yield f"{len(values)} different {what}; cryoDRGN and RECOVAR take the first row's for all"
    if (table[:, 0] % 2).any():
        yield "an odd box size, which cryoDRGN refuses"


def read_indices(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    """Read an ind.pkl: rows of the particle file, counted from 0, (N,).

    Raises
    ------
    FormatError
        If it is no list of whole numbers, or one of them is negative.
    """
    return _indices(Path(path), load_pickle(path), "indices")


def write_indices(path: str | os.PathLike[str], indices: Array) -> None:
    """Write an ind.pkl: rows of the particle file, counted from 0, (N,) int64."""
    path = Path(path)
    write_pickle(path, _indices(path, indices, "indices"))


def _indices(path: Path, value: Any, field: str) -> NDArray[np.int64]:
    if isinstance(value, list) and all(type(item) is int and abs(item) < 1 << 63 for item in value):
        value = np.array(value, np.int64)
    if not is_array(value) or value.ndim != 1 or value.dtype.kind not in "iu":
        raise _not_a(path, field, "a one-dimensional array of whole numbers", value)
    _refuse_rows(path, np.asarray(value < 0), "a row number is negative", field, "Rows are counted from 0.")
    return value.astype(np.int64)


@dataclass(frozen=True, eq=False)
class KmeansResult:
    """Content of a kmeans_result.pkl: centers (K, zdim) and, for each particle, the number of its center, (N,)."""

    centers: NDArray[np.float64]
    labels: NDArray[np.int64]


def read_kmeans(path: str | os.PathLike[str]) -> KmeansResult:
    """Read a kmeans_result.pkl; a label without a center is an error."""
    value = load_pickle(path)
    if classify_pickle(value) != "kmeans":
        raise _not_a(path, "a k-means result", "a dictionary of centers and labels", value)
    path = Path(path)
    centers = _numbers(path, value["centers"], "centers", 2)
    labels = _indices(path, value["labels"], "labels")
    _refuse_rows(path, labels >= len(centers), f"there are only {len(centers)} centers", "labels", _WHOLE_RESULT)
    return KmeansResult(centers, labels)


def write_kmeans(path: str | os.PathLike[str], result: KmeansResult) -> None:
    """Write a kmeans_result.pkl as RECOVAR does: centers (K, zdim) float32, labels (N,) int64."""
    path = Path(path)
    labels = _indices(path, result.labels, "labels")
    _refuse_rows(path, labels >= len(result.centers), f"there are only {len(result.centers)} centers", "labels", "")
    write_pickle(path, {"centers": result.centers.astype(np.float32), "labels": labels})


@dataclass(frozen=True, eq=False)
class LatentDensity:
    """Content of a deconv_density_*.pkl.

    Attributes
    ----------
    density
        The density on a grid, one axis for each latent dimension.
    bounds
        (dim, 2): the ends of each axis in latent coordinates.
    alpha
        The regularisation that it was made with; None where it is unknown.
    """

    density: NDArray[np.float64]
    bounds: NDArray[np.float64]
    alpha: float | None


def read_density(path: str | os.PathLike[str]) -> LatentDensity:
    """Read a density in latent space; a grid and bounds of different dimension are an error."""
    value = load_pickle(path)
    if classify_pickle(value) != "density":
        raise _not_a(path, "a density", "a dictionary of density and latent_space_bounds", value)
    path = Path(path)
    density = _numbers(path, value["density"], "density", None)
    bounds = _numbers(path, value["latent_space_bounds"], "latent_space_bounds", 2)
    if bounds.shape != (density.ndim, 2):
        raise FormatError(
            f"a density of {density.ndim} dimensions has bounds of shape {bounds.shape}", path=path, hint=_WHOLE_RESULT
        )
    with np.errstate(over="ignore", invalid="ignore"):
        is_range = np.isfinite(bounds[:, 1] - bounds[:, 0])
    if not is_range.all():
        raise FormatError("the bounds of the density are no finite numbers", path=path, hint=_WHOLE_RESULT)
    alpha = value.get("alpha")
    return LatentDensity(density, bounds, None if alpha is None else float(_numbers(path, alpha, "alpha", 0)))


def write_density(path: str | os.PathLike[str], density: LatentDensity) -> None:
    """Write a density in latent space as RECOVAR does; without an alpha the key is left out."""
    content: dict[str, object] = {"density": density.density, "latent_space_bounds": density.bounds}
    if density.alpha is not None:
        content["alpha"] = density.alpha
    write_pickle(Path(path), content)


def read_halfsets(path: str | os.PathLike[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read a halfsets.pkl: the rows of each half, counted from 0; a row in both halves is an error."""
    value = load_pickle(path)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _not_a(path, "half-sets", "two arrays of row numbers", value)
    path = Path(path)
    first, second = (_indices(path, half, f"half {number}") for number, half in enumerate(value, 1))
    both = np.intersect1d(first, second)
    if both.size:
        raise FormatError(
            "rows are in both halves",
            path=path,
            rows=tuple(both[:SHOWN].tolist()),
            count=both.size,
            hint="Halves that share particles give too good a resolution; make them again.",
        )
    return first, second


def write_halfsets(path: str | os.PathLike[str], first: Array, second: Array) -> None:
    """Write a halfsets.pkl: the rows of each half, counted from 0."""
    path = Path(path)
    write_pickle(path, [_indices(path, half, f"half {number}") for number, half in enumerate((first, second), 1)])


_NOT_NUMBERS = "Leave these particles out, or make the file anew from metadata in which they are numbers."
_WHOLE_RESULT = "Check that the file is of this job and complete."


@_QUIETLY
def _numbers(path: Path, value: Any, field: str, ndim: int | None) -> NDArray[np.float64]:
    array = np.asarray(value) if is_array(value) or isinstance(value, int | float | np.generic) else None
    if array is None or array.dtype.kind not in "fiu" or ndim not in {None, array.ndim}:
        raise _not_a(path, field, f"an array of {'' if ndim is None else f'{ndim} dimensions of '}numbers", value)
    return array.astype(np.float64)


def _not_a(path: str | os.PathLike[str], what: str, shape: str, value: Any) -> FormatError:
    return FormatError(
        f"{what}: expected {shape}, found {in_words(value)}",
        path=path,
        hint="`cryobridge inspect` says what a file is.",
    )


def in_words(value: object) -> str:
    """Return what a pickle holds, with the shapes of its arrays."""
    if is_array(value):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, dict):
        return f"a dictionary of {', '.join(str(key)[:20] for key in list(value)[:SHOWN])}"
    if isinstance(value, list | tuple) and 0 < len(value) <= SHOWN and all(is_array(part) for part in value):
        shapes = " and ".join(str(part.shape) for part in value)
        return f"a {type(value).__name__} of arrays of shape {shapes}"
    return f"a {type(value).__name__}"


def _refuse_no_numbers(path: Path, values: Array, wrong: NDArray[np.bool_], what: str, field: str) -> None:
    """Say of rows that are wrong because they are no numbers that this is why."""
    is_number = np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if not (wrong & is_number).any():
        _refuse_rows(path, wrong, f"{what} is not a number, or infinite", field, _NOT_NUMBERS)


def _refuse_rows(path: Path, wrong: NDArray[np.bool_], fault: str, field: str | None, hint: str) -> None:
    rows = np.flatnonzero(wrong)
    if rows.size:
        shown = tuple(rows[:SHOWN].tolist())
        raise FormatError(fault, path=path, field=field, rows=shown, count=rows.size, hint=hint)


def write_pickle(path: Path, value: object) -> None:
    """Write arrays, numbers and containers of them so that programs on NumPy 1 and 2 read them.

    `pickle.dump` under NumPy 2 names ``numpy._core``, which releases before 1.26 don't have; both know the names
    that are written here, and keep them for old files.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b"\x80\x04")
        file.writelines(_instructions(value))
        file.write(b".")


def _instructions(value: object) -> Iterator[bytes | memoryview]:
    """Yield the instructions that build a value on the pickle machine's stack."""
    if isinstance(value, np.ndarray):
        yield from _array_instructions(value)
    elif isinstance(value, tuple | list | dict):
        parts = [part for item in value.items() for part in item] if isinstance(value, dict) else value
        yield b"("
        for part in parts:
            yield from _instructions(part)
        yield {tuple: b"t", list: b"l", dict: b"d"}[type(value)]
    else:
        yield _pieces(value)


def _array_instructions(array: Array) -> Iterator[bytes | memoryview]:
    content = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    dtype_state = (3, "<", None, None, None, -1, -1, 0)
    yield b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _pieces((0,), b"b") + b"\x87R("
    yield _pieces(1, array.shape) + b"cnumpy\ndtype\n" + _pieces(content.dtype.str[1:], False, True)
    yield b"\x87R" + _pieces(dtype_state) + b"b" + _pieces(False)
    yield b"\x8e" + content.nbytes.to_bytes(8, "little")
    yield content.data
    yield b"tb"


def _pieces(*values: object) -> bytes:
    """Return the instructions that build each value, without those that begin and end a file."""
    return b"".join(pickletools.optimize(pickle.dumps(value, protocol=3))[2:-1] for value in values)
