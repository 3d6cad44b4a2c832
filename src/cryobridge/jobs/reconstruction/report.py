"""How two maps of the same images compare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError
from cryobridge.report import counted

if TYPE_CHECKING:
    from pathlib import Path

# The lowest correlation of a right conversion: what rounding does to angles and shifts changes less.
LEAST_FSC = 0.999


@dataclass(frozen=True)
class MapCheck:
    """How the map of an output compares with that of the input, both made of the input's images.

    Parameters
    ----------
    particles
        How many the maps are made of.
    box_px, voxel_size_A
        Of the maps.
    fsc
        Fourier shell correlation of the two, of shell 0 to Nyquist.
    lowest, lowest_at_A
        The lowest of it but for shell 0, and the resolution there.
    least
        What it has to be at least.
    differing
        What the two files say differently of these images, where it is lower.
    """

    particles: int
    box_px: int
    voxel_size_A: float
    fsc: tuple[float, ...]
    lowest: float
    lowest_at_A: float
    least: float
    differing: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the maps are the same; NaN is no answer."""
        return self.lowest >= self.least

    def as_text(self) -> str:
        """Say in one line how they compare."""
        of_what = f"{counted(self.particles, 'particle')}, {self.box_px} px"
        nyquist_A = 2 * self.voxel_size_A
        if self.is_good:
            # Rounded down, so that it does not say 1 of what is less.
            shown = math.floor(1e5 * self.lowest) / 1e5
            return f"FSC at least {shown:g} to {nyquist_A:.3g} Å ({of_what})"
        return f"FSC {self.lowest:.3f} at {self.lowest_at_A:.3g} Å, below {self.least:g} ({of_what})"

    def require(self, output: Path) -> None:
        """Raise where the maps differ.

        Raises
        ------
        CryobridgeError
            If the correlation is below the least.
        """
        if self.is_good:
            return
        differing = ", ".join(self.differing) or "nothing that is known; the images may hold too little"
        raise CryobridgeError(
            f"the images make another map by the output than by the input: {self.as_text()}; what differs: {differing}",
            path=output,
            hint="Don't use it as it is: correct what differs, or leave out what the output has no place for.",
        )
