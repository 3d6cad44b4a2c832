"""RECOVAR's k-means results, among them those of runs that left particles out.

RECOVAR gives a label to every row of the particle file up to the last one of the run, also to those that the run left
out. The label of such a row is NaN turned into an integer, which is the lowest integer on some processors and 0 on
others, or NaN itself in older files: it can't be known from its value, only from the rows of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.pickle_data import SHOWN, load_pickle
from cryobridge.formats.pickles import KmeansResult
from cryobridge.report import counted

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

_HINT = "Check that the analysis is of this run and complete."


def read_clusters(path: str | os.PathLike[str], rows: NDArray[np.int64] | None = None) -> KmeansResult:
    """Read a kmeans_result.pkl whose labels may have holes.

    Parameters
    ----------
    path
        The file.
    rows
        (n,) rows of the particle file that the run used, counted from 0. The labels are those of these rows. None
        for all labels, with -1 for those that are visibly none.

    Returns
    -------
    KmeansResult
        ``centers`` (K, zdim) float64; ``labels`` (n,) int64.

    Raises
    ------
    UnsafeFileError, FormatError
        If it is no k-means result, has fewer labels than rows are asked for, or a label has no center.
    """
    path = Path(path)
    value = load_pickle(path)
    if not isinstance(value, dict) or not {"centers", "labels"} <= value.keys():
        raise FormatError("no k-means result: a dictionary of centers and labels is expected", path=path, hint=_HINT)
    centers, raw = _numbers(value["centers"]), _numbers(value["labels"])
    if centers is None or centers.ndim != 2 or raw is None or raw.ndim != 1:
        raise FormatError("the centers are no table of numbers, or the labels no list of them", path=path, hint=_HINT)
    if rows is not None:
        last = int(rows.max(initial=-1))
        if last >= len(raw):
            raise FormatError(
                f"it has {counted(len(raw), 'label')}, but the run has a particle of row {last:,} (counted from 0)",
                path=path,
                hint=_HINT,
            )
        raw = raw[rows]
    with np.errstate(invalid="ignore"):
        labels = np.where(np.isfinite(raw) & (raw >= 0), raw, -1).astype(np.int64)
    is_none = labels < 0
    wrong = np.flatnonzero((labels >= len(centers)) | (~is_none & (labels != raw)) | (is_none & (rows is not None)))
    if wrong.size:
        shown = wrong if rows is None else rows[wrong]
        raise FormatError(
            f"a label is none of the {len(centers)} centers",
            path=path,
            field="labels",
            rows=tuple(shown[:SHOWN].tolist()),
            count=wrong.size,
            hint=_HINT,
        )
    # NumPy warns of NaN that signals.
    with np.errstate(invalid="ignore"):
        return KmeansResult(centers.astype(np.float64), labels)


def _numbers(value: Any) -> NDArray[Any] | None:
    """Return what is an array or nested list of real numbers as an array, anything else as None."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "fiu" else None
