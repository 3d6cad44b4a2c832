"""What all commands share: --version, -q, -v and --debug, and the options that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from cryobridge import __version__
from cryobridge.cli.terminal import settings, show

if TYPE_CHECKING:
    from typer._click.core import Parameter


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
    _flag(["-q", "--quiet"], _set("quiet"), "Show results and errors only."),
    _flag(["-v", "--verbose"], _set("verbose"), "Show time and memory as well."),
    _flag(["--debug"], _set("debug"), "Show the Python traceback of an error."),
    _flag(["--version"], _print_version, "Show the version and exit.", is_eager=True),
)


class BridgeCommand(TyperCommand):
    """A command that takes the common options."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the command's parameters and the common options."""
        return [*super().get_params(ctx), *COMMON_OPTIONS]


class BridgeGroup(TyperGroup):
    """A group that takes the common options before its subcommand too."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the group's parameters and the common options."""
        return [*super().get_params(ctx), *COMMON_OPTIONS]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.")]
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
