"""Grouping particles by their optics, for files that hold optics values a particle."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.formats.arrow import arrow_codes, numbers_to_arrow
from cryobridge.formats.table import Array
from cryobridge.model.particles import Floats, Optics, ParticleSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# float32 pixel sizes are 1.3099979 for a nominal 1.31: groups are told apart by this many significant digits.
_SIGNIFICANT_DIGITS = 6
_SMALLEST = 1e-290  # below, the scale would be beyond all numbers
# What the user types has fewer digits than what a file says.
_SAME_AS_TYPED = 1e-3


@dataclass(frozen=True)
class KnownOptics:
    """What the user says of files that don't; None for nothing."""

    voltage_kV: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None
    pixel_size_A: float | None = None
    box_px: int | None = None

    @property
    def values(self) -> dict[str, float]:
        """What is said, by the name of the field of `Optics`."""
        return {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) is not None}


# The option by which each value is given to a command.
OPTICS_OPTIONS = {
    "voltage_kV": "--voltage",
    "spherical_aberration_mm": "--cs",
    "amplitude_contrast": "--amplitude-contrast",
    "pixel_size_A": "--pixel-size",
    "box_px": "--box",
}

OPTICS_WORDS = {
    "voltage_kV": "voltage",
    "spherical_aberration_mm": "spherical aberration",
    "amplitude_contrast": "amplitude contrast",
    "pixel_size_A": "pixel size",
    "box_px": "box",
}


def fill_optics(
    optics: Optics | None, index: NDArray[np.int32] | None, n_rows: int, known: KnownOptics, path: Path
) -> tuple[Optics | None, NDArray[np.int32] | None]:
    """Put what the user says where a file says nothing.

    Parameters
    ----------
    optics, index
        As the file has them; None where it has none.
    n_rows
        Number of particles.
    known
        What the user says.
    path
        The file, for the message.

    Raises
    ------
    UsageError
        If the file says something else.
    """
    if not known.values:
        return optics, index
    if optics is None or index is None:
        optics, index = group_optics(n_rows)
    for name, value in known.values.items():
        column = getattr(optics, name)
        is_absent = _is_absent(optics, name)
        differs = ~is_absent & ~(np.abs(column - value) <= _SAME_AS_TYPED * np.abs(column))
        if differs.any():
            found = column[differs][0]
            raise UsageError(
                f"{OPTICS_OPTIONS[name]} {value:g} contradicts the file, which has {found:g}",
                path=path,
                hint=f"Leave out {OPTICS_OPTIONS[name]}: it is for files that don't say.",
            )
        filled: dict[str, Any] = {name: np.where(is_absent, value, column).astype(column.dtype)}
        optics = replace(optics, **filled)
    return optics, index


def require_optics(particles: ParticleSet, needed: Mapping[str, str], who: str = "") -> None:
    """Refuse particles of which the file does not say an optics value.

    Parameters
    ----------
    particles
        Whose optics groups are looked at; one that has no particle may lack values.
    needed
        Names of fields of `Optics`, and what each is called in the message.
    who
        Who needs them, such as ``", which RELION needs"``.

    Raises
    ------
    MissingDataError
        If a value is absent.
    """
    optics = None
    if particles.optics is not None and particles.optics_index is not None:
        optics = particles.optics.take(np.unique(particles.optics_index))
    absent = [name for name in needed if optics is None or _is_absent(optics, name).any()]
    if absent:
        raise MissingDataError(
            f"nothing says {', '.join(needed[name] for name in absent)}{who}",
            path=particles.source,
            hint=f"Give {', '.join(f'{OPTICS_OPTIONS[name]} X' for name in absent)}, or the file that has them.",
        )


def _is_absent(optics: Optics, name: str) -> NDArray[np.bool_]:
    """Return for each group, (g,), whether the file does not say a value."""
    values = getattr(optics, name)
    absent: NDArray[np.bool_] = values < 1 if name == "box_px" else np.isnan(values)
    return absent


@np.errstate(over="ignore", invalid="ignore")
def group_optics(
    n_rows: int,
    *,
    group_id: Array | None = None,
    voltage_kV: Array | None = None,
    spherical_aberration_mm: Array | None = None,
    amplitude_contrast: Array | None = None,
    pixel_size_A: Array | None = None,
    box_px: Array | None = None,
    micrograph_pixel_size_A: Array | None = None,
    movie_pixel_size_A: Array | None = None,
    also: Iterable[Array] = (),
) -> tuple[Optics, NDArray[np.int32]]:
    """Return one optics group for each distinct set of values, and each particle's group.

    Parameters are (n,) arrays, or None where the file does not say (NaN in the groups, 0 for the box). Where one
    ``group_id`` goes with several sets of values, each set is a group of its own with the same id. What is in
    ``also``, arrays (n, …), tells groups apart too.

    Returns
    -------
    optics
        Groups ordered by id, then by the values.
    optics_index
        (n,) int32.
    """
    ids = np.zeros(n_rows, np.int64) if group_id is None else group_id
    boxes = np.zeros(n_rows, np.int64) if box_px is None else box_px
    lens = (voltage_kV, spherical_aberration_mm, amplitude_contrast, pixel_size_A)
    sizes = (micrograph_pixel_size_A, movie_pixel_size_A)
    keys: list[Array] = [ids, *(column for column in (*lens, *sizes) if column is not None), boxes]
    keys += [part for column in also for part in np.moveaxis(column.reshape(n_rows, column[:1].size or 1), 0, 1)]
    index = distinct_rows(keys)
    first = first_rows(index)

    def of(column: Array | None) -> Floats:
        return np.full(len(first), np.nan) if column is None else column[first].astype(np.float64)

    group_ids = ids[first].astype(np.int64)
    optics = Optics(
        group_ids,
        tuple(str(number) for number in group_ids),
        of(voltage_kV),
        of(spherical_aberration_mm),
        of(amplitude_contrast),
        of(pixel_size_A),
        box_px=boxes[first].astype(np.int64),
        micrograph_pixel_size_A=None if sizes[0] is None else of(sizes[0]),
        movie_pixel_size_A=None if sizes[1] is None else of(sizes[1]),
    )
    return optics, index


def distinct_rows(columns: list[Array]) -> NDArray[np.int32]:
    """Return for each row which of the distinct combinations of values it has, (n,), in the order of the values.

    Parameters
    ----------
    columns
        Arrays (n,); NaN equals NaN, and floats are compared by `_SIGNIFICANT_DIGITS` digits.
    """
    code: NDArray[np.int64] = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        if not np.array_equal(column[:-1], column[1:], equal_nan=column.dtype.kind == "f"):
            own = _codes(column)
            code = _codes(code * (int(own.max()) + 1) + own)
    return code.astype(np.int32)


def first_rows(index: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the first row of each group, (g,), of groups that are numbered from 0 without a gap."""
    first = np.zeros(int(index.max(initial=-1)) + 1, np.int64)
    first[index[::-1]] = np.arange(len(index) - 1, -1, -1)
    return first


@np.errstate(over="ignore", invalid="ignore")
def _codes(values: Array) -> NDArray[np.int64]:
    """Return the rank of each value among the distinct ones, (n,).

    Values are hashed first, which is linear, and only the distinct ones are rounded and sorted.
    """
    if values.dtype == np.float16:  # which Arrow does not hash
        values = values.astype(np.float32)
    codes = arrow_codes(numbers_to_arrow(values).dictionary_encode().indices)
    found = values[first_rows(codes)]
    key = _rounded(found.astype(np.float64)) if found.dtype.kind == "f" else found
    rank = np.unique(key, return_inverse=True)[1].astype(np.int64)
    ranks: NDArray[np.int64] = rank[codes]
    return ranks


def _rounded(values: Floats) -> Floats:
    """Round to `_SIGNIFICANT_DIGITS` significant digits."""
    magnitude = np.where(np.isfinite(values) & (values != 0), np.abs(values), 1.0).clip(_SMALLEST)
    scale = 10.0 ** (_SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(magnitude)))
    rounded: Floats = np.round(values * scale) / scale
    return rounded + 0.0


def group_names(optics: Optics) -> list[str]:
    """Return a name of its own for each optics group; one that is a number becomes ``opticsGroup23``."""
    names = [f"opticsGroup{name}" if name.isdigit() else name for name in optics.name]
    seen: Counter[str] = Counter()
    taken = set(names)
    for place, name in enumerate(names):
        seen[name] += 1
        while seen[name] > 1 and f"{name}_{seen[name]}" in taken:
            seen[name] += 1
        if seen[name] > 1:
            names[place] = f"{name}_{seen[name]}"
            taken.add(names[place])
    return names


def exposure_groups(optics: Optics) -> NDArray[np.int64]:
    """Return a number for each group, (g,), to be cryoSPARC's exposure group.

    It is cryoSPARC's own where `group_names` kept it, else the group's, else its place from 1: groups that a file does
    not number, as in RELION 3.0, stay apart.
    """
    matches = [re.fullmatch(r"opticsGroup(\d{1,9})(?:_\d+)?", name) for name in optics.name]
    if all(matches):
        return np.array([int(match[1]) for match in matches if match], np.int64)
    n = len(optics)
    return optics.group_id if len(np.unique(optics.group_id)) == n else np.arange(1, n + 1)
