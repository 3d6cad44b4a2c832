"""Box and pixel size out of the headers of the stacks, where the metadata lack them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.optics import first_rows, group_names, group_optics
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.model.particles import ParticleSet


def with_sizes_of_stacks(particles: ParticleSet, search: ImageSearch) -> tuple[ParticleSet, list[Message]]:
    """Return the particles with box and pixel size of each optics group, by the stack of its first particle.

    Only what the metadata lack is looked up; a stack that is not found or lacks it changes nothing. Notes say
    what was taken from which stack.
    """
    if particles.images is None or len(particles) == 0:
        return particles, []
    optics, index = particles.optics, particles.optics_index
    if optics is None or index is None:
        optics, index = group_optics(len(particles))
    is_absent = (optics.box_px == 0) | np.isnan(optics.pixel_size_A)
    if not is_absent.any():
        return particles, []
    first = first_rows(index)
    of_stacks: dict[tuple[str, str], list[tuple[str, str]]] = {}  # groups and stacks by what they say
    box, pixel_size_A, names = optics.box_px.copy(), optics.pixel_size_A.copy(), group_names(optics)
    for group in np.intersect1d(np.flatnonzero(is_absent), index):
        header = search.header(particles.images.path[int(first[group])])
        if header is None:
            continue
        if box[group] == 0:
            box[group] = header.nx
            of_stacks.setdefault(("box", f"{header.nx} px"), []).append((names[group], header.path.name))
        if np.isnan(pixel_size_A[group]) and header.pixel_size_A is not None:
            pixel_size_A[group] = header.pixel_size_A
            value = f"{header.pixel_size_A:g} Å"
            of_stacks.setdefault(("pixel size", value), []).append((names[group], header.path.name))
    notes = [_note(*said, groups) for said, groups in of_stacks.items()]
    optics = replace(optics, box_px=box, pixel_size_A=pixel_size_A)
    return replace(particles, optics=optics, optics_index=index), notes


def _note(what: str, value: str, groups: list[tuple[str, str]]) -> Message:
    who = f"optics group {groups[0][0]}" if len(groups) == 1 else f"{len(groups):,} optics groups"
    stacks = sorted({stack for _, stack in groups})
    others = f" and {len(stacks) - 1:,} more" if len(stacks) > 1 else ""
    return note("size-of-stack", f"the {what} of {who} is that of {stacks[0]}{others}: {value}")
