"""What is wrong with a request is said before torch is loaded, which takes seconds."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from cryobridge.cli.commands import COMMANDS, load
from helpers import noise_images, particle_columns, save_cs, save_mrc, save_star
from startup_probe import probe_errors_of_each

J4, C4 = "cryosparc/J4", "relion/Class2D/job004"
STAR, CTF = "relion/Extract/job005/particles.star", "relion/CtfFind/job003/micrographs_ctf.star"
THERE = (
    "micrographs.star",
    "a.star",
    "a.cs",
    "grid.npz",
    "page.html",
    "poses.pkl",
    "autopick.star",
    "particles.48.mrcs",
)
STACK = "fft/particles_fourier_stack_000000.pt"
PAIR = "--pair pair/a.star pair/a.mrcs"
LENS = {
    "rlnDefocusU": [1e4] * 4,
    "rlnDefocusV": [1e4] * 4,
    "rlnDefocusAngle": [0.0] * 4,
    "rlnVoltage": [300.0] * 4,
    "rlnSphericalAberration": [2.7] * 4,
    "rlnAmplitudeContrast": [0.1] * 4,
}
# Of each command: a value that an option does not have, an input that is not there, and an output that is.
REQUESTS = {
    "inspect": (f"{J4} --check upside", f"{J4}x", None),
    "micrographs": ("cryosparc/J2 -o new --as upside", "cryosparc/J2x -o new", "cryosparc/J2 -o there"),
    "coords": (f"{J4} {CTF} -o new --orientation upside", f"{J4} {CTF}x -o new", f"{J4} {CTF} -o there"),
    "convert": (f"{J4} -o new.star --contrast upside", f"{J4}x -o new.star", f"{J4} -o there/a.star"),
    "convert to pickles": (f"{J4} -o new --to upside", f"{J4}x -o new --to pickles", f"{J4} -o there --to pickles"),
    "convert onto micrographs": (
        f"{J4} -o new.star --micrographs {CTF} --orientation upside",
        f"{J4} -o new.star --micrographs {CTF}x",
        f"{J4} -o there/a.star --micrographs {CTF}",
    ),
    "convert to be extracted": (
        f"{J4} -o new.star --micrographs {CTF} --center 1,2",
        f"{J4}x -o new.star --micrographs {CTF} --reextract",
        f"{J4} -o there/a.star --micrographs {CTF} --reextract",
    ),
    "convert onto rows": (
        f"{J4} -o new.star --onto {STAR} --take upside",
        f"{J4} -o new.star --onto {STAR}x",
        f"{J4} -o there/a.star --onto {STAR}",
    ),
    "select": (f"{J4} -o new.cs --class upside", f"{J4}x -o new.cs --random 3", f"{J4} -o there/a.cs --random 3"),
    "select like": (
        f"{J4} -o new.cs --like {STAR} --within near",
        f"{J4} -o new.cs --like {STAR}x",
        f"{J4} -o there/a.cs --like {STAR}",
    ),
    "merge": ("one.cs two.cs -o new.cs --halves-of x", "one.cs twox.cs -o new.cs", "one.cs two.cs -o there/a.cs"),
    "converge": (f"{C4} --stable upside", f"{C4}x", f"{C4} --html there/page.html"),
    "demo": ("new --seed upside", None, "there"),
    "stacks grid": (
        "--n-pixels 8 --pixel-size x -o new.npz",
        None,
        "--n-pixels 8 --pixel-size 1 -o there/grid.npz",
    ),
    "stacks paired": (f"{PAIR} -o new --order upside", f"{PAIR}x -o new", f"{PAIR} -o there"),
    "stacks star": (f"{STAR} -o new --device upside", f"{STAR}x -o new", f"{STAR} -o there"),
    "stacks cs": (f"{J4} -o new --precision upside", f"{J4}x -o new", f"{J4} -o there"),
    "stacks job": (". 1 -o new --on-missing upside", ". 1 -o new", "batches 1 -o there"),
    "stacks downsample": (f"{J4} -D 48 -o new --normalise x", f"{J4}x -D 48 -o new", f"{J4} -D 48 -o there"),
}


@pytest.fixture(scope="module")
def folder(demo_project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("requests")
    for name in ("cryosparc", "relion"):
        (folder / name).symlink_to(demo_project.folder / name)
    for name, first in (("one", 1), ("two", 9)):
        columns = particle_columns([f"{name}.mrc"] * 4, range(4))
        save_cs(folder / f"{name}.cs", columns | {"uid": np.arange(first, first + 4, dtype="u8")})
    # The batches of a job, and the same images beside a STAR file.
    (folder / "pair").mkdir()
    images = save_mrc(folder / "batches" / "J1" / "restack" / "batch_000000_restacked.mrc", noise_images(4, 16), 1.5)
    shutil.copy(images, folder / "pair" / "a.mrcs")
    columns = {key: values for key, values in particle_columns(["x"] * 4, range(4)).items() if "blob" not in key}
    save_cs(folder / "batches" / "J1" / "J1_passthrough_particles.cs", columns)
    save_star(folder / "pair" / "a.star", "particles", LENS)
    there = folder / "there"
    (there / "fft").mkdir(parents=True)
    for name in (*THERE, STACK):
        (there / name).touch()
    return folder


def test_every_command_is_among_the_requests():
    known = {name: getattr(load(name), "commands", {}) for name in COMMANDS}
    names = {f"{name} {inner}" for name, below in known.items() for inner in below}
    names |= {name for name, below in known.items() if not below}
    assert names <= REQUESTS.keys()


@pytest.fixture(scope="module")
def refused(folder):
    """How each request ends."""
    asked = {}
    for name, requests in REQUESTS.items():
        words = name.split()
        command = words[: 1 + (words[0] == "stacks")]
        asked |= {(name, i): [*command, *request.split()] for i, request in enumerate(requests) if request}
    return dict(zip(asked, probe_errors_of_each(list(asked.values()), cwd=folder), strict=True))


@pytest.mark.parametrize("number", range(3), ids=["value", "input", "output"])
@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_wrong_is_said_before_torch_is_loaded(name, number, folder, refused):
    if REQUESTS[name][number] is None:
        pytest.skip("there is no such request")
    code, errors, loaded = refused[name, number]
    assert "torch" not in loaded
    assert "Error: " in errors
    assert code == 2 if number == 0 else code in (1, 2)
    if number == 1:
        assert "o such file" in errors or "there is no" in errors
    if number == 2:
        assert re.search("there: |there already", errors.rpartition("Error: ")[2])
    assert not list(folder.glob("new*"))
