"""CryoLike's names: a script of its runs after a change of import."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from enum import Enum
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch

from cryobridge import cryolike
from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, OutputExistsError, UsageError
from helpers import environment, noise_images, particle_columns, save_cs, save_mrc, save_star


def test_a_script_written_for_cryolike_runs_after_a_change_of_import(reference_data, tmp_path, monkeypatch):
    folder = reference_data / "cryolike_reference" / "paired_star"
    monkeypatch.chdir(folder)
    converter = cryolike.ParticleStackConverter("params.npz", folder_output=str(tmp_path), flag_plots=False)
    converter.prepare_star_files(["A.mrc", "B.mrc", "C.mrc"], ["A.star", "B.star", "C.star"])
    converter.convert_stacks(batch_size=5)
    for path in (folder / "expected").glob("particles_fourier_stack_*.npy"):
        found, expected = torch.load(tmp_path / "fft" / f"{path.stem}.pt").numpy(), np.load(path)
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_the_four_functions_give_what_the_commands_give(reference_data, tmp_path, monkeypatch):
    reference = reference_data / "cryolike_reference"
    calls = {
        "paired_star": lambda out: cryolike.convert_particle_stacks_from_paired_star_and_mrc_files(
            params_input="params.npz",
            particle_file_list=["A.mrc"],
            star_file_list=["A.star"],
            folder_output=out,
            batch_size=5,
            pixel_size=1.5,
            defocus_angle_is_degree=True,
            phase_shift_is_degree=True,
            skip_exist=False,
            flag_plots=False,
        ),
        "indexed_star": lambda out: cryolike.convert_particle_stacks_from_indexed_star_file(
            params_input="params.npz", star_file="particles.star", folder_mrc=".", folder_output=out, flag_plots=False
        ),
        "indexed_cs": lambda out: cryolike.convert_particle_stacks_from_indexed_cryosparc_file(
            params_input="params.npz", file_cs="MyFile.cs", folder_output=out, batch_size=3, flag_plots=False
        ),
        "job_directory": lambda out: cryolike.convert_particle_stacks_from_cryosparc_job_directory(
            params_input="params.npz",
            folder_cryosparc="cryosparc",
            job_number=4,
            folder_output=out,
            batch_size=5,
            n_stacks_max=1,
            pixel_size=-1.0,
            flag_plots=False,
        ),
        "downsample_max": lambda out: cryolike.convert_particle_stacks_from_indexed_cryosparc_file(
            params_input="params.npz",
            file_cs="a.cs",
            folder_output=out,
            downsample_factor=2,
            downsample_type="max",
            flag_plots=False,
        ),
    }
    for name, call in calls.items():
        monkeypatch.chdir(reference / name)
        call(str(tmp_path / name))
        path = reference / name / "expected" / "particles_fourier_stack_000000.npy"
        found, expected = torch.load(tmp_path / name / "fft" / f"{path.stem}.pt").numpy(), np.load(path)
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected), name
    assert len(list((tmp_path / "job_directory" / "fft").glob("*.pt"))) == 1


def test_the_four_functions_share_all_options_of_the_converter():
    def parameters(function):
        return {name: item.default for name, item in signature(function).parameters.items()}

    own = {"params_input", "particle_file_list", "star_file_list", "defocus_angle_is_degree", "phase_shift_is_degree"}
    own |= {"star_file", "folder_mrc", "file_cs", "folder_cryosparc", "job_number", "batch_size"}
    converter = parameters(cryolike.ParticleStackConverter)
    for name in cryolike.__all__:
        if name.startswith("convert_particle_stacks"):
            shared = {key: value for key, value in parameters(getattr(cryolike, name)).items() if key not in own}
            expected = {key: converter[key] for key in shared}
            assert shared == expected
            assert converter.keys() - shared.keys() == {
                *("image_descriptor", "device", "order", "on_missing", "split_optics", "reporter")
            }


def save_pair(folder, name, n, first_A=10000.0, **angles):
    """A stack and the STAR file of its images, whose defocus counts on from the first one."""
    save_mrc(folder / f"{name}.mrc", noise_images(n, 16, seed=n), 1.5)
    numbers = {"rlnDefocusU": first_A + np.arange(n), "rlnDefocusV": np.full(n, 9000.0)}
    angles = {"rlnDefocusAngle": np.arange(n) * 10.0, "rlnPhaseShift": np.full(n, 45.0)} | angles
    microscope = {"rlnVoltage": [300] * n, "rlnSphericalAberration": [2.7] * n, "rlnAmplitudeContrast": [0.1] * n}
    star = save_star(folder / f"{name}.star", "particles", {**numbers, **angles, **microscope})
    return str(folder / f"{name}.mrc"), str(star)


@pytest.fixture
def converter(tmp_path):
    params = cryolike.ImageDescriptor.from_individual_values(16, 1.5)

    def make(**options):
        return cryolike.ParticleStackConverter(params, tmp_path / "out", **({"flag_plots": False} | options))

    return make


def made_in(folder):
    """What the numbered stacks of a folder are of: their defocus, and that each has as many images as it says."""
    stacks = []
    for number, path in enumerate(sorted((folder / "fft").glob("*.npz"))):
        assert path.name == f"particles_fourier_stack_{number:06d}.npz"
        with np.load(path) as lens:
            stacks.append(lens["defocusU"].tolist())
        images = torch.load(folder / "phys" / f"particles_phys_stack_{number:06d}.pt")
        assert len(torch.load(path.with_suffix(".pt"))) == len(images) == len(stacks[-1])
    return stacks


def test_stacks_are_numbered_on_from_one_conversion_to_the_next(converter, particles_cs, tmp_path):
    convert = converter()
    convert.prepare_star_files(*save_pair(tmp_path, "a", 3))
    assert convert.convert_stacks(2).images_per_stack == (2, 1)
    first = made_in(tmp_path / "out")
    convert.prepare_indexed_file(particles_cs, "cryosparc")
    report = convert.convert_stacks(batch_size=4)
    assert [path.name[-9:] for path in report.outputs] == ["000002.pt", "000003.pt"]
    assert made_in(tmp_path / "out")[:2] == first
    assert [len(stack) for stack in made_in(tmp_path / "out")] == [2, 1, 4, 1]
    # The record of the folder is of all that is in it.
    record = json.loads((tmp_path / "out" / "job.json").read_text())["report"]
    assert (record["stacks"], record["rows_out"], len(record["outputs"])) == (4, 8, 4)
    # Another converter does not go on: it would have to know what is there.
    other = converter()
    other.prepare_star_files(*save_pair(tmp_path, "b", 4))
    with pytest.raises(OutputExistsError):
        other.convert_stacks()


def test_overwriting_removes_what_was_there_before_and_not_what_the_converter_made(converter, tmp_path):
    for name, n in (("a", 3), ("b", 4)):
        save_pair(tmp_path, name, n)
    pairs = {name: (str(tmp_path / f"{name}.mrc"), str(tmp_path / f"{name}.star")) for name in "ab"}
    for batch_size in (1, 3):
        convert = converter(overwrite=True)
        for name in "ab":
            convert.prepare_star_files(*pairs[name])
            convert.convert_stacks(batch_size)
    assert [len(stack) for stack in made_in(tmp_path / "out")] == [3, 3, 1]


def test_inputs_of_several_kinds_and_units_are_converted_one_after_the_other(converter, particles_cs, tmp_path):
    a, b = save_pair(tmp_path, "a", 3), save_pair(tmp_path, "b", 4, rlnDefocusAngle=np.arange(4) / 10)
    convert = converter()
    convert.prepare_star_files(*a)
    convert.prepare_star_files(*b, defocus_angle_is_degree=False)
    convert.prepare_indexed_file(particles_cs, "cryosparc")
    report = convert.convert_stacks(batch_size=4)
    assert (report.images_per_stack, report.rows_in, report.rows_out) == ((3, 4, 4, 1), 12, 12)
    assert [stack[0] for stack in made_in(tmp_path / "out")[:2]] == [10000, 10000]
    for number, angle in ((0, np.radians([0, 10, 20])), (1, [0, 0.1, 0.2, 0.3])):
        with np.load(tmp_path / "out" / "fft" / f"particles_fourier_stack_{number:06d}.npz") as lens:
            np.testing.assert_allclose(lens["defocusAngle"], angle, atol=1e-7)
            np.testing.assert_allclose(lens["phaseShift"], np.pi / 4, rtol=1e-6)
    # All stacks are kept when they are made again.
    again = converter(skip_exist=True)
    again.prepare_star_files(*a)
    again.prepare_star_files(*b, False)
    again.prepare_indexed_file(particles_cs, "cryosparc")
    assert again.convert_stacks(batch_size=4).stacks_kept == 4


def test_one_input_that_is_no_pair_waits_at_a_time(converter, particles_cs):
    convert = converter()
    convert.prepare_indexed_file(particles_cs, "cryosparc")
    with pytest.raises(UsageError, match="already"):
        convert.prepare_indexed_file(particles_cs, "cryosparc")
    report = convert.convert_stacks(batch_size=2, never_combine_input_files=True)
    assert report.images_per_stack == (2, 2, 1)
    with pytest.raises(UsageError, match="2 image files, but 1 STAR files"):
        convert.prepare_star_files(["a", "b"], ["c"])
    with pytest.raises(MissingDataError, match=r"2 of 2 files are missing: a\.mrc, a\.star"):
        convert.prepare_star_files("a.mrc", "a.star")
    with pytest.raises(UsageError, match="file type"):
        convert.prepare_indexed_file(particles_cs, "relion")


def test_pairs_keep_the_order_in_which_they_are_given(converter, tmp_path):
    pairs = [save_pair(tmp_path, "b", 2, 20000.0), save_pair(tmp_path, "a", 3)]
    convert = converter()
    convert.prepare_star_files(*map(list, zip(*pairs, strict=True)))
    convert.convert_stacks()
    assert [stack[0] for stack in made_in(tmp_path / "out")] == [20000, 10000]


def test_a_stack_in_two_pairs_is_converted_twice_with_a_warning(converter, tmp_path):
    stack, star = save_pair(tmp_path, "a", 3)
    convert = converter()
    convert.prepare_star_files([stack, stack], [star, star])
    with pytest.warns(UserWarning, match=r"a\.mrc is in two pairs"):
        assert convert.convert_stacks().images_per_stack == (3, 3)
    one, two = (torch.load(tmp_path / "out" / "fft" / f"particles_fourier_stack_00000{n}.pt") for n in (0, 1))
    assert torch.equal(one, two)


def test_nothing_to_convert_is_a_warning(converter, particles_cs):
    convert = converter(n_stacks_max=2)
    with pytest.warns(UserWarning, match="no input was prepared"):
        assert convert.convert_stacks() is None
    convert.prepare_indexed_file(particles_cs, "cryosparc")
    assert convert.convert_stacks(batch_size=2).left_out == {"beyond the number of stacks asked for": 1}
    convert.prepare_indexed_file(particles_cs, "cryosparc")
    with pytest.warns(UserWarning, match="1 of 1 input was not read: n_stacks_max is reached"):
        assert convert.convert_stacks() is None


def test_a_job_with_more_rows_than_images_converts_what_is_there(converter, tmp_path):
    columns = {name: values for name, values in particle_columns(["x"] * 9, range(9)).items() if "blob" not in name}
    save_cs(tmp_path / "J4" / "J4_passthrough_particles.cs", columns)
    for number, n in enumerate((4, 2)):
        save_mrc(tmp_path / "J4" / "restack" / f"batch_{number:06d}_restacked.mrc", noise_images(n, 16), 1.5)
    convert = converter()
    convert.prepare_sequential_cryosparc(tmp_path, 4)
    with pytest.warns(UserWarning, match="has 9 rows, and there are 6 images: .* the last 3 are left out"):
        report = convert.convert_stacks()
    assert (report.rows_in, report.rows_out, report.left_out) == (9, 6, {"no image in the batches": 3})
    assert made_in(tmp_path / "out") == [np.asarray(columns["ctf/df1_A"])[:6].tolist()]
    # Images that can't be used are errors still.
    save_mrc(tmp_path / "J4" / "restack" / "batch_000001_restacked.mrc", np.ones((2, 16, 16), "f4"), 1.5)
    with pytest.raises(CryobridgeError, match="constant"):
        cryolike.convert_particle_stacks_from_cryosparc_job_directory(
            None, tmp_path, 4, tmp_path / "other", flag_plots=False
        )


@pytest.mark.parametrize("factor", [2, 4])
def test_parameters_for_the_images_before_binning_are_adapted(factor, particles_cs, tmp_path):
    full = cryolike.ImageDescriptor.from_individual_values(16, 1.5, n_inplanes=24)

    def convert(params, name):
        return cryolike.convert_particle_stacks_from_indexed_cryosparc_file(
            params, particles_cs, folder_output=tmp_path / name, downsample_factor=factor, flag_plots=False
        )

    with pytest.warns(UserWarning, match=f"images before binning by {factor}; adapted to {16 // factor} × "):
        report = convert(full, "adapted")
    assert (report.box_px, report.pixel_size_A) == ((16 // factor, 16 // factor), 1.5 * factor)
    assert (
        convert(cryolike.ImageDescriptor.for_box(16 // factor, 1.5 * factor, n_inplanes=24), "own").shells
        == report.shells
    )
    one, two = (
        torch.load(tmp_path / name / "fft" / "particles_fourier_stack_000000.pt") for name in ("adapted", "own")
    )
    assert torch.equal(one, two)
    # A grid within the Nyquist frequency of the binned images stays as it is.
    coarse = cryolike.ImageDescriptor.from_individual_values(16, 1.5, resolution_factor=0.25)
    assert coarse.binned(factor).radius_max == coarse.radius_max == 1.0


def test_a_device_of_torch_names_the_device(converter, particles_cs):
    refused = converter(device=torch.device("cuda", 63))
    refused.prepare_indexed_file(particles_cs, "cryosparc")
    with pytest.raises(UsageError, match="cuda:63"):
        refused.convert_stacks()
    convert = converter(device=torch.device("cpu"))
    convert.prepare_indexed_file(particles_cs, "cryosparc")
    assert convert.convert_stacks().stacks == 1


def test_images_are_in_single_precision_where_the_transforms_are_in_double(particles_cs, tmp_path):
    double = cryolike.ImageDescriptor.from_individual_values(16, 1.5, "double")
    cryolike.convert_particle_stacks_from_indexed_cryosparc_file(double, particles_cs, "", tmp_path, flag_plots=False)
    assert torch.load(tmp_path / "fft" / "particles_fourier_stack_000000.pt").dtype == torch.complex128
    images = torch.load(tmp_path / "phys" / "particles_phys_stack_000000.pt")
    assert images.dtype == torch.float32
    assert images.abs().amax((1, 2)) == pytest.approx(1)


def test_errors_are_value_errors_as_in_cryolike(converter, particles_cs, tmp_path):
    def missing_star():
        converter().prepare_star_files([str(particles_cs)], ["nowhere.star"])

    def no_job():
        converter().prepare_sequential_cryosparc(tmp_path, 77)

    def pixel_size():
        convert = converter(pixel_size=1.7)
        convert.prepare_indexed_file(particles_cs, "cryosparc")
        convert.convert_stacks()

    def parameters():
        cryolike.ParticleStackConverter(str(tmp_path / "nowhere.npz"))

    def no_image():
        (tmp_path / "J1" / "extract").rename(tmp_path / "J1" / "moved")
        convert = converter()
        convert.prepare_indexed_file(particles_cs, "cryosparc")
        convert.convert_stacks()

    kinds = set()
    for act in (missing_star, no_job, pixel_size, parameters, no_image, lambda: converter(downsample_factor=3)):
        with pytest.raises(ValueError, match=r"\w") as caught:
            act()
        assert isinstance(caught.value, CryobridgeError)
        kinds.add(type(caught.value))
    assert kinds >= {MissingDataError, UsageError, FormatError}


def test_skip_exist_and_overwrite_do_what_they_say(particles_cs, tmp_path):
    def convert(**options):
        return cryolike.convert_particle_stacks_from_indexed_cryosparc_file(
            None, particles_cs, folder_output=tmp_path / "out", batch_size=2, flag_plots=False, **options
        )

    convert()
    assert convert(skip_exist=True).stacks_kept == 3
    assert convert(overwrite=True).stacks_kept == 0
    with pytest.raises(OutputExistsError):
        convert()


def test_a_manual_pixel_size_may_be_ignored_where_the_metadata_say_it(particles_cs, tmp_path):
    def converter():
        return cryolike.ParticleStackConverter(None, tmp_path / "out", pixel_size=[1.7, 1.7], flag_plots=False)

    strict = converter()
    strict.prepare_indexed_file(particles_cs, "cryosparc")
    with pytest.raises(CryobridgeError, match="contradicts"):
        strict.convert_stacks()
    lenient = converter()
    lenient.prepare_indexed_file(particles_cs, "cryosparc", ignore_manual_pixel_size=True)
    assert lenient.convert_stacks().pixel_size_A == pytest.approx(1.5)
    with pytest.raises(UsageError, match="one pixel size"):
        cryolike.ParticleStackConverter(None, pixel_size=(1.5, 1.7))


def test_descriptors_are_made_saved_loaded_and_printed_as_cryolikes(tmp_path, capsys):
    descriptor = cryolike.ImageDescriptor.from_individual_values(
        n_pixels=132,
        pixel_size=1.346,
        resolution_factor=0.5,
        precision="double",
        viewing_distance=0.6,
        n_inplanes=256,
        atom_radii=3.0,
        atom_shape="hard",
    )
    assert descriptor.radius_max == 16.5
    assert (descriptor.viewing_distance, descriptor.atom_radii, descriptor.atom_shape) == (0.6, 3.0, "hard-sphere")
    descriptor.save(str(tmp_path / "p"))
    assert cryolike.ImageDescriptor.load(str(tmp_path / "p.npz")) == descriptor
    with pytest.raises(OutputExistsError, match="already"):
        descriptor.save(tmp_path / "p.npz")
    descriptor.save(tmp_path / "p.npz", overwrite=True)
    descriptor.print()
    assert "n_pixels: [132, 132]\n" in capsys.readouterr().out
    with pytest.raises(UsageError, match="single or double"):
        cryolike.ImageDescriptor.from_individual_values(16, 1.5, precision="half")
    default = cryolike.ImageDescriptor.from_individual_values(16, 1.5)
    assert default == cryolike.ImageDescriptor.for_box(16, 1.5)
    assert cryolike.ImageDescriptor.from_individual_values(16, 1.5, precision="default") == default
    with pytest.raises(AttributeError):
        _ = cryolike.nothing_of_this_name


class Word(Enum):
    SINGLE = "single"
    SOFT = "gaussian"


class DescriptorOfCryoLike:
    """Has what CryoLike's descriptor has: its values in a dictionary, of arrays, numbers and enumerations."""

    def to_dict(self):
        return {
            "n_pixels": np.array([16, 16]),
            "pixel_size": np.array([1.5, 1.5]),
            "radius_max": 4.0,
            "dist_radii": 0.25,
            "n_inplanes": 32,
            "precision": Word.SINGLE,
            "viewing_distance": 1 / (4 * np.pi),
            "atom_radii": None,
            "atom_selection": "name CA",
            "use_protein_residue_model": True,
            "atom_shape": Word.SOFT,
        }


def test_the_descriptor_of_cryolike_is_taken_as_it_is(particles_cs, tmp_path):
    made = [
        cryolike.convert_particle_stacks_from_indexed_cryosparc(params, particles_cs, "", out, flag_plots=False)
        for params, out in ((DescriptorOfCryoLike(), tmp_path / "a"), (None, tmp_path / "b"))
    ]
    one, two = (report.outputs[0].read_bytes() for report in made)
    assert one == two
    with pytest.raises(UsageError, match="no image descriptor"):
        cryolike.ParticleStackConverter(3)


# Beside CryoLike itself


@pytest.fixture(scope="module")
def checkout():
    """A checkout of CryoLike."""
    if "CRYOBRIDGE_TEST_CRYOLIKE" not in os.environ:
        pytest.skip("CRYOBRIDGE_TEST_CRYOLIKE names no checkout")
    return Path(os.environ["CRYOBRIDGE_TEST_CRYOLIKE"])


@pytest.fixture
def theirs(checkout):
    """Runs a script with CryoLike."""
    python = os.environ.get("CRYOBRIDGE_TEST_CRYOLIKE_PYTHON", "python3")

    def call(script, *words, cwd=None, **changes):
        variables = environment(PYTHONPATH=str(checkout / "src"), PYTHONDONTWRITEBYTECODE="1", **changes)
        command = [python, "-c", script, *map(str, words)]
        return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=120)

    return call


def after_a_change_of_import(script):
    return re.sub(r"from cryolike(\.\w+)* import", "from cryobridge.cryolike import", script)


def ours(script, *words, cwd=None):
    command = [sys.executable, "-W", "ignore", "-c", after_a_change_of_import(script), *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


# What is in a stack's .npz; CryoLike has the files of the whole data set in each.
COMPARED = ("n_pixels", "pixel_size", "radius_max", "n_inplanes", "n_images", "stack_start", "stack_end")
COMPARED += (
    "defocusU",
    "defocusV",
    "defocusAngle",
    "phaseShift",
    "voltage",
    "sphericalAberration",
    "amplitudeContrast",
)


def assert_same_stacks(folder, other):
    names = {path.relative_to(other) for path in other.rglob("*_stack_*.*")}
    assert names
    assert names == {path.relative_to(folder) for path in folder.rglob("*_stack_*.*")}
    for name in sorted(names):
        if name.suffix == ".pt":
            one, two = torch.load(folder / name), torch.load(other / name)
            assert (one.dtype, one.shape) == (two.dtype, two.shape)
            assert torch.linalg.vector_norm(one - two) <= 5e-6 * torch.linalg.vector_norm(two), name
        else:
            one, two = (dict(np.load(place / name, allow_pickle=True)) for place in (folder, other))
            for key in COMPARED:
                assert (key in one) == (key in two), (name, key)
                if key in two:
                    np.testing.assert_allclose(one[key], two[key], rtol=1e-6, err_msg=f"{name} {key}")


SCRIPT = """
import sys, numpy, torch
from cryolike import ImageDescriptor, convert_particle_stacks_from_indexed_cryosparc_file
from cryolike.file_conversions import ParticleStackConverter

params = ImageDescriptor.from_individual_values(16, 1.5, n_inplanes=20)
params.save("params.npz", overwrite=True)

def converter(params, name, **options):
    return ParticleStackConverter(params, sys.argv[1] + "/" + name, pixel_size=1.5, flag_plots=False, **options)

# Conversions that go on, two inputs, units, and a stack in two pairs.
convert = converter("params.npz", "on", device=torch.device("cpu"))
convert.prepare_star_files(["b.mrc", "a.mrc"], ["b.star", "a.star"])
convert.convert_stacks(3)
convert.prepare_star_files(["a.mrc", "a.mrc"], ["a.star", "a.star"], False, False)
convert.prepare_indexed_file("J1/J1_particles.cs", "cryosparc", "J1/extract")
convert.convert_stacks(4)

convert = converter(params, "job")
convert.prepare_sequential_cryosparc("", 4)
convert.convert_stacks(4)

convert = converter(ImageDescriptor.from_individual_values(16, 1.5, precision="double"), "double")
convert.prepare_indexed_file("J1/J1_particles.cs", "cryosparc", "J1/extract")
convert.convert_stacks(never_combine_input_files=True)

for kind in ("mean", "max"):
    convert_particle_stacks_from_indexed_cryosparc_file(
        ImageDescriptor.from_individual_values(8, 3.0), "J1/J1_particles.cs", "J1/extract", sys.argv[1] + "/" + kind,
        downsample_factor=2, downsample_type=kind, flag_plots=False,
    )

converter(params, "nothing").convert_stacks()
for fails in (
    lambda: converter("params.npz", "on2").prepare_star_files(["a.mrc"], ["nowhere.star"]),
    lambda: converter(params, "on2").prepare_sequential_cryosparc("", 77),
    lambda: converter("params.npz", "on2", downsample_factor=3) and convert.prepare_indexed_file("a", "b", "c"),
    lambda: params.save("params.npz"),
):
    try:
        fails()
    except ValueError:
        continue
    except NotImplementedError:
        continue
    raise SystemExit("no error")
"""


def test_one_script_makes_the_same_stacks_with_both(theirs, particles_cs, tmp_path):
    save_pair(tmp_path, "a", 3)
    save_pair(tmp_path, "b", 4, 20000.0)
    columns = {name: values for name, values in particle_columns(["x"] * 9, range(9)).items() if "blob" not in name}
    save_cs(tmp_path / "J4" / "J4_passthrough_particles.cs", columns)
    for number, n in enumerate((4, 2)):
        save_mrc(tmp_path / "J4" / "restack" / f"batch_{number:06d}_restacked.mrc", noise_images(n, 16), 1.5)
    done = theirs(SCRIPT, tmp_path / "theirs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ours(SCRIPT, tmp_path / "ours", cwd=tmp_path)
    assert_same_stacks(tmp_path / "ours", tmp_path / "theirs")


def test_cryolikes_own_descriptor_is_taken(theirs, particles_cs, tmp_path):
    script = """
import sys, cryolike
sys.path.insert(0, sys.argv[1])
try:
    from cryobridge.cryolike import convert_particle_stacks_from_indexed_cryosparc_file
except ModuleNotFoundError as error:
    sys.exit(f"CryoLike's Python has not what cryobridge needs: {error}")
params = cryolike.ImageDescriptor.from_individual_values(16, 1.5, precision="double", n_inplanes=20)
convert_particle_stacks_from_indexed_cryosparc_file(params, sys.argv[2], folder_output=sys.argv[3], flag_plots=False)
params.save(sys.argv[3] + "/params.npz")
"""
    source = Path(cryolike.__file__).parents[1]
    done = theirs(script, source, particles_cs, tmp_path / "a")
    if "has not what cryobridge needs" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    cryolike.convert_particle_stacks_from_indexed_cryosparc(
        tmp_path / "a" / "params.npz", particles_cs, "", tmp_path / "b", flag_plots=False
    )
    assert_same_stacks(tmp_path / "b", tmp_path / "a")


def test_the_examples_of_cryolike_run(checkout, tmp_path):
    shutil.copytree(checkout / "example", tmp_path / "example", ignore=shutil.ignore_patterns("map", "pdb", "output"))
    folder = tmp_path / "example"
    star, stack = (folder / "data" / "particles" / name for name in ("particle_data.star", "particles.mrcs"))
    if not stack.is_file():  # a large file, which not every checkout has
        save_mrc(stack, noise_images(sum(".mrcs" in line for line in star.read_text().splitlines()), 132))
    for name in ("set_image_parameters", "convert_particle_stacks"):
        ours((folder / f"{name}_example.py").read_text(), cwd=folder)
    output = folder / "output"
    params = cryolike.ImageDescriptor.load(output / "templates" / "parameters.npz")
    assert (params.n_pixels, params.n_inplanes, params.atom_shape) == ((132, 132), 256, "hard-sphere")
    with np.load(output / "particles" / "fft" / "particles_fourier_stack_000000.npz") as lens:
        assert lens["defocusU"][0] == pytest.approx(23200, rel=0.2)
    assert len(list((output / "particles" / "plots").iterdir())) == 3


# The examples of each page in order: how many images each stack has, and why CryoLike itself does not run it. Neither
# has it functions of the names on these pages, "…_indexed_cryosparc" and "…_indexed_star_files".
NOT_FOUND = "ValueError: None of the MRC files"
TUTORIALS = {
    "read_cryosparc_file": [
        ([5], NOT_FOUND),  # it looks in the working directory alone, whatever folder the metadata name
        ([5], "AssertionError"),  # it takes ~ for the name of a folder
        ([3, 2], NOT_FOUND),
        ([12], "ValueError"),  # its default of the pixel size, -1, is refused
        ([4, 4], "ValueError"),
        ([12], "ValueError"),
    ],
    "read_star_file": [
        ([2, 3], "ValueError: Pixel size was never set"),
        ([5], NOT_FOUND),
        ([5], "AssertionError"),
        ([3, 2], NOT_FOUND),
    ],
}
EACH_BLOCK = """
import json, sys
from cryolike import *
convert_particle_stacks_from_indexed_cryosparc = convert_particle_stacks_from_indexed_cryosparc_file
convert_particle_stacks_from_indexed_star_files = convert_particle_stacks_from_indexed_star_file
errors = []
for block in json.loads(sys.argv[1]):
    try:
        exec(block)
        errors.append("")
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
print(json.dumps(errors))
"""


@pytest.fixture
def tutorial_data(tmp_path, monkeypatch):
    """The files that CryoLike's tutorials suppose."""
    save_mrc(tmp_path / "somedir" / "file1.mrc", noise_images(4, 16, seed=1), 1.5)
    save_mrc(tmp_path / "somedir" / "file2.mrc", noise_images(12, 16, seed=2), 1.5)
    save_mrc(tmp_path / "otherdir" / "file3.mrc", noise_images(10, 16, seed=3), 1.5)
    moved = tmp_path / "my_research" / "my_mrc_files"
    moved.mkdir(parents=True)
    for path in (*tmp_path.glob("*dir/*.mrc"),):
        shutil.copy(path, moved)
    names = ["somedir/file1.mrc", "somedir/file1.mrc", "somedir/file2.mrc", "otherdir/file3.mrc", "somedir/file1.mrc"]
    # The page's numbers, 3, 1, 10, 10, 2, count from 1; blob/idx counts from 0.
    save_cs(tmp_path / "MyFile.cs", particle_columns(names, [2, 0, 9, 9, 1]))
    image_names = [f"{number:04d}@{name}" for number, name in zip((3, 1, 10, 10, 2), names, strict=True)]
    save_pair(tmp_path, "indexed", 5, rlnImageName=image_names, rlnImagePixelSize=[1.5] * 5)
    for stack, star, n in (("images", "MyFile", 2), ("images2", "File2", 3)):
        _, made = save_pair(tmp_path, stack, n)
        Path(made).rename(tmp_path / "paired" if star == "MyFile" else tmp_path / f"{star}.star")
    columns = {name: values for name, values in particle_columns(["x"] * 12, range(12)).items() if "blob" not in name}
    save_cs(tmp_path / "cryosparc" / "J4" / "J4_passthrough_particles.cs", columns)
    for number in range(3):
        name = f"batch_{number:06d}_restacked.mrc"
        save_mrc(tmp_path / "cryosparc" / "J4" / "restack" / name, noise_images(4, 16, seed=number), 1.5)
    for name in ("my_params", "my_params_file"):
        cryolike.ImageDescriptor.from_individual_values(16, 1.5).save(tmp_path / f"{name}.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.filterwarnings("ignore:the parameter file is for the images before binning")
@pytest.mark.parametrize("page", TUTORIALS)
def test_the_tutorials_of_cryolike_run(page, checkout, theirs, tutorial_data):
    text = (checkout / "docs" / "source" / "tutorials" / f"{page}.rst").read_text()
    blocks = re.findall(r"code-block:: python\n\n((?:(?:    .*)?\n)+)", text)
    assert len(blocks) == len(TUTORIALS[page])
    for block, (sizes, _) in zip(blocks, TUTORIALS[page], strict=True):
        # MyFile.star is of pairs in one example of the page, and names its images in the others.
        shutil.copy("paired" if "paired" in block else "indexed.star", "MyFile.star")
        exec(textwrap.dedent(block), vars(cryolike).copy())
        output = tutorial_data / ("OUTDIR" if "OUTDIR" in block else "")
        assert [len(stack) for stack in made_in(output)] == sizes
        for made in ("fft", "phys", "plots"):
            shutil.rmtree(output / made)
    done = theirs(EACH_BLOCK, json.dumps([textwrap.dedent(block) for block in blocks]), cwd=tutorial_data)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [reason for _, reason in TUTORIALS[page]] == [
        error.partition("\n")[0][: len(reason)] for error, (_, reason) in zip(found, TUTORIALS[page], strict=True)
    ]


def test_cryolike_reads_what_is_written(theirs, particles_cs, tmp_path):
    cryolike.convert_particle_stacks_from_indexed_cryosparc_file(
        None, particles_cs, folder_output=tmp_path / "out", flag_plots=False
    )
    # What its load_img_stack does.
    script = """
import sys, torch
from cryolike.metadata import load_combined_params
from cryolike.microscopy import CTF
from cryolike.stacks import Images
from cryolike.grids import FourierImages
images, lens = load_combined_params(sys.argv[1])
polar = torch.load(sys.argv[1][:-3] + "pt", weights_only=True)
stack = Images(fourier_data=FourierImages(polar, images.polar_grid), phys_data=images.cartesian_grid)
CTF(lens, images.polar_grid, images.cartesian_grid.box_size[0], anisotropy=True)
print(stack.n_images, lens.defocusU.tolist())
"""
    done = theirs(script, tmp_path / "out" / "fft" / "particles_fourier_stack_000000.npz")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("5 [10250.0")
