"""What an output holds of a particle set, and which columns of the source have no place in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.model.fields import ALIGNMENT_GROUP, FIELDS, numbered
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryobridge.model.fields import Field, Program
    from cryobridge.model.particles import ParticleSet
    from cryobridge.report import Message


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """What becomes of a particle set in the files of a program.

    Parameters
    ----------
    held
        The quantities of the model that are in it, by their names in `cryobridge.model.fields`.
    dropped_columns
        Columns of the source that the program has no place for, or no equivalent of.
    messages
        What was filled in or assumed, and what the program may refuse or go wrong with.
    keeps_aberrations
        Whether aberrations stay in the columns of their own program; else they are in those of the output's, of which
        shifts and the CTF are some (see `cryobridge.formats.aberrations.chosen`).
    """

    held: frozenset[str]
    dropped_columns: tuple[str, ...]
    messages: tuple[Message, ...]
    keeps_aberrations: bool = False


def dropped_columns(particles: ParticleSet, held: Collection[str], program: Program | None) -> tuple[str, ...]:
    """Return the columns of the source that an output does not hold.

    Parameters
    ----------
    particles
        As they were read.
    held
        Names of the quantities that the output holds (see `cryobridge.model.fields`).
    program
        Whose file the output is; None for neither cryoSPARC's nor RELION's.

    Returns
    -------
    tuple of str
        Quantities of the model by the names of their columns, then the other columns of a file of another program.
        Quantities that stood in no column, such as the box of a stack, are called by their titles.
    """
    lost = [item for item in FIELDS if item.name not in held and is_known(particles, item)]
    names = [name for item in lost for name in source_columns(particles, item)]
    if program is None:
        names += particles.columns
    extra = particles.extra
    if extra is not None and extra.program != program:
        # Those of the optics that a file gives particles too are said to differ where they do.
        names += [name for name in (*extra.names, *extra.optics) if name not in _modelled()]
    return tuple(dict.fromkeys(names))


def _modelled() -> set[str]:
    return {name for item in FIELDS if item.is_of_optics for name in item.names("relion")}


def source_columns(particles: ParticleSet, item: Field) -> tuple[str, ...]:
    """Return the columns of the file that a quantity stood in; its title, where the set is of no file with columns."""
    extra = particles.extra
    has_title = item.part in ("columns", "optics.aberrations")
    if extra is None or (has_title and not item.names(extra.program)):
        return (item.title,)
    groups = ("",) if particles.poses is None else particles.poses.source.split(", ")
    names = (
        name.replace(ALIGNMENT_GROUP, group)
        for name in numbered(item.names(extra.program), extra.of_file)
        for group in (groups if name.startswith(ALIGNMENT_GROUP) else groups[:1])
    )
    return tuple(name for name in names if name in extra.of_file)


def is_known(particles: ParticleSet, item: Field) -> bool:
    """Whether a set says something of a quantity."""
    if item.is_of_optics and particles.optics is None:
        return False
    values = particles.get(item.name)
    if values is None:
        return False
    if item.name == "optics.name":
        return particles.extra is not None  # else they are made here
    if item.name == "optics.aberrations.magnification":
        return bool((values != np.eye(2)).any())
    if item.part == "optics.aberrations":
        return bool(np.any(values))  # what is not a number is not zero
    if item.is_of_optics:
        return bool(np.nan_to_num(values).any())
    return not isinstance(values, np.ndarray | Labels) or len(values) > 0
