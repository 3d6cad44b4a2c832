"""The polar grid of CryoLike's image stacks: Gauss-Jacobi radii, uniform angles. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cryobridge.errors import UsageError

_FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PolarGrid:
    """Quadrature grid over the disc of radius ``radius_max``, the same angles on every shell.

    Parameters
    ----------
    radius_max
        Radius of the disc; a quarter of the box is Nyquist.
    dist_radii
        Largest distance between shells, on the scale of ``radius_max``.
    n_inplanes
        Angles on each shell.

    Raises
    ------
    UsageError
        If a value is not positive and finite.
    """

    radius_max: float
    dist_radii: float
    n_inplanes: int

    def __post_init__(self) -> None:
        for field in ("radius_max", "dist_radii", "n_inplanes"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{value} is not a positive number", field=field)

    @classmethod
    def for_box(
        cls,
        n_pixels: int,
        resolution_factor: float = 1.0,
        n_inplanes: int | None = None,
        dist_radii: float = 0.25,
    ) -> PolarGrid:
        """Grid for a square box: ``resolution_factor`` 1 reaches Nyquist; two angles a pixel by default."""
        radius_max = resolution_factor * n_pixels / 4
        return cls(radius_max, dist_radii, 2 * n_pixels if n_inplanes is None else n_inplanes)

    @property
    def n_shells(self) -> int:
        """Number of radii."""
        return 1 + math.ceil(self.radius_max / self.dist_radii)

    @property
    def n_points(self) -> int:
        """Number of points, shells times angles."""
        return self.n_shells * self.n_inplanes

    @cached_property
    def _nodes(self) -> tuple[_FloatArray, _FloatArray]:
        from scipy.special import roots_jacobi

        nodes, weights = roots_jacobi(self.n_shells, 0.0, 1.0)
        return np.asarray(nodes, np.float64), np.asarray(weights, np.float64)

    @property
    def radii(self) -> _FloatArray:
        """(n_shells,) radius of each shell: Gauss-Jacobi nodes (α = 0, β = 1) stretched to the disc."""
        return (self._nodes[0] + 1.0) * (self.radius_max / 2)

    @property
    def shell_weights(self) -> _FloatArray:
        """(n_shells,) quadrature weights of ∫ … dx dy / (2π)² over whole shells."""
        return self._nodes[1] * (2 * np.pi * (self.radius_max / 2) ** 2 / (2 * np.pi) ** 2)

    @property
    def point_weights(self) -> _FloatArray:
        """(n_shells, n_inplanes) the shell weights, shared equally among the angles; read-only."""
        weights = self.shell_weights[:, None] / self.n_inplanes
        return np.broadcast_to(weights, (self.n_shells, self.n_inplanes))

    @property
    def angles_rad(self) -> _FloatArray:
        """(n_inplanes,) angles from axis 0 towards axis 1 of the image, from 0, in radians."""
        return 2 * np.pi * np.arange(self.n_inplanes) / self.n_inplanes
