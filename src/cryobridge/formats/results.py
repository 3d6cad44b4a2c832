"""Results that particles are given, such as classes and latent coordinates, as columns of a file that is there."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import MissingDataError
from cryobridge.formats.cryosparc.alignments import ALIGNED_2D, ALIGNED_3D
from cryobridge.formats.latent import names_of_latent
from cryobridge.model.particles import ParticleSet

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Values
    from cryobridge.model.fields import Program


def results_of(particles: ParticleSet) -> ParticleSet:
    """Return a set that knows nothing but the results that particles were given since they were read."""
    names = () if particles.origin is None else particles.origin.results
    parts: dict[str, Any] = {
        item.name: getattr(particles, item.name) for item in fields(particles) if item.name in names
    }
    own = {name: values for name, values in particles.columns.items() if name in names}
    return ParticleSet(len(particles), particles.source, columns=own, **parts)


def has_place(results: ParticleSet, files: ParticleFiles) -> bool:
    """Whether the columns of a file have a place for results."""
    of_class = (results.class_number, results.class_posterior)
    return files.program == "relion" or all(each is None for each in of_class) or _group_of(files) is not None


def result_columns(results: ParticleSet, files: ParticleFiles) -> tuple[dict[str, Values], tuple[str, ...]]:
    """Return results as columns of a file's program, and the names of its columns that are not true beside them.

    Latent coordinates are columns as `cryobridge.formats.latent.latent_columns` has them, and take the place of all
    that the file has. Classes are rlnClassNumber, from 1, in a STAR file; in a `.cs` file ``class``, from 0, in the
    group of the poses, where every alignment of cryoSPARC's has it, with the probability where that group has one.
    Others are called as in the files that are made of a particle set.

    Parameters
    ----------
    results
        A set without anything else, such as `results_of` returns.
    files
        The file that is to have them.

    Raises
    ------
    MissingDataError
        If there are classes, and a `.cs` file has no group for them.
    """
    program: Program = "relion" if files.program == "relion" else "cryosparc"
    columns = _of_star(results, files) if program == "relion" else _of_cs(results, files)
    old = () if results.latent is None else names_of_latent(program, files.columns.names)
    return columns, tuple(name for name in old if name not in columns)


def _of_star(results: ParticleSet, files: ParticleFiles) -> dict[str, Values]:
    from cryobridge.formats.relion.particles_write import plain_columns

    return plain_columns(results, is_3_0=files.star is not None and "optics" not in files.star)


def _of_cs(results: ParticleSet, files: ParticleFiles) -> dict[str, Values]:
    from cryobridge.formats.cryosparc.particles_write import aligned_columns, plain_columns

    columns, aligned = plain_columns(results), aligned_columns(results)
    if not aligned:
        return columns
    group, table = _group_of(files), files.columns
    if group is None:
        raise MissingDataError(
            f"no {ALIGNED_3D} or {ALIGNED_2D} group, in which a class could be written",
            path=files.metadata,
            hint="Write one file a class: of a .cs file each is what cryoSPARC imports as particles of their own.",
        )
    named = {f"{group}/{name}": values for name, values in aligned.items()}
    # A file without probabilities does not get those of classes that are certain.
    return columns | {
        name: values
        for name, values in named.items()
        if name in table or not name.endswith("_posterior") or not np.all(np.asarray(values) == 1)
    }


def _group_of(files: ParticleFiles) -> str | None:
    """Return the group of a `.cs` file that classes go to; None where there is none."""
    return next((name for name in (ALIGNED_3D, ALIGNED_2D) if f"{name}/pose" in files.columns), None)
