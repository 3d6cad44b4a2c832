"""The catalogue of known columns: what a column holds, in which unit, and which values are plausible.

Nothing heavy is imported, so that the command line may look names up for completion and help. A column that is not
known is no error: files may carry any.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from cryobridge.formats.cryosparc import fields as _fields_cryosparc
from cryobridge.formats.relion import fields as _fields_relion

Kind = Literal["float", "int", "text", "bool", "vector"]


@dataclass(frozen=True)
class Mistake:
    """A cause that is recognised by the size of the values.

    Parameters
    ----------
    low, high
        Where the largest magnitude of the column then lies.
    cause
        The end of a sentence about the values, such as ``looks like µm; Å expected (× 10,000)``.
    """

    low: float
    high: float
    cause: str


@dataclass(frozen=True)
class Quantity:
    """What a column can hold: kind, unit and plausible values, without name and meaning.

    Parameters
    ----------
    kind
        ``vector`` is RELION's bracketed list in one token.
    unit
        As people write it; empty where there is none.
    low, high
        Bounds of plausible values, both included; None for no bound.
    legal
        Values that stand for "not known" or "none" and are right wherever they lie.
    mistakes
        Causes to look for when a value is out of bounds.
    """

    kind: Kind
    unit: str = ""
    low: float | None = None
    high: float | None = None
    legal: tuple[float, ...] = ()
    mistakes: tuple[Mistake, ...] = ()


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


_PI = math.pi
# RELION's words for "not set": 999 for priors and accuracies before they are known, -999 for picks by hand.
_UNSET = (999.0, -999.0)
_PERCENTAGE = Mistake(1, 100, "looks like a percentage; a fraction expected (÷ 100)")

QUANTITIES: dict[str, Quantity] = {
    "text": Quantity("text"),
    "vector": Quantity("vector"),
    "flag": Quantity("bool", low=0, high=1),
    "int": Quantity("int"),
    "count": Quantity("int", low=0),
    "number": Quantity("int", low=1),
    "setting": Quantity("int", low=-1),
    "identity": Quantity("int", low=0),
    "class_number": Quantity("int", low=0, legal=(-999,)),
    "dimension": Quantity("int", low=2, high=3),
    "half_from_0": Quantity(
        "int", low=0, high=1, mistakes=(Mistake(2, 2, "looks like halves counted from 1; 0 and 1 expected"),)
    ),
    "half_from_1": Quantity("int", low=0, high=2),
    "sign": Quantity("float", low=-1, high=1),
    "value": Quantity("float"),
    "positive": Quantity("float", low=0),
    "fraction": Quantity("float", "fraction", 0, 1, mistakes=(_PERCENTAGE,)),
    "correlation": Quantity("float", low=-1, high=1),
    "flip_ratio": Quantity("float", "fraction", 0, 1, legal=_UNSET),
    "changed_classes": Quantity(
        "float",
        "fraction",
        0,
        1,
        legal=(9999999,),
        mistakes=(Mistake(1, 1e9, "looks like a number of particles; a fraction of them expected"),),
    ),
    "position": Quantity(
        "float",
        "fraction",
        0,
        1,
        mistakes=(Mistake(2, 1e6, "looks like pixels; a fraction expected (÷ the micrograph's edge)"),),
    ),
    "coordinate_px": Quantity("float", "px", -10_000, 100_000),
    "size_px": Quantity("int", "px", 1, 100_000),
    "pixel_size_A": Quantity(
        "float",
        "Å",
        0.1,
        50,
        mistakes=(
            Mistake(0.01, 0.1, "looks like nm; Å expected (× 10)"),
            Mistake(1e-12, 1e-8, "looks like m; Å expected (× 10¹⁰)"),
        ),
    ),
    "detector_um": Quantity("float", "µm", 0.1, 500),
    "magnification": Quantity("float", "", 100, 10_000_000),
    "voltage_kV": Quantity(
        "float", "kV", 60, 400, mistakes=(Mistake(60e3, 400e3, "looks like V; kV expected (÷ 1,000)"),)
    ),
    # Cs-corrected microscopes come with 0 or 0.001.
    "cs_mm": Quantity(
        "float",
        "mm",
        0,
        10,
        mistakes=(
            Mistake(10, 1e4, "looks like µm; mm expected (÷ 1,000)"),
            Mistake(1e4, 1e7, "looks like nm; mm expected (÷ 1,000,000)"),
            Mistake(1e7, 1e8, "looks like Å; mm expected (÷ 10,000,000)"),
        ),
    ),
    "contrast": Quantity("float", "fraction", 0, 1, mistakes=(_PERCENTAGE,)),
    # 0 stands for no CTF: files without CTF information are padded with it.
    "defocus_A": Quantity(
        "float",
        "Å",
        500,
        100_000,
        legal=(0,),
        mistakes=(
            Mistake(0.05, 20, "looks like µm; Å expected (× 10,000)"),
            Mistake(5e-8, 2e-5, "looks like m; Å expected (× 10¹⁰)"),
        ),
    ),
    "astigmatism_A": Quantity("float", "Å", 0, 100_000),
    "bfactor_A2": Quantity("float", "Å²"),
    "aberration_A": Quantity("float", "Å"),
    "mrad": Quantity("float", "mrad", -100, 100),
    "anisomag": Quantity(
        "float",
        low=-0.3,
        high=0.3,
        mistakes=(Mistake(0.7, 1.3, "looks like the whole matrix; the identity taken off expected"),),
    ),
    "magnification_diagonal": Quantity(
        "float",
        low=0.7,
        high=1.3,
        mistakes=(Mistake(0, 0.3, "looks like cryoSPARC's matrix without the identity; add 1 and invert"),),
    ),
    "magnification_cross": Quantity("float", low=-0.3, high=0.3),
    # Two turns: cryoSPARC does not reduce its angles, and real ones reach 4.69.
    "angle_rad": Quantity(
        "float",
        "rad",
        -4 * _PI,
        4 * _PI,
        mistakes=(Mistake(4 * _PI, 720, "looks like degrees; radians expected (× π/180)"),),
    ),
    "angle_deg": Quantity("float", "deg", -720, 720, legal=_UNSET),
    "accuracy_deg": Quantity("float", "deg", 0, 180, legal=(999,)),
    "accuracy_A": Quantity("float", "Å", 0),
    "shift_px": Quantity("float", "px", -5_000, 5_000),
    "shift_A": Quantity("float", "Å", -10_000, 10_000),
    "motion_px": Quantity(
        "float",
        "px",
        -5_000,
        5_000,
        mistakes=(Mistake(9999, 9999, "holds -9999, which marks frames whose motion was not found"),),
    ),
    "motion_A": Quantity("float", "Å", 0, 10_000),
    "length_A": Quantity("float", "Å", 0, legal=(-1,)),
    "limit_A": Quantity("float", "Å", 0, 100_000, legal=(-1,)),
    # The first shells, empty classes and failed fits have 999, inf and -1.
    "resolution_A": Quantity("float", "Å", 0, 10_000, legal=(-1, math.inf)),
    "frequency": Quantity("float", "1/Å", 0, 10),
    "dose": Quantity("float", "e/Å²", 0, 1_000),
}


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
    entry = _fields_relion.LABELS.get(name) if name.startswith("rln") else _cryosparc_entry(name)
    if entry is None:
        return None
    quantity, meaning = entry
    return FieldSpec(name=name, meaning=meaning, **vars(QUANTITIES[quantity]))


def judge(spec: FieldSpec, minimum: float, maximum: float) -> str | None:
    """Say what is odd about the values of a column.

    Parameters
    ----------
    spec
        The column.
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
    if name == "uid":
        return _fields_cryosparc.UID
    group, _, field = name.partition("/")
    for pattern, fields in _fields_cryosparc.GROUPS.items():
        if field in fields and re.fullmatch(pattern, group):
            return fields[field]
    return None


def _is_plausible(spec: FieldSpec, value: float) -> bool:
    """Whether a value is within the bounds, but for rounding in float32."""
    low = -math.inf if spec.low is None else spec.low
    high = math.inf if spec.high is None else spec.high
    slack = 1e-6
    return low - slack * max(1.0, abs(low)) <= value <= high + slack * max(1.0, abs(high))


def _range(spec: FieldSpec) -> str:
    """Return the bounds as text, ``500 to 100,000 Å``."""
    unit = f" {spec.unit}" if spec.unit not in ("", "fraction") else ""
    low, high = (None if bound is None else _number(bound) for bound in (spec.low, spec.high))
    if low is None or high is None:
        return f"at most {high}{unit}" if low is None else f"at least {low}{unit}"
    return f"{low} to {high}{unit}"


def _number(bound: float) -> str:
    return f"{bound:,.0f}" if float(bound).is_integer() else f"{bound:.4g}"
