"""Make the examples and the screens in the documentation from real runs on the demo project.

    python docs/make_examples.py            # write them anew
    python docs/make_examples.py --check    # say which are stale, and exit with 1

In a page, an example is a fenced block of the language `console`: every line that begins with `$ ` is a command, and
what follows is its output in a terminal of 80 columns. The commands of a page run one after the other in a fresh copy
of the project, so that a later one finds what an earlier one wrote. A screen is the same as a picture, with colours.
In the project lies a result of RECOVAR too, which is simulated.
"""

from __future__ import annotations

import argparse
import difflib
import fcntl
import io
import math
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from xml.etree import ElementTree

from recovar_result import simulate_result
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from cryobridge.demo import simulate_project

DOCS = Path(__file__).resolve().parent
PROJECT = "cryobridge-demo"
COLUMNS, SCREEN_COLUMNS = 80, 100
PARTICLES = "cryosparc/J4/J4_003_particles.cs"
SCREENS = {
    "inspect": f"cryobridge inspect {PARTICLES}",
    "coords": f"cryobridge coords {PARTICLES} relion/CtfFind/job003/micrographs_ctf.star -o relion/Picking"
    " --check-orientation",
    "convert": "cryobridge convert cryosparc/J4 -o relion/Import/centred.star --recenter \\\n"
    "    --micrographs relion/CtfFind/job003/micrographs_ctf.star --verify",
    "select": f"cryobridge select {PARTICLES} --where 'ctf/df1_A > 12000' -o cryosparc/thick.cs",
    "stacks": f"cryobridge stacks cs {PARTICLES} -o fourier",
    "downsample": f"cryobridge stacks downsample {PARTICLES} -D 48 -o small",
    "converge": "cryobridge converge relion/Class2D/job004",
}
_BLOCK = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)")
# A picture in a page loads no other file, so that the fonts which Rich names on a server would never come.
_FONT_FILES = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
# What cryobridge prints as the next thing to do: it is output, and these programs need not be here.
_TO_DO_NEXT = ("$ recovar ", "$ cryodrgn ")
# Numbers that arise from rounding differ between processors; others agree to the digits that are shown.
_ROUNDING, _RELATIVE = 1e-4, 0.02


def simulate(folder: Path) -> Path:
    """Make the demo project, in which the commands run, and return its folder."""
    project = folder / PROJECT
    n_particles = len(simulate_project(project).truth.particles)
    simulate_result(project / "small_recovar", "small/particles.48.star", n_particles)
    return project


def run_in_terminal(command: str, folder: Path, columns: int) -> list[str]:
    """Run a command of the shell in a terminal and return the lines that stand there in the end, with their styles."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    outside = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONIOENCODING"}
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux: the other end was closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    process.wait()
    lines = final_lines(written.decode())
    if any(str(folder) in line for line in lines):
        raise SystemExit(f"the output of `{command}` names the folder that it was run in")
    return lines


def final_lines(written: str) -> list[str]:
    """Return the lines that stand on a terminal in the end; progress bars come and go."""
    lines, row, at_start = [""], 0, False
    for piece in _CONTROL.split(written):
        if piece == "\n":
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif piece == "\r":
            at_start = True
            continue
        elif piece.endswith("A") and piece.startswith("\x1b["):
            row = max(0, row - int(piece[2:-1] or 1))
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece and (_STYLE.fullmatch(piece) or not piece.startswith("\x1b")):
            lines[row] = piece if at_start else lines[row] + piece
        at_start = False if piece else at_start
    while lines and not _STYLE.sub("", lines[-1]).strip():
        lines.pop()
    return lines


def _fresh(project: Path, folder: str) -> Path:
    """Copy the project, so that runs for one page are not in the way of those for another."""
    copy = Path(folder) / PROJECT
    shutil.copytree(project, copy)
    return copy


def pages() -> list[Path]:
    """Return the pages that have examples."""
    return [path for path in sorted(DOCS.glob("*.md")) if _BLOCK.search(path.read_text(encoding="utf-8"))]


def remade(page: Path, project: Path) -> str:
    """Return a page with the output of its commands as it is now."""
    with tempfile.TemporaryDirectory() as folder:
        place = _fresh(project, folder)
        return _BLOCK.sub(lambda block: _answered(block[0], place), page.read_text(encoding="utf-8"))


def commands(page: str) -> list[str]:
    """Return the commands of a page, without the sign before them."""
    return [command[2:] for block in _BLOCK.findall(page) for command in _commands(block)]


def _commands(block: str) -> list[str]:
    commands: list[str] = []
    continues = False
    for line in block.splitlines():
        if continues:
            commands[-1] += f"\n{line}"
        elif line.startswith("$ ") and not line.startswith(_TO_DO_NEXT):
            commands.append(line)
        else:
            continue
        continues = line.endswith("\\")
    return commands


def _answered(block: str, folder: Path) -> str:
    """Return the commands of an example with their output."""
    answered = []
    for command in _commands(block):
        output = [_STYLE.sub("", line).rstrip() for line in run_in_terminal(command[2:], folder, COLUMNS)]
        answered += [command, *output]
    return "\n".join(answered) + "\n"


def screen(name: str, project: Path) -> str:
    """Return a picture of what a command shows."""
    command = SCREENS[name]
    with tempfile.TemporaryDirectory() as folder:
        lines = run_in_terminal(command, _fresh(project, folder), SCREEN_COLUMNS)
    console = Console(record=True, width=SCREEN_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="256")
    console.print(Text(f"$ {command}", style="bold"), highlight=False)
    for line in lines:
        console.print(Text.from_ansi(line), highlight=False, no_wrap=True, crop=False)
    console.print()  # else the underscores of the last line are cut off
    picture = console.export_svg(title=f"cryobridge {name}", theme=MONOKAI, unique_id=f"cryobridge-{name}")
    picture = _FONT_FILES.sub("", picture)
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


def picture_text(svg: str) -> str:
    """Return the text in a picture, in its order."""
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return "\n".join("".join(text.itertext()).replace("\N{NO-BREAK SPACE}", " ").strip() for text in texts)


def same(written: str, now: str) -> bool:
    """Whether two texts agree: words to the letter, numbers but for what rounding makes of them."""
    ours, theirs = (_NUMBER.findall(text) for text in (written, now))
    words, others = (_NUMBER.sub("0", text).split() for text in (written, now))
    return (
        words == others and len(ours) == len(theirs) and all(_close(*pair) for pair in zip(ours, theirs, strict=True))
    )


def _close(one: str, other: str) -> bool:
    a, b = (float(text.replace(",", "").replace("−", "-")) for text in (one, other))
    return math.isclose(a, b, rel_tol=_RELATIVE, abs_tol=_ROUNDING)


def difference(written: str, now: str) -> str:
    """Return the lines in which two texts differ."""
    return "\n".join(difflib.unified_diff(written.splitlines(), now.splitlines(), "written", "now", lineterm="", n=0))


def main() -> None:
    """Write all examples and screens, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = False
    with tempfile.TemporaryDirectory() as folder:
        project = simulate(Path(folder))
        made = {page: remade(page, project) for page in pages()}
        made |= {DOCS / "screens" / f"{name}.svg": screen(name, project) for name in SCREENS}
    for path, now in made.items():
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        text = picture_text if path.suffix == ".svg" else str
        if before and same(text(before), text(now)):
            continue
        stale = True
        print(f"{path.relative_to(DOCS.parent)} is stale" if check else f"wrote {path.relative_to(DOCS.parent)}")
        if check:
            print(difference(text(before), text(now)) if before else "it is not there")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(now, encoding="utf-8")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
