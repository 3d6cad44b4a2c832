"""Run everything and write the page: ``python -m interop --programs VENV/bin --work FOLDER --report FILE.md``.

Exit code 0 if all checks hold, else 1.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from interop import files, images, metadata, results
from interop.checks import Checks, say
from interop.programs import ProgramFailedError, Programs
from interop.report import write_report

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Run the stages one after another; one that fails is told, and the next ones run where they can."""
    parser = argparse.ArgumentParser(prog="python -m interop", description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="folder of recovar, cryodrgn and their python")
    parser.add_argument("--work", type=Path, required=True, help="folder for all files; what is there is removed")
    parser.add_argument("--report", type=Path, required=True, help="page to write")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    programs = Programs(Path(sys.executable).parent, arguments.programs.absolute(), arguments.work.absolute())
    checks = Checks()
    start = time.monotonic()
    simulated = files.simulate(programs.folder)
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
        _attempt(checks, stage, programs.folder)
    write_report(arguments.report, checks, programs)
    n_failed = sum(not check.holds for check in checks.all)
    say(f"\n{len(checks.all)} checks, {n_failed} failed; {(time.monotonic() - start) / 60:.1f} min; {arguments.report}")
    return 1 if n_failed else 0


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
