"""The columns that are written, made of particles by the writers of the program that they are for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.contrast import about_contrast
from cryobridge.formats.cryosparc.ancestors import ancestor_with
from cryobridge.formats.cryosparc.particles_write import CsContent, cs_content, is_cryosparcs
from cryobridge.formats.relion.particles_write import StarContent, star_content
from cryobridge.formats.unusable import N_SHOWN
from cryobridge.jobs.convert.inputs import why_no_locations
from cryobridge.jobs.convert.micrographs import micrographs_content
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.jobs.convert.options import ConvertOptions, Target
    from cryobridge.model.particles import ParticleSet


def content_of(
    particles: ParticleSet, source: ParticleFiles, target: Target, options: ConvertOptions
) -> StarContent | CsContent:
    """Return the columns of a STAR or `.cs` file; an error about a value names the input."""
    aberrations, odd = options.has_aberrations, options.odd_aberrations or "as-derived"
    try:
        if target == "cs":
            return cs_content(
                particles,
                aberrations=aberrations,
                odd=odd,
                contrast=options.contrast,
                inverted=options.invert,
                has_images=not options.is_recentred,
            )
        # Several groups of particles may be on micrographs of one group, whose name RELION looks for.
        shares_names = options.micrographs is not None
        return star_content(
            particles,
            version=options.layout,
            aberrations=aberrations,
            odd=odd,
            shares_names=shares_names,
            has_images=not options.is_recentred,
        )
    except CryobridgeError as error:
        error.path = error.path or str(source.files[0])
        raise


def micrographs_of(
    particles: ParticleSet, source: ParticleFiles, target: Target, options: ConvertOptions
) -> tuple[StarBlock, ...] | None:
    """Return the blocks of the STAR file of micrographs that goes with cryoSPARC's particles, or None."""
    if source.program != "cryosparc" or target != "star" or options.layout == "3.0" or options.micrographs is not None:
        return None
    return micrographs_content(particles, options.layout)


def counted_from_1(particles: ParticleSet) -> tuple[ParticleSet, list[Message]]:
    """Put particles without half set or class into the first one: cryoSPARC has no word for none.

    Half sets other than two are left out; cryoSPARC's own stay as they are.
    """
    numbers: dict[str, Any] = {"half_set": particles.half_set, "class_number": particles.class_number}
    warnings = []
    if particles.half_set is not None and not is_cryosparcs(particles):
        odd = np.unique(particles.half_set[~np.isin(particles.half_set, (0, 1, 2))])
        if len(odd):
            text = f"half sets are left out: {', '.join(map(str, odd[:N_SHOWN]))} is among them, cryoSPARC has 1 and 2"
            warnings.append(warning("half-sets-left-out", text))
            numbers["half_set"] = None
    for name, words in (("half_set", "half set"), ("class_number", "class")):
        values = numbers[name]
        n_without = 0 if values is None else int((values < 1).sum())
        if n_without == len(particles) > 0:
            numbers[name] = None
        elif n_without:
            text = (
                f"{counted(n_without, 'particle')} without a {words} "
                f"{'is' if n_without == 1 else 'are'} put into the first one"
            )
            warnings.append(warning("put-into-first", text))
            numbers[name] = np.maximum(values, 1)
    return replace(particles, **numbers), warnings


def lost_to_relion(particles: ParticleSet, source: ParticleFiles, *, options: ConvertOptions) -> list[Message]:
    """Return warnings of what RELION needs and does not get of a cryoSPARC file."""
    messages = []
    if why := why_no_locations(source):
        messages.append(
            warning(
                "no-coordinates",
                "no micrographs and coordinates are written, which RELION extracts and polishes by: "
                f"{why}; {ancestor_with(source, 'location') or 'give the file that has them as another input'}",
            )
        )
    if options.keeps_old_images:
        return messages
    # Only copies are inverted: what is not asked for yet of that is named too.
    links = [] if options.link_stacks is not None else [option("link_stacks", "DIR")]
    words = [*links, *([] if options.copy else [option("copy", True)]), option("invert", True)]
    messages += about_contrast(particles, "RELION takes", invert=options.invert, remedy=" ".join(words))
    return messages
