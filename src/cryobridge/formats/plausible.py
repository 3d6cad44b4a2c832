"""Whether the values of a particle set look as if they were in another unit than their columns have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.fields import judge
from cryobridge.model.fields import FIELDS, QUANTITIES, Field
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.model.particles import Floats, ParticleSet

# Finer pixels are rare in cryo-EM, and so are smaller boxes; both together are not seen.
_FINE_PIXEL_A = 0.5
_SMALL_BOX_A = 100
# Euler angles between -π and π that are taken for degrees turn by 2π about z and π across it at most, √5 π = 7.02
# degrees. Views of many particles spread wider.
_WIDEST_OF_RADIANS_DEG = 7.1
_MANY_PARTICLES = 100
_CODE = "implausible-unit"


def implausible_units(particles: ParticleSet) -> tuple[Message, ...]:
    """Return a warning for each quantity that looks as if it were in another unit.

    Parameters
    ----------
    particles
        All quantities that are known by a wrong unit, such as defocus, pixel size and voltage, and the orientations.

    Returns
    -------
    tuple of Message
        Such as ``defocus: 0.82 to 1.9 looks like µm; Å expected (× 10,000)``; none if all is plausible. A quantity is
        named if its median is implausible: a few odd particles are no wrong unit.
    """
    found = [sentence for item, values in _quantities(particles) if (sentence := _judge(item, values))]
    # Both defoci have one name, and are named once.
    by_name = {sentence.partition(":")[0]: sentence for sentence in reversed(found)}
    messages = [warning(_CODE, sentence, where=particles.source) for sentence in reversed(by_name.values())]
    tiny = None if "pixel size" in by_name else _tiny_box(particles)
    return (*messages, *(more for more in (tiny, _tiny_turns(particles)) if more is not None))


def _quantities(particles: ParticleSet) -> Iterator[tuple[Field, Floats]]:
    """Yield the values whose quantity has units that are mistaken for its own."""
    for item in FIELDS:
        is_checked = item.kind == "float" and not item.is_coded and QUANTITIES[item.quantity].mistakes
        values = particles.get(item.name) if is_checked else None
        if values is not None:
            yield item, values[particles.optics_index] if item.is_of_optics else values


def _judge(item: Field, values: Floats) -> str | None:
    quantity = QUANTITIES[item.quantity]
    known = values[np.isfinite(values) & ~np.isin(values, quantity.legal)]
    if not len(known):
        return None
    middle = float(np.median(known))
    if judge(quantity, middle, middle) is None:
        return None
    return f"{item.title}: {judge(quantity, float(known.min()), float(known.max()))}"


def tiny_box(pixel_size_A: float, box_px: int) -> Message | None:
    """Warn of pixels as small as those of a file in nm, which the size of the box gives away; None if they are not."""
    edge_A = box_px * pixel_size_A
    if pixel_size_A >= _FINE_PIXEL_A or not 0 < edge_A < _SMALL_BOX_A:
        return None
    text = (
        f"pixel size: {pixel_size_A:g} makes a box of {box_px:,} px only {edge_A:.3g} Å wide, which looks like nm; "
        "Å expected (× 10)"
    )
    return warning(_CODE, text)


def _tiny_box(particles: ParticleSet) -> Message | None:
    if particles.optics is None or particles.optics_index is None:
        return None
    optics = particles.optics.take(np.unique(particles.optics_index))
    boxes = zip(optics.pixel_size_A.tolist(), optics.box_px.tolist(), strict=True)
    return next((found for box in boxes if (found := tiny_box(*box)) is not None), None)


def _tiny_turns(particles: ParticleSet) -> Message | None:
    """Warn of orientations that all lie as near to none as Euler angles in radians do that are taken for degrees."""
    if particles.poses is None or len(particles) < _MANY_PARTICLES:
        return None
    # The angle of a rotation: trace = 1 + 2 cos.
    trace = np.trace(particles.poses.matrix, axis1=1, axis2=2)
    turn_deg = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    turn_deg = turn_deg[np.isfinite(turn_deg)]
    if not len(turn_deg) or not 0 < np.median(turn_deg) <= turn_deg.max() < _WIDEST_OF_RADIANS_DEG:
        return None
    text = f"orientations: all within {turn_deg.max():.2g}° of none, which looks like Euler angles in rad; ° expected"
    return warning(_CODE, text, where=particles.source)
