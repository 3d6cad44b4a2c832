"""Whether a job has gone silent: RELION leaves no file behind where it was killed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# So many of the last steps make the usual time.
_STEPS = 5
_FIRST_TIMES = 5
_LEAST_SILENCE_S, _LEAST_USUAL_S = 20.0, 0.1


@dataclass(frozen=True)
class Stall:
    """No new iteration for many times the usual time.

    Parameters
    ----------
    times
        How many times.
    usual_s
        The median time of the last steps.
    """

    times: int
    usual_s: float

    def __str__(self) -> str:
        return (
            f"No new iteration for {self.times:,} times the usual time of {_duration(self.usual_s)}: RELION may have "
            "been stopped, and where it was killed no file says so"
        )

    @property
    def level(self) -> int:
        """How often the silence has doubled since it was first worth a word."""
        return (self.times // _FIRST_TIMES).bit_length()


def stall_of(written_s: Sequence[float], now_s: float) -> Stall | None:
    """Return how long no iteration has come, or None where that is not unusual.

    Parameters
    ----------
    written_s
        When the iterations were written, in their order; of a copy these times tell nothing.
    now_s
        The time now.

    Examples
    --------
    >>> str(stall_of([0, 60, 120, 180], 180 + 12 * 60)).partition(":")[0]
    'No new iteration for 12 times the usual time of 60 s'
    """
    steps = [after - before for before, after in pairwise(written_s)][-_STEPS:]
    if len(steps) < 2 or min(steps) < 0:
        return None
    usual_s = statistics.median(steps)
    silence_s = now_s - written_s[-1]
    if usual_s < _LEAST_USUAL_S or silence_s < max(_LEAST_SILENCE_S, _FIRST_TIMES * usual_s):
        return None
    return Stall(int(silence_s / usual_s), usual_s)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
