import contextlib
import json
import signal
import time

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.errors import CryobridgeError, UsageError
from cryobridge.executors.dask_cluster import ClusterExecutor
from helpers import codes, noise_images, particle_columns, run_anew, save_cs, save_mrc, start

psutil = pytest.importorskip("psutil")
distributed = pytest.importorskip("distributed")
# Of Dask's own sockets.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
TIMED = {"job.json", "run.log", "command.txt", "README.txt"}


def contents(folder):
    """The bytes of all files but those that tell the time."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in TIMED]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def save_particles(folder, *, n=12, box_px=16, unusable=()):
    images = noise_images(n, box_px)
    images[list(unusable)] = np.nan
    save_mrc(folder / "a.mrc", images, 1.5)
    signs = np.where(np.arange(n) < n // 2, -1, 1).astype("f4")
    columns = particle_columns(["a.mrc"] * n, np.arange(n), box_px=box_px, blob__sign=signs)
    return save_cs(folder / "p.cs", columns)


def many(folder):
    """Stacks that take long enough for a signal to come in between."""
    save_mrc(folder / "a.mrc", noise_images(64, 64), 1.5)
    rows = np.random.default_rng(0).integers(0, 64, 3000)
    path = save_cs(folder / "p.cs", particle_columns(["a.mrc"] * len(rows), rows, box_px=64))
    return ("stacks", "cs", path, "-b", 50, "--no-plots", "--device", "cpu", "-o")


def wait_for_stacks(folder, count):
    deadline = time.monotonic() + 120
    while len(list((folder / "fft").glob("[!.]*.pt"))) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def workers_of(process):
    return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def lets_in(address, security=None):
    """Whether a scheduler takes tasks of somebody with these keys, or without any."""
    try:
        with distributed.Client(address, security=security, timeout=2, set_as_default=False) as client:
            return bool(client.submit(bool, 1).result(timeout=10))
    except (OSError, TimeoutError):
        return False


def test_two_processes_make_the_bytes_of_one_with_pictures_and_images_left_out(tmp_path):
    particles = save_particles(tmp_path, unusable=[3])
    options = {"batch_size": 2, "device": "cpu", "on_missing": "skip"}
    whole = cb.stacks(particles, tmp_path / "whole", **options)
    made = cb.stacks(particles, tmp_path / "out", cluster="local:2", **options)
    assert made.left_out_rows == whole.left_out_rows == (3,)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_processes_downsample_to_the_bytes_of_one(tmp_path):
    particles = save_particles(tmp_path)
    options = {"box_px": 8, "chunk": 2, "invert": True}
    cb.downsample(particles, tmp_path / "whole", **options)
    cb.downsample(particles, tmp_path / "out", executor=ClusterExecutor("local:2", "cpu"), **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_task_that_fails_everywhere_is_named_with_its_host_and_all_else_is_made(tmp_path):
    particles = save_particles(tmp_path, unusable=[5])
    words = ("stacks", "cs", particles, "-b", 2, "--no-plots", "--device", "cpu", "-o", tmp_path / "out")
    failed = run_anew(*words, "--cluster", "local:2")
    assert failed.returncode == 1
    said = " ".join(failed.stderr.split())
    assert "1 of 6 tasks failed on 3 workers: 2 on " in said
    assert "is constant or holds NaN" in said
    assert "--resume" in said
    assert {path.stem[-1] for path in (tmp_path / "out" / "fft").glob("*.pt")} == set("01345")
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_worker_that_is_killed_costs_its_task_only(tmp_path):
    words = many(tmp_path)
    assert run_anew(*words, tmp_path / "whole").returncode == 0
    process = start(*words, tmp_path / "out", "--cluster", "local:2")
    wait_for_stacks(tmp_path / "out", 3)
    open_ports = [
        port.laddr
        for one in (psutil.Process(process.pid), *workers_of(process))
        for port in one.net_connections("tcp")
        if port.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in open_ports} == {"127.0.0.1"}
    workers_of(process)[0].kill()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    # No temporary file is among them.
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class Numbers:
    """Work whose tasks take no time."""

    @contextlib.contextmanager
    def elsewhere(self, _device):
        yield lambda number: (1, number)


def test_results_that_a_killed_worker_still_had_are_made_again():
    found = []

    def done(number):
        if not found:
            # By now all tasks are done, and most results are where they were made.
            time.sleep(1)
            workers_of(psutil.Process())[0].kill()
            time.sleep(1)
        found.append(number)

    run = ClusterExecutor("local:2").prepare(Numbers())
    run(range(40), advance=lambda *_, **__: None, done=done)
    assert sorted(found) == list(range(40))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_coordinator_that_is_ended_resumes_to_the_same_bytes(number, tmp_path):
    words = many(tmp_path)
    process = start(*words, tmp_path / "out", "--cluster", "local:2")
    wait_for_stacks(tmp_path / "out", 3)
    workers = workers_of(process)
    second = run_anew(*words, tmp_path / "out", "--resume", "--cluster", "local:2")
    assert second.returncode == 1
    assert "another run of cryobridge" in second.stderr
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    if number == signal.SIGTERM:
        assert process.returncode == 143, errors
        assert "Traceback" not in errors
        assert not list((tmp_path / "out").rglob(".*"))
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    resumed = run_anew(*words, tmp_path / "out", "--resume", "--json", "--cluster", "local:2")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["stacks_kept"] >= 3
    assert run_anew(*words, tmp_path / "whole").returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_others_on_this_machine_do_not_get_into_its_cluster():
    with ClusterExecutor("local:1")._local() as client:
        address = client.scheduler.address
        assert client.submit(bool, 1).result(timeout=30)
        assert not lets_in(address, distributed.Security.temporary())
        assert not lets_in(address.replace("tls", "tcp"))


def test_a_cluster_that_runs_makes_the_bytes_of_one_process(tmp_path):
    particles = save_particles(tmp_path)
    options = {"batch_size": 2, "device": "cpu", "plots": False}
    cb.stacks(particles, tmp_path / "whole", **options)
    with distributed.LocalCluster(2, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp") as cluster:
        assert lets_in(cluster.scheduler_address)
        made = cb.stacks(particles, tmp_path / "out", cluster=cluster.scheduler_address, **options)
    assert "cluster-open" in codes(made.messages)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_open_scheduler_gives_a_warning(tmp_path):
    for address, expected in (("tcp://10.0.0.1:8786", ["cluster-open"]), ("tls://10.0.0.1:8786", [])):
        file = tmp_path / "scheduler.json"
        file.write_text(json.dumps({"type": "Scheduler", "address": address}))
        assert codes(ClusterExecutor(str(file)).messages) == expected
    assert codes(ClusterExecutor("tcp://127.0.0.1:8786").messages) == ["cluster-open"]
    assert ClusterExecutor("tls://127.0.0.1:8786").messages == ()
    assert ClusterExecutor("local:2").messages == ()


@pytest.mark.parametrize("cluster", ["local:0", "local", "http://host:80", "tcp://host", "missing.json"])
def test_what_is_no_cluster_is_refused(cluster):
    with pytest.raises(UsageError) as caught:
        ClusterExecutor(cluster)
    assert caught.value.option == "cluster"
    assert caught.value.hint


def test_a_scheduler_that_does_not_answer_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("cryobridge.executors.dask_cluster._CONNECT_S", 1)
    particles = save_particles(tmp_path)
    with pytest.raises(CryobridgeError, match="can't be reached") as caught:
        cb.stacks(particles, tmp_path / "out", cluster="tcp://127.0.0.1:9", device="cpu")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()
