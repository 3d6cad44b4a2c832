"""Writing picks as RELION's AutoPick does: one STAR file a micrograph, and the list of them."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats._atomic import atomic_path
from cryobridge.formats.star import StarBlock, write_star

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryobridge.particles import Floats

RAW_DATA = "Raw_data"
AUTOPICK_STAR = "autopick.star"
_HEAD = """\

# version 30001

data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAutopickFigureOfMerit #3
_rlnClassNumber #4
_rlnAnglePsi #5
"""


def pick_file_name(micrograph: str) -> str:
    """Return the name of a micrograph's pick file: a bare name, whatever folders the micrograph's names."""
    return f"{PurePath(micrograph).stem}_autopick.star"


def relion_number(value: float) -> str:
    """Return a number as RELION prints it: 12 wide, six digits (five when negative), or with an exponent."""
    magnitude = abs(value)
    if 0 < magnitude < 0.001 or magnitude > 100000:
        return f"{value:12.5e}" if value < 0 else f"{value:12.6e}"
    return f"{value:12.5f}" if value < 0 else f"{value:12.6f}"


def write_pick_file(path: Path, coordinate_px: Floats, figure_of_merit: Floats) -> None:
    """Write the picks of one micrograph; class 0 and psi 0, as pickers without templates do."""
    rows = [
        f"{relion_number(x)} {relion_number(y)} {relion_number(merit)} {0:12d} {relion_number(0.0)}"
        for (x, y), merit in zip(coordinate_px.tolist(), figure_of_merit.tolist(), strict=True)
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([_HEAD.rstrip("\n"), *rows, "", ""]), encoding="utf-8")


def write_autopick_star(path: Path, pick_files: Mapping[str, str]) -> None:
    """Write the list that RELION's Extract takes: micrograph, exactly as in the micrographs STAR, and pick file."""
    columns = {"rlnMicrographName": list(pick_files), "rlnMicrographCoordinates": list(pick_files.values())}
    write_star(path, [StarBlock.from_columns("coordinate_files", columns, comments=("version 30001",))])


def rows_by_micrograph(codes: NDArray[np.int32], n_micrographs: int) -> list[NDArray[np.int64]]:
    """Return for each micrograph the rows of its picks, in the file's order."""
    order = np.argsort(codes, kind="stable")
    cuts = np.cumsum(np.bincount(codes, minlength=n_micrographs))[:-1]
    return np.split(order, cuts)
