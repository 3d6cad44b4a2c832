from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from functools import cached_property
from pathlib import Path

import mrcfile
import numpy as np
import pexpect

COMMAND = str(Path(sys.executable).with_name("cryobridge"))
_FROM_OUTSIDE = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING", "TERM"}
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(**changes):
    kept = {name: value for name, value in os.environ.items() if name not in _FROM_OUTSIDE}
    return {**kept, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **changes}


class CommandServer:
    """A process in whose forks commands run; started with the first question."""

    def __init__(self, *before):
        self._words = [*before, sys.executable, str(Path(__file__).with_name("command_server.py"))]

    @cached_property
    def process(self):
        atexit.register(self.close)
        return subprocess.Popen(
            self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def ask(self, question):
        """Return how a job ended, or each of several that run side by side."""
        self.process.stdin.write(json.dumps(question, default=str) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        atexit.unregister(self.close)
        self.process.communicate()


def command_job(words, cwd, changes=None, **more):
    """What a command server is asked to run, and how it may be disturbed."""
    words, cwd = [str(word) for word in words], str(cwd or Path.cwd())
    return {"words": words, "cwd": cwd, "environment": environment(**(changes or {})), **more}


_SERVER = CommandServer()
# What is looked at when a command starts; other changes need a new Python.
_READ_LATE = {"COLUMNS", "NO_COLOR", "TERM"}


def _may_fork(changes):
    return sys.platform == "linux" and changes.keys() <= _READ_LATE


def run(*words, cwd=None, demo=None, **changes):
    """Run the command line in a process of its own, a fork where the environment lets it.

    `demo` is the size of a smaller demo: `n_micrographs` and `particles_per_micrograph`. The result of a fork has
    `peak_MiB`, the most memory that it had; about 250 MiB are what it starts with.
    """
    if not _may_fork(changes):
        return run_anew(*words, cwd=cwd, **changes)
    done = _SERVER.ask(command_job(words, cwd, changes, **({"demo": demo, "has_tour": True} if demo else {})))
    result = subprocess.CompletedProcess(words, done["code"], done["stdout"], done["stderr"])
    result.peak_MiB = done["peak_MiB"]
    return result


def run_script(path, cwd):
    """Run a file of Python in a fork where all is imported already; return the exit code and what was said."""
    done = _SERVER.ask(command_job([path], cwd, is_script=True))
    return subprocess.CompletedProcess([path], done["code"], done["stdout"], done["stderr"])


def run_anew(*words, cwd=None, **changes):
    """Run the command as a shell does, which takes a second for Python and its packages."""
    return subprocess.run(
        [COMMAND, *map(str, words)],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_where_one_may_only_read(folder, *words, mode=0o555):
    """Run the command as somebody who may only read in a folder, or not even that, also where the tests run as root.

    Root loses its rights over the files of others with its capabilities.
    """
    import pytest

    before = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and setpriv is not installed")
        before = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        os.chown(folder, 65534, 65534)
    folder.chmod(mode)
    try:
        return subprocess.run(
            [*before, COMMAND, *map(str, words)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        folder.chmod(0o755)


def run_stacks(plan, folder, *, device="auto", overwrite=False, resume=False, verify_outputs=False, executor=None):
    """Make the stacks of a plan in a folder, and return the report."""
    from cryobridge.executors.devices import DeviceExecutor
    from cryobridge.jobs.stacks.run import StackJob

    job = StackJob(plan, Path(folder), executor or DeviceExecutor(device), resume, verify_outputs)
    return job.run(overwrite=overwrite)


def sentences(messages):
    """Return what messages say, as one text."""
    return " | ".join(map(str, messages))


def open_terminal(*words, columns=80, cwd=None, **changes):
    return pexpect.spawn(
        COMMAND,
        [str(word) for word in words],
        cwd=None if cwd is None else str(cwd),
        # What crashes in a library says where.
        env=environment(**{"PYTHONFAULTHANDLER": "1", **changes}),
        dimensions=(50, columns),
        encoding="utf-8",
        timeout=60,
    )


def run_in_terminal(*words, columns=80, cwd=None, is_alone=False, **changes):
    """Run the command line in a terminal, a demo without its tour; return the exit code and all that was shown.

    One that is alone has nobody at the keyboard.
    """
    if _may_fork(changes):
        more = {"columns": columns, "is_alone": is_alone, "demo": {}, "has_tour": False}
        done = _SERVER.ask(command_job(words, cwd, changes, **more))
        return done["code"], done["shown"]
    return end_of(open_terminal(*words, columns=columns, cwd=cwd, **changes))


def end_of(child):
    """Wait for a command to end; return its exit code, or minus the signal that ended it, and what it showed last.

    pexpect's own `close` ends one that takes its time.
    """
    child.expect(pexpect.EOF)
    child.wait()
    child.close()
    return child.exitstatus if child.signalstatus is None else -child.signalstatus, child.before


def without_escapes(text):
    return _ESCAPE.sub("", text)


def left_on_screen(text):
    # What stays of a terminal's output: a progress bar is written over, or its line is taken back.
    text = re.sub(r"[^\n]*\n(?=(?:\x1b\[\?25h)?\r\x1b\[1A\x1b\[2K)", "", text)
    lines = without_escapes(text).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def save_cs(path, columns):
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    arrays = {
        name: np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array for name, array in arrays.items()
    }
    table = np.empty(len(next(iter(arrays.values()))), [(n, a.dtype, a.shape[1:]) for n, a in arrays.items()])
    for name, array in arrays.items():
        table[name] = array
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, table)
    return path


def save_star(path, block, columns):
    head = ["", f"data_{block}", "", "loop_", *(f"_{name} #{place}" for place, name in enumerate(columns, 1))]
    rows = [" ".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*head, *rows, "", ""]))
    return path


def save_mrc(path, images, pixel_size_A=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NaN and infinity are wanted here
        with mrcfile.new(path, np.asarray(images, "f4"), overwrite=True) as mrc:
            mrc.set_image_stack()
            if pixel_size_A:
                mrc.voxel_size = pixel_size_A
    return path


def noise_images(n, box_px, seed=0):
    return np.random.default_rng(seed).normal(size=(n, box_px, box_px))


def particle_columns(paths, index, *, box_px=16, **changes):
    n = len(paths)
    return {
        "uid": np.arange(n, dtype="u8") + 2**63,
        "blob/path": paths,
        "blob/idx": np.asarray(index, "u4"),
        "blob/shape": np.full((n, 2), box_px, "u4"),
        "blob/psize_A": np.full(n, 1.5, "f4"),
        "ctf/exp_group_id": np.full(n, 1, "u4"),
        "ctf/accel_kv": np.full(n, 300, "f4"),
        "ctf/cs_mm": np.full(n, 2.7, "f4"),
        "ctf/amp_contrast": np.full(n, 0.1, "f4"),
        "ctf/df1_A": np.linspace(10000, 11000, n, dtype="f4"),
        "ctf/df2_A": np.linspace(9900, 10900, n, dtype="f4"),
        "ctf/df_angle_rad": np.linspace(-1, 1, n, dtype="f4"),
        "ctf/phase_shift_rad": np.zeros(n, "f4"),
        **{name.replace("__", "/"): values for name, values in changes.items()},
    }


def save_particles(folder):
    """Write five particles of two stacks, in an order of their own."""
    save_mrc(folder / "J1" / "extract" / "a.mrc", noise_images(3, 16, seed=1), 1.5)
    save_mrc(folder / "J1" / "extract" / "b.mrc", noise_images(4, 16, seed=2), 1.5)
    names = [f"J1/extract/{name}.mrc" for name in "babba"]
    return save_cs(folder / "J1" / "J1_particles.cs", particle_columns(names, [3, 0, 1, 0, 2]))


class Begun:
    """A run in a fork that goes on meanwhile, with what the tests use of `subprocess.Popen`."""

    returncode = None

    def __init__(self, words):
        self.pid = _SERVER.ask({"begin": command_job(words, None)})

    def poll(self):
        if self.returncode is None and _SERVER.ask({"is_over": self.pid}):
            self.communicate()
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout=None):
        """Wait for the end, as long as the server lets it run, and return what was said."""
        if self.returncode is None:
            done = _SERVER.ask({"end": self.pid})
            self.returncode, self._said = done["code"], (done["stdout"], done["stderr"])
        return self._said

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None and self.returncode is None:
            self.send_signal(signal.SIGKILL)
        self.communicate()


def start(*words, is_group=False):
    """Begin a run: a fork, or in a group of processes of its own as a shell does."""
    if sys.platform == "linux" and not is_group:
        return Begun(words)
    return subprocess.Popen(
        [COMMAND, *map(str, words)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=is_group,
    )


def texts(items):
    """The texts of messages, or of what JSON has of them; of paths and texts, as they are."""
    return [item["text"] if isinstance(item, dict) else str(item) for item in items]


def codes(items):
    """The codes of messages."""
    return [item["code"] if isinstance(item, dict) else item.code for item in items]
