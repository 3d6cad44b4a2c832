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
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    loaded = done.stderr.partition("LOADED")[2].split()
    return done.stdout, loaded
