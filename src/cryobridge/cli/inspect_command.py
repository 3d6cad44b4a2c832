"""`cryobridge inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.build import flag, takes_options
from cryobridge.cli.failure import explained
from cryobridge.cli.run import JsonOptions
from cryobridge.cli.terminal import (
    PATIENCE_S,
    note,
    print_json,
    progress,
    settings,
    show_error,
    show_messages,
    show_traceback,
    working,
)
from cryobridge.errors import CryobridgeError, UsageError, option
from cryobridge.jobs.inspection.options import InspectOptions

if TYPE_CHECKING:
    from cryobridge.jobs.inspection.report import Inspection

EXIT_CHECK_FAILED = 3


@takes_options
def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Files or folders: .cs, .csg, .star, .mrc(s), .map, .pkl, .npy, .npz, .pt, jobs, projects.",
        ),
    ],
    options: InspectOptions,
    answer: JsonOptions,
) -> None:
    """Show what files and job folders hold, and what they can be used for."""
    options.refuse_idle()
    if options.plot and len(paths) > 1:
        raise UsageError(f"{option('plot')} draws one file, several are given", hint="Run inspect once for each.")
    found, exit_code = _inspect_each(paths, options, as_json=answer.as_json)
    if answer.as_json:
        print_json([inspection.to_json(flag) for inspection in found])
    if options.plot and found:
        _draw(paths[0], options.plot, options)
    not_ready = [message for inspection in found for message in inspection.not_ready(options.check)]
    show_messages(not_ready)
    raise typer.Exit(exit_code or (EXIT_CHECK_FAILED if not_ready else 0))


def _inspect_each(paths: list[Path], options: InspectOptions, *, as_json: bool) -> tuple[list[Inspection], int]:
    """Inspect and show each path, show the errors of those that can't be read, and return the first exit code."""
    from cryobridge.cli.inspect_view import show_inspection
    from cryobridge.jobs.inspection.describe import describe

    found: list[Inspection] = []
    exit_code = 0
    for path in paths:
        try:
            with progress(PATIENCE_S) as reporter:
                inspection = describe(path, options, reporter)
        except (CryobridgeError, OSError, MemoryError) as error:
            if settings.debug:
                show_traceback(error)
            shown = explained(error)
            show_error(shown)
            exit_code = exit_code or shown.exit_code
            continue
        if not as_json:
            show_inspection(inspection, is_first=not found)
        found.append(inspection)
        if inspection.damage is not None:
            show_error(inspection.damage)
            exit_code = exit_code or inspection.damage.exit_code
    return found, exit_code


def _draw(path: Path, plot: Path, options: InspectOptions) -> None:
    from cryobridge.jobs.inspection.plots import plot_path

    with working("drawing"):
        plot_path(path, plot, options)
    note(f"drawn: {plot}")
