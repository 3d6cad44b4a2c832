"""Writing large files in aligned blocks past the system's cache, which costs time and crowds out the inputs."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# A whole number of the blocks of any disk, and of the stripes of most parallel file systems.
_BLOCK_BYTES = 4 << 20
# What memory and places in the file must be a multiple of.
_ALIGNMENT_BYTES = 4096
_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}


class AlignedFile:
    """A new file that takes bytes one after the other, and may go back to change some when all are there.

    Blocks are handed to the disk as they are, where system and file system can do that (O_DIRECT), and by way of the
    system's cache where not. What does not fill a block goes through the cache. It is what `zipfile.ZipFile` needs
    of a file.

    Parameters
    ----------
    path
        The file; one that is there is replaced.

    Raises
    ------
    OSError
        If the system refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._block: NDArray[np.uint8] | None = None
        self._n_pending = 0  # bytes in the block
        self._start = 0  # of the block in the file
        self._is_direct = False
        self._may_be_direct = sys.platform == "linux"

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes; return how many."""
        content = np.frombuffer(data, np.uint8)
        if self._block is None:
            memory = np.empty(_BLOCK_BYTES + _ALIGNMENT_BYTES, np.uint8)
            first = -memory.ctypes.data % _ALIGNMENT_BYTES
            self._block = memory[first : first + _BLOCK_BYTES]
        done = 0
        while done < len(content):
            n = min(len(content) - done, _BLOCK_BYTES - self._n_pending)
            self._block[self._n_pending : self._n_pending + n] = content[done : done + n]
            self._n_pending += n
            done += n
            if self._n_pending == _BLOCK_BYTES:
                self._put(direct=self._may_be_direct)
        return done

    def tell(self) -> int:
        """Return where the next byte goes."""
        return self._start + self._n_pending

    def seek(self, place: int) -> int:
        """Let the next byte go elsewhere; return where."""
        if place != self.tell():
            self.flush()
            self._start = place
            self._may_be_direct = False  # blocks would begin anywhere
        return place

    def flush(self) -> None:
        """Write what is held back."""
        if self._n_pending:
            self._put(direct=False)
            self._may_be_direct = False

    def close(self) -> None:
        """Write what is held back and close the file."""
        try:
            self.flush()
        finally:
            os.close(self._descriptor)

    def _put(self, *, direct: bool) -> None:
        """Write the pending bytes."""
        assert self._block is not None
        content = self._block[: self._n_pending].data
        self._n_pending = 0  # what can't be written is not tried again
        while content:
            self._set_direct(direct)
            try:
                n = os.pwrite(self._descriptor, content, self._start)
            except OSError as error:
                if not (direct and error.errno in _REFUSED):
                    raise
                direct = self._may_be_direct = False
                continue
            self._start += n
            content = content[n:]
            direct = direct and n % _ALIGNMENT_BYTES == 0

    def _set_direct(self, direct: bool) -> None:
        if direct == self._is_direct:
            return
        import fcntl

        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
            self._is_direct = direct
        except OSError as error:  # this file system has no such thing
            if error.errno not in _REFUSED:
                raise
            self._may_be_direct = False
