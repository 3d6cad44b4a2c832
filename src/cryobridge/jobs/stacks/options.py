"""What a user may ask of the stacks jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cryobridge.errors import UsageError, option
from cryobridge.fourier.device_names import split_device_names
from cryobridge.jobs.shared_options import Options, PixelOptions
from cryobridge.options import Opt

if TYPE_CHECKING:
    from cryobridge.formats.descriptor import ImageDescriptor

OnMissing = Literal["error", "skip"]
AngleUnit = Literal["degree", "radian"]
_GRID, _IMAGES, _RUN = "Grid", "Images", "Run"


@dataclass(frozen=True, kw_only=True)
class GridOptions(Options):
    """The polar grid of Fourier stacks."""

    resolution_factor: Annotated[
        float, Opt("Radius of the grid; 1 reaches Nyquist.", metavar="X", panel=_GRID, low=0.01)
    ] = 1.0
    n_inplanes: Annotated[
        int | None, Opt("Angles on a shell; 2 × box if left out.", metavar="N", panel=_GRID, low=1)
    ] = None
    precision: Annotated[Literal["single", "double"], Opt("Of the output.", panel=_GRID)] = "single"


@dataclass(frozen=True, kw_only=True)
class GridImages(Options):
    """The images that a parameter file is for."""

    n_pixels: Annotated[int, Opt("Box of the images.", metavar="N", low=2)]
    pixel_size_A: Annotated[float, Opt("Pixel size of the images.", metavar="Å")]

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_pixel_size(self.pixel_size_A)


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """What the stacks are made on; it is looked for before anything is written."""

    device: Annotated[str, Opt("auto, cpu, cuda, cuda:0,cuda:1 or mps.", metavar="NAME", panel=_RUN)] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        split_device_names(self.device)


@dataclass(frozen=True, kw_only=True)
class DownsampleDeviceOptions(DeviceOptions):
    """The same for downsampling, which the processor is fast enough for."""

    device: Annotated[str, Opt("cpu keeps up with disks; auto, cuda, cuda:1 or mps.", metavar="NAME", panel=_RUN)] = (
        "cpu"
    )


@dataclass(frozen=True, kw_only=True)
class SharingOptions(Options):
    """How several processes share the work."""

    part: Annotated[
        str | None,
        Opt("Make this part of the stacks, from 0; array: by the batch system.", metavar="K/N", panel=_RUN),
    ] = None
    cluster: Annotated[
        str | None,
        Opt(
            "Make them on Dask workers: local:4, tls://host:8786 or scheduler.json.",
            metavar="WHERE",
            panel=_RUN,
        ),
    ] = None
    finish: Annotated[bool, Opt("Check that all parts are whole and write what they share.", panel=_RUN)] = False


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """Options on the images, of all stacks jobs."""

    pixel_size_A: Annotated[
        float | None, Opt("For metadata that do not say the pixel size.", metavar="Å", panel=_IMAGES)
    ] = None
    on_missing: Annotated[OnMissing, Opt("What to do about particles without a usable image.", panel=_IMAGES)] = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_pixel_size(self.pixel_size_A)


@dataclass(frozen=True, kw_only=True)
class StackOptions(ImageOptions, GridOptions):
    """What is asked of a conversion to Fourier stacks, the same for all kinds of input.

    ``descriptor`` is an `ImageDescriptor`, the content of a parameter file, for who has no file of it;
    ``separate_files`` never puts images of two files into one stack, as it always is for paired STAR files. Neither is
    an option of the command line.

    Raises
    ------
    UsageError
        If a value is impossible, or a grid is given twice over.

    Examples
    --------
    >>> StackOptions(batch_size=256, precision="double").downsample_factor
    1
    """

    params: Annotated[
        Path | None, Opt("CryoLike parameter file.", flags=("-p", "--params"), metavar="FILE.npz", panel=_GRID)
    ] = None
    downsample_factor: Annotated[
        int, Opt("Bin blocks of N × N pixels; N is even.", metavar="N", panel=_IMAGES, low=1)
    ] = 1
    downsample_type: Annotated[Literal["mean", "max"], Opt("What becomes of a block.", panel=_IMAGES)] = "mean"
    batch_size: Annotated[
        int, Opt("Images in a stack.", flags=("-b", "--batch-size"), metavar="N", panel=_RUN, low=1)
    ] = 1024
    n_stacks_max: Annotated[int | None, Opt("Stop after N stacks.", metavar="N", panel=_RUN, low=1)] = None
    order: Annotated[Literal["row", "file"], Opt("As the metadata have them, or sorted by file name.", panel=_RUN)] = (
        "row"
    )
    split_optics: Annotated[
        bool, Opt("Start new stacks where voltage, Cs or amplitude contrast change.", panel=_RUN)
    ] = False
    physical: Annotated[bool, Opt("Write the normalised images too.", flags=("--phys/--no-phys",), panel=_RUN)] = True
    plots: Annotated[bool, Opt("Draw pictures of each stack.", flags=("--plots/--no-plots",), panel=_RUN)] = True
    descriptor: Any = None
    separate_files: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        adjusted = self.resolution_factor != 1.0 or self.n_inplanes is not None or self.precision != "single"
        if (self.params is not None or self.descriptor is not None) and adjusted:
            raise UsageError(
                f"{option('params')} holds the whole grid; {option('resolution_factor')}, {option('n_inplanes')} and "
                f"{option('precision')} would contradict it",
                hint="Leave out either.",
            )
        if self.params is not None and self.descriptor is not None:
            raise UsageError("a parameter file and a descriptor contradict each other", hint="Give either.")
        if self.downsample_factor != 1 and self.downsample_factor % 2:
            raise UsageError(
                f"{self.downsample_factor} is not even",
                option="downsample_factor",
                hint="Use 2, 4, 6 …, or 1 for no binning.",
            )

    def image_descriptor(self) -> ImageDescriptor | None:
        """Return the content of the parameter file, or None without one.

        Raises
        ------
        FormatError
            If it can't be read.
        """
        from cryobridge.formats.descriptor import ImageDescriptor, read_image_descriptor

        if self.params is not None:
            return read_image_descriptor(self.params)
        if self.descriptor is None or isinstance(self.descriptor, ImageDescriptor):
            return self.descriptor
        raise UsageError(
            f"an ImageDescriptor is needed, not {self.descriptor!r:.60}",
            option="descriptor",
            hint=f"Give the name of a file as {option('params')}.",
        )


@dataclass(frozen=True, kw_only=True)
class PairedOptions(Options):
    """The units of two columns of paired STAR files; RELION's are degrees."""

    defocus_angle_unit: Annotated[AngleUnit, Opt("Of the STAR column.")] = "degree"
    phase_shift_unit: Annotated[AngleUnit, Opt("Of the STAR column.")] = "degree"


@dataclass(frozen=True, kw_only=True)
class DownsampleOptions(ImageOptions, PixelOptions):
    """What is asked of a downsampling.

    Raises
    ------
    UsageError
        If a value is impossible.

    Examples
    --------
    >>> DownsampleOptions(box_px=128).stem
    'particles.128'
    """

    box_px: Annotated[int, Opt("Edge of the new images in pixels, even.", flags=("-D", "--box"), metavar="N")]
    indices: Annotated[
        Path | None, Opt("Rows to take, from 0: ind.pkl or .npy.", flags=("--ind",), metavar="FILE", panel=_IMAGES)
    ] = None
    poses: Annotated[Path | None, Opt("poses.pkl of a bare stack.", metavar="FILE", panel=_IMAGES)] = None
    ctf: Annotated[Path | None, Opt("ctf.pkl of a bare stack.", metavar="FILE", panel=_IMAGES)] = None
    chunk: Annotated[int | None, Opt("Images in a file, if several.", metavar="N", panel=_RUN, low=1)] = None
    half_precision: Annotated[bool, Opt("Write half precision, half the size.", flags=("--float16",), panel=_RUN)] = (
        False
    )
    batch_size: Annotated[
        int, Opt("Images in memory at a time.", flags=("-b", "--batch-size"), metavar="N", panel=_RUN, low=1)
    ] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_px < 2 or self.box_px % 2:
            even = max(2, self.box_px - 1)
            raise UsageError(
                f"a box of {self.box_px} px is not even, as RECOVAR, cryoDRGN and RELION need it",
                option="box_px",
                hint=f"Use {even} or {even + 2}.",
            )
        self.background_radius_px(self.box_px)  # which refuses a circle that does not fit

    @property
    def norm_radius_px(self) -> int | None:
        """The radius outside of which the new images are normalised; None where they are not."""
        return self.background_radius_px(self.box_px)

    @property
    def stem(self) -> str:
        """What the names of the stack and its metadata begin with."""
        return f"particles.{self.box_px}"


def _refuse_pixel_size(size_A: float | None) -> None:
    if size_A is not None and not 0 < size_A < math.inf:
        raise UsageError(f"{size_A:g} Å is no pixel size", option="pixel_size_A", hint="Give it in Å.")
