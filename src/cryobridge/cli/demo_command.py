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
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.demo import DemoProject
    from cryobridge.demo.report import DemoReport, Loop
    from cryobridge.report import Message

_GOOD_CS = "good.cs"


@takes_options
def demo(
    context: typer.Context,
    options: DemoOptions,
    run: RunOptions,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")] = Path("cryobridge-demo"),
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
        print_json(_toured(app, tour, report).to_json(flag))
    elif report.dry_run:
        show_report("Would simulate", [("particles", f"{report.rows_out:,}"), ("folder", str(folder))])
    else:
        _show_tour(app, tour, report.project)


def _toured(app: Any, tour: list[list[str]], report: DemoReport) -> DemoReport:
    """Take the project through the commands and return the report with what they print as JSON."""
    from cryobridge.demo.loop import extract

    project, steps, messages = report.project, [], list(report.messages)
    for words in tour:
        if _is_of_relion(words):
            messages += extract(project)
            steps.append(TourStep(words=tuple(words), result=None, folder=project.relion))
        else:
            steps.append(TourStep(words=("cryobridge", *words), result=_result(app, words)))
    loop = _loop(project, tour, messages)
    return replace(report, commands=tuple(steps), messages=tuple(messages), loop=loop)


def _show_tour(app: Any, tour: list[list[str]], project: DemoProject) -> None:
    from cryobridge.demo.loop import extract

    messages: list[Message] = []
    with ExitStack() as stack:
        if settings.quiet:
            # The tour is one report, with the answers and warnings in it; errors are shown when it has ended.
            stack.enter_context(redirect_stdout(io.StringIO()))
            stack.enter_context(redirect_stderr(io.StringIO()))
        for words in tour:
            show("")
            if _is_of_relion(words):
                show_command(words, str(project.relion))
                messages = extract(project)
                show_messages(messages)
                if not messages:
                    n_particles = len(project.truth.particles)
                    facts = [("particles", f"{n_particles:,}"), ("file", str(project.extracted_star))]
                    show_report("Extracted by RELION", facts)
            else:
                show_command(["cryobridge", *words])
                app.main(words, standalone_mode=False)
        loop = _loop(project, tour, messages)
        if loop is not None:
            show("")
            show_report("From cryoSPARC to RELION and back", _facts(loop))
        show("")
        show_report("Where to look", _places(project))


def _is_of_relion(words: list[str]) -> bool:
    return words[0].startswith("relion_")


def _loop(project: DemoProject, tour: list[list[str]], messages: list[Message]) -> Loop | None:
    """Compare what came back to cryoSPARC with the truth; None where the tour has no such command."""
    from cryobridge.demo.loop import compare

    good_cs = project.folder / _GOOD_CS
    if not any(str(good_cs) in words for words in tour):
        return None
    has_failed = any(message.code == "relion-failed" for message in messages)
    return compare(project, good_cs, by_relion=any(map(_is_of_relion, tour)) and not has_failed)


def _facts(loop: Loop) -> list[tuple[str, str]]:
    extracted_by = "the simulation" if loop.extracted_by == "simulation" else f"RELION's {loop.extracted_by}"
    return [
        ("picked", f"{counted(loop.picked, 'particle')} in cryoSPARC"),
        ("extracted", f"by {extracted_by}"),
        ("came back", f"{loop.came_back:,} of good classes, with the uids that were simulated"),
    ]


def _tour(project: DemoProject) -> list[list[str | Path]]:
    """Return the commands that the project is taken through, without their first word."""
    from cryobridge.demo.loop import PICKS, extract_words, relion_is_installed
    from cryobridge.demo.truth import GOOD_CLASSES

    folder, relion = project.folder, project.relion
    particles_cs, particles_star, thick_star = project.particles_cs, relion / "particles.star", relion / "thick.star"
    picks: list[str | Path] = ["-o", relion / PICKS, "--check-orientation", "--preview", "1"]
    extraction: list[list[str | Path]] = [[*extract_words(project)]] if relion_is_installed() else []
    good_star, classes = relion / "good.star", ",".join(map(str, GOOD_CLASSES))
    return [
        ["inspect", "--paths", particles_cs],
        ["coords", particles_cs, project.micrographs_star, *picks],
        *extraction,
        ["select", project.classification, "--class", classes, "-o", good_star],
        ["select", particles_cs, "--like", good_star, "-o", folder / _GOOD_CS],
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
    from cryobridge.demo.loop import PICKS

    folder, picks = project.folder, project.relion / PICKS
    return [
        ("cryoSPARC project", str(project.cryosparc)),
        ("RELION project", str(project.relion)),
        ("picks for RELION", str(picks / "autopick.star")),
        ("particles for RELION", str(project.relion / "particles.star")),
        ("good classes", f"{project.relion / 'good.star'}, {folder / _GOOD_CS}"),
        ("Fourier stacks", str(folder / "stacks" / "fft")),
        ("pictures", f"{picks / 'preview'}, {folder / 'stacks' / 'plots'}, {project.classification}"),
        ("next", f"cryobridge inspect {folder / 'stacks'}"),
    ]
