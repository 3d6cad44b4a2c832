"""How particles look in their images, which a cryoSPARC file says: bright on dark, or dark on bright as micrographs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, option
from cryobridge.report import Message, warning

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

    Raises
    ------
    FormatError
        If the column that says so does not hold numbers.
    """
    extra = particles.extra
    if extra is None or extra.program != "cryosparc" or SIGN not in extra.names:
        return None
    sign = np.asarray(extra.read([SIGN])[SIGN])
    if sign.dtype.kind not in "biuf" or sign.ndim != 1:
        raise FormatError("a number in each row is needed", field=SIGN, hint="Give a file in which it is 1 or -1.")
    dark: NDArray[np.bool_] = sign < 0
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


def about_contrast(particles: ParticleSet, who: str, *, invert: bool, remedy: str = "") -> list[Message]:
    """Return a warning of particles that are dark in the images that are written.

    Parameters
    ----------
    particles
        Whose images they are.
    who
        Who takes bright ones, with the verb, such as ``"RELION takes"``.
    invert
        Whether the images are inverted (`to_be_inverted`).
    remedy
        What is to be added where they are not, if that option alone does not do.
    """
    dark = is_dark(particles)
    if not invert:
        said = dark_particles(particles)
        add = f": add {remedy}" if remedy else f", {who} bright ones: add {option('invert', True)}"
        text = f"{said}{add}" if said else ""
    elif dark is not None and len(dark) and not dark.any():
        text = f"particles become dark: {SIGN} said that they were bright; look at some"
    else:
        text = ""
    return [warning("dark-particles", text, option="invert")] if text else []
