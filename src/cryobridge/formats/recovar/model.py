"""The model of a RECOVAR pipeline: latent coordinates, eigenvalues, half sets, and the rows that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.arrays import describe_arrays, read_npy
from cryobridge.formats.listing import (
    Listing,
    float_of,
    int_of,
    is_there,
    list_folder,
    list_of,
    read_json_of,
)
from cryobridge.formats.pickle_data import peek_pickle
from cryobridge.formats.pickles import read_halfsets
from cryobridge.formats.recovar.parts import first_there, read_bounded
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Params: TypeAlias = "tuple[NDArray[np.float64] | None, tuple[str, ...]]"

_ZDIM = re.compile(r"zdim_(?P<zdim>\d+)")
_OLD_EMBEDDINGS = "embeddings.pkl"
# As older versions named them in embeddings.pkl; their keys are dimensions, such as 4 or "4_noreg".
_OLD_NAMES = {"zs": "latent_coords", "cov_zs": "latent_precision"}
_OLD_KEY = re.compile(r"(?P<zdim>\d{1,9})(?P<noreg>_noreg)?")


@dataclass(frozen=True)
class LatentArray:
    """An array of a model, by its header.

    Parameters
    ----------
    path
        The .npy file; or model/embeddings.pkl, where older versions kept all of them.
    name
        What it holds, such as ``latent_coords`` or ``contrasts_noreg``.
    place
        Its keys in a pickle.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    place: tuple[Any, ...] = ()

    def read(self) -> NDArray[np.float64]:
        """Read the array, one element for each row of the particle file, NaN in those that the run left out.

        Raises
        ------
        FormatError
            If it is damaged.
        """
        values: Any
        if self.place:
            values, _ = peek_pickle(self.path)
            for key in self.place:
                values = values[key]
        else:
            values = read_npy(self.path)
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise FormatError(f"{self.name} are not numbers but {array.dtype}", path=self.path)
        with np.errstate(invalid="ignore", over="ignore"):
            return array.astype(np.float64, copy=False)


@dataclass(frozen=True)
class Embedding:
    """The latent coordinates of one dimension, and what comes with them."""

    zdim: int
    path: Path
    arrays: tuple[LatentArray, ...]

    @property
    def n_rows(self) -> int | None:
        """Number of latent coordinates, those of rows that were left out included; None without any."""
        found = self.array("latent_coords")
        return found.shape[0] if found is not None and found.shape else None

    def array(self, name: str) -> LatentArray | None:
        """Return the array of a name, or None."""
        return next((array for array in self.arrays if array.name == name), None)


@dataclass(frozen=True, eq=False)
class Model:
    """The pipeline's model.

    Parameters
    ----------
    voxel_size_A, volume_shape
        From metadata.json; None and empty without it.
    zdims
        Latent dimensions that metadata.json lists.
    params
        params.pkl, or None.
    eigenvalues
        Those of the covariance, descending, as far as the plain arrays in params.pkl give them; else None.
    refused_names
        Code that params.pkl asks for. None of it was run; what it would have made was passed over.
    halves
        Number of particles in each half set; None without half sets.
    rows
        (n,) rows of the particle file that the half sets hold, ascending; None without half sets.
    """

    voxel_size_A: float | None
    volume_shape: tuple[int, ...]
    zdims: tuple[int, ...]
    params: Path | None
    eigenvalues: NDArray[np.float64] | None
    refused_names: tuple[str, ...]
    halves: tuple[int, int] | None
    rows: NDArray[np.int64] | None


def is_zdim_folder(name: str) -> bool:
    """Whether a folder of this name in model/ holds latent coordinates."""
    return _ZDIM.fullmatch(name) is not None


def read_model(folder: Listing, problems: list[Message]) -> Model:
    """Read what model/ holds besides the latent coordinates; what is missing or damaged is added to the problems."""
    content = read_json_of(folder, "metadata.json", problems)
    voxel = content.get("voxel_size")
    shape = [side for item in list_of(content, "volume_shape") if (side := int_of(item)) is not None]
    params = folder.path / "params.pkl"
    peeked: _Params | None = None
    if is_there(params):
        peeked = read_bounded(params, _peek_params, problems)
    else:
        problems.append(warning("files-missing", "model/params.pkl is missing", where=folder.path))
    values, refused = peeked or (None, ())
    halves_path = first_there(folder.path, "particles_halfsets.pkl", "halfsets.pkl")
    halves = read_bounded(halves_path, read_halfsets, problems) if halves_path else None
    if voxel == 0:
        problems.append(warning("voxel-size-missing", "model/metadata.json: the voxel size is 0", where=folder.path))
    return Model(
        float_of(voxel),
        tuple(shape),
        tuple(zdim for item in list_of(content, "zdims_computed") if (zdim := int_of(item)) is not None),
        params if is_there(params) else None,
        values,
        refused,
        None if halves is None else (len(halves[0]), len(halves[1])),
        None if halves is None else np.sort(np.concatenate(halves)),
    )


def _peek_params(path: Path) -> _Params:
    """Take the eigenvalues (``s``) out of params.pkl without running what it names."""
    content, refused = peek_pickle(path)
    values = content.get("s") if isinstance(content, dict) else None
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "fiu":
        return values.astype(np.float64), refused
    return None, refused


def read_embeddings(folder: Listing, problems: list[Message]) -> tuple[Embedding, ...]:
    """List the latent coordinates in model/, by their headers, ascending by dimension."""
    found = []
    for name in folder.folders:
        match = _ZDIM.fullmatch(name)
        if match is None:
            continue
        inner = list_folder(folder.path / name)
        arrays = []
        for file_name in sorted(inner.files):
            if file_name.endswith(".npy") and (array := _read_array_header(inner.path / file_name, problems)):
                arrays.append(array)
        found.append(Embedding(int(match["zdim"]), inner.path, tuple(arrays)))
    if not found and _OLD_EMBEDDINGS in folder.files:
        found = read_bounded(folder.path / _OLD_EMBEDDINGS, _read_old_embeddings, problems) or []
    for embedding in found:
        where = f"model/{embedding.path.name}" + (f", zdim {embedding.zdim}" if embedding.path.suffix else "")
        problems += _embedding_problems(where, embedding)
    return tuple(sorted(found, key=lambda embedding: embedding.zdim))


def _read_array_header(path: Path, problems: list[Message]) -> LatentArray | None:
    try:
        info = describe_arrays(path)
    except CryobridgeError as error:
        problems.append(warning("file-not-read", str(error), where=path))
        return None
    if len(info) != 1:
        problems.append(warning("array-shape", f"{path} holds {len(info)} arrays, not one", where=path))
        return None
    return LatentArray(path, path.stem, info[0].shape, info[0].dtype)


def _read_old_embeddings(path: Path) -> list[Embedding]:
    """List the arrays of the one file that older versions wrote: a dictionary by content, then by dimension."""
    content, _ = peek_pickle(path)
    by_zdim: dict[int, list[LatentArray]] = {}
    for entry, arrays in content.items() if isinstance(content, dict) else ():
        for key, array in arrays.items() if isinstance(arrays, dict) else ():
            match = _OLD_KEY.fullmatch(str(key))
            if match is not None and isinstance(array, np.ndarray) and array.dtype.kind in "fiu" and array.ndim:
                name = _OLD_NAMES.get(str(entry), str(entry)) + (match["noreg"] or "")
                found = LatentArray(path, name, array.shape, str(array.dtype), (entry, key))
                by_zdim.setdefault(int(match["zdim"]), []).append(found)
    if not by_zdim:
        raise FormatError("no latent coordinates in it that are plain arrays", path=path)
    return [Embedding(zdim, path, tuple(arrays)) for zdim, arrays in by_zdim.items()]


def _embedding_problems(where: str, embedding: Embedding) -> Iterator[Message]:
    coords = embedding.array("latent_coords")
    if coords is None:
        yield warning("files-missing", f"{where}: latent_coords.npy is missing", where=embedding.path)
        return
    if coords.shape[1:] != (embedding.zdim,):
        text = f"{where}: latent_coords.npy is of shape {coords.shape}, not (N, {embedding.zdim})"
        yield warning("array-shape", text, where=embedding.path)
    others = [f"{array.name}.npy" for array in embedding.arrays if array.shape[:1] != coords.shape[:1]]
    if others:
        text = f"{where}: {', '.join(others)} and latent_coords.npy differ in length"
        yield warning("array-shape", text, where=embedding.path)
