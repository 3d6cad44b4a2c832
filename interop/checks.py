"""Checks that print a line each, and the page that they end up on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WHAT, _FOUND = 76, 14


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    what: str
    found: str
    tolerance: str
    holds: bool


@dataclass
class Section:
    """Checks of one kind, and what has to be said about them."""

    title: str
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Checks:
    """Collects checks; each prints its line when it is made."""

    def __init__(self) -> None:
        self.sections: list[Section] = []

    def section(self, title: str) -> None:
        """Begin a new section."""
        self.sections.append(Section(title))
        say(f"\n{title}")

    def note(self, sentence: str) -> None:
        """Say something about the section."""
        self.sections[-1].notes.append(sentence)
        say(f"        {sentence}")

    def at_most(self, what: str, found: float, tolerance: float, unit: str = "") -> None:
        """Check a difference; one that is not a number does not hold."""
        holds = math.isfinite(found) and found <= tolerance
        self._add(what, _number(found, unit), f"at most {_number(tolerance, unit)}", holds)

    def at_least(self, what: str, found: float, bound: float) -> None:
        """Check a correlation."""
        self._add(what, f"{found:.6g}", f"at least {_number(bound)}", math.isfinite(found) and found >= bound)

    def equal(self, what: str, found: object, expected: object) -> None:
        """Check that a value is the expected one."""
        self._add(what, str(found), f"equals {expected}", found == expected)

    def same_rows(self, what: str, n_different: int, n_rows: int) -> None:
        """Check that none of so many rows is different; no rows at all are no proof."""
        self._add(what, f"{n_different} of {n_rows}", "0 differ", n_different == 0 and n_rows > 0)

    def stopped(self, why: str) -> None:
        """Note that the section could not be done to its end, or that none could be begun."""
        if not self.sections:
            self.section("What was to be checked")
        self._add(why, "stopped", "goes on", False)

    @property
    def all(self) -> Sequence[Check]:
        """Every check so far."""
        return [check for section in self.sections for check in section.checks]

    def _add(self, what: str, found: str, tolerance: str, holds: bool) -> None:
        self.sections[-1].checks.append(Check(what, found, tolerance, holds))
        say(f"  {'ok  ' if holds else 'FAIL'}  {what:{_WHAT}}  {found:>{_FOUND}}   {tolerance}")


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)  # noqa: T201


def _number(value: float, unit: str = "") -> str:
    return f"{value:.3g} {unit}".rstrip()
