"""Kill commands and let calls of the system fail, as often as is asked for, and write the figures into the docs."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- process figures: written by make fuzz -->", "<!-- end of process figures -->"
# Those that count what they do, and those that take too long for `make test`.
_CHOSEN = "every_kind or at_any_call or slow"


def main():
    parser = argparse.ArgumentParser(prog="fuzz.processes", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="of all commands together")
    parser.add_argument("--errors", type=int, default=800, help="of all commands together")
    parser.add_argument("--figures", type=Path, help="of a run that was made already")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/reliability.md")
    options = parser.parse_args()
    code, path = 0, options.figures
    if path is None:
        path = Path(tempfile.mkstemp(suffix=".jsonl")[1])
        asked = {"KILLS": options.kills, "ERRORS": options.errors, "FIGURES": path}
        words = [sys.executable, "-m", "pytest", "-n", "2", "-q", "tests/test_faults.py", "-m", "", "-k", _CHOSEN]
        changes = {f"CRYOBRIDGE_TEST_{key}": str(value) for key, value in asked.items()}
        code = subprocess.run(words, cwd=_ROOT, env=os.environ | changes, check=False).returncode
    table = figures_table([json.loads(line) for line in path.read_text().splitlines()])
    sys.stdout.write(table)
    if options.write:
        write_table(table)
    return code


def figures_table(figures):
    """Return what was injected, how often, and what was lost, as a table."""
    counts = {}
    for item in figures:
        counts.setdefault(item["what"], Counter()).update(
            {key: int(value) for key, value in item.items() if key not in {"what", "case"}}
        )
    lines = ["| what was injected | how often | what was lost |", "|---|--:|---|"]
    if kills := counts.pop("kills", None):
        lost = f"{kills['partial']} partial files, {kills['blocked']} blocked runs, {kills['differing']} other bytes"
        text = (
            f"SIGKILL, SIGTERM, SIGHUP or SIGINT at a moment of chance ({kills['ended before']:,} more came too late)"
        )
        lines.append(f"| {text} | {kills['kills']:,} | {lost} after recovery |")
    for what, count in sorted(counts.items()):
        kind = what.removeprefix("errors: ")
        text = f"an error of the system at a {kind}, of which {count['told']:,} ended the run with a message"
        lines.append(f"| {text} | {count['errors']:,} | {count['lost']} silent losses |")
    return "\n".join(lines) + "\n"


def write_table(table):
    page = _PAGE.read_text(encoding="utf-8")
    begin, end = page.index(_BEGIN) + len(_BEGIN), page.index(_END)
    _PAGE.write_text(f"{page[:begin]}\n{table}{page[end:]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
