"""Optics groups and exposure groups of several files: united where they are the same, renumbered where not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.formats.cryosparc.particles import optics_of_table
from cryobridge.model.particles import Aberrations, Optics
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cryobridge.formats.table import Table

_DIGITS = 6
_N_NAMED = 3


@dataclass
class Numbering:
    """Numbers for groups of several files, one file after the other.

    Attributes
    ----------
    number_of
        The number of each group that is known, by what makes it this group.
    taken
        Numbers that are in use.
    n_united, n_renumbered
        How many groups were those of an earlier file, and how many got another number.
    """

    number_of: dict[Hashable, int] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    n_united: int = 0
    n_renumbered: int = 0

    def of_file(self, groups: Mapping[int, Hashable]) -> dict[int, int]:
        """Return the new number of each group of a file by the old one.

        Parameters
        ----------
        groups
            What makes a group this one, by its number.
        """
        new = {old: self.number_of[key] for old, key in groups.items() if key in self.number_of}
        self.n_united += len(new)
        fresh: dict[Hashable, int] = {}
        for old, key in groups.items():
            if old in new:
                continue
            new[old] = old if old not in self.taken else max(self.taken | set(groups) | set(new.values())) + 1
            self.n_renumbered += new[old] != old
            self.taken.add(new[old])
            fresh[key] = new[old]
        # Groups of one file stay apart even if they are equal.
        self.number_of = {**fresh, **self.number_of}
        return new


def exposure_groups_of(
    tables: Sequence[Table], labels: Sequence[str], names: Collection[str]
) -> tuple[list[dict[int, int]], list[Message]]:
    """Return for each cryoSPARC table the new number of an exposure group by the old one, and what is to be said.

    Groups of two files are one if they have the same number and the same optics values in the named columns, to six
    digits.
    """
    numbering, found = Numbering(), []
    renumbered: list[str] = []
    for table, label in zip(tables, labels, strict=True):
        of_number: dict[int, set[tuple[str, ...]]] = defaultdict(set)
        optics = optics_of_table(table, names)
        if optics is not None:
            for group, number in enumerate(optics.group_id.tolist()):
                of_number[number].add(_values_of(optics, group))
        keys: dict[int, Hashable] = {}
        for number, values in of_number.items():
            # A file may have some only of the values that a group has in another file.
            known = next((key for key in numbering.number_of if _is_same(key, number, values)), None)
            keys[number] = known if known is not None else (number, frozenset(values))
        new = numbering.of_file(keys)
        renumbered += [label] if any(old != number for old, number in new.items()) else []
        found.append(new)
    if not numbering.n_renumbered:
        return found, []
    text = (
        f"{numbering.n_renumbered:,} exposure groups of {', '.join(renumbered[:_N_NAMED])} have a new number: "
        "groups of the same number have other values"
    )
    return found, [note("exposure-groups-renumbered", text)]


def _is_same(key: Any, number: int, values: set[tuple[str, ...]]) -> bool:
    return bool(key[0] == number and (values <= key[1] or key[1] <= values))


def _values_of(optics: Optics, group: int) -> tuple[str, ...]:
    """Return the values of a group as texts of six digits."""
    columns = [getattr(optics, item.name) for item in fields(Optics) if item.name not in _NO_VALUES]
    bent = optics.aberrations or Aberrations.none(len(optics))
    columns += [getattr(bent, item.name) for item in fields(Aberrations)]
    return tuple(rounded(value) for column in columns if column is not None for value in np.ravel(column[group]))


_NO_VALUES = ("group_id", "name", "aberrations")


def rounded(value: Any) -> str:
    """Return a value as it is compared: numbers to six digits, texts as they stand."""
    return f"{value + 0.0:.{_DIGITS}g}" if isinstance(value, int | float | np.number) else str(value)
