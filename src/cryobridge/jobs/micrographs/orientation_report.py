"""What an orientation check found, for reports and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cryobridge.errors import CryobridgeError

if TYPE_CHECKING:
    from cryobridge.jobs.micrographs.orientation import OrientationCheck
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
