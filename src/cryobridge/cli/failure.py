"""What a run says of an error that is not ours."""

from __future__ import annotations

import os

from cryobridge.errors import CryobridgeError


def _has_memory_limit() -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def explained(error: Exception) -> CryobridgeError:
    """Return the error with what to do next."""
    if isinstance(error, CryobridgeError):
        return error
    # torch has errors of its own for this, on the GPU and on the CPU.
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error):
        return CryobridgeError(f"not enough memory ({error})", hint="Ask for less at a time, or for a smaller grid.")
    if "start new thread" in str(error):
        return CryobridgeError(
            "the system lets no more threads begin",
            hint="Raise the limit with `ulimit -u`, end other programs, or set OMP_NUM_THREADS=1.",
        )
    # What Python says of modules that it could not load for want of memory.
    if isinstance(error, ImportError | SyntaxError) and _has_memory_limit():
        return CryobridgeError(
            f"not enough memory to load a library ({error})",
            hint="Raise the limit on address space with `ulimit -v`, or ask the batch system for more memory.",
        )
    # A file or disk that failed in the middle of the work, wherever that was noticed.
    if isinstance(error, OSError) and error.errno is not None:
        return CryobridgeError(
            f"the system reports: {error.strerror}",
            path=None if error.filename is None else os.fsdecode(error.filename),
            hint="Check that the file or folder is still there, that you may use it, and that the disk has space left.",
        )
    return CryobridgeError(
        f"unexpected: {type(error).__name__}: {error}",
        hint="This is a mistake in cryobridge. Run the command again with --debug and report what it prints.",
    )
