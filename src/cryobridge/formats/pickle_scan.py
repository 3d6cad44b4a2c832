"""What the instructions of a pickle do to its stack, followed without running them.

Python's own unpickler hashes the keys of dictionaries and the members of sets as they come: a deep tuple among them
overflows the interpreter's stack, and a tuple of tuples that repeat takes for ever. It also reserves space for as many
remembered objects as a file claims. So every instruction is followed first, in numbers instead of objects.
"""

from __future__ import annotations

import pickletools
from typing import IO, Any, NamedTuple, cast

# How deep a hashed object may be: 0 for numbers and text, 1 for a tuple of them.
_DEEPEST_KEY = 1
_LOWEST_MEMORY = 256
_CONTAINERS = frozenset(
    {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "LIST", "DICT"}
    | {"FROZENSET"}
)
_ADDS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"})
_HASHES = {
    "SETITEM": slice(0, None, 2),
    "SETITEMS": slice(0, None, 2),
    "DICT": slice(0, None, 2),
    "ADDITEMS": slice(None),
    "FROZENSET": slice(None),
}
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_OUTSIDE = frozenset({"EXT1", "EXT2", "EXT4"})
_PUSHES = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.proto < 5 and not opcode.stack_before and len(opcode.stack_after) == 1
) - (_CONTAINERS | _GETS | _OUTSIDE | {"MARK"})
_NEVER_IN_FILES = frozenset({"NEXT_BUFFER", "READONLY_BUFFER"})


class Scan(NamedTuple):
    """What is known of a pickle before it is read.

    Parameters
    ----------
    end
        Where the pickle ends in the stream, or where its fault is.
    fault
        Why the rest may not; empty where the pickle is sound.
    refused
        What it asks for by a number instead of a name.
    """

    end: int
    fault: str
    refused: tuple[str, ...]


class _FaultError(Exception):
    """The instructions make no sense; the message says why."""


def scan_instructions(stream: IO[bytes], size: int) -> Scan:
    """Follow one pickle from where the stream stands; nothing is made but numbers that stand for its objects.

    Parameters
    ----------
    stream
        A file, or what reads like one.
    size
        Bytes in it, which bound how many objects a pickle remembers.
    """
    follower = _Follower(size)
    position = stream.tell()
    try:
        for opcode, argument, place in pickletools.genops(stream):
            position = cast("int", place)  # None for streams that don't know it
            follower.step(opcode, argument)
    except _FaultError as fault:
        return Scan(position, str(fault), follower.refused)
    except (ValueError, OverflowError, MemoryError) as error:  # of pickletools, on what is no instruction
        return Scan(_end_of_instruction(stream, position), str(error) or type(error).__name__, follower.refused)
    return Scan(stream.tell(), "", follower.refused)


def _end_of_instruction(stream: IO[bytes], position: int) -> int:
    """Return where the instruction at a position ends; the position itself where it is none."""
    stream.seek(position)
    try:
        next(pickletools.genops(stream))
    except (ValueError, OverflowError, MemoryError):
        return position
    return stream.tell()


class _Follower:
    """The stack of a pickle; in the place of each object is how deep its containers are."""

    def __init__(self, size: int) -> None:
        self._stack: list[int] = []
        self._marks: list[int] = []
        self._memory: dict[int, int] = {}
        self._most_remembered = max(_LOWEST_MEMORY, size)
        self.refused: tuple[str, ...] = ()

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in _PUSHES:
            self._stack.append(0)
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name == "POP":
            self._pop()
        elif name == "DUP":
            self._stack += self._take(1) * 2
        elif name in _PUTS:
            self._remember(argument)
        elif name == "MEMOIZE":
            self._remember(len(self._memory))
        elif name in _GETS:
            self._stack.append(self._recalled(argument))
        elif name in _NEVER_IN_FILES:
            raise _FaultError(f"the instruction {name} has no place in a file")
        elif name in _OUTSIDE:
            self.refused = (f"an object outside the file (number {argument})",)
            raise _FaultError("it asks for an object that is registered elsewhere")
        else:
            self._replace(opcode)

    def _pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._take(1)

    def _take(self, count: int) -> list[int]:
        """Take the topmost objects, none from below the last mark."""
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise _FaultError("it takes more than there is")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _replace(self, opcode: pickletools.OpcodeInfo) -> None:
        """Take what an instruction takes from the stack, and leave what it leaves."""
        name, before = opcode.name, opcode.stack_before
        items: list[int] = []
        n_taken = len(before)
        if pickletools.markobject in before:
            n_taken = before.index(pickletools.markobject)
            if not self._marks:
                raise _FaultError("a container is closed that was not opened")
            start = self._marks.pop()
            items = self._stack[start:]
            del self._stack[start:]
        taken = self._take(n_taken)
        target = taken.pop(0) if name in _ADDS else 0
        items = taken + items
        if name in _HASHES and max(items[_HASHES[name]], default=0) > _DEEPEST_KEY:
            raise _FaultError("a key that is neither a number nor text")
        if name in _CONTAINERS:
            self._stack.append(1 + max(items, default=0))
        elif name in _ADDS:
            self._stack.append(max(target, 1 + max(items, default=0)))
        elif name == "STOP":
            if self._stack or self._marks:
                raise _FaultError("it does not end with one object")
        else:
            self._stack += [0] * len(opcode.stack_after)

    def _remember(self, index: int) -> None:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise _FaultError("it remembers what is not there")
        if not 0 <= index <= self._most_remembered:
            raise _FaultError(f"it remembers number {index}, more than the file has bytes")
        self._memory[index] = self._stack[-1]

    def _recalled(self, index: int) -> int:
        if index not in self._memory:
            raise _FaultError(f"it recalls number {index}, which it never remembered")
        return self._memory[index]
