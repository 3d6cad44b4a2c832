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

from cryobridge.errors import FormatError

CHUNK_BYTES = 4 << 20
MAX_LINE_BYTES = 64 << 20

_SPACE, _NEWLINE = 0x20, 0x0A
_TO_SPACE = bytes.maketrans(b"\t\r\v\f", b"    ")
# White space inside a quoted token, and the empty token, until the row has been split.
_HIDDEN = {" ": "\x01", "\t": "\x02", "": "\x03"}
_SHOWN = {hidden: text for text, hidden in _HIDDEN.items()}
_END_OF_ROWS = re.compile(rb"\n[ \t\r]*(?=\n|data_|loop_|\Z)")
_TOKEN = re.compile(
    r"""(?:"((?:[^"]|"(?=\S))*)"|'((?:[^']|'(?=\S))*)')(?=\s|$)  # quoted
      | \#.*                                                  # a comment, to the end of the line
      | (\S+)""",
    re.VERBOSE,
)


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
    """A STAR file as text, read in pieces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        try:
            self._size = path.stat().st_size
            self._file = path.open("rb")
        except OSError as error:
            raise FormatError(
                f"can't be read ({error.strerror})", path=path, hint="Check the name and its permissions."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from start to end."""
        try:
            data = os.pread(self._file.fileno(), end - start, start)
        except OSError as error:
            raise FormatError(f"can't be read ({error.strerror})", path=self.path) from error
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
        position, line = 0, 0
        while position < self._size:
            text, next_position = self._line(position, line)
            line += 1
            stripped = text.strip()
            if stripped.startswith("#"):
                comments.append(stripped.lstrip("# "))
            elif stripped.startswith("data_"):
                found.append(BlockText(stripped.split()[0][len("data_") :], line, comments=tuple(comments)))
                comments = []
            elif stripped and found and not found[-1].rows_start:
                if stripped == "loop_":
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
                self.notes.append(f"line {line}: text after the last row of data_{found[-1].name} is ignored")
            elif stripped:
                raise self._stray(stripped, line)
            position = next_position
        if not found:
            raise FormatError("no data_ block", path=self.path, hint="Check that this is a STAR file.")
        return found

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
                if raw.endswith(b"\r\n") and not any("CRLF" in note for note in self.notes):
                    self.notes.append("CRLF line ends (RELION refuses them; convert with dos2unix)")
                try:
                    return raw.decode(), position + len(raw)
                except UnicodeDecodeError as error:
                    raise FormatError(
                        f"line {line + 1} is not text", path=self.path, hint="Check that this is a STAR file."
                    ) from error
            length *= 8
            if length > MAX_LINE_BYTES:
                raise FormatError(f"line {line + 1} is longer than {MAX_LINE_BYTES >> 20} MB", path=self.path)

    def _label(self, block: BlockText, text: str, line: int) -> None:
        tokens = split_tokens(text)
        label, _, glued = tokens[0].partition("#")
        if glued:
            self.notes.append(f"line {line}: no space between {label} and #{glued}")
        label = label[1:]
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
        position, lines = start, 0
        overlap = 1 << 10
        while position < self._size:
            stop = min(position + CHUNK_BYTES, self._size)
            data = self.read(position, stop)
            match = _END_OF_ROWS.search(data)
            # A match that touches the end of a piece may be the start of an ordinary row.
            if match and (match.end() < len(data) or stop == self._size):
                return position + match.start() + 1, lines + data.count(b"\n", 0, match.start() + 1)
            if stop == self._size:
                return self._size, lines + data.count(b"\n") + (not data.endswith(b"\n"))
            keep = len(data) - overlap
            lines += data.count(b"\n", 0, keep)
            position += keep
        return self._size, lines

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
                length *= 2
                if length > MAX_LINE_BYTES:
                    raise FormatError(f"a row is longer than {MAX_LINE_BYTES >> 20} MB", path=self.path)
            cuts.append(end)
        return list(pairwise(cuts))


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
    data = np.frombuffer(rows.translate(_TO_SPACE), np.uint8)
    if data.size == 0:
        return b"", has_quotes
    is_space = data == _SPACE
    is_gap = is_space | (data == _NEWLINE)
    keep = np.ones(data.size, bool)
    keep[0] = not is_space[0]
    keep[1:] = ~(is_space[1:] & is_gap[:-1])  # a space after a gap
    keep[:-1] &= ~(is_space[:-1] & (data[1:] == _NEWLINE))  # the space before a line end
    if is_space[-1]:
        keep[-1] = False
    return data[keep].tobytes(), has_quotes


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


def quote(token: str) -> str:
    r"""Return a token as it must stand in a row.

    Raises
    ------
    ValueError
        If it holds a line break, which STAR can't.
    """
    if "\n" in token or "\r" in token:
        raise ValueError(f"{token!r} holds a line break")
    if token and not re.search(r"\s", token) and token[0] not in "\"'#":
        return token
    return '"' + re.sub(r'"(?=\s|$)', '\a"', token) + '"'
