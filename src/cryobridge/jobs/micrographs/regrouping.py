"""Micrographs and particles in other optics groups."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cryobridge.formats.optics import distinct_optics, distinct_rows, first_rows, group_names, group_optics
from cryobridge.model.micrographs import MicrographSet
from cryobridge.model.particles import ParticleSet
from cryobridge.report import counted, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cryobridge.report import Message

Set = TypeVar("Set", MicrographSet, ParticleSet)


def with_groups(rows: Set, group: NDArray[np.int32], names: Sequence[str]) -> tuple[Set, list[Message]]:
    """Return micrographs or particles in new optics groups, each with the values that it had.

    A group whose members had other values, such as voltage or pixel size, becomes a group for each set of values.

    Parameters
    ----------
    rows
        Micrographs or particles.
    group
        (n,) the new group of each.
    names
        Names of the new groups.

    Returns
    -------
    tuple
        The same in groups numbered from 1, and what may be wrong.
    """
    optics, index = rows.optics, rows.optics_index
    if optics is None or index is None:
        optics, index = group_optics(len(group))
    values = distinct_optics(optics, () if rows.extra is None else tuple(rows.extra.optics.values()))
    new = distinct_rows([group.astype(np.int64), values[index].astype(np.int64)])
    first = first_rows(new)
    old = index[first].astype(np.int64)
    of_new = group[first]
    merged = replace(
        optics.take(old),
        group_id=np.arange(1, len(first) + 1),
        name=tuple(names[number] for number in of_new.tolist()),
    )
    merged = replace(merged, name=tuple(group_names(merged)))
    messages: list[Message] = []
    n_groups = len(np.unique(of_new))
    if len(first) > n_groups:
        text = (
            f"{counted(n_groups, 'optics group')} became {len(first):,}: values such as voltage, pixel size or "
            "aberrations differ within them"
        )
        messages.append(warning("optics-groups-split", text))
    extra = rows.extra
    if extra is not None and extra.optics:
        extra = replace(extra, optics={name: np.asarray(column)[old] for name, column in extra.optics.items()})
    return replace(rows, optics=merged, optics_index=new, extra=extra), messages
