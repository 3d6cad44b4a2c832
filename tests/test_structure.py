"""What holds for the source as a whole."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

import typer

import cryobridge
from cryobridge.cli.app import app
from cryobridge.cli.commands import COMMANDS, load

SOURCE = Path(cryobridge.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
# A command of another program is typed as it is.
OTHER_PROGRAM = re.compile(r"`(recovar|cryodrgn|relion_\w+) ")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*")


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path):
    return str(path.relative_to(SOURCE))


def flags_of(command):
    """All that can be typed after a command and those below it."""
    own = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    return own.union(*(flags_of(below) for below in getattr(command, "commands", {}).values()))


OUR_FLAGS = flags_of(typer.main.get_command(app)).union(*(flags_of(load(name)) for name in COMMANDS))


def sentences(tree):
    """The texts of a module that are no docstrings, each with its line; single words are parts of commands."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and " " in node.value and id(node) not in docstrings:
            yield node.lineno, node.value


def test_no_module_has_the_name_of_one_of_pythons():
    """Else Python takes ours for its own where a file in the same folder is run."""
    names = {path.stem for path in MODULES} | {path.parent.name for path in SOURCE.rglob("__init__.py")}
    assert not names & set(sys.stdlib_module_names)


def test_only_the_command_line_names_flags():
    """Elsewhere `errors.option` refers to an option, which Python shows as its keyword."""
    found = []
    for path in MODULES:
        if "cli" in path.parts:
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [
            f"{name_of(path)}, line {line}: {flag} in {text!r}"
            for line, text in sentences(tree_of(path))
            for flag in FLAG.findall(text)
            if flag in OUR_FLAGS and not OTHER_PROGRAM.search(lines[line - 1])
        ]
    assert not found


def test_no_private_name_of_a_library_is_imported():
    found = []
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or ""
                names = [f"{module}.{item.name}" for item in node.names]
                foreign = [name for name in names if not name.startswith(("cryobridge", "__future__", "."))]
                private = [name for name in foreign if any(part.startswith("_") for part in name.split("."))]
                found += [f"{name_of(path)}: {name}" for name in private]
    assert not found
