"""Reading an output back and comparing it with the input, quantity by quantity, in the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.aberrations import ROWS, chosen, with_sign
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.dropped import is_known
from cryobridge.formats.helical import tube_codes
from cryobridge.formats.open import open_particles
from cryobridge.formats.optics import first_rows, group_optics
from cryobridge.formats.particles_pickle import CTF_TABLE, INDICES, POSES, PickleContent, from_table, part_of
from cryobridge.formats.pickles import read_ctf, read_indices, read_poses
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.formats.relion.star_check import compare_with_starfile
from cryobridge.jobs.convert.report import Difference
from cryobridge.jobs.micrographs.placement import place
from cryobridge.jobs.shared_options import OrientationOptions
from cryobridge.model.contrast_transfer import Lens
from cryobridge.model.convention import AS_STORED
from cryobridge.model.fields import FIELDS, QUANTITIES, Field
from cryobridge.model.geometry import box_fraction_to_shift_A
from cryobridge.model.particles import CTF, Aberrations, Labels, ParticleSet, Poses

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from cryobridge.jobs.convert.onto import OntoPlan
    from cryobridge.jobs.convert.plan import ConvertPlan
    from cryobridge.jobs.convert.recentering import RecentredSet
    from cryobridge.model.particles import Floats, Locations

# Twice what rounding to float32 or to RELION's six digits makes of usual values.
_ANGLE_DEG = 1e-4
_SHIFT_A = 1e-3
_PIXELS = 1e-2
_RELATIVE = 1e-6
_PHASE_RAD = 1e-3


def read_back(plan: ConvertPlan) -> ParticleSet:
    """Read the output of a plan that was written."""
    if isinstance(plan.content, PickleContent):
        return _pickled(plan.output, plan.content, _source(plan))
    return read_particles_cs(plan.output) if plan.target == "cs" else read_particles_star(plan.output)


def verify(plan: ConvertPlan, found: ParticleSet | None = None) -> list[Difference]:
    """Compare the output of a plan with the input.

    Parameters
    ----------
    plan
        A plan that was written.
    found
        What the output holds; it is read if not given.

    Returns
    -------
    list of Difference
        One for each quantity that the output has a place for.
    """
    source, held = _source(plan), plan.content.held
    expected = before = source
    if not plan.content.keeps_aberrations:
        expected, _ = chosen(source, aberrations=plan.options.has_aberrations, odd="as-derived")
    if plan.recentred is not None:
        before, expected = expected, _turned(expected, plan.recentred)
    found = read_back(plan) if found is None else found
    if isinstance(plan.content, PickleContent):
        differences = compare(expected, found, held) + _compare_phases(plan, source, found)
        if plan.content.indices is not None:
            differences.append(_rows("chosen rows", plan.content.indices, read_indices(plan.output / INDICES)))
        return differences
    is_cs = plan.target == "cs"
    differences = compare(expected, found, held) + _compare_phases(plan, source, found)
    if is_cs and plan.particles.uid is not None:
        differences.append(_rows("uid", plan.particles.uid, found.uid))
    if plan.particles.locations is not None and found.locations is not None:
        differences.append(_texts("micrographs", plan.particles.locations.micrograph, found.locations.micrograph))
        if plan.recentred is None:
            far, row = _gap(_places(plan), found.locations.coordinate_px)
            differences.append(Difference("coordinates", far, "px", _PIXELS, row))
            differences += _compare_pixels(plan, found.locations)
        else:
            far, row = _compare_centers(plan, plan.recentred, before, found)
            differences.append(Difference("centres", far, "px", _PIXELS, row))
    if plan.particles.images is not None:
        assert found.images is not None  # the output has them too
        differences.append(_texts("stacks", plan.particles.images.path, found.images.path))
        differences.append(_rows("slices", plan.particles.images.index, found.images.index))
    if not is_cs:
        differences.append(_as_starfile_reads(plan.output, len(expected)))
    return differences


def verify_onto(plan: OntoPlan) -> list[Difference]:
    """Read rows of a file that were given something back, and compare what was taken.

    Parameters
    ----------
    plan
        A plan that was written.
    """
    found, is_star = open_particles(plan.output), plan.base.star is not None
    rows = np.flatnonzero(plan.matched)
    if len(found) != len(plan.rows):
        return [Difference("particles", abs(len(plan.rows) - len(found)), "rows", 0)]
    expected, read = plan.particles, found.particles.take(rows)
    if plan.source.program != plan.base.program:
        expected, _ = chosen(expected, aberrations=True, odd="as-derived")
    held = {name for name in plan.columns.held if not name.startswith("optics.")}
    differences = compare(expected, read, held)
    assert plan.base.particles.images is not None and read.images is not None  # content was made of them
    images = plan.base.particles.images.index[plan.rows][rows]
    differences.append(_rows("slices", images, read.images.index))
    return differences + ([_as_starfile_reads(plan.output, len(found))] if is_star else [])


def _as_starfile_reads(output: Path, n_rows: int) -> Difference:
    check = compare_with_starfile(output)
    n_wrong = check.n_differing if n_rows in check.rows.values() else n_rows
    return Difference("rows in starfile", float(n_wrong), "rows", 0.0)


def compare(expected: ParticleSet, found: ParticleSet, held: Collection[str]) -> list[Difference]:
    """Compare two sets of the same particles in the same order.

    Parameters
    ----------
    expected, found
        What was written, and what was read back.
    held
        Names of the quantities that the output holds (see `cryobridge.model.fields`); of these, what is known of the
        input is compared.
    """
    if len(expected) != len(found):
        return [Difference("particles", abs(len(expected) - len(found)), "rows", 0)]
    differences = [Difference("particles", 0, "rows", 0)]
    if expected.poses is not None and "poses.matrix" in held:
        differences += _compare_poses(expected.poses, found.poses)
    for item in FIELDS:
        if (not item.is_coded or item.name == "latent") and item.name in held and is_known(expected, item):
            differences.append(_compare(item, expected, found))
    return _largest_of_each(differences)


def _largest_of_each(differences: list[Difference]) -> list[Difference]:
    """Return one difference for each quantity, such as the two defoci."""
    by_quantity: dict[str, Difference] = {}
    for item in differences:
        other = by_quantity.get(item.quantity)
        # NaN is larger than all.
        if other is None or not item.largest <= other.largest:
            by_quantity[item.quantity] = item
    return list(by_quantity.values())


def _compare(item: Field, expected: ParticleSet, found: ParticleSet) -> Difference:
    one = _of_particles(expected, item)
    other = _of_particles(found, item) if is_known(found, item) else None
    if isinstance(one, Labels):
        return Difference(item.title, len(one), "rows", 0) if other is None else _texts(item.title, one, other)
    if item.kind != "float":
        return _rows(item.title, one, other)
    unit = QUANTITIES[item.quantity].unit
    scale, unit = (np.degrees(1.0), "°") if unit == "rad" else (1.0, unit)
    if item.tolerance is None:
        # The rounding of groups to six digits is allowed for.
        finite = np.where(np.isfinite(one), one, 0.0)  # beside an infinity all differences would be small
        scale, unit = 1 / max(_largest(finite)[0], 1e-12), "relative"
    far, row = (np.inf, None) if other is None else _gap(one, other)
    tolerance = 10 * _RELATIVE if item.tolerance is None else scale * item.tolerance
    return Difference(item.title, float(scale * far), unit, tolerance, row)


def _of_particles(particles: ParticleSet, item: Field) -> Any:
    """Return a quantity of each particle."""
    if item.name == "helix.tube":
        assert particles.helix is not None  # known
        micrograph = None if particles.locations is None else particles.locations.micrograph.codes
        return _first_of_each(micrograph, particles.helix.tube)
    return particles.per_particle(item.key) if item.is_of_optics else particles.get(item.name)


def _first_of_each(micrograph: NDArray[np.int32] | None, tube: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row the first of the same filament: filaments may be numbered otherwise."""
    code = tube_codes(np.zeros(len(tube), np.int32) if micrograph is None else micrograph, tube)
    first: NDArray[np.int64] = first_rows(code.astype(np.int32))[code]
    return first


def _compare_phases(plan: ConvertPlan, source: ParticleSet, found: ParticleSet) -> list[Difference]:
    """Compare the phases of the CTF and the aberrations, at the edge of the transforms, whatever columns they are in.

    That is left out where there are no aberrations: then it follows from the values.
    """
    optics, index = source.optics, source.optics_index
    if optics is None or index is None or optics.aberrations is None or source.ctf is None or found.ctf is None:
        return []
    if len(source) != len(found) or found.optics is None:
        return []
    held, none = plan.content.held, Aberrations.none(len(optics))
    lost = [item.key for item in ROWS if item.name not in held]
    bent = replace(optics.aberrations, **{key: getattr(none, key) for key in lost})
    if not plan.content.keeps_aberrations:
        bent = with_sign(bent, plan.options.odd_aberrations or "as-derived")
    source = replace(source, optics=replace(optics, aberrations=bent))
    pixel_size_A = source.per_particle("pixel_size_A")
    pairs = zip(_phases(source, pixel_size_A), _phases(found, pixel_size_A), strict=True)
    far, row = max((_largest(np.angle(np.exp(1j * (one - other)))) for one, other in pairs), key=lambda found: found[0])
    return [Difference("phase with aberrations", far, "rad", _PHASE_RAD, row)]


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def _phases(particles: ParticleSet, pixel_size_A: Floats) -> tuple[Floats, Floats]:
    """Return the even and odd phases, (n, 4) each, at Nyquist, without amplitude contrast and shift."""
    optics, index, ctf = particles.optics, particles.optics_index, particles.ctf
    assert optics is not None and index is not None and ctf is not None  # the caller's
    bent = None if optics.aberrations is None else optics.aberrations.take(index)
    microscope = optics.voltage_kV[index], optics.spherical_aberration_mm[index], np.zeros(len(index))
    lens = Lens.of(replace(ctf, shift_A=None), *microscope, bent)
    angle = np.radians([0.0, 35.0, 70.0, 125.0])
    even, odd = lens.in_pixels(pixel_size_A).phases(0.5 * np.cos(angle), 0.5 * np.sin(angle))
    return even, odd


def _source(plan: ConvertPlan) -> ParticleSet:
    """Return the input's rows, with the optics, classes and half sets that were planned."""
    source, is_all = plan.source.particles, isinstance(plan.content, PickleContent)
    rows = np.arange(len(source)) if is_all else plan.rows
    particles = source if len(rows) == len(source) else source.take(rows)
    planned = plan.particles
    if plan.mapped is not None and plan.mapped.is_mirrored:
        particles = particles.mirrored_y()
    particles = replace(particles, optics=planned.optics, optics_index=planned.optics_index)
    return particles if is_all else replace(particles, half_set=planned.half_set, class_number=planned.class_number)


def _places(plan: ConvertPlan) -> Floats:
    """Return where the particles are to be, (n, 2): counted from the edges, without the formulas that placed them."""
    assert plan.source.particles.locations is not None  # the planned ones are made of them
    place_px = plan.source.particles.locations.coordinate_px[plan.rows]
    if plan.mapped is None:
        return place_px
    positions, convention = plan.mapped.positions, plan.convention
    of_micrographs = positions.shape_px
    if plan.recentred is not None:
        of_micrographs = of_micrographs[plan.recentred.found.parent]
    x, y = (place_px / of_micrographs[:, ::-1]).T
    assert plan.particles.locations is not None and plan.particles.locations.shape_px is not None  # of mapped ones
    first, second = plan.particles.locations.shape_px.T
    ny, nx = (second, first) if convention.swap_xy else (first, second)
    last = 1 if convention.is_exact else 0
    x = nx - last - x * nx if convention.mirror_x else x * nx
    y = ny - last - y * ny if convention.mirror_y else y * ny
    return np.column_stack([y, x] if convention.swap_xy else [x, y])


def _turned(before: ParticleSet, recentred: RecentredSet) -> ParticleSet:
    """Return particles with the poses of their copies; shifts are compared with the coordinates, as centres."""
    assert before.poses is not None  # they lead to the new centres
    matrix = np.einsum("nij,njk->nik", before.poses.matrix, recentred.rotations[recentred.found.copy])
    return replace(before, poses=replace(before.poses, matrix=matrix, shift_A=None))


def _compare_centers(
    plan: ConvertPlan, recentred: RecentredSet, before: ParticleSet, found: ParticleSet
) -> tuple[float, int | None]:
    """Return how far centres are from where the input's poses lead to, in pixels of the micrographs, and in which row.

    Parameters
    ----------
    plan, recentred
        What was planned.
    before
        Poses and shifts of the input.
    found
        What was read back.
    """
    if found.poses is None or found.poses.shift_A is None or found.locations is None:
        return np.inf, None
    assert before.poses is not None and before.poses.shift_A is not None  # asked before
    places_A = recentred.rotations[recentred.found.copy] @ recentred.center_A
    in_view_A = np.einsum("nij,nj->ni", before.poses.matrix, places_A)[:, :2]
    pixel_size_A = recentred.micrograph_pixel_size_A[:, np.newaxis]
    expected = _places(plan) + (in_view_A - before.poses.shift_A) / pixel_size_A
    return _gap(expected, found.locations.coordinate_px - found.poses.shift_A / pixel_size_A)


def _compare_pixels(plan: ConvertPlan, found: Locations) -> list[Difference]:
    """Look whether the particles are in the micrographs where the output says, if the input's could be seen there."""
    if plan.mapped is None or plan.particles.locations is None or plan.particles.locations.shape_px is None:
        return []
    seen, convention = plan.mapped.placement.check, plan.convention
    if seen is None or not seen.is_sure:
        return []
    shape_px = plan.particles.locations.shape_px
    shape_px = shape_px[:, ::-1] if convention.swap_xy else shape_px
    places = replace(plan.mapped.positions, fraction_xy=convention.to_fractions(found.coordinate_px, shape_px))
    check = place(places, OrientationOptions(), default=AS_STORED).check
    is_there = check is not None and check.is_sure and check.best == seen.best
    return [Difference("places in pixels", 0 if is_there else len(found.coordinate_px), "rows", 0)]


def _pickled(folder: Path, content: PickleContent, expected: ParticleSet) -> ParticleSet:
    """Read pickles back into the model; box and pixel size come from ctf.pkl where there is one."""
    poses: Poses | None = None
    particles = ParticleSet(len(expected), folder)
    if content.ctf is not None:
        values = from_table(read_ctf(folder / CTF_TABLE).values)
        optics, index = group_optics(len(expected), **part_of(values, "optics"))
        particles = replace(particles, optics=optics, optics_index=index, ctf=CTF(**part_of(values, "ctf")))
    if content.rotations is not None:
        found = read_poses(folder / POSES)
        sizes = particles if particles.optics is not None else expected
        shift_A = None
        if found.shifts_box is not None and sizes.optics is not None:
            box_px = sizes.per_particle("box_px")
            shift_A = box_fraction_to_shift_A(found.shifts_box, sizes.per_particle("pixel_size_A"), box_px)
        poses = Poses(found.rotations, shift_A, POSES)
    n_rows = len(expected) if poses is None else len(poses.matrix)
    return replace(particles, poses=poses, n_rows=n_rows)


def _compare_poses(expected: Poses, found: Poses | None) -> list[Difference]:
    if found is None:
        return [Difference("rotation", np.inf, "°", _ANGLE_DEG)]
    # |A - B| = 2 √2 sin(θ / 2) for rotations that are θ apart.
    distance = np.sqrt(np.square(expected.matrix - found.matrix).sum(axis=(1, 2)))
    angle_deg = np.degrees(2 * np.arcsin(np.clip(distance / np.sqrt(8), 0, 1)))
    far, row = _largest(angle_deg)
    differences = [Difference("rotation", far, "°", _ANGLE_DEG, row)]
    if expected.shift_A is not None:
        far, row = (np.inf, None) if found.shift_A is None else _gap(expected.shift_A, found.shift_A)
        differences.append(Difference("shift", far, "Å", _SHIFT_A + _RELATIVE * _largest(expected.shift_A)[0], row))
    return differences


def _rows(quantity: str, expected: NDArray[Any], found: NDArray[Any] | None) -> Difference:
    if found is None or len(found) != len(expected):
        return Difference(quantity, max(len(expected), 0 if found is None else len(found)), "rows", 0)
    rows = np.flatnonzero(expected != found)
    return Difference(quantity, len(rows), "rows", 0, int(rows[0]) if len(rows) else None)


def _texts(quantity: str, expected: Any, found: Any) -> Difference:
    """Count the rows whose texts differ, comparing each pair of distinct ones once."""
    pair = expected.codes.astype(np.int64) * max(1, len(found.values)) + found.codes
    distinct, first, count = np.unique(pair, return_index=True, return_counts=True)
    differing = [
        (row, n_rows)
        for code, row, n_rows in zip(distinct.tolist(), first.tolist(), count.tolist(), strict=True)
        if expected.values[code // len(found.values)] != found.values[code % len(found.values)]
    ]
    n_differing, row = sum(n_rows for _, n_rows in differing), min((row for row, _ in differing), default=None)
    return Difference(quantity, n_differing, "rows", 0, row)


def _gap(expected: Floats, found: Floats) -> tuple[float, int | None]:
    """Return the largest difference and its row; values that are not numbers, or infinite alike, in both are equal."""
    if expected.shape != found.shape:
        return np.inf, None
    is_alike = (np.isnan(expected) & np.isnan(found)) | (expected == found)
    with np.errstate(invalid="ignore"):
        return _largest(np.where(is_alike, 0.0, expected - found))


def _largest(values: Floats) -> tuple[float, int | None]:
    """Return the largest of these values, of which NaN is larger than all, and its row; None where all are 0."""
    if not values.size:
        return 0.0, None
    each = np.abs(values).reshape(len(values), -1).max(axis=1)
    row = int(np.argmax(each))
    return float(each[row]), None if each[row] == 0 else row
