"""The score by which rows of particle files are ranked, where of several rows the best one is to stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.cryosparc.alignments import ALIGNED_2D, ALIGNED_3D, MULTI
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Array, Table
    from cryobridge.model.particles import Floats

# How sure the last job was of a particle comes first, then how well it agrees, then how well it was picked.
_RELION = ("rlnMaxValueProbDistribution", "rlnLogLikeliContribution", "rlnAutopickFigureOfMerit")
_CRYOSPARC = (
    *(f"{group}/class_posterior" for group in (ALIGNED_3D, MULTI, ALIGNED_2D)),
    *(f"{group}/error" for group in (ALIGNED_3D, ALIGNED_2D)),
    "pick_stats/ncc_score",
)
# What sets in memory have of these themselves.
_HELD = {"/class_posterior": "class_posterior", "/ncc_score": "pick_score", "rlnAutopickFigureOfMerit": "pick_score"}
_LESS_IS_BETTER = "/error"


@dataclass(frozen=True, eq=False)
class Ranking:
    """How good each row is.

    Attributes
    ----------
    score
        (n,) the higher the better; -inf where it is not known, 0 for all where no column says.
    column
        The column that it is of; empty where none says.
    """

    score: Floats
    column: str

    @property
    def order(self) -> NDArray[np.int64]:
        """The rows from the best one down, (n,); equal ones in the order of the file."""
        return np.argsort(-self.score, kind="stable")

    @property
    def message(self) -> Message:
        """By what rows are ranked."""
        if not self.column:
            return note("ranked-by-row", "no column says how good a particle is: the first row counts as the best")
        better = "least" if self.column.endswith(_LESS_IS_BETTER) else "largest"
        return note("ranked-by", f"the best particle is the one of the {better} {self.column}")


def ranking_of(particles: ParticleFiles, among: NDArray[np.int64] | None = None) -> Ranking:
    """Return how good each row of particle files is.

    It is the first column that has different values of: in a STAR file rlnMaxValueProbDistribution,
    rlnLogLikeliContribution and rlnAutopickFigureOfMerit; in a `.cs` file ``class_posterior`` of ``alignments3D``,
    ``alignments3D_multi`` (of the most probable class) and ``alignments2D``, ``error`` of ``alignments3D`` and
    ``alignments2D`` (the less the better), and ``pick_stats/ncc_score``.

    Parameters
    ----------
    particles
        The files.
    among
        (n,) the same number for rows that are ranked among each other: a column counts that has different values for
        some of these. All rows if not given.
    """
    for name, values in _scores(particles):
        if values is None:
            continue
        score = -values if name.endswith(_LESS_IS_BETTER) else values
        score = np.where(np.isnan(score), -np.inf, score)
        if _differ(score, among):
            return Ranking(score, name)
    return Ranking(np.zeros(len(particles)), "")


def _differ(score: Floats, among: NDArray[np.int64] | None) -> bool:
    if among is None:
        return bool((score != score[:1]).any())
    order = np.argsort(among, kind="stable")
    ordered, numbers = score[order], among[order]
    return bool(((ordered[1:] != ordered[:-1]) & (numbers[1:] == numbers[:-1])).any())


def _scores(particles: ParticleFiles) -> Iterator[tuple[str, Floats | None]]:
    """Yield the columns that may rank rows; of a set in memory what the model has of them, else those of its file."""
    names = _RELION if particles.program == "relion" else _CRYOSPARC
    if particles.table is not None:
        for name in names:
            yield name, _numbers(particles.table, name)
        return
    try:
        table: Table | None = particles.columns
    except CryobridgeError:  # it is of no file
        table = None
    for name in names:
        held = next((each for column, each in _HELD.items() if name.endswith(column)), None)
        values = None if held is None else particles.particles.get(held)
        yield name, _numbers(table, name) if values is None and table is not None else values


def _numbers(table: Table, name: str) -> Floats | None:
    values = table.read([name])[name] if name in table else None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        return None
    wide: Array = values.astype(np.float64)
    return wide if wide.ndim == 1 else wide.max(axis=tuple(range(1, wide.ndim)), initial=-np.inf)
