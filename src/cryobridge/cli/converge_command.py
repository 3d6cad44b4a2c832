"""`cryobridge converge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.common import JsonOption, OverwriteOption
from cryobridge.cli.terminal import note, output_width, print_json, progress, show, warn
from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from cryobridge.jobs.converge.follow import Follower
    from cryobridge.jobs.converge.outputs import OutputFiles
    from cryobridge.jobs.converge.verdict import Rule
    from cryobridge.model.classification import History

EXIT_NOT_CONVERGED = 3


def converge(
    job: Annotated[Path, typer.Argument(metavar="JOBDIR", help="A job folder of RELION or cryoSPARC.")] = Path(),
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where the results go; else JOBDIR.", show_default=False),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Up to this iteration.", show_default=False)
    ] = None,
    total: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Up to this one of a job that was continued.", show_default=False),
    ] = None,
    threshold: Annotated[float, typer.Option(metavar="PERCENT", help="Changed particles must stay under this.")] = 1.0,
    stable: Annotated[int, typer.Option(metavar="N", min=1, help="For so many iterations.")] = 3,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the pictures.")] = True,
    legacy_names: Annotated[
        bool, typer.Option("--legacy-names", help="Call pictures converge_012.png, as for continued jobs.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one page with everything.", show_default=False)
    ] = None,
    volatile: Annotated[
        Path | None, typer.Option(metavar="FILE.star", help="Write the particles that jump.", show_default=False)
    ] = None,
    settled: Annotated[
        Path | None, typer.Option(metavar="FILE.star", help="Write the other particles.", show_default=False)
    ] = None,
    volatile_last: Annotated[int, typer.Option(metavar="K", min=1, help="Steps to look back for jumps.")] = 5,
    volatile_min: Annotated[int, typer.Option(metavar="M", min=1, help="Jumps that make a particle volatile.")] = 2,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job while it runs.")] = False,
    settle: Annotated[float, typer.Option(metavar="S", min=0, help="Seconds a new file must be still.")] = 5.0,
    timeout: Annotated[
        float | None, typer.Option(metavar="S", min=0, help="Stop watching after so many seconds.", show_default=False)
    ] = None,
    fail_if_not_converged: Annotated[
        bool, typer.Option("--fail-if-not-converged", help="Exit with 3 unless it has converged.")
    ] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a classification is converging."""
    limit = _limit(iterations, total)
    if timeout is not None and not watch:
        raise UsageError("--timeout is for --watch", hint="Add --watch, or leave --timeout out.")
    if not 0 < threshold <= 100:
        raise UsageError(
            f"--threshold {threshold:g}: between 0 and 100 % is needed", hint="Give a small number, such as 0.5."
        )
    if volatile_min > volatile_last:
        raise UsageError(
            f"--volatile-min {volatile_min}: a particle can't jump so often in {volatile_last} steps",
            hint="Give a larger --volatile-last.",
        )
    from cryobridge.formats.listing import list_folder
    from cryobridge.jobs.converge.follow import Follower
    from cryobridge.jobs.converge.outputs import OutputFiles
    from cryobridge.jobs.converge.verdict import Rule
    from cryobridge.jobs.output_folder import refuse_existing

    list_folder(job)
    refuse_existing([path for path in (html, volatile, settled) if path is not None], overwrite=overwrite)
    rule = Rule(threshold / 100, stable)
    outputs = OutputFiles(output or job, plots, legacy_names, html)
    follower = Follower(job, limit, settle)
    is_logged = False
    if watch:
        from cryobridge.cli.converge_watch import Watching, watch_job

        is_logged = watch_job(follower, outputs, rule, Watching(limit, settle, timeout, as_json))
    else:
        _read_all(follower, outputs, rule)
    history = follower.history(rule)
    if volatile is not None or settled is not None:
        _split(follower, history, (volatile, settled), (volatile_last, volatile_min), overwrite=overwrite)
    _tell(follower, history, limit, is_live=watch and not is_logged)
    if as_json:
        from cryobridge.jobs.converge.report import as_json as to_json

        print_json(to_json(history, follower.tracker.jumps(volatile_last)))
    else:
        _show(history, only_verdict=is_logged)
    if fail_if_not_converged and not history.verdict.converged:
        raise typer.Exit(EXIT_NOT_CONVERGED)


def _limit(iterations: int | None, total: int | None) -> int | None:
    """Return the last iteration; reliosparc asked for that of the first run and that of the continued one."""
    if iterations is not None and total is not None and total < iterations:
        raise UsageError(
            f"--total {total} is before --iterations {iterations}",
            hint="--total is the last iteration of all, that of the continued run included.",
        )
    return iterations if total is None else total


def _read_all(follower: Follower, outputs: OutputFiles, rule: Rule) -> None:
    """Read what is there and write the results."""
    from cryobridge.formats.listing import list_folder
    from cryobridge.jobs.converge.files import find_iterations, require_iterations

    with progress() as reporter:
        reporter.start("reading", len(find_iterations(list_folder(follower.tracker.folder)).iterations))
        for _ in follower.look(is_final=True):
            reporter.advance()
        if not follower.tracker.numbers:
            require_iterations(follower.files)
            raise next(iter(follower.errors.values()), _none_so_early(follower))
        outputs.write(follower.history(rule), follower.tracker.numbers, reporter)


def _none_so_early(follower: Follower) -> UsageError:
    first = follower.files.iterations[0].number
    return UsageError(f"the first iteration that is there is {first}", hint="Give a larger --iterations.")


def _split(
    follower: Follower,
    history: History,
    paths: tuple[Path | None, Path | None],
    window: tuple[int, int],
    *,
    overwrite: bool,
) -> None:
    """Write the particles that jump, and those that don't."""
    from cryobridge.jobs.converge.volatile import is_volatile, require_star, write_particles
    from cryobridge.jobs.output_folder import refuse_existing, remove_existing

    require_star(history)
    steps, least = window
    source, jumps = is_volatile(follower.tracker, steps, least)
    of_steps = min(steps, len(history.iterations) - 1)
    for path, chosen, what in (
        (paths[0], jumps, f"changed class in at least {least} of the last {of_steps} steps"),
        (paths[1], ~jumps, f"changed class in fewer than {least} of the last {of_steps} steps"),
    ):
        if path is None:
            continue
        refuse_existing([path], overwrite=overwrite)  # it may have appeared while the job was read
        if not chosen.any():
            remove_existing([path])
            warn(f"{path} is not written: no particle {what}")
            continue
        count = write_particles(source, chosen, path)
        note(f"{path}: {count:,} of {len(chosen):,} particles, those that {what}")


def _tell(follower: Follower, history: History, limit: int | None, *, is_live: bool) -> None:
    for message in history.messages:
        warn(f"{message}.")
    last = follower.tracker.last_iteration
    if limit is not None and last is not None and last.number < limit and not is_live:
        note(f"iterations after {last.number} are not there yet; --watch waits for them")


def _show(history: History, *, only_verdict: bool) -> None:
    from cryobridge.cli.converge_view import history_view, verdict_view

    if only_verdict or not history.iterations:
        show(verdict_view(history.verdict))
    else:
        show(history_view(history, output_width()))
