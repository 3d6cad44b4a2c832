"""The output tree of a stack conversion: names of files, and the lens data beside each stack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.arrays import read_npz
from cryobridge.formats.atomic import leftovers
from cryobridge.formats.file_record import RECORDS, records_of
from cryobridge.formats.table import Array
from cryobridge.jobs.output_folder import files_in
from cryobridge.jobs.stacks.plan import StackRecord
from cryobridge.model.geometry import matrix_to_euler

if TYPE_CHECKING:
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.plan import StackTask
    from cryobridge.jobs.stacks.polar.plan import PolarPlan

CONTENTS = """\
fft/particles_fourier_stack_NNNNNN.pt   images on the polar grid, complex (image, shell, angle), norm 1
fft/particles_fourier_stack_NNNNNN.npz  grid, lens data, and the rows of the metadata that the images are of
phys/particles_phys_stack_NNNNNN.pt     the images, mean 0, largest absolute value 1
plots/*_stack_NNNNNN.png                images, transforms and power spectrum of each stack"""
_DEFAULT_AMPLITUDE_CONTRAST = 0.1
_ABSENT = np.zeros(0)
FINGERPRINT = "cryobridge_inputs"


def fourier_stack_path(folder: Path, number: int) -> Path:
    """Return where the Fourier stack of this number goes."""
    return folder / "fft" / f"particles_fourier_stack_{number:06d}.pt"


def lens_path(folder: Path, number: int) -> Path:
    """Return where the descriptor and lens data of this stack go."""
    return fourier_stack_path(folder, number).with_suffix(".npz")


def physical_stack_path(folder: Path, number: int) -> Path:
    """Return where the normalised real-space images of this stack go."""
    return folder / "phys" / f"particles_phys_stack_{number:06d}.pt"


def plot_paths(folder: Path, number: int) -> tuple[Path, Path, Path]:
    """Return where the pictures of this stack go: images, transforms, power spectrum."""
    names = ("particles_phys_stack", "particles_fourier_stack", "power_spectrum_stack")
    images, transforms, power = (folder / "plots" / f"{name}_{number:06d}.png" for name in names)
    return images, transforms, power


def stack_files(folder: Path, number: int, *, physical: bool = True, plots: bool = True) -> list[Path]:
    """Return all files of one stack."""
    files = [fourier_stack_path(folder, number), lens_path(folder, number)]
    files += [physical_stack_path(folder, number)] if physical else []
    return files + (list(plot_paths(folder, number)) if plots else [])


def image_bytes(plan: PolarPlan, *, physical: bool) -> int:
    """Return how many bytes the stacks need for one image: its transform, and itself where it is written."""
    n_bytes = (8 if plan.descriptor.precision == "single" else 16) * plan.grid.n_shells * plan.grid.n_inplanes
    if physical:
        n_bytes += 4 * plan.descriptor.n_pixels[0] * plan.descriptor.n_pixels[1]
    return n_bytes


def existing_outputs(folder: Path, others: frozenset[int] = frozenset()) -> list[Path]:
    """Return the files of earlier stacks in a folder: a reader would take them for new ones.

    Parameters
    ----------
    folder
        The output folder.
    others
        Numbers of stacks that are not meant.
    """
    found: list[Path] = []
    for first in stack_files(folder, 0):
        found += files_in(first.parent, first.name.replace("000000", "*"))
    kept = {path for number in others for path in stack_files(folder, number)}
    return [path for path in found if path not in kept]


def unfinished_outputs(folder: Path) -> list[Path]:
    """Return what a killed run left of files that it had not finished."""
    found: list[Path] = []
    for first in stack_files(folder, 0):
        found += leftovers(first.parent, first.stem.removesuffix("000000"), of_any_host=True)
    return found


def read_record(plan: PolarPlan, folder: Path, task: StackTask) -> StackRecord | None:
    """Return what the lens data of a stack say of how it was made, and the planned rows that they lack."""
    arrays = read_npz(lens_path(folder, task.number))
    if not {FINGERPRINT, "source_rows"} <= arrays.keys():
        return None
    is_kept = np.isin(plan.source.metadata_rows[task.rows], arrays["source_rows"])
    files = records_of(str(arrays[RECORDS])) if RECORDS in arrays else {}
    return StackRecord(
        str(arrays[FINGERPRINT]), task.rows[~is_kept], {folder / name: record for name, record in files.items()}
    )


def stack_arrays(plan: PolarPlan, rows: Rows, start: int | None) -> dict[str, Array]:
    """Return what lies beside a Fourier stack: CryoLike's keys, then the rows and uids that the images are of.

    Angles are in radians, defocus in Å, the spherical aberration in mm, the voltage in kV. An empty array stands
    for what the metadata do not say.
    """
    source, ctf, optics = plan.source, plan.source.ctf, plan.source.optics
    group = int(source.optics_of(rows[:1])[0])
    contrast = float(optics.amplitude_contrast[group])
    size_A = plan.ref_pixel_size_A
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
        "ref_pixel_size": _ABSENT if size_A is None else np.array([size_A, size_A]),
        "files": source.images.path.take(rows).to_numpy().astype(str),
        "idxs": source.images.index[rows],
        "ctfBfactor": _ABSENT if ctf.bfactor_A2 is None else ctf.bfactor_A2[rows],
        "ctfScalefactor": _ABSENT if ctf.scale is None else ctf.scale[rows],
        "n_images": np.array(len(rows)),
        "source_rows": source.metadata_rows[rows],
    }
    if source.particles.uid is not None:
        arrays["uid"] = source.particles.uid[rows]
    if start is not None:
        arrays |= {"stack_start": np.array(start), "stack_end": np.array(start + len(rows))}
    return arrays


def _angles(plan: PolarPlan, rows: Rows) -> dict[str, Array]:
    names = ("angleRotation", "angleTilt", "anglePsi")
    poses = plan.source.particles.poses
    if poses is None:
        return dict.fromkeys(names, _ABSENT)
    angles_deg = matrix_to_euler(poses.matrix[rows])
    return {name: np.radians(angle_deg) for name, angle_deg in zip(names, angles_deg, strict=True)}
