from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from cryobridge.interruption import uninterrupted


@pytest.fixture
def interrupts():
    """Ctrl-C as Python has it by itself."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("times", [1, 3])
def test_interrupts_do_not_cut_off_the_work_and_are_raised_afterwards(times, interrupts):
    ended = []

    @uninterrupted
    def work():
        for _ in range(times):
            # Systems send Ctrl-C to the main thread, whose waiting it ends.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.1)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert ended


def test_results_and_errors_are_those_of_the_work():
    assert uninterrupted(divmod)(7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        uninterrupted(divmod)(7, 0)


def test_where_the_system_has_no_thread_left_the_work_is_done_all_the_same(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    assert uninterrupted(divmod)(7, 2) == (3, 1)


DRAWINGS = {
    "picks": """
from cryobridge.plots.coords import picks_png as draw
content = np.eye(64), (64, 64), np.full((9, 2), 20.0), "picks"
""",
    "page": """
from cryobridge.plots.page import Panel, Sheet, png as draw
panel = Panel("points", lambda axes: axes.scatter(np.arange(9), np.arange(9)))
content = [Sheet("a page", (panel,))]
""",
}


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("called", ["BboxBase.__array__", "Transform.__array__", "AffineBase.__array__"])
def test_an_interrupt_where_compiled_code_of_matplotlib_calls_python_ends_the_drawing_well(name, called):
    script = f"""
import signal, sys, threading
import numpy as np
from matplotlib import transforms
from matplotlib.transforms import AffineBase, BboxBase, Transform
{DRAWINGS[name]}
convert = {called}
def interrupted(self, *args, **kwargs):
    if sys._getframe(1).f_code.co_filename.endswith(("collections.py", "image.py")):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return convert(self, *args, **kwargs)
{called} = interrupted
try:
    draw(*content)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
