"""Pickle files of cryoDRGN and RECOVAR, read without running anything that they name.

A pickle is a program for a small stack machine. The machine here knows the instructions that build numbers, text,
containers and numpy arrays, and treats every other instruction as a name to report. It imports nothing, calls
nothing, and takes memory in proportion to the file, whatever the file claims.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.npy_header import has_broken_text
from cryobridge.formats.table import is_number_or_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


Array = NDArray[Any]
_SCALAR_TYPES = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic, np.dtype)
_PLAIN_DTYPE = re.compile(r"([?biufcSU]\d*|O8?|O4)")


@dataclass(frozen=True, eq=False)
class Opaque:
    """Stands for what only running code from elsewhere could make."""

    name: str


class MalformedError(Exception):
    """The instructions make no sense; the message says why."""


class _Unbuilt:
    """An array or data type that has been begun; its content comes with a later instruction."""

    def __init__(self, type_name: str | None = None) -> None:
        self.type_name = type_name
        self.value: Any = None


_MARK = object()
COMPUTED = "a name that is computed while it runs"


class Machine:
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
        """Run to the end and return what is on top of the stack."""
        try:
            for opcode, argument, _ in pickletools.genops(self._stream):
                self._step(opcode.name, argument)
            if len(self._stack) != 1:
                raise MalformedError("it does not end with one object")
            return self._pop()
        except IndexError as error:
            raise MalformedError("it takes more than there is") from error
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            raise MalformedError(str(error) or type(error).__name__) from error

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
            raise MalformedError(f"the instruction {name} has no place in a file")

    # Containers

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise MalformedError("a container is closed that was not opened")
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
                raise MalformedError("an array is used before it is complete")
            return value.value
        return value

    def _peek(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind | Opaque):
            raise MalformedError(f"it adds to a {kind.__name__} that is not there")
        return self._stack[-1]

    def _extend(self, items: list[Any]) -> None:
        target = self._peek(list)
        if isinstance(target, list):
            target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._peek(dict)
        if len(items) % 2:
            raise MalformedError("a dictionary has a key without a value")
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
            raise MalformedError("it remembers what is not there")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise MalformedError(f"it recalls number {index}, which it never remembered")
        value = self._memo[index]
        self._stack.append(value.value if isinstance(value, _Unbuilt) and value.value is not None else value)

    def _spend(self, n_bytes: int) -> None:
        self._budget -= n_bytes
        if self._budget < 0:
            raise MalformedError("it claims arrays larger than the file itself")

    # Names

    def _global(self, module: Any, name: Any) -> Opaque:
        known = isinstance(module, str) and isinstance(name, str)
        full = f"{module}.{name}" if known else COMPUTED
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
            raise MalformedError("it calls what is no function")
        maker = _MAKERS.get(function.name)
        if maker is None:
            self.refused[function.name] = None
            self._stack.append(function)
        elif not isinstance(arguments, tuple):
            raise MalformedError(f"{function.name} gets no list of arguments")
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
            raise MalformedError("it gives a state to what takes none")
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
            raise MalformedError("an array of an unknown kind")
        return _Unbuilt()

    def _begin_dtype(self, name: Any, _align: Any = False, _copy: Any = True) -> Any:
        if not isinstance(name, str):
            raise MalformedError("a data type without a name")
        return _Unbuilt(name)

    def _array(self, *state: Any) -> Array:
        shape, dtype, fortran_order, content = state[-4:]
        return self._filled(content, dtype, shape, "F" if fortran_order else "C")

    def _filled(self, content: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> Array:
        if not isinstance(dtype, np.dtype) or not _is_shape(shape):
            raise MalformedError("an array without a data type or a shape")
        count = math.prod(shape)
        if dtype.kind == "O":
            return self._objects(content, count).reshape(shape, order=order)
        raw = content.encode("latin-1") if isinstance(content, str) else content
        if not dtype.itemsize or not isinstance(raw, bytes | bytearray) or len(raw) != count * dtype.itemsize:
            raise MalformedError(f"the content of an array does not have the size that its shape {shape} claims")
        self._spend(len(raw))
        array = np.frombuffer(raw, dtype, count)
        if has_broken_text(array):
            raise MalformedError("its text has numbers in it that stand for no character")
        return array.reshape(shape, order=order).copy(order)

    def _objects(self, content: Any, count: int) -> Array:
        if not isinstance(content, list) or len(content) != count:
            raise MalformedError(f"an array of {count} objects has another number of them")
        self._spend(count)
        objects = np.empty(count, object)
        for index, item in enumerate(content):
            # No objects within objects: freeing a deep nest of them overflows the interpreter's own stack.
            if not (isinstance(item, (*_SCALAR_TYPES, Opaque)) or (is_array(item) and item.dtype != object)):
                raise MalformedError("an array of objects holds other than numbers, text and plain arrays")
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
            raise MalformedError("bytes in an unknown encoding")
        self._spend(len(text))
        return text.encode("latin-1")

    def _collection(self, kind: Callable[..., Any], items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise MalformedError("a set that is not made from a list")
        self._spend(len(items))
        return kind(_key(item) for item in items)

    def _bytes(self, *arguments: Any) -> bytes:
        if arguments:
            raise MalformedError("bytes are made from something else")
        return b""

    def _complex(self, real: Any, imaginary: Any) -> complex:
        return complex(float(real), float(imaginary))


def _key(value: Any) -> Any:
    """Admit what can be hashed without descending far: deep tuples would overflow the interpreter's own stack."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, (*_SCALAR_TYPES, Opaque)) for part in parts):
        raise MalformedError("a key that is neither a number nor text")
    return value


def _pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    return ((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


def is_array(value: Any) -> TypeGuard[Array]:
    """Whether a value is a numpy array."""
    return isinstance(value, np.ndarray)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)


def _dtype(name: str, *state: Any) -> np.dtype[Any]:
    byte_order, sub_array, names, fields = state[1:5]
    if not _PLAIN_DTYPE.fullmatch(name) or (sub_array, names, fields) != (None, None, None):
        raise MalformedError(f"an array of the type {name!r} is neither numbers nor text")
    if name[0] == "O":
        return np.dtype(object)
    if byte_order not in ("<", ">", "|"):
        raise MalformedError("a data type of an unknown byte order")
    dtype = np.dtype(name)
    if not is_number_or_text(dtype) and dtype.itemsize:
        raise MalformedError(f"an array of the type {name!r}, which only some machines have")
    return dtype.newbyteorder(byte_order)


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
_MACHINE_STEPS: dict[str, Callable[[Machine, Any], Any]] = {
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
    "numpy.dtype": Machine._begin_dtype,
    "_codecs.encode": Machine._encode,
    **{f"numpy.{core}.multiarray._reconstruct": Machine._begin_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": Machine._scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": Machine._from_buffer for core in ("core", "_core")},
    **{f"{builtins}.bytes": Machine._bytes for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.complex": Machine._complex for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.set": lambda m, *items: m._collection(set, *items) for builtins in ("builtins", "__builtin__")},
    **{
        f"{builtins}.frozenset": lambda m, *items: m._collection(frozenset, *items)
        for builtins in ("builtins", "__builtin__")
    },
}
_ADMITTED = frozenset({*_MAKERS, "numpy.ndarray"})
