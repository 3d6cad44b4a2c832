"""Making images smaller, in several threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, option
from cryobridge.executors.threads import thread_count
from cryobridge.jobs.stacks.plan import Transform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.mrc import Images
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.cropping.plan import DownsamplePlan

# Of source images in a chunk: few enough that its arrays stay in the cache and their memory is used again.
_CHUNK_BYTES = 1 << 20
_MOST_THREADS = 16
_N_SHOWN = 3


@dataclass(frozen=True)
class SmallImages:
    """Images (n, m, m) that were made smaller, and which of them (n,) can't be used."""

    images: NDArray[np.float32 | np.float16]
    unusable: NDArray[np.bool_]

    def wait(self) -> None:
        """They are there."""


class SmallTransform(Transform[SmallImages, SmallImages]):
    """Crops the transforms of images, and normalises them; see `cryobridge.jobs.stacks.plan.Transform`.

    Parameters
    ----------
    plan
        The boxes, the precision, and how many images may be in memory.
    device
        Where to work.
    """

    def __init__(self, plan: DownsamplePlan, device: str) -> None:
        self._plan = plan
        self._shrink = plan.downsampler(device)
        self.n_threads = min(_MOST_THREADS, thread_count())
        in_memory = plan.options.batch_size
        self.chunk_size = max(1, min(in_memory // (self.n_threads + 2), _CHUNK_BYTES // (4 * plan.box_px**2)))
        self.n_ahead = max(1, min(self.n_threads + 2, in_memory // self.chunk_size))

    def prepare(self, rows: Rows, pixels: Images) -> SmallImages:
        """Make the images (n, ny, nx) of these rows smaller."""
        if len(rows) == 0:
            pixels = np.empty((0, self._plan.options.box_px, self._plan.options.box_px), np.float32)
        images = self._shrink(pixels) if len(rows) else pixels
        if self._plan.inverted is not None:
            images = np.where(self._plan.inverted[rows][:, np.newaxis, np.newaxis], -images, images)
        # A value that is not finite spreads over its whole image, so that one sum shows it; no norm is NaN.
        unusable = ~np.isfinite(images.sum(axis=(1, 2), dtype=np.float64))
        if not self._plan.options.half_precision:
            return SmallImages(images, unusable)
        largest = np.abs(images).max(axis=(1, 2), initial=0)
        too_large = ~unusable & (largest > np.finfo(np.float16).max)
        if too_large.any():
            self._refuse_float16(rows[too_large], float(largest[too_large][0]))
        with np.errstate(over="ignore", invalid="ignore"):
            return SmallImages(images.astype(np.float16), unusable)

    def __call__(self, prepared: SmallImages) -> SmallImages:
        """Return the images, which are made."""
        return prepared

    def _refuse_float16(self, rows: Rows, value: float) -> None:
        source = self._plan.source
        raise CryobridgeError(
            f"a pixel of {value:g} is beyond what float16 holds",
            path=source.particles.source,
            rows=tuple(source.metadata_rows[rows[:_N_SHOWN]].tolist()),
            count=len(rows),
            hint=f"Leave {option('half_precision')} out.",
        )
