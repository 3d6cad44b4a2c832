"""Making stacks in parts, by processes that share nothing but the output folder, and finishing when all are there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from cryobridge.errors import CryobridgeError, OutputExistsError, UsageError, option
from cryobridge.executors.dask_cluster import ClusterExecutor
from cryobridge.executors.devices import DeviceExecutor
from cryobridge.formats.atomic import tidy
from cryobridge.formats.lease import STALE_S
from cryobridge.jobs.output_folder import (
    PARTS,
    RECORD,
    job_record,
    make_folder,
    make_subfolder,
    refuse_busy,
    refuse_folder_of_others,
    remove_existing,
    require_space,
)
from cryobridge.jobs.stacks.array_job import Part
from cryobridge.jobs.stacks.plan import (
    Found,
    R,
    StackPlan,
    StackResult,
    StackTask,
    find_stacks,
    rows_left_out,
    why_not_whole,
)
from cryobridge.jobs.stacks.run import LoggedWork, StackJob, prepared, require_device
from cryobridge.progress import Reporter, Silent
from cryobridge.report import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.executors.base import Executor
    from cryobridge.jobs.job import Job
    from cryobridge.report import Message

_CONTENTS = (
    "The record of a part of the stacks, which lie two folders above; it is removed when all parts are finished."
)
_N_SHOWN = 5


def executor_for(device: str, cluster: str | None) -> Executor:
    """Return where stacks are made: on the devices of this process, or on those of a cluster's workers.

    Raises
    ------
    UsageError
        If a device or the cluster is not there.
    """
    return DeviceExecutor(device) if cluster is None else ClusterExecutor(cluster, device)


def stack_job(
    plan: StackPlan[R],
    folder: Path,
    executor: Executor,
    *,
    resume: bool = False,
    verify_outputs: bool = False,
    part: str | None = None,
    finish: bool = False,
) -> Job[R]:
    """Return the job of making all stacks of a plan, a part of them, or what they share.

    Raises
    ------
    UsageError
        If a part is asked for and the finish too, or there is no such part.
    """
    if part is not None and finish:
        raise UsageError(
            f"{option('part')} makes a part, {option('finish')} comes when all parts are done", hint="Give either."
        )
    if isinstance(executor, ClusterExecutor):
        if part is not None or finish:
            raise UsageError(
                f"{option('part')} and {option('finish')} do without {option('cluster')}", hint="Give either way."
            )
        plan = replace(plan, messages=(*plan.messages, *executor.messages))
    if finish:
        return FinishJob(plan, folder, verify_outputs)
    if part is not None:
        return PartJob(plan, folder, Part.of(part), executor, resume, verify_outputs)
    return StackJob(plan, folder, executor, resume, verify_outputs)


@dataclass(frozen=True)
class PartJob(Generic[R]):
    """A part of the stacks of a plan; other parts may be made in the same folder at the same time, on any machine.

    What is whole of it is kept, and what is unfinished gone on with, as a batch system may start a task again. Nothing
    is written that parts share.

    Parameters
    ----------
    plan
        Of all stacks.
    folder
        The output folder.
    part
        Which of them.
    executor
        Who makes the stacks.
    resume
        Make stacks again that are there and are damaged, or were made from other inputs; they are refused otherwise.
    verify_outputs
        Read the stacks that are there through, rather than compare their sizes and ends.
    """

    plan: StackPlan[R]
    folder: Path
    part: Part
    executor: Executor = field(default_factory=DeviceExecutor)
    resume: bool = False
    verify_outputs: bool = False

    @cached_property
    def _own(self) -> StackPlan[R]:
        """The plan with the stacks of this part only."""
        return self.plan.only(self.part.of_tasks(self.plan.tasks), "in stacks of other parts")

    def report(self) -> R:
        """Return what will be made, if all images can be used."""
        return self._report((), 0)

    def _report(self, results: Sequence[StackResult], n_kept: int, messages: tuple[Message, ...] = ()) -> R:
        report = self._own.report_of_part(self.folder, results, n_kept)
        text = (
            f"part {self.part} has {len(self._own.tasks):,} of {len(self.plan.tasks):,} stacks; when all parts are "
            f"done, {option('finish', True)} checks the stacks and writes what they share"
        )
        return replace(report, messages=(*report.messages, note("part", text), *messages))

    def check(self, *, overwrite: bool = False) -> None:
        """Check where the stacks go, before anything is written.

        Raises
        ------
        UsageError
            If stacks are to be overwritten, or the folder is another program's job.
        OutputExistsError
            If stacks are there that would not be kept, and ``resume`` was not asked for.
        CryobridgeError
            If another run is at work on the folder or on this part, or the disk has too little space.
        """
        self._require_space(self._checked(overwrite=overwrite))
        require_device(self.executor)

    def _checked(self, *, overwrite: bool, reporter: Reporter | None = None) -> Found:
        self._refuse(overwrite=overwrite)
        found = find_stacks(self._own, self.folder, read_through=self.verify_outputs, reporter=reporter)
        if found.damaged and not self.resume:
            raise OutputExistsError(
                f"there are stacks that can't be kept ({found.damaged[0]})",
                path=self.folder,
                count=len(found.damaged),
                hint=f"{option('resume', True)} makes them again; or give another folder with {option('output')}.",
            )
        return found

    def _refuse(self, *, overwrite: bool) -> None:
        if overwrite:
            raise UsageError(
                f"{option('overwrite')} would remove what other parts have made",
                hint=f"Give a new folder with {option('output')}, or {option('resume')} to make stacks again that were "
                "made from other inputs.",
            )
        if self.folder.is_dir():
            refuse_busy(self.folder, of_parts=False, patience_s=STALE_S)
            refuse_busy(self._record_folder)
            for other in _records(self.folder):
                if other.count != self.part.count:
                    refuse_busy(_record_folder(self.folder, other))
        refuse_folder_of_others(self.folder, overwrite=False)
        self.plan.check_part(self.folder)

    def _refuse_others(self) -> None:
        refuse_busy(self.folder, of_parts=False, patience_s=STALE_S)
        # Of a division that was given up only records are there; two divisions at work would write the same stacks.
        for other in _records(self.folder):
            if other.count != self.part.count:
                refuse_busy(_record_folder(self.folder, other), patience_s=STALE_S)
                shutil.rmtree(_record_folder(self.folder, other), ignore_errors=True)

    def _require_space(self, found: Found) -> None:
        n_images = sum(len(task.rows) for task in self._todo(found))
        require_space(self.folder, n_images * self.plan.image_bytes, self.plan.space_hint)

    def _todo(self, found: Found) -> list[StackTask]:
        return [task for task in self._own.tasks if task.number not in found.whole]

    @property
    def _record_folder(self) -> Path:
        return _record_folder(self.folder, self.part)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> R:
        """Make the stacks of the part.

        Returns
        -------
        PipelineReport
            Of the plan's own kind; rows in stacks of other parts are left out of it.

        Raises
        ------
        UsageError, OutputExistsError
            As `check` does; nothing has been touched then.
        CryobridgeError
            If an image can't be read or used; the stacks before it are whole.
        """
        own, folder, reporter = self._own, self.folder, reporter or Silent()
        found = self._checked(overwrite=overwrite, reporter=reporter)
        todo, results = self._todo(found), list(found.whole.values())
        self._require_space(found)
        make = prepared(own, folder, self.executor, reporter) if todo else None
        make_folder(folder)
        make_subfolder(folder / PARTS)
        title = f"{self.plan.title}, part {self.part}"
        with job_record(self._record_folder, title, _CONTENTS, check=self._refuse_others) as record:
            messages = (*found.messages(), *record.messages)

            def report_so_far(results: Sequence[StackResult]) -> R:
                report = own.report_so_far(folder, results, len(found.whole))
                return replace(report, messages=(*report.messages, *messages))

            record.report = report_so_far(results)
            record.keep_up()
            messages += self._clear(todo)
            with LoggedWork(own, folder, record, reporter, report_so_far, goes_on_by_itself=True).making(
                todo, results, make
            ):
                pass
            report = self._report(results, len(found.whole), messages)
            record.report = report
        return report

    def _clear(self, todo: Sequence[StackTask]) -> tuple[Message, ...]:
        """Make the folders, and remove what is not kept; an older record, which would call the stacks whole, too."""
        for name in self.plan.folders:
            make_subfolder(self.folder / name)
            tidy(self.folder / name)
        if not todo:
            return ()
        # The one last by which another part sees that the others are ours.
        remove_existing(self.folder / name for name in reversed(RECORD))
        if self.plan.continues:
            return self.plan.keep_whole(self.folder, todo)
        remove_existing(path for task in todo for path in self.plan.all_files(self.folder, task))
        return ()


@dataclass(frozen=True)
class FinishJob(Generic[R]):
    """What all stacks of a plan share, written when they are whole, whoever made them.

    Parameters
    ----------
    plan
        Of all stacks.
    folder
        The output folder.
    verify_outputs
        Read the stacks through, rather than compare their sizes and ends.
    """

    plan: StackPlan[R]
    folder: Path
    verify_outputs: bool = False

    def report(self) -> R:
        """Return what there will be, if all images could be used."""
        return self.plan.report(self.folder)

    def check(self, *, overwrite: bool = False) -> None:
        """Check that all stacks are whole.

        Raises
        ------
        UsageError
            If they are to be overwritten.
        CryobridgeError
            If a part is still being made, or stacks are missing, damaged or of other inputs.
        """
        self._whole(overwrite=overwrite)

    def _whole(self, *, overwrite: bool, reporter: Reporter | None = None) -> list[StackResult]:
        if overwrite:
            raise UsageError(
                f"{option('finish')} makes no stacks that {option('overwrite')} could replace", hint="Give either."
            )
        refuse_busy(self.folder, patience_s=STALE_S)
        refuse_folder_of_others(self.folder, overwrite=False)
        self.plan.check_part(self.folder)
        found = find_stacks(self.plan, self.folder, read_through=self.verify_outputs, reporter=reporter)
        if len(found.whole) < len(self.plan.tasks):
            raise self._unfinished(found)
        return list(found.whole.values())

    def _unfinished(self, found: Found) -> CryobridgeError:
        """Return the error that names the stacks that are not whole, each with the part that makes it."""
        missing = [place for place, task in enumerate(self.plan.tasks) if task.number not in found.whole]
        shown = "; ".join(map(self._why, missing[:_N_SHOWN])) + (" …" if len(missing) > _N_SHOWN else "")
        parts = self._parts_of(missing)
        again = ", ".join(option("part", str(part)) for part in parts[:_N_SHOWN])
        again += f" and {len(parts) - _N_SHOWN:,} more" if len(parts) > _N_SHOWN else ""
        how = f"Run {again} again" if parts else f"Run it with {option('part')} or {option('resume')}"
        are = "is" if len(missing) == 1 else "are"
        return CryobridgeError(
            f"{len(missing):,} of {len(self.plan.tasks):,} stacks {are} not whole: {shown}",
            path=self.folder,
            hint=f"{how}, with the options that you gave, then {option('finish')}.",
        )

    def _why(self, place: int) -> str:
        why = why_not_whole(self.plan, self.folder, self.plan.tasks[place], read_through=self.verify_outputs)
        made_by = self._parts_of([place])
        return f"{why} (part {made_by[0]})" if made_by else why

    def _parts_of(self, places: Sequence[int]) -> list[Part]:
        """Return the parts that have the stacks at these places; none where no record says how many there are."""
        counts = {part.count for part in _records(self.folder)}
        if len(counts) != 1:
            return []
        any_part = Part(0, counts.pop())
        return sorted({any_part.that_has(place) for place in places}, key=lambda part: part.number)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> R:
        """Write what the stacks share, and remove the records of the parts.

        Raises
        ------
        UsageError, CryobridgeError
            As `check` does; nothing has been touched then.
        """
        plan, folder = self.plan, self.folder
        results = self._whole(overwrite=overwrite, reporter=reporter)
        with job_record(folder, plan.title, plan.contents, check=lambda: None) as record:
            report = plan.report(folder, results, len(results))
            report = replace(report, messages=(*report.messages, *record.messages))
            record.report = report
            remove_existing(plan.unfinished(folder))
            plan.finish(folder, rows_left_out(results))
            shutil.rmtree(folder / PARTS, ignore_errors=True)
        return report


def _record_folder(folder: Path, part: Part) -> Path:
    return folder / PARTS / part.folder_name


def _records(folder: Path) -> list[Part]:
    """Return the parts whose records lie in an output folder."""
    try:
        found = [Part.of_folder(path.name) for path in (folder / PARTS).iterdir()]
    except OSError:
        return []
    return [part for part in found if part is not None]
