"""Install RELION and Open MPI where apt and the rights for it are there; elsewhere say what is left out.

Never fails: RELION's stages are left out where RELION is not.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from interop.checks import say
from interop.relion import is_installed

_PACKAGES = {"relion_refine": "relion", "mpirun": "openmpi-bin"}
_INSTALL = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends"]


def main() -> None:
    """Install what is not there."""
    absent = [package for program, package in _PACKAGES.items() if not is_installed(program)]
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
    main()
