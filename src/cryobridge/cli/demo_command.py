"""`cryobridge demo`."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryobridge.cli.common import JsonOption, OverwriteOption
from cryobridge.cli.terminal import note, print_json, progress, settings, show, show_command, show_report

if TYPE_CHECKING:
    from cryobridge.demo import DemoProject

_N_FILES_NAMED = 3


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")] = Path("cryobridge-demo"),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the simulation.")] = 0,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate a small project and take it through all the commands."""
    from cryobridge.demo import simulate_project

    with progress() as reporter:
        project = simulate_project(folder, seed=seed, overwrite=overwrite, report=reporter)
    if project.kept:
        note(_say_kept(project))
    app = context.find_root().command
    tour = [[str(word) for word in words] for words in _tour(project)]
    if as_json:
        commands = [{"words": ["cryobridge", *words], "result": _result(app, words)} for words in tour]
        print_json({"output": str(folder), "seed": seed, "commands": commands})
        return
    with ExitStack() as stack:
        if settings.quiet:
            # The tour is one report, with the answers and warnings in it; errors are told when it has ended.
            stack.enter_context(redirect_stdout(io.StringIO()))
            stack.enter_context(redirect_stderr(io.StringIO()))
        for words in tour:
            show("")
            show_command(["cryobridge", *words])
            app.main(words, standalone_mode=False)
        show("")
        show_report("Where to look", _places(project))


def _say_kept(project: DemoProject) -> str:
    names = [str(path.relative_to(project.folder)) for path in project.kept]
    more = " …" if len(names) > _N_FILES_NAMED else ""
    files = "1 file" if len(names) == 1 else f"{len(names):,} files"
    return f"kept {files} that the demo did not make: {', '.join(names[:_N_FILES_NAMED])}{more}"


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
