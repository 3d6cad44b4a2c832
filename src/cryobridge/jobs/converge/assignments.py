"""Which particle is in which class: the two columns that matter of a file with thirty."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.formats.arrow import numbers_to_arrow
from cryobridge.formats.input_file import open_input, read_error
from cryobridge.formats.relion.star import StarFile, open_star
from cryobridge.formats.table import Array, ColumnReader
from cryobridge.model.particles import Labels

MAX_CLASSES = 2000
# What a particle is called, best first. Only tomography has others than the first.
_NAMES = ("rlnImageName", "rlnTomoParticleName", "rlnParticleName")
_CLASS = "rlnClassNumber"
_CLASS_2D, _POSTERIORS, _CLASS_IDS = (
    "alignments2D/class",
    "alignments3D_multi/class_posterior",
    "alignments3D_multi/class",
)
_TAIL_BYTES = 256
_OWN_FILE_HINT = "Take the file that the program wrote itself."


@dataclass(frozen=True)
class Assignments:
    """The classes of the particles of one file.

    Parameters
    ----------
    keys
        (n,) what each particle is known by: texts, or uids as uint64.
    classes
        (n,) int16 class, from 1; 0 for a particle without one.
    """

    keys: pa.ChunkedArray
    classes: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.classes)


def read_assignments(path: Path) -> Assignments:
    """Read a `_data.star` or a `_particles.cs`.

    Raises
    ------
    FormatError
        If the file can't be read, is cut off, or has class numbers that none can have.
    MissingDataError
        If it has no classes or no names.
    """
    return _from_cs(path) if path.suffix == ".cs" else _from_star(path)


def has_classes(path: Path) -> bool:
    """Whether a `_particles.cs` has the columns that classes are read from; False for one that can't be read."""
    from cryobridge.formats.cryosparc.cs import open_cs

    try:
        return not {_CLASS_2D, _POSTERIORS}.isdisjoint(open_cs(path).names)
    except CryobridgeError:
        return False


def particle_block(star: StarFile) -> str:
    """Return the name of the block that has the classes.

    Raises
    ------
    MissingDataError
        If none has, or it has no names.
    """
    name = star.main
    if _CLASS not in star.labels(name):
        name = next((other for other in star.names if _CLASS in star.labels(other)), "")
        if not name:
            raise MissingDataError(
                f"no column {_CLASS}", path=star.path, hint="Only jobs that classify write one; check the folder."
            )
    if not any(label in star.labels(name) for label in _NAMES):
        raise MissingDataError(f"no column {_NAMES[0]}, by which particles are followed", path=star.path)
    return name


def ends_with_blank_line(path: Path) -> bool:
    """Whether the last table of a STAR file is closed by a blank line, as RELION writes it."""
    return _last_line_ends(path) >= 2


def require_line_end(path: Path) -> None:
    """Raise where a file stops within a line.

    Raises
    ------
    FormatError
        Then.
    """
    if path.suffix != ".cs" and _last_line_ends(path) == 0:
        raise FormatError(
            "it stops within its last line", path=path, hint="Wait until it is written, or copy it again."
        )


def _last_line_ends(path: Path) -> int:
    """Return how many line ends come after the last word of a file."""
    try:
        with open_input(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            tail = file.read()
    except OSError as error:
        raise read_error(path, error) from error
    return tail[len(tail.rstrip()) :].count(b"\n")


def _from_star(path: Path) -> Assignments:
    star = open_star(path)
    block = particle_block(star)
    name = next(label for label in _NAMES if label in star.labels(block))
    table = star.select(block, [name, _CLASS])
    numbers = table.read([_CLASS])[_CLASS]
    return Assignments(table.texts(name), _class_numbers(path, numbers))


def _from_cs(path: Path) -> Assignments:
    # Slow to import, and jobs of RELION do not need it.
    from cryobridge.formats.cryosparc.alignments import whole_numbers
    from cryobridge.formats.open import open_particles

    columns = ColumnReader(open_particles(path, join=False, program="cryosparc").columns)
    values = columns.get(_CLASS_2D, shapes=((),))
    name = _CLASS_2D
    if values is None and (posteriors := columns.get(_POSTERIORS)) is not None:
        name, values = _CLASS_IDS, _most_probable(path, posteriors, columns.get(_CLASS_IDS))
    if values is None:
        raise MissingDataError(
            f"neither a column {_CLASS_2D} nor {_POSTERIORS}",
            path=path,
            hint="Give the folder of a 2D classification, or of a 3D one of cryoSPARC 4.5 or later.",
        )
    uid = columns.get("uid", shapes=((),))
    if uid is None or uid.dtype.kind not in "iu":
        raise FormatError(
            "whole numbers are needed, by which particles are followed",
            path=path,
            field="uid",
            hint=_OWN_FILE_HINT,
        )
    uids = numbers_to_arrow(uid.astype(np.uint64))
    # From 0 in the file; floats, since one more than the largest number is less than all others.
    numbers = whole_numbers(columns, values, name).astype(np.float64) + 1
    return Assignments(pa.chunked_array([uids]), _class_numbers(path, numbers))


def _most_probable(path: Path, posteriors: Array, class_ids: Array | None) -> Array:
    """Return the class of each particle that has the highest posterior, of (n, classes)."""
    if posteriors.ndim != 2 or not posteriors.shape[1]:
        raise FormatError("not one posterior a class", path=path, field=_POSTERIORS, hint=_OWN_FILE_HINT)
    best: Array = np.argmax(posteriors, axis=1)
    if class_ids is None:
        return best
    if class_ids.shape != posteriors.shape:
        raise FormatError("not one number for each posterior", path=path, field=_CLASS_IDS, hint=_OWN_FILE_HINT)
    return np.take_along_axis(class_ids, best[:, None], axis=1)[:, 0]


def _class_numbers(path: Path, values: NDArray[Any] | Labels) -> NDArray[np.int16]:
    numbers = values.codes if isinstance(values, Labels) else values
    bad = np.flatnonzero(~((numbers <= MAX_CLASSES) & (numbers == np.rint(numbers))))
    if isinstance(values, Labels) or len(bad):
        shown = values[0] if isinstance(values, Labels) else numbers[bad[0]]
        raise FormatError(
            f"{shown} is no class number; those from 1 to {MAX_CLASSES:,} are",
            path=path,
            rows=tuple(int(row) for row in bad[:3]),
            count=len(bad) or None,
            hint="Correct the values, or take the file that the program wrote itself.",
        )
    classes: NDArray[np.int16] = np.maximum(numbers, 0).astype(np.int16)
    return classes
