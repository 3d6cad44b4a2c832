"""Runs commands of the command line, each in a fork of a process that has imported everything already.

`python command_server.py` reads one JSON object a line and answers each with one; a list of jobs is run side by side,
and answered with a list. A command takes milliseconds to start. It may be disturbed on purpose: before its N-th change
to a folder it is killed, interrupted ….
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import errno
import fcntl
import gc
import importlib
import io
import json
import os
import pkgutil
import pty
import resource
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# A command that has not ended by then hangs.
_MOST_S = 120
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate"}


class Fault:
    """An audit hook that counts what a run is about to change in a folder, and strikes before the N-th change.

    With ``opening`` it counts how often a run opens the victim, and strikes before the N-th time.
    """

    def __init__(self, job, log):
        self._folder = os.fspath(job["folder"])
        self._at = job.get("at")
        self._opening = job.get("opening")
        self._fault = job.get("fault", "none")
        self._strike = getattr(self, f"_{self._fault}", None)
        self._victim = job.get("victim")
        self._log = log
        self._count = self._n_opened = 0
        self._lock = threading.Lock()
        self._is_off = self._is_full = False

    def __call__(self, event, arguments):
        if self._is_off:
            return
        if event == "open" and self._opening is not None and _absolute(arguments[0]) == self._victim:
            self._open()
        if not self._is_change(event, arguments):
            return
        if self._is_full and event in {"open", "os.mkdir"}:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self._lock:
            self._count += 1
            is_now = self._count == self._at
        os.write(self._log, f"{event} {os.fspath(arguments[0])}\n".encode())
        if is_now and self._fault == "full":
            self._is_full = True
        elif is_now:
            self._is_off = True
            self._strike()

    def _open(self):
        with self._lock:
            self._n_opened += 1
            is_now = self._n_opened == self._opening
        os.write(self._log, f"read {self._victim}\n".encode())
        if is_now:
            self._is_off = True
            self._strike()

    def _is_change(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & _WRITING):
                return False
        elif event not in _CHANGES:
            return False
        else:
            path = arguments[0]
        return _absolute(path).startswith(self._folder)

    def _kill(self):
        os.killpg(0, signal.SIGKILL)

    def _interrupt(self):
        os.kill(os.getpid(), signal.SIGINT)

    def _terminate(self):
        os.kill(os.getpid(), signal.SIGTERM)

    def _hang_up(self):
        os.kill(os.getpid(), signal.SIGHUP)

    def _vanish(self):
        shutil.rmtree(self._folder, ignore_errors=True)

    def _lose(self):
        Path(self._victim).unlink()

    def _shrink(self):
        os.truncate(self._victim, Path(self._victim).stat().st_size // 2)

    def _forestall(self):
        shutil.copytree(self._victim, self._folder, symlinks=True, dirs_exist_ok=True)


class Errors:
    """Lets the N-th call of a kind fail with an error of the system, where it is about files below some folders.

    The kinds are ``read``, ``write``, ``rename``, ``renamed`` (the call has done its work), ``stat`` and ``lock``.
    Without N the calls are counted.
    """

    def __init__(self, job, log):
        self._folders = tuple(job["error_folders"])
        self._at = job.get("error_at")
        self._errno = job.get("errno", errno.EIO)
        self._log = log
        self._count = 0
        self._is_off = False
        self._lock = threading.Lock()
        getattr(self, f"_wrap_{job['error']}")()

    def _strike(self, path):
        name = _absolute(path)
        if self._is_off or not name.startswith(self._folders):
            return
        with self._lock:
            self._count += 1
            is_now = self._count == self._at
        os.write(self._log, f"call {name}\n".encode(errors="replace"))
        if is_now:
            raise OSError(self._errno, os.strerror(self._errno), name)

    def _wrapped(self, call):
        def failing(path, *more, **named):
            self._strike(path)
            return call(path, *more, **named)

        return failing

    def _wrap_rename(self):
        for name in ("rename", "replace"):
            setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrap_renamed(self):
        def failing_after(call):
            return lambda path, *more, **named: (call(path, *more, **named), self._strike(path))[0]

        for name in ("rename", "replace"):
            setattr(os, name, failing_after(getattr(os, name)))

    def _wrap_stat(self):
        for name in ("stat", "lstat", "scandir"):
            setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrap_lock(self):
        lock = fcntl.flock

        def failing(file, kind):
            self._strike(Path(f"/proc/self/fd/{file}").readlink())
            return lock(file, kind)

        fcntl.flock = failing

    def _wrap_read(self):
        self._wrap_files("read", "readinto", "readline")

    def _wrap_write(self):
        self._wrap_files("write")
        pwrite = os.pwrite

        def failing(file, *more):
            self._strike(Path(f"/proc/self/fd/{file}").readlink())
            return pwrite(file, *more)

        os.pwrite = failing

    def _wrap_files(self, *calls):
        really_open = open
        strike = self._strike

        class Failing:
            def __init__(self, file, path):
                self.__dict__.update(_file=file, _path=path)

            def __getattr__(self, name):
                value = getattr(self._file, name)
                if name not in calls:
                    return value
                return lambda *given: (strike(self._path), value(*given))[1]

            def __setattr__(self, name, value):
                setattr(self._file, name, value)

            def __enter__(self):
                self._file.__enter__()
                return self

            def __exit__(self, *error):
                return self._file.__exit__(*error)

            def __iter__(self):
                return iter(self._file)

        def opened(path, *more, **named):
            file = really_open(path, *more, **named)
            return Failing(file, path) if _absolute(path).startswith(self._folders) else file

        io.open = opened
        builtins.open = opened


def _absolute(path):
    return os.path.abspath(path) if isinstance(path, (str, os.PathLike)) else ""  # noqa: PTH100


class Helper:
    """The process beside the work that draws, as a fork: another Python would load its packages for a second."""

    def __init__(self):
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        (asked, asking), (answering, answered) = os.pipe(), os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            for end in (asking, answering):
                os.close(end)
            for number, end in enumerate((asked, answered, self.complaints.fileno())):
                os.dup2(end, number)
            _serve_and_exit()
        for end in (asked, answered):
            os.close(end)
        self.stdin, self.stdout = open(asking, "wb"), open(answering, "rb")  # noqa: PTH123, SIM115

    def wait(self):
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0

    def kill(self):
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stdin.close()
        finally:
            self.stdout.close()
            self.wait()


def _serve_and_exit():
    from cryobridge.executors.helper_process import serve

    code = 1
    try:
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        serve()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _may_draw(words):
    draws = words[:1] == ["converge"] or (words[:1] == ["stacks"] and words[1:2] not in (["grid"], ["downsample"]))
    return draws and "--no-plots" not in words


def _draw_in_a_fork():
    """Have a helper ready, forked while there are no threads, for the first block that asks for one."""
    from cryobridge.executors import helper_process

    spare, anew = [Helper()], helper_process.HelperProcess._started

    def started(self):
        if self._process is None and spare:
            self._process = spare.pop()
            self._complaints = self._resources.enter_context(self._process.complaints)
            self._resources.callback(helper_process._end, self._process)
        return anew(self)

    helper_process.HelperProcess._started = started


def _work(job, log):
    from cryobridge.cli.app import main

    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "w", closefd=False), line_buffering=True) for number in (1, 2)
    )
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    signal.alarm(_MOST_S)
    if "demo" in job:
        _use_small_demo(job["demo"], has_tour=job["has_tour"])
    if (limit := job.get("limit")) is not None:
        # Python ignores the signal, and writing fails as on a full disk; at its default it ends the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if job.get("fault") == "kill" else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (free := job.get("free")) is not None:
        shutil.disk_usage = lambda _: SimpleNamespace(free=free, total=1 << 40)
    if job.get("is_script"):
        _run_script(*job["words"])
    sys.argv = ["cryobridge", *job["words"]]
    if _may_draw(job["words"]):
        _draw_in_a_fork()
    if "error" in job:
        Errors(job, log)
    elif "folder" in job:
        sys.addaudithook(Fault(job, log))
    time.sleep(job.get("wait_s", 0))
    main()


def _run_script(path):
    """Run a file as Python runs it, and exit as it does."""
    sys.argv = [path]
    try:
        runpy.run_path(path, run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


def _work_and_exit(job, log=None):
    code = 99
    try:
        _work(job, log)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 98)


@dataclass
class _Child:
    """A run that is under way."""

    pid: int
    pipes: list[tuple[int, int]]
    began_s: float
    killer: threading.Timer | None


def _start(job):
    # Pipes, which a limit on the size of files does not touch, wide enough for all that a run says.
    pipes = [os.pipe() for _ in range(3)]
    for reading, _ in pipes:
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 1 << 20)
    began_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        out, err, log = (writing for _, writing in pipes)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _work_and_exit(job, log)
    killer = None
    if (seconds := job.get("kill_after_s")) is not None:
        killer = threading.Timer(seconds, os.kill, (pid, job.get("signal", signal.SIGKILL)))
        killer.start()
    return _Child(pid, pipes, began_s, killer)


def _finish(child):
    # A process that is waited for without being reaped keeps its number, which the killer may still use.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    seconds = time.monotonic() - child.began_s
    if child.killer is not None:
        child.killer.cancel()
        child.killer.join()
    _, status, used = os.wait4(child.pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # whoever the run has left behind
    texts = []
    for reading, writing in child.pipes:
        os.close(writing)
        with open(reading, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            texts.append(file.read())
    code = os.waitstatus_to_exitcode(status)
    changes = texts[2].splitlines()
    peak_MiB = used.ru_maxrss / 1024
    return {
        **{"code": code, "stdout": texts[0], "stderr": texts[1]},
        **{"changes": changes, "seconds": seconds, "peak_MiB": peak_MiB},
    }


def _in_terminal(job):
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, job["columns"], 0, 0))
        if job.get("is_alone"):
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _work_and_exit(job)
    shown = bytearray()
    with contextlib.suppress(OSError):  # Linux: the other end was closed
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return {"code": os.waitstatus_to_exitcode(status), "shown": shown.decode(errors="replace")}


# Runs that go on while other questions are answered, by their process's number.
_BEGUN = {}


def _is_over(pid):
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _answer(job):
    if (begun := job.get("begin") if isinstance(job, dict) else None) is not None:
        child = _start(begun)
        _BEGUN[child.pid] = child
        return child.pid
    if isinstance(job, dict) and "is_over" in job:
        return _is_over(job["is_over"])
    if isinstance(job, dict) and "end" in job:
        return _finish(_BEGUN.pop(job["end"]))
    if isinstance(job, list):
        return [_finish(child) for child in [_start(one) for one in job]]
    if (shell := job.get("shell")) is not None:
        return subprocess.run(["sh", "-c", *shell], stdin=subprocess.DEVNULL, check=False).returncode
    return _in_terminal(job) if "columns" in job else _finish(_start(job))


def _import_everything():
    import cryobridge

    for module in pkgutil.walk_packages(cryobridge.__path__, "cryobridge."):
        if not module.name.endswith("__main__"):
            # Adaptors need the packages that they are for.
            with contextlib.suppress(ModuleNotFoundError if ".adaptors." in module.name else ()):
                importlib.import_module(module.name)
    for name in ("matplotlib.figure", "pandas", "pyarrow.csv", "scipy.fft", "starfile", "torch", "typer.rich_utils"):
        importlib.import_module(name)


def _use_small_demo(size, *, has_tour):
    # The project as it is shown, and the commands on it, take ten seconds.
    import cryobridge.cli.demo_command
    import cryobridge.demo

    simulated = cryobridge.demo.plan_demo
    cryobridge.demo.plan_demo = lambda folder, options: simulated(folder, dataclasses.replace(options, **size))
    if not has_tour:
        mock.patch.object(cryobridge.cli.demo_command, "_tour", lambda _: []).start()


def _serve():
    import torch

    _import_everything()
    torch.set_num_threads(1)
    # In its forks too, until the command line is there to hear them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    gc.collect()
    gc.freeze()  # else each fork would copy what it looks through for cycles
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve()
