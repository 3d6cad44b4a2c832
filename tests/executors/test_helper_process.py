from __future__ import annotations

import operator
import os
import subprocess
import sys

import pytest

from cryobridge.executors.helper_process import HelperError, HelperProcess


def test_calls_are_answered_in_their_order_by_one_other_process():
    with HelperProcess() as process:
        answers = [process.call(operator.pow, 2, number) for number in range(5)]
        pids = {process.call(os.getpid).result() for _ in range(2)}
        assert [answer.result() for answer in answers] == [1, 2, 4, 8, 16]
    assert len(pids) == 1
    assert os.getpid() not in pids
    with pytest.raises(ProcessLookupError):
        os.kill(pids.pop(), 0)


def test_what_a_function_prints_is_no_answer():
    with HelperProcess() as process:
        assert process.call(print, "text").result() is None
        assert process.call(operator.add, 1, 2).result() == 3


def test_a_call_that_fails_and_those_after_it_say_why():
    with HelperProcess() as process:
        first, second = process.call(operator.truediv, 1, 0), process.call(operator.add, 1, 2)
        for answer in (first, second):
            with pytest.raises(HelperError, match="ZeroDivisionError"):
                answer.result()


def test_an_error_beside_it_ends_the_process():
    with pytest.raises(KeyError), HelperProcess() as process:
        pid = process.call(os.getpid).result()
        process.call(operator.pow, 3, 10**9)  # would take minutes
        raise KeyError
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_no_module_is_taken_from_the_current_folder(tmp_path):
    (tmp_path / "pickle.py").write_text("raise SystemExit('taken from the folder of the data')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('taken from the folder of the data')")
    code = "import sys; sys.path.remove(''); import os, operator; os.chdir(sys.argv[1])\n"
    code += "from cryobridge.executors.helper_process import HelperProcess\n"
    code += "with HelperProcess() as process: print(process.call(operator.add, 1, 2).result())"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == "3\n", done.stderr
