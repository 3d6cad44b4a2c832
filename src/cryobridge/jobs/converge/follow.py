"""Following a job folder: which iterations are new, whole, or written again.

Nothing here waits: `Follower.look` takes one look. Only what is new since the last one is read.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, option
from cryobridge.formats.input_file import read_error
from cryobridge.formats.listing import list_folder
from cryobridge.jobs.converge.assignments import Assignments, ends_with_blank_line, read_assignments, require_line_end
from cryobridge.jobs.converge.files import IterationFiles, JobFiles, find_iterations, kind_of
from cryobridge.jobs.converge.metrics import read_metrics
from cryobridge.jobs.converge.stall import Stall, stall_of
from cryobridge.jobs.converge.tracking import ClassTracker
from cryobridge.model.classification import FinalResult
from cryobridge.options import as_path
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from cryobridge.jobs.converge.verdict import Rule
    from cryobridge.model.classification import History, IterationMetrics

Signature: TypeAlias = tuple[int, int]
_READERS = 2
_CLEARLY_OLDER_NS = 60 * 10**9


@dataclass(frozen=True)
class _Read:
    """What came out of one iteration's files."""

    files: IterationFiles
    signature: Signature
    assignments: Assignments
    metrics: IterationMetrics
    messages: list[Message]


class Follower:
    """A job folder as it was at the last look.

    Parameters
    ----------
    folder
        The job folder.
    last
        The last iteration to take, or None for all.
    settle_s
        For how many seconds a file's size must have been still, if nothing else shows that it is whole.
    """

    def __init__(self, folder: str | os.PathLike[str], last: int | None = None, settle_s: float = 0) -> None:
        folder = as_path(folder, "folder")
        self.tracker = ClassTracker(folder)
        self.files = JobFiles(folder, "", ())
        self.errors: dict[Path, CryobridgeError] = {}
        self._names: frozenset[str] = frozenset()
        self._last = last
        self._settle_s = settle_s
        self._signatures: dict[int, tuple[Path, Signature]] = {}  # of the iterations read
        self._passed: dict[Path, Signature] = {}  # files that are not to be read again unless they change
        self._seen: dict[Path, tuple[Signature, float]] = {}
        self._messages: dict[Path, list[Message]] = {}
        self._final: FinalResult | None = None
        self._final_signature: Signature | None = None

    def look(self, *, is_final: bool) -> Iterator[int]:
        """Look at the folder and read what is new; yield the number of each iteration that was read.

        Parameters
        ----------
        is_final
            Whether to take all files as they are, without waiting for the last one to be still.

        Raises
        ------
        FormatError
            If the folder can't be listed.
        """
        listing = list_folder(self.tracker.folder)
        # Of a job that was continued the times of the files tell which branch counts.
        if listing.files != self._names or self.files.is_continued:
            self._names = listing.files
            self.files = find_iterations(listing)
        self.tracker.program = self.files.program or self.tracker.program
        if self.files.program == "RELION" and not self.tracker.kind:
            self.tracker.kind = kind_of(self.tracker.folder)
        self._look_at_final(is_final=is_final)
        wanted = self._wanted
        first = next((place for place, item in enumerate(wanted) if self._is_news(item)), None)
        if first is None:
            self._leave_branch()
            return
        news = [item for item in wanted[first:] if not self._is_passed(item)]
        if news and not (is_final or self.files.ended or self._is_whole(news[-1])):
            news.pop()
        for files, result in _read_ahead(news):
            if self._take(files, result):
                yield files.number
        self._leave_branch()

    @property
    def is_done(self) -> bool:
        """Whether all iterations that are there were read, or found to be unreadable, and the final files as well."""
        if self.files.final is not None and self._final is None and self._final_is_wanted:
            return False
        return not any(self._is_news(item) for item in self._wanted)

    @property
    def final(self) -> FinalResult | None:
        """What a refinement has ended with, as far as it was read."""
        return self._final

    @property
    def _wanted(self) -> list[IterationFiles]:
        return [item for item in self.files.iterations if self._last is None or item.number <= self._last]

    def history(self, rule: Rule) -> History:
        """Return what is known so far.

        Parameters
        ----------
        rule
            When the job counts as converged.
        """
        of_files = (message for messages in self._messages.values() for message in messages)
        messages = (*self.files.messages, *of_files, *self._older_ones(), *self._stall())
        return self.tracker.history(rule, messages, self._final)

    @property
    def _final_is_wanted(self) -> bool:
        final = self.files.final
        return final is not None and (self._last is None or final.number <= self._last)

    def _look_at_final(self, *, is_final: bool) -> None:
        """Read the final files of a refinement once they are whole, and again when they change."""
        files = self.files.final
        if files is None or not self._final_is_wanted:
            self._final = self._final_signature = None
            return
        model = files.models[0]
        signature = _signature(model)
        if signature is None or signature == self._final_signature:
            return
        is_still = time.time() - signature[1] / 1e9 >= self._settle_s
        try:
            if not (is_final or is_still or ends_with_blank_line(model)):
                return
        except FormatError:  # it is gone again
            return
        metrics, messages = read_metrics(files)
        self._final, self._final_signature = FinalResult(files.number, files.data, metrics), signature
        self._messages[files.data] = messages

    def _leave_branch(self) -> None:
        """Take back iterations beyond the last one of the branch that counts now, unless their files are just gone."""
        last = max((item.number for item in self.files.iterations), default=0)
        beyond = [number for number, (path, _) in self._signatures.items() if number > last and path.exists()]
        if beyond:
            self._forget_from(min(beyond))

    def stall(self) -> Stall | None:
        """Return for how long no iteration has come, where the job has not ended and that is unusual."""
        last, files = self.tracker.last_iteration, self.files
        if last is None or files.program != "RELION" or files.ended:
            return None
        if last.number in {last.metrics.last_iteration, self._last}:
            return None
        known = [signature for item in files.iterations if (signature := _signature(item.data)) is not None]
        return stall_of([written / 1e9 for _, written in known], time.time())

    def _stall(self) -> list[Message]:
        stall = self.stall()
        return [] if stall is None else [warning("no-new-iteration", str(stall))]

    def _older_ones(self) -> list[Message]:
        """Warn where iterations are older than an earlier one: a job that was continued in place leaves such behind."""
        by_number = sorted(self._signatures.items())
        falls = [
            (before, after)
            for (before, (_, (_, written))), (after, (_, (_, then))) in pairwise(by_number)
            if then < written - _CLEARLY_OLDER_NS
        ]
        if len(falls) != 1:  # with more of them the times are those of a copy
            return []
        before, after = falls[0]
        text = (
            f"Iteration {after} is older than iteration {before}. If the job was continued from an earlier iteration, "
            f"those from {after} on are of the run before; {option('iterations', before)} leaves them out"
        )
        return [warning("iterations-older", text, option="iterations")]

    def _is_news(self, files: IterationFiles) -> bool:
        known = self._signatures.get(files.number)
        signature = _signature(files.data)
        if signature is None or self._passed.get(files.data) == signature:
            return False
        return known != (files.data, signature)

    def _is_passed(self, files: IterationFiles) -> bool:
        signature = _signature(files.data)
        return signature is None or self._passed.get(files.data) == signature

    def _is_whole(self, files: IterationFiles) -> bool:
        """Whether a file can be taken to be written to its end: RELION closes its tables with a blank line."""
        signature = _signature(files.data)
        if signature is None:
            return False
        seen, since = self._seen.get(files.data, (None, 0.0))
        if seen != signature:
            since = time.monotonic()
            self._seen[files.data] = signature, since
        try:
            if files.optimiser is not None and files.data.suffix == ".star" and ends_with_blank_line(files.data):
                return True
        except FormatError:  # it is gone again
            return False
        is_still = time.monotonic() - since >= self._settle_s
        return is_still or time.time() - signature[1] / 1e9 >= self._settle_s

    def _take(self, files: IterationFiles, result: _Read | CryobridgeError) -> bool:
        """Add an iteration, or warn why it is not added."""
        signature = result.signature if isinstance(result, _Read) else _signature(files.data)
        if signature is not None and self._passed.get(files.data) == signature:  # it turned out to be of the run before
            return False
        self._messages.pop(files.data, None)
        self.errors.pop(files.data, None)
        if isinstance(result, _Read):
            if _signature(files.data) not in {result.signature, None}:
                self._leave_out(files.data, "it was written to while it was read")
                return False  # the next look takes it
            if files.number == 0 and _is_start(result):
                self._passed[files.data] = result.signature
                self.errors[files.data] = MissingDataError(
                    "no particle has a class of this job yet",
                    path=files.data,
                    hint=f"{option('watch')} waits for the first iteration.",
                )
                return False
            try:
                self._check(result)
            except CryobridgeError as error:
                self._pass_over(files, result.signature, error)
                return False
            if self._is_the_same_again(result):
                return False
            self._forget_from(files.number)
            self.tracker.add(files.number, files.data, result.assignments, result.metrics)
            self._signatures[files.number] = files.data, result.signature
            self._messages[files.data] = result.messages
            return True
        self._pass_over(files, _signature(files.data) or (0, 0), result)
        return False

    def _check(self, read: _Read) -> None:
        """Raise for an iteration that is only half there."""
        path, before = read.files.data, self.tracker.last_iteration
        n_before = before.particles if before else 0
        if path.suffix != ".cs" and len(read.assignments) < n_before and not ends_with_blank_line(path):
            raise FormatError(
                f"{counted(len(read.assignments), 'particle')} where there were {n_before:,}, "
                "and no blank line at the end",
                path=path,
            )

    def _pass_over(self, files: IterationFiles, signature: Signature, error: CryobridgeError) -> None:
        self._passed[files.data] = signature
        self.errors[files.data] = error
        self._leave_out(files.data, error.message)

    def _leave_out(self, path: Path, reason: str) -> None:
        text = f"{path.name} is left out: {reason}"
        self._messages[path] = [warning("iteration-left-out", text, where=path)]

    def _is_the_same_again(self, read: _Read) -> bool:
        """Whether a file that changed holds what it held before: it was copied or touched."""
        number = read.files.number
        if self._signatures.get(number, (None,))[0] != read.files.data or not self.tracker.holds(
            number, read.assignments
        ):
            return False
        self._signatures[number] = read.files.data, read.signature
        return True

    def _forget_from(self, number: int) -> None:
        """Take back what comes after an iteration that is written again: it is of the run before."""
        again = number in self._signatures
        counting = {item.data for item in self._wanted}
        for later in [known for known in self._signatures if known >= number]:
            path, signature = self._signatures.pop(later)
            self._messages.pop(path, None)
            if again and later > number and path in counting:  # others are of another branch
                self._passed[path] = signature
                self._leave_out(path, f"it was there before iteration {number} was written again")
        self.tracker.take_back(number)


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _is_start(read: _Read) -> bool:
    """Whether an iteration 0 is what a job of RELION starts with: no classes, or those that its input had.

    Particles of an earlier classification keep its classes there, of which there may be more than this job has. RELION
    has computed nothing then, so that its likelihood is 0.
    """
    classes, n_classes = read.assignments.classes, len(read.metrics.class_distribution)
    is_input = read.metrics.log_likelihood == 0 or 0 < n_classes < int(classes.max(initial=0))
    return is_input or not classes.any()


def _read(files: IterationFiles) -> _Read:
    signature = _signature(files.data)
    if signature is None:
        raise read_error(files.data, FileNotFoundError(2, "No such file or directory"))
    require_line_end(files.data)
    assignments = read_assignments(files.data)
    metrics, messages = read_metrics(files)
    return _Read(files, signature, assignments, metrics, messages)


def _read_ahead(news: Sequence[IterationFiles]) -> Iterator[tuple[IterationFiles, _Read | CryobridgeError]]:
    """Read iterations, two at a time, and yield them in their order."""
    waiting: deque[tuple[IterationFiles, Future[_Read]]] = deque()
    coming = iter(news)
    with ThreadPoolExecutor(_READERS) as pool:
        while True:
            while len(waiting) < _READERS and (files := next(coming, None)) is not None:
                waiting.append((files, pool.submit(_read, files)))
            if not waiting:
                return
            files, future = waiting.popleft()
            try:
                yield files, future.result()
            except CryobridgeError as error:
                yield files, error
