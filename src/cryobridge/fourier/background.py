"""Normalising images to their background, as RELION does when it extracts particles."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.model.background import outside_circle

# Below this part of what was subtracted, a deviation is what rounding to single precision leaves of a constant.
_ROUNDING = 5e-7
# What RELION takes for no deviation.
_LEAST_STD = 1e-10


class BackgroundNorm:
    """Gives images a background of mean 0 and standard deviation 1; may be called from several threads.

    The values are those of ``relion_preprocess --norm --bg_radius RADIUS``, to what single precision holds: a plane is
    fitted to the background by least squares (with ``--no_ramp`` the mean), subtracted from all of the image, and the
    image divided by the root of the mean square of what is left of the background.

    Parameters
    ----------
    shape_px
        (ny, nx) of the images.
    radius_px
        The background is what lies outside of this radius (see `cryobridge.model.background.outside_circle`).
    ramp
        Whether a plane is subtracted, as RELION does by default, or the mean alone.
    device
        A device of torch; None for numpy arrays.

    Raises
    ------
    UsageError
        If the circle is larger than the image, which RELION refuses too.

    Examples
    --------
    >>> norm = BackgroundNorm((64, 64), 24)
    >>> images = norm(np.random.default_rng(0).normal(50, 7, (2, 64, 64)).astype("f4"))
    >>> outside = outside_circle((64, 64), 24)
    >>> np.allclose(images[:, outside].mean(1), 0, atol=1e-5), np.allclose(images[:, outside].std(1), 1)
    (True, True)
    """

    def __init__(self, shape_px: tuple[int, int], radius_px: int, *, ramp: bool = True, device: Any = None) -> None:
        if radius_px < 0 or 2 * radius_px > min(shape_px):
            text = f"a circle with a radius of {radius_px} px does not fit into images of {min(shape_px)} px"
            raise UsageError(text, field="radius_px", hint=f"Give at most {min(shape_px) // 2}.")
        outside = outside_circle(shape_px, radius_px)
        # Fractions of the box, so that the equations are of numbers of one size.
        y, x = ((np.arange(n) - n // 2) / n for n in shape_px)
        planes = [outside, outside * x, outside * y[:, np.newaxis]] if ramp else [outside]
        terms = np.array([plane[outside] for plane in planes], np.float64)
        arrays = [np.linalg.pinv(terms @ terms.T), y, x, *planes[:2]]
        self._n_outside = int(outside.sum())
        self._modules: Any = (np, np.vecdot)
        if device is not None:
            import torch

            self._modules = (torch, torch.linalg.vecdot)
        self._solution, self._y, self._x, self._outside, *self._outside_x = (
            self._placed(array.astype(np.float32), device) for array in arrays
        )

    def _placed(self, array: Any, device: Any) -> Any:
        return array if device is None else self._modules[0].from_numpy(array).to(device)

    def __call__(self, images: Any) -> Any:
        """Return images (n, ny, nx) with the norm, float32; NaN throughout an image that can't have it.

        Such images hold NaN or infinity, or have a constant background. What becomes of an image does not depend on
        the others that come with it.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            return self._normalised(images)

    def _normalised(self, images: Any) -> Any:
        arrays, dot = self._modules
        level = images[:, 0].mean(1)
        # Single precision is enough around the level of an image.
        images = images - level[:, None, None]
        images -= self._ramp(images)
        std = (dot(images * self._outside, images).sum(1) / self._n_outside) ** 0.5
        # Written as what must hold, so that NaN fails it.
        is_good = (std > abs(level) * _ROUNDING) & (std > _LEAST_STD) & arrays.isfinite(std)
        images *= arrays.where(is_good, 1 / arrays.where(is_good, std, 1), np.nan)[:, None, None]
        return images

    def _ramp(self, images: Any) -> Any:
        """Return the planes that fit the background of images, or their mean."""
        arrays, dot = self._modules
        rows = dot(images, self._outside)
        if not self._outside_x:
            return (rows.sum(1) * self._solution[0, 0])[:, None, None]
        moments = arrays.stack((rows.sum(1), dot(images, self._outside_x[0]).sum(1), dot(rows, self._y)), 1)
        mean, along_x, along_y = dot(moments[:, None, :], self._solution).T
        return (mean[:, None] + along_y[:, None] * self._y)[:, :, None] + (along_x[:, None] * self._x)[:, None, :]
