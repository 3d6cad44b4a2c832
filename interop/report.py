"""The page of the last run."""

from __future__ import annotations

import platform
import textwrap
from typing import TYPE_CHECKING

from interop.files import CS, NEW_BOX, PARTICLES

if TYPE_CHECKING:
    from pathlib import Path

    from interop.checks import Checks
    from interop.programs import Programs

_PACKAGES = ("recovar", "cryodrgn", "jax", "torch", "numpy")
_INTRODUCTION = f"""\
# With the real programs

`make interop` installs RECOVAR and cryoDRGN into an environment of its own (`.interop/venv`) and takes {PARTICLES}
simulated particles of six micrographs through them, on a CPU. It is no part of `make test`. The last run wrote this
page.

From the refinement of a simulated cryoSPARC project come

- `{CS.rsplit("/", 1)[-1]}`, as it is;
- `particles.star`, by `cryobridge convert` from its `.csg`;
- `of_star/particles.cs`, by `cryobridge convert` from that STAR file;
- `mixed.cs`, the refinement with two optics groups, phase shifts, and shifts in pixels of cropped images, and STAR
  files of it in the layouts of RELION 3.1 and 3.0, by `cryobridge convert`;
- pickles of each of these, by `cryobridge convert --to pickles`;
- `small_star` and `small_cs`, by `cryobridge stacks downsample -D {NEW_BOX}` from the STAR file and from the `.cs`, and
  `small_parts`, some rows in half precision, spread over several stacks.

RECOVAR 1.0.5 asks for numpy >= 2.0, cryoDRGN 4.3 for numpy < 1.27 and torch < 2.10, so that their requirements can't
be met together: cryoDRGN is installed without its own, and runs on the newer versions. Both run without a GPU: the
pipeline with `--accept-cpu`, and the analysis with `--skip-centers`.
"""


def write_report(path: Path, checks: Checks, programs: Programs) -> None:
    """Write all checks as a page in Markdown."""
    versions = programs.versions(*_PACKAGES)
    n_failed = sum(not check.holds for check in checks.all)
    lines = [
        _INTRODUCTION,
        f"**{len(checks.all)} checks, {n_failed} failed.** Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
    ]
    for section in checks.sections:
        lines += ["", f"## {section.title}", "", "| | found | expected | |", "|---|---|---|---|"]
        lines += [
            f"| {check.what} | {check.found} | {check.tolerance} | {'ok' if check.holds else '**failed**'} |"
            for check in section.checks
        ]
        for note in section.notes:
            lines += ["", *textwrap.wrap(note, 120, break_long_words=False, break_on_hyphens=False)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
