"""Pickle files of cryoDRGN and RECOVAR, read without running anything that they name.

A pickle is a program for a small stack machine. The machine here knows the instructions that build numbers, text,
containers and numpy arrays, and treats every other instruction as a name to report. It imports nothing, calls
nothing, and takes memory in proportion to the file, whatever the file claims.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import pickletools
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, UnsafeFileError
from cryobridge.formats._atomic import atomic_path, read_error, readable_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PickleKind = Literal[
    "poses", "ctf", "indices", "halfsets", "kmeans", "density", "umap", "trajectory_endpoints", "unknown"
]
Array = NDArray[Any]

CTF_COLUMNS = (
    "box_px",
    "pixel_size_A",
    "defocus_u_A",
    "defocus_v_A",
    "defocus_angle_deg",
    "voltage_kV",
    "spherical_aberration_mm",
    "amplitude_contrast",
    "phase_shift_deg",
)

_DEEPEST = 100
_SHOWN = 5
_SCALAR_TYPES = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic, np.dtype)
_PLAIN_DTYPE = re.compile(r"([?biufcSU]\d*|O8?|O4)")
_ORTHONORMAL_TOLERANCE = 1e-3
_CHECK_FILE = "Check that it is the file that was meant, and copy it again."


@dataclass(frozen=True, eq=False)
class Opaque:
    """Stands for what only running code from elsewhere could make."""

    name: str


class _MalformedError(Exception):
    """The instructions make no sense; the message says why."""


class _Unbuilt:
    """An array or data type that has been begun; its content comes with a later instruction."""

    def __init__(self, type_name: str | None = None) -> None:
        self.type_name = type_name
        self.value: Any = None


_MARK = object()
_COMPUTED = "a name that is computed while it runs"


class _Machine:
    """Executes the instructions of one pickle on plain data; what it may not make becomes an `Opaque`."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        # The bytes of an array stand in the file once, and are handled twice at most. A file that makes more of
        # them repeats itself to fill the memory.
        self._budget = 2 * size
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.names: dict[str, None] = {}
        self.refused: dict[str, None] = {}

    def run(self) -> Any:
        try:
            for opcode, argument, _ in pickletools.genops(self._stream):
                self._step(opcode.name, argument)
            if len(self._stack) != 1:
                raise _MalformedError("it does not end with one object")
            return self._pop()
        except IndexError as error:
            raise _MalformedError("it takes more than there is") from error
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            raise _MalformedError(str(error) or type(error).__name__) from error

    def _step(self, name: str, argument: Any) -> None:
        if name in _PUSHES_ARGUMENT:
            self._stack.append(argument)
        elif name in _PUSHES_NEW:
            self._stack.append(_PUSHES_NEW[name]())
        elif name in _MACHINE_STEPS:
            _MACHINE_STEPS[name](self, argument)
        elif name in _NAMES_CODE:
            self._refuse_instruction(name, argument)
        elif name not in {"PROTO", "FRAME", "STOP"}:
            raise _MalformedError(f"the instruction {name} has no place in a file")

    # Containers

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise _MalformedError("a container is closed that was not opened")
        return self._finished(value)

    def _pop_many(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(self._finished(value))
        return values[::-1]

    @staticmethod
    def _finished(value: Any) -> Any:
        if isinstance(value, _Unbuilt):
            if value.value is None:
                raise _MalformedError("an array is used before it is complete")
            return value.value
        return value

    def _peek(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind | Opaque):
            raise _MalformedError(f"it adds to a {kind.__name__} that is not there")
        return self._stack[-1]

    def _extend(self, items: list[Any]) -> None:
        target = self._peek(list)
        if isinstance(target, list):
            target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._peek(dict)
        if len(items) % 2:
            raise _MalformedError("a dictionary has a key without a value")
        if isinstance(target, dict):
            target.update(_pairs(items))

    def _add(self, items: list[Any]) -> None:
        target = self._peek(set)
        if isinstance(target, set):
            target.update(_key(item) for item in items)

    def _tuple(self, count: int) -> None:
        self._stack.append(tuple(self._pop_many(count)))

    # Memory

    def _put(self, index: int) -> None:
        if not self._stack or self._stack[-1] is _MARK:
            raise _MalformedError("it remembers what is not there")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise _MalformedError(f"it recalls number {index}, which it never remembered")
        value = self._memo[index]
        self._stack.append(value.value if isinstance(value, _Unbuilt) and value.value is not None else value)

    def _spend(self, n_bytes: int) -> None:
        self._budget -= n_bytes
        if self._budget < 0:
            raise _MalformedError("it claims arrays larger than the file itself")

    # Names

    def _global(self, module: Any, name: Any) -> Opaque:
        known = isinstance(module, str) and isinstance(name, str)
        full = f"{module}.{name}" if known else _COMPUTED
        self.names[full] = None
        if full not in _ADMITTED:
            self.refused[full] = None
        return Opaque(full)

    def _refuse_instruction(self, name: str, argument: Any) -> None:
        """Take the operands of an instruction that would make an object by running code, and leave a stand-in."""
        if name == "INST":
            self._pop_to_mark()
            stand_in = self._global(*argument.split(" ", 1))
        elif name in {"NEWOBJ", "NEWOBJ_EX", "OBJ"}:
            operands = self._pop_to_mark() if name == "OBJ" else self._pop_many(2 if name == "NEWOBJ" else 3)
            stand_in = operands[0] if isinstance(operands[0], Opaque) else Opaque("an object of no class")
        elif name == "BINPERSID":
            self._pop()
            stand_in = Opaque("an object outside the file")
        else:
            stand_in = Opaque(f"an object outside the file (number {argument})")
        self.refused[stand_in.name] = None
        self._stack.append(stand_in)

    def _reduce(self) -> None:
        function, arguments = self._pop_many(2)
        if not isinstance(function, Opaque):
            raise _MalformedError("it calls what is no function")
        maker = _MAKERS.get(function.name)
        if maker is None:
            self.refused[function.name] = None
            self._stack.append(function)
        elif not isinstance(arguments, tuple):
            raise _MalformedError(f"{function.name} gets no list of arguments")
        elif any(isinstance(argument, Opaque) and argument.name != "numpy.ndarray" for argument in arguments):
            self._stack.append(function)
        else:
            self._stack.append(maker(self, *arguments))

    def _build(self) -> None:
        state = self._pop()
        target = self._stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, _Unbuilt) or not isinstance(state, tuple):
            raise _MalformedError("it gives a state to what takes none")
        if any(isinstance(part, Opaque) for part in state):
            target.value = Opaque("numpy.ndarray")
        elif target.type_name is None:
            target.value = self._array(*state)
        else:
            target.value = _dtype(target.type_name, *state)
        self._stack[-1] = target.value

    # What may be made

    def _begin_array(self, kind: Any, shape: Any = (0,), _code: Any = b"b") -> Any:
        if not isinstance(kind, Opaque) or kind.name != "numpy.ndarray" or shape != (0,):
            raise _MalformedError("an array of an unknown kind")
        return _Unbuilt()

    def _begin_dtype(self, name: Any, _align: Any = False, _copy: Any = True) -> Any:
        if not isinstance(name, str):
            raise _MalformedError("a data type without a name")
        return _Unbuilt(name)

    def _array(self, *state: Any) -> Array:
        shape, dtype, fortran_order, content = state[-4:]
        return self._filled(content, dtype, shape, "F" if fortran_order else "C")

    def _filled(self, content: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> Array:
        if not isinstance(dtype, np.dtype) or not _is_shape(shape):
            raise _MalformedError("an array without a data type or a shape")
        count = math.prod(shape)
        if dtype.kind == "O":
            return self._objects(content, count).reshape(shape, order=order)
        raw = content.encode("latin-1") if isinstance(content, str) else content
        if not dtype.itemsize or not isinstance(raw, bytes | bytearray) or len(raw) != count * dtype.itemsize:
            raise _MalformedError(f"the content of an array does not have the size that its shape {shape} claims")
        self._spend(len(raw))
        return np.frombuffer(raw, dtype, count).reshape(shape, order=order).copy(order)

    def _objects(self, content: Any, count: int) -> Array:
        if not isinstance(content, list) or len(content) != count:
            raise _MalformedError(f"an array of {count} objects has another number of them")
        self._spend(count)
        objects = np.empty(count, object)
        for index, item in enumerate(content):
            # No objects within objects: freeing a deep nest of them overflows the interpreter's own stack.
            if not (isinstance(item, (*_SCALAR_TYPES, Opaque)) or (_is_array(item) and item.dtype != object)):
                raise _MalformedError("an array of objects holds other than numbers, text and plain arrays")
            objects[index] = item
        return objects

    def _from_buffer(self, content: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> Array:
        if axis_order is None:
            return self._filled(content, dtype, shape, "F" if order == "F" else "C")
        return self._filled(content, dtype, shape, "C").transpose(axis_order)

    def _scalar(self, dtype: Any, content: Any) -> Any:
        return self._filled(content, dtype, (1,), "C")[0]

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _MalformedError("bytes in an unknown encoding")
        self._spend(len(text))
        return text.encode("latin-1")

    def _collection(self, kind: Callable[..., Any], items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise _MalformedError("a set that is not made from a list")
        self._spend(len(items))
        return kind(_key(item) for item in items)

    def _bytes(self, *arguments: Any) -> bytes:
        if arguments:
            raise _MalformedError("bytes are made from something else")
        return b""

    def _complex(self, real: Any, imaginary: Any) -> complex:
        return complex(float(real), float(imaginary))


def _key(value: Any) -> Any:
    """Admit what can be hashed without descending far: deep tuples would overflow the interpreter's own stack."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, (*_SCALAR_TYPES, Opaque)) for part in parts):
        raise _MalformedError("a key that is neither a number nor text")
    return value


def _pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    return ((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


def _is_array(value: Any) -> TypeGuard[Array]:
    return isinstance(value, np.ndarray)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)


def _dtype(name: str, *state: Any) -> np.dtype[Any]:
    byte_order, sub_array, names, fields = state[1:5]
    if not _PLAIN_DTYPE.fullmatch(name) or (sub_array, names, fields) != (None, None, None):
        raise _MalformedError(f"an array of the type {name!r} is neither numbers nor text")
    if name[0] == "O":
        return np.dtype(object)
    if byte_order not in ("<", ">", "|"):
        raise _MalformedError("a data type of an unknown byte order")
    return np.dtype(name).newbyteorder(byte_order)


_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_BYTES = {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_TEXT = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_PUSHES_ARGUMENT = _NUMBERS | _BYTES | _TEXT
_PUSHES_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_NAMES_CODE = frozenset({"NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"})
_MACHINE_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "TUPLE": lambda m, _: m._stack.append(tuple(m._pop_to_mark())),
    "LIST": lambda m, _: m._stack.append(m._pop_to_mark()),
    "DICT": lambda m, _: m._stack.append(dict(_pairs(m._pop_to_mark()))),
    "FROZENSET": lambda m, _: m._stack.append(frozenset(_key(item) for item in m._pop_to_mark())),
    "APPEND": lambda m, _: m._extend(m._pop_many(1)),
    "APPENDS": lambda m, _: m._extend(m._pop_to_mark()),
    "SETITEM": lambda m, _: m._update(m._pop_many(2)),
    "SETITEMS": lambda m, _: m._update(m._pop_to_mark()),
    "ADDITEMS": lambda m, _: m._add(m._pop_to_mark()),
    "POP": lambda m, _: m._stack.pop(),
    "POP_MARK": lambda m, _: m._pop_to_mark(),
    "DUP": lambda m, _: m._stack.append(m._stack[-1]),
    "PUT": lambda m, index: m._put(index),
    "BINPUT": lambda m, index: m._put(index),
    "LONG_BINPUT": lambda m, index: m._put(index),
    "MEMOIZE": lambda m, _: m._put(len(m._memo)),
    "GET": lambda m, index: m._get(index),
    "BINGET": lambda m, index: m._get(index),
    "LONG_BINGET": lambda m, index: m._get(index),
    "GLOBAL": lambda m, names: m._stack.append(m._global(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda m, _: m._stack.append(m._global(*m._pop_many(2))),
    "REDUCE": lambda m, _: m._reduce(),
    "BUILD": lambda m, _: m._build(),
}
# numpy's functions under the names of versions 1 and 2, and Python's under those of 2 and 3.
_MAKERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _Machine._begin_dtype,
    "_codecs.encode": _Machine._encode,
    **{f"numpy.{core}.multiarray._reconstruct": _Machine._begin_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Machine._scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Machine._from_buffer for core in ("core", "_core")},
    **{f"{builtins}.bytes": _Machine._bytes for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.complex": _Machine._complex for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.set": lambda m, *items: m._collection(set, *items) for builtins in ("builtins", "__builtin__")},
    **{
        f"{builtins}.frozenset": lambda m, *items: m._collection(frozenset, *items)
        for builtins in ("builtins", "__builtin__")
    },
}
_ADMITTED = frozenset({*_MAKERS, "numpy.ndarray"})


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle file that holds nothing but numbers, text, containers of them and numpy arrays.

    Raises
    ------
    UnsafeFileError
        If it names anything else. The error lists the names; none of them was imported or called.
    FormatError
        If the file can't be read or is not a pickle, claims more data than it has, or is nested more than 100 deep.
    """
    path = Path(path)
    return _admitted(*_run_file(path), path, None)


def load_pickle_bytes(data: bytes, path: Path, field: str) -> Any:
    """Read a pickle that is part of the file ``path``, under the same rules as `load_pickle`."""
    return _admitted(*_run(io.BytesIO(data), len(data), path, field), path, field)


def scan_pickle(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """List what a pickle file names, as ``module.name``, in the order of the file; nothing is imported.

    Raises
    ------
    UnsafeFileError
        If a name is not in the file but would be computed while it runs.
    FormatError
        If the file can't be read or is not a pickle.
    """
    path = Path(path)
    _, machine = _run_file(path)
    names = machine.names | machine.refused
    if _COMPUTED in names:
        raise _unsafe(machine, path, None)
    return tuple(names)


def scan_pickles_in(data: bytes) -> tuple[str, ...]:
    """List what the pickles in ``data``, which follow one another from its start, name; stop where there is none."""
    stream, names = io.BytesIO(data), dict[str, None]()
    while stream.tell() < len(data):
        machine = _Machine(stream, len(data))
        try:
            machine.run()
        except _MalformedError:
            return tuple(names | machine.names)
        names |= machine.names
    return tuple(names)


def peek_pickle(path: str | os.PathLike[str]) -> tuple[Any, tuple[str, ...]]:
    """Read what can be read of a pickle file that `load_pickle` refuses.

    Returns
    -------
    value
        The content, with an `Opaque` in the place of everything that only running code could make.
    refused
        The names of that code.

    Raises
    ------
    FormatError
        As for `load_pickle`.
    """
    path = Path(path)
    value, machine = _run_file(path)
    _check_content(value, path, None, admit_opaque=True)
    return value, tuple(machine.refused)


def _run_file(path: Path) -> tuple[Any, _Machine]:
    size = readable_size(path)
    try:
        # A map, unlike a file, gives no more than there is when an instruction claims a string of a terabyte.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _run(cast("IO[bytes]", mapped), size, path, None)
    except OSError as error:
        raise read_error(path, error) from error


def _run(stream: IO[bytes], size: int, path: Path, field: str | None) -> tuple[Any, _Machine]:
    machine = _Machine(stream, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of odd escapes in the text of old files
            return machine.run(), machine
    except _MalformedError as error:
        if machine.refused:
            raise _unsafe(machine, path, field) from error
        raise FormatError(
            f"not a pickle file, or a damaged one: {error}",
            path=path,
            field=field,
            hint=_CHECK_FILE,
        ) from error


def _admitted(value: Any, machine: _Machine, path: Path, field: str | None) -> Any:
    if machine.refused:
        raise _unsafe(machine, path, field)
    _check_content(value, path, field, admit_opaque=False)
    return value


def _unsafe(machine: _Machine, path: Path, field: str | None) -> UnsafeFileError:
    shown = ", ".join(list(machine.refused)[:_SHOWN]) + (" …" if len(machine.refused) > _SHOWN else "")
    return UnsafeFileError(
        f"reading it would run code: it asks for {shown}. Nothing was run",
        path=path,
        field=field,
        count=len(machine.refused),
        hint="Only numbers, text and numpy arrays are read from pickles; have the data saved as those.",
    )


def _check_content(value: Any, path: Path, field: str | None, *, admit_opaque: bool) -> None:
    """Refuse what is nested too deep for those who walk through it, and names that were left uncalled."""
    level, seen = [value], set[int]()
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict | list | tuple | set | frozenset):
                if id(item) not in seen:
                    seen.add(id(item))
                    inner.extend(item.values() if isinstance(item, dict) else item)
            elif isinstance(item, Opaque) and not admit_opaque:
                raise FormatError(
                    f"it holds {item.name} itself, which is no data", path=path, field=field, hint=_CHECK_FILE
                )
        level = inner
        if not level:
            return
    raise FormatError(
        f"its content is nested more than {_DEEPEST} deep",
        path=path,
        field=field,
        hint="No program of the field writes such a file; don't trust it.",
    )


def classify_pickle(source: object) -> PickleKind:
    """Tell what a pickle of cryoDRGN or RECOVAR is, by its content.

    Parameters
    ----------
    source
        What `load_pickle` returned, or the path of the file.

    Returns
    -------
    str
        "unknown" for anything that is not unmistakable: an (N, 2) table within ±1, say, may be an embedding or
        the shifts of a pair of pose files.
    """
    value = load_pickle(source) if isinstance(source, os.PathLike) else source
    if isinstance(value, dict):
        for kind, keys in _DICTIONARIES.items():
            if keys <= value.keys():
                return kind
        return "unknown"
    if isinstance(value, list | tuple) and len(value) == 2 and all(_is_array(part) for part in value):
        first, second = value
        if _is_table(first, 3, 3) and _is_table(second, 2):
            return "poses"
        return "halfsets" if _is_index_list(first) and _is_index_list(second) else "unknown"
    if not _is_array(value):
        return "unknown"
    if _is_table(value, 3, 3):
        return "poses"
    if _is_table(value, len(CTF_COLUMNS)) and not _ctf_fault(value.astype(np.float64))[0]:
        return "ctf"
    if _is_table(value, 2) and bool((np.abs(value) > 1).any()):
        return "umap"
    return "indices" if _is_index_list(value) else "unknown"


_DICTIONARIES: dict[PickleKind, set[str]] = {
    "kmeans": {"centers", "labels"},
    "density": {"density", "latent_space_bounds"},
    "trajectory_endpoints": {"centers", "pairs"},
}


def _is_table(value: Array, *row: int) -> bool:
    return value.dtype.kind == "f" and value.ndim == 1 + len(row) and value.shape[1:] == row


def _is_index_list(value: Array) -> bool:
    return value.dtype.kind in "iu" and value.ndim == 1 and not bool((value < 0).any())


@dataclass(frozen=True, eq=False)
class PickledPoses:
    """Content of a poses.pkl.

    Attributes
    ----------
    rotations
        (N, 3, 3) float64: RELION's A matrices, reference to view.
    shifts_box
        (N, 2) float64: shifts along x and y in fractions of the box, with RELION's sign; None if there are none.
    """

    rotations: NDArray[np.float64]
    shifts_box: NDArray[np.float64] | None


def read_poses(path: str | os.PathLike[str]) -> PickledPoses:
    """Read a poses.pkl: a pair of rotations and shifts, or rotations alone.

    Raises
    ------
    FormatError
        If the shapes are others, a matrix is no rotation to 1e-3, or a shift is larger than the box.
    """
    value = load_pickle(path)
    pair = value if isinstance(value, list | tuple) else (value,)
    if not 1 <= len(pair) <= 2 or not all(_is_array(part) and part.dtype.kind in "fiu" for part in pair):
        raise _not_a(path, "poses", "a pair of arrays (rotations, shifts), or an array of rotations", value)
    rotations = np.asarray(pair[0], np.float64)
    shifts = np.asarray(pair[1], np.float64) if len(pair) == 2 else None
    _check_poses(Path(path), rotations, shifts)
    return PickledPoses(rotations, shifts)


def write_poses(path: str | os.PathLike[str], rotations: Array, shifts_box: Array | None) -> None:
    """Write a poses.pkl as cryoDRGN and RECOVAR read it: float32; rotations alone when ``shifts_box`` is None.

    See `PickledPoses` for the meaning, and `read_poses` for what is refused.
    """
    path = Path(path)
    _check_poses(path, rotations, shifts_box)
    matrices = np.asarray(rotations, np.float32)
    _write_pickle(path, matrices if shifts_box is None else (matrices, np.asarray(shifts_box, np.float32)))


def _check_poses(path: Path, rotations: Array, shifts: Array | None) -> None:
    n = len(rotations)
    if rotations.shape != (n, 3, 3) or (shifts is not None and shifts.shape != (n, 2)):
        shapes = " and ".join(str(part.shape) for part in (rotations, shifts) if part is not None)
        raise FormatError(
            f"poses are arrays of (N, 3, 3) and (N, 2), not of {shapes}",
            path=path,
            hint="Check that this is a poses.pkl of single particles.",
        )
    with np.errstate(all="ignore"):
        errors = np.abs(rotations @ np.swapaxes(rotations, 1, 2) - np.eye(3)).max(axis=(1, 2), initial=0)
        # Written as what must hold, so that NaN fails it.
        rotates = (errors <= _ORTHONORMAL_TOLERANCE) & (np.linalg.det(rotations) > 0)
    _refuse_rows(path, ~rotates, "the matrix is no rotation", "rotations", "Check that this is a poses.pkl.")
    if shifts is not None:
        inside = (np.abs(shifts) <= 1).all(axis=1)
        _refuse_rows(
            path,
            np.asarray(~inside),
            "the shift is larger than the box; shifts are in fractions of the box",
            "shifts",
            "If they are in pixels (files of old versions are), divide them by the box size.",
        )


@dataclass(frozen=True, eq=False)
class CtfTable:
    """Content of a ctf.pkl.

    Attributes
    ----------
    values
        (N, 9) float64; the columns are `CTF_COLUMNS`. Box and pixel size are those of the original stack.
    problems
        What cryoDRGN or RECOVAR would object to, in words.
    """

    values: NDArray[np.float64]
    problems: tuple[str, ...] = ()


def read_ctf(path: str | os.PathLike[str]) -> CtfTable:
    """Read a ctf.pkl.

    Raises
    ------
    FormatError
        If it is no table of nine columns, or a number in it is impossible.
    """
    value = load_pickle(path)
    if not _is_array(value) or value.dtype.kind not in "fiu" or value.ndim != 2:
        raise _not_a(path, "CTF parameters", "a table of (N, 9)", value)
    table = np.asarray(value, np.float64)
    _check_ctf(Path(path), table)
    return CtfTable(table, tuple(_ctf_problems(table)))


def write_ctf(path: str | os.PathLike[str], values: Array) -> None:
    """Write a ctf.pkl as cryoDRGN and RECOVAR read it: (N, 9) float32 with the columns of `CTF_COLUMNS`."""
    path = Path(path)
    _check_ctf(path, np.asarray(values, np.float64))
    _write_pickle(path, np.asarray(values, np.float32))


def _check_ctf(path: Path, table: NDArray[np.float64]) -> None:
    if table.ndim != 2 or table.shape[1] != len(CTF_COLUMNS):
        old = "; eight were written by old versions of cryoDRGN" if table.shape[1:] == (8,) else ""
        raise FormatError(
            f"a table of shape {table.shape}, where (N, 9) is needed: {', '.join(CTF_COLUMNS)}{old}",
            path=path,
            hint="Write the CTF parameters again from the .cs or .star file.",
        )
    fault, rows = _ctf_fault(table)
    if fault:
        _refuse_rows(path, rows, fault, None, "Check that this is a ctf.pkl and its columns are in order.")


def _ctf_fault(table: NDArray[np.float64]) -> tuple[str, NDArray[np.bool_]]:
    """Return the first impossibility in a CTF table and the rows that have it; an empty text where there is none."""
    box, pixel_size, voltage = table[:, 0], table[:, 1], table[:, 5]
    for fault, rows in (
        ("a CTF parameter is not a finite number", ~np.isfinite(table).all(axis=1)),
        ("the box size is not a positive whole number", (box < 1) | (box != np.round(box))),
        ("the pixel size is not positive", pixel_size <= 0),
        ("the voltage is not between 10 and 2000 kV", (voltage < 10) | (voltage > 2000)),
    ):
        if np.any(rows):
            return fault, np.asarray(rows)
    return "", np.zeros(len(table), np.bool_)


def _ctf_problems(table: NDArray[np.float64]) -> Iterable[str]:
    for column, what in ((0, "box sizes"), (1, "pixel sizes")):
        if len(values := np.unique(table[:, column])) > 1:
            yield f"{len(values)} different {what}; cryoDRGN and RECOVAR take the first row's for all"
    if (table[:, 0] % 2).any():
        yield "an odd box size, which cryoDRGN refuses"


def read_indices(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    """Read an ind.pkl: rows of the particle file, counted from 0, (N,).

    Raises
    ------
    FormatError
        If it is no list of whole numbers, or one of them is negative.
    """
    return _indices(Path(path), load_pickle(path), "indices")


def write_indices(path: str | os.PathLike[str], indices: Array) -> None:
    """Write an ind.pkl: rows of the particle file, counted from 0, (N,) int64."""
    path = Path(path)
    _write_pickle(path, _indices(path, indices, "indices"))


def _indices(path: Path, value: Any, field: str) -> NDArray[np.int64]:
    if isinstance(value, list) and all(type(item) is int for item in value):
        value = np.array(value, np.int64)
    if not _is_array(value) or value.ndim != 1 or value.dtype.kind not in "iu":
        raise _not_a(path, field, "a one-dimensional array of whole numbers", value)
    _refuse_rows(path, np.asarray(value < 0), "a row number is negative", field, "Rows are counted from 0.")
    return value.astype(np.int64)


@dataclass(frozen=True, eq=False)
class KmeansResult:
    """Content of a kmeans_result.pkl: centers (K, zdim) and, for each particle, the number of its center, (N,)."""

    centers: NDArray[np.float64]
    labels: NDArray[np.int64]


def read_kmeans(path: str | os.PathLike[str]) -> KmeansResult:
    """Read a kmeans_result.pkl; a label without a center is an error."""
    value = load_pickle(path)
    if classify_pickle(value) != "kmeans":
        raise _not_a(path, "a k-means result", "a dictionary of centers and labels", value)
    path = Path(path)
    centers = _numbers(path, value["centers"], "centers", 2)
    labels = _indices(path, value["labels"], "labels")
    _refuse_rows(path, labels >= len(centers), f"there are only {len(centers)} centers", "labels", _WHOLE_RESULT)
    return KmeansResult(centers, labels)


@dataclass(frozen=True, eq=False)
class LatentDensity:
    """Content of a deconv_density_*.pkl.

    Attributes
    ----------
    density
        The density on a grid, one axis for each latent dimension.
    bounds
        (dim, 2): the ends of each axis in latent coordinates.
    alpha
        The regularisation that it was made with; None where it isn't told.
    """

    density: NDArray[np.float64]
    bounds: NDArray[np.float64]
    alpha: float | None


def read_density(path: str | os.PathLike[str]) -> LatentDensity:
    """Read a density in latent space; a grid and bounds of different dimension are an error."""
    value = load_pickle(path)
    if classify_pickle(value) != "density":
        raise _not_a(path, "a density", "a dictionary of density and latent_space_bounds", value)
    path = Path(path)
    density = _numbers(path, value["density"], "density", None)
    bounds = _numbers(path, value["latent_space_bounds"], "latent_space_bounds", 2)
    if bounds.shape != (density.ndim, 2):
        raise FormatError(
            f"a density of {density.ndim} dimensions has bounds of shape {bounds.shape}", path=path, hint=_WHOLE_RESULT
        )
    alpha = value.get("alpha")
    return LatentDensity(density, bounds, None if alpha is None else float(_numbers(path, alpha, "alpha", 0)))


def read_halfsets(path: str | os.PathLike[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read a halfsets.pkl: the rows of each half, counted from 0; a row in both halves is an error."""
    value = load_pickle(path)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _not_a(path, "half-sets", "two arrays of row numbers", value)
    path = Path(path)
    first, second = (_indices(path, half, f"half {number}") for number, half in enumerate(value, 1))
    both = np.intersect1d(first, second)
    if both.size:
        raise FormatError(
            "rows are in both halves",
            path=path,
            rows=tuple(both[:_SHOWN].tolist()),
            count=both.size,
            hint="Halves that share particles give too good a resolution; make them again.",
        )
    return first, second


_WHOLE_RESULT = "Check that the file is of this job and complete."


def _numbers(path: Path, value: Any, field: str, ndim: int | None) -> NDArray[np.float64]:
    array = np.asarray(value) if _is_array(value) or isinstance(value, int | float | np.generic) else None
    if array is None or array.dtype.kind not in "fiu" or ndim not in {None, array.ndim}:
        raise _not_a(path, field, f"an array of {'' if ndim is None else f'{ndim} dimensions of '}numbers", value)
    return array.astype(np.float64)


def _not_a(path: str | os.PathLike[str], what: str, shape: str, value: Any) -> FormatError:
    if _is_array(value):
        found = f"an array of shape {value.shape} and type {value.dtype}"
    elif isinstance(value, dict):
        found = f"a dictionary of {', '.join(str(key)[:20] for key in list(value)[:_SHOWN])}"
    else:
        found = f"a {type(value).__name__}"
    return FormatError(
        f"{what}: expected {shape}, found {found}",
        path=path,
        hint="`cryobridge inspect` tells what a file is.",
    )


def _refuse_rows(path: Path, wrong: NDArray[np.bool_], fault: str, field: str | None, hint: str) -> None:
    rows = np.flatnonzero(wrong)
    if rows.size:
        shown = tuple(rows[:_SHOWN].tolist())
        raise FormatError(fault, path=path, field=field, rows=shown, count=rows.size, hint=hint)


def _write_pickle(path: Path, value: Array | tuple[Array, ...]) -> None:
    """Write arrays so that programs on NumPy 1 and 2 read them.

    `pickle.dump` under NumPy 2 names ``numpy._core``, which releases before 1.26 don't have; both know the names
    that are written here, and keep them for old files.
    """
    arrays = value if isinstance(value, tuple) else (value,)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b"\x80\x04(" if isinstance(value, tuple) else b"\x80\x04")
        for array in arrays:
            content = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            dtype_state = (3, "<", None, None, None, -1, -1, 0)
            file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _pieces((0,), b"b") + b"\x87R(")
            file.write(_pieces(1, array.shape) + b"cnumpy\ndtype\n" + _pieces(content.dtype.str[1:], False, True))
            file.write(b"\x87R" + _pieces(dtype_state) + b"b" + _pieces(False))
            file.write(b"\x8e" + content.nbytes.to_bytes(8, "little"))
            file.write(content.data)
            file.write(b"tb")
        file.write(b"t." if isinstance(value, tuple) else b".")


def _pieces(*values: object) -> bytes:
    """Return the instructions that build each value, without those that begin and end a file."""
    return b"".join(pickletools.optimize(pickle.dumps(value, protocol=3))[2:-1] for value in values)
