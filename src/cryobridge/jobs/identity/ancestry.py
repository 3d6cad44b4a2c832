"""The images that particles had in the jobs before their own, by which they are known after a restack."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.cryosparc.ancestor_columns import AncestorRows
from cryobridge.formats.cryosparc.ancestors import Ancestry
from cryobridge.formats.cryosparc.particles import images_of
from cryobridge.formats.table import ColumnReader
from cryobridge.model.particles import ImageRefs
from cryobridge.report import Message, counted, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.formats.particle_files import ParticleFiles

_JOB = re.compile(r"(^|/)>?J[0-9]+/")


def images_of_ancestors(particles: ParticleFiles, others: ImageRefs) -> Iterator[tuple[ImageRefs, Message]]:
    """Yield the images of particles in each job before theirs, the nearest first, and a note on which these are.

    Parameters
    ----------
    particles
        The particles; none is yielded of other files than cryoSPARC's.
    others
        The images that they are to be compared with. Unless these name a job of cryoSPARC's, no job is looked at.
    """
    if particles.program != "cryosparc" or particles.table is None or "uid" not in particles.table:
        return
    if not any(_JOB.search(name) for name in others.path.without_unused().values):
        return
    own = AncestorRows(particles)
    for job, table in Ancestry(particles).tables():
        if not {"uid", "blob/path", "blob/idx"} <= set(table.names):
            continue
        try:
            images, rows = images_of(ColumnReader(table)), own.rows_in(table)
        except CryobridgeError:
            continue  # one damaged file does not hide the others
        n_known = int(np.count_nonzero(rows >= 0))
        if images is not None and n_known:
            count = f"{n_known:,} of {counted(len(particles), 'particle')} of {particles.metadata.name}"
            text = f"{count} are known by their images of {job.uid}, in {table.path.name}"
            of_rows = ImageRefs(images.path.take(rows), np.where(rows >= 0, images.index[rows], -1))
            yield of_rows, note("images-of-ancestor", text, where=table.path)
