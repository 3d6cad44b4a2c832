"""Checking a STAR file with ``starfile``, which the tools downstream read with and which shares no code with us."""

from __future__ import annotations

import tempfile
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.input_file import open_input
from cryobridge.formats.relion.star import open_star
from cryobridge.model.particles import Labels
from cryobridge.report import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.formats.table import Values

_WHOLE_ROWS = 200_000
_END_ROWS = 50_000
# starfile's parser of numbers is not exact to the last bit.
_RELATIVE = 1e-12
# starfile takes them for quotes and comments wherever they stand.
_ODD = frozenset("'\"#")


@dataclass(frozen=True)
class StarfileCheck:
    """What ``starfile`` reads of a STAR file, against what we read of it.

    Parameters
    ----------
    rows
        Block -> its rows, as they were counted by lines; a list is one.
    n_compared
        Rows that were compared, of all blocks.
    differing
        ``block column`` -> rows that differ; of a column that one of the two lacks, or a table of another length, all.
    unreadable
        ``block column`` of texts with quotes or ``#``, which ``starfile`` can't read; then nothing is compared.
    """

    rows: dict[str, int]
    n_compared: int
    differing: dict[str, int]
    unreadable: tuple[str, ...] = ()

    @property
    def n_differing(self) -> int:
        """The most rows that differ in one column."""
        return max(self.differing.values(), default=0)


def compare_with_starfile(
    path: str | os.PathLike[str], *, whole_rows: int = _WHOLE_ROWS, end_rows: int = _END_ROWS
) -> StarfileCheck:
    """Read a STAR file with ``starfile`` and with our own reader, and compare all columns.

    Parameters
    ----------
    path
        The file.
    whole_rows
        Up to so many rows a table is compared whole. Of a longer one the rows are counted, and the first and the last
        ``end_rows`` are compared.
    end_rows
        See ``whole_rows``.

    Raises
    ------
    FormatError
        If one of the two can't read the file.

    Examples
    --------
    >>> compare_with_starfile("run_data.star").n_differing  # doctest: +SKIP
    0
    """
    path = Path(path)
    with _shortened(path, whole_rows, end_rows) as (short, rows):
        ours = open_star(short)
        texts = {(block.name, label): _distinct_texts(block, label) for block in ours.blocks for label in _texts(block)}
        odd = [f"{name} {label}" for (name, label), found in texts.items() if not _ODD.isdisjoint("".join(found))]
        if odd:
            return StarfileCheck(rows, 0, {}, tuple(odd))
        theirs = _read(short, path, [label for _, label in texts])
        differing = {name: max(1, rows.get(name, 1)) for name in set(ours.names) ^ set(theirs)}
        both = [ours[name] for name in ours.names if name in theirs]
        for block in both:
            differing |= _compare(block, theirs[block.name])
    return StarfileCheck(rows, sum(block.n_rows for block in both), differing)


def require_starfile_reads(path: str | os.PathLike[str], n_rows: int) -> None:
    """Check a STAR file that was just written, and how many rows its main table has.

    Raises
    ------
    CryobridgeError
        If ``starfile`` reads other values, or the file has another number of rows.
    """
    check = compare_with_starfile(path)
    if check.differing or n_rows not in check.rows.values():
        whole = f"not the {counted(n_rows, 'row')}"
        differing = ", ".join(f"{name} in {counted(count, 'row')}" for name, count in check.differing.items())
        raise CryobridgeError(
            f"starfile does not read what was written: {differing or whole}",
            path=path,
            hint="Don't use it. If nothing else wrote to that file, this is a mistake in cryobridge; please report it.",
        )


def _compare(block: StarBlock, table: Any) -> dict[str, int]:
    """Return the columns of one table that differ, with the number of rows; the table itself where its shape does."""
    if set(block.names) != set(table) or any(len(table[label]) != block.n_rows for label in block.names):
        return {block.name: max(1, block.n_rows)}
    counts = {label: _n_differing(values, table[label]) for label, values in block.read(block.names).items()}
    return {f"{block.name} {label}": count for label, count in counts.items() if count}


def _distinct_texts(block: StarBlock, label: str) -> tuple[str, ...]:
    values = block.read([label])[label]
    assert isinstance(values, Labels)  # a column of text
    return values.values


def _texts(block: StarBlock) -> list[str]:
    return [column.name for column in block.columns if column.is_text]


def _n_differing(ours: Values, theirs: Any) -> int:
    if isinstance(ours, Labels):
        # pandas makes no text of "nan".
        found = ["nan" if isinstance(text, float) else str(text) for text in theirs]
        return sum(one.lower() != other.lower() for one, other in zip(ours.to_numpy(), found, strict=True))
    one, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return int((~np.isclose(one, other, rtol=_RELATIVE, atol=0, equal_nan=True)).sum())


def _read(short: Path, path: Path, texts: list[str]) -> dict[str, Any]:
    """Return the tables that ``starfile`` reads; a list is a table of one row."""
    import starfile

    try:
        blocks = starfile.read(short, always_dict=True, parse_as_string=texts)
    except Exception as error:  # whatever it and pandas raise on what they can't read
        raise FormatError(
            f"starfile can't read it ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})",
            path=path,
            hint="Programs that read STAR files with starfile can't either; RELION may.",
        ) from error
    return {
        name: {label: [value] for label, value in block.items()} if isinstance(block, dict) else block
        for name, block in blocks.items()
    }


@contextmanager
def _shortened(path: Path, whole_rows: int, end_rows: int) -> Iterator[tuple[Path, dict[str, int]]]:
    """Give the file to compare, and the rows of each table: the file itself, or a copy with the ends of long tables."""
    with tempfile.TemporaryDirectory(prefix="cryobridge-") as folder:
        short = Path(folder) / "short.star"
        with open_input(path) as file, short.open("wb") as copy:
            counts = _copy_ends(file, copy, end_rows)
        yield path if all(count <= whole_rows for count in counts.values()) else short, counts


def _copy_ends(file: IO[bytes], copy: IO[bytes], end_rows: int) -> dict[str, int]:
    """Copy a STAR file with the first and last rows of each table; return how many rows each has."""
    counts: dict[str, int] = {}
    name, is_loop = "", False
    last: deque[bytes] = deque(maxlen=end_rows)
    for line in file:
        word = line.strip()
        if word.startswith(b"data_"):
            copy.writelines(last)
            last.clear()
            name, is_loop = word[5:].decode("utf-8", "replace"), False
            counts[name] = 1
        elif word == b"loop_":
            is_loop, counts[name] = True, 0
        elif is_loop and counts[name] and not word:
            continue  # where a table ends, or nothing
        elif is_loop and not word.startswith((b"_", b"#")):
            counts[name] += bool(word)
            if counts[name] > end_rows:
                last.append(line)
                continue
        copy.write(line)
    copy.writelines(last)
    return counts
