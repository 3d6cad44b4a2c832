"""What RELION refuses, or reads wrongly, of particles.

The rules are asked before particles are written for RELION, and by inspect of a STAR file as it stands. Each of them
was found by running RELION 3.1.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from cryobridge.model.particles import ParticleSet

HALF_SETS = "rlnRandomSubset"
PREMULTIPLIED = "rlnCtfDataAreCtfPremultiplied"
_N_SHOWN = 3


def half_sets_refused(half_set: NDArray[np.integer[Any]]) -> str:
    """Say why RELION's refinement stops with these half sets.

    Parameters
    ----------
    half_set
        (n,) of each particle, counted from 1.

    Returns
    -------
    str
        The beginning of a sentence; empty where it takes them: all are 1 or 2 and both occur, or all are 0, for
        which it divides the particles itself.

    Examples
    --------
    >>> half_sets_refused(np.array([1, 1, 1]))
    'all particles are in half set 1'
    """
    found = np.unique(half_set)
    if len(half_set) < 2 or not found.any():
        return ""
    if not np.isin(found, (0, 1, 2)).all():
        odd = ", ".join(map(str, found[:_N_SHOWN])) + (" …" if len(found) > _N_SHOWN else "")
        return f"half sets are {odd}; RELION takes 1 and 2 only"
    if found[0] == 0:
        return f"{int(np.count_nonzero(half_set == 0)):,} of {len(half_set):,} particles are in no half set"
    return f"all particles are in half set {found[0]}" if len(found) == 1 else ""


def half_sets_left_out(half_set: NDArray[np.integer[Any]] | None) -> list[Message]:
    """Return a warning where half sets are left out, for RELION's refinement would stop; none where they are written.

    Parameters
    ----------
    half_set
        (n,) of each particle, counted from 1, or None.
    """
    why = "" if half_set is None else half_sets_refused(half_set)
    if not why:
        return []
    code = "one-half-set" if why.startswith("all ") else "half-sets-unknown"
    return [warning(code, f"{why}: {HALF_SETS}, with which RELION's refinement would stop, is left out")]


def premultiplied(particles: ParticleSet, who: str) -> list[Message]:
    """Return a warning of images that are multiplied by their CTF, for a target that has no place to say so.

    Parameters
    ----------
    particles
        What is to be written.
    who
        The target, such as ``"cryoSPARC"``.
    """
    if not is_premultiplied(particles):
        return []
    text = (
        f"the images are multiplied by their CTF ({PREMULTIPLIED} 1), which {who} can't be given to know: the CTF "
        "would be applied twice; extract the particles again without it"
    )
    return [warning("ctf-premultiplied", text)]


def is_premultiplied(particles: ParticleSet) -> bool:
    """Whether a STAR file says that the images of some particle are multiplied by their CTF."""
    extra = particles.extra
    if extra is None or extra.program != "relion":
        return False
    if PREMULTIPLIED in extra.names:  # a file without optics groups
        return bool(np.asarray(extra.read([PREMULTIPLIED])[PREMULTIPLIED], np.float64).any())
    flags = extra.optics.get(PREMULTIPLIED)
    if flags is None or particles.optics_index is None:
        return False
    return bool(np.asarray(flags, np.float64)[np.unique(particles.optics_index)].any())
