"""MRC2014 files: stacks of images and volumes.

The header's layout and byte order stamp are mrcfile's; the data are read here, so that one image of a large stack
costs one image. Files that other readers refuse are read with a note where their content is beyond doubt.
"""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp, machine_stamp_from_byte_order
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError
from cryobridge.formats._atomic import atomic_path, read_error, readable_size

if TYPE_CHECKING:
    import io
    import os
    from collections.abc import Iterator, Sequence
    from types import TracebackType

KindName = Literal["stack", "volume", "ambiguous"]
ByteOrder = Literal["<", ">"]
Images = NDArray[np.float32]

_HEADER_BYTES = 1024
_BYTE_ORDERS: tuple[ByteOrder, ...] = ("<", ">")
_PIXEL_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_UNREAD_MODES = {
    3: "complex 16-bit integers",
    4: "complex 32-bit floats",
    101: "4-bit integers, two in a byte",
}
_LARGEST_SIDE = 1 << 20
_IMOD_STAMP = 1146047817
_WINDOW_BYTES = 4 << 20  # small enough for a processor's cache, so that the second copy costs little
_COMPRESSED_LIMIT_BYTES = 4 << 30
_COPY_AGAIN = "Copy the file again from where it was made; the copy or the program that wrote it was interrupted."


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
    problems: tuple[str, ...]

    @property
    def n_sections(self) -> int:
        """Sections that the header announces."""
        return self.nz

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
    with _open(path) as (stream, compressed):
        raw = stream.read(_HEADER_BYTES)
    if len(raw) < _HEADER_BYTES:
        raise FormatError(
            f"{len(raw)} bytes are too few for an MRC file (its header alone has 1024)", path=path, hint=_COPY_AGAIN
        )
    return _parse_header(path, raw, None if compressed else size)


def decide_kind(
    header: MrcHeader,
    *,
    referenced_as: Literal["stack", "volume"] | None = None,
    max_index: int | None = None,
) -> MrcKind:
    """Decide whether a file is a stack of images or a volume; never by its header alone.

    RELION and cryoSPARC write ISPG 0 and mz = nz for both, so that this pair tells nothing.

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
        f"ambiguous: {shape} may be either, and ISPG 0 with mz {header.mz} is written for both",
    )


@dataclass(frozen=True, eq=False)
class MrcFile:
    """An MRC file whose data are complete; pixels are read when they are asked for.

    Nothing stays open between calls, so that a data set may consist of thousands of these.
    """

    header: MrcHeader
    _decompressed: NDArray[Any] | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the file, in words."""
        return self.header.problems

    @cached_property
    def images(self) -> NDArray[Any]:
        """All sections, (nz, ny, nx), in the file's own type and byte order; memory-mapped, read-only."""
        header = self.header
        if self._decompressed is not None:
            return self._decompressed
        shape = (header.nz, header.ny, header.nx)
        try:
            return np.memmap(header.path, header.dtype, mode="r", offset=header.data_offset, shape=shape)
        except OSError as error:
            raise read_error(header.path, error) from error

    def read(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Images:
        """Read sections in the order of the file and return them in the order asked for.

        Besides the result, memory for at most 4 MiB or one section is taken, whatever the size of the file.

        Parameters
        ----------
        indices
            0-based sections, (n,), in any order, repeated if need be.

        Returns
        -------
        numpy.ndarray
            (n, ny, nx) float32.

        Raises
        ------
        MissingDataError
            If an index is negative or beyond the last section.
        FormatError
            If the file can't be read any more.
        """
        header = self.header
        wanted = self._checked(indices)
        if self._decompressed is not None:
            return self._decompressed[wanted].astype(np.float32)
        images = np.empty((wanted.size, header.ny, header.nx), np.float32)
        order = np.argsort(wanted, kind="stable")
        in_file_order = wanted[order]
        runs = [0, *(np.flatnonzero(np.diff(in_file_order) != 1) + 1).tolist(), wanted.size]
        at_once = max(1, min(wanted.size, _WINDOW_BYTES // header.section_bytes))
        window = np.empty((at_once, header.ny, header.nx), header.dtype)
        with _open(header.path) as (file, _):
            for start, stop in pairwise(runs):
                for first in range(start, stop, at_once):
                    rows = order[first : min(first + at_once, stop)]
                    block = window[: rows.size]
                    self._read_run(file, int(in_file_order[first]), block)
                    images[rows] = block
        return images

    def _checked(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        wanted = np.asarray(indices)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise UsageError("sections are asked for by a one-dimensional list of whole numbers")
        wrong = int(((wanted < 0) | (wanted >= self.header.nz)).sum())
        if wrong:
            lowest, highest = int(wanted.min()), int(wanted.max())
            asked = f"section {highest}" if highest >= self.header.nz else f"section {lowest}"
            raise MissingDataError(
                f"{asked} (counted from 0) is asked for, but the file has {self.header.nz} sections",
                path=self.header.path,
                count=wrong,
                hint="Check that the metadata belongs to this file and whether it counts from 0 or 1.",
            )
        return wanted.astype(np.int64)

    def _read_run(self, file: IO[bytes], first: int, block: NDArray[Any]) -> None:
        header = self.header
        file.seek(header.data_offset + first * header.section_bytes)
        if cast("io.BufferedReader", file).readinto(block.data) != block.nbytes:
            raise FormatError("the file has become shorter while it was read", path=header.path, hint=_COPY_AGAIN)


def open_mrc(path: str | os.PathLike[str]) -> MrcFile:
    """Open an MRC file whose data are complete; a compressed one is decompressed into memory.

    Raises
    ------
    FormatError
        If the file can't be read, is not an MRC file, has pixels of a type that is not read, or is cut off.
    """
    header = read_header(path)
    if header.dtype is None:
        raise FormatError(
            f"mode {header.mode} ({_UNREAD_MODES[header.mode]}) is not read",
            path=header.path,
            hint="Convert it to mode 2 (float32) with the program that wrote it.",
        )
    if header.whole_sections is None:
        return MrcFile(header, _decompress(header))
    _require_whole(header, header.whole_sections)
    return MrcFile(header)


def _require_whole(header: MrcHeader, whole_sections: int) -> None:
    if whole_sections < header.nz:
        raise FormatError(
            f"the data are cut off: {whole_sections} whole sections of {header.nz}",
            path=header.path,
            count=header.nz - whole_sections,
            hint=_COPY_AGAIN,
        )


def _decompress(header: MrcHeader) -> NDArray[Any]:
    n_bytes = header.data_offset + header.nz * header.section_bytes
    if n_bytes > _COMPRESSED_LIMIT_BYTES:
        raise FormatError(
            f"it would need {n_bytes / 2**30:.1f} GiB of memory, since compressed files can't be read in parts",
            path=header.path,
            hint="Decompress it on disk first (gunzip or bunzip2).",
        )
    data = bytearray()
    with _open(header.path) as (stream, _):
        try:
            # read1, unlike read, hands over what comes before the point where the stream is cut off.
            pieces = cast("io.BufferedReader", stream)
            while len(data) < n_bytes and (piece := pieces.read1(n_bytes - len(data))):
                data += piece
        except EOFError:
            pass  # the stream is cut off; how much of it is there is told below
    _require_whole(header, max(0, len(data) - header.data_offset) // header.section_bytes)
    images = np.frombuffer(data, header.dtype, offset=header.data_offset)
    images.flags.writeable = False
    return images.reshape(header.nz, header.ny, header.nx)


@contextmanager
def _open(path: Path) -> Iterator[tuple[IO[bytes], bool]]:
    """Open a file, through gzip or bzip2 where its first bytes say so; yield it and whether it is compressed."""
    try:
        with path.open("rb") as file:
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
        raise FormatError(f"the compressed data are damaged ({error})", path=path, hint=_COPY_AGAIN) from error


def _parse_header(path: Path, raw: bytes, file_size: int | None) -> MrcHeader:
    problems: list[str] = []
    header = _in_byte_order(path, raw, problems)
    nx, ny, nz, mode = (int(header[name]) for name in ("nx", "ny", "nz", "mode"))
    dtype = np.dtype(_PIXEL_TYPES[mode]).newbyteorder(_order_of(header)) if mode in _PIXEL_TYPES else None
    data_bytes = nx * ny * nz * dtype.itemsize if dtype else 0
    extended = int(header["nsymbt"])
    fits_without = file_size is not None and dtype and file_size == _HEADER_BYTES + data_bytes
    if extended < 0 or (extended and fits_without):
        problems.append(f"the extended header can't have {extended} bytes; read as if there were none")
        extended = 0
    offset = _HEADER_BYTES + extended
    whole = None
    if file_size is not None and dtype:
        whole = min(nz, max(0, file_size - offset) // (nx * ny * dtype.itemsize))
        if whole < nz:
            problems.append(f"the data are cut off: {whole} whole sections of {nz}")
        elif file_size > offset + data_bytes:
            problems.append(f"{file_size - offset - data_bytes} bytes follow the data; ignored")
    pixel_size = tuple(_pixel_size(header, axis) for axis in "xyz")
    problems += _oddities(header, pixel_size)
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


def _in_byte_order(path: Path, raw: bytes, problems: list[str]) -> np.void:
    """Interpret the header in the byte order that its stamp names, or in the one that makes sense."""
    read_as: dict[ByteOrder, np.void] = {}
    for order in _BYTE_ORDERS:
        header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        sides_fit = all(1 <= header[name] <= _LARGEST_SIDE for name in ("nx", "ny")) and header["nz"] >= 1
        if sides_fit and int(header["mode"]) in _PIXEL_TYPES | _UNREAD_MODES:
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
        problems.append(f"the machine stamp is wrong ({stamp}); read as {word}-endian, as its numbers make sense")
    if raw[208:211] != b"MAP":
        problems.append("the identifier 'MAP' is missing from its header")
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


def _oddities(header: np.void, pixel_size: tuple[float | None, ...]) -> Iterator[str]:
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


class MrcStackWriter:
    """Writes a stack image by image; the file appears under its name when the block ends well.

    ::

        with MrcStackWriter(path, (ny, nx), pixel_size_A=1.2) as stack:
            stack.append(images)

    Parameters
    ----------
    path
        The file to write. One that is there already is replaced.
    image_shape
        (ny, nx).
    pixel_size_A
        Goes to the header.
    n_images
        How many there will be, if known; another number at the end is an error.
    dtype
        float32 (mode 2) or float16 (mode 12).
    """

    _is_volume: ClassVar[bool] = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        image_shape: tuple[int, int],
        pixel_size_A: float,
        *,
        n_images: int | None = None,
        dtype: type[np.float32 | np.float16] = np.float32,
    ) -> None:
        if not (math.isfinite(pixel_size_A) and pixel_size_A > 0):
            raise UsageError(f"a pixel size of {pixel_size_A} Å can't be written", path=path)
        self.path = Path(path)
        self._shape = image_shape
        self._pixel_size_A = pixel_size_A
        self._announced = n_images
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._statistics = _Statistics()
        self.n_images = 0

    def __enter__(self) -> MrcStackWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            self._file = stack.enter_context(temporary.open("wb"))
            self._file.write(bytes(_HEADER_BYTES))
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def append(self, images: NDArray[Any]) -> None:
        """Write one image, (ny, nx), or several, (n, ny, nx)."""
        block = images if images.ndim == 3 else images[np.newaxis]
        if block.shape[1:] != tuple(self._shape) or images.dtype.kind not in "fiub":
            raise UsageError(
                f"images of shape {images.shape} and type {images.dtype} don't fit a stack of {self._shape}",
                path=self.path,
            )
        for image in block:
            pixels = np.ascontiguousarray(image, self._dtype)
            self._statistics.add(pixels)
            self._file.write(pixels.data)
        self.n_images += len(block)

    def _finish(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        if self.n_images == 0 or self._announced not in {None, self.n_images}:
            expected = self._announced or "at least 1"
            raise CryobridgeError(
                f"{self.n_images} images were written and {expected} were expected; the file was removed",
                path=self.path,
            )
        self._file.seek(0)
        self._file.write(self._header().tobytes())

    def _header(self) -> NDArray[np.void]:
        ny, nx = self._shape
        nz = self.n_images
        mz = nz if self._is_volume else 1
        header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
        header["nx"], header["ny"], header["nz"] = nx, ny, nz
        header["mx"], header["my"], header["mz"] = nx, ny, mz
        header["mode"] = 12 if self._dtype.itemsize == 2 else 2
        header["cella"] = tuple(n * self._pixel_size_A for n in (nx, ny, mz))
        header["cellb"] = (90, 90, 90)
        header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
        header["ispg"] = int(self._is_volume)
        header["nversion"] = 20141
        header["map"] = b"MAP "
        header["machst"] = list(machine_stamp_from_byte_order("<"))
        header["dmin"], header["dmax"], header["dmean"], header["rms"] = self._statistics.for_header()
        header["nlabl"] = 1
        header["label"][0] = b"Written by cryobridge"
        return header


class _VolumeWriter(MrcStackWriter):
    _is_volume = True


class _Statistics:
    """Least, greatest and mean value and standard deviation, gathered image by image (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = 0.0
        self.least, self.greatest = math.inf, -math.inf

    def add(self, pixels: NDArray[Any]) -> None:
        values = pixels.astype(np.float64).ravel()
        mean = float(values.mean())
        if not math.isfinite(mean):
            self.squares = math.nan
            return
        values -= mean
        step, total = mean - self.mean, self.count + values.size
        self.squares += float(values @ values) + step * step * self.count * values.size / total
        self.mean += step * values.size / total
        self.count = total
        self.least = min(self.least, float(pixels.min()))
        self.greatest = max(self.greatest, float(pixels.max()))

    def for_header(self) -> tuple[float, float, float, float]:
        """Return dmin, dmax, dmean and rms; where a pixel is not finite, the standard's "not determined"."""
        if not math.isfinite(self.squares):
            return 0.0, -1.0, -2.0, -1.0
        return self.least, self.greatest, self.mean, math.sqrt(self.squares / self.count)


def write_mrc_stack(path: str | os.PathLike[str], images: NDArray[Any], pixel_size_A: float) -> None:
    """Write images, (n, ny, nx), as a stack: ISPG 0, mz 1; mode 12 for float16, else mode 2."""
    _write(MrcStackWriter, path, images, pixel_size_A)


def write_mrc_volume(path: str | os.PathLike[str], volume: NDArray[Any], pixel_size_A: float) -> None:
    """Write a volume, (nz, ny, nx): ISPG 1, mz = nz; mode 12 for float16, else mode 2."""
    _write(_VolumeWriter, path, volume, pixel_size_A)


def _write(
    writer: type[MrcStackWriter], path: str | os.PathLike[str], sections: NDArray[Any], pixel_size_A: float
) -> None:
    if sections.ndim != 3:
        raise UsageError(f"an array of {sections.ndim} dimensions is neither a stack nor a volume", path=path)
    nz, ny, nx = sections.shape
    dtype = np.float16 if sections.dtype == np.float16 else np.float32
    with writer(path, (ny, nx), pixel_size_A, n_images=nz, dtype=dtype) as file:
        file.append(sections)
