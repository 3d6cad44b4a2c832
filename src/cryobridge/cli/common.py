"""What all commands share: --version, -q, -v and --debug, and the options that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer._click.exceptions import UsageError as ClickUsageError
from typer._click.types import FloatParamType, FloatRange, IntRange
from typer.core import TyperCommand, TyperGroup, TyperOption

from cryobridge import __version__
from cryobridge.cli.terminal import settings, show
from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from typer._click.core import Parameter
    from typer._click.formatting import HelpFormatter

# For errors: what is not a number is not a "valid integer range" either.
IntRange.name, FloatRange.name, FloatParamType.name = "integer", "number", "number"


def _set(name: str) -> Any:
    def callback(_context: typer.Context, _parameter: Parameter, value: bool) -> None:
        # An option that is not given does not undo one that stands before the subcommand.
        if value:
            setattr(settings, name, True)

    return callback


def _print_version(_context: typer.Context, _parameter: Parameter, value: bool) -> None:
    if value:
        show(f"cryobridge {__version__}")
        raise typer.Exit


def _flag(names: list[str], callback: Any, help_text: str, *, is_eager: bool = False) -> TyperOption:
    return TyperOption(
        param_decls=names,
        is_flag=True,
        default=False,
        expose_value=False,
        callback=callback,
        help=help_text,
        is_eager=is_eager,
    )


COMMON_OPTIONS = (
    _flag(["-q", "--quiet"], _set("quiet"), "Show answers, warnings and errors only."),
    _flag(["-v", "--verbose"], _set("verbose"), "Show time and memory as well."),
    _flag(["--debug"], _set("debug"), "Show the Python traceback of an error."),
    _flag(["--version"], _print_version, "Show the version and exit.", is_eager=True),
)


def _leave_out_yellow() -> None:
    """Show the help without Typer's yellow, which can't be read on a white background."""
    from typer import rich_utils

    rich_utils.STYLE_TYPES, rich_utils.STYLE_USAGE = "", "bold"


class BridgeCommand(TyperCommand):
    """A command that takes the common options."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the words of the command line; what is wrong with them is said of this command."""
        if "" in args and not ctx.resilient_parsing:
            # As the name of a file it would mean the working directory.
            raise UsageError("one of the words of the command is empty", hint="A variable in it may not be set.")
        try:
            return super().parse_args(ctx, args)
        except ClickUsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_help(self, ctx: typer.Context, formatter: HelpFormatter) -> None:  # type: ignore[override]
        """Write the help."""
        _leave_out_yellow()
        super().format_help(ctx, formatter)

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the command's parameters and the common options."""
        return [*super().get_params(ctx), *COMMON_OPTIONS]


class BridgeGroup(TyperGroup):
    """A group that takes the common options before its subcommand too."""

    def format_help(self, ctx: typer.Context, formatter: HelpFormatter) -> None:  # type: ignore[override]
        """Write the help."""
        _leave_out_yellow()
        super().format_help(ctx, formatter)

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the group's parameters and the common options."""
        return [*super().get_params(ctx), *COMMON_OPTIONS]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
FlipXOption = Annotated[bool, typer.Option("--flip-x", help="Count x from the other edge: x = nx − nx·fx.")]
FlipYOption = Annotated[
    bool, typer.Option("--flip-y", help="Count y from cryoSPARC's first row: y = ny·fy; without it y = ny − ny·fy.")
]
SwapXYOption = Annotated[bool, typer.Option("--swap-xy", help="Exchange x and y after that.")]
DatadirOption = Annotated[
    Path | None,
    typer.Option("--datadir", metavar="DIR", help="Look for image files below this folder.", show_default=False),
]
StripPrefixOption = Annotated[
    str | None,
    typer.Option(
        "--strip-prefix",
        metavar="PREFIX",
        help="Leading part to take off the names of image files.",
        show_default=False,
    ),
]
