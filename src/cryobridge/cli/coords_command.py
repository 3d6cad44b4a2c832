"""`cryobridge coords`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryobridge.cli.common import DryRunOption, FlipXOption, FlipYOption, JsonOption, OverwriteOption, SwapXYOption
from cryobridge.cli.terminal import ask, note, print_json, progress, show, show_aside, show_report, warn, working
from cryobridge.errors import CryobridgeError, UsageError

if TYPE_CHECKING:
    from cryobridge.jobs.coords.orientation import OrientationCheck
    from cryobridge.jobs.coords.plan import CoordsPlan

EXIT_ORIENTATION_DIFFERS = 3


class OnUnmatched(str, Enum):
    """What to do with micrographs that the STAR file lacks."""

    error = "error"
    skip = "skip"


def coords(
    picks: Annotated[
        Path | None,
        typer.Argument(
            metavar="PICKS.cs", help="cryoSPARC picks or particles: .cs, .csg or job folder.", show_default=False
        ),
    ] = None,
    micrographs: Annotated[
        Path | None,
        typer.Argument(metavar="MICROGRAPHS_CTF.star", help="RELION's micrographs, after CtfFind.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where the picks go.", show_default="the current folder"),
    ] = None,
    passthrough: Annotated[
        Path | None, typer.Option(metavar="FILE.cs", help="The file with location/*, if not found.", show_default=False)
    ] = None,
    flip_x: FlipXOption = False,
    flip_y: FlipYOption = False,
    swap_xy: SwapXYOption = False,
    subpixel: Annotated[bool, typer.Option("--subpixel", help="Keep fractions of a pixel.")] = False,
    no_nudge: Annotated[
        bool, typer.Option("--no-nudge", help="Without names, take the two floats right after the shape.")
    ] = False,
    xy_fields: Annotated[
        str | None, typer.Option(metavar="X,Y", help="The columns of the two fractions.", show_default=False)
    ] = None,
    picks_only: Annotated[
        bool, typer.Option("--picks-only", help="Leave out classes, angles and helical columns.")
    ] = False,
    drop_outside: Annotated[
        bool, typer.Option("--drop-outside", help="Leave out picks outside their micrograph.")
    ] = False,
    on_unmatched: Annotated[
        OnUnmatched, typer.Option(metavar="error|skip", help="What to do about micrographs that the STAR file lacks.")
    ] = OnUnmatched.error,
    relion_project: Annotated[
        Path | None, typer.Option(metavar="DIR", help="RELION's project, if not above -o.", show_default=False)
    ] = None,
    check_orientation: Annotated[
        bool, typer.Option("--check-orientation", help="Find the flips that fit RELION's micrographs.")
    ] = False,
    check_micrographs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Micrographs that the check looks at.")
    ] = 5,
    strict_orientation: Annotated[
        bool, typer.Option("--strict-orientation", help="Check, write nothing and exit with 3 if it disagrees.")
    ] = False,
    preview: Annotated[
        int, typer.Option(metavar="N", min=0, help="Draw N micrographs with the picks.", show_default=False)
    ] = 0,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Take inferred columns without asking.")] = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    old_cs: Annotated[Path | None, typer.Option("--cs", hidden=True)] = None,
    old_star: Annotated[Path | None, typer.Option("--star", hidden=True)] = None,
    old_flip_x: Annotated[bool, typer.Option("--flipx", hidden=True)] = False,
    old_flip_y: Annotated[bool, typer.Option("--flipy", hidden=True)] = False,
    old_swap_xy: Annotated[bool, typer.Option("--swapxy", hidden=True)] = False,
    old_no_nudge: Annotated[bool, typer.Option("--no_nudge", hidden=True)] = False,
) -> None:
    """Turn cryoSPARC picks into RELION coordinates."""
    picks_cs, micrographs_star = _inputs(picks or old_cs, micrographs or old_star)
    from cryobridge.jobs.coords.convert import write_coords
    from cryobridge.jobs.coords.plan import CoordsOptions, plan_coords
    from cryobridge.model.convention import Convention

    options = CoordsOptions(
        convention=Convention(flip_x or old_flip_x, not (flip_y or old_flip_y), swap_xy or old_swap_xy),
        passthrough=passthrough,
        nudge=not (no_nudge or old_no_nudge),
        xy_fields=_two_names(xy_fields),
        subpixel=subpixel,
        picks_only=picks_only,
        drop_outside=drop_outside,
        on_unmatched=on_unmatched.value,
        relion_project=relion_project,
    )
    with working("reading picks"):
        plan = plan_coords(picks_cs, micrographs_star, output or Path(), options)
    report = {**plan.report(), "dry_run": dry_run}
    _tell(plan)
    if output is None:
        _tell_current_folder()
    if plan.picks.fields.found_by == "content":
        _confirm_nudge(plan, yes=yes or dry_run)
    agrees = True
    if check_orientation or strict_orientation:
        agrees = _check(plan, check_micrographs, report, quiet=as_json)
    is_refused = strict_orientation and not agrees
    if is_refused:
        report["outputs"] = []
    elif plan.sizes.error:
        raise plan.sizes.error
    if preview:
        _find_micrographs(plan, preview)
    if not dry_run and not is_refused:
        replace = overwrite or _may_replace(plan)
        with progress() as reporter:
            reporter.start("writing pick files", None)
            write_coords(plan, overwrite=replace)
        if preview:
            report["previews"] = _preview(plan, preview)
    _show(report, as_json, "Not written" if is_refused else "Would write" if dry_run else "Picks for RELION")
    if is_refused:
        raise typer.Exit(EXIT_ORIENTATION_DIFFERS)


def _inputs(picks: Path | None, micrographs: Path | None) -> tuple[Path, Path]:
    if picks is None or micrographs is None:
        raise UsageError(
            "two files are needed: PICKS.cs and MICROGRAPHS_CTF.star",
            hint="cryobridge coords J12/J12_passthrough_particles.cs CtfFind/job003/micrographs_ctf.star -o OUT",
        )
    return picks, micrographs


def _two_names(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) != 2 or len(names) != 2:
        raise UsageError(
            f"--xy-fields {text}: two names are needed, with a comma between them",
            hint="--xy-fields location/center_x_frac,location/center_y_frac",
        )
    return names[0], names[1]


def _tell(plan: CoordsPlan) -> None:
    for sentence in plan.picks.notes:
        note(sentence)
    for sentence in plan.picks.warnings:
        warn(sentence)
    for reason, count in plan.left_out.items():
        warn(f"{count:,} picks are left out: {reason}")
    if plan.project is None:
        warn("no RELION project above the folder: paths in autopick.star are relative to the working directory")
    if plan.sizes.note:
        (warn if plan.sizes.is_warning else note)(plan.sizes.note)


def _tell_current_folder() -> None:
    from cryobridge.formats.folders import CRYOSPARC_JOB, identify_folder

    try:
        is_cryosparc = identify_folder(Path()) == CRYOSPARC_JOB
    except CryobridgeError:
        is_cryosparc = False
    if is_cryosparc:
        warn("without -o the picks go into the current folder, which is that of a cryoSPARC job")
    else:
        note("without -o the picks go into the current folder")


def _confirm_nudge(plan: CoordsPlan, *, yes: bool) -> None:
    from cryobridge.cli.coords_view import nudge_panel

    show_aside(nudge_panel(plan.picks.fields))
    if not yes and not ask("Take these columns?"):
        raise CryobridgeError(
            "the columns of the coordinates were inferred, and nobody said that they are right",
            path=plan.picks.source,
            hint="Answer the question in a terminal, give -y, or name the columns with --xy-fields X,Y.",
        )


def _may_replace(plan: CoordsPlan) -> bool:
    """Ask whether picks that are there may go; without a terminal the refusal follows from writing."""
    existing = plan.existing()
    return bool(existing) and ask(f"{plan.folder} holds {len(existing)} files of picks. Replace them?")


def _check(plan: CoordsPlan, n_micrographs: int, report: dict[str, Any], *, quiet: bool) -> bool:
    """Show the scores of the eight placements; return whether the chosen one is not contradicted."""
    from cryobridge.cli.coords_view import orientation_table
    from cryobridge.jobs.coords.micrographs import check_plan
    from cryobridge.model.convention import Convention

    with progress() as reporter:
        reporter.start("comparing with RELION's micrographs", None)
        check = check_plan(plan, n_micrographs)
    agrees = not check.is_sure or check.best == plan.options.convention
    report["orientation"] = _orientation_json(check, agrees)
    if not quiet:
        show(orientation_table(check, plan.options.convention))
    if not check.is_sure:
        warn("the images can't tell which orientation is right")
    elif not agrees:
        remedy = "leave the flips out" if check.best == Convention() else f"use {check.best.options}"
        warn(f"the micrographs fit {check.best.formula}: {remedy}")
    return agrees


def _orientation_json(check: OrientationCheck, agrees: bool) -> dict[str, Any]:
    return {
        "method": check.method,
        "best": check.best.formula if check.is_sure else None,
        "sigma": round(check.sigma, 2),
        "sure": check.is_sure,
        "agrees": agrees,
        "scores": [
            {
                "convention": score.convention.formula,
                "score": None if score.n_particles == 0 else round(score.score, 6),
                "particles": score.n_particles,
            }
            for score in check.scores
        ],
    }


def _find_micrographs(plan: CoordsPlan, n_micrographs: int) -> None:
    """See to it that what shall be drawn is there, before anything is written."""
    from cryobridge.jobs.coords.preview import preview_sources

    preview_sources(plan, n_micrographs)


def _preview(plan: CoordsPlan, n_micrographs: int) -> list[str]:
    from cryobridge.jobs.coords.preview import write_previews

    return [str(path) for path in write_previews(plan, n_micrographs)]


def _show(report: dict[str, Any], as_json: bool, title: str) -> None:
    if as_json:
        print_json(report)
        return
    facts = [
        ("particles", f"{report['particles_out']:,} of {report['particles_in']:,}"),
        ("micrographs", f"{report['micrographs']:,}"),
        ("coordinates", f"{report['convention']} ({report['convention_words']})"),
        ("columns", ", ".join(report["coordinate_fields"])),
        *_outputs(report),
        *(("preview", path) for path in report.get("previews", ())),
    ]
    if report["micrographs_unmatched"]:
        facts.insert(2, ("not in the STAR file", f"{len(report['micrographs_unmatched']):,} micrographs"))
    show_report(title, facts)


def _outputs(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows that name what was written, or would be; only what is there can be given to RELION."""
    names = ("list for Extract", "pick files") if report["dry_run"] else ("give to Extract", "pick files")
    return list(zip(names, report["outputs"], strict=False))
