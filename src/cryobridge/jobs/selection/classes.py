"""The classes that a particle file itself tells, counted as its program shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError
from cryobridge.formats.cryosparc.alignments import Alignment, alignments_in
from cryobridge.formats.table import ColumnReader

if TYPE_CHECKING:
    from cryobridge.formats.open import ParticleFiles

CLASS_NUMBER = "rlnClassNumber"


@dataclass(frozen=True, eq=False)
class FileClasses:
    """The class of each row, (n,), from 1 as RELION counts or from 0 as cryoSPARC does; and what was taken."""

    numbers: NDArray[np.int64]
    notes: tuple[str, ...]


def classes_of(particles: ParticleFiles) -> FileClasses:
    """Return the classes that a particle file tells.

    Of several alignments in a `.cs` file the first one that has more than one class is taken.

    Raises
    ------
    MissingDataError
        If it tells none.
    """
    if particles.program == "relion":
        numbers = ColumnReader(particles.columns).integers(CLASS_NUMBER)
        if numbers is None:
            raise _no_classes(particles, CLASS_NUMBER)
        return FileClasses(numbers, (f"classes are those of {CLASS_NUMBER}, counted from 1 as RELION does",))
    found: dict[str, NDArray[np.int64]] = {}
    notes: dict[str, list[str]] = {}
    for name, groups in alignments_in(particles.columns.names).items():
        columns = ColumnReader(particles.columns)
        numbers = Alignment(columns, name, groups).class_number()
        if numbers is not None and not any(groups[0] in other.split(", ") for other in found):
            # The particle set counts from 1 throughout.
            found[name], notes[name] = numbers - 1, [str(message) for message in columns.messages]
    if not found:
        raise _no_classes(particles, "…/class")
    several = [name for name, numbers in found.items() if len(np.unique(numbers)) > 1]
    chosen = several[0] if several else next(iter(found))
    said = [f"classes are those of {chosen}, counted from 0 as cryoSPARC does"]
    others = [name for name in found if name != chosen and name in several]
    if others:
        said.append(f"{others[0]} has classes too; --where '{others[0]}/class in (1, 4)' chooses by them")
    return FileClasses(found[chosen], (*said, *(f"{note}" for note in notes[chosen] if "class" in note)))


def _no_classes(particles: ParticleFiles, field: str) -> MissingDataError:
    return MissingDataError(
        "the file tells no classes",
        path=particles.metadata,
        field=field,
        hint="Give the particles of a classification; labels in another file are taken with --kmeans and --clusters.",
    )
