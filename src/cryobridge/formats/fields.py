"""Every known column of either program: what it holds, in which unit, and which values are plausible.

Columns of the model are described in `cryobridge.model.fields`, the others by the catalogues of each program. Nothing
heavy is imported, so that the command line may look names up for completion and help. A column that is not known is no
error: files may carry any.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cryobridge.formats.cryosparc import fields as _fields_cryosparc
from cryobridge.formats.relion import fields as _fields_relion
from cryobridge.model.fields import QUANTITIES, Kind, Mistake, Quantity, described


@dataclass(frozen=True)
class FieldSpec:
    """A known column.

    Parameters
    ----------
    name
        ``group/field`` for cryoSPARC, the label without underscore for RELION.
    kind, unit, low, high, legal, mistakes
        As in `Quantity`.
    meaning
        What it holds, in one line.
    """

    name: str
    kind: Kind
    unit: str
    low: float | None
    high: float | None
    meaning: str
    legal: tuple[float, ...] = ()
    mistakes: tuple[Mistake, ...] = ()


def lookup(name: str) -> FieldSpec | None:
    """Find what is known of a column.

    Parameters
    ----------
    name
        ``group/field`` or ``uid`` of cryoSPARC, numbered groups included; or a label of RELION with its ``rln``,
        with or without the leading underscore. Upper and lower case matter.

    Returns
    -------
    FieldSpec or None
        None if the column is not known.
    """
    name = name.removeprefix("_") if name.startswith("_rln") else name
    entry = described(name)
    if entry is None:
        entry = _fields_relion.LABELS.get(name) if name.startswith("rln") else _cryosparc_entry(name)
    if entry is None:
        return None
    quantity, meaning = entry
    return FieldSpec(name=name, meaning=meaning, **vars(QUANTITIES[quantity]))


def judge(spec: FieldSpec | Quantity, minimum: float, maximum: float) -> str | None:
    """Say what is odd about the values of a column.

    Parameters
    ----------
    spec
        The column, or the quantity in it.
    minimum, maximum
        The least and the largest value in the file.

    Returns
    -------
    str or None
        A sentence without its full stop, with the likely cause where one is recognised; None if the values are
        plausible or the column holds no numbers. Values that stand for "none", such as 999 for a prior, are
        passed over.
    """
    if spec.kind in ("text", "vector"):
        return None
    ends = [float(end) for end in (minimum, maximum) if end not in spec.legal]
    if any(math.isnan(end) for end in ends):
        return "some values are not numbers (NaN)"
    if all(_is_plausible(spec, end) for end in ends):
        return None
    found = f"{minimum:g}" if minimum == maximum else f"{minimum:g} to {maximum:g}"
    largest = max(abs(end) for end in ends)
    # A wrong unit keeps the sign: below a bound of 0 it explains nothing.
    has_wrong_sign = spec.low is not None and spec.low >= 0 and min(ends) < 0
    for mistake in () if has_wrong_sign else spec.mistakes:
        if mistake.low <= largest <= mistake.high:
            return f"{found} {mistake.cause}"
    if all(end < 0 and _is_plausible(spec, -end) for end in ends):
        return f"{found} looks like the opposite sign; {_range(spec)} expected"
    return f"{found} is outside of what is plausible, {_range(spec)}"


def _cryosparc_entry(name: str) -> tuple[str, str] | None:
    group, _, field = name.partition("/")
    for pattern, fields in _fields_cryosparc.GROUPS.items():
        if field in fields and re.fullmatch(pattern, group):
            return fields[field]
    return None


def _is_plausible(spec: FieldSpec | Quantity, value: float) -> bool:
    """Whether a value is within the bounds, but for rounding in float32."""
    low = -math.inf if spec.low is None else spec.low
    high = math.inf if spec.high is None else spec.high
    slack = 1e-6
    return low - slack * max(1.0, abs(low)) <= value <= high + slack * max(1.0, abs(high))


def _range(spec: FieldSpec | Quantity) -> str:
    """Return the bounds as text, ``500 to 100,000 Å``."""
    unit = f" {spec.unit}" if spec.unit not in ("", "fraction") else ""
    low, high = (None if bound is None else _number(bound) for bound in (spec.low, spec.high))
    if low is None or high is None:
        return f"at most {high}{unit}" if low is None else f"at least {low}{unit}"
    return f"{low} to {high}{unit}"


def _number(bound: float) -> str:
    return f"{bound:,.0f}" if float(bound).is_integer() else f"{bound:.4g}"
