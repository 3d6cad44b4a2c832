"""Running the programs, each in its own environment, with a log file a command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

_LAST_LINES = 15
_HERE = Path(__file__).parent
# RECOVAR's plots must not look for a screen, and JAX must not look for other machines.
_ENVIRONMENT = {"MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}

Arrays = dict[str, NDArray[Any]]


class ProgramFailedError(Exception):
    """A program ended with an error: its command, its exit code and the end of what it said."""


class Runner:
    """Runs programs in a folder.

    Parameters
    ----------
    folder
        Where they run; logs go to ``logs`` in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._logs = folder / "logs"
        self._logs.mkdir(exist_ok=True)

    def run_command(
        self, command: list[str], *, folder: str = ".", environment: Mapping[str, str] = MappingProxyType({})
    ) -> str:
        """Run a command and return what it printed on stdout.

        Parameters
        ----------
        command
            Its words.
        folder
            Where to run it, relative to the folder of all.
        environment
            Variables to add.

        Raises
        ------
        ProgramFailedError
            If it ends with another exit code than 0.
        """
        number = len(list(self._logs.iterdir())) + 1
        log = self._logs / f"{number:03d}_{Path(command[0]).name}_{Path(command[1]).stem}.log"
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                command,
                cwd=self.folder / folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                check=False,
            )
            file.write(done.stdout)
        if done.returncode:
            last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-_LAST_LINES:])
            told = " ".join([Path(command[0]).name, *command[1:]]).replace(f"{self.folder}/", "")
            raise ProgramFailedError(f"`{told}` ended with {done.returncode}; the end of logs/{log.name}:\n{last}")
        return done.stdout


class Programs(Runner):
    """Runs cryobridge, RECOVAR and cryoDRGN in a folder.

    Parameters
    ----------
    cryobridge
        Folder of our own executables.
    others
        Folder of RECOVAR's and cryoDRGN's.
    folder
        Where they run; logs go to ``logs`` in it.
    """

    def __init__(self, cryobridge: Path, others: Path, folder: Path) -> None:
        super().__init__(folder)
        self._cryobridge, self._others = cryobridge, others

    def cryobridge(self, *arguments: str) -> str:
        """Run our own command and return what it printed on stdout."""
        return self._run([str(self._cryobridge / "cryobridge"), *arguments])

    def cryobridge_json(self, *arguments: str) -> Any:
        """Run our own command with ``--json`` and return what it told."""
        return json.loads(self.cryobridge(*arguments, "--json"))

    def recovar(self, *arguments: str) -> str:
        """Run RECOVAR."""
        return self._run([str(self._others / "recovar"), *arguments])

    def cryodrgn(self, *arguments: str) -> str:
        """Run cryoDRGN."""
        return self._run([str(self._others / "cryodrgn"), *arguments])

    def read_with(self, program: str, files: Mapping[str, Mapping[str, str]]) -> dict[str, Arrays]:
        """Return what the loaders of a program read.

        Parameters
        ----------
        program
            ``"recovar"`` or ``"cryodrgn"``.
        files
            For each name the particle file and what belongs to it, see `reads_recovar` and `reads_cryodrgn`.
            Paths are relative to the folder.
        """
        jobs = [
            {
                "out": str(self.folder / f"{program}_{name}.npz"),
                **{key: str(self.folder / path) for key, path in job.items()},
            }
            for name, job in files.items()
        ]
        listed = self.folder / f"{program}_reads.json"
        listed.write_text(json.dumps(jobs), encoding="utf-8")
        self._run([str(self._others / "python"), str(_HERE / f"reads_{program}.py"), str(listed)])
        read = {}
        for name, job in zip(files, jobs, strict=True):
            with np.load(job["out"]) as arrays:
                read[name] = dict(arrays)
        return read

    def versions(self, *names: str) -> dict[str, str]:
        """Return the versions of packages in the environment of the programs."""
        listed = json.loads(self._run([str(self._others / "python"), "-m", "pip", "list", "--format", "json"]))
        of = {package["name"].lower(): package["version"] for package in listed}
        return {name: of[name.lower()] for name in names}

    def _run(self, command: list[str]) -> str:
        return self.run_command(command, environment=_ENVIRONMENT)
