"""Output folders: when one may be written to, and the record of the job that is left in it."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.caller import command
from cryobridge.errors import CryobridgeError, FormatError, OutputExistsError, UsageError, is_interrupt, option
from cryobridge.formats.atomic import MAY_NOT, atomic_path, is_forbidden, together, write_error
from cryobridge.formats.input_file import resolved
from cryobridge.formats.lease import BEAT_S, FOLDER_LEASE, STALE_S, Lease, State, exclusive, state_of
from cryobridge.report import Message, size_text, warning
from cryobridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cryobridge.report import Report

# For the last record of a run, on a disk that it has filled.
_RESERVED_BYTES = 16 << 10
_RUNNING, _COMPLETED = "running", "completed"
# A longer list is told in run.log by its first and last.
_MOST_IN_LOG = 8
# What `job_record` writes.
RECORD = ("job.json", "command.txt", "run.log", "README.txt")
# Where the parts of a job that is made in parts have their records.
PARTS = "parts"


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse to go on where outputs are there already; called before the first byte is written.

    Raises
    ------
    OutputExistsError
        If one of the paths exists and ``overwrite`` is False.
    """
    there = [path for path in paths if _is_there(path)]
    if there and not overwrite:
        raise OutputExistsError(
            "the output is there already" + (f" ({len(there)} files)" if len(there) > 1 else ""),
            path=there[0],
            hint=f"Give {option('overwrite', True)} to replace it, or another place to write to.",
        )


@contextmanager
def whole_files(paths: Sequence[Path], *, overwrite: bool) -> Iterator[Callable[[Path], None]]:
    """Write these files in the block, all or none, into folders that are made; another run may write them meanwhile.

    Yields
    ------
    callable
        What removes a file when the others get their names.

    Raises
    ------
    OutputExistsError
        If one is there at the end of the block and may not be replaced.
    """
    for folder in dict.fromkeys(path.parent for path in paths):
        make_folder(folder)
    with together() as remove:
        yield remove
        refuse_existing(paths, overwrite=overwrite)


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path], *, name: str = "output") -> None:
    """Refuse outputs that are inputs of the same job: an input is never replaced or removed.

    Parameters
    ----------
    outputs, inputs
        Files; the same one may have several names.
    name
        The option or argument that the outputs follow from.

    Raises
    ------
    UsageError
        If there is one.
    """
    read = {resolved(path) for path in inputs}
    same = next((path for path in outputs if resolved(path) in read), None)
    if same is not None:
        raise UsageError("the output is one of the inputs", path=same, hint=f"Give {option(name)} another name.")


def refuse_folder_of_others(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder where `job_record` would write over what is not cryobridge's; called before the first byte.

    Raises
    ------
    UsageError
        If another program's job is in it, whether ``overwrite`` is set or not.
    OutputExistsError
        If a file of a record is in it, which is not cryobridge's by its job.json, and ``overwrite`` is False.
    """
    require_open(folder)
    if not folder.is_dir():
        return
    # Slow to import, and needed by few.
    from cryobridge.formats.folders import CRYOSPARC_JOB, FOLDER_WORDS, RECOVAR_RESULT, RELION_JOB, identify_folder

    kind = identify_folder(folder)
    if kind in (CRYOSPARC_JOB, RELION_JOB, RECOVAR_RESULT):
        raise UsageError(
            f"a {FOLDER_WORDS[kind]}, where nothing is written",
            path=folder,
            hint="Give the output a folder of its own.",
        )
    if not has_own_record(folder):
        refuse_existing((folder / name for name in RECORD), overwrite=overwrite)


def has_own_record(folder: Path) -> bool:
    """Whether the job.json of a folder is cryobridge's."""
    from cryobridge.formats.listing import read_json
    from cryobridge.formats.own_output import is_own_description

    try:
        return is_own_description(read_json(folder / "job.json"))
    except FormatError:
        return False


def is_completed(folder: Path) -> bool:
    """Whether the last run in a folder came to its end, by its record, all of which is there."""
    from cryobridge.formats.listing import read_json

    try:
        record = read_json(folder / "job.json")
    except FormatError:
        return False
    is_whole = all((folder / name).is_file() for name in RECORD)
    return is_whole and record.get("program") == "cryobridge" and record.get("status") == _COMPLETED


def remove_existing(paths: Iterable[Path]) -> None:
    """Remove outputs that are to be replaced, so that none of them stays behind among the new ones.

    Raises
    ------
    CryobridgeError
        If the operating system refuses.
    """
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CryobridgeError(
                f"can't be removed ({error.strerror or error})",
                path=path,
                hint=f"Choose another folder with {option('output')}.",
            ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    CryobridgeError
        If the operating system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CryobridgeError(
            f"the folder can't be made ({error.strerror or error})",
            path=folder,
            hint=MAY_NOT if is_forbidden(error) else f"Choose another one with {option('output')}.",
        ) from error


def make_subfolder(folder: Path) -> None:
    """Make a folder in an output folder; a link that leads elsewhere is refused, so that all outputs stay inside.

    Raises
    ------
    CryobridgeError
        If a link is in its place, or the operating system refuses.
    """
    if folder.is_symlink():
        raise CryobridgeError(
            "a link that leads out of the output folder, where nothing is written",
            path=folder,
            hint=f"Remove the link, or give the folder that it leads to with {option('output')}.",
        )
    make_folder(folder)


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder whose names match a pattern, sorted; none where there is no such folder."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def require_writable(outputs: Iterable[Path]) -> None:
    """Refuse outputs in folders that one may not write in, where nothing is tried; the folders need not be there yet.

    Raises
    ------
    CryobridgeError
        If there is one.
    """
    for folder in dict.fromkeys(path.parent for path in outputs):
        nearest = _nearest_folder(folder)
        if nearest is not None and not os.access(nearest, os.W_OK | os.X_OK):
            raise CryobridgeError("the folder can't be written in", path=nearest, hint=MAY_NOT)


def require_open(folder: Path) -> None:
    """Refuse an output folder below one that one may not look into, rather than fail at a file in it.

    Raises
    ------
    CryobridgeError
        If it is so.
    """
    for place in reversed([folder, *folder.parents]):
        try:
            (place / "job.json").lstat()
        except PermissionError as error:
            raise CryobridgeError("the folder can't be looked into", path=place, hint=MAY_NOT) from error
        except OSError:  # not there yet, or a file, which others refuse
            continue


def _nearest_folder(folder: Path) -> Path | None:
    """Return a folder, or the first one above it that is there."""
    return next((place for place in (folder, *folder.parents) if place.is_dir()), None)


def require_space(folder: Path, n_bytes: int, hint: str, *, freed: Iterable[Path] = ()) -> None:
    """Refuse work whose output does not fit on the disk; called before the first byte is written.

    Parameters
    ----------
    folder
        Where the output goes; it need not be there yet.
    n_bytes
        How large it will be.
    hint
        What to do if it does not fit.
    freed
        Files that are removed first.

    Raises
    ------
    CryobridgeError
        If the disk has less space.
    """
    nearest = _nearest_folder(folder)
    if nearest is None:
        return
    usage = shutil.disk_usage(nearest)
    free = usage.free + sum(path.lstat().st_size for path in freed if _is_there(path))
    # Some file systems don't report their size.
    if n_bytes > free and usage.total > 0:
        raise CryobridgeError(
            f"the output needs {size_text(n_bytes)}, and the disk has {size_text(free)} left", path=folder, hint=hint
        )


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


@contextmanager
def locked(folder: Path) -> Iterator[Lease]:
    """Keep other runs of cryobridge out of a folder, by a lease that is known to be dead when the process has ended.

    Yields
    ------
    Lease
        With room for the last record; `messages_of` says what is to be said of it.

    Raises
    ------
    CryobridgeError
        If another run is at work in it.
    """
    try:
        with exclusive(folder) as lease:
            if lease is None:
                raise _busy(folder)
            # Each part looks for this lease when it has its own: one of the two sees the other.
            _refuse_busy_parts(folder, STALE_S)
            lease.reserve(_RESERVED_BYTES)
            yield lease
    except OSError as error:
        if error.filename is None or Path(os.fsdecode(error.filename)) != folder / FOLDER_LEASE:
            raise
        raise write_error(folder, error) from error


def _busy(folder: Path) -> CryobridgeError:
    return CryobridgeError(
        "another run of cryobridge is at work in this folder",
        path=folder,
        hint=f"Wait for its end, or choose another folder with {option('output')}.",
    )


def messages_of(lease: Lease) -> tuple[Message, ...]:
    """Return a warning where the file system refuses locks, so that runs at one time are not kept out for sure."""
    if lease.is_locked:
        return ()
    folder = lease.path.parent
    text = f"the file system of {folder} refuses locks, so that another run is known by signs every {BEAT_S:g} s only"
    return (warning("locks-refused", text, where=folder),)


def refuse_busy(folder: Path, *, of_parts: bool = True, patience_s: float = 0.0) -> None:
    """Refuse a folder that another run is at work in, whose unfinished files would be taken for left ones.

    Parameters
    ----------
    folder
        The folder.
    of_parts
        Whether a run counts that makes a part of what is in the folder.
    patience_s
        How long to look, at most, where the file system refuses locks.

    Raises
    ------
    CryobridgeError
        If another run is at work in it.
    """
    if state_of(folder / FOLDER_LEASE, patience_s=patience_s) is State.ALIVE:
        raise _busy(folder)
    if of_parts:
        _refuse_busy_parts(folder, patience_s)


def _refuse_busy_parts(folder: Path, patience_s: float) -> None:
    leases = files_in(folder / PARTS, f"*/{FOLDER_LEASE}")
    if not leases:
        return
    # Side by side: each may take the whole patience.
    with ThreadPoolExecutor(len(leases)) as pool:
        states = pool.map(partial(state_of, patience_s=patience_s), leases)
    busy = [lease.parent for lease, state in zip(leases, states, strict=True) if state is State.ALIVE]
    if busy:
        raise CryobridgeError(
            f"{len(busy):,} parts of it are being made" if len(busy) > 1 else "a part of it is being made",
            path=busy[0],
            hint="Wait for its end.",
        )


@dataclass
class JobRecord:
    """What `job_record` writes down: add to ``report`` what the job found out, ``messages`` on the folder among it.

    ``log`` takes lines for run.log; ``keep_up`` writes ``report`` down while the work goes on, for the case that the
    process is killed.
    """

    messages: tuple[Message, ...] = ()
    report: Report | dict[str, Any] = field(default_factory=dict)
    log: Callable[[str], None] = field(default=lambda _line: None)
    keep_up: Callable[[], None] = field(default=lambda: None)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return self.report if isinstance(self.report, dict) else self.report.to_json()


@contextmanager
def job_record(folder: Path, title: str, contents: str, *, check: Callable[[], object]) -> Iterator[JobRecord]:
    """Make an output folder and leave job.json, command.txt, run.log and README.txt in it.

    Parameters
    ----------
    folder
        The output folder.
    title
        What was done, in a few words.
    contents
        What lies in the folder, for README.txt.
    check
        Called when other runs are kept out, and before anything is written: one may have ended in the folder since
        it was looked at.

    Yields
    ------
    JobRecord
        Whose report goes into job.json; the status there says whether the job came to its end.

    Raises
    ------
    CryobridgeError
        If another run is at work in the folder.
    """
    make_folder(folder)
    with locked(folder) as lease:
        check()
        yield from _record(folder, title, contents, lease)


def _record(folder: Path, title: str, contents: str, lease: Lease) -> Iterator[JobRecord]:
    called = command()
    record = JobRecord(messages_of(lease))
    started, clock = datetime.now(timezone.utc), time.monotonic()
    progress: list[str] = []

    def log(line: str) -> None:
        progress.append(f"{datetime.now(timezone.utc).isoformat(timespec='seconds')} {line}")
        # Not worth an end of the work, which a disk that is full has soon enough.
        with suppress(OSError), (folder / "run.log").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{progress[-1]}\n")

    def write_status(status: str) -> None:
        seconds, report = time.monotonic() - clock, record.to_json()
        description = {
            "program": "cryobridge",
            "version": __version__,
            "title": title,
            "command": called,
            "status": status,
            "started_at": started.isoformat(timespec="seconds"),
            "duration_seconds": round(seconds, 3),
            "report": report,
        }
        _write_text(folder / "job.json", json.dumps(description, indent=2) + "\n")
        if status == _RUNNING and progress:  # whoever follows the log reads on
            return
        place = f"in the folder {Path.cwd()}:"
        lines = [f"{started.isoformat(timespec='seconds')} {title}", place, called, *progress]
        if status != _RUNNING:
            lines += [*_log_lines(report, said=progress), f"{status} after {seconds:.1f} s"]
        _write_text(folder / "run.log", "\n".join(lines) + "\n")

    def keep_up() -> None:
        with suppress(CryobridgeError):
            write_status(_RUNNING)

    # First, so that the status of an older run does not stand beside what this one leaves if it is killed.
    write_status(_RUNNING)
    record.log, record.keep_up = log, keep_up
    _write_text(folder / "command.txt", called + "\n")
    _write_text(folder / "README.txt", f"{title}\n\n{contents}\n\nMade by cryobridge {__version__}:\n  {called}\n")
    try:
        yield record
        lease.free_reserve()
        write_status(_COMPLETED)
    except BaseException as error:
        lease.free_reserve()
        # Why the work failed is reported, not why that can't be written down (on a full disk, say).
        with suppress(CryobridgeError):
            write_status("interrupted" if is_interrupt(error) else "failed")
        raise


def _log_lines(report: dict[str, Any], *, said: Sequence[str] = ()) -> list[str]:
    messages = [item for name in ("notes", "warnings") for item in report.get(name) or () if isinstance(item, dict)]
    skipped = {"dry_run", *(("notes", "warnings") if messages else ())}
    facts = {name: value for name, value in report.items() if name not in skipped and value not in (None, "", [], {})}
    # What was said while the work went on stands in the log already.
    new = [item for item in messages if not any(line.endswith(f" {item['text']}") for line in said)]
    texts = [f"{item['severity']}: {item['text']}" for item in new]
    return [*(f"{name.replace('_', ' ')}: {_for_readers(value)}" for name, value in facts.items()), *texts]


def _for_readers(value: Any) -> str:
    """Return a value of a report as a line of text; job.json has it whole."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_for_readers(item)}" for name, item in value.items())
    if not isinstance(value, list):
        return str(value)
    if len(value) > _MOST_IN_LOG:
        return f"{_for_readers(value[0])} … {_for_readers(value[-1])} ({len(value):,})"
    return ", ".join(map(_for_readers, value))


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names may be no UTF-8
