"""The pictures of a job as the content of files, drawn beside the reading where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, option
from cryobridge.executors.helper_process import HelperError, HelperProcess
from cryobridge.model.classification import History, numbers_of
from cryobridge.plots.converge import draw, prepare

if TYPE_CHECKING:
    from cryobridge.plots.converge import Which


Mark = tuple[object, ...]


@dataclass(frozen=True)
class _Asked:
    """A picture that was asked for; the history is kept, since its parts are known by where they are."""

    history: History
    mark: Mark
    future: Future[bytes]


class Pictures:
    """Draws the pictures of a job, each once as long as it stays the same."""

    def __init__(self) -> None:
        self._process: HelperProcess | None = None
        self._drawn: dict[Which, _Asked] = {}

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Draw in a process of its own until the block is left."""
        with HelperProcess() as process:
            self._process = process
            try:
                yield
            finally:
                self._process = None

    def draw_ahead(self, history: History, *, each: bool) -> None:
        """Begin to draw what more iterations won't change, where that goes on beside the reading.

        Parameters
        ----------
        history
            The iterations so far; there may be more.
        each
            Whether each iteration has a picture.
        """
        if self._process is None:
            return
        if not self._drawn:
            self._process.call(prepare)
        if each and len(history.iterations) > 1:
            self._ask(history, history.iterations[-2].number)

    def ask(self, history: History, wanted: Sequence[Which]) -> None:
        """Begin to draw these, where a process is there for it."""
        if self._process is not None:
            for which in wanted:
                self._ask(history, which)

    def get(self, history: History, which: Which) -> bytes:
        """Return a picture as a PNG file.

        Parameters
        ----------
        history
            The iterations.
        which
            ``"summary"``, ``"flow"``, or the number of an iteration.

        Raises
        ------
        CryobridgeError
            If the process that draws has ended.
        """
        try:
            return self._ask(history, which).result()
        except HelperError as error:
            raise CryobridgeError(
                f"the pictures could not be drawn ({error})",
                path=history.folder,
                hint=f"{option('plots', 'False')} goes without them.",
            ) from error

    def _ask(self, history: History, which: Which) -> Future[bytes]:
        needed, mark = _what_is_drawn(history, which)
        known = self._drawn.get(which)
        if known is None or known.mark != mark:
            known = self._drawn[which] = _Asked(history, mark, self._call(needed, which))
        return known.future

    def _call(self, history: History, which: Which) -> Future[bytes]:
        if self._process is not None:
            return self._process.call(draw, history, which)
        here: Future[bytes] = Future()
        here.set_result(draw(history, which))
        return here


def _what_is_drawn(history: History, which: Which) -> tuple[History, Mark]:
    """Return what a picture depends on, and a mark that is another one if any of it is."""
    if isinstance(which, str):
        return history, (id(history),)
    place = numbers_of(history.iterations).index(which)
    so_far = history.iterations[: place + 1]
    # Of the iterations before, only the populations are drawn; what went where would be much to send.
    earlier = (replace(step, transitions=None) for step in so_far[:-1])
    needed = replace(history, iterations=(*earlier, so_far[-1]), messages=())
    return needed, (history.program, history.kind, history.is_refinement, *map(id, so_far))
