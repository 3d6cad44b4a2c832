"""What a command loads."""

from __future__ import annotations

import json
import subprocess
import sys

from helpers import environment

HEAVY = {"torch", "pandas", "matplotlib", "numpy", "pyarrow", "scipy", "mrcfile"}
PROBE = f"""
import atexit, sys
heavy = {HEAVY!r}
atexit.register(lambda: print("LOADED", *sorted(heavy & set(sys.modules)), file=sys.stderr))
sys.argv[0] = "cryobridge"
from cryobridge.cli.app import main
main()
"""

# One after the other, each in a fork of a process that has imported what all of them need, which torch is not.
PROBE_MANY = f"""
import json, os, sys, tempfile
import cryobridge.jobs.stacks.api
from cryobridge.cli.app import main
heavy = {HEAVY!r}
found = []
for words in json.load(sys.stdin):
    with tempfile.TemporaryFile() as errors:
        if (pid := os.fork()) == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(errors.fileno(), 2)
            code, sys.argv = 99, ["cryobridge", *words]
            try:
                main()
            except SystemExit as ended:
                code = ended.code
            finally:
                print("LOADED", *sorted(heavy & set(sys.modules)), file=sys.stderr, flush=True)
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        errors.seek(0)
        found.append([code, errors.read().decode()])
json.dump(found, sys.stdout)
"""


def probe(*words, **changes):
    shown, _, _, loaded = _probed(words, changes)
    return shown, loaded


def probe_errors_of_each(requests, cwd=None):
    """The exit code of each command, what is on stderr, and the heavy libraries that were loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE_MANY],
        input=json.dumps(requests),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [(code, *_apart(errors)) for code, errors in json.loads(done.stdout)]


def _apart(errors):
    errors, _, loaded = errors.partition("LOADED")
    return errors, loaded.split()


def _probed(words, changes):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout, done.returncode, *_apart(done.stderr)
