import json
import signal
import time

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.errors import CryobridgeError, OutputExistsError, UsageError
from cryobridge.formats.lease import exclusive
from helpers import codes, noise_images, particle_columns, run, run_anew, save_cs, save_mrc, sentences, start

TIMED = {"job.json", "run.log", "command.txt", "README.txt"}


@pytest.fixture
def particles(tmp_path):
    """Twelve images, of which stacks of two make six."""
    save_mrc(tmp_path / "a.mrc", noise_images(12, 16), 1.5)
    return save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 12, np.random.default_rng(1).permutation(12)))


def contents(folder):
    """The bytes of all files but those that tell the time."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in TIMED]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stacks(particles, folder, **options):
    return cb.stacks(particles, folder, **({"batch_size": 2, "plots": False, "device": "cpu"} | options))


def pictured(particles, folder, **options):
    return stacks(particles, folder, plots=True, **options)


def small(particles, folder, **options):
    return cb.downsample(particles, folder, **({"box_px": 8, "chunk": 2} | options))


@pytest.mark.parametrize("make", [pictured, small])
def test_parts_and_the_finish_give_the_bytes_of_one_run(make, particles, tmp_path):
    make(particles, tmp_path / "whole")
    reports = [make(particles, tmp_path / "out", part=f"{number}/3") for number in (1, 0, 2)]
    assert [report.rows_out for report in reports] == [4, 4, 4]
    assert all(report.left_out == {"in stacks of other parts": 8} for report in reports)
    assert all("part" in codes(report.messages) for report in reports)
    finished = make(particles, tmp_path / "out", finish=True)
    assert finished.rows_out == 12
    assert finished.stacks_kept == 6
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
    assert json.loads((tmp_path / "out" / "job.json").read_text())["status"] == "completed"


@pytest.mark.parametrize("make", [stacks, small])
def test_images_left_out_by_parts_are_counted_at_the_finish(make, tmp_path):
    images = noise_images(12, 16)
    images[[3, 7]] = np.nan
    save_mrc(tmp_path / "a.mrc", images, 1.5)
    particles = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 12, np.arange(12)))
    whole = make(particles, tmp_path / "whole", on_missing="skip")
    for number in range(2):
        make(particles, tmp_path / "out", part=f"{number}/2", on_missing="skip")
    finished = make(particles, tmp_path / "out", finish=True, on_missing="skip")
    assert finished.left_out_rows == whole.left_out_rows == (3, 7)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_parts_run_at_the_same_time_in_one_folder_on_the_command_line(particles, tmp_path):
    words = ("stacks", "cs", particles, "-b", 2, "--no-plots", "-o")
    assert run(*words, tmp_path / "whole").returncode == 0
    parts = [start(*words, tmp_path / "out", "--part", f"{number}/2") for number in range(2)]
    for part in parts:
        _, errors = part.communicate(timeout=120)
        assert part.returncode == 0, errors
    done = run(*words, tmp_path / "out", "--finish")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_array_job_numbers_the_parts(particles, tmp_path):
    words = ("stacks", "cs", particles, "-b", 2, "--no-plots", "-o", tmp_path / "out", "--json", "--part", "array")
    slurm = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "2"}
    done = run_anew(*words, SLURM_ARRAY_TASK_ID="2", **slurm)
    assert done.returncode == 0, done.stderr
    assert [path[-9:] for path in json.loads(done.stdout)["outputs"]] == ["000001.pt", "000003.pt", "000005.pt"]


def test_a_task_of_an_array_job_without_a_part_makes_all_stacks_and_says_so(particles, tmp_path):
    slurm = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    words = ("stacks", "cs", particles, "-b", 2, "--no-plots", "-o", tmp_path / "out")
    done = run_anew(*words, "--dry-run", **slurm)
    assert "! task 1 of an array job makes all stacks here; --part array makes its part of them" in done.stderr
    done = run_anew(*words, "--dry-run", "--part", "0/2", **slurm)
    assert "array job" not in done.stderr


def test_how_much_is_written_is_said_before_the_work_by_parts_and_dry_runs_too(particles, tmp_path):
    words = ("stacks", "cs", particles, "-b", 2, "--no-plots", "-o", tmp_path / "out")
    report = json.loads(run(*words, "--dry-run", "--json").stdout)
    image, transform = 12 * 16 * 16 * 4, 12 * report["shells"] * report["angles"] * 8
    (text,) = [item["text"] for item in report["notes"] if item["code"] == "size"]
    assert report["stack_bytes"] == image + transform
    assert text == f"the stacks take {(image + transform) / 1e3:.3g} kB; {transform / 1e3:.3g} kB without --phys"
    half = run(*words, "--dry-run", "--no-phys", "--part", "0/2")
    assert f"the stacks take {transform / 2e3:.3g} kB\n" in half.stderr
    made = stacks(particles, tmp_path / "out", physical=False)
    files = [path for path in (tmp_path / "out" / "fft").iterdir() if path.suffix == ".pt"]
    assert made.stack_bytes == transform
    assert 0 <= sum(path.stat().st_size for path in files) - transform < 1024 * len(files)
    report = small(particles, tmp_path / "small", dry_run=True)
    assert report.stack_bytes == 12 * 8 * 8 * 4
    assert "the stacks take 3.07 kB; 1.54 kB with half_precision" in sentences(report.messages)


@pytest.mark.parametrize("make", [stacks, small])
def test_a_whole_run_that_goes_on_with_parts_removes_their_records(make, particles, tmp_path):
    make(particles, tmp_path / "whole")
    make(particles, tmp_path / "out", part="0/2")
    make(particles, tmp_path / "out", resume=True)
    assert not (tmp_path / "out" / "parts").exists()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("make", [stacks, small])
def test_the_finish_names_what_is_missing_or_damaged_and_the_part_that_makes_it(make, particles, tmp_path):
    out = tmp_path / "out"
    make(particles, out, part="0/3")
    make(particles, out, part="2/3")
    with pytest.raises(CryobridgeError, match="2 of 6 stacks are not whole") as caught:
        make(particles, out, finish=True)
    assert "is missing (part 1/3)" in str(caught.value)
    assert "part='1/3'" in caught.value.hint
    assert not (out / "job.json").exists()
    make(particles, out, part="1/3")
    (stack,) = [*out.rglob("particles_fourier_stack_000002.pt"), *out.glob("particles.8.2.mrcs")]
    stack.write_bytes(stack.read_bytes()[:-8])
    with pytest.raises(CryobridgeError, match="1 of 6 stacks is not whole") as caught:
        make(particles, out, finish=True)
    assert stack.name in str(caught.value)
    assert "(part 2/3)" in str(caught.value)
    # It is made again when that is asked for, and not before: it may be something else.
    with pytest.raises(OutputExistsError, match=stack.name):
        make(particles, out, part="2/3")
    again = make(particles, out, part="2/3", resume=True)
    assert again.stacks_kept == 1
    make(particles, out, finish=True)
    make(particles, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_the_finish_reads_stacks_through_if_asked_to(particles, tmp_path):
    for number in range(2):
        stacks(particles, tmp_path / "out", part=f"{number}/2")
    stack = tmp_path / "out" / "fft" / "particles_fourier_stack_000003.pt"
    content = bytearray(stack.read_bytes())
    content[len(content) // 2] ^= 1
    stack.write_bytes(content)
    with pytest.raises(CryobridgeError, match=r"000003\.pt was changed \(part 1/2\)"):
        stacks(particles, tmp_path / "out", finish=True, verify_outputs=True)


@pytest.mark.parametrize("make", [stacks, small])
def test_a_part_that_is_started_again_keeps_what_is_whole(make, particles, tmp_path):
    make(particles, tmp_path / "out", part="0/2")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    again = make(particles, tmp_path / "out", part="0/2")
    assert again.stacks_kept == 3
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path] and "parts" not in path.parts} == set()


def test_a_part_without_stacks_is_no_error(particles, tmp_path):
    reports = [stacks(particles, tmp_path / "out", part=f"{number}/8") for number in range(8)]
    assert [report.stacks for report in reports] == [1] * 6 + [0] * 2
    shown = run("stacks", "cs", particles, "-b", 2, "--no-plots", "-o", tmp_path / "out", "--part", "7/8")
    assert shown.returncode == 0, shown.stderr
    assert "0 of 6 stacks" in shown.stderr
    shown = run("stacks", "downsample", particles, "-D", 8, "-o", tmp_path / "small", "--part", "1/2")
    assert shown.returncode == 0, shown.stderr


def test_a_part_at_work_keeps_out_itself_the_finish_other_divisions_and_whole_runs(particles, tmp_path):
    out = tmp_path / "out"
    stacks(particles, out, part="0/2")
    with exclusive(out / "parts" / "0_of_2") as lease:
        assert lease is not None
        words = ("stacks", "cs", particles, "-b", 2, "--no-plots", "-o", out)
        for more in (["--part", "0/2"], ["--part", "2/3"], ["--finish"], ["--resume"], ["--overwrite"]):
            refused = run(*words, *more)
            assert refused.returncode == 1, more
            assert "another run" in refused.stderr or "a part of it is being made" in refused.stderr
        done = run(*words, "--part", "1/2")
        assert done.returncode == 0, done.stderr


def test_a_whole_run_at_work_keeps_parts_out(particles, tmp_path):
    (tmp_path / "out").mkdir()
    with exclusive(tmp_path / "out"):
        refused = run("stacks", "cs", particles, "-b", 2, "-o", tmp_path / "out", "--part", "0/2")
    assert refused.returncode == 1
    assert "another run" in refused.stderr


def test_parts_of_another_division_that_was_given_up_are_gone_on_with(particles, tmp_path):
    stacks(particles, tmp_path / "out", part="0/3")
    kept = [stacks(particles, tmp_path / "out", part=f"{number}/2").stacks_kept for number in range(2)]
    assert sum(kept) == 2
    assert {path.name for path in (tmp_path / "out" / "parts").iterdir()} == {"0_of_2", "1_of_2"}
    stacks(particles, tmp_path / "out", finish=True)


@pytest.mark.parametrize("make", [stacks, small])
def test_stacks_of_other_images_or_options_are_not_mixed_in(make, particles, tmp_path):
    make(particles, tmp_path / "out")
    other = save_cs(tmp_path / "other.cs", particle_columns(["a.mrc"] * 8, np.arange(8)))
    with pytest.raises((OutputExistsError, UsageError)):
        make(other, tmp_path / "out", part="0/2")
    with pytest.raises(CryobridgeError):
        make(other, tmp_path / "out", finish=True)
    assert json.loads((tmp_path / "out" / "job.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(
    "options",
    [{"part": "0/2", "finish": True}, {"part": "0/2", "overwrite": True}, {"finish": True, "overwrite": True}],
)
def test_options_that_contradict_a_part_or_the_finish_are_refused(options, particles, tmp_path):
    with pytest.raises(UsageError) as caught:
        stacks(particles, tmp_path / "out", **options)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_a_part_writes_nothing(particles, tmp_path):
    report = stacks(particles, tmp_path / "out", part="0/2", dry_run=True)
    assert report.dry_run
    assert report.stacks == 3
    assert not (tmp_path / "out").exists()
    with pytest.raises(CryobridgeError, match="6 of 6 stacks are not whole"):
        stacks(particles, tmp_path / "out", finish=True, dry_run=True)


@pytest.mark.parametrize("command", [("cs",), ("downsample", "-D", 32, "--chunk", 25)])
def test_a_killed_part_is_gone_on_with_to_the_same_bytes(command, tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(64, 64), 1.5)
    rows = np.random.default_rng(0).integers(0, 64, 1500)
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * len(rows), rows, box_px=64))
    name, *more = command
    words = ["stacks", name, path, *more, *(["-b", 25, "--no-plots"] if name == "cs" else []), "-o"]
    assert run(*words, tmp_path / "whole").returncode == 0
    out = tmp_path / "out"
    process = start(*words, out, "--part", "0/2")
    while len([*out.rglob("*.pt"), *out.glob("*.mrcs")]) < 4 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for number in range(2):
        part = run(*words, out, "--part", f"{number}/2")
        assert part.returncode == 0, part.stderr
    finished = run(*words, out, "--finish")
    assert finished.returncode == 0, finished.stderr
    assert contents(out) == contents(tmp_path / "whole")
