"""`cryobridge coords`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.build import takes_options
from cryobridge.cli.common import output_option
from cryobridge.cli.run import RunOptions, run_job
from cryobridge.cli.terminal import PATIENCE_S, ask, ask_which, can_answer, progress, show, show_aside
from cryobridge.errors import CryobridgeError, UsageError, option
from cryobridge.jobs.coords.options import CoordsOptions
from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.jobs.coords.job import CoordsJob
    from cryobridge.jobs.coords.plan import CoordsPlan


@dataclass(frozen=True, kw_only=True)
class AskOptions(RunOptions):
    """The same for a command that asks before it takes columns that were inferred."""

    yes: Annotated[bool, Opt("Take columns that were inferred without asking.", flags=("-y", "--yes"), panel="Run")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class OldSpellings(Options):
    """reliosparc's command line."""

    old_picks: Annotated[Path | None, Opt(flags=("--cs",), is_hidden=True)] = None
    old_micrographs: Annotated[Path | None, Opt(flags=("--star",), is_hidden=True)] = None
    old_flip_x: Annotated[bool, Opt(flags=("--flipx",), is_hidden=True)] = False
    old_flip_y: Annotated[bool, Opt(flags=("--flipy",), is_hidden=True)] = False
    old_swap_xy: Annotated[bool, Opt(flags=("--swapxy",), is_hidden=True)] = False
    old_no_nudge: Annotated[bool, Opt(flags=("--no_nudge",), is_hidden=True)] = False

    def added_to(self, options: CoordsOptions) -> CoordsOptions:
        """Return the options with what these ask for."""
        return replace(
            options,
            flip_x=options.flip_x or self.old_flip_x,
            flip_y=options.flip_y or self.old_flip_y,
            swap_xy=options.swap_xy or self.old_swap_xy,
            nudge=options.nudge and not self.old_no_nudge,
            copy=options.copy or any(getattr(self, item.name) for item in fields(self)),
        )


@takes_options
def coords(
    options: CoordsOptions,
    run: AskOptions,
    old: OldSpellings,
    picks: Annotated[
        Path | None,
        typer.Argument(
            metavar="PICKS.cs", help="cryoSPARC picks or particles: .cs, .csg or job folder.", show_default=False
        ),
    ] = None,
    micrographs: Annotated[
        Path | None,
        typer.Argument(
            metavar="MICROGRAPHS_CTF.star",
            help="RELION's micrographs, with CTF: the output of CtfFind.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        output_option("DIR", "Folder for the picks.", default="the current folder"),
    ] = None,
) -> None:
    """Turn cryoSPARC picks into RELION coordinates."""
    inputs = _inputs(picks or old.old_picks, micrographs or old.old_micrographs)
    from cryobridge.cli.coords_view import facts
    from cryobridge.jobs.coords.job import prepare_coords

    def prepared(options: CoordsOptions) -> CoordsJob:
        with progress(PATIENCE_S) as reporter:
            # Who can answer is asked when all is known.
            may_exist = run.overwrite or run.dry_run or can_answer()
            return prepare_coords(*inputs, output, options, may_exist=may_exist, reporter=reporter)

    options = old.added_to(options)
    job = prepared(options)
    chosen = _chosen_columns(job.plan, yes=run.yes or run.dry_run)
    if chosen is not None:
        job = prepared(replace(options, xy_fields=chosen))
    titles = ("Not written",) * 2 if job.plan.is_refused else ("Picks for RELION", "Would write")
    run_job(lambda _: job, run, titles, facts, confirm=lambda: _confirmed(job, run))


def _inputs(picks: Path | None, micrographs: Path | None) -> tuple[Path, Path]:
    if picks is None or micrographs is None:
        raise UsageError(
            "two files are needed: PICKS.cs and MICROGRAPHS_CTF.star",
            hint=_as_typed(picks or Path("J12"), micrographs or Path("CtfFind/job003/micrographs_ctf.star")),
        )
    return picks, micrographs


def _as_typed(picks: Path, micrographs: Path) -> str:
    return f"`{shlex.join(['cryobridge', 'coords', str(picks), str(micrographs), '-o', 'OUT'])}`, for instance."


def _confirmed(job: CoordsJob, run: AskOptions) -> AskOptions:
    """Show what was checked, ask what has to be asked, and return the options with the answers."""
    from cryobridge.cli.coords_view import orientation_table

    plan = job.plan
    placement = plan.placement
    is_asked = plan.options.check_orientation or placement.is_contradicted
    if placement.check is not None and is_asked and not run.as_json:
        show(orientation_table(placement.check, placement.convention))
    return replace(run, overwrite=_may_replace(job, run))


def _chosen_columns(plan: CoordsPlan, *, yes: bool) -> tuple[str, str] | None:
    """Show columns that were inferred, and ask whether they are right; return others that are chosen in their place."""
    from cryobridge.cli.coords_view import columns_panel

    fields = plan.picks.fields
    if fields.found_by != "content":
        return None
    show_aside(columns_panel(fields))
    pairs = [fields, *fields.rivals]
    if yes:
        return None
    if len(pairs) == 1:
        number = 1 if ask("Take these columns?") else None
    else:
        number = ask_which("Which columns are x and y?", len(pairs))
    if number is None:
        raise CryobridgeError(
            "the columns of the coordinates were inferred, and nobody confirmed them",
            path=plan.picks.source,
            hint="Answer the question in a terminal, give -y, or name the columns, for example "
            f"{option('xy_fields', f'{fields.x},{fields.y}')}.",
        )
    return None if number == 1 else (pairs[number - 1].x, pairs[number - 1].y)


def _may_replace(job: CoordsJob, run: AskOptions) -> bool:
    """Whether picks that are there may be replaced, which is asked; without a terminal they may not."""
    if run.overwrite or run.dry_run:
        return True
    # What stands in the way in any case comes before the question.
    job.check(overwrite=True)
    plan = job.plan
    existing = [] if plan.is_refused else plan.existing()
    return bool(existing) and ask(f"{plan.folder} holds {counted(len(existing), 'file')} of picks. Replace them?")
