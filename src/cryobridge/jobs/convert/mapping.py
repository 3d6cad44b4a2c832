"""From one program's micrographs to the other's: names, optics groups, coordinates, and what is mirrored with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, option
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.formats.projects import INSTEAD
from cryobridge.formats.registry import CS, CSG, STAR, identify_file
from cryobridge.formats.relion.micrographs import read_micrographs
from cryobridge.jobs.convert.coordinates import asking_for_micrographs
from cryobridge.jobs.convert.mapped_optics import under_relions_names, with_micrograph_pixel_size
from cryobridge.jobs.links import as_seen_from
from cryobridge.jobs.micrographs.matching import MicrographMatch, match_micrographs, unmatched_error
from cryobridge.jobs.micrographs.placement import Placement, Positions, place
from cryobridge.jobs.micrographs.project import newest_micrographs, project_of
from cryobridge.jobs.micrographs.sizes import MicrographFiles, compare_sizes
from cryobridge.model.convention import AS_STORED, Convention
from cryobridge.model.micrographs import MicrographSet
from cryobridge.model.particles import Labels
from cryobridge.report import warning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.convert.options import ConvertOptions, Target
    from cryobridge.model.particles import Floats, Locations, ParticleSet
    from cryobridge.progress import Reporter
    from cryobridge.report import Message

_REVERSED = Convention(mirror_y=True)


@dataclass(frozen=True)
class MicrographMap:
    """Which of the other program's micrographs each of the particles' is.

    Parameters
    ----------
    path
        The file of the other program's.
    others
        Its content: RELION's, or cryoSPARC's on the way there.
    place
        (m,) of each of the particles' micrographs, its place among the others; -1 for one that the file lacks.
    """

    path: Path
    others: MicrographSet
    place: NDArray[np.int64]

    @property
    def other_names(self) -> tuple[str | None, ...]:
        """The other program's name of each; None for those that the file lacks."""
        return tuple(None if place < 0 else self.others.names[place] for place in self.place.tolist())


@dataclass(frozen=True)
class Mapped:
    """Particles on the other program's micrographs.

    Parameters
    ----------
    particles
        With the other names, groups, sizes and coordinates, and mirrored where they are to be extracted again.
    placement
        Which way the other micrographs lie.
    convention
        How fractions of the micrographs of before became coordinates.
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


def map_micrographs(locations: Locations, path: Path, target: Target, *, skip_unmatched: bool) -> MicrographMap:
    """Match the micrographs of particles with those of a file of the program that they go to.

    Parameters
    ----------
    locations
        Of the particles.
    path
        A STAR file of RELION's micrographs, or a `.cs` file of cryoSPARC's.
    target
        What is written.
    skip_unmatched
        Whether the file may lack some.

    Raises
    ------
    UsageError
        If the file is of the program that the particles come from.
    MissingDataError
        If the file lists none, or lacks one and that may not be skipped.
    CryobridgeError
        If a name fits several.
    """
    _refuse_own(path, target)
    names = locations.micrograph.without_unused().values
    if target == "star":
        others = read_micrographs(path).distinct()
        match = match_micrographs(names, others.names)
        other_name, unmatched = match.relion_name, match.unmatched
    else:
        others = _exposures(path)
        match = match_micrographs(others.names, names)
        other_name = {relion: own for own, relion in match.relion_name.items()}
        unmatched = tuple(name for name in names if name not in other_name)
    if unmatched and (not skip_unmatched or not other_name):
        where = {} if target == "star" else {"file": path.name, "field": "rlnMicrographName", "give": "the exposures"}
        raise unmatched_error(MicrographMatch(other_name, unmatched), others.names, **where)
    place_of = {name: place for place, name in enumerate(others.names)}
    places = [place_of[other_name[name]] if name in other_name else -1 for name in locations.micrograph.values]
    return MicrographMap(path, others, np.array(places, np.int64))


def _exposures(path: Path) -> MicrographSet:
    exposures = read_exposures(path).distinct()
    if exposures.name is None:
        raise MissingDataError(
            "these exposures are movies, which have no micrographs yet",
            path=path,
            field="micrograph_blob/path",
            hint="Give the exposures of a motion correction, or of what came after it.",
        )
    return exposures


def _refuse_own(path: Path, target: Target) -> None:
    kind = None if path.is_dir() else identify_file(path)
    if target == "cs" and kind == STAR:
        raise UsageError(
            "a STAR file of RELION's micrographs, which the particles name already",
            path=path,
            option="micrographs",
            hint="On the way to cryoSPARC give its exposures, such as J2/J2_exposures.cs, or leave it out.",
        )
    if target == "star" and kind in {CS, CSG}:
        raise UsageError(
            "a file of cryoSPARC's micrographs, which the particles name already",
            path=path,
            option="micrographs",
            hint=INSTEAD["micrographs"][0],
        )


def onto_micrographs(
    particles: ParticleSet,
    found: MicrographMap,
    options: ConvertOptions,
    search: ImageSearch,
    output: Path,
    reporter: Reporter,
) -> Mapped:
    """Move particles from one program's micrographs onto the other's.

    Parameters
    ----------
    particles
        All of them on micrographs that are matched; sizes are known of cryoSPARC's, and of RELION's if they can be.
    found
        Which those are.
    options
        The orientation, and whether the particles are to be extracted again.
    search
        Where the images of the particles are looked for.
    output
        What is written; the RELION project is looked for above it, then above the STAR file of micrographs.
    reporter
        Who hears of the progress.

    Raises
    ------
    UsageError
        If the particles are to be extracted again from micrographs that are turned otherwise than by reversed rows.
    CryobridgeError
        If the micrographs of one program are of another shape than those of the other.
    """
    others, locations = found.others, particles.locations
    assert locations is not None
    at = found.place[locations.micrograph.codes]
    if others.program == "cryosparc" and locations.shape_px is None:
        locations = replace(locations, shape_px=_relions_shapes(particles, others, at, search))
    positions = _positions(particles, locations, found, search, output)
    by_hand = options if others.program == "relion" else backwards(options)
    # The formula of reliosparc, and so of the flips, is one pixel more than the exact reversal.
    placement = place(positions, by_hand, default=AS_STORED, exact=True, reporter=reporter)
    convention = placement.convention
    if options.extracts_again and convention not in {AS_STORED, _REVERSED}:
        raise UsageError(
            f"{option(_extracting(options))} mirrors poses for reversed rows alone, not for {convention.formula}",
            option=_extracting(options),
            hint="Leave it out, extract the particles again and find their poses anew.",
        )
    if options.extracts_again:
        convention = replace(convention, is_exact=True)
    messages = [placement.message] if placement.message is not None else []
    uid = None
    if others.program == "relion":
        shape_px, of_sizes = _sizes(
            positions, others.pixel_size_A[at], swap_xy=convention.swap_xy, is_refused=placement.is_refused
        )
        by_size = _pixel_size_A(positions, shape_px)
        optics, index, of_groups = under_relions_names(particles, others, at, by_size)
        messages += [*of_sizes, *of_groups]
    else:
        shape_px, uid = _of_cryosparc(others.shape_px)[at], None if others.uid is None else others.uid[at]
        if convention.swap_xy:
            shape_px = shape_px[:, ::-1]
        optics, index = with_micrograph_pixel_size(particles, others.pixel_size_A[at])
    moved = replace(
        locations,
        micrograph=Labels(at.astype(np.int32), others.names),
        coordinate_px=convention.to_px(positions.fraction_xy, shape_px),
        shape_px=np.ascontiguousarray(shape_px[:, ::-1]) if convention.swap_xy else shape_px,
        image_frame_px=locations.coordinate_px,
        micrograph_uid=uid,
    )
    particles = replace(particles, locations=moved, optics=optics, optics_index=index)
    if not options.is_recentred:  # else no images are named
        messages += _about_poses(particles, convention, is_mirrored=options.reextract)
    is_mirrored = options.extracts_again and convention.mirror_y
    if is_mirrored:
        particles = particles.mirrored_y()
        particles = replace(particles, locations=replace(moved, image_frame_px=None))
    return Mapped(particles, placement, convention, positions, is_mirrored, tuple(messages))


def _extracting(options: ConvertOptions) -> str:
    """Return the option by which particles are to be extracted again."""
    given = ("reextract", "recenter", "center_A")
    return next(name for name in given if getattr(options, name) not in (None, False))


def backwards(options: ConvertOptions) -> ConvertOptions:
    """Return options that set the inverse of an axis convention by hand: other axes are mirrored after an exchange."""
    if not options.swap_xy:
        return options
    return replace(options, flip_x=not options.flip_y, flip_y=not options.flip_x)


def _positions(
    particles: ParticleSet, locations: Locations, found: MicrographMap, search: ImageSearch, output: Path
) -> Positions:
    assert locations.shape_px is not None
    n, optics = len(particles), particles.optics
    has_size = optics is not None and optics.micrograph_pixel_size_A is not None
    project = None
    if found.others.program == "relion":
        project = project_of(output.parent) or project_of(found.path.parent)
    return Positions(
        names=found.other_names,
        codes=locations.micrograph.codes,
        fraction_xy=locations.coordinate_px / locations.shape_px[:, ::-1],
        shape_px=locations.shape_px,
        kept=np.ones(n, bool),
        files=MicrographFiles(found.path, project),
        micrograph_pixel_size_A=particles.per_particle("micrograph_pixel_size_A") if has_size else None,
        images=particles.images,
        image_pixel_size_A=None if optics is None else particles.per_particle("pixel_size_A"),
        search=search,
        whose="RELION's" if found.others.program == "relion" else "cryoSPARC's",
    )


def _of_cryosparc(shape_px: NDArray[np.int64] | None) -> NDArray[np.int64]:
    assert shape_px is not None  # its micrographs are read with their sizes
    return shape_px


def _relions_shapes(
    particles: ParticleSet, exposures: MicrographSet, at: NDArray[np.int64], search: ImageSearch
) -> NDArray[np.int64]:
    """Return ny, nx of RELION's micrographs, which are not on this disk, by the pixel sizes of both programs."""
    optics = particles.optics
    own = None if optics is None or optics.micrograph_pixel_size_A is None else optics.micrograph_pixel_size_A
    ratio = exposures.pixel_size_A[at] / (np.nan if own is None else own[particles.optics_index])
    if not np.isfinite(ratio).all():
        raise MissingDataError(
            "the size of RELION's micrographs is not known",
            path=particles.source,
            hint=f"Give {option('micrograph_shape_px', 'NY,NX')}, or {asking_for_micrographs(particles, search)}.",
        )
    shape_px: NDArray[np.int64] = np.rint(_of_cryosparc(exposures.shape_px)[at] * ratio[:, np.newaxis]).astype(np.int64)
    return shape_px


def _sizes(
    positions: Positions, pixel_size_A: Floats, *, swap_xy: bool, is_refused: bool
) -> tuple[NDArray[np.int64], list[Message]]:
    """Return ny, nx of RELION's micrographs before x and y are exchanged, (n, 2): by their headers or pixel sizes.

    Where the placement is refused, which explains more, another shape is no error.
    """
    sizes = compare_sizes(
        positions.names,
        positions.codes,
        positions.shape_px,
        positions.kept,
        positions.files,
        swap_xy=swap_xy,
        own_pixel_size_A=positions.micrograph_pixel_size_A,
        pixel_size_A=pixel_size_A,
    )
    if sizes.error is not None and not is_refused:
        raise sizes.error
    return sizes.shape_px, [] if sizes.message is None else [sizes.message]


def _pixel_size_A(positions: Positions, shape_px: NDArray[np.int64]) -> Floats | None:
    """Return Å a pixel of the other micrographs, (n,), by those of the particles' and the sizes of both."""
    own = positions.micrograph_pixel_size_A
    return None if own is None else own * positions.shape_px[:, 1] / shape_px[:, 1]


def _about_poses(particles: ParticleSet, convention: Convention, *, is_mirrored: bool) -> list[Message]:
    """Return a warning on which images the poses belong to, where rows are reversed."""
    if convention == AS_STORED or (particles.poses is None and particles.ctf is None):
        return []
    if is_mirrored:
        text = "poses and aberrations are of images to be extracted again, not of those named"
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
            text = f"micrographs are cryoSPARC's; for RELION's add {option('micrographs', as_seen_from(star, None))}"
            return [warning("micrographs-not-mapped", text, option="micrographs")]
    return []
