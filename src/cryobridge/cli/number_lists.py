"""Lists of numbers as they are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_RANGE = 100_000


def parse_numbers(texts: Iterable[str], option: str) -> tuple[int, ...]:
    """Return the numbers of ``0,3`` or ``0-2,5``, ascending; of an option that was given several times, all of them.

    Raises
    ------
    UsageError
        If one is no such list.
    """
    numbers: set[int] = set()
    for text in texts:
        for part in text.split(","):
            first, dash, last = (piece.strip() for piece in part.partition("-"))
            bounds = (first, last) if dash else (first, first)
            if not all(bound.isdecimal() and len(bound) < 10 for bound in bounds) or int(bounds[0]) > int(bounds[1]):
                raise UsageError(
                    f"{option} {text}: {part.strip() or 'nothing'!r} is no number from 0 on",
                    hint=f"Write numbers with commas between them: {option} 0,3 or {option} 0-2,5.",
                )
            if int(bounds[1]) - int(bounds[0]) > _LONGEST_RANGE:
                raise UsageError(
                    f"{option} {text}: {part.strip()} is too long a range",
                    hint=f"A range has {_LONGEST_RANGE:,} numbers at most.",
                )
            numbers.update(range(int(bounds[0]), int(bounds[1]) + 1))
    return tuple(sorted(numbers))
