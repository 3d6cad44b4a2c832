"""Looking at a job folder again and again until its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryobridge.errors import FormatError
from cryobridge.jobs.converge.follow import Follower

_LONGEST_PAUSE_S = 1.0
_SHORTEST_PAUSE_S = 0.05
_HOW_ENDED = {"success": "ended well", "failure": "failed", "aborted": "was aborted"}


@dataclass(frozen=True)
class Look:
    """What one look at the folder found.

    Parameters
    ----------
    new
        Iterations that were read.
    end
        Why this was the last look, in a sentence; empty if it was not.
    stall
        That no iteration has come for long, in a sentence; empty if one has, and where it was said a short while ago.
    """

    new: tuple[int, ...]
    end: str = ""
    stall: str = ""


def watch(
    follower: Follower,
    limit: int | None,
    settle_s: float,
    timeout_s: float | None,
    each: Callable[[], None] | None = None,
) -> Iterator[Look]:
    """Look at a job until it ends, its last iteration is there, or the time is up.

    Parameters
    ----------
    follower
        The job.
    limit
        The last iteration to wait for; None for what RELION's optimiser says.
    settle_s
        As the follower has it; it is looked at least twice in that time.
    timeout_s
        For how long to look at most; None for ever.
    each
        Called when an iteration has been read, before the others of the same look are.

    Yields
    ------
    Look
        One a look, about one a second.

    Raises
    ------
    FormatError
        If the folder can't be listed at the first look.
    """
    pause_s = min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, settle_s / 2))
    started = time.monotonic()
    first = True
    level = 0
    while True:
        new = _look(follower, each, is_first=first)
        first = False
        end = _end(follower, limit)
        left_s = None if timeout_s is None else timeout_s - (time.monotonic() - started)
        if not end and left_s is not None and left_s <= 0:
            end = f"The time is up ({timeout_s:g} s)."
        stall = follower.stall()
        before, level = level, 0 if stall is None else stall.level
        yield Look(new, end, str(stall) if stall is not None and level > before and not end else "")
        if end:
            return
        time.sleep(pause_s if left_s is None else min(pause_s, left_s))


def _look(follower: Follower, each: Callable[[], None] | None, *, is_first: bool) -> tuple[int, ...]:
    new: list[int] = []
    try:
        for number in follower.look(is_final=False):
            new.append(number)
            if each is not None:
                each()
    except FormatError:
        # A folder that was there may be gone for a moment, when a job is started again.
        if is_first:
            raise
    return tuple(new)


def _end(follower: Follower, limit: int | None) -> str:
    last = follower.tracker.last_iteration
    if limit is not None and last is not None and last.number >= limit:
        return f"Iteration {limit} is there."
    if follower.final is not None and follower.is_done:
        return f"The refinement has converged and ended: {follower.final.source.name} is there."
    if follower.files.ended and follower.is_done:
        return f"The job {_HOW_ENDED[follower.files.ended]} (RELION_JOB_EXIT_{follower.files.ended.upper()})."
    if limit is None and last is not None and last.metrics.last_iteration == last.number:
        return f"Iteration {last.number} is the job's last one."
    return ""
