"""Writing a torch tensor piece by piece, so that a stack never has to be in memory as a whole."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import torch

from cryobridge.formats.aligned_file import AlignedFile
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.file_record import FileRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A `.pt` file is a zip archive of stored members: the pickled tensor, which refers to its storage by number, and the
# storage's bytes. https://docs.pytorch.org/docs/stable/notes/serialization.html
_FORMAT_VERSION = b"3\n"
# Bytes that are counted and then copied at a time: few enough for a processor's cache.
_PIECE_BYTES = 1 << 18
_ALIGNMENT_BYTES = 64  # torch's own, so that the file can be mapped into memory
_ZIP_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20
_STORAGES = {
    torch.float32: "FloatStorage",
    torch.float64: "DoubleStorage",
    torch.complex64: "ComplexFloatStorage",
    torch.complex128: "ComplexDoubleStorage",
}


@contextmanager
def tensor_writer(path: Path, item_shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[TensorWriter]:
    """Write a `.pt` file of one tensor; it appears under its name when the block ends well, and not at all otherwise.

    Parameters
    ----------
    path
        Where the file shall be.
    item_shape
        Shape of one item; the tensor is (n, *item_shape), and n need not be known beforehand.
    dtype
        float32, float64, complex64 or complex128.

    Yields
    ------
    TensorWriter
        Which takes the items.
    """
    with atomic_path(path) as temporary, TensorWriter(temporary, item_shape, dtype) as writer:
        yield writer
        writer.finish()


class TensorWriter(AbstractContextManager["TensorWriter"]):
    """Takes the items of a tensor as they come; see `tensor_writer`."""

    def __init__(self, path: Path, item_shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self._path = path
        self._item_shape = item_shape
        self._dtype = dtype
        self._n_bytes = self.length = 0
        self._record: FileRecord | None = None
        self._member, self._head_bytes = _aligned("archive/data/0")
        self._file = AlignedFile(path)
        self._archive = zipfile.ZipFile(cast("IO[bytes]", self._file), "w", zipfile.ZIP_STORED)
        self._data = self._archive.open(self._member, "w", force_zip64=True)

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            if self._record is None:
                for part in (self._file, self._archive, self._data):
                    stack.callback(part.close)

    def finish(self) -> FileRecord:
        """Write what follows the items, and return what the file is known by; no more items are taken."""
        if self._record is None:
            self._data.close()
            shape = (self.length, *self._item_shape)
            self._archive.writestr(zipfile.ZipInfo("archive/data.pkl"), _description(shape, self._dtype))
            self._archive.writestr(zipfile.ZipInfo("archive/byteorder"), sys.byteorder)
            self._archive.writestr(zipfile.ZipInfo("archive/version"), _FORMAT_VERSION)
            self._archive.close()
            self._file.close()
            # The archive has counted what was written.
            self._record = FileRecord.written(self._path, self._head_bytes, self._n_bytes, self._member.CRC)
        return self._record

    def write(self, items: torch.Tensor) -> None:
        """Append items, (n, *item_shape), on the CPU.

        Raises
        ------
        ValueError
            If they are of another shape or type.
        """
        if tuple(items.shape[1:]) != self._item_shape or items.dtype != self._dtype:
            raise ValueError(f"{tuple(items.shape)} {items.dtype} is not (n, *{self._item_shape}) {self._dtype}")
        content = items.contiguous().numpy().reshape(-1).view(np.uint8).data
        for first in range(0, len(content), _PIECE_BYTES):
            self._data.write(content[first : first + _PIECE_BYTES])
        self._n_bytes += len(content)
        self.length += len(items)


def _aligned(name: str) -> tuple[zipfile.ZipInfo, int]:
    """Return the first member of an archive, with as much padding as aligns its data, and where these begin."""
    member = zipfile.ZipInfo(name)
    start = _ZIP_LOCAL_HEADER_BYTES + len(name) + _ZIP64_EXTRA_BYTES + 4
    padding = -start % _ALIGNMENT_BYTES
    member.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    return member, start + padding


def _description(shape: tuple[int, ...], dtype: torch.dtype) -> bytes:
    stream = io.BytesIO()
    _TensorPickler(stream, shape, dtype).dump(_Tensor())
    return stream.getvalue()


class _Tensor:
    """Stands for the tensor while it is pickled."""


class _Storage:
    """Stands for the bytes of the tensor."""


class _TensorPickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__(stream, protocol=2)
        self._shape = shape
        self._storage_type = getattr(torch, _STORAGES[dtype])

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Storage):
            return None
        return ("storage", self._storage_type, "0", "cpu", int(np.prod(self._shape)))

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, _Tensor):
            return NotImplemented
        strides = torch.empty(self._shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (_Storage(), 0, self._shape, strides, False, OrderedDict())
