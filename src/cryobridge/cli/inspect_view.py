"""How an inspection looks in a terminal of any width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cryobridge.cli.terminal import plain
from cryobridge.inspect.report import USE_TITLES

if TYPE_CHECKING:
    from rich.console import Console

    from cryobridge.inspect.report import FieldSummary, Inspection, Use

_BARS = " ▁▂▃▄▅▆▇█"
_WIDE = 110
# What the columns between name and distribution take at most.
_NUMBERS_WIDTH = 64


def show_inspection(console: Console, inspection: Inspection) -> None:
    """Print what the file is, its columns, what it can be used for, and what is wrong."""
    console.print(plain(inspection.path, "bold"), soft_wrap=True)
    console.print(_facts(inspection))
    if inspection.fields:
        console.print()
        console.print(_values(inspection) if inspection.rows == 1 else _fields(inspection, console.width))
    for row in inspection.details.get("first_rows", ()):
        console.print()
        console.print(_row(row))
    problems = [f"{field.name}: {problem}" for field in inspection.fields for problem in field.problems]
    for problem in (*problems, *inspection.problems):
        console.print(Text("! ", style="yellow").append_text(plain(problem, "yellow")))
    if inspection.uses:
        console.print()
        console.print(_uses(inspection.uses))


def _facts(inspection: Inspection) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("what", plain(inspection.title))
    if inspection.rows is not None:
        grid.add_row("rows", f"{inspection.rows:,}")
    for name, value in inspection.facts:
        grid.add_row(plain(name), plain(value))
    return grid


def _values(inspection: Inspection) -> Table:
    """Return a table of one row as names and values."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for name in ("field", "type", "unit"):
        table.add_column(name, no_wrap=name != "field", overflow="fold")
    table.add_column("value", overflow="fold")
    for field in inspection.fields:
        style = "yellow" if field.problems else ""
        table.add_row(plain(field.name), _type(field), plain(field.unit), plain(field.example), style=style)
    return table


def _fields(inspection: Inspection, width: int) -> Table:
    is_wide = width >= _WIDE
    longest = max(len(field.name.partition("/")[2] or field.name) for field in inspection.fields)
    room = max(8, width - _NUMBERS_WIDTH - longest)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("field", overflow="fold", min_width=14)
    table.add_column("type", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for name in ("min", "median", "max", "distinct"):
        table.add_column(name, justify="right", no_wrap=True)
    has_nan = any(field.nan for field in inspection.fields)
    if has_nan:
        table.add_column("NaN", justify="right", no_wrap=True)
    table.add_column("distribution" if is_wide else "", no_wrap=True)
    group = ""
    for field in inspection.fields:
        prefix, slash, short = field.name.partition("/")
        if slash and prefix != group:
            table.add_row(plain(prefix, "cyan"))
        group = prefix if slash else ""
        label = plain(f"  {short}" if slash else field.name)
        nan = [f"{field.nan:,}" if field.nan else ""] if has_nan else []
        style = "yellow" if field.problems else ""
        table.add_row(
            label, _type(field), plain(field.unit), *_numbers(field), *nan, _last(field, is_wide, room), style=style
        )
    return table


def _type(field: FieldSummary) -> str:
    return field.dtype + "".join(f"×{size}" for size in field.shape)


def _numbers(field: FieldSummary) -> tuple[str, str, str, str]:
    distinct = "" if field.distinct is None else f"{field.distinct:,}"
    if field.is_constant:
        distinct = "constant"
    if field.minimum is None or field.maximum is None or field.median is None:
        return "", "", "", distinct
    if field.is_constant:
        return "", _number(field.median), "", distinct
    return _number(field.minimum), _number(field.median), _number(field.maximum), distinct


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e7:
        return str(int(value))
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.6g}"


def _last(field: FieldSummary, is_wide: bool, room: int) -> Text:
    """Return the histogram, or the first value where there is none, and a mark where something is implausible."""
    mark = Text("! ", style="bold yellow") if field.problems else Text()
    if field.histogram:
        return mark.append_text(
            Text(_sparkline(field.histogram if is_wide else _halved(field.histogram)), style="blue")
        )
    if field.example and field.minimum is None:
        text = field.example if len(field.example) <= room else "…" + field.example[-room + 1 :]
        return mark.append_text(plain(text, "dim"))
    return mark


def _halved(histogram: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sum(pair) for pair in zip(histogram[::2], histogram[1::2], strict=True))


def _sparkline(histogram: tuple[int, ...]) -> str:
    top = max(histogram)
    return "".join(_BARS[0 if count == 0 else max(1, round(8 * count / top))] for count in histogram)


def _row(row: dict[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in row.items():
        grid.add_row(plain(name), plain(value))
    return grid


def _uses(uses: tuple[Use, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("can be used for", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("missing, and where it is", overflow="fold")
    for use in uses:
        verdict = Text("ready", style="green") if use.ready else Text("no", style="red")
        missing = ", ".join(use.missing)
        explanation = plain(missing)
        if use.hint:
            explanation = explanation.append_text(plain(("\n" if missing else "") + use.hint, "dim"))
        table.add_row(plain(USE_TITLES.get(use.name, use.name)), verdict, explanation)
    return table
