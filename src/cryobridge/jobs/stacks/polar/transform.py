"""Pixels -> normalised images and their transforms, on one device."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from cryobridge.executors.threads import thread_count
from cryobridge.fourier.devices import batch_size_for
from cryobridge.fourier.images import bin_images, normalised_transforms
from cryobridge.fourier.polar import PolarTransform
from cryobridge.jobs.stacks.plan import Transform
from cryobridge.jobs.stacks.polar.writing import IMAGE_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from cryobridge.formats.mrc import Images
    from cryobridge.formats.table import Array
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.polar.plan import PolarPlan

# A chunk on the CPU need only be large beside what it costs to pass it on: it stays in the cache on its way.
_CPU_CHUNK_BYTES = 16 << 20
# Threads that transform chunks side by side on the CPU, each on one core. They don't wait for each other, as torch's
# threads do at the end of each step; more of them would wait for Python's lock.
_MOST_THREADS = 8
# On an accelerator: pixels, images, transforms and the engine's own work.
_ACCELERATOR_COPIES = 4
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def n_transforming() -> int:
    """Return how many threads transform chunks on the CPU."""
    return min(_MOST_THREADS, thread_count(), torch.get_num_threads())


@contextmanager
def one_core_each() -> Iterator[None]:
    """Let torch use one core for each thread that transforms.

    The last digit of some of its transforms depends on how many it uses. So stacks are the same on all machines alike.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@dataclass(frozen=True)
class Transformed:
    """Images (n, N, N), their transforms (n, shells, angles), and which images (n,) can't be used; on the CPU.

    The tensors are overwritten after `release`.
    """

    images: Tensor
    polar: Tensor
    is_unusable: Tensor
    release: Callable[[], None]
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


class PolarChunkTransform(Transform["Tensor | Transformed", "Transformed"]):
    """Bins, normalises and transforms chunks of images: on the CPU in several threads, on a GPU one after the other.

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
        self.chunk_size = self._most_at_once = self._images_a_chunk()
        self._on_cpu = self.device.type == "cpu"
        if self._on_cpu:
            self.n_threads = n_transforming()
            self.n_ahead = self.n_threads + 2
            self._most_at_once = min(self.chunk_size, self._transform.images_at_a_time)
        self._buffers: deque[tuple[Tensor, Tensor, Tensor]] = deque()
        # Chunks alternate between two streams, so that copies of one overlap with the transform of the other.
        n_streams = 2 if self.device.type == "cuda" else 0
        self._streams = [torch.cuda.Stream(self.device) for _ in range(n_streams)]  # type: ignore[no-untyped-call]
        self._n_done = 0

    def prepare(self, _rows: Rows, pixels: Images) -> Tensor | Transformed:
        """Transform a chunk on the CPU; for a GPU, put pixels where it can fetch them by itself.

        Parameters
        ----------
        pixels
            (n, ny, nx) float32, n at most `chunk_size`.
        """
        tensor = torch.from_numpy(pixels)
        if self._on_cpu:
            # Until it is asked for the number, a new thread has as many of torch's as there are cores.
            torch.get_num_threads()
            made = self._made(len(tensor))
            self._in_parts(tensor, made)
            return made
        return tensor.pin_memory() if self._streams else tensor

    def __call__(self, prepared: Tensor | Transformed) -> Transformed:
        """Return a chunk that was transformed, or have a GPU transform its pixels.

        An out-of-memory halves the number of images that are given to a GPU at a time, from then on.
        """
        if isinstance(prepared, Transformed):
            return prepared
        if not self._streams:
            made = self._made(len(prepared))
            self._in_parts(prepared, made)
            return made
        stream = self._streams[self._n_done % len(self._streams)]
        self._n_done += 1
        with torch.cuda.stream(stream):
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            made = self._made(len(prepared), arrived)
            self._in_parts(prepared, made)
            arrived.record(stream)
        return made

    def _made(self, n_images: int, arrived: torch.cuda.Event | None = None) -> Transformed:
        """Return where a chunk goes; memory that was released is used again, as fresh memory costs time."""
        try:
            buffers = self._buffers.pop()
        except IndexError:
            buffers = self._new_buffers()
        images, polar, unusable = (buffer[:n_images] for buffer in buffers)
        return Transformed(images, polar, unusable, partial(self._buffers.append, buffers), arrived)

    def _in_parts(self, pixels: Tensor, made: Transformed) -> None:
        images, polar, unusable = made.images, made.polar, made.is_unusable
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
        # On the CPU results are written where they stay.
        stays = self._on_cpu and self.real_type == IMAGE_TYPE
        normalised, transformed, cannot_be_used = normalised_transforms(
            on_device, self._transform, out=images if stays else None, polar_out=polar if self._on_cpu else None
        )
        if not stays:
            images.copy_(normalised, non_blocking=True)
        if not self._on_cpu:
            polar.copy_(transformed, non_blocking=True)
        unusable.copy_(cannot_be_used, non_blocking=True)

    def _images_a_chunk(self) -> int:
        bytes_per_image = self._transform.bytes_per_image
        if self.device.type == "cpu":
            fitting, batch = _CPU_CHUNK_BYTES // bytes_per_image, self._transform.images_at_a_time
            whole_batches = fitting // batch * batch or batch
            return max(1, min(self._options.batch_size, whole_batches, 4 * _CPU_CHUNK_BYTES // bytes_per_image))
        return batch_size_for(self.device, _ACCELERATOR_COPIES * bytes_per_image, min(self._options.batch_size, 1024))

    def _new_buffers(self) -> tuple[Tensor, Tensor, Tensor]:
        pinned = self.device.type == "cuda"
        n = self.chunk_size
        return (
            torch.empty((n, *self._box), dtype=IMAGE_TYPE, pin_memory=pinned),
            torch.empty((n, self._grid.n_shells, self._grid.n_inplanes), dtype=self.complex_type, pin_memory=pinned),
            torch.empty(n, dtype=torch.bool, pin_memory=pinned),
        )
