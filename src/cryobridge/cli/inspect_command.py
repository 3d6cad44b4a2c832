"""`cryobridge inspect`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.common import DatadirOption, JsonOption, StripPrefixOption
from cryobridge.cli.failure import explained
from cryobridge.cli.terminal import (
    PATIENCE_S,
    note,
    print_json,
    progress,
    settings,
    show_error,
    show_traceback,
    warn,
    working,
)
from cryobridge.errors import CryobridgeError, UsageError
from cryobridge.jobs.inspection.report import USE_NAMES

if TYPE_CHECKING:
    from cryobridge.jobs.inspection import InspectOptions
    from cryobridge.jobs.inspection.report import Inspection

EXIT_CHECK_FAILED = 3
# Most files are told of before anybody asks whether it works.


def _complete_check(incomplete: str) -> list[str]:
    return [name for name in USE_NAMES if name.startswith(incomplete)]


def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Files or folders: .cs, .csg, .star, .mrc(s), .map, .pkl, .npy, .npz, .pt, jobs, projects.",
        ),
    ],
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--fields", metavar="PATTERN", help="Only these columns, such as 'ctf/*'. Repeatable.", show_default=False
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", min=0, help="Show the first N rows.", show_default=False)
    ] = 0,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            metavar="JOB",
            help=f"Exit with 3 unless the file serves this job: {', '.join(USE_NAMES)}. Repeatable.",
            autocompletion=_complete_check,
            show_default=False,
        ),
    ] = None,
    image_paths: Annotated[
        bool, typer.Option("--paths", help="Check that the image files that it names exist and are long enough.")
    ] = False,
    datadir: DatadirOption = None,
    strip_prefix: StripPrefixOption = None,
    no_stats: Annotated[bool, typer.Option("--no-stats", help="Read headers only.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png", help="Draw distributions, images or slices.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what files and job folders hold, and what they are good for."""
    unknown = [name for name in check or [] if name not in USE_NAMES]
    if unknown:
        raise UsageError(f"--check {unknown[0]}: no such job", hint=f"Jobs are {', '.join(USE_NAMES)}.")
    if plot and len(paths) > 1:
        raise UsageError("--plot draws one file, several are given", hint="Run inspect once for each.")
    if (datadir or strip_prefix) and not image_paths:
        raise UsageError("--datadir and --strip-prefix go with --paths", hint="Add --paths.")
    from cryobridge.jobs.inspection import InspectOptions

    options = InspectOptions(
        statistics=not no_stats,
        field_patterns=tuple(fields or ()),
        n_rows=rows,
        check_paths=image_paths,
        datadir=datadir,
        strip_prefix=strip_prefix,
    )
    found, exit_code = _inspect_each(paths, options, as_json=as_json)
    if as_json:
        print_json([inspection.to_json() for inspection in found])
    if plot and found:
        _draw(paths[0], plot, options)
    n_failed = sum(not _serves(inspection, check or []) for inspection in found)
    raise typer.Exit(exit_code or (EXIT_CHECK_FAILED if n_failed else 0))


def _inspect_each(paths: list[Path], options: InspectOptions, *, as_json: bool) -> tuple[list[Inspection], int]:
    """Inspect and show each path, and tell what is wrong with those that can't be read."""
    from cryobridge.cli.inspect_view import show_inspection
    from cryobridge.jobs.inspection import inspect_path

    found: list[Inspection] = []
    exit_code = 0
    for path in paths:
        try:
            with progress(PATIENCE_S) as reporter:
                inspection = inspect_path(path, replace(options, reporter=reporter))
        except (CryobridgeError, OSError, MemoryError) as error:
            if settings.debug:
                show_traceback(error)
            told = explained(error)
            show_error(told)
            exit_code = exit_code or told.exit_code
            continue
        if not as_json:
            show_inspection(inspection, is_first=not found)
        found.append(inspection)
    return found, exit_code


def _draw(path: Path, plot: Path, options: InspectOptions) -> None:
    from cryobridge.jobs.inspection.plots import plot_path

    with working("drawing"):
        plot_path(path, plot, options)
    note(f"drawn: {plot}")


def _serves(inspection: Inspection, names: list[str]) -> bool:
    """Whether the file is ready for all these jobs; what is missing is told."""
    uses = {use.name: use for use in inspection.uses}
    for name in names:
        if name not in uses:
            warn(f"{inspection.path}: {inspection.title}: nothing for {name}")
        elif not uses[name].ready:
            warn(f"{inspection.path}: not ready for {name}: {', '.join(uses[name].missing)} missing")
    return all(name in uses and uses[name].ready for name in names)
