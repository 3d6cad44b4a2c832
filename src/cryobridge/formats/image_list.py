"""Lists of stacks, one name a line, that cryoDRGN and RECOVAR take for one stack."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.input_file import read_input, readable_size
from cryobridge.formats.mrc_header import MrcHeader, read_header
from cryobridge.model.particles import ImageRefs, Labels

if TYPE_CHECKING:
    from collections.abc import Iterable

_STACKS = (b".mrcs", b".mrc")
_MAX_BYTES = 64 << 20
_HEAD_BYTES = 1 << 16


def is_image_list(head: bytes, *, is_whole: bool = False) -> bool:
    """Whether the first bytes of a file are lines that each name a stack; the last may be cut unless all are given."""
    lines = head.splitlines()
    if not is_whole and not head.endswith(b"\n"):
        lines = lines[:-1] or lines
    names = [line.strip() for line in lines if line.strip()]
    return bool(names) and b"\0" not in head and all(name.lower().endswith(_STACKS) for name in names)


def read_image_list(path: Path) -> list[Path]:
    """Return the stacks that a list names; names that are not whole paths start at the folder of the list.

    Raises
    ------
    FormatError
        If it can't be read, or a line is no name of a stack.
    """
    path = Path(path)
    content = read_input(path) if readable_size(path) <= _MAX_BYTES else b""
    if not is_image_list(content, is_whole=True):
        raise FormatError(
            "not a list of stacks: one name that ends in .mrcs or .mrc is needed in each line",
            path=path,
            hint="Give the list that cryoDRGN, RECOVAR or `cryobridge stacks downsample` takes or writes.",
        )
    return [path.parent / os.fsdecode(line.strip()) for line in content.splitlines() if line.strip()]


def write_image_list(path: Path, files: Iterable[Path]) -> None:
    """Write the names of stacks, one a line, as seen from the folder of the list."""
    folder = Path(path).absolute().parent
    names = [os.path.relpath(file, folder) for file in files]
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(b"".join(os.fsencode(name) + b"\n" for name in names))


@dataclass(frozen=True)
class ImageStack:
    """The images of a stack, or of all stacks of a list one after another.

    Attributes
    ----------
    path
        The file that was named.
    headers
        Those of the stacks.
    """

    path: Path
    headers: tuple[MrcHeader, ...]

    @property
    def n_sections(self) -> int:
        """Images that the headers announce."""
        return sum(header.n_sections for header in self.headers)

    @property
    def n_whole(self) -> int:
        """Images that can be read."""
        return sum(header.n_whole for header in self.headers)

    @property
    def nx(self) -> int:
        """Box in pixels, which is one for all."""
        return self.headers[0].nx

    @property
    def pixel_size_A(self) -> float | None:
        """Pixel size of the first stack in Å; None where it is unknown."""
        return self.headers[0].pixel_size_A

    def images(self, *, are_whole: bool) -> ImageRefs:
        """Return the images: those that can be read, or all that are announced."""
        lengths = [header.n_whole if are_whole else header.n_sections for header in self.headers]
        codes = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        index = np.concatenate([np.arange(length) for length in lengths])
        numbers = Labels(codes, tuple(map(str, range(len(lengths)))))
        return ImageRefs(numbers.renamed([str(header.path) for header in self.headers]), index)


def read_image_stack(path: Path) -> ImageStack:
    """Read the headers of a stack, or of the stacks that a list names.

    Raises
    ------
    FormatError
        If a file can't be read, or boxes differ.
    """
    path = Path(path)
    files = read_image_list(path) if is_image_list(read_input(path, _HEAD_BYTES)) else [path]
    headers = tuple(read_header(file) for file in files)
    other = next((header for header in headers if header.nx != headers[0].nx), None)
    if other is not None:
        raise FormatError(
            f"its stacks have different boxes: {headers[0].nx} px and, in {other.path.name}, {other.nx} px",
            path=path,
            hint="Make a list for each box.",
        )
    return ImageStack(path, headers)
