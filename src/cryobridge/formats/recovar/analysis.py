"""RECOVAR's analyses: k-means centers, trajectories, UMAP, in the present and the older layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.formats.input_file import read_error, read_input
from cryobridge.formats.listing import (
    Listing,
    gaps,
    int_of,
    is_there,
    list_folder,
    list_if_there,
    say_numbers,
    say_ranges,
)
from cryobridge.formats.pickle_data import load_pickle
from cryobridge.formats.recovar.clusters import read_clusters
from cryobridge.formats.recovar.parts import (
    JobFacts,
    ModelFacts,
    Volume,
    absent_outputs,
    filtered_maps,
    first_there,
    numbered_volumes,
    read_bounded,
    read_facts,
    volume_problems,
)
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.pickles import KmeansResult

_FOLDER_NAME = re.compile(r"analysis_(?P<zdim>\d+)(?P<noreg>_noreg)?")
_TRAJECTORY = re.compile(r"(?:traj|path)(?P<index>\d{1,9})")
_TABLE_MAX_BYTES = 64 << 20
# Where the maps of k-means centers are, the present place first.
_CENTER_FOLDERS = ("kmeans", "kmeans_center_volumes/all_volumes", "kmeans_center_volumes")


@dataclass(frozen=True)
class Trajectory:
    """A path through latent space with the maps along it.

    Parameters
    ----------
    volumes
        All maps of the states, half maps and unfiltered ones among them; `maps` leaves those out.
    ends
        The clusters whose centers it leads from and to; None where that is not known.
    coordinates
        latent_coords.txt, or None.
    """

    path: Path
    index: int
    volumes: tuple[Volume, ...]
    ends: tuple[int, int] | None = None
    coordinates: Path | None = None

    def states(self) -> NDArray[np.float64]:
        """Read the latent coordinates of the states, (number of states, zdim).

        Raises
        ------
        MissingDataError
            If there is no latent_coords.txt.
        FormatError
            If it is no table of numbers.
        """
        if self.coordinates is None:
            raise MissingDataError("there is no latent_coords.txt", path=self.path, hint="Copy the folder again.")
        return _read_table(self.coordinates)

    @property
    def maps(self) -> tuple[Volume, ...]:
        """The maps of the states, by number: neither half maps nor maps as they were reconstructed."""
        return filtered_maps(self.volumes)

    @property
    def n_states(self) -> int:
        """Number of states that there is a map of."""
        return len(self.maps)


@dataclass(frozen=True)
class Analysis:
    """One run of ``analyze``.

    Parameters
    ----------
    layout
        ``documented``, or ``older`` where the k-means result lies at the top.
    zdim
        Latent dimension, from the folder's name, the job's options, or the centers.
    is_noreg
        Whether it is of the coordinates without regularisation (``--no-z-regularization``).
    kmeans
        kmeans_result.pkl, or None.
    n_centers, n_labels
        What it holds. There is a label for each row of the particle file up to the last one that the run used.
    populations
        Number of the run's particles in each cluster; empty where it is not known.
    center_volumes
        All maps of the centers, half maps and unfiltered ones among them; `centers` leaves those out.
    endpoints
        trajectory_endpoints.pkl, or None.
    umap
        umap_embedding.pkl, or None.
    absent
        Files that its job.json lists and that are not there.
    """

    path: Path
    facts: JobFacts | None
    layout: Literal["documented", "older"]
    zdim: int | None
    is_noreg: bool
    kmeans: Path | None
    n_centers: int | None
    n_labels: int | None
    populations: tuple[int, ...]
    centers_txt: Path | None
    center_volumes: tuple[Volume, ...]
    trajectories: tuple[Trajectory, ...]
    endpoints: Path | None
    umap: Path | None
    absent: tuple[str, ...]
    problems: tuple[Message, ...]

    @property
    def centers(self) -> tuple[Volume, ...]:
        """The maps of the centers, (K,) by number: neither half maps nor maps as they were reconstructed."""
        return filtered_maps(self.center_volumes)


def looks_like_analysis(listing: Listing) -> bool:
    """Whether a folder holds the results of ``analyze``."""
    if "kmeans_result.pkl" in listing.files or "kmeans_center_volumes" in listing.folders:
        return True
    if is_there(listing.path / "data" / "kmeans_result.pkl"):
        return True
    return "kmeans" in listing.folders and bool(numbered_volumes(list_if_there(listing.path / "kmeans")))


def read_analysis(listing: Listing, model: ModelFacts) -> Analysis:
    """Describe a folder of results of ``analyze``.

    Parameters
    ----------
    listing
        The folder.
    model
        What is known of the pipeline that it was made from.
    """
    problems: list[Message] = []
    facts = read_facts(listing, problems)
    kmeans_path = first_there(listing.path, "data/kmeans_result.pkl", "kmeans_result.pkl")
    kmeans = read_bounded(kmeans_path, read_clusters, problems) if kmeans_path else None
    zdim = _zdim_of(listing.path, facts, kmeans)
    populations = _populations(kmeans, model, zdim, problems)
    centers = _center_volumes(listing.path)
    problems += _center_problems(listing.path, centers, None if kmeans is None else len(kmeans.centers))
    endpoints = first_there(listing.path, "data/trajectory_endpoints.pkl", "trajectory_endpoints.pkl")
    pairs = read_bounded(endpoints, read_pairs, problems) if endpoints else None
    trajectories = tuple(_trajectories(listing, pairs or ()))
    for trajectory in trajectories:
        texts = (f"{trajectory.path.name}: {text}" for text in _trajectory_problems(trajectory))
        problems += [warning("files-missing", text, where=trajectory.path) for text in texts]
    problems += volume_problems([*centers, *(volume for path in trajectories for volume in path.volumes)], model)
    is_older = "kmeans_result.pkl" in listing.files or any(volume.path.name.startswith("vol") for volume in centers)
    return Analysis(
        listing.path,
        facts,
        "older" if is_older else "documented",
        zdim,
        _is_noreg(listing.path, facts),
        kmeans_path,
        None if kmeans is None else len(kmeans.centers),
        None if kmeans is None else len(kmeans.labels),
        populations,
        first_there(listing.path, "kmeans/centers.txt", "kmeans_center_coords.txt", "centers.txt"),
        centers,
        trajectories,
        endpoints,
        first_there(listing.path, "plots/umap/umap_embedding.pkl", "umap/umap_embedding.pkl"),
        absent_outputs(listing.path, facts),
        tuple(problems),
    )


def read_pairs(path: Path) -> tuple[tuple[int, int], ...]:
    """Read which clusters the trajectories of a trajectory_endpoints.pkl lead from and to, by trajectory.

    Raises
    ------
    UnsafeFileError, FormatError
        If it is damaged, or holds no pairs of cluster numbers.
    """
    value = load_pickle(path)
    pairs = value.get("pairs") if isinstance(value, dict) else None
    if isinstance(pairs, list | tuple | np.ndarray):
        try:
            table = np.asarray(pairs).reshape(len(pairs), 2)
        except ValueError:
            table = np.empty((1, 2))
        if table.dtype.kind in "iu" or table.size == 0:
            return tuple((int(first), int(last)) for first, last in table)
    raise FormatError("no end points of trajectories: pairs of clusters are expected", path=path)


def _read_table(path: Path) -> NDArray[np.float64]:
    try:
        if path.stat().st_size > _TABLE_MAX_BYTES:
            raise FormatError(f"larger than {_TABLE_MAX_BYTES >> 20} MiB, which no such table is", path=path)
        rows = [line.split() for line in read_input(path).decode("utf-8").splitlines() if line.strip()]
        return np.array(rows, np.float64).reshape(len(rows), -1 if rows else 0)
    except CryobridgeError:
        raise
    except OSError as error:
        raise read_error(path, error) from error
    except ValueError as error:
        raise FormatError("no table of numbers", path=path, hint="Copy it again from where it was made.") from error


def _zdim_of(folder: Path, facts: JobFacts | None, kmeans: KmeansResult | None) -> int | None:
    if match := _FOLDER_NAME.fullmatch(folder.absolute().name):
        return int(match["zdim"])
    if facts is not None and (zdim := int_of(facts.parameters.get("zdim"))) is not None:
        return zdim
    return None if kmeans is None else kmeans.centers.shape[1]


def _is_noreg(folder: Path, facts: JobFacts | None) -> bool:
    match = _FOLDER_NAME.fullmatch(folder.absolute().name)
    is_chosen = facts is not None and facts.parameters.get("no_z_regularization") is True
    return is_chosen or (match is not None and match["noreg"] is not None)


def _populations(
    kmeans: KmeansResult | None, model: ModelFacts, zdim: int | None, problems: list[Message]
) -> tuple[int, ...]:
    """Count the particles of each cluster; labels that don't fit the latent coordinates are reported, not counted."""
    if kmeans is None:
        return ()
    n_coordinates = model.n_coordinates.get(zdim) if zdim is not None else None
    if n_coordinates is not None and len(kmeans.labels) != n_coordinates:
        text = f"k-means has {counted(len(kmeans.labels), 'label')}, but there are {n_coordinates:,} latent coordinates"
        problems.append(warning("labels-differ", text))
        return ()
    labels = kmeans.labels
    if model.rows is not None:
        if model.rows.size and int(model.rows[-1]) >= len(labels):
            text = (
                f"k-means has {counted(len(labels), 'label')}, but the run has a particle of "
                f"row {int(model.rows[-1]):,}"
            )
            problems.append(warning("labels-differ", f"{text} (counted from 0)"))
            return ()
        labels = labels[model.rows]
        if n_without := int((labels < 0).sum()):
            text = f"k-means has no label for {n_without:,} of the run's {counted(len(labels), 'particle')}"
            problems.append(warning("labels-missing", text))
    return tuple(np.bincount(labels[labels >= 0], minlength=len(kmeans.centers)).tolist())


def _center_volumes(folder: Path) -> tuple[Volume, ...]:
    for name in _CENTER_FOLDERS:
        if found := numbered_volumes(list_if_there(folder / name), "center"):
            return found
    return ()


def _center_problems(folder: Path, centers: tuple[Volume, ...], n_centers: int | None) -> list[Message]:
    """Say which centers lack maps or half maps; an analysis made without maps lacks none."""
    texts = _numbering_problems(centers)
    n_maps = len({volume.index for volume in filtered_maps(centers)})
    if centers and n_centers is not None and n_maps != n_centers:
        texts.append(f"k-means has {n_centers} centers, but there are maps of {n_maps}")
    lacking = [index for index, stem in _without_halves(centers) if not _has_own_folder_of_halves(folder, stem)]
    if lacking:
        texts.append(f"Center {say_numbers(lacking, 3)}: no pair of half maps")
    return [warning("files-missing", text, where=folder) for text in texts]


def _without_halves(volumes: tuple[Volume, ...]) -> list[tuple[int, str]]:
    """Return number and name of the maps that lack one of their half maps, or both."""
    halves = {(volume.index, volume.half) for volume in volumes}
    return [
        (volume.index, volume.path.stem)
        for volume in filtered_maps(volumes)
        if volume.index is not None and not {(volume.index, 1), (volume.index, 2)} <= halves
    ]


def _has_own_folder_of_halves(folder: Path, stem: str) -> bool:
    """Whether half maps lie in a folder of each center, as older versions wrote them."""
    return any(
        is_there(folder / parent / stem / "half1_unfil.mrc") and is_there(folder / parent / stem / "half2_unfil.mrc")
        for parent in ("kmeans", "kmeans_center_volumes")
    )


def _numbering_problems(volumes: tuple[Volume, ...]) -> list[str]:
    numbers = {volume.index for volume in volumes if volume.index is not None}
    # Some versions count from 1, so that the absence of number 0 says nothing.
    missing = gaps(numbers, first=1)
    return [f"Missing maps: {say_ranges(missing, 3)}"] if missing else []


def _trajectory_problems(trajectory: Trajectory) -> list[str]:
    texts = _numbering_problems(trajectory.volumes)
    if not trajectory.volumes:
        texts.append("no maps of its states")
    # Older versions kept the half maps of states elsewhere.
    is_present = all(volume.path.parent == trajectory.path for volume in trajectory.volumes)
    lacking = [index for index, _ in _without_halves(trajectory.volumes)] if is_present else []
    if lacking:
        texts.append(f"State {say_numbers(lacking, 3)}: no pair of half maps")
    return texts


def _trajectories(listing: Listing, pairs: tuple[tuple[int, int], ...]) -> list[Trajectory]:
    found = []
    for name in listing.folders:
        if match := _TRAJECTORY.fullmatch(name):
            inner, index = list_folder(listing.path / name), int(match["index"])
            volumes = numbered_volumes(inner, "trajectory state") or numbered_volumes(
                list_if_there(inner.path / "all_volumes"), "trajectory state"
            )
            ends = pairs[index] if index < len(pairs) else None
            found.append(Trajectory(inner.path, index, volumes, ends, first_there(inner.path, "latent_coords.txt")))
    return sorted(found, key=lambda trajectory: trajectory.index)
