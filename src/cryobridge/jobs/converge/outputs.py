"""The files that `cryobridge converge` leaves: its log, tables and pictures.

They are written again whenever the job is looked at: who follows a job wants the newest. They are called converge…,
as no file of RELION or cryoSPARC is, and other files are never touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.formats.atomic import atomic_path
from cryobridge.jobs.converge.tables import classes_csv, iterations_csv, log_text
from cryobridge.jobs.output_folder import make_folder
from cryobridge.options import as_path
from cryobridge.progress import Reporter, Silent

if TYPE_CHECKING:
    from cryobridge.jobs.converge.history import History, Iteration


@dataclass(frozen=True)
class OutputFiles:
    """Where the results of a course go.

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

    Raises
    ------
    UsageError
        If one of them is neither a text nor a path.
    """

    folder: Path
    plots: bool = True
    legacy_names: bool = False
    html: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", as_path(self.folder, "folder"))
        object.__setattr__(self, "html", None if self.html is None else as_path(self.html, "html"))

    def write(self, history: History, numbers: Iterable[int], reporter: Reporter | None = None) -> list[Path]:
        """Write everything, with pictures of these iterations; what is there of an earlier look is replaced.

        Parameters
        ----------
        history
            The course.
        numbers
            The iterations to draw.
        reporter
            Who is told of each picture.

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
        make_folder(self.folder)
        written = []
        for name, text in (
            ("converge.log", log_text(history)),
            ("converge.csv", iterations_csv(history)),
            ("converge_classes.csv", classes_csv(history)),
        ):
            written.append(_write_text(self.folder / name, text))
        if history.n_classes and self.plots:
            written += self._draw(history, set(numbers), reporter)
        if self.html is not None:
            from cryobridge.jobs.converge.html_page import write_html

            write_html(history, self.html)
            written.append(self.html)
        return written

    def picture_of(self, iteration: Iteration) -> Path:
        """Return where the picture of an iteration goes."""
        name = f"{iteration.number:03d}" if self.legacy_names else iteration.source.stem
        return self.folder / f"converge_{name}.png"

    def _draw(self, history: History, numbers: set[int], reporter: Reporter) -> list[Path]:
        from cryobridge.jobs.converge.pictures import draw_flow, draw_iteration, draw_summary

        wanted = [iteration for iteration in history.iterations if iteration.number in numbers]
        reporter.start("drawing", len(wanted) + 2)
        summary, flow = self.folder / "converge_summary.png", self.folder / "converge_flow.png"
        draw_summary(history, summary)
        reporter.advance()
        draw_flow(history, flow)
        reporter.advance()
        for iteration in wanted:
            draw_iteration(history, iteration.number, self.picture_of(iteration))
            reporter.advance()
        return [summary, flow, *(self.picture_of(iteration) for iteration in wanted)]


def _write_text(path: Path, text: str) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
