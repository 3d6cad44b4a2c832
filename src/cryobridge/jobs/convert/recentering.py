"""Particles that are to be extracted again around other centres: their shifts', or those of a part of the map."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.formats.cryosparc.particles_write import make_uids, uids_of_copies
from cryobridge.formats.particle_files import EXPANDED, PARENT_UID
from cryobridge.formats.relion.accepted import PREMULTIPLIED
from cryobridge.formats.relion.particles_write import image_names
from cryobridge.jobs.convert.coordinates import asking_for_micrographs
from cryobridge.jobs.convert.report import Recentring
from cryobridge.jobs.identity.records import ORIGINAL_IMAGE
from cryobridge.model.fields import ALIGNMENT
from cryobridge.model.particles import Labels
from cryobridge.model.recentering import Recentred, distinct_copies, recentred
from cryobridge.model.symmetry import symmetry_rotations
from cryobridge.report import Message, note, part_of, warning

if TYPE_CHECKING:
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.jobs.convert.options import ConvertOptions, Target
    from cryobridge.model.particles import Floats, ImageRefs, ParticleSet

_COPY = f"{EXPANDED}/idx"
OUTSIDE = "centre outside of the micrograph"
# What is said of images, which RELION's Extract carries along to the new ones.
_OF_IMAGES = {PREMULTIPLIED, "rlnCtfDataArePhaseFlipped"}
# Priors of poses and shifts that are others now.
_PRIOR = re.compile(r"rln(Angle(Rot|Tilt|Psi)Prior|AnglePsiFlipRatio|Origin[XYZ]Prior(Angst)?)")
# Pixel sizes that differ by less are the same: what is typed has fewer digits than what a file says.
_SAME_PIXEL_SIZE = 1e-3
# Copies that are nearer than this are hardly different parts of a map.
_NEAR_PX = 2.0


@dataclass(frozen=True)
class RecentredSet:
    """Particles with other centres, and what is said of them.

    Parameters
    ----------
    found
        The particles, and what each of them was before.
    micrograph_pixel_size_A
        (m,) Å a pixel of the micrograph of each.
    center_A
        (3,) the place in the map.
    rotations
        (k, 3, 3) of the copies.
    figures
        For the report.
    left_out
        How many are not written, by reason.
    messages
        Notes and warnings.
    """

    found: Recentred
    micrograph_pixel_size_A: Floats
    center_A: Floats
    rotations: Floats
    figures: Recentring
    left_out: dict[str, int]
    messages: tuple[Message, ...]


def without_images(particles: ParticleSet) -> tuple[ParticleSet, tuple[str, ...]]:
    """Return particles that name no images, and the names of the columns that were said of these.

    RELION's Extract and cryoSPARC's need none. What would be wrong for the new images is left out: other alignments
    than the one that is taken, priors, and whether the images are multiplied by their CTF.
    """
    extra = particles.extra
    if extra is None:
        return replace(particles, images=None), ()
    own = () if particles.poses is None else particles.poses.source.split(", ")
    stale = tuple(name for name in (*extra.names, *extra.optics) if _is_stale(name, own))
    names = tuple(name for name in extra.names if name not in stale)
    optics = {name: values for name, values in extra.optics.items() if name not in stale}
    return replace(particles, images=None, extra=replace(extra, names=names, optics=optics)), stale


def _is_stale(name: str, alignments: tuple[str, ...] | list[str]) -> bool:
    group = name.partition("/")[0] if "/" in name else ""
    if group == "blob":
        return True
    if re.fullmatch(ALIGNMENT, group):
        return group not in alignments
    return name in _OF_IMAGES or _PRIOR.fullmatch(name) is not None


def recentre(
    particles: ParticleSet, images: ImageRefs | None, target: Target, options: ConvertOptions, search: ImageSearch
) -> RecentredSet:
    """Give particles the centres that are asked for.

    Parameters
    ----------
    particles
        On the micrographs that they are to be extracted from.
    images
        Their images, which tell later on what each row was made from.
    target
        What is written.
    options
        Where the centres are, and the symmetry of the map.
    search
        Where micrographs are looked for, whose headers say what no file does.

    Raises
    ------
    MissingDataError
        If there are no coordinates, poses or shifts, or the pixel size of micrographs is unknown; or if no particle is
        left.
    UsageError
        If a place in a map is asked for and the alignments are two-dimensional, or the pixel size contradicts a file.
    """
    _require(particles, target, options, search)
    center_A = np.zeros(3) if options.center_A is None else np.array(options.center_A, np.float64)
    rotations, nearest_A = distinct_copies(center_A, symmetry_rotations(options.symmetry or "C1"))
    micrographs = _Micrographs(particles, search)
    pixel_size_A, messages = micrographs.pixel_size_A(options.micrograph_pixel_size_A)
    found = recentred(particles, pixel_size_A, center_A, rotations)
    found, left_out = _inside(found, micrographs.shape_px())
    found = replace(found, particles=_with_sources(found, particles, images, target, has_copies=len(rotations) > 1))
    figures = _figures(found, len(rotations), nearest_A, len(particles))
    messages += _about(figures, found, options, particles)
    return RecentredSet(found, pixel_size_A[found.parent], center_A, rotations, figures, left_out, tuple(messages))


def _require(particles: ParticleSet, target: Target, options: ConvertOptions, search: ImageSearch) -> None:
    asked = "recenter" if options.center_A is None else "center_A"
    poses, locations = particles.poses, particles.locations
    hint = "Give the file that has them as another input, such as the passthrough file, or the job's last iteration."
    if locations is None:
        raise MissingDataError("no coordinates of the particles in it", path=particles.source, option=asked, hint=hint)
    if poses is None or poses.shift_A is None:
        what = "poses" if poses is None else "shifts"
        raise MissingDataError(f"no {what} of the particles in it", path=particles.source, option=asked, hint=hint)
    if options.center_A is not None and poses.is_2d:
        raise UsageError(
            f"the poses are those of 2D classes ({poses.source}), which lead to no place in a map",
            path=particles.source,
            option=asked,
            hint=f"Give particles of a 3D refinement, or {option('recenter', True)} for their own centres.",
        )
    if target == "cs" and locations.shape_px is None:
        raise MissingDataError(
            "the size of the micrographs is missing, of which cryoSPARC's coordinates are fractions",
            path=particles.source,
            option="micrograph_shape_px",
            hint=f"Give {option('micrograph_shape_px', 'NY,NX')}, or {asking_for_micrographs(particles, search)}.",
        )


class _Micrographs:
    """What is known of the micrographs of particles; their headers are read where a file says too little."""

    def __init__(self, particles: ParticleSet, search: ImageSearch) -> None:
        assert particles.locations is not None  # asked before
        self._particles, self._locations = particles, particles.locations
        self._search = search.among(self._locations.micrograph.values)
        self._headers: dict[int, MrcHeader | None] = {}

    def pixel_size_A(self, given: float | None) -> tuple[Floats, list[Message]]:
        """Return Å a pixel, (n,): what a file says, what is given, or what the headers say; and where it is from."""
        particles, optics = self._particles, self._particles.optics
        known: Floats = np.full(len(particles), np.nan)
        if optics is not None and optics.micrograph_pixel_size_A is not None:
            known = particles.per_particle("micrograph_pixel_size_A").copy()
        known[~(known > 0)] = np.nan
        if given is not None:
            _refuse_contradiction(known, given, particles)
            return np.where(np.isnan(known), given, known), []
        absent = np.flatnonzero(np.isnan(known))
        if not len(absent):
            return known, []
        codes = self._locations.micrograph.codes
        of_headers = np.full(len(self._locations.micrograph.values), np.nan)
        for code in np.unique(codes[absent]).tolist():
            header = self._header(code)
            if header is None or header.pixel_size_A is None:
                name = self._locations.micrograph.values[code]
                elsewhere = asking_for_micrographs(particles, self._search)
                raise MissingDataError(
                    f"the pixel size of the micrographs is missing, such as that of {name}",
                    path=particles.source,
                    option="micrograph_pixel_size_A",
                    hint=f"Give {option('micrograph_pixel_size_A', 'Å')}, or {elsewhere}.",
                )
            of_headers[code] = header.pixel_size_A
        known[absent] = of_headers[codes[absent]]
        said = ", ".join(f"{value:.6g} Å" for value in np.unique(known[absent].round(6))[:3])
        text = f"the pixel size of the micrographs is that of their headers: {said}"
        return known, [note("micrograph-pixel-size", text)]

    def shape_px(self) -> NDArray[np.int64] | None:
        """Return ny, nx of each, (n, 2); None where that of some is not at hand."""
        if self._locations.shape_px is not None:
            return self._locations.shape_px
        shapes = np.zeros((len(self._locations.micrograph.values), 2), np.int64)
        for code in np.unique(self._locations.micrograph.codes).tolist():
            header = self._header(code)
            if header is None:
                return None
            shapes[code] = header.ny, header.nx
        found: NDArray[np.int64] = shapes[self._locations.micrograph.codes]
        return found

    def _header(self, code: int) -> MrcHeader | None:
        if code not in self._headers:
            self._headers[code] = self._search.header(self._locations.micrograph.values[code])
        return self._headers[code]


def _refuse_contradiction(known: Floats, given: float, particles: ParticleSet) -> None:
    differs = np.abs(known - given) > _SAME_PIXEL_SIZE * known  # not where it is unknown
    if differs.any():
        raise UsageError(
            f"{option('micrograph_pixel_size_A', f'{given:g}')} contradicts the file, which has {known[differs][0]:g}",
            path=particles.source,
            hint=f"Leave out {option('micrograph_pixel_size_A')}: it is for files that lack it.",
        )


def _inside(found: Recentred, shape_px: NDArray[np.int64] | None) -> tuple[Recentred, dict[str, int]]:
    """Leave out centres that are on no micrograph: RELION's Extract stops at a box that lies outside."""
    locations = found.particles.locations
    assert locations is not None  # they have coordinates
    if shape_px is None:
        return found, {}
    size_xy = shape_px[found.parent][:, ::-1]
    place_px = locations.coordinate_px
    # What is not a number stays, to be refused with its row.
    is_outside = ((place_px < 0) | (place_px >= size_xy)).any(axis=1) & np.isfinite(place_px).all(axis=1)
    n_outside = int(is_outside.sum())
    if not n_outside:
        return found, {}
    kept = np.flatnonzero(~is_outside)
    if not len(kept):
        raise MissingDataError(
            "all of the new centres lie outside of the micrographs",
            path=found.particles.source,
            option="center_A",
            hint="Give the place in Å from the centre of the map, with x first.",
        )
    inside = Recentred(found.particles.take(kept), found.parent[kept], found.copy[kept], found.moved_px[kept])
    return inside, {OUTSIDE: n_outside}


def _with_sources(
    found: Recentred, before: ParticleSet, images: ImageRefs | None, target: Target, *, has_copies: bool
) -> ParticleSet:
    """Return the particles with a record of what each is made from, by which they are found again.

    That is the uid, which cryoSPARC's particles keep where they have no copies, or the image: RELION's Extract carries
    the column for its name along.
    """
    particles, columns = found.particles, dict(found.particles.columns)
    if images is not None and (target == "star" or before.uid is None):
        path = images.path.renamed([name.removeprefix(">") for name in images.path.values])
        names = image_names(replace(images, path=path)).take(found.parent)
        columns[ORIGINAL_IMAGE] = Labels.of(names.to_pylist()) if target == "cs" else names.to_numpy()
    uid = before.uid if before.uid is not None else None if images is None else make_uids(images)
    if target == "cs" and uid is not None:
        uid = uid[found.parent]
        if has_copies:
            columns |= {PARENT_UID: uid, _COPY: found.copy.astype(np.uint32)}
            uid = uids_of_copies(uid, found.copy)
    return replace(particles, columns=columns, uid=uid if target == "cs" else particles.uid)


def _figures(found: Recentred, n_copies: int, nearest_A: float, n_before: int) -> Recentring:
    moved_px = np.hypot(*found.moved_px.T)
    return Recentring(
        moved=int(np.count_nonzero(moved_px)),
        median_px=float(np.median(moved_px)),
        largest_px=float(moved_px.max()),
        copies=n_copies,
        nearest_copies_A=nearest_A if np.isfinite(nearest_A) else None,
        rows_added=n_before * (n_copies - 1),
    )


def _about(figures: Recentring, found: Recentred, options: ConvertOptions, before: ParticleSet) -> list[Message]:
    n = len(found.particles)
    messages = [
        note(
            "recentred",
            f"{part_of(figures.moved, n, 'centre')} moved, by {figures.median_px:.4g} px of the micrographs in the "
            f"median and {figures.largest_px:.4g} px at most; fractions of a pixel stay in the shifts",
        ),
        note(
            "extract-again",
            "no images are named, as those of the input have other centres: extract the particles again with this file",
        ),
    ]
    if options.symmetry is None:
        return messages
    n_all = len(symmetry_rotations(options.symmetry))
    if figures.copies < n_all:
        text = f"the place lies on an axis of {options.symmetry}: {n_all} copies are at {figures.copies} places"
        messages.append(note("copies-at-one-place", f"{text}, and each is written once"))
    pixel_size_A = None if before.optics is None else float(np.nanmedian(before.optics.pixel_size_A))
    nearest_A = figures.nearest_copies_A
    if nearest_A is not None and pixel_size_A is not None and nearest_A < _NEAR_PX * pixel_size_A:
        text = f"copies are {nearest_A:.3g} Å apart, less than two pixels: if they are one, give a place on the axis"
        messages.append(warning("copies-near-each-other", text, option="center_A"))
    return messages
