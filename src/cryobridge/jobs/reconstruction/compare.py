"""Whether two files say the same of the same images: by the maps that are made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.fourier.fsc import fourier_shell_correlation
from cryobridge.jobs.reconstruction.maps import Said, mapped
from cryobridge.jobs.reconstruction.report import LEAST_FSC, MapCheck

if TYPE_CHECKING:
    from cryobridge.fourier.backprojection import Views
    from cryobridge.jobs.reconstruction.images import ChosenImages
    from cryobridge.model.particles import Floats

# Of what is called a difference; the least that any file rounds to is smaller.
_ANGLE_DEG, _SHIFT_A, _CTF, _PHASE_RAD, _RELATIVE = 1e-3, 1e-2, 1e-3, 1e-3, 1e-5
_N_ANGLES = 8


def compare_maps(images: ChosenImages, source: Said, output: Said, box_px: int, device: str = "auto") -> MapCheck:
    """Backproject the same images by what two files say of them, and compare the maps.

    Parameters
    ----------
    images
        The images.
    source, output
        What each file says.
    box_px
        Edge of the maps; that of the first image where this is smaller.
    device
        Where to work.

    Raises
    ------
    MissingDataError
        If a file does not say enough.
    FormatError
        If the images can't be read.
    """
    maps, used = mapped(images, (source, output), box_px, device)
    densities = [each.density() for each in maps]
    fsc = fourier_shell_correlation(*densities)
    box_px, voxel_size_A = maps[0].box_px, maps[0].voxel_size_A
    shell = 1 + int(fsc[1:].nan_to_num(-2.0).argmin())
    lowest = float(fsc[shell])
    check = MapCheck(
        len(used), box_px, voxel_size_A, tuple(fsc.tolist()), lowest, box_px * voxel_size_A / shell, LEAST_FSC
    )
    if check.is_good:
        return check
    differing = _differing(source.views(images), output.views(images), images.pixel_size_A)
    return MapCheck(**{**vars(check), "differing": tuple(differing)})


def _differing(source: Views, output: Views, pixel_size_A: Floats) -> list[str]:
    """Say what two files say differently, and by how much at most."""
    third = [np.cross(each.axes[:, 0], each.axes[:, 1]) for each in (source, output)]
    whole = [np.concatenate([each.axes, z[:, None]], axis=1) for each, z in zip((source, output), third, strict=True)]
    distance = np.sqrt(np.square(whole[0] - whole[1]).sum(axis=(1, 2)))
    angle_deg = np.degrees(2 * np.arcsin(np.clip(distance / np.sqrt(8), 0, 1)))
    shift_A = np.linalg.norm((source.shift_px - output.shift_px) * pixel_size_A[:, np.newaxis], axis=1)
    said = [
        f"{name} by {_in_unit(largest, unit)}"
        for name, values, unit, least in (
            ("poses", angle_deg, "°", _ANGLE_DEG),
            ("shifts", shift_A, " Å", _SHIFT_A),
        )
        if (largest := float(values.max(initial=0))) > least
    ]
    return said + _differing_optics(source, output)


def _differing_optics(source: Views, output: Views) -> list[str]:
    angle = np.arange(_N_ANGLES) * (np.pi / _N_ANGLES)
    radius = np.linspace(0, 0.5, 2 * _N_ANGLES)
    kx, ky = (np.outer(radius, axis).ravel() for axis in (np.cos(angle), np.sin(angle)))
    ctf = np.abs(source.lens.transfer(kx, ky) - output.lens.transfer(kx, ky)).max()
    odd = np.abs(source.lens.phases(kx, ky)[1] - output.lens.phases(kx, ky)[1]).max()
    pixel_size = np.abs(output.pixel_size_A / source.pixel_size_A - 1).max()
    of_one, of_other = (each.to_true * each.pixel_size_A[:, None, None] for each in (source, output))
    found = [
        (f"the CTF by {ctf:.2g}", ctf > _CTF),
        (f"odd aberrations by {odd:.2g} rad", odd > _PHASE_RAD),
        (f"the pixel size by {100 * pixel_size:.2g} %", pixel_size > _RELATIVE),
        ("the magnification matrix", np.abs(of_one - of_other).max() > _RELATIVE),
        ("whether images are multiplied by their CTF", (source.is_premultiplied != output.is_premultiplied).any()),
    ]
    return [text for text, differs in found if differs]


def _in_unit(value: float, unit: str) -> str:
    return f"{value:.3g}{unit}"
