"""Labels and latent coordinates as columns, in the words of the file's program."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.formats.cryosparc.alignments import ALIGNED_2D, ALIGNED_3D
from cryobridge.jobs.selection.classes import CLASS_NUMBER
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Values
    from cryobridge.model.particles import Floats

# RELION keeps columns that it does not know as text; the name is no word of its own, now or later.
LATENT_COLUMN = "cryobridgeLatent"
_MODE = re.compile(r"components_mode_(\d+)/")


def class_columns(particles: ParticleFiles, labels: NDArray[np.int64]) -> tuple[dict[str, Values], list[Message]]:
    """Return the columns that say a row's class, and messages.

    rlnClassNumber = label + 1 in a STAR file; in a `.cs` file ``class`` = label in the group of the poses, where every
    alignment of cryoSPARC's has it, with probability 1 where the group says one.

    Parameters
    ----------
    particles
        The file.
    labels
        (n,) counted from 0; those of rows that are not written may be negative.

    Raises
    ------
    MissingDataError
        If a `.cs` file has no group for it.
    """
    table = particles.columns
    known = np.maximum(labels, 0)
    if particles.program == "relion":
        columns: dict[str, Values] = {CLASS_NUMBER: known + 1}
        text = f"{CLASS_NUMBER} is label + 1"
    else:
        group = next((name for name in (ALIGNED_3D, ALIGNED_2D) if f"{name}/pose" in table), None)
        if group is None:
            raise MissingDataError(
                f"no {ALIGNED_3D} or {ALIGNED_2D} group, in which a class could be written",
                path=particles.metadata,
                hint="Attach the labels to the particles that were given to the program, or use "
                f"{option('split_by_class')}.",
            )
        columns = {f"{group}/class": known.astype(np.uint32)}
        if f"{group}/class_posterior" in table:
            columns[f"{group}/class_posterior"] = np.ones(table.n_rows, dtype=np.float32)
        text = f"{group}/class is the label, counted from 0"
    return columns, [note("class-column", text, option="attach_class"), *_replaced(particles, columns)]


def latent_columns(particles: ParticleFiles, latent: Floats) -> tuple[dict[str, Values], list[Message]]:
    """Return the columns of latent coordinates, and messages.

    ``cryobridgeLatent1`` … in a STAR file; ``components_mode_0/component`` and ``/value`` … in a `.cs` file, as
    3D Variability has them.

    Parameters
    ----------
    particles
        The file.
    latent
        (n, zdim); NaN only in rows that are not written.

    Raises
    ------
    CryobridgeError
        If a `.cs` file has more modes than there are coordinates, so that old and new ones would be mixed.
    """
    columns: dict[str, Values] = {}
    if particles.program == "relion":
        columns = {f"{LATENT_COLUMN}{mode + 1}": values for mode, values in enumerate(latent.T)}
        names = [*columns]
    else:
        modes = [int(match[1]) for name in particles.columns.names if (match := _MODE.match(name))]
        if max(modes, default=-1) >= latent.shape[1]:
            raise CryobridgeError(
                f"the file has {max(modes) + 1} modes of its own, there are {latent.shape[1]} latent coordinates",
                path=particles.metadata,
                field=f"components_mode_{max(modes)}",
                hint="Give the particles as they were before 3D Variability; old and new modes would be mixed.",
            )
        for mode, values in enumerate(latent.T):
            columns[f"components_mode_{mode}/component"] = np.full(len(values), mode, dtype=np.uint32)
            columns[f"components_mode_{mode}/value"] = values.astype(np.float32)
        names = [name for name in columns if name.endswith("/value")]
    shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
    named = note("latent-columns", f"latent coordinates are in {shown}", option="attach_latent")
    return columns, [named, *_replaced(particles, columns)]


def _replaced(particles: ParticleFiles, columns: dict[str, Values]) -> list[Message]:
    old = [name for name in columns if name in particles.columns]
    return [note("values-replaced", f"{', '.join(old)}: the file's own values are replaced")] if old else []
