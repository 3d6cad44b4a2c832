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
_GRID, _IMAGES, _INPUT, _OUTPUT, _WHERE = "Grid", "Images", "Input", "Output", "Where it runs"


@dataclass(frozen=True, kw_only=True)
class GridOptions(Options):
    """The polar grid of Fourier stacks."""

    resolution_factor: Annotated[
        float,
        Opt(
            "Largest radius of the polar grid, as a fraction of the Nyquist frequency.",
            metavar="X",
            panel=_GRID,
            low=0.01,
        ),
    ] = 1.0
    n_inplanes: Annotated[
        int | None, Opt("Angles on each shell of the grid; 2 × box unless given.", metavar="N", panel=_GRID, low=1)
    ] = None
    precision: Annotated[Literal["single", "double"], Opt("Floating-point precision of the output.", panel=_GRID)] = (
        "single"
    )


@dataclass(frozen=True, kw_only=True)
class GridImages(Options):
    """The images that a parameter file is for."""

    n_pixels: Annotated[int, Opt("Box size of the images in pixels.", metavar="N", low=2, panel=_IMAGES)]
    pixel_size_A: Annotated[float, Opt("Pixel size of the images in Å.", metavar="Å", panel=_IMAGES)]

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_pixel_size(self.pixel_size_A)


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """What the stacks are made on; it is looked for before anything is written."""

    device: Annotated[
        str, Opt("Compute on this: auto, cpu, cuda, cuda:0,cuda:1 or mps.", metavar="NAME", panel=_WHERE)
    ] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        split_device_names(self.device)


@dataclass(frozen=True, kw_only=True)
class DownsampleDeviceOptions(DeviceOptions):
    """The same for downsampling, which the processor is fast enough for."""

    device: Annotated[
        str,
        Opt(
            "Compute on this: cpu, which is as fast as most disks, auto, cuda, cuda:1 or mps.",
            metavar="NAME",
            panel=_WHERE,
        ),
    ] = "cpu"


@dataclass(frozen=True, kw_only=True)
class SharingOptions(Options):
    """How several processes share the work."""

    part: Annotated[
        str | None,
        Opt(
            "Make only part K of N, K from 0; array: as the array job of a batch system says.",
            metavar="K/N",
            panel=_WHERE,
        ),
    ] = None
    cluster: Annotated[
        str | None,
        Opt(
            "Compute on a Dask cluster: local:4, tls://host:8786 or scheduler.json.",
            metavar="WHERE",
            panel=_WHERE,
        ),
    ] = None
    finish: Annotated[
        bool,
        Opt("When all parts are made: check that they are complete, and write the files they share.", panel=_WHERE),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part is not None and self.finish:
            raise UsageError(
                f"{option('part')} makes a part, {option('finish')} comes when all parts are done", hint="Give either."
            )
        if self.cluster is not None and (self.part is not None or self.finish):
            raise UsageError(
                f"{option('part')} and {option('finish')} do without {option('cluster')}", hint="Give either way."
            )


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """Options on the images, of all stacks jobs."""

    pixel_size_A: Annotated[
        float | None, Opt("Pixel size in Å, if the metadata do not give it.", metavar="Å", panel=_IMAGES)
    ] = None
    on_missing: Annotated[
        OnMissing, Opt("If an image is missing or unusable: stop, or leave it out.", panel=_IMAGES)
    ] = "error"

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
        Path | None,
        Opt(
            "Parameter file of CryoLike, with box, pixel size and the whole grid.",
            flags=("-p", "--params"),
            metavar="FILE.npz",
            panel=_GRID,
        ),
    ] = None
    downsample_factor: Annotated[
        int,
        Opt(
            "Bin N × N pixels into one before the transform; 1 for no binning, else even.",
            metavar="N",
            panel=_IMAGES,
            low=1,
        ),
    ] = 1
    downsample_type: Annotated[
        Literal["mean", "max"], Opt("Value of a binned pixel: mean or maximum of its block.", panel=_IMAGES)
    ] = "mean"
    batch_size: Annotated[
        int, Opt("Images in each stack.", flags=("-b", "--batch-size"), metavar="N", panel=_OUTPUT, low=1)
    ] = 1024
    n_stacks_max: Annotated[int | None, Opt("Make at most N stacks.", metavar="N", panel=_OUTPUT, low=1)] = None
    order: Annotated[
        Literal["row", "file"], Opt("Order of the images: as in the metadata, or sorted by image file.", panel=_OUTPUT)
    ] = "row"
    split_optics: Annotated[
        bool, Opt("Start a new stack where voltage, spherical aberration or amplitude contrast change.", panel=_OUTPUT)
    ] = False
    physical: Annotated[
        bool, Opt("Also write the normalised images before the transform.", flags=("--phys/--no-phys",), panel=_OUTPUT)
    ] = True
    plots: Annotated[bool, Opt("Draw pictures of each stack.", flags=("--plots/--no-plots",), panel=_OUTPUT)] = True
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

    defocus_angle_unit: Annotated[AngleUnit, Opt("Unit of rlnDefocusAngle in the STAR files.", panel=_INPUT)] = "degree"
    phase_shift_unit: Annotated[AngleUnit, Opt("Unit of rlnPhaseShift in the STAR files.", panel=_INPUT)] = "degree"


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

    box_px: Annotated[
        int,
        Opt("Box size of the new images in pixels, an even number.", flags=("-D", "--box"), metavar="N", panel=_OUTPUT),
    ]
    indices: Annotated[
        Path | None,
        Opt("Take only these rows, counted from 0: ind.pkl or .npy.", flags=("--ind",), metavar="FILE", panel=_IMAGES),
    ] = None
    poses: Annotated[
        Path | None, Opt("Poses (poses.pkl) of a stack that has no metadata file.", metavar="FILE", panel=_IMAGES)
    ] = None
    ctf: Annotated[
        Path | None, Opt("CTF (ctf.pkl) of a stack that has no metadata file.", metavar="FILE", panel=_IMAGES)
    ] = None
    chunk: Annotated[int | None, Opt("Split the output into files of N images.", metavar="N", panel=_OUTPUT, low=1)] = (
        None
    )
    half_precision: Annotated[
        bool, Opt("Write 16-bit floating-point pixels, half the size.", flags=("--float16",), panel=_OUTPUT)
    ] = False
    batch_size: Annotated[
        int, Opt("Images in memory at a time.", flags=("-b", "--batch-size"), metavar="N", panel=_WHERE, low=1)
    ] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_odd(self.box_px)
        self.background_radius_px(self.box_px)  # which refuses a circle that does not fit

    @property
    def norm_radius_px(self) -> int | None:
        """The radius outside of which the new images are normalised; None where they are not."""
        return self.background_radius_px(self.box_px)

    @property
    def stem(self) -> str:
        """What the names of the stack and its metadata begin with."""
        return f"particles.{self.box_px}"


def refuse_odd(box_px: int) -> None:
    """Refuse an edge of new images that is odd.

    Raises
    ------
    UsageError
        Then.
    """
    if box_px < 2 or box_px % 2:
        even = max(2, box_px - 1)
        raise UsageError(
            f"a box of {box_px} px is not even, as RECOVAR, cryoDRGN and RELION need it",
            option="box_px",
            hint=f"Use {even} or {even + 2}.",
        )


def _refuse_pixel_size(size_A: float | None) -> None:
    if size_A is not None and not 0 < size_A < math.inf:
        raise UsageError(f"{size_A:g} Å is no pixel size", option="pixel_size_A", hint="Give it in Å.")
