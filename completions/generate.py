"""Write the completion scripts anew, from the command itself: `make completions`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("cryobridge")
FILES = {"bash": "cryobridge.bash", "zsh": "_cryobridge", "fish": "cryobridge.fish"}


def script(shell: str) -> str:
    """Return the script for a shell."""
    environment = {**os.environ, "_CRYOBRIDGE_COMPLETE": f"source_{shell}"}
    done = subprocess.run([COMMAND], env=environment, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"cryobridge has no completion for {shell}:\n{done.stderr}")
    # zsh looks for #compdef in the first line.
    return done.stdout.strip("\n") + "\n"


def main() -> None:
    """Write the three files beside this one."""
    for shell, name in FILES.items():
        Path(__file__).with_name(name).write_text(script(shell), encoding="utf-8")


if __name__ == "__main__":
    main()
