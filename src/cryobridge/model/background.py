"""The background of a particle image as RELION has it: the pixels outside of a circle around the centre.

RELION normalises images when it extracts them, so that their background has mean 0 and standard deviation 1, and its
refinement warns where that is not so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What RELION's Extract takes unless asked otherwise: a diameter of 3/4 of the box.
_PART_OF_BOX = 0.375


def default_radius_px(box_px: int) -> int:
    """Return the radius that RELION's Extract takes for a box: 3/8 of it, in whole pixels.

    Examples
    --------
    >>> default_radius_px(100)
    37
    """
    return int(_PART_OF_BOX * box_px)


def outside_circle(shape_px: tuple[int, int], radius_px: float) -> NDArray[np.bool_]:
    """Return which pixels (ny, nx) are background: those farther than the radius from pixel (ny // 2, nx // 2).

    Those at the radius itself are not; found by running ``relion_preprocess --norm --bg_radius`` of RELION 3.1.3.
    """
    ny, nx = shape_px
    y, x = np.ogrid[:ny, :nx]
    outside: NDArray[np.bool_] = (y - ny // 2) ** 2 + (x - nx // 2) ** 2 > radius_px**2
    return outside
