"""How particles look in their images, which a cryoSPARC file says: bright on dark, or dark on bright as micrographs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cryobridge.model.particles import ParticleSet

Contrast = Literal["bright", "dark"]
SIGN = "blob/sign"
# What `blob/sign` says of the particles in the images.
SIGNS: dict[Contrast, float] = {"bright": 1.0, "dark": -1.0}


def is_dark(particles: ParticleSet) -> NDArray[np.bool_] | None:
    """Return for each particle, (n,), whether its cryoSPARC file says that it is dark; None for files that don't say.

    Examples
    --------
    >>> is_dark(cb.read("J4")).all()
    True
    """
    extra = particles.extra
    if extra is None or extra.program != "cryosparc" or SIGN not in extra.names:
        return None
    dark: NDArray[np.bool_] = np.asarray(extra.read([SIGN])[SIGN]) < 0
    return dark


def dark_particles(particles: ParticleSet) -> str:
    """Say that particles are dark in the images, as their cryoSPARC file says.

    Returns
    -------
    str
        The beginning of a sentence; empty if they are not.
    """
    dark = is_dark(particles)
    n_dark = 0 if dark is None else int(np.count_nonzero(dark))
    if not n_dark:
        return ""
    who = "particles" if n_dark == len(particles) else f"{n_dark:,} of {len(particles):,} particles"
    return f"{who} are dark ({SIGN} -1)"


def to_be_inverted(particles: ParticleSet) -> NDArray[np.bool_]:
    """Return for each particle, (n,), whether inverting multiplies its image by -1.

    All are, except the bright ones of a set that has both.
    """
    dark = is_dark(particles)
    return dark if dark is not None and dark.any() else np.ones(len(particles), bool)


def dark_when_inverted(particles: ParticleSet) -> bool:
    """Whether their file says that particles are bright, so that inverting makes dark ones of them."""
    dark = is_dark(particles)
    return dark is not None and len(dark) > 0 and not dark.any()
