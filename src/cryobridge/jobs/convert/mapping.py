"""From cryoSPARC's micrographs to RELION's: names, optics groups, coordinates, and what is mirrored with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, UsageError, option
from cryobridge.formats.optics import distinct_rows, first_rows
from cryobridge.jobs.convert.names import as_seen_from
from cryobridge.jobs.micrographs.matching import match_micrographs, unmatched_error
from cryobridge.jobs.micrographs.placement import Placement, Positions, place
from cryobridge.jobs.micrographs.sizes import MicrographFiles, compare_sizes
from cryobridge.jobs.micrographs.star import (
    RelionMicrographs,
    newest_micrographs,
    project_of,
    read_micrographs,
)
from cryobridge.model.convention import AS_STORED, Convention
from cryobridge.model.particles import Labels
from cryobridge.report import warning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.convert.options import ConvertOptions
    from cryobridge.model.particles import Floats, Locations, Optics, ParticleSet
    from cryobridge.report import Message

_REVERSED = Convention(mirror_y=True)
# Pixel sizes that differ by less are the same: calibrations do by some 1 %.
_SAME_PIXEL_SIZE = 0.02


@dataclass(frozen=True)
class MicrographMap:
    """Which of RELION's micrographs each of cryoSPARC's is.

    Parameters
    ----------
    star
        The STAR file of RELION's.
    micrographs
        Its content.
    names
        cryoSPARC's names.
    place
        (m,) of each, its place among RELION's; -1 for one that the STAR file lacks.
    """

    star: Path
    micrographs: RelionMicrographs
    names: tuple[str, ...]
    place: NDArray[np.int64]

    @property
    def relion_names(self) -> tuple[str | None, ...]:
        """RELION's names, one for each of cryoSPARC's; None for those that the STAR file lacks."""
        return tuple(None if place < 0 else self.micrographs.names[place] for place in self.place.tolist())


@dataclass(frozen=True)
class Mapped:
    """Particles on RELION's micrographs.

    Parameters
    ----------
    particles
        With RELION's names, groups, sizes and coordinates, and mirrored where they are to be extracted again.
    placement
        Which way RELION's micrographs lie.
    convention
        How cryoSPARC's fractions became coordinates.
    positions
        What was looked at.
    is_mirrored
        Whether orientations, shifts, CTF and aberrations are those of images whose rows are reversed.
    messages
        Notes and warnings.
    """

    particles: ParticleSet
    placement: Placement
    convention: Convention
    positions: Positions
    is_mirrored: bool
    messages: tuple[Message, ...]


def map_micrographs(locations: Locations, star: Path, *, skip_unmatched: bool) -> MicrographMap:
    """Match the micrographs of particles with those of a STAR file.

    Raises
    ------
    MissingDataError
        If the file lists none, or lacks one and that may not be skipped.
    CryobridgeError
        If a name fits several.
    """
    micrographs = read_micrographs(star)
    names = locations.micrograph.without_unused().values
    match = match_micrographs(names, micrographs.names)
    if match.unmatched and (not skip_unmatched or not match.relion_name):
        raise unmatched_error(match, micrographs.names)
    place_of = {name: place for place, name in enumerate(micrographs.names)}
    of_all = {name: place_of[found] for name, found in match.relion_name.items()}
    values = locations.micrograph.values
    return MicrographMap(star, micrographs, values, np.array([of_all.get(name, -1) for name in values], np.int64))


def onto_micrographs(
    particles: ParticleSet, found: MicrographMap, options: ConvertOptions, search: ImageSearch, output: Path
) -> Mapped:
    """Move particles from cryoSPARC's micrographs onto RELION's.

    Parameters
    ----------
    particles
        Of cryoSPARC's files, all of them on micrographs that are matched.
    found
        Which those are.
    options
        The orientation, and whether the particles are to be extracted again.
    search
        Where the images of the particles are looked for.
    output
        What is written; the RELION project is looked for above it, then above the STAR file of micrographs.

    Raises
    ------
    UsageError
        If the particles are to be extracted again from micrographs that are turned otherwise than by reversed rows.
    CryobridgeError
        If RELION's micrographs are of another shape than cryoSPARC's.
    """
    locations = particles.locations
    assert locations is not None and locations.shape_px is not None  # cryoSPARC's have them
    positions = _positions(particles, locations, found, search, output)
    placement = place(positions, options, default=AS_STORED)
    convention = placement.convention
    if options.reextract and convention not in {AS_STORED, _REVERSED}:
        raise UsageError(
            f"{option('reextract')} mirrors poses for reversed rows alone, not for {convention.formula}",
            option="reextract",
            hint="Leave it out, extract the particles again and find their poses anew.",
        )
    # The formula of reliosparc, and so of the flips, is one pixel more than the exact reversal.
    if options.reextract or placement.source == "pixels":
        convention = replace(convention, is_exact=True)
    sizes = compare_sizes(
        positions.names,
        positions.codes,
        positions.shape_px,
        positions.kept,
        positions.files,
        swap_xy=convention.swap_xy,
    )
    if sizes.error is not None:
        raise sizes.error
    messages = [message for message in (placement.message, sizes.message) if message is not None]
    shape_px, pixel_size_A = sizes.shape_px, found.micrographs.pixel_size_A[found.place[positions.codes]]
    if sizes.message is not None and sizes.message.code == "micrograph-sizes-not-compared":
        shape_px, messages = _scaled(positions, pixel_size_A, messages)
    optics, index, of_groups = _optics(particles, found, positions, shape_px)
    moved = replace(
        locations,
        micrograph=Labels(found.place[locations.micrograph.codes].astype(np.int32), found.micrographs.names),
        coordinate_px=convention.to_px(positions.fraction_xy, shape_px),
        shape_px=np.ascontiguousarray(shape_px[:, ::-1]) if convention.swap_xy else shape_px,
        image_frame_px=locations.coordinate_px,
    )
    particles = replace(particles, locations=moved, optics=optics, optics_index=index)
    messages += [*of_groups, *_about_poses(particles, convention, is_mirrored=options.reextract)]
    is_mirrored = options.reextract and convention.mirror_y
    if is_mirrored:
        particles = particles.mirrored_y()
        particles = replace(particles, locations=replace(moved, image_frame_px=None))
    return Mapped(particles, placement, convention, positions, is_mirrored, tuple(messages))


def _positions(
    particles: ParticleSet, locations: Locations, found: MicrographMap, search: ImageSearch, output: Path
) -> Positions:
    assert locations.shape_px is not None
    n, optics = len(particles), particles.optics
    has_size = optics is not None and optics.micrograph_pixel_size_A is not None
    project = project_of(output.parent) or project_of(found.star.parent)
    return Positions(
        names=found.relion_names,
        codes=locations.micrograph.codes,
        fraction_xy=locations.coordinate_px / locations.shape_px[:, ::-1],
        shape_px=locations.shape_px,
        kept=np.ones(n, bool),
        files=MicrographFiles(found.star, project),
        micrograph_pixel_size_A=particles.per_particle("micrograph_pixel_size_A") if has_size else None,
        images=particles.images,
        image_pixel_size_A=None if optics is None else particles.per_particle("pixel_size_A"),
        search=search,
    )


def _scaled(
    positions: Positions, pixel_size_A: Floats, messages: list[Message]
) -> tuple[NDArray[np.int64], list[Message]]:
    """Return ny, nx of RELION's micrographs that are not on this disk, by the pixel sizes of both programs."""
    own = positions.micrograph_pixel_size_A
    ratio = np.ones(len(pixel_size_A)) if own is None else own / pixel_size_A
    is_other = np.isfinite(ratio) & (np.abs(ratio - 1) > _SAME_PIXEL_SIZE)
    if not is_other.any():
        return positions.shape_px, messages
    scaled = np.where(is_other[:, np.newaxis], np.rint(positions.shape_px * ratio[:, np.newaxis]), positions.shape_px)
    row = int(np.flatnonzero(is_other)[0])
    assert own is not None
    text = (
        f"RELION's micrographs have {pixel_size_A[row]:g} Å a pixel, cryoSPARC's {own[row]:g}: coordinates are scaled "
        "to that, as the micrographs themselves are not on this disk"
    )
    others = [message for message in messages if message.code != "micrograph-sizes-not-compared"]
    return scaled.astype(np.int64), [*others, warning("micrograph-sizes-by-pixel-size", text)]


def _optics(
    particles: ParticleSet, found: MicrographMap, positions: Positions, shape_px: NDArray[np.int64]
) -> tuple[Optics | None, NDArray[np.int32] | None, list[Message]]:
    """Return the optics under RELION's names: its groups in order, each once for each set of values in it."""
    optics, index = particles.optics, particles.optics_index
    if optics is None or index is None:
        return optics, index, []
    relion, place = found.micrographs, found.place[positions.codes]
    group = relion.group[place]
    values = [getattr(optics, name) for name in _VALUES]
    if not relion.group_names:  # RELION 3.0
        values.append(optics.group_id)
    if optics.aberrations is not None:
        bent = optics.aberrations
        parts = (bent.beam_tilt_A, bent.trefoil_A, bent.tetrafoil_A, bent.magnification, bent.lower_even)
        values += [part for array in parts for part in array.reshape(len(optics), -1).T]
    pixel_size_A = relion.pixel_size_A[place]
    own = positions.micrograph_pixel_size_A
    if own is not None:
        by_size = own * positions.shape_px[:, 1] / shape_px[:, 1]
        pixel_size_A = np.where(np.isnan(pixel_size_A), by_size, pixel_size_A)
    new = distinct_rows([group, distinct_rows(values)[index], pixel_size_A])
    first = first_rows(new)
    movie_A = relion.movie_pixel_size_A[place][first]
    merged = replace(
        optics.take(index[first]),
        micrograph_pixel_size_A=None if np.isnan(pixel_size_A).any() else pixel_size_A[first],
        movie_pixel_size_A=None if np.isnan(movie_A).any() else movie_A,
    )
    if relion.group_names:
        number = np.array(relion.group_numbers, np.int64)[group[first]]
        names = tuple(relion.group_names[place] for place in group[first].tolist())
        merged = replace(merged, name=names, group_id=number)
    return merged, new, [*_shared_groups(merged), *_other_optics(merged, relion, place[first])]


_VALUES = ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast", "pixel_size_A", "box_px")


def _shared_groups(optics: Optics) -> list[Message]:
    """Return a warning of a name that several groups share: one of RELION's groups has particles of several optics."""
    shared = [name for name in dict.fromkeys(optics.name) if optics.name.count(name) > 1]
    if not shared:
        return []
    text = (
        f"{optics.name.count(shared[0])} optics groups are called {shared[0]}, whose particles differ in optics: "
        "RELION's re-extraction takes them; rename them before relion_star_handler, which joins groups of one name"
    )
    return [warning("optics-groups-shared", text)]


def _other_optics(optics: Optics, relion: RelionMicrographs, place: NDArray[np.int64]) -> list[Message]:
    """Return a warning where voltage or Cs of both programs differ."""
    rows = (
        ("voltage", "kV", optics.voltage_kV, relion.voltage_kV[place]),
        ("Cs", "mm", optics.spherical_aberration_mm, relion.spherical_aberration_mm[place]),
    )
    messages = []
    for title, unit, own, other in rows:
        differing = np.flatnonzero(np.abs(own - other) > 1e-3 * np.abs(own))
        if len(differing):
            first = int(differing[0])
            values = f"{own[first]:g} {unit} in cryoSPARC's file, which is taken, and {other[first]:g} in RELION's"
            text = f"{title} is {values}"
            messages.append(warning("optics-differ", text))
    return messages


def _about_poses(particles: ParticleSet, convention: Convention, *, is_mirrored: bool) -> list[Message]:
    """Return a warning on which images the poses belong to, where rows are reversed."""
    if convention == AS_STORED or (particles.poses is None and particles.ctf is None):
        return []
    if is_mirrored:
        text = (
            "poses, shifts, defocus angles and aberrations are those of the images that RELION is to extract again: "
            "not of the images that the file names now"
        )
        return [warning("to-be-extracted-again", text)]
    text = (
        "coordinates are mirrored, poses belong to the images as they are: to extract again with these poses, "
        f"or to polish, give {option('reextract')}"
    )
    return [warning("poses-of-old-images", text, option="reextract")]


def unused_project(names: Sequence[str], output: Path) -> list[Message]:
    """Return a warning of a RELION project above the output with micrographs that these could be mapped to."""
    project = project_of(output.parent)
    if project is None:
        return []
    for star in newest_micrographs(project):
        try:
            match = match_micrographs(names, read_micrographs(star).names)
        except CryobridgeError:
            continue
        if match.relion_name:
            text = (
                "names of micrographs, optics groups and coordinates are cryoSPARC's; for RELION's, which its "
                f"re-extraction and polishing need, give {option('micrographs', as_seen_from(star, None))}"
            )
            return [warning("micrographs-not-mapped", text, option="micrographs")]
    return []
