"""What a merge is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from cryobridge.errors import UsageError, option
from cryobridge.jobs.shared_options import DedupeOptions
from cryobridge.options import Opt

HalvesOf: TypeAlias = Literal["auto", "micrographs", "particles"]


@dataclass(frozen=True, kw_only=True)
class MergeOptions(DedupeOptions):
    """What is asked for besides all rows.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.

    Examples
    --------
    >>> MergeOptions(dedupe_A=100, split_halves=1)
    """

    split_halves: Annotated[
        int | None, Opt("Draw new half sets at random, with this seed.", metavar="SEED", panel="Half sets", low=0)
    ] = None
    halves_of: Annotated[
        HalvesOf,
        Opt(
            "What goes into one half as a whole: each micrograph, or each particle with its copies.", panel="Half sets"
        ),
    ] = "auto"
    verify: Annotated[bool, Opt("Check STAR outputs with an independent reader (starfile).", panel="Output")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.halves_of != "auto" and self.split_halves is None:
            raise UsageError(
                f"{option('halves_of')} belongs to {option('split_halves')}",
                hint=f"Add {option('split_halves', 1)}, or leave {option('halves_of')} out.",
            )
