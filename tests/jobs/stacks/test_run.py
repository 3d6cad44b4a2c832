from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from cryobridge.errors import CryobridgeError, OutputExistsError, UsageError
from cryobridge.executors.base import Executor
from cryobridge.executors.devices import DeviceExecutor, device_names
from cryobridge.formats import image_reader
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.file_record import RECORDS
from cryobridge.formats.image_reader import ImageReader
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.input_file import open_input
from cryobridge.formats.pt_write import tensor_writer
from cryobridge.fourier.polar import PolarTransform
from cryobridge.jobs.stacks.inputs import indexed_input
from cryobridge.jobs.stacks.options import StackOptions
from cryobridge.jobs.stacks.polar import transform as transform_module
from cryobridge.jobs.stacks.polar.plan import plan_stacks
from cryobridge.jobs.stacks.polar.transform import PolarChunkTransform
from helpers import codes, noise_images, particle_columns, run, run_stacks, save_cs, save_mrc, start


def plan(path, **options):
    options = StackOptions(**({"plots": False, "batch_size": 2} | options))
    source = indexed_input(read_particles_cs(path), ImageSearch(path), options.on_missing)
    return plan_stacks(source, options)


def stack_bytes(folder):
    # What a reader of stacks sees; job.json and run.log tell the time.
    files = [path for name in ("fft", "phys", "plots") for path in (folder / name).glob("*")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def same_stacks(folder, other):
    # Sums depend in their last bits on the number of threads, which another device or lane may have.
    names = {path.name for path in (folder / "fft").iterdir()}
    assert names == {path.name for path in (other / "fft").iterdir()}
    for name in names:
        if name.endswith(".npz"):
            one, two = (np.load(place / "fft" / name) for place in (folder, other))
            assert one.files == two.files
            for key in set(one.files) - {RECORDS}:  # the checksums of the stacks
                np.testing.assert_array_equal(one[key], two[key])
        else:
            one, two = (torch.load(place / "fft" / name) for place in (folder, other))
            assert torch.linalg.vector_norm(one - two) <= 1e-5 * torch.linalg.vector_norm(one)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(transform_module, "_CPU_CHUNK_BYTES", 1)


# The file format


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("counts", [(3, 1, 5), (0,), ()])
def test_a_tensor_written_in_pieces_is_what_torch_loads(dtype, counts, tmp_path):
    pieces = [torch.randn(count, 3, 4, dtype=dtype) for count in counts]
    with tensor_writer(tmp_path / "t.pt", (3, 4), dtype) as writer:
        for piece in pieces:
            writer.write(piece)
    expected = torch.cat([torch.empty(0, 3, 4, dtype=dtype), *pieces])
    for options in ({"weights_only": True}, {"weights_only": True, "mmap": True}, {"weights_only": False}):
        found = torch.load(tmp_path / "t.pt", **options)
        assert found.dtype == dtype
        assert torch.equal(found, expected)
        assert found.is_contiguous()
    torch.save(expected, tmp_path / "torch.pt")
    assert abs((tmp_path / "t.pt").stat().st_size - (tmp_path / "torch.pt").stat().st_size) < 1200


def test_a_tensor_whose_writing_fails_leaves_no_file(tmp_path):
    def fail():
        with tensor_writer(tmp_path / "t.pt", (2,), torch.float32) as writer:
            writer.write(torch.zeros(3, 2))
            writer.write(torch.zeros(3, 3))

    with pytest.raises(ValueError, match="3, 3"):
        fail()
    assert list(tmp_path.iterdir()) == []


# The work


def test_the_size_of_a_chunk_changes_nothing(particles_cs, tmp_path, monkeypatch):
    run_stacks(plan(particles_cs, batch_size=3), tmp_path / "whole")
    monkeypatch.setattr(transform_module, "_CPU_CHUNK_BYTES", 1)
    assert PolarChunkTransform(plan(particles_cs), "cpu").chunk_size == 1
    run_stacks(plan(particles_cs, batch_size=3), tmp_path / "pieces")
    assert stack_bytes(tmp_path / "whole") == stack_bytes(tmp_path / "pieces")


def test_several_threads_make_the_stacks_that_one_makes(tmp_path, monkeypatch):
    save_mrc(tmp_path / "a.mrc", noise_images(60, 16), 1.5)
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 60, range(60)))
    monkeypatch.setattr(transform_module, "_CPU_CHUNK_BYTES", 1 << 14)
    for n_threads in (1, 3):
        monkeypatch.setattr(transform_module, "n_transforming", lambda n=n_threads: n)
        transform = PolarChunkTransform(plan(path), "cpu")
        assert transform.n_threads == n_threads
        assert transform.chunk_size < 20
        run_stacks(plan(path, batch_size=20), tmp_path / str(n_threads), device="cpu")
    assert stack_bytes(tmp_path / "1") == stack_bytes(tmp_path / "3")


def test_a_chunk_is_not_overwritten_before_it_is_written(particles_cs):
    transform = PolarChunkTransform(plan(particles_cs, batch_size=5), "cpu")
    rows, pixels = np.arange(3), noise_images(3, 16).astype("f4")
    first = transform(transform.prepare(rows, pixels))
    kept = first.polar.clone()
    second = transform(transform.prepare(rows, pixels[::-1].copy()))
    assert torch.equal(first.polar, kept)
    first.release()
    third = transform(transform.prepare(rows, pixels[:2]))
    assert third.polar.data_ptr() == first.polar.data_ptr()  # fresh memory would cost time
    assert torch.equal(third.polar, kept[:2])
    assert torch.equal(second.polar, kept.flip(0))


@pytest.mark.usefixtures("small_chunks")
def test_a_stack_with_a_bad_image_in_its_middle_leaves_nothing_behind(particles_cs, tmp_path):
    images = noise_images(4, 16, seed=2)
    images[1] = np.nan
    save_mrc(tmp_path / "J1" / "extract" / "b.mrc", images, 1.5)
    # Row 2 is the bad one: the first of the second stack's three.
    with pytest.raises(CryobridgeError, match="row 2"):
        run_stacks(plan(particles_cs, batch_size=5), tmp_path / "out")
    assert stack_bytes(tmp_path / "out") == {}
    assert [path.name for path in (tmp_path / "out" / "fft").iterdir()] == []


@pytest.mark.parametrize("thread", ["read", "write"])
def test_an_interrupt_while_a_thread_starts_leaves_nothing_behind(thread, particles_cs, tmp_path, monkeypatch):
    starts = threading.Thread.start

    def start_and_interrupt(self):
        starts(self)
        if self.name.startswith(thread):
            time.sleep(0.2)  # The thread gets to its first work, if it has any.
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_stacks(plan(particles_cs, batch_size=5), tmp_path / "out")
    assert list((tmp_path / "out" / "fft").iterdir()) == []


def test_two_devices_share_the_stacks(particles_cs, tmp_path):
    planned = plan(particles_cs, batch_size=1)
    run_stacks(planned, tmp_path / "one")
    executor = DeviceExecutor(["cpu", "cpu"])
    report = run_stacks(planned, tmp_path / "two", executor=executor)
    assert report.rows_out == 5
    same_stacks(tmp_path / "one", tmp_path / "two")


def test_a_failure_on_one_device_ends_the_others(particles_cs, tmp_path):
    images = noise_images(3, 16, seed=1)
    images[0] = 1.0
    save_mrc(tmp_path / "J1" / "extract" / "a.mrc", images, 1.5)
    planned = plan(particles_cs, batch_size=1)
    with pytest.raises(CryobridgeError, match="constant"):
        run_stacks(planned, tmp_path / "out", executor=DeviceExecutor(["cpu", "cpu"]))


def test_another_executor_takes_the_same_tasks(particles_cs, tmp_path):
    # As one that sends them to other machines would: each task on its own, in any order.
    planned = plan(particles_cs)

    class Backwards(Executor):
        def prepare(self, work):
            def run(numbers, *, advance, done):
                for number in reversed(numbers):
                    DeviceExecutor("cpu").prepare(work)([number], advance=advance, done=done)

            return run

    run_stacks(planned, tmp_path / "a")
    run_stacks(planned, tmp_path / "b", executor=Backwards())
    assert stack_bytes(tmp_path / "a") == stack_bytes(tmp_path / "b")


def test_names_of_several_devices_are_taken_apart():
    assert device_names("cpu") == ("cpu",)
    with pytest.raises(UsageError, match="twice"):
        device_names("cpu, cpu")
    with pytest.raises(UsageError, match="'gpu'"):
        device_names("cpu,gpu")


def test_out_of_memory_on_a_gpu_halves_what_it_is_given(particles_cs, tmp_path, monkeypatch):
    run_stacks(plan(particles_cs, batch_size=5), tmp_path / "enough")
    given = []
    forward = PolarTransform.forward

    def forward_of_two_at_most(self, images, out=None):
        given.append(len(images))
        if len(images) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, images, out)

    monkeypatch.setattr(PolarTransform, "forward", forward_of_two_at_most)
    run_stacks(plan(particles_cs, batch_size=5), tmp_path / "scarce")
    assert given == [5, 2, 2, 1]
    name = "fft/particles_fourier_stack_000000.pt"
    enough, scarce = (torch.load(tmp_path / folder / name) for folder in ("enough", "scarce"))
    assert torch.allclose(enough, scarce, atol=1e-6 * float(abs(enough).max()))


def test_out_of_memory_with_one_image_is_an_error(particles_cs, tmp_path, monkeypatch):
    def forward(self, images, out=None):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PolarTransform, "forward", forward)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run_stacks(plan(particles_cs), tmp_path / "out")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("device", ["cuda", ",".join(f"cuda:{number}" for number in range(torch.cuda.device_count()))])
def test_a_gpu_makes_the_same_stacks(device, tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(40, 16), 1.5)
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 40, range(40)))
    planned = plan(path, batch_size=6)
    run_stacks(planned, tmp_path / "cpu", device="cpu")
    run_stacks(planned, tmp_path / "gpu", device=device)
    same_stacks(tmp_path / "cpu", tmp_path / "gpu")


@pytest.mark.usefixtures("small_chunks")
def test_files_are_opened_once_and_read_in_their_own_order(particles_cs, tmp_path, monkeypatch):
    planned = plan(particles_cs, batch_size=5)
    opened = Counter()

    def counting_open(path):
        opened[path.name] += 1
        return open_input(path)

    monkeypatch.setattr(image_reader, "open_input", counting_open)
    run_stacks(planned, tmp_path / "out")
    assert opened == {"a.mrc": 1, "b.mrc": 1}


def test_shuffled_rows_get_their_own_images(tmp_path):
    rng = np.random.default_rng(0)
    images = {name: noise_images(20, 8, seed=seed).astype("f4") for seed, name in enumerate("abc")}
    for name, pixels in images.items():
        save_mrc(tmp_path / f"{name}.mrc", pixels, 1.5)
    names, index = rng.choice(list("abc"), 50), rng.integers(0, 20, 50)
    path = save_cs(tmp_path / "p.cs", particle_columns([f"{name}.mrc" for name in names], index, box_px=8))
    source = plan(path).source
    for from_maps in (False, True):
        with ImageReader(source.images, source.headers, from_maps=from_maps) as reader:
            for rows in (rng.permutation(50), np.lexsort((index, names)), np.zeros(0, int)):
                expected = np.array([images[names[row]][index[row]] for row in rows]).reshape(-1, 8, 8)
                assert np.array_equal(reader.read(rows), expected)
                out = np.empty((len(rows), 8, 8), "f4")
                assert reader.read(rows, out) is out and np.array_equal(out, expected)


def test_compressed_stacks_are_read(tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(3, 16), 1.5)
    subprocess.run(["gzip", "--keep", str(tmp_path / "a.mrc")], check=True)
    plain = save_cs(tmp_path / "plain.cs", particle_columns(["a.mrc"] * 3, [2, 0, 1]))
    packed = save_cs(tmp_path / "packed.cs", particle_columns(["a.mrc.gz"] * 3, [2, 0, 1]))
    for path in (plain, packed):
        run_stacks(plan(path), tmp_path / path.stem)
    tensors = [torch.load(tmp_path / name / "fft/particles_fourier_stack_000000.pt") for name in ("plain", "packed")]
    assert torch.equal(*tensors)


def test_an_image_file_that_shrinks_while_it_is_read_is_reported(particles_cs, tmp_path):
    planned = plan(particles_cs)
    stack = tmp_path / "J1" / "extract" / "a.mrc"
    stack.write_bytes(stack.read_bytes()[:1500])
    with pytest.raises(CryobridgeError, match=r"a\.mrc: the file has become shorter"):
        run_stacks(planned, tmp_path / "out")


# Resuming


@pytest.mark.parametrize(
    ("plots", "lost"),
    [
        (False, ("fft/particles_fourier_stack_000000.pt", "phys/particles_phys_stack_000001.pt")),
        (True, ("plots/power_spectrum_stack_000002.png",)),
    ],
)
def test_resume_makes_what_is_missing_and_keeps_the_rest(plots, lost, particles_cs, tmp_path):
    planned = plan(particles_cs, plots=plots)
    run_stacks(planned, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    for name in lost:
        (tmp_path / "out" / name).unlink()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*_stack_*")}
        report = run_stacks(planned, tmp_path / "out", resume=True)
        assert report.stacks_kept == (3 if plots else 2)  # pictures alone are drawn anew
        assert report.rows_out == 5
        changed = {path.stem[-6:] for path, age in before.items() if path.stat().st_mtime_ns != age}
        assert changed == {name.partition(".")[0][-6:]}
        assert stack_bytes(tmp_path / "out") == stack_bytes(tmp_path / "whole")


def test_resume_into_an_empty_folder_makes_everything(particles_cs, tmp_path):
    report = run_stacks(plan(particles_cs), tmp_path / "out", resume=True)
    assert (report.rows_out, report.stacks_kept) == (5, 0)


@pytest.mark.parametrize("change", ["grid", "metadata", "images", "batch"])
def test_resume_remakes_stacks_of_other_inputs_or_parameters(change, particles_cs, tmp_path):
    run_stacks(plan(particles_cs, batch_size=1), tmp_path / "out")
    options = {"batch_size": 1}
    if change == "grid":
        options["n_inplanes"] = 10
    elif change == "batch":
        options["batch_size"] = 2
    elif change == "images":
        for name, count in (("a", 3), ("b", 4)):
            save_mrc(tmp_path / "J1" / "extract" / f"{name}.mrc", noise_images(count, 16, seed=9), 1.5)
    else:
        columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names}
        save_cs(particles_cs, columns | {"ctf/df1_A": np.full(5, 12345, "f4")})
    report = run_stacks(plan(particles_cs, **options), tmp_path / "out", resume=True)
    assert report.stacks_kept == 0
    run_stacks(plan(particles_cs, **options), tmp_path / "fresh")
    assert stack_bytes(tmp_path / "out") == stack_bytes(tmp_path / "fresh")


def test_resume_counts_images_that_were_left_out_before(particles_cs, tmp_path):
    images = noise_images(4, 16, seed=2)
    images[1] = 3.0
    save_mrc(tmp_path / "J1" / "extract" / "b.mrc", images, 1.5)
    planned = plan(particles_cs, on_missing="skip")
    first = run_stacks(planned, tmp_path / "out")
    again = run_stacks(planned, tmp_path / "out", resume=True)
    assert first.rows_out == again.rows_out == 4
    assert first.left_out == again.left_out == {"constant, or holds NaN or infinity": 1}


def test_resume_and_overwrite_contradict_each_other(particles_cs, tmp_path):
    done = run("stacks", "cs", particles_cs, "-o", tmp_path / "out", "--resume", "--overwrite")
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(64, 64), 1.5)
    rows = np.random.default_rng(0).integers(0, 64, 1500)
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * len(rows), rows, box_px=64))
    words = ("stacks", "cs", path, "-b", 50, "--no-plots", "-o")
    whole = run(*words, tmp_path / "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = start(*words, tmp_path / "out")
    while len(list((tmp_path / "out" / "fft").glob("*.pt"))) < 4 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Files under their final names are whole even now; those whose names begin with a dot are not.
    expected = stack_bytes(tmp_path / "whole")
    there = {name: digest for name, digest in stack_bytes(tmp_path / "out").items() if "/." not in name}
    assert 8 <= len(there) < len(expected)
    assert there.items() <= expected.items()
    n_whole = len([name for name in there if name.endswith(".pt") and "fourier" in name])
    assert f"{n_whole} of 30 stacks are whole; `cryobridge " in run("inspect", tmp_path / "out").stdout
    again = run(*words, tmp_path / "out", cwd=tmp_path)
    assert again.returncode == 1
    assert "an interrupted run left this, of the same images and options: " in again.stderr
    assert (
        " of 30 stacks are whole\n  → The same command with --resume goes on; --overwrite begins anew.\n"
        in again.stderr
    )
    resumed = run(*words, tmp_path / "out", "--resume", "--json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["stacks_kept"] >= 3
    assert stack_bytes(tmp_path / "out") == expected
    assert "are whole" not in run("inspect", tmp_path / "out").stdout


def test_a_second_run_into_one_folder_is_refused(particles_cs, tmp_path):
    planned = plan(particles_cs)

    class Slow(Executor):
        def prepare(self, work):
            self.work = work
            return self.run

        def run(self, numbers, *, advance, done):
            for words in ((), ("--overwrite",), ("--resume",)):
                second = run("stacks", "cs", particles_cs, "-o", tmp_path / "out", "--no-plots", *words)
                assert second.returncode == 1
                assert "another run of cryobridge" in second.stderr
            DeviceExecutor("cpu").prepare(self.work)(numbers, advance=advance, done=done)

    run_stacks(planned, tmp_path / "out", executor=Slow())
    run_stacks(planned, tmp_path / "alone")
    assert stack_bytes(tmp_path / "out") == stack_bytes(tmp_path / "alone")


def test_an_interrupt_leaves_whole_files_only(tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(64, 64), 1.5)
    rows = np.random.default_rng(0).integers(0, 64, 4000)
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * len(rows), rows, box_px=64))
    process = start("stacks", "cs", path, "-b", 50, "-o", tmp_path / "out")
    while not list((tmp_path / "out" / "fft").glob("*.pt")) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    folder = tmp_path / "out"
    left = [path for path in folder.rglob("*") if path.name.startswith(".")]
    assert left == []
    for stack in (folder / "fft").glob("*.pt"):
        assert torch.load(stack, mmap=True).shape == (50, 65, 128)
    # What is said, and what the record holds, is what was made.
    record = json.loads((folder / "job.json").read_text())
    n_whole = record["report"]["stacks"]
    assert record["status"] == "interrupted"
    assert (record["report"]["stacks_planned"], n_whole) == (80, len(list((folder / "fft").glob("*.pt"))))
    assert len(record["report"]["outputs"]) == n_whole
    assert record["report"]["rows_out"] == 50 * n_whole
    assert record["report"]["left_out"] == {"in stacks that are not made": 4000 - 50 * n_whole}
    are = "is" if n_whole == 1 else "are"
    said = f"\n{n_whole} of 80 stacks {are} whole; the same command with --resume goes on\ninterrupted\n"
    assert errors.endswith(said)
    assert f"; `{record['command']} --resume` goes on" in run("inspect", folder).stdout
    assert "images: 4,000 to do\n" in errors
    log = (folder / "run.log").read_text()
    assert "images: 4,000 to do\n" in log
    assert f"{n_whole} of 80 stacks {are} whole; the same command with --resume goes on\n" in log
    assert "resume=" not in log + (folder / "job.json").read_text()
    assert "\ninterrupted after " in log


def ages(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_resuming_a_finished_run_touches_no_file(particles_cs, tmp_path):
    planned = plan(particles_cs, plots=True)
    run_stacks(planned, tmp_path / "out")
    before = ages(tmp_path / "out")
    for verify_outputs in (False, True):
        report = run_stacks(planned, tmp_path / "out", resume=True, verify_outputs=verify_outputs)
        assert (report.stacks_kept, report.stacks_planned, report.rows_out) == (3, 3, 5)
        assert [item.code for item in report.messages if "nothing was changed" in item.text] == ["nothing-to-do"]
        assert ages(tmp_path / "out") == before
    with pytest.raises(
        OutputExistsError, match="there already, of the same images and options: 3 of 3 stacks are whole"
    ):
        run_stacks(planned, tmp_path / "out")
    # A stack too many is removed, and pictures that are lost are drawn.
    lost = tmp_path / "out" / "plots" / "power_spectrum_stack_000002.png"
    lost.unlink()
    run_stacks(planned, tmp_path / "out", resume=True)
    assert lost.is_file()
    run_stacks(plan(particles_cs, plots=True, n_stacks_max=2), tmp_path / "out", resume=True)
    assert not lost.exists()


def test_the_record_of_a_run_that_fails_holds_what_was_made(particles_cs, tmp_path):
    planned = plan(particles_cs, batch_size=1)

    class Fails(Executor):
        def prepare(self, work):
            def run(numbers, *, advance, done):
                DeviceExecutor("cpu").prepare(work)(numbers[:2], advance=advance, done=done)
                raise CryobridgeError("the disk is gone")

            return run

    with pytest.raises(CryobridgeError, match="the disk is gone"):
        run_stacks(planned, tmp_path / "out", executor=Fails())
    record = json.loads((tmp_path / "out" / "job.json").read_text())
    assert (record["status"], record["report"]["stacks"], record["report"]["stacks_planned"]) == ("failed", 2, 5)
    assert run_stacks(planned, tmp_path / "out", resume=True).stacks_kept == 2


# Plots


def test_each_stack_gets_its_pictures(particles_cs, tmp_path):
    run_stacks(plan(particles_cs, plots=True), tmp_path / "out")
    names = ("particles_phys_stack", "particles_fourier_stack", "power_spectrum_stack")
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} == {
        f"{name}_{number:06d}.png" for name in names for number in range(3)
    }
    for path in (tmp_path / "out" / "plots").iterdir():
        with Image.open(path) as picture:
            picture.verify()


def test_pictures_that_cannot_be_drawn_are_reported_and_the_stacks_are_whole(particles_cs, tmp_path, monkeypatch):
    # A process that ends at once, as when memory runs out.
    monkeypatch.setattr("cryobridge.executors.helper_process.sys.executable", "/bin/false")
    with pytest.raises(CryobridgeError, match="pictures could not be drawn") as caught:
        run_stacks(plan(particles_cs, plots=True), tmp_path / "out")
    assert "resume=" in caught.value.hint
    assert len(list((tmp_path / "out" / "fft").glob("*.pt"))) >= 1


def test_missing_pictures_are_drawn_of_the_stacks_that_are_there(particles_cs, tmp_path):
    folder, planned = tmp_path / "out", plan(particles_cs, plots=True)
    run_stacks(planned, folder)
    drawn = {path: path.read_bytes() for path in (folder / "plots").iterdir()}
    stacks = {path: path.stat().st_mtime_ns for name in ("fft", "phys") for path in (folder / name).iterdir()}
    gone = sorted(drawn)[::2]
    for path in gone:
        path.unlink()
    shown = run("inspect", folder).stdout
    assert f"{len(drawn) - len(gone)} of {len(drawn)} pictures are there; --resume draws the others" in shown
    report = run_stacks(planned, folder, resume=True)
    assert {path: path.read_bytes() for path in (folder / "plots").iterdir()} == drawn
    assert {path: path.stat().st_mtime_ns for path in stacks} == stacks
    assert "pictures-drawn-again" in codes(report.notes)
    assert report.stacks_kept == len(planned.tasks)
    assert codes(run_stacks(planned, folder, resume=True).notes).count("nothing-to-do") == 1


def test_stacks_without_pictures_are_whole(particles_cs, tmp_path):
    """A run that was stopped while pictures were drawn has no less stacks for it."""
    folder, planned = tmp_path / "out", plan(particles_cs, plots=True)
    run_stacks(planned, folder)
    for path in (folder / "plots").iterdir():
        path.unlink()
    with pytest.raises(OutputExistsError) as caught:
        run_stacks(planned, folder)
    n = len(planned.tasks)
    assert f"{n} of {n} stack" in str(caught.value)
    assert "resume=True" in caught.value.hint
