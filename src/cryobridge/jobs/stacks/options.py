"""What a user may ask of a stack conversion."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Literal

from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from cryobridge.formats.descriptor import ImageDescriptor

Order = Literal["row", "file"]
OnMissing = Literal["error", "skip"]
DownsampleType = Literal["mean", "max"]


@dataclass(frozen=True)
class StackOptions:
    """The options of a conversion, the same for all ways in.

    Parameters
    ----------
    descriptor
        The images, after binning, and the polar grid; None for the default grid of the data, adjusted by
        ``resolution_factor``, ``n_inplanes`` and ``precision``.
    batch_size
        Images in a stack.
    n_stacks_max
        Make at most so many stacks; None for all.
    pixel_size_A
        Pixel size of the image files, in Å, for metadata that do not say; it must not contradict those that do.
    downsample_factor
        Edge in pixels of the blocks that are binned, even; 1 for none.
    downsample_type
        Whether a block becomes its mean or its largest value.
    order
        ``"row"`` keeps the order of the metadata, ``"file"`` sorts by file name, as CryoLike does.
    on_missing
        What to do about particles without a usable image: ``"error"``, or ``"skip"`` and count them.
    split_optics
        Give each set of lens values (voltage, spherical aberration, amplitude contrast) stacks of its own.
    separate_files
        Never put images of two files into one stack.
    physical
        Write the normalised real-space images too.
    plots
        Draw pictures of each stack.

    Raises
    ------
    UsageError
        If a value is impossible, or a grid is given twice over.
    """

    descriptor: ImageDescriptor | None = None
    resolution_factor: float = 1.0
    n_inplanes: int | None = None
    precision: Literal["single", "double"] = "single"
    batch_size: int = 1024
    n_stacks_max: int | None = None
    pixel_size_A: float | None = None
    downsample_factor: int = 1
    downsample_type: DownsampleType = "mean"
    order: Order = "row"
    on_missing: OnMissing = "error"
    split_optics: bool = False
    separate_files: bool = False
    physical: bool = True
    plots: bool = True

    def __post_init__(self) -> None:
        adjusted = self.resolution_factor != 1.0 or self.n_inplanes is not None or self.precision != "single"
        if self.descriptor is not None and adjusted:
            raise UsageError(
                "the parameter file holds the whole grid; a resolution factor, a number of angles or a precision "
                "beside it would contradict it",
                hint="Leave out either.",
            )
        for name in ("batch_size", "n_stacks_max", "n_inplanes", "downsample_factor"):
            number = getattr(self, name)
            if number is not None and not isinstance(number, Integral):
                raise UsageError(f"{number!r} is no whole number", field=name)
        if self.batch_size < 1:
            raise UsageError(f"a stack of {self.batch_size} images can't be made", field="batch_size")
        if self.n_stacks_max is not None and self.n_stacks_max < 1:
            raise UsageError(f"{self.n_stacks_max} stacks can't be made", field="n_stacks_max")
        if self.downsample_factor != 1 and (self.downsample_factor < 2 or self.downsample_factor % 2):
            raise UsageError(
                f"the binning factor {self.downsample_factor} is not a positive even number",
                field="downsample_factor",
                hint="Use 2, 4, 6 …, or 1 for no binning.",
            )
        if self.pixel_size_A is not None and not 0 < self.pixel_size_A < float("inf"):
            raise UsageError(f"{self.pixel_size_A} Å is no pixel size", field="pixel_size")
