from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from helpers import run
from recovar_runs import simulate_run

SCHEMAS = Path(__file__).resolve().parent.parent / "docs" / "schemas"
COMMANDS = {
    "micrographs": ["micrographs", "{exposures}", "-o", "{out}"],
    "coords": ["coords", "{cs}", "{micrographs}", "-o", "{out}", "--check-orientation", "--preview", "1"],
    "convert": ["convert", "{cs}", "-o", "{out}/particles.star", "--verify"],
    "select": ["select", "{cs}", "--random", "5", "-o", "{out}/some.cs"],
    "merge": ["merge", "{cs}", "{earlier}", "-o", "{out}/both.cs", "--split-halves", "3", "--dedupe", "40"],
    "stacks": ["stacks", "cs", "{cs}", "-o", "{out}", "--no-plots"],
    "stacks-grid": ["stacks", "grid", "--n-pixels", "64", "--pixel-size", "1", "-o", "{out}.npz"],
    "stacks-downsample": ["stacks", "downsample", "{cs}", "-D", "48", "-o", "{out}"],
    "converge": ["converge", "{classes}", "-o", "{out}", "--no-plots"],
    "converge-jobs": ["converge", "{relion}"],
    "demo": ["demo", "{out}"],
    "inspect": ["inspect", "--no-stats", "{cs}", "{job}", "{classes}", "{micrographs}", "{group}", "{stack}"],
}
SMALL = {"n_micrographs": 2, "particles_per_micrograph": 20}
MORE = [
    ("coords", ["coords", "{cs}", "{micrographs}", "-o", "{out}", "--dry-run"]),
    ("convert", ["convert", "{cs}", "-o", "{out}", "--to", "pickles"]),
    ("select", ["select", "{cs}", "--where", "ctf/df1_A > 0", "-o", "{out}/all.cs", "--dry-run"]),
    ("stacks", ["stacks", "cs", "{cs}", "-o", "{out}", "--dry-run"]),
    ("stacks-downsample", ["stacks", "downsample", "{stack}", "-D", "48", "-o", "{out}"]),
    ("stacks-downsample", ["stacks", "downsample", "{cs}", "-D", "48", "-o", "{out}", "--dry-run"]),
    ("inspect", ["inspect", "--paths", "--rows", "2", "{cs}"]),
    ("inspect", ["inspect", "{root}", "{cryosparc}", "{relion}"]),
]


def validator(name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def complaints(name, data):
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator(name).iter_errors(data)
    ]


def answer(words, project, out, cwd=None, **more):
    # Told from a working directory, the project's files have relative names.
    places = {
        "cs": project.particles_cs,
        "earlier": project.particles_cs.with_name("J4_002_particles.cs"),
        "job": project.particles_cs.parent,
        "group": project.group_csg,
        "micrographs": project.micrographs_star,
        "exposures": project.exposures_cs,
        "classes": project.classification,
        "stack": project.stacks[0],
        "root": project.folder,
        "cryosparc": project.cryosparc,
        "relion": project.relion,
    }
    if cwd is not None:
        places = {name: os.path.relpath(path, cwd) for name, path in places.items()}
    done = run(*(word.format(**places, out=out) for word in words), "--json", cwd=cwd, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def texts(data):
    if isinstance(data, dict):
        return [*data, *(text for value in data.values() for text in texts(value))]
    if isinstance(data, list):
        return [text for item in data for text in texts(item)]
    return [data] if isinstance(data, str) else []


def test_every_schema_is_of_a_command_and_every_command_has_one():
    assert {path.name.removesuffix(".schema.json") for path in SCHEMAS.iterdir()} == set(COMMANDS)


@pytest.mark.parametrize(("name", "words"), [*(item for item in COMMANDS.items() if item[0] != "demo"), *MORE])
def test_the_output_is_as_its_schema_says(name, words, demo_project, tmp_path):
    assert complaints(name, answer(words, demo_project, tmp_path / "out")) == []


def test_a_run_that_is_resumed_is_as_its_schema_says(demo_project, tmp_path):
    for name in ("stacks", "stacks-downsample"):
        out = tmp_path / name
        answer(COMMANDS[name], demo_project, out)
        resumed = answer([*COMMANDS[name], "--resume"], demo_project, out)
        assert complaints(name, resumed) == []
        assert resumed["dry_run"] is False


@pytest.mark.parametrize("name", ["coords", "convert", "select", "merge", "stacks", "stacks-downsample", "converge"])
def test_a_dry_run_says_so_and_tells_what_the_run_tells(name, demo_project, tmp_path):
    words = [word for word in COMMANDS[name] if word not in {"--verify", "--preview", "1"}]
    planned = answer([*words, "--dry-run"], demo_project, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = answer(words, demo_project, tmp_path / "out")
    assert (planned.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert planned == done


@pytest.mark.parametrize(("name", "words"), [item for item in COMMANDS.items() if item[0] != "demo"])
def test_relative_names_give_relative_names(name, words, demo_project, tmp_path):
    here = demo_project.relion
    out = os.path.relpath(tmp_path / "out", here)
    found = texts(answer(words, demo_project, out, cwd=here))
    assert not [text for text in found if text.startswith("/")]
    assert [text for text in found if len(text) < 256 and (here / text).exists()]  # a longer one is no name


def test_names_from_the_root_give_names_from_the_root(demo_project, tmp_path):
    for name in ("inspect", "coords"):
        found = texts(answer(COMMANDS[name], demo_project, tmp_path / "out"))
        assert not [text for text in found if text.startswith("..")]
        assert str(demo_project.relion) in found or name == "coords"


def test_what_is_found_above_a_folder_is_named_from_where_one_is(demo_project):
    done = run("inspect", "--json", ".", cwd=demo_project.classification)
    assert json.loads(done.stdout)[0]["job"]["project"] == "../.."
    done = run("inspect", "--json", ".", cwd=demo_project.refinement)
    main = json.loads(done.stdout)[0]["outputs"][0]["main"]
    assert not Path(main).is_absolute()
    assert (demo_project.refinement / main).is_file()


def test_files_of_every_kind_are_described_as_the_schema_says(demo_project, tmp_path):
    out = tmp_path / "out"
    for words in (COMMANDS["stacks"], ["convert", "{cs}", "-o", "{out}/pickles", "--to", "pickles"]):
        answer(words, demo_project, out)
    result = simulate_run(tmp_path / "recovar")
    labels = next(result.analysis.rglob("*.pkl"))
    latent = next(result.out.rglob("*.npy"))
    files = [out, *(out / "fft").iterdir(), out / "pickles" / "poses.pkl", result.out, result.analysis, labels, latent]
    done = run("inspect", "--json", *files)
    described = json.loads(done.stdout)
    assert complaints("inspect", described) == []
    expected = {"cryobridge output", "pt", "npz", "pickle", "recovar result", "npy"}
    assert {entry["kind"] for entry in described} == expected


def test_the_demo_gives_what_each_of_its_commands_prints(demo_project, tmp_path):
    whole = answer(COMMANDS["demo"], demo_project, tmp_path / "project", demo=SMALL)
    assert complaints("demo", whole) == []
    assert whole["loop"]["picked"] == whole["rows_out"] > whole["loop"]["came_back"] > 0
    of_relion = [step for step in whole["commands"] if step["words"][0] == "relion_preprocess"]
    assert len(of_relion) == (whole["loop"]["extracted_by"] == "relion_preprocess")
    assert all((step["result"], step["folder"]) == (None, str(tmp_path / "project/relion")) for step in of_relion)
    said = [step for step in whole["commands"] if step not in of_relion]
    assert [step["words"][:2] for step in said][:2] == [["cryobridge", "inspect"], ["cryobridge", "coords"]]
    for step in said:
        name = "stacks-downsample" if "downsample" in step["words"] else step["words"][1]
        assert complaints(name, step["result"]) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_schema_refuses_what_is_not_documented(name):
    assert complaints(name, [{"surprise": 1}] if name == "inspect" else {"surprise": 1})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_that_a_page_lists_is_in_the_schema(name):
    page = "stacks" if name.startswith("stacks") and name != "stacks-downsample" else name.removeprefix("stacks-")
    page, of_project = page.removesuffix("-jobs"), "\n### Of a project\n"
    text = (SCHEMAS.parent / f"{page}.md").read_text(encoding="utf-8")
    schema = (SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")
    _, heading, table = text.partition("## JSON\n")
    table = table.partition(of_project)[2 if name.endswith("-jobs") else 0]
    if not heading:
        pytest.skip("the schema is the only list")
    rows = table.partition("\n## ")[0].splitlines()
    first_cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    listed = {word for cell in first_cells for word in cell.split("`")[1::2]}
    assert listed
    assert {word for word in listed if f'"{word}"' not in schema} == set()
