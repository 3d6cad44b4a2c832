"""The metadata of downsampled images: STAR file, pickles, and which row of the source each image is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cryobridge.errors import option
from cryobridge.formats.arrow import numbers_to_arrow, texts_to_arrow
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.optics import needed, unknown_optics
from cryobridge.formats.particles_pickle import PickleContent, pickle_content
from cryobridge.formats.pickles import check_ctf, check_poses
from cryobridge.formats.relion.accepted import half_sets_left_out
from cryobridge.formats.relion.particles_write import image_names, star_content
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.table import rows_of_file
from cryobridge.formats.unusable import refuse_unusable
from cryobridge.jobs.stacks.cropping.star import downsampled_blocks
from cryobridge.model.particles import Labels
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from cryobridge.jobs.stacks.inputs import StackInput
    from cryobridge.model.particles import ImageRefs, Optics, ParticleSet

_DIGITS = 9


@dataclass(frozen=True)
class DownsampledMetadata:
    """What is written about downsampled images.

    Parameters
    ----------
    blocks
        Of the STAR file.
    pickles
        Poses and CTF, or None where neither is known.
    dropped_columns
        Columns of the source that are in none of the files.
    messages
        What was assumed or left out, and what may be wrong.
    """

    blocks: tuple[StarBlock, ...]
    pickles: PickleContent | None
    dropped_columns: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()

    @property
    def has_poses(self) -> bool:
        """Whether there will be a poses.pkl."""
        return self.pickles is not None and self.pickles.rotations is not None

    @property
    def has_ctf(self) -> bool:
        """Whether there will be a ctf.pkl."""
        return self.pickles is not None and self.pickles.ctf is not None


def downsampled_optics(optics: Optics, old_box_px: int, new_box_px: int) -> Optics:
    """Return optics groups with the pixel size and box of the new images; the field of view is the same.

    A group that none of the particles is of may have another box.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        size_A = optics.pixel_size_A * np.where(optics.box_px > 0, optics.box_px, old_box_px) / new_box_px
        scale = 10.0 ** (_DIGITS - np.floor(np.log10(size_A)))
        size_A = np.round(size_A * scale) / scale  # no 3.4781250000000004
    return replace(optics, pixel_size_A=size_A, box_px=np.full(len(optics), new_box_px))


def downsampled_metadata(
    source: StackInput, kept: np.ndarray[Any, Any], images: ImageRefs, old_box_px: int, new_box_px: int
) -> DownsampledMetadata:
    """Return what is to be written of some particles.

    Parameters
    ----------
    source
        The particles.
    kept
        (n,) the rows that have a new image.
    images
        (n,) where it is.
    old_box_px, new_box_px
        Edge of the images and of the new ones.

    Raises
    ------
    FormatError
        If a pose, shift or CTF value is impossible, or not a number.
    """
    particles = source.particles
    if not np.array_equal(kept, np.arange(particles.n_rows)):
        particles = particles.take(kept)
    assert particles.optics is not None  # made where it was not there
    optics = downsampled_optics(particles.optics, old_box_px, new_box_px)
    # cryoSPARC's coordinates are in the frame of its micrographs, which only `convert` takes to RELION's.
    locations = particles.locations if source.star is not None else None
    renewed = replace(particles, images=images, optics=optics, locations=locations)
    messages: list[Message] = []
    with rows_of_file(None, source.metadata_rows[kept]):
        refuse_unusable(renewed)
        pickles = _pickles(renewed, messages)
    dropped: tuple[str, ...] = ()
    if source.star is not None:
        blocks = downsampled_blocks(source.star, source.metadata_rows[kept], renewed, old_box_px / new_box_px)
        messages += half_sets_left_out(renewed.half_set)
    elif particles.images is not None and not unknown_optics(particles, needed("ctf")):
        content = star_content(renewed)
        blocks, dropped = content.blocks, content.dropped_columns
        messages += content.messages
    else:
        blocks = _bare_blocks(renewed)
        if renewed.poses is not None:
            text = "the STAR file holds no angles and shifts; poses.pkl does"
            messages.append(note("poses-in-pickle-only", text))
    if particles.locations is not None and locations is None:
        text = "places on micrographs are not carried along; `cryobridge convert` takes them to RELION's frame"
        messages.append(note("coordinates-left-out", text))
    return DownsampledMetadata(blocks, pickles, dropped, tuple(dict.fromkeys(messages)))


def _pickles(particles: ParticleSet, messages: list[Message]) -> PickleContent | None:
    """Return poses and CTF as far as they are known, and say why one is not written."""
    unknown = unknown_optics(particles, needed("ctf"))
    poses, ctf = particles.poses, particles.ctf
    if poses is None:
        messages.append(note("no-poses", "no poses in the metadata: no poses.pkl"))
    elif poses.is_2d:
        text = "the poses are angles in the plane only, of a 2D alignment: no poses.pkl"
        messages.append(note("poses-are-2d", text))
        poses = None
    if ctf is None:
        messages.append(note("no-ctf", "no defocus values in the metadata: no ctf.pkl"))
    elif unknown:
        titles = " and the ".join(item.title for item in unknown)
        given = ", ".join(option(item.key, "X") for item in unknown)
        how = f"`cryobridge convert` with {given} writes a file of the particles that says it, for which there is one"
        messages.append(warning("ctf-left-out", f"the {titles} is not known: no ctf.pkl; {how}"))
        ctf = None
    if poses is None and ctf is None:
        return None
    content = pickle_content(replace(particles, poses=poses, ctf=ctf))
    if content.rotations is not None:
        check_poses(particles.source, content.rotations, content.shifts_box)
    if content.ctf is not None:
        check_ctf(particles.source, content.ctf)
    messages += content.messages
    return content


def _bare_blocks(particles: ParticleSet) -> tuple[StarBlock, ...]:
    """Return a STAR file of images of which no more is known than their pixel size."""
    assert particles.optics is not None and particles.optics_index is not None and particles.images is not None
    n = len(particles.optics)
    optics: dict[str, Any] = {
        "rlnOpticsGroup": np.arange(1, n + 1),
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in range(1, n + 1)],
        "rlnImagePixelSize": particles.optics.pixel_size_A,
        "rlnImageSize": particles.optics.box_px,
        "rlnImageDimensionality": np.full(n, 2),
    }
    table = pa.table(
        {
            "rlnImageName": image_names(particles.images),
            "rlnOpticsGroup": numbers_to_arrow(particles.optics_index.astype(np.int64) + 1),
        }
    )
    comments = ("version 30001",)
    return (
        StarBlock.from_columns("optics", optics, comments=comments),
        StarBlock(Path(), "particles", table, comments=comments),
    )


def write_sources(path: Path, source: StackInput, kept: np.ndarray[Any, Any], images: ImageRefs) -> None:
    """Write which row, file and slice of the source each image is, as CSV.

    ``source_row`` and ``source_slice`` count from 0; ``source_file`` is the name in the metadata; ``uid`` is
    cryoSPARC's, and empty where there is none.
    """
    from pyarrow import csv

    files = source.images.path.take(kept)
    uid = source.particles.uid
    texts = texts_to_arrow([""]).take(numbers_to_arrow(np.zeros(len(kept), np.int32)))
    table = pa.table(
        {
            "image": image_names(images),
            "source_row": numbers_to_arrow(source.metadata_rows[kept]),
            "source_file": _labels(files),
            "source_slice": numbers_to_arrow(source.images.index[kept]),
            "uid": texts if uid is None else numbers_to_arrow(uid[kept]),
        }
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        csv.write_csv(table, file, csv.WriteOptions(quoting_style="needed"))


def _labels(labels: Labels) -> pa.Array:
    return texts_to_arrow(labels.values).take(numbers_to_arrow(labels.codes))
