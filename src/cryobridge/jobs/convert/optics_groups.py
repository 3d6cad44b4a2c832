"""Particles in the optics groups that are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.errors import MissingDataError
from cryobridge.jobs.micrographs.optics_groups import Acquired, micrographs_of_particles, optics_groups
from cryobridge.jobs.micrographs.regrouping import with_groups

if TYPE_CHECKING:
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.convert.options import ConvertOptions
    from cryobridge.model.particles import ParticleSet
    from cryobridge.report import Message


def in_optics_groups(
    particles: ParticleSet, options: ConvertOptions, search: ImageSearch
) -> tuple[ParticleSet, list[Message]]:
    """Return the particles in the optics groups of their micrographs, and what is said of these.

    Where particles don't say on which micrographs they are, their stacks are named by them.

    Raises
    ------
    MissingDataError
        If nothing is known by which they could be grouped.
    CryobridgeError
        As `optics_groups` does.
    """
    source = options.optics_source
    if source is None:
        return particles, []
    name = micrographs_of_particles(particles)
    if name is None and particles.images is not None:
        name = particles.images.path
    if name is None:
        raise MissingDataError(
            "nothing is known of the micrographs of the particles",
            path=particles.source,
            option="optics_from",
            hint="Give the file that has them as another input, such as the passthrough file.",
        )
    name = name.without_unused()
    is_beside = source.kind in {"afis", "serialem"} and source.value is None
    files = [search.resolve(micrograph) for micrograph in name.values] if is_beside else []
    groups = optics_groups(name.values, source, Acquired(files=files), options.optics_groups)
    grouped, messages = with_groups(particles, groups.index[name.codes], groups.names)
    return grouped, [*groups.messages, *messages]
