"""`coords` as a function: what it returns, and what it refuses."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from coords_files import location, save_micrographs, tree
from cryobridge.errors import FormatError, OutputExistsError, UsageError
from cryobridge.jobs.coords.coords import coords
from cryobridge.jobs.micrographs.orientation_report import OrientationError
from helpers import codes, save_cs

OUTPUTS = ("autopick.star", "coords_suffix_autopick.star", "Raw_data", "Movies")


@pytest.fixture
def files(tmp_path):
    stems = ["a", "b", "b"]
    return save_cs(tmp_path / "picks.cs", location(stems)), save_micrographs(tmp_path / "mics.star", stems)


@pytest.fixture
def nameless(tmp_path):
    columns = location(["m"] * 30)
    picks = save_cs(tmp_path / "nameless.cs", {f"f{n}": values for n, values in enumerate(columns.values())})
    return picks, save_micrographs(tmp_path / "m.star", ["m"])


def test_the_report_counts_and_names_what_is_written(files, tmp_path):
    report = coords(*map(str, files), str(tmp_path / "out"))
    assert (report.rows_in, report.rows_out, report.left_out, report.micrographs) == (3, 3, {}, 2)
    assert report.outputs == tuple(tmp_path / "out" / name for name in OUTPUTS)
    assert all(path.exists() for path in report.outputs)
    assert report.dry_run is False
    assert codes(report.warnings) == ["no-relion-project", "orientation-unchecked"]
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["rows_out"] == 3


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("pick_stats/ncc_score", [0.5, np.nan, 0.5], "not a number, or infinite"),
        ("alignments2D/pose", [0.5, 0.5, np.inf], "not a number, or infinite"),
        ("filament/position_A", [np.nan, 0.5, 0.5], "not a number, or infinite"),
        ("filament/filament_uid", [1.0, np.nan, 2.0], "whole numbers are needed"),
        ("filament/filament_uid", [[1, 2]] * 3, "one value has the shape"),
        ("location/micrograph_shape", [[64.0, 64.0], [np.inf, 64.0], [64.0, 64.0]], "not a number, or infinite"),
    ],
)
def test_values_that_no_pick_can_have_are_refused_before_anything_is_written(name, values, message, tmp_path):
    whole = {
        "alignments2D/pose": np.zeros(3),
        "filament/filament_uid": np.arange(3),
        "filament/position_A": np.zeros(3),
    }
    picks = save_cs(tmp_path / "picks.cs", location(["a", "b", "b"]) | whole | {name: np.array(values)})
    with pytest.raises(FormatError, match=message) as caught:
        coords(picks, save_micrographs(tmp_path / "mics.star", ["a", "b"]), tmp_path / "out")
    assert caught.value.field == name
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", ["1e400", "1.5", "nan"])
def test_an_optics_group_that_is_no_whole_number_is_refused(number, files, tmp_path):
    text = files[1].read_text()
    optics = f"data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n{number} 300\n\n"
    files[1].write_text(optics + text)
    with pytest.raises(FormatError, match="is not a whole number") as caught:
        coords(*files, tmp_path / "out")
    assert caught.value.field == "rlnOpticsGroup"


def test_picks_go_into_the_current_folder(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert coords(*files).outputs == tuple(map(Path, OUTPUTS))
    assert (tmp_path / "autopick.star").is_file()


def test_a_dry_run_writes_nothing_and_says_so(files, tmp_path):
    before = tree(tmp_path)
    assert coords(*files, tmp_path / "out", dry_run=True).dry_run is True
    assert tree(tmp_path) == before


def test_nothing_is_replaced_unasked(files, tmp_path):
    coords(*files, tmp_path / "out")
    before = tree(tmp_path / "out")
    for dry_run in (False, True):
        with pytest.raises(OutputExistsError):
            coords(*files, tmp_path / "out", flip_x=True, dry_run=dry_run)
    assert tree(tmp_path / "out") == before
    coords(*files, tmp_path / "out", flip_x=True, overwrite=True)
    assert tree(tmp_path / "out") != before


def test_inferred_columns_are_a_warning_and_can_be_refused(nameless, tmp_path):
    report = coords(*nameless, tmp_path / "out")
    assert report.columns_inferred
    (warning,) = [message for message in report.warnings if message.code == "columns-inferred"]
    assert "f6" in str(warning)
    assert "f7" in str(warning)
    # Right after the shape stands the pixel size, which is taken as asked, and is no x that varies.
    report = coords(*nameless, tmp_path / "other", nudge=False)
    assert report.coordinate_fields[2:] == ("f5", "f6")
    assert "columns-by-position" in codes(report.notes)
    assert "columns-inferred" not in codes(report.warnings)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"subpixel": "yes"}, "subpixel"),
        ({"passthrough": 3}, "passthrough"),
        ({"xy_fields": "x"}, "xy_fields"),
        ({"xy_fields": ("x", "y", "z")}, "xy_fields"),
        ({"on_unmatched": "ignore"}, "on_unmatched"),
        ({"check_micrographs": 0}, "check_micrographs"),
        ({"preview": 1.5}, "preview"),
        ({"flip_z": True}, "flip_z"),
    ],
)
def test_wrong_options_are_named(options, name, files, tmp_path):
    with pytest.raises(UsageError) as error:
        coords(*files, tmp_path / "out", **options)
    assert error.value.option == name
    assert not (tmp_path / "out").exists()


def test_wrong_arguments_are_named(files, tmp_path):
    picks, star = files
    for arguments, name in (((1, star), "picks"), ((picks, None), "micrographs"), ((picks, star, 2.0), "output")):
        with pytest.raises(UsageError) as error:
            coords(*arguments)
        assert error.value.option == name


def test_the_signature_shows_every_option():
    parameters = inspect.signature(coords).parameters
    assert {"picks", "micrographs", "output", "overwrite", "flip_x", "nudge", "check_orientation"} <= set(parameters)
    assert parameters["check_micrographs"].default == 5


def test_the_orientation_is_part_of_the_report(demo_project, tmp_path):
    files = demo_project.particles_cs, demo_project.micrographs_star
    found = coords(*files, tmp_path / "out", check_orientation=True, preview=1)
    assert (found.orientation.agrees, found.orientation.best) == (True, found.convention)
    assert [path.parent.name for path in found.previews] == ["preview"]
    assert all(path.is_file() for path in found.previews)
    other = coords(*files, tmp_path / "flipped", flip_x=True, force=True)
    assert not other.orientation.agrees
    assert codes(other.warnings)[-1] == "orientation-differs"
    with pytest.raises(OrientationError) as error:
        coords(*files, tmp_path / "refused", flip_x=True)
    assert error.value.exit_code == 3
    assert not (tmp_path / "refused").exists()


def test_reasons_make_up_what_is_not_written(tmp_path):
    columns = location(["a", "b", "b", "a"])
    columns["location/center_x_frac"][0] = np.nan
    picks, star = save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "a.star", ["a"])
    report = coords(picks, star, tmp_path / "out", drop_outside=True, on_unmatched="skip")
    assert report.rows_in == report.rows_out + sum(report.left_out.values())
    assert codes(report.warnings).count("rows-left-out") == 2
