from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path, PurePath

import pytest

import cryobridge
from helpers import run, run_in_terminal

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
COMMANDS = ("inspect", "coords", "convert", "micrographs", "select", "merge", "stacks", "downsample", "converge")
# What merge shows is like what select does, and micrographs like convert.
SCREENS = tuple(name for name in COMMANDS if name not in ("merge", "micrographs"))
EXAMPLES = [*COMMANDS, "cluster", "demo", "recovar", "tasks"]


sys.path.insert(0, str(DOCS))  # where the scripts find each other


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def examples():
    # `make docs` runs all examples as a shell does.
    module = load("make_examples")
    in_shell = module.run_in_terminal

    def in_fork(command, folder, columns):
        parts = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars=True)
        parts.whitespace_split = True
        words = list(parts)
        if words[:1] != ["cryobridge"] or words[1:2] == ["demo"] or any(set(word) <= set("();<>|&") for word in words):
            return in_shell(command, folder, columns)
        _, shown = run_in_terminal(*words[1:], columns=columns, cwd=folder, is_alone=True)
        return module.final_lines(shown)

    module.run_in_terminal = in_fork
    return module


@pytest.fixture(scope="module")
def project(examples, tmp_path_factory):
    return examples.simulate(tmp_path_factory.mktemp("examples"))


def test_every_command_has_a_page_with_an_example(examples):
    assert set(EXAMPLES) == {page.stem for page in examples.pages()}


# The whole demo takes a quarter of a minute; `make docs` compares its page as well.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "demo" else name for name in EXAMPLES]
)
def test_the_examples_of_a_page_are_what_the_commands_show_now(name, examples, project):
    page = DOCS / f"{name}.md"
    written, now = page.read_text(encoding="utf-8"), examples.remade(page, project)
    assert examples.same(written, now), f"run docs/make_examples.py\n{examples.difference(written, now)}"


@pytest.mark.parametrize("name", SCREENS)
def test_the_screens_are_what_the_commands_show_now(name, examples, project):
    written = examples.picture_text((DOCS / "screens" / f"{name}.svg").read_text(encoding="utf-8"))
    now = examples.picture_text(examples.screen(name, project))
    assert examples.same(written, now), f"run docs/make_examples.py\n{examples.difference(written, now)}"


def test_a_stale_example_is_noticed(examples):
    written = "particles  300 of 300\nΔ shift  5e-07 Å\n"
    assert examples.same(written, "particles  300 of 300\nΔ shift  7e-07 Å\n")
    assert not examples.same(written, "particles  200 of 300\nΔ shift  5e-07 Å\n")
    assert not examples.same(written, "particles  300 of 300\nΔ shift  5e-07 px\n")
    assert not examples.same(written, written + "one line more\n")


def test_every_command_has_a_screen_on_the_page_of_the_commands():
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    for name in SCREENS:
        assert f"(screens/{name}.svg)" in page
        assert (DOCS / "screens" / f"{name}.svg").is_file()


def test_the_readme_is_short_and_its_picture_shows_no_warning():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("\n") < 150
    (name,) = re.findall(r"\(docs/screens/(\w+)\.svg\)", readme)
    shown = load("make_examples").picture_text((DOCS / "screens" / f"{name}.svg").read_text(encoding="utf-8"))
    assert not [line for line in shown.splitlines() if line.startswith("!")]


def test_every_page_is_in_the_navigation():
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(encoding="utf-8"), re.M | re.S)
    named = [line.split()[-1].strip("<>") for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    assert sorted(named) == sorted({page.stem for page in PAGES} - {"index"})


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([\d.]+)\]", text, re.MULTILINE)
    assert versions[0] == cryobridge.__version__
    sections = set(re.findall(r"^### (\w+)", text, re.MULTILINE))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES], ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def anchors(page):
    """The anchors of a page's headings, as MyST makes them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_to_sections_lead_to_headings(page):
    for name, anchor in re.findall(r"\]\(([\w./]*\.md|)#([^)]+)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors(page.parent / name if name else page), f"{name}#{anchor}"


@pytest.mark.parametrize(
    "words",
    [
        *("cryobridge coords", "--class", "--like", "--onto", "--take", "--recenter", "--center", "--symmetry"),
        *("--collapse", "stacks downsample", "--from-ancestors", "--and", "--or", "--not", "cryobridge merge"),
        *("--split-halves", "--dedupe", "--link-stacks", "--invert", "--normalise"),
    ],
)
def test_each_workflow_has_a_recipe_that_runs(words, examples):
    page = (DOCS / "tasks.md").read_text(encoding="utf-8")
    commands = "\n".join(examples.commands(page))
    assert re.search(rf"(?<!\S){words}(?!\S)", commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page_of_its_command(name):
    words = {"stacks": ("stacks", "cs"), "downsample": ("stacks", "downsample")}.get(name, (name,))
    shown = run(*words, "--help", COLUMNS="200").stdout
    common = {"--help", "--quiet", "--verbose", "--debug", "--version"}
    options = {option for line in shown.splitlines() for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line[:60])}
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    long_forms_of_short_ones = {"--output", "--params", "--batch-size", "--box", "--yes", "--phys", "--plots"}
    assert {option for option in options - common - long_forms_of_short_ones if option not in text} == set()


def test_what_the_page_for_python_describes_can_be_imported():
    named = re.findall(
        r"^\.\. auto(?:function|class):: ([\w.]+)$", (DOCS / "python.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(named) > 20
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_module_of_formats_is_in_the_table_of_the_architecture():
    table = (
        (DOCS / "architecture.md")
        .read_text(encoding="utf-8")
        .split("## The modules of `formats/`")[1]
        .split("\n## ")[0]
    )
    folder = ROOT / "src" / "cryobridge" / "formats"
    modules = {
        path.name for path in folder.rglob("*.py") if path.name != "__init__.py" and path.parent.name != "recovar"
    }
    assert {PurePath(name).name for name in re.findall(r"`([\w/]+\.py)`", table)} - {"fields.py"} == modules - {
        "fields.py"
    }


def test_what_the_readme_says_to_make_can_be_made():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "docs", "bench"} <= named <= targets


def test_no_page_names_a_folder_of_the_machine_it_was_written_on():
    files = [ROOT / "README.md", *PAGES, *(DOCS / "screens").iterdir(), *(DOCS / "figures").iterdir()]
    for file in files:
        assert not re.search(r"/(?:work|tmp|home|Users)/", file.read_text(encoding="utf-8")), file


def test_figures_are_drawn_anew_as_they_are(tmp_path, monkeypatch):
    figures = load("make_figures")
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    figures.main()
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (DOCS / "figures").iterdir()}
    page = (DOCS / "conventions.md").read_text(encoding="utf-8")
    assert all(f"(figures/{name})" in page for name in drawn)
    shutil.rmtree(tmp_path)


def _with_gaps(node):
    """Return a text of the source, with … for what is put into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_with_gaps(part) for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Call):
        return _with_gaps_of_many(node.value)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def _with_gaps_of_many(call):
    """Return what `counted` and `part_of` make of many things; … for any other call."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    words = [word.value for word in call.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    if name == "counted" and words:
        return f"… {words[1] if len(words) > 1 else words[0] + 's'}"
    if name == "part_of" and words:
        plural = [more.value.value for more in call.keywords if more.arg == "plural"]
        return f"… of … {plural[0] if plural else words[0] + 's'} {words[1] if len(words) > 1 else 'are'}"
    return "…"


def test_the_headings_of_troubleshooting_are_texts_of_the_program():
    texts = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr | ast.Constant):
                texts.add(re.sub("…+", "…", _with_gaps(node)))
    texts.update((ROOT / "tests" / "wording.txt").read_text(encoding="utf-8").splitlines())
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert len(headings) > 40
    assert len(set(headings)) == len(headings)
    assert [heading for heading in headings if not any(heading in text for text in texts)] == []


def test_the_remedies_of_troubleshooting_name_options_that_there_are():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    known = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "cryobridge" / "cli").rglob("*.py"))
    others = "\n".join(path.read_text(encoding="utf-8") for path in PAGES if path.stem != "troubleshooting")
    named = set(re.findall(r"`(--[a-z-]+)", page))
    assert {name for name in named if name not in known and name not in others} == set()
