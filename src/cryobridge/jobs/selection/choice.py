"""The rows that are left, while one request after the other is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.report import counted

if TYPE_CHECKING:
    from pathlib import Path

Mask: TypeAlias = NDArray[np.bool_]


@dataclass
class Choice:
    """The rows of a file that are left, (n,), and how many are left out for which reason."""

    path: Path

    kept: Mask
    left_out: dict[str, int] = field(default_factory=dict)

    def keep(self, fulfil: Mask, reason: str) -> None:
        """Leave out the rows that don't fulfil a request."""
        lost = int(np.count_nonzero(self.kept & ~fulfil))
        if lost:
            self.left_out[reason] = self.left_out.get(reason, 0) + lost
        self.kept = self.kept & fulfil

    def invert(self, possible: Mask) -> None:
        """Keep the others of the rows that could be written."""
        n_chosen = int(np.count_nonzero(self.kept))
        self.kept, self.left_out = possible & ~self.kept, {"chosen, and the others are kept": n_chosen}

    def draw(self, n_wanted: int, seed: int) -> None:
        """Keep the rows with the smallest random numbers, so that fewer rows of one seed are among more of them.

        Raises
        ------
        CryobridgeError
            If fewer rows are left.
        """
        rows = np.flatnonzero(self.kept)
        if n_wanted > len(rows):
            raise CryobridgeError(
                f"{counted(n_wanted, 'row is', 'rows are')} to be drawn, {len(rows):,} are there",
                path=self.path,
                option="random",
                hint="Ask for fewer.",
            )
        numbers = np.random.Generator(np.random.PCG64(seed)).random(len(rows))
        drawn = np.zeros(len(self.kept), dtype=bool)
        drawn[rows[np.argsort(numbers, kind="stable")[:n_wanted]]] = True
        self.keep(drawn, "not drawn")

    def refuse_empty(self, *reasons: str) -> None:
        """Refuse that no row is left; ``reasons`` are what else is said of it."""
        if self.kept.any():
            return
        counts = [f"{count:,} {reason}" for reason, count in self.left_out.items() if count]
        raise MissingDataError(
            f"no row is left to write ({'; '.join([*counts, *reasons]) or 'the file has none'})",
            path=self.path,
            hint=f"Ask for less; {option('allow_empty', True)} writes a file without rows.",
        )
