"""What `coords` reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryobridge.formats.particle_files import FromAncestor
from cryobridge.jobs.micrographs.orientation_report import Orientation
from cryobridge.jobs.micrographs.placement import contradiction
from cryobridge.report import Report


@dataclass(frozen=True, kw_only=True)
class CoordsReport(Report):
    """What `coords` reads and writes.

    Parameters
    ----------
    micrographs
        Those that have picks.
    micrographs_unmatched
        cryoSPARC's names that are not in the STAR file.
    convention, convention_words
        The axis convention of the coordinates, as formulas and in words.
    convention_from
        Where it is from: options that set it by hand, the pixels of RELION's micrographs, or the default.
    columns_inferred
        Whether the columns of the coordinates were found by their content, not by names.
    coordinate_fields
        The columns of micrograph, its shape, x and y.
    relion_project
        The folder that paths in the list of pick files start from; None for the working directory.
    orientation
        Where it was checked.
    previews
        The pictures.
    from_ancestors
        Columns that were fetched from jobs that the picks come from.
    set_by_hand
        The options that set the axis convention.
    """

    micrographs: int
    micrographs_unmatched: tuple[str, ...]
    convention: str
    convention_words: str
    convention_from: Literal["options", "pixels", "default"]
    columns_inferred: bool
    coordinate_fields: tuple[str, str, str, str]
    relion_project: Path | None
    orientation: Orientation | None = None
    previews: tuple[Path, ...] = ()
    from_ancestors: tuple[FromAncestor, ...] = ()
    set_by_hand: tuple[str, ...] = field(default=(), metadata={"json": None})

    def require(self) -> None:
        """Raise where nothing was written because the orientation differs.

        Raises
        ------
        OrientationError
            If the pixels of RELION's micrographs contradict what was set by hand, and ``force`` was not given.
        """
        if self.orientation is not None and not self.orientation.agrees and not self.outputs:
            raise contradiction(self.set_by_hand)
