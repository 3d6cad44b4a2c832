"""`cryobridge demo`."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryobridge.cli.build import flag, takes_options
from cryobridge.cli.run import RunOptions
from cryobridge.cli.terminal import print_json, progress, settings, show, show_command, show_messages, show_report
from cryobridge.demo.options import DemoOptions
from cryobridge.demo.report import TourStep

if TYPE_CHECKING:
    from cryobridge.demo import DemoProject


@takes_options
def demo(
    context: typer.Context,
    options: DemoOptions,
    run: RunOptions,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")] = Path("cryobridge-demo"),
) -> None:
    """Simulate a small project and take it through all the commands."""
    from cryobridge.demo import plan_demo
    from cryobridge.jobs.job import executed

    with progress() as reporter:
        plan = plan_demo(folder, options)
        report = executed(plan, overwrite=run.overwrite, dry_run=run.dry_run, reporter=reporter)
    show_messages(report.messages)
    app = context.find_root().command
    tour = [] if report.dry_run else [[str(word) for word in words] for words in _tour(report.project)]
    if run.as_json:
        steps = tuple(TourStep(words=("cryobridge", *words), result=_result(app, words)) for words in tour)
        print_json(replace(report, commands=steps).to_json(flag))
    elif report.dry_run:
        show_report("Would simulate", [("particles", f"{report.rows_out:,}"), ("folder", str(folder))])
    else:
        _show_tour(app, tour, report.project)


def _show_tour(app: Any, tour: list[list[str]], project: DemoProject) -> None:
    with ExitStack() as stack:
        if settings.quiet:
            # The tour is one report, with the answers and warnings in it; errors are shown when it has ended.
            stack.enter_context(redirect_stdout(io.StringIO()))
            stack.enter_context(redirect_stderr(io.StringIO()))
        for words in tour:
            show("")
            show_command(["cryobridge", *words])
            app.main(words, standalone_mode=False)
        show("")
        show_report("Where to look", _places(project))


def _tour(project: DemoProject) -> list[list[str | Path]]:
    """Return the commands that the project is taken through, without their first word."""
    folder, relion = project.folder, project.relion
    particles_cs, particles_star, thick_star = project.particles_cs, relion / "particles.star", relion / "thick.star"
    picks: list[str | Path] = ["-o", relion / "picks", "--check-orientation", "--preview", "1"]
    return [
        ["inspect", "--paths", particles_cs],
        ["coords", particles_cs, project.micrographs_star, *picks],
        ["convert", particles_cs, "-o", particles_star, "--link-stacks", relion / "Extract", "--verify"],
        ["select", particles_star, "--where", "rlnDefocusU > 12000", "-o", thick_star],
        ["select", particles_cs, "--like", thick_star, "-o", folder / "thick.cs"],
        ["stacks", "cs", particles_cs, "-o", folder / "stacks"],
        ["stacks", "downsample", particles_cs, "-D", "48", "-o", folder / "downsampled"],
        ["converge", project.classification],
    ]


def _result(app: Any, words: list[str]) -> Any:
    """Run a command and return what it prints as JSON."""
    with redirect_stdout(io.StringIO()) as printed:
        app.main([*words, "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())


def _places(project: DemoProject) -> list[tuple[str, str]]:
    """Return where the results are."""
    folder, picks = project.folder, project.relion / "picks"
    return [
        ("cryoSPARC project", str(project.cryosparc)),
        ("RELION project", str(project.relion)),
        ("picks for RELION", str(picks / "autopick.star")),
        ("particles for RELION", str(project.relion / "particles.star")),
        ("Fourier stacks", str(folder / "stacks" / "fft")),
        ("pictures", f"{picks / 'preview'}, {folder / 'stacks' / 'plots'}, {project.classification}"),
        ("next", f"cryobridge inspect {folder / 'stacks'}"),
    ]
