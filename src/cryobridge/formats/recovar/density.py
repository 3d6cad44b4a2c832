"""RECOVAR's densities in latent space, in the present and the older layout."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cryobridge.formats.listing import Listing, gaps, int_of, is_there, list_if_there, say_ranges
from cryobridge.formats.pickles import LatentDensity, read_density
from cryobridge.formats.recovar.parts import JobFacts, absent_outputs, first_there, read_bounded, read_facts
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DENSITY = re.compile(r"deconv_density_(?P<index>\d{1,9})\.pkl")
_KNEE = "deconv_density_knee.pkl"


@dataclass(frozen=True, eq=False)
class LatentGrid:
    """A density in latent space with its axes.

    Attributes
    ----------
    density
        One axis for each latent dimension.
    axes
        For each dimension the latent coordinates of the grid's points, (n,) float64: evenly spaced from bound to
        bound, both ends included, as RECOVAR makes its grids.
    alpha
        The regularisation; None where it is unknown.
    """

    density: NDArray[np.float64]
    axes: tuple[NDArray[np.float64], ...]
    alpha: float | None


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
        The grid's; empty where it could not be read.
    bounds
        The ends of each axis in latent coordinates.
    """

    path: Path
    index: int | None
    alpha: float | None
    shape: tuple[int, ...]
    bounds: tuple[tuple[float, float], ...]

    def open(self) -> LatentGrid:
        """Read the density with its axes.

        Raises
        ------
        UnsafeFileError, FormatError
            If it is damaged or no density.
        """
        content = read_density(self.path)
        ends = zip(content.bounds, content.density.shape, strict=True)
        return LatentGrid(content.density, tuple(np.linspace(low, high, n) for (low, high), n in ends), content.alpha)


@dataclass(frozen=True)
class Density:
    """One run of ``estimate_conformational_density``.

    Parameters
    ----------
    zdim
        Latent dimension of the coordinates that it was made from; the grid may have fewer. None where not known.
    absent
        Files that its job.json lists and that are not there.
    """

    path: Path
    facts: JobFacts | None
    layout: Literal["documented", "older"]
    zdim: int | None
    knee: DensityFile | None
    all_densities: tuple[DensityFile, ...]
    absent: tuple[str, ...]
    problems: tuple[Message, ...]

    @property
    def knee_index(self) -> int | None:
        """The number, among all densities, of the one at the knee: that of the same alpha."""
        if self.knee is None or self.knee.alpha is None:
            return None
        same = (file.index for file in self.all_densities if file.alpha == self.knee.alpha)  # copies of one number
        return next(same, None)


def looks_like_density(listing: Listing) -> bool:
    """Whether a folder holds the results of ``estimate_conformational_density``."""
    return _KNEE in listing.files or is_there(listing.path / "data" / _KNEE)


def read_density_folder(listing: Listing) -> Density:
    """Describe a folder of densities in latent space."""
    problems: list[Message] = []
    facts = read_facts(listing, problems)
    knee_path = first_there(listing.path, f"data/{_KNEE}", _KNEE)
    folder = listing.path / (
        "data/all_densities" if (listing.path / "data/all_densities").is_dir() else "all_densities"
    )
    numbered = {
        int(match["index"]): folder / name
        for name in list_if_there(folder).files
        if (match := _DENSITY.fullmatch(name))
    }
    if missing := gaps(numbered):
        problems.append(warning("files-missing", f"Missing densities: {say_ranges(missing)}", where=listing.path))
    knee = _density_file(knee_path, None, problems) if knee_path else None
    files = tuple(_density_file(numbered[index], index, problems) for index in sorted(numbered))
    density = Density(
        listing.path,
        facts,
        "older" if _KNEE in listing.files else "documented",
        int_of(facts.parameters.get("z_dim_used")) if facts is not None else None,
        knee,
        files,
        absent_outputs(listing.path, facts),
        (),
    )
    return replace(density, problems=(*problems, *_disagreements(density)))


def _density_file(path: Path, index: int | None, problems: list[Message]) -> DensityFile:
    content: LatentDensity | None = read_bounded(path, read_density, problems)
    if content is None:
        return DensityFile(path, index, None, (), ())
    if not bool(np.isfinite(content.density).all()):
        text = f"{path.name}: the density is not finite everywhere"
        problems.append(warning("not-finite", text, where=path))
    bounds = tuple((float(low), float(high)) for low, high in content.bounds)
    if not all(low <= high for low, high in bounds):  # NaN fails it too
        text = f"{path.name}: a lower bound of the grid is above the upper one"
        problems.append(warning("grid-bounds", text, where=path))
    return DensityFile(path, index, content.alpha, content.density.shape, bounds)


def _disagreements(density: Density) -> list[Message]:
    """Say where the densities of one folder, which differ in their alpha only, differ in more."""
    knee, read = density.knee, [file for file in density.all_densities if file.shape]
    if knee is None or not knee.shape or not read:
        return []
    problems: list[Message] = []
    others = [file.path.name for file in read if (file.shape, file.bounds) != (knee.shape, knee.bounds)]
    if others:
        text = f"{', '.join(others[:3])}: another grid than that of {knee.path.name}"
        problems.append(warning("grids-differ", text, where=density.path))
    if knee.alpha is not None and density.knee_index is None:
        text = f"{knee.path.name}: no other density has its alpha, {knee.alpha:g}"
        problems.append(warning("alpha-not-found", text, where=knee.path))
    return problems
