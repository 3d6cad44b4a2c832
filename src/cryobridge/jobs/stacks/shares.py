"""What of the stacks one process makes, and of their folder: all, a part of them, or only what they share."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Generic

from cryobridge.errors import CryobridgeError, OutputExistsError, UsageError, option
from cryobridge.executors.array_job import Part
from cryobridge.formats.atomic import tidy
from cryobridge.formats.lease import STALE_S
from cryobridge.jobs.output_folder import (
    PARTS,
    RECORD,
    is_completed,
    job_record,
    make_folder,
    make_subfolder,
    refuse_busy,
    refuse_existing,
    refuse_folder_of_others,
    remove_existing,
)
from cryobridge.jobs.stacks.plan import (
    Found,
    R,
    StackPlan,
    StackResult,
    StackTask,
    find_stacks,
    rows_left_out,
    standing,
    why_not_whole,
)
from cryobridge.jobs.stacks.plan_file import remove_stored_plans
from cryobridge.report import note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cryobridge.jobs.output_folder import JobRecord
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.progress import Reporter
    from cryobridge.report import Message

_CONTENTS_OF_PART = (
    "The record of a part of the stacks, which lie two folders above; it is removed when all parts are finished."
)
_N_SHOWN = 5


@dataclass(frozen=True)
class Share(ABC, Generic[R]):
    """What is asked for of a plan, the rules of its folder with it.

    Parameters
    ----------
    all_stacks
        The plan of all stacks, whoever makes them.
    folder
        The output folder.
    resume
        Keep what is there and whole, and make again what is not.
    verify_outputs
        Read the stacks that are there through, rather than compare their sizes and ends.
    """

    all_stacks: StackPlan[R]
    folder: Path
    resume: bool
    verify_outputs: bool

    @property
    def plan(self) -> StackPlan[R]:
        """The plan of the stacks that this process sees to."""
        return self.all_stacks

    @property
    def goes_on_by_itself(self) -> bool:
        """Whether the same command goes on with what an interrupted run left, without another option."""
        return True

    @abstractmethod
    def find(self, *, overwrite: bool, reporter: Reporter | None = None) -> Found:
        """Return the stacks that stay as they are.

        Raises
        ------
        UsageError, OutputExistsError, CryobridgeError
            If the folder can't be used for what is asked.
        """

    def _found(self, reporter: Reporter | None) -> Found:
        return find_stacks(self.plan, self.folder, read_through=self.verify_outputs, reporter=reporter)

    def todo(self, found: Found) -> list[StackTask]:
        """Return the stacks that are to be made."""
        return [task for task in self.plan.tasks if task.number not in found.whole]

    def freed(self, _found: Found) -> list[Path]:
        """Return the files that are removed before the work."""
        return []

    def is_finished(self, _found: Found) -> bool:
        """Whether all that is asked for is there and nothing else, so that nothing is touched."""
        return False

    @abstractmethod
    def record(self, *, overwrite: bool) -> AbstractContextManager[JobRecord]:
        """Keep others out, look at the folder again, and write a record."""

    @abstractmethod
    def clear(self, found: Found) -> tuple[Message, ...]:
        """Make the folders, and remove what is not kept: a reader would take it for new stacks."""

    def finish(self, _left_out: Rows) -> None:
        """Write what all stacks share, when all of them are there."""

    def report(self, results: Sequence[StackResult] = (), n_kept: int = 0) -> R:
        """Return what is made, of so many stacks that were there already, and how much disk space it takes."""
        report = self.plan.report(self.folder, results, n_kept)
        return replace(report, messages=(*report.messages, self.plan.about_size()))

    def messages(self, found: Found) -> tuple[Message, ...]:
        """Say what is made again, and why."""
        return found.messages()

    def _make_folders(self) -> None:
        for name in self.plan.folders:
            make_subfolder(self.folder / name)
            tidy(self.folder / name)

    def _remove_damaged(self, found: Found) -> None:
        """Remove stacks that are there and were found damaged, which whoever makes them could take for whole."""
        remove_existing(self.plan.files(self.folder, task)[0] for task in self.todo(found))

    def _write_shared(self, left_out: Rows) -> None:
        self.all_stacks.finish(self.folder, left_out)
        remove_stored_plans(self.folder)
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)


@dataclass(frozen=True)
class Whole(Share[R]):
    """All stacks, in a folder that no other process may work in.

    ``resume`` keeps stacks that are whole and were made from the same inputs and parameters, and makes the rest;
    with ``verify_outputs`` unfinished ones, which can't be verified, are begun anew.
    """

    @property
    def goes_on_by_itself(self) -> bool:
        """Whether the same command goes on with what an interrupted run left, without another option."""
        return self.resume

    def find(self, *, overwrite: bool, reporter: Reporter | None = None) -> Found:
        """Return the stacks that are kept; see `Share.find`."""
        refuse_busy(self.folder)
        try:
            self._refuse(overwrite=overwrite)
        except OutputExistsError:
            # A run that began since has not left its unfinished images there, it is at work on them.
            refuse_busy(self.folder)
            self._refuse_begun()
            raise
        return self._found(reporter) if self.resume else Found()

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

    def _refuse_begun(self) -> None:
        """Say of stacks of this very job that they are gone on with, rather than that they are in the way."""
        if self.resume:
            return
        found = find_stacks(self.plan, self.folder)
        stands = standing(self.plan, self.folder, found.whole)
        if not stands.is_begun:
            return
        hint = f"The same command with {option('resume', True)} goes on; {option('overwrite', True)} begins anew."
        if self.is_finished(found):
            hint = f"Nothing is left to do; {option('overwrite', True)} makes all of it again."
        is_interrupted = not is_completed(self.folder) or self.plan.unfinished(self.folder)
        whose = "an interrupted run left this" if is_interrupted else "the output is there already"
        text = f"{whose}, of the same images and options: {stands.text}"
        raise OutputExistsError(text, path=self.folder, hint=hint)

    def is_finished(self, found: Found) -> bool:
        """Whether all that is asked for is there and nothing else, so that nothing is touched."""
        plan, folder = self.plan, self.folder
        if self.todo(found) or found.undrawn or not is_completed(folder):
            return False
        # What is gone on with is not removed, and what all stacks share is looked at below.
        if plan.unfinished(folder) if plan.continues else self.freed(found):
            return False
        return plan.has_shared(folder, rows_left_out(list(found.whole.values())))

    def freed(self, found: Found) -> list[Path]:
        """Return the outputs that are there and not kept."""
        kept = {path for task in self._kept(found) for path in self.plan.all_files(self.folder, task)}
        there = [*self.plan.existing(self.folder), *self.plan.unfinished(self.folder)]
        return [path for path in there if path not in kept]

    def _kept(self, found: Found) -> list[StackTask]:
        return [task for task in self.plan.tasks if task.number in found.whole]

    def record(self, *, overwrite: bool) -> AbstractContextManager[JobRecord]:
        """Keep all others out of the folder; the record is the folder's."""
        plan = self.plan
        return job_record(self.folder, plan.title, plan.contents, check=lambda: self._refuse(overwrite=overwrite))

    def clear(self, found: Found) -> tuple[Message, ...]:
        """Make the folders, and remove what is not kept of earlier stacks."""
        self._make_folders()
        if not (self.resume and self.plan.continues):
            remove_existing(self.freed(found))
            return ()
        self._remove_damaged(found)
        if self.verify_outputs:
            remove_existing(self.plan.unfinished(self.folder))
            return ()
        return self.plan.keep_whole(self.folder)

    def finish(self, left_out: Rows) -> None:
        """Write what all stacks share, and remove the records of parts that some of them were made in."""
        self._write_shared(left_out)

    def messages(self, found: Found) -> tuple[Message, ...]:
        """Say what is made again, and name files of stacks that are kept which are not asked for now."""
        kept = self._kept(found)
        asked = {path for task in kept for path in self.plan.files(self.folder, task)}
        others = [path for task in kept for path in self.plan.all_files(self.folder, task) if path not in asked]
        if not (there := [path for path in others if path.is_file()]):
            return found.messages()
        folders = ", ".join(dict.fromkeys(str(path.parent) for path in there))
        text = f"{len(there):,} files of stacks that are kept stay, though they are not asked for now: in {folders}"
        return (*found.messages(), note("files-kept", text, where=self.folder))


@dataclass(frozen=True)
class OnePart(Share[R]):
    """A part of the stacks; other parts may be made in the same folder at the same time, on any machine.

    What is whole of it is kept, and what is unfinished gone on with, as a batch system may start a task again. Nothing
    is written that parts share. Stacks that are there and damaged, or were made from other inputs, are refused unless
    ``resume`` is asked for.
    """

    part: Part

    @cached_property
    def plan(self) -> StackPlan[R]:
        """The plan with the stacks of this part only."""
        return self.all_stacks.only(self.part.of_tasks(self.all_stacks.tasks), "in stacks of other parts")

    def find(self, *, overwrite: bool, reporter: Reporter | None = None) -> Found:
        """Return the stacks of the part that are whole; see `Share.find`."""
        if overwrite:
            raise UsageError(
                f"{option('overwrite')} would remove what other parts have made",
                hint=f"Give a new folder with {option('output')}, or {option('resume')} to make stacks again that were "
                "made from other inputs.",
            )
        if self.folder.is_dir():
            refuse_busy(self.folder, of_parts=False, patience_s=STALE_S)
            for part in (self.part, *self._of_other_divisions()):
                refuse_busy(_record_folder(self.folder, part))
        refuse_folder_of_others(self.folder, overwrite=False)
        self.all_stacks.check_part(self.folder)
        found = self._found(reporter)
        if found.damaged and not self.resume:
            raise OutputExistsError(
                f"there are stacks that can't be kept ({found.damaged[0]})",
                path=self.folder,
                count=len(found.damaged),
                hint=f"{option('resume', True)} makes them again; or give another folder with {option('output')}.",
            )
        return found

    def record(self, *, overwrite: bool) -> AbstractContextManager[JobRecord]:
        """Keep out another process of this part, and those that make all; the record is the part's."""
        assert not overwrite
        make_folder(self.folder)
        make_subfolder(self.folder / PARTS)
        title = f"{self.plan.title}, part {self.part}"
        return job_record(_record_folder(self.folder, self.part), title, _CONTENTS_OF_PART, check=self._refuse_others)

    def _refuse_others(self) -> None:
        refuse_busy(self.folder, of_parts=False, patience_s=STALE_S)
        # Of a division that was given up only records are there; two divisions at work would write the same stacks.
        for other in self._of_other_divisions():
            refuse_busy(_record_folder(self.folder, other), patience_s=STALE_S)
            shutil.rmtree(_record_folder(self.folder, other), ignore_errors=True)

    def _of_other_divisions(self) -> list[Part]:
        return [part for part in _records(self.folder) if part.count != self.part.count]

    def clear(self, found: Found) -> tuple[Message, ...]:
        """Make the folders, and remove what is not kept; an older record, which would call the stacks whole, too."""
        self._make_folders()
        todo = self.todo(found)
        if not todo:
            return ()
        # The one last by which another part sees that the others are ours.
        remove_existing(self.folder / name for name in reversed(RECORD))
        if self.plan.continues:
            self._remove_damaged(found)
            return self.plan.keep_whole(self.folder, todo)
        remove_existing(path for task in todo for path in self.plan.all_files(self.folder, task))
        return ()

    def report(self, results: Sequence[StackResult] = (), n_kept: int = 0) -> R:
        """Return what is made of the part; rows in stacks of other parts are left out of it."""
        report = self.plan.report_of_part(self.folder, results, n_kept)
        text = (
            f"part {self.part} has {len(self.plan.tasks):,} of {len(self.all_stacks.tasks):,} stacks; when all parts "
            f"are done, {option('finish', True)} checks the stacks and writes what they share"
        )
        return replace(report, messages=(*report.messages, note("part", text), self.plan.about_size()))


@dataclass(frozen=True)
class Finish(Share[R]):
    """What all stacks share, written when they are whole, whoever made them."""

    def find(self, *, overwrite: bool, reporter: Reporter | None = None) -> Found:
        """Return all stacks, if they are whole; see `Share.find`."""
        if overwrite:
            raise UsageError(
                f"{option('finish')} makes no stacks that {option('overwrite')} could replace", hint="Give either."
            )
        refuse_busy(self.folder, patience_s=STALE_S)
        refuse_folder_of_others(self.folder, overwrite=False)
        self.plan.check_part(self.folder)
        found = self._found(reporter)
        if self.todo(found):
            raise self._unfinished(found.whole)
        return found

    def report(self, results: Sequence[StackResult] = (), n_kept: int = 0) -> R:
        """Return what there is."""
        return self.plan.report(self.folder, results, n_kept)

    def _unfinished(self, whole: Mapping[int, StackResult]) -> CryobridgeError:
        """Return the error that names the stacks that are not whole, each with the part that makes it."""
        missing = [place for place, task in enumerate(self.plan.tasks) if task.number not in whole]
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

    def record(self, *, overwrite: bool) -> AbstractContextManager[JobRecord]:
        """Keep all others out of the folder; the record is the folder's."""
        assert not overwrite
        return job_record(self.folder, self.plan.title, self.plan.contents, check=lambda: None)

    def clear(self, _found: Found) -> tuple[Message, ...]:
        """Remove what parts that were killed left."""
        remove_existing(self.plan.unfinished(self.folder))
        return ()

    def finish(self, left_out: Rows) -> None:
        """Write what all stacks share, and remove the records of the parts."""
        self._write_shared(left_out)


def _record_folder(folder: Path, part: Part) -> Path:
    return folder / PARTS / part.folder_name


def _records(folder: Path) -> list[Part]:
    """Return the parts whose records lie in an output folder."""
    try:
        found = [Part.of_folder(path.name) for path in (folder / PARTS).iterdir()]
    except OSError:
        return []
    return [part for part in found if part is not None]
