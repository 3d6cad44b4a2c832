"""The micrographs that particles come from, as a STAR file beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.optics import distinct_rows, first_rows, needed
from cryobridge.formats.relion.micrographs_write import list_blocks
from cryobridge.model.micrographs import MicrographSet
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.relion.particles_write import Version
    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.model.particles import ParticleSet


def micrographs_path(particles: Path) -> Path:
    """Return the STAR file of micrographs beside one of particles; each file of particles has its own."""
    return particles.with_name(f"{particles.stem}_micrographs.star")


def micrographs_content(particles: ParticleSet, version: Version) -> tuple[StarBlock, ...] | None:
    """Return the optics and the micrographs that the particles lie on; None where too little is known of them.

    RELION needs the pixel size of micrographs. Those of one exposure group are one optics group, whatever the
    particles' boxes are; a micrograph has the group of its first particle.
    """
    locations, optics, index = particles.locations, particles.optics, particles.optics_index
    if locations is None or optics is None or index is None or len(particles) == 0:
        return None
    pixel_size_A = optics.micrograph_pixel_size_A
    if pixel_size_A is None or np.isnan(pixel_size_A[np.unique(index)]).any():
        return None
    code, first_of = np.unique(locations.micrograph.codes, return_index=True)
    optics = optics.take(index[first_of])  # one row a micrograph
    values = [getattr(optics, item.key) for item in needed("ctf")]
    group = distinct_rows([optics.group_id, *values, pixel_size_A[index[first_of]]])
    groups = optics.take(first_rows(group))
    sizes = groups.micrograph_pixel_size_A
    assert sizes is not None  # looked at before
    micrographs = MicrographSet(
        n_rows=len(code),
        source=particles.source,
        program="cryosparc",
        pixel_size_A=sizes[group],
        name=Labels(code.astype(np.int32), locations.micrograph.values),
        optics=replace(groups, pixel_size_A=sizes, aberrations=None),
        optics_index=group,
    )
    return tuple(list_blocks(micrographs, "micrographs", version=version))
