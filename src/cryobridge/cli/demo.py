"""`cryobridge demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryobridge.cli.common import OverwriteOption
from cryobridge.cli.terminal import note, progress, show, show_command, show_report


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")] = Path("cryobridge-demo"),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the simulation.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Simulate a small project and take it through inspect, coords and stacks."""
    from cryobridge.cli.coords_view import orientation_table
    from cryobridge.cli.inspect_view import show_inspection
    from cryobridge.coords.convert import write_coords
    from cryobridge.coords.micrographs import check_plan
    from cryobridge.coords.plan import plan_coords
    from cryobridge.coords.preview import write_previews
    from cryobridge.demo import simulate_project
    from cryobridge.formats.cryosparc.particles import read_particles_cs
    from cryobridge.inspect import InspectOptions, inspect_path
    from cryobridge.paths import ImageSearch
    from cryobridge.stacks.convert import convert_stacks
    from cryobridge.stacks.inputs import indexed_input
    from cryobridge.stacks.options import StackOptions
    from cryobridge.stacks.plan import plan_stacks

    with progress() as reporter:
        project = simulate_project(folder, seed=seed, overwrite=overwrite, report=reporter)
    picks_folder, stacks_folder = project.relion / "picks", folder / "stacks"

    _step("inspect", "--paths", project.particles_cs)
    show_inspection(inspect_path(project.particles_cs, InspectOptions(check_paths=True)))

    _step("coords", project.particles_cs, project.micrographs_star, "-o", picks_folder, "--check-orientation")
    picks_plan = plan_coords(project.particles_cs, project.micrographs_star, picks_folder)
    show(orientation_table(check_plan(picks_plan, project.micrographs_star, 5), picks_plan.options.convention))
    picks = write_coords(picks_plan)
    preview = write_previews(picks_plan, project.micrographs_star, 1)[0]
    note(f"{picks['particles_out']} picks on {picks['micrographs']} micrographs")

    _step("stacks", "cs", project.particles_cs, "-o", stacks_folder)
    particles = read_particles_cs(project.particles_cs)
    plan = plan_stacks(indexed_input(particles, ImageSearch(project.particles_cs)), StackOptions())
    with progress() as reporter:
        made = convert_stacks(plan, stacks_folder, reporter=reporter)
    note(f"{made['images_out']} images in {made['stacks']} stack, {made['shells']} shells × {made['angles']} angles")

    show("")
    show_report(
        "Where to look",
        [
            ("cryoSPARC project", str(project.cryosparc)),
            ("RELION project", str(project.relion)),
            ("picks for RELION", picks["outputs"][0]),
            ("picture of picks", str(preview)),
            ("Fourier stacks", str(stacks_folder / "fft")),
            ("next", f"cryobridge inspect {stacks_folder}"),
        ],
    )


def _step(*words: str | Path) -> None:
    show("")
    show_command(["cryobridge", *map(str, words)])
