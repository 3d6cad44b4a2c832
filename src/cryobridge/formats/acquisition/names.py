"""Names that EPU and SerialEM give to movies: where in its pattern of image shifts each was taken.

EPU: ``FoilHole_28788144_Data_28764755_46_20240328_192116_fractions.tiff`` has the hole, the place in the hole (the
number after ``Data``, of the template, and so the same in all holes), and a third number. Of one to three digits,
public programs take it for that of the hole among those of one stage position, to which EPU shifts the beam (AFIS). A
long one goes with the place in the hole: in public sessions from 2020 to 2025, of which some were taken by AFIS.

SerialEM's multiple records end in the hole and the position in it: ``X+1Y-1-2`` of a rectangular pattern, ``R1H4-0`` of
a hexagonal one, ``3-1`` of holes chosen by hand; position 0 is the centre. Since 2026 some Falcon cameras get names
without the plus, ``X1Y-1-2`` (SerialEM's source).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_EPU: Final = re.compile(r"FoilHole_(\d{1,12})_Data_(\d{1,12})_(\d{1,12})_(\d{8}_\d{4,6})(?!\d)")
# Longer numbers are identities, not places in a pattern.
_PLACE_DIGITS = 3
# What stands before and after is no letter or digit; of several the last one is meant, as names end in it.
_SERIALEM_PATTERN: Final = re.compile(
    r"(?<![A-Za-z0-9])(X[+-]?\d{1,3}Y[+-]?\d{1,3}-\d{1,3}|R\d{1,3}H\d{1,3}-\d{1,3})(?!\d)"
)
# Labels of items are written alike, with a number behind them; positions have at most the time and words there.
_SERIALEM_HOLES: Final = re.compile(
    r"_(\d{1,3}-\d{1,2})(?=(?:_[A-Z][a-z]{2}\d{2})?(?:_\d{2}[._]\d{2}[._]\d{2})?(?:_[A-Za-z]+)*(?:\.[A-Za-z]+)*$)"
)


@dataclass(frozen=True)
class EpuName:
    """What a name by EPU says.

    Parameters
    ----------
    hole
        The foil hole.
    place
        The place in the hole.
    third
        The number after it: the hole among those of one stage position where it is short.
    exposure
        The part of the name that all files of the exposure share.
    """

    hole: str
    place: str
    third: str
    exposure: str

    @property
    def has_hole_of_pattern(self) -> bool:
        """Whether the third number is that of the hole in the pattern of beam shifts."""
        return len(self.third) <= _PLACE_DIGITS


def epu_name(name: str) -> EpuName | None:
    """Return what EPU put into the name of a movie or of what was made of it; None for others' names.

    Examples
    --------
    >>> epu_name("J2/motioncorrected/FoilHole_28788144_Data_28764755_46_20240328_192116_fractions_patch_aligned.mrc")
    EpuName(hole='28788144', place='28764755', third='46', \
exposure='FoilHole_28788144_Data_28764755_46_20240328_192116')
    """
    found = _EPU.search(name)
    return None if found is None else EpuName(found[1], found[2], found[3], found[0])


def epu_position(name: str) -> str | None:
    """Return the position in EPU's patterns, ``28764755_46``; None for others' names."""
    found = epu_name(name)
    return None if found is None else f"{found.place}_{found.third}"


def serialem_position(name: str) -> str | None:
    """Return the hole and the position in it by SerialEM; None where a name has none.

    Examples
    --------
    >>> serialem_position("SAVED4M-DNA3_39-103_001_X+0Y+0-1.tif"), serialem_position("250123_SF0431_01129_1-7.eer")
    ('X+0Y+0-1', '1-7')
    """
    base = name.rpartition("/")[2]
    for pattern in (_SERIALEM_PATTERN, _SERIALEM_HOLES):
        found = pattern.findall(base)
        if found:
            return str(found[-1])
    return None
