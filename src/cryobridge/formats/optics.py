"""Grouping particles by their optics, for files that hold optics values a particle."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.formats.arrow import arrow_codes, numbers_to_arrow
from cryobridge.formats.table import Array
from cryobridge.model.fields import FIELDS, Field, fields_of
from cryobridge.model.particles import Floats, Optics, ParticleSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# float32 pixel sizes are 1.3099979 for a nominal 1.31: groups are distinguished by this many significant digits.
_SIGNIFICANT_DIGITS = 6
_SMALLEST = 1e-290  # below, the scale would be beyond all numbers
_EXPOSURE_GROUP = re.compile(r"opticsGroup(\d{1,9})(?:_\d+)?")
# What the user types has fewer digits than what a file says.
_SAME_AS_TYPED = 1e-3
# 0 in these is no value, as where a program knew none.
_NEVER_ZERO = ("voltage_kV", "pixel_size_A", "box_px")


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


# What groups differ by, beside aberrations.
_VALUES = tuple(item.name for item in fields(Optics) if item.name not in {"group_id", "name", "aberrations"})
_OPTIONAL = {item.name for item in fields(Optics) if item.default is None}


def needed(*purposes: str) -> tuple[Field, ...]:
    """Return the optics values without which something can't be done: ``ctf``, ``image``."""
    return tuple(item for item in FIELDS if item.needed_for in purposes)


def fill_optics(
    optics: Optics | None, index: NDArray[np.int32] | None, n_rows: int, known: KnownOptics, path: Path
) -> tuple[Optics | None, NDArray[np.int32] | None]:
    """Put what the user says where a file lacks it.

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
                f"{option(name, f'{value:g}')} contradicts the file, which has {found:g}",
                path=path,
                hint=f"Leave out {option(name)}: it is for files that lack them.",
            )
        filled: dict[str, Any] = {name: np.where(is_absent, value, column).astype(column.dtype)}
        optics = replace(optics, **filled)
    return optics, index


def require_optics(particles: ParticleSet, rows: Iterable[Field], who: str = "") -> None:
    """Refuse particles of which an optics value is missing.

    Parameters
    ----------
    particles
        Whose optics groups are looked at; one that has no particle may lack values.
    rows
        The values, as `needed` returns them.
    who
        Who needs them, such as ``", which RELION needs"``.

    Raises
    ------
    MissingDataError
        If a value is missing.
    """
    absent = unknown_optics(particles, rows)
    if absent:
        titles = [item.title for item in absent]
        named = " and ".join([", ".join(titles[:-1]), titles[-1]] if len(titles) > 1 else titles)
        raise MissingDataError(
            f"{named} {'is' if len(absent) == 1 else 'are'} missing{_or_zero(particles, absent)}{who}",
            path=particles.source,
            hint=f"Give {', '.join(option(item.key, 'X') for item in absent)}, or the file that has "
            f"{'it' if len(absent) == 1 else 'them'}.",
        )


def _or_zero(particles: ParticleSet, absent: Iterable[Field]) -> str:
    """Say that a file has 0 for a value that is never 0."""
    zeros = [item for item in absent if item.key != "box_px" and _has_zeros(particles, item)]
    return " (0 in the file)" if zeros else ""


def _has_zeros(particles: ParticleSet, item: Field) -> bool:
    values = particles.get(item.name)
    return values is not None and bool((values <= 0).any())


def unknown_optics(
    particles: ParticleSet, rows: Iterable[Field], *, of: NDArray[np.int64] | None = None
) -> list[Field]:
    """Return which optics values are unknown for some particle; ``of`` are the rows that are looked at, all if None."""
    optics = None
    if particles.optics is not None and particles.optics_index is not None:
        index = particles.optics_index if of is None else particles.optics_index[of]
        optics = particles.optics.take(np.unique(index))
    return [item for item in rows if optics is None or _is_absent(optics, item.key).any()]


def _is_absent(optics: Optics, name: str) -> NDArray[np.bool_]:
    """Return for each group, (g,), whether the file does not say a value."""
    values = getattr(optics, name)
    absent: NDArray[np.bool_] = np.isnan(values)
    if name in _NEVER_ZERO:
        absent = absent | (values <= 0)
    return absent


@np.errstate(over="ignore", invalid="ignore")
def group_optics(
    n_rows: int, *, also: Iterable[Array] = (), **values: Array | None
) -> tuple[Optics, NDArray[np.int32]]:
    """Return one optics group for each distinct set of values, and each particle's group.

    Where one ``group_id`` goes with several sets of values, each set is a group of its own with the same id.

    Parameters
    ----------
    n_rows
        Number of particles.
    also
        Arrays (n, …) that distinguish groups too.
    values
        By name of the field of `Optics`, such as ``voltage_kV``: arrays (n,), or None where the file lacks it (NaN
        in the groups, 0 for whole numbers).

    Returns
    -------
    optics
        Groups ordered by id, then by the values.
    optics_index
        (n,) int32.
    """
    rows = [item for item in fields_of("optics") if item.kind != "text"]
    known = {item.key: column for item in rows if (column := values.get(item.key)) is not None}
    keys: list[Array] = [np.zeros(n_rows, np.int64), *known.values()]
    keys += [part for column in also for part in np.moveaxis(column.reshape(n_rows, column[:1].size or 1), 0, 1)]
    index = distinct_rows(keys)
    first = first_rows(index)
    groups = {name: column[first] for name, column in known.items()}
    group_id = groups.pop("group_id", np.zeros(len(first), np.int64))
    return optics_of(group_id.astype(np.int64), None, groups), index


def optics_of(group_id: NDArray[np.int64], name: tuple[str, ...] | None, values: Mapping[str, Array | None]) -> Optics:
    """Return optics groups.

    Parameters
    ----------
    group_id
        (g,).
    name
        Names of the groups; if not given, ``opticsGroup23`` for number 23, as RELION calls them.
    values
        By name of the field, (g,); None, or absent, where the file lacks it.
    """
    n = len(group_id)
    groups: dict[str, Any] = {}
    for item in fields_of("optics"):
        column, is_int = values.get(item.key), item.kind == "int"
        if column is not None:
            groups[item.key] = column.astype(np.int64 if is_int else np.float64)
        elif not item.is_coded and item.key not in _OPTIONAL:
            groups[item.key] = np.zeros(n, np.int64) if is_int else np.full(n, np.nan)
    return Optics(group_id=group_id, name=name or tuple(f"opticsGroup{number}" for number in group_id), **groups)


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


def distinct_optics(optics: Optics, also: Iterable[Any] = ()) -> NDArray[np.int32]:
    """Return for each optics group which of the distinct sets of values it has, (g,), whatever its name and number.

    Parameters
    ----------
    optics
        The groups.
    also
        Further values, (g,) numbers or texts, that distinguish groups.
    """
    columns: list[Array] = [np.zeros(len(optics), np.int64)]
    columns += [getattr(optics, name) for name in _VALUES if getattr(optics, name) is not None]
    if optics.aberrations is not None:
        parts = (getattr(optics.aberrations, item.name) for item in fields(optics.aberrations))
        columns += [column for part in parts for column in part.reshape(len(optics), -1).T]
    for values in also:
        column = np.asarray(values)
        columns.append(column if column.dtype.kind in "iuf" else np.unique(column.astype(str), return_inverse=True)[1])
    return distinct_rows(columns)


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
    """Return a name of its own for each optics group: ``krios_2`` for the second that is called ``krios``."""
    names = list(optics.name)
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


def has_exposure_groups(optics: Optics) -> bool:
    """Whether the names of all groups have cryoSPARC's numbers in them."""
    return bool(optics.group_id.any()) and all(map(_EXPOSURE_GROUP.fullmatch, optics.name))


def exposure_groups(optics: Optics) -> NDArray[np.int64]:
    """Return a number for each group, (g,), to be cryoSPARC's exposure group.

    It is cryoSPARC's own where `group_names` kept it, else the group's, else its place from 1: groups that a file does
    not number, as in RELION 3.0, stay apart.
    """
    if has_exposure_groups(optics):
        return np.array([int(match[1]) for match in map(_EXPOSURE_GROUP.fullmatch, optics.name) if match], np.int64)
    n = len(optics)
    return optics.group_id if len(np.unique(optics.group_id)) == n else np.arange(1, n + 1)
