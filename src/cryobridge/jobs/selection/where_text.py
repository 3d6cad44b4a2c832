"""The small language of ``where``: Python's comparisons, over columns that are named as files spell them.

::

    rlnDefocusU > 12000 and rlnClassNumber in (1, 4)
    not (8000 < ctf/df1_A < 20000) or ctf/type == 'spline'
    alignments3D/shift[0] <= 2.5 and `odd name` <> 1

The words are found here, since a column may be called ``ctf/df1_A``. Each column, number and text becomes a name such
as ``t3``, and Python's own parser makes a tree of that; nothing is ever compiled or run. ``=`` and ``<>`` mean ``==``
and ``!=``, and the words of the language may be in capital letters.
"""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, Union

from cryobridge.errors import UsageError, option

_MAX_DEPTH = 100
# A uid has 20; a longer number is beyond every whole column and compared as a float.
_MAX_DIGITS = 21
_SHOWN_LETTERS = 40
_LIKE_A_NUMBER = re.compile(r"[+-]?\.?\d")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w@/.]))
      | (?P<word>(?:and|or|not\s+in|not|in)(?![\w/.]))
      | (?P<name>[^\W\d]\w*(?:[/.]\w+)*)
      | `(?P<quoted_name>[^`]+)`
      | '(?P<single>[^']*)'
      | "(?P<double>[^"]*)"
      | (?P<index>\[\s*\d+(?:\s*,\s*\d+)*\s*\])
      | (?P<sign>==|!=|<>|<=|>=|[=<>])
      | (?P<mark>[(),]|\[|\])
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_KINDS = {"quoted_name": "column", "name": "column", "single": "text", "double": "text"}
_SYNONYMS = {"=": "==", "<>": "!="}
_VALUES = frozenset({"column", "number", "text"})
_IN = frozenset({"in", "not in"})
_VALUE = "a column, a number or a text in quotes"
_SPLIT_HINT = "Combine comparisons with and, or: rlnDefocusU > 12000 and rlnClassNumber in (1, 4)."
_COLUMNS_HINT = "Columns are written without quotes: rlnDefocusU > 12000."


@dataclass(frozen=True)
class ColumnRef:
    """A column, or one element of a vector column; ``position`` counts characters from 1."""

    name: str
    index: tuple[int, ...]
    position: int

    def __str__(self) -> str:
        return f"{self.name}[{','.join(map(str, self.index))}]" if self.index else self.name


@dataclass(frozen=True)
class Constant:
    """A number or a text."""

    value: int | float | str
    position: int

    def __str__(self) -> str:
        return repr(self.value)


Operand: TypeAlias = Union[ColumnRef, Constant]  # noqa: UP007 - evaluated at run time


@dataclass(frozen=True)
class Condition:
    """A condition, in Python's own tree.

    Parameters
    ----------
    tree
        ``BoolOp``, ``Not`` and ``Compare`` over names; on the right of ``In`` is a tuple of names, or one name.
    operands
        What each name stands for, in the order of the text.
    """

    tree: ast.expr
    operands: dict[str, Operand]


@dataclass(frozen=True)
class _Token:
    kind: str  # column, number, text, index, sign, end; words and marks are their own kinds
    text: str
    position: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else _shown(self.text)


def parse_where(text: str) -> Condition:
    """Parse a condition.

    Raises
    ------
    UsageError
        If it is not of the language; the message has the position.

    Examples
    --------
    >>> [str(operand) for operand in parse_where("8000 < ctf/df1_A < 20000").operands.values()]
    ['8000', 'ctf/df1_A', '20000']
    """
    tokens = _tokens(text)
    if len(tokens) == 1:
        raise where_error(1, "there is no condition")
    _check_order(tokens)
    operands: dict[str, Operand] = {}
    source = ""
    for number, (token, following) in enumerate(itertools.pairwise(tokens)):
        if token.kind in _VALUES:
            operands[f"t{number}"] = _operand(token, following)
            source += f" t{number}"
        elif token.kind != "index":
            source += f" {_SYNONYMS.get(token.text, token.text) if token.kind == 'sign' else token.kind}"
    tree = ast.parse(source.strip(), mode="eval").body
    _check(tree, operands, tokens)
    return Condition(tree, operands)


def where_error(position: int, message: str, hint: str = "") -> UsageError:
    """Return the error about the character at ``position`` (from 1)."""
    example = option("where", "rlnDefocusU > 12000 and rlnClassNumber in (1, 4)")
    return UsageError(f"character {position}: {message}", option="where", hint=hint or f"For instance: {example}.")


class _Opened(NamedTuple):
    """A parenthesis that is not closed yet, with the number of ``not`` before it."""

    position: int
    n_nots: int
    is_list: bool


def _tokens(text: str) -> list[_Token]:
    tokens, place, end = [], 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise _no_token(text, place + len(text[place:]) - len(text[place:].lstrip()))
        group = match.lastgroup or ""
        content = match[group]
        kind = " ".join(content.lower().split()) if group in {"word", "mark"} else _KINDS.get(group, group)
        start = match.start(group) - (group in {"quoted_name", "single", "double"})
        tokens.append(_Token(kind, content, start + 1))
        place = match.end()
    return [*tokens, _Token("end", "", end + 1)]


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]!r}…"


def _no_token(text: str, start: int) -> UsageError:
    word = text[start:].split(maxsplit=1)[0]
    if word[0] in "'\"`":
        return where_error(start + 1, f"the quote {word[0]} is not closed", "Texts stand between two equal quotes.")
    if _LIKE_A_NUMBER.match(word):
        hint = "Texts stand in quotes, as in rlnImageName == '000001@stack.mrcs'."
        return where_error(start + 1, f"{_shown(word)} is not a number", hint)
    return where_error(start + 1, f"{word[0]!r} means nothing here; there is no arithmetic")


def _check_order(tokens: list[_Token]) -> None:
    """Check each token against what is open and the one before it: Python's parser then has nothing to object to."""
    opened: list[_Opened] = []
    n_nots = 0
    before = _Token("start", "", 0)
    for token in tokens:
        is_in_list = bool(opened) and opened[-1].is_list
        expected = _expected(before.kind, token.kind, is_in_list=is_in_list)
        if token.kind == ")" and not opened and not expected:
            expected = "the end"
        if token.kind == "end" and opened and not expected:
            expected = f"the ) of character {opened[-1].position}"
        if expected:
            raise where_error(token.position, f"{token} where {expected} is expected")
        if token.kind == "(":
            opened.append(_Opened(token.position, n_nots, before.kind in _IN))
        elif token.kind == ")":
            opened.pop()
        n_nots = n_nots + 1 if token.kind == "not" else 0
        if sum(1 + group.n_nots for group in opened) + n_nots > _MAX_DEPTH:
            raise where_error(token.position, f"nested more than {_MAX_DEPTH} deep")
        before = token


def _expected(before: str, kind: str, *, is_in_list: bool) -> str:
    """Return what should stand in the place of a token of a kind; empty where it may stand there."""
    if before in _IN:
        return "" if kind == "(" else "(, as in in (1, 4),"
    if is_in_list:
        if before in {"number", "text"}:
            return "" if kind in {",", ")"} else ", or )"
        return "" if kind in {"number", "text"} else "a number or a text in quotes"
    if before == "column" and kind == "[":
        return "the number of an element in [ ], such as [0],"
    if before in _VALUES or before in {"index", ")"}:
        may_follow = kind in {"sign", "and", "or", ")", "end"} | _IN or (kind == "index" and before == "column")
        return "" if may_follow else "a comparison (==, <, in …), and, or"
    if before == "sign":
        return "" if kind in _VALUES else _VALUE
    return "" if kind in _VALUES or kind in {"(", "not"} else _VALUE


def _operand(token: _Token, following: _Token) -> Operand:
    if token.kind == "column":
        index = (
            [digits.strip() for digits in following.text.strip("[]").split(",")] if following.kind == "index" else []
        )
        if any(len(digits) > _MAX_DIGITS for digits in index):
            raise where_error(following.position, f"{following} where the number of an element, from 0, is expected")
        return ColumnRef(token.text, tuple(map(int, index)), token.position)
    if token.kind == "text":
        return Constant(token.text, token.position)
    is_whole = token.text.lstrip("+-").isdigit() and len(token.text) <= _MAX_DIGITS
    return Constant(int(token.text) if is_whole else float(token.text), token.position)


def _check(node: ast.expr, operands: dict[str, Operand], tokens: list[_Token]) -> None:
    """Refuse what is no condition, or has no meaning in one: a column alone, a comparison of comparisons."""
    if isinstance(node, ast.BoolOp):
        for part in node.values:
            _check(part, operands, tokens)
    elif isinstance(node, ast.UnaryOp):
        _check(node.operand, operands, tokens)
    elif isinstance(node, ast.Compare):
        _check_comparison(node, operands)
    else:
        assert isinstance(node, ast.Name)  # the order of the tokens admits nothing else
        operand, number = operands[node.id], int(node.id[1:])
        following = tokens[number + 1] if tokens[number + 1].kind != "index" else tokens[number + 2]
        raise where_error(
            following.position, f"{following} where a comparison with {operand} (==, <, in …) is expected"
        )


def _first(node: ast.expr, operands: dict[str, Operand]) -> Operand:
    return min(
        (operands[part.id] for part in ast.walk(node) if isinstance(part, ast.Name)), key=lambda one: one.position
    )


def _check_comparison(node: ast.Compare, operands: dict[str, Operand]) -> None:
    sides = [node.left, *node.comparators]
    for side in sides:
        if not isinstance(side, ast.Name | ast.Tuple):
            position = _first(side, operands).position
            raise where_error(
                position, "a condition is compared, where a column or a constant is expected", _SPLIT_HINT
            )
    for left, sign, right in zip(sides, node.ops, node.comparators, strict=False):
        one = operands[left.id] if isinstance(left, ast.Name) else None
        if isinstance(sign, ast.In | ast.NotIn):
            if len(node.ops) > 1:
                raise where_error(_first(node, operands).position, "in is chained with another comparison", _SPLIT_HINT)
            if isinstance(one, Constant):
                raise where_error(one.position, f"{one} is no column", _COLUMNS_HINT)
        elif isinstance(one, Constant) and isinstance(right, ast.Name) and isinstance(operands[right.id], Constant):
            other = operands[right.id]
            text = f"{one} and {other} are compared, neither of them a column"
            raise where_error(one.position, text, _COLUMNS_HINT)
