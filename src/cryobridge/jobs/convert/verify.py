"""Reading an output back and comparing it with the input, quantity by quantity, in the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.optics import group_optics
from cryobridge.formats.particles_pickle import CTF_TABLE, INDICES, POSES, PickleContent
from cryobridge.formats.pickles import CTF_COLUMNS, read_ctf, read_indices, read_poses
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.model.geometry import box_fraction_to_shift_A
from cryobridge.model.particles import CTF, ParticleSet, Poses

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryobridge.jobs.convert.plan import ConvertPlan
    from cryobridge.model.particles import Floats, Locations

# Twice what rounding to float32 or to RELION's six digits makes of usual values.
_ANGLE_DEG = 1e-4
_SHIFT_A = 1e-3
_DEFOCUS_A = 1e-2
_PIXELS = 1e-2
_RELATIVE = 1e-6
_OPTICS = ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast", "pixel_size_A", "box_px")


@dataclass(frozen=True)
class Difference:
    """How far one quantity of the output is from the input's.

    Parameters
    ----------
    quantity
        What was compared.
    largest
        The largest difference of all particles.
    unit
        Its unit; ``rows`` where differing rows were counted.
    tolerance
        What rounding explains.
    """

    quantity: str
    largest: float
    unit: str
    tolerance: float

    @property
    def is_good(self) -> bool:
        """Whether rounding explains the difference; NaN is no answer."""
        return self.largest <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Return the difference as JSON-ready data."""
        largest = self.largest if np.isfinite(self.largest) else None
        return {"quantity": self.quantity, "largest": largest, "unit": self.unit, "tolerance": self.tolerance}


def verify(plan: ConvertPlan) -> list[Difference]:
    """Read the output of a plan back and compare it with the input.

    Parameters
    ----------
    plan
        A plan that was written.

    Returns
    -------
    list of Difference
        One for each quantity that the output has a place for.
    """
    expected = _expected(plan)
    if isinstance(plan.content, PickleContent):
        differences = compare(expected, _pickled(plan.output, plan.content, expected))
        if plan.content.indices is not None:
            differences.append(_rows("chosen rows", plan.content.indices, read_indices(plan.output / INDICES)))
        return differences
    is_cs = plan.target == "cs"
    found = read_particles_cs(plan.output) if is_cs else read_particles_star(plan.output)
    differences = compare(expected, found)
    if is_cs and plan.particles.uid is not None:
        differences.append(_rows("uid", plan.particles.uid, found.uid))
    if plan.particles.locations is not None and found.locations is not None:
        differences.append(_texts("micrographs", plan.particles.locations.micrograph, found.locations.micrograph))
        place = source_coordinates(plan, found.locations)
        assert expected.locations is not None  # the planned ones are made of them
        differences.append(Difference("coordinates", _gap(expected.locations.coordinate_px, place), "px", _PIXELS))
    assert plan.particles.images is not None and found.images is not None  # an output has images
    differences.append(_texts("stacks", plan.particles.images.path, found.images.path))
    differences.append(_rows("slices", plan.particles.images.index, found.images.index))
    return differences


def require_equal(differences: Sequence[Difference], output: Path) -> None:
    """Raise where rounding does not explain a difference.

    Parameters
    ----------
    differences
        As `verify` returns them.
    output
        The file or folder that was read back.

    Raises
    ------
    CryobridgeError
        If one is larger than its tolerance.
    """
    bad = [item for item in differences if not item.is_good]
    if bad:
        told = ", ".join(f"{item.quantity} by {item.largest:g} {item.unit}".rstrip() for item in bad)
        raise CryobridgeError(
            f"the output does not read back as the input: {told}",
            path=output,
            count=len(bad),
            hint="Don't use it. If nothing else wrote to that file, this is a mistake in cryobridge; please report it.",
        )


def compare(expected: ParticleSet, found: ParticleSet) -> list[Difference]:
    """Compare two sets of the same particles in the same order, where both know a quantity."""
    if len(expected) != len(found):
        return [Difference("particles", abs(len(expected) - len(found)), "rows", 0)]
    differences = [Difference("particles", 0, "rows", 0)]
    if expected.poses is not None:
        differences += _compare_poses(expected.poses, found.poses)
    if expected.ctf is not None:
        differences += _compare_ctf(expected.ctf, found.ctf)
    if expected.optics is not None:
        differences += [_compare_optics(name, expected, found) for name in _OPTICS if _is_known(expected, name)]
    for quantity, one, other in (
        ("half sets", expected.half_set, found.half_set),
        ("classes", expected.class_number, found.class_number),
    ):
        if one is not None and other is not None:
            differences.append(_rows(quantity, one, other))
    if expected.helix is not None and found.helix is not None:
        differences.append(_rows("filaments", expected.helix.tube, found.helix.tube))
    if expected.pick_score is not None and found.pick_score is not None:
        differences.append(_relative("pick scores", expected.pick_score, found.pick_score))
    return differences


def _expected(plan: ConvertPlan) -> ParticleSet:
    """Return the input's rows, with the sizes that were looked up or given, and what the target can hold."""
    source, is_all = plan.source.particles, isinstance(plan.content, PickleContent)
    rows = np.arange(len(source)) if is_all else plan.rows
    particles = source if len(rows) == len(source) else source.take(rows)
    planned, optics = plan.particles, plan.particles.optics
    if optics is not None and plan.target == "star" and plan.options.relion == "3.0":
        # That layout has no place for the box.
        optics = replace(optics, box_px=np.zeros_like(optics.box_px))
    particles = replace(particles, optics=optics, optics_index=planned.optics_index)
    return particles if is_all else replace(particles, half_set=planned.half_set, class_number=planned.class_number)


def source_coordinates(plan: ConvertPlan, found: Locations) -> Floats:
    """Return coordinates (n, 2) of the output as pixels of the input's micrographs."""
    convention, program, target = plan.options.convention, plan.source.program, plan.target
    assert plan.particles.locations is not None  # asked before
    if program == "cryosparc" and target == "star":
        shape = plan.particles.locations.shape_px
        assert shape is not None  # cryoSPARC's locations have one
        return convention.to_fractions(found.coordinate_px, shape) * shape[:, ::-1]
    if program == "relion" and target == "cs" and found.shape_px is not None:
        return convention.to_px(found.coordinate_px / found.shape_px[:, ::-1], found.shape_px)
    return found.coordinate_px


def _pickled(folder: Path, content: PickleContent, expected: ParticleSet) -> ParticleSet:
    """Read pickles back into the model; box and pixel size come from ctf.pkl where there is one."""
    poses: Poses | None = None
    particles = ParticleSet(len(expected), folder)
    pixel_size_A, box = (None, None)
    if content.ctf is not None:
        table = dict(zip(CTF_COLUMNS, read_ctf(folder / CTF_TABLE).values.T, strict=True))
        pixel_size_A, box = table["pixel_size_A"], table["box_px"]
        particles = _with_table(particles, table)
    elif expected.optics is not None:
        pixel_size_A, box = expected.per_particle("pixel_size_A"), expected.per_particle("box_px")
    if content.rotations is not None:
        found = read_poses(folder / POSES)
        shift_A = None
        if found.shifts_box is not None and pixel_size_A is not None and box is not None:
            shift_A = box_fraction_to_shift_A(found.shifts_box, pixel_size_A, box)
        poses = Poses(found.rotations, shift_A, POSES)
    n_rows = len(expected) if poses is None else len(poses.matrix)
    return replace(particles, poses=poses, n_rows=n_rows)


def _with_table(particles: ParticleSet, table: dict[str, Floats]) -> ParticleSet:
    optics, index = group_optics(len(table["box_px"]), **{name: table[name] for name in _OPTICS})
    ctf = CTF(
        table["defocus_u_A"],
        table["defocus_v_A"],
        np.radians(table["defocus_angle_deg"]),
        np.radians(table["phase_shift_deg"]),
    )
    return replace(particles, optics=optics, optics_index=index, ctf=ctf)


def _compare_poses(expected: Poses, found: Poses | None) -> list[Difference]:
    if found is None:
        return [Difference("orientation", np.inf, "°", _ANGLE_DEG)]
    # |A - B| = 2 √2 sin(θ / 2) for rotations that are θ apart.
    distance = np.sqrt(np.square(expected.matrix - found.matrix).sum(axis=(1, 2)))
    angle_deg = np.degrees(2 * np.arcsin(np.clip(distance / np.sqrt(8), 0, 1)))
    differences = [Difference("orientation", _largest(angle_deg), "°", _ANGLE_DEG)]
    if expected.shift_A is not None:
        far = np.inf if found.shift_A is None else _gap(expected.shift_A, found.shift_A)
        differences.append(Difference("shift", far, "Å", _SHIFT_A + _RELATIVE * _largest(expected.shift_A)))
    return differences


def _compare_ctf(expected: CTF, found: CTF | None) -> list[Difference]:
    if found is None:
        return [Difference("defocus", np.inf, "Å", _DEFOCUS_A)]
    u = _gap(expected.defocus_u_A, found.defocus_u_A)
    v = _gap(expected.defocus_v_A, found.defocus_v_A)
    turn_deg = np.degrees(_gap(expected.defocus_angle_rad, found.defocus_angle_rad))
    differences = [
        Difference("defocus", max(u, v), "Å", _DEFOCUS_A),
        Difference("defocus angle", float(turn_deg), "°", _ANGLE_DEG),
    ]
    if expected.phase_shift_rad is not None and found.phase_shift_rad is not None:
        phase_deg = np.degrees(_gap(expected.phase_shift_rad, found.phase_shift_rad))
        differences.append(Difference("phase shift", float(phase_deg), "°", _ANGLE_DEG))
    for quantity, one, other in (
        ("CTF B-factor", expected.bfactor_A2, found.bfactor_A2),
        ("CTF scale", expected.scale, found.scale),
    ):
        if one is not None and other is not None:
            differences.append(_relative(quantity, one, other))
    return differences


def _is_known(particles: ParticleSet, name: str) -> bool:
    values = particles.per_particle(name)
    return bool(len(values) and not np.isnan(values).any() and values.all())


def _compare_optics(name: str, expected: ParticleSet, found: ParticleSet) -> Difference:
    quantity = name.rpartition("_")[0] if name.rpartition("_")[2] in {"kV", "mm", "A", "px"} else name
    if found.optics is None:
        return Difference(quantity.replace("_", " "), np.inf, "", 0.0)
    return _relative(quantity.replace("_", " "), expected.per_particle(name), found.per_particle(name))


def _relative(quantity: str, expected: Floats, found: Floats) -> Difference:
    """Compare relative to the largest value; the rounding of groups to six digits is allowed for."""
    scale = max(_largest(np.nan_to_num(expected)), 1e-12)
    return Difference(quantity, _gap(expected, found) / scale, "relative", 10 * _RELATIVE)


def _rows(quantity: str, expected: NDArray[Any], found: NDArray[Any] | None) -> Difference:
    if found is None or len(found) != len(expected):
        return Difference(quantity, max(len(expected), 0 if found is None else len(found)), "rows", 0)
    return Difference(quantity, int(np.count_nonzero(expected != found)), "rows", 0)


def _texts(quantity: str, expected: Any, found: Any) -> Difference:
    """Count the rows whose texts differ, comparing each pair of distinct ones once."""
    pair = expected.codes.astype(np.int64) * max(1, len(found.values)) + found.codes
    distinct, count = np.unique(pair, return_counts=True)
    differing = sum(
        int(rows)
        for code, rows in zip(distinct.tolist(), count.tolist(), strict=True)
        if expected.values[code // len(found.values)] != found.values[code % len(found.values)]
    )
    return Difference(quantity, differing, "rows", 0)


def _gap(expected: Floats, found: Floats) -> float:
    """Return the largest difference; values that are not numbers in both are equal."""
    is_neither = np.isnan(expected) & np.isnan(found)
    return _largest(np.where(is_neither, 0.0, expected - found))


def _largest(values: Floats) -> float:
    return float(np.abs(values).max(initial=0.0))
