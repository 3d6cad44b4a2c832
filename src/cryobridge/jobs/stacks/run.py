"""Making the planned stacks in a folder: what is there already, the work, what all stacks share, and the report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from cryobridge.errors import OutputExistsError, UsageError, option
from cryobridge.executors.devices import DeviceExecutor
from cryobridge.formats.atomic import tidy
from cryobridge.jobs.output_folder import (
    job_record,
    make_subfolder,
    refuse_busy,
    refuse_existing,
    refuse_folder_of_others,
    remove_existing,
    require_space,
)
from cryobridge.jobs.stacks.execute import StackWork
from cryobridge.jobs.stacks.plan import Found, R, StackPlan, StackResult, find_stacks, rows_left_out
from cryobridge.progress import Reporter, Silent
from cryobridge.report import note

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryobridge.executors.base import Executor
    from cryobridge.report import Message, Report


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

    def _checked(self, *, overwrite: bool, reporter: Reporter | None = None) -> Found:
        """Check the folder, and return the stacks that are kept."""
        refuse_busy(self.folder)
        try:
            self._refuse(overwrite=overwrite)
        except OutputExistsError:
            # A run that began since has not left its unfinished images there, it is at work on them.
            refuse_busy(self.folder)
            raise
        if not self.resume:
            return Found()
        return find_stacks(self.plan, self.folder, read_through=self.verify_outputs, reporter=reporter)

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
        whole = found.whole
        todo = [task for task in plan.tasks if task.number not in whole]
        make = self.executor.prepare(StackWork(plan, folder)) if todo else None
        self._require_space(whole)
        results = list(whole.values())
        with job_record(folder, plan.title, plan.contents, check=partial(self._refuse, overwrite=overwrite)) as record:
            messages = (*found.messages(), *self._about_others(whole), *record.messages)
            record.report = self.recorded(_with(self.report(), messages)).to_json()
            messages += self._clear_folder(whole)
            reporter.start("images", sum(len(task.rows) for task in todo))
            with plan.beside(folder) as follow:

                def done(result: StackResult) -> None:
                    results.append(result)
                    reporter.now(f"stack {len(results):,} of {len(plan.tasks):,}")
                    if follow is not None:
                        follow(result)

                if make is not None:
                    make([task.number for task in todo], advance=reporter.advance, done=done)
            plan.finish(folder, rows_left_out(results))
            report = _with(plan.report(folder, results, len(whole)), messages)
            record.report = self.recorded(report).to_json()
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


def _with(report: R, messages: tuple[Message, ...]) -> R:
    return replace(report, messages=(*report.messages, *messages))
