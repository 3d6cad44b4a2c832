"""What a user may ask of a downsampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import UsageError
from cryobridge.options import as_path

if TYPE_CHECKING:
    from cryobridge.jobs.stacks.options import OnMissing


@dataclass(frozen=True)
class DownsampleOptions:
    """The options of a downsampling.

    Parameters
    ----------
    box_px
        Edge of the new images in pixels, even.
    batch_size
        Images in memory at a time, at most.
    chunk
        Images in a file; None for one file of all.
    indices
        A file of rows to take, counted from 0; None for all.
    pixel_size_A
        Pixel size of the images in Å, for metadata that do not say.
    poses, ctf
        Pickles that go with a bare stack.
    half_precision
        Write float16.
    on_missing
        What to do about particles without a usable image: ``"error"``, or ``"skip"`` and count them.

    Raises
    ------
    UsageError
        If a value is impossible, or what is to be a file is neither a text nor a path.
    """

    box_px: int
    batch_size: int = 1000
    chunk: int | None = None
    indices: Path | None = None
    pixel_size_A: float | None = None
    poses: Path | None = None
    ctf: Path | None = None
    half_precision: bool = False
    on_missing: OnMissing = "error"

    def __post_init__(self) -> None:
        for name in ("indices", "poses", "ctf"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else as_path(value, name))
        if self.box_px < 2 or self.box_px % 2:
            even = max(2, self.box_px - 1)
            raise UsageError(
                f"a box of {self.box_px} px is not even, as RECOVAR, cryoDRGN and RELION need it",
                field="-D",
                hint=f"Use {even} or {even + 2}.",
            )
        if self.batch_size < 1 or (self.chunk is not None and self.chunk < 1):
            raise UsageError("--batch-size and --chunk are numbers of images, at least 1", hint="Leave them out.")
        if self.pixel_size_A is not None and not (math.isfinite(self.pixel_size_A) and self.pixel_size_A > 0):
            raise UsageError(f"{self.pixel_size_A} Å is no pixel size", field="--pixel-size")

    @property
    def stem(self) -> str:
        """What the names of the stack and its metadata begin with."""
        return f"particles.{self.box_px}"
