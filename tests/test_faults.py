from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

from cryobridge.errors import CryobridgeError
from cryobridge.formats.atomic import atomic_path, together
from cryobridge.jobs.output_folder import locked
from helpers import (
    CommandServer,
    command_job,
    end_of,
    noise_images,
    open_terminal,
    particle_columns,
    save_cs,
    save_mrc,
    save_star,
    without_escapes,
)

# What differs between two runs that do the same: times, and the words of the command.
_TIMES = re.compile(rb"created: .*|\d{4}-\d\d-\d\dT[0-9:+]*|after [0-9.]+ s")
OF_THE_RUN = {"command.txt", "README.txt", "job.json", "run.log"}
# Of the moments that chance chooses; a test that fails shows it.
SEED = int(os.environ.get("CRYOBRIDGE_TEST_SEED") or secrets.randbelow(1 << 32))


SMALLEST = {"n_micrographs": 1, "particles_per_micrograph": 2}


class Runner(CommandServer):
    def __init__(self, *before, can_mount):
        super().__init__(*before)
        self._can_mount = can_mount

    def run(self, words, folder, cwd, **fault):
        return self.ask(self.job(words, folder, cwd, **fault))

    def job(self, words, folder, cwd, **fault):
        return command_job(words, cwd, folder=str(folder), demo=SMALLEST, has_tour=False, **fault)

    @contextmanager
    def mounted(self, options, folder, filled_from=None, *, read_only=False):
        """Have a file system of its own on a folder, with a copy of another in it; yield it as seen from outside."""
        if not self._can_mount:
            pytest.skip("no file system may be mounted here")
        steps = f'mkdir -p "$0" && mount -t tmpfs -o {options} none "$0"'
        if filled_from:
            steps += ' && cp -a "$1/." "$0"'
        if read_only:
            steps += ' && mount -o remount,ro "$0"'
        assert self.ask({"shell": [steps, str(folder), str(filled_from)]}) == 0
        try:
            yield Path(f"/proc/{self.process.pid}/root{folder}")
        finally:
            assert self.ask({"shell": ['umount "$0"', str(folder)]}) == 0


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    # With mounts of its own where the system lets it, which are gone with it.
    own_mounts = ["unshare", "-rm"] if shutil.which("unshare") else []
    trial = [*own_mounts, "mount", "-t", "tmpfs", "none", tmp_path_factory.mktemp("mount")]
    can_mount = bool(own_mounts) and subprocess.run(trial, capture_output=True, check=False).returncode == 0
    server = Runner(*(own_mounts if can_mount else []), can_mount=can_mount)
    yield server
    server.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, demo_project):
    """A folder with a small input for each command."""
    folder = tmp_path_factory.mktemp("inputs")
    save_mrc(folder / "J1" / "a.mrc", noise_images(3, 16, seed=1), 1.5)
    save_mrc(folder / "J1" / "b.mrc", noise_images(4, 16, seed=2), 1.5)
    names = [f"J1/{name}.mrc" for name in "babba"]
    save_cs(folder / "particles.cs", particle_columns(names, [3, 0, 1, 0, 2]))
    star = {
        "rlnImageName": [f"{1 + i // 2}@J1/{'ab'[i % 2]}.mrc" for i in range(6)],
        "rlnVoltage": [300] * 6,
        "rlnSphericalAberration": [2.7] * 6,
        "rlnAmplitudeContrast": [0.1] * 6,
        "rlnDefocusU": [10000 + i for i in range(6)],
        "rlnDefocusV": [10000 + i for i in range(6)],
        "rlnDefocusAngle": list(range(6)),
        "rlnDetectorPixelSize": [1.5] * 6,
        "rlnMagnification": [10000] * 6,
        "rlnClassNumber": [1, 2, 1, 3, 2, 1],
    }
    save_star(folder / "particles.star", "", star)
    save_star(folder / "a.star", "", {name: values[:3] for name, values in star.items()})
    job = folder / "P1" / "J7"
    save_mrc(job / "restack" / "batch_000000_restacked.mrc", noise_images(4, 16, seed=3), 1.5)
    save_cs(job / "J7_passthrough_particles.cs", particle_columns(["x.mrc"] * 4, range(4)))
    for name in ("cryosparc", "relion"):
        (folder / name).symlink_to(getattr(demo_project, name))
    return folder


JOB = "cryosparc/J4/"
CASES = {
    "coords": f"coords {JOB}J4_passthrough_particles.cs relion/CtfFind/job003/micrographs_ctf.star -o OUT",
    "stacks cs": "stacks cs particles.cs -b 2 --no-plots -o OUT",
    "stacks star": "stacks star particles.star -b 4 --no-plots -o OUT",
    "stacks paired": "stacks paired --pair a.star J1/a.mrc -b 2 --no-plots -o OUT",
    "stacks job": "stacks job P1 7 --no-plots -o OUT",
    "stacks grid": "stacks grid --n-pixels 16 --pixel-size 1.5 -o OUT/grid.npz",
    "downsample": "stacks downsample particles.star -D 8 --chunk 4 -o OUT",
    "converge": "converge relion/Class2D/job004 --iterations 1 --no-plots "
    "--volatile OUT/volatile.star --settled OUT/settled.star -o OUT",
    "convert to star": f"convert {JOB}J4_particles.csg --link-stacks OUT/linked -o OUT/out.star",
    "convert to cs": "convert particles.star --box 16 -o OUT/out.cs",
    "convert to pickles": f"convert {JOB}J4_particles.csg --to pickles -o OUT",
    "select": f"select {JOB}J4_particles.csg --invert --random 3 -o OUT/subset.cs",
    "select by class": "select particles.star --split-by-class OUT",
    "merge": f"merge {JOB}J4_particles.csg particles.cs -o OUT/both.cs",
    "micrographs": "micrographs cryosparc/J2 -o OUT",
    "micrographs copied": "micrographs cryosparc/J2 --copy --flip-y -o OUT",
    "micrographs back": "micrographs relion/CtfFind/job003/micrographs_ctf.star --copy -o OUT/back.cs",
    "demo": "demo OUT",
}
# Stacks of all kinds of inputs are written by the same code: most tests disturb those of one, the slow ones all.
OFTEN = [case for case in CASES if case not in {"stacks star", "stacks paired", "stacks job"}]
# These take longer.
PICTURED = {
    "stacks with pictures": "stacks cs particles.cs -b 4 -o OUT",
    "converge with pictures": "converge relion/Class2D/job004 --iterations 1 --html OUT/page.html -o OUT",
    "coords with pictures": CASES["coords"] + " --preview 2 --overwrite",
}
# Those that go on where they were stopped.
RESUMED = ("stacks cs", "downsample")


def words_of(case, folder, *more):
    return [*(CASES | PICTURED)[case].replace("OUT", str(folder)).split(), *more]


def contents(folder, named=None):
    """Return every file below a folder, temporaries too, without what two runs of one kind differ in.

    ``named`` is the folder as the runs know it.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            data = path.read_bytes()
            if path.name in OF_THE_RUN:
                data = _TIMES.sub(b"", data).replace(b" --overwrite", b"").replace(b" --resume", b"")
                data = re.sub(rb'"duration_seconds": [0-9.]*', b"", data)
            elif path.suffix in {".csg", ".log"}:
                data = _TIMES.sub(b"", data)
            if path.name == "run.log":  # how many were left to do, and how fast it went
                data = re.sub(rb"(?m)^.*\b(images|micrographs): .*\n", b"", data)
            found[name] = hashlib.sha256(data.replace(os.fsencode(named or folder), b"OUT")).hexdigest()
    return found


def final(found):
    return {name: digest for name, digest in found.items() if not any(p.startswith(".") for p in Path(name).parts)}


class Disturbed:
    """A command, its result when nothing disturbs it, and runs of it that are disturbed."""

    def __init__(self, case, runner, inputs, folder):
        self.case = case
        self.inputs = inputs
        self.out = folder / "out"
        self._runner = runner
        self.first = folder / "first"
        self.out.mkdir()
        done = runner.run(words_of(case, self.out), self.out, inputs)
        assert done["code"] == 0, done["stderr"]
        self.expected = contents(self.out)
        self.changes = done["changes"]
        shutil.copytree(self.out, self.first, symlinks=True)
        again = self.run("--overwrite")
        assert again["code"] == 0, again["stderr"]
        assert contents(self.out) == self.expected
        self.changes_over = again["changes"]
        self.seconds = again["seconds"]

    def begin(self, *, over):
        """Make the output folder as it is before a run: empty, or with an earlier result; return the options."""
        shutil.rmtree(self.out, ignore_errors=True)
        if not over:
            self.out.mkdir()
            return []
        shutil.copytree(self.first, self.out, symlinks=True)
        return ["--overwrite"]

    def run(self, *more, **fault):
        return self._runner.ask(self.job(*more, **fault))

    def job(self, *more, **fault):
        return self._runner.job(words_of(self.case, self.out, *more), self.out, self.inputs, **fault)

    def run_side_by_side(self, *jobs):
        return self._runner.ask(jobs)

    def require_whole_files(self):
        whole = final(contents(self.out))
        assert of_the_data(whole).items() <= self.expected.items()

    def require_good_end(self, *options):
        done = self.run(*options)
        assert done["code"] == 0, done["stderr"]
        # A resumed run's record tells what was there already.
        same = of_the_data if "--resume" in options else dict
        assert same(contents(self.out)) == same(self.expected)


@pytest.fixture(scope="module")
def disturbed(runner, inputs, tmp_path_factory):
    made = {}

    def of(case):
        if case not in made:
            made[case] = Disturbed(case, runner, inputs, tmp_path_factory.mktemp(case.replace(" ", "_")))
        return made[case]

    return of


def some(changes, n):
    """Return some places among the changes of a run: before renamings, which are the turning points, and others."""
    renamings = [place for place, change in enumerate(changes, 1) if change.startswith("os.rename ")]
    others = [place for place in range(1, len(changes) + 1) if place not in renamings]
    return {places[(2 * i + 1) * len(places) // (2 * n)] for places in (renamings, others) for i in range(n)}


def require_plain_error(done):
    assert done["code"] == 1, done["stderr"]
    assert "Error: " in done["stderr"]
    assert "  → " in done["stderr"]
    assert "Traceback" not in done["stderr"]
    assert "mistake in cryobridge" not in done["stderr"]


def spread(changes, case):
    """Return all places among the changes of a run, or some of them where there are many or the run takes long."""
    n_places = min(50 if case in CASES else 12, len(changes))
    return [1 + i * len(changes) // n_places for i in range(n_places)]


def kill_and_go_on(command, places, *, over, go_on="--overwrite"):
    for at in places:
        killed = command.run(*command.begin(over=over), fault="kill", at=at)
        assert killed["code"] == -signal.SIGKILL, (at, killed["stderr"])
        command.require_whole_files()
        command.require_good_end(go_on)


def of_the_data(found):
    return {name: digest for name, digest in found.items() if Path(name).name not in OF_THE_RUN}


@pytest.mark.parametrize("case", OFTEN)
def test_a_killed_run_leaves_whole_files_and_the_next_one_ends_well(case, disturbed):
    command = disturbed(case)
    kill_and_go_on(command, some(command.changes_over, 1), over=True)


@pytest.mark.slow
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("case", [*CASES, *PICTURED])
def test_a_run_may_be_killed_before_any_change(case, over, disturbed):
    command = disturbed(case)
    kill_and_go_on(command, spread(command.changes_over if over else command.changes, case), over=over)


@pytest.mark.parametrize("case", RESUMED)
def test_a_killed_run_is_resumed_to_the_same_bytes(case, disturbed):
    command = disturbed(case)
    kill_and_go_on(command, some(command.changes, 3), over=False, go_on="--resume")


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_a_run_may_be_killed_before_any_change_and_resumed(case, disturbed):
    command = disturbed(case)
    kill_and_go_on(command, range(1, len(command.changes) + 1), over=False, go_on="--resume")


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *PICTURED])
def test_a_run_may_be_killed_at_many_moments_of_chance(case, disturbed):
    kill_at_moments_of_chance(disturbed(case), 20 if case in CASES else 6)


def kill_at_moments_of_chance(command, times):
    print(f"CRYOBRIDGE_TEST_SEED={SEED}")  # noqa: T201 - shown if the test fails
    chance = random.Random(f"{SEED} {command.case}")
    for _ in range(times):
        options = command.begin(over=chance.random() < 0.5)
        killed = command.run(*options, kill_after_s=chance.uniform(0, command.seconds))
        assert killed["code"] in {0, -signal.SIGKILL}, killed["stderr"]
        command.require_whole_files()
        command.require_good_end(chance.choice(["--overwrite", *(["--resume"] * (command.case in RESUMED))]))


@pytest.mark.parametrize("case", OFTEN)
def test_a_run_killed_in_the_midst_of_writing_leaves_no_partial_file(case, disturbed):
    command = disturbed(case)
    killed = command.run(*command.begin(over=True), fault="kill", limit=largest_file(command) // 2)
    assert killed["code"] == -signal.SIGXFSZ, killed["stderr"]
    command.require_whole_files()
    command.require_good_end("--overwrite")


def largest_file(command):
    command.begin(over=True)
    return max(path.stat().st_size for path in command.out.rglob("*") if path.is_file() and not path.is_symlink())


# Stacks and demo projects are large: the older ones are removed first. A reader would take them for new ones, too.
REPLACED_AT_ONCE = {
    case for case in CASES if not case.startswith(("stacks c", "stacks s", "stacks p", "stacks j", "d"))
}


def kept_by(case, found):
    """What a run leaves of an older one when it fails: all but the record of `micrographs`, which says so."""
    return of_the_data(found) if case.startswith("micrographs") else found


@pytest.mark.parametrize("case", OFTEN)
def test_a_full_disk_is_reported_and_loses_nothing(case, disturbed):
    command = disturbed(case)
    for over in (False, True):
        options = command.begin(over=over)
        done = command.run(*options, limit=largest_file(command) // 2 if over else 20)
        require_plain_error(done)
        assert re.search("can't be (written|copied)", done["stderr"])
        if over and case in REPLACED_AT_ONCE:
            assert kept_by(case, contents(command.out)) == kept_by(case, command.expected)
        require_no_temporaries(command.out)


@pytest.mark.parametrize("case", OFTEN)
def test_a_disk_that_is_full_at_some_file_is_reported_and_no_file_is_partial(case, disturbed):
    command = disturbed(case)
    for at in some(command.changes_over, 1):
        done = command.run(*command.begin(over=True), fault="full", at=at)
        if done["code"] == 0:
            assert contents(command.out) == command.expected
        else:
            require_plain_error(done)
        command.require_whole_files()
        require_no_temporaries(command.out)


def require_no_temporaries(folder):
    hidden = [path.name for path in folder.rglob(".*")]
    # What --resume goes on with.
    assert [name for name in hidden if not name.startswith(".particles.8.")] == []


# Of signals: the fault that sends it, and how a run ends by it.
SIGNALS = {
    "interrupt": (130, "interrupted\n"),
    "terminate": (143, "interrupted (SIGTERM)\n"),
    "hang_up": (129, "interrupted (SIGHUP)\n"),
}


@pytest.mark.parametrize("case", OFTEN)
def test_a_signal_anywhere_ends_with_its_code_and_whole_files(case, disturbed):
    command = disturbed(case)
    # Each signal, and each turning point, for some of the commands.
    order = sorted(SIGNALS, key=lambda name: hashlib.sha256(f"{case} {name}".encode()).digest())
    for at, fault in zip(sorted(some(command.changes_over, 1)), order, strict=False):
        require_clean_end(command, at, fault)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *PICTURED])
def test_any_signal_may_come_before_any_change(case, disturbed):
    command = disturbed(case)
    for at in spread(command.changes_over, case):
        for fault in SIGNALS:
            require_clean_end(command, at, fault)


def require_clean_end(command, at, fault):
    done = command.run(*command.begin(over=True), fault=fault, at=at)
    code, last_words = SIGNALS[fault]
    assert done["code"] == code, (at, done["stderr"])
    assert done["stderr"].endswith(last_words)
    assert "Traceback" not in done["stderr"]
    command.require_whole_files()
    require_no_temporaries(command.out)
    record = command.out / "job.json"
    if record.exists() and at > 3:
        assert json.loads(record.read_text())["status"] in {"interrupted", "completed"}


# Kills and errors by the number: few in `make test`, as many as are asked for in `make fuzz`
# (CRYOBRIDGE_TEST_KILLS and CRYOBRIDGE_TEST_ERRORS, of all commands together).

ALL_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
N_KILLS = int(os.environ.get("CRYOBRIDGE_TEST_KILLS", "0")) or len(CASES)
N_ERRORS = int(os.environ.get("CRYOBRIDGE_TEST_ERRORS", "0")) or len(CASES)
ERRORS = {
    "read": (errno.EIO, errno.ESTALE),
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "rename": (errno.EIO, errno.EACCES, errno.ENOSPC),
    "renamed": (errno.EIO, errno.ENOENT, errno.ESTALE),
    "stat": (errno.EIO, errno.ESTALE),
    "lock": (errno.ENOLCK, errno.EOPNOTSUPP),
}


def note_figures(**figures):
    """Write down what was done, for who asks for it."""
    if path := os.environ.get("CRYOBRIDGE_TEST_FIGURES"):
        with open(path, "a") as file:  # noqa: PTH123
            file.write(json.dumps(figures) + "\n")


def share(total, case):
    """Return how many of so many fall to a command."""
    place = list(CASES).index(case)
    return total * (place + 1) // len(CASES) - total * place // len(CASES)


@pytest.mark.parametrize("case", CASES)
def test_kills_of_every_kind_leave_nothing_partial_and_the_next_run_ends_well(case, disturbed):
    print(f"CRYOBRIDGE_TEST_SEED={SEED}")  # noqa: T201 - shown if the test fails
    command = disturbed(case)
    chance = random.Random(f"{SEED} kills {case}")
    counts = dict.fromkeys(("kills", "ended before", "partial", "blocked", "differing"), 0)
    number = -1
    while counts["kills"] < share(N_KILLS, case) and number < 4 * N_KILLS:
        number += 1
        options = command.begin(over=chance.random() < 0.5)
        chosen = ALL_SIGNALS[(number + list(CASES).index(case)) % len(ALL_SIGNALS)]
        done = command.run(*options, kill_after_s=chance.uniform(0, command.seconds), signal=int(chosen))
        # Before the command line runs, a fork of the server ends as any process does.
        assert done["code"] in {0, -chosen, 128 + chosen}, done["stderr"]
        counts["kills" if done["code"] else "ended before"] += 1
        assert "Traceback" not in done["stderr"]
        whole = final(contents(command.out))
        counts["partial"] += not of_the_data(whole).items() <= command.expected.items()
        resumed = case in RESUMED and chance.random() < 0.5
        again = command.run("--resume" if resumed else "--overwrite")
        counts["blocked"] += again["code"] != 0
        same = of_the_data if resumed else dict
        counts["differing"] += same(contents(command.out)) != same(command.expected)
    note_figures(what="kills", case=case, **counts)
    assert (counts["partial"], counts["blocked"], counts["differing"]) == (0, 0, 0)


@pytest.mark.parametrize("case", CASES)
def test_an_error_of_the_system_at_any_call_loses_nothing_in_silence(case, disturbed):
    print(f"CRYOBRIDGE_TEST_SEED={SEED}")  # noqa: T201 - shown if the test fails
    command = disturbed(case)
    chance = random.Random(f"{SEED} errors {case}")
    folders = [str(command.out), str(command.inputs)]
    n_calls = {}
    for number in range(share(N_ERRORS, case)):
        kind = list(ERRORS)[(number + list(CASES).index(case)) % len(ERRORS)]
        if kind not in n_calls:
            options = command.begin(over=True)
            n_calls[kind] = len(command.run(*options, error=kind, error_folders=folders)["changes"])
        if not n_calls[kind]:
            continue
        code = chance.choice(ERRORS[kind])
        at = chance.randint(1, n_calls[kind])
        options = command.begin(over=chance.random() < 0.5)
        done = command.run(*options, error=kind, error_folders=folders, error_at=at, errno=code)
        place = (kind, at, errno.errorcode[code], done["stderr"])
        is_told = done["code"] != 0 or re.search(r"left out|skipped|refuses locks|can't be read", done["stderr"])
        # A lease that could not be removed is that of a dead run, and goes with the next.
        is_same = of_the_data(final(contents(command.out))) == of_the_data(final(command.expected))
        note_figures(what=f"errors: {kind}", case=case, errors=1, told=done["code"] != 0, lost=not (is_told or is_same))
        assert is_told or is_same, place
        assert "Traceback" not in done["stderr"], place
        assert "mistake in cryobridge" not in done["stderr"], place
        # Of the folders that coords moves none may be half moved.
        assert kind != "renamed" or done["code"] == 0 or case.startswith("coords"), place
        if done["code"]:
            assert of_the_data(final(contents(command.out))).items() <= command.expected.items(), place
        command.require_good_end("--overwrite")


@pytest.mark.parametrize("case", OFTEN)
def test_an_output_folder_that_vanishes_is_reported(case, disturbed):
    command = disturbed(case)
    command.begin(over=False)
    # Before, some folders are made again as they are needed.
    last_renaming = max(place for place, change in enumerate(command.changes, 1) if change.startswith("os.rename "))
    require_plain_error(command.run(fault="vanish", at=last_renaming))


@pytest.mark.parametrize("case", OFTEN)
def test_a_file_in_the_place_of_the_output_folder_is_reported_and_stays(case, disturbed):
    command = disturbed(case)
    command.begin(over=False)
    command.out.rmdir()
    command.out.write_text("mine")
    done = command.run("--overwrite")
    require_plain_error(done)
    assert command.out.read_text() == "mine"
    command.out.unlink()


# Inputs that change while they are read


@pytest.mark.parametrize(
    ("case", "victim", "message"),
    [
        ("stacks cs", "J1/b.mrc", "shorter|read"),
        ("stacks star", "J1/b.mrc", "shorter|read"),
        ("stacks paired", "J1/a.mrc", "shorter|read"),
        ("stacks job", "P1/J7/restack/batch_000000_restacked.mrc", "shorter|read"),
        ("downsample", "J1/a.mrc", "shorter|read"),
        ("coords with pictures", "relion/MotionCorr/job002/Movies", "is not there|cut off"),
    ],
)
@pytest.mark.parametrize("fault", ["lose", "shrink"])
def test_an_input_that_goes_in_mid_run_is_reported_and_leaves_whole_files(
    case, victim, message, fault, inputs, disturbed
):
    command = disturbed(case)
    victim = inputs / victim
    if victim.is_dir():
        victim = max(victim.iterdir(), key=lambda path: path.name.endswith(".mrc"))
    command.begin(over=False)
    with put_back(victim):
        done = command.run(fault=fault, at=1, victim=victim)
    require_plain_error(done)
    assert re.search(message, done["stderr"])
    assert victim.name in done["stderr"]
    require_no_temporaries(command.out)


@contextmanager
def put_back(path):
    """Have a file as it was, its time included, after whatever happens to it."""
    data, status = path.read_bytes(), path.stat()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# Of each command the metadata that it reads.
METADATA = {
    "coords": [f"{JOB}J4_passthrough_particles.cs", "relion/CtfFind/job003/micrographs_ctf.star"],
    "stacks cs": ["particles.cs"],
    "stacks star": ["particles.star"],
    "stacks paired": ["a.star"],
    "stacks job": ["P1/J7/J7_passthrough_particles.cs"],
    "downsample": ["particles.star"],
    "converge": ["relion/Class2D/job004/run_it001_data.star"],
    "convert to star": [f"{JOB}J4_particles.csg", f"{JOB}J4_passthrough_particles.cs"],
    "convert to cs": ["particles.star"],
    "select": [f"{JOB}J4_passthrough_particles.cs"],
    "select by class": ["particles.star"],
    "merge": [f"{JOB}J4_passthrough_particles.cs", "particles.cs"],
    "micrographs": ["cryosparc/J2/J2_exposures.cs", "cryosparc/J1/imported/gain.tif"],
    "micrographs back": ["relion/CtfFind/job003/micrographs_ctf.star"],
}


OF_METADATA = pytest.mark.parametrize(
    ("case", "name"), [(case, name) for case, names in METADATA.items() for name in names]
)


@OF_METADATA
def test_metadata_that_go_between_two_looks_at_them_are_reported_or_have_been_read(case, name, inputs, disturbed):
    command, victim = disturbed(case), inputs / name
    n_looks = looks_at(command, victim)
    # The slow test has them all.
    for opening in sorted({1, (n_looks + 1) // 2, n_looks}):
        require_told_or_read(command, victim, opening, ("lose", "shrink")[opening % 2])


@pytest.mark.slow
@OF_METADATA
def test_metadata_may_be_lost_or_shrink_between_any_two_looks_at_them(case, name, inputs, disturbed):
    command, victim = disturbed(case), inputs / name
    for opening in range(1, looks_at(command, victim) + 1):
        for fault in ("lose", "shrink"):
            require_told_or_read(command, victim, opening, fault)


def looks_at(command, victim):
    command.begin(over=False)
    looks = command.run(victim=victim, opening=0)["changes"].count(f"read {victim}")
    assert looks
    return looks


def require_told_or_read(command, victim, opening, fault):
    command.begin(over=False)
    with put_back(victim):
        done = command.run(victim=victim, opening=opening, fault=fault)
    if command.case == "converge" and f"{victim.name} is left out" in done["stderr"]:
        assert done["code"] == 0
    elif done["code"] == 0:
        assert contents(command.out) == command.expected
    else:
        require_plain_error(done)
        assert victim.name in done["stderr"]
        command.require_whole_files()
        require_no_temporaries(command.out)


# Two runs at once


@pytest.mark.parametrize("case", ["coords", "stacks cs", "downsample", "micrographs", "demo"])
def test_a_second_run_into_one_folder_is_refused_and_changes_nothing(case, disturbed):
    command = disturbed(case)
    options = command.begin(over=True)
    with locked(command.out):
        done = command.run(*options)
    require_plain_error(done)
    assert "another run of cryobridge is at work in this folder" in done["stderr"]
    assert contents(command.out) == command.expected


@pytest.mark.parametrize("case", OFTEN)
def test_what_another_run_has_made_meanwhile_is_not_replaced(case, disturbed):
    command = disturbed(case)
    command.begin(over=False)
    done = command.run(fault="forestall", at=1, victim=command.first)
    require_plain_error(done)
    assert "there already" in done["stderr"]
    assert contents(command.out) == command.expected


@pytest.mark.parametrize("case", ["coords", "stacks cs", "downsample", "convert to star", "select"])
def test_of_two_runs_at_once_one_is_refused_or_both_end_well(case, disturbed):
    run_two_at_once(disturbed(case), 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_of_two_runs_at_many_distances_one_is_refused_or_both_end_well(case, disturbed):
    run_two_at_once(disturbed(case), 15)


def run_two_at_once(command, times):
    print(f"CRYOBRIDGE_TEST_SEED={SEED}")  # noqa: T201 - shown if the test fails
    chance = random.Random(f"{SEED} {command.case}")
    for _ in range(times):
        command.begin(over=False)
        wait_s = chance.uniform(0, command.seconds)
        both = command.run_side_by_side(command.job(), command.job(wait_s=wait_s))
        codes = {done["code"] for done in both}
        assert 0 in codes
        for done in both:
            if done["code"]:
                require_plain_error(done)
                assert re.search("there already|another run of cryobridge is at work", done["stderr"])
        assert contents(command.out) == command.expected


def test_two_runs_that_differ_leave_the_set_of_one_of_them(runner, inputs, tmp_path):
    few, many = (selecting(runner, inputs, tmp_path / "out", n, "subset.cs") for n in (3, 5))
    alone = [made_by(runner, tmp_path / "out", job) for job in (few, many)]
    for wait_s in (0, 0, 0.02):
        both = made_by(runner, tmp_path / "out", few, {**many, "wait_s": wait_s})
        assert both in alone


def test_two_runs_into_files_of_their_own_in_one_folder_both_end_well(runner, inputs, tmp_path):
    few, many = (selecting(runner, inputs, tmp_path / "out", n, f"of_{n}.cs") for n in (3, 5))
    alone = [made_by(runner, tmp_path / "out", job) for job in (few, many)]
    assert made_by(runner, tmp_path / "out", few, many, n_good=2) == alone[0] | alone[1]


def test_two_that_look_at_one_job_both_end_well(runner, inputs, tmp_path):
    out = tmp_path / "out"
    job = runner.job(["converge", "relion/Class2D/job004", "--no-plots", "-o", out], out, inputs)
    alone = made_by(runner, out, job)
    assert made_by(runner, out, job, job, n_good=2) == alone


def selecting(runner, inputs, out, n, name):
    return runner.job(["select", f"{JOB}J4_particles.csg", "--random", n, "-o", out / name], out, inputs)


def made_by(runner, out, *jobs, n_good=1):
    shutil.rmtree(out, ignore_errors=True)
    assert [done["code"] for done in runner.ask(jobs)].count(0) >= n_good
    return contents(out)


def test_of_two_that_write_one_file_at_once_the_last_ones_is_there_whole(tmp_path):
    final_path = tmp_path / "a.star"
    with atomic_path(final_path) as first:
        first.write_text("first")
        with atomic_path(final_path) as second:
            second.write_text("second")
        assert final_path.read_text() == "second"
    assert final_path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.star"]  # noqa: PTH208


# What is left behind, and whose it is


def test_files_that_belong_together_appear_together_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(CryobridgeError, match="can't be written"), together():
        for name in ("a", "absent/b"):
            with atomic_path(tmp_path / name) as path:
                path.write_text("new")
    assert (tmp_path / "a").read_text() == "old"
    with together():
        for name in ("a", "b"):
            with atomic_path(tmp_path / name) as path:
                path.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_what_is_outdated_goes_when_the_new_files_have_appeared_and_not_before(tmp_path):
    (tmp_path / "old").touch()
    (tmp_path / "folder" / "in the way").mkdir(parents=True)
    for name, error in (("absent/a", CryobridgeError), ("folder", CryobridgeError), ("a", KeyboardInterrupt)):
        with pytest.raises(error), together() as remove:
            remove(tmp_path / "old")
            with atomic_path(tmp_path / name) as path:
                path.touch()
            if name == "a":
                raise KeyboardInterrupt
        assert (tmp_path / "old").exists()
    with together() as remove:
        remove(tmp_path / "old")
        remove(tmp_path / "was never there")
        with atomic_path(tmp_path / "a") as path:
            path.touch()
        assert (tmp_path / "old").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "folder"}
    with pytest.raises(CryobridgeError, match="can't be written"), together() as remove:
        remove(tmp_path / "folder")


def test_what_else_lies_among_old_picks_survives_a_kill(disturbed):
    command = disturbed("coords")
    keep_notes_among_picks(command, some(command.changes_over, 3))


@pytest.mark.slow
def test_what_else_lies_among_old_picks_survives_a_kill_at_every_step(disturbed):
    command = disturbed("coords")
    keep_notes_among_picks(command, range(1, len(command.changes_over) + 2))


def keep_notes_among_picks(command, places):
    for at in places:
        options = command.begin(over=True)
        (command.out / "Raw_data" / "notes.txt").write_text("mine")
        command.run(*options, fault="kill", at=at)
        assert command.run("--overwrite")["code"] == 0
        assert (command.out / "Raw_data" / "notes.txt").read_text() == "mine"
        (command.out / "Raw_data" / "notes.txt").unlink()
        assert contents(command.out) == command.expected


# Disks


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("stacks cs", []),
        ("stacks cs", ["--dry-run"]),
        ("stacks cs", ["--dry-run", "--resume"]),
        ("downsample", []),
        ("downsample", ["--dry-run"]),
        ("convert to star", ["--copy"]),
        ("convert to star", ["--copy", "--dry-run"]),
        ("demo", []),
    ],
)
def test_a_disk_without_room_is_reported_before_the_first_byte_by_a_dry_run_too(case, options, disturbed):
    command = disturbed(case)
    command.begin(over=False)
    done = command.run(*options, free=10)
    require_plain_error(done)
    assert re.search(r"the output needs [0-9.]+ [kM]B, and the disk has 10 bytes left", done["stderr"])
    assert contents(command.out) == {}


def test_a_dry_run_counts_as_room_what_overwriting_sets_free_and_what_is_resumed(disturbed):
    command = disturbed("stacks cs")
    command.begin(over=True)
    assert command.run("--dry-run", "--overwrite", free=10)["code"] == 0
    assert command.run("--dry-run", "--resume", free=10)["code"] == 0
    assert contents(command.out) == command.expected


def test_room_is_counted_as_the_files_need_it(disturbed):
    command = disturbed("stacks cs")
    command.begin(over=True)
    size = sum(path.stat().st_size for path in command.out.rglob("*.pt"))
    command.begin(over=False)
    message = command.run(free=1)["stderr"]
    number, unit = re.search(r"needs ([0-9.]+) (kB|MB)", message).groups()
    needed = float(number) * {"kB": 1e3, "MB": 1e6}[unit]
    assert needed == pytest.approx(size, rel=0.2, abs=1e5)


@pytest.mark.parametrize("case", OFTEN)
def test_a_read_only_file_system_is_reported(case, runner, disturbed):
    command = disturbed(case)
    options = command.begin(over=True)
    with runner.mounted("mode=755", command.out, command.first, read_only=True):
        done = command.run(*options)
    require_plain_error(done)
    assert "Read-only file system" in done["stderr"]


NO_ROOM = "No space left on device|and the disk has [0-9.]+ (bytes|kB|MB) left"


@pytest.mark.parametrize("case", OFTEN)
def test_a_small_file_system_is_reported_and_nothing_partial_stays(case, runner, disturbed):
    command = disturbed(case)
    command.begin(over=False)
    # A page of memory, and one file with its lease besides the folder itself.
    with runner.mounted("size=4k,nr_inodes=3", command.out) as seen:
        done = command.run()
        left = contents(seen, named=command.out)
    if case == "stacks grid":
        assert left == command.expected  # one small file
        return
    require_plain_error(done)
    assert re.search(NO_ROOM, done["stderr"])
    assert of_the_data(left).items() <= command.expected.items()


@pytest.mark.parametrize("case", OFTEN)
def test_a_file_system_without_room_for_a_second_result_keeps_the_first(case, runner, disturbed):
    command = disturbed(case)
    options = command.begin(over=True)
    sizes = [path.lstat().st_size for path in command.out.rglob("*") if path.is_file() or path.is_symlink()]
    pages = sum(-(-size // 4096) for size in sizes)
    with runner.mounted(f"size={4 * pages}k", command.out, command.first) as seen:
        done = command.run(*options)
        left = contents(seen, named=command.out)
    if case in REPLACED_AT_ONCE:
        require_plain_error(done)
        assert re.search(NO_ROOM, done["stderr"])
        assert kept_by(case, left) == kept_by(case, command.expected)
    elif done["code"]:
        require_plain_error(done)
        assert of_the_data(left).items() <= command.expected.items()


def test_the_record_on_a_full_disk_says_that_the_run_failed(runner, disturbed):
    command = disturbed("stacks cs")
    size = sum(path.stat().st_size for path in command.first.rglob("*.pt"))
    command.begin(over=False)
    # Room for the records, and for some of the stacks; that it will not do is not known before.
    with runner.mounted(f"size={64 + size // 2048}k", command.out) as seen:
        done = command.run(free=1 << 40)
        record = json.loads((seen / "job.json").read_text())
    require_plain_error(done)
    assert "No space left on device" in done["stderr"]
    assert record["status"] == "failed"


# Ctrl-C in a terminal


@pytest.fixture(scope="module")
def large_inputs(inputs):
    """Inputs that commands work on for some time, and a job that has not ended."""
    rows = np.arange(200_000) % 3
    save_cs(inputs / "many.cs", particle_columns(["J1/a.mrc"] * len(rows), rows))
    (inputs / "J2").mkdir()
    names = [f"J2/{i:04d}.mrc" for i in range(3000)]
    for name in names:
        (inputs / name).symlink_to(inputs / "J1" / "a.mrc")
    save_cs(inputs / "stacks.cs", particle_columns(names, [0] * len(names)))
    classes = {"rlnImageName": [f"1@{name}" for name in names], "rlnClassNumber": [1 + i % 1000 for i in range(3000)]}
    save_star(inputs / "classes.star", "", classes)
    (inputs / "growing").mkdir()
    for name in ("data", "model", "optimiser"):
        file = f"run_it001_{name}.star"
        shutil.copy(inputs / "relion" / "Class2D" / "job004" / file, inputs / "growing" / file)
    return inputs


@pytest.mark.parametrize(
    ("words", "shown", "made"),
    [
        ("stacks cs many.cs -b 20 --no-plots -o OUT", "stack [0-9]", "fft"),
        ("stacks cs many.cs -b 20 -o OUT", "stack [0-9]", "fft"),
        ("stacks downsample many.cs -D 8 -b 20 -o OUT", "images", "job.json"),
        ("convert stacks.cs --link-stacks OUT/linked --copy -o OUT/a.star", "copying stacks", "linked"),
        ("select classes.star --split-by-class OUT", "writing", ""),
        (f"{CASES['coords']} --preview 2", "writing pick files", "autopick.star"),
        ("converge relion/Class2D/job004 -o OUT", "drawing", ""),  # its files appear when all are drawn
        ("converge growing --watch --settle 0 --no-plots -o OUT", "waiting", "converge.csv"),
    ],
)
def test_ctrl_c_clears_the_display_and_ends_with_130(words, shown, made, large_inputs, tmp_path):
    child = open_terminal(*words.replace("OUT", str(tmp_path / "out")).split(), cwd=large_inputs)
    child.expect(shown)
    drawn = child.before
    until = time.monotonic() + 60
    while not (tmp_path / "out" / made).exists() and time.monotonic() < until:
        time.sleep(0.01)
    child.sendintr()
    ended_by, shown_last = end_of(child)
    drawn += shown_last
    assert ended_by == 130, drawn
    assert "Traceback" not in drawn
    # Whatever was drawn in place is wiped before the last words.
    last = drawn.rpartition("\x1b[2K")[2]
    assert without_escapes(last).strip().splitlines()[-1].removeprefix("^C") == "interrupted"
    assert "━" not in last
    # Behind a full line the terminal's ^C would begin another one, and the bar stay.
    bars = [line for line in re.split(r"[\r\n]", without_escapes(drawn)) if "━" in line]
    assert all(cell_len(line.replace("^C", "")) <= 77 for line in bars)
    require_no_temporaries(tmp_path / "out")
