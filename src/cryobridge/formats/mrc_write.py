"""Writing MRC stacks and volumes, section by section."""

from __future__ import annotations

import math
import os
import struct
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import machine_stamp_from_byte_order
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, UsageError
from cryobridge.formats.atomic import atomic_path, rename, write_error
from cryobridge.formats.file_record import FileRecord
from cryobridge.formats.lease import alone
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
from cryobridge.formats.mrc import Images, open_mrc
from cryobridge.formats.mrc_header import HEADER_BYTES, raw_header

# Of pixels that are summed up at a time: few enough for a processor's cache.
_BLOCK_BYTES = 1 << 20
# How many images there are, and the checksum of all of them.
_SUM = struct.Struct("<QI")
# A block of numbers of 8 bits is written as one four times as large.
_MOST_SUMMED_BYTES = 8 * _BLOCK_BYTES

# Unfinished stacks that this process has read and cut, and what they were like then.
_known_whole: dict[Path, tuple[int, ...]] = {}


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
    resumable
        Write to `partial_path`, which stays there when the work is interrupted, with checksums of what is in it. A
        later writer takes over the images in it, counts them in `n_images`, and goes on behind them; the stack is the
        same to the byte. Call `keep_whole` before, and hold `alone_at` meanwhile.
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
        resumable: bool = False,
    ) -> None:
        if not (math.isfinite(pixel_size_A) and pixel_size_A > 0):
            raise UsageError(f"a pixel size of {pixel_size_A} Å can't be written", path=path)
        self.path = Path(path)
        self._shape = image_shape
        self._pixel_size_A = pixel_size_A
        self._announced = n_images
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._resumable = resumable
        self._statistics = _Statistics()
        self._checksum = 0
        self._sums: IO[bytes] | None = None
        self._record: FileRecord | None = None
        self.n_images = 0

    def __enter__(self) -> MrcStackWriter:
        with ExitStack() as stack:
            if self._resumable:
                self._temporary = partial_path(self.path)
                self._file, self._sums = stack.enter_context(_partial_file(self.path))
                self._take_over()
            else:
                self._temporary = stack.enter_context(atomic_path(self.path))
                self._file = stack.enter_context(self._temporary.open("wb"))
                self._file.write(bytes(HEADER_BYTES))
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
        at_once = max(1, _BLOCK_BYTES // max(1, block[:1].nbytes))
        for first in range(0, len(block), at_once):
            pixels = np.ascontiguousarray(block[first : first + at_once], self._dtype)
            self._statistics.add(pixels)
            self._file.write(pixels.data)
            self._checksum = zlib.crc32(pixels.data, self._checksum)
            self.n_images += len(pixels)
            if self._sums is not None:
                # What is noted is in the file, or the checksum shows that it is not.
                self._file.flush()
                self._sums.write(_SUM.pack(self.n_images, self._checksum))

    def _take_over(self) -> None:
        """Keep the images that are in the file with their checksums; what comes after them is cut off."""
        assert self._sums is not None
        image_bytes = math.prod(self._shape) * self._dtype.itemsize
        n_sums = 0
        for content, checksum in _whole_blocks(self._file, self._sums, image_bytes):
            self._statistics.add(np.frombuffer(content, self._dtype).reshape(-1, *self._shape))
            self._checksum = checksum
            self.n_images += len(content) // image_bytes
            n_sums += 1
        self._sums.truncate(n_sums * _SUM.size)
        self._sums.seek(0, 2)
        self._file.seek(0)
        self._file.write(bytes(HEADER_BYTES))
        self._file.truncate(HEADER_BYTES + self.n_images * image_bytes)
        self._file.seek(0, 2)

    def _finish(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    def finish(self) -> FileRecord:
        """Write the header, and return what the file is known by; no more images are taken.

        Raises
        ------
        CryobridgeError
            If none were written, or not as many as were announced.
        """
        if self._record is not None:
            return self._record
        if self.n_images == 0 or self._announced not in {None, self.n_images}:
            expected = self._announced or "at least 1"
            raise CryobridgeError(
                f"{counted(self.n_images, 'image was', 'images were')} written and {expected} were "
                "expected; the file was removed",
                path=self.path,
            )
        self._file.seek(0)
        self._file.write(self._header().tobytes())
        self._file.flush()
        body_bytes = self.n_images * math.prod(self._shape) * self._dtype.itemsize
        self._record = FileRecord.written(self._temporary, HEADER_BYTES, body_bytes, self._checksum)
        return self._record

    def _header(self) -> NDArray[np.void]:
        ny, nx = self._shape
        nz = self.n_images
        mz = nz if self._is_volume else 1
        header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
        header["nx"], header["ny"], header["nz"] = nx, ny, nz
        header["mx"], header["my"], header["mz"] = nx, ny, mz
        header["mode"] = 12 if self._dtype.itemsize == 2 else 2
        with np.errstate(over="ignore"):  # of sizes that are none, which the caller has said
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

    @np.errstate(over="ignore", invalid="ignore")  # such statistics are told to be "not determined"
    def add(self, images: NDArray[Any]) -> None:
        """Count images (n, ny, nx) in, one after the other, so that it does not matter which come together."""
        means = images.mean(axis=(1, 2), dtype=np.float64)
        if not np.isfinite(means).all():
            self.squares = math.nan
            return
        # Single precision is enough for one row of pixels around the image's mean.
        deviations = images - means.astype(np.float32)[:, np.newaxis, np.newaxis]
        squares = np.vecdot(deviations, deviations).sum(axis=1, dtype=np.float64)
        n_pixels = math.prod(images.shape[1:])
        for mean, square in zip(means.tolist(), squares.tolist(), strict=True):
            step, total = mean - self.mean, self.count + n_pixels
            self.squares += square + step * step * self.count * n_pixels / total
            self.mean += step * n_pixels / total
            self.count = total
        self.least = min(self.least, float(images.min()))
        self.greatest = max(self.greatest, float(images.max()))

    def for_header(self) -> tuple[float, float, float, float]:
        """Return dmin, dmax, dmean and rms; where a pixel is not finite, the standard's "not determined"."""
        if not math.isfinite(self.squares):
            return 0.0, -1.0, -2.0, -1.0
        return self.least, self.greatest, self.mean, math.sqrt(self.squares / self.count)


def partial_path(path: Path) -> Path:
    """Return where a stack that can be resumed is written to until it is whole."""
    return path.with_name(f".{path.name}.part")


@contextmanager
def alone_at(path: Path) -> Iterator[None]:
    """Keep others from the stack that `partial_path` becomes, or wait for them.

    Raises
    ------
    CryobridgeError
        If the operating system refuses.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(lease_of_partial(path)))
        except OSError as error:
            raise write_error(path, error) from error
        yield


def lease_of_partial(path: Path) -> Path:
    """Return the lease of who writes to `partial_path`."""
    return path.with_name(f".{path.name}.part.lease")


def sums_path(path: Path) -> Path:
    """Return where the checksums of the images in `partial_path` lie."""
    return path.with_name(f".{path.name}.part.sums")


def keep_whole(path: Path, image_bytes: int) -> int:
    """Cut off what is in `partial_path` behind the images that their checksums are true of.

    Parameters
    ----------
    path
        The stack that it would become.
    image_bytes
        Bytes of an image.

    Returns
    -------
    int
        How many whole images are cut off.

    Raises
    ------
    CryobridgeError
        If the operating system refuses.
    """
    partial = partial_path(path)
    try:
        if _state(partial) == _known_whole.get(partial):
            return 0
        with partial.open("r+b") as file, sums_path(path).open("a+b", buffering=0) as sums:
            n_there = max(0, file.seek(0, 2) - HEADER_BYTES) // image_bytes
            n_whole = sum(len(content) // image_bytes for content, _ in _whole_blocks(file, sums, image_bytes))
            file.truncate(HEADER_BYTES + n_whole * image_bytes)
        _known_whole[partial] = _state(partial)
    except OSError as error:
        raise write_error(path, error) from error
    return n_there - n_whole


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _whole_blocks(file: IO[bytes], sums: IO[bytes], image_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield some images after the other as bytes, with the checksum up to there, as long as it is as it was noted."""
    sums.seek(0)
    file.seek(HEADER_BYTES)
    n_done = checksum = 0
    while len(noted := sums.read(_SUM.size)) == _SUM.size:
        n_images, expected = _SUM.unpack(noted)
        n_bytes = (n_images - n_done) * image_bytes
        if not 0 < n_bytes <= max(image_bytes, _MOST_SUMMED_BYTES):
            return
        content = file.read(n_bytes)
        checksum = zlib.crc32(content, checksum)
        if len(content) < n_bytes or checksum != expected:
            return
        yield content, checksum
        n_done = n_images


@contextmanager
def _partial_file(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open what there is of a file with its checksums, or new ones; it gets its name when the block ends well."""
    partial, sums = partial_path(path), sums_path(path)
    try:
        mode = "r+b" if partial.exists() and sums.exists() else "w+b"
        with partial.open(mode) as file, sums.open(mode, buffering=0) as noted:
            yield file, noted
        rename(partial, path)
        sums.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) not in map(os.fspath, (partial, sums)):
            raise
        raise write_error(path, error) from error


def write_mrc_stack(path: str | os.PathLike[str], images: NDArray[Any], pixel_size_A: float) -> None:
    """Write images, (n, ny, nx), as a stack: ISPG 0, mz 1; mode 12 for float16, else mode 2."""
    _write(MrcStackWriter, path, images, pixel_size_A)


def write_mrc_volume(path: str | os.PathLike[str], volume: NDArray[Any], pixel_size_A: float) -> None:
    """Write a volume, (nz, ny, nx): ISPG 1, mz = nz; mode 12 for float16, else mode 2."""
    _write(_VolumeWriter, path, volume, pixel_size_A)


def copy_changed(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    change: Callable[[NDArray[np.int64], Images], Images],
    *,
    as_float32: bool = False,
) -> None:
    """Copy a stack with other pixels, some sections at a time.

    The header stays, with the extended one and the labels; the statistics in it become those of the copy. Pixels that
    are whole numbers become float32.

    Parameters
    ----------
    source, target
        The stack, and the file that is written; one that is there is replaced.
    change
        Takes the numbers (n,) of sections, counted from 0, and their pixels (n, ny, nx), and returns the new ones.
    as_float32
        Whether pixels of half precision become float32, too.

    Raises
    ------
    FormatError
        If the stack can't be read.
    """
    file = open_mrc(source)
    header, raw = file.header, bytearray(raw_header(file.header))
    assert header.dtype is not None  # open_mrc refuses others
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    fields = next(
        found
        for order in orders
        if int((found := np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order), 1))["nx"][0]) == header.nx
    )
    dtype = header.dtype
    if dtype.kind != "f" or as_float32:
        dtype = np.dtype(np.float32).newbyteorder(fields.dtype["nx"].byteorder)
        fields["mode"] = 2
    statistics = _Statistics()
    at_once = max(1, _BLOCK_BYTES // max(1, header.nx * header.ny * dtype.itemsize))
    with atomic_path(Path(target)) as temporary, temporary.open("wb") as copy:
        copy.write(raw)
        for first in range(0, header.nz, at_once):
            chosen = np.arange(first, min(first + at_once, header.nz))
            pixels = np.ascontiguousarray(change(chosen, file.read(chosen)), dtype)
            statistics.add(pixels)
            copy.write(pixels.data)
        fields["dmin"], fields["dmax"], fields["dmean"], fields["rms"] = statistics.for_header()
        copy.seek(0)
        copy.write(raw)


def _write(
    writer: type[MrcStackWriter], path: str | os.PathLike[str], sections: NDArray[Any], pixel_size_A: float
) -> None:
    if sections.ndim != 3:
        raise UsageError(f"an array of {sections.ndim} dimensions is neither a stack nor a volume", path=path)
    nz, ny, nx = sections.shape
    dtype = np.float16 if sections.dtype == np.float16 else np.float32
    with writer(path, (ny, nx), pixel_size_A, n_images=nz, dtype=dtype) as file:
        file.append(sections)
