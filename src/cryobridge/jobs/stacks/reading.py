"""Reading the images of rows that lie in any number of files, in any order."""

from __future__ import annotations

import resource
from collections import OrderedDict
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import numpy as np

from cryobridge.formats.input_file import open_input, read_error
from cryobridge.formats.mrc import Images, MrcFile, open_mrc

if TYPE_CHECKING:
    from types import TracebackType

    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.inputs import StackInput

# Compressed files are in memory as a whole while they are open.
_MOST_COMPRESSED = 2
_SHARE_OF_OPEN_FILES = 4


class ImageReader:
    """Reads images of an input; each file stays open, as far as the system allows so many; a context manager."""

    def __init__(self, source: StackInput) -> None:
        self._source = source
        self._plain: OrderedDict[int, tuple[MrcFile, IO[bytes]]] = OrderedDict()
        self._compressed: OrderedDict[int, MrcFile] = OrderedDict()
        self._most_open = max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE_OF_OPEN_FILES)

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for _, file in self._plain.values():
                stack.callback(file.close)
        self._plain.clear()
        self._compressed.clear()

    def read(self, rows: Rows) -> Images:
        """Return the images of these rows, (n, ny, nx) float32; each file is read once and in its own order.

        Raises
        ------
        FormatError
            If a file can't be read any more.
        """
        if len(rows) == 0:
            header = next(iter(self._source.headers.values()))
            return np.empty((0, header.ny, header.nx), np.float32)
        refs = self._source.images
        codes, index = refs.path.codes[rows], refs.index[rows]
        if (codes == codes[0]).all():
            return self._read_file(int(codes[0]), index)
        header = self._source.headers[int(codes[0])]
        images = np.empty((len(rows), header.ny, header.nx), np.float32)
        for code in np.unique(codes).tolist():
            chosen = codes == code
            images[chosen] = self._read_file(code, index[chosen])
        return images

    def _read_file(self, code: int, index: Rows) -> Images:
        header = self._source.headers[code]
        if header.whole_sections is None:
            if code not in self._compressed:
                while len(self._compressed) >= _MOST_COMPRESSED:
                    self._compressed.popitem(last=False)
                self._compressed[code] = open_mrc(header.path)
            return self._compressed[code].read(index)
        if code not in self._plain:
            while len(self._plain) >= self._most_open:
                self._plain.popitem(last=False)[1][1].close()
            try:
                self._plain[code] = (MrcFile(header), open_input(header.path))
            except OSError as error:
                raise read_error(header.path, error) from error
        self._plain.move_to_end(code)
        file, stream = self._plain[code]
        return file.read(index, stream)
