"""What `inspect` says of RELION's metadata of the motion of one micrograph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.relion.motion import GENERAL, GLOBAL, read_motion
from cryobridge.model.motion import accumulated_A
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from cryobridge.formats.relion.star import StarFile

WHAT = "motion of one micrograph"


def is_motion(star: StarFile) -> bool:
    """Whether a STAR file is the metadata of the motion of one micrograph."""
    return GLOBAL in star and GENERAL in star


def about_motion(star: StarFile) -> tuple[list[tuple[str, str]], tuple[Message, ...]]:
    """Return facts on the motion, and what RELION would take in silence or stop at."""
    try:
        metadata = read_motion(star.path)
    except CryobridgeError as error:
        return [], (warning("motion-unusable", f"RELION can't polish with it: {error.message}", where=star.path),)
    motion = metadata.motion
    dose = metadata.dose_per_frame_e_A2
    total, early, _ = accumulated_A(
        motion, metadata.pixel_size_A, dose if dose > 0 else 1.0, metadata.pre_exposure_e_A2
    )
    ny, nx = motion.shape_px
    n_used = int(np.isfinite(motion.global_px).all(axis=1).sum())
    facts = [
        ("movie", f"{metadata.movie}, {nx} × {ny} px of {metadata.pixel_size_A:g} Å"),
        ("frames", f"{motion.n_frames}" + ("" if n_used == motion.n_frames else f", {n_used} of them aligned")),
        ("dose", f"{dose:g} e/Å² a frame, {metadata.pre_exposure_e_A2:g} before"),
        ("motion", f"{total:.3g} Å in all, {early:.3g} Å up to 4 e/Å²"),
        ("local motion", "none" if motion.coefficients is None else "polynomial of 18 terms in x and y"),
        ("gain", metadata.gain or "none"),
    ]
    problems = () if dose > 0 else (warning("motion-dose", f"a dose of {dose:g} e/Å² a frame ruins polishing"),)
    return facts, problems
