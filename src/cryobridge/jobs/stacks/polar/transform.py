"""Pixels -> normalised images and their transforms, on one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cryobridge.fourier.devices import batch_size_for
from cryobridge.fourier.images import bin_images, normalise_fourier, normalise_images
from cryobridge.fourier.polar import PolarTransform
from cryobridge.jobs.stacks.plan import Transform
from cryobridge.jobs.stacks.polar.writing import IMAGE_TYPE

if TYPE_CHECKING:
    from torch import Tensor

    from cryobridge.formats.mrc import Images
    from cryobridge.formats.table import Array
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.polar.plan import PolarPlan

# A chunk on the CPU need only be large beside what it costs to pass it on.
_CPU_CHUNK_BYTES = 64 << 20
# Chunks that are in hand at a time: one is transformed while the last is written and the one before is finishing.
_N_BUFFERS = 3
# On an accelerator: pixels, images, transforms and the engine's own work.
_ACCELERATOR_COPIES = 4
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


@dataclass(frozen=True)
class Transformed:
    """Images (n, N, N), their transforms (n, shells, angles), and which images (n,) can't be used; on the CPU.

    The tensors are overwritten when three more chunks have been transformed.
    """

    images: Tensor
    polar: Tensor
    is_unusable: Tensor
    arrived: torch.cuda.Event | None = None

    @property
    def unusable(self) -> Array:
        """Which images (n,) can't be used."""
        mask: Array = self.is_unusable.numpy()
        return mask

    def wait(self) -> None:
        """Wait until a GPU has delivered the tensors."""
        if self.arrived is not None:
            self.arrived.synchronize()


class PolarChunkTransform(Transform["Tensor", "Transformed"]):
    """Bins, normalises and transforms chunks of images; not to be shared among threads.

    Parameters
    ----------
    plan
        The grid, the box and the binning.
    device
        Where to work.
    """

    def __init__(self, plan: PolarPlan, device: str) -> None:
        self.device = torch.device(device)
        self.real_type = torch.float32 if plan.descriptor.precision == "single" else torch.float64
        self.complex_type = _COMPLEX[self.real_type]
        self._options = plan.options
        self._grid = plan.grid
        self._box = plan.descriptor.n_pixels
        self._transform = PolarTransform(plan.grid, self._box, dtype=self.real_type, device=self.device)
        self.chunk_size = self._images_a_chunk()
        self._most_at_once = self.chunk_size
        self._buffers = [self._new_buffers() for _ in range(_N_BUFFERS)]
        # Chunks alternate between two streams, so that copies of one overlap with the transform of the other.
        n_streams = 2 if self.device.type == "cuda" else 0
        self._streams = [torch.cuda.Stream(self.device) for _ in range(n_streams)]  # type: ignore[no-untyped-call]
        self._n_done = 0

    def prepare(self, _rows: Rows, pixels: Images) -> Tensor:
        """Return pixels where a GPU can fetch them by itself."""
        tensor = torch.from_numpy(pixels)
        return tensor.pin_memory() if self._streams else tensor

    def __call__(self, pixels: Tensor) -> Transformed:
        """Transform a chunk.

        Parameters
        ----------
        pixels
            (n, ny, nx) float32 on the CPU, n at most `chunk_size`. An out-of-memory on a GPU halves the number of
            images that are given to it at a time, from then on.
        """
        n = len(pixels)
        images, polar, unusable = (buffer[:n] for buffer in self._buffers[self._n_done % _N_BUFFERS])
        arrived = None
        if self._streams:
            stream = self._streams[self._n_done % len(self._streams)]
            with torch.cuda.stream(stream):
                self._in_parts(pixels, images, polar, unusable)
                arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
                arrived.record(stream)
        else:
            self._in_parts(pixels, images, polar, unusable)
        self._n_done += 1
        return Transformed(images, polar, unusable, arrived)

    def _in_parts(self, pixels: Tensor, images: Tensor, polar: Tensor, unusable: Tensor) -> None:
        first = 0
        while first < len(pixels):
            part = slice(first, first + self._most_at_once)
            try:
                self._part(pixels[part], images[part], polar[part], unusable[part])
            except torch.cuda.OutOfMemoryError:
                if self._most_at_once == 1:
                    raise
                self._most_at_once //= 2
                torch.cuda.empty_cache()
                continue
            first += self._most_at_once

    def _part(self, pixels: Tensor, images: Tensor, polar: Tensor, unusable: Tensor) -> None:
        on_device = pixels.to(self.device, self.real_type, non_blocking=True)
        if self._options.downsample_factor > 1:
            on_device = bin_images(on_device, self._options.downsample_factor, self._options.downsample_type)
        normalised, no_signal = normalise_images(on_device)
        # On the CPU the transform is written where it stays.
        out = polar if self.device.type == "cpu" else None
        transformed = self._transform.forward(normalised, out=out)
        transformed, no_norm = normalise_fourier(transformed, self._grid, out=transformed)
        images.copy_(normalised, non_blocking=True)
        if out is None:
            polar.copy_(transformed, non_blocking=True)
        unusable.copy_(no_signal | no_norm, non_blocking=True)

    def _images_a_chunk(self) -> int:
        bytes_per_image = self._transform.bytes_per_image
        if self.device.type == "cpu":
            return max(1, min(self._options.batch_size, _CPU_CHUNK_BYTES // bytes_per_image))
        return batch_size_for(self.device, _ACCELERATOR_COPIES * bytes_per_image, min(self._options.batch_size, 1024))

    def _new_buffers(self) -> tuple[Tensor, Tensor, Tensor]:
        pinned = self.device.type == "cuda"
        n = self.chunk_size
        return (
            torch.empty((n, *self._box), dtype=IMAGE_TYPE, pin_memory=pinned),
            torch.empty((n, self._grid.n_shells, self._grid.n_inplanes), dtype=self.complex_type, pin_memory=pinned),
            torch.empty(n, dtype=torch.bool, pin_memory=pinned),
        )
