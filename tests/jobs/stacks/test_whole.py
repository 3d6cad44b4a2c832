"""What --resume takes for whole, and what it makes again."""

from __future__ import annotations

import shutil

import pytest

from cryobridge import downsample, inspect, stacks, write_grid
from cryobridge.errors import UsageError
from cryobridge.formats.file_record import FileRecord
from cryobridge.formats.mrc_write import MrcStackWriter, partial_path, sums_path
from cryobridge.jobs.output_folder import locked
from helpers import noise_images, run, run_where_one_may_only_read, save_mrc, save_star, sentences

_RECORDS = {"job.json", "run.log", "command.txt", "README.txt"}
FOURIER, PHYS = "fft/particles_fourier_stack_000001.pt", "phys/particles_phys_stack_000001.pt"
SMALL = "particles.8.1.mrcs"


@pytest.fixture
def star(tmp_path):
    save_mrc(tmp_path / "a.mrcs", noise_images(6, 16), 1.5)
    columns = {
        "rlnImageName": [f"{1 + i}@a.mrcs" for i in range(6)],
        "rlnVoltage": [300] * 6,
        "rlnSphericalAberration": [2.7] * 6,
        "rlnAmplitudeContrast": [0.1] * 6,
        "rlnDefocusU": [10000] * 6,
        "rlnDefocusV": [10000] * 6,
        "rlnDefocusAngle": [0] * 6,
        "rlnDetectorPixelSize": [1.5] * 6,
        "rlnMagnification": [10000] * 6,
    }
    return save_star(tmp_path / "p.star", "", columns)


def make(name, star, out, **options):
    if name == SMALL:
        return downsample(star, out, box_px=8, chunk=2, **options)
    return stacks(star, out, batch_size=2, plots=False, **options)


def data(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in _RECORDS}


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"0")


def replace(path):
    """Put another stack of the same size and kind there."""
    shutil.copy(path.with_name(path.name.replace("1.", "2.")), path)


def change_within(path):
    content = bytearray(path.read_bytes())
    content[1100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [empty, cut, lengthen, replace])
@pytest.mark.parametrize("name", [FOURIER, PHYS, SMALL])
def test_what_is_not_whole_is_made_again_and_said(name, damage, star, tmp_path):
    out = tmp_path / "out"
    make(name, star, out)
    whole = data(out)
    damage(out / name)
    assert not any(use.name == "whole" for use in inspect(out).uses)
    with pytest.raises(Exception, match=name.rpartition("/")[2]):
        inspect(out, check="whole")
    report = make(name, star, out, resume=True)
    assert report.stacks_kept == 2
    assert "stacks-made-again" in [message.code for message in report.notes]
    assert name.rpartition("/")[2] in sentences(report.notes)
    assert data(out) == whole
    assert "stacks-made-again" not in [message.code for message in make(name, star, out, resume=True).notes]
    assert inspect(out, check="whole").is_ready("whole")


@pytest.mark.parametrize("name", [FOURIER, PHYS, SMALL])
def test_bytes_that_changed_within_are_found_where_stacks_are_read_through(name, star, tmp_path):
    # The file must be long enough to have a middle.
    save_mrc(tmp_path / "a.mrcs", noise_images(6, 64), 1.5)
    out = tmp_path / "out"
    options = {"box_px": 32, "chunk": 2} if name == SMALL else {"batch_size": 2, "plots": False}
    job = downsample if name == SMALL else stacks
    name = name.replace(".8.", ".32.")
    job(star, out, **options)
    whole = data(out)
    change_within(out / name)
    assert job(star, out, resume=True, **options).stacks_kept == 3
    checked = run("inspect", out, "--check", "whole")
    assert checked.returncode == 3
    assert f"{name} was changed" in " ".join(checked.stderr.split())
    report = job(star, out, resume=True, verify_outputs=True, **options)
    assert report.stacks_kept == 2
    assert "was changed" in sentences(report.notes)
    assert data(out) == whole
    assert run("inspect", out, "--check", "whole").returncode == 0


def test_stacks_without_images_of_their_own_are_not_taken_for_those_with_them(star, tmp_path):
    make(FOURIER, star, tmp_path / "out")
    old = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "phys").iterdir()}
    # As left by a run without images, into a folder that has them.
    shutil.rmtree(tmp_path / "out" / "fft")
    shutil.copytree(tmp_path / "out" / "phys", tmp_path / "phys")
    make(FOURIER, star, tmp_path / "out", physical=False, overwrite=True)
    shutil.rmtree(tmp_path / "out" / "phys", ignore_errors=True)
    shutil.copytree(tmp_path / "phys", tmp_path / "out" / "phys")
    report = make(FOURIER, star, tmp_path / "out", resume=True)
    assert report.stacks_kept == 0
    assert "has no record of its size" in sentences(report.notes)
    assert all(path.stat().st_mtime_ns > age for path, age in old.items())


def test_unfinished_stacks_begin_anew_where_outputs_are_verified(star, tmp_path):
    out = tmp_path / "out"
    make(SMALL, star, out)
    whole = data(out)
    stack = out / SMALL
    content = bytearray(stack.read_bytes())
    content[1100] ^= 1
    stack.with_name(f".{SMALL}.part").write_bytes(content)
    stack.unlink()
    make(SMALL, star, out, resume=True, verify_outputs=True)
    assert data(out) == whole


@pytest.fixture
def unfinished(star, tmp_path, monkeypatch):
    """The folder of a run that was interrupted after 4 of 6 images, of 1.6 MB each, and what is in one that was not."""
    save_mrc(tmp_path / "a.mrcs", noise_images(6, 640), 1.5)
    downsample(star, tmp_path / "whole", box_px=638)
    append, n_chunks = MrcStackWriter.append, []

    def interrupted(self, images):
        for image in images:
            n_chunks.append(1)
            if len(n_chunks) == 5:
                raise KeyboardInterrupt
            append(self, image)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MrcStackWriter, "append", interrupted)
        downsample(star, tmp_path / "out", box_px=638)
    return tmp_path / "out", {path.name: content for path, content in data(tmp_path / "whole").items()}


IMAGE_BYTES = 638 * 638 * 4


def _change_second(partial):
    content = bytearray(partial.read_bytes())
    content[1024 + IMAGE_BYTES + 77] ^= 1
    partial.write_bytes(content)


def _zeros_at_end(partial):
    """What is left after a power failure: the size is there, and the last blocks were not written."""
    partial.write_bytes(partial.read_bytes()[:-5000] + bytes(5000))


@pytest.mark.parametrize(
    ("damage", "n_kept", "n_again"),
    [
        (lambda partial: None, 4, 0),
        (_change_second, 1, 3),
        (_zeros_at_end, 3, 1),
        (lambda partial: partial.write_bytes(partial.read_bytes()[: 1024 + 2 * IMAGE_BYTES + 9]), 2, 0),
        (lambda partial: partial.write_bytes(b"\1" * partial.stat().st_size), 0, 4),
        (lambda partial: sums_path(partial.parent / "particles.638.mrcs").unlink(), 0, 4),
        (lambda partial: sums_path(partial.parent / "particles.638.mrcs").write_bytes(b"\xff" * 48), 0, 4),
    ],
)
def test_of_an_unfinished_stack_only_what_fits_its_checksums_is_kept(
    damage, n_kept, n_again, unfinished, star, monkeypatch
):
    out, whole = unfinished
    damage(partial_path(out / "particles.638.mrcs"))
    appended = []
    append = MrcStackWriter.append
    monkeypatch.setattr(
        MrcStackWriter, "append", lambda self, images: (appended.append(len(images)), append(self, images))[1]
    )
    report = downsample(star, out, box_px=638, resume=True)
    assert sum(appended) == 6 - n_kept
    assert {path.name: content for path, content in data(out).items()} == whole
    noted = [message.text for message in report.notes if message.code == "stacks-made-again"]
    assert len(noted) == bool(n_again)
    assert all(f"the unfinished particles.638.mrcs: {n_again} image" in text for text in noted)


def test_outputs_are_verified_only_where_they_are_kept(star, tmp_path):
    with pytest.raises(UsageError, match="verify_outputs=True is for stacks that resume= keeps"):
        make(SMALL, star, tmp_path / "out", verify_outputs=True)


def test_an_output_without_records_or_of_a_run_without_an_end_is_not_said_to_be_whole(star, tmp_path):
    out = tmp_path / "out"
    make(FOURIER, star, out)
    record = out / "job.json"
    record.write_text(record.read_text().replace('"completed"', '"failed"'))
    shutil.copy(out / FOURIER, out / FOURIER.replace("1.pt", "9.pt"))
    done = run("inspect", out, "--check", "whole")
    assert done.returncode == 3
    said = " ".join(done.stderr.split())
    assert "the run that made it: failed" in said
    assert "without a record of size and checksum" in said


def test_a_run_that_was_killed_is_not_said_to_be_running(star, tmp_path):
    out = tmp_path / "out"
    make(FOURIER, star, out)
    record = out / "job.json"
    record.write_text(record.read_text().replace('"completed"', '"running"'))
    with locked(out):
        assert inspect(out).details["output"]["status"] == "running"
    assert inspect(out).details["output"]["status"] == "stopped without an end"
    done = run("inspect", out, "--check", "whole")
    assert done.returncode == 3
    assert "stopped without an end" in done.stdout


def test_a_record_counts_the_head_last(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * 40)
    record = FileRecord.of(path, 100)
    assert record.why_not(path, read_through=True) == ""
    for place in (0, 99, 100, 5000, 10239):
        content = bytearray(bytes(range(256)) * 40)
        content[place] ^= 128
        path.write_bytes(content)
        assert record.why_not(path, read_through=True)


def test_images_of_kept_stacks_that_are_not_asked_for_are_named(star, tmp_path):
    out = tmp_path / "out"
    make(FOURIER, star, out)
    whole = data(out)
    report = make(FOURIER, star, out, resume=True, physical=False)
    assert report.stacks_kept == 3
    assert "3 files of stacks that are kept stay" in sentences(report.notes)
    assert data(out) == whole
    assert inspect(out, check="whole").is_ready("whole")


@pytest.mark.parametrize("name", ["grid.npz", "new/grid.npz"])
def test_a_parameter_file_in_a_folder_that_may_not_be_written_is_one_message(name, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    words = ("stacks", "grid", "-o", out / name, "--n-pixels", 16, "--pixel-size", 1.5)
    done = run_where_one_may_only_read(out, *words)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert said.count("Error:") == 1
    assert "(Permission denied)" in said
    assert "You may not write there" in said
    assert not list(out.iterdir())


def test_a_parameter_file_gets_its_folder(tmp_path):
    write_grid(tmp_path / "new" / "folder" / "grid.npz", n_pixels=16, pixel_size_A=1.5)
    assert (tmp_path / "new" / "folder" / "grid.npz").is_file()
