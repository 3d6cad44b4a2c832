"""How good CTF fits are, as RELION is to be told of those that have no measure.

RELION 3.1.3 reads ``nan``, ``inf`` and texts as 0, found by running `relion_star_handler --select rlnCtfMaxResolution`:
as a resolution that is the best, so that every selection by a limit keeps the worst fits. Its own CTF estimation writes
25 Å at most, also where Gctf puts 999 for a fit that has none, and 0 for a score that is no number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.model.fields import micrograph_field
from cryobridge.report import Message, note, part_of, warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.model.particles import Floats

_RESOLUTION, _SCORE = (micrograph_field(f"fit.{name}").columns("relion")[0] for name in ("resolution_A", "score"))
_WORST_A = 25.0


def fits_for_relion(columns: dict[str, Any], what: str) -> tuple[dict[str, Any], list[Message]]:
    """Return columns for RELION, with a bad value in place of fits that have no measure.

    Where no fit has a resolution, the column is left out: all would be bad.

    Parameters
    ----------
    columns
        By RELION's names, (n,) each; others than those of the fit stay as they are.
    what
        Of what there is one a row, such as ``"micrograph"``.

    Returns
    -------
    tuple
        The columns; and what is said of resolutions that are put in or left out.

    Examples
    --------
    >>> fits_for_relion({"rlnCtfMaxResolution": np.array([3.5, np.nan])}, "micrograph")[0]
    {'rlnCtfMaxResolution': array([ 3.5, 25. ])}
    """
    columns = dict(columns)
    score, resolution_A = (_floats(columns.get(name)) for name in (_SCORE, _RESOLUTION))
    if score is not None and not np.isfinite(score).all():
        columns[_SCORE] = np.where(np.isfinite(score), score, 0).astype(score.dtype)
    if resolution_A is None or (known := _is_known(resolution_A)).all():
        return columns, []
    if not known.any():
        del columns[_RESOLUTION]
        return columns, [note("no-fit-resolution", f"no {what} has a resolution of the CTF fit: no {_RESOLUTION}")]
    worst_A = max(_WORST_A, float(resolution_A[known].max()))
    columns[_RESOLUTION] = np.where(known, resolution_A, worst_A).astype(resolution_A.dtype)
    unknown = part_of(int((~known).sum()), len(known), what, "have", of_one="has")
    text = f"{unknown} no resolution of the CTF fit, which RELION would read as 0 Å, the best: {worst_A:g} Å is written"
    return columns, [warning("no-fit-resolution", text)]


def _floats(values: Any) -> Floats | None:
    """Return a column as it is; None where it is absent, or no numbers."""
    return values if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" else None


def _is_known(resolution_A: Floats) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.isfinite(resolution_A) & (resolution_A > 0)
    return known
