"""Laying panels out on a page: sizes, titles that fit, notes at the foot."""

from __future__ import annotations

import io
import math
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.interruption import uninterrupted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
MAX_PANELS = 36
_MIN_WIDTH_IN = 6.0
_HEADING_PT, _TITLE_PT, _NOTE_PT, TICK_PT = 11.0, 8.5, 8.0, 7.0
_MAX_NAMES = 60
# Numbers beyond are no measurements, and their differences overflow.
LARGEST = 1e100
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "text.usetex": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "savefig.bbox": None,
    "savefig.dpi": "figure",
}
# The style lies in settings that all threads share.
_drawing = threading.RLock()
# Noise hardly shrinks, however long it is packed, and lines are small after the quickest packing as well.
_PACKED = {"compress_level": 1}
TICK_STEPS = (1, 2, 2.5, 5, 10)
# With numbers of five digits and a label at the left.
LABELLED_MARGIN_IN = (0.75, 0.55, 0.12, 0.28)
Draw = Callable[["Axes"], None]
# Only plots/ imports matplotlib, also for its types.
Picture: TypeAlias = "Figure"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One pair of axes: the title and what draws into it; marked where values are implausible.

    A wide one takes a row of two for itself.
    """

    title: str
    draw: Draw
    is_marked: bool = False
    is_wide: bool = False


@dataclass(frozen=True)
class Sheet:
    """A page of equal panels, with a heading above and notes below.

    A panel leaves ``margin_in`` of its cell free: left, bottom, right, top; lengths are in inches.
    """

    heading: str
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()
    cell_in: tuple[float, float] = (3.0, 2.1)
    margin_in: tuple[float, float, float, float] = (0.5, 0.55, 0.12, 0.28)


class PageNotes:
    """Gathers what a page says below its panels: sentences, and the names that are not drawn, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self.sentences: list[str] = []

    def leave_out(self, reason: str, names: Iterable[str]) -> None:
        """Note columns that are not drawn, and why."""
        self._names.setdefault(reason, []).extend(names)

    def notes(self) -> tuple[str, ...]:
        """Return what is to stand below the panels."""
        left_out = [f"{reason}: {_listed(names)}" for reason, names in self._names.items() if names]
        return (*self.sentences, *([f"Not drawn - {'; '.join(left_out)}."] if left_out else []))


# Matplotlib's compiled code does not survive an interrupt in what it calls of Python: the process would crash.
@uninterrupted
def lay_out(sheet: Sheet) -> Figure:
    """Place the panels in rows from the top left; sizes are fixed, so that no text meets another."""
    with _style():
        return _laid_out(sheet)


def _laid_out(sheet: Sheet) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cells, n_columns = _cells(sheet.panels)
    n_rows = cells[-1][0] + 1
    scale = max(1.0, _MIN_WIDTH_IN / (n_columns * sheet.cell_in[0]))
    cell_w, cell_h = (side * scale for side in sheet.cell_in)
    left, bottom, right, top = sheet.margin_in
    width = n_columns * cell_w
    heading = _wrapped([sheet.heading], width - 0.3, _HEADING_PT)
    notes = _wrapped(sheet.notes, width - 0.3, _NOTE_PT)
    head_h = 0.2 + len(heading) * _HEADING_PT * 1.5 / 72
    foot_h = 0.15 + len(notes) * _NOTE_PT * 1.5 / 72
    height = head_h + n_rows * cell_h + foot_h
    figure = Figure((width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    plain: dict[str, Any] = {"parse_math": False, "va": "top", "linespacing": 1.3}
    figure.text(0.15 / width, 1 - 0.1 / height, "\n".join(heading), fontsize=_HEADING_PT, **plain)
    figure.text(0.15 / width, (foot_h - 0.05) / height, "\n".join(notes), fontsize=_NOTE_PT, **plain)
    for (row, column, span), panel in zip(cells, sheet.panels, strict=True):
        panel_w = span * cell_w
        x, y = column * cell_w + left, height - head_h - (row + 1) * cell_h + bottom
        axes = figure.add_axes(
            (x / width, y / height, (panel_w - left - right) / width, (cell_h - bottom - top) / height)
        )
        axes.tick_params(labelsize=TICK_PT)
        panel.draw(axes)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set_fontsize(_NOTE_PT)
            axis.get_offset_text().set_fontsize(TICK_PT)
        limit = _characters(panel_w - left, _TITLE_PT)
        title = _shortened(f"⚠ {panel.title}" if panel.is_marked else panel.title, limit)
        colour = "firebrick" if panel.is_marked else "black"
        # At a height of its own: finding out whether ticks stand above would lay out all of them once more.
        axes.set_title(title, loc="left", fontsize=_TITLE_PT, color=colour, parse_math=False, y=1.0)
    return figure


def _cells(panels: Sequence[Panel]) -> tuple[list[tuple[int, int, int]], int]:
    """Return row, column and width in cells of each panel, and how many columns there are."""
    if any(panel.is_wide for panel in panels):
        n_columns = 2
    else:
        n_columns = len(panels) if len(panels) <= 3 else math.ceil(math.sqrt(len(panels)))
    cells: list[tuple[int, int, int]] = []
    row, column = 0, 0
    for panel in panels:
        span = n_columns if panel.is_wide else 1
        if column + span > n_columns:
            row, column = row + 1, 0
        cells.append((row, column, span))
        column += span
    return cells, n_columns


def png(sheet: Sheet) -> bytes:
    """Return a page as the content of a PNG file."""
    return written_as(lay_out(sheet), "png", pil_kwargs=_PACKED)


@uninterrupted
def written_as(picture: Picture, kind: str, **how: Any) -> bytes:
    """Return a figure as the content of a file: ``png``, ``pdf`` or ``svg``."""
    buffer = io.BytesIO()
    with _style():
        picture.savefig(buffer, format=kind, **how)
    return buffer.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Draw alike whatever the user's matplotlibrc says; TeX would read the texts of files as its own."""
    import matplotlib

    with _drawing, matplotlib.rc_context(_STYLE):
        yield


def labelled(draw: Draw, x_label: str, y_label: str) -> Draw:
    """Return a drawing with labelled axes."""

    def draw_and_label(axes: Axes) -> None:
        draw(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    return draw_and_label


def _wrapped(texts: Iterable[str], width_in: float, size_pt: float) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(_drawable(text), _characters(width_in, size_pt))]


def _characters(width_in: float, size_pt: float) -> int:
    """Return how many characters fit; on average one is 0.62 of the font's size wide."""
    return int(width_in * 72 / (0.62 * size_pt))


def _shortened(text: str, limit: int) -> str:
    """Take out the middle of a text that is too long; names of columns differ at their ends."""
    text = _drawable(text)
    return text if len(text) <= limit else f"{text[: (limit - 1) // 2]}…{text[-(limit // 2) :]}"


def _drawable(text: str) -> str:
    """Replace what the font has no glyph for."""
    return "".join(character if ord(character) in _glyphs() else "?" for character in text)


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap()) - {*range(32), 127}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def image_count(count: int) -> str:
    """Return a number of images in words."""
    return "1 image" if count == 1 else f"{count:,} images"


def path_title(path: Path) -> str:
    """Return a path as a heading."""
    return path.absolute().name
