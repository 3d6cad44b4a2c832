"""One page on a classification, with verdict, pictures and tables; it needs no other file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from cryobridge.formats.atomic import atomic_path
from cryobridge.jobs.converge.drawing import Pictures
from cryobridge.jobs.converge.html_tables import (
    Column,
    Table,
    class_table,
    iteration_table,
    move_table,
    refinement_table,
)
from cryobridge.model.classification import History
from cryobridge.plots.converge import Which, sheet_of
from cryobridge.plots.page import path_title
from cryobridge.report import Message

# Colours by their use, for light and dark; pictures have white paper in both.
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5c636b; --paper: #ffffff; --line: #d9dde2; --tint: #f4f6f8;
  --good: #00664a; --bad: #9a3c00; --unsure: #5c636b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a3abb4; --paper: #16181b; --line: #383d44;
  --tint: #1f2327; --good: #4fc79c; --bad: #f29b5c; --unsure: #a3abb4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 110rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p { margin: .3rem 0; max-width: 60rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.verdict { border-left: .4rem solid var(--unsure); background: var(--tint); padding: .7rem 1rem; margin: 1rem 0; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.verdict strong { font-size: 1.15rem; }
.good strong { color: var(--good); } .bad strong { color: var(--bad); }
li { overflow-wrap: anywhere; }
figure { margin: 0 0 1.2rem; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: .3rem; }
.scroll { overflow: auto; max-height: 60rem; margin-top: .5rem; border: 1px solid var(--line); border-radius: .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .72rem; min-width: 40%; }
th, td { padding: .25rem .2rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--tint); white-space: normal; vertical-align: bottom; }
.text { text-align: left; }
td.text { white-space: normal; min-width: 8rem; }
tbody tr:hover { background: var(--tint); }
svg { display: block; }
""".strip()
_TITLES: dict[Which, str] = {"summary": "Summary", "flow": "Flows between classes"}
# Nothing may be loaded from elsewhere, whatever text has found its way into the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_html(history: History, path: Path, pictures: Pictures | None = None) -> None:
    """Write the page; an older one is replaced.

    Parameters
    ----------
    history
        The iterations of the job; there may be none yet.
    path
        The page. Pictures are inside it, and it refers to nothing outside.
    pictures
        What draws them, or has drawn them.

    Raises
    ------
    CryobridgeError
        If it can't be written.
    """
    # A folder's name need not be text in any encoding.
    content = html_page(history, pictures).encode("utf-8", "replace")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def html_page(history: History, pictures: Pictures | None = None) -> str:
    """Return the page; see `write_html`."""
    drawn = _pictures(history, pictures or Pictures()) if history.n_classes else []
    job = " ".join(part for part in (history.program, history.kind, path_title(history.folder)) if part)
    title = f"{job}: {'convergence' if history.is_refinement else 'class convergence'}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="soft">{html.escape(str(history.folder.absolute()))}</p>',
        _verdict(history),
        _warnings(history.messages),
        *([*drawn, *_tables(history)] if history.n_classes else ["<p>There is no iteration yet.</p>"]),
    ]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(line for line in lines if line) + "\n"


def _verdict(history: History) -> str:
    verdict = history.verdict
    answer = {True: "Converged", False: "Not converged", None: "Too early to decide"}[verdict.converged]
    colour = {True: "good", False: "bad", None: "unsure"}[verdict.converged]
    left = verdict.iterations_left
    more = "" if verdict.converged or not left else f" About {left:,} more iteration{'' if left == 1 else 's'} needed."
    return (
        f'<div class="verdict {colour}"><strong>{answer}</strong>'
        f"<p>{html.escape(verdict.reason)}{more}</p>"
        f'<p class="soft">Rule: {html.escape(verdict.rule)}</p></div>'
    )


def _warnings(messages: Sequence[Message]) -> str:
    if not messages:
        return ""
    items = "".join(f"<li>{html.escape(str(message))}.</li>" for message in messages)
    return f"<h2>Warnings</h2>\n<ul>{items}</ul>"


def pictures_of_page(history: History) -> list[Which]:
    """Return the pictures in the page: of a refinement the summary says all."""
    return ["summary"] if history.is_refinement else ["summary", history.iterations[-1].number, "flow"]


def _pictures(history: History, pictures: Pictures) -> list[str]:
    drawn = []
    for which in pictures_of_page(history):
        title = _TITLES.get(which, f"Populations up to iteration {which}")
        data = base64.b64encode(pictures.get(history, which)).decode("ascii")
        image = f'<img alt="{html.escape(sheet_of(history, which).heading)}" src="data:image/png;base64,{data}">'
        drawn.append(f"<h2>{html.escape(title)}</h2>\n<figure>{image}</figure>")
    return drawn


def _tables(history: History) -> list[str]:
    if history.is_refinement:
        return [_section(refinement_table(history))]
    tables = (iteration_table(history), class_table(history), move_table(history))
    return [_section(table) for table in tables if table.columns]


def _section(table: Table) -> str:
    heads = "".join(f"<th{_align(column)}>{html.escape(column.name)}</th>" for column in table.columns)
    aligns = [_align(column) for column in table.columns]
    rows = "\n".join(
        "<tr>" + "".join(f"<td{align}>{cell}</td>" for align, cell in zip(aligns, row, strict=True)) + "</tr>"
        for row in zip(*(column.cells for column in table.columns), strict=True)
    )
    # Above the box: in the table it would be as wide as that, and cut where the window is narrow.
    caption = f'<p class="soft">{html.escape(table.caption)}</p>\n' if table.caption else ""
    return (
        f'<h2>{html.escape(table.title)}</h2>\n{caption}<div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _align(column: Column) -> str:
    return ' class="text"' if column.is_text else ""
