"""What all commands share: --version, -q, -v and --debug, and the options that mean the same everywhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cryobridge.cli.terminal import print_text, settings, show
from cryobridge.errors import UsageError
from cryobridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

# The panel of what every command takes, the last one of its help.
GENERAL = "General"


def output_option(metavar: str, help_text: str, *, default: str | bool = False) -> Any:
    """Return ``-o`` as commands declare it.

    Parameters
    ----------
    metavar
        What stands for its value.
    help_text
        What is written there.
    default
        What the help says of the default, if there is one.
    """
    return typer.Option(
        "-o", "--output", metavar=metavar, help=help_text, show_default=default, rich_help_panel="Output"
    )


OutputFolder = Annotated[Path, output_option("DIR", "Folder to write to.")]


def _set(name: str) -> Any:
    def callback(_context: typer.Context, _parameter: typer.CallbackParam, value: bool) -> None:
        # An option that is not given does not undo one that stands before the subcommand.
        if value:
            setattr(settings, name, True)

    return callback


def _print_version(_context: typer.Context, _parameter: typer.CallbackParam, value: bool) -> None:
    if value:
        show(f"cryobridge {__version__}")
        raise typer.Exit


def _flag(name: str, short: str, help_text: str) -> Any:
    names = [short, f"--{name}"] if short else [f"--{name}"]
    return typer.Option(
        *names, callback=_set(name), expose_value=False, show_default=False, help=help_text, rich_help_panel=GENERAL
    )


def _flags(
    quiet: Annotated[
        bool, _flag("quiet", "-q", "Show results, warnings and errors only: no progress, notes or closing table.")
    ] = False,
    verbose: Annotated[bool, _flag("verbose", "-v", "Also show details, time and memory.")] = False,
    debug: Annotated[bool, _flag("debug", "", "Show the Python traceback of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            expose_value=False,
            help="Show the version and exit.",
            rich_help_panel=GENERAL,
        ),
    ] = False,
) -> None:
    pass


@cache
def common_options() -> list[Any]:
    """Return the options that every command takes, as Typer makes them of a function."""
    app = typer.Typer(add_completion=False)
    app.command()(_flags)
    return get_command(app).params


class BridgeCommand(TyperCommand):
    """A command that takes the common options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Whether a file can be read is found out, and said with what to do, where all files are opened.
        for item in self.params:
            if hasattr(item.type, "readable"):
                item.type.readable = False

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the words of the command line; what is wrong with them is said of this command."""
        if "" in args and not ctx.resilient_parsing:
            # As the name of a file it would mean the working directory.
            raise UsageError("one of the words of the command is empty", hint="A variable in it may not be set.")
        try:
            if not ctx.resilient_parsing:
                self._refuse_repeated(ctx, args)
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            # One that does not know its command would be said of the whole program.
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise

    def _refuse_repeated(self, ctx: typer.Context, args: list[str]) -> None:
        """Refuse an option that is given twice and takes one value: the last would count, in silence."""
        given = self.make_parser(ctx).parse_args(args=list(args))[2]
        for place, item in enumerate(given):
            takes_one = item.param_type_name == "option" and not (item.multiple or getattr(item, "is_flag", False))
            if takes_one and item in given[:place]:
                raise UsageError(f"{max(item.opts, key=len)} is given twice, and takes one value", hint="Give it once.")

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Show the help, with examples and the page of the documentation at its end."""
        from cryobridge.cli.help import show_help

        show_help(self, ctx)

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the command's parameters and the common options."""
        return [*super().get_params(ctx), *common_options()]


# Programs that did the same, by the command that does it here; how their options are called is on a page.
_PROGRAMS = {
    "convert": "csparc2star cs2star star2cs parse_star parse_pose_star parse_ctf_star parse_pose_csparc "
    "parse_ctf_csparc write_star write_cs",
    "coords": "reliosparc cs_to_stars",
    "converge": "converge_continue",
    "select": "filter_star filter_cs select_clusters",
    "inspect": "view_header view_cs_header",
}
# What else one may look for.
_OTHER_WORDS = {
    "convert": "export import cs2relion relion2cs pickles",
    "coords": "picks extract coordinates",
    "converge": "watch convergence monitor",
    "select": "filter subset",
    "merge": "concat combine join concatenate",
    "inspect": "info show view header list check",
    "stacks": "fourier cryolike polar",
    "stacks downsample": "crop resize rescale bin",
}


def _remedy(word: str, ctx: typer.Context) -> str:
    """Say which command a word that is none may mean."""
    name = word.lower().removesuffix(".py").replace("-", "_")
    program = next((command for command, names in _PROGRAMS.items() if name in names.split()), None)
    if program is not None:
        from cryobridge.cli.examples import page_path

        return (
            f"`cryobridge {program}` does what {word} did; {page_path('coming-from.md')} has the options side by side."
        )
    other = next((command for command, names in _OTHER_WORDS.items() if name in names.split()), None)
    meant = _meant(word, ctx) if other is None else f"cryobridge {other}"
    return f"Did you mean `{meant}`?" if meant else f"`{ctx.command_path} -h` shows the commands."


def _meant(word: str, ctx: typer.Context) -> str | None:
    """Return the command that a word which is none is like, wherever it is: beside it, in a group, or an option."""
    from difflib import get_close_matches

    root, known = ctx.find_root(), {name: f"cryobridge --{name}" for name in ("version", "help")}
    # What stands beside it comes last, and takes the place of the same name elsewhere.
    for group, words in sorted(_groups(root), key=lambda found: found[0] is ctx.command):
        known |= {name: " ".join(("cryobridge", *words, name)) for name in group.list_commands(ctx)}
    near = get_close_matches(word.lower(), known, n=1) or [name for name in known if name.startswith(word.lower())]
    return known[near[-1]] if near else None


def _groups(root: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield the whole command and the groups among its subcommands, each with the words that call it."""
    yield root.command, ()
    for name in root.command.list_commands(root):
        command = root.command.get_command(root, name)
        if isinstance(command, TyperGroup):
            yield command, (name,)


class BridgeGroup(TyperGroup):
    """A group that takes the common options before its subcommand too."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the words of the command line; without any, show the help."""
        if not args and not ctx.resilient_parsing:
            print_text(ctx.get_help())
            raise typer.Exit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Find the subcommand; a word that is none is told what was meant."""
        word = args[0]
        if ctx.resilient_parsing or word.startswith("-") or self.get_command(ctx, word) is not None:
            return super().resolve_command(ctx, args)
        raise UsageError(f"there is no command {word!r}", hint=_remedy(word, ctx))

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Show the help, with examples and the page of the documentation at its end."""
        from cryobridge.cli.help import show_help

        show_help(self, ctx)

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """Return the group's parameters and the common options."""
        return [*super().get_params(ctx), *common_options()]
