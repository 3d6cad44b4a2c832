"""`cryobridge inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.common import DatadirOption, JsonOption, StripPrefixOption
from cryobridge.cli.terminal import print_json, show_error, stdout
from cryobridge.errors import CryobridgeError, UsageError
from cryobridge.inspect.report import USE_NAMES

if TYPE_CHECKING:
    from cryobridge.inspect.report import Inspection

EXIT_CHECK_FAILED = 3


def _complete_check(incomplete: str) -> list[str]:
    return [name for name in USE_NAMES if name.startswith(incomplete)]


def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Files or folders: .cs, .csg, .star, .mrc(s), .map, .pkl, .npy, .npz, .pt, jobs."
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
    from cryobridge.inspect import InspectOptions, inspect_path

    options = InspectOptions(
        statistics=not no_stats,
        field_patterns=tuple(fields or ()),
        n_rows=rows,
        check_paths=image_paths,
        datadir=datadir,
        strip_prefix=strip_prefix,
    )
    found: list[Inspection] = []
    failed = False
    for path in paths:
        try:
            found.append(inspect_path(path, options))
        except CryobridgeError as error:
            if len(paths) == 1:
                raise
            show_error(error)
            failed = True
            continue
        if not as_json:
            _show(found[-1], is_first=len(found) == 1)
    if as_json:
        print_json([inspection.to_json() for inspection in found])
    if plot:
        _draw(paths[0], plot, as_json)
    if failed:
        raise typer.Exit(1)
    if not all(_serves(inspection, check or []) for inspection in found):
        raise typer.Exit(EXIT_CHECK_FAILED)


def _show(inspection: Inspection, *, is_first: bool) -> None:
    from cryobridge.cli.inspect_view import show_inspection

    console = stdout()
    if not is_first:
        console.print()
    show_inspection(console, inspection)


def _draw(path: Path, plot: Path, as_json: bool) -> None:
    from cryobridge.cli.terminal import note
    from cryobridge.inspect.plots import plot_path

    plot_path(path, plot)
    if not as_json:
        note(f"drawn: {plot}")


def _serves(inspection: Inspection, names: list[str]) -> bool:
    ready = {use.name for use in inspection.uses if use.ready}
    return ready.issuperset(names)
