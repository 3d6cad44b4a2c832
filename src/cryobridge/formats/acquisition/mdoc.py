"""SerialEM's `.mdoc` files: the image shift, and the hole and position of multiple records.

They are texts in IMOD's autodoc format: ``key = value`` lines, in sections such as ``[FrameSet = 0]`` or ``[ZValue =
0]``. A file beside a movie has one section; one of a whole session has a section a movie, named by ``SubFramePath``.

Image shifts are in the microscope's basic units, "close to microns for Thermo/FEI, much larger than microns for JEOL"
(SerialEM's help, File Formats). `MultishotHoleAndPosition` was two or three numbers in 2019 and is the text of names
since 2020, ``X+1Y-1-2``, ``R1H4-0`` or ``3-1``, at first with ``@`` before the position (SerialEM's source).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import read_error, read_input

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 64 << 20
_POSITION: Final = re.compile(
    r"(?:X[+-]?\d{1,3}Y[+-]?\d{1,3}|R\d{1,3}H\d{1,3}|[+-]?\d{1,4}(?:\s+[+-]?\d{1,4})?)(?:[-@]|\s+)\d{1,3}"
)
_HINT = "Look at the file: it is to be SerialEM's, with ImageShift in a section [FrameSet = 0]."


@dataclass(frozen=True)
class MdocMovie:
    """What SerialEM says of one movie.

    Parameters
    ----------
    movie
        Name of its file without folders; empty where the section does not say.
    image_shift
        x, y in the microscope's basic units; None where it is not said.
    position
        Hole and position in it, ``3-1`` or ``X+1Y-1-2``; None where it was no multiple record.
    """

    movie: str
    image_shift: tuple[float, float] | None
    position: str | None


def read_mdoc(path: Path) -> list[MdocMovie]:
    """Return the movies of an `.mdoc` file, one a section.

    Raises
    ------
    FormatError
        If the file can't be read, is far too large, or has no section.
    """
    try:
        content = read_input(path, MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise read_error(path, error) from error
    if len(content) > MOST_BYTES:
        raise FormatError(f"more than {MOST_BYTES >> 20} MB: too many for SerialEM's", path=path, hint=_HINT)
    sections: list[dict[str, str]] = []
    for line in content.decode("utf-8", errors="replace").splitlines():
        text = line.strip()
        if text.startswith("["):
            # [T = ...] is a title.
            if text[1:].split("=")[0].strip() != "T":
                sections.append({})
        elif sections and "=" in text:
            key, _, value = text.partition("=")
            sections[-1].setdefault(key.strip().casefold(), value.strip())
    if not sections:
        raise FormatError("it has no section", path=path, hint=_HINT)
    return [_movie(section) for section in sections]


def _movie(section: dict[str, str]) -> MdocMovie:
    name = section.get("subframepath", "").replace("\\", "/").rpartition("/")[2]
    shift = _numbers(section.get("imageshift", ""))
    where = section.get("multishotholeandposition", "")
    position = "-".join(where.replace("@", " ").split()) if _POSITION.fullmatch(where) else None
    return MdocMovie(name, shift, position)


def _numbers(text: str) -> tuple[float, float] | None:
    """Return the two numbers of a text; None where they are none."""
    try:
        x, y = map(float, text.split())
    except ValueError:
        return None
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None
