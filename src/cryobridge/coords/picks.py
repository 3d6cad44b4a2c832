"""Reading picks from a cryoSPARC file: micrograph, its shape, and the place on it as fractions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError
from cryobridge.formats.cryosparc_job import siblings_with
from cryobridge.formats.cs import open_cs
from cryobridge.formats.table import ColumnReader

if TYPE_CHECKING:
    from cryobridge.formats.table import Array
    from cryobridge.particles import Floats, Labels

COORDINATE_FIELDS = (
    "location/micrograph_path",
    "location/micrograph_shape",
    "location/center_x_frac",
    "location/center_y_frac",
)


@dataclass(frozen=True)
class Picks:
    """Picks of a cryoSPARC file; arrays have one row a pick.

    Parameters
    ----------
    micrograph
        Path of the micrograph as cryoSPARC has it.
    shape_px
        (n, 2) ny, nx.
    fraction_xy
        (n, 2) x, y as fractions of nx and ny.
    score
        (n,) the picker's correlation, or None.
    """

    source: Path
    micrograph: Labels
    shape_px: Array
    fraction_xy: Floats
    score: Floats | None

    def __len__(self) -> int:
        return len(self.fraction_xy)


def read_picks(path: str | os.PathLike[str]) -> Picks:
    """Read picks by the names of their columns.

    Raises
    ------
    MissingDataError
        If the file has no coordinates; the hint names a file beside it that has.
    CryobridgeError
        If a fraction is not in [0, 1].
    """
    path = Path(path)
    columns = ColumnReader(open_cs(path))
    missing = [name for name in COORDINATE_FIELDS if name not in columns]
    if missing:
        others = [sibling.name for sibling in siblings_with(path, "location/") if sibling != path]
        raise MissingDataError(
            f"no coordinates: {', '.join(missing)} are missing",
            path=path,
            hint=f"They are in {', '.join(others[:3])} beside it: give that file."
            if others
            else "Give the passthrough file of the job, or extracted_particles.cs or picked_particles.cs.",
        )
    if columns.n_rows == 0:
        raise MissingDataError("there are no particles in it", path=path, hint="Choose another file.")
    micrograph = columns.labels("location/micrograph_path")
    shape = columns.get("location/micrograph_shape")
    x, y = columns.floats("location/center_x_frac"), columns.floats("location/center_y_frac")
    if micrograph is None or shape is None or x is None or y is None:
        raise MissingDataError("the location columns are of the wrong type", path=path, field="location/*")
    fraction_xy = np.column_stack([x, y])
    outside = np.flatnonzero(~((fraction_xy >= 0) & (fraction_xy <= 1)).all(axis=1))
    if len(outside):
        raise CryobridgeError(
            f"fraction {fraction_xy[outside[0]].tolist()} is not in [0, 1]",
            path=path,
            field="location/center_x_frac, center_y_frac",
            rows=tuple(int(row) for row in outside[:3]),
            count=len(outside),
            hint="Check where the picks come from; fractions count from the edge of the micrograph.",
        )
    return Picks(path, micrograph, shape, fraction_xy, columns.floats("pick_stats/ncc_score"))
