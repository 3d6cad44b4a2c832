"""How Sphinx makes the documentation: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "cryobridge"
author = "the cryobridge authors"
project_copyright = "2026, the cryobridge authors"
version = release = installed_version("cryobridge")

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

html_theme = "furo"
html_title = f"cryobridge {release}"
html_static_path: list[str] = []
html_show_sphinx = False
# Examples are recorded terminals, not the language of a shell.
highlight_language = "none"
