"""The micrographs that particles come from, as a STAR file beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.formats.optics import distinct_rows, first_rows, group_names, needed
from cryobridge.formats.relion.star import StarBlock
from cryobridge.model.fields import field
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.relion.particles_write import Version
    from cryobridge.model.particles import ParticleSet

_COMMENTS = {"3.1": ("version 30001",), "5": ("version 50001",)}


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
    columns: dict[str, Any] = {
        "rlnOpticsGroup": np.arange(1, len(groups) + 1),
        "rlnOpticsGroupName": group_names(groups),
    }
    for item in (*needed("ctf"), field("optics.micrograph_pixel_size_A"), field("optics.movie_pixel_size_A")):
        of_groups = getattr(groups, item.key)
        if of_groups is not None and (item.needed_for or not np.isnan(of_groups).any()):
            columns[item.columns("relion")[0]] = of_groups
    with np.errstate(over="ignore"):
        single = {
            name: values.astype(np.float32) if isinstance(values, np.ndarray) and values.dtype.kind == "f" else values
            for name, values in columns.items()
        }
    names = Labels(code.astype(np.int32), locations.micrograph.values)
    comments = _COMMENTS[version]
    return (
        StarBlock.from_columns("optics", single, comments=comments),
        StarBlock.from_columns(
            "micrographs", {"rlnMicrographName": names, "rlnOpticsGroup": group + 1}, comments=comments
        ),
    )
