"""The files that `cryobridge converge` leaves: its log, tables and pictures.

They are written again whenever the job is looked at: who follows a job wants the newest. They are called converge…,
as no file of RELION or cryoSPARC is, and other files are never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.formats.atomic import atomic_path, together
from cryobridge.jobs.converge.tables import classes_csv, iterations_csv, log_text
from cryobridge.jobs.output_folder import make_folder
from cryobridge.model.classification import numbers_of
from cryobridge.options import as_path
from cryobridge.progress import Reporter, Silent

if TYPE_CHECKING:
    from cryobridge.model.classification import History, Iteration
    from cryobridge.plots.page import Sheet


@dataclass(frozen=True)
class OutputFiles:
    """Where the results go.

    Parameters
    ----------
    folder
        The folder for them.
    plots
        Whether to draw.
    legacy_names
        Whether an iteration's picture is called ``converge_012.png``, not ``converge_run_it012_data.png``.
    html
        The page to write, or None.
    is_skipped
        Whether nothing is written into the folder, but the page where it was named.

    Raises
    ------
    UsageError
        If one of them is neither a text nor a path.
    """

    folder: Path
    plots: bool = True
    legacy_names: bool = False
    html: Path | None = None
    is_skipped: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", as_path(self.folder, "folder"))
        object.__setattr__(self, "html", None if self.html is None else as_path(self.html, "html"))

    def write(self, history: History, numbers: Iterable[int], reporter: Reporter | None = None) -> list[Path]:
        """Write everything, with pictures of these iterations; what is there of an earlier look is replaced.

        Parameters
        ----------
        history
            The iterations.
        numbers
            The iterations to draw.
        reporter
            What shows the progress.

        Returns
        -------
        list
            The files written, those of the iterations last.

        Raises
        ------
        CryobridgeError
            If a file can't be written.
        """
        reporter = reporter or Silent()
        numbers = set(numbers)
        with together():
            if not self.is_skipped:
                self._write_folder(history, numbers, reporter)
            if self.html is not None:
                from cryobridge.jobs.converge.html_page import write_html

                write_html(history, self.html)
        return self.paths(history, numbers)

    def paths(self, history: History, numbers: Iterable[int]) -> list[Path]:
        """Return the files that `write` writes."""
        page = [] if self.html is None else [self.html]
        if self.is_skipped:
            return page
        drawn = self._pictures(history, set(numbers)) if history.n_classes and self.plots else []
        return [*self._texts, *drawn, *page]

    def _write_folder(self, history: History, numbers: set[int], reporter: Reporter) -> None:
        make_folder(self.folder)
        texts = (log_text(history), iterations_csv(history), classes_csv(history))
        for path, text in zip(self._texts, texts, strict=True):
            _write(path, text.encode("utf-8", "backslashreplace"))
        if history.n_classes and self.plots:
            self._draw(history, numbers, reporter)

    @property
    def _texts(self) -> tuple[Path, Path, Path]:
        return self.folder / "converge.log", self.folder / "converge.csv", self.folder / "converge_classes.csv"

    def picture_of(self, iteration: Iteration) -> Path:
        """Return where the picture of an iteration goes."""
        name = f"{iteration.number:03d}" if self.legacy_names else iteration.source.stem
        return self.folder / f"converge_{name}.png"

    def _pictures(self, history: History, numbers: set[int]) -> list[Path]:
        """Return the pictures: summary, flow where there are classes, and one of each of these iterations."""
        steps = [step for step in history.iterations if step.number in numbers]
        names = [self.folder / "converge_summary.png"]
        names += [] if history.is_refinement else [self.folder / "converge_flow.png"]
        return [*names, *map(self.picture_of, steps)]

    def _draw(self, history: History, numbers: set[int], reporter: Reporter) -> None:
        from cryobridge.plots.page import png

        paths = self._pictures(history, numbers)
        reporter.start("drawing", len(paths))
        for path, sheet in zip(paths, _sheets(history, numbers), strict=True):
            _write(path, png(sheet))
            reporter.advance()


def _sheets(history: History, numbers: set[int]) -> Iterator[Sheet]:
    """Plan the pictures one after another, in the order of `OutputFiles.paths`."""
    from cryobridge.plots.converge import flow_sheet, iteration_sheet, summary_sheet

    yield summary_sheet(history)
    if not history.is_refinement:
        yield flow_sheet(history)
    for number in numbers_of(history.iterations):
        if number in numbers:
            yield iteration_sheet(history, number)


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
