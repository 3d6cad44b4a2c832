"""MRC headers: size, type, byte order, pixel size, and whether the file is a stack or a volume."""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import open_input, read_error, readable_size
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


KindName = Literal["stack", "volume", "ambiguous"]
ByteOrder = Literal["<", ">"]
HEADER_BYTES = 1024
# Made once: a set of particles may have ten thousand stacks.
_HEADERS: dict[ByteOrder, np.dtype[np.void]] = {
    "<": HEADER_DTYPE.newbyteorder("<"),
    ">": HEADER_DTYPE.newbyteorder(">"),
}
_PIXEL_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
UNREAD_MODES = {
    3: "complex 16-bit integers",
    4: "complex 32-bit floats",
    101: "4-bit integers, two in a byte",
}
_LARGEST_SIDE = 1 << 20
_IMOD_STAMP = 1146047817
COPY_AGAIN = "Copy the file again from where it was made; the copy or the program that wrote it was interrupted."


@dataclass(frozen=True)
class MrcHeader:
    """What the first 1024 bytes say, and what the size of the file says about the rest.

    Attributes
    ----------
    nx, ny, nz
        Columns, rows and sections.
    mode
        The MRC data mode.
    dtype
        Type and byte order of a pixel; None for a mode that is not read.
    pixel_size_xyz_A
        Cell length over grid size along x, y and z; None along an axis where the cell is zero or not finite.
    ispg, mz
        Space group and sections in one cell: 0 and 1 for a stack, 1 and ``nz`` for a volume by the standard,
        which few programs keep to.
    data_offset
        Bytes before the first pixel.
    whole_sections
        Sections that are in the file; None in a compressed file (unknown until it is decompressed) and for a
        mode that is not read.
    problems
        What is wrong with the file, in words.
    """

    path: Path
    nx: int
    ny: int
    nz: int
    mode: int
    dtype: np.dtype[Any] | None
    pixel_size_xyz_A: tuple[float | None, float | None, float | None]
    ispg: int
    mz: int
    data_offset: int
    whole_sections: int | None
    problems: tuple[Message, ...]

    @property
    def n_sections(self) -> int:
        """Sections that the header announces."""
        return self.nz

    @property
    def n_whole(self) -> int:
        """Sections that can be read: all of them, unless the file is known to be cut off."""
        return self.nz if self.whole_sections is None else min(self.nz, self.whole_sections)

    @property
    def pixel_size_A(self) -> float | None:
        """Pixel size in the image plane, in Å; None when it is unknown or differs between x and y."""
        x, y, _ = self.pixel_size_xyz_A
        return x if x is not None and y is not None and math.isclose(x, y, rel_tol=1e-3) else None

    @property
    def section_bytes(self) -> int:
        """Bytes of one section (0 for a mode that is not read)."""
        return self.nx * self.ny * self.dtype.itemsize if self.dtype else 0


@dataclass(frozen=True)
class MrcKind:
    """Whether a file is a stack of images or a volume, how sure that is, and why."""

    kind: KindName
    certain: bool
    reason: str


def read_header(path: str | os.PathLike[str]) -> MrcHeader:
    """Read the header of an MRC file, plain or compressed by gzip or bzip2; no pixel is read.

    A file whose data are cut off has a header all the same: see `MrcHeader.whole_sections`.

    Raises
    ------
    FormatError
        If the file can't be read, is shorter than a header, or is not an MRC file.
    """
    path = Path(path)
    size = readable_size(path)
    with open_bytes(path) as (stream, compressed):
        raw = stream.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise FormatError(
            f"{len(raw)} bytes are too few for an MRC file (its header alone has 1024)",
            path=path,
            hint=COPY_AGAIN,
        )
    return _parse_header(path, raw, None if compressed else size)


def raw_header(header: MrcHeader) -> bytes:
    """Return the bytes before the first pixel: the header and the extended one."""
    with open_bytes(header.path) as (stream, _):
        return stream.read(header.data_offset)


def decide_kind(
    header: MrcHeader,
    *,
    referenced_as: Literal["stack", "volume"] | None = None,
    max_index: int | None = None,
) -> MrcKind:
    """Decide whether a file is a stack of images or a volume; never by its header alone.

    RELION and cryoSPARC write ISPG 0 and mz = nz for both, so that this pair means nothing.

    Parameters
    ----------
    header
        As `read_header` returns it.
    referenced_as
        What the metadata that names the file takes it for.
    max_index
        Highest 0-based section that the metadata refers to; a file that is referred to by sections is a stack.
    """
    if referenced_as is not None:
        return MrcKind(referenced_as, True, f"the metadata refers to it as a {referenced_as}")
    if max_index is not None:
        return MrcKind("stack", True, f"the metadata refers to its sections, up to number {max_index}")
    suffixes = [suffix.lower() for suffix in header.path.suffixes if suffix.lower() not in {".gz", ".bz2"}]
    suffix = suffixes[-1] if suffixes else ""
    if suffix == ".mrcs":
        return MrcKind("stack", True, "the extension .mrcs is for stacks")
    if suffix in {".map", ".ccp4"}:
        return MrcKind("volume", True, f"the extension {suffix} is for volumes")
    if header.nz == 1:
        return MrcKind("stack", True, "it has one section: a single image")
    return _kind_from_shape(header)


def _kind_from_shape(header: MrcHeader) -> MrcKind:
    nx, ny, nz = header.nx, header.ny, header.nz
    cubic, square = nx == ny == nz, nx == ny
    shape = f"{nx} × {ny} × {nz}"
    says_stack = header.ispg == 0 and header.mz == 1
    says_volume = header.ispg != 0
    if says_stack:
        agrees = "; it is a cube, as a volume would be" if cubic else f", and {shape} is no cube"
        return MrcKind("stack", not cubic, f"its header says stack (ISPG 0, mz 1){agrees}")
    if says_volume and cubic:
        return MrcKind("volume", True, f"it is a cube of {nx} and its header says volume (ISPG {header.ispg})")
    if square and not cubic:
        header_says = f", although its header says volume (ISPG {header.ispg})" if says_volume else ""
        return MrcKind("stack", False, f"probably a stack: {nz} square sections of {nx} are no cube{header_says}")
    if says_volume:
        return MrcKind("volume", False, f"probably a volume: its header says so (ISPG {header.ispg}), as {shape}")
    return MrcKind(
        "ambiguous",
        False,
        f"{shape} may be either, and ISPG 0 with mz {header.mz} is written for both",
    )


@contextmanager
def open_bytes(path: Path) -> Iterator[tuple[IO[bytes], bool]]:
    """Open a file, through gzip or bzip2 where its first bytes say so; yield it and whether it is compressed."""
    try:
        with open_input(path) as file:
            magic = file.read(3)
            file.seek(0)
            if magic[:2] == b"\x1f\x8b":
                with gzip.open(file) as stream:
                    yield cast("IO[bytes]", stream), True
            elif magic == b"BZh":
                with bz2.open(file) as stream:
                    yield cast("IO[bytes]", stream), True
            else:
                yield file, False
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise read_error(path, error) from error
        raise FormatError(f"the compressed data are damaged ({error})", path=path, hint=COPY_AGAIN) from error


def _parse_header(path: Path, raw: bytes, file_size: int | None) -> MrcHeader:
    problems: list[Message] = []
    header = _in_byte_order(path, raw, problems)
    nx, ny, nz, mode = (int(header[name]) for name in ("nx", "ny", "nz", "mode"))
    dtype = np.dtype(_PIXEL_TYPES[mode]).newbyteorder(_order_of(header)) if mode in _PIXEL_TYPES else None
    data_bytes = nx * ny * nz * dtype.itemsize if dtype else 0
    extended = int(header["nsymbt"])
    fits_without = file_size is not None and dtype and file_size == HEADER_BYTES + data_bytes
    if extended < 0 or (extended and fits_without):
        text = f"the extended header can't have {counted(extended, 'byte')}; read as if there were none"
        problems.append(warning("mrc-header", text, where=path))
        extended = 0
    offset = HEADER_BYTES + extended
    whole = None
    if file_size is not None and dtype:
        whole = min(nz, max(0, file_size - offset) // (nx * ny * dtype.itemsize))
        if whole < nz:
            text = f"the data are cut off: {whole} whole sections of {nz}"
            problems.append(warning("file-cut-off", text, where=path))
        elif file_size > offset + data_bytes:
            text = f"{counted(file_size - offset - data_bytes, 'byte')} follow the data; ignored"
            problems.append(warning("bytes-ignored", text, where=path))
    pixel_size = tuple(_pixel_size(header, axis) for axis in "xyz")
    problems += (warning("mrc-header", text, where=path) for text in _unusual(header, pixel_size))
    return MrcHeader(
        path=path,
        nx=nx,
        ny=ny,
        nz=nz,
        mode=mode,
        dtype=dtype,
        pixel_size_xyz_A=cast("tuple[float | None, float | None, float | None]", pixel_size),
        ispg=int(header["ispg"]),
        mz=int(header["mz"]),
        data_offset=offset,
        whole_sections=whole,
        problems=tuple(problems),
    )


def _in_byte_order(path: Path, raw: bytes, problems: list[Message]) -> np.void:
    """Interpret the header in the byte order that its stamp names, or in the one that makes sense."""
    read_as: dict[ByteOrder, np.void] = {}
    for order, dtype in _HEADERS.items():
        header = np.frombuffer(raw, dtype)[0]
        sides_fit = all(1 <= header[name] <= _LARGEST_SIDE for name in ("nx", "ny")) and header["nz"] >= 1
        if sides_fit and int(header["mode"]) in _PIXEL_TYPES | UNREAD_MODES:
            read_as[order] = header
    if not read_as:
        raise _not_mrc(path, raw)
    try:
        stamped: ByteOrder | None = byte_order_from_machine_stamp(raw[212:216])
    except ValueError:
        stamped = None
    if stamped in read_as:
        order = stamped
    else:
        # A small number with its bytes swapped is a large one.
        order = min(read_as, key=lambda candidate: int(read_as[candidate]["nx"]))
        word = {"<": "little", ">": "big"}[order]
        stamp = raw[212:216].hex(" ")
        text = f"the machine stamp is wrong ({stamp}); read as {word}-endian, as its numbers make sense"
        problems.append(warning("mrc-header", text, where=path))
    if raw[208:211] != b"MAP":
        problems.append(warning("mrc-header", "the identifier 'MAP' is missing from its header", where=path))
    return read_as[order]


def _not_mrc(path: Path, raw: bytes) -> FormatError:
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in raw):
        return FormatError("a text file, not an MRC file", path=path, hint="Name the image file, not its metadata.")
    nx, ny, nz, mode = np.frombuffer(raw, "<i4", 4)
    return FormatError(
        f"not an MRC file: its header would mean {nx} × {ny} × {nz} pixels of mode {mode}",
        path=path,
        hint="Check that this is an image file, and copy it again if it should be one.",
    )


def _order_of(header: np.void) -> ByteOrder:
    return ">" if header.dtype["nx"] == np.dtype(">i4") else "<"


def _pixel_size(header: np.void, axis: str) -> float | None:
    cell, grid = float(header["cella"][axis]), int(header["m" + axis])
    return cell / grid if grid > 0 and math.isfinite(cell) and cell > 0 else None


def _unusual(header: np.void, pixel_size: tuple[float | None, ...]) -> Iterator[str]:
    """Say what is unusual about the pixel size, the order of the axes and the flag of signed bytes."""
    x, y = pixel_size[:2]
    if x is None or y is None:
        yield "there is no pixel size in its header"
    elif not math.isclose(x, y, rel_tol=1e-3):
        yield f"its pixels are not square: {x:.6g} × {y:.6g} Å"
    axes = tuple(int(header[name]) for name in ("mapc", "mapr", "maps"))
    if axes not in {(1, 2, 3), (0, 0, 0)}:
        yield f"its axes are stored in the order {axes}; they are read as they are stored"
    imod_stamp, imod_flags = np.frombuffer(
        header["extra2"].tobytes()[40:48], np.dtype("i4").newbyteorder(_order_of(header))
    )
    if header["mode"] == 0 and imod_stamp == _IMOD_STAMP and not imod_flags & 1:
        yield "IMOD's flag says that its bytes are unsigned; they are read as signed, as MRC2014 and RELION do"
