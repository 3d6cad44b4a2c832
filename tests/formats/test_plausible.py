"""Values that are in another unit are noticed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cryobridge.formats import plausible
from cryobridge.model.particles import CTF, Optics, ParticleSet, Poses


def implausible_units(particles: ParticleSet) -> tuple[str, ...]:
    messages = plausible.implausible_units(particles)
    assert {(message.code, message.severity) for message in messages} <= {("implausible-unit", "warning")}
    return tuple(map(str, messages))


def _particles(
    *, defocus_A: list[float] | None = None, pixel_size_A: float = 1.1, box_px: int = 256, voltage_kV: float = 300.0
) -> ParticleSet:
    defocus = np.array(defocus_A or [9_000.0, 14_000.0, 21_000.0])
    n = len(defocus)
    optics = Optics(
        group_id=np.array([1]),
        name=("1",),
        voltage_kV=np.array([voltage_kV]),
        spherical_aberration_mm=np.array([2.7]),
        amplitude_contrast=np.array([0.1]),
        pixel_size_A=np.array([pixel_size_A]),
        box_px=np.array([box_px]),
    )
    ctf = CTF(defocus, defocus - 100 * (defocus > 1000), np.zeros(n))
    return ParticleSet(n, Path("a.star"), optics=optics, optics_index=np.zeros(n, dtype=np.int32), ctf=ctf)


def test_plausible_values_are_not_reported_of() -> None:
    assert implausible_units(_particles()) == ()
    assert implausible_units(ParticleSet(0, Path("a.star"))) == ()
    # One particle may be odd; no CTF is 0.
    assert implausible_units(_particles(defocus_A=[300.0, 9_000.0, 12_000.0])) == ()
    assert implausible_units(_particles(defocus_A=[0.0, 0.0, 12_000.0])) == ()
    # A super-resolution pixel in a box of usual size.
    assert implausible_units(_particles(pixel_size_A=0.3, box_px=400)) == ()
    assert implausible_units(_particles(pixel_size_A=float("nan"), box_px=0)) == ()


def test_defocus_in_micrometres_is_named_once() -> None:
    assert implausible_units(_particles(defocus_A=[0.9, 1.4, 2.1])) == (
        "defocus: 0.9 to 2.1 looks like µm; Å expected (× 10,000)",
    )


def test_voltage_in_volts() -> None:
    assert implausible_units(_particles(voltage_kV=300_000.0)) == (
        "voltage: 300000 looks like V; kV expected (÷ 1,000)",
    )


def test_pixel_size_in_nanometres_is_reported_by_the_box() -> None:
    assert implausible_units(_particles(pixel_size_A=0.15, box_px=96)) == (
        "pixel size: 0.15 makes a box of 96 px only 14.4 Å wide, which looks like nm; Å expected (× 10)",
    )
    assert implausible_units(_particles(pixel_size_A=0.083, box_px=400)) == (
        "pixel size: 0.083 looks like nm; Å expected (× 10)",
    )


def _orientations(angles_deg: np.ndarray) -> ParticleSet:
    matrix = Rotation.from_euler("ZYZ", angles_deg, degrees=True).as_matrix()
    return ParticleSet(len(matrix), Path("a.star"), poses=Poses(matrix, None, "rlnAngle*"))


def test_euler_angles_in_radians_are_reported_by_their_spread() -> None:
    angles = np.random.default_rng(0).uniform((-180, 0, -180), (180, 180, 180), (300, 3))
    (sentence,) = implausible_units(_orientations(np.radians(angles)))
    assert re.fullmatch(
        r"orientations: all within [67](\.\d)?° of none, which looks like Euler angles in rad; .*", sentence
    )
    # As they should be; too few to tell; none refined yet; turned in the plane only.
    flat = angles * (0, 0, 1)
    for usual in (angles, np.radians(angles)[:50], angles * 0, flat):
        assert implausible_units(_orientations(usual)) == ()
    assert len(implausible_units(_orientations(np.radians(flat)))) == 1
