"""Sets of particles: what other files add, what they have too, and what they take away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError
from cryobridge.formats.merged import MergedFiles, merged_files
from cryobridge.jobs.identity.match import Identities, Match, identities_of, match_rows
from cryobridge.jobs.selection.report import SetReport
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.jobs.shared_options import MatchOptions

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Compared:
    """Which rows another file has too, (n,); how they were compared, and messages."""

    rows: Mask
    report: SetReport
    messages: tuple[Message, ...]


@dataclass(frozen=True, eq=False)
class United:
    """Particles of several files: all of their rows as one, and which of them each file after the first one adds, (n,).

    Attributes
    ----------
    particles
        The rows.
    added
        For each file after the first, which rows of the whole stay where only its repeated ones go, (n,); and the file.
    """

    particles: ParticleFiles
    stays: tuple[Compared, ...]


def unite(first: ParticleFiles, others: Sequence[ParticleFiles], options: MatchOptions) -> United:
    """Return the rows of a file, and after them those of others whose particle is in no file before them.

    Particles are the same by uid, or by image where no uid is: by the whole name of the stack and the number in it.

    Raises
    ------
    MissingDataError
        If a file has neither uids nor images.
    CryobridgeError
        As `cryobridge.formats.merged.merged_files`, if the files do not go together.
    """
    whole = merged_files([first, *others])
    assert isinstance(whole, MergedFiles)  # there are several
    known = [identities_of(files, options.sources) for files in whole.merged]
    for files in known:
        if files.uid is None and files.images is None:
            raise MissingDataError(
                "neither uids nor images, by which rows of two files would be known to be the same",
                path=files.path,
                hint="`cryobridge merge` writes all rows of several files.",
            )
    compared = []
    for place, other in enumerate(others, start=1):
        is_there = np.zeros(len(other), bool)
        by: Literal["uid", "image", "place"] | None = None
        for before in known[:place]:
            match = _match(known[place], before)
            if match is not None:
                is_there |= match.rows >= 0
                by = match.by
        stays = np.ones(len(whole), bool)
        stays[whole.starts[place] : whole.starts[place + 1]] = ~is_there
        n_shared = int(np.count_nonzero(is_there))
        report = SetReport("or", str(other.path), by, n_shared, len(other))
        how = f"by {by}, and not repeated" if by else "by uid or image"
        text = (
            f"{n_shared:,} of {counted(len(other), 'row')} of {other.path.name} "
            f"{'is' if n_shared == 1 else 'are'} in a file before it, {how}"
        )
        compared.append(Compared(stays, report, (note("rows-united", text, option="or_"),)))
    return United(whole, tuple(compared))


def compare(
    particles: ParticleFiles,
    other: ParticleFiles,
    options: MatchOptions,
    operation: Literal["and", "not"],
    *,
    allow_empty: bool = False,
) -> Compared:
    """Return which rows another file has too: by uid, image or place (`match_rows`).

    In files of one program uids and images tell particles apart: places are compared only if ``options.within_A`` is
    given, and stacks never by their bare names.

    Raises
    ------
    MissingDataError
        If none is, and the rows that both have are asked for; not of an empty file with ``allow_empty``.
    CryobridgeError
        As `match_rows`.
    """
    is_same = particles.program == other.program
    places = None if is_same and options.within_A is None else options
    theirs = identities_of(other, options.sources)
    rows, messages, failed = [], list(other.messages), None
    by: Literal["uid", "image", "place"] | None = None
    for part in particles.merged if isinstance(particles, MergedFiles) else (particles,):
        found: Mask = np.zeros(len(part), bool)
        try:
            ours = identities_of(part, options.sources)
            match = match_rows(ours, theirs, places, bare_names=not is_same)
            found, by = match.rows >= 0, match.by
            messages += match.messages
        except MissingDataError as error:
            failed = error
        rows.append(found)
    whole = np.concatenate(rows)
    name = other.path.name
    if by is None and failed is not None:
        if operation == "not":
            text = f"no particle of {name} is in {particles.metadata.name}: nothing is taken away"
            messages.append(warning("nothing-in-both", text, option="not_"))
        elif allow_empty and not len(other):
            messages.append(nothing_in(other, "and_"))
        else:
            raise failed
    else:
        text = f"particles are compared with {name} by {by}"
        messages.append(note("rows-compared-by", text, option=f"{operation}_"))
    report = SetReport(operation, str(other.path), by, int(np.count_nonzero(whole)), len(other))
    return Compared(whole, report, tuple(messages))


def nothing_in(other: ParticleFiles, argument: str) -> Message:
    """Return a warning that no particle is kept, since another file has none."""
    text = f"there are no particles in {other.path.name}: none is kept"
    return warning("nothing-in-both", text, where=other.path, option=argument)


def _match(first: Identities, other: Identities) -> Match | None:
    try:
        return match_rows(first, other, bare_names=False)
    except MissingDataError:
        return None
