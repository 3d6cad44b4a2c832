"""How the help of a command looks: usage, what it does, its options in panels, examples, and the page for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.constrain import Constrain
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from cryobridge.cli.common import GENERAL
from cryobridge.cli.examples import end_of_help
from cryobridge.cli.terminal import output_width, print_text, show

if TYPE_CHECKING:
    from collections.abc import Iterable

    import typer

# Panels that come first and last; the others stand in the order in which a command declares its options.
_FIRST, _LAST = ("Arguments", "Output", "Input"), ("Where it runs", "Run", GENERAL)
# A longer option has its value in a line of its own, so that descriptions keep most of the width.
_LONGEST_OPTION = 28
_WIDEST = 120
_STYLE = "bold cyan"


def show_help(command: Any, ctx: typer.Context) -> None:
    """Show the help of a command or a group of commands on stdout.

    Parameters
    ----------
    command
        As Typer makes it.
    ctx
        The context of its call, with the names of the commands that it was reached by.
    """
    width = min(output_width(), _WIDEST)
    shown = [item for item in command.get_params(ctx) if not getattr(item, "hidden", False)]
    usage = Text(f"Usage: {_usage(command, ctx, shown)}", style="bold")
    show(*(Constrain(Padding(text, (1, 1, 0, 1)), width) for text in (usage, Text(command.help))), "")
    if isinstance(command, TyperGroup):
        inner = [(name, command.get_command(ctx, name)) for name in command.list_commands(ctx)]
        rows = [(Text(name, style=_STYLE), Text(each.help or "")) for name, each in inner if each is not None]
        show(_panel("Commands", rows, width))
    for title, items in _panels(shown).items():
        show(_panel(title, [_row(item, ctx) for item in items], width))
    print_text(end_of_help(command_words(ctx)))


def command_words(ctx: Any) -> tuple[str, ...]:
    """Return the words that a command is called by, without the program."""
    return () if ctx.parent is None else (*command_words(ctx.parent), ctx.info_name)


def _usage(command: Any, ctx: Any, shown: list[Any]) -> str:
    arguments = [item for item in shown if _is_argument(item)]
    needed = [item for item in shown if item.required and not _is_argument(item)]
    words = [item.metavar if item.required else f"[{item.metavar}]" for item in arguments]
    words += [f"{item.opts[0]} {item.make_metavar(ctx)}" for item in needed]
    return " ".join([ctx.command_path, *(["COMMAND"] if isinstance(command, TyperGroup) else words), "[OPTIONS]"])


def _is_argument(item: Any) -> bool:
    return bool(item.param_type_name == "argument")


def _panels(shown: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in shown:
        # The option of help itself is Typer's own, which names no panel.
        title = "Arguments" if _is_argument(item) else getattr(item, "rich_help_panel", None) or GENERAL
        found.setdefault(title, []).append(item)
    middle = [title for title in found if title not in {*_FIRST, *_LAST}]
    # What must be given comes first.
    return {
        title: sorted(found[title], key=lambda item: not item.required)
        for title in (*_FIRST, *middle, *_LAST)
        if title in found
    }


def _row(item: Any, ctx: Any) -> tuple[Text, Text]:
    """Return an option or an argument as it is typed, and what it does."""
    help_text = Text(item.help or "")
    for remark, style in _remarks(item):
        help_text.append(f" [{remark}]", style)
    if _is_argument(item):
        return Text(item.metavar, style=_STYLE), help_text
    typed = Text(", ".join(sorted(item.opts, key=len)), style=_STYLE)
    if item.secondary_opts:
        typed.append(" / " if len(typed) <= _LONGEST_OPTION // 2 else "\n/ ").append(item.secondary_opts[0], _STYLE)
    if not item.is_flag:
        value = item.make_metavar(ctx)
        typed.append(" " if len(typed) + len(value) < _LONGEST_OPTION else "\n  ").append(value)
    return typed, help_text


def _remarks(item: Any) -> Iterable[tuple[str, str]]:
    if item.required:
        yield "required", "red"
    default, says = item.default, item.show_default
    if isinstance(says, str):
        yield f"default: {says}", "dim"
    elif item.secondary_opts and default:
        yield f"default: {item.opts[0]}", "dim"
    elif says and default is not None and not item.required and not isinstance(default, bool):
        yield f"default: {default:g}" if isinstance(default, float) else f"default: {default}", "dim"


def _panel(title: str, rows: list[tuple[Text, Text]], width: int) -> Panel:
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for row in rows:
        table.add_row(*row)
    return Panel(table, title=title, title_align="left", border_style="dim", width=width)
