"""What an executor is asked for, and what it asks of the work that it is given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from cryobridge.executors.array_job import Part
    from cryobridge.progress import Reporter
    from cryobridge.report import Message

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

Advance = Callable[[int], None]


class AdvanceBy(Protocol):
    """Takes a number of steps that are done; of a worker that is known by a name, those of a whole task."""

    def __call__(self, steps: int, /, *, by: str = "", seconds: float = 0.0) -> None:
        """Count steps.

        Parameters
        ----------
        steps
            That are done.
        by, seconds
            The worker, and how long it was at the task.
        """


class Worker(Protocol[Result_co]):
    """Carries out tasks on one device; ready when it is made, so that too large a task is refused before the work."""

    def run(self, numbers: Iterable[int], *, advance: Advance, done: Callable[[Result_co], None]) -> None:
        """Carry out tasks, one after the other; they are asked for as they can be begun.

        Parameters
        ----------
        numbers
            Of the tasks.
        advance
            Called with a number of steps that are done, from any thread.
        done
            Called with the result of each task, from any thread.

        Raises
        ------
        CryobridgeError
            If a task can't be carried out; those that are done stay.
        """


class Elsewhere(Protocol[Result_co]):
    """Carries out a task in another process; small, as it is sent with each."""

    def __call__(self, number: int, lane: Callable[[], int]) -> tuple[int, Result_co]:
        """Carry a task out, and return the steps that are done, and the result.

        Parameters
        ----------
        number
            Of the task.
        lane
            Says which of those that carry out tasks on this host at the same time this one is, from 0, so that they
            share its devices.
        """


class Work(Protocol[Result_co]):
    """Independent tasks, known by their numbers, that leave files and have small results.

    A task may run in any order, anywhere, and twice: its outcome is the same. All that the tasks share is written after
    the last one, by whoever asked for the work.
    """

    @property
    def reporter(self) -> Reporter:
        """Who hears of what takes long before the first task, and of who carries tasks out."""

    @property
    def uses_torch(self) -> bool:
        """Whether tasks need torch on the processor, too."""

    def worker(self, device: str) -> Worker[Result_co]:
        """Return who carries out tasks on a device, such as ``"cpu"`` or ``"cuda:1"``."""

    def process(self) -> AbstractContextManager[None]:
        """Settle what all workers of a process share, such as how many threads a library takes, while they run."""

    def elsewhere(self, device: str) -> AbstractContextManager[Elsewhere[Result_co]]:
        """Write down what other processes need, and return what carries a task out there, within the block.

        ``device`` names what each host works on.
        """


class Run(Protocol[Result_co]):
    """Runs tasks of the work that it was prepared for."""

    def __call__(self, numbers: Sequence[int], *, advance: AdvanceBy, done: Callable[[Result_co], None]) -> None:
        """Run tasks to their end.

        Parameters
        ----------
        numbers
            Of the tasks.
        advance
            Called with steps that are done.
        done
            Called with the result of each task, one call at a time.

        Raises
        ------
        CryobridgeError
            If a task can't be carried out; those that are done stay.
        """


class Executor(Protocol):
    """Where tasks run. What a class derived from this one does not say of itself is as it stands here."""

    @property
    def part(self) -> Part | None:
        """Which of the tasks it is given, where other processes carry out the others at the same time; None for all."""
        return None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is to be said of it before the work."""
        return ()

    def check(self) -> None:
        """Refuse what can be seen to be missing, such as a device, without any work.

        Raises
        ------
        CryobridgeError
            If something is.
        """
        return None

    @abstractmethod
    def prepare(self, work: Work[Result]) -> Run[Result]:
        """Get ready for the work, before anything is written.

        Raises
        ------
        CryobridgeError
            If it can't be done here.
        """
