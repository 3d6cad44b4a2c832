"""Writing one stack of smaller images, or what is left of it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.mrc_write import MrcStackWriter
from cryobridge.jobs.stacks.cropping.state import StackState, read_state
from cryobridge.jobs.stacks.plan import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryobridge.formats.file_record import FileRecord
    from cryobridge.formats.table import Array
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.cropping.plan import DownsamplePlan
    from cryobridge.jobs.stacks.cropping.transform import SmallImages
    from cryobridge.jobs.stacks.plan import StackTask


class OpenSmallStack:
    """A stack that is being written; see `cryobridge.jobs.stacks.plan.OpenStack`."""

    preview = None

    def __init__(self, path: Path, state: StackState, writer: MrcStackWriter) -> None:
        self._path = path
        self._state = state
        self._writer = writer

    @property
    def left_out(self) -> Rows:
        """The rows that were left out, by earlier runs too."""
        return self._state.left_out

    def leave_out(self, rows: Rows) -> None:
        """Note rows whose images can't be used, before those after them are written."""
        self._state = replace(self._state, left_out=np.union1d(self._state.left_out, rows))
        self._state.write(self._path)

    def note_end(self, record: FileRecord) -> None:
        """Note what the stack is known by when it is whole."""
        replace(self._state, file=record).write(self._path)

    def write(self, _rows: Rows, made: SmallImages, is_usable: Array) -> None:
        """Append the usable images of a chunk."""
        self._writer.append(made.images if is_usable.all() else made.images[is_usable])


@contextmanager
def open_stack(plan: DownsamplePlan, path: Path, task: StackTask) -> Iterator[OpenSmallStack]:
    """Write a stack, or go on with it; it appears under its name when the block ends well.

    What was written stays for a later run otherwise.

    Raises
    ------
    CryobridgeError
        If the operating system refuses, or no image was written.
    """
    state = read_state(path)
    if state is None:
        state = StackState(fingerprint(plan, task), np.zeros(0, np.int64))
        state.write(path)
    box = (plan.options.box_px, plan.options.box_px)
    dtype = np.float16 if plan.options.half_precision else np.float32
    with MrcStackWriter(path, box, plan.new_pixel_size_A, dtype=dtype, resumable=True) as writer:
        stack = OpenSmallStack(path, state, writer)
        yield stack
        # Before the stack has its name: one without a record would not be known to be whole.
        stack.note_end(writer.finish())
