"""What cryobridge converge and inspect say of jobs that RELION ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cryobridge as cb
from interop.relion import is_installed, read_star
from interop.relion_jobs import class_2d, continue_2d, noisy_particles, refine_3d

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.jobs.converge.report import ConvergeReport
    from interop.checks import Checks
    from interop.relion import Relion

# Particles that many classes share are no fault of a job; these say how a job was run, or that something is amiss.
_USUAL = {"distribution-differs"}


def check_class_2d(checks: Checks, relion: Relion) -> None:
    """Read a Class2D job of RELION's pipeliner, which was continued."""
    checks.section("cryobridge converge: Class2D through relion_pipeliner, continued from iteration 6")
    job = class_2d(relion, noisy_particles(relion).star)
    continue_2d(relion, job, 6, n_iterations=9)
    folder = relion.folder / job
    report = cb.converge(folder, relion.folder / "converge", plots=False)
    rows = report.iterations
    checks.equal("iterations", [row.iteration for row in rows], list(range(1, 10)))
    runs = [row.source.name.split("_it")[0] for row in rows]
    checks.equal("the run that they are of", runs, ["run"] * 5 + ["run_ct6"] * 4)
    differences = [abs(row.changed_percent - _changed_percent(row.source)) for row in rows[1:]]
    checks.at_most("particles that changed class, and rlnChangesOptimalClasses", max(differences), 1e-3, "%")
    counts = [read_star(row.source)["particles"]["rlnClassNumber"] for row in rows]
    unlike = sum(
        {int(number): n for number, n in row.populations.items() if n} != classes.value_counts().to_dict()
        for row, classes in zip(rows, counts, strict=True)
    )
    checks.same_rows("iterations with other populations than their STAR files", unlike, len(rows))
    _check_messages(checks, report, folder, "success")


def check_refine_3d(checks: Checks, relion: Relion) -> None:
    """Read a Refine3D job that was run by hand."""
    checks.section("cryobridge converge: Refine3D by mpirun")
    if not is_installed("mpirun"):
        checks.note("Left out: mpirun is not installed.")
        return
    small = noisy_particles(relion, n_images=64, box_px=24, noise=10.0)
    job = refine_3d(relion, small.star, small)
    folder = relion.folder / job
    report = cb.converge(folder, relion.folder / "converge", plots=False)
    checks.equal("converged", report.verdict.converged, True)
    final = read_star(folder / "run_model.star")["model_general"]["rlnCurrentResolution"].iloc[0]
    checks.equal("the final resolution is shown", f"{final:.2f} Å" in report.verdict.reason, True)
    _check_messages(checks, report, folder, "success")


STAGES = (check_class_2d,)
LONG_STAGES = (check_refine_3d,)


def _changed_percent(data: Path) -> float:
    """Return what RELION says of the iteration of a data file."""
    optimiser = data.with_name(data.name.replace("_data", "_optimiser"))
    return 100 * float(read_star(optimiser)["optimiser_general"]["rlnChangesOptimalClasses"].iloc[0])


def _check_messages(checks: Checks, report: ConvergeReport, folder: Path, status: str) -> None:
    """Check that a job of which all is well is read without warnings, and how inspect says that it ended."""
    seen = cb.inspect(folder)
    codes = {message.code for message in (*report.warnings, *seen.warnings)} - _USUAL
    checks.equal("warnings of converge and inspect", sorted(codes), [])
    checks.equal("cryobridge inspect: status", seen.to_json()["job"]["status"], status)
