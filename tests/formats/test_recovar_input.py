"""Which particle files RECOVAR 1.0.5 reads rightly, as its metadata_readers.py and numpy.load have it."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.formats.cryosparc.cs import write_cs
from helpers import noise_images, particle_columns, run, save_cs, save_mrc, save_star

N = 4
POSES = {"rlnAngleRot": [1.0, 2, 3, 4], "rlnAngleTilt": [5.0, 6, 7, 8], "rlnAnglePsi": [9.0, 1, 2, 3]}
FLAT = POSES | {"rlnAngleRot": [0.0] * N, "rlnAngleTilt": [0.0] * N}
SHIFTS = {"rlnOriginXAngst": [0.0, 1, 2, 3], "rlnOriginYAngst": [0.0, 1, 2, 3]}
CTF = {"rlnDefocusU": [1e4] * N, "rlnDefocusV": [1e4] * N, "rlnDefocusAngle": [9.0] * N}
OPTICS = {"rlnVoltage": [300.0] * N, "rlnSphericalAberration": [2.7] * N, "rlnAmplitudeContrast": [0.1] * N}
SIZES = {"rlnImagePixelSize": [1.5] * N, "rlnImageSize": [16] * N}


def aligned(psize_A=1.5, shift=1.0):
    return {
        "alignments3D/pose": np.linspace(-1, 1, 3 * N).reshape(N, 3).astype("f4"),
        "alignments3D/shift": np.full((N, 2), shift, "f4"),
        "alignments3D/psize_A": np.full(N, psize_A, "f4"),
    }


def cs_columns(folder, **changes):
    save_mrc(folder / "a.mrcs", noise_images(N, 16), 1.5)
    return particle_columns(["a.mrcs"] * N, range(N)) | aligned() | changes


def recovar(path):
    (use,) = (use for use in cb.inspect(path, statistics=False).uses if use.name == "recovar")
    return use


def follow(hint, tmp_path, new):
    """Run the command of a hint with the name of its output filled in."""
    command = shlex.split(hint.split("`")[1].replace("NEW", str(new)))
    done = run(*command[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def star_of(tmp_path, columns):
    save_mrc(tmp_path / "a.mrcs", noise_images(N, 16), 1.5)
    names = {"rlnImageName": [f"{row}@a.mrcs" for row in range(1, N + 1)]}
    return save_star(tmp_path / "p.star", "", names | CTF | OPTICS | columns)


def test_a_file_of_one_pixel_size_is_ready(tmp_path):
    path = save_cs(tmp_path / "p.cs", cs_columns(tmp_path))
    assert recovar(path).ready
    without = {name: values for name, values in cs_columns(tmp_path).items() if name != "alignments3D/psize_A"}
    assert recovar(save_cs(tmp_path / "q.cs", without)).ready
    still = save_cs(tmp_path / "r.cs", cs_columns(tmp_path) | aligned(psize_A=3.0, shift=0.0))
    assert recovar(still).ready


def test_shifts_in_other_pixels_are_not_and_downsample_mends_them(tmp_path):
    path = save_cs(tmp_path / "p.cs", cs_columns(tmp_path) | aligned(psize_A=3.0, shift=2.0))
    use = recovar(path)
    assert not use.ready
    assert "alignments3D/psize_A is 3 Å and blob/psize_A 1.5 Å" in use.reasons[0]
    with pytest.raises(cb.CryobridgeError, match=r"RECOVAR would take shifts 0\.5 times as long"):
        cb.inspect(path, check=("recovar",))
    printed = follow(use.hint, tmp_path, tmp_path / "small")
    assert "$ recovar pipeline" in printed
    new = tmp_path / "small" / "particles.16.star"
    assert recovar(new).ready
    np.testing.assert_allclose(cb.read(new).poses.shift_A, cb.read(path).poses.shift_A, atol=1e-5)
    assert np.abs(cb.read(new).poses.shift_A).max() == pytest.approx(6)


def test_a_header_that_numpy_does_not_read_is_not(tmp_path):
    many = {f"extra/column_{number:04d}": np.zeros(N, "f4") for number in range(400)}
    path = save_cs(tmp_path / "p.cs", cs_columns(tmp_path) | many)
    with pytest.raises(ValueError, match="Header info length"):
        np.load(path)
    use = recovar(path)
    assert not use.ready and "NumPy reads at most 10,000" in use.reasons[0]
    follow(use.hint, tmp_path, tmp_path / "small")
    assert recovar(tmp_path / "small" / "particles.16.star").ready
    few = {name: many[name] for name in list(many)[:100]}
    short = save_cs(tmp_path / "q.cs", cs_columns(tmp_path) | few)
    np.load(short)
    assert recovar(short).ready


@pytest.mark.parametrize("name", ["blob/shape", "blob/psize_A"])
def test_several_boxes_or_pixel_sizes_are_not_and_one_of_them_is(name, tmp_path):
    columns = cs_columns(tmp_path)
    columns[name][2:] = 24 if name == "blob/shape" else 1.75
    path = save_cs(tmp_path / "p.cs", columns | aligned(shift=0.0))
    use = recovar(path)
    assert not use.ready and "RECOVAR takes one " in use.reasons[0]
    follow(use.hint, tmp_path, tmp_path / "one")
    one = tmp_path / "one.cs"
    assert len(cb.read(one)) == 2
    assert recovar(one).ready


def test_angles_of_a_2d_classification_are_no_poses_and_nothing_for_recovar(tmp_path):
    path = star_of(tmp_path, FLAT | SHIFTS | SIZES)
    found = cb.inspect(path)
    assert found.is_ready("stacks") and found.is_ready("ctf")
    for name in ("poses", "recovar"):
        (use,) = (use for use in found.uses if use.name == name)
        assert not use.ready
        assert "rlnAngleRot and rlnAngleTilt are 0 in every row" in use.reasons[0]
    done = run("stacks", "downsample", path, "-D", 8, "-o", tmp_path / "small")
    assert done.returncode == 0 and "recovar" not in done.stdout
    assert cb.inspect(star_of(tmp_path, POSES | SHIFTS | SIZES)).is_ready("recovar")
    columns = cs_columns(tmp_path)
    flat = {name: values for name, values in columns.items() if not name.startswith("alignments3D/")}
    flat["alignments2D/pose"] = np.zeros(N, "f4")
    found = cb.inspect(save_cs(tmp_path / "flat.cs", flat))
    assert not found.is_ready("poses") and not found.is_ready("recovar")


@pytest.mark.parametrize("shifts", [{}, SHIFTS])
@pytest.mark.parametrize("sizes", [SIZES, SIZES | {"rlnImagePixelSize": [1.5, 1.5, 1.5, 1.6]}])
def test_downsample_prints_a_command_where_inspect_says_ready(shifts, sizes, tmp_path):
    path = star_of(tmp_path, POSES | shifts | sizes)
    done = run("stacks", "downsample", path, "-D", 8, "-o", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    assert ("$ recovar pipeline" in done.stdout) == recovar(tmp_path / "small" / "particles.8.star").ready
    assert recovar(path).ready == (sizes is SIZES)


def test_tilts_of_one_particle_need_options_of_recovar(tmp_path):
    tilts = {"rlnGroupName": ["1", "1", "2", "2"], "rlnCoordinateX": [1, 1, 2, 2], "rlnCoordinateZ": [4, 4, 4, 4]}
    path = star_of(tmp_path, POSES | SIZES | tilts)
    use = recovar(path)
    assert use.ready and "tilts of one particle (2 particles): RECOVAR needs --tilt-series" in use.hint
    done = run("stacks", "downsample", path, "-D", 8, "-o", tmp_path / "small")
    assert "--tilt-series --tilt-series-ctf warp" in " ".join(done.stdout.split())


def test_images_that_are_multiplied_by_their_ctf_are_not(tmp_path):
    path = star_of(tmp_path, POSES | SHIFTS | SIZES | {"rlnCtfDataAreCtfPremultiplied": [1] * N})
    use = recovar(path)
    assert not use.ready and "multiplied by their CTF" in use.reasons[0] and use.hint
    path = star_of(tmp_path, POSES | SHIFTS | SIZES | {"rlnCtfDataAreCtfPremultiplied": [0] * N})
    assert recovar(path).ready


def test_a_stream_of_columns_is_no_array_that_recovar_reads(tmp_path):
    path = tmp_path / "p.cs"
    table = cb.open_table(save_cs(tmp_path / "q.cs", cs_columns(tmp_path)))
    write_cs(path, table.read(table.names), container="csdat")
    use = recovar(path)
    assert not use.ready and "CSDAT" in use.reasons[0]
    follow(use.hint, tmp_path, tmp_path / "small")
    assert recovar(tmp_path / "small" / "particles.16.star").ready


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [np.array([b"x"] * N), np.full(N, 1j, "c8"), np.full(N, np.nan), np.full(N, np.inf)])
def test_a_pixel_size_that_is_no_number_is_said_and_hides_no_other_word(values, tmp_path):
    use = recovar(save_cs(tmp_path / "p.cs", cs_columns(tmp_path) | {"blob/psize_A": values}))
    assert not use.ready
    assert "blob/psize_A is not a number in all rows" in " ".join(use.reasons)
