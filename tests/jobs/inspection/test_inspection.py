from __future__ import annotations

import io
import json
import pickle
import re
import shlex
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cryobridge.cli.app import main
from cryobridge.cli.terminal import progress, settings
from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.relion.motion import MotionMetadata, write_motion
from cryobridge.formats.table import Column
from cryobridge.jobs.inspection import stats
from cryobridge.jobs.inspection.describe import inspect
from cryobridge.jobs.inspection.report import NotReadyError, Use
from cryobridge.jobs.inspection.use_list import USE_NAMES
from cryobridge.jobs.inspection.uses import of_several_files
from cryobridge.model.motion import MotionModel
from cryobridge.progress import Silent
from helpers import codes, noise_images, particle_columns, run, save_cs, save_mrc, save_star, texts

# What particles are ready for as the programs write them, and those with orientations besides.
FROM_CRYOSPARC = {"stacks", "ctf", "relion", "cryosparc", "cryolike", "select"}
FROM_RELION = {"stacks", "ctf", "cryosparc", "cryolike", "select"}
POSED = {"poses", "recovar", "cryodrgn"}
BATCHES = {"stacks-job", "ctf", "cryolike", "cryosparc", "select"}
FIELD_KEYS = {"name", "dtype", "shape", "unit", "min", "median", "max", "distinct", "nan", "problems"}


def fields_of(path, **options):
    return {field["name"]: field for field in described(path, **options)["fields"]}


def described(path, **options):
    # Through strict JSON, as a program would get it.
    return json.loads(json.dumps(inspect(path, **options).to_json(), allow_nan=False))


@pytest.fixture
def odd_table(tmp_path):
    rng = np.random.default_rng(5)
    values = rng.normal(size=(1001, 2)).astype("f4")
    values[3, 1] = np.nan
    values[7, 0] = np.inf
    names = [f"J1/stack_{number}.mrc" for number in rng.integers(0, 37, 1001)]
    columns = particle_columns(names, rng.integers(0, 2**32, 1001, dtype="u4")) | {"extra/values": values}
    return save_cs(tmp_path / "odd.cs", columns), columns


def test_statistics_are_those_of_numpy(odd_table):
    path, columns = odd_table
    fields = fields_of(path)
    for name in ("blob/idx", "ctf/df1_A", "ctf/df_angle_rad"):
        values = np.asarray(columns[name]).astype("f8")
        expected = [values.min(), np.median(values), values.max(), len(np.unique(values)), 0]
        assert [fields[name][key] for key in ("min", "median", "max", "distinct", "nan")] == expected
    extra = fields["extra/values"]
    finite = columns["extra/values"][np.isfinite(columns["extra/values"])].astype("f8")
    assert [extra[key] for key in ("min", "median", "max")] == [finite.min(), np.median(finite), finite.max()]
    assert (extra["nan"], extra["distinct"]) == (1, 2001)
    assert extra["problems"] == ["1 infinite value", "1 NaN value"]
    messages = described(path)["warnings"]
    assert codes(messages) == ["infinite-values", "nan-values"]
    assert texts(messages) == ["extra/values: 1 infinite value", "extra/values: 1 NaN value"]
    np.testing.assert_array_equal(extra["histogram"], np.histogram(finite, 16)[0])
    assert fields["blob/path"]["distinct"] == len(set(columns["blob/path"]))


@given(
    hnp.arrays(
        st.sampled_from(["f4", "f8", "i4", "u8", "u1"]).map(np.dtype),
        st.integers(1, 60),
        elements=None,
    )
)
def test_statistics_are_right_for_any_numbers(values):
    summary = stats.summarise_values(Column("x", values.dtype.str[1:]), values.copy())
    numbers = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    finite = numbers[np.isfinite(numbers)]
    assert summary.nan == len(values) - len(numbers)
    assert summary.distinct == len(np.unique(numbers))
    if len(finite):
        assert summary.minimum == finite.min()
        assert summary.maximum == finite.max()
        middle = np.sort(finite)[[(len(finite) - 1) // 2, len(finite) // 2]].astype("f8")
        assert summary.median == pytest.approx(middle[0] / 2 + middle[1] / 2)
        assert sum(summary.histogram) in {0, len(finite)}


def test_statistics_do_not_depend_on_how_the_table_is_cut(odd_table, monkeypatch):
    path, _ = odd_table
    whole = inspect(path)
    monkeypatch.setattr(stats, "PASS_BYTES", 5000)
    monkeypatch.setattr(stats, "_TEXT_BLOCK_BYTES", 256 * 100)
    assert inspect(path) == whole


def test_json_has_the_documented_names(particles_cs):
    done = run("inspect", "--json", "--rows", 1, particles_cs)
    (item,) = json.loads(done.stdout)
    assert {"path", "kind", "rows", "fields", "uses", "problems"} <= item.keys()
    assert (item["path"], item["kind"], item["rows"]) == (str(particles_cs), "cs", 5)
    assert all(field.keys() >= FIELD_KEYS for field in item["fields"])
    assert set(item["uses"]) == set(USE_NAMES)
    assert item["uses"]["stacks"] == {
        "title": "",
        "ready": True,
        "missing": [],
        "hint": "",
        "reasons": [],
        "no_images": "",
        "commands": [],
    }
    assert item["uses"]["poses"]["ready"] is False
    assert item["uses"]["poses"]["missing"]
    by_name = {field["name"]: field for field in item["fields"]}
    assert by_name["blob/shape"]["shape"] == [2]
    assert (by_name["ctf/df1_A"]["dtype"], by_name["ctf/df1_A"]["unit"]) == ("f4", "Å")
    # The first row as the file has it: uids to the last bit, single precision in its own digits.
    assert item["first_rows"][0]["uid"] == 2**63
    assert item["first_rows"][0]["blob/path"] == "J1/extract/b.mrc"
    assert item["first_rows"][0]["ctf/cs_mm"] == 2.7


def test_identifiers_have_no_median_and_repeated_ones_are_reported(tmp_path):
    columns = particle_columns(["a.mrc"] * 3, range(3)) | {"uid": np.array([2**64 - 1, 7, 2**64 - 1], "u8")}
    uid = fields_of(save_cs(tmp_path / "twice.cs", columns))["uid"]
    assert (uid["min"], uid["median"], uid["max"], uid["distinct"]) == (None, None, None, 2)
    assert uid["problems"] == ["1 of 3 rows repeats another row's uid"]
    # 2**53 neighbours are one number as double precision.
    close = particle_columns(["a.mrc"] * 2, range(2)) | {"uid": np.array([2**63, 2**63 + 1], "u8")}
    assert fields_of(save_cs(tmp_path / "close.cs", close))["uid"]["distinct"] == 2


def test_degrees_in_a_column_of_radians_are_reported(tmp_path):
    columns = particle_columns(["a.mrc"] * 3, range(3)) | {"ctf/df_angle_rad": np.array([12.0, 80.0, 170.0], "f4")}
    (problem,) = fields_of(save_cs(tmp_path / "p.cs", columns))["ctf/df_angle_rad"]["problems"]
    assert "deg" in problem


def test_without_statistics_only_the_header_is_reported(particles_cs):
    table = described(particles_cs, statistics=False)
    assert table["rows"] == 5
    assert all(field["min"] is None and field["distinct"] is None for field in table["fields"])
    assert "Spherical aberration" in run("inspect", "--no-stats", particles_cs).stdout


def test_columns_are_chosen_by_pattern(particles_cs):
    assert set(fields_of(particles_cs, fields=("blob/*", "uid"))) == {
        "uid",
        "blob/path",
        "blob/idx",
        "blob/shape",
        "blob/psize_A",
    }
    with pytest.raises(MissingDataError, match="alignments9D"):
        inspect(particles_cs, fields=("alignments9D/*",))
    with pytest.raises(UsageError, match="mrc"):
        inspect(particles_cs.parent / "extract" / "a.mrc", fields=("blob/*",))


def test_more_rows_than_there_are_is_all_rows(particles_cs):
    rows = described(particles_cs, rows=99, fields=("blob/idx",))["first_rows"]
    assert rows == [{"blob/idx": index} for index in (3, 0, 1, 0, 2)]


def test_missing_columns_are_looked_for_among_files_of_the_same_particles(particles_cs):
    location = {f"location/{name}": [0.5] * 5 for name in ("center_x_frac", "center_y_frac")}
    location |= {"location/micrograph_path": ["m.mrc"] * 5, "location/micrograph_shape": np.ones((5, 2), "u4")}
    uid = particle_columns(["x"] * 5, range(5))["uid"]
    save_cs(particles_cs.with_name("J1_passthrough_particles.cs"), {"uid": uid[::-1], **location})
    save_cs(particles_cs.with_name("J1_other.cs"), {"uid": uid + 99, **location})
    # The command takes the file as it is named, since it joins the other one by itself.
    hint = "location/* comes from J1_passthrough_particles.cs, which is joined"
    use = described(particles_cs)["uses"]["coords"]
    assert (use["ready"], use["missing"], use["reasons"]) == (True, [], [])
    assert use["hint"] == f"{hint}. Give RELION's micrographs_ctf.star after it."
    assert run("inspect", particles_cs, "--check", "coords").returncode == 0
    passthrough = particles_cs.with_name("J1_passthrough_particles.cs")
    use = described(passthrough)["uses"]["stacks"]
    assert (use["ready"], use["missing"], use["reasons"]) == (True, [], [])
    assert use["hint"] == f"blob/* and ctf/* come from {particles_cs.name}, which is joined"
    assert not described(passthrough)["uses"]["ctf"]["ready"]
    # One with a part of the particles is joined with those, where its name says that it belongs to them.
    part = {name: values[:3] for name, values in {"uid": uid, **location}.items()}
    save_cs(passthrough, part)
    assert described(particles_cs)["uses"]["coords"]["hint"].startswith(f"{hint} and has 3 of the 5 particles")
    passthrough.rename(particles_cs.with_name("J1_more.cs"))
    use = described(particles_cs)["uses"]["coords"]
    assert (use["ready"], use["hint"]) == (False, "location/* is in J1_more.cs")
    assert "location/micrograph_path" in use["missing"]
    assert run("inspect", particles_cs, "--check", "coords").returncode == 3
    # Stacks are not made of a part.
    save_cs(passthrough, {"uid": np.append(uid, uid + 99), **{name: [*v, *v] for name, v in location.items()}})
    assert not described(passthrough)["uses"]["stacks"]["ready"]


def test_the_hint_for_a_star_file_names_every_option_that_its_command_needs(tmp_path):
    path = save_star(
        tmp_path / "a b.star",
        "particles",
        {
            "rlnImageName": [f"{n}@s.mrcs" for n in (1, 2)],
            **{name: [1.0, 2.0] for name in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")},
            **{name: [1.0, 2.0] for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")},
            **{name: [1.0, 2.0] for name in ("rlnOriginXAngst", "rlnOriginYAngst")},
        },
    )
    save_mrc(tmp_path / "s.mrcs", noise_images(2, 16), 1.5)
    uses = json.loads(run("inspect", path, "--json").stdout)[0]["uses"]
    for use in ("stacks", "recovar"):
        assert not uses[use]["ready"]
        (command,) = re.findall(r"`(.+)` writes them", uses[use]["hint"])
        values = {"KV": "300", "MM": "2.7", "X": "0.1", "NEW.star": str(tmp_path / "NEW.star")}
        words = [values.get(word, word) for word in shlex.split(command)][1:]
        assert run(*words, "--overwrite", cwd=tmp_path).returncode == 0
        assert described(tmp_path / "NEW.star")["uses"][use]["ready"]


def test_paths_in_hints_are_quoted():
    (use,) = of_several_files((Use("recovar", True),), Path("cryo sparc/J4"))
    assert use.hint.startswith("`cryobridge stacks downsample 'cryo sparc/J4' -D 128 -o NEW` makes")


def test_image_files_are_found_and_measured(particles_cs, tmp_path):
    assert described(particles_cs, check_paths=True)["image_files"] == {
        "files": 2,
        "found": 2,
        "missing": [],
        "too_short": [],
        "unreadable": [],
        "remedy": None,
    }
    extract = particles_cs.parent / "extract"
    save_mrc(extract / "a.mrc", noise_images(2, 16), 1.5)
    (extract / "b.mrc").write_bytes(bytes(100))
    found = described(particles_cs, check_paths=True)
    assert found["image_files"]["too_short"] == [
        {"name": "J1/extract/a.mrc", "sections": 2, "highest_index": 3},
    ]
    assert found["image_files"]["unreadable"][0]["name"] == "J1/extract/b.mrc"
    assert any("image 3 is referred to" in problem for problem in found["problems"])


def test_the_remedy_for_missing_images_works(particles_cs, tmp_path):
    moved = tmp_path / "elsewhere" / "copy"
    moved.mkdir(parents=True)
    table = moved / "particles.cs"
    particles_cs.rename(table)
    (tmp_path / "J1" / "extract").rename(moved / "stacks")
    for name in "ab":
        (moved / "stacks" / f"{name}.mrc").rename(moved / f"{name}.mrc")
    lost = described(table, check_paths=True)
    assert lost["image_files"]["found"] == 0
    assert codes(lost["warnings"]) == ["images-not-found"]
    assert codes(lost["notes"]) == ["images-found-with-options"]
    (lost,) = json.loads(run("inspect", "--json", "--paths", table).stdout)
    remedy = lost["image_files"]["remedy"].split()
    assert any(" ".join(remedy) in problem for problem in lost["problems"])
    done = run("inspect", "--json", "--paths", *remedy, table)
    assert json.loads(done.stdout)[0]["image_files"]["found"] == 2


def test_what_reads_images_is_not_ready_where_they_are_not_there(particles_cs, tmp_path):
    assert {"stacks"} <= ready_uses(described(particles_cs, check_paths=True))
    (tmp_path / "J1" / "extract").rename(tmp_path / "J1" / "moved")
    for lost in (described(particles_cs, check_paths=True), described(star_of(particles_cs), check_paths=True)):
        assert not {"stacks", "recovar"} & ready_uses(lost)
        assert {"ctf"} <= ready_uses(lost)
        assert lost["uses"]["stacks"]["missing"] == ["2 of 2 image files"]
        assert lost["image_files"]["remedy"] in lost["uses"]["stacks"]["hint"]
    assert run("inspect", "--check", "stacks", particles_cs).returncode == 0
    done = run("inspect", "--paths", "--check", "stacks", particles_cs)
    assert done.returncode == 3
    assert "2 of 2 image files missing" in done.stderr


def test_one_image_file_that_is_too_short_is_reported_too(particles_cs):
    save_mrc(particles_cs.parent / "extract" / "a.mrc", noise_images(2, 16), 1.5)
    use = described(particles_cs, check_paths=True)["uses"]["stacks"]
    assert (use["ready"], use["missing"], use["reasons"]) == (False, ["1 of 2 image files"], [])
    assert use["hint"] == "Copy them again."


def ready_uses(item):
    return {name for name, use in item["uses"].items() if use["ready"]}


def star_of(particles_cs):
    names = [f"{number}@{place}" for number, place in ((1, "J1/extract/a.mrc"), (2, "J1/extract/b.mrc"))]
    return save_star(particles_cs.with_suffix(".star"), "particles", {"rlnImageName": names} | STAR_CTF)


STAR_CTF = {
    "rlnDefocusU": [1e4, 1e4],
    "rlnDefocusV": [1e4, 1e4],
    "rlnDefocusAngle": [0.0, 9.0],
    "rlnVoltage": [300.0, 300.0],
    "rlnSphericalAberration": [2.7, 2.7],
}
# Of RECOVAR 1.0.5's metadata_readers.py: what its readers take, and what they stop at or guess without.
STAR_POSES = {name: [0.0, 1.0] for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")}
SHIFTS_PX = {"rlnOriginX": [0.0, 1.0], "rlnOriginY": [0.0, 1.0]}
SHIFTS_A = {"rlnOriginXAngst": [0.0, 1.0], "rlnOriginYAngst": [0.0, 1.0]}
NO_SHIFTS = "There are no shifts: RECOVAR takes 0, with a warning."
MAGNIFIED = {"rlnMagnification": [1e4, 1e4], "rlnDetectorPixelSize": [1.5, 1.5]}


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        (SHIFTS_PX | MAGNIFIED, []),
        (SHIFTS_A | {"rlnImagePixelSize": [1.5, 1.5]}, []),
        (SHIFTS_PX | {"rlnPixelSize": [1.5, 1.5]}, ["rlnImagePixelSize (or its like)"]),
        (SHIFTS_PX | {"rlnMagnification": [1e4, 1e4]}, ["rlnImagePixelSize (or its like)"]),
        (MAGNIFIED, []),
        (MAGNIFIED | {"rlnOriginX": [0.0, 1.0]}, ["rlnOriginXAngst and rlnOriginYAngst (or its like)"]),
    ],
)
def test_recovar_takes_the_layout_of_relion_30(columns, missing, tmp_path):
    rest = {"rlnImageName": ["1@a.mrcs", "2@a.mrcs"], "rlnAmplitudeContrast": [0.1, 0.1], **STAR_CTF, **STAR_POSES}
    path = save_star(tmp_path / "p30.star", "", rest | columns)
    use = described(path)["uses"]["recovar"]
    assert (use["ready"], use["missing"]) == (not missing, missing)
    hint = f"`cryobridge convert {path} -o NEW.star` writes them."
    if any("rlnOrigin" in name for name in missing):  # shifts that no file has are not made up
        hint = "Orientations and shifts come from Refine3D or Class3D: give its run_data.star."
    no_shifts = "" if "rlnOriginX" in columns or "rlnOriginXAngst" in columns else NO_SHIFTS
    assert use["hint"] == (hint if missing else no_shifts)


def test_our_own_files_in_the_layout_of_relion_30_are_ready_for_recovar(demo_project, tmp_path):
    path = tmp_path / "p30.star"
    assert run("convert", demo_project.group_csg, "-o", path, "--relion", "3.0").returncode == 0
    assert described(path)["uses"]["recovar"]["ready"]
    out = tmp_path / "small"
    done = run("stacks", "downsample", path, "-D", "48", "-o", out, "--datadir", demo_project.cryosparc)
    assert done.returncode == 0, done.stderr
    assert described(out / "particles.48.star")["uses"]["recovar"]["ready"]


@pytest.mark.parametrize("options", [{}, {"statistics": False}, {"fields": ("uid",)}])
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("location/micrograph_shape", [[0, 0], [768, 1024], [768, 1024]]),
        ("location/center_x_frac", [0, 0, 0]),
        ("location/center_y_frac", [0, 0, 0]),
    ],
)
def test_places_that_nobody_filled_in_are_not_ready_for_coords(column, values, options, demo_project, tmp_path):
    table = np.load(demo_project.passthrough_cs)[:3]
    path = tmp_path / "picks.cs"
    with path.open("wb") as file:
        np.save(file, table)
    assert described(path, **options)["uses"]["coords"]["ready"]
    table[column] = values
    with path.open("wb") as file:
        np.save(file, table)
    use = described(path, **options)["uses"]["coords"]
    assert (use["ready"], use["missing"]) == (False, [f"{column} other than 0"])
    assert run("coords", path, demo_project.micrographs_star, "-o", tmp_path / "out").returncode == 1


def test_one_pick_at_the_edge_is_no_fault(demo_project, tmp_path):
    table = np.load(demo_project.passthrough_cs)[:3]
    table["location/center_x_frac"][0] = 0
    with (tmp_path / "picks.cs").open("wb") as file:
        np.save(file, table)
    assert described(tmp_path / "picks.cs")["uses"]["coords"]["ready"]


def test_what_a_folder_is_ready_for_is_what_commands_take_it_for(demo_project, tmp_path):
    for path in (demo_project.refinement, demo_project.group_csg):
        uses = described(path, statistics=False)["uses"]
        assert {"coords", "stacks", "recovar"} <= {name for name, use in uses.items() if use["ready"]}
        assert uses["recovar"]["hint"] == (
            f"`cryobridge stacks downsample {path} -D 96 -o NEW` makes files that RECOVAR takes."
        )
        words = (
            ("coords", path, demo_project.micrographs_star, "-o", tmp_path / "coords"),
            ("stacks", "cs", path, "-o", tmp_path / "stacks"),
            ("stacks", "downsample", path, "-D", "48", "-o", tmp_path / "small"),
        )
        for command in words:
            done = run(*command, "--dry-run")
            assert done.returncode == 0, done.stderr


def test_a_job_with_several_results_is_not_ready_as_a_folder(demo_project, tmp_path):
    folder = tmp_path / "J9"
    folder.mkdir()
    table = np.load(demo_project.particles_cs)
    for number in (0, 1):
        with (folder / f"J9_class_0{number}_00100_particles.cs").open("wb") as file:
            np.save(file, table)
    item = described(folder, statistics=False)
    assert item["rows"] == len(table)
    for name in ("coords", "stacks", "recovar"):
        assert not item["uses"][name]["ready"]
        assert any("2 results have particles" in missing for missing in item["uses"][name]["missing"])
    assert run("stacks", "cs", folder, "-o", tmp_path / "out", "--dry-run").returncode != 0
    assert described(folder / "J9_class_00_00100_particles.cs", statistics=False)["uses"]["recovar"]["ready"]


class Steps(Silent):
    def __init__(self):
        self.totals, self.done = {}, {}

    def start(self, what, total):
        self.now_at = what
        self.totals[what], self.done[what] = total, 0

    def advance(self, steps=1):
        self.done[self.now_at] += steps


def test_it_is_reported_how_far_the_work_is(particles_cs):
    steps = Steps()
    inspect(particles_cs, check_paths=True, reporter=steps)
    n_columns = len(np.load(particles_cs).dtype.names)
    assert steps.totals == {"reading J1_particles.cs": None, "columns": n_columns, "image files": 2}
    assert (steps.done["columns"], steps.done["image files"]) == (n_columns, 2)


def test_the_command_shows_how_far_the_work_is_once_it_takes_half_a_second(particles_cs, monkeypatch):
    steps, waits = Steps(), []

    @contextmanager
    def recorded(after_s):
        waits.append(after_s)
        yield steps

    monkeypatch.setattr("cryobridge.cli.inspect_command.progress", recorded)
    monkeypatch.setattr(sys, "argv", ["cryobridge", "inspect", "--json", str(particles_cs)])
    with pytest.raises(SystemExit):
        main()
    assert waits == [0.5]
    assert steps.done["columns"] > 0


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("after_s", "quiet", "expected"), [(0.01, False, True), (60, False, False), (0.01, True, False)]
)
def test_a_bar_appears_only_when_work_takes_long(after_s, quiet, expected, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(settings, "quiet", quiet)
    with progress(after_s) as reporter:
        reporter.start("columns", 2)
        for _ in range(6000):
            time.sleep(0.01)
            if not expected or "columns" in stream.getvalue():
                break
    assert ("columns" in stream.getvalue()) is expected
    assert expected or stream.getvalue() == ""


def test_a_cut_row_of_a_star_file_is_named_by_its_line(tmp_path):
    path = save_star(tmp_path / "p.star", "particles", {"rlnDefocusU": range(40), "rlnDefocusV": range(40)})
    path.write_text(path.read_text().rstrip().removesuffix(" 39") + "\n")
    with pytest.raises(FormatError, match="line 46: 1 value for 2 columns"):
        inspect(path)


@pytest.mark.parametrize("options", [(), ("--no-stats",)], ids=["with statistics", "without"])
@pytest.mark.parametrize("program", ["relion", "cryosparc"])
def test_a_file_of_particles_without_a_row_is_ready_for_nothing(program, options, particles_cs, tmp_path, command):
    if program == "relion":
        columns = ["rlnImageName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", *STAR_CTF]
        path = save_star(tmp_path / "particles.star", "particles", {name: [] for name in columns})
    else:
        path = tmp_path / "particles.cs"
        with path.open("wb") as file:
            np.save(file, np.load(particles_cs)[:0])
    for use in ("poses", "ctf", "recovar", "relion", "stacks"):
        code, out, err = command("inspect", path, "--check", use, *options)
        assert code == 3
        assert f"not ready for {use}: particles missing" in err
        assert "the table has no rows" in out


def test_a_table_without_rows_is_described(tmp_path):
    columns = {name: np.asarray(values)[:0] for name, values in particle_columns(["a"], [0]).items()}
    table = described(save_cs(tmp_path / "none.cs", columns), check_paths=True)
    assert table["rows"] == 0
    assert "no-rows" in codes(table["warnings"])
    assert len(table["fields"]) == len(columns)


def test_a_job_folder_is_its_files_joined_by_uid(demo_project):
    job, group = described(demo_project.refinement, rows=3), described(demo_project.group_csg)
    main, extra = np.load(demo_project.particles_cs), np.load(demo_project.passthrough_cs)
    assert {field["name"] for field in job["fields"]} == {*main.dtype.names, *extra.dtype.names}
    assert {field["name"] for field in group["fields"]} == {field["name"] for field in job["fields"]}
    assert (job["kind"], job["rows"], group["kind"], group["rows"]) == ("cryosparc job", 16, "csg", 16)
    for row, uid in zip(job["first_rows"], main["uid"], strict=False):
        assert row["uid"] == uid
        assert row["location/center_x_frac"] == pytest.approx(extra["location/center_x_frac"][extra["uid"] == uid][0])
    for item in (job, group):
        assert item["uses"]["coords"]["ready"]
        assert item["uses"]["recovar"]["ready"]
    assert demo_project.passthrough_cs.name in described(demo_project.particles_cs)["uses"]["coords"]["hint"]


def test_images_of_a_job_folder_are_looked_for_from_its_project(demo_project):
    found = described(demo_project.refinement, check_paths=True)["image_files"]
    assert (found["files"], found["found"]) == (2, 2)


@pytest.mark.parametrize(
    ("name", "kind", "rows", "ready"),
    [
        ("real/cryosparc_P12_J24_001_particles.cs", "cs", 2019, FROM_CRYOSPARC | POSED),
        ("real/empiar_10076_7.cs", "cs", 7, FROM_CRYOSPARC),
        ("real/empiar_10076_7.star", "star", 7, FROM_RELION),
        ("real/relion31.star", "star", 5, (FROM_RELION | POSED) - {"relion"}),
        ("real/run_it025_optimiser_2D.star", "star", 1, set()),
        ("real/empiar_10076_7.mrc", "mrc", 7, set()),
        ("real/relion31.mrcs", "mrc", 5, set()),
        ("real/EMD-3197.map", "mrc", None, set()),
        ("real/pose.cs.pkl", "pickle", 2019, {"poses"}),
        ("real/ctf2.pkl", "pickle", 2019, {"ctf"}),
        ("recovar_run/particles/particles.32.mrcs", "mrc", 600, {"recovar", "relion", "cryosparc", "cryodrgn"}),
        ("recovar_run/particles/particles.star", "star", 600, FROM_RELION | POSED | {"relion"}),
        ("recovar_run/out", "recovar result", 600, FROM_RELION | POSED | {"relion"}),
        ("recovar_run/out/analysis_2", "recovar result", 600, {"select"}),
        ("recovar_run/out/model/params.pkl", "pickle", None, set()),
        ("cryolike_reference/indexed_cs/params.npz", "npz", None, set()),
        ("cryolike_reference/job_directory/cryosparc/J4", "cryosparc job", 12, BATCHES),
    ],
)
def test_reference_files_are_recognised(name, kind, rows, ready, reference_data):
    item = described(reference_data / name)
    assert (item["kind"], item["rows"]) == (kind, rows)
    assert {use for use, verdict in item["uses"].items() if verdict["ready"]} == ready


@pytest.mark.parametrize(
    ("value", "content", "ready", "told"),
    [
        (np.array([4, 0, 7]), "indices", {"select"}, "rows of"),
        (np.array([1, 0, 1, 2]), "labels", {"select"}, "kmeans"),
        (np.ones((4, 8), "f4"), "latent", {"select"}, "attach_latent"),
        (np.zeros((4, 2), "f4"), "unknown", set(), ""),  # it may be shifts
        (np.zeros((4, 9), "f4"), "unknown", set(), ""),  # or the CTF, without values
    ],
)
def test_pickles_of_cryodrgn_are_told_apart_with_what_takes_them(value, content, ready, told, tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
    item = inspect(tmp_path / "x.pkl")
    assert item.to_json()["pickle"]["content"] == content
    assert {use.name for use in item.uses if use.ready} == ready
    assert all(told in use.hint for use in item.uses)


def test_a_real_refinement_has_the_values_that_cryodrgn_read_from_it(reference_data):
    fields = fields_of(reference_data / "real" / "cryosparc_P12_J24_001_particles.cs")
    ctf = fields_of(reference_data / "real" / "ctf2.pkl")
    for ours, theirs in (("ctf/df1_A", "defocus_u_A"), ("ctf/df2_A", "defocus_v_A"), ("blob/psize_A", "pixel_size_A")):
        assert [fields[ours][key] for key in ("min", "median", "max", "distinct")] == pytest.approx(
            [ctf[theirs][key] for key in ("min", "median", "max", "distinct")]
        )
    assert ctf["defocus_angle_deg"]["min"] == pytest.approx(np.degrees(fields["ctf/df_angle_rad"]["min"]))


def test_a_stack_whose_header_says_volume_is_a_stack(reference_data):
    item = described(reference_data / "real" / "empiar_10076_7.mrc")
    assert (item["mrc"]["is"], item["mrc"]["certain"], item["mrc"]["ispg"]) == ("stack", False, 1)
    assert "header says volume" in item["facts"]["kind"]


def test_a_pickle_that_asks_for_code_is_described_and_not_run(reference_data):
    item = described(reference_data / "recovar_run" / "out" / "model" / "params.pkl")
    assert "argparse.Namespace" in item["pickle"]["names"]
    assert "Nothing was run" in item["problems"][0]
    assert {field["name"] for field in item["fields"]} >= {"voxel_size", "volume_shape"}


def test_recovar_volumes_carry_their_voxel_size_and_half_maps_a_resolution(reference_data):
    item = described(reference_data / "recovar_run" / "out")["recovar"]
    assert {volume["voxel_size_A"] for volume in item["volumes"]} == {17.0}
    assert item["half_maps"]["nyquist_A"] == 34.0
    assert item["half_maps"]["fsc"][0] == pytest.approx(1.0, abs=1e-3)


def test_a_whole_relion_job_has_no_problems_and_one_kind_of_file_less_is_one_sentence(demo_project, tmp_path):
    assert described(demo_project.classification)["problems"] == []
    for path in demo_project.classification.glob("run_it*.star"):
        if not path.name.endswith("sampling.star"):
            (tmp_path / path.name).symlink_to(path)
    assert described(tmp_path)["problems"] == ["No iteration has its sampling.star"]


# The function


def test_the_function_checks_and_draws_as_the_command_does(particles_cs, tmp_path):
    found = inspect(str(particles_cs), check=("stacks", "ctf"), plot=tmp_path / "a.png", fields="ctf/*")
    assert (tmp_path / "a.png").is_file()
    assert found.is_ready("stacks")
    assert not found.is_ready("poses")
    with pytest.raises(NotReadyError, match="not ready for poses") as error:
        inspect(particles_cs, check=("stacks", "poses"))
    assert error.value.exit_code == 3
    assert codes(found.not_ready(("stacks", "poses"))) == ["not-ready"]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"fields": 3}, "fields"),
        ({"rows": -1}, "rows"),
        ({"statistics": "no"}, "statistics"),
        ({"check": ("dinner",)}, "check"),
        ({"datadir": 5}, "datadir"),
        ({"n_rows": 5}, "n_rows"),
    ],
)
def test_wrong_options_are_named(options, name, particles_cs):
    with pytest.raises(UsageError) as error:
        inspect(particles_cs, **options)
    assert error.value.option == name


def test_wrong_arguments_and_idle_options_are_refused(particles_cs, tmp_path):
    with pytest.raises(UsageError) as error:
        inspect(3)
    assert error.value.option == "path"
    with pytest.raises(UsageError, match="check_paths=True"):
        inspect(particles_cs, datadir=tmp_path)
    assert run("inspect", particles_cs, "--datadir", tmp_path).returncode == 2


def test_an_error_names_the_flags_of_this_command(particles_cs):
    # Other commands have an option of the name rows, too, which is typed --ind there.
    done = run("inspect", "--rows", 1, particles_cs.parent / "extract" / "a.mrc")
    assert "--fields, --rows and --paths" in done.stderr
    assert "--ind" not in done.stderr


STAR_FOR_RELION = """data_optics

loop_
_rlnOpticsGroup
_rlnOpticsGroupName
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnImagePixelSize
_rlnImageSize
_rlnImageDimensionality
_rlnCtfDataAreCtfPremultiplied
1 opticsGroup1 300 2.7 0.1 1.5 32 2 1

data_particles

loop_
_rlnImageName
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnAngleRot
_rlnOriginXAngst
_rlnOpticsGroup
_rlnRandomSubset
000001@not_there.mrcs 10000 9900 1 5 1 1 1
000002@not_there.mrcs 10000 9900 1 5 1 1 2
000003@not_there.mrcs 10000 9900 1 5 1 1 1
"""


def test_a_star_file_that_relion_takes_is_ready_for_it(tmp_path):
    path = tmp_path / "a.star"
    path.write_text(STAR_FOR_RELION)
    found = inspect(path, check=["relion"])
    assert found.is_ready("relion")
    assert dict(found.facts)["optics group 1"].endswith("box 32 px, CTF-premultiplied")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("5 1 1 2", "5 1 1 1", "rlnRandomSubset: all particles are in half set 1"),
        ("5 1 1 2", "5 1 1 3", "rlnRandomSubset: half sets are 1, 3; RELION takes 1 and 2 only"),
        ("5 1 1 2", "5 1 1 0", "rlnRandomSubset: 1 of 3 particles is in no half set"),
        ("5 1 1 2", "nan 1 1 2", "rlnAngleRot: not a number, or infinite, in row 1"),
        ("5 1 1 2", "5 inf 1 2", "rlnOriginXAngst: not a number, or infinite, in row 1"),
        ("2@not_there.mrcs 10000", "2@not_there.mrcs nan", "rlnDefocusU: not a number, or infinite, in row 1"),
        ("5 1 1 2", "5 1 7 2", "rlnOpticsGroup: not defined in data_optics, in row 1"),
        (
            "2@not_there.mrcs",
            "2@not_there.mrc",
            "rlnImageName: 1 image is in a stack named .mrc, which RELION keeps for maps",
        ),
        (" 300 ", " 0 ", "rlnVoltage: 0, with which RELION can't calculate, in row 0"),
        ("_rlnOpticsGroup\n_rlnRandom", "_rlnGroupNumber\n_rlnRandom", "rlnOpticsGroup: not a column of the particles"),
        ("_rlnImageSize\n", "_rlnOther\n", "rlnImageSize: not a column of data_optics"),
        (
            "_rlnCtfDataAreCtfPremultiplied\n1 opticsGroup1 300 2.7 0.1 1.5 32 2 1",
            "_rlnMagMat00\n_rlnMagMat01\n_rlnMagMat10\n_rlnMagMat11\n1 opticsGroup1 300 2.7 0.1 1.5 32 2 0 0 0 0",
            "rlnMagMat*: singular, as zeros are, in row 0",
        ),
    ],
)
def test_what_relion_refuses_or_misreads_is_not_ready_for_it(old, new, reason, tmp_path):
    path = tmp_path / "a.star"
    path.write_text(STAR_FOR_RELION.replace(old, new))
    done = run("inspect", path, "--check", "relion", "--json")
    assert done.returncode == 3
    (item,) = json.loads(done.stdout)
    assert item["uses"]["relion"]["reasons"] == [reason]
    assert item["uses"]["relion"]["hint"]
    assert f"not ready for relion: {reason}" in " ".join(run("inspect", path, "--check", "relion").stderr.split())


def test_metadata_of_motion_are_described(tmp_path):
    motion = MotionModel(np.array([[np.nan, np.nan], [0, 0], [3, 4.0]]), (100, 120), np.zeros((2, 18)), first_frame=2)
    metadata = MotionMetadata(motion=motion, movie="m.tif", pixel_size_A=2.0, dose_per_frame_e_A2=1.0)
    write_motion(tmp_path / "m.star", metadata)
    found = inspect(tmp_path / "m.star")
    assert found.title == "RELION STAR, motion of one micrograph"
    facts = dict(found.facts)
    assert facts["movie"] == "m.tif, 120 × 100 px of 2 Å"
    assert facts["frames"] == "3, 2 of them aligned"
    assert facts["motion"].startswith("10 Å in all")
    text = (tmp_path / "m.star").read_text()
    (tmp_path / "m.star").write_text(text.replace("_rlnMicrographDoseRate 1\n", ""))
    assert "rlnMicrographDoseRate is missing" in str(inspect(tmp_path / "m.star").messages[0])
