"""The scripts that `stacks ... --print-slurm` and `--print-pbs` print: what they hold, and one that is run for real."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import time

import numpy as np
import pytest

from helpers import environment, noise_images, particle_columns, run, save_cs, save_mrc, save_star

distributed = pytest.importorskip("distributed")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
SLURM, PBS = "--print-slurm", "--print-pbs"
# As srun on one node: its own options are left out, and each task has a number. It waits for a file before it starts.
SRUN = """\
#!/bin/bash
while [[ $1 == -* ]]; do shift; done
touch "$WAITING_ROOM/srun"
until [[ -e $WAITING_ROOM/go ]]; do sleep 0.1; done
SLURM_LOCALID=0 exec "$@"
"""
TIMED = {"job.json", "run.log", "command.txt", "README.txt"}


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in TIMED]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def project(tmp_path):
    """A folder whose name needs quoting, with particles of both programs."""
    folder = tmp_path / "it's a project"
    save_mrc(folder / "a.mrcs", noise_images(8, 16), 1.5)
    save_cs(folder / "p.cs", particle_columns(["a.mrcs"] * 8, np.arange(8)))
    columns = {
        "rlnImageName": [f"{place}@a.mrcs" for place in range(1, 9)],
        "rlnVoltage": [300] * 8,
        "rlnSphericalAberration": [2.7] * 8,
        "rlnAmplitudeContrast": [0.1] * 8,
        "rlnDefocusU": [10000] * 8,
        "rlnDefocusV": [9900] * 8,
        "rlnDefocusAngle": [0] * 8,
        "rlnAngleRot": [0] * 8,
        "rlnAngleTilt": [0] * 8,
        "rlnAnglePsi": [0] * 8,
        "rlnImagePixelSize": [1.5] * 8,
    }
    save_star(folder / "p.star", "particles", columns)
    return folder


def printed(*words, cwd):
    done = run(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def words_of(script):
    """The words of the command, as bash reads them."""
    lines = script.split("\n")
    array = "\n".join(lines[lines.index("command=(") : lines.index(")") + 1])
    done = subprocess.run(
        ["bash", "-c", f"{array}\nprintf '%s\\0' \"${{command[@]}}\""], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("system", [SLURM, PBS])
def test_the_command_is_what_was_typed_with_paths_that_hold_anywhere(project, system):
    typed = ("stacks", "star", "p.star", "-o", "out put", "-b", "3", "--no-plots", "--datadir", ".", "--device=cpu")
    before = sorted(project.rglob("*"))
    script = printed("-v", *typed, "--time", "08:00:00", system, cwd=project)
    assert sorted(project.rglob("*")) == before
    assert words_of(script) == [
        *("stacks", "star", f"{project}/p.star", "--output", f"{project}/out put", "--batch-size", "3", "--no-plots"),
        *("--datadir", str(project), "--device", "cpu", "--resume", "--verbose"),
    ]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (
            ("paired", "--pair", "p.star", "a.mrcs", "-o", "out", "--resume", "--phys"),
            ("paired", "--pair", "{}/p.star", "{}/a.mrcs", "--output", "{}/out", "--phys", "--resume"),
        ),
        (
            ("downsample", "p.cs", "-D", "8", "--chunk", "2", "-o", "../small"),
            ("downsample", "{}/p.cs", "--output", "{}/../small", "--box", "8", "--chunk", "2", "--resume"),
        ),
        (("cs", "p.cs", "-o", "out", "-q"), ("cs", "{}/p.cs", "--output", "{}/out", "--resume", "--quiet")),
    ],
)
def test_each_command_can_be_printed(project, typed, expected):
    words = words_of(printed("stacks", *typed, SLURM, cwd=project))
    assert sorted(words) == sorted(["stacks", *(word.format(project) for word in expected)])


@pytest.mark.parametrize("gpus", [(), ("--gpus-per-node", 2, "--nodes", 3)], ids=["cpu", "gpu"])
@pytest.mark.parametrize("system", [SLURM, PBS])
def test_scripts_are_bash_without_a_mistake(project, system, gpus):
    script = printed("stacks", "cs", "p.cs", "-o", "out", system, "--partition", "long", *gpus, cwd=project)
    file = project / "job.sh"
    file.write_text(script)
    checkers = [["bash", "-n"], *([["shellcheck", "--severity=warning"]] if shutil.which("shellcheck") else [])]
    for checker in checkers:
        done = subprocess.run([*checker, file], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_the_job_asks_for_stands_in_its_header(project):
    words = ("stacks", "cs", "p.cs", "-o", "out", "--nodes", 2, "--gpus-per-node", 4, "--cpus-per-task", 8)
    words += ("--time", "08:00:00", "--partition", "gpu")
    slurm, pbs = (printed(*words, system, cwd=project).splitlines() for system in (SLURM, PBS))
    assert [line for line in slurm if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=cryobridge",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --time=08:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --signal=B:TERM@120",
    ]
    assert [line for line in pbs if line.startswith("#PBS")] == [
        "#PBS -N cryobridge",
        "#PBS -j oe",
        "#PBS -l select=2:ncpus=32:ngpus=4:mpiprocs=1",
        "#PBS -l walltime=08:00:00",
        "#PBS -q gpu",
    ]


@pytest.mark.parametrize(("visible", "seen"), [("4,7", "7"), ("GPU-a,GPU-b,GPU-c,GPU-d", "GPU-d"), ("", "3")])
def test_each_worker_sees_one_gpu(project, visible, seen):
    script = printed("stacks", "cs", "p.cs", "-o", "out", SLURM, "--gpus-per-node", 4, cwd=project)
    part = script[script.index("with_one_gpu=") : script.index("worker=(")]
    shown = subprocess.run(
        ["bash", "-euc", f'{part}\nbash -c "$with_one_gpu" worker printenv CUDA_VISIBLE_DEVICES'],
        env=environment(CUDA_VISIBLE_DEVICES=visible, SLURM_LOCALID="3"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == seen


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--nodes", 2), "--print-slurm"),
        (("--time", "10"), "--print-slurm"),
        ((SLURM, PBS), "Give either"),
        ((SLURM, "--part", "0/2"), "the job makes all stacks"),
        ((SLURM, "--finish"), "the job makes all stacks"),
        ((SLURM, "--cluster", "local:2"), "its own cluster"),
        ((PBS, "--overwrite"), "goes on with what the first one made"),
        ((SLURM, "--dry-run"), "--dry-run is not for --print-slurm"),
        ((SLURM, "--json"), "--json is not for --print-slurm"),
        ((SLURM, "--time", "8 hours"), "is no time"),
        ((PBS, "--time", "1-00:00:00"), "is no time"),
        ((SLURM, "--partition", "a\n#SBATCH --wrap"), "is no name"),
        ((SLURM, "--device", "cuda"), "--gpus-per-node 1"),
        ((SLURM, "--device", "cpu", "--gpus-per-node", 1), "--device cuda"),
        ((SLURM, "--device", "cuda:0,cuda:1", "--gpus-per-node", 2), "--device cuda"),
    ],
)
def test_what_contradicts_the_script_is_refused(project, words, said):
    done = run("stacks", "cs", "p.cs", "-o", "out", *words, cwd=project)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in " ".join(done.stderr.split())


def test_inputs_and_outputs_are_checked_as_by_a_dry_run(project):
    assert run("stacks", "cs", "p.cs", "-o", "out", "--no-plots", "--device", "cpu", cwd=project).returncode == 0
    for words in (("p.cs", "-o", "out"), ("missing.cs", "-o", "other")):
        printing, dry = (run("stacks", "cs", *words, last, cwd=project) for last in (SLURM, "--dry-run"))
        assert (printing.returncode, printing.stdout, printing.stderr) == (dry.returncode, "", dry.stderr)
        assert dry.returncode != 0
    assert run("stacks", "cs", "p.cs", "-o", "out", "--resume", SLURM, cwd=project).returncode == 0


@pytest.fixture
def submit():
    """Run scripts as a batch system does; none goes on after the test."""
    jobs = []

    def submitted(*given, **more):
        jobs.append(Submitted(*given, **more))
        return jobs[-1]

    yield submitted
    for job in jobs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGKILL)
        job.process.communicate()


class Submitted:
    """A script that runs as a batch system runs it, with a stand-in for srun that waits until it is let go."""

    def __init__(self, script, folder, srun=SRUN):
        self.folder = folder
        for name in ("go", "srun"):
            (folder / name).unlink(missing_ok=True)
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / "srun").write_text(srun)
        (folder / "bin" / "srun").chmod(0o755)
        (folder / "job.sh").write_text(script)
        changes = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "WAITING_ROOM": str(folder)}
        self.process = subprocess.Popen(
            ["bash", "job.sh"],
            cwd=folder,
            env=environment(**changes, SLURM_CPUS_PER_TASK="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, pattern, count=1):
        deadline = time.monotonic() + 600
        while len(list(self.folder.glob(pattern))) < count:
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.05)

    def go(self):
        (self.folder / "go").touch()

    def end(self):
        """Return the exit code, and what was said."""
        said, _ = self.process.communicate(timeout=120)
        return self.process.returncode, said


def has_other_keys(folder):
    """Who has made keys of their own."""
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -keyout key.pem -out cert.pem"
    folder.mkdir()
    subprocess.run(["openssl", *made.split()], cwd=folder, capture_output=True, check=True)
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    return distributed.Security(tls_ca_file=cert, tls_client_cert=cert, tls_client_key=key, require_encryption=True)


@needs_openssl
def test_a_job_makes_the_bytes_of_one_process_goes_on_and_lets_nobody_else_in(project, submit):
    rows = np.random.default_rng(0).integers(0, 8, 240)
    save_cs(project / "many.cs", particle_columns(["a.mrcs"] * len(rows), rows))
    words = ("stacks", "cs", "many.cs", "-b", 2, "--no-plots", "--device", "cpu", "-o")
    script = printed(*words, "it's out", SLURM, cwd=project)
    job = submit(script, project)
    job.wait_for("srun")
    (private,) = project.glob("it's out/.keys-*")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert {stat.S_IMODE((private / name).stat().st_mode) for name in ("key.pem", "cert.pem")} == {0o600}
    assert json.loads((private / "scheduler.json").read_text())["address"].startswith("tls://")
    file = str(private / "scheduler.json")
    with pytest.raises(OSError, match="certificate"):
        distributed.Client(scheduler_file=file, security=has_other_keys(project / "keys"), timeout=60)
    without_keys = run(*words, "other", "--cluster", file, cwd=project)
    assert without_keys.returncode == 1
    assert "can't be reached (no keys are named)" in without_keys.stderr
    assert not (project / "other").exists()
    job.go()
    job.wait_for("it's out/fft/[!.]*.pt", 3)
    # As a batch system does when the time is nearly up: to the shell alone.
    job.process.send_signal(signal.SIGTERM)
    code, said = job.end()
    assert code == 143, said
    assert "--resume" not in said
    assert "the same command goes on" in said
    assert not list((project / "it's out").rglob(".*"))

    again = submit(script, project)
    again.go()
    code, said = again.end()
    assert code == 0, said
    assert "were there)" in said
    assert not list((project / "it's out").rglob(".*"))
    assert run(*words, "whole", cwd=project).returncode == 0
    assert contents(project / "it's out") == contents(project / "whole")


@needs_openssl
def test_a_job_whose_workers_end_comes_to_an_end(project, submit):
    script = printed("stacks", "cs", "p.cs", "-o", "out", "--device", "cpu", SLURM, cwd=project)
    job = submit(script, project, srun="#!/bin/bash\necho 'no such node' >&2\nexit 1\n")
    code, said = job.end()
    assert code == 1
    assert "no such node" in said
    assert "the scheduler or the workers have ended" in said
    assert not list((project / "out").rglob(".*"))
