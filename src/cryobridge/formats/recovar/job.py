"""RECOVAR result folders: the pipeline's model and maps, with the analyses and densities that lie in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from cryobridge.errors import CryobridgeError, FormatError, option
from cryobridge.formats.listing import Listing, list_folder, list_if_there
from cryobridge.formats.recovar.analysis import Analysis, looks_like_analysis, read_analysis
from cryobridge.formats.recovar.density import Density, looks_like_density, read_density_folder
from cryobridge.formats.recovar.model import (
    Embedding,
    Model,
    is_zdim_folder,
    read_embeddings,
    read_model,
)
from cryobridge.formats.recovar.parts import (
    JobFacts,
    ModelFacts,
    Volume,
    absent_outputs,
    numbered_volumes,
    pipeline_volumes,
    read_facts,
    volume_problems,
)
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    import os

Kind: TypeAlias = Literal["pipeline", "analysis", "density", "other"]

_PARENT_LEVELS = 2


@dataclass(frozen=True)
class RecovarJob:
    """What a folder of RECOVAR holds.

    Parameters
    ----------
    kind
        ``pipeline``; or ``analysis`` or ``density``, which then is the only one listed; or ``other`` for the
        folders of other commands.
    absent
        Files that its job.json lists and that are not there; those of analyses and densities are theirs.
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
    absent: tuple[str, ...]
    problems: tuple[Message, ...]


def looks_like_recovar(listing: Listing) -> bool:
    """Whether a folder's files are RECOVAR's, whatever its job.json says."""
    return looks_like_pipeline(listing) or looks_like_density(listing) or looks_like_analysis(listing)


def looks_like_pipeline(listing: Listing) -> bool:
    """Whether a folder holds a pipeline's model."""
    if "model" not in listing.folders:
        return False
    model = list_if_there(listing.path / "model")
    return bool({"params.pkl", "metadata.json"} & model.files) or any(map(is_zdim_folder, model.folders))


def read_recovar_job(folder: str | os.PathLike[str]) -> RecovarJob:
    """Describe a folder: a pipeline's result, or an analysis or density of one.

    Of arrays the headers are read, of pickles plain numbers only; nothing in them is run.

    Raises
    ------
    FormatError
        If it can't be listed, or is not RECOVAR's.
    """
    listing = list_folder(Path(folder))
    problems: list[Message] = []
    facts = read_facts(listing, problems)
    kind = _kind_of(listing, facts)
    if kind is None:
        raise FormatError(
            "not a result of RECOVAR: no job.json of RECOVAR's, no model/params.pkl, no k-means result or density",
            path=listing.path,
            hint="Give the folder that `recovar pipeline` or `recovar analyze` wrote to; "
            f"labels.pkl of cryoDRGN is given with {option('kmeans')}.",
        )
    if kind == "pipeline":
        return _read_pipeline(listing, facts, problems)
    analyses: tuple[Analysis, ...] = ()
    densities: tuple[Density, ...] = ()
    volumes: tuple[Volume, ...] = ()
    absent: tuple[str, ...] = ()
    if kind == "analysis":
        analyses = (read_analysis(listing, _facts_of_pipeline(_pipeline_folder(listing.path, facts))),)
    elif kind == "density":
        densities = (read_density_folder(listing),)
    else:
        volumes, absent = numbered_volumes(listing), absent_outputs(listing.path, facts)
        problems += volume_problems(volumes, ModelFacts())
    return RecovarJob(listing.path, kind, facts, None, (), volumes, analyses, densities, absent, tuple(problems))


def pipeline_of(job: RecovarJob) -> RecovarJob | None:
    """Read the pipeline's result that an analysis or density was made from.

    It is in one of the two folders above, or where the job.json says; None where it is in neither.
    """
    folder = _pipeline_folder(job.path, job.facts)
    return None if folder is None else read_recovar_job(folder)


def _pipeline_folder(folder: Path, facts: JobFacts | None) -> Path | None:
    above = list(folder.absolute().parents)[:_PARENT_LEVELS]
    named = [Path(facts.pipeline_folder)] if facts is not None and facts.pipeline_folder else []
    for candidate in (*above, *named):
        try:
            if looks_like_pipeline(list_if_there(candidate)):
                return candidate
        except (CryobridgeError, OSError, ValueError):  # may not be read, or is a name that no folder can have
            continue
    return None


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


def _read_pipeline(listing: Listing, facts: JobFacts | None, problems: list[Message]) -> RecovarJob:
    root = listing.path
    model_folder = list_if_there(root / "model")
    model = read_model(model_folder, problems)
    embeddings = read_embeddings(model_folder, problems)
    absent = sorted(set(model.zdims) - {embedding.zdim for embedding in embeddings})
    if absent:
        text = f"model/metadata.json lists zdim {', '.join(map(str, absent))}, which model/ does not have"
        problems.append(warning("files-missing", text, where=root))
    known = _facts_of(model, embeddings)
    volumes = pipeline_volumes(list_if_there(root / "output" / "volumes"))
    problems += _missing_pieces(volumes)
    problems += volume_problems(volumes, known)
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
        tuple(read_analysis(folder, known) for folder in inner if looks_like_analysis(folder)),
        tuple(read_density_folder(folder) for folder in inner if looks_like_density(folder)),
        absent_outputs(root, facts),
        tuple(problems),
    )


def _facts_of(model: Model, embeddings: tuple[Embedding, ...]) -> ModelFacts:
    counts = {embedding.zdim: embedding.n_rows for embedding in embeddings if embedding.n_rows is not None}
    return ModelFacts(model.volume_shape, model.voxel_size_A, counts, model.rows)


def _missing_pieces(volumes: tuple[Volume, ...]) -> list[Message]:
    kinds = {volume.kind for volume in volumes}
    halves = {volume.half for volume in volumes if volume.kind == "half map"}
    missing = [f"{kind} map" for kind in ("mean", "mask") if kind not in kinds]
    if halves != {1, 2}:
        missing.append("pair of half maps of the mean")
    return [warning("files-missing", f"output/volumes: no {what}") for what in missing]


def _facts_of_pipeline(folder: Path | None) -> ModelFacts:
    if folder is None:
        return ModelFacts()
    try:
        model_folder = list_folder(folder / "model")
        return _facts_of(read_model(model_folder, []), read_embeddings(model_folder, []))
    except CryobridgeError:  # reported where the pipeline itself is described
        return ModelFacts()
