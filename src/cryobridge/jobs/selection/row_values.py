"""The labels and latent coordinates that are asked for, for each row of the particle table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cryobridge.jobs.selection.options import OF_THE_RUN, SelectOptions
from cryobridge.jobs.selection.run import labels_without_holes, refuse_other_order, run_around
from cryobridge.jobs.selection.values import RowLabels, read_labels, read_latent, read_rows

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.recovar import RecovarRun
    from cryobridge.jobs.selection.run import RunOfRows
    from cryobridge.model.particles import Floats
    from cryobridge.report import Message


class RowValues:
    """What files or a run say of each row.

    Parameters
    ----------
    options
        What is asked for.
    particles
        The particle file.
    run
        The run of ``options.run``, or None.

    Attributes
    ----------
    messages
        What was taken, and what was assumed and may be wrong.
    """

    def __init__(self, options: SelectOptions, particles: ParticleFiles, run: RunOfRows | None) -> None:
        self.messages: list[Message] = []
        self._options = options
        self._particles = particles
        self._run = run
        self._of_rows = None
        if options.label_rows is not None:
            self._of_rows = read_rows(options.label_rows, particles.n_rows, particles.metadata)

    def labels(self, *, splits: bool) -> RowLabels | None:
        """Return the labels that rows are chosen or split by, None where the file's own classes do.

        Parameters
        ----------
        splits
            Whether there is to be a file for each.
        """
        if self._options.kmeans is not None:
            return self._read_labels(self._options.kmeans)
        if self._run is None or not (
            self._options.clusters is not None or (splits and self._options.attach_class is None)
        ):
            return None
        return self._labels_of_run()

    def attached_labels(self) -> RowLabels | None:
        """Return the labels that are to be written, or None."""
        path = self._options.attach_class
        if path is None:
            return None
        return self._labels_of_run() if path == OF_THE_RUN else self._read_labels(path)

    def latent(self) -> Floats | None:
        """Return the coordinates that are to be written, (n, zdim) with NaN in rows without any, or None."""
        path = self._options.attach_latent
        if path is None:
            return None
        if path == OF_THE_RUN:
            assert self._run is not None  # refused as a contradiction
            return self._run.latent(self._run.choose_zdim(self._options.zdim, of_clusters=False))
        latent = self._of_file(read_latent(path, self._particles.n_rows, self._particles.metadata, self._of_rows))
        self._run_around(path)
        return latent

    def _labels_of_run(self) -> RowLabels:
        assert self._run is not None  # refused as a contradiction
        return self._run.labels(self._run.choose_zdim(self._options.zdim, of_clusters=True))

    def _of_file(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values of the file's rows for the rows of the table."""
        of_rows: NDArray[Any] = values[self._particles.file_rows]
        return of_rows

    def _read_labels(self, path: Path) -> RowLabels:
        n_rows, name = self._particles.n_rows, self._particles.metadata
        found = read_labels(path, n_rows, name, self._of_rows)
        labels = found.labels
        if (run := self._run_around(path)) is not None:
            labels, messages = labels_without_holes(run, labels)
            self.messages += messages
        return RowLabels(self._of_file(labels), found.n_labels, found.source)

    def _run_around(self, path: Path) -> RecovarRun | None:
        """Return the run that values for all rows are from, after a look at whether its rows are those of the file."""
        run = run_around(path) if self._of_rows is None else None
        if run is not None:
            self.messages += refuse_other_order(run, path, self._particles)
        return run
