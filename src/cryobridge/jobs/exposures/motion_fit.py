"""How well RELION's model holds the motion of micrographs, as reports have it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MotionFit:
    """How well RELION's local model holds cryoSPARC's local motion.

    Parameters
    ----------
    n_micrographs
        Micrographs with metadata of motion.
    n_local
        Of them, those with local motion.
    rms_px, largest_px
        Of the local shifts, what the model leaves over, in pixels of the movie: over all micrographs, and at most.
    median_path_px
        Length of the global motion of the micrograph in the middle.
    """

    n_micrographs: int
    n_local: int
    rms_px: float | None
    largest_px: float | None
    median_path_px: float | None
