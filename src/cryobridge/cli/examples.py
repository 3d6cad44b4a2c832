"""What stands at the end of each help page: commands to try in the demo project, and the page of the documentation."""

from __future__ import annotations

from pathlib import Path

_J4, _STAR = "cryosparc/J4", "relion/CtfFind/job003/micrographs_ctf.star"
_SMALL = f"stacks downsample {_J4} -D 48 -o small"
# By the words of a command: its page, and commands that run one after the other in the folder that `demo` makes.
EXAMPLES: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
    (): ("index.md", ("demo", "inspect --help")),
    ("inspect",): ("inspect.md", (f"inspect {_J4}", f"inspect {_J4} --check stacks --paths", "inspect relion -q")),
    ("micrographs",): (
        "micrographs.md",
        (
            "micrographs cryosparc/J2 -o relion/MotionCorr/job006 --flip-y",
            f"convert {_J4} --micrographs relion/MotionCorr/job006/micrographs_ctf.star --recenter"
            " -o relion/Import/polish.star",
        ),
    ),
    ("coords",): (
        "coords.md",
        (
            f"coords {_J4} {_STAR} -o relion/Picks",
            f"coords {_J4} {_STAR} -o relion/Picks --dry-run --check-orientation",
        ),
    ),
    ("convert",): (
        "convert.md",
        (
            f"convert {_J4} -o relion/Import/particles.star --verify",
            "convert relion/Class2D/job004 -o back/particles.cs --datadir relion",
            f"convert {_J4} -o pickles --to pickles",
        ),
    ),
    ("select",): (
        "select.md",
        (
            f"select {_J4} --where 'ctf/df1_A > 12000' -o cryosparc/thick.cs",
            "select relion/Class2D/job004 --class 1,2 -o relion/good.star",
            f"select {_J4} --like relion/good.star -o cryosparc/good.cs",
        ),
    ),
    ("merge",): (
        "merge.md",
        (
            f"select {_J4} --where 'ctf/df1_A > 12000' -o cryosparc/thick.cs",
            f"select {_J4} --where 'ctf/df1_A <= 12000' -o cryosparc/thin.cs",
            "merge cryosparc/thick.cs cryosparc/thin.cs -o cryosparc/all.cs",
        ),
    ),
    ("converge",): (
        "converge.md",
        ("converge relion/Class2D/job004", "converge relion/Class2D/job004 --dry-run --json"),
    ),
    ("demo",): ("demo.md", ("demo", "demo trial --json")),
    ("stacks",): ("stacks.md", (f"stacks cs {_J4} -o fourier", _SMALL)),
    ("stacks", "grid"): (
        "stacks.md",
        (
            "stacks grid --n-pixels 96 --pixel-size 1.5 -o params.npz",
            f"stacks cs {_J4} -p params.npz -o fourier",
        ),
    ),
    ("stacks", "paired"): (
        "stacks.md",
        (_SMALL, "stacks paired --pair small/particles.48.star small/particles.48.mrcs -o pairs"),
    ),
    ("stacks", "star"): (
        "stacks.md",
        (
            "stacks star relion/Extract/job005/particles.star -o fourier",
            "stacks star relion/Extract/job005/particles.star --datadir relion -o fourier --resume",
        ),
    ),
    ("stacks", "cs"): (
        "stacks.md",
        (f"stacks cs {_J4} -o fourier", f"stacks cs {_J4} -o fourier --resume", "inspect fourier"),
    ),
    ("stacks", "job"): ("stacks.md", ("stacks job . J12 -o fourier", "stacks job . J12 -o fourier --resume")),
    ("stacks", "downsample"): ("downsample.md", (_SMALL, "inspect small/particles.48.star")),
}

# Those that make the demo project, or are for jobs that it has not.
ELSEWHERE = {(), ("demo",), ("stacks", "job")}


def end_of_help(words: tuple[str, ...]) -> str:
    """Return the end of the help of a command.

    Parameters
    ----------
    words
        The words of the command.
    """
    if words not in EXAMPLES:
        return ""
    page, commands = EXAMPLES[words]
    where = "" if words in ELSEWHERE else ", in the folder that `cryobridge demo` makes"
    lines = [line for command in commands for line in _lines(f"cryobridge {command}")]
    return "\n".join([f" Examples{where}:", *lines, "", f" More in {page_path(page)}", ""])


def page_path(name: str) -> Path:
    """Return where a page of the documentation lies: in the package where it is installed, else in the source tree.

    Parameters
    ----------
    name
        Of the page, such as ``"coords.md"``.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "docs" / name, package.parents[1] / "docs" / name)
    return next((path for path in places if path.is_file()), Path("docs", name))


def _lines(command: str) -> list[str]:
    """Return a command in lines of at most 78 characters that a shell takes as one."""
    lines = ["  "]
    for word in command.split(" "):
        if len(lines[-1]) + len(word) > 75:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {word}"
    return lines
