"""The columns of RELION's pick files, from cryoSPARC's picks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.helical import direction_rad, from_first_segment, number_tubes, tube_codes
from cryobridge.formats.table import Array
from cryobridge.jobs.coords.picks import DEFAULT_FIGURE_OF_MERIT, Picks
from cryobridge.model.convention import Convention
from cryobridge.model.particles import Floats


def pick_columns(
    picks: Picks, coordinate_px: Floats, kept: NDArray[np.bool_], convention: Convention, *, picks_only: bool
) -> dict[str, Array]:
    """Return RELION's columns for picks.

    Parameters
    ----------
    picks
        The picks.
    coordinate_px
        (n, 2) x, y in pixels of RELION's micrograph.
    kept
        (n,) whether a pick is written: tubes are made of those that are.
    convention
        The axis convention: angles turn with the micrograph.
    picks_only
        Leave out class, angles and helical columns.
    """
    n = len(picks)
    merit = np.full(n, DEFAULT_FIGURE_OF_MERIT) if picks.score is None else picks.score.astype(np.float64)
    class_number: NDArray[np.int64] = np.zeros(n, np.int64)
    psi_deg: Floats = np.zeros(n)
    if not picks_only and picks.class_number is not None:
        class_number = picks.class_number
    if not picks_only and picks.psi_rad is not None:
        psi_deg = _psi_deg(picks.psi_rad, convention)
    columns: dict[str, Array] = {
        "rlnCoordinateX": coordinate_px[:, 0],
        "rlnCoordinateY": coordinate_px[:, 1],
        "rlnAutopickFigureOfMerit": merit,
        "rlnClassNumber": class_number,
        "rlnAnglePsi": psi_deg,
    }
    if not picks_only and picks.filament_uid is not None:
        columns |= _helical(picks, picks.filament_uid, coordinate_px, np.flatnonzero(kept))
    return columns


def _psi_deg(psi_rad: Floats, convention: Convention) -> Floats:
    """Return psi in RELION's micrograph: minus the direction of the reference's x axis (docs/conventions.md)."""
    return np.degrees(-convention.direction_rad(-psi_rad))


def _helical(
    picks: Picks, filament_uid: NDArray[np.uint64], coordinate_px: Floats, kept_rows: NDArray[np.int64]
) -> dict[str, Array]:
    """Return RELION's helical columns; rows that are not kept hold zeros.

    Tubes are numbered from 1 on each micrograph. The in-plane prior comes from the segments' own coordinates, so
    that it holds in whichever frame those are: minus the direction of the tube, as RELION's picker writes it.
    """
    n = len(picks)
    tube, track_A, psi_deg = np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    micrograph = picks.micrograph.codes[kept_rows]
    tube[kept_rows] = number_tubes(micrograph, filament_uid[kept_rows])
    code = tube_codes(micrograph, tube[kept_rows])
    along_A = None if picks.position_A is None else from_first_segment(picks.position_A[kept_rows], code)
    if along_A is not None:
        track_A[kept_rows] = along_A
    psi_deg[kept_rows] = -np.degrees(direction_rad(coordinate_px[kept_rows], along_A, code))
    return {
        "rlnHelicalTubeID": tube,
        "rlnAngleTiltPrior": np.full(n, 90.0),
        "rlnAnglePsiPrior": psi_deg,
        "rlnHelicalTrackLengthAngst": track_A,
        "rlnAnglePsiFlipRatio": np.full(n, 0.5),
        "rlnAngleRotFlipRatio": np.full(n, 0.5),
    }
