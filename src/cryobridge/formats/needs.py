"""Which columns something needs, and which of them a table lacks.

A need is the name of a column. ``a|b`` means that one of them is enough, ``a+b`` that both are needed; a name that
ends in ``*`` stands for all that begin so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def missing_columns(needs: Iterable[str], have: Iterable[str]) -> tuple[str, ...]:
    """Return the needs that these columns don't meet."""
    names = tuple(have)
    return tuple(
        need
        for need in needs
        if not any(all(_is_there(name, names) for name in choice.split("+")) for choice in need.split("|"))
    )


def in_words(needs: Iterable[str]) -> tuple[str, ...]:
    """Return needs as people read them: the first of several that would do."""
    words = []
    for need in needs:
        first = need.split("|")[0].replace("+", " and ")
        words.append(f"{first} (or its like)" if "|" in need else first)
    return tuple(words)


def _is_there(name: str, have: tuple[str, ...]) -> bool:
    return any(other.startswith(name[:-1]) for other in have) if name.endswith("*") else name in have
