"""How cryoSPARC's fractions become pixels of RELION's micrograph: one of eight axis conventions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.model.geometry import fractions_to_px, px_to_fractions
from cryobridge.model.particles import Floats


@dataclass(frozen=True)
class Convention:
    """An axis convention: flips of the cryoSPARC frame, then an exchange of x and y.

    Parameters
    ----------
    mirror_x, mirror_y
        Count from the other edge: ``nx - nx * fx``, ``ny - ny * fy``.
    swap_xy
        Exchange x and y after that.
    is_exact
        Count from the last pixel, as when rows are written in the reverse order: ``ny - 1 - ny * fy``. Both forms are
        the same axis convention, and equal.
    """

    mirror_x: bool = False
    mirror_y: bool = True
    swap_xy: bool = False
    is_exact: bool = field(default=False, compare=False)

    def to_px(self, fraction_xy: Floats, shape_px: NDArray[Any]) -> Floats:
        """Return coordinates (n, 2) in pixels of RELION's micrograph, for fractions (n, 2) and shapes (n, 2)."""
        edge = fractions_to_px(fraction_xy, shape_px, flip_x=self.mirror_x, flip_y=self.mirror_y, swap_xy=self.swap_xy)
        return edge - self._less_px

    def to_fractions(self, coordinate_px: Floats, shape_px: NDArray[Any]) -> Floats:
        """Return cryoSPARC's fractions (n, 2) of RELION's pixels (n, 2); shapes (n, 2) or (2,) are cryoSPARC's."""
        edge = coordinate_px + self._less_px
        return px_to_fractions(edge, shape_px, flip_x=self.mirror_x, flip_y=self.mirror_y, swap_xy=self.swap_xy)

    @property
    def _less_px(self) -> Floats:
        """What RELION's x and y, (2,), are less than if counted from the edge."""
        of_xy = np.array([self.mirror_x, self.mirror_y], np.float64) * self.is_exact
        return of_xy[::-1] if self.swap_xy else of_xy

    @property
    def inverse(self) -> Convention:
        """The convention that takes coordinates back, from RELION's micrograph to cryoSPARC's."""
        return replace(self, mirror_x=self.mirror_y, mirror_y=self.mirror_x) if self.swap_xy else self

    def direction_rad(self, angle_rad: Floats) -> Floats:
        """Return where a direction of cryoSPARC's frame (angle from x towards y) points in RELION's, (n,)."""
        x = np.cos(angle_rad) * (-1 if self.mirror_x else 1)
        y = np.sin(angle_rad) * (-1 if self.mirror_y else 1)
        turned: Floats = np.arctan2(x, y) if self.swap_xy else np.arctan2(y, x)
        return turned

    @property
    def turn(self) -> NDArray[np.int64]:
        """The (2, 2) matrix that takes vectors x, y of cryoSPARC's frame to RELION's."""
        mirrors = np.diag([-1 if self.mirror_x else 1, -1 if self.mirror_y else 1])
        return mirrors[::-1] if self.swap_xy else mirrors

    def image(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return images (n, ny, nx) of cryoSPARC's frame as they look in RELION's."""
        if self.mirror_x:
            images = images[:, :, ::-1]
        if self.mirror_y:
            images = images[:, ::-1, :]
        return images.transpose(0, 2, 1) if self.swap_xy else images

    @property
    def formula(self) -> str:
        """The axis convention as formulas."""
        less = " − 1" if self.is_exact else ""
        x = f"nx{less} − nx·fx" if self.mirror_x else "nx·fx"
        y = f"ny{less} − ny·fy" if self.mirror_y else "ny·fy"
        return f"x = {y}, y = {x}" if self.swap_xy else f"x = {x}, y = {y}"

    @property
    def words(self) -> str:
        """The axis convention in words."""
        mirrored = [name for name, is_mirrored in (("columns", self.mirror_x), ("rows", self.mirror_y)) if is_mirrored]
        axes = f"{' and '.join(mirrored)} counted from the other edge" if mirrored else "no axis reversed"
        return axes + (", then x and y exchanged" if self.swap_xy else "")

    @property
    def flips(self) -> tuple[str, ...]:
        """The options that choose it, of ``flip_x``, ``flip_y`` and ``swap_xy``."""
        # The default reverses rows; the option leaves them.
        is_given = {"flip_x": self.mirror_x, "flip_y": not self.mirror_y, "swap_xy": self.swap_xy}
        return tuple(name for name, given in is_given.items() if given)


ALL_CONVENTIONS = tuple(Convention(x, y, swap) for swap, x, y in product((False, True), repeat=3))
# Both programs count the stored rows and columns of one micrograph file.
AS_STORED = Convention(mirror_y=False)
