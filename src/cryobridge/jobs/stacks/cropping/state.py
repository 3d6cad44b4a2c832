"""What is noted of a stack while it is written, so that an interrupted run is gone on with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import UsageError, option
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.file_record import FileRecord, record_of, state_path
from cryobridge.formats.input_file import read_error, read_input

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.jobs.stacks.checks import Rows


@dataclass(frozen=True)
class StackState:
    """A small file beside a stack: what it is made from, and which rows are left out of it.

    A row that can't be used is noted before those after it are written, so that the number of images in an unfinished
    stack shows where to go on.

    Parameters
    ----------
    made_from
        The fingerprint of the stack.
    left_out
        Rows whose images can't be used.
    file
        What the finished stack is known by; None until then.
    """

    made_from: str
    left_out: Rows
    file: FileRecord | None = None

    def write(self, stack: Path) -> None:
        """Write it beside a stack."""
        content = {"made_from": self.made_from, "left_out": self.left_out.tolist()}
        content |= {} if self.file is None else {"file": asdict(self.file)}
        with atomic_path(state_path(stack)) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_state(stack: Path) -> StackState | None:
    """Return the state of a stack, or None where there is none.

    Raises
    ------
    UsageError
        If it is damaged.
    """
    path = state_path(stack)
    try:
        content = json.loads(read_input(path))
        file = record_of(content["file"]) if "file" in content else None
        return StackState(str(content["made_from"]), np.array(content["left_out"], np.int64), file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise read_error(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "what an earlier run left to go on with is damaged",
            path=path,
            hint=f"Begin anew with {option('overwrite')}.",
        ) from error
