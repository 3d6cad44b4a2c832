"""How the frames of one movie moved: their shifts from the first one to the last."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryobridge.formats.registry import STAR, identify_file
from cryobridge.formats.relion.motion import read_motion
from cryobridge.formats.relion.star import open_star
from cryobridge.jobs.inspection.motion import is_motion
from cryobridge.plots.inspection import draw_points
from cryobridge.plots.page import Panel, Sheet, path_title
from cryobridge.report import counted


def motion_sheet(path: Path) -> Sheet | None:
    """Draw RELION's metadata of the motion of one micrograph; None for other files, and where nothing moves.

    Raises
    ------
    CryobridgeError
        If the metadata can't be read.
    """
    if not path.is_file() or identify_file(path) != STAR or not is_motion(open_star(path)):
        return None
    shifts_px = read_motion(path).motion.global_px
    frames = np.arange(1, len(shifts_px) + 1)
    known = np.isfinite(shifts_px).all(axis=1)
    if not np.ptp(shifts_px[known], axis=0).any():
        return None
    panels = tuple(
        Panel(
            f"shift of the frame in {axis} (px), from the first frame to the last",
            draw_points(np.column_stack([frames, along])[known]),
            is_wide=True,
        )
        for axis, along in zip("xy", shifts_px.T, strict=True)
    )
    return Sheet(f"{path_title(path)}: {counted(len(frames), 'frame')}", panels)
