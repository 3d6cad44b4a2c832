"""What a command loads."""

from __future__ import annotations

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


def probe(*words, **changes):
    shown, _, _, loaded = _probed(words, changes)
    return shown, loaded


def probe_errors(*words):
    # Exit code, what is on stderr, and the heavy libraries that were loaded.
    return _probed(words, {})[1:]


def _probed(words, changes):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    errors, _, loaded = done.stderr.partition("LOADED")
    return done.stdout, done.returncode, errors, loaded.split()
