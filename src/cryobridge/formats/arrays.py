"""Arrays on the disk: NumPy's `.npy` and `.npz`, torch's `.pt`, and CryoLike's image descriptor, which is an `.npz`.

Sizes that a file claims are compared with the file before memory is taken, and nothing in a file is run.
"""

from __future__ import annotations

import errno
import math
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryobridge.errors import CryobridgeError, FormatError, UnsafeFileError, UsageError
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.input_file import open_input, read_error, read_input, readable_size, unpacks_to_too_much
from cryobridge.formats.npy_header import NPY_MAGIC, NpyHeader, has_broken_text, read_header
from cryobridge.formats.pickle_data import load_pickle_bytes, scan_pickles_in
from cryobridge.formats.registry import TORCH_MAGIC

if TYPE_CHECKING:
    import os

    import torch


Array = NDArray[Any]
# Any, because numpy's type stubs leave the functions of this module untyped.
_NPY_FORMAT: Any = np.lib.format
_ZIP_MAGIC = b"PK"
# What zipfile, numpy and torch were seen to raise on damaged files.
_LIBRARY_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError, EOFError, MemoryError),
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, SyntaxError, RuntimeError, OverflowError),
)
# What torch's files of tensors name: `torch.Size`, `torch._utils._rebuild_tensor_v2` …; not `torch.nn.Linear`.
_OF_TENSORS = re.compile(
    r"torch\.(\w+|(_utils|_tensor|storage|serialization|nn\.parameter)\.\w+)|collections\.OrderedDict"
)
_COPY_AGAIN = "Copy the file again from where it was made; the copy or the program that wrote it was interrupted."


@dataclass(frozen=True)
class ArrayInfo:
    """An array in a file.

    Parameters
    ----------
    name
        Empty where the file holds one array without a name.
    dtype, shape, nbytes
        Type, shape and size, as if each value were stored.
    stored
        In which way the values of a tensor are stored, if not one by one: ``"sparse_coo"``, ``"quantised"`` …, or
        ``"meta"`` where there are none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    stored: str = ""

    @property
    def is_dense(self) -> bool:
        """Whether the file has each value."""
        return self.stored in {"", "quantised"}


def describe_arrays(path: str | os.PathLike[str]) -> list[ArrayInfo]:
    """List the arrays in a `.npy`, `.npz` or `.pt` file, recognised by its content; their data are not loaded.

    Raises
    ------
    FormatError
        If the file can't be read, is none of the three, or claims more than it holds.
    UnsafeFileError
        If a torch file can't be read without running code.
    """
    path = Path(path)
    container = _container(path)
    if container == "npy":
        header, _ = _npy_file_header(path)
        return [ArrayInfo("", str(header.dtype), header.shape, header.nbytes)]
    if container == "npz":
        return read_npz(path).describe()
    value = _load_torch(path)
    tensors = _named_tensors(value) or {"": value}
    return [_tensor_info(path, name, tensor) for name, tensor in tensors.items()]


def _container(path: Path) -> Literal["npy", "npz", "pt"]:
    readable_size(path)
    with _errors_of(path), open_input(path) as file:
        magic = file.read(len(TORCH_MAGIC))
    if magic.startswith(NPY_MAGIC):
        return "npy"
    if magic.startswith(_ZIP_MAGIC):
        with _open_zip(path) as archive:
            return "pt" if any(Path(name).name == "data.pkl" for name in archive.namelist()) else "npz"
    if magic == TORCH_MAGIC:
        return "pt"
    raise FormatError(
        "neither a .npy, .npz nor .pt file: it starts with none of their marks",
        path=path,
        hint="`cryobridge inspect` says what a file is.",
    )


@contextmanager
def _errors_of(path: Path, field: str | None = None) -> Iterator[None]:
    """Turn what the operating system and the libraries raise on a bad file into one error."""
    try:
        yield
    except CryobridgeError:
        raise
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place before the start or after all ends, which the file names
            raise FormatError(
                "damaged: it refers to places that it does not have", path=path, hint=_COPY_AGAIN
            ) from error
        raise read_error(path, error) from error
    except _LIBRARY_ERRORS as error:
        reason = str(error).split("\n", maxsplit=1)[0][:200] or type(error).__name__
        raise FormatError(f"damaged: {reason}", path=path, field=field, hint=_COPY_AGAIN) from error


def _npy_file_header(path: Path) -> tuple[NpyHeader, int]:
    """Return the header of a `.npy` file and where its data begin; refuse a file that is shorter than it says."""
    size = readable_size(path)
    with _errors_of(path), open_input(path) as file:
        header, offset = read_header(file), file.tell()
    if not header.dtype.hasobject and header.nbytes > size - offset:
        raise FormatError(
            f"the data are cut off: {size - offset} bytes of {header.nbytes}", path=path, hint=_COPY_AGAIN
        )
    return header, offset


def read_npy(path: str | os.PathLike[str]) -> Array:
    """Map a `.npy` file into memory, read-only.

    Raises
    ------
    UnsafeFileError
        If it holds Python objects, which only running code could make.
    FormatError
        If it can't be read, is no `.npy` file, or is cut off.
    """
    path = Path(path)
    header, offset = _npy_file_header(path)
    if header.dtype.hasobject:
        raise UnsafeFileError(
            "it holds Python objects, which are not read",
            path=path,
            hint="Have the array saved with a type of numbers or of fixed-length text.",
        )
    with _errors_of(path):
        if header.nbytes == 0:
            return np.empty(header.shape, header.dtype)
        array = np.memmap(path, header.dtype, mode="r", offset=offset, shape=header.shape, order=header.order)
        _refuse_broken_text(array)
        return array


def _refuse_broken_text(array: Array) -> None:
    if has_broken_text(array):
        raise ValueError("text with numbers in it that stand for no character")


class NpzArrays(Mapping[str, Array]):
    """The arrays of an `.npz` file; each is read when it is asked for, and nothing stays open.

    An array of Python objects (CryoLike stores absent values so) is read when it holds only numbers and text.
    """

    def __init__(self, path: Path, members: Mapping[str, str]) -> None:
        self.path = path
        self._members = members

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> Array:
        member = self._members[name]
        with _open_zip(self.path) as archive, self._open(archive, name, member) as (stream, header):
            if header.dtype.hasobject:
                content = load_pickle_bytes(stream.read(), self.path, name)
                if not isinstance(content, np.ndarray):
                    raise ValueError(f"it holds a {type(content).__name__} instead of an array")
                return content
            data = stream.read(header.nbytes)
            array: Array = np.frombuffer(data, header.dtype, math.prod(header.shape))
            _refuse_broken_text(array)
            return array.reshape(header.shape, order=header.order).copy(header.order)

    def describe(self) -> list[ArrayInfo]:
        """List name, type, shape and size of each array without reading it."""
        infos = []
        with _open_zip(self.path) as archive:
            for name, member in self._members.items():
                with self._open(archive, name, member) as (_, header):
                    infos.append(ArrayInfo(name, str(header.dtype), header.shape, header.nbytes))
        return infos

    @contextmanager
    def _open(self, archive: zipfile.ZipFile, name: str, member: str) -> Iterator[tuple[IO[bytes], NpyHeader]]:
        with _errors_of(self.path, name), archive.open(member) as stream:
            header = read_header(stream)
            held = archive.getinfo(member).file_size - stream.tell()
            if not header.dtype.hasobject and header.nbytes != held:
                raise ValueError(f"an array of shape {header.shape} and {header.nbytes} bytes, but it holds {held}")
            yield stream, header


def read_npz(path: str | os.PathLike[str]) -> NpzArrays:
    """Open an `.npz` file.

    Raises
    ------
    FormatError
        If it can't be read, is no `.npz` file, or would unpack to very much more than its size (a zip bomb). What is
        wrong with one array is raised when that array is asked for.
    """
    path = Path(path)
    if _container(path) != "npz":
        raise FormatError("not an .npz file", path=path, hint="`cryobridge inspect` says what a file is.")
    with _open_zip(path) as archive:
        names = archive.namelist()
    return NpzArrays(path, {name.removesuffix(".npy"): name for name in names if name.endswith(".npy")})


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with _errors_of(path), zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        packed = path.stat().st_size
        if unpacks_to_too_much(packed, unpacked):
            raise FormatError(
                f"{packed} bytes would unpack to {unpacked}; refused as a zip bomb",
                path=path,
                hint="If the file is yours, save its arrays uncompressed (numpy.savez).",
            )
        yield archive


def read_pt(path: str | os.PathLike[str]) -> torch.Tensor:
    """Read a tensor from a `.pt` file, mapped into memory where the file's format allows.

    What comes back are the values: without the gradient of a parameter, conjugated where that was put off, and as
    numbers where they were quantised.

    Raises
    ------
    UnsafeFileError
        If it can't be read without running code; the error lists what it names.
    FormatError
        If it can't be read, holds something else than one tensor, or a tensor that is sparse, nested or without values.
    """
    path = Path(path)
    tensor = cast("torch.Tensor", _load_torch(path))
    info = _tensor_info(path, "", tensor)
    if info.stored == "meta":
        raise FormatError(
            "a tensor without values: it was on torch's device 'meta'", path=path, hint="Save it with its values."
        )
    if info.stored == "quantised":
        return tensor.dequantize()
    if info.stored:
        raise FormatError(
            f"a sparse tensor ({info.stored}), of which a stack is none",
            path=path,
            hint="Save all its values: torch.save(tensor.to_dense(), path).",
        )
    return tensor.detach().resolve_conj().resolve_neg()


def numpy_values(tensor: torch.Tensor) -> Array:
    """Return a tensor that was read as an array, in the next larger type where NumPy has not its own (bfloat16, say).

    Raises
    ------
    FormatError
        If its values are no numbers for NumPy.
    """
    import torch

    try:
        if tensor.dtype == torch.complex32:
            tensor = tensor.to(torch.complex64)
        elif tensor.is_floating_point() and tensor.dtype not in {torch.float16, torch.float32, torch.float64}:
            tensor = tensor.float()
        values: Array = tensor.numpy()
    except (TypeError, RuntimeError) as error:
        raise FormatError(f"a tensor of {tensor.dtype}, which NumPy has no numbers for") from error
    return values


def _load_torch(path: Path) -> Any:
    import torch

    readable_size(path)
    with _errors_of(path):
        is_zip = zipfile.is_zipfile(path)
    if is_zip:
        with _open_zip(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                raise UnsafeFileError(
                    "a TorchScript archive, which holds code; nothing was run",
                    path=path,
                    hint="Save its tensors: torch.save(module.state_dict(), path).",
                )
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise FormatError(
                    "its parts are compressed, as torch never writes them", path=path, hint="Save it again with torch."
                )
    with _errors_of(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own old file format
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except _LIBRARY_ERRORS as error:
            refusal = _torch_refusal(path, is_zip, isinstance(error, pickle.UnpicklingError))
            if refusal is None:
                raise
            raise refusal from error


def _torch_refusal(path: Path, is_zip: bool, is_of_names: bool) -> FormatError | None:
    """Return why torch did not read a file; None where it is damaged."""
    if is_zip:
        with _open_zip(path) as archive:
            members = [name for name in archive.namelist() if Path(name).name == "data.pkl"]
            names = scan_pickles_in(archive.read(members[0])) if members else ()
    else:
        names = scan_pickles_in(read_input(path))
    if any("nested" in name for name in names if name.startswith("torch.")):
        return _nested(path)
    if not is_of_names:
        is_too_new = not is_zip and "torch.storage.UntypedStorage" in names
        return _too_new(path) if is_too_new else None
    foreign = [name for name in names if not _OF_TENSORS.fullmatch(name)]
    if not foreign:
        return FormatError(
            "not a torch file of tensors, or a damaged one",
            path=path,
            hint="`cryobridge inspect` says what a file is.",
        )
    shown = ", ".join(foreign[:5]) + (" …" if foreign[5:] else "")
    return UnsafeFileError(
        f"reading it would run code: it asks for {shown}. Nothing was run",
        path=path,
        count=len(foreign),
        hint="Have it saved as a plain tensor: torch.save(tensor, path).",
    )


def _nested(path: Path, name: str = "") -> FormatError:
    return FormatError(
        "a nested tensor, whose parts differ in shape",
        path=path,
        field=name or None,
        hint="Save its parts: torch.save(dict(enumerate(tensor.unbind())), path).",
    )


def _too_new(path: Path) -> FormatError:
    return FormatError(
        "of a type that torch's old file format has no word for, so that torch can't read it either",
        path=path,
        hint="Save it again in the format of today: torch.save(tensor, path).",
    )


def _named_tensors(value: Any, name: str = "") -> dict[str, Any]:
    """Return the tensors in a dictionary, by name; those in dictionaries within it after the name of these."""
    import torch

    found: dict[str, Any] = {}
    if isinstance(value, torch.Tensor):
        found[name] = value
    elif isinstance(value, dict):
        for key, item in value.items():
            found |= _named_tensors(item, f"{name}.{key}" if name else str(key))
    return found


def _tensor_info(path: Path, name: str, tensor: Any) -> ArrayInfo:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise FormatError(
            f"it holds a {type(tensor).__name__}, not a tensor",
            path=path,
            field=name or None,
            hint="A CryoLike stack is one tensor: torch.save(tensor, path).",
        )
    if tensor.is_nested:
        raise _nested(path, name)
    nbytes = tensor.numel() * tensor.element_size()
    info = ArrayInfo(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), nbytes, _stored(tensor))
    if info.is_dense and nbytes > path.stat().st_size:
        raise FormatError(
            f"a tensor of {nbytes} bytes is claimed, more than the file has",
            path=path,
            field=name or None,
            hint="Save a contiguous copy: torch.save(tensor.clone(), path).",
        )
    return info


def _stored(tensor: torch.Tensor) -> str:
    import torch

    if tensor.is_meta:
        return "meta"
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    return "quantised" if tensor.is_quantized else ""


def write_npy(path: str | os.PathLike[str], array: ArrayLike) -> None:
    """Write a `.npy` file; it appears under its name when it is whole, and replaces one that is there."""
    path = Path(path)
    values = _plain(path, "", array)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        _NPY_FORMAT.write_array(file, values, allow_pickle=False)


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike]) -> None:
    """Write a compressed `.npz` file without pickles; the same arrays always give the same bytes."""
    path = Path(path)
    values = {name: _plain(path, name, array) for name, array in arrays.items()}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in values.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as stream:
                _NPY_FORMAT.write_array(stream, array, allow_pickle=False)


def write_pt(path: str | os.PathLike[str], tensor: torch.Tensor) -> None:
    """Write one tensor as a `.pt` file: its own elements, not those of a larger tensor that it is a view of."""
    import torch

    path = Path(path)
    values = tensor.detach().cpu().contiguous()
    if values.untyped_storage().nbytes() != values.numel() * values.element_size():
        values = values.clone()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:
            raise CryobridgeError(
                f"can't be written ({str(error).splitlines()[0]})",
                path=path,
                hint="Check that the disk has space left.",
            ) from error


def _plain(path: Path, name: str, array: ArrayLike) -> Array:
    values = np.asanyarray(array)
    if values.dtype.hasobject:
        raise UsageError("an array of Python objects can't be written", path=path, field=name or None)
    return values
