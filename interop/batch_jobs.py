"""The stages of ``make cluster``: jobs of a real SLURM make the bytes of one process, whatever happens to them.

The project is the demo, in a folder whose name has to be quoted.
"""

from __future__ import annotations

import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from interop.slurm import NODES

if TYPE_CHECKING:
    from interop.checks import Checks
    from interop.slurm import Slurm

FOLDER = "a user's project"
_PARTICLES = "cryosparc/J4"
# Of the files of a run, those that name the command or tell the time.
_TIMED = {"job.json", "run.log", "command.txt", "README.txt"}
_N_IMAGES, _ENOUGH = 300, 20
_WAIT_S = 200
_MANY = ("stacks", "cs", _PARTICLES, "-b", "1", "--no-plots", "--device", "cpu")


def prepare(slurm: Slurm) -> None:
    """Simulate the project, and make what the jobs are compared with."""
    _cryobridge(slurm, "demo", ".", "-q", "--overwrite")
    _cryobridge(slurm, *_MANY, "-o", "of_one_process")


def check_two_nodes(checks: Checks, slurm: Slurm) -> None:
    """Run one job on two nodes."""
    checks.section("stacks cs --print-slurm, on two nodes of one CPU each")
    start = time.monotonic()
    job = _submitted(slurm, "two_nodes", *_MANY)
    _check_whole(checks, slurm, job, "two_nodes")
    checks.note(f"It took {time.monotonic() - start:.0f} s from sbatch to the end, on a machine that had other work.")


def check_cancelled(checks: Checks, slurm: Slurm) -> None:
    """Tell a job that its time is up, submit it again, cancel it, and submit it again."""
    checks.section("Ended in the middle, and submitted again")
    output = "cancelled"
    job = _submitted(slurm, output, *_MANY)
    _wait_for_stacks(slurm, output, _ENOUGH)
    slurm.cancel("--batch", "--signal=TERM", job)
    checks.equal("its time is nearly up (SIGTERM to the shell): exit code", slurm.end_of(job)[1], 128 + signal.SIGTERM)
    _check_left(checks, slurm, output)
    first = _count(slurm, output)

    job = slurm.submit("job.sh")
    _wait_for_stacks(slurm, output, first + _ENOUGH)
    slurm.cancel(job)
    checks.equal("submitted again, and cancelled (scancel): state", slurm.end_of(job)[0], "CANCELLED")
    slurm.wait_until(lambda: not slurm.processes(job), _WAIT_S)
    left = [name for name in _left(slurm, output) if name.startswith((".keys", ".plan"))]
    checks.equal("keys and plans that are left", len(left), 0)
    second = _count(slurm, output)

    job = slurm.submit("job.sh")
    _check_whole(checks, slurm, job, output)
    kept = "(" + str(second) + " were there)"
    checks.equal(f"{first} and {second} of {_N_IMAGES} stacks were whole, and are kept", kept in _log(slurm, job), True)


def check_lost_worker(checks: Checks, slurm: Slurm) -> None:
    """Kill the workers of a node, which costs their tasks only."""
    checks.section("All workers of one node are killed in the middle (SIGKILL)")
    job = _submitted(slurm, "lost_node", *_MANY)
    _wait_for_stacks(slurm, "lost_node", _ENOUGH)
    for process in slurm.processes(job, NODES[1]):
        process.kill()
    _check_whole(checks, slurm, job, "lost_node")


def check_gpus(checks: Checks, slurm: Slurm) -> None:
    """Ask for GPUs, and look what each worker sees; as they are stand-ins, all compute on the CPU."""
    checks.section("stacks cs --print-slurm --gpus-per-node 2, on two nodes whose GPUs are stand-ins")
    words = (*_MANY[:-2], "--gpus-per-node", "2")
    job = _submitted(slurm, "gpus", *words)
    _wait_for_stacks(slurm, "gpus", 1)
    seen = set()
    for process in slurm.processes(job):
        environment = process.environ()
        if "spawn_main" in " ".join(process.cmdline()):
            seen.add((environment["SLURMD_NODENAME"], environment["CUDA_VISIBLE_DEVICES"]))
    shown = ", ".join(f"{node} {gpu}" for node, gpu in sorted(seen))
    checks.equal("what each worker sees", shown, "n1 0, n1 1, n2 0, n2 1")
    _check_whole(checks, slurm, job, "gpus")


def check_downsample(checks: Checks, slurm: Slurm) -> None:
    """Run a job that makes smaller images and their metadata."""
    checks.section("stacks downsample --chunk 10 --print-slurm, on two nodes")
    words = ("stacks", "downsample", _PARTICLES, "-D", "48", "--chunk", "10")
    _cryobridge(slurm, *words, "-o", "small_of_one_process")
    job = _submitted(slurm, "small", *words)
    _check_whole(checks, slurm, job, "small", "small_of_one_process")


def check_array(checks: Checks, slurm: Slurm) -> None:
    """Run an array job, and its finish when all of it has ended."""
    checks.section("sbatch --array=0-2 with --part array, then --finish as a job that depends on it")
    command = shlex.join([sys.executable, "-m", "cryobridge", *_MANY, "-o", "parts"])
    where = f"--chdir={slurm.folder / FOLDER}"
    array = slurm.submit(where, "--array=0-2", "--wrap", f"{command} --part array")
    finish = slurm.submit(where, f"--dependency=afterany:{array}", "--wrap", f"{command} --finish")
    checks.equal("state and exit code of the parts", _end_of(slurm, array), "COMPLETED, 0")
    _check_whole(checks, slurm, finish, "parts")


STAGES = (check_two_nodes, check_cancelled, check_lost_worker, check_gpus, check_downsample, check_array)


def _cryobridge(slurm: Slurm, *words: str) -> str:
    return slurm.run_command([sys.executable, "-m", "cryobridge", *words], folder=FOLDER)


def _submitted(slurm: Slurm, output: str, *words: str) -> str:
    """Print the script of a command, submit it, and return the number of the job."""
    script = _cryobridge(slurm, *words, "-o", output, "--print-slurm", "--nodes", "2", "--cpus-per-task", "1")
    (slurm.folder / "job.sh").write_text(script, encoding="utf-8")
    return slurm.submit("job.sh")


def _end_of(slurm: Slurm, job: str) -> str:
    return ", ".join(map(str, slurm.end_of(job)))


def _stacks(slurm: Slurm, output: str) -> list[Path]:
    return list((slurm.folder / FOLDER / output).glob("fft/[!.]*.pt"))


def _count(slurm: Slurm, output: str) -> int:
    return len(_stacks(slurm, output))


def _wait_for_stacks(slurm: Slurm, output: str, count: int) -> None:
    slurm.wait_until(lambda: _count(slurm, output) >= count, _WAIT_S)


def _contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in _TIMED]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _log(slurm: Slurm, job: str) -> str:
    return (slurm.folder / f"slurm-{job}.out").read_text(encoding="utf-8")


def _left(slurm: Slurm, output: str) -> list[str]:
    """Return the names of what is not for users; small stacks have a record of how they were made."""
    names = [path.name for path in (slurm.folder / FOLDER / output).rglob(".*")]
    return [name for name in names if not name.endswith(".state.json")]


def _check_left(checks: Checks, slurm: Slurm, output: str) -> None:
    """Check that neither keys nor temporary files are left."""
    checks.equal("keys, plans and temporary files that are left", len(_left(slurm, output)), 0)


def _check_whole(checks: Checks, slurm: Slurm, job: str, output: str, expected: str = "of_one_process") -> None:
    """Check how a job ended, and what it made."""
    checks.equal("state and exit code of the job", _end_of(slurm, job), "COMPLETED, 0")
    _check_left(checks, slurm, output)
    made, whole = (_contents(slurm.folder / FOLDER / name) for name in (output, expected))
    different = {name for name in made.keys() | whole.keys() if made.get(name) != whole.get(name)}
    checks.same_rows("files that are not those of one process, byte for byte", len(different), len(whole))
