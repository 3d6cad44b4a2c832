"""Particles of one half set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import MissingDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.model.particles import ParticleSet


def is_of_half(particles: ParticleSet, number: int) -> NDArray[np.bool_]:
    """Return of each particle, (n,), whether it is of a half set.

    Raises
    ------
    MissingDataError
        If the half sets are not known.
    """
    if particles.half_set is None:
        raise MissingDataError(
            "the half sets of the particles are not known",
            path=particles.source,
            option="half_set",
            hint="Leave it out, or give the particles of a refinement.",
        )
    return np.asarray(particles.half_set == number)
