"""RECOVAR's analyses (k-means centers, trajectories, UMAP) and densities, in the present and the older layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
from cryobridge.formats.pickles import KmeansResult, LatentDensity, read_density, read_kmeans
from cryobridge.formats.recovar.parts import (
    JobFacts,
    Volume,
    numbered_volumes,
    read_bounded,
    read_facts,
    volume_problems,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER_NAME = re.compile(r"analysis_(?P<zdim>\d+)(?P<noreg>_noreg)?")
_TRAJECTORY = re.compile(r"(?:traj|path)(?P<index>\d{1,9})")
_DENSITY = re.compile(r"deconv_density_(?P<index>\d{1,9})\.pkl")
_KNEE = "deconv_density_knee.pkl"
# Where the maps of k-means centers are, the present place first.
_CENTER_FOLDERS = ("kmeans", "kmeans_center_volumes/all_volumes", "kmeans_center_volumes")


@dataclass(frozen=True)
class Trajectory:
    """A path through latent space with the maps along it."""

    path: Path
    index: int
    volumes: tuple[Volume, ...]


@dataclass(frozen=True)
class Analysis:
    """One run of ``analyze``.

    Parameters
    ----------
    layout
        ``documented``, or ``older`` where the k-means result lies at the top.
    zdim
        Latent dimension, from the folder's name, the job's options, or the centers.
    kmeans
        kmeans_result.pkl, or None.
    n_centers, n_labels
        What it holds.
    centers
        Maps of the centers, half maps and unfiltered ones among them.
    endpoints
        trajectory_endpoints.pkl, or None.
    umap
        umap_embedding.pkl, or None.
    """

    path: Path
    facts: JobFacts | None
    layout: Literal["documented", "older"]
    zdim: int | None
    kmeans: Path | None
    n_centers: int | None
    n_labels: int | None
    centers_txt: Path | None
    centers: tuple[Volume, ...]
    trajectories: tuple[Trajectory, ...]
    endpoints: Path | None
    umap: Path | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class DensityFile:
    """A density in latent space.

    Parameters
    ----------
    index
        Its number among those of all regularisations; None for the one at the knee.
    alpha
        The regularisation; None where it could not be read.
    shape
        The grid's.
    """

    path: Path
    index: int | None
    alpha: float | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Density:
    """One run of ``estimate_conformational_density``."""

    path: Path
    facts: JobFacts | None
    layout: Literal["documented", "older"]
    knee: DensityFile | None
    all_densities: tuple[DensityFile, ...]
    problems: tuple[str, ...]


def looks_like_analysis(listing: Listing) -> bool:
    """Whether a folder holds the results of ``analyze``."""
    if "kmeans_result.pkl" in listing.files or "kmeans_center_volumes" in listing.folders:
        return True
    if is_there(listing.path / "data" / "kmeans_result.pkl"):
        return True
    return "kmeans" in listing.folders and bool(numbered_volumes(list_if_there(listing.path / "kmeans")))


def looks_like_density(listing: Listing) -> bool:
    """Whether a folder holds the results of ``estimate_conformational_density``."""
    return _KNEE in listing.files or is_there(listing.path / "data" / _KNEE)


def read_analysis(listing: Listing, rows_of_zdim: Mapping[int, int]) -> Analysis:
    """Describe a folder of results of ``analyze``.

    Parameters
    ----------
    listing
        The folder.
    rows_of_zdim
        How many latent coordinates the pipeline has of each dimension, as far as that is known.
    """
    problems: list[str] = []
    facts = read_facts(listing, problems)
    kmeans_path = _first_file(listing.path, "data/kmeans_result.pkl", "kmeans_result.pkl")
    kmeans = read_bounded(kmeans_path, read_kmeans, problems) if kmeans_path else None
    zdim = _zdim_of(listing.path, facts, kmeans)
    n_rows = rows_of_zdim.get(zdim) if zdim is not None else None
    if kmeans is not None and n_rows is not None and len(kmeans.labels) != n_rows:
        problems.append(f"k-means has {len(kmeans.labels):,} labels, but there are {n_rows:,} latent coordinates.")
    centers = _center_volumes(listing.path)
    problems += _center_problems(listing.path, centers, None if kmeans is None else len(kmeans.centers))
    trajectories = tuple(_trajectories(listing))
    for trajectory in trajectories:
        problems += [f"{trajectory.path.name}: {problem}" for problem in _numbering_problems(trajectory.volumes)]
    problems += volume_problems([*centers, *(volume for path in trajectories for volume in path.volumes)])
    is_older = "kmeans_result.pkl" in listing.files or any(volume.path.name.startswith("vol") for volume in centers)
    return Analysis(
        listing.path,
        facts,
        "older" if is_older else "documented",
        zdim,
        kmeans_path,
        None if kmeans is None else len(kmeans.centers),
        None if kmeans is None else len(kmeans.labels),
        _first_file(listing.path, "kmeans/centers.txt", "kmeans_center_coords.txt", "centers.txt"),
        centers,
        trajectories,
        _first_file(listing.path, "data/trajectory_endpoints.pkl", "trajectory_endpoints.pkl"),
        _first_file(listing.path, "plots/umap/umap_embedding.pkl", "umap/umap_embedding.pkl"),
        tuple(problems),
    )


def read_density_folder(listing: Listing) -> Density:
    """Describe a folder of densities in latent space."""
    problems: list[str] = []
    facts = read_facts(listing, problems)
    knee = _first_file(listing.path, f"data/{_KNEE}", _KNEE)
    folder = listing.path / (
        "data/all_densities" if (listing.path / "data/all_densities").is_dir() else "all_densities"
    )
    numbered = {
        int(match["index"]): folder / name
        for name in list_if_there(folder).files
        if (match := _DENSITY.fullmatch(name))
    }
    if missing := gaps(numbered):
        problems.append(f"Missing densities: {say_ranges(missing)}.")
    return Density(
        listing.path,
        facts,
        "older" if _KNEE in listing.files else "documented",
        _density_file(knee, None, problems) if knee else None,
        tuple(_density_file(numbered[index], index, problems) for index in sorted(numbered)),
        tuple(problems),
    )


def _density_file(path: Path, index: int | None, problems: list[str]) -> DensityFile:
    content: LatentDensity | None = read_bounded(path, read_density, problems)
    if content is None:
        return DensityFile(path, index, None, ())
    return DensityFile(path, index, content.alpha, content.density.shape)


def _first_file(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if is_there(folder / name)), None)


def _zdim_of(folder: Path, facts: JobFacts | None, kmeans: KmeansResult | None) -> int | None:
    if match := _FOLDER_NAME.fullmatch(folder.absolute().name):
        return int(match["zdim"])
    if facts is not None and (zdim := int_of(facts.parameters.get("zdim"))) is not None:
        return zdim
    return None if kmeans is None else kmeans.centers.shape[1]


def _center_volumes(folder: Path) -> tuple[Volume, ...]:
    for name in _CENTER_FOLDERS:
        if found := numbered_volumes(list_if_there(folder / name), "center"):
            return found
    return ()


def _center_problems(folder: Path, centers: tuple[Volume, ...], n_centers: int | None) -> list[str]:
    """Say which centers lack maps or half maps; an analysis made without maps lacks none."""
    problems = _numbering_problems(centers)
    filtered = {volume.index for volume in centers if volume.half is None and not volume.is_unfiltered}
    if centers and n_centers is not None and len(filtered) != n_centers:
        problems.append(f"k-means has {n_centers} centers, but there are maps of {len(filtered)}.")
    halves = {(volume.index, volume.half) for volume in centers if volume.half is not None}
    lacking = [
        volume.index
        for volume in centers
        if volume.index in filtered
        and volume.index is not None
        and volume.half is None
        and not volume.is_unfiltered
        and not {(volume.index, 1), (volume.index, 2)} <= halves
        and not _has_own_folder_of_halves(folder, volume.path.stem)
    ]
    if lacking:
        problems.append(f"Center {say_numbers(lacking, 3)}: no pair of half maps.")
    return problems


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
    return [f"Missing maps: {say_ranges(missing, 3)}."] if missing else []


def _trajectories(listing: Listing) -> list[Trajectory]:
    found = []
    for name in listing.folders:
        if match := _TRAJECTORY.fullmatch(name):
            inner = list_folder(listing.path / name)
            volumes = numbered_volumes(inner, "trajectory state") or numbered_volumes(
                list_if_there(inner.path / "all_volumes"), "trajectory state"
            )
            found.append(Trajectory(inner.path, int(match["index"]), volumes))
    return sorted(found, key=lambda trajectory: trajectory.index)
