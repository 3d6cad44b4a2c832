import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.errors import CryobridgeError, UsageError
from cryobridge.executors.dask_cluster import ClusterExecutor, attempt
from cryobridge.progress import Silent
from helpers import codes, environment, noise_images, particle_columns, run, run_anew, save_cs, save_mrc, start

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


class Many:
    """Stacks that take long enough for a signal to come in between; they need no torch, which takes long to load."""

    def __init__(self, folder):
        save_mrc(folder / "a.mrc", noise_images(64, 64), 1.5)
        rows = np.random.default_rng(0).integers(0, 64, 2000)
        self.path = save_cs(folder / "p.cs", particle_columns(["a.mrc"] * len(rows), rows, box_px=64))
        self.options = {"box_px": 32, "chunk": 20}
        self.words = ("stacks", "downsample", self.path, "-D", 32, "--chunk", 20, "-o")
        cb.downsample(self.path, folder / "whole", **self.options)
        self.contents = contents(folder / "whole")

    def start(self, folder, cluster):
        process = start(*self.words, folder, "--cluster", cluster, is_group=True)
        while len([*folder.glob("*.mrcs")]) < 3 and process.poll() is None:
            time.sleep(0.005)
        return process


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return Many(tmp_path_factory.mktemp("many"))


def workers_of(process):
    return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def lets_in(address, security=None, patience_s=2):
    """Whether a scheduler takes tasks of somebody with these keys, or without any."""
    try:
        with distributed.Client(address, security=security, timeout=patience_s, set_as_default=False) as client:
            return bool(client.submit(bool, 1).result(timeout=60))
    except (OSError, TimeoutError):
        return False


def start_dask(*words):
    command = [sys.executable, "-m", "dask", *map(str, words), "--host", "127.0.0.1", "--no-dashboard"]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start_scheduler(file):
    scheduler = start_dask("scheduler", "--port", 0, "--scheduler-file", file)
    while not file.is_file() and scheduler.poll() is None:
        time.sleep(0.01)
    return scheduler


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster as a user starts it: a scheduler and two workers; its scheduler file and its address."""
    file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
    worker = ("worker", "--scheduler-file", file, "--nthreads", 1, "--no-nanny")
    processes = [start_scheduler(file), start_dask(*worker), start_dask(*worker)]
    address = json.loads(file.read_text())["address"]
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
    yield SimpleNamespace(file=str(file), address=address)
    for process in processes:
        process.kill()
        process.wait(60)


def test_two_workers_make_the_bytes_of_one_process_with_pictures_and_images_left_out(cluster, tmp_path):
    particles = save_particles(tmp_path, unusable=[3])
    options = {"batch_size": 6, "device": "cpu", "on_missing": "skip"}
    whole = cb.stacks(particles, tmp_path / "whole", **options)
    made = cb.stacks(particles, tmp_path / "out", cluster=cluster.file, **options)
    assert made.left_out_rows == whole.left_out_rows == (3,)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    # Once more, when all is there.
    again = cb.stacks(particles, tmp_path / "out", cluster=cluster.file, resume=True, **options)
    assert again.stacks_kept == 2


def test_two_workers_downsample_to_the_bytes_of_one_process(cluster, tmp_path):
    particles = save_particles(tmp_path)
    options = {"box_px": 8, "chunk": 2, "invert": True}
    cb.downsample(particles, tmp_path / "whole", **options)
    made = cb.downsample(particles, tmp_path / "out", executor=ClusterExecutor(cluster.address, "cpu"), **options)
    assert "cluster-open" in codes(made.messages)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_task_that_fails_everywhere_is_named_with_its_host_and_all_else_is_made(cluster, tmp_path):
    particles = save_particles(tmp_path, unusable=[5])
    words = ("stacks", "cs", particles, "-b", 2, "--no-plots", "--device", "cpu", "-o", tmp_path / "out")
    failed = run_anew(*words, "--cluster", cluster.file)
    assert failed.returncode == 1
    said = " ".join(failed.stderr.split())
    assert f"1 of 6 tasks failed on 3 workers: 2 on {os.uname().nodename}: " in said
    assert "is constant or holds NaN" in said
    assert "--resume" in said
    assert {path.stem[-1] for path in (tmp_path / "out" / "fft").glob("*.pt")} == set("01345")
    assert not list((tmp_path / "out").rglob(".*"))
    # What each worker has done is in the log, without those that failed.
    rows = [line.split() for line in failed.stderr.splitlines() if line.startswith("  ") and " task" in line]
    assert sum(int(row[1]) for row in rows) == 5
    assert all(row[0].startswith(os.uname().nodename + "/") for row in rows)
    quiet = run_anew("-q", *words, "--cluster", cluster.file, "--resume")
    assert " task" not in quiet.stderr.partition("Error")[0]


def test_a_task_that_fails_goes_to_another_worker(cluster):
    with distributed.Client(cluster.address, set_as_default=False) as client:
        first = min(client.scheduler_info(n_workers=-1)["workers"])

    def call(number, lane):
        from distributed import get_worker

        if get_worker().address == first:
            raise ValueError("this worker has a broken disk")
        return 10, number

    steps, results = [], []
    executor = ClusterExecutor(cluster.address, "cpu")
    executor.prepare(work_of(call))(range(8), advance=lambda n, **by: steps.append((n, by["by"])), done=results.append)
    assert sorted(results) == list(range(8))
    assert [n for n, _ in steps] == [10] * 8
    assert len({worker for _, worker in steps}) == 1


def work_of(call):
    return SimpleNamespace(reporter=Silent(), uses_torch=False, elsewhere=lambda _device: contextlib.nullcontext(call))


def test_workers_of_a_host_take_its_devices_in_turn(cluster):
    def lane_of(_number, lane):
        return 1, lane()

    with distributed.Client(cluster.address, set_as_default=False) as client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
        futures = [
            client.submit(attempt, lane_of, number, workers=[worker], pure=False)
            for number in range(2)
            for worker in workers
        ]
        lanes = [future.result().value[1] for future in futures]
    assert sorted(lanes[:2]) == [0, 1]
    assert lanes[2:] == lanes[:2]


def test_a_scheduler_that_ends_is_named_as_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("cryobridge.executors.dask_cluster._CONNECT_S", 2)
    file = tmp_path / "scheduler.json"
    scheduler = start_scheduler(file)
    worker = start_dask("worker", "--scheduler-file", file, "--nthreads", 1, "--no-nanny")
    with distributed.Client(scheduler_file=str(file), timeout=120, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=120)  # both have started, which may take longer than the two seconds

    def call(number, _lane):
        if number:
            time.sleep(60)
        return 1, number

    try:
        make = ClusterExecutor(str(file), "cpu").prepare(work_of(call))
        with pytest.raises(CryobridgeError, match="its scheduler has ended") as caught:
            make(range(3), advance=lambda *_, **__: scheduler.kill(), done=lambda _: None)
        assert "resume" in caught.value.hint
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait(60)


def test_a_worker_that_is_killed_costs_its_task_only(many, tmp_path):
    process = many.start(tmp_path / "out", "local:2")
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
    assert contents(tmp_path / "out") == many.contents


def test_results_that_a_killed_worker_still_had_are_made_again():
    found = []

    def done(number):
        if not found:
            # By now all tasks are done, and most results are where they were made.
            time.sleep(1.5)
            workers_of(psutil.Process())[0].kill()
            time.sleep(0.5)
        found.append(number)

    run = ClusterExecutor("local:2").prepare(work_of(lambda number, _lane: time.sleep(0.05) or (1, number)))
    run(range(40), advance=lambda *_, **__: None, done=done)
    assert sorted(found) == list(range(40))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_coordinator_that_is_ended_resumes_to_the_same_bytes(number, many, tmp_path):
    out = tmp_path / "out"
    process = many.start(out, "local:1")
    workers = workers_of(process)
    if number == signal.SIGKILL:
        process.send_signal(signal.SIGSTOP)
        second = run(*many.words, out, "--resume")
        assert second.returncode == 1
        assert "another run of cryobridge" in second.stderr
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does for Ctrl-C
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    if number != signal.SIGKILL:
        assert not [*out.glob(".plan*"), *out.glob(".cryobridge*")]
    # What was handed to workers is gone on with in one process.
    resumed = cb.downsample(many.path, out, resume=True, **many.options)
    assert 3 <= resumed.stacks_kept < 100
    assert contents(out).keys() ^ many.contents.keys() == set()
    assert contents(out) == many.contents


def test_others_on_this_machine_do_not_get_into_its_cluster(cluster):
    assert lets_in(cluster.address, patience_s=60)
    with ClusterExecutor("local:1")._local() as client:
        address = client.scheduler.address
        assert client.submit(bool, 1).result(timeout=120)
        assert not lets_in(address, distributed.Security.temporary())
        assert not lets_in(address.replace("tls", "tcp"))


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
