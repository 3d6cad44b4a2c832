"""RECOVAR result folders: the pipeline's model and maps, with the analyses and densities that lie in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.arrays import describe_arrays
from cryobridge.formats.listing import (
    Listing,
    int_of,
    is_there,
    list_folder,
    list_if_there,
    list_of,
    read_json,
)
from cryobridge.formats.pickle_data import peek_pickle
from cryobridge.formats.recovar.analysis import (
    Analysis,
    Density,
    looks_like_analysis,
    looks_like_density,
    read_analysis,
    read_density_folder,
)
from cryobridge.formats.recovar.parts import (
    JobFacts,
    Volume,
    numbered_volumes,
    pipeline_volumes,
    read_bounded,
    read_facts,
    volume_problems,
)

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

Kind: TypeAlias = Literal["pipeline", "analysis", "density", "other"]
_Params: TypeAlias = "tuple[NDArray[np.float64] | None, tuple[str, ...]]"

_ZDIM = re.compile(r"zdim_(?P<zdim>\d+)(?:_noreg)?")
_PARENT_LEVELS = 2


@dataclass(frozen=True)
class LatentArray:
    """An array of a model, by its header."""

    path: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """What it holds, such as ``latent_coords`` or ``contrasts_noreg``."""
        return self.path.stem


@dataclass(frozen=True)
class Embedding:
    """The latent coordinates of one dimension, and what comes with them."""

    zdim: int
    path: Path
    arrays: tuple[LatentArray, ...]

    @property
    def n_rows(self) -> int | None:
        """Number of particles, or None without latent coordinates."""
        return next((array.shape[0] for array in self.arrays if array.name == "latent_coords" and array.shape), None)


@dataclass(frozen=True)
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
    """

    voxel_size_A: float | None
    volume_shape: tuple[int, ...]
    zdims: tuple[int, ...]
    params: Path | None
    eigenvalues: NDArray[np.float64] | None
    refused_names: tuple[str, ...]


@dataclass(frozen=True)
class RecovarJob:
    """What a folder of RECOVAR holds.

    Parameters
    ----------
    kind
        ``pipeline``; or ``analysis`` or ``density``, which then is the only one listed; or ``other`` for the
        folders of other commands.
    problems
        Missing pieces and disagreements, in sentences; those of analyses and densities are theirs.
    """

    path: Path
    kind: Kind
    facts: JobFacts | None
    model: Model | None
    embeddings: tuple[Embedding, ...]
    volumes: tuple[Volume, ...]
    analyses: tuple[Analysis, ...]
    densities: tuple[Density, ...]
    problems: tuple[str, ...]


def looks_like_recovar(listing: Listing) -> bool:
    """Whether a folder's files are RECOVAR's, whatever its job.json says."""
    return looks_like_pipeline(listing) or looks_like_density(listing) or looks_like_analysis(listing)


def looks_like_pipeline(listing: Listing) -> bool:
    """Whether a folder holds a pipeline's model."""
    if "model" not in listing.folders:
        return False
    model = list_if_there(listing.path / "model")
    return bool({"params.pkl", "metadata.json"} & model.files) or any(_ZDIM.fullmatch(name) for name in model.folders)


def read_recovar_job(folder: str | os.PathLike[str]) -> RecovarJob:
    """Describe a folder: a pipeline's result, or an analysis or density of one.

    Of arrays the headers are read, of pickles plain numbers only; nothing in them is run.

    Raises
    ------
    FormatError
        If it can't be listed, or is not RECOVAR's.
    """
    listing = list_folder(Path(folder))
    problems: list[str] = []
    facts = read_facts(listing, problems)
    kind = _kind_of(listing, facts)
    if kind is None:
        raise FormatError(
            "not a result of RECOVAR: no job.json of RECOVAR's, no model/params.pkl, no k-means result or density",
            path=listing.path,
            hint="Give the folder that `recovar pipeline` or `recovar analyze` wrote to.",
        )
    if kind == "pipeline":
        return _read_pipeline(listing, facts, problems)
    analyses: tuple[Analysis, ...] = ()
    densities: tuple[Density, ...] = ()
    volumes: tuple[Volume, ...] = ()
    if kind == "analysis":
        analyses = (read_analysis(listing, _rows_of_parent(listing.path)),)
    elif kind == "density":
        densities = (read_density_folder(listing),)
    else:
        volumes = numbered_volumes(listing)
        problems += volume_problems(volumes)
    return RecovarJob(listing.path, kind, facts, None, (), volumes, analyses, densities, tuple(problems))


def _kind_of(listing: Listing, facts: JobFacts | None) -> Kind | None:
    if looks_like_pipeline(listing):
        return "pipeline"
    if looks_like_analysis(listing):
        return "analysis"
    if looks_like_density(listing):
        return "density"
    if facts is not None and facts.version:
        return "pipeline" if facts.command == "pipeline" else "other"
    return None


def _read_pipeline(listing: Listing, facts: JobFacts | None, problems: list[str]) -> RecovarJob:
    root = listing.path
    model_folder = list_if_there(root / "model")
    model = _read_model(model_folder, problems)
    embeddings = _read_embeddings(model_folder, problems)
    absent = sorted(set(model.zdims) - {embedding.zdim for embedding in embeddings})
    if absent:
        problems.append(f"model/metadata.json lists zdim {', '.join(map(str, absent))}, which model/ does not have.")
    if not embeddings and "embeddings.pkl" in model_folder.files:
        problems.append("The latent coordinates are in model/embeddings.pkl, as older versions wrote them.")
    volumes = pipeline_volumes(list_if_there(root / "output" / "volumes"))
    problems += _missing_pieces(volumes)
    problems += volume_problems(volumes, model.volume_shape)
    if model.voxel_size_A == 0:
        problems.append("model/metadata.json: the voxel size is 0.")
    rows = {embedding.zdim: embedding.n_rows for embedding in embeddings if embedding.n_rows is not None}
    inner = [
        list_folder(folder.path / name)
        for folder in (listing, list_if_there(root / "output"))
        for name in sorted(folder.folders)
        if name not in {"model", "output", "volumes", "plots"}
    ]
    return RecovarJob(
        root,
        "pipeline",
        facts,
        model,
        embeddings,
        volumes,
        tuple(read_analysis(folder, rows) for folder in inner if looks_like_analysis(folder)),
        tuple(read_density_folder(folder) for folder in inner if looks_like_density(folder)),
        tuple(problems),
    )


def _read_model(folder: Listing, problems: list[str]) -> Model:
    content: dict[str, Any] = {}
    if "metadata.json" in folder.files:
        try:
            content = read_json(folder.path / "metadata.json")
        except FormatError as error:
            problems.append(f"{error}.")
    voxel = content.get("voxel_size")
    shape = [side for item in list_of(content, "volume_shape") if (side := int_of(item)) is not None]
    params = folder.path / "params.pkl"
    peeked: _Params | None = None
    if is_there(params):
        peeked = read_bounded(params, _peek_params, problems)
    else:
        problems.append("model/params.pkl is missing.")
    values, refused = peeked or (None, ())
    return Model(
        float(voxel) if isinstance(voxel, int | float) else None,
        tuple(shape),
        tuple(zdim for item in list_of(content, "zdims_computed") if (zdim := int_of(item)) is not None),
        params if is_there(params) else None,
        values,
        refused,
    )


def _peek_params(path: Path) -> _Params:
    """Take the eigenvalues (``s``) out of params.pkl without running what it names."""
    content, refused = peek_pickle(path)
    values = content.get("s") if isinstance(content, dict) else None
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "fiu":
        return values.astype(np.float64), refused
    return None, refused


def _read_embeddings(folder: Listing, problems: list[str]) -> tuple[Embedding, ...]:
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
        embedding = Embedding(int(match["zdim"]), inner.path, tuple(arrays))
        problems += [f"model/{name}: {problem}" for problem in _embedding_problems(embedding)]
        found.append(embedding)
    return tuple(sorted(found, key=lambda embedding: (embedding.zdim, embedding.path.name)))


def _read_array_header(path: Path, problems: list[str]) -> LatentArray | None:
    try:
        info = describe_arrays(path)
    except CryobridgeError as error:
        problems.append(f"{error}.")
        return None
    if len(info) != 1:
        problems.append(f"{path} holds {len(info)} arrays, not one.")
        return None
    return LatentArray(path, info[0].shape, info[0].dtype)


def _embedding_problems(embedding: Embedding) -> list[str]:
    problems = []
    coords = next((array for array in embedding.arrays if array.name == "latent_coords"), None)
    if coords is None:
        return ["latent_coords.npy is missing."]
    if coords.shape[1:] != (embedding.zdim,):
        problems.append(f"latent_coords.npy is of shape {coords.shape}, not (N, {embedding.zdim}).")
    others = [array.path.name for array in embedding.arrays if array.shape[:1] != coords.shape[:1]]
    if others:
        problems.append(f"{', '.join(others)} and latent_coords.npy differ in length.")
    return problems


def _missing_pieces(volumes: tuple[Volume, ...]) -> list[str]:
    kinds = {volume.kind for volume in volumes}
    halves = {volume.half for volume in volumes if volume.kind == "half map"}
    problems = [f"output/volumes: no {kind} map." for kind in ("mean", "mask") if kind not in kinds]
    if halves != {1, 2}:
        problems.append("output/volumes: no pair of half maps of the mean.")
    return problems


def _rows_of_parent(folder: Path) -> dict[int, int]:
    """Count the latent coordinates of the pipeline that an analysis lies in, if it lies in one."""
    for parent in list(folder.absolute().parents)[:_PARENT_LEVELS]:
        if (parent / "model").is_dir():
            try:
                embeddings = _read_embeddings(list_folder(parent / "model"), [])
            except CryobridgeError:
                return {}
            return {embedding.zdim: embedding.n_rows for embedding in embeddings if embedding.n_rows is not None}
    return {}
