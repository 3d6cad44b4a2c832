"""Install programs of others where apt and the rights for it are there; elsewhere say what is left out.

``python -m interop.install relion`` (with Open MPI), or ``slurm`` (with MUNGE). Never fails: the stages of a program
are left out where it is not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from interop.checks import say

# By the programs that they are looked for by.
PACKAGES = {
    "relion": {"relion_refine": "relion", "mpirun": "openmpi-bin"},
    "slurm": {"slurmctld": "slurm-wlm", "munged": "munge"},
}
_INSTALL = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends"]
# Daemons are in folders that are not searched for users.
_FOLDERS = ("/usr/sbin", "/usr/local/sbin")


def program(name: str) -> str | None:
    """Return where a program is, None where it is not installed."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_FOLDERS))


def main(what: str) -> None:
    """Install what is not there of a group of packages."""
    absent = [package for name, package in PACKAGES[what].items() if program(name) is None]
    if not absent:
        return
    if shutil.which("apt-get") is None:
        say(f"No apt-get here: the stages of {' and '.join(absent)} are left out; install them to run these")
        return
    command = [*_INSTALL, *absent]
    rights = _rights()
    if rights is None:
        say(f"Neither root nor sudo without a password: the stages are left out; run: sudo {' '.join(command)}")
        return
    for words in (["apt-get", "update"], command):
        if subprocess.run([*rights, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
            say(f"`{' '.join(words)}` failed: the stages of {' and '.join(absent)} are left out")
            return


def _rights() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    may = shutil.which("sudo") and not subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode
    return sudo if may else None


if __name__ == "__main__":
    main(sys.argv[1])
