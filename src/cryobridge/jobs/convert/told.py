"""What the user is told of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.report import Message


@dataclass
class Told:
    """Sentences for the user, without full stops, collected while a conversion is planned.

    Parameters
    ----------
    notes
        What was joined, made or taken: good to know, nothing to do.
    warnings
        What may make the output wrong or unusable if nobody acts on it: values that were guessed, parts that are
        missing, names and images that the other program can't take as they are.
    """

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, messages: Iterable[Message]) -> None:
        """Add messages by their severity."""
        for message in messages:
            (self.notes if message.severity == "note" else self.warnings).append(str(message))
