"""The output tree of a stack conversion: names of files, and the lens data beside each stack."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.arrays import read_npz, write_npz
from cryobridge.formats.atomic import leftovers
from cryobridge.formats.pt_write import TensorWriter, tensor_writer
from cryobridge.formats.table import Array
from cryobridge.jobs.output_folder import files_in
from cryobridge.model.geometry import matrix_to_euler
from cryobridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.plan import StackPlan, StackTask

_DEFAULT_AMPLITUDE_CONTRAST = 0.1
_ABSENT = np.zeros(0)
_FINGERPRINT = "cryobridge_inputs"


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


def image_bytes(plan: StackPlan) -> int:
    """Return how many bytes the stacks need for one image: its transform, and itself where it is written."""
    number_bytes = 4 if plan.descriptor.precision == "single" else 8
    n_numbers = 2 * plan.grid.n_shells * plan.grid.n_inplanes
    if plan.options.physical:
        n_numbers += plan.descriptor.n_pixels[0] * plan.descriptor.n_pixels[1]
    return number_bytes * n_numbers


def existing_outputs(folder: Path) -> list[Path]:
    """Return the files of earlier stacks in a folder, whatever their numbers: a reader would take them for new ones."""
    found: list[Path] = []
    for first in stack_files(folder, 0):
        found += files_in(first.parent, first.name.replace("000000", "*"))
    return found


def unfinished_outputs(folder: Path) -> list[Path]:
    """Return what a killed run left of files that it had not finished."""
    found: list[Path] = []
    for first in stack_files(folder, 0):
        found += leftovers(first.parent, first.stem.removesuffix("000000"), of_any_host=True)
    return found


@dataclass(frozen=True)
class OpenStack:
    """The files of a stack that is being written."""

    fourier: TensorWriter
    physical: TensorWriter | None
    kept_rows: list[Rows]

    def write(self, rows: Rows, images: torch.Tensor, polar: torch.Tensor) -> None:
        """Append the images (n, N, N) of these rows and their transforms (n, shells, angles)."""
        if self.physical is not None:
            self.physical.write(images)
        self.fourier.write(polar)
        self.kept_rows.append(rows)


@contextmanager
def open_stack(
    plan: StackPlan, folder: Path, task: StackTask, real_type: torch.dtype, complex_type: torch.dtype
) -> Iterator[OpenStack]:
    """Write the files of one stack; they appear when the block ends well, the Fourier stack last.

    Raises
    ------
    CryobridgeError
        If the operating system refuses, or no image was written.
    """
    number = task.number
    box = (plan.descriptor.n_pixels[0], plan.descriptor.n_pixels[1])
    polar_shape = (plan.grid.n_shells, plan.grid.n_inplanes)
    kept: list[Rows] = []
    with tensor_writer(fourier_stack_path(folder, number), polar_shape, complex_type) as fourier:
        images = tensor_writer(physical_stack_path(folder, number), box, real_type)
        with images if plan.options.physical else nullcontext() as physical:
            yield OpenStack(fourier, physical, kept)
            rows = np.concatenate(kept)
            if len(rows) == 0:
                raise CryobridgeError(
                    f"no image of stack {number} can be used: all are constant or hold NaN or infinity",
                    path=plan.source.particles.source,
                    hint="Check the image files with `cryobridge inspect`.",
                )
        arrays = stack_arrays(plan, rows, task.start)
        # The planned rows, not those that were kept: what is compared must be known before the work.
        write_npz(lens_path(folder, number), arrays | {_FINGERPRINT: np.array(fingerprint(plan, task))})


def whole_stacks(plan: StackPlan, folder: Path) -> dict[int, int]:
    """Return the stacks of a plan that are whole, made from the same inputs and parameters, with their image counts."""
    return {
        task.number: count for task in plan.tasks if (count := _images_in_whole_stack(plan, folder, task)) is not None
    }


def _images_in_whole_stack(plan: StackPlan, folder: Path, task: StackTask) -> int | None:
    files = stack_files(folder, task.number, physical=plan.options.physical, plots=plan.options.plots)
    if not all(path.is_file() for path in files):
        return None
    try:
        arrays = read_npz(lens_path(folder, task.number))
        same = str(arrays[_FINGERPRINT]) == fingerprint(plan, task)
        return int(arrays["n_images"]) if same else None
    except (CryobridgeError, KeyError, ValueError):
        return None


def fingerprint(plan: StackPlan, task: StackTask) -> str:
    """Return a digest of all that the bytes of a stack depend on: metadata, parameters, and size and age of the files.

    Raises
    ------
    OSError
        If an image file has vanished.
    """
    digest = hashlib.sha256(f"{__version__} {plan.options.on_missing}".encode())
    digest.update(f"{plan.options.downsample_factor} {plan.options.downsample_type}".encode())
    for name, array in stack_arrays(plan, task.rows, task.start).items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for code in np.unique(plan.source.images.path.codes[task.rows]).tolist():
        status = plan.source.headers[code].path.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def stack_arrays(plan: StackPlan, rows: Rows, start: int | None) -> dict[str, Array]:
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


def _angles(plan: StackPlan, rows: Rows) -> dict[str, Array]:
    names = ("angleRotation", "angleTilt", "anglePsi")
    poses = plan.source.particles.poses
    if poses is None:
        return dict.fromkeys(names, _ABSENT)
    angles_deg = matrix_to_euler(poses.matrix[rows])
    return {name: np.radians(angle_deg) for name, angle_deg in zip(names, angles_deg, strict=True)}
