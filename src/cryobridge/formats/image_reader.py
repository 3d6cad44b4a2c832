"""Reading the images of rows that lie in any number of files, in any order."""

from __future__ import annotations

import os
import resource
import struct
from collections import OrderedDict
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import open_input, read_error
from cryobridge.formats.mrc import Images, MrcFile, open_mrc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.model.particles import ImageRefs

# Compressed files are in memory as a whole while they are open.
_MOST_COMPRESSED = 2
_SHARE_OF_OPEN_FILES = 4


def _opened(header: MrcHeader) -> IO[bytes]:
    """Open a file whose header was read before.

    Raises
    ------
    FormatError
        If it has images of another size or type now.
    """
    stream = open_input(header.path)
    then = (header.nx, header.ny, header.nz, header.mode)
    now = os.pread(stream.fileno(), 16, 0)
    if now not in {struct.pack(f"{order}4i", *then) for order in "<>"}:
        stream.close()
        hint = "Read the metadata again; if they are of the images that were there, give those back their name."
        raise FormatError("the file was replaced by another one since its header was read", path=header.path, hint=hint)
    return stream


class ImageReader:
    """Reads images of a set; each file stays open, as far as the system allows so many; a context manager.

    Parameters
    ----------
    images
        Where the image of each row is.
    headers
        The header of each file, by its number in ``images.path.values``.
    from_maps
        Whether images that are no neighbours are copied from memory maps (`MrcFile.copy`), which stay too.
    """

    def __init__(self, images: ImageRefs, headers: Mapping[int, MrcHeader], *, from_maps: bool = False) -> None:
        self._images, self._headers = images, headers
        self._from_maps = from_maps
        self._plain: OrderedDict[int, tuple[MrcFile, IO[bytes]]] = OrderedDict()
        self._compressed: OrderedDict[int, MrcFile] = OrderedDict()
        self._most_open = max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE_OF_OPEN_FILES)

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        with ExitStack() as stack:
            for _, file in self._plain.values():
                stack.callback(file.close)
        self._plain.clear()
        self._compressed.clear()

    def read(self, rows: NDArray[np.int64], out: Images | None = None) -> Images:
        """Return the images of these rows, (n, ny, nx) float32; each file is read once and in its own order.

        Parameters
        ----------
        rows
            (n,) of the set.
        out
            (n, ny, nx) float32, contiguous, where they are wanted.

        Raises
        ------
        FormatError
            If a file can't be read any more.
        """
        codes, index = self._images.path.codes[rows], self._images.index[rows]
        header = self._headers[int(codes[0])] if len(rows) else next(iter(self._headers.values()))
        if out is None:
            out = np.empty((len(rows), header.ny, header.nx), np.float32)
        if len(rows) and (codes == codes[0]).all():
            self._read_file(int(codes[0]), index, out)
            return out
        order = np.argsort(codes, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(rows) else ():
            first, last = int(places[0]), int(places[-1])
            if last - first + 1 == len(places):  # they are in order, for the sort is stable
                self._read_file(int(codes[first]), index[places], out[first : last + 1])
            else:
                part = np.empty((len(places), *out.shape[1:]), np.float32)
                self._read_file(int(codes[first]), index[places], part)
                out[places] = part
        return out

    def _read_file(self, code: int, index: NDArray[np.int64], out: Images) -> None:
        header = self._headers[code]
        if header.whole_sections is None:
            if code not in self._compressed:
                while len(self._compressed) >= _MOST_COMPRESSED:
                    self._compressed.popitem(last=False)
                self._compressed[code] = open_mrc(header.path)
            self._compressed[code].read(index, out=out)
            return
        if code not in self._plain:
            while len(self._plain) >= self._most_open:
                self._plain.popitem(last=False)[1][1].close()
            try:
                self._plain[code] = (MrcFile(header), _opened(header))
            except OSError as error:
                raise read_error(header.path, error) from error
        self._plain.move_to_end(code)
        file, stream = self._plain[code]
        if self._from_maps:
            file.copy(index, out, stream)
        else:
            file.read(index, stream, out)
