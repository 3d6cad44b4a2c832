"""MRC2014 files: stacks of images and volumes.

The header's layout and byte order stamp are mrcfile's; the data are read here, so that one image of a large stack
costs one image. Files that other readers refuse are read with a note where their content is beyond doubt.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.input_file import read_error, readable_size, unpacks_to_too_much
from cryobridge.report import Message, counted

if TYPE_CHECKING:
    import io
    import os
    from collections.abc import Sequence
from cryobridge.formats.mrc_header import COPY_AGAIN, UNREAD_MODES, MrcHeader, open_bytes, read_header

Images = NDArray[np.float32]
_WINDOW_BYTES = 4 << 20  # small enough for a processor's cache, so that the second copy costs little
_COMPRESSED_LIMIT_BYTES = 4 << 30
_PIECE_BYTES = 1 << 20
# From so many neighbours on a read of the file is as fast as a copy from its memory map.
_RUN_IMAGES = 8


@dataclass(frozen=True, eq=False)
class MrcFile:
    """An MRC file whose data are complete; pixels are read when they are asked for.

    Nothing stays open between calls, so that a data set may consist of thousands of these.
    """

    header: MrcHeader
    _decompressed: NDArray[Any] | None = None

    @property
    def problems(self) -> tuple[Message, ...]:
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
        except (OSError, ValueError) as error:  # a file that has become shorter
            raise read_error(header.path, error) from error

    def read(
        self,
        indices: Sequence[int] | NDArray[np.integer[Any]],
        file: IO[bytes] | None = None,
        out: Images | None = None,
    ) -> Images:
        """Read sections in the order of the file and return them in the order asked for.

        Besides the result, memory for at most 4 MiB or one section is taken, whatever the size of the file.

        Parameters
        ----------
        indices
            0-based sections, (n,), in any order, repeated if need be.
        file
            The file, opened by a caller who reads from it more than once.
        out
            (n, ny, nx) float32, contiguous, where they are wanted.

        Returns
        -------
        numpy.ndarray
            (n, ny, nx) float32; ``out`` if it was given.

        Raises
        ------
        MissingDataError
            If an index is negative or beyond the last section.
        FormatError
            If the file can't be read any more.
        """
        header = self.header
        wanted = self._checked(indices)
        images = np.empty((wanted.size, header.ny, header.nx), np.float32) if out is None else out
        if self._decompressed is not None:
            images[...] = self._decompressed[wanted]
            return images
        order = np.argsort(wanted, kind="stable")
        in_file_order = wanted[order]
        runs = [0, *(np.flatnonzero(np.diff(in_file_order) != 1) + 1).tolist(), wanted.size]
        # What is as it shall be, in type and order, is read where it belongs, and each run as a whole.
        is_direct = header.dtype == images.dtype and bool((order[:-1] < order[1:]).all())
        at_once = max(1, wanted.size if is_direct else min(wanted.size, _WINDOW_BYTES // header.section_bytes))
        window = images if is_direct else np.empty((at_once, header.ny, header.nx), header.dtype)
        with open_bytes(header.path) if file is None else nullcontext((file, False)) as (source, _):
            for start, stop in pairwise(runs):
                for first in range(start, stop, at_once):
                    rows = order[first : min(first + at_once, stop)]
                    block = window[first : first + rows.size] if is_direct else window[: rows.size]
                    self._read_run(source, int(in_file_order[first]), block)
                    if not is_direct:
                        images[rows] = block
        return images

    def copy(self, indices: NDArray[np.integer[Any]], out: Images, file: IO[bytes]) -> None:
        """Copy scattered sections from the memory map, and read runs of neighbours.

        Scattered ones take half of the time of `read` so, where the system's cache has them. Runs are read, since pages
        of a map come one after the other where it has not. A file that becomes shorter meanwhile ends the process.

        Parameters
        ----------
        indices
            0-based sections, (n,), that are known to be there.
        out
            (n, ny, nx) float32, contiguous, where they are wanted.
        file
            The file, opened.

        Raises
        ------
        FormatError
            If the file can't be read any more.
        """
        n_runs = 1 + int(np.count_nonzero(indices[1:] != indices[:-1] + 1))
        is_in_file = self._decompressed is None
        if is_in_file and n_runs == 1 and self.header.dtype == out.dtype and len(indices):
            self._read_run(file, int(indices[0]), out)
            return
        if not is_in_file or _RUN_IMAGES * n_runs <= len(indices):
            self.read(indices, file, out)
            return
        images = self.images
        if images.dtype == out.dtype:
            np.take(images, indices, axis=0, out=out, mode="clip")  # which does without a copy in between
            return
        at_once = max(1, _WINDOW_BYTES // self.header.section_bytes)
        for place in range(0, len(indices), at_once):
            out[place : place + at_once] = images[indices[place : place + at_once]]

    def _checked(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        wanted = np.asarray(indices)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise UsageError("sections are asked for by a one-dimensional list of whole numbers")
        wrong = int(((wanted < 0) | (wanted >= self.header.nz)).sum())
        if wrong:
            lowest, highest = int(wanted.min()), int(wanted.max())
            asked = f"section {highest}" if highest >= self.header.nz else f"section {lowest}"
            raise MissingDataError(
                f"{asked} (counted from 0) is asked for, but the file has {counted(self.header.nz, 'section')}",
                path=self.header.path,
                count=wrong,
                hint="Check that the metadata belongs to this file and whether it counts from 0 or 1.",
            )
        return wanted.astype(np.int64)

    def _read_run(self, file: IO[bytes], first: int, block: NDArray[Any]) -> None:
        header = self.header
        try:
            file.seek(header.data_offset + first * header.section_bytes)
            n_read = cast("io.BufferedReader", file).readinto(block.data)
        except OSError as error:
            raise read_error(header.path, error) from error
        if n_read != block.nbytes:
            raise FormatError("the file has become shorter while it was read", path=header.path, hint=COPY_AGAIN)


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
            f"mode {header.mode} ({UNREAD_MODES[header.mode]}) is not read",
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
            hint=COPY_AGAIN,
        )


def _decompress(header: MrcHeader) -> NDArray[Any]:
    n_bytes = header.data_offset + header.nz * header.section_bytes
    if n_bytes > _COMPRESSED_LIMIT_BYTES:
        raise FormatError(
            f"it would need {n_bytes / 2**30:.1f} GiB of memory, since compressed files can't be read in parts",
            path=header.path,
            hint="Decompress it on disk first (gunzip or bunzip2).",
        )
    packed = readable_size(header.path)
    if unpacks_to_too_much(packed, n_bytes):
        raise FormatError(
            f"{packed:,} bytes would unpack to {n_bytes:,}, as no image does",
            path=header.path,
            hint="If the file is yours, decompress it on disk first (gunzip or bunzip2).",
        )
    data = bytearray()
    with open_bytes(header.path) as (stream, _):
        try:
            # read1, unlike read, hands over what comes before the point where the stream is cut off.
            pieces = cast("io.BufferedReader", stream)
            while len(data) < n_bytes and (piece := pieces.read1(min(_PIECE_BYTES, n_bytes - len(data)))):
                data += piece
        except EOFError:
            pass  # the stream is cut off; how much of it is there is reported below
    _require_whole(header, max(0, len(data) - header.data_offset) // header.section_bytes)
    images = np.frombuffer(data, header.dtype, offset=header.data_offset)
    images.flags.writeable = False
    return images.reshape(header.nz, header.ny, header.nx)
