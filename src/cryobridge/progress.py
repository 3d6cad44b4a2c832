"""How work reports its progress; silent unless somebody listens."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Whom the work talks to. The terminal's one lives in `cryobridge.cli`."""

    def start(self, what: str, total: int | None) -> None:
        """Say that a piece of work of ``total`` steps begins; None where their number is not known."""

    def advance(self, steps: int = 1) -> None:
        """Say that so many steps are done."""

    def now(self, part: str) -> None:
        """Say which part of the work is in hand, in a few words."""

    def note(self, message: str) -> None:
        """Show the user something worth knowing."""


class Silent:
    """The reporter that says nothing."""

    def start(self, what: str, total: int | None) -> None:
        """Ignore the beginning."""

    def advance(self, steps: int = 1) -> None:
        """Ignore the steps."""

    def now(self, part: str) -> None:
        """Ignore the part."""

    def note(self, message: str) -> None:
        """Ignore the note."""
