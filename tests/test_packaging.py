from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cryobridge

ROOT = Path(__file__).resolve().parent.parent
# What is imported under another name than it is installed by.
INSTALLED_AS = {"PIL": "pillow", "yaml": "pyyaml"}
# The versions that `cryobridge.adaptors` was tested with.
ADAPTORS = "interop/adaptors_constraints.txt"


def plainly(words, cwd, **environment):
    # Nothing from outside tells Python where to look for modules.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def pins(path, python):
    """Return the versions of each package that a file of constraints has for a Python."""
    found = {}
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            if not pin.marker or pin.marker.evaluate({"python_version": python}):
                found.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    return found


def requirements(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return [Requirement(line) for line in message_from_string(archive.read(metadata).decode()).get_all("Requires-Dist")]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    for needed in ("build", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed, and may not be had without a network")
    folder = tmp_path_factory.mktemp("dist")
    done = plainly([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    # A new environment that holds the wheel; the libraries it needs are lent, the source tree is not.
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    done = plainly([folder / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel], folder)
    assert done.returncode == 0, done.stderr
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"cryobridge", f"cryobridge-{cryobridge.__version__}.dist-info"}
    assert "cryobridge/py.typed" in names
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "cryobridge").rglob("*.py")}
    assert modules <= set(names)
    pages = {f"cryobridge/docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert {name for name in names if not name.endswith(".py")} >= pages


def test_the_source_archive_can_be_tested(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CITATION.cff", "Makefile", "pyproject.toml", "tests/helpers.py"} <= names
    assert not any(name.startswith(("demo/", ".venv/", "dist/")) for name in names)


def test_everything_that_is_imported_is_declared(wheel):
    needed = {canonicalize_name(one.name) for one in requirements(wheel) if not one.marker}
    # What is imported where a cluster is asked for, and said to be missing otherwise.
    needed |= {canonicalize_name(one.name) for one in requirements(wheel) if "cluster" in str(one.marker)}
    # What each adaptor imports where its package is installed, and says to be missing otherwise.
    needed |= pins(ADAPTORS, "3.11").keys()
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"cryobridge"}
    assert {INSTALLED_AS.get(name, name) for name in foreign} <= needed


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_python_has_one_tested_version_of_what_is_required(python, wheel):
    pinned, with_adaptors = (pins(ROOT / path, python) for path in ("constraints.txt", ADAPTORS))
    assert all(len(versions) == 1 for versions in pinned.values()), pinned
    for one in requirements(wheel):
        # `make interop` has tested these.
        versions = with_adaptors if "adaptors" in str(one.marker) else pinned
        assert one.specifier.contains(versions[canonicalize_name(one.name)][0]), one


def test_it_runs_without_the_source_tree(fresh, tmp_path):
    command = fresh / "bin" / "cryobridge"
    done = plainly([command, "--version"], tmp_path)
    assert (done.returncode, done.stdout) == (0, f"cryobridge {cryobridge.__version__}\n"), done.stderr
    where = plainly([fresh / "bin" / "python", "-c", "import cryobridge; print(cryobridge.__file__)"], tmp_path)
    assert where.stdout.startswith(str(fresh))
    # The page that the help names is there.
    shown = plainly([command, "coords", "--help"], tmp_path).stdout
    page = Path(shown.rpartition(" More in ")[2].strip())
    assert page.is_relative_to(fresh.resolve())
    assert page.read_text(encoding="utf-8").startswith("# cryobridge coords")
    made = plainly([command, "stacks", "grid", "--n-pixels", "64", "--pixel-size", "1", "-o", "grid.npz"], tmp_path)
    assert made.returncode == 0, made.stderr
    seen = plainly([command, "inspect", "grid.npz"], tmp_path)
    assert seen.returncode == 0, seen.stderr
    assert "CryoLike" in seen.stdout


def test_the_version_is_the_same_everywhere():
    for name in ("pyproject.toml", "CITATION.cff"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.search(rf'^version(?: =|:) "?{re.escape(cryobridge.__version__)}"?$', text, re.MULTILINE), name
