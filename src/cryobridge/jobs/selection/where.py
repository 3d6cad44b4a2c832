"""Conditions on columns: checked against a table, then worked out for all rows at once."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.jobs.selection.where_text import (
    AllOf,
    ColumnRef,
    Comparison,
    Condition,
    Constant,
    Membership,
    Not,
    Operand,
    parse_where,
    where_error,
)
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.errors import UsageError
    from cryobridge.formats.table import Array, Column, Table

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_N_SUGGESTIONS = 3


def rows_where(text: str, table: Table) -> NDArray[np.bool_]:
    """Return whether a condition holds, for each row of a table, (n,).

    Numbers are compared in the column's own precision: 0.1 equals the float32 that is nearest to it. A value that is
    NaN fulfils no comparison but ``!=``.

    Raises
    ------
    UsageError
        If the text is no condition (see `where_text`), names a column that the table lacks, or compares text with
        numbers; the message has the position.
    """
    condition = parse_where(text)
    columns = {column.name: column for column in table.columns}
    kinds = {ref: _check_reference(ref, columns) for ref in _references(condition)}
    _check_kinds(condition, kinds)
    names = {_known_name(ref.name, columns) for ref in kinds}
    read = table.read([name for name in table.names if name in names])
    values = {ref: _element(read[_known_name(ref.name, columns)], ref) for ref in kinds}
    return _evaluate(condition, values)


def _references(condition: Condition) -> Iterator[ColumnRef]:
    if isinstance(condition, Comparison):
        yield from (side for side in (condition.left, condition.right) if isinstance(side, ColumnRef))
    elif isinstance(condition, Membership):
        yield condition.column
    elif isinstance(condition, Not):
        yield from _references(condition.part)
    else:
        for part in condition.parts:
            yield from _references(part)


def _known_name(name: str, columns: dict[str, Column]) -> str:
    """Return a name as the table has it; RELION's leading underscore may be written or not."""
    return name.removeprefix("_") if name not in columns else name


def _check_reference(ref: ColumnRef, columns: dict[str, Column]) -> bool:
    """Return whether a reference is to text; raise where it is to nothing."""
    column = columns.get(_known_name(ref.name, columns))
    if column is None:
        raise _unknown(ref, columns)
    if len(ref.index) != len(column.shape):
        if not column.shape:
            raise where_error(ref.position, f"{ref.name} has one value a row", f"Write {ref.name} without [ ].")
        example = f"{ref.name}[{','.join('0' * len(column.shape))}]"
        shape = " × ".join(map(str, column.shape))
        raise where_error(ref.position, f"{ref.name} has {shape} values a row", f"Name one of them, such as {example}.")
    if any(place >= size for place, size in zip(ref.index, column.shape, strict=True)):
        last = f"{ref.name}[{','.join(str(size - 1) for size in column.shape)}]"
        raise where_error(ref.position, f"there is no {ref}", f"Elements are counted from 0; the last one is {last}.")
    return column.is_text


def _unknown(ref: ColumnRef, columns: dict[str, Column]) -> UsageError:
    lower = {name.lower(): name for name in columns}
    wanted = ref.name.removeprefix("_").lower()
    close = difflib.get_close_matches(wanted, lower, _N_SUGGESTIONS)
    close += [name for name in lower if name.endswith(f"/{wanted}") and name not in close]
    if close:
        hint = f"Did you mean {' or '.join(lower[name] for name in close[:_N_SUGGESTIONS])}?"
    else:
        hint = (
            f"It has {len(columns)} columns, such as {', '.join(list(columns)[:6])}; `cryobridge inspect` lists them."
        )
    return where_error(ref.position, f"there is no column {ref.name}", hint)


def _check_kinds(condition: Condition, is_text: dict[ColumnRef, bool]) -> None:
    """Refuse comparisons of text with numbers, and of the order of texts."""
    if isinstance(condition, Comparison):
        _check_pair(condition.left, condition.right, is_text)
        side = condition.left if isinstance(condition.left, ColumnRef) else condition.right
        if condition.operator not in {"==", "!="} and isinstance(side, ColumnRef) and is_text[side]:
            raise where_error(side.position, f"{side} is text, which has no order", "Use ==, != or in ('…', '…').")
    elif isinstance(condition, Membership):
        for constant in condition.constants:
            _check_pair(condition.column, constant, is_text)
    elif isinstance(condition, Not):
        _check_kinds(condition.part, is_text)
    else:
        for part in condition.parts:
            _check_kinds(part, is_text)


def _check_pair(left: Operand, right: Operand, is_text: dict[ColumnRef, bool]) -> None:
    kinds = [isinstance(side.value, str) if isinstance(side, Constant) else is_text[side] for side in (left, right)]
    if kinds[0] != kinds[1]:
        text, number = (left, right) if kinds[0] else (right, left)
        raise where_error(
            max(left.position, right.position),
            f"{text} is text and {number} a number",
            "Texts stand in quotes, numbers and columns don't.",
        )


def _element(values: Array | Labels, ref: ColumnRef) -> Array | Labels:
    place: tuple[Any, ...] = (slice(None), *ref.index)
    return values if isinstance(values, Labels) else values[place]


def _evaluate(condition: Condition, values: dict[ColumnRef, Array | Labels]) -> NDArray[np.bool_]:
    if isinstance(condition, Comparison):
        return _compare(condition, values)
    if isinstance(condition, Membership):
        column = values[condition.column]
        if isinstance(column, Labels):
            wanted = {constant.value for constant in condition.constants}
            return _of_texts(column, lambda text: text in wanted)
        found = np.zeros(len(column), dtype=bool)
        for constant in condition.constants:
            found |= _with_number(column, "==", constant)
        return found
    if isinstance(condition, Not):
        return ~_evaluate(condition.part, values)
    combine = np.logical_and if isinstance(condition, AllOf) else np.logical_or
    result = _evaluate(condition.parts[0], values)
    for part in condition.parts[1:]:
        result = combine(result, _evaluate(part, values))
    return result


_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def _compare(comparison: Comparison, values: dict[ColumnRef, Array | Labels]) -> NDArray[np.bool_]:
    left, sign, right = comparison.left, comparison.operator, comparison.right
    if isinstance(left, Constant):
        left, sign, right = right, _MIRRORED[sign], left
    assert isinstance(left, ColumnRef)  # two constants are refused by the parser
    column = values[left]
    if isinstance(right, Constant):
        if isinstance(column, Labels):
            return _of_texts(column, lambda text: bool(_COMPARE[sign](text, right.value)))
        return _with_number(column, sign, right)
    other = values[right]
    if isinstance(column, Labels) and isinstance(other, Labels):
        return np.asarray(_COMPARE[sign](column.to_numpy(), other.to_numpy()), dtype=bool)
    return np.asarray(_COMPARE[sign](column, other), dtype=bool)


def _with_number(column: Array, sign: str, constant: Constant) -> NDArray[np.bool_]:
    value = constant.value
    if column.dtype.kind == "f" and column.dtype.itemsize < 8:
        with np.errstate(over="ignore"):
            narrow = column.dtype.type(value)
        # Beyond the column's range the comparison is made in double precision.
        return np.asarray(_COMPARE[sign](column, narrow if np.isfinite(narrow) else np.float64(value)), dtype=bool)
    return np.asarray(_COMPARE[sign](column, value), dtype=bool)


def _of_texts(labels: Labels, holds: Callable[[str], bool]) -> NDArray[np.bool_]:
    """Ask once for each distinct text."""
    answers = np.fromiter((holds(text) for text in labels.values), dtype=bool, count=len(labels.values))
    chosen: NDArray[np.bool_] = answers[labels.codes]
    return chosen
