"""STAR text: where the blocks are, and rows turned into single-spaced lines that a CSV parser reads fast.

The grammar is the one RELION implements: a loop ends at a blank line, a token that starts with ``#`` ends its line,
quotes surround a token only where they start it, and a closing quote is followed by white space.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError
from cryobridge.formats.arrow import RENAME
from cryobridge.formats.input_file import open_input, read_error, readable_size
from cryobridge.report import Message, note

CHUNK_BYTES = 4 << 20
MAX_LINE_BYTES = 64 << 20

_SPACE, _NEWLINE = 0x20, 0x0A
_BLANKS = " \t\r\n\v\f"  # no others: a name may hold a no-break space
_TO_SPACE = bytes.maketrans(b"\t\r\v\f", b"    ")
# White space inside a quoted token, and the empty token, until the row has been split.
_HIDDEN = {" ": "\x01", "\t": "\x02", "": "\x03"}
_SHOWN = {hidden: text for text, hidden in _HIDDEN.items()}
# A line that starts a block has nothing else on it: a row may start with a name such as data_0001.mrc.
_BLOCK = re.compile(r"data_(\S*)\s*(?:#.*)?", re.ASCII)
_LOOP = re.compile(r"loop_\s*(?:#.*)?", re.ASCII)
_END_OF_ROWS = re.compile(rb"\n(?=[ \t\r]*(?:\n|(?:data_\S*|loop_)[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)))")
_TOKEN = re.compile(
    r"""(?:"((?:\a"|[^"\a]|\a(?!")|"(?![ \t\r\v\f]|$))*)"              # quoted
        |'((?:\a'|[^'\a]|\a(?!')|'(?![ \t\r\v\f]|$))*)')(?=[ \t\r\v\f]|$)
      | \#.*                                                  # a comment, to the end of the line
      | ([^ \t\r\v\f]+)""",
    re.VERBOSE,
)
# What would not read back as one token, and what would not do as the first of a row. For Arrow's regex engine too.
NEEDS_QUOTES = r"""^$|[\x00-\x20]|^["'#]"""
NEEDS_QUOTES_FIRST = NEEDS_QUOTES + r"|^(?:_|;|data_|loop_)"


_MOST_LABELS = 2_000


@dataclass
class BlockText:
    """Where a block is in the file."""

    name: str
    line: int
    is_loop: bool = False
    labels: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)  # of a list block
    rows_start: int = 0
    rows_end: int = 0
    rows_line: int = 0  # 1-based line of the first row
    comments: tuple[str, ...] = ()


class StarText:
    """A STAR file as text, read in pieces; of one of more than `most_bytes` only the whole lines that begin it."""

    def __init__(self, path: Path, most_bytes: int | None = None) -> None:
        self.path = path
        self.messages: list[Message] = []
        self._size = readable_size(path)
        try:
            self._file = open_input(path)
        except OSError as error:
            raise read_error(path, error) from error
        self.is_cut = most_bytes is not None and self._size > most_bytes
        if most_bytes is not None and self.is_cut:
            tail = self.read(max(0, most_bytes - CHUNK_BYTES), most_bytes)
            self._size = most_bytes - len(tail) + tail.rfind(b"\n") + 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from start to end."""
        try:
            data = os.pread(self._file.fileno(), end - start, start)
        except OSError as error:
            raise read_error(self.path, error) from error
        if len(data) < end - start:
            raise FormatError("the file became shorter while it was read", path=self.path, hint="Try again.")
        return data

    def blocks(self) -> list[BlockText]:
        """Find the blocks; rows are passed over, not read into memory.

        Raises
        ------
        FormatError
            If there is no block, or a line fits nowhere.
        """
        found: list[BlockText] = []
        comments: list[str] = []
        ignored: dict[int, list[int]] = {}  # lines after the rows, by the number of the block
        position, line = 0, 0
        while position < self._size:
            text, next_position = self._line(position, line)
            line += 1
            stripped = text.strip(_BLANKS)
            if stripped.startswith("#"):
                comments.append(stripped.lstrip("# "))
            elif (match := _BLOCK.fullmatch(stripped)) is not None:
                found.append(BlockText(match[1], line, comments=tuple(comments)))
                comments = []
            elif stripped and found and not found[-1].rows_start:
                if _LOOP.fullmatch(stripped):
                    found[-1].is_loop = True
                elif stripped.startswith("_"):
                    self._label(found[-1], stripped, line)
                elif found[-1].is_loop and found[-1].labels:
                    block = found[-1]
                    block.rows_start, block.rows_line = position, line
                    block.rows_end, skipped = self._end_of_rows(position)
                    next_position, line = block.rows_end, line - 1 + skipped
                else:
                    raise self._stray(stripped, line)
            elif stripped and found:
                ignored.setdefault(len(found), []).append(line)
            elif stripped:
                raise self._stray(stripped, line)
            position = next_position
        if not found:
            raise FormatError("no data_ block", path=self.path, hint="Check that this is a STAR file.")
        for number, lines in ignored.items():
            text = f"line {lines[0]}: text after the last row of data_{found[number - 1].name} is ignored"
            self._note(text if len(lines) == 1 else f"{text}, {len(lines):,} lines in all")
        return found

    def _note(self, text: str) -> None:
        self.messages.append(note("star-syntax", text, where=self.path))

    def _stray(self, text: str, line: int) -> FormatError:
        return FormatError(
            f"line {line}: {text[:40]!r} belongs to no block",
            path=self.path,
            hint="A STAR file starts with a line such as data_particles; check that this is one.",
        )

    def _line(self, position: int, line: int) -> tuple[str, int]:
        """Return the line at this position and where the next one starts."""
        length = 1 << 12
        while True:
            data = self.read(position, min(position + length, self._size))
            end = data.find(b"\n")
            if end >= 0 or position + length >= self._size:
                raw = data[: end + 1] if end >= 0 else data
                if raw.endswith(b"\r\n") and not any("CRLF" in found.text for found in self.messages):
                    self._note("CRLF line ends (RELION refuses them; convert with dos2unix)")
                try:
                    # Editors on Windows put a byte order mark in front.
                    return raw.decode("utf-8" if position else "utf-8-sig"), position + len(raw)
                except UnicodeDecodeError as error:
                    raise FormatError(
                        f"line {line + 1} is not text", path=self.path, hint="Check that this is a STAR file."
                    ) from error
            length *= 8
            if length > MAX_LINE_BYTES:
                raise FormatError(
                    f"line {line + 1} is longer than {MAX_LINE_BYTES >> 20} MB",
                    path=self.path,
                    hint="Check that this is a STAR file.",
                )

    def _label(self, block: BlockText, text: str, line: int) -> None:
        tokens = split_tokens(text)
        label, _, glued = tokens[0].partition("#")
        if glued:
            self._note(f"line {line}: no space between {label} and #{glued}")
        label = label[1:]
        if len(block.labels) >= _MOST_LABELS:
            raise FormatError(
                f"line {line}: more than {_MOST_LABELS:,} columns in data_{block.name}, as no STAR file of RELION has",
                path=self.path,
                hint="Check that this is a STAR file of particles or micrographs.",
            )
        if label in block.labels:
            raise FormatError(f"line {line}: the column stands twice in data_{block.name}", path=self.path, field=label)
        if block.is_loop:
            block.labels.append(label)
            return
        if len(tokens) != 2:
            raise FormatError(
                f"line {line}: {len(tokens) - 1} values, one expected in the list data_{block.name}",
                path=self.path,
                field=label,
                hint="A table needs a line loop_ before its labels.",
            )
        block.labels.append(label)
        block.values.append(tokens[1])

    def _end_of_rows(self, start: int) -> tuple[int, int]:
        """Return where the rows that start here end (just after a newline), and how many lines they are."""
        position, lines, length = start, 0, CHUNK_BYTES
        while True:
            stop = min(position + length, self._size)
            # Whole lines, and the line end before them, with which the pattern starts.
            data = self.read(position - 1, stop)
            if stop < self._size:
                data = data[: data.rfind(b"\n") + 1]
            newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
            match = _END_OF_ROWS.search(data) if _may_end(data, newlines) else None
            end = match.start() if match else len(data)
            lines += int(np.count_nonzero((newlines > 0) & (newlines <= end)))  # the first one was counted before
            if match:
                return position + end, lines
            if stop == self._size:
                return stop, lines + (not data.endswith(b"\n"))
            if len(data) > 1:
                position, length = position + len(data) - 1, CHUNK_BYTES
            else:
                length = self._longer(length)

    def _longer(self, length: int) -> int:
        if length >= MAX_LINE_BYTES:
            raise FormatError(
                f"a row is longer than {MAX_LINE_BYTES >> 20} MB",
                path=self.path,
                hint="Check that this is a STAR file.",
            )
        return 2 * length

    def row_chunks(self, block: BlockText) -> list[tuple[int, int]]:
        """Cut a block's rows at line ends into pieces of about `CHUNK_BYTES`."""
        cuts = [block.rows_start]
        while cuts[-1] < block.rows_end:
            end = cuts[-1]
            length = CHUNK_BYTES
            while True:
                stop = min(cuts[-1] + length, block.rows_end)
                if stop == block.rows_end:
                    end = stop
                    break
                tail = self.read(max(cuts[-1], stop - (1 << 14)), stop)
                newline = tail.rfind(b"\n")
                if newline >= 0:
                    end = stop - len(tail) + newline + 1
                    break
                length = self._longer(length)
            cuts.append(end)
        return list(pairwise(cuts))


def _may_end(rows: bytes, newlines: NDArray[np.int64]) -> bool:
    """Whether a line after one of these line ends may be empty or start a block."""
    firsts = np.frombuffer(rows, np.uint8)[newlines[newlines < len(rows) - 1] + 1]
    return bool(((firsts <= _SPACE) | (firsts == ord("d")) | (firsts == ord("l"))).any())


def split_tokens(line: str) -> list[str]:
    """Split a line into its tokens, quotes and comments as RELION has them."""
    tokens = []
    for match in _TOKEN.finditer(line):
        double, single, plain = match.groups()
        quoted = double if double is not None else single
        if quoted is not None:
            tokens.append(quoted.replace('\a"', '"').replace("\a'", "'"))
        elif plain is not None:
            tokens.append(plain)
    return tokens


def single_spaced(rows: bytes) -> tuple[bytes, bool]:
    """Return rows with one space between tokens and none at the ends, and whether some token was quoted.

    White space inside quoted tokens is hidden behind control characters; `show_hidden` brings it back.
    """
    has_quotes = b'"' in rows or b"'" in rows
    if has_quotes or b"#" in rows:
        rows = b"\n".join(_plain_line(line) for line in rows.split(b"\n"))
        rows = re.sub(rb"\n\n+", b"\n", rows).lstrip(b"\n")
    rows = rows.translate(_TO_SPACE)
    data = np.frombuffer(rows, np.uint8)
    is_space, is_newline = data == _SPACE, data == _NEWLINE
    drop = is_space.copy()
    drop[1:] &= is_space[:-1] | is_newline[:-1]  # spaces after another or at the start of a line
    drop[:-1] |= is_space[:-1] & is_newline[1:]  # and the last one of a line
    if drop.any():
        rows = data[~drop].tobytes()
        if np.any(is_space[:-2] & is_space[1:-1] & is_newline[2:]):  # of several at its end the first is left
            rows = rows.replace(b" \n", b"\n")
    return rows.removesuffix(b" "), has_quotes


def pick_columns(rows: bytes, n_columns: int, places: list[int]) -> bytes | None:
    """Return single-spaced rows of some columns only; None where that takes a closer look (quotes, short rows).

    Parameters
    ----------
    rows
        Whole lines.
    n_columns
        Values in each.
    places
        The columns to return, ascending.
    """
    if b'"' in rows or b"'" in rows or b"#" in rows or not rows:
        return None
    data = np.frombuffer(rows, np.uint8)
    is_blank = data <= _SPACE
    edges = np.flatnonzero(is_blank[1:] != is_blank[:-1]) + 1
    ends = ([] if is_blank[0] else [0], [] if is_blank[-1] else [len(data)])
    if any(ends):
        edges = np.concatenate([ends[0], edges, ends[1]]).astype(np.int64)
    if len(edges) % (2 * n_columns) or not len(edges):
        return None
    edges = edges.reshape(-1, n_columns, 2)
    # A line ends after the last value, or after one blank more, as RELION writes it; and nowhere else.
    last = edges[:, -1, 1]
    if last[-1] + 1 >= len(data):
        last = last[:-1]
    ends_line = (data[last] == _NEWLINE) | (data[last + 1] == _NEWLINE)
    if not ends_line.all() or rows.count(b"\n") != len(last) + (rows.endswith(b"\n") and len(last) < len(edges)):
        return None
    starts = edges[:, places, 0].ravel()
    lengths = edges[:, places, 1].ravel() - starts + 1
    after = np.cumsum(lengths)
    picked = np.repeat(starts - after + lengths, lengths)
    picked += np.arange(len(picked))
    picked[-1] = min(picked[-1], len(data) - 1)
    out = data[picked]
    separators = after.reshape(-1, len(places)) - 1
    if np.any(out[separators[:, :-1]] < ord("\t")):  # a control character, which is no blank
        return None
    out[separators[:, :-1]] = _SPACE
    out[separators[:, -1]] = _NEWLINE
    spaced: bytes = out.tobytes()
    return spaced


def _plain_line(line: bytes) -> bytes:
    """Return a line without comments and with hidden white space inside its tokens."""
    if not (b'"' in line or b"'" in line or b"#" in line):
        return line
    tokens = split_tokens(line.decode("utf-8", "surrogateescape"))
    hidden = [token.replace(" ", _HIDDEN[" "]).replace("\t", _HIDDEN["\t"]) or _HIDDEN[""] for token in tokens]
    return " ".join(hidden).encode("utf-8", "surrogateescape")


def show_hidden(text: str) -> str:
    """Return a token as it was before `single_spaced`."""
    for hidden, shown in _SHOWN.items():
        text = text.replace(hidden, shown)
    return text


def quote(token: str, *, first: bool = False) -> str:
    r"""Return a token as it must stand in a row.

    Of the two quotes the one is taken that does not end inside the token; where both do, the inner ones get the
    BEL byte before them, which RELION understands in lists but not in rows.

    Parameters
    ----------
    token
        The text.
    first
        Whether it is the first of its row, where some texts would be taken for something else.

    Raises
    ------
    FormatError
        If it holds a line break or another control character, which STAR can't.
    """
    if re.search(r"[\x00-\x08\n-\x1f]", token):
        raise FormatError(f"{token!r} holds a line break or a control character, which a STAR file can't", hint=RENAME)
    if not re.search(NEEDS_QUOTES_FIRST if first else NEEDS_QUOTES, token):
        return token
    if re.search(r'"(?=[ \t]|$)', token) and not re.search(r"'(?=[ \t]|$)", token):
        return f"'{token}'"
    return '"' + re.sub(r'"(?=[ \t]|$)', '\a"', token) + '"'
