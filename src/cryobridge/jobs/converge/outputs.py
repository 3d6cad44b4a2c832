"""The files that `cryobridge converge` leaves: its log, tables and pictures.

They are written again whenever the job is looked at: who follows a job wants the newest. They are called converge…,
as no file of RELION or cryoSPARC is, and other files are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.formats.atomic import atomic_path
from cryobridge.jobs.converge.tables import classes_csv, iterations_csv, log_text
from cryobridge.jobs.output_folder import make_folder
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
        make_folder(self.folder)
        written = []
        for name, text in (
            ("converge.log", log_text(history)),
            ("converge.csv", iterations_csv(history)),
            ("converge_classes.csv", classes_csv(history)),
        ):
            written.append(_write(self.folder / name, text.encode("utf-8", "backslashreplace")))
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
        from cryobridge.plots.converge import flow_sheet, iteration_sheet, summary_sheet
        from cryobridge.plots.page import png

        wanted = [iteration for iteration in history.iterations if iteration.number in numbers]
        reporter.start("drawing", len(wanted) + 2)
        summary, flow = self.folder / "converge_summary.png", self.folder / "converge_flow.png"
        pages: dict[Path, Callable[[], Sheet]] = {
            summary: partial(summary_sheet, history),
            flow: partial(flow_sheet, history),
            **{self.picture_of(step): partial(iteration_sheet, history, step.number) for step in wanted},
        }
        for path, page in pages.items():
            _write(path, png(page()))
            reporter.advance()
        return list(pages)


def _write(path: Path, content: bytes) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path
