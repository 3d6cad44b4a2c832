"""What a RECOVAR run says of the rows of a particle file: which it used, their clusters and latent coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError, option
from cryobridge.formats.input_file import resolved
from cryobridge.formats.open import open_particles
from cryobridge.formats.particle_files import TABLE_SUFFIXES
from cryobridge.formats.recovar import RecovarRun, open_recovar
from cryobridge.jobs.identity.match import identities_of, match_rows
from cryobridge.jobs.selection.values import RowLabels, join_numbers
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.model.particles import Floats

# A latent_coords.npy lies in model/zdim_4/ of the run, a kmeans_result.pkl in analysis_4/data/.
_LEVELS_UP = 3


@dataclass(frozen=True, eq=False)
class RunOfRows:
    """A run and the place of each row of a particle file in its arrays.

    Attributes
    ----------
    run
        The run.
    opened
        The folder that was named: the pipeline's, or that of an analysis.
    place
        (n,) element of the run's arrays for each row of the particle table, -1 for rows that are not in it.
    messages
        How the rows were found, and what was assumed.
    """

    run: RecovarRun
    opened: Path
    place: NDArray[np.int64]
    messages: tuple[Message, ...]

    def labels(self, zdim: int) -> RowLabels:
        """Return the cluster of each row, -1 for rows that are not in the run."""
        result = self.run.kmeans(zdim)
        labels = np.where(self.place >= 0, result.labels[self.place], -1)
        return RowLabels(labels, len(result.centers), f"the clusters of zdim {zdim}")

    def latent(self, zdim: int) -> Floats:
        """Return the latent coordinates of each row, (n, zdim), NaN for rows that are not in the run."""
        coordinates = self.run.latent(zdim)[self.place]
        coordinates[self.place < 0] = np.nan
        return coordinates

    def choose_zdim(self, given: int | None, *, of_clusters: bool) -> int:
        """Return the latent dimension that is meant: the given one, that of the opened analysis, or the only one.

        Raises
        ------
        UsageError
            If there are several, or the given one is not there.
        MissingDataError
            If there is none.
        """
        analysed = sorted({analysis.zdim for analysis in self.run.analyses if analysis.zdim})
        found = analysed if of_clusters else list(self.run.zdims)
        what = "clusters" if of_clusters else "latent coordinates"
        if given is None:
            opened = [found for found in self.run.analyses if resolved(found.path) == resolved(self.opened)]
            given = opened[0].zdim if opened else None
        if given is not None and given in found:
            return given
        if not found:
            raise MissingDataError(
                f"the run has no {what}", path=self.run.path, hint="Run `recovar analyze` on it first." * of_clusters
            )
        hint = f"Give {' or '.join(option('zdim', each) for each in found)}."
        if given is not None:
            if given in self.run.zdims:
                hint = (
                    f"Give {option('zdim', found[0])}, or run `recovar analyze {self.run.path} --zdim {given}` first."
                )
            raise UsageError(
                f"no {what} of zdim {given}; the run has them of zdim {join_numbers(found)}",
                path=self.run.path,
                hint=hint,
            )
        if len(found) > 1:
            raise UsageError(f"{what} of several dimensions: zdim {join_numbers(found)}", path=self.run.path, hint=hint)
        return found[0]


def rows_of_run(folder: Path, run: RecovarRun, particles: ParticleFiles, sources: Path | None = None) -> RunOfRows:
    """Find the rows of a particle file in a run, which was opened from ``folder``.

    Where the file is not the run's own, its particles are found by uid or image; where the run's own is lost, a file of
    as many rows as the run has coordinates is taken for it.

    Raises
    ------
    CryobridgeError
        If the run and the file don't line up.
    """
    own = run.particles_file
    rows, messages = run.rows, run.messages
    if own is not None and own.suffix in TABLE_SUFFIXES and resolved(own) not in _resolved(particles):
        of_run = open_particles(own, join=False)
        match = match_rows(identities_of(particles, sources), identities_of(of_run, sources))
        place_of_row = _places(run, rows, of_run.n_rows, own)
        in_file = np.where(match.rows >= 0, of_run.file_rows[match.rows], -1)
        place = np.where(in_file >= 0, place_of_row[in_file], -1)
        text = f"the run was made from {own.name}; its particles are found by {match.by}"
        found = note("run-of-other-file", text, where=run.path)
        return RunOfRows(run, folder, place, (*messages, found, *match.messages))
    place_of_row = _places(run, rows, particles.n_rows, particles.metadata, must_be_whole=own is None)
    return RunOfRows(run, folder, place_of_row[particles.file_rows], messages)


def run_around(path: Path) -> RecovarRun | None:
    """Return the run that a file of clusters or latent coordinates is part of; None where it lies by itself."""
    for folder in path.absolute().parents[:_LEVELS_UP]:
        try:
            run = open_recovar(folder)
            own = [analysis.kmeans for analysis in run.analyses if analysis.kmeans is not None]
            own += [array.path for embedding in run.job.embeddings for array in embedding.arrays]
            is_part = any(resolved(found) == resolved(path) for found in own) and not run.is_tilt_series
            return run if is_part and run.rows.size else None
        except CryobridgeError:
            continue
    return None


def labels_without_holes(run: RecovarRun, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Message]]:
    """Return a run's labels with -1 in rows that it left out, and messages.

    RECOVAR gives such rows a label too, which can't be distinguished from the others by its value.
    """
    rows = run.rows
    if len(rows) == len(labels) or rows[-1] >= len(labels):
        return labels, []
    cleaned = np.full_like(labels, -1)
    cleaned[rows] = labels[rows]
    text = f"the run in {run.path} used {len(rows):,} of {counted(len(labels), 'row')}; the others have no label"
    return cleaned, [note("rows-without-label", text, where=run.path)]


def refuse_other_order(run: RecovarRun, path: Path, particles: ParticleFiles) -> list[Message]:
    """See to it that a run's values in ``path`` belong to the rows of a particle file one by one; return warnings.

    Raises
    ------
    CryobridgeError
        If the particle file has the run's particles in another order, or others.
    """
    own = run.particles_file
    if own is None or own.suffix not in TABLE_SUFFIXES or resolved(own) in _resolved(particles):
        return []
    of_run = open_particles(own, join=False)
    ours, theirs = identities_of(particles), identities_of(of_run)
    try:
        rows = match_rows(ours, theirs).rows
    except MissingDataError:
        text = (
            f"{path.name} is of a run made from {own.name}, with which {particles.metadata.name} has no names in "
            "common: the rows are taken to be in the same order"
        )
        return [warning("row-order-assumed", text, where=path)]
    # Repeated particles are known by the first of them.
    expected = np.full(max(of_run.n_rows, particles.n_rows), -1, dtype=np.int64)
    expected[of_run.file_rows] = match_rows(theirs, theirs).rows
    differs = np.flatnonzero((rows < 0) | (rows != expected[particles.file_rows]))
    if len(differs):
        raise CryobridgeError(
            f"it is of a run made from {own.name}, and {len(differs):,} of {counted(len(particles), 'row')} of "
            f"{particles.metadata.name} are other particles than the rows of that number there",
            path=path,
            rows=tuple(int(row) for row in differs[:3]),
            count=len(differs),
            hint=f"Give {option('run', run.path)}, which finds the particles by their names, or select from "
            f"{own.name}.",
        )
    return []


def _places(
    run: RecovarRun, rows: NDArray[np.int64], n_rows: int, path: Path, *, must_be_whole: bool = False
) -> NDArray[np.int64]:
    """Return the place in the run's arrays of each row of its particle file, -1 for rows that it left out.

    RECOVAR's arrays reach to the last row that it used; a file that is longer than that by chance is not accepted.
    """
    n_stored = next((found.n_rows for found in run.job.embeddings if found.n_rows is not None), 0)
    reaches = int(rows[-1]) + 1 if rows.size else 0
    lines_up = n_stored == n_rows or (reaches == n_stored <= n_rows and not must_be_whole)
    if not lines_up:
        raise FormatError(
            f"the run has latent coordinates of {counted(n_stored, 'row')}, {path.name} has {n_rows:,}",
            path=run.path,
            hint="The particle file was changed after the run, or is another one; name the one that the run was given.",
        )
    place = np.full(n_rows, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    return place


def _resolved(particles: ParticleFiles) -> set[Path]:
    return {resolved(particles.metadata), resolved(particles.columns.path)}
