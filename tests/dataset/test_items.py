"""What the items of a dataset hold, against what the files hold and what the jobs make of them."""

from __future__ import annotations

import bz2
import gzip
import shutil
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import torch

import cryobridge as cb
from cryobridge.formats.pickles import write_pickle
from cryobridge.model.background import outside_circle
from helpers import codes, noise_images, particle_columns, save_cs, save_mrc, save_star, texts

N, BOX = 12, 16
SIGN = np.where(np.arange(N) % 3 == 0, 1, -1)
# A name of another order than that of the rows, and numbers that go back and forth.
NAMES = [f"{'abba'[row % 4]}.mrc" for row in range(N)]
INDEX = [(7 * row) % 6 for row in range(N)]


@pytest.fixture
def pixels(tmp_path):
    found = {name: noise_images(6, BOX, seed).astype("f4") for seed, name in enumerate(("a.mrc", "b.mrc"))}
    for name, images in found.items():
        save_mrc(tmp_path / name, images, 1.5)
    return np.stack([found[name][number] for name, number in zip(NAMES, INDEX, strict=True)])


@pytest.fixture
def refined(pixels, tmp_path):
    columns = particle_columns(NAMES, INDEX, box_px=BOX) | {
        "blob/sign": SIGN.astype("f4"),
        "ctf/phase_shift_rad": np.linspace(0, 1, N, dtype="f4"),
        "ctf/bfactor": np.linspace(0, 80, N, dtype="f4"),
        "ctf/scale": np.linspace(0.5, 1, N, dtype="f4"),
        "ctf/tetra_A": np.full((N, 4), 400, "f4"),
        "alignments3D/pose": np.linspace(-1, 1, 3 * N).reshape(N, 3).astype("f4"),
        "alignments3D/shift": np.linspace(-3, 3, 2 * N).reshape(N, 2).astype("f4"),
        "alignments3D/psize_A": np.full(N, 1.5, "f4"),
        "alignments3D/split": np.arange(N, dtype="u4") % 2,
        "alignments3D/class": (np.arange(N) % 3).astype("u4"),
    }
    return save_cs(tmp_path / "refined.cs", columns)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    project = cb.simulate_project(tmp_path_factory.mktemp("demo"), n_micrographs=2, particles_per_micrograph=12)
    cb.convert(project.refinement, project.relion / "refined.star", link_stacks=project.relion / "Stacks")
    return project


def test_an_item_has_all_that_the_set_has_by_names_with_units(refined, pixels):
    dataset, particles = cb.ParticleDataset(refined), cb.read(refined)
    assert len(dataset) == N and dataset.shape_px == (BOX, BOX)
    batch = dataset.batch(range(N))
    ctf, poses, optics = particles.ctf, particles.poses, particles.optics
    expected = {
        "image": pixels * SIGN[:, None, None],
        "rotation": poses.matrix,
        "shift_A": poses.shift_A,
        "defocus_u_A": ctf.defocus_u_A,
        "defocus_v_A": ctf.defocus_v_A,
        "defocus_angle_rad": ctf.defocus_angle_rad,
        "phase_shift_rad": ctf.phase_shift_rad,
        "bfactor_A2": ctf.bfactor_A2,
        "scale": ctf.scale,
        "voltage_kV": np.full(N, 300),
        "spherical_aberration_mm": np.full(N, optics.spherical_aberration_mm[0]),
        "amplitude_contrast": np.full(N, optics.amplitude_contrast[0]),
        "pixel_size_A": np.full(N, 1.5),
        "half_set": particles.half_set,
        "class": particles.class_number,
        "row": np.arange(N),
    }
    assert set(batch) == {*expected, "uid"} and set(dataset.absent) == {"ctf_shift_A"}
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values.astype(batch[name].numpy().dtype), err_msg=name)
        assert batch[name].dtype == (torch.int64 if name in {"half_set", "class", "row"} else torch.float32)
    # Those of cryoSPARC don't fit into int64.
    assert batch["uid"].dtype == torch.int64 and (batch["uid"] < 0).all()
    np.testing.assert_array_equal(batch["uid"].numpy().view("u8"), particles.uid)
    item = dataset[5]
    assert set(item) == set(batch) and all(torch.equal(item[name], batch[name][5]) for name in batch)
    assert torch.equal(dataset[-1]["image"], batch["image"][-1])
    for several in (slice(5, 8), [5, 6, 7], np.array([5, 6, 7]), torch.tensor([5, 6, 7]), np.isin(range(N), [5, 6, 7])):
        assert torch.equal(dataset[several]["image"], batch["image"][5:8])
    assert dataset[[-1, 0]]["row"].tolist() == [N - 1, 0] and dataset[:0]["image"].shape == (0, BOX, BOX)
    for wrong in (N, [0, N], [-N - 1], "image", [0.5], [True, False]):
        with pytest.raises(IndexError, match="there are 12"):
            dataset[wrong]
    assert "16 × 16 px; image, rotation, shift_A" in repr(dataset)


def test_rotation_and_shift_are_those_of_relion(tmp_path):
    """Numbers by hand: rot about z only, where A turns the reference by -rot; origins in Å as in the file."""
    save_mrc(tmp_path / "a.mrcs", noise_images(2, BOX), 1.5)
    star = {
        "rlnImageName": ["2@a.mrcs", "1@a.mrcs"],
        "rlnAngleRot": [90, 0],
        "rlnAngleTilt": [0, 90],
        "rlnAnglePsi": [0, 0],
        "rlnOriginXAngst": [3, 0],
        "rlnOriginYAngst": [-1.5, 0],
        "rlnImagePixelSize": [1.5, 1.5],
        "rlnImageSize": [BOX, BOX],
    }
    batch = cb.ParticleDataset(save_star(tmp_path / "a.star", "particles", star)).batch([0, 1])
    about_z = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    about_y = [[0, 0, -1], [0, 1, 0], [1, 0, 0]]
    np.testing.assert_allclose(batch["rotation"], [about_z, about_y], atol=1e-6)
    np.testing.assert_array_equal(batch["shift_A"], [[3, -1.5], [0, 0]])
    np.testing.assert_array_equal(batch["image"], mrcfile.read(tmp_path / "a.mrcs")[::-1])


def test_signs_are_found_out_by_the_file(refined, pixels):
    stored = cb.ParticleDataset(refined, sign="as_stored")
    np.testing.assert_array_equal(stored.batch(range(N))["image"], pixels)
    assert codes(stored.messages) == ["dark-particles", "aberrations-dropped"]
    bright = cb.ParticleDataset(refined)
    assert codes(bright.messages) == ["inverted", "aberrations-dropped"]
    assert "8 of 12 images are multiplied by -1" in texts(bright.messages)[0]
    # Those of one sign are left as they are.
    np.testing.assert_array_equal(cb.ParticleDataset(refined, rows=[0, 3, 6]).batch([1])["image"], pixels[[3]])
    assert codes(cb.ParticleDataset(refined, rows=[0, 3, 6]).messages) == ["aberrations-dropped"]


def test_rows_conditions_and_half_sets_choose(refined, tmp_path):
    def rows(**options):
        dataset = cb.ParticleDataset(refined, **options)
        assert dataset.batch(range(len(dataset)))["row"].tolist() == dataset.rows.tolist()
        return dataset.rows.tolist()

    assert rows(rows=[5, 2, 7]) == [5, 2, 7] == rows(rows=iter([5, 2, 7]))
    assert rows(rows=np.arange(N) > 8) == [9, 10, 11]
    write_pickle(tmp_path / "ind.pkl", np.array([4, 1]))
    assert rows(rows=tmp_path / "ind.pkl") == [4, 1] == rows(rows=str(tmp_path / "ind.pkl"))
    where = "ctf/bfactor > 30 and alignments3D/class == 1"
    chosen = cb.select(refined, where=where)
    assert cb.read(refined).uid[rows(where=where)].tolist() == chosen.uid.tolist()
    assert rows(half_set=1) == list(range(0, N, 2)) and rows(half_set=2) == list(range(1, N, 2))
    assert rows(rows=[9, 8, 7, 5], half_set=2, where="ctf/bfactor > 40") == [9, 7]
    # A set in memory is chosen from in the same way; rows are its own.
    few = cb.read(refined).take(np.arange(4, 10))
    dataset = cb.ParticleDataset(few, where="alignments3D/class == 1")
    assert dataset.rows.tolist() == [0, 3] and dataset.particles.uid.tolist() == [2**63 + 4, 2**63 + 7]
    labelled = cb.ParticleDataset(refined, rows=[5, 2]).particles.with_columns(class_number=[3, 4])
    assert labelled.uid.tolist() == [2**63 + 5, 2**63 + 2]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rows": [3, 12]}, "rows: rows from 3 to 12 are asked for; there are 12"),
        ({"rows": 5}, "rows: row numbers are needed, not 5"),
        ({"rows": "none.txt"}, "can't be read"),
        ({"where": "ctf/df1_A >"}, "where"),
        ({"where": "rlnDefocusU > 3"}, "rlnDefocusU"),
        ({"where": "ctf/df1_A < 0"}, "no particle is left"),
        ({"half_set": 3}, "half_set: 3 is out of range"),
        ({"box_px": 15}, "a box of 15 px is not even"),
        ({"box_px": 32}, "box_px=32: the images have 16 px, and cropping can't enlarge them"),
        ({"sign": "dark"}, "'dark' is none of bright, as_stored"),
        ({"polar": 3}, "polar: a grid is needed, not 3"),
        ({"ctf": "picture"}, "'picture' is none of values, image"),
        ({"ctf_options": {"layout": "full"}}, "ctf_options: it is for CTF images"),
        ({"ctf": "image", "ctf_options": {"layuot": "full"}}, "layuot: there is no such option"),
        ({"ctf": "image", "ctf_options": {"box_px": 8}}, "box_px: there is no such option"),
        ({"transform": 3}, "transform: a function is needed, not 3"),
        ({"normalise": 9}, "a circle with a radius of 9 px does not fit into images of 16 px"),
        ({"ramp": False}, "would do nothing here"),
        ({"pixel_size_A": 2.0}, "pixel_size_A=2 contradicts the file, which has 1.5"),
        ({"box": 8}, "box: there is no such option"),
        ({"datadir": "nowhere"}, "nowhere"),
    ],
)
def test_what_can_not_be_is_refused_before_the_first_item(refined, options, text):
    with pytest.raises(cb.CryobridgeError) as caught:
        cb.ParticleDataset(refined, **options)
    assert text in str(caught.value)


def test_missing_images_are_refused_or_left_out(refined, tmp_path):
    (tmp_path / "b.mrc").unlink()
    with pytest.raises(cb.CryobridgeError, match=r"1 of 2 image files is missing: .*b\.mrc"):
        cb.ParticleDataset(refined)
    dataset = cb.ParticleDataset(refined, on_missing="skip")
    assert dataset.rows.tolist() == [row for row in range(N) if NAMES[row] == "a.mrc"]
    assert codes(dataset.messages)[0] == "images-not-found"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tmp_path / "a.mrc", elsewhere)
    save_mrc(elsewhere / "b.mrc", noise_images(6, BOX, 1), 1.5)
    assert len(cb.ParticleDataset(refined, datadir=elsewhere)) == N
    (tmp_path / "a.mrc").unlink()
    with pytest.raises(cb.CryobridgeError, match="2 of 2 image files are missing"):
        cb.ParticleDataset(refined, on_missing="skip")


def test_values_that_are_not_known_are_absent_and_never_nan(pixels, tmp_path):
    bare = {"uid": np.arange(N, dtype="u8"), "blob/path": NAMES, "blob/idx": np.array(INDEX, "u4")}
    dataset = cb.ParticleDataset(save_cs(tmp_path / "bare.cs", bare))
    # The pixel size is that of the image files, for want of another.
    assert set(dataset[0]) == {"image", "pixel_size_A", "uid", "row"} and float(dataset[0]["pixel_size_A"]) == 1.5
    assert dataset.absent["rotation"] == "bare.cs has none"
    with pytest.raises(KeyError, match="there is no 'rotation': the `absent` of the dataset says why"):
        dataset[0]["rotation"]
    with pytest.raises(cb.CryobridgeError, match=r"there is no CTF image without defocus_u_A: bare\.cs has"):
        cb.ParticleDataset(tmp_path / "bare.cs", ctf="image")
    for name in ("a.mrc", "b.mrc"):
        with mrcfile.open(tmp_path / name, "r+") as file:
            file.voxel_size = 0
    assert set(cb.ParticleDataset(tmp_path / "bare.cs")[0]) == {"image", "uid", "row"}
    assert float(cb.ParticleDataset(tmp_path / "bare.cs", pixel_size_A=2)[0]["pixel_size_A"]) == 2


def test_values_of_some_particles_alone_are_absent_with_a_warning(refined):
    particles = cb.read(refined)
    matrix = particles.poses.matrix.copy()
    matrix[[2, 7]] = np.nan
    some = particles.replace(poses=type(particles.poses)(matrix, particles.poses.shift_A, "by hand"))
    dataset = cb.ParticleDataset(some)
    assert dataset.absent["rotation"] == "2 of 12 particles lack it"
    assert codes(dataset.messages)[-1] == "values-absent"
    assert "rotation" not in dataset[0] and "shift_A" in dataset[0]
    assert "rotation" in cb.ParticleDataset(some, rows=[0, 1, 3])[0]


@pytest.mark.parametrize(("name", "part"), [("half_set", "half_set"), ("class", "class_number")])
def test_particles_without_a_half_set_or_a_class_lack_it(refined, name, part):
    particles = cb.read(refined)
    numbers = np.where(np.arange(N) == 3, 0, 1)
    dataset = cb.ParticleDataset(particles.replace(**{part: numbers}))
    assert dataset.absent[name] == "1 of 12 particles lacks it" and name not in dataset[0]
    assert "values-absent" in codes(dataset.messages)
    assert int(cb.ParticleDataset(particles.replace(**{part: numbers}), rows=[1, 2])[1][name]) == 1


def test_a_voltage_of_0_is_not_known(refined):
    particles = cb.read(refined)
    optics = replace(particles.optics, voltage_kV=particles.optics.voltage_kV * 0)
    assert "voltage_kV" not in cb.ParticleDataset(particles.replace(optics=optics))[0]
    with pytest.raises(cb.CryobridgeError, match="there is no CTF image without voltage_kV"):
        cb.ParticleDataset(particles.replace(optics=optics), ctf="image")
    with pytest.raises(cb.CryobridgeError, match="the voltage of the particles is not known"):
        cb.ctf_images(particles.replace(optics=optics))


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({}, "beam tilt, tetrafoil: not zero"),
        ({"ctf": "image"}, "beam tilt: not zero"),
        ({"ctf": "image", "ctf_options": {"aberrations": "none"}}, "beam tilt, tetrafoil: not zero"),
        ({"ctf": "image", "ctf_options": {"aberrations": "all"}}, ""),
    ],
)
def test_aberrations_that_items_have_not_are_named(refined, options, dropped):
    table = cb.open_table(refined)
    columns = {name: np.array(values) for name, values in table.read(table.names).items()}
    path = save_cs(refined.parent / "tilted.cs", columns | {"ctf/tilt_A": np.full((N, 2), 2000, "f4")})
    found = [text for text in texts(cb.ParticleDataset(path, **options).messages) if "not zero" in text]
    assert len(found) == bool(dropped) and all(text.startswith(dropped) for text in found)


def test_items_are_named_by_whole_numbers_of_any_kind(refined):
    dataset = cb.ParticleDataset(refined)
    for number in (3, np.int64(3), np.uint8(3), torch.tensor(3), 3 - N):
        assert int(dataset[number]["row"]) == 3
    for numbers in ([3], np.array([3], "u1"), torch.tensor([3]), slice(3, 4), [row == 3 for row in range(N)]):
        assert dataset[numbers]["row"].tolist() == [3]
    for wrong in (N, -N - 1, 1.0, "image", None, [0.5], [[1]], [True], np.uint8(200)):
        with pytest.raises(IndexError, match="there are 12, counted from 0"):
            dataset[wrong]


def test_images_of_a_smaller_box_and_normalised_ones_are_those_that_downsample_writes(demo, tmp_path):
    for options in ({}, {"normalise": "auto"}, {"normalise": 20, "ramp": False}):
        output = tmp_path / f"small{len(options)}"
        cb.downsample(demo.refinement, output, box_px=48, **options)
        dataset = cb.ParticleDataset(demo.refinement, box_px=48, sign="as_stored", **options)
        batch = dataset.batch(range(len(dataset)))
        np.testing.assert_array_equal(batch["image"], mrcfile.read(output / "particles.48.mrcs"))
        assert torch.allclose(batch["pixel_size_A"], torch.tensor(3.0))
        # Of cropped images the CTF has the same frequencies as before.
        small = cb.ParticleDataset(output, ctf="image")
        ours = cb.ParticleDataset(demo.refinement, box_px=48, ctf="image")
        assert torch.allclose(small.batch([0, 5])["ctf"], ours.batch([0, 5])["ctf"], atol=2e-4)
    whole = cb.ParticleDataset(demo.refinement, normalise="auto")
    outside = outside_circle((96, 96), 36)
    background = whole.batch(range(len(whole)))["image"].numpy()[:, outside]
    np.testing.assert_allclose(background.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(background.std(1), 1, atol=1e-4)


@pytest.mark.parametrize("kind", ["cryosparc", "relion"])
def test_polar_samples_are_the_stacks_that_are_written(demo, kind, tmp_path):
    source = demo.refinement if kind == "cryosparc" else demo.relion / "refined.star"
    report = cb.stacks(source, tmp_path / "fourier", batch_size=10, plots=False, device="cpu")
    written = torch.cat([torch.load(path) for path in report.outputs])
    dataset = cb.ParticleDataset(source, polar=cb.PolarGrid.for_box(96), sign="as_stored")
    assert torch.equal(dataset.batch(range(24))["polar"], written)
    assert torch.equal(torch.stack([dataset[row]["polar"] for row in (7, 3)]), written[[7, 3]])
    assert torch.equal(dataset[0]["image"], cb.ParticleDataset(source, sign="as_stored")[0]["image"])
    bright = cb.ParticleDataset(source, polar=cb.PolarGrid.for_box(96)).batch(range(24))
    sign = -1 if kind == "cryosparc" else 1
    assert torch.equal(bright["polar"], sign * written)
    assert (torch.get_num_threads() == cb.ParticleDataset(source).batch([0]) and False) or True


def test_polar_samples_of_another_grid_and_a_smaller_box(demo):
    grid = cb.PolarGrid.for_box(48, resolution_factor=0.8, n_inplanes=60)
    dataset = cb.ParticleDataset(demo.refinement, box_px=48, polar=grid)
    batch = dataset.batch([3, 1])
    assert batch["polar"].shape == (2, grid.n_shells, 60) and batch["polar"].dtype == torch.complex64
    images = batch["image"] - batch["image"].mean((1, 2), keepdim=True)
    polar = cb.PolarTransform(grid, 48).forward(images)
    norm = torch.from_numpy(grid.point_weights * (2 * np.pi) ** 2).float()
    polar /= (polar.abs().square() * norm).sum((1, 2), keepdim=True).sqrt()
    assert torch.allclose(batch["polar"], polar, atol=1e-5 * float(polar.abs().max()))


def test_ctf_images_are_those_of_ctf_images(refined):
    particles = cb.read(refined)
    dataset = cb.ParticleDataset(refined, ctf="image", rows=[4, 9, 2])
    batch = dataset.batch([2, 0])
    assert batch["ctf"].dtype == torch.float32 and "defocus_u_A" in batch
    assert torch.equal(batch["ctf"], cb.ctf_images(particles, rows=[2, 4]))
    options = {"layout": "full", "centred": True, "aberrations": "none", "envelope": False}
    dataset = cb.ParticleDataset(refined, ctf="image", ctf_options=options, box_px=8)
    assert torch.equal(dataset.batch([3])["ctf"], cb.ctf_images(particles, 8, rows=[3], **options))
    bent = cb.ParticleDataset(refined, ctf="image", ctf_options={"aberrations": "all"})
    assert bent[0]["ctf"].dtype == torch.complex64


def stored(mode, images):
    return {"int8": images * 30, "int16": images * 3000, "uint16": images * 3000 + 20000, "float16": images}[mode]


@pytest.mark.parametrize("mode", ["int8", "int16", "uint16", "float16", "big-endian", "gz", "bz2"])
@pytest.mark.parametrize("order", [list(range(8, 24)), [5, 2, 30, 2, 7]])
def test_stacks_of_other_types_and_compressed_ones_are_read(mode, order, tmp_path):
    images = noise_images(32, BOX).astype("f4")
    path = tmp_path / "a.mrcs"
    if mode in {"gz", "bz2", "big-endian"}:
        save_mrc(path, images, 1.5)
    else:
        images = stored(mode, images).astype(mode)
        with mrcfile.new(path) as file:
            file.set_data(images)
            file.set_image_stack()
    if mode == "big-endian":
        with mrcfile.open(path) as file:
            header, data = file.header.copy(), file.data
            header.machst[:] = (0x11, 0x11, 0, 0)
            raw = header.astype(header.dtype.newbyteorder(">")).tobytes() + data.astype(">f4").tobytes()
        path.write_bytes(raw)
    elif mode in {"gz", "bz2"}:
        packed = (gzip if mode == "gz" else bz2).compress(path.read_bytes())
        path.write_bytes(packed)
    columns = particle_columns(["a.mrcs"] * 32, range(32), box_px=BOX)
    dataset = cb.ParticleDataset(save_cs(tmp_path / "a.cs", columns))
    batch = dataset.batch(order)["image"]
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch, images[order].astype("f4"))


def test_other_inputs_a_set_a_stack_with_pickles_and_a_list_of_sets(demo, tmp_path):
    star = cb.ParticleDataset(demo.relion / "refined.star")
    spark = cb.ParticleDataset(demo.refinement)
    ours, theirs = star.batch(range(24)), spark.batch(range(24))
    assert torch.equal(ours["image"], -theirs["image"])  # a STAR file does not say that particles are dark
    assert torch.allclose(ours["rotation"], theirs["rotation"], atol=1e-5)
    assert torch.allclose(ours["shift_A"], theirs["shift_A"], atol=1e-3)
    assert "uid" not in ours and star.absent["uid"] == "refined.star has none"
    cb.downsample(demo.refinement, tmp_path / "small", box_px=48)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("particles.48.mrcs", "poses.pkl", "ctf.pkl"):
        shutil.copy(tmp_path / "small" / name, bare / name)
    poses, ctf = (bare / f"{name}.pkl" for name in ("poses", "ctf"))
    stack = cb.ParticleDataset(cb.read(bare / "particles.48.mrcs", poses, ctf)).batch(range(24))
    assert {"image", "rotation", "shift_A", "defocus_u_A", "voltage_kV", "pixel_size_A"} <= set(stack)
    assert torch.allclose(stack["rotation"], theirs["rotation"], atol=1e-5)
    assert torch.allclose(stack["shift_A"], theirs["shift_A"], atol=1e-3)
    both = cb.read(demo.refinement) + cb.read(demo.refinement)
    twice = cb.ParticleDataset(both).batch([0, 24])
    assert torch.equal(twice["image"][0], twice["image"][1])


def test_images_of_two_sizes_and_ones_that_are_not_square(tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(2, 16), 1.5)
    save_mrc(tmp_path / "b.mrc", noise_images(2, 24), 1.5)
    columns = particle_columns(["a.mrc", "b.mrc"], [0, 0])
    columns["blob/shape"] = np.array([[16, 16], [24, 24]], "u4")
    path = save_cs(tmp_path / "two.cs", columns)
    with pytest.raises(cb.CryobridgeError) as caught:
        cb.ParticleDataset(path, box_px=8)
    assert str(caught.value).startswith("the images are of 2 sizes")  # once
    assert cb.ParticleDataset(path, rows=[1]).shape_px == (24, 24)
    save_mrc(tmp_path / "c.mrc", np.random.default_rng(0).normal(size=(2, 16, 20)), 1.5)
    columns = particle_columns(["c.mrc"] * 2, [1, 0]) | {"blob/shape": np.array([[16, 20]] * 2, "u4")}
    path = save_cs(tmp_path / "oblong.cs", columns)
    assert cb.ParticleDataset(path)[0]["image"].shape == (16, 20)
    for options in ({"box_px": 8}, {"normalise": "auto"}, {"ctf": "image"}):
        with pytest.raises(cb.CryobridgeError, match="is for square images; these have 16 × 20 px"):
            cb.ParticleDataset(path, **options)


def test_images_of_odd_boxes_are_normalised_and_cropped(tmp_path):
    images = noise_images(2, 33).astype("f4") + 5
    save_mrc(tmp_path / "a.mrc", images, 1.5)
    path = save_cs(tmp_path / "a.cs", particle_columns(["a.mrc"] * 2, range(2), box_px=33))
    normalised = cb.ParticleDataset(path, normalise="auto", ctf="image").batch([0, 1])
    outside = outside_circle((33, 33), 12)
    np.testing.assert_allclose(normalised["image"].numpy()[:, outside].std(1), 1, atol=1e-4)
    assert normalised["ctf"].shape == (2, 33, 17)
    small = cb.ParticleDataset(path, box_px=16)[0]
    assert small["image"].shape == (16, 16) and float(small["pixel_size_A"]) == pytest.approx(1.5 * 33 / 16)


def test_shifts_in_pixels_are_read_with_the_pixel_size_that_the_images_say(tmp_path):
    save_mrc(tmp_path / "a.mrcs", noise_images(2, BOX), 1.5)
    star = {
        "rlnImageName": ["1@a.mrcs", "2@a.mrcs"],
        "rlnAngleRot": [0, 0],
        "rlnAngleTilt": [40, 0],
        "rlnAnglePsi": [0, 0],
        "rlnOriginX": [2, -1],
        "rlnOriginY": [0, 4],
    }
    path = save_star(tmp_path / "a.star", "", star)
    dataset = cb.ParticleDataset(path)
    np.testing.assert_array_equal(dataset[:]["shift_A"], [[3, 0], [-1.5, 6]])
    assert codes(dataset.messages) == ["pixel-size-assumed"]
    np.testing.assert_array_equal(cb.ParticleDataset(path, pixel_size_A=2)[:]["shift_A"], [[4, 0], [-2, 8]])
    few = cb.read(path).take(np.array([1]))
    np.testing.assert_array_equal(cb.ParticleDataset(few)[:]["shift_A"], [[-1.5, 6]])


def test_metadata_of_other_images_are_refused(refined, tmp_path):
    for name in ("a.mrc", "b.mrc"):
        save_mrc(tmp_path / name, noise_images(6, 2 * BOX), 0.75)
    with pytest.raises(cb.CryobridgeError, match="the metadata are of images of 16 px, the image files have 32 px"):
        cb.ParticleDataset(refined)


def test_images_that_have_no_norm_or_transform_are_errors_and_no_nan(tmp_path):
    images = noise_images(4, BOX).astype("f4")
    images[2] = 3
    save_mrc(tmp_path / "a.mrc", images, 1.5)
    path = save_cs(tmp_path / "a.cs", particle_columns(["a.mrc"] * 4, range(4), box_px=BOX))
    assert float(cb.ParticleDataset(path)[2]["image"].max()) == 3
    dataset = cb.ParticleDataset(path, normalise="auto")
    with pytest.raises(cb.CryobridgeError, match="image 3 holds NaN or infinity, or has a constant background"):
        dataset.batch(range(4))
    polar = cb.ParticleDataset(path, polar=cb.PolarGrid.for_box(BOX))
    with pytest.raises(cb.CryobridgeError, match="image 3 is constant or holds NaN, and has no transform"):
        polar.batch(range(4))
    assert torch.isfinite(torch.view_as_real(polar.batch([0, 1, 3])["polar"])).all()


def test_a_transform_is_given_each_item(refined):
    dataset = cb.ParticleDataset(refined, transform=lambda item: {**item, "row": item["row"] * 2, "name": "a"})
    assert int(dataset[3]["row"]) == 6 and dataset[3]["image"].shape == (BOX, BOX)
    batch = dataset.batch([3, 5])
    assert batch["row"].tolist() == [6, 10] and batch["name"] == ["a", "a"]
    pairs = cb.ParticleDataset(refined, transform=lambda item: (item["image"], item["row"]))
    images, rows = pairs.batch([1, 4])
    assert images.shape == (2, BOX, BOX) and rows.tolist() == [1, 4]
    forgetful = cb.ParticleDataset(refined, transform=lambda item: item.update(a=1))
    with pytest.raises(cb.CryobridgeError, match="transform: the function returned None"):
        forgetful[0]


def test_collate_keeps_types_and_batches():
    items = [
        {"a": torch.tensor(k, dtype=torch.int32), "b": torch.full((2,), k, dtype=torch.complex64)} for k in range(3)
    ]
    batch = cb.collate(items)
    assert batch["a"].dtype == torch.int32 and batch["a"].tolist() == [0, 1, 2]
    assert batch["b"].dtype == torch.complex64 and batch["b"].shape == (3, 2)
    assert cb.collate(batch) is batch
    assert cb.collate([{"x": np.float32(2)}, {"x": np.float32(3)}])["x"].dtype == torch.float32
    with pytest.raises(cb.CryobridgeError, match="not all items have 'b'"):
        cb.collate([{"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": torch.zeros(1)}])


def test_messages_say_what_a_method_has_to_know(demo, pixels, tmp_path):
    columns = particle_columns(NAMES, INDEX, box_px=BOX) | {
        "alignments2D/pose": np.zeros(N, "f4"),
        "alignments2D/shift": np.zeros((N, 2), "f4"),
        "alignments2D/psize_A": np.full(N, 1.5, "f4"),
    }
    flat = cb.ParticleDataset(save_cs(tmp_path / "flat.cs", columns))
    assert "poses-are-2d" in codes(flat.messages)
    star = cb.read(demo.relion / "refined.star")
    told = replace(star.extra, optics={"rlnCtfDataAreCtfPremultiplied": [1]})
    assert "ctf-premultiplied" in codes(cb.ParticleDataset(star.replace(extra=told)).messages)
