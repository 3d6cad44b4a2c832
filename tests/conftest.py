from __future__ import annotations

import os

# Each worker has a core: torch's threads of one would wait for those of another. Read when torch is loaded, here
# and in what tests start. Tests that are about threads say how many.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from helpers import save_particles

ROOT = Path(__file__).resolve().parent.parent

# How long an input takes tells of the machine and of what else it does.
settings.register_profile("cryobridge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cryobridge")

# Where tests wait for others most of the time, or take longest: begun first, so that at the end no worker is alone.
FIRST = (
    "tests/executors/test_dask_cluster.py",
    "tests/test_faults.py",
    "tests/test_docs_python.py",
    "tests/cli/test_batch_script.py",
    "tests/relion/test_stages.py",
    "tests/relion/test_maps.py",
    "tests/jobs/stacks/test_parts.py",
    "tests/jobs/stacks/test_run.py",
    "tests/jobs/converge/test_pictures.py",
    "tests/cli/test_app.py",
    "tests/test_hostile.py",
    "tests/test_docs.py",
    "tests/jobs/convert/test_map_check.py",
)
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
N_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


class Folder(pytest.Dir):
    """Each worker begins elsewhere: what one has compiled, the others find."""

    def collect(self):
        found = list(super().collect())
        first = len(found) * WORKER // N_WORKERS
        return found[first:] + found[:first]


def pytest_collect_directory(path, parent):
    return Folder.from_parent(parent, path=path)


def _place(item):
    file = item.nodeid.partition("::")[0]
    return FIRST.index(file) if file in FIRST else len(FIRST), file


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=_place)
    relion = [item for item in items if item.get_closest_marker("relion")]
    if relion and shutil.which("relion_refine") is None:
        for item in relion:
            item.add_marker(pytest.mark.skip(reason="RELION is not installed (Debian: apt-get install relion)"))


@pytest.fixture(autouse=True)
def _interrupts_are_heard():
    """Programs that a test starts inherit what is ignored: a shell has those in its background ignore Ctrl-C.

    So does our own `main` at its end, which some tests call.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def reference_data():
    folder = Path(os.environ.get("CRYOBRIDGE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} is absent (set CRYOBRIDGE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def demo_project(tmp_path_factory):
    from cryobridge.demo import simulate_project

    return simulate_project(tmp_path_factory.mktemp("demo"), n_micrographs=2, particles_per_micrograph=8)


@pytest.fixture
def particles_cs(tmp_path):
    return save_particles(tmp_path)


@pytest.fixture
def command(capsys, monkeypatch):
    """The command line within this process: exit code, stdout, stderr."""
    from cryobridge.cli.app import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["cryobridge", *map(str, words)])
        # The test runner's terminal is no affair of ours.
        monkeypatch.delenv("COLUMNS", raising=False)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call
