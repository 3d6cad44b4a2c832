"""Making the planned stacks in a folder: what is there already, the work, what all stacks share, and the report."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from cryobridge.errors import OutputExistsError, UsageError, option
from cryobridge.executors.devices import DeviceExecutor
from cryobridge.formats.atomic import tidy
from cryobridge.fourier.loading import load_torch
from cryobridge.jobs.output_folder import (
    JobRecord,
    is_completed,
    job_record,
    make_subfolder,
    refuse_busy,
    refuse_existing,
    refuse_folder_of_others,
    remove_existing,
    require_space,
)
from cryobridge.jobs.stacks.execute import StackWork
from cryobridge.jobs.stacks.plan import (
    Found,
    R,
    StackPlan,
    StackResult,
    StackTask,
    find_stacks,
    rows_left_out,
    standing,
)
from cryobridge.progress import LINE_EVERY_S, Both, Reporter, Silent, in_lines
from cryobridge.report import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cryobridge.executors.base import Executor, Run
    from cryobridge.report import Message, Report

_NOTHING_TO_DO = "all of it is there, whole and of the same inputs and options: nothing was changed"


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
        Who makes the stacks.
    resume
        Keep stacks that are whole and were made from the same inputs and parameters, and make the rest.
    verify_outputs
        Read the stacks that would be kept through, rather than compare their sizes and ends; begin unfinished ones,
        which can't be verified, anew.
    recorded
        What the record of the folder says, made of the report; the report itself unless it is given.
    """

    plan: StackPlan[R]
    folder: Path
    executor: Executor = field(default_factory=DeviceExecutor)
    resume: bool = False
    verify_outputs: bool = False
    recorded: Callable[[R], Report] = _unchanged

    def report(self) -> R:
        """Return what will be made, if all images can be used."""
        return self.plan.report(self.folder)

    def check(self, *, overwrite: bool = False) -> None:
        """Check where the stacks go, before anything is written.

        Raises
        ------
        OutputExistsError
            If outputs are there already, and neither overwriting nor resuming was asked for.
        UsageError
            If both are asked for, or the folder is another program's job.
        CryobridgeError
            If another run is at work in the folder, or the disk has too little space.
        """
        self._require_space(self._checked(overwrite=overwrite).whole)
        require_device(self.executor)

    def _checked(self, *, overwrite: bool, reporter: Reporter | None = None) -> Found:
        """Check the folder, and return the stacks that are kept."""
        refuse_busy(self.folder)
        try:
            self._refuse(overwrite=overwrite)
        except OutputExistsError:
            # A run that began since has not left its unfinished images there, it is at work on them.
            refuse_busy(self.folder)
            self._refuse_begun()
            raise
        if not self.resume:
            return Found()
        return find_stacks(self.plan, self.folder, read_through=self.verify_outputs, reporter=reporter)

    def _refuse_begun(self) -> None:
        """Say of stacks of this very job that they are gone on with, rather than that they are in the way."""
        if self.resume:
            return
        found = find_stacks(self.plan, self.folder)
        stands = standing(self.plan, self.folder, found.whole)
        if not stands.is_begun:
            return
        hint = f"The same command with {option('resume', True)} goes on; {option('overwrite', True)} begins anew."
        if self._is_finished(found):
            hint = f"Nothing is left to do; {option('overwrite', True)} makes all of it again."
        is_interrupted = not is_completed(self.folder) or self.plan.unfinished(self.folder)
        whose = "an interrupted run left this" if is_interrupted else "the output is there already"
        text = f"{whose}, of the same images and options: {stands.text}"
        raise OutputExistsError(text, path=self.folder, hint=hint)

    def _require_space(self, whole: Mapping[int, StackResult]) -> None:
        n_images = sum(len(task.rows) for task in self.plan.tasks if task.number not in whole)
        freed = self._not_kept(whole)
        require_space(self.folder, n_images * self.plan.image_bytes, self.plan.space_hint, freed=freed)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> R:
        """Make the stacks.

        Returns
        -------
        PipelineReport
            Of the plan's own kind.

        Raises
        ------
        OutputExistsError, UsageError
            As `check` does; nothing has been touched then.
        CryobridgeError
            If an image can't be read or used; the stacks before it are whole.
        """
        plan, folder, reporter = self.plan, self.folder, reporter or Silent()
        found = self._checked(overwrite=overwrite, reporter=reporter)
        if self._is_finished(found):
            messages = (*self._about_others(found.whole), note("nothing-to-do", _NOTHING_TO_DO, where=folder))
            return _with(plan.report(folder, list(found.whole.values()), len(found.whole)), messages)
        todo = [task for task in plan.tasks if task.number not in found.whole]
        self._require_space(found.whole)
        make = prepared(plan, folder, self.executor, reporter) if todo else None
        check = partial(self._refuse, overwrite=overwrite)
        with job_record(folder, plan.title, plan.contents, check=check) as record:
            return self._run(found, todo, make, record, reporter)

    def _is_finished(self, found: Found) -> bool:
        """Whether all that is asked for is there and nothing else, so that nothing is touched."""
        plan, folder = self.plan, self.folder
        if len(found.whole) < len(plan.tasks) or not is_completed(folder):
            return False
        # What is gone on with is not removed, and what all stacks share is looked at below.
        if plan.unfinished(folder) if plan.continues else self._not_kept(found.whole):
            return False
        return plan.has_shared(folder, rows_left_out(list(found.whole.values())))

    def _run(
        self,
        found: Found,
        todo: Sequence[StackTask],
        make: Run[StackResult] | None,
        record: JobRecord,
        reporter: Reporter,
    ) -> R:
        """Make these stacks, and keep the record true: what is made is in it, not what is to be made."""
        plan, folder = self.plan, self.folder
        results = list(found.whole.values())
        messages = (*found.messages(), *self._about_others(found.whole), *record.messages)

        def report_so_far(results: Sequence[StackResult]) -> Report:
            return self.recorded(_with(plan.report_so_far(folder, results, len(found.whole)), messages))

        record.report = report_so_far(results)
        record.keep_up()
        messages += self._clear_folder(found.whole)
        logged = LoggedWork(plan, folder, record, reporter, report_so_far, goes_on_by_itself=self.resume)
        with logged.making(todo, results, make):
            plan.finish(folder, rows_left_out(results))
        report = _with(plan.report(folder, results, len(found.whole)), messages)
        record.report = self.recorded(report)
        return report

    def _refuse(self, *, overwrite: bool) -> None:
        if overwrite and self.resume:
            raise UsageError(f"{option('overwrite')} replaces what {option('resume')} would keep", hint="Choose one.")
        if self.verify_outputs and not self.resume:
            raise UsageError(
                f"{option('verify_outputs', True)} is for stacks that {option('resume')} keeps",
                hint=f"Add {option('resume', True)}.",
            )
        refuse_folder_of_others(self.folder, overwrite=overwrite)
        is_resumed = self.plan.check_folder(self.folder, resume=self.resume, overwrite=overwrite)
        if not is_resumed:
            refuse_existing(self.plan.existing(self.folder), overwrite=overwrite)

    def _not_kept(self, whole: Mapping[int, StackResult]) -> list[Path]:
        tasks = [task for task in self.plan.tasks if task.number in whole]
        kept = {path for task in tasks for path in self.plan.all_files(self.folder, task)}
        found = [*self.plan.existing(self.folder), *self.plan.unfinished(self.folder)]
        return [path for path in found if path not in kept]

    def _about_others(self, whole: Mapping[int, StackResult]) -> tuple[Message, ...]:
        """Name files of stacks that are kept which are not asked for now."""
        tasks = [task for task in self.plan.tasks if task.number in whole]
        asked = {path for task in tasks for path in self.plan.files(self.folder, task)}
        others = [path for task in tasks for path in self.plan.all_files(self.folder, task) if path not in asked]
        if not (there := [path for path in others if path.is_file()]):
            return ()
        folders = ", ".join(dict.fromkeys(str(path.parent) for path in there))
        text = f"{len(there):,} files of stacks that are kept stay, though they are not asked for now: in {folders}"
        return (note("files-kept", text, where=self.folder),)

    def _clear_folder(self, whole: Mapping[int, StackResult]) -> tuple[Message, ...]:
        """Make the folders, and remove what is not kept of earlier stacks: a reader would take it for new ones."""
        for name in self.plan.folders:
            make_subfolder(self.folder / name)
            tidy(self.folder / name)
        if not (self.resume and self.plan.continues):
            remove_existing(self._not_kept(whole))
        elif self.verify_outputs:
            remove_existing(self.plan.unfinished(self.folder))
        else:
            return self.plan.keep_whole(self.folder)
        return ()


def prepared(plan: StackPlan[Any], folder: Path, executor: Executor, reporter: Reporter) -> Run[StackResult]:
    """Return who makes the stacks, when torch is loaded if it is needed in this process."""
    if isinstance(executor, DeviceExecutor) and (plan.uses_torch or not executor.is_on_cpu):
        load_torch(reporter)
    return executor.prepare(StackWork(plan, folder))


def require_device(executor: Executor) -> None:
    """Refuse devices of this process that are not there, which takes torch, when all else is checked.

    Raises
    ------
    UsageError
        If one of them is not there.
    """
    if isinstance(executor, DeviceExecutor) and not executor.is_on_cpu:
        executor.require()


@dataclass(frozen=True)
class LoggedWork:
    """The work on stacks as it is told: to who waits, in run.log, and in a record that holds what is made.

    Parameters
    ----------
    plan, folder
        What is made, and where.
    record
        Of the folder.
    reporter
        Who hears of the progress.
    report_so_far
        From stacks that are whole to what the record says.
    goes_on_by_itself
        Whether the same command goes on with what an interrupted run left, without another option.
    """

    plan: StackPlan[Any]
    folder: Path
    record: JobRecord
    reporter: Reporter
    report_so_far: Callable[[Sequence[StackResult]], Report]
    goes_on_by_itself: bool

    @contextmanager
    def making(
        self, todo: Sequence[StackTask], results: list[StackResult], make: Run[StackResult] | None
    ) -> Iterator[None]:
        """Make stacks and add each to the results, then run the block; if that fails, say how far the work is."""
        try:
            with in_lines(self.record.log) as log, self.plan.beside(self.folder) as follow:
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

    def _make(
        self,
        make: Run[StackResult],
        todo: Sequence[StackTask],
        results: list[StackResult],
        reporter: Reporter,
        follow: Callable[[StackResult], None] | None,
    ) -> None:
        plan, written = self.plan, time.monotonic()
        reporter.start("images", sum(len(plan.remaining(self.folder, task)) for task in todo))

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

        make([task.number for task in todo], advance=reporter.advance, done=done)

    def _with_all_files(self, results: Sequence[StackResult]) -> list[StackResult]:
        """Return the stacks that nothing lacks; pictures may, which are drawn beside the work."""
        files = {task.number: self.plan.files(self.folder, task) for task in self.plan.tasks}
        return [result for result in results if all(path.is_file() for path in files[result.number])]

    def _how_far(self, results: Sequence[StackResult]) -> Message:
        """Say what is made of a job that comes to no end, and how to go on."""
        stands = standing(self.plan, self.folder, {result.number for result in results})
        same = "the same command" if self.goes_on_by_itself else f"the same command with {option('resume', True)}"
        is_begun = stands.is_begun or self.plan.existing(self.folder)
        goes_on = f"{same} goes on" if is_begun else "the same command begins anew"
        return note("stacks-unfinished", f"{stands.text}; {goes_on}", where=self.folder)


def _with(report: R, messages: tuple[Message, ...]) -> R:
    return replace(report, messages=(*report.messages, *messages))
