"""Headers of TIFF files, of which EER files are some: how many pages they have, their size, and how they are stored.

Only the chain of directories is read, by `struct`; no pixel is. TIFF 6.0 has directories of 12-byte entries and 32-bit
offsets, BigTIFF of 20-byte entries and 64-bit offsets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import open_input, read_error, readable_size
from cryobridge.formats.mrc_header import COPY_AGAIN
from cryobridge.report import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

WIDTH: Final = 256
HEIGHT: Final = 257
BITS: Final = 258
COMPRESSION: Final = 259
# Events of 8 + 4 bits, of 7 + 4 bits, and of numbers of bits that tags give.
EER_COMPRESSIONS: Final = frozenset({65000, 65001, 65002})
# The types that a size may have: their codes for `struct`.
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
# More pages, or entries in one, no movie has; a damaged or malicious file could have billions.
MOST_PAGES = 1 << 17
_MOST_ENTRIES = 1024
_LARGEST_SIDE = 1 << 20
# A directory is mostly shorter: one read for each.
_READ_BYTES = 512
_MAGIC_BYTES = 4


@dataclass(frozen=True)
class TiffHeader:
    """What the directories of a TIFF file say.

    Attributes
    ----------
    nx, ny
        Columns and rows of a page.
    n_pages
        Pages in the file; in an EER file those that hold events, one a frame of the camera.
    n_other
        Pages that are no frames: an image of the sum, or of another size.
    bits
        Bits of a pixel; 1 where the file does not say, as by the standard.
    compression
        The tag's number: 1 for none, 5 for LZW, 8 and 32946 for deflate, 65000 and above for EER.
    """

    path: Path
    nx: int
    ny: int
    n_pages: int
    n_other: int
    bits: int
    compression: int

    @property
    def is_eer(self) -> bool:
        """Whether it holds electron events."""
        return self.compression in EER_COMPRESSIONS


@dataclass(frozen=True)
class _Layout:
    """Where a file has its numbers."""

    order: str
    is_big: bool

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.is_big else "H")

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.is_big else "I")

    @property
    def entry_bytes(self) -> int:
        return 20 if self.is_big else 12


def is_tiff(head: bytes) -> bool:
    """Whether the first bytes are those of a TIFF or BigTIFF file."""
    return head[:_MAGIC_BYTES] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


def read_tiff_header(path: str | os.PathLike[str]) -> TiffHeader:
    """Read the directories of a TIFF, BigTIFF or EER file.

    Raises
    ------
    FormatError
        If the file can't be read, is none, has no page, is cut off before the end of its directories, or these lead in
        a circle.
    """
    path = Path(path)
    size = readable_size(path)
    try:
        with open_input(path) as file:
            pages = list(_pages(file, path, size))
    except OSError as error:
        raise read_error(path, error) from error
    of_events = [page for page in pages if page[2] in EER_COMPRESSIONS]
    alike = of_events or pages
    frames = [page for page in alike if page == alike[0]]
    nx, ny, compression, bits = frames[0]
    return TiffHeader(path, nx, ny, len(frames), len(pages) - len(frames), bits, compression)


def _pages(file: IO[bytes], path: Path, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield width, height, compression and bits of each page."""
    layout, offset = _beginning(file, path, size)
    seen: set[int] = set()
    known: tuple[tuple[bytes, ...], tuple[int, int, int, int]] | None = None
    while offset:
        if offset in seen or len(seen) == MOST_PAGES:
            raise FormatError(
                f"its directories lead in a circle, or are more than {MOST_PAGES:,}", path=path, hint=COPY_AGAIN
            )
        seen.add(offset)
        entries, offset = _directory(file, path, layout, offset, size)
        # Pages of one movie have the same entries, which compares faster than it reads.
        if known is None or not all(entry in entries for entry in known[0]):
            known = _page(entries, layout, path)
        yield known[1]
    if not seen:
        raise FormatError("it has no page", path=path, hint=COPY_AGAIN)


def _beginning(file: IO[bytes], path: Path, size: int) -> tuple[_Layout, int]:
    """Return how a file is laid out, and where its first directory is."""
    head = file.read(16)
    if not is_tiff(head):
        raise FormatError("not a TIFF file: its first bytes are others", path=path, hint="Name a movie in TIFF or EER.")
    layout = _Layout("<" if head[:1] == b"I" else ">", b"+" in head[:_MAGIC_BYTES])
    try:
        offset = struct.unpack_from(layout.offset, head, 8 if layout.is_big else 4)[0]
    except struct.error:
        raise _cut_off(path, size) from None
    return layout, int(offset)


def _directory(file: IO[bytes], path: Path, layout: _Layout, offset: int, size: int) -> tuple[bytes, int]:
    """Return the entries of a directory, and where the next one is; 0 for the last."""
    count_bytes, offset_bytes = struct.calcsize(layout.count), struct.calcsize(layout.offset)
    if offset + count_bytes > size:
        raise _cut_off(path, size)
    file.seek(offset)
    block = file.read(_READ_BYTES)
    if len(block) < count_bytes:  # it has become shorter meanwhile
        raise _cut_off(path, size)
    n_entries = int(struct.unpack_from(layout.count, block)[0])
    if not 0 < n_entries <= _MOST_ENTRIES:
        raise FormatError(f"a directory has {n_entries:,} entries, which none has", path=path, hint=COPY_AGAIN)
    end = count_bytes + n_entries * layout.entry_bytes
    if len(block) < end + offset_bytes:
        block += file.read(end + offset_bytes - len(block))
    if len(block) < end + offset_bytes:
        raise _cut_off(path, size)
    return block[count_bytes:end], int(struct.unpack_from(layout.offset, block, end)[0])


def _page(entries: bytes, layout: _Layout, path: Path) -> tuple[tuple[bytes, ...], tuple[int, int, int, int]]:
    """Return the entries that tell pages from each other, and width, height, compression and bits of this one."""
    found: dict[int, bytes] = {}
    for start in range(0, len(entries), layout.entry_bytes):
        entry = entries[start : start + layout.entry_bytes]
        tag = struct.unpack_from(layout.order + "H", entry)[0]
        if tag in {WIDTH, HEIGHT, COMPRESSION, BITS}:
            found.setdefault(tag, entry)
    values = {tag: _integer(entry, layout) for tag, entry in found.items()}
    nx, ny = values.get(WIDTH, 0), values.get(HEIGHT, 0)
    if not (0 < nx <= _LARGEST_SIDE and 0 < ny <= _LARGEST_SIDE):
        raise FormatError(f"a page has {nx:,} x {ny:,} pixels", path=path, hint=COPY_AGAIN)
    return tuple(found.values()), (nx, ny, values.get(COMPRESSION, 1), values.get(BITS, 1))


def _integer(entry: bytes, layout: _Layout) -> int:
    """Return the value of an entry that holds one integer; 0 for what is none."""
    kind = struct.unpack_from(layout.order + "H", entry, 2)[0]
    code = _INTEGERS.get(kind)
    if code is None or struct.unpack_from(layout.offset, entry, 4)[0] != 1:
        return 0
    start = 12 if layout.is_big else 8
    if start + struct.calcsize(layout.order + code) > len(entry):
        return 0
    return int(struct.unpack_from(layout.order + code, entry, start)[0])


def _cut_off(path: Path, size: int) -> FormatError:
    return FormatError(
        f"it is cut off: its directories lead beyond its {counted(size, 'byte')}", path=path, hint=COPY_AGAIN
    )
