"""Classes that are asked for and those that a file has, counted as its program shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_N_SHOWN = 20


def absent_classes(numbers: NDArray[np.integer[Any]], wanted: Iterable[int]) -> str | None:
    """Say which of the wanted classes no particle is of, and which there are.

    Parameters
    ----------
    numbers
        (n,) the class of each particle.
    wanted
        Classes that are asked for.

    Returns
    -------
    str or None
        A sentence without full stop; None if all are there.
    """
    there = np.unique(numbers)
    absent = [number for number in wanted if number not in there]
    if not absent:
        return None
    shown = ", ".join(map(str, there[:_N_SHOWN])) + (" …" if len(there) > _N_SHOWN else "")
    return f"no particle is of class {', '.join(map(str, absent))}; those of the file: {shown or 'none'}"
