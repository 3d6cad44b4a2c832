"""The table of an inspection's columns: numbers and a distribution, or the first value, laid out for a width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from cryobridge.cli.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryobridge.jobs.inspection.report import FieldSummary

_BARS = " ▁▂▃▄▅▆▇█"
_NUMBERS = ("min", "median", "max")
_TITLES = ("type", "unit", " ".join(_NUMBERS), "distinct", "NaN", "")
_RIGHT = (False, False, False, True, True, False)
_NARROWEST_NAME = 14


@dataclass(frozen=True)
class _Layout:
    """Widths in characters; a column that is empty everywhere has 0 and is left out.

    Parameters
    ----------
    name
        Of the field's name.
    numbers
        Of minimum, median and maximum.
    cells
        Of each of `_TITLES`.
    n_bars
        Of the distribution.
    last
        What is left of the line for the distribution.
    """

    name: int
    numbers: tuple[int, ...]
    cells: tuple[int, ...]
    n_bars: int
    last: int


def field_lines(fields: tuple[FieldSummary, ...], width: int) -> Iterator[Text]:
    """Yield the lines of the table.

    Where the width does not do, the distribution is drawn coarser, and names that are still too long get a line of
    their own.
    """
    layout = _layout(fields, width)
    titles = [_numbers_text(_NUMBERS, layout) if "min" in title else title for title in _TITLES]
    title = "distribution" if layout.last >= len("distribution") and layout.n_bars else ""
    yield _line(layout, Text("field"), [Text(text) for text in titles], Text(title), "bold")
    group = ""
    for field in fields:
        prefix, short = _split(field.name)
        if short and prefix != group:
            yield plain(prefix, "bold")
        group = prefix if short else ""
        label = _label(field)
        if label.cell_len > layout.name:
            yield label
            label = Text()
        cells, last = _cells(field, layout)
        yield _line(layout, label, cells, last, "bold red" if field.problems else "")


def type_text(field: FieldSummary) -> str:
    """Return type and shape of a field: ``f4``, ``f4×2``."""
    return field.dtype + "".join(f"×{size}" for size in field.shape)


def _layout(fields: tuple[FieldSummary, ...], width: int) -> _Layout:
    numbers = _widths([_numbers(field) for field in fields], _NUMBERS)
    joined = sum(numbers) + max(0, len([size for size in numbers if size]) - 1)
    rows = [(type_text(field), field.unit, "", _distinct(field), _nan(field), _mark(field)) for field in fields]
    cells = _widths(rows, _TITLES)
    cells = (*cells[:2], joined, *cells[3:])
    taken = sum(size + 1 for size in cells if size)
    longest = max(_label(field).cell_len for field in fields)
    bins = max(len(field.histogram) for field in fields)
    for n_bars in (bins, bins // 2):
        if longest + taken + n_bars + 1 <= width:
            return _Layout(longest, numbers, cells, n_bars, width - longest - taken - 1)
    name = width - taken - bins // 2 - 1
    if name < _NARROWEST_NAME:
        return _Layout(_NARROWEST_NAME, numbers, cells, 0, 0)
    return _Layout(name, numbers, cells, bins // 2, bins // 2)


def _widths(rows: Sequence[tuple[str, ...]], titles: tuple[str, ...]) -> tuple[int, ...]:
    longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return tuple(max(size, len(title)) if size else 0 for size, title in zip(longest, titles, strict=True))


def _cells(field: FieldSummary, layout: _Layout) -> tuple[list[Text], Text]:
    """Return the cells of a field; a text's first value stands where there is more space for it."""
    numbers, last = Text(_numbers_text(_numbers(field), layout)), Text()
    if field.histogram and layout.n_bars:
        last = Text(_sparkline(field.histogram, layout.n_bars), style="cyan")
    elif field.example and field.minimum is None:
        limit = max(layout.cells[2], layout.last)
        first = _cut(plain(field.example, "dim"), limit)
        numbers, last = (numbers, first) if layout.last >= limit else (first, last)
    texts = (_distinct(field), _nan(field), _mark(field))
    return [Text(type_text(field)), Text(field.unit), numbers, *map(Text, texts)], last


def _line(layout: _Layout, label: Text, cells: list[Text], last: Text, style: str) -> Text:
    line = Text(style=style)
    line.append_text(label).pad_right(layout.name - label.cell_len)
    for cell, size, is_right in zip(cells, layout.cells, _RIGHT, strict=True):
        if size:
            gap = " " * (size - cell.cell_len)
            line.append(" " + gap if is_right else " ").append_text(cell).append("" if is_right else gap)
    line.append(" ").append_text(last)
    line.rstrip()
    return line


def _label(field: FieldSummary) -> Text:
    _, short = _split(field.name)
    return plain(f"  {short}" if short else field.name)


def _split(name: str) -> tuple[str, str]:
    """Return the group that a name is shown under and its name in that; a name without a group stands alone."""
    prefix, _, short = name.partition("/")
    return (prefix, short) if prefix and short else ("", "")


def _numbers_text(numbers: tuple[str, ...], layout: _Layout) -> str:
    return " ".join(text.rjust(size) for text, size in zip(numbers, layout.numbers, strict=True) if size)


def _numbers(field: FieldSummary) -> tuple[str, ...]:
    if field.minimum is None or field.maximum is None or field.median is None:
        return "", "", ""
    if field.is_constant:
        return "", _number(field.median), ""
    return _number(field.minimum), _number(field.median), _number(field.maximum)


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e7:
        return str(int(value))
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.6g}"


def _distinct(field: FieldSummary) -> str:
    if field.is_constant:
        return "constant"
    return "" if field.distinct is None else f"{field.distinct:,}"


def _nan(field: FieldSummary) -> str:
    return f"{field.nan:,}" if field.nan else ""


def _mark(field: FieldSummary) -> str:
    return "!" if field.problems else ""


def _sparkline(histogram: tuple[int, ...], n_bars: int) -> str:
    if n_bars < len(histogram):
        histogram = tuple(sum(pair) for pair in zip(histogram[::2], histogram[1::2], strict=True))
    top = max(histogram)
    return "".join(_BARS[0 if count == 0 else max(1, round(8 * count / top))] for count in histogram)


def _cut(text: Text, limit: int) -> Text:
    """Return a text that is cut in the middle where it is too long: the ends of paths differ most."""
    if text.cell_len <= limit:
        return text
    head, tail = text[: max(0, limit - 1) // 3], text
    while len(tail) and tail.cell_len + head.cell_len >= limit:
        tail = tail[1:]
    return Text.assemble(head, ("…", "dim"), tail)
