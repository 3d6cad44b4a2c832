"""How an inspection looks in a terminal of any width."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cryobridge.cli.build import flag
from cryobridge.cli.field_table import field_lines, type_text
from cryobridge.cli.terminal import (
    command_lines,
    narrowed,
    plain,
    readable_width,
    shortened,
    show,
    warning,
)
from cryobridge.errors import shown
from cryobridge.jobs.inspection.report import CUT_OFF

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from cryobridge.jobs.inspection.report import FieldSummary, Inspection, Use
    from cryobridge.report import Message


def show_inspection(inspection: Inspection, *, is_first: bool = True) -> None:
    """Print what the file is, its columns, what it can be used for, and what is wrong."""
    parts: list[RenderableType] = [] if is_first else [""]
    parts += [plain(shortened(inspection.path, readable_width()), "bold"), _facts(inspection)]
    if inspection.fields:
        parts += ["", *_fields(inspection)]
    for row in inspection.details.get("first_rows", ()):
        parts += ["", _grid((name, _value(value)) for name, value in row.items())]
    # What makes a file useless is an error, and told as such.
    parts += [_message(message) for message in inspection.all_messages if message.code != CUT_OFF]
    if uses := inspection.listed_uses:
        parts += ["", *_uses(uses)]
    show(*parts)


def _message(message: Message) -> RenderableType:
    text = shown(message.text, flag)
    return warning(text) if message.severity == "warning" else plain(text, "dim")


def _facts(inspection: Inspection) -> RenderableType:
    rows = () if inspection.rows is None else (("rows", f"{inspection.rows:,}"),)
    return _grid((("what", inspection.title), *rows, *inspection.facts))


def _grid(rows: Iterable[tuple[str, str]]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    pairs = list(rows)
    width = readable_width() - max((len(name) for name, _ in pairs), default=0) - 2
    for name, value in pairs:
        is_command = value.startswith("cryobridge ")
        text = "\n".join(command_lines(shlex.split(value), width=width)) if is_command else shortened(value, width)
        grid.add_row(plain(name), Text("\n").join(map(plain, text.split("\n"))))
    return narrowed(grid)


def _fields(inspection: Inspection) -> list[RenderableType]:
    if inspection.rows == 1 and any(field.example for field in inspection.fields):
        texts = [shortened(field.example, readable_width() // 2) for field in inspection.fields]
        return [_described(inspection.fields, "value", texts)]
    if all(field.distinct is None and not field.example for field in inspection.fields):
        return [_described(inspection.fields, "meaning", [field.meaning for field in inspection.fields])]
    return list(field_lines(inspection.fields, readable_width()))


def _described(fields: tuple[FieldSummary, ...], title: str, texts: list[str]) -> RenderableType:
    """Return a table of columns with one text each, which may be long: a value, or a meaning."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for name in ("field", "type", "unit"):
        table.add_column(name, no_wrap=name != "field", overflow="fold")
    table.add_column(title, overflow="fold")
    for field, text in zip(fields, texts, strict=True):
        style = "bold red" if field.problems else ""
        table.add_row(plain(field.name), type_text(field), plain(field.unit), plain(text), style=style)
    return narrowed(table)


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _uses(uses: tuple[Use, ...]) -> list[RenderableType]:
    """Return a row for each use, and below the commands of those that are ready."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("what you can do with it", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("missing, and where it is" if any(not use.ready for use in uses) else "", overflow="fold")
    told: set[str] = set()
    for use in uses:
        text = _explained(use)
        is_told = text.plain in told and _verdict(use).plain != "ready"
        table.add_row(plain(use.title), _verdict(use), plain("the same", "dim") if is_told else text)
        told = {text.plain} if text.plain and not is_told else told
    parts: list[RenderableType] = [narrowed(table)]
    with_commands = [use for use in uses if use.commands]
    for use in with_commands:
        parts += [*([""] if use is with_commands[0] else []), plain(use.title, "dim")]
        parts += [plain(line, "bold") for command in use.commands for line in command_lines(command, "  ")]
    return parts


def _explained(use: Use) -> Text:
    lines = [(", ".join(use.missing), ""), *((reason, "") for reason in use.reasons), (use.hint, "dim")]
    if use.commands and not use.ready:  # what the commands below do need not be told here
        below = f"with the {'command' if len(use.commands) == 1 else 'commands'} below, not as it stands"
        lines = [(": ".join(filter(None, (below, "; ".join(use.reasons)))), "")]
    elif use.commands and "`" in use.hint:
        lines = []
    lines.append((use.no_images, "dim"))
    return Text("\n").join(plain(shown(line, flag), style) for line, style in lines if line)


def _verdict(use: Use) -> Text:
    if not (use.ready or use.commands):
        return Text("no", style="red")
    return Text("images?", style="yellow") if use.no_images else Text("ready", style="green")
