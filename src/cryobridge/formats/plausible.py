"""Whether the values of a particle set look as if they were in another unit than their columns have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.fields import judge, lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.particles import Floats, ParticleSet

# What people call it, and a column whose unit is the model's.
_CTF = (
    ("defocus", "defocus_u_A", "rlnDefocusU"),
    ("defocus", "defocus_v_A", "rlnDefocusV"),
    ("defocus angle", "defocus_angle_rad", "ctf/df_angle_rad"),
)
_OPTICS = (
    ("pixel size", "pixel_size_A", "rlnImagePixelSize"),
    ("voltage", "voltage_kV", "rlnVoltage"),
    ("spherical aberration", "spherical_aberration_mm", "rlnSphericalAberration"),
    ("amplitude contrast", "amplitude_contrast", "rlnAmplitudeContrast"),
)
# Finer pixels are rare in cryo-EM, and so are smaller boxes; both together are not seen.
_FINE_PIXEL_A = 0.5
_SMALL_BOX_A = 100


def implausible_units(particles: ParticleSet) -> tuple[str, ...]:
    """Say which values look as if they were in another unit.

    Parameters
    ----------
    particles
        Defocus, pixel size, voltage, spherical aberration and amplitude contrast of it are looked at.

    Returns
    -------
    tuple of str
        Sentences without full stops, such as ``defocus: 0.82 to 1.9 looks like µm; Å expected (× 10,000)``; none if
        all is plausible. A quantity is told of if its median is implausible: a few odd particles are no wrong unit.
    """
    found = [sentence for name, values, column in _quantities(particles) if (sentence := _judge(name, values, column))]
    # Both defoci have one name, and are told of once.
    told = {sentence.partition(":")[0]: sentence for sentence in reversed(found)}
    sentences = tuple(reversed(told.values()))
    tiny = None if "pixel size" in told else _tiny_box(particles)
    return sentences if tiny is None else (*sentences, tiny)


def _quantities(particles: ParticleSet) -> Iterator[tuple[str, Floats, str]]:
    if particles.ctf is not None:
        for name, attribute, column in _CTF:
            yield name, getattr(particles.ctf, attribute), column
    if particles.optics is not None:
        for name, attribute, column in _OPTICS:
            yield name, particles.per_particle(attribute), column


def _judge(name: str, values: Floats, column: str) -> str | None:
    spec = lookup(column)
    assert spec is not None  # in the catalogue
    known = values[np.isfinite(values) & ~np.isin(values, spec.legal)]
    if not len(known):
        return None
    middle = float(np.median(known))
    if judge(spec, middle, middle) is None:
        return None
    sentence = judge(spec, float(known.min()), float(known.max()))
    return f"{name}: {sentence}"


def _tiny_box(particles: ParticleSet) -> str | None:
    """Say that pixels are as small as those of a file in nm, which the size of the box gives away."""
    if particles.optics is None or particles.optics_index is None:
        return None
    optics = particles.optics.take(np.unique(particles.optics_index))
    edge_A = optics.box_px * optics.pixel_size_A
    is_tiny = (optics.pixel_size_A < _FINE_PIXEL_A) & (edge_A > 0) & (edge_A < _SMALL_BOX_A)
    if not is_tiny.any():
        return None
    group = int(np.flatnonzero(is_tiny)[0])
    pixel_size, box = optics.pixel_size_A[group], optics.box_px[group]
    return (
        f"pixel size: {pixel_size:g} makes a box of {box:,} px only {edge_A[group]:.3g} Å wide, "
        "which looks like nm; Å expected (× 10)"
    )
