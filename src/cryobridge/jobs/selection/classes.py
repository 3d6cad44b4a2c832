"""The classes that a particle file has itself, counted as its program shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.cryosparc.alignments import Alignment, alignments_in
from cryobridge.formats.in_memory import SetInMemory
from cryobridge.formats.table import ColumnReader
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles

CLASS_NUMBER = "rlnClassNumber"


@dataclass(frozen=True, eq=False)
class FileClasses:
    """The class of each row, (n,), from 1 as RELION counts or from 0 as cryoSPARC does; and which were taken."""

    numbers: NDArray[np.int64]
    messages: tuple[Message, ...]


def classes_of(particles: ParticleFiles) -> FileClasses:
    """Return the classes that a particle file has, or those of a set in memory.

    Of several alignments in a `.cs` file the first one that has more than one class is taken.

    Raises
    ------
    MissingDataError
        If it has none.
    """
    if isinstance(particles, SetInMemory):
        of_set, first = particles.particles.class_number, 0 if particles.program == "cryosparc" else 1
        if of_set is None:
            raise _no_classes(particles, "class_number")
        return FileClasses(of_set - 1 + first, (_taken("the set", str(first)),))
    if particles.program == "relion":
        numbers = ColumnReader(particles.columns).integers(CLASS_NUMBER)
        if numbers is None:
            raise _no_classes(particles, CLASS_NUMBER)
        return FileClasses(numbers, (_taken(CLASS_NUMBER, "1 as RELION does"),))
    found: dict[str, NDArray[np.int64]] = {}
    messages: dict[str, list[Message]] = {}
    for name, groups in alignments_in(particles.columns.names).items():
        columns = ColumnReader(particles.columns)
        numbers = Alignment(columns, name, groups).class_number()
        if numbers is not None and not any(groups[0] in other.split(", ") for other in found):
            # The particle set counts from 1 throughout.
            found[name], messages[name] = numbers - 1, columns.messages
    if not found:
        raise _no_classes(particles, "…/class")
    several = [name for name, numbers in found.items() if len(np.unique(numbers)) > 1]
    chosen = several[0] if several else next(iter(found))
    said = [_taken(chosen, "0 as cryoSPARC does")]
    others = [name for name in found if name != chosen and name in several]
    if others:
        condition = option("where", f"{others[0]}/class in (1, 4)")
        text = f"{others[0]} has classes too; {condition} chooses by them"
        said.append(note("other-classes", text, option="classes"))
    return FileClasses(found[chosen], (*said, *(item for item in messages[chosen] if "class" in item.text)))


def _taken(column: str, first: str) -> Message:
    return note("classes-taken", f"classes are those of {column}, counted from {first}", option="classes")


def _no_classes(particles: ParticleFiles, field: str) -> MissingDataError:
    return MissingDataError(
        "the file has no classes",
        path=particles.metadata,
        field=field,
        hint="Give the particles of a classification; labels in another file are taken with "
        f"{option('kmeans')} and {option('clusters')}.",
    )
