"""What a conversion reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.report import Report

if TYPE_CHECKING:
    from cryobridge.jobs.convert.verify import Difference


@dataclass(frozen=True, kw_only=True)
class ConvertReport(Report):
    """What a conversion reads and writes.

    Parameters
    ----------
    inputs
        The files that were read.
    alignment
        The columns that the poses come from, such as ``alignments3D``; None where there are none.
    optics_groups
        Groups that have particles.
    coordinates
        The axis convention of the coordinates, as formulas; None where they stay as they are.
    dropped_columns
        Columns of the input that the output has no place for.
    links
        Links to stacks, or copies of them, that the output names.
    verified
        What was compared when the output was read back, and how far it is off; None where it was not.
    """

    inputs: tuple[Path, ...]
    alignment: str | None
    optics_groups: int
    coordinates: str | None
    dropped_columns: tuple[str, ...]
    links: int
    verified: tuple[Difference, ...] | None = None

    def require(self) -> None:
        """Raise where the output does not read back as the input.

        Raises
        ------
        CryobridgeError
            If rounding does not explain a difference.
        """
        from cryobridge.jobs.convert.verify import require_equal

        require_equal(self.verified or (), self.outputs[0])
