"""The images of items: read, cropped, normalised, and with the sign that is asked for."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cryobridge.dataset.memory import Recycled, keep_what_is_freed
from cryobridge.errors import CryobridgeError
from cryobridge.formats.image_reader import ImageReader
from cryobridge.fourier.background import BackgroundNorm
from cryobridge.fourier.downsample import Downsampler

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from cryobridge.formats.mrc import Images
    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.model.particles import ImageRefs

# Of stored images that are worked on together: they stay in a processor's cache.
_CHUNK_BYTES = 1 << 21


class _Opened:
    """The files that a thread of a process reads from, and what it makes of their images."""

    def __init__(self, images: ItemImages) -> None:
        self.process = os.getpid()
        self.reader = ImageReader(images.refs, images.headers, from_maps=True)
        self.memory = Recycled()
        keep_what_is_freed()
        self.make: Downsampler | BackgroundNorm | None = None
        radius_px = images.background_radius_px
        if images.new_box_px is not None:
            size_px = images.shape_px[0]
            self.make = Downsampler(size_px, images.new_box_px, background_radius_px=radius_px, ramp=images.ramp)
        elif radius_px is not None:
            self.make = BackgroundNorm(images.shape_px, radius_px, ramp=images.ramp)

    def __del__(self) -> None:
        self.reader.close()


class _ByThread(threading.local):
    """What each thread has opened; nothing of it goes to another process."""

    opened: _Opened | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _ByThread, ()


@dataclass(frozen=True, eq=False)
class ItemImages:
    """Where the images of a set are, and what is made of them.

    Files are opened by the process and the thread that read them: neither a fork nor a copy that is sent to another
    process has files or memory maps of this one.

    Parameters
    ----------
    refs
        Where the image of each row is.
    headers
        Of each file, by its number there.
    shape_px
        (ny, nx) of the images as they are stored.
    new_box_px
        Edge of the images that are made; None for those that are stored.
    background_radius_px, ramp
        The norm; see `cryobridge.fourier.downsample.Downsampler`.
    is_inverted
        (n,) which rows are multiplied by -1; None for none.
    """

    refs: ImageRefs
    headers: dict[int, MrcHeader]
    shape_px: tuple[int, int]
    new_box_px: int | None = None
    background_radius_px: int | None = None
    ramp: bool = True
    is_inverted: NDArray[np.bool_] | None = None
    _by_thread: _ByThread = field(default_factory=_ByThread, repr=False)

    @property
    def item_shape_px(self) -> tuple[int, int]:
        """(ny, nx) of the images that are made."""
        return self.shape_px if self.new_box_px is None else (self.new_box_px, self.new_box_px)

    @property
    def changes_pixels(self) -> bool:
        """Whether images are made anew from those that are stored."""
        return self.new_box_px is not None or self.background_radius_px is not None

    def of(self, refs: ImageRefs, rows: Rows) -> ItemImages:
        """Return the same for some of the rows, whose images are named anew."""
        inverted = None if self.is_inverted is None else self.is_inverted[rows]
        return replace(self, refs=refs, is_inverted=inverted, _by_thread=_ByThread())

    def read(self, rows: Rows) -> Tensor:
        """Return the images of these rows, (n, ny, nx) float32.

        Raises
        ------
        FormatError
            If a file can't be read any more.
        CryobridgeError
            If an image can't be normalised.
        """
        opened = self._opened()
        images = opened.memory.empty((len(rows), *self.item_shape_px), torch.float32)
        pixels: Images = images.numpy()
        if not self.changes_pixels and self.is_inverted is None:
            opened.reader.read(rows, pixels)
            return images
        at_once = max(1, _CHUNK_BYTES // (4 * self.shape_px[0] * self.shape_px[1]))
        for first in range(0, len(rows), at_once):
            part = slice(first, first + at_once)
            self._make(opened, rows[part], pixels[part])
        return images

    def _make(self, opened: _Opened, rows: Rows, out: Images) -> None:
        if opened.make is None:
            opened.reader.read(rows, out)
        else:
            out[...] = opened.make(opened.reader.read(rows))
            is_finite = np.isfinite(out.sum(axis=(1, 2), dtype=np.float64))
            if not is_finite.all():
                constant = ", or has a constant background" if self.background_radius_px is not None else ""
                self.refuse(rows[~is_finite], f"holds NaN or infinity{constant}")
        if self.is_inverted is not None:
            inverted = self.is_inverted[rows]
            if inverted.all():
                np.negative(out, out=out)
            elif inverted.any():
                out[inverted] *= -1

    @property
    def memory(self) -> Recycled:
        """Memory of this thread for images and what is made of them."""
        return self._opened().memory

    def refuse(self, rows: Rows, why: str) -> None:
        """Raise the error that the images of these rows can't be used."""
        row = int(rows[0])
        raise CryobridgeError(
            f"image {self.refs.index[row] + 1} {why}",
            path=self.headers[int(self.refs.path.codes[row])].path,
            count=len(rows),
            hint="Leave its particle out of the rows of the dataset.",
        )

    def _opened(self) -> _Opened:
        opened = self._by_thread.opened
        if opened is None or opened.process != os.getpid():
            opened = self._by_thread.opened = _Opened(self)
        return opened
