"""`cryobridge select`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryobridge.cli.common import DryRunOption, JsonOption, OverwriteOption
from cryobridge.cli.terminal import print_json, progress, show_report, tell, working
from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from cryobridge.jobs.selection.options import SelectOptions

_N_FILES_SHOWN = 12


def select(
    particles: Annotated[
        Path | None,
        typer.Argument(
            metavar="PARTICLES", help=".star, .cs, .csg or cryoSPARC job; not needed with --run.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write, .star or .cs.", show_default=False),
    ] = None,
    ind: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows, from 0: .pkl, .npy or .txt.", show_default=False),
    ] = None,
    kmeans: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels: kmeans_result.pkl, or a list of them.", show_default=False),
    ] = None,
    clusters: Annotated[
        list[str] | None, typer.Option(metavar="N,N", help="Labels to keep, from 0. Repeatable.", show_default=False)
    ] = None,
    class_numbers: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="N,N", help="Classes, as the program counts them. Repeatable.", show_default=False
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Particles that this .star or .cs has too.", show_default=False),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Sources of a downsampled set, if not found.", show_default=False),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="CONDITION", help="Such as 'rlnDefocusU > 12000'.", show_default=False),
    ] = None,
    random: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Draw N of those that are left.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the random numbers.")] = 0,
    invert: Annotated[bool, typer.Option("--invert", help="Keep the others.")] = False,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUNDIR", help="RECOVAR run: its particles, rows, clusters.", show_default=False),
    ] = None,
    zdim: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Latent dimension of the run.", show_default=False)
    ] = None,
    label_rows: Annotated[
        Path | None,
        typer.Option(metavar="IND", help="Rows that labels and coordinates belong to.", show_default=False),
    ] = None,
    attach_class: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write labels as classes; run: those of --run.", show_default=False),
    ] = None,
    attach_latent: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write coordinates; run: those of --run.", show_default=False),
    ] = None,
    split_by_class: Annotated[
        Path | None, typer.Option(metavar="DIR", help="One file a class, instead of -o.", show_default=False)
    ] = None,
    passthrough: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.cs", help="Joined with a .cs, if not found. Repeatable.", show_default=False),
    ] = None,
    no_passthrough: Annotated[bool, typer.Option("--no-passthrough", help="Take a .cs by itself.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Write a file without rows.")] = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a subset of a particle file, or attach classes and coordinates to it."""
    from cryobridge.cli.number_lists import parse_numbers
    from cryobridge.jobs.selection.options import SelectOptions
    from cryobridge.jobs.selection.plan import plan_select
    from cryobridge.jobs.selection.write import check_outputs, write_selection

    if passthrough and no_passthrough:
        raise UsageError("--passthrough and --no-passthrough contradict each other", hint="Leave out either.")
    options = SelectOptions(
        ind=ind,
        kmeans=kmeans,
        clusters=None if not clusters else parse_numbers(clusters, "--clusters"),
        classes=None if not class_numbers else parse_numbers(class_numbers, "--class"),
        like=like,
        sources=sources,
        where=where,
        random=random,
        seed=seed,
        invert=invert,
        run=run,
        zdim=zdim,
        label_rows=label_rows,
        attach_class=attach_class,
        attach_latent=attach_latent,
        passthroughs=tuple(passthrough or ()),
        join=not no_passthrough,
        allow_empty=allow_empty,
    )
    with working("reading"):
        plan = plan_select(particles, output, options, split_folder=split_by_class)
    check_outputs(plan, overwrite=overwrite)
    report = {**_request(options), **plan.report(), "dry_run": dry_run}
    if not dry_run:
        with progress() as reporter:
            write_selection(plan, overwrite=overwrite, reporter=reporter)
    _show(report, as_json, "Would write" if dry_run else "Selection")


def _request(options: SelectOptions) -> dict[str, Any]:
    """Return what a repetition needs to know of the random draw."""
    return {} if options.random is None else {"random": options.random, "seed": options.seed}


def _show(report: dict[str, Any], as_json: bool, title: str) -> None:
    tell(report)
    if as_json:
        print_json(report)
        return
    facts = [("particles", f"{report['particles_out']:,} of {report['particles_in']:,}")]
    facts += [("left out", f"{count:,} {reason}") for reason, count in report["left_out"].items()]
    if report["attached"]:
        facts.append(("attached", ", ".join(report["attached"])))
    files = report["files"]
    if len(files) == 1:
        facts += [("file", path) for path in report["outputs"]]
    else:
        shown = list(files.items())
        facts += [("file", f"{path}  {count:,}") for path, count in shown[:_N_FILES_SHOWN]]
        if len(shown) > _N_FILES_SHOWN:
            facts.append(("file", f"… and {len(shown) - _N_FILES_SHOWN} more"))
    show_report(title, facts)
