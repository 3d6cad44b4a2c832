"""What every stacks job plans: independent tasks, one an output stack, and what is special to a kind of stack."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.input_file import read_error
from cryobridge.jobs.stacks.checks import Problems
from cryobridge.jobs.stacks.report import PipelineReport
from cryobridge.progress import Silent
from cryobridge.report import counted, note, part_of, size_text
from cryobridge.version import __version__

if TYPE_CHECKING:
    from cryobridge.formats.file_record import FileRecord
    from cryobridge.formats.mrc import Images
    from cryobridge.formats.table import Array
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.inputs import StackInput
    from cryobridge.jobs.stacks.options import OnMissing
    from cryobridge.progress import Reporter
    from cryobridge.report import Message

_N_ROWS_SHOWN = 10
_N_SHOWN = 3


@dataclass(frozen=True)
class StackTask:
    """One output stack.

    Parameters
    ----------
    number
        Its running number, from 0.
    rows
        Rows of the particle set in the order of its images.
    start
        Position of the first image among those of its file, where stacks never mix files; None elsewhere.
    """

    number: int
    rows: Rows
    start: int | None = None


@dataclass(frozen=True)
class StackResult:
    """A stack that is whole: its number, the rows whose images can't be used, and what its pictures are drawn from."""

    number: int
    left_out: Rows
    preview: Any = None


@dataclass(frozen=True)
class StackRecord:
    """What is noted of a stack.

    Parameters
    ----------
    made_from
        The fingerprint that it was made with.
    left_out
        The rows whose images can't be used.
    files
        What its finished files of images are known by.
    """

    made_from: str
    left_out: Rows
    files: Mapping[Path, FileRecord]


class Made(Protocol):
    """A chunk of images after the transform."""

    @property
    def unusable(self) -> Array:
        """(n,) bool: the images that can't be used."""

    def wait(self) -> None:
        """Wait until the values have arrived from a device."""


Prepared = TypeVar("Prepared")
M = TypeVar("M", bound=Made)
M_contra = TypeVar("M_contra", bound=Made, contravariant=True)
R = TypeVar("R", bound=PipelineReport)


class Transform(ABC, Generic[Prepared, M]):
    """Makes of chunks of images what a stack holds, on one device.

    Parameters
    ----------
    chunk_size
        Images in a chunk, at most.
    n_threads
        How many threads call `prepare` side by side.
    n_ahead
        Chunks that are prepared before they are asked for, at most.
    """

    chunk_size: int
    n_threads: int = 1
    n_ahead: int = 2

    @abstractmethod
    def prepare(self, rows: Rows, pixels: Images) -> Prepared:
        """Do what can be done in any thread with the images (n, ny, nx) of these rows."""

    @abstractmethod
    def __call__(self, prepared: Prepared) -> M:
        """Do the rest, one chunk after the other; what it returns holds until two more have been made."""


class OpenStack(Protocol[M_contra]):
    """A stack that is being written."""

    @property
    def left_out(self) -> Rows:
        """The rows that were left out of it."""

    def leave_out(self, rows: Rows) -> None:
        """Note rows whose images can't be used, before those after them are written."""

    def write(self, rows: Rows, made: M_contra, is_usable: Array) -> None:
        """Append the usable images of a chunk, which are those of these rows."""

    @property
    def preview(self) -> Any:
        """What pictures of the stack are drawn from, or None."""


@dataclass(frozen=True)
class StackPlan(ABC, Generic[R]):
    """Everything needed to make stacks. What is special to a kind of stack is in a subclass.

    Parameters
    ----------
    source
        The particles and their image files.
    tasks
        The stacks to make.
    left_out
        How many particles are in none of them, by the reason.
    messages
        What was assumed, and what may be wrong.
    """

    source: StackInput
    tasks: tuple[StackTask, ...]
    left_out: Mapping[str, int]
    messages: tuple[Message, ...]

    contents: ClassVar[str]
    continues: ClassVar[bool] = False
    uses_torch: ClassVar[bool] = True

    @property
    @abstractmethod
    def unusable(self) -> str:
        """Why images can't be used that are read."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What is made, in a few words."""

    @property
    @abstractmethod
    def on_missing(self) -> OnMissing:
        """What to do about images that can't be used."""

    @property
    @abstractmethod
    def image_bytes(self) -> int:
        """How many bytes the stacks need for one image."""

    @property
    @abstractmethod
    def smaller(self) -> tuple[int, str] | None:
        """How many bytes an image needs with an option that saves some, and with which; None where there is none."""

    @property
    @abstractmethod
    def space_hint(self) -> str:
        """What to do where the disk has too little space."""

    @property
    def folders(self) -> Sequence[str]:
        """The folders that are made in the output folder."""
        return ()

    @abstractmethod
    def transform(self, device: str) -> Transform[Any, Any]:
        """Return what makes the contents of the stacks, on a device."""

    @abstractmethod
    def open_stack(self, folder: Path, task: StackTask, transform: Any) -> AbstractContextManager[OpenStack[Any]]:
        """Write the files of a stack, which appear when the block ends well."""

    @abstractmethod
    def parameters(self, task: StackTask) -> Mapping[str, Array]:
        """Return all that the bytes of a stack depend on, besides its images."""

    @abstractmethod
    def files(self, folder: Path, task: StackTask) -> list[Path]:
        """Return the files of a stack, that by which it counts as there first."""

    def all_files(self, folder: Path, task: StackTask) -> list[Path]:
        """Return the files that a stack may have, also those that are not asked for now."""
        return self.files(folder, task)

    def pictures(self, _folder: Path, _task: StackTask) -> list[Path]:
        """Return the files of a stack that can be drawn anew of its others."""
        return []

    def preview(self, _folder: Path, _task: StackTask, _left_out: Rows) -> Any:
        """Return what pictures of a stack that is there are drawn from; these rows have no image in it."""
        return None

    @abstractmethod
    def record(self, folder: Path, task: StackTask) -> StackRecord | None:
        """Return what is noted of a stack, or None where nothing is."""

    @abstractmethod
    def existing(self, folder: Path) -> list[Path]:
        """Return the outputs of earlier runs in a folder, that by which they count as there first."""

    @abstractmethod
    def unfinished(self, folder: Path) -> list[Path]:
        """Return what an ended run left of stacks that it had not finished."""

    def keep_whole(self, _folder: Path, _tasks: Sequence[StackTask] | None = None) -> tuple[Message, ...]:
        """Cut off what is damaged in unfinished stacks, all or these, before they are gone on with, and say so."""
        return ()

    @abstractmethod
    def refuse_unusable(self, rows: Rows) -> None:
        """Raise the error that the images of these rows can't be used."""

    @abstractmethod
    def planned_report(self, folder: Path) -> R:
        """Return what will be made in a folder, if all images can be used."""

    def check_folder(self, _folder: Path, *, resume: bool, overwrite: bool) -> bool:
        """Refuse a folder for a reason that only this kind of stack has; return whether stacks in it may stay."""
        return resume and not overwrite

    def for_workers(self) -> StackPlan[R]:
        """Return the plan with no more than the making of stacks needs, for other processes."""
        source = self.source
        headers = {code: replace(header, problems=()) for code, header in source.headers.items()}
        particles = replace(
            source.particles, images=None, locations=None, helix=None, extra=None, columns={}, messages=()
        )
        source = replace(
            source, particles=particles, headers=headers, star=None, reread=None, messages=(), problems=Problems()
        )
        return replace(self, source=source, messages=())

    @abstractmethod
    def check_part(self, folder: Path) -> None:
        """Refuse a folder with stacks that are not of this plan, when some of its own may be there already."""

    def only(self, tasks: Sequence[StackTask], reason: str) -> StackPlan[R]:
        """Return the plan with these of its tasks; the rows of the others are left out for a reason."""
        n_others = self.n_images - sum(len(task.rows) for task in tasks)
        left_out = {**self.left_out, reason: n_others} if n_others else self.left_out
        return replace(self, tasks=tuple(tasks), left_out=left_out)

    def remaining(self, _folder: Path, task: StackTask) -> Rows:
        """Return the rows of a stack whose images are not yet written."""
        return task.rows

    def alone(self, _folder: Path, _task: StackTask) -> AbstractContextManager[None]:
        """Keep other processes from the files of a stack, where two would spoil them, or wait for these."""
        return nullcontext()

    def process(self) -> AbstractContextManager[None]:
        """Settle how many threads the transform takes in a process, while stacks are made."""
        return nullcontext()

    def beside(self, _folder: Path) -> AbstractContextManager[Callable[[StackResult], None] | None]:
        """Return what is called with each stack that is made, and waited for at the end."""
        return nullcontext()

    def finish(self, folder: Path, left_out: Rows) -> None:
        """Write what is shared by all stacks, when all of them are there; these rows have no image."""

    def has_shared(self, _folder: Path, _left_out: Rows) -> bool:
        """Whether what `finish` writes is there, as it would be written."""
        return True

    @property
    def n_images(self) -> int:
        """How many images the stacks will have, if all can be used."""
        return sum(len(task.rows) for task in self.tasks)

    def report(self, folder: Path, results: Sequence[StackResult] = (), n_kept: int = 0) -> R:
        """Return what is made in a folder, of so many stacks that were there already."""
        planned = replace(self.planned_report(folder), stacks_planned=len(self.tasks))
        left_out = rows_left_out(results)
        n_bytes = (planned.rows_out - len(left_out)) * self.image_bytes
        planned = replace(planned, stacks_kept=n_kept, stack_bytes=n_bytes)
        if len(left_out) == 0:
            return planned
        rows = self.source.metadata_rows[left_out].tolist()
        shown = ", ".join(map(str, rows[:_N_ROWS_SHOWN])) + (" …" if len(rows) > _N_ROWS_SHOWN else "")
        message = note("images-unusable", f"images that can't be used were left out: rows {shown}")
        return replace(
            planned,
            rows_out=planned.rows_out - len(rows),
            left_out={**planned.left_out, self.unusable: len(rows)},
            left_out_rows=tuple(rows),
            messages=(*planned.messages, message),
        )

    def about_size(self) -> Message:
        """Say how much disk space the stacks take, and which option saves some."""
        text = f"the stacks take {size_text(self.n_images * self.image_bytes)}"
        if self.smaller is not None:
            image_bytes, how = self.smaller
            text += f"; {size_text(self.n_images * image_bytes)} {how}"
        return note("size", text)

    def report_of_part(self, folder: Path, results: Sequence[StackResult], n_kept: int) -> R:
        """Return what is made of stacks that are a part of all, so that nothing shared is written."""
        return self.report(folder, results, n_kept)

    def report_so_far(self, folder: Path, results: Sequence[StackResult], n_kept: int) -> R:
        """Return what is made when only these stacks are whole: the images of the others are left out."""
        whole = {result.number for result in results}
        tasks = tuple(task for task in self.tasks if task.number in whole)
        part = self.only(tasks, "in stacks that are not made")
        return replace(part.report(folder, results, n_kept), stacks_planned=len(self.tasks))


def rows_left_out(results: Sequence[StackResult]) -> Rows:
    """Return the rows whose images turned out unusable, of all stacks in the order of their numbers."""
    ordered = sorted(results, key=lambda result: result.number)
    return np.concatenate([np.zeros(0, np.int64), *(result.left_out for result in ordered)])


def fingerprint(plan: StackPlan[Any], task: StackTask) -> str:
    """Return a digest of all that the bytes of a stack depend on: parameters, rows, and size and age of the files.

    Raises
    ------
    FormatError
        If an image file has vanished.
    """
    images = plan.source.images
    digest = hashlib.sha256(f"{__version__} {type(plan).__name__} {plan.on_missing}".encode())
    names = images.path.take(task.rows)
    arrays = {
        **plan.parameters(task),
        "path": names.codes,
        "index": images.index[task.rows],
        "rows": plan.source.metadata_rows[task.rows],
    }
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for code in np.unique(names.codes).tolist():
        path = plan.source.headers[code].path
        try:
            status = path.stat()
        except OSError as error:
            raise read_error(path, error) from error
        digest.update(f"{names.values[code]} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@dataclass(frozen=True)
class Found:
    """What is there of the stacks of a plan.

    Parameters
    ----------
    whole
        Those that are whole and made from the same inputs and parameters, by number.
    damaged
        Why others that are there are made again, each with its name.
    undrawn
        Numbers of those that are whole and lack pictures.
    """

    whole: Mapping[int, StackResult] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    undrawn: tuple[int, ...] = ()

    def messages(self) -> tuple[Message, ...]:
        """Say which stacks are made again, and why, and of which the pictures alone."""
        return (*self._about_damaged(), *self._about_undrawn())

    def _about_undrawn(self) -> tuple[Message, ...]:
        text = f"pictures of {counted(len(self.undrawn), 'stack')} are missing, and drawn now: the stacks stay"
        return (note("pictures-drawn-again", text),) if self.undrawn else ()

    def _about_damaged(self) -> tuple[Message, ...]:
        if not self.damaged:
            return ()
        shown = "; ".join(self.damaged[:_N_SHOWN]) + (" …" if len(self.damaged) > _N_SHOWN else "")
        what = "stack is" if len(self.damaged) == 1 else "stacks are"
        return (note("stacks-made-again", f"{len(self.damaged):,} {what} not whole, and made again: {shown}"),)


@dataclass(frozen=True)
class Standing:
    """How far the stacks of a plan are in a folder.

    Parameters
    ----------
    n_whole, n_stacks
        Stacks that are whole, and all.
    n_begun, n_images
        Images in stacks that were begun and can be gone on with, and all images.
    """

    n_whole: int
    n_stacks: int
    n_begun: int
    n_images: int

    @property
    def is_begun(self) -> bool:
        """Whether there is anything to go on with."""
        return self.n_whole > 0 or self.n_begun > 0

    @property
    def text(self) -> str:
        """How far they are, in a sentence."""
        whole = f"{part_of(self.n_whole, self.n_stacks, 'stack')} whole"
        images = f"{part_of(self.n_begun, self.n_images, 'image')} written"
        if self.n_begun == 0:
            return whole
        return images if self.n_stacks == 1 else f"{whole}, of the others {images}"


def standing(plan: StackPlan[Any], folder: Path, whole: Collection[int]) -> Standing:
    """Return how far the stacks of a plan are, where those of these numbers are whole."""
    unfinished = [task for task in plan.tasks if task.number not in whole]
    begun = [task for task in unfinished if plan.continues and _is_of_plan(plan, folder, task)]
    n_begun = sum(len(task.rows) - len(plan.remaining(folder, task)) for task in begun)
    n_images = sum(len(task.rows) for task in unfinished)
    return Standing(len(plan.tasks) - len(unfinished), len(plan.tasks), n_begun, n_images)


def _is_of_plan(plan: StackPlan[Any], folder: Path, task: StackTask) -> bool:
    record = plan.record(folder, task)
    return record is not None and record.made_from == fingerprint(plan, task)


def find_stacks(
    plan: StackPlan[Any], folder: Path, *, read_through: bool = False, reporter: Reporter | None = None
) -> Found:
    """Find the stacks of a plan that are there, and see whether they are whole.

    Parameters
    ----------
    plan, folder
        Which, and where.
    read_through
        Read all of their images, rather than compare sizes and the ends of files.
    reporter
        Who hears of stacks that are read through.
    """
    reporter = reporter or Silent()
    if read_through:
        reporter.start("stacks read through", len(plan.tasks))
    whole: dict[int, StackResult] = {}
    damaged: list[str] = []
    for task in plan.tasks:
        stack = plan.files(folder, task)[0]
        if read_through:
            reporter.advance()
        if not stack.is_file():
            continue
        found = _found_stack(plan, folder, task, read_through=read_through)
        if isinstance(found, StackResult):
            whole[task.number] = found
        else:
            damaged.append(found)
    undrawn = [task.number for task in plan.tasks if task.number in whole and _lacks_pictures(plan, folder, task)]
    return Found(whole, tuple(damaged), tuple(undrawn))


def _lacks_pictures(plan: StackPlan[Any], folder: Path, task: StackTask) -> bool:
    return not all(path.is_file() and path.stat().st_size for path in plan.pictures(folder, task))


def whole_stack(plan: StackPlan[Any], folder: Path, task: StackTask) -> StackResult | None:
    """Return a stack that is there, whole and made from the same inputs and parameters; None if it is not."""
    if not plan.files(folder, task)[0].is_file():
        return None
    found = _found_stack(plan, folder, task, read_through=False)
    return found if isinstance(found, StackResult) else None


def why_not_whole(plan: StackPlan[Any], folder: Path, task: StackTask, *, read_through: bool = False) -> str:
    """Say why a stack is missing or not whole, beginning with the name of a file; nothing if it is."""
    stack = plan.files(folder, task)[0]
    if not stack.is_file():
        return f"{stack.name} is missing"
    found = _found_stack(plan, folder, task, read_through=read_through)
    return found if isinstance(found, str) else ""


def _found_stack(plan: StackPlan[Any], folder: Path, task: StackTask, *, read_through: bool) -> StackResult | str:
    """Return a stack that is whole, or why it is not."""
    files = plan.files(folder, task)
    try:
        record = plan.record(folder, task)
    except CryobridgeError as error:
        return str(error)
    if record is None:
        return f"{files[0].name} has no record of how it was made"
    if record.made_from != fingerprint(plan, task):
        return f"{files[0].name} was made from other inputs, or with other options"
    pictures = set(plan.pictures(folder, task))
    for path in files:
        if path in pictures:
            continue
        if path in record.files:
            reason = record.files[path].why_not(path, read_through=read_through)
        elif not path.is_file() or path.stat().st_size == 0:
            reason = "is missing or empty"
        else:
            reason = "has no record of its size" if path.suffix in {".pt", ".mrcs"} else ""
        if reason:
            return f"{path.name} {reason}"
    return StackResult(task.number, record.left_out)
