from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.demo import simulate_project
from cryobridge.errors import UsageError
from cryobridge.formats.image_search import ImageSearch
from cryobridge.jobs.coords.options import CoordsOptions
from cryobridge.jobs.inspection.options import InspectOptions
from helpers import environment, run_script
from recovar_runs import padded, write_densities, write_map, write_pickle

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS = re.compile(r"# needs ([\w-]+)\n")
_SHAPE = re.compile(r"^(?:(\w+) = )?([^#\n]+?)  # (\((?:\w+,|\w+(?:, \w+)+)\))")
PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if _BLOCK.search(page.read_text("utf-8"))]


def examples(text, *, without=()):
    """Return the lines of the examples of a page; they keep their number, so that messages name those of the page.

    Those that need a package of ``without``, as their first line says, are left out.
    """
    lines = [""] * (text.count("\n") + 1)
    for block in _BLOCK.finditer(text):
        needed = _NEEDS.match(block[1])
        if needed is not None and needed[1] in without:
            continue
        first = text[: block.start(1)].count("\n")
        for number, line in enumerate(block[1].splitlines(), first):
            lines[number] = line
    return lines


def script(text):
    absent = [package for package in needed_packages(text) if not is_installed(package)]
    lines = [with_shape_checked(line) for line in examples(text, without=absent)]
    lines[0] = "from test_docs_python import has_shape as _has_shape"  # a heading is there
    return "\n".join(lines) + "\n"


def needed_packages(text):
    """Return what examples say that they need, by the names of pip."""
    found = [_NEEDS.match(block[1]) for block in _BLOCK.finditer(text)]
    return sorted({match[1] for match in found if match is not None})


def is_installed(package):
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def with_shape_checked(line):
    """Make a line whose comment gives a shape, such as (n, 3), compare it; a word stands for any number."""
    message = _SHAPE.match(line)
    if message is None or not re.search(r"[A-Za-z]", message[3]):
        return line
    sides = [int(side) if side.isdigit() else None for side in re.findall(r"\w+", message[3])]
    value = message[1] or f"({message[2]})"
    check = f"assert _has_shape({value}, {sides}), 'not of shape {message[3]}'"
    return f"{message[0].split('  #')[0]}; {check}" if message[1] else check


def has_shape(value, sides):
    shape = np.shape(value)
    return len(shape) == len(sides) and all(side in {None, size} for side, size in zip(sides, shape, strict=True))


def run_page(text, folder):
    path = folder / "page.py"
    path.write_text(script(text), encoding="utf-8")
    return run_script(path.name, folder)


@pytest.fixture
def project(demo_project, tmp_path):
    return shutil.copytree(demo_project.folder, tmp_path / "cryobridge-demo")


def add_recovar_run(project):
    """Add the simulated run of the page, with what RECOVAR makes where more is asked of it."""
    spec = importlib.util.spec_from_file_location("recovar_result", DOCS / "recovar_result.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    out = project / "small_recovar"
    module.simulate_result(out, "small/particles.48.star", 30)
    rows = np.flatnonzero(np.arange(30) % 25 != 24)
    np.save(out / "model" / "zdim_4" / "contrasts.npy", padded(rows / 10, rows))
    np.save(out / "model" / "zdim_4" / "latent_precision.npy", padded(np.eye(4) * rows[:, None, None], rows))
    analysis = out / "analysis_4"
    write_pickle(analysis / "plots" / "umap" / "umap_embedding.pkl", padded(np.stack([rows, rows], axis=1), rows))
    write_pickle(analysis / "data" / "trajectory_endpoints.pkl", {"centers": np.eye(4).tolist(), "pairs": [[0, 2]]})
    for state in range(3):
        write_map(analysis / "traj000" / f"state{state:03d}.mrc")
    np.savetxt(analysis / "traj000" / "latent_coords.txt", np.eye(4)[:3])
    write_densities(out / "Density" / "data")
    (out / "Density" / "job.json").write_text('{"command": "estimate_conformational_density", "status": "completed"}')


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_in_the_demo_project_and_prints_nothing(page, project):
    if page.stem == "recovar":
        add_recovar_run(project)
    done = run_page(page.read_text(encoding="utf-8"), project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


@pytest.mark.parametrize(
    ("page", "package"), [(page, name) for page in PAGES for name in needed_packages(page.read_text("utf-8"))],
    ids=lambda value: getattr(value, "stem", value),
)  # fmt: skip
def test_examples_are_run_with_the_packages_that_they_need(page, package):
    """Where a package is there, the page above ran its examples; elsewhere it is said that they were left out."""
    if not is_installed(package):
        pytest.skip(f"{package} is not installed: its example on {page.name} was not run")


def test_the_autoencoder_of_the_page_tells_from_where_particles_are_seen(tmp_path):
    """What is in both programs' files agrees with the truth: by chance neighbours would be 90 degrees apart."""
    project = simulate_project(tmp_path / "cryobridge-demo")
    _, head, section = (DOCS / "methods.md").read_text(encoding="utf-8").partition("## Results back")
    done = run_page(head + section.partition("\n## ")[0], project.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
    truth = project.truth.particles
    for output in ("cryosparc/clusters.csg", "relion/clusters.star"):
        found = cb.read(project.folder / output)
        assert found.uid is None or found.uid.tolist() == truth.uid.tolist()
        view = truth.matrix[:, 2]
        apart = np.linalg.norm(found.latent[:, None] - found.latent, axis=2)
        np.fill_diagonal(apart, np.inf)
        cosine = (view * view[apart.argmin(axis=1)]).sum(axis=1).clip(-1, 1)
        assert np.degrees(np.arccos(np.median(cosine))) < 30
        # How much of the directions the clusters explain; shuffled labels explain 1 % of them.
        means = [view[found.cluster == number].mean(axis=0) for number in range(4)]
        shares = np.bincount(found.cluster, minlength=4) / len(view)
        assert np.square(means).sum(axis=1) @ shares > 0.1


def test_the_python_of_the_pages_passes_mypy_strict(tmp_path):
    scripts = []
    for page in PAGES:
        scripts.append(tmp_path / f"page_{page.stem}.py")
        scripts[-1].write_text("\n".join(examples(page.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")
    # The settings of the project, so that what `make types` has found of its modules is used again.
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", *map(str, scripts)]
    environ = environment(MYPYPATH=str(ROOT / "src"))
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout


def test_only_the_last_section_of_the_python_page_imports_other_modules():
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    imports = re.findall(r"^(?:import|from) .*", page.partition("## For contributors")[0], re.MULTILINE)
    assert imports == ["import cryobridge as cb", "import torch"]


def test_every_page_with_python_is_run():
    assert {page.stem for page in PAGES} >= {"README", "python", "methods", "stacks", "recovar", "demo", "architecture"}
    fences = [line for page in PAGES for line in page.read_text("utf-8").splitlines() if line.startswith("```py")]
    blocks = [block for page in PAGES for block in _BLOCK.findall(page.read_text("utf-8"))]
    assert len(blocks) == len(fences) >= 15


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("np.zeros((4, 2))  # (n, 3) Å", "not of shape (n, 3)"),
        ("np.zeros((4, 2))  # (n,)", "not of shape (n,)"),
        ("x = np.zeros((4, 2))  # (n, 3), of all", "not of shape (n, 3)"),
    ],
)
def test_what_a_page_has_wrong_is_reported_by_its_line(line, message, tmp_path):
    page = f"# A page\n\n```python\nimport numpy as np\n```\n\n```python\nx = np.ones(3)  # (n,) ones\n\n{line}\n```\n"
    done = run_page(page, tmp_path)
    assert done.returncode == 1
    assert "page.py" in done.stderr
    assert "line 10" in done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (CoordsOptions, ("passthrough", "relion_project")),
        (ImageSearch, ("datadir",)),
        (InspectOptions, ("datadir", "folder_mrc")),
    ],
)
def test_options_take_paths_as_text(options, names, tmp_path):
    first = (tmp_path / "a.star",) if options is ImageSearch else ()
    as_paths = options(*first, **dict.fromkeys(names, tmp_path))
    as_texts = options(
        *(str(value) if isinstance(value, Path) else value for value in first), **dict.fromkeys(names, str(tmp_path))
    )
    assert as_texts == as_paths
    with pytest.raises(UsageError, match=f"{names[0]}: a path is needed, not int"):
        options(*first, **{names[0]: 3})
