"""The files that `cryobridge converge` leaves: its log, tables and pictures.

They are written again whenever the job is looked at: who follows a job wants the newest. They are called converge…,
as no file of RELION or cryoSPARC is, and other files are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.formats.atomic import atomic_path, together
from cryobridge.jobs.converge.tables import classes_csv, iterations_csv, log_text
from cryobridge.jobs.output_folder import make_folder
from cryobridge.options import as_path
from cryobridge.progress import Reporter, Silent

if TYPE_CHECKING:
    from cryobridge.jobs.converge.drawing import Pictures
    from cryobridge.model.classification import History, Iteration
    from cryobridge.plots.converge import Which


@dataclass(frozen=True)
class FileKind:
    """A file that is written, with what is in it; of refinements None where it is not written."""

    name: str
    content: str
    of_refinements: str | None


_MEASURES = "resolution, changes of angles and shifts, accuracies"
LOG = FileKind("converge.log", *2 * ("changed particles, as reliosparc wrote them",))
TABLE = FileKind("converge.csv", *2 * ("a row an iteration",))
CLASSES = FileKind("converge_classes.csv", *2 * ("a row an iteration and class",))
SUMMARY = FileKind("converge_summary.png", "class populations, changed fraction, resolution", _MEASURES)
FLOW = FileKind("converge_flow.png", "who went where in the last 5 steps", None)
EACH = FileKind("converge_run_it012_data.png", "class populations up to an iteration", "the same up to an iteration")
# The one list of them: what is written, shown on the screen and in the page on converge follows it.
TEXTS: dict[FileKind, Callable[[History], str]] = {LOG: log_text, TABLE: iterations_csv, CLASSES: classes_csv}
PICTURES: dict[FileKind, Which] = {SUMMARY: "summary", FLOW: "flow"}
KINDS = (*TEXTS, *PICTURES, EACH)
PAGE = "verdict, pictures and tables"


@dataclass(frozen=True)
class OutputFile:
    """A file that is written.

    Parameters
    ----------
    path
        Its name.
    content
        What is in it, in a few words.
    """

    path: Path
    content: str


@dataclass(frozen=True)
class OutputFiles:
    """Where the results go.

    Parameters
    ----------
    folder
        The folder for them.
    plots
        Whether to draw.
    each
        Whether to draw each iteration.
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
    each: bool = False
    legacy_names: bool = False
    html: Path | None = None
    is_skipped: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", as_path(self.folder, "folder"))
        object.__setattr__(self, "html", None if self.html is None else as_path(self.html, "html"))

    @property
    def draws(self) -> bool:
        """Whether any picture is drawn."""
        return (self.plots and not self.is_skipped) or self.html is not None

    @property
    def draws_each(self) -> bool:
        """Whether an iteration has a picture of its own."""
        return self.plots and self.each and not self.is_skipped

    def write(
        self, history: History, numbers: Iterable[int], pictures: Pictures, reporter: Reporter | None = None
    ) -> list[Path]:
        """Write everything; what is there of an earlier look is replaced.

        Parameters
        ----------
        history
            The iterations.
        numbers
            The iterations to draw, where each is.
        pictures
            What draws.
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
        drawn = self._pictures(history, set(numbers))
        if self.draws and history.n_classes:
            from cryobridge.jobs.converge.html_page import pictures_of_page

            of_page = [] if self.html is None else pictures_of_page(history)
            pictures.ask(history, list(dict.fromkeys([*(which for _, which in drawn), *of_page])))
        with together():
            if not self.is_skipped:
                make_folder(self.folder)
                for kind, text in TEXTS.items():
                    _write(self.folder / kind.name, text(history).encode("utf-8", "backslashreplace"))
            if drawn:
                reporter.start("drawing", len(drawn))
            for file, which in drawn:
                _write(file.path, pictures.get(history, which))
                reporter.advance()
            if self.html is not None:
                from cryobridge.jobs.converge.html_page import write_html

                write_html(history, self.html, pictures)
        return [file.path for file in self.files(history, numbers)]

    def files(self, history: History, numbers: Iterable[int]) -> list[OutputFile]:
        """Return the files that `write` writes."""
        page = [] if self.html is None else [OutputFile(self.html, PAGE)]
        if self.is_skipped:
            return page
        texts = [self._file(kind, history) for kind in TEXTS]
        return [*texts, *(file for file, _ in self._pictures(history, set(numbers))), *page]

    def _pictures(self, history: History, numbers: set[int]) -> list[tuple[OutputFile, Which]]:
        """Return the pictures: summary, flow where there are classes, and one of each of these iterations."""
        if not self.plots or self.is_skipped or not history.n_classes:
            return []
        found = [
            (self._file(kind, history), which)
            for kind, which in PICTURES.items()
            if not (history.is_refinement and kind.of_refinements is None)
        ]
        steps = [step for step in history.iterations if self.each and step.number in numbers]
        return [*found, *((self._file(EACH, history, self._name_of(step)), step.number) for step in steps)]

    def _file(self, kind: FileKind, history: History, name: str = "") -> OutputFile:
        content = kind.of_refinements if history.is_refinement else kind.content
        return OutputFile(self.folder / (name or kind.name), content or "")

    def _name_of(self, iteration: Iteration) -> str:
        name = f"{iteration.number:03d}" if self.legacy_names else iteration.source.stem
        return f"converge_{name}.png"


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
