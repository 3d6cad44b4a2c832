"""The column of a particle file that says which images its rows were made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from cryobridge.errors import CryobridgeError
from cryobridge.formats.arrow import texts_to_arrow
from cryobridge.formats.relion.particles import parse_image_names
from cryobridge.formats.relion.star import StarBlock
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.model.particles import ImageRefs

# RELION's column for the image that another was made from; in a .cs file that is made of RELION's particles it is among
# the labels.
ORIGINAL_IMAGE = "rlnImageOriginalName"


def recorded_images(particles: ParticleFiles) -> ImageRefs | None:
    """Return the image that each row was made from; None where the file does not say, or not of all rows."""
    names: pa.ChunkedArray | pa.Array
    if particles.star is not None:
        block = particles.star[particles.star.main]
        if ORIGINAL_IMAGE not in block:
            return None
        names = block.texts(ORIGINAL_IMAGE)
    else:
        column = f"labels/{ORIGINAL_IMAGE}"
        if particles.program != "cryosparc" or column not in particles.columns:
            return None
        labels = particles.columns.read([column])[column]
        if not isinstance(labels, Labels):
            return None
        names = texts_to_arrow(labels.to_numpy().tolist())
    try:
        return parse_image_names(StarBlock(particles.metadata, "", pa.table({"rlnImageName": names})))
    except CryobridgeError:
        return None
