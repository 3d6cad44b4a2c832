"""What `coords` reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cryobridge.errors import CryobridgeError, option
from cryobridge.report import Message, Report, warning

if TYPE_CHECKING:
    from cryobridge.jobs.coords.orientation import OrientationCheck
    from cryobridge.model.convention import Convention


class OrientationError(CryobridgeError):
    """RELION's micrographs fit another axis convention than the one that was asked for."""

    exit_code: ClassVar[int] = 3


@dataclass(frozen=True)
class ConventionFit:
    """How well one axis convention fits.

    Parameters
    ----------
    convention
        As formulas.
    score
        Mean over the picks: a correlation, or a contrast in standard deviations; None without picks.
    particles
        Picks that were compared.
    """

    convention: str
    score: float | None
    particles: int


@dataclass(frozen=True)
class Orientation:
    """Which axis convention fits RELION's micrographs.

    Parameters
    ----------
    method
        What was compared: the extracted images, or the contrast around each pick.
    best
        The one that fits, as formulas; None where that is not sure.
    sigma
        Lead over the next one, in standard errors.
    sure
        Whether that is enough to decide.
    agrees
        Whether the one that was asked for is not contradicted.
    scores
        All eight, the best first.
    """

    method: Literal["images", "contrast"]
    best: str | None
    sigma: float
    sure: bool
    agrees: bool
    scores: tuple[ConventionFit, ...]


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


def orientation_of(check: OrientationCheck, chosen: Convention) -> Orientation:
    """Return an orientation check as it is reported."""
    return Orientation(
        method=check.method,
        best=check.best.formula if check.is_sure else None,
        sigma=round(check.sigma, 2),
        sure=check.is_sure,
        agrees=agrees(check, chosen),
        scores=tuple(
            ConventionFit(
                score.convention.formula, None if score.n_particles == 0 else round(score.score, 6), score.n_particles
            )
            for score in check.scores
        ),
    )


def agrees(check: OrientationCheck, chosen: Convention) -> bool:
    """Whether an orientation check does not contradict the axis convention that was asked for."""
    return not check.is_sure or check.best == chosen


def orientation_messages(check: OrientationCheck, chosen: Convention) -> list[Message]:
    """Return a warning where the check is uncertain, or finds another axis convention."""
    if not check.is_sure:
        return [warning("orientation-uncertain", "the images do not show which orientation is right")]
    if agrees(check, chosen):
        return []
    flips = [option(name) for name in check.best.flips]
    remedy = f"use {' '.join(flips)}" if flips else "leave the flips out"
    return [warning("orientation-differs", f"the micrographs fit {check.best.formula}: {remedy}")]
