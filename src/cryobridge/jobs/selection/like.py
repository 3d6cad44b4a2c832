"""The particles of a file that another file has too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.jobs.identity.match import identities_of, match_rows
from cryobridge.jobs.identity.report import Matched, matched
from cryobridge.report import Message, counted, note

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.jobs.shared_options import MatchOptions


def rows_like(
    particles: ParticleFiles, other: ParticleFiles, options: MatchOptions
) -> tuple[NDArray[np.bool_], Matched, list[Message]]:
    """Return which rows the other file has too, (n,), how they were compared, and messages.

    Raises
    ------
    CryobridgeError
        As `match_rows`.
    """
    ours, theirs = (identities_of(each, options.sources) for each in (particles, other))
    match = match_rows(ours, theirs, options)
    by = note("rows-compared-by", f"particles are compared by {match.by}", option="like")
    messages = [*other.messages, *match.messages, by]
    found = matched(match, other.path.name)
    if found.other_rows_left_over:
        count = f"{found.other_rows_left_over:,} of {counted(len(other), 'row')}"
        text = (
            f"{count} of {other.path.name} {'is' if found.other_rows_left_over == 1 else 'are'} not "
            f"in {particles.metadata.name}"
        )
        messages.append(note("rows-not-in-both", text, option="like"))
    return match.rows >= 0, found, messages
