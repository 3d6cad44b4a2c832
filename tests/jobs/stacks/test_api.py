from __future__ import annotations

import json

import pytest
import torch

import cryobridge as cb
from cryobridge.errors import OutputExistsError, UsageError
from cryobridge.formats.mrc_write import partial_path
from cryobridge.jobs.stacks import downsample, stacks, write_grid
from helpers import noise_images, save_mrc, save_star

OPTICS = {"rlnVoltage": 300, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
DEFOCUS = {"rlnDefocusU": 9000, "rlnDefocusV": 8900, "rlnDefocusAngle": 5}


@pytest.fixture
def pair(tmp_path):
    """A RELION 3.0 file of three images, and its stack."""
    stack = save_mrc(tmp_path / "a.mrcs", noise_images(3, 16), 1.5)
    columns = {name: [value] * 3 for name, value in (OPTICS | DEFOCUS).items()}
    names = {"rlnImageName": [f"{number}@a.mrcs" for number in (1, 2, 3)]}
    return save_star(tmp_path / "a.star", "", names | columns), stack


def test_stacks_of_files_and_of_pairs_are_reported(pair, particles_cs, tmp_path):
    report = cb.stacks(str(particles_cs), str(tmp_path / "cs"), plots=False, batch_size=2, device="cpu")
    assert (report.rows_in, report.rows_out, report.stacks) == (5, 5, 3)
    assert torch.load(report.outputs[0]).shape[0] == 2
    assert stacks(pair[0], tmp_path / "star", plots=False).rows_out == 3
    report = stacks([pair], tmp_path / "paired", plots=False, phase_shift_unit="radian", dry_run=True)
    assert report.dry_run and report.rows_out == 3
    assert not (tmp_path / "paired").exists()


def test_a_grid_that_is_written_is_taken(pair, tmp_path):
    grid = write_grid(tmp_path / "p.npz", n_pixels=16, pixel_size_A=1.5, n_inplanes=10)
    report = stacks(pair[0], tmp_path / "out", params=grid.outputs[0], plots=False)
    assert (report.shells, report.angles) == (grid.shells, 10)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda path, out: stacks(3, out), "particles"),
        (lambda path, out: stacks([("a.star", "a.mrc", "b")], out), "particles"),
        (lambda path, out: stacks(path, 3), "output"),
        (lambda path, out: stacks(path, out, order="bogus"), "order"),
        (lambda path, out: stacks(path, out, batch_size="many"), "batch_size"),
        (lambda path, out: stacks(path, out, device=0), "device"),
        (lambda path, out: stacks(path, out, box=3), "box"),
        (downsample, "box_px"),
        (lambda path, out: downsample(path, out, box_px=7), "box_px"),
        (lambda path, out: downsample(None, out, box_px=8), "particles"),
        (lambda path, out: write_grid(out, n_pixels=16, pixel_size_A=-1), "pixel_size_A"),
    ],
)
def test_a_wrong_argument_is_named(call, named, pair, tmp_path):
    with pytest.raises(UsageError) as caught:
        call(pair[0], tmp_path / "out")
    assert caught.value.option == named
    assert not (tmp_path / "out").exists()


def test_devices_share_the_downsampled_stacks_to_the_same_bytes(pair, tmp_path):
    from cryobridge.executors.devices import DeviceExecutor

    for name, executor in (("one", None), ("two", DeviceExecutor(["cpu", "cpu"]))):
        downsample(pair[0], tmp_path / name, box_px=8, chunk=1, executor=executor)
    for path in (tmp_path / "one").glob("particles*"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("finished", [True, False])
def test_what_the_version_before_left_is_not_taken_for_whole(finished, pair, tmp_path):
    # It kept one state for all stacks.
    out = tmp_path / "out"
    out.mkdir()
    stack = out / "particles.8.mrcs"
    (stack if finished else partial_path(stack)).write_bytes(bytes(1024 + 3 * 256))
    (out / ".particles.8.state.json").write_text(json.dumps({"made_from": "0" * 64, "left_out": []}))
    with pytest.raises(OutputExistsError, match=r"there already|interrupted run") as caught:
        downsample(pair[0], out, box_px=8, resume=True)
    assert "overwrite=" in caught.value.hint
    downsample(pair[0], out, box_px=8, overwrite=True)
    assert not (out / ".particles.8.state.json").exists()


def test_pixel_sizes_are_settled_alike_for_all_stacks(pair, tmp_path):
    for number, make in enumerate((stacks, lambda *words, **more: downsample(*words, box_px=8, **more))):
        report = make(pair[0], tmp_path / f"{number}", dry_run=True)
        assert "pixel-size-assumed" in [message.code for message in report.notes]
        # What is typed has fewer digits than what a file says.
        star = save_star(
            tmp_path / "with.star",
            "",
            {
                "rlnImageName": ["1@a.mrcs"],
                **{name: [value] for name, value in (OPTICS | DEFOCUS).items()},
                "rlnMagnification": [10000],
                "rlnDetectorPixelSize": [1.5001],
            },
        )
        make(star, tmp_path / f"{number}", pixel_size_A=1.5, dry_run=True)
        with pytest.raises(UsageError, match=r"pixel_size_A=1\.6 contradicts the 1\.5001 Å"):
            make(star, tmp_path / f"{number}", pixel_size_A=1.6, dry_run=True)
