"""Run the real programs on our files and write the page.

RECOVAR and cryoDRGN (``--programs VENV/bin``), then RELION, where it is installed, then packages for methods
(``--packages VENV/bin``), which RELION judges; ``--only relion`` for one of them, whose part of the page is written
anew; ``--only slurm`` for SLURM, which is not among the others. Exit code 0 if all checks hold, else 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from interop import adaptors, batch_jobs, files, images, metadata, relion_stages, results, slurm
from interop.checks import Checks, say
from interop.programs import ProgramFailedError, Programs
from interop.relion import Relion, is_installed
from interop.report import ADAPTORS, PYTHON, RELION, SLURM, write_part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from interop.report import Part


def main() -> int:
    """Run the stages one after another; one that fails is told, and the next ones run where they can."""
    parser = argparse.ArgumentParser(prog="python -m interop", description=__doc__)
    parser.add_argument("--programs", type=Path, help="folder of recovar, cryodrgn and their python")
    parser.add_argument("--packages", type=Path, help="folder of the python that has the packages for methods")
    parser.add_argument("--work", type=Path, required=True, help="folder for all files; what is there is removed")
    parser.add_argument("--report", type=Path, required=True, help="page to write")
    parser.add_argument("--only", choices=["python", "relion", "adaptors", "slurm"], help="one part")
    arguments = parser.parse_args()
    page, work = arguments.report.absolute(), arguments.work.absolute()
    shutil.rmtree(arguments.work, ignore_errors=True)
    n_failed = 0
    if arguments.only == "slurm":
        if not slurm.is_installed():
            say("\nSLURM is not installed: nothing is run, and its part of the page stays as it is")
            return 1
        return 1 if _run(page, SLURM, lambda checks: _run_slurm(checks, work)) else 0
    parts = (arguments.only,) if arguments.only else ("python", "relion", "adaptors")
    if arguments.programs is None and ("python" in parts or "adaptors" in parts):
        parser.error("RECOVAR and cryoDRGN need --programs")
    if arguments.packages is None and "adaptors" in parts:
        parser.error("packages for methods need --packages")
    if "python" in parts:
        n_failed += _run(page, PYTHON, lambda checks: _run_python(checks, work, arguments.programs.absolute()))
    of_relion: dict[str, tuple[Part, Callable[[Checks], Mapping[str, str]]]] = {
        "relion": (RELION, lambda checks: _run_relion(checks, work)),
        "adaptors": (
            ADAPTORS,
            lambda checks: _run_adaptors(checks, work, arguments.programs.absolute(), arguments.packages.absolute()),
        ),
    }
    for name, (part, run) in of_relion.items():
        if name not in parts:
            continue
        if is_installed():
            n_failed += _run(page, part, run)
        else:
            say(f"\nRELION is not installed: {part.title} is left out, and that part of the page stays as it is")
            n_failed += arguments.only == name
    return 1 if n_failed else 0


def _run(page: Path, part: Part, run: Callable[[Checks], Mapping[str, str]]) -> int:
    """Run the stages of a part, write it, and return how many checks failed."""
    checks = Checks()
    start = time.monotonic()
    versions = run(checks)
    write_part(page, part, checks, versions)
    n_failed = sum(not check.holds for check in checks.all)
    minutes = (time.monotonic() - start) / 60
    say(f"\n{part.title}: {len(checks.all)} checks, {n_failed} failed; {minutes:.1f} min; {page}")
    return n_failed


def _run_python(checks: Checks, work: Path, others: Path) -> Mapping[str, str]:
    folder = _made(work / "python")
    programs = Programs(Path(sys.executable).parent, others, folder)
    simulated = files.simulate(folder)
    mixed_ctf = files.write_mixed(simulated)
    printed: list[str] = []
    for stage in (
        lambda: files.convert(checks, programs, simulated),
        lambda: metadata.check(checks, programs, simulated, mixed_ctf),
        lambda: images.check_loaders(checks, programs, simulated),
        lambda: printed.extend(images.check_downsampled(checks, programs, simulated)),
        lambda: images.check_reconstruction(checks, programs, simulated),
        lambda: results.run_recovar(checks, programs, simulated, printed),
        lambda: results.check_inspect(checks, programs),
        lambda: results.check_select(checks, programs, simulated),
    ):
        _attempt(checks, stage, folder)
    return programs.versions("recovar", "cryodrgn", "jax", "torch", "numpy")


def _run_relion(checks: Checks, work: Path) -> Mapping[str, str]:
    for stage in (*relion_stages.SHORT, *relion_stages.LONG):
        folder = _made(work / stage.__name__.removeprefix("check_"))
        os.chdir(folder)
        relion = Relion(folder, n_gridding=10)
        _attempt(checks, partial(stage, checks, relion), folder)
    return {"RELION": Relion(work).version()}


def _run_adaptors(checks: Checks, work: Path, others: Path, packages: Path) -> Mapping[str, str]:
    folder = _made(work / "adaptors")
    os.chdir(folder)
    programs, relion = Programs(Path(sys.executable).parent, others, folder), Relion(folder)
    _attempt(checks, lambda: adaptors.check(checks, relion, programs, packages / "python"), folder)
    own = Programs(Path(sys.executable).parent, packages, folder)
    names = ("torch-ctf", "torch-fourier-slice", "torch-fourier-shift", "cryospax", "cryojax", "aspire")
    versions = own.versions(*names, "cryosparc-tools", "torch", "jax", "numpy")
    return versions | programs.versions("recovar", "cryodrgn") | {"RELION": relion.version()}


def _run_slurm(checks: Checks, work: Path) -> Mapping[str, str]:
    folder = _made(work / "slurm")
    _made(folder / batch_jobs.FOLDER)
    with slurm.Slurm(folder) as running:
        batch_jobs.prepare(running)
        for stage in batch_jobs.STAGES:
            _attempt(checks, partial(stage, checks, running), folder)
        return {"SLURM": running.version()}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _attempt(checks: Checks, stage: Callable[[], None], folder: Path) -> None:
    try:
        stage()
    except ProgramFailedError as error:
        checks.stopped(str(error).splitlines()[0])
        say(str(error))
    except (OSError, KeyError, ValueError, IndexError) as error:
        # The page is for everybody: no folder of this machine.
        checks.stopped(f"{type(error).__name__}: {error}".replace(f"{folder}/", ""))


if __name__ == "__main__":
    sys.exit(main())
