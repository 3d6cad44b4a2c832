"""The options that all ways into Fourier stacks share."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from cryobridge.cli.common import BridgeCommand, DryRunOption, JsonOption, OverwriteOption, ResumeOption
from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from cryobridge.jobs.stacks.options import StackOptions

_GRID = "Grid"
_IMAGES = "Images"
_RUN = "Run"


class Precision(str, Enum):
    """Number of bits of the output."""

    single = "single"
    double = "double"


class Order(str, Enum):
    """Order of the images."""

    row = "row"
    file = "file"


class DownsampleType(str, Enum):
    """What becomes of a block of pixels."""

    mean = "mean"
    max = "max"


class OnMissing(str, Enum):
    """What to do about particles without a usable image."""

    error = "error"
    skip = "skip"


class AngleUnit(str, Enum):
    """Unit of a column of angles."""

    degree = "degree"
    radian = "radian"


def option(panel: str, *names: str, **settings: Any) -> Any:
    """Return an option of a panel of the help page; what None stands for is said in its text."""
    return typer.Option(*names, rich_help_panel=panel, **settings)


OutputFolder = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder.", show_default=False)]
ResolutionFactor = Annotated[
    float, option(_GRID, "--resolution-factor", metavar="X", min=0.01, help="Radius of the grid; 1 reaches Nyquist.")
]
NInplanes = Annotated[
    int | None,
    option(
        _GRID, "--n-inplanes", metavar="N", min=1, help="Angles on a shell; 2 × box if left out.", show_default=False
    ),
]
PrecisionOption = Annotated[Precision, option(_GRID, "--precision", metavar="single|double", help="Of the output.")]


@dataclass(frozen=True)
class Conversion:
    """What the options of a conversion say; each field is an option of the commands."""

    output: OutputFolder
    params: Annotated[
        Path | None,
        option(_GRID, "-p", "--params", metavar="FILE.npz", help="CryoLike parameter file.", show_default=False),
    ] = None
    resolution_factor: ResolutionFactor = 1.0
    n_inplanes: NInplanes = None
    precision: PrecisionOption = Precision.single
    pixel_size: Annotated[
        float | None,
        option(
            _IMAGES,
            "--pixel-size",
            metavar="Å",
            help="For metadata that do not say the pixel size.",
            show_default=False,
        ),
    ] = None
    downsample_factor: Annotated[
        int, option(_IMAGES, "--downsample-factor", metavar="N", min=1, help="Bin blocks of N × N pixels; N is even.")
    ] = 1
    downsample_type: Annotated[
        DownsampleType, option(_IMAGES, "--downsample-type", metavar="mean|max", help="What becomes of a block.")
    ] = DownsampleType.mean
    on_missing: Annotated[
        OnMissing,
        option(
            _IMAGES, "--on-missing", metavar="error|skip", help="What to do about particles without a usable image."
        ),
    ] = OnMissing.error
    batch_size: Annotated[int, option(_RUN, "-b", "--batch-size", metavar="N", min=1, help="Images in a stack.")] = 1024
    n_stacks_max: Annotated[
        int | None,
        option(_RUN, "--n-stacks-max", metavar="N", min=1, help="Stop after N stacks.", show_default=False),
    ] = None
    order: Annotated[
        Order,
        option(_RUN, "--order", metavar="row|file", help="As the metadata have them, or sorted by file name."),
    ] = Order.row
    split_optics: Annotated[
        bool,
        option(_RUN, "--split-optics", help="Start new stacks where voltage, Cs or amplitude contrast change."),
    ] = False
    physical: Annotated[bool, option(_RUN, "--phys/--no-phys", help="Write the normalised images too.")] = True
    plots: Annotated[bool, option(_RUN, "--plots/--no-plots", help="Draw pictures of each stack.")] = True
    device: Annotated[str, option(_RUN, "--device", metavar="NAME", help="auto, cpu, cuda, cuda:0,cuda:1 or mps.")] = (
        "auto"
    )
    overwrite: OverwriteOption = False
    resume: ResumeOption = False
    dry_run: DryRunOption = False
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        """Refuse options that contradict each other, and absent devices, before any file is read."""
        adjusted = self.resolution_factor != 1.0 or self.n_inplanes is not None or self.precision != Precision.single
        if self.params is not None and adjusted:
            raise UsageError(
                "-p holds the whole grid; --resolution-factor, --n-inplanes and --precision would contradict it",
                hint="Leave out either.",
            )
        if self.overwrite and self.resume:
            raise UsageError("--overwrite replaces what --resume would keep", hint="Choose one.")
        if self.device not in {"auto", "cpu"}:
            from cryobridge.fourier.devices import pick_devices

            pick_devices(self.device)

    def stack_options(self) -> StackOptions:
        """Return what the pipeline is asked to do.

        Raises
        ------
        UsageError
            If options contradict each other.
        """
        from cryobridge.formats.descriptor import read_image_descriptor
        from cryobridge.jobs.stacks.options import StackOptions

        return StackOptions(
            descriptor=read_image_descriptor(self.params) if self.params else None,
            resolution_factor=self.resolution_factor,
            n_inplanes=self.n_inplanes,
            precision=self.precision.value,
            batch_size=self.batch_size,
            n_stacks_max=self.n_stacks_max,
            pixel_size_A=self.pixel_size,
            downsample_factor=self.downsample_factor,
            downsample_type=self.downsample_type.value,
            order=self.order.value,
            on_missing=self.on_missing.value,
            split_optics=self.split_optics,
            physical=self.physical,
            plots=self.plots,
        )


def with_conversion(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Conversion`; it gets them as one, under the name ``conversion``."""

    @wraps(command)
    def wrapper(**given: Any) -> None:
        names = [field.name for field in fields(Conversion)]
        command(conversion=Conversion(**{name: given.pop(name) for name in names}), **given)

    hints = get_type_hints(Conversion, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(Conversion)
    ]
    # Of functions, get_type_hints makes what defaults to None optional once more in Python 3.10, behind which Typer
    # does not see.
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if name != "conversion"
    ]
    required = [parameter for parameter in [*own, *shared] if parameter.default is inspect.Parameter.empty]
    optional = [parameter for parameter in [*own, *shared] if parameter.default is not inspect.Parameter.empty]
    wrapper.__signature__ = inspect.Signature([*required, *optional])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}
    return wrapper


class PairedCommand(BridgeCommand):
    """A command with ``--pair A.star A.mrc``, any number of times: the words are joined, since Typer takes one."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the words of the command line."""
        words = iter(args)
        joined: list[str] = []
        for word in words:
            joined.append(word)
            if word == "--pair":
                pair = list(itertools.islice(words, 2))
                joined.append(_BETWEEN.join(pair))
                if len(pair) < 2 and not ctx.resilient_parsing:
                    raise UsageError("--pair needs two files", hint="Give --pair FILE.star FILE.mrc.")
        return super().parse_args(ctx, joined)


def pairs_of(texts: list[str]) -> list[tuple[Path, Path]]:
    """Return the pairs that `PairedCommand` joined."""
    pairs = [text.partition(_BETWEEN) for text in texts]
    if not all(stack for _, _, stack in pairs):
        raise UsageError("--pair needs two files", hint="Give --pair FILE.star FILE.mrc.")
    return [(Path(star), Path(stack)) for star, _, stack in pairs]


# No word of a command line holds it.
_BETWEEN = "\0"
PairsOption = Annotated[
    list[str],
    typer.Option(
        "--pair",
        metavar="FILE.star FILE.mrc",
        help="A STAR file and the stack whose images its rows describe, in order; once or more.",
        show_default=False,
    ),
]


def refuse_contradicting_folders(folder_mrc: Path | None, datadir: Path | None, strip_prefix: str | None) -> None:
    """Refuse two ways at once of saying where images are.

    Raises
    ------
    UsageError
        If both are given.
    """
    if folder_mrc is not None and (datadir is not None or strip_prefix is not None):
        raise UsageError(
            "--folder-mrc uses bare file names, --datadir and --strip-prefix whole ones", hint="Choose one."
        )
