"""How the answers, questions and checks of `cryobridge coords` look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cryobridge.cli.build import flag
from cryobridge.cli.terminal import plain
from cryobridge.errors import option, shown
from cryobridge.jobs.coords.relion_picks import AUTOPICK_STAR, COORDS_SUFFIX
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.cli.run import Facts
    from cryobridge.jobs.coords.locate import CoordinateFields
    from cryobridge.jobs.coords.report import CoordsReport
    from cryobridge.jobs.micrographs.orientation import OrientationCheck
    from cryobridge.model.convention import Convention

# The RELION that takes a file in Extract.
_RELEASES = {AUTOPICK_STAR: "RELION 4 and 5", COORDS_SUFFIX: "RELION 3.1"}


def facts(report: CoordsReport) -> Facts:
    """Return the closing table."""
    unmatched = report.micrographs_unmatched
    return [
        ("particles", f"{report.rows_out:,} of {report.rows_in:,}"),
        ("micrographs", f"{report.micrographs:,}"),
        *([("not in the STAR file", f"{counted(len(unmatched), 'micrograph')}")] if unmatched else []),
        ("coordinates", f"{report.convention} ({report.convention_words})"),
        ("columns", ", ".join(report.coordinate_fields)),
        *_written(report),
        *(("preview", str(path)) for path in report.previews),
    ]


def _written(report: CoordsReport) -> Facts:
    """Return which file to give to which RELION, and where the pick files are."""
    lists = [path for path in report.outputs if path.name in _RELEASES]
    folders = [path for path in report.outputs if path.name not in _RELEASES]
    # Only a list that is there can be given to RELION.
    name = "list for Extract" if report.dry_run else "give to Extract"
    return [
        *((name, f"{path} ({_RELEASES[path.name]})") for path in lists),
        *([("pick files", ", ".join(map(str, folders)))] if folders else []),
    ]


def columns_panel(fields: CoordinateFields) -> Panel:
    """Show which columns were looked at, which are taken, and why."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in ("column", "min", "max", "distinct", ""):
        table.add_column(name, justify="left" if name in {"column", ""} else "right", overflow="fold")
    for candidate in fields.candidates:
        name = {fields.x: "taken as x: ", fields.y: "taken as y: "}.get(candidate.name, "not taken: ")
        table.add_row(
            plain(candidate.name),
            f"{candidate.minimum:.4g}",
            f"{candidate.maximum:.4g}",
            f"{candidate.distinct:,}",
            plain(name + candidate.verdict),
            style="bold" if candidate.is_taken else "dim",
        )
    shapes = dict.fromkeys((fields.shape, *(rival.shape for rival in fields.rivals)))
    title = f"The coordinate columns were inferred from what follows {' and '.join(shapes)}"
    content = Group(table, "", _pairs_table(fields)) if fields.rivals else table
    return Panel(content, title=plain(title), border_style="yellow", expand=False)


def _pairs_table(fields: CoordinateFields) -> Table:
    """Show the pairs that may be x and y with numbers, the best first."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in ("", "x", "y", "micrograph", ""):
        table.add_column(name, overflow="fold")
    for number, pair in enumerate((fields, *fields.rivals), 1):
        remark = "the best: they come first" if number == 1 else ""
        table.add_row(
            str(number), plain(pair.x), plain(pair.y), plain(pair.path), remark, style="" if remark else "dim"
        )
    return table


def orientation_table(check: OrientationCheck, chosen: Convention) -> Table:
    """Show the scores of the eight axis conventions, best first."""
    measure = "correlation" if check.method == "images" else "contrast (σ)"
    sure = f"sure, {check.sigma:.0f} σ ahead" if check.is_sure else f"uncertain, {check.sigma:.1f} σ ahead"
    table = Table(
        title=f"Orientation: {sure}",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
        pad_edge=False,
    )
    table.add_column("convention", no_wrap=True)
    table.add_column("options")
    table.add_column(measure, justify="right")
    table.add_column("picks", justify="right")
    table.add_column("")
    for place, score in enumerate(check.scores):
        is_best = place == 0 and check.is_sure
        marks = [*(["fits"] if is_best else []), *(["chosen"] if score.convention == chosen else [])]
        table.add_row(
            score.convention.formula,
            " ".join(map(flag, score.convention.flips)) or shown(option("orientation", "reliosparc"), flag),
            "—" if score.n_particles == 0 else f"{score.score:.4f}",
            str(score.n_particles),
            Text(", ".join(marks), style="green"),
            style="bold" if is_best else "",
        )
    return table
