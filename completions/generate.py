"""Write the completion scripts anew, from the command itself: `make completions`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("cryobridge")
FILES = {"bash": "cryobridge.bash", "zsh": "_cryobridge", "fish": "cryobridge.fish"}
# zsh loads the file at the first Tab, which would go unanswered otherwise.
ZSH_FIRST_TAB = "\n[[ $funcstack[1] == _cryobridge ]] && _cryobridge_completion\n"


def script(shell: str) -> str:
    """Return the script for a shell; zsh looks for #compdef in the first line."""
    environment = {**os.environ, "_CRYOBRIDGE_COMPLETE": f"source_{shell}"}
    done = subprocess.run([COMMAND], env=environment, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"cryobridge has no completion for {shell}:\n{done.stderr}")
    return done.stdout.strip("\n") + "\n" + (ZSH_FIRST_TAB if shell == "zsh" else "")


def main() -> None:
    """Write the three files beside this one."""
    for shell, name in FILES.items():
        Path(__file__).with_name(name).write_text(script(shell), encoding="utf-8")


if __name__ == "__main__":
    main()
