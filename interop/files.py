"""The particles that go through all programs: simulated, in cryoSPARC's files, and in those that cryobridge writes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

from cryobridge.demo import simulate_project
from interop.maps import volume_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.demo import DemoProject
    from interop.checks import Checks
    from interop.programs import Programs

NEW_BOX = 48
PARTICLES = 300

# Relative to the folder of the run, where all programs are started.
CRYOSPARC = "project/cryosparc"
CS = f"{CRYOSPARC}/J4/J4_003_particles.cs"
GROUP = f"{CRYOSPARC}/J4/J4_particles.csg"
STAR = "particles.star"
CS_OF_STAR = "of_star/particles.cs"
# With what the simulation leaves out, see `write_mixed`.
MIXED_CS = f"{CRYOSPARC}/J4/mixed.cs"
MIXED_STAR, MIXED_STAR_30 = "mixed.star", "mixed_30.star"


_TO_PICKLES = ("--to", "pickles")


@dataclass(frozen=True)
class Simulated:
    """What is true of each row, in the order of the `.cs` file.

    Attributes
    ----------
    project
        The simulated project.
    images
        (n, box, box), read from the stacks by `mrcfile` at the slice that was simulated.
    """

    project: DemoProject
    images: NDArray[Any]

    @property
    def poses(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Rotations (n, 3, 3) and shifts (n, 2) as fractions of the box."""
        particles = self.project.truth.particles
        return particles.matrix, particles.shift_px / self.project.box_px

    @property
    def ctf(self) -> NDArray[Any]:
        """(n, 9): the columns of cryoDRGN's ctf.pkl."""
        truth, ctf = self.project.truth, self.project.truth.particles.ctf
        microscope = truth.microscope
        table = np.zeros((len(self.images), 9))
        table[:, :2] = self.project.box_px, self.project.pixel_size_A
        table[:, 2], table[:, 3], table[:, 4] = ctf.defocus_u_A, ctf.defocus_v_A, np.degrees(ctf.defocus_angle_rad)
        table[:, 5:8] = microscope.voltage_kV, microscope.spherical_aberration_mm, microscope.amplitude_contrast
        return table

    def molecule(self, box_px: int, voxel_size_A: float, x_sign: float = 1.0) -> NDArray[Any]:
        """Return the molecule as a volume (z, y, x); ``x_sign`` -1 is its mirror image."""
        return volume_of(self.project.truth.molecule, box_px, voxel_size_A, x_sign)


def simulate(folder: Path) -> Simulated:
    """Write the simulated project into the folder of the run."""
    project = simulate_project(folder / "project", n_micrographs=6, particles_per_micrograph=PARTICLES // 6)
    particles = project.truth.particles
    stacks = np.stack([mrcfile.read(stack) for stack in project.stacks])
    return Simulated(project, stacks[particles.micrograph, particles.stack_index])


def write_mixed(simulated: Simulated) -> NDArray[Any]:
    """Write the `.cs` with two optics, phase shifts, and shifts in pixels twice as large; return its (n, 9) CTF.

    A heterogeneous refinement works on cropped images: its shifts are in their pixels (``alignments3D/psize_A``).
    """
    rows = np.load(simulated.project.particles_cs)
    n = len(rows)
    second = simulated.project.truth.particles.micrograph % 2 == 1
    rows["alignments3D/psize_A"] *= 2
    rows["alignments3D/shift"] /= 2
    rows["ctf/phase_shift_rad"] = np.random.default_rng(0).uniform(0, np.pi, n)
    for field, first, other in (
        ("exp_group_id", 11, 3),
        ("accel_kv", 300, 200),
        ("cs_mm", 2.7, 2.0),
        ("amp_contrast", 0.1, 0.07),
    ):
        rows[f"ctf/{field}"] = np.where(second, other, first)
    with (simulated.project.folder.parent / MIXED_CS).open("wb") as file:
        np.save(file, rows)
    ctf = simulated.ctf
    for column, field in enumerate(("accel_kv", "cs_mm", "amp_contrast"), 5):
        ctf[:, column] = rows[f"ctf/{field}"]
    ctf[:, 8] = np.degrees(rows["ctf/phase_shift_rad"].astype(np.float64))
    return ctf


def convert(checks: Checks, programs: Programs, simulated: Simulated) -> None:
    """Write the STAR file of the `.cs`, the `.cs` of that STAR file, and those of the mixed one, with cryobridge."""
    checks.section("cryobridge convert: particles written")
    box, pixel_size = str(simulated.project.box_px), str(simulated.project.pixel_size_A)
    for source, output, options in (
        (GROUP, STAR, ("--link-stacks", "stacks")),
        (STAR, CS_OF_STAR, ("--link-stacks", "of_star/stacks")),
        (MIXED_CS, MIXED_STAR, ()),
        (MIXED_CS, MIXED_STAR_30, ("--relion", "3.0")),
        (CS, "pickles_cs", _TO_PICKLES),
        (STAR, "pickles_star", _TO_PICKLES),
        (CS_OF_STAR, "pickles_cs_of_star", _TO_PICKLES),
        (MIXED_CS, "pickles_mixed_cs", _TO_PICKLES),
        (MIXED_STAR, "pickles_mixed_star", _TO_PICKLES),
        (MIXED_STAR_30, "pickles_mixed_30", (*_TO_PICKLES, "--box", box, "--pixel-size", pixel_size)),
    ):
        told = programs.cryobridge_json("convert", source, "-o", output, *options)
        checks.equal(f"{source.rsplit('/', 1)[-1]} -> {output}", told["rows_out"], PARTICLES)


def unpickle(path: Path) -> Any:
    """Read a pickle that this run has made, as the programs do."""
    with path.open("rb") as file:
        return pickle.load(file)  # its writer is a program of this run


def largest(first: Any, second: Any) -> float:
    """Return the largest difference of two arrays of one shape; arrays of another shape are infinitely different."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float(np.abs(first - second).max()) if first.shape == second.shape and first.size else np.inf


def rows_that_differ(first: NDArray[Any], second: NDArray[Any]) -> int:
    """Count the images of which any pixel is different."""
    if first.shape != second.shape:
        return max(len(first), len(second))
    return int((first != second).any(axis=tuple(range(1, first.ndim))).sum())


def with_pickles(particles: str, folder: str, **more: str) -> dict[str, str]:
    """Describe a particle file with its pickles for `Programs.read_with`."""
    return {"particles": particles, "poses": f"{folder}/poses.pkl", "ctf": f"{folder}/ctf.pkl", **more}
