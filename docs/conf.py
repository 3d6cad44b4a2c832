"""How Sphinx makes the documentation: `make docs`."""

from __future__ import annotations

import re

from docutils import nodes
from pygments.lexer import RegexLexer
from pygments.token import Generic
from sphinx.application import Sphinx

from cryobridge.version import __version__

project = "cryobridge"
author = "the cryobridge authors"
project_copyright = "2026, the cryobridge authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
nitpicky = False

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

# Docstrings are in numpy's style; types stand in the signatures alone.
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_type_aliases = {"Floats": "Floats"}
default_role = "code"
# Two hyphens are the start of an option, not a dash.
smartquotes = False

html_theme = "furo"
html_title = f"cryobridge {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
# Examples are recorded terminals, not the language of a shell.
highlight_language = "none"


class TerminalLexer(RegexLexer):
    """Commands behind a prompt, with the lines that go on after a backslash, and what they print."""

    name = "terminal"
    tokens = {"root": [(r"\$ (?:.*\\\n)*.*\n", Generic.Prompt), (r".*\n", Generic.Output)]}  # noqa: RUF012


ARRAY = re.compile(r"~?(?:numpy\.)?ndarray\[tuple\[\w+, \.\.\.\], ~?(?:numpy\.)?dtype\[([\w.~]+(?:\[[\w.~]+\])?)\]\]")


def short_types(text: str | None) -> str | None:
    """Name the arrays of a signature as the sources do; what a factory makes has no form that Sphinx can read."""
    if text is None:
        return None
    text = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text).replace("<factory>", "...")
    return ARRAY.sub(r"NDArray[\1]", text)


def escape_stars(lines: list[str]) -> None:
    """Keep the stars of patterns such as 'ctf/*' in lists of options, where they would begin emphasis."""
    lines[:] = [line.replace("*", r"\*") if line.lstrip().startswith("- ``") else line for line in lines]


def name_long_words(doctree: nodes.document) -> None:
    """Give code with a word that is longer than a narrow column the class 'long', by which site.css lets it break."""
    for literal in doctree.findall(nodes.literal):
        if max(map(len, literal.astext().split()), default=0) > 24:
            literal["classes"].append("long")


def setup(app: Sphinx) -> None:
    """Show recorded terminals as they are: `select` is a word of the shell, but not in `cryobridge select`."""
    app.add_lexer("console", TerminalLexer)
    app.connect(
        "autodoc-process-signature",
        lambda app, what, name, obj, options, signature, returned: (short_types(signature), short_types(returned)),
    )
    app.connect("doctree-resolved", lambda app, doctree, docname: name_long_words(doctree))
    app.connect("autodoc-process-docstring", lambda app, what, name, obj, options, lines: escape_stars(lines))
