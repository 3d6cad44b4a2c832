"""What `coords` reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryobridge.jobs.micrographs.orientation_report import Orientation, OrientationError
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
    """

    micrographs: int
    micrographs_unmatched: tuple[str, ...]
    convention: str
    convention_words: str
    columns_inferred: bool
    coordinate_fields: tuple[str, str, str, str]
    relion_project: Path | None
    orientation: Orientation | None = None
    previews: tuple[Path, ...] = ()

    def require(self) -> None:
        """Raise where nothing was written because the orientation differs.

        Raises
        ------
        OrientationError
            If ``strict_orientation`` was asked for, and another axis convention fits.
        """
        if self.orientation is not None and not self.orientation.agrees and not self.outputs:
            raise OrientationError(
                "nothing is written: another axis convention fits RELION's micrographs",
                option="strict_orientation",
                hint="Choose the flips that fit, which the warning names.",
            )
