"""What can be asked of a small reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cryobridge.jobs.shared_options import ImageSearchOptions
from cryobridge.options import Opt

LARGEST_BOX_PX = 256
DEFAULT_BOX_PX = 64


@dataclass(frozen=True, kw_only=True)
class BackprojectOptions(ImageSearchOptions):
    """Which images a map is made of, and how.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.

    Examples
    --------
    >>> BackprojectOptions(half_set=1).box_px
    64
    """

    n: Annotated[int, Opt("How many particles, drawn from all; always the same ones.", metavar="N", low=1)] = 2000
    box_px: Annotated[
        int,
        Opt("Edge of the map; that of the images where they are smaller.", metavar="PX", low=8, high=LARGEST_BOX_PX),
    ] = DEFAULT_BOX_PX
    half_set: Annotated[int | None, Opt("Only particles of this half set.", metavar="N", low=1, high=2)] = None
    contrast: Annotated[
        Literal["bright", "as_stored"],
        Opt("Whether images of particles that a cryoSPARC file says are dark are multiplied by -1."),
    ] = "bright"
    device: Annotated[str, Opt("auto, cpu, cuda, cuda:1 or mps.", metavar="NAME")] = "auto"
