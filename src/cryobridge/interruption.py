"""Work that Ctrl-C must not cut off in the middle."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import Event, Thread, current_thread, main_thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def uninterrupted(work: Callable[P, T]) -> Callable[P, T]:
    """Have work done to its end, and an interrupt that comes meanwhile raised afterwards.

    It runs in a thread, which interrupts don't reach.

    Parameters
    ----------
    work
        What takes a second or so: nobody can end it.

    Returns
    -------
    callable
        Takes, returns and raises what ``work`` does.

    Examples
    --------
    >>> uninterrupted(max)(2, 3)
    3
    """

    @wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if current_thread() is not main_thread():
            return work(*args, **kwargs)
        results: list[T] = []
        errors: list[BaseException] = []
        is_done = Event()

        def keep() -> None:
            try:
                results.append(work(*args, **kwargs))
            except BaseException as error:
                errors.append(error)
            is_done.set()

        thread = Thread(target=keep)
        interrupts: list[BaseException] = []
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            return work(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            interrupts.append(interrupt)
            if thread.ident is None:
                keep()
        # Not by `Thread.join`: once interrupted, Python takes a thread that still runs for ended.
        while not is_done.is_set():
            try:
                is_done.wait()
            except KeyboardInterrupt as interrupt:
                interrupts.append(interrupt)
        if interrupts:
            raise interrupts[0]
        if errors:
            raise errors[0]
        return results[0]

    return call
