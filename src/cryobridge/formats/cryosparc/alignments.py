"""cryoSPARC's alignments: which of a file's groups the poses are read from, and what it says of classes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import UsageError, option
from cryobridge.model.fields import field
from cryobridge.model.geometry import euler_to_matrix, rotvec_to_matrix, shift_px_to_A
from cryobridge.model.particles import Poses
from cryobridge.report import counted, warning

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cryobridge.formats.table import Array, ColumnReader
    from cryobridge.model.particles import Floats

ALIGNED_3D, MULTI, ALIGNED_2D = "alignments3D", "alignments3D_multi", "alignments2D"
_CLASS_GROUP = re.compile(r"(.*class_(\d+))/pose$")
# -1, for no half set or class, in a column without signs.
_NONE = np.iinfo(np.uint32).max
# What one row of an alignment holds for a class; a number where not said.
_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {"pose": ((3,),), "shift": ((2,),)}


def whole_numbers(columns: ColumnReader, values: Array, name: str) -> NDArray[np.int64]:
    """Return half sets or classes (n,) of a column, in which -1 stands for none, also where it is without signs.

    Raises
    ------
    FormatError
        If a value is not whole.
    """
    numbers = columns.as_integers(values, name)
    return np.where(numbers == _NONE, -1, numbers) if values.dtype == np.uint32 else numbers


def alignments_in(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the alignments of a file, the one that is taken first: the groups of columns of each.

    3D comes before several classes before 2D. Groups for one class each are one alignment together, under their
    names with commas between them, and each of them is one by itself.
    """
    names = tuple(names)
    found: dict[str, tuple[str, ...]] = {group: (group,) for group in (ALIGNED_3D, MULTI) if f"{group}/pose" in names}
    classes = {int(match[2]): match[1] for name in names if (match := _CLASS_GROUP.match(name))}
    groups = tuple(classes[number] for number in sorted(classes))
    if groups:
        found[", ".join(groups)] = groups
        found |= {group: (group,) for group in groups}
    if f"{ALIGNED_2D}/pose" in names:
        found[ALIGNED_2D] = (ALIGNED_2D,)
    return found


def choose_alignment(names: Iterable[str], wanted: str | None, path: Path) -> tuple[str, tuple[str, ...]] | None:
    """Return the alignment to take and its groups; None where there is none.

    Raises
    ------
    UsageError
        If the one that is wanted is not there.
    """
    found = alignments_in(names)
    if wanted is not None and wanted not in found:
        raise UsageError(
            f"no alignment {wanted}",
            path=path,
            field=f"{wanted}/pose",
            hint=f"{option('pose_from')} takes {', or '.join(found)}."
            if found
            else "The file has no alignments at all.",
        )
    name = wanted if wanted is not None else next(iter(found), None)
    return None if name is None else (name, found[name])


class Alignment:
    """An alignment and its columns, whichever of cryoSPARC's groups hold them."""

    def __init__(self, columns: ColumnReader, source: str, groups: tuple[str, ...]) -> None:
        self.source = source
        self._columns = columns
        self._groups = groups
        self._best = self._best_of_several() if source == MULTI or len(groups) > 1 else None

    def _best_of_several(self) -> Array:
        """Return for each particle the place of its most probable class."""
        posterior = self._stack("class_posterior")
        if posterior is None:
            self._columns.note(
                "no-class-posterior", f"{self.source}: no class_posterior; the first class is taken for all"
            )
            return np.zeros(self._columns.n_rows, np.int64)
        self._columns.note(
            "most-probable-class", f"{self.source}: each particle's pose is that of its most probable class"
        )
        best: Array = np.argmax(posterior, axis=1)
        return best

    def _read(self, group: str, name: str) -> Array | None:
        """Return a sub-field as it stands, (n, …), or (n, K, …) where one group holds all classes."""
        shapes = ((),) if group == ALIGNED_2D and name == "pose" else _SHAPES.get(name, ((),))
        if group == MULTI:
            n_classes = max((1, *self._columns.shapes[f"{MULTI}/pose"][:1]))
            shapes = tuple((n_classes, *shape) for shape in shapes)
            # Which class is chosen does not change these.
            shapes = (*shapes, ()) if name in {"psize_A", "split"} else shapes
        return self._columns.get(f"{group}/{name}", shapes=shapes)

    def _stack(self, name: str) -> Array | None:
        """Return a sub-field for all classes, (n, K, …)."""
        parts = [self._read(group, name) for group in self._groups]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return known[0] if self.source == MULTI else np.stack(known, axis=1)

    def _get(self, name: str) -> Array | None:
        if self._best is None:
            return self._read(self._groups[0], name)
        values = self._stack(name)
        if values is None or values.ndim == 1:  # one value for all classes
            return values
        chosen: Array = values[np.arange(len(values)), self._best]
        return chosen

    @np.errstate(over="ignore", invalid="ignore")
    def poses(self, image_pixel_size_A: Floats | None) -> Poses:
        """Return matrices and shifts in ångström.

        Parameters
        ----------
        image_pixel_size_A
            (n,) of the images: what shifts are counted in where the alignment lacks it.
        """
        pose = self._get("pose")
        assert pose is not None  # the alignment was chosen by it
        is_2d = pose.ndim == 1
        if is_2d:
            flat = np.zeros(len(pose))
            matrix = euler_to_matrix(flat, flat, np.degrees(pose.astype(np.float64)))
        else:
            matrix = rotvec_to_matrix(pose)
        shift_px = self._get("shift")
        if shift_px is None:
            return Poses(matrix, None, self.source, is_2d)
        pixel_size: Array | None = self._get("psize_A")
        is_own = pixel_size is not None
        if pixel_size is None:
            pixel_size = image_pixel_size_A
            self._columns.note(
                "shifts-in-image-pixels", f"{self.source}: no psize_A; shifts are taken as pixels of the image"
            )
        if pixel_size is None or (not is_own and np.isnan(pixel_size).any()):
            self._columns.note(
                "shifts-left-out", f"{self.source}: no pixel size, so shifts in Å are unknown and left out"
            )
            return Poses(matrix, None, self.source, is_2d)
        # No pixels are 0 Å whatever their size.
        shift_A = np.where(shift_px == 0, 0.0, shift_px_to_A(shift_px, pixel_size))
        if (unknown := ~(pixel_size > 0) & shift_px.any(axis=1)).any():
            shift_A[unknown] = np.nan
            text = (
                f"{self.source}: psize_A is 0 for {counted(int(unknown.sum()), 'particle')}, "
                "whose shifts in Å are unknown"
            )
            self._columns.messages.append(warning("shift-pixel-size-zero", text))
        return Poses(matrix, shift_A, self.source, is_2d)

    def _field(self, name: str) -> Any:
        """Return a quantity of the set in the model's unit."""
        item = field(name)
        name = item.columns("cryosparc")[0].rpartition("/")[2]
        values = self._get(name)
        if values is None:
            return None
        if item.kind == "int":
            values = whole_numbers(self._columns, values, f"{self._groups[0]}/{name}")
        else:
            values = values.astype(np.float64)
        return values if item.cs_unit is None else item.cs_unit.to_model(values)

    def half_set(self) -> NDArray[np.int64] | None:
        """Return the half set, from 1; 2D jobs have none, whatever the column says."""
        found: NDArray[np.int64] | None = None if self.source == ALIGNED_2D else self._field("half_set")
        return found

    def class_number(self) -> NDArray[np.int64] | None:
        """Return the class, from 1; groups for one class each have its number in their names too."""
        number: NDArray[np.int64] | None = self._field("class_number")
        if number is not None:
            return number
        matches = [_CLASS_GROUP.match(f"{group}/pose") for group in self._groups]
        if not matches or not all(matches):
            return None
        numbers = np.array([int(match[2]) for match in matches if match], np.int64) + 1
        chosen: NDArray[np.int64] = numbers[np.zeros(self._columns.n_rows, int) if self._best is None else self._best]
        return chosen

    @np.errstate(over="ignore", invalid="ignore")
    def class_posterior(self) -> Floats | None:
        """Return the probability of the class."""
        posterior: Floats | None = self._field("class_posterior")
        return posterior
