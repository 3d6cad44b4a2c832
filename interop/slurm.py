"""A SLURM of its own, in a folder of its own: two nodes on this machine, each with two CPUs and two GPUs that are none.

It needs no rights, as its daemons and jobs are the user's own::

    with Slurm(tmp_path) as slurm:
        job = slurm.submit("job.sh")
        assert slurm.end_of(job) == ("COMPLETED", 0)

The daemons end with the block, whatever happens in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from interop.install import PACKAGES, program
from interop.programs import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

NODES = ("n1", "n2")
_AT_WORK = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"}
_START_S, _JOB_S, _END_S = 60, 400, 60
_CONF = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""
_GRES = "NodeName=n[1-2] Name=gpu File=/dev/null,/dev/zero\n"


def is_installed() -> bool:
    """Whether all programs of SLURM and MUNGE are there."""
    return all(map(program, PACKAGES["slurm"]))


class Slurm(Runner):
    """Starts SLURM, gives it jobs, and ends it.

    Parameters
    ----------
    folder
        Where jobs are submitted.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # A socket's path is short; MUNGE lets others look into the folder, and nobody read its key.
        self._own = Path(tempfile.mkdtemp(prefix="slurm-"))
        self._own.chmod(0o755)
        self._environment = {"SLURM_CONF": str(self._own / "slurm.conf")}

    def __enter__(self) -> Slurm:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        own = self._own
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (own / name).mkdir()
        key = own / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        user = psutil.Process().username()
        conf = _CONF.format(host=socket.gethostname().partition(".")[0], folder=own, user=user, ports=_free_ports(3))
        (own / "slurm.conf").write_text(conf)
        (own / "gres.conf").write_text(_GRES)
        files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed", "key-file": "key"}
        self._daemon("munged", *(f"--{option}={own}/munge.{name}" for option, name in files.items()))
        self._daemon("slurmctld", "-c")
        for node in NODES:
            self._daemon("slurmd", "-N", node)
        self.wait_until(lambda: self.ask("sinfo", "--noheader", "--format=%t").split() == ["idle"], _START_S)

    def _daemon(self, name: str, *words: str) -> None:
        self._run(program(name) or name, *words)

    def _run(self, *words: str) -> str:
        return self.run_command(list(words), environment=self._environment)

    def ask(self, *command: str) -> str:
        """Ask SLURM something, as often as is needed; an answer that fails is empty."""
        environment = {**os.environ, **self._environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    def submit(self, *words: str) -> str:
        """Submit a job, by the words for sbatch, and return its number."""
        return self._run("sbatch", "--parsable", *words).strip()

    def cancel(self, *words: str) -> None:
        """Send a signal to a job, by the words for scancel."""
        self._run("scancel", *words)

    def end_of(self, job: str) -> tuple[str, int]:
        """Wait until a job has ended, and return its state and exit code."""
        pattern = r"JobState=(\w+).*?ExitCode=(\d+):"
        states: list[tuple[str, str]] = []

        def has_ended() -> bool:
            states[:] = re.findall(pattern, self.ask("scontrol", "show", "job", job), re.DOTALL)
            return bool(states) and all(state not in _AT_WORK for state, _ in states)

        self.wait_until(has_ended, _JOB_S)
        return max(state for state, _ in states), max(int(code) for _, code in states)

    def processes(self, job: str, node: str | None = None) -> list[psutil.Process]:
        """Return the processes of a job's workers, on a node or on all."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environment = process.environ()
                is_worker = environment.get("SLURM_JOB_ID") == job and environment.get("SLURM_STEP_ID") == "0"
                if is_worker and node in (None, environment["SLURMD_NODENAME"]) and "python" in process.name():
                    found.append(process)
        return found

    def wait_until(self, holds: Callable[[], bool], patience_s: float) -> None:
        """Wait for something.

        Raises
        ------
        TimeoutError
            If it has not come in time.
        """
        deadline = time.monotonic() + patience_s
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {patience_s:.0f} s in vain")
            time.sleep(0.2)

    def version(self) -> str:
        """Return SLURM's version."""
        return self.ask("sinfo", "--version").split()[-1]

    def __exit__(self, *_: object) -> None:
        if self.ask("squeue", "--noheader"):
            self.ask("scancel", "--user", psutil.Process().username())
            with contextlib.suppress(TimeoutError):
                self.wait_until(lambda: not self.ask("squeue", "--noheader").strip(), _END_S)
        # MUNGE last: the others sign by it.
        names = [*(f"slurmd-{node}.pid" for node in NODES), "slurmctld.pid", "munge.pid"]
        for path in (self._own / name for name in names):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                _end(psutil.Process(int(path.read_text())))
        shutil.rmtree(self._own, ignore_errors=True)


def _end(process: psutil.Process) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except psutil.TimeoutExpired:
        process.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
