"""Who asks for the work: the command line, or Python. Records tell how it was called, and texts spell options so."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# From the name of an option, and what it is given or None, to how it is typed.
Show = Callable[[str, "str | None"], str]
_commands: list[tuple[tuple[str, ...], Show]] = []


@contextmanager
def called_as(words: Sequence[str], show: Show) -> Iterator[None]:
    """Let the block be the work of a command.

    Parameters
    ----------
    words
        The command as it was typed, word by word.
    show
        How it spells options.
    """
    _commands.append((tuple(words), show))
    try:
        yield
    finally:
        _commands.pop()


def command() -> str:
    """Return how the work was called, so that a shell takes it: the command, or the call of Python.

    Examples
    --------
    >>> with called_as(["cryobridge", "select", "J4", "--where", "rlnDefocusU > 12000"], str):
    ...     command()
    "cryobridge select J4 --where 'rlnDefocusU > 12000'"
    """
    return shlex.join(_commands[-1][0] if _commands else sys.orig_argv)


def is_called() -> bool:
    """Whether the work is that of a command; one may call others, as `cryobridge demo` does."""
    return bool(_commands)


def spelling() -> Show | None:
    """Return how the command spells options; None where Python asks for the work."""
    return _commands[-1][1] if _commands else None
