"""The process that draws stacks runs no module that lies in the current folder."""

from __future__ import annotations

from cryobridge.demo import simulate_project
from helpers import run_anew


def test_no_module_beside_the_data_is_run(tmp_path):
    for name in ("numpy", "matplotlib", "json"):
        (tmp_path / f"{name}.py").write_text("from pathlib import Path\nPath('was_run').touch()\n")
    project = simulate_project(tmp_path / "demo", n_micrographs=1, particles_per_micrograph=5)
    done = run_anew("stacks", "cs", project.particles_cs, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out" / "plots").glob("*.png"))
    assert not (tmp_path / "was_run").exists()
