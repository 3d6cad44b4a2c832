"""Write the completion scripts anew, from the command itself: `make completions`."""

from __future__ import annotations

from pathlib import Path

from cryobridge.cli.completion import completion_script

FILES = {"bash": "cryobridge.bash", "zsh": "_cryobridge", "fish": "cryobridge.fish"}


def main() -> None:
    """Write the three files beside this one."""
    for shell, name in FILES.items():
        Path(__file__).with_name(name).write_text(completion_script(shell), encoding="utf-8")


if __name__ == "__main__":
    main()
