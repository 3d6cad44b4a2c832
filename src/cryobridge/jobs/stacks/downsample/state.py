"""What a downsampling that may be interrupted leaves for the one that goes on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.formats.atomic import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.jobs.stacks.checks import Rows


class DownsampleState:
    """A small file beside the stacks: what they are made of, and which images could not be used.

    An image that can't be used is written down before those after it are written, so that the number of images in
    an unfinished stack tells where to go on.

    Parameters
    ----------
    path
        The file.
    fingerprint
        A digest of all that the bytes of the stacks depend on.
    resume
        Go on where the file says; without one, begin.

    Raises
    ------
    UsageError
        If the stacks that are there were made from something else.
    """

    def __init__(self, path: Path, fingerprint: str, *, resume: bool) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self.left_out: Rows = np.zeros(0, np.int64)
        if resume and path.is_file():
            self._read()

    def leave_out(self, places: Rows) -> None:
        """Write down particles that can't be used, by their place among those taken."""
        self.left_out = np.union1d(self.left_out, places)
        self.write()

    def write(self) -> None:
        """Write the file."""
        content = {"made_from": self._fingerprint, "left_out": self.left_out.tolist()}
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            made_from, left_out = content["made_from"], np.array(content["left_out"], np.int64)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                "what an earlier run left to go on with is damaged", path=self.path, hint="Begin anew with --overwrite."
            ) from error
        if made_from != self._fingerprint:
            raise UsageError(
                "the stacks that are there were made from other images, or with other options",
                path=self.path.parent,
                hint="Give the options of that run, or begin anew with --overwrite.",
            )
        self.left_out = left_out
