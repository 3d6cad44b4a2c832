"""Whose temporary files these are, and whether their run is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from cryobridge.errors import CryobridgeError
from cryobridge.formats import lease as leases
from cryobridge.formats.atomic import atomic_path, leftovers
from cryobridge.formats.lease import FOLDER_LEASE, State, exclusive, lease_name, remove_dead, state_of
from cryobridge.jobs.output_folder import locked, messages_of, refuse_busy
from helpers import environment

OTHER_HOST = "0" * 8
_WRITER = """
import sys, time
from pathlib import Path
from cryobridge.formats.atomic import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("whole")
    print(temporary, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def writer(path, *before):
    """A process that has begun to write a file, and ends it when it is told."""
    words = [*before, sys.executable, "-c", _WRITER, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment()) as process:
        process.temporary = process.stdout.readline().strip()
        yield process
        process.kill()


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    monkeypatch.setattr(leases, "STALE_S", 0.5)
    monkeypatch.setattr(leases, "_LOOK_S", 0.02)
    # A thread of an earlier test has its own pace.
    monkeypatch.setattr(leases, "_is_beating", False)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def write(path):
    with atomic_path(path) as temporary:
        temporary.write_text("new")


def test_a_run_in_another_namespace_of_processes_keeps_its_temporary_files(tmp_path):
    alone = ["unshare", "-rpf", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace may be made here")
    with writer(tmp_path / "a.star", *alone) as process:
        write(tmp_path / "b.star")
        assert os.path.exists(process.temporary)  # noqa: PTH110
        assert leftovers(tmp_path) == []
        # The other way round: who can't see our processes.
        with atomic_path(tmp_path / "c.star") as temporary:
            temporary.write_text("ours")
            words = [*alone, sys.executable, "-c", _WRITER, str(tmp_path / "d.star")]
            done = subprocess.run(words, input="\n", capture_output=True, text=True, env=environment(), check=False)
            assert done.returncode == 0, done.stderr
        process.communicate("\n", timeout=60)
    assert names_in(tmp_path) == {"a.star", "b.star", "c.star", "d.star"}
    assert (tmp_path / "a.star").read_text() == "whole"


def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path):
    with writer(tmp_path / "a.star") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(names_in(tmp_path)) == 2
        assert set(leftovers(tmp_path)) == set(tmp_path.iterdir())
    code = f"from cryobridge.formats.atomic import tidy; from pathlib import Path; tidy(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
    assert names_in(tmp_path) == set()


def left_elsewhere(folder):
    """Return a lease and a temporary file as a run on another host leaves them."""
    lease = folder / f".cryobridge-{OTHER_HOST}-00000001.lease"
    lease.touch()
    os.utime(lease, (7, 7))
    temporary = folder / f".a.{OTHER_HOST}-00000001-00000a.star"
    temporary.touch()
    return lease, temporary


def beat(lease, stop):
    count = 7
    while not stop.wait(0.05):
        count += 1
        os.utime(lease, (count, count))


def test_what_is_left_from_another_host_goes_when_its_counter_stands_still_and_not_before(tmp_path, short):
    lease, temporary = left_elsewhere(tmp_path)
    assert leftovers(tmp_path) == []
    assert leftovers(tmp_path, of_any_host=True) == [temporary]
    with atomic_path(tmp_path / "b.star") as path:
        path.touch()
        assert temporary.exists()
        until = time.monotonic() + 10
        while lease.exists() and time.monotonic() < until:
            time.sleep(0.02)
    assert names_in(tmp_path) == {"b.star"}


def test_what_a_run_on_another_host_is_writing_stays(tmp_path, short):
    lease, temporary = left_elsewhere(tmp_path)
    stop = threading.Event()
    beats = threading.Thread(target=beat, args=(lease, stop))
    beats.start()
    try:
        with atomic_path(tmp_path / "b.star") as path:
            path.touch()
            time.sleep(1.2)
        assert temporary.exists()
        assert state_of(lease, patience_s=leases.STALE_S) is State.ALIVE
    finally:
        stop.set()
        beats.join()
    # The clock of the file system says nothing: a time in the future is a counter that stands still, too.
    os.utime(lease, (1 << 33, 1 << 33))
    assert state_of(lease, patience_s=leases.STALE_S) is State.DEAD


def test_who_was_held_up_while_looking_takes_no_run_on_another_host_for_dead(tmp_path, short, monkeypatch):
    lease, _ = left_elsewhere(tmp_path)
    held_up_s, n_sleeps = 0.0, 0

    def sleep(_seconds):
        nonlocal held_up_s, n_sleeps
        held_up_s, n_sleeps = 100.0, n_sleeps + 1
        if n_sleeps == 2:
            os.utime(lease, (8, 8))

    now = time.monotonic()
    monkeypatch.setattr(leases.time, "monotonic", lambda: now + held_up_s)
    monkeypatch.setattr(leases.time, "sleep", sleep)
    assert state_of(lease, patience_s=leases.STALE_S) is State.ALIVE
    assert state_of(lease, patience_s=leases.STALE_S) is State.DEAD


def test_a_folder_of_a_dead_run_on_another_host_is_taken_over_and_one_at_work_is_not(tmp_path, short):
    lease = tmp_path / FOLDER_LEASE
    lease.write_text(OTHER_HOST)
    with locked(tmp_path):
        assert not lease.read_text().startswith(OTHER_HOST)
    lease.write_text(OTHER_HOST)
    stop = threading.Event()
    beats = threading.Thread(target=beat, args=(lease, stop))
    beats.start()
    try:
        with pytest.raises(CryobridgeError, match="another run"), locked(tmp_path):
            pass
    finally:
        stop.set()
        beats.join()
    assert lease.read_text() == OTHER_HOST


def test_one_run_has_a_folder_and_it_is_free_after_it(tmp_path):
    with locked(tmp_path):
        with pytest.raises(CryobridgeError, match="another run"), locked(tmp_path):
            pass
        with pytest.raises(CryobridgeError, match="another run"):
            refuse_busy(tmp_path)
    refuse_busy(tmp_path)
    assert names_in(tmp_path) == set()


def test_of_many_that_want_a_folder_one_at_a_time_has_it(tmp_path):
    inside, most, n_got = [], [], []

    def want():
        for _ in range(20):
            with exclusive(tmp_path) as lease:
                if lease is not None:
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.pop()
                    n_got.append(1)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(n_got) >= 8
    assert names_in(tmp_path) == set()


def test_refused_locks_are_warned_of_and_the_counter_decides(tmp_path, short, monkeypatch):
    def flock(_file, _kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path) as lease:
        assert [message.code for message in messages_of(lease)] == ["locks-refused"]
        with pytest.raises(CryobridgeError, match="another run"), locked(tmp_path):
            pass
    with atomic_path(tmp_path / "a") as temporary:
        temporary.touch()
        time.sleep(0.8)
        assert leftovers(tmp_path) == []
    (tmp_path / FOLDER_LEASE).touch()
    with locked(tmp_path):
        pass
    assert names_in(tmp_path) == {"a"}


def test_a_lease_that_another_run_has_taken_over_is_not_removed(tmp_path):
    path = tmp_path / FOLDER_LEASE
    with exclusive(tmp_path):
        remove_dead(path)
        assert path.exists()
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_names_of_other_files_are_no_leases():
    assert lease_name(FOLDER_LEASE) == ""
    assert lease_name(f".cryobridge-{OTHER_HOST}-00000001.lease") == f"{OTHER_HOST}-00000001"
    assert lease_name(".cryobridge-x.lease") is None


# Names and permissions


@pytest.mark.parametrize(
    "name", ["a" * 255, "a" * 250 + ".star", "é" * 127, "a." + "b" * 253, "€" * 83 + ".mrcs", ".a"]
)
def test_names_up_to_255_bytes_are_written(name, tmp_path):
    write(tmp_path / name)
    assert names_in(tmp_path) == {name}


def test_a_file_that_is_replaced_hands_on_its_permissions(tmp_path):
    path = tmp_path / "a.star"
    path.touch()
    path.chmod(0o640)
    write(path)
    assert path.stat().st_mode & 0o777 == 0o640
    new = tmp_path / "b.star"
    write(new)
    (tmp_path / "c").touch()
    assert new.stat().st_mode == (tmp_path / "c").stat().st_mode
