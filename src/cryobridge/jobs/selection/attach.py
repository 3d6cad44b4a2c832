"""Labels and latent coordinates as columns, in the words of the file's program."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.results import result_columns
from cryobridge.formats.write import Changes
from cryobridge.model.particles import ParticleSet
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.model.particles import Floats


def attached_columns(
    particles: ParticleFiles, labels: NDArray[np.int64] | None, latent: Floats | None
) -> tuple[Changes, list[Message]]:
    """Return the columns that say each row's class and latent coordinates, and messages.

    Parameters
    ----------
    particles
        The file.
    labels
        (n,) counted from 0, or None; those of rows that are not written may be negative.
    latent
        (n, zdim), or None; NaN only in rows that are not written.

    Raises
    ------
    MissingDataError
        If a `.cs` file has no group for classes.
    """
    nothing = ParticleSet(particles.columns.n_rows, particles.metadata)
    changes, messages = Changes(), list[Message]()
    if labels is not None:
        of_class = nothing.with_columns(cluster=np.maximum(labels, 0), class_posterior=np.ones(len(labels)))
        try:
            changes, names = _with(changes, of_class, particles)
        except MissingDataError as error:
            error.add_hint(
                f"Or attach the labels to the particles that were given to the program; {option('split_by_class')} "
                "writes the files."
            )
            raise
        counted = "is label + 1" if particles.program == "relion" else "is the label, counted from 0"
        messages += [note("class-column", f"{names[0]} {counted}", option="attach_class"), *_replaced(particles, names)]
    if latent is not None:
        changes, names = _with(changes, replace(nothing, latent=latent), particles)
        values = [name for name in names if not name.endswith("/component")]
        shown = values[0] if len(values) == 1 else f"{values[0]} … {values[-1]}"
        messages.append(note("latent-columns", f"latent coordinates are in {shown}", option="attach_latent"))
        messages += _replaced(particles, (*names, *changes.without))
    return changes, messages


def _with(changes: Changes, results: ParticleSet, particles: ParticleFiles) -> tuple[Changes, tuple[str, ...]]:
    """Return changes with those that results make, and the columns of the results."""
    columns, without = result_columns(results, particles)
    both = replace(changes, added={**changes.added, **columns}, without=(*changes.without, *without))
    return both, tuple(columns)


def _replaced(particles: ParticleFiles, columns: tuple[str, ...]) -> list[Message]:
    old = [name for name in columns if name in particles.columns]
    return [note("values-replaced", f"{', '.join(old)}: the file's own values are replaced")] if old else []
