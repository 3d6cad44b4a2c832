"""What RELION refuses or reads wrongly, and how it takes what is written instead."""

import shlex
import subprocess

import mrcfile
import numpy as np
import pandas as pd
import pytest
from interop.relion import read_star, write_star

import cryobridge as cb
from cryobridge.errors import CryobridgeError
from helpers import noise_images, particle_columns, save_cs

pytestmark = pytest.mark.relion

N, BOX = 12, 24
REFINE = (
    "relion_refine_mpi --i {star} --o out/run --ref reference.mrc --auto_refine --split_random_halves "
    "--particle_diameter 80 --ini_high 20 --ctf --healpix_order 1 --offset_range 1 --offset_step 1 --iter 1 --pad 1"
)


def run(folder, command):
    return subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def save_stack(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = 4


@pytest.fixture
def dark(tmp_path):
    """A cryoSPARC set of dark particles, all in one half set."""
    images = noise_images(N, BOX).astype("f4")
    save_stack(tmp_path / "J1" / "a.mrc", images)
    rng = np.random.default_rng(3)
    alignment = {
        "alignments3D/pose": rng.normal(size=(N, 3)).astype("f4"),
        "alignments3D/shift": np.zeros((N, 2), "f4"),
        "alignments3D/psize_A": np.full(N, 4, "f4"),
        "alignments3D/split": np.zeros(N, "u4"),
        "blob/shape": np.full((N, 2), BOX, "u4"),
        "blob/psize_A": np.full(N, 4, "f4"),
        "blob/sign": np.full(N, -1, "f4"),
    }
    return images, save_cs(tmp_path / "a.cs", particle_columns(["J1/a.mrc"] * N, range(N), **alignment))


@pytest.fixture
def reference(tmp_path):
    """A map to refine against, and a folder for what comes of it."""
    (tmp_path / "out").mkdir()
    grid = (np.mgrid[:BOX, :BOX, :BOX] - BOX // 2) ** 2
    with mrcfile.new(tmp_path / "reference.mrc") as file:
        file.set_data(np.exp(-grid.sum(axis=0) / 20).astype("f4"))
        file.voxel_size = 4


def pixels(path):
    with mrcfile.open(path) as file:
        return file.data.copy()


def test_relion_refines_without_half_sets_that_do_not_split(dark, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    report = cb.convert(dark[1], "x.star", link_stacks="links")
    assert "half-sets-left-out" in {message.code for message in report.warnings}
    mpirun = "mpirun --oversubscribe -n 3 "
    constant = with_column((tmp_path / "x.star").read_text(), "rlnRandomSubset", ["1"] * N)
    (tmp_path / "constant.star").write_text(constant)
    refused = run(tmp_path, mpirun + REFINE.format(star="constant.star"))
    assert "one of your half sets has no segments" in refused.stdout + refused.stderr
    with pytest.raises(CryobridgeError, match="all particles are in half set 1"):
        cb.inspect("constant.star", check=["relion"])
    assert cb.inspect("x.star").is_ready("relion")
    begins = shlex.split("timeout 50 " + mpirun + REFINE.format(star="x.star"))
    with subprocess.Popen(begins, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as refinement:
        assert any("Auto-refine: Iteration= 1" in line for line in refinement.stdout)
        refinement.terminate()


def with_column(text, name, values):
    """Add a column to the last block of a STAR file."""
    head, _, rows = text.rstrip("\n").rpartition("\n_rln")
    label, _, rows = rows.partition("\n")
    number = int(label.partition("#")[2] or 0) + 1
    lines = [f"{row} {value}" for row, value in zip(rows.splitlines(), values, strict=True)]
    return "\n".join([f"{head}\n_rln{label}", f"_{name} #{number}", *lines, ""])


def test_relion_opens_no_stacks_named_mrc(dark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cb.convert(dark[1], "x.star")
    assert "reserved for 3D maps" in run(tmp_path, "relion_reconstruct --i x.star --o x.mrc --ctf").stderr
    with pytest.raises(CryobridgeError, match="stacks named"):
        cb.inspect("x.star", check=["relion"])


# What `inspect --check relion` refuses, and RELION stops at: what is changed of a sound file, and what RELION says.
STOPS = {
    "no group of a particle": (("_rlnOpticsGroup #11", "_rlnGroupNumber #11"), "Failed to get optics group"),
    "no box": (("_rlnImageSize", "_rlnOther"), "box sizes not available"),
    "group that is not defined": ((" 1\n000003@", " 7\n000003@"), "optics groups were not defined"),
    "no Cs": (("_rlnSphericalAberration", "_rlnOther"), "not all necessary variables defined"),
    "beyond the end": (("000003@links", "000099@links"), "exceeds stack size"),
}
REFINE_ONCE = (
    "relion_refine --i {star} --o out/run --ref reference.mrc --particle_diameter 72 --ini_high 20 --ctf --iter 1 "
    "--healpix_order 0 --offset_range 0 --offset_step 1 --pad 1 --firstiter_cc"
)


@pytest.mark.parametrize("name", STOPS)
def test_relion_stops_where_inspect_says_so(name, dark, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (old, new), said = STOPS[name]
    cb.convert(dark[1], "x.star", link_stacks="links")
    sound = (tmp_path / "x.star").read_text()
    assert sound.count(old) == 1
    (tmp_path / "y.star").write_text(sound.replace(old, new))
    assert said in run(tmp_path, REFINE_ONCE.format(star="y.star")).stderr
    with pytest.raises(CryobridgeError, match="not ready for relion"):
        cb.inspect("y.star", check=["relion"])


def test_images_are_called_normalised_as_relion_calls_them_and_its_command_does_it(
    dark, reference, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    stack = tmp_path / "J1" / "a.mrc"
    cb.convert(dark[1], "x.star", link_stacks="links")
    for factor, offset in ((1, 0), (0.45, 0), (0.6, 0), (1.9, 0), (2.2, 0), (1, 0.4), (1, 0.65)):
        save_stack(stack, (factor * dark[0] + offset).astype("f4"))
        complains = "have not been normalised" in run(tmp_path, REFINE_ONCE.format(star="x.star")).stderr
        found = [item for item in cb.inspect("x.star", check=["relion"]).warnings if item.code == "not-normalised"]
        assert bool(found) == complains, (factor, offset)
    command = str(found[0]).split("`")[1].replace("STACK.mrcs", "links/J1/a.mrcs")
    assert run(tmp_path, command).returncode == 0
    save_stack(stack, pixels(tmp_path / "NEW.mrcs"))
    assert not cb.inspect("x.star", check=["relion"]).warnings


@pytest.mark.parametrize(
    "names", [["001", "opticsGroup5", "krios_jan", "7"], ["1", "01", "001", "x"], ["x", "x", "y", "y_2"]]
)
def test_names_of_optics_groups_stay_as_they_are(names, dark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cb.convert(dark[1], "x.star", link_stacks="links")
    tables = read_star(tmp_path / "x.star")
    optics = pd.concat([tables["optics"]] * 4).assign(rlnOpticsGroup=range(1, 5), rlnOpticsGroupName=names)
    particles = tables["particles"].assign(rlnOpticsGroup=[1, 2, 3, 4] * 3)
    write_star(tmp_path / "y.star", {"optics": optics, "particles": particles})
    cb.convert("y.star", "z.star")
    cb.select("y.star", output="s.star", random=11)
    cb.downsample("y.star", output="small", box_px=12)
    for path in ("z.star", "s.star", "small/particles.12.star"):
        assert read_star(tmp_path / path)["optics"]["rlnOpticsGroupName"].tolist() == names
    done = run(tmp_path, "relion_reconstruct --i z.star --o z.mrc --ctf")
    assert done.returncode == 0, done.stderr
