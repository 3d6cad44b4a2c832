"""Which part of the tasks a process has, as typed or as a batch system numbers the tasks of an array job."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cryobridge.errors import UsageError, option
from cryobridge.executors.base import Executor, Result, Run, Work
from cryobridge.report import warning

if TYPE_CHECKING:
    from cryobridge.report import Message

T = TypeVar("T")
_TYPED = re.compile(r"(?P<number>\d{1,9})/(?P<count>\d{1,9})")
_OF_ARRAY = re.compile(r"array(?:/(?P<count>\d{1,9}))?")
_FOLDER = re.compile(r"(?P<number>\d{1,9})_of_(?P<count>\d{1,9})")

# The variables of a task's number and of how many there are, or the last; PBS has no such.
_LSF_TASK = "LSB_JOBINDEX"
_ARRAYS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("PBS_ARRAY_INDEX", ""),
    (_LSF_TASK, "LSB_JOBINDEX_END"),
)


@dataclass(frozen=True)
class Part:
    """One of several equal parts of a job.

    Parameters
    ----------
    number
        From 0.
    count
        How many parts there are.

    Examples
    --------
    >>> Part.of("1/3").of_tasks("abcdefgh")
    ('b', 'e', 'h')
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise UsageError(
                f"there is no part {self.number} of {self.count}",
                option="part",
                hint=f"Parts are counted from 0: {option('part', f'0/{max(1, self.count)}')} is the first.",
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def of(cls, text: str, environment: Mapping[str, str] | None = None) -> Part:
        """Return the part that a text names.

        Parameters
        ----------
        text
            ``"K/N"``, with K from 0; ``"array"`` for the task of an array job that this process is; ``"array/N"`` where
            N parts were planned and the number of the task is K.
        environment
            The variables of the batch system; those of this process if not given.

        Raises
        ------
        UsageError
            If the text is nothing of this, or the process is no task of an array job.
        """
        if (typed := _TYPED.fullmatch(text)) is not None:
            return cls(int(typed["number"]), int(typed["count"]))
        if (of_array := _OF_ARRAY.fullmatch(text)) is not None:
            count = None if of_array["count"] is None else int(of_array["count"])
            return cls._of_array(count, os.environ if environment is None else environment)
        raise UsageError(f"{text!r:.60} is no part", option="part", hint="Give 0/16, or array, or array/16.")

    @classmethod
    def _of_array(cls, count: int | None, environment: Mapping[str, str]) -> Part:
        slurm, lsf = _number(environment, "SLURM_ARRAY_TASK_ID"), _number(environment, "LSB_JOBINDEX")
        pbs = _number(environment, "PBS_ARRAY_INDEX")
        if slurm is not None:
            return cls(slurm, count) if count is not None else cls._of_slurm(slurm, environment)
        if pbs is not None:
            if count is None:
                raise UsageError(
                    "PBS does not say how many tasks an array job has",
                    option="part",
                    hint=f"Say it: {option('part', 'array/16')} for an array job with -J 0-15.",
                )
            return cls(pbs, count)
        if lsf:  # which counts from 1, and gives 0 to other jobs
            return cls(lsf - 1, count or _number(environment, "LSB_JOBINDEX_END") or 0)
        raise UsageError(
            "this is no task of an array job of SLURM, PBS or LSF",
            option="part",
            hint=f"Number the parts yourself: {option('part', '0/2')} and {option('part', '1/2')}, say.",
        )

    @classmethod
    def _of_slurm(cls, task: int, environment: Mapping[str, str]) -> Part:
        first = _number(environment, "SLURM_ARRAY_TASK_MIN") or 0
        step = _number(environment, "SLURM_ARRAY_TASK_STEP") or 1
        count = _number(environment, "SLURM_ARRAY_TASK_COUNT") or 0
        last = _number(environment, "SLURM_ARRAY_TASK_MAX")
        # A list such as 3,7 has gaps, as when only parts that failed are submitted again.
        if last is not None and last != first + (count - 1) * step:
            raise UsageError(
                f"the {count} tasks of the array job are not numbered evenly from {first} to {last}",
                option="part",
                hint=f"Say how many parts there are: {option('part', 'array/16')} for those of --array=0-15.",
            )
        return cls((task - first) // step, count)

    @property
    def folder_name(self) -> str:
        """The name of the folder that its record lies in."""
        return f"{self.number}_of_{self.count}"

    @classmethod
    def of_folder(cls, name: str) -> Part | None:
        """Return the part that a folder of this name is the record of; None for other folders."""
        found = _FOLDER.fullmatch(name)
        if found is None or int(found["number"]) >= int(found["count"]):
            return None
        return cls(int(found["number"]), int(found["count"]))

    def of_tasks(self, tasks: Sequence[T]) -> tuple[T, ...]:
        """Return which of all tasks are its own: every N-th, so that parts are alike in size and kind."""
        return tuple(tasks[self.number :: self.count])

    def that_has(self, place: int) -> Part:
        """Return which of the parts has the task at this place, from 0, of all tasks."""
        return Part(place % self.count, self.count)


class PartExecutor(Executor):
    """Runs a part of the tasks, while processes that it knows nothing of run the other parts.

    Parameters
    ----------
    part
        Which of them.
    executor
        Where they run.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from cryobridge.executors.devices import DeviceExecutor
    >>> executor = PartExecutor(Part.of("0/16"), DeviceExecutor("cpu"))
    >>> report = cb.stacks("particles.star", "fourier", executor=executor)
    """

    def __init__(self, part: Part, executor: Executor) -> None:
        self._part = part
        self._executor = executor

    @property
    def part(self) -> Part:
        """Which of the tasks it is given."""
        return self._part

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is to be said of where they run."""
        return self._executor.messages

    def check(self) -> None:
        """Refuse what is missing where they run."""
        self._executor.check()

    def prepare(self, work: Work[Result]) -> Run[Result]:
        """Get ready for the work; see `cryobridge.executors.base.Executor`."""
        return self._executor.prepare(work)


def all_in_a_task(environment: Mapping[str, str] | None = None) -> tuple[Message, ...]:
    """Return a warning where this process is one of several tasks of an array job, for work that is not shared.

    Parameters
    ----------
    environment
        The variables of the batch system; those of this process if not given.
    """
    given = os.environ if environment is None else environment
    for task, count in _ARRAYS:
        number = _number(given, task)
        if number is None or _number(given, count) == 1 or (task == _LSF_TASK and number == 0):
            continue
        text = f"task {number} of an array job makes all stacks here; {option('part', 'array')} makes its part of them"
        return (warning("array-without-part", text, option="part"),)
    return ()


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None
