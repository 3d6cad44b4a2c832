"""What pictures of a stack are drawn from, picked out while the stack is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryobridge.fourier.images import power_spectrum
from cryobridge.jobs.stacks.polar.output import fourier_stack_path, physical_stack_path
from cryobridge.plots.images import evenly_spaced

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from cryobridge.jobs.stacks.checks import Rows


# Images whose transforms are in memory while a stack is read again.
_AT_ONCE = 64


@dataclass(frozen=True)
class Preview:
    """What pictures of a stack are drawn from.

    Parameters
    ----------
    n_images
        Images in the stack.
    rows
        Rows of the images that are drawn, evenly spaced over the stack.
    images
        (≤ 16, N, N) normalised.
    polar
        (≤ 16, shells, angles) their transforms.
    power
        (shells,) mean power of all images of the stack.
    """

    n_images: int
    rows: Rows
    images: Tensor
    polar: Tensor
    power: Tensor


class PreviewMaker:
    """Picks out of a stack of these rows what its pictures show."""

    def __init__(self, rows: Rows) -> None:
        self._shown = rows[evenly_spaced(len(rows))]
        self._rows: list[Rows] = []
        self._images: list[Tensor] = []
        self._polar: list[Tensor] = []
        self._power: Tensor | None = None
        self._n_images = 0

    def add(self, rows: Rows, images: Tensor, polar: Tensor) -> None:
        """Take note of some images, of these rows."""
        chosen = np.flatnonzero(np.isin(rows, self._shown))
        self._rows.append(rows[chosen])
        self._images.append(images[chosen].clone())
        self._polar.append(polar[chosen].clone())
        power = power_spectrum(polar).sum(0, dtype=torch.float64)
        self._power = power if self._power is None else self._power + power
        self._n_images += len(rows)

    def preview(self) -> Preview:
        """Return what was picked."""
        assert self._power is not None
        return Preview(
            self._n_images,
            np.concatenate(self._rows),
            torch.cat(self._images),
            torch.cat(self._polar),
            self._power / max(1, self._n_images),
        )


def preview_of(folder: Path, number: int, planned: Rows, left_out: Rows) -> Preview:
    """Return what pictures of a stack are drawn from that is there with its images.

    Parameters
    ----------
    folder, number
        Where the stack is.
    planned, left_out
        The rows of the stack, and those of them that have no image in it.
    """
    made = planned[~np.isin(planned, left_out)]
    images = torch.load(physical_stack_path(folder, number), mmap=True, weights_only=True)
    polar = torch.load(fourier_stack_path(folder, number), mmap=True, weights_only=True)
    maker = PreviewMaker(planned)
    for first in range(0, len(made), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        maker.add(made[rows], images[rows], polar[rows])
    return maker.preview()
