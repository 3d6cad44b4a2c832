"""What the names in a pickle stand for: our own makers of arrays, numbers and sets, and stand-ins for all else.

Python's unpickler calls what a name stands for, and gives it a state. Nothing here does more with that than check it
and keep it; no class of numpy, and no function of Python, comes into its hands.
"""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np

from cryobridge.formats.npy_header import has_broken_text
from cryobridge.formats.table import Array, is_number_or_text

if TYPE_CHECKING:
    from collections.abc import Callable

_SCALAR_TYPES = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic)
_PLAIN_DTYPE = re.compile(r"([?biufcSU]\d*|O8?|O4)")
_NDARRAY = "numpy.ndarray"
# Each refused name makes a class; no program of the field names so many.
_MOST_NAMES = 1000


@dataclass(frozen=True, eq=False)
class Opaque:
    """Stands for what only running code from elsewhere could make."""

    name: str


class MalformedError(Exception):
    """A pickle asks for what makes no sense; the message says why."""


class Unpickler(pickle.Unpickler):
    """Python's unpickler, whose names lead to this module only.

    Parameters
    ----------
    stream
        What `pickle_scan` has found sound.
    size
        Bytes of the file, which bound the arrays that are made of it.

    Attributes
    ----------
    names, refused
        What the file names, in its order, and what of that is not made here.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        super().__init__(stream, encoding="latin-1")
        self._budget = _Budget(size)
        self.names: dict[str, None] = {}
        self.refused: dict[str, None] = {}
        self._known: dict[str, _Maker | type[StandIn]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a maker of ours for a name, or a stand-in; nothing is imported."""
        full = f"{module}.{name}"
        if full not in self._known:
            self.names[full] = None
            if full in _MAKERS:
                self._known[full] = _Maker(full, _MAKERS[full], self._budget)
            else:
                self.refused[full] = None
                if len(self.refused) > _MOST_NAMES:
                    raise MalformedError(f"it asks for more than {_MOST_NAMES} things")
                self._known[full] = _stand_in(full)
        return self._known[full]

    def persistent_load(self, pid: Any) -> Any:
        """Return a stand-in for an object that the file says is elsewhere."""
        number = f" (number {pid})" if isinstance(pid, str | int) else ""
        name = f"an object outside the file{number}"
        self.refused[name] = None
        return _stand_in(name)()


class _Budget:
    """How many bytes may still be made: the content of an array is in the file once, and handled twice at most."""

    def __init__(self, size: int) -> None:
        self._left = 2 * size

    def spend(self, n_bytes: int) -> None:
        """Take bytes off, before they are made."""
        self._left -= n_bytes
        if self._left < 0:
            raise MalformedError("it claims arrays larger than the file itself")


class StandIn:
    """Takes whatever a pickle does to an object, and does nothing; each name has a subclass of its own."""

    __slots__ = ()
    name = ""

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> StandIn:
        """Make one, whatever the file gives it."""
        return object.__new__(cls)

    def __call__(self, *_arguments: Any) -> StandIn:
        """Return itself."""
        return self

    def _ignore(self, *_content: Any) -> None:
        pass

    __setstate__ = append = extend = add = __setitem__ = _ignore


def _stand_in(name: str) -> type[StandIn]:
    return type("StandIn", (StandIn,), {"__slots__": (), "name": name})


class _Maker:
    """A function of numpy or Python that a pickle may call; it has no attributes that a pickle could set."""

    __slots__ = ("_budget", "_make", "name")

    def __init__(self, name: str, make: Callable[..., Any], budget: _Budget) -> None:
        self.name = name
        self._make = make
        self._budget = budget

    def __call__(self, *arguments: Any) -> Any:
        if any(_is_stand_in(argument) for argument in arguments):
            return _stand_in(self.name)()
        return self._make(self._budget, *arguments)

    def __setstate__(self, _state: Any) -> None:
        raise MalformedError(f"it gives a state to {self.name}")


class Unbuilt:
    """An array or data type that has been begun; the file completes it by giving it a state."""

    __slots__ = ("_build", "_value")

    def __init__(self, build: Callable[..., Any] | None, value: Any = None) -> None:
        self._build = build
        self._value = value

    def __setstate__(self, state: Any) -> None:
        if self._build is None or not isinstance(state, tuple):
            raise MalformedError("it gives a state to what takes none")
        is_known = not any(_is_stand_in(part) for part in state)
        self._value = self._build(*map(_built, state)) if is_known else Opaque(_NDARRAY)
        self._build = None

    @property
    def value(self) -> Any:
        """The array or data type."""
        if self._value is None:
            raise MalformedError("an array is used before it is complete")
        return self._value


class _UnbuiltArray(Unbuilt):
    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


def plain_value(value: Any) -> Any:
    """Return the data that an object of this module stands for, or an `Opaque`."""
    if isinstance(value, _Maker) or _is_stand_in(value):
        return Opaque(value.name)
    return _built(value)


def _is_stand_in(value: Any) -> TypeGuard[StandIn | type[StandIn]]:
    # No other classes come into the unpickler's hands.
    return isinstance(value, StandIn | type)


def _built(value: Any) -> Any:
    return value.value if isinstance(value, Unbuilt) else value


def is_array(value: Any) -> TypeGuard[Array]:
    """Whether a value is a numpy array."""
    return isinstance(value, np.ndarray)


# What may be made


def _begin_array(budget: _Budget, kind: Any, shape: Any = (0,), _code: Any = b"b") -> Unbuilt:
    if not isinstance(kind, _Maker) or kind.name != _NDARRAY or shape != (0,):
        raise MalformedError("an array of an unknown kind")

    def build(*state: Any) -> Array:
        shape, dtype, is_fortran, content = state[-4:]
        return _filled(budget, content, dtype, shape, "F" if is_fortran else "C")

    return _UnbuiltArray(build)


def _begin_dtype(_budget: _Budget, name: Any, _align: Any = False, _copy: Any = True) -> Unbuilt:
    if not isinstance(name, str):
        raise MalformedError("a data type without a name")
    return Unbuilt(lambda *state: _dtype(name, *state))


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


def _filled(budget: _Budget, content: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> Array:
    if not isinstance(dtype, np.dtype) or not _is_shape(shape):
        raise MalformedError("an array without a data type or a shape")
    count = math.prod(shape)
    if dtype.kind == "O":
        return _objects(budget, content, count).reshape(shape, order=order)
    raw = content.encode("latin-1") if isinstance(content, str) else content
    if not dtype.itemsize or not isinstance(raw, bytes | bytearray) or len(raw) != count * dtype.itemsize:
        raise MalformedError(f"the content of an array does not have the size that its shape {shape} claims")
    budget.spend(len(raw))
    array = np.frombuffer(raw, dtype, count)
    if has_broken_text(array):
        raise MalformedError("its text has numbers in it that stand for no character")
    return array.reshape(shape, order=order).copy(order)


def _objects(budget: _Budget, content: Any, count: int) -> Array:
    if not isinstance(content, list) or len(content) != count:
        raise MalformedError(f"an array of {count} objects has another number of them")
    budget.spend(count)
    objects = np.empty(count, object)
    for index, item in enumerate(content):
        value = plain_value(item)
        # No objects within objects: freeing a deep nest of them overflows the interpreter's own stack.
        is_plain = isinstance(value, (*_SCALAR_TYPES, np.dtype, Opaque)) or (is_array(value) and value.dtype != object)
        if not is_plain or isinstance(item, _Maker):
            raise MalformedError("an array of objects holds other than numbers, text and plain arrays")
        objects[index] = value
    return objects


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)


def _from_buffer(budget: _Budget, content: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> Unbuilt:
    # Not the array itself: what is in the hands of the unpickler could be given a state.
    is_fortran = axis_order is None and order == "F"
    array = _filled(budget, content, _built(dtype), shape, "F" if is_fortran else "C")
    return _UnbuiltArray(None, array if axis_order is None else array.transpose(axis_order))


def _scalar(budget: _Budget, dtype: Any, content: Any) -> Any:
    return _filled(budget, content, _built(dtype), (1,), "C")[0]


def _encode(budget: _Budget, text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise MalformedError("bytes in an unknown encoding")
    budget.spend(len(text))
    return text.encode("latin-1")


def _bytes(_budget: _Budget, *arguments: Any) -> bytes:
    if arguments:
        raise MalformedError("bytes are made from something else")
    return b""


def _complex(_budget: _Budget, real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _collected(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Return a maker of sets. Nothing deep is hashed: it would overflow the interpreter's own stack."""

    def make(budget: _Budget, items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise MalformedError("a set that is not made from a list")
        budget.spend(len(items))
        for item in items:
            parts = item if isinstance(item, tuple) else (item,)
            if not all(isinstance(part, (*_SCALAR_TYPES, Unbuilt)) or _is_stand_in(part) for part in parts):
                raise MalformedError("a key that is neither a number nor text")
        return kind(items)

    return make


def _never(_budget: _Budget, *_arguments: Any) -> Any:
    raise MalformedError(f"it calls {_NDARRAY} itself")


# numpy's functions under the names of versions 1 and 2, and Python's under those of 2 and 3.
_MAKERS: dict[str, Callable[..., Any]] = {
    _NDARRAY: _never,
    "numpy.dtype": _begin_dtype,
    "_codecs.encode": _encode,
    **{f"numpy.{core}.multiarray._reconstruct": _begin_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    **{f"{builtins}.bytes": _bytes for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.complex": _complex for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.set": _collected(set) for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.frozenset": _collected(frozenset) for builtins in ("builtins", "__builtin__")},
}
