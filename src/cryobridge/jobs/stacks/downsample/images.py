"""Making the downsampled images: blocks are read and shrunk in several threads, and written in their order."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.mrc_write import MrcStackWriter
from cryobridge.fourier.downsample import Downsampler
from cryobridge.jobs.stacks.reading import ImageReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.downsample.plan import DownsamplePlan, OutputStack
    from cryobridge.jobs.stacks.downsample.state import DownsampleState

# Of source images in a block: few enough that its arrays stay in the cache and their memory is used again, many
_BLOCK_BYTES = 1 << 20
_MOST_THREADS = 16
_SHOWN = 3


@dataclass(frozen=True)
class _Block:
    """Some consecutive images of a stack, shrunk, and which of them can't be used."""

    places: Rows
    images: NDArray[np.float32 | np.float16]
    is_unusable: NDArray[np.bool_]


class StackMaker:
    """Makes the stacks of a plan; a context manager.

    Parameters
    ----------
    plan
        What to make.
    folder
        Where.
    device
        Where images are shrunk.
    state
        What is known of images that can't be used; more are added.
    advance
        Called with a number of images that are done.
    """

    def __init__(
        self,
        plan: DownsamplePlan,
        folder: Path,
        device: str,
        state: DownsampleState,
        advance: Callable[[int], None],
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._state = state
        self._advance = advance
        self._shrink = Downsampler(plan.box_px, plan.options.box_px, device)
        self._dtype = np.float16 if plan.options.half_precision else np.float32
        n_threads = min(_MOST_THREADS, os.cpu_count() or 1)
        in_memory = plan.options.batch_size
        image_bytes = 4 * plan.box_px**2
        self._block_size = max(1, min(in_memory // (n_threads + 2), _BLOCK_BYTES // image_bytes))
        self._n_ahead = max(1, min(n_threads + 2, in_memory // self._block_size))
        self._pool = ThreadPoolExecutor(n_threads, "shrink")
        self._reader = ImageReader(plan.source)
        self._reading = threading.Lock()

    def __enter__(self) -> StackMaker:
        self._reader.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._reader.__exit__(None, None, None)

    def make(self, stack: OutputStack) -> None:
        """Make one stack, or what is left of it.

        Raises
        ------
        CryobridgeError
            If an image can't be read or used, or the file not be written; what was written stays for a resumption.
        """
        usable = np.setdiff1d(stack.places, self._state.left_out, assume_unique=True)
        box = (self._plan.options.box_px, self._plan.options.box_px)
        path = self._folder / stack.name
        with MrcStackWriter(path, box, self._plan.new_pixel_size_A, dtype=self._dtype, resumable=True) as writer:
            self._advance(writer.n_images)
            todo = usable[writer.n_images :]
            starts = iter(range(0, len(todo), self._block_size))
            ahead: deque[Future[_Block]] = deque()
            while True:
                while len(ahead) < self._n_ahead and (first := next(starts, None)) is not None:
                    ahead.append(self._pool.submit(self._block, todo[first : first + self._block_size]))
                if not ahead:
                    break
                block = ahead.popleft().result()
                images = block.images
                if block.is_unusable.any():
                    self._leave_out(block.places[block.is_unusable])
                    images = images[~block.is_unusable]
                writer.append(images)
                self._advance(len(block.places))

    def _block(self, places: Rows) -> _Block:
        with self._reading:
            pixels = self._reader.read(places)
        images = self._shrink(pixels)
        # A value that is not finite spreads over its whole image, so that one sum tells.
        is_unusable = ~np.isfinite(images.sum(axis=(1, 2), dtype=np.float64))
        if self._dtype is np.float32:
            return _Block(places, images, is_unusable)
        largest = np.abs(images).max(axis=(1, 2), initial=0)
        too_large = ~is_unusable & (largest > np.finfo(np.float16).max)
        if too_large.any():
            self._refuse_float16(places[too_large], float(largest[too_large][0]))
        with np.errstate(over="ignore", invalid="ignore"):
            return _Block(places, images.astype(np.float16), is_unusable)

    def _leave_out(self, places: Rows) -> None:
        if self._plan.options.on_missing == "skip":
            self._state.leave_out(places)
            return
        source, place = self._plan.source, int(places[0])
        raise CryobridgeError(
            f"image {source.images.index[place] + 1} holds NaN or infinity, which would spread over all of it",
            path=source.headers[int(source.images.path.codes[place])].path,
            rows=tuple(source.source_rows[places[:_SHOWN]].tolist()),
            count=len(places),
            hint=f"Leave such images out with --on-missing skip, or take these rows out of {source.particles.source}.",
        )

    def _refuse_float16(self, places: Rows, value: float) -> None:
        raise CryobridgeError(
            f"a pixel of {value:g} is beyond what float16 holds",
            path=self._plan.source.particles.source,
            rows=tuple(self._plan.source.source_rows[places[:_SHOWN]].tolist()),
            count=len(places),
            hint="Leave --float16 out.",
        )
