"""One row a particle of sets that have several: copies by symmetry expansion, or rows of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.particle_files import EXPANDED, PARENT_UID, Rows
from cryobridge.formats.ranking import Ranking, ranking_of
from cryobridge.formats.table import ColumnReader
from cryobridge.jobs.identity.records import recorded_images
from cryobridge.jobs.selection.report import CollapseReport
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles

_COPY = f"{EXPANDED}/idx"
_FIRST = "the first copy"


@dataclass(frozen=True, eq=False)
class Collapsed:
    """Which copy of each particle stays.

    Attributes
    ----------
    kept
        (n,) whether a row stays.
    uid
        (n,) the uid of the particle that a row is a copy of; None where the file does not say.
    report
        How many particles there are, and what decided.
    messages
        The same for the user, and what becomes of uids and poses.
    """

    kept: NDArray[np.bool_]
    uid: NDArray[np.uint64] | None
    report: CollapseReport
    messages: tuple[Message, ...]


def collapse(particles: ParticleFiles, kept: NDArray[np.bool_], *, first: bool) -> Collapsed:
    """Choose one of the rows that are copies of one particle: the best, or the first.

    Copies are known by ``sym_expand/src_uid`` in cryoSPARC files that have it, and elsewhere by the image, or by the
    one that it was made from (``rlnImageOriginalName``). Of equally
    good copies the one of the lowest ``sym_expand/idx`` stays, then the first in the file.

    Parameters
    ----------
    particles
        The file.
    kept
        (n,) the rows that are chosen among.
    first
        Take the first copy, whatever the scores.

    Raises
    ------
    MissingDataError
        If no row is known to be a copy of another.
    """
    uid = particles.parent_uid()
    parent = _numbered(particles, uid)
    rows = np.flatnonzero(kept)
    ranking = _ranking(particles, parent, kept, first=first)
    copy = _copy_numbers(particles, parent, are_numbered=uid is not None)
    # The last key counts most: copies of one particle lie together, the best one first.
    order = rows[np.lexsort((copy[rows], -ranking.score[rows], parent[rows]))]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = parent[order[1:]] != parent[order[:-1]]
    best = order[starts]
    stays = np.zeros(len(kept), dtype=bool)
    stays[best] = True
    score = ranking.score[order]
    ties = 0 if first else int(np.count_nonzero(starts[:-1] & ~starts[1:] & (score[1:] == score[:-1])))
    report = CollapseReport(
        rows=len(rows),
        particles=len(best),
        by=ranking.column or _FIRST,
        ties=ties,
        other_copies=int(np.count_nonzero(copy[best] > 0)),
    )
    return Collapsed(stays, uid, report, tuple(_messages(report, ranking, has_parents=uid is not None)))


def _numbered(particles: ParticleFiles, uid: NDArray[np.uint64] | None) -> Rows:
    """Return the same number for the copies of one particle, (n,).

    Raises
    ------
    MissingDataError
        If no row is known to be a copy of another.
    """
    if uid is not None:
        of_uid: Rows = np.unique(uid, return_inverse=True)[1].astype(np.int64)
        return of_uid
    n = len(particles)
    # Copies of a part of a map that were extracted have images of their own.
    for images in (particles.images(), recorded_images(particles)):
        if images is None:
            continue
        width = int(images.index.max(initial=0)) + 1
        key = images.path.codes.astype(np.int64) * width + images.index
        # A row without an image is no copy of another one.
        key = np.where(images.index >= 0, key, -1 - np.arange(n))
        parent: Rows = np.unique(key, return_inverse=True)[1].astype(np.int64)
        if parent.max(initial=-1) + 1 < n:
            return parent
    why = "" if particles.program == "relion" else f"there is no {PARENT_UID} in it, and "
    raise MissingDataError(
        f"no row is a copy of another: {why}no image stands twice",
        path=particles.metadata,
        hint=f"{option('collapse', True)} is for symmetry-expanded sets.",
    )


def _copy_numbers(particles: ParticleFiles, parent: Rows, *, are_numbered: bool) -> Rows:
    """Return which copy of its particle each row is, (n,), from 0: as the file says, else in its order."""
    if are_numbered:
        numbers: Rows | None = ColumnReader(particles.columns).integers(_COPY)
        if numbers is not None:
            return numbers
    order = np.argsort(parent, kind="stable")
    starts = np.flatnonzero(np.diff(parent[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    copy = np.empty(len(order), dtype=np.int64)
    copy[order] = np.arange(len(order)) - np.repeat(starts, lengths)
    return copy


def _ranking(particles: ParticleFiles, parent: NDArray[np.int64], kept: NDArray[np.bool_], *, first: bool) -> Ranking:
    alike = Ranking(np.zeros(len(particles)), "")
    if first:
        return alike
    return ranking_of(particles, np.where(kept, parent, -1 - np.arange(len(parent))))


def _messages(report: CollapseReport, ranking: Ranking, *, has_parents: bool) -> list[Message]:
    messages = []
    if ranking.column:
        messages.append(ranking.message)
    elif report.ties:
        text = (
            f"no column says which of the copies of {counted(report.ties, 'particle')} is the "
            "best: the first of them stays"
        )
        messages.append(warning("copies-not-ranked", text, option="collapse"))
    if report.ties and ranking.column:
        text = (
            f"{counted(report.ties, 'particle has', 'particles have')} several copies with the best "
            f"{report.by}: the first of them stays"
        )
        messages.append(note("scores-equal", text, option="collapse"))
    if has_parents:
        text = f"rows get the uid of the particle that they are copies of ({PARENT_UID}); {EXPANDED}/* is left out"
        messages.append(note("uid-of-parent", text, option="collapse"))
    if report.other_copies:
        text = (
            f"{counted(report.other_copies, 'row is another copy', 'rows are other copies')} than the first: "
            "poses are turned by an operator of "
            "the symmetry"
        )
        messages.append(warning("pose-of-copy", text, option="collapse"))
    return messages
