"""Classes that are asked for and those that a file has, counted as its program shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_N_SHOWN = 20


def absent_classes(numbers: NDArray[np.integer[Any]], wanted: Iterable[int]) -> Message | None:
    """Return a warning of the wanted classes that no particle is of, with those that there are.

    Parameters
    ----------
    numbers
        (n,) the class of each particle.
    wanted
        Classes that are asked for.

    Returns
    -------
    Message or None
        None if all are there.
    """
    there = np.unique(numbers)
    absent = [number for number in wanted if number not in there]
    if not absent:
        return None
    shown = ", ".join(map(str, there[:_N_SHOWN])) + (" …" if len(there) > _N_SHOWN else "")
    text = f"no particle is of class {', '.join(map(str, absent))}; those of the file: {shown or 'none'}"
    return warning("absent-classes", text, option="classes")
