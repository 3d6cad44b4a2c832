"""What can be asked of the motion that goes into RELION's metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt

if TYPE_CHECKING:
    from cryobridge.formats.cryosparc.motion import Rows


@dataclass(frozen=True, kw_only=True)
class MotionOptions(Options):
    """How cryoSPARC's trajectories and movies become RELION's metadata of motion.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.
    """

    motion: Annotated[bool, Opt("Write the metadata of motion.", flags=("--motion/--no-motion",), panel="Motion")] = (
        True
    )
    dose_per_frame: Annotated[
        float | None,
        Opt("Dose of a frame, where cryoSPARC does not have that of the movie.", metavar="E/Å²", panel="Motion", low=0),
    ] = None
    pre_exposure: Annotated[float, Opt("Dose before the first frame.", metavar="E/Å²", panel="Motion", low=0)] = 0.0
    motion_unit: Annotated[
        Literal["px", "A"], Opt("What cryoSPARC's trajectories count: pixels of the movie, or Å.", panel="Motion")
    ] = "px"
    motion_rows: Annotated[
        Literal["pixels", "reversed", "stored"],
        Opt(
            "How cryoSPARC's rows lie to those that RELION reads of the movies: as the micrographs' pixels show, or "
            "reversed where they don't.",
            panel="Motion",
        ),
    ] = "pixels"
    motion_zero: Annotated[
        Literal["first", "stored"],
        Opt("Where frames count as not moved: in the first one, or where cryoSPARC's trajectory is 0.", panel="Motion"),
    ] = "first"
    gain_reference: Annotated[
        Path | None,
        Opt("Gain reference of the movies, if not the one that cryoSPARC names.", metavar="FILE", panel="Motion"),
    ] = None
    gain_turn: Annotated[
        Literal["metadata", "pixels"],
        Opt("Turn the gain reference as cryoSPARC's columns say, or as it flattens the movies best.", panel="Motion"),
    ] = "metadata"

    @property
    def rows(self) -> Rows:
        """How rows are taken; reversed, as they are known to be of TIFF movies, where no pixels were asked."""
        return "stored" if self.motion_rows == "stored" else "reversed"
