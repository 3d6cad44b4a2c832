"""The output tree of a stack conversion: names of files, and the lens data beside each stack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.table import Array
from cryobridge.geometry import matrix_to_euler
from cryobridge.jobdir import files_in

if TYPE_CHECKING:
    from cryobridge.stacks.plan import StackPlan, StackTask

_DEFAULT_AMPLITUDE_CONTRAST = 0.1
_ABSENT = np.zeros(0)


def fourier_stack_path(folder: Path, number: int) -> Path:
    """Return where the Fourier stack of this number goes."""
    return folder / "fft" / f"particles_fourier_stack_{number:06d}.pt"


def lens_path(folder: Path, number: int) -> Path:
    """Return where the descriptor and lens data of this stack go."""
    return fourier_stack_path(folder, number).with_suffix(".npz")


def physical_stack_path(folder: Path, number: int) -> Path:
    """Return where the normalised real-space images of this stack go."""
    return folder / "phys" / f"particles_phys_stack_{number:06d}.pt"


def existing_outputs(folder: Path) -> list[Path]:
    """Return the files of earlier stacks in a folder, whatever their numbers: a reader would take them for new ones."""
    patterns = (fourier_stack_path, lens_path, physical_stack_path)
    found = []
    for path_of in patterns:
        first = path_of(folder, 0)
        found += files_in(first.parent, first.name.replace("000000", "*"))
    return found


def stack_arrays(plan: StackPlan, task: StackTask) -> dict[str, Array]:
    """Return what lies beside a Fourier stack: CryoLike's keys, then the rows and uids that the images are of.

    Angles are in radians, defocus in Å, the spherical aberration in mm, the voltage in kV. An empty array stands
    for what the metadata do not say.
    """
    rows, particles = task.rows, plan.particles
    ctf, optics, optics_index = particles.ctf, particles.optics, particles.optics_index
    assert ctf is not None and optics is not None and optics_index is not None  # checked when planned
    group = int(optics_index[rows[0]])
    contrast = float(optics.amplitude_contrast[group])
    arrays = {
        **plan.descriptor.to_arrays(),
        "defocusU": ctf.defocus_u_A[rows],
        "defocusV": ctf.defocus_v_A[rows],
        "defocusAngle": ctf.defocus_angle_rad[rows],
        "phaseShift": np.zeros(len(rows)) if ctf.phase_shift_rad is None else ctf.phase_shift_rad[rows],
        "sphericalAberration": np.array(optics.spherical_aberration_mm[group]),
        "voltage": np.array(optics.voltage_kV[group]),
        "amplitudeContrast": np.array(_DEFAULT_AMPLITUDE_CONTRAST if np.isnan(contrast) else contrast),
        **_angles(plan, rows),
        "ref_pixel_size": np.array(plan.descriptor.pixel_size_A),
        "files": plan.images.path.take(rows).to_numpy().astype(str),
        "idxs": plan.images.index[rows],
        "ctfBfactor": _ABSENT if ctf.bfactor_A2 is None else ctf.bfactor_A2[rows],
        "ctfScalefactor": _ABSENT if ctf.scale is None else ctf.scale[rows],
        "n_images": np.array(len(rows)),
        "source_rows": rows,
    }
    if particles.uid is not None:
        arrays["uid"] = particles.uid[rows]
    return arrays


def _angles(plan: StackPlan, rows: NDArray[np.int64]) -> dict[str, Array]:
    names = ("angleRotation", "angleTilt", "anglePsi")
    if plan.particles.poses is None:
        return dict.fromkeys(names, _ABSENT)
    angles_deg = matrix_to_euler(plan.particles.poses.matrix[rows])
    return {name: np.radians(angle_deg) for name, angle_deg in zip(names, angles_deg, strict=True)}
