"""The page of the last run."""

from __future__ import annotations

import platform
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interop.files import CS, NEW_BOX, PARTICLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from interop.checks import Checks


@dataclass(frozen=True)
class Part:
    """A part of the page, which is written anew as a whole.

    Attributes
    ----------
    title
        Its heading.
    introduction
        What stands above its figures, in Markdown.
    target
        What ``make`` is told to write it.
    """

    title: str
    introduction: str
    target: str = "interop"

    @property
    def ends(self) -> tuple[str, str]:
        """The comments between which it stands on the page."""
        return f"<!-- {self.title}: written by make {self.target} -->", f"<!-- end of {self.title} -->"


PYTHON = Part(
    "RECOVAR and cryoDRGN",
    f"""\
`make interop` installs both into an environment of its own (`.interop/venv`) and takes {PARTICLES} simulated particles
of six micrographs through them, on a CPU.

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
""",
)
RELION = Part(
    "RELION",
    """\
`make interop` installs Debian's packages `relion` and `openmpi-bin` where apt and the rights for it are there;
elsewhere it says what is left out. The particles are simulated by RELION itself: a molecule of blobs, which
`relion_project` projects with random poses, shifts, defocus, astigmatism and phase shifts. `relion_reconstruct --ctf`
judges a conversion: on noise-free images the FSC to the reconstruction of the original is at least 0.999 at every shell
up to 0.85 of Nyquist, and the correlation with the simulated molecule is at most 0.001 lower.
""",
)
ADAPTORS = Part(
    "Packages for methods",
    """\
`make interop` installs torch-ctf, torch-fourier-slice and -shift, cryospax, ASPIRE and cryosparc-tools into one
environment (`.interop/adaptors`); RECOVAR, whose requirements clash with those of cryospax and ASPIRE, and cryoDRGN are
in the other one. RELION simulates particles of 128 px of 1.25 Å with random poses, shifts, defocus, astigmatism and
phase shifts; each package gets them by its function of [`cryobridge.adaptors`](methods.md#other-packages), and what it
computes is compared with `relion_project` of the same particles, and with `cb.ctf_images`. Phase shifts reach ASPIRE
through the amplitude contrast.
""",
)
SLURM = Part(
    "SLURM",
    """\
`make cluster` installs Debian's packages `slurm-wlm` and `munge` where apt and the rights for it are there, and starts
a SLURM of its own: two nodes on this machine, each with two CPUs and two GPUs that are stand-ins. Scripts that
`cryobridge stacks ... --print-slurm` prints are submitted in the demo project, whose particles become 300 stacks of one
image; the project's folder is called "a user's project". At the end SLURM is stopped and its files are removed.
""",
    "cluster",
)
_HEAD = """\
# With the real programs

`make interop` runs RECOVAR, cryoDRGN, RELION and packages for methods on our files, and `make interop ONLY=relion` (or
`ONLY=python`, `ONLY=adaptors`) a part; `make cluster` runs jobs of SLURM. They are no part of `make test`, which
runs RELION's short stages where RELION is installed. The last run of each part wrote it.
"""


def write_part(path: Path, part: Part, checks: Checks, versions: Mapping[str, str]) -> None:
    """Write the checks of a part into the page, in Markdown; the other parts stay as they are."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    written = [
        "\n".join(_lines(each, checks, versions)) if each is part else _between(page, *each.ends)
        for each in (PYTHON, RELION, ADAPTORS, SLURM)
    ]
    path.write_text("\n".join([_HEAD, *filter(None, written)]) + "\n", encoding="utf-8")


def _between(page: str, begin: str, end: str) -> str:
    inside = page.partition(begin)[2].partition(end)[0]
    return f"{begin}{inside}{end}\n" if inside else ""


def _lines(part: Part, checks: Checks, versions: Mapping[str, str]) -> Iterator[str]:
    begin, end = part.ends
    n_failed = sum(not check.holds for check in checks.all)
    programs = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield from (begin, f"## {part.title}", "", part.introduction)
    yield f"**{len(checks.all)} checks, {n_failed} failed.** Python {platform.python_version()}, {programs}."
    for section in checks.sections:
        yield from ("", f"### {section.title}", "", "| | found | expected | |", "|---|---|---|---|")
        for check in section.checks:
            yield f"| {check.what} | {check.found} | {check.tolerance} | {'ok' if check.holds else '**failed**'} |"
        for note in section.notes:
            yield from ("", *textwrap.wrap(note, 120, break_long_words=False, break_on_hyphens=False))
    yield from ("", end, "")
