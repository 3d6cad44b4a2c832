"""Making stacks: what is there already, the work, what all stacks share, and the report; wherever the work is done."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from cryobridge.errors import option
from cryobridge.executors.array_job import Part, PartExecutor, all_in_a_task
from cryobridge.executors.dask_cluster import ClusterExecutor
from cryobridge.executors.devices import DeviceExecutor
from cryobridge.fourier.loading import load_torch
from cryobridge.jobs.output_folder import JobRecord, require_space
from cryobridge.jobs.stacks.execute import StackWork
from cryobridge.jobs.stacks.plan import Found, R, StackPlan, StackResult, rows_left_out, standing
from cryobridge.jobs.stacks.shares import Finish, OnePart, Share, Whole
from cryobridge.progress import LINE_EVERY_S, Both, Reporter, Silent, in_lines
from cryobridge.report import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cryobridge.executors.base import Executor, Run
    from cryobridge.jobs.stacks.options import SharingOptions
    from cryobridge.report import Message, Report

_NOTHING_TO_DO = "all of it is there, whole and of the same inputs and options: nothing was changed"


def executor_for(device: str, sharing: SharingOptions, given: Executor | None = None) -> Executor:
    """Return where stacks are made: on devices of this process or of a cluster's workers, all or a part of them.

    Parameters
    ----------
    device
        As it is typed.
    sharing
        The part, and the cluster.
    given
        What takes the place of both device and cluster.

    Raises
    ------
    UsageError
        If there is no such device, cluster or part.
    """
    executor = given
    if executor is None:
        cluster = sharing.cluster
        executor = DeviceExecutor(device) if cluster is None else ClusterExecutor(cluster, device)
    return executor if sharing.part is None else PartExecutor(Part.of(sharing.part), executor)


def _unchanged(report: R) -> R:
    return report


@dataclass(frozen=True)
class StackJob(Generic[R]):
    """A plan, where its stacks go, and where they are made.

    Parameters
    ----------
    plan
        What is made.
    folder
        The output folder.
    executor
        Who makes the stacks, all or a part of them.
    resume
        Keep stacks that are whole and were made from the same inputs and parameters, and make the rest.
    verify_outputs
        Read the stacks that would be kept through, rather than compare their sizes and ends; begin unfinished ones,
        which can't be verified, anew.
    recorded
        What the record of the folder says, made of the report; the report itself unless it is given.
    finish
        Make no stack, and write what they share when all of them are whole.
    """

    plan: StackPlan[R]
    folder: Path
    executor: Executor = field(default_factory=DeviceExecutor)
    resume: bool = False
    verify_outputs: bool = False
    recorded: Callable[[R], Report] = _unchanged
    finish: bool = False

    @cached_property
    def _share(self) -> Share[R]:
        part = self.executor.part
        about_array = all_in_a_task() if part is None and not self.finish else ()
        plan = replace(self.plan, messages=(*self.plan.messages, *self.executor.messages, *about_array))
        asked = (plan, self.folder, self.resume, self.verify_outputs)
        if self.finish:
            return Finish(*asked)
        return Whole(*asked) if part is None else OnePart(*asked, part)

    def report(self) -> R:
        """Return what will be made, if all images can be used, and how much disk space it takes."""
        return self._share.report()

    def check(self, *, overwrite: bool = False) -> None:
        """Check where the stacks go, before anything is written.

        Raises
        ------
        OutputExistsError
            If outputs are there already, and neither overwriting nor resuming was asked for.
        UsageError
            If both are asked for, or the folder is another program's job.
        CryobridgeError
            If another run is at work in the folder, the disk has too little space, or stacks are not whole that are to
            be finished.
        """
        self._require_space(self._share.find(overwrite=overwrite))
        if not self.finish:
            self.executor.check()

    def _require_space(self, found: Found) -> None:
        n_images = sum(len(task.rows) for task in self._share.todo(found))
        freed = self._share.freed(found)
        require_space(self.folder, n_images * self.plan.image_bytes, self.plan.space_hint, freed=freed)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> R:
        """Make the stacks.

        Returns
        -------
        PipelineReport
            Of the plan's own kind.

        Raises
        ------
        OutputExistsError, UsageError, CryobridgeError
            As `check` does; nothing has been touched then.
        CryobridgeError
            If an image can't be read or used; the stacks before it are whole.
        """
        share, folder, reporter = self._share, self.folder, reporter or Silent()
        found = share.find(overwrite=overwrite, reporter=reporter)
        results, messages = list(found.whole.values()), share.messages(found)
        if share.is_finished(found):
            nothing = note("nothing-to-do", _NOTHING_TO_DO, where=folder)
            return _with(share.report(results, len(results)), (*messages, nothing))
        todo = [task.number for task in share.todo(found)]
        self._require_space(found)
        make = self.executor.prepare(StackWork(share.plan, folder, reporter)) if todo else None
        if found.undrawn:
            load_torch(reporter)
        with share.record(overwrite=overwrite) as record:
            messages += record.messages

            def report_so_far(results: Sequence[StackResult]) -> Report:
                return self.recorded(_with(share.plan.report_so_far(folder, results, len(found.whole)), messages))

            record.report = report_so_far(results)
            record.keep_up()
            messages += share.clear(found)
            with _LoggedWork(share, record, reporter, report_so_far).making(todo, results, make, found.undrawn):
                share.finish(rows_left_out(results))
            report = _with(share.report(results, len(found.whole)), messages)
            record.report = self.recorded(report)
        return report


@dataclass(frozen=True)
class _LoggedWork:
    """The work on stacks as it is reported: to who waits, in run.log, and in a record that holds what is made."""

    share: Share[Any]
    record: JobRecord
    reporter: Reporter
    report_so_far: Callable[[Sequence[StackResult]], Report]

    @contextmanager
    def making(
        self, todo: Sequence[int], results: list[StackResult], make: Run[StackResult] | None, undrawn: Sequence[int]
    ) -> Iterator[None]:
        """Make stacks and add each to the results, then run the block; if that fails, say how far the work is."""
        plan, folder = self.share.plan, self.share.folder
        try:
            with in_lines(self.record.log) as log, plan.beside(folder) as follow:
                if follow is not None:
                    self._draw(undrawn, results, follow)
                if make is not None:
                    self._make(make, todo, results, Both(self.reporter, log), follow)
                yield
        except BaseException:
            whole = self._with_all_files(results)
            self.record.report = self.report_so_far(whole)
            message = self._how_far(whole)
            self.reporter.note(message)
            self.record.log(str(message))
            raise

    def _draw(
        self, numbers: Sequence[int], results: Sequence[StackResult], follow: Callable[[StackResult], None]
    ) -> None:
        """Have stacks drawn that are there."""
        plan, folder = self.share.plan, self.share.folder
        tasks = {task.number: task for task in plan.tasks}
        for result in (result for result in results if result.number in set(numbers)):
            follow(replace(result, preview=plan.preview(folder, tasks[result.number], result.left_out)))

    def _make(
        self,
        make: Run[StackResult],
        todo: Sequence[int],
        results: list[StackResult],
        reporter: Reporter,
        follow: Callable[[StackResult], None] | None,
    ) -> None:
        plan, written = self.share.plan, time.monotonic()
        own = set(todo)
        left = (plan.remaining(self.share.folder, task) for task in plan.tasks if task.number in own)
        reporter.start("images", sum(map(len, left)))

        def done(result: StackResult) -> None:
            nonlocal written
            results.append(result)
            reporter.now(f"stack {len(results):,} of {len(plan.tasks):,}")
            if follow is not None:
                follow(result)
            if time.monotonic() - written >= LINE_EVERY_S:
                written = time.monotonic()
                self.record.report = self.report_so_far(results)
                self.record.keep_up()

        def advance(steps: int, /, *, by: str = "", seconds: float = 0.0) -> None:
            if by:
                reporter.done_by(by, steps, seconds)
            reporter.advance(steps)

        make(todo, advance=advance, done=done)

    def _with_all_files(self, results: Sequence[StackResult]) -> list[StackResult]:
        """Return the stacks that nothing lacks but pictures, which are drawn beside the work, and of what is there."""
        plan, folder = self.share.plan, self.share.folder
        files = {task.number: set(plan.files(folder, task)) - set(plan.pictures(folder, task)) for task in plan.tasks}
        return [result for result in results if all(path.is_file() for path in files[result.number])]

    def _how_far(self, results: Sequence[StackResult]) -> Message:
        """Say what is made of a job that comes to no end, and how to go on."""
        plan, folder = self.share.plan, self.share.folder
        stands = standing(plan, folder, {result.number for result in results})
        by_itself = self.share.goes_on_by_itself
        same = "the same command" if by_itself else f"the same command with {option('resume', True)}"
        is_begun = stands.is_begun or plan.existing(folder)
        goes_on = f"{same} goes on" if is_begun else "the same command begins anew"
        return note("stacks-unfinished", f"{stands.text}; {goes_on}", where=folder)


def _with(report: R, messages: tuple[Message, ...]) -> R:
    return replace(report, messages=(*report.messages, *messages))
