"""Values that a method gives for particles, in an order of its own, lined up with the particles of a set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.report import counted, part_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryobridge.model.particles import ParticleSet

_N_SHOWN = 3
_ALL_BITS = (1 << 64) - 1


def in_order(
    particles: ParticleSet, values: Mapping[str, Any], *, uid: Any, row: Any, unmatched: Literal["error", "drop"]
) -> tuple[ParticleSet, dict[str, Any]]:
    """Return the particles that have values, and these in the order of the particles.

    Parameters
    ----------
    particles
        The set.
    values
        By name: ``latent`` (m, d), all others (m,).
    uid, row
        (m,) which particles they belong to, if not to all in their order.
    unmatched
        Whether particles without a value are an error, or left out.

    Raises
    ------
    UsageError, MissingDataError
        As `ParticleSet.with_columns`.
    """
    if unmatched not in ("error", "drop"):
        raise UsageError(f"{unmatched!r} is not known", option="unmatched", hint="Give 'error' or 'drop'.")
    if uid is not None and row is not None:
        raise UsageError(
            "particles are named by uid or by row, not by both", option="row", hint=f"Leave {option('uid')} out."
        )
    read = {name: _of_each(name, given) for name, given in values.items()}
    rows = _rows_of(particles, uid, row)
    for name, given in read.items():
        if len(given) != len(rows):
            raise other_length(
                name, len(given), len(rows), "uid" if uid is not None else "row" if row is not None else ""
            )
    is_known = np.ones(len(rows), bool)
    for name, given in read.items():
        if name == "latent":
            with np.errstate(over="ignore"):  # cryoSPARC has them in single precision
                is_known &= np.isfinite(given.astype(np.float32)).all(axis=1)
        elif name == "cluster":
            is_known &= given >= 0
    source: NDArray[np.int64] = np.full(len(particles), -1, np.int64)
    source[rows[is_known]] = np.flatnonzero(is_known)
    kept = np.flatnonzero(source >= 0)
    _refuse_unmatched(particles, source, unmatched, n_named=len(rows), n_known=int(is_known.sum()))
    if len(kept) < len(particles):
        particles = particles.take(kept)
    source = source[kept]
    return particles, {
        name: given.take(source) if hasattr(given, "codes") else given[source] for name, given in read.items()
    }


def as_values(given: Any) -> Any:
    """Return values as an array, also of a tensor that is on a device or has a gradient; `Labels` stay."""
    if hasattr(given, "codes"):
        return given
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        # NumPy has no bfloat16, which results of mixed precision are in.
        given = given.float() if given.is_floating_point() and given.element_size() < 4 else given
    try:
        return np.asarray(given)
    except ValueError:  # lists of several lengths
        return np.array(None)


def of_kind(name: str, values: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return values as the model has them; whole numbers may come as floats.

    Raises
    ------
    UsageError
        If they are no numbers, or not whole.
    """
    if values.dtype.kind not in "biuf" or (kind == "int" and not np.array_equal(values, np.rint(values))):
        needed = "whole numbers" if kind == "int" else "numbers"
        hint = "numpy.unique(values, return_inverse=True)[1] numbers them." if kind == "int" else "Give numbers."
        raise UsageError(f"{needed} are needed", option=name, hint=hint)
    return values.astype(np.int64 if kind == "int" else np.float64)


def other_length(name: str, n_values: int, n_rows: int, named_by: str = "") -> UsageError:
    """Return the error that there are more or fewer values than particles, or than ``named_by`` names."""
    if named_by:
        text, hint = (
            f"{counted(n_values, 'value')}, {option(named_by)} names {counted(n_rows, 'particle')}",
            "Give as many.",
        )
    else:
        text = f"{counted(n_values, 'value')} for {counted(n_rows, 'particle')}"
        hint = (
            f"Give one value for each particle, in order; or say by {option('uid')} or {option('row')} "
            "which ones they belong to."
        )
    return UsageError(text, option=name, hint=hint)


def _of_each(name: str, given: Any) -> Any:
    """Return values of particles: coordinates (m, d) for ``latent``, whole numbers for ``cluster``, others as given."""
    values = as_values(given)
    if hasattr(values, "codes"):
        return values
    if name == "latent":
        values = values[:, np.newaxis] if values.ndim == 1 else values
        if values.ndim != 2 or not values.shape[1]:
            raise UsageError(
                f"a table of numbers is needed, not an array of {values.shape}", option=name, hint="Give (n, d)."
            )
        return of_kind(name, values, "float")
    if values.ndim != 1 or values.dtype.kind not in "biufOSU":
        raise UsageError(
            "one value a particle is needed", option=name, hint="Give a list or an array (n,) of numbers or texts."
        )
    return of_kind(name, values, "int") if name == "cluster" else values


def _rows_of(particles: ParticleSet, uid: Any, row: Any) -> NDArray[np.int64]:
    """Return the row of the set that each value belongs to, (m,)."""
    if uid is not None:
        return _rows_of_uids(particles, _whole(uid, "uid"))
    if row is None:
        return np.arange(len(particles))
    rows = _whole(row, "row")
    beyond = (rows < 0) | (rows >= len(particles))
    if beyond.any():
        raise UsageError(
            f"{part_of(int(beyond.sum()), len(rows), 'row', 'are', of_one='is')} not in the set, which has rows 0 to "
            f"{len(particles) - 1:,}: {rows[np.argmax(beyond)]:,}, say",
            option="row",
            count=int(beyond.sum()),
            hint="Give the rows of this set; those of another, such as before a selection, are others.",
        )
    _refuse_repeated(rows, "row")
    return rows.astype(np.int64)


def _rows_of_uids(particles: ParticleSet, uid: NDArray[Any]) -> NDArray[np.int64]:
    if particles.uid is None:
        raise UsageError(
            "the particles have no uid", option="uid", hint=f"Say by {option('row')} which ones the values belong to."
        )
    if uid.dtype.itemsize != 8:
        raise UsageError(
            f"uids have 64 bits, these are {uid.dtype}", option="uid", hint="Keep them as int64 or uint64 throughout."
        )
    wanted = uid.astype(uid.dtype.newbyteorder("="), copy=False).view(np.uint64)
    _refuse_repeated(wanted, "uid")
    order = np.argsort(particles.uid, kind="stable")
    in_order = particles.uid[order]
    if (in_order[1:] == in_order[:-1]).any():
        n_repeated = len(in_order) - len(np.unique(in_order))
        raise UsageError(
            f"the set has {counted(n_repeated, 'uid')} more than once",
            option="uid",
            count=n_repeated,
            hint=f"Say by {option('row')} which particles the values belong to.",
        )
    place = np.minimum(np.searchsorted(in_order, wanted), max(len(order) - 1, 0))
    is_there = in_order[place] == wanted if len(order) else np.zeros(len(wanted), bool)
    if not is_there.all():
        n_unknown = int((~is_there).sum())
        shown = ", ".join(map(str, wanted[~is_there][:_N_SHOWN]))
        raise UsageError(
            f"{part_of(n_unknown, len(wanted), 'uid', 'are', of_one='is')} not in the set: {shown}"
            + (" …" if n_unknown > _N_SHOWN else ""),
            option="uid",
            count=n_unknown,
            hint="Give the set that the images were read from.",
        )
    rows: NDArray[np.int64] = order[place]
    return rows


def _whole(given: Any, name: str) -> NDArray[Any]:
    """Return row numbers or uids, (m,)."""
    if name == "uid" and isinstance(given, list | tuple) and all(isinstance(each, int | np.integer) for each in given):
        given = np.array([int(each) & _ALL_BITS for each in given], np.uint64)  # NumPy makes floats of large and small
    values: NDArray[Any] = as_values(given)
    values = values if values.size else values.astype(np.int64)  # an empty list is of floats
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise UsageError(
            f"whole numbers (n,) are needed, not {values.dtype} of shape {values.shape}",
            option=name,
            hint="Keep them as int64 throughout: floats can't tell uids apart.",
        )
    return values


def _refuse_repeated(values: NDArray[Any], name: str) -> None:
    distinct, times = np.unique(values, return_counts=True)
    if (times > 1).any():
        n_repeated = int((times > 1).sum())
        raise UsageError(
            f"{counted(n_repeated, 'particle has', 'particles have')} several values: "
            f"{name} {distinct[np.argmax(times > 1)]}, say",
            option=name,
            count=n_repeated,
            hint="Give one for each: samplers that fill up the last batch repeat particles, "
            f"of which numpy.unique({name}, return_index=True) finds the first.",
        )


def _refuse_unmatched(
    particles: ParticleSet, source: NDArray[np.int64], unmatched: str, *, n_named: int, n_known: int
) -> None:
    without = np.flatnonzero(source < 0)
    if not len(without) or (unmatched == "drop" and len(without) < len(source)):
        return
    n_odd = n_named - n_known
    why = f", {n_odd:,} of them with a negative label or coordinates that are no numbers" if n_odd else ""
    raise MissingDataError(
        f"{part_of(len(without), len(particles), 'particle', 'have', of_one='has')} no result{why}",
        path=particles.source,
        rows=tuple(without[:_N_SHOWN].tolist()),
        count=len(without),
        option="unmatched",
        hint=f"Give a result for each, or leave these particles out: {option('unmatched', 'drop')}.",
    )
