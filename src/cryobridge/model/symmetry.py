"""Rotations of symmetry groups, about the axes that RELION takes for each of them.

A map of such a symmetry is the same after each of its rotations: V(R x) = V(x), with x from the centre of the map.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.model.geometry import Floats

_GOLDEN = (1 + np.sqrt(5)) / 2
_MOST_FOLD = 99
_SAME = 1e-6

# Axes (how many fold, and where they point to) of which the others of a group follow.
_AXES: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0, 0, 1)), (2, (0, np.sqrt(2), 1))),
    "O": ((4, (0, 0, 1)), (3, (1, 1, 1))),
    "I1": ((2, (0, 0, 1)), (5, (_GOLDEN, 0, -1))),
    "I2": ((2, (0, 0, 1)), (5, (1, 0, _GOLDEN))),
    "I3": ((5, (0, 0, 1)), (2, (-1, 0, _GOLDEN))),
    "I4": ((5, (0, 0, 1)), (2, (1, 0, _GOLDEN))),
}
_SAME_AS = {"I": "I2"}
_KNOWN = "Cn, Dn, T, O, I (as I2), I1, I2, I3 or I4"


def symmetry_rotations(name: str) -> Floats:
    """Return the rotations of a group of RELION's, the identity first.

    Cn turns about z, Dn also about x. T has a threefold axis along z, O fourfold ones along x, y and z; of the
    icosahedral groups I1 and I2 have twofold axes along x, y and z, in two orientations, I3 and I4 a fivefold one along
    z. ``relion_refine --sym NAME --print_symmetry_ops`` prints the same rotations.

    Parameters
    ----------
    name
        Such as ``C4``, ``D2``, ``T``, ``O``, ``I1``.

    Returns
    -------
    numpy.ndarray
        (k, 3, 3) rotation matrices.

    Raises
    ------
    UsageError
        If there is no such group, or it has mirrors, which no protein has.

    Examples
    --------
    >>> [len(symmetry_rotations(name)) for name in ("C4", "D2", "T", "O", "I1")]
    [4, 4, 12, 24, 60]
    """
    group = _SAME_AS.get(name.upper(), name.upper())
    found = re.fullmatch(r"([CD])([1-9]\d?)", group)
    if found is not None:
        fold = int(found[2])
        turns = np.stack([_turn((0, 0, 1), 2 * np.pi * step / fold) for step in range(fold)])
        return turns if found[1] == "C" else np.concatenate([turns, turns @ _turn((1, 0, 0), np.pi)])
    if group not in _AXES:
        raise UsageError(
            f"{name!r:.40} is no group of rotations",
            option="symmetry",
            hint=f"Give {_KNOWN}, with n up to {_MOST_FOLD}; mirrors are in no protein.",
        )
    return _closed([_turn(axis, 2 * np.pi / fold) for fold, axis in _AXES[group]])


def _turn(axis: tuple[float, float, float], angle_rad: float) -> Floats:
    from scipy.spatial.transform import Rotation

    turned: Floats = Rotation.from_rotvec(angle_rad * np.array(axis) / np.linalg.norm(axis)).as_matrix()
    return turned


def _closed(generators: list[Floats]) -> Floats:
    """Return all products of some rotations."""
    found: list[NDArray[np.float64]] = [np.eye(3)]
    for rotation in found:  # grows while it is walked through
        for product in (generator @ rotation for generator in generators):
            if np.abs(np.stack(found) - product).max(axis=(1, 2)).min() > _SAME:
                found.append(product)
    return np.stack(found)
