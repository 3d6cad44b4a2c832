"""A RECOVAR run as arrays: latent coordinates, clusters, densities and maps, without RECOVAR and its pickled code."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.pickle_data import SHOWN, load_pickle
from cryobridge.formats.pickles import KmeansResult
from cryobridge.formats.recovar.clusters import read_clusters
from cryobridge.formats.recovar.density import LatentGrid
from cryobridge.formats.recovar.job import RecovarJob, pipeline_of, read_recovar_job
from cryobridge.formats.recovar.particle_file import ParticleFile, find_particle_file
from cryobridge.options import as_path
from cryobridge.report import Message, counted, note

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.formats.recovar.analysis import Analysis
    from cryobridge.formats.recovar.density import Density
    from cryobridge.formats.recovar.model import LatentArray
    from cryobridge.formats.recovar.parts import Volume

__all__ = ["LatentGrid", "RecovarRun", "open_recovar"]

_OF_THIS_RUN = "Check that the analysis is of this run and complete."
_ONE_RUN = "Check that model/ is complete and of one run."


class RecovarRun:
    """A pipeline's result; see `open_recovar`.

    RECOVAR keeps one latent coordinate for every row of the particle file up to the last one that it used, NaN in those
    that it left out. Here all arrays hold the particles of the run only, in the order of `rows`: element k of any of
    them belongs to row ``rows[k]`` of `particles_file`.

    Attributes
    ----------
    path
        The pipeline's folder.
    job
        What the folder holds, with the problems of its files.
    """

    def __init__(self, job: RecovarJob, opened: RecovarJob | None = None) -> None:
        self.path: Path = job.path
        self.job = job
        self._opened = job if opened is None else opened

    @property
    def zdims(self) -> tuple[int, ...]:
        """The latent dimensions that there are coordinates of, ascending."""
        return tuple(embedding.zdim for embedding in self.job.embeddings if embedding.n_rows is not None)

    @property
    def particles_file(self) -> Path | None:
        """The particle file that the pipeline was given (.star, .cs, .mrcs or .txt); None where it was not found."""
        return self.particles.path

    @cached_property
    def particles(self) -> ParticleFile:
        """The particle file, as the run names it and where it was found."""
        return find_particle_file(self.path, self.job.facts)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was assumed in finding the particle file and the rows."""
        return (*self.particles.messages, *self._rows_and_messages[1])

    @property
    def rows(self) -> NDArray[np.int64]:
        """(n,) rows of the particle file, counted from 0 and ascending, that the latent coordinates belong to.

        Raises
        ------
        UsageError
            For tilt series, whose coordinates belong to groups of images and not to rows.
        MissingDataError
            If there are no latent coordinates.
        FormatError
            If half sets and latent coordinates contradict each other.
        """
        if self.is_tilt_series:
            raise UsageError(
                "this run is of tilt series: its latent coordinates belong to groups of images, not to rows",
                path=self.path,
                hint="Rows can be taken from runs of single particles only.",
            )
        return self._rows_and_messages[0]

    @property
    def is_tilt_series(self) -> bool:
        """Whether job.json says that the images are tilt series."""
        return self.job.facts is not None and self.job.facts.parameters.get("tilt_series") is True

    @property
    def eigenvalues(self) -> NDArray[np.float64] | None:
        """(m,) eigenvalues of the covariance, descending; None where they can't be read as plain numbers."""
        return self.job.model.eigenvalues if self.job.model is not None else None

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The pipeline's maps; ``volume.open()`` opens one, and its pixels are read when they are asked for."""
        return self.job.volumes

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        """The analyses in the run's folder, with the maps of centers and trajectories; one that was opened is first."""
        own = self._opened.analyses
        paths = {analysis.path.absolute() for analysis in own}
        return (*own, *(found for found in self.job.analyses if found.path.absolute() not in paths))

    @property
    def densities(self) -> tuple[Density, ...]:
        """The densities in the run's folder, one that was opened first; ``density.knee.open()`` reads one."""
        own = self._opened.densities
        paths = {density.path.absolute() for density in own}
        return (*own, *(found for found in self.job.densities if found.path.absolute() not in paths))

    def latent(self, zdim: int, *, regularised: bool = True) -> NDArray[np.float64]:
        """Return the latent coordinates, (n, zdim), in the order of `rows`.

        Parameters
        ----------
        zdim
            One of `zdims`.
        regularised
            False for those that RECOVAR calls ``noreg``, which its densities are made from.

        Raises
        ------
        MissingDataError
            If the run has none of that dimension.
        FormatError
            If they are damaged, or fewer than the half sets say.
        """
        return self._per_particle(zdim, "latent_coords", regularised)

    def precision(self, zdim: int, *, regularised: bool = True) -> NDArray[np.float64]:
        """Return the inverse covariance of each particle's coordinates, (n, zdim, zdim); see `latent`."""
        return self._per_particle(zdim, "latent_precision", regularised)

    def contrasts(self, zdim: int, *, regularised: bool = True) -> NDArray[np.float64]:
        """Return the contrast of each particle, (n,); see `latent`."""
        return self._per_particle(zdim, "contrasts", regularised)

    def analysis(self, zdim: int) -> Analysis:
        """Return the analysis of a latent dimension, one of `analyses`.

        Of several the one that was opened is meant, else the only one of regularised coordinates.

        Raises
        ------
        MissingDataError
            If there is none.
        UsageError
            If there are several to choose from.
        """
        found = [analysis for analysis in self._opened.analyses if analysis.zdim == zdim]
        if self._opened.kind != "analysis" or not found:
            found = [analysis for analysis in self.analyses if analysis.zdim == zdim]
            found = [analysis for analysis in found if not analysis.is_noreg] or found
        if not found:
            raise MissingDataError(
                f"there is no analysis of zdim {zdim}",
                path=self.path,
                hint=f"Run `recovar analyze {self.path} --zdim {zdim}`, or name the folder of the analysis.",
            )
        if len(found) > 1:
            names = ", ".join(analysis.path.name for analysis in found)
            raise UsageError(
                f"there are {len(found)} analyses of zdim {zdim}: {names}",
                path=self.path,
                hint="Name the folder of the one that is meant.",
            )
        return found[0]

    def kmeans(self, which: int | Analysis) -> KmeansResult:
        """Return the centers, (K, zdim), and the labels, (n,) in the order of `rows`, of an analysis.

        Parameters
        ----------
        which
            A latent dimension, as for `analysis`, or one of `analyses`.

        Raises
        ------
        MissingDataError
            If there is no such analysis, or no k-means result in it.
        FormatError
            If the result is damaged, or does not belong to the latent coordinates.
        """
        analysis = self.analysis(which) if isinstance(which, int) else which
        if analysis.kmeans is None:
            raise MissingDataError(
                "there is no kmeans_result.pkl", path=analysis.path, hint="Run `recovar analyze` again."
            )
        # None where it was too large for a summary, or damaged, which reading it reports.
        n_labels = len(read_clusters(analysis.kmeans).labels) if analysis.n_labels is None else analysis.n_labels
        self._require_one_per_coordinate(analysis.kmeans, "labels", n_labels, analysis.zdim)
        return read_clusters(analysis.kmeans, self._rows_and_messages[0])

    def umap(self, which: int | Analysis) -> NDArray[np.float64]:
        """Return the UMAP embedding, (n, 2) in the order of `rows`, of an analysis; see `kmeans`.

        Raises
        ------
        MissingDataError
            If there is no such analysis, or no embedding in it.
        FormatError
            If it is damaged, or does not belong to the latent coordinates.
        """
        analysis = self.analysis(which) if isinstance(which, int) else which
        if analysis.umap is None:
            raise MissingDataError(
                "there is no umap_embedding.pkl", path=analysis.path, hint="Run `recovar analyze` without --skip-umap."
            )
        value = load_pickle(analysis.umap)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim != 2:
            raise FormatError(
                "no UMAP embedding: a table of numbers is expected", path=analysis.umap, hint=_OF_THIS_RUN
            )
        self._require_one_per_coordinate(analysis.umap, "points", len(value), analysis.zdim)
        return value[self._rows_and_messages[0]].astype(np.float64)

    def _array(self, zdim: int, name: str) -> LatentArray:
        for embedding in self.job.embeddings:
            if embedding.zdim == zdim and (array := embedding.array(name)) is not None:
                return array
        raise MissingDataError(
            f"the run has no {name} of zdim {zdim}",
            path=self.path,
            hint=f"It has latent coordinates of zdim {', '.join(map(str, self.zdims))}." if self.zdims else "",
        )

    def _per_particle(self, zdim: int, what: str, regularised: bool) -> NDArray[np.float64]:
        found, rows = self._array(zdim, what if regularised else f"{what}_noreg"), self._rows_and_messages[0]
        array = found.read()
        if rows.size and (array.ndim == 0 or int(rows[-1]) >= len(array)):
            raise FormatError(
                f"it is of shape {array.shape}, but the run has a particle of row {int(rows[-1]):,} (counted from 0)",
                path=found.path,
                hint=_ONE_RUN,
            )
        return np.asarray(array[rows])

    def _require_one_per_coordinate(self, path: Path, what: str, count: int, zdim: int | None) -> None:
        counts = {embedding.zdim: embedding.n_rows for embedding in self.job.embeddings}
        n_coordinates = counts.get(zdim) if zdim is not None else None
        if n_coordinates is None or count == n_coordinates:
            return
        raise FormatError(
            f"{count:,} {what}, but {n_coordinates:,} latent coordinates of zdim {zdim}",
            path=path,
            hint=_OF_THIS_RUN,
        )

    @cached_property
    def _rows_and_messages(self) -> tuple[NDArray[np.int64], tuple[Message, ...]]:
        """Find the rows of the run: those of its half sets; without them those whose coordinates are finite."""
        if not self.zdims:
            raise MissingDataError(
                "there are no latent coordinates in it",
                path=self.path,
                hint="The pipeline may not have ended; `cryobridge inspect` says what is there.",
            )
        coordinates = self._array(self.zdims[0], "latent_coords").read()
        finite = np.isfinite(coordinates).all(axis=tuple(range(1, coordinates.ndim)))
        rows = self.job.model.rows if self.job.model is not None else None
        if rows is None:
            text = "There are no half sets in model/; the rows with latent coordinates were taken for those of the run"
            return np.flatnonzero(finite), (note("half-sets-missing", text, where=self.path),)
        have = np.flatnonzero(finite)
        outside, beyond = np.setdiff1d(have, rows), rows[rows >= finite.size]
        if outside.size or beyond.size:
            fault = "has latent coordinates but is in no half set" if outside.size else "is in a half set but has none"
            wrong = outside if outside.size else beyond
            raise FormatError(
                f"half sets and latent coordinates are of different particles: a row {fault}",
                path=self.path / "model",
                rows=tuple(wrong[:SHOWN].tolist()),
                count=wrong.size,
                hint=_ONE_RUN,
            )
        n_lost = rows.size - have.size
        text = (
            f"{n_lost:,} of the run's {counted(rows.size, 'particle')} "
            f"{'has' if n_lost == 1 else 'have'} no latent coordinates"
        )
        return rows, (note("latent-missing", text, where=self.path),) if n_lost else ()


def open_recovar(path: str | os.PathLike[str]) -> RecovarRun:
    """Open a RECOVAR run.

    Nothing of RECOVAR is needed, and no pickle is run: what asks for code is left out.

    Parameters
    ----------
    path
        The folder of a pipeline's result; or of an analysis or density of one, which is then the one that is meant
        where there are several.

    Raises
    ------
    UsageError
        If ``path`` is neither text nor path.
    FormatError
        If it is no result of RECOVAR, or the pipeline that it was made from is not found.

    Examples
    --------
    >>> import cryobridge as cb
    >>> run = cb.open_recovar("small_recovar")
    >>> run.latent(4).shape
    (288, 4)
    """
    opened = read_recovar_job(as_path(path, "path"))
    if opened.kind == "pipeline":
        return RecovarRun(opened)
    pipeline = pipeline_of(opened)
    if pipeline is None:
        raise FormatError(
            f"the pipeline that this {opened.kind} was made from is neither above it nor where its job.json says",
            path=opened.path,
            hint="Give the folder of the pipeline's result, or put this one back into it.",
        )
    return RecovarRun(pipeline, opened)
