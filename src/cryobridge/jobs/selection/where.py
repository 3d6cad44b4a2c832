"""Conditions on columns: checked against a table, then worked out for all rows at once."""

from __future__ import annotations

import ast
import difflib
import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.jobs.selection.where_text import ColumnRef, Constant, Operand, parse_where, where_error
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.errors import UsageError
    from cryobridge.formats.table import Array, Column, Table

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_OF_MEMBERS: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.In: ast.Eq, ast.NotIn: ast.NotEq}
_UNORDERED = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
_N_SUGGESTIONS = 3


def rows_where(text: str, table: Table) -> NDArray[np.bool_]:
    """Return whether a condition holds, for each row of a table, (n,).

    Numbers are compared in the column's own precision: 0.1 equals the float32 that is nearest to it. Whole numbers are
    compared to the last digit, also those of 64 bits with floats. A value that is NaN fulfils no comparison but ``!=``.

    Raises
    ------
    UsageError
        If the text is no condition (see `where_text`), names a column that the table lacks, or compares text with
        numbers; the message has the position.
    """
    condition = parse_where(text)
    columns = {column.name: column for column in table.columns}
    refs = [operand for operand in condition.operands.values() if isinstance(operand, ColumnRef)]
    is_text = {ref: _check_reference(ref, columns) for ref in refs}
    pairs = _Pairs(condition.operands)
    comparisons = [node for node in ast.walk(condition.tree) if isinstance(node, ast.Compare)]
    for node in sorted(comparisons, key=lambda node: node.col_offset):
        for left, sign, right in pairs.of(node):
            _check_kinds(left, sign, right, is_text)
    names = {_known_name(ref.name, columns) for ref in refs}
    read = table.read([name for name in table.names if name in names])
    values = {ref: _element(read[_known_name(ref.name, columns)], ref) for ref in refs}
    return _evaluate(condition.tree, pairs, values)


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


class _Pairs:
    """What each comparison compares, two operands at a time; a list is compared with each of its members."""

    def __init__(self, operands: dict[str, Operand]) -> None:
        self._operands = operands

    def of(self, node: ast.Compare) -> Iterator[tuple[Operand, ast.cmpop, Operand]]:
        """Return the pairs of a chain such as ``1 < a < 2``, or of ``a in (1, 2)``."""
        left = node.left
        for sign, right in zip(node.ops, node.comparators, strict=True):
            for member in right.elts if isinstance(right, ast.Tuple) else [right]:
                yield self._operand(left), sign, self._operand(member)
            left = right

    def _operand(self, node: ast.expr) -> Operand:
        assert isinstance(node, ast.Name)  # checked by the parser
        return self._operands[node.id]


def _check_kinds(left: Operand, sign: ast.cmpop, right: Operand, is_text: dict[ColumnRef, bool]) -> None:
    """Refuse comparisons of text with numbers, and of the order of texts."""
    kinds = [isinstance(side.value, str) if isinstance(side, Constant) else is_text[side] for side in (left, right)]
    if kinds[0] != kinds[1]:
        text, number = (left, right) if kinds[0] else (right, left)
        raise where_error(
            max(left.position, right.position),
            f"{text} is text and {number} a number",
            "Texts stand in quotes, numbers and columns don't.",
        )
    if kinds[0] and not isinstance(sign, _UNORDERED):
        side = left if isinstance(left, ColumnRef) else right
        raise where_error(side.position, f"{side} is text, which has no order", "Use ==, != or in ('…', '…').")


def _element(values: Array | Labels, ref: ColumnRef) -> Array | Labels:
    place: tuple[Any, ...] = (slice(None), *ref.index)
    return values if isinstance(values, Labels) else values[place]


def _evaluate(node: ast.expr, pairs: _Pairs, values: dict[ColumnRef, Array | Labels]) -> NDArray[np.bool_]:
    if isinstance(node, ast.UnaryOp):
        return ~_evaluate(node.operand, pairs, values)
    if isinstance(node, ast.BoolOp):
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        parts = (_evaluate(part, pairs, values) for part in node.values)
        return functools.reduce(lambda one, other: combine(one, other, out=one), parts)
    assert isinstance(node, ast.Compare)  # checked by the parser
    compared = (_compare(left, type(sign), right, values) for left, sign, right in pairs.of(node))
    if isinstance(node.ops[0], ast.In):
        return functools.reduce(np.logical_or, compared)
    return functools.reduce(np.logical_and, compared)


def _compare(
    left: Operand, sign: type[ast.cmpop], right: Operand, values: dict[ColumnRef, Array | Labels]
) -> NDArray[np.bool_]:
    if isinstance(left, Constant):
        left, sign, right = right, _MIRRORED.get(sign, sign), left
    assert isinstance(left, ColumnRef)  # two constants are refused by the parser
    compare = _COMPARE[_OF_MEMBERS.get(sign, sign)]
    column = values[left]
    if isinstance(right, Constant):
        if isinstance(column, Labels):
            return _of_texts(column, lambda text: bool(compare(text, right.value)))
        return _with_number(column, compare, right)
    other = values[right]
    if isinstance(column, Labels) and isinstance(other, Labels):
        return np.asarray(compare(column.to_numpy(), other.to_numpy()), dtype=bool)
    assert not isinstance(column, Labels)  # texts are compared with texts
    assert not isinstance(other, Labels)
    if column.dtype.kind == "f" and _is_wide(other):
        return _with_floats(other, _COMPARE[_MIRRORED.get(_OF_MEMBERS.get(sign, sign), sign)], column)
    if _is_wide(column) and other.dtype.kind == "f":
        return _with_floats(column, compare, other)
    with np.errstate(invalid="ignore"):  # NaN is neither less nor more
        return np.asarray(compare(column, other), dtype=bool)


def _with_number(column: Array, compare: Callable[[Any, Any], Any], constant: Constant) -> NDArray[np.bool_]:
    value = constant.value
    if column.dtype.kind == "f" and column.dtype.itemsize < 8:
        with np.errstate(over="ignore"):
            narrow = column.dtype.type(value)
        # Beyond the column's range the comparison is made in double precision.
        return np.asarray(compare(column, narrow if np.isfinite(narrow) else np.float64(value)), dtype=bool)
    if _is_wide(column) and isinstance(value, float):
        return _with_floats(column, compare, np.float64(value))
    if column.dtype.kind not in "iuf" and isinstance(value, int):
        value = float(value)  # other kinds hold no number of more than 64 bits, and NumPy compares none with it
    with np.errstate(invalid="ignore"):  # NaN is neither less nor more
        return np.asarray(compare(column, value), dtype=bool)


def _is_wide(column: Array) -> bool:
    """Whether a column holds whole numbers that double precision may not tell apart."""
    return column.dtype.kind in "iu" and column.dtype.itemsize == 8


def _with_floats(column: Array, compare: Callable[[Any, Any], Any], floats: Any) -> NDArray[np.bool_]:
    """Compare whole numbers of 64 bits with floats (n,), or one, to the last digit."""
    floats = np.asarray(floats, np.float64)
    first = float(np.iinfo(column.dtype).min)
    beyond = 2.0**64 if column.dtype.kind == "u" else 2.0**63
    is_among = (floats >= first) & (floats < beyond)
    floor = np.floor(np.where(is_among, floats, 0.0))
    whole = floor.astype(column.dtype)
    # -1, 0 or 1 as the column is less, equal or more; NaN beside NaN.
    order = np.where(column < whole, -1.0, np.where(column > whole, 1.0, np.where(floats > floor, -1.0, 0.0)))
    order = np.where(is_among, order, -np.sign(floats))
    return np.asarray(compare(order, 0.0), dtype=bool)


def _of_texts(labels: Labels, holds: Callable[[str], bool]) -> NDArray[np.bool_]:
    """Ask once for each distinct text."""
    answers = np.fromiter((holds(text) for text in labels.values), dtype=bool, count=len(labels.values))
    chosen: NDArray[np.bool_] = answers[labels.codes]
    return chosen
