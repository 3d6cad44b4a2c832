"""cryoSPARC's micrographs: names, uids and sizes, out of its exposures or of particles that lie on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.open import open_table
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.model.particles import Floats

_HINT = "Give cryoSPARC's exposures, such as J2/J2_exposures.cs of its motion correction, or particles with location/*."


@dataclass(frozen=True)
class Exposures:
    """cryoSPARC's micrographs.

    Parameters
    ----------
    names
        The distinct names.
    uid
        (m,) cryoSPARC's identity of each.
    shape_px
        (m, 2) ny, nx.
    pixel_size_A
        (m,) Å a pixel; NaN where the file does not say.
    """

    names: tuple[str, ...]
    uid: NDArray[np.uint64]
    shape_px: NDArray[np.int64]
    pixel_size_A: Floats


def read_exposures(path: Path) -> Exposures:
    """Return the micrographs of a `.cs` file.

    Raises
    ------
    UsageError
        If it is a folder without particles of cryoSPARC.
    MissingDataError
        If the file is of another program, or has no micrographs, or not their sizes.
    """
    try:
        table = open_table(path)
    except CryobridgeError as error:
        if path.is_dir():  # which files of particles it has is no help
            raise UsageError("no micrographs of cryoSPARC can be read of this folder", path=path, hint=_HINT) from error
        raise
    for prefix, uid in (("micrograph_blob/", "uid"), ("location/micrograph_", "location/micrograph_uid")):
        names = [f"{prefix}{name}" for name in ("path", "shape")]
        if all(name in table.names for name in (*names, uid)):
            break
    else:
        raise MissingDataError("no micrographs of cryoSPARC are in it", path=path, hint=_HINT)
    sized = f"{prefix}psize_A"
    columns = table.read([*names, uid, *([sized] if sized in table.names else [])])
    labels = columns[names[0]]
    if not isinstance(labels, Labels):
        raise MissingDataError("micrographs have no names", path=path, field=names[0], hint=_HINT)
    rows = np.unique(labels.codes, return_index=True)[1]
    values = {name: np.asarray(column)[rows] for name, column in columns.items() if name != names[0]}
    shape_px = values[names[1]].astype(np.int64)
    if shape_px.shape != (len(rows), 2) or (shape_px < 1).any():
        raise MissingDataError("micrographs have no size", path=path, field=names[1], hint=_HINT)
    size_A = values.get(sized, np.full(len(rows), np.nan)).astype(np.float64)
    return Exposures(labels.without_unused().values, values[uid].astype(np.uint64), shape_px, size_A)
