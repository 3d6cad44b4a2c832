"""Leases: small hidden files by which a run shows others that it is at work in a folder.

A lease is made so that only one can have its name (O_EXCL). Its owner holds a lock on it, which the system lets go of
when the process ends in any way, and moves a counter, its time of change, which is no time but a number: whoever can't
see the lock, on another host, sees the counter move. A lease is dead when nobody holds the lock of a file that was made
on this host, whatever the namespace of processes; where locks are refused, or the file comes from another host, when
its counter stands still for as long as somebody looks. No clock is read but the looker's own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

# The one of a folder that has room for one run only.
FOLDER_LEASE = ".cryobridge.lease"
BEAT_S = 2.0
# Six beats that fail to come.
STALE_S = 12.0
_LOOK_S = 0.25
_OF_A_RUN = re.compile(r"\.cryobridge-(?P<name>(?P<host>[0-9a-f]{8})-[0-9a-f]{8})\.lease")
_NAME_BYTES = 8
_N_TRIES = 3
_MOMENT_S = 0.05


def _this_host() -> str:
    # The same in all containers of a machine, whose processes may not see each other, and new with each start.
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        name = os.uname().nodename
    return hashlib.sha256(name.encode()).hexdigest()[:_NAME_BYTES]


HOST = _this_host()


class State(Enum):
    """Whether the run that made a lease is still at work."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Lease:
    """A lease that this process holds, or is about to.

    Parameters
    ----------
    path
        Where it lies.

    Attributes
    ----------
    is_locked
        Whether the file system took the lock; False before it is taken.
    users
        How many parts of the process need it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_locked = False
        self.users = 0
        self._file: int | None = None
        self._count = 0

    @property
    def name(self) -> str:
        """What the names of temporary files carry of it."""
        return _name_of(self.path)

    @property
    def is_taken(self) -> bool:
        """Whether this process holds it."""
        return self._file is not None

    def take(self) -> bool:
        """Make it, and begin to move its counter; return False where there is one of that name.

        Raises
        ------
        OSError
            If the system refuses.
        """
        while True:
            try:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                return False
            lock = _try_lock(self._file, fcntl.LOCK_EX)
            # Who looked at it before it was locked may have taken it for dead.
            if lock != "held" and _is_at(self.path, self._file):
                break
            self._remove()
        self.is_locked = lock == "free"
        if not self.name:
            try:
                os.write(self._file, HOST.encode())
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.fspath(self.path)) from error
        self.beat()
        _begin_to_beat(self)
        return True

    def reserve(self, n_bytes: int) -> None:
        """Take room on the disk, for what has to be written there at the end even if it is full.

        Raises
        ------
        OSError
            If there is not so much.
        """
        if self._file is None:
            return
        try:
            os.posix_fallocate(self._file, 0, n_bytes)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise OSError(error.errno, error.strerror, os.fspath(self.path)) from error

    def free_reserve(self) -> None:
        """Give the room back."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, _NAME_BYTES)

    def beat(self) -> None:
        """Move the counter."""
        file = self._file
        if file is not None:
            self._count += 1
            with suppress(OSError):
                os.utime(file, (self._count, self._count))

    def release(self) -> None:
        """Remove it, also where an interrupt comes in between."""
        # The thread that beats must not meet a closed file, whose number another file may have by then.
        with _lock:
            _taken.discard(self)
            try:
                self._release()
            except BaseException:
                self._release()
                raise

    def _release(self) -> None:
        if self._file is not None:
            self._remove()
        elif state_of(self.path) is State.DEAD:
            # An interrupt may have come between its making and its lock.
            remove_dead(self.path)

    def _remove(self) -> None:
        assert self._file is not None
        with suppress(OSError):
            # No other run makes one of the same name, but for that of a folder.
            if self.name or _is_at(self.path, self._file):
                self.path.unlink()
        file, self._file = self._file, None
        os.close(file)


def _name_of(path: Path) -> str:
    found = _OF_A_RUN.fullmatch(path.name)
    return found["name"] if found else ""


def state_of(path: Path, *, patience_s: float = 0.0) -> State:
    """Look whether the owner of a lease is at work.

    Parameters
    ----------
    path
        The lease; where there is none, nobody is at work.
    patience_s
        How long to look at a counter, at most, where the lock says nothing: `STALE_S` for a sure answer.
    """
    first = _look(path)
    if isinstance(first, State):
        return first
    # Looks are counted rather than seconds: a process that was held up has not looked meanwhile.
    for _ in range(math.ceil(patience_s / _LOOK_S)):
        time.sleep(_LOOK_S)
        look = _look(path)
        if isinstance(look, State):
            return look
        if look != first:
            return State.ALIVE
    return State.DEAD if patience_s >= STALE_S else State.UNKNOWN


def _look(path: Path) -> State | int:
    """Return whether an owner is at work, or the counter where the lock does not say."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return State.DEAD
    except OSError:
        return State.UNKNOWN
    try:
        lock = _try_lock(file, fcntl.LOCK_SH)
        if lock == "held":
            return State.ALIVE
        if lock == "free" and _host_of(path, file) in {HOST, ""}:
            return State.DEAD
        return os.fstat(file).st_mtime_ns
    finally:
        os.close(file)


def _host_of(path: Path, file: int) -> str:
    found = _OF_A_RUN.fullmatch(path.name)
    return found["host"] if found else os.pread(file, _NAME_BYTES, 0).decode("ascii", "replace")


def _try_lock(file: int, kind: int) -> str:
    """Return whether the lock of a file is ``free`` (and now ours), ``held`` by another, or ``refused``."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return "refused"
    return "free"


def _is_at(path: Path, file: int) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except OSError:
        return False


def remove_dead(path: Path) -> None:
    """Remove a lease that `state_of` calls dead, unless another one has come in its place meanwhile."""
    with suppress(OSError):
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if _try_lock(file, fcntl.LOCK_EX) != "held" and _is_at(path, file):
                path.unlink()
        finally:
            os.close(file)


@contextmanager
def exclusive(folder: Path) -> Iterator[Lease | None]:
    """Hold the one lease of a folder; yield None where another run has it.

    Raises
    ------
    OSError
        If the folder can't be written to.
    """
    lease = Lease(folder / FOLDER_LEASE)
    try:
        yield lease if _taken_over(lease) else None
    finally:
        lease.release()


def _taken_over(lease: Lease) -> bool:
    # Others that look at a dead one, or remove it, hold its lock for a moment.
    for _ in range(_N_TRIES):
        if lease.take():
            return True
        if state_of(lease.path, patience_s=STALE_S) is State.DEAD:
            remove_dead(lease.path)
        time.sleep(_MOMENT_S)
    return False


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lease, as soon as nobody else does.

    Parameters
    ----------
    path
        Of the lease; whoever goes by the same name waits for the other.

    Raises
    ------
    OSError
        If it can't be written.
    """
    lease = Lease(path)
    try:
        while not lease.take():
            if state_of(path, patience_s=STALE_S) is State.DEAD:
                remove_dead(path)
            else:
                time.sleep(_LOOK_S)
        yield
    finally:
        lease.release()


# The leases on temporary files that this process holds, by folder.
_held: dict[Path, Lease] = {}
_lock = threading.RLock()


@contextmanager
def holding(folder: Path) -> Iterator[Lease]:
    """Hold this process's lease on its temporary files in a folder.

    Raises
    ------
    OSError
        If the folder can't be written to.
    """
    with _lock:
        lease = _held.setdefault(folder, Lease(_new_path(folder)))
        lease.users += 1
    try:
        with _lock:
            while not lease.is_taken and not lease.take():
                lease.path = _new_path(folder)
        yield lease
    finally:
        with _lock:
            lease.users -= 1
            if lease.users == 0:
                _held.pop(folder, None)
                lease.release()


def _new_path(folder: Path) -> Path:
    return lease_path(folder, f"{HOST}-{secrets.token_hex(_NAME_BYTES // 2)}")


def lease_path(folder: Path, name: str) -> Path:
    """Return where the lease of this name lies, which temporary files in a folder carry in theirs."""
    return folder / f".cryobridge-{name}.lease"


def lease_name(file_name: str) -> str | None:
    """Return the name of the lease that a file is; empty for that of a folder, None for other files."""
    return "" if file_name == FOLDER_LEASE else _name_of(Path(file_name)) or None


# What beats, and what is looked at for others, until a lease is seen to be dead or alive.
_taken: set[Lease] = set()
_watched: dict[Path, tuple[int, float, Callable[[], None]]] = {}
_is_beating = False


def when_dead(path: Path, action: Callable[[], None]) -> None:
    """Have something done, beside the work, once the counter of a lease has stood still for `STALE_S`."""
    look = _look(path)
    if not isinstance(look, State):
        with _lock:
            _watched.setdefault(path, (look, time.monotonic(), action))


def _begin_to_beat(lease: Lease) -> None:
    global _is_beating  # noqa: PLW0603 - one thread for the process
    with _lock:
        _taken.add(lease)
        if _is_beating:
            return
        # Without a thread other hosts take the lease for dead after a while; that is no reason not to work.
        with suppress(RuntimeError, MemoryError):
            threading.Thread(target=_beat, name="leases", daemon=True).start()
            _is_beating = True


def _beat() -> None:
    global _is_beating  # noqa: PLW0603
    while True:
        time.sleep(BEAT_S)
        with _lock:
            for lease in _taken:
                lease.beat()
            watched = dict(_watched)
            if not _taken:
                _watched.clear()
                _is_beating = False
                return
        for path, (count, since, action) in watched.items():
            look = _look(path)
            is_dead = look == count and time.monotonic() - since >= STALE_S
            if is_dead:
                action()
            if is_dead or look != count:
                with _lock:
                    _watched.pop(path, None)
