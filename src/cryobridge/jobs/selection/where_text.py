"""The small language of ``--where``: text -> a tree of comparisons. Nothing in it is ever run as a program.

::

    condition   = term, { "or", term } ;
    term        = factor, { "and", factor } ;
    factor      = "not", factor | "(", condition, ")" | comparison ;
    comparison  = operand, operator, operand, { operator, operand }
                | operand, [ "not" ], "in", "(", constant, { ",", constant }, ")" ;
    operand     = column, [ "[", number, { ",", number }, "]" ] | constant ;
    operator    = "==" | "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ;
    constant    = number | text in single or double quotes ;

``not`` binds closer than ``and``, and ``and`` closer than ``or``. Words are the same in capital letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias, Union

from cryobridge.errors import UsageError

OPERATORS = ("==", "!=", "<=", ">=", "<", ">")
_SYNONYMS = {"=": "==", "<>": "!="}
_MAX_DEPTH = 100
# A uid has 20; a longer number is beyond every whole column and compared as a float.
_MAX_DIGITS = 21
_SHOWN_LETTERS = 40
_LIKE_A_NUMBER = re.compile(r"[+-]?\.?\d")
_EXAMPLE = "For instance: --where 'rlnDefocusU > 12000 and rlnClassNumber in (1, 4)'."
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w@/.]))
      | (?P<name>[^\W\d]\w*(?:[/.]\w+)*)
      | `(?P<quoted_name>[^`]+)`
      | '(?P<single>[^']*)'
      | "(?P<double>[^"]*)"
      | (?P<mark>==|!=|<>|<=|>=|[=<>()\[\],])
    )""",
    re.VERBOSE,
)


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
class Comparison:
    """Two operands and what lies between them: one of `OPERATORS`."""

    left: Operand
    operator: str
    right: Operand


@dataclass(frozen=True)
class Membership:
    """Whether a column has one of several values."""

    column: ColumnRef
    constants: tuple[Constant, ...]


@dataclass(frozen=True)
class Not:
    """The opposite."""

    part: Condition


@dataclass(frozen=True)
class AllOf:
    """Every part is true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    """Some part is true."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = Union[Comparison, Membership, Not, AllOf, AnyOf]  # noqa: UP007


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, text, mark, end; words of the language are names
    text: str
    position: int

    @property
    def word(self) -> str:
        return self.text.lower() if self.kind == "name" else ""

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else _shown(self.text)


def parse_where(text: str) -> Condition:
    """Parse a condition.

    Raises
    ------
    UsageError
        If it is not of the language; the message has the position.
    """
    return _Parser(text).whole()


def where_error(position: int, message: str, hint: str = _EXAMPLE) -> UsageError:
    """Return the error about the character at ``position`` (from 1)."""
    return UsageError(f"--where, character {position}: {message}", hint=hint)


def _tokens(text: str) -> list[_Token]:
    tokens, place = [], 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise _no_token(text, start)
        kind = match.lastgroup or ""
        start = match.start(kind) - (kind in {"quoted_name", "single", "double"})
        shown = {"quoted_name": "column", "single": "text", "double": "text"}.get(kind, kind)
        tokens.append(_Token(shown, match[kind], start + 1))
        place = match.end()
    return [*tokens, _Token("end", "", len(text.rstrip()) + 1)]


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]!r}…"


def _no_token(text: str, start: int) -> UsageError:
    word = text[start:].split(maxsplit=1)[0]
    if word[0] in "'\"`":
        return where_error(start + 1, f"the quote {word[0]} is not closed", "Texts stand between two equal quotes.")
    if _LIKE_A_NUMBER.match(word):
        return where_error(
            start + 1,
            f"{_shown(word)} is not a number",
            "Texts stand in quotes, as in rlnImageName == '000001@stack.mrcs'.",
        )
    return where_error(start + 1, f"{word[0]!r} means nothing here; there is no arithmetic")


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._place = 0
        self._depth = 0

    def whole(self) -> Condition:
        if self._next.kind == "end":
            raise where_error(1, "there is no condition")
        condition = self._condition()
        if self._next.kind != "end":
            raise where_error(self._next.position, f"{self._next} follows a whole condition; and, or expected")
        return condition

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._next
        self._place += token.kind != "end"
        return token

    def _takes(self, *choices: str) -> bool:
        """Take the next token if it is one of these words or marks."""
        token = self._next
        found = token.word in choices or (token.kind == "mark" and token.text in choices)
        self._place += found
        return found

    def _condition(self) -> Condition:
        parts = [self._term()]
        while self._takes("or"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _term(self) -> Condition:
        parts = [self._factor()]
        while self._takes("and"):
            parts.append(self._factor())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _factor(self) -> Condition:
        start = self._next
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise where_error(start.position, f"nested more than {_MAX_DEPTH} deep")
        try:
            if self._takes("not"):
                return Not(self._factor())
            if self._takes("("):
                inner = self._condition()
                if not self._takes(")"):
                    raise where_error(
                        self._next.position, f"{self._next} where the ) of character {start.position} belongs"
                    )
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Condition:
        first = self._operand()
        if self._next.word in {"in", "not"}:
            return self._membership(first)
        parts: list[Condition] = []
        left = first
        while (operator := _operator(self._next)) is not None:
            self._take()
            right = self._operand()
            parts.append(_compared(left, operator, right))
            left = right
        if not parts:
            raise where_error(
                self._next.position, f"{self._next} where a comparison with {first} (==, <, in …) is expected"
            )
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _membership(self, operand: Operand) -> Condition:
        negated = self._takes("not")
        if not self._takes("in"):
            raise where_error(self._next.position, f"{self._next} where in is expected")
        if isinstance(operand, Constant):
            raise where_error(operand.position, f"{operand} is no column", _COLUMNS_HINT)
        if not self._takes("("):
            raise where_error(self._next.position, f"{self._next} where ( is expected, as in in (1, 4)")
        constants = [self._constant()]
        while self._takes(","):
            constants.append(self._constant())
        if not self._takes(")"):
            raise where_error(self._next.position, f"{self._next} where , or ) is expected")
        condition = Membership(operand, tuple(constants))
        return Not(condition) if negated else condition

    def _operand(self) -> Operand:
        if self._next.kind == "column" or (self._next.kind == "name" and self._next.word not in _WORDS):
            token = self._take()
            return ColumnRef(token.text, self._index(), token.position)
        return self._constant()

    def _index(self) -> tuple[int, ...]:
        if not self._takes("["):
            return ()
        index = []
        while True:
            token = self._take()
            if token.kind != "number" or not token.text.isdigit() or len(token.text) > _MAX_DIGITS:
                raise where_error(token.position, f"{token} where the number of an element, from 0, is expected")
            index.append(int(token.text))
            if self._takes("]"):
                return tuple(index)
            if not self._takes(","):
                raise where_error(self._next.position, f"{self._next} where ] is expected")

    def _constant(self) -> Constant:
        token = self._take()
        if token.kind == "text":
            return Constant(token.text, token.position)
        if token.kind == "number":
            is_whole = token.text.lstrip("+-").isdigit() and len(token.text) <= _MAX_DIGITS
            return Constant(int(token.text) if is_whole else float(token.text), token.position)
        what = "a column, a number or a text in quotes is expected"
        raise where_error(token.position, f"{token} where {what}")


_WORDS = {"and", "or", "not", "in"}
_COLUMNS_HINT = "Columns are written without quotes: rlnDefocusU > 12000."


def _operator(token: _Token) -> str | None:
    text = _SYNONYMS.get(token.text, token.text)
    return text if token.kind == "mark" and text in OPERATORS else None


def _compared(left: Operand, operator: str, right: Operand) -> Comparison:
    if isinstance(left, Constant) and isinstance(right, Constant):
        raise where_error(left.position, f"{left} and {right} are compared, neither of them a column", _COLUMNS_HINT)
    return Comparison(left, operator, right)
