"""`cryobridge demo`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.common import OverwriteOption
from cryobridge.cli.terminal import progress, show, show_command, show_report

if TYPE_CHECKING:
    from typer._click.core import Command


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")] = Path("cryobridge-demo"),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the simulation.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Simulate a small project and take it through all the commands."""
    from cryobridge.demo import simulate_project

    with progress() as reporter:
        project = simulate_project(folder, seed=seed, overwrite=overwrite, report=reporter)
    run = partial(_run, context.find_root().command)
    particles_cs, particles_star = project.particles_cs, project.relion / "particles.star"
    picks, thick_star = project.relion / "picks", project.relion / "thick.star"

    run("inspect", "--paths", particles_cs)
    run("coords", particles_cs, project.micrographs_star, "-o", picks, "--check-orientation", "--preview", "1")
    links = project.relion / "Extract"
    run("convert", particles_cs, "-o", particles_star, "--link-stacks", links, "--verify")
    run("select", particles_star, "--where", "rlnDefocusU > 12000", "-o", thick_star)
    run("select", particles_cs, "--like", thick_star, "-o", folder / "thick.cs")
    run("stacks", "cs", particles_cs, "-o", folder / "stacks")
    run("stacks", "downsample", particles_cs, "-D", "48", "-o", folder / "downsampled")
    run("converge", project.classification)

    show("")
    show_report(
        "Where to look",
        [
            ("cryoSPARC project", str(project.cryosparc)),
            ("RELION project", str(project.relion)),
            ("picks for RELION", str(picks / "autopick.star")),
            ("particles for RELION", str(particles_star)),
            ("Fourier stacks", str(folder / "stacks" / "fft")),
            ("pictures", f"{picks / 'preview'}, {folder / 'stacks' / 'plots'}, {project.classification}"),
            ("next", f"cryobridge inspect {folder / 'stacks'}"),
        ],
    )


def _run(app: Command, *words: str | Path) -> None:
    """Show a command as it is typed, and run it."""
    arguments = [str(word) for word in words]
    show("")
    show_command(["cryobridge", *arguments])
    app.main(arguments, standalone_mode=False)
