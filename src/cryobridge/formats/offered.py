"""The columns and classes of a particle file that Tab offers: looked up in its header and a sample of its rows.

The readers of `formats.cryosparc` and `formats.relion` hold a file to its format, for which they load NumPy and Arrow.
That takes longer than people wait for a Tab, so that here only the beginning is read, and what is not understood is not
offered.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cryobridge.errors import CryobridgeError
from cryobridge.formats.cryosparc.names import group_by_name, is_excluded, kind_of
from cryobridge.formats.input_file import open_input, read_input
from cryobridge.formats.listing import list_folder
from cryobridge.formats.relion.branches import branches_of
from cryobridge.formats.relion.names import sort_iterations
from cryobridge.model.fields import ALIGNMENT

_CLASS_OF_RELION = "rlnClassNumber"
_CLASS_OF_CRYOSPARC = re.compile(rf"(?:{ALIGNMENT})/class")
# Tables that are not the one a file is about; a STAR file of particles has its optics groups before them.
_OPTICS = "optics"
_HEAD_BYTES = 1 << 18
# Rows are looked at in so many places, as particles may be sorted by class.
_N_PLACES, _PLACE_BYTES = 32, 1 << 15
_MOST_ELEMENTS = 9
# No LZ4 block expands further.
_LZ4_MOST = 255
_PLAIN_NAME = re.compile(r"[^\W\d]\w*(?:[/.]\w+)*")
_MEMBER = re.compile(r"""^\s*metafile:\s*['"]?>?([^'"\n]+)""", re.MULTILINE)
_PARSE_ERRORS = (
    *(CryobridgeError, OSError, ValueError, SyntaxError, TypeError, LookupError, RuntimeError, MemoryError),
    struct.error,
)
_INTEGERS = {"i4": "i", "u4": "I", "i8": "q", "u8": "Q", "i2": "h", "u2": "H"}


@dataclass(frozen=True)
class _Header:
    """Columns with the shape of their elements, where the rows start, and for `.npy` their types in order.

    Of a CSDAT stream, in which each column follows the one before it, ``n_rows`` is known, and which are compressed.
    """

    columns: dict[str, tuple[int, ...]]
    start: int = 0
    types: tuple[tuple[str, str], ...] = ()
    n_rows: int = 0
    compressed: frozenset[str] | None = None


def offered_columns(particles: Path) -> list[str]:
    """Return the columns of a particle file as a condition names them, such as ``alignments3D/shift[0]``.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file, or a job folder; columns that a `.cs` file is joined with are among them.

    Returns
    -------
    list of str
        Empty where nothing is understood.
    """
    found: dict[str, None] = {}
    for _, header in _headers(particles):
        for name, shape in header.columns.items():
            if _PLAIN_NAME.fullmatch(name):
                found |= dict.fromkeys(_elements(name, shape))
    return list(found)


def offered_classes(particles: Path) -> list[int]:
    """Return the classes of a particle file as its program counts them, found in a sample of its rows.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file, or a job folder.

    Returns
    -------
    list of int
        Empty where it has none, or nothing is understood.
    """
    found: dict[str, list[int]] = {}
    for path, header in _headers(particles):
        try:
            found |= _classes(path, header)
        except _PARSE_ERRORS:
            continue
    of_column = [classes for _, classes in sorted(found.items(), key=_order)]
    return next((classes for classes in of_column if len(classes) > 1), of_column[0] if of_column else [])


def _order(column: tuple[str, list[int]]) -> tuple[bool, bool, str]:
    """Sort columns of classes as they are taken: 3D before several classes before 2D."""
    name = column[0]
    return name.startswith("alignments2D"), not name.startswith("alignments3D"), name


def _elements(name: str, shape: tuple[int, ...]) -> Iterator[str]:
    if not shape:
        yield name
    places = itertools.product(*map(range, shape)) if shape else ()
    for place in itertools.islice(places, _MOST_ELEMENTS):
        yield f"{name}[{','.join(map(str, place))}]"


def _headers(particles: Path) -> Iterator[tuple[Path, _Header]]:
    for path in _files(particles):
        try:
            with open_input(path) as file:
                yield path, _star_header(file) if path.suffix == ".star" else _cs_header(file)
        except _PARSE_ERRORS:
            continue


def _files(particles: Path) -> list[Path]:
    """Return the tables that are read for what the command line names."""
    try:
        if particles.is_dir():
            return _files_in(particles)
        if particles.suffix == ".csg":
            text = read_input(particles, _HEAD_BYTES).decode(errors="replace")
            names = dict.fromkeys(_MEMBER.findall(text))
            return [particles.parent / name.strip() for name in names if name.strip().endswith(".cs")]
        if particles.suffix == ".cs":
            of_job = (group for group in _groups(particles.parent) if particles.name in group)
            return [particles.parent / name for name in next(of_job, (particles.name,))]
    except (OSError, CryobridgeError):
        return []
    return [particles] if particles.is_file() else []


def _groups(folder: Path, *, of_particles: bool = False) -> Iterator[tuple[str, ...]]:
    """Yield the `.cs` files of each result in a folder, the main one first."""
    for group in group_by_name(name for name in list_folder(folder).files if name.endswith(".cs")):
        is_wanted = not of_particles or (kind_of(group.name) == "particle" and not is_excluded(group.name))
        if group.main is not None and is_wanted:
            yield (group.main.name, *(item.name for item in group.passthroughs))


def _files_in(folder: Path) -> list[Path]:
    of_particles = next(_groups(folder, of_particles=True), ())
    if of_particles:
        return [folder / name for name in of_particles]
    from cryobridge.formats.relion.job import PARTICLE_STARS, final_of  # late: most words are files

    # As `particles_in` chooses; but the list of the project's jobs is not read, which takes Arrow.
    names = list_folder(folder).files
    iterations, finals, _ = sort_iterations(folder, names)
    chain = branches_of(iterations).chain
    last = final_of(chain, finals) or (chain[-1] if chain else None)
    if last is not None and last.data is not None:
        return [last.data]
    return [folder / name for name in PARTICLE_STARS if name in names][:1]


def _star_header(file: IO[bytes]) -> _Header:
    """Return the labels of the first table that is not of optics groups; where its rows start."""
    labels: list[str] = []
    block, is_loop, start, position = "", False, 0, 0
    for line in file.read(_HEAD_BYTES).splitlines(keepends=True):
        words = line.decode("utf-8", "replace").lstrip("\ufeff").split()
        position += len(line)
        word = words[0] if words else ""
        if word.startswith("data_") and len(words) == 1:
            block, labels, is_loop = word.removeprefix("data_"), [], False
        elif word == "loop_":
            is_loop = True
        elif is_loop and word.startswith("_"):
            labels.append(word[1:].partition("#")[0])
        elif labels and word and not word.startswith("#") and block != _OPTICS:
            start = position - len(line)
            break
    return _Header(dict.fromkeys(labels, ()), start)


def _cs_header(file: IO[bytes]) -> _Header:
    magic = file.read(6)
    if magic == b"\x95CSDAT":
        header = json.loads(file.read(int.from_bytes(file.read(4), "little")))
        columns = {entry[0]: tuple(entry[2]) if len(entry) > 2 else () for entry in header["dtype"]}
        types = tuple((entry[0], entry[1]) for entry in header["dtype"])
        compressed = frozenset(header.get("compressed_fields") or ())
        return _Header(columns, file.tell(), types, header["length"], compressed)
    if magic != b"\x93NUMPY":
        raise ValueError("no such file")
    version = file.read(2)
    length = int.from_bytes(file.read(2 if version[0] == 1 else 4), "little")
    fields = ast.literal_eval(file.read(min(length, _HEAD_BYTES)).decode("utf-8", "replace").strip())["descr"]
    columns = {field[0]: tuple(field[2]) if len(field) > 2 else () for field in fields}
    return _Header(columns, file.tell(), tuple((field[0], field[1]) for field in fields))


def _classes(path: Path, header: _Header) -> dict[str, list[int]]:
    """Return the classes in each column of a file that has some."""
    found = {}
    with open_input(path) as file:
        if header.compressed is not None:
            return dict(_classes_of_stream(file, header))
        if _CLASS_OF_RELION in header.columns:
            place = list(header.columns).index(_CLASS_OF_RELION)
            rows = (line.split() for line in _sampled_lines(file, header.start))
            n_columns = len(header.columns)
            found[_CLASS_OF_RELION] = _distinct(int(float(row[place])) for row in rows if len(row) == n_columns)
        sizes = [int(text[2:]) * (4 if text[1] == "U" else 1) for _, text in header.types]
        counts = [math.prod(header.columns[name]) for name, _ in header.types]
        row_bytes = sum(size * count for size, count in zip(sizes, counts, strict=True))
        offset = 0
        for (name, text), size, count in zip(header.types, sizes, counts, strict=True):
            if _CLASS_OF_CRYOSPARC.fullmatch(name) and not header.columns[name] and text[1:] in _INTEGERS:
                one = struct.Struct(("<" if text[0] != ">" else ">") + _INTEGERS[text[1:]])
                values = (one.unpack_from(row, offset)[0] for row in _sampled_rows(file, header.start, row_bytes))
                found[name] = _distinct(values)
            offset += size * count
    return found


def _classes_of_stream(file: IO[bytes], header: _Header) -> Iterator[tuple[str, list[int]]]:
    """Yield the columns of classes of a CSDAT stream, each of which is read whole."""
    import lz4.block

    file.seek(header.start)
    for name, text in header.types if header.n_rows else ():
        n_bytes = int.from_bytes(file.read(4), "little")
        if not _CLASS_OF_CRYOSPARC.fullmatch(name) or header.columns[name] or text[1:] not in _INTEGERS:
            file.seek(n_bytes, os.SEEK_CUR)
            continue
        data, size = file.read(n_bytes), header.n_rows * int(text[2:])
        if name in (header.compressed or ()) and size <= _LZ4_MOST * len(data):
            data = lz4.block.decompress(data, uncompressed_size=size)
        kind = (">" if text[0] == ">" else "<") + _INTEGERS[text[1:]]
        yield name, _distinct(value for (value,) in struct.iter_unpack(kind, data))


def _distinct(numbers: Iterable[int]) -> list[int]:
    return sorted(set(numbers))


def _places(start: int, end: int, length: int) -> Iterator[int]:
    """Yield where to look between start and end: all of it where that is little."""
    if end - start <= _N_PLACES * length:
        yield from range(start, end, length)
    else:
        yield from (start + number * (end - start - length) // (_N_PLACES - 1) for number in range(_N_PLACES))


def _sampled_lines(file: IO[bytes], start: int) -> Iterator[bytes]:
    end = file.seek(0, os.SEEK_END)
    for place in _places(start, end, _PLACE_BYTES):
        # A line belongs to the place in which it begins.
        file.seek(place - 1)
        file.readline()
        while file.tell() < min(place + _PLACE_BYTES, end):
            yield file.readline()


def _sampled_rows(file: IO[bytes], start: int, row_bytes: int) -> Iterator[bytes]:
    n_rows = (file.seek(0, os.SEEK_END) - start) // row_bytes
    n_together = max(1, _PLACE_BYTES // row_bytes)
    for row in _places(0, n_rows, n_together):
        file.seek(start + row * row_bytes)
        rows = file.read(min(n_together, n_rows - row) * row_bytes)
        yield from (rows[at : at + row_bytes] for at in range(0, len(rows) - row_bytes + 1, row_bytes))
