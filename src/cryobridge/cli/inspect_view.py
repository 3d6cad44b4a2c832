"""How an inspection looks in a terminal of any width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cryobridge.cli.build import flag
from cryobridge.cli.field_table import field_lines, type_text
from cryobridge.cli.terminal import output_width, plain, show, warning
from cryobridge.errors import shown
from cryobridge.jobs.inspection.report import USE_TITLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from cryobridge.jobs.inspection.report import FieldSummary, Inspection, Use
    from cryobridge.report import Message


def show_inspection(inspection: Inspection, *, is_first: bool = True) -> None:
    """Print what the file is, its columns, what it can be used for, and what is wrong."""
    parts: list[RenderableType] = [] if is_first else [""]
    parts += [plain(inspection.path, "bold"), _facts(inspection)]
    if inspection.fields:
        parts += ["", *_fields(inspection)]
    for row in inspection.details.get("first_rows", ()):
        parts += ["", _grid((name, _value(value)) for name, value in row.items())]
    parts += [_message(message) for message in inspection.all_messages]
    if inspection.uses:
        parts += ["", _uses(inspection.uses)]
    show(*parts)


def _message(message: Message) -> RenderableType:
    text = shown(message.text, flag)
    return warning(text) if message.severity == "warning" else plain(text, "dim")


def _facts(inspection: Inspection) -> Table:
    rows = () if inspection.rows is None else (("rows", f"{inspection.rows:,}"),)
    return _grid((("what", inspection.title), *rows, *inspection.facts))


def _grid(rows: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(plain(name), plain(value))
    return grid


def _fields(inspection: Inspection) -> list[RenderableType]:
    if inspection.rows == 1 and any(field.example for field in inspection.fields):
        return [_described(inspection.fields, "value", [field.example for field in inspection.fields])]
    if all(field.distinct is None and not field.example for field in inspection.fields):
        return [_described(inspection.fields, "meaning", [field.meaning for field in inspection.fields])]
    return list(field_lines(inspection.fields, output_width()))


def _described(fields: tuple[FieldSummary, ...], title: str, texts: list[str]) -> Table:
    """Return a table of columns with one text each, which may be long: a value, or a meaning."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for name in ("field", "type", "unit"):
        table.add_column(name, no_wrap=name != "field", overflow="fold")
    table.add_column(title, overflow="fold")
    for field, text in zip(fields, texts, strict=True):
        style = "bold red" if field.problems else ""
        table.add_row(plain(field.name), type_text(field), plain(field.unit), plain(text), style=style)
    return table


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _uses(uses: tuple[Use, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("can be used for", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("missing, and where it is" if any(not use.ready for use in uses) else "", overflow="fold")
    for use in uses:
        verdict = Text("ready", style="green") if use.ready else Text("no", style="red")
        lines = [
            plain(text) for text in (", ".join(use.missing), *(shown(reason, flag) for reason in use.reasons)) if text
        ]
        lines += [plain(shown(use.hint, flag), "dim")] if use.hint else []
        explanation = Text("\n").join(lines)
        table.add_row(plain(USE_TITLES.get(use.name, use.name)), verdict, explanation)
    return table
