"""Which rows of two particle files go together where one has several rows of a particle, such as symmetry copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.jobs.identity.match import match_rows

if TYPE_CHECKING:
    from cryobridge.jobs.identity.images import Rows
    from cryobridge.jobs.identity.match import Identities, Match
    from cryobridge.jobs.shared_options import PlaceOptions


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of two files that are the same particle; of a particle at most one of the files has several rows.

    Attributes
    ----------
    base, source
        (n,) the rows, in the order of the base and then of the source.
    match
        Of the rows of the source: how they were found.
    """

    base: Rows
    source: Rows
    match: Match


def pair_rows(source: Identities, base: Identities, places: PlaceOptions | None = None) -> Pairs:
    """Find all rows of two files that are the same particle.

    Parameters
    ----------
    source, base
        What the rows of the two files are known by.
    places
        How places are compared; None for not at all.

    Raises
    ------
    CryobridgeError
        If both have several rows of a particle, so that it can't be known which belongs to which.
    MissingDataError
        As `cryobridge.jobs.identity.match.match_rows`.

    Examples
    --------
    >>> pairs = pair_rows(identities_of(expanded), identities_of(particles))
    >>> pairs.base.tolist(), pairs.source.tolist()
    ([0, 0, 1, 1], [0, 2, 1, 3])
    """
    match = match_rows(source, base, places)
    of_source, of_base = np.flatnonzero(match.rows >= 0), np.flatnonzero(match.other_rows >= 0)
    if len(np.unique(match.rows[of_source])) == len(of_base):  # no row of the base but those that were found
        order = np.lexsort((of_source, match.rows[of_source]))
        return Pairs(match.rows[of_source][order], of_source[order], match)
    if len(np.unique(match.other_rows[of_base])) < len(of_source):
        raise CryobridgeError(
            f"it has several rows of a particle, and so has {base.path.name}: which belongs to which is not known",
            path=source.path,
            count=len(of_source),
            hint="Choose one row of each particle in one of them: `cryobridge select` does it.",
        )
    return Pairs(of_base, match.other_rows[of_base], match)
