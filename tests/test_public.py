"""The public face: `import cryobridge as cb`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cryobridge as cb
from helpers import environment

LOADED = (
    "import sys, cryobridge; print(*sorted({'numpy', 'torch', 'pandas', 'matplotlib', 'typer'} & set(sys.modules)))"
)


def test_importing_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", sorted(set(cb.__all__) - {"__version__"}))
def test_every_public_name_is_there_and_documented(name):
    value = getattr(cb, name)
    assert value.__doc__
    assert name in dir(cb)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cb.nothing


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: cb.read(3), "path"),
        (lambda: cb.read(None), "path"),
        (lambda: cb.write(3, "a.star"), "particles"),
        (lambda: cb.convert(3, "a.star"), "inputs"),
        (lambda: cb.convert("a.cs", 3), "output"),
        (lambda: cb.convert("a.cs", "a.star", relion=3), "relion"),
        (lambda: cb.convert("a.cs", "a.star", classes="one"), "classes"),
        (lambda: cb.convert("a.cs", "a.star", min_posterior="much"), "min_posterior"),
        (lambda: cb.convert("a.cs", "a.star", speed=3), "speed"),
        (lambda: cb.select(3, classes=(1,)), "particles"),
        (lambda: cb.select("a.star", classes=1.5), "classes"),
        (lambda: cb.select("a.star", where=3), "where"),
        (lambda: cb.select(cb.ParticleSet(1, Path("a.star")), like=3), "like"),
        (lambda: cb.coords(3, "a.star"), "picks"),
        (lambda: cb.coords("a.cs", 3), "micrographs"),
        (lambda: cb.coords("a.cs", "a.star", subpixel="yes"), "subpixel"),
        (lambda: cb.stacks(3, "out"), "particles"),
        (lambda: cb.stacks("a.cs", "out", order="bogus"), "order"),
        (lambda: cb.stacks("a.cs", "out", batch_size="many"), "batch_size"),
        (lambda: cb.stacks("a.cs", "out", device=3), "device"),
        (lambda: cb.downsample("a.star", "out", box_px="64"), "box_px"),
        (lambda: cb.downsample("a.star", 3, box_px=64), "output"),
        (lambda: cb.downsample("a.star", "out"), "box_px"),
        (lambda: cb.converge(3), "job"),
        (lambda: cb.converge("job", threshold="low"), "threshold"),
        (lambda: cb.inspect(3), "path"),
        (lambda: cb.inspect("a.cs", fields=3), "fields"),
        (lambda: cb.select_files(3, "a.star", classes=(1,)), "particles"),
        (lambda: cb.select_files("a.star", 3, classes=(1,)), "output"),
        (lambda: cb.write_grid(3, n_pixels=64, pixel_size_A=1.5), "output"),
        (lambda: cb.write_grid("a.npz", n_pixels="64", pixel_size_A=1.5), "n_pixels"),
        (lambda: cb.simulate_project(3), "folder"),
        (lambda: cb.simulate_project("a", seed="b"), "seed"),
        (lambda: cb.open_recovar(3), "path"),
        (lambda: cb.open_table(3), "path"),
        (lambda: cb.open_images(3), "path"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(cb.CryobridgeError) as caught:
        call()
    assert caught.value.option == named
    assert str(caught.value).startswith(named)
