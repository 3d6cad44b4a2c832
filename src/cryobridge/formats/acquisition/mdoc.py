"""SerialEM's `.mdoc` files: the image shift, and the hole and position of multiple records.

They are texts in IMOD's autodoc format: ``key = value`` lines, in sections such as ``[FrameSet = 0]`` or ``[ZValue =
0]``. A file beside a movie has one section; one of a whole session has a section a movie, named by ``SubFramePath``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import read_error, read_input

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 64 << 20
_HINT = "Look at the file: it is to be SerialEM's, with ImageShift in a section [FrameSet = 0]."


@dataclass(frozen=True)
class MdocMovie:
    """What SerialEM says of one movie.

    Parameters
    ----------
    movie
        Name of its file without folders; empty where the section does not say.
    image_shift_um
        x, y in micrometres; None where it is not said.
    position
        Hole and position in it, ``3-1``; None where it was no multiple record.
    """

    movie: str
    image_shift_um: tuple[float, float] | None
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
    where = section.get("multishotholeandposition", "").split()
    is_position = 1 < len(where) <= 3 and all(part.lstrip("+-").isdecimal() for part in where)
    position = "-".join(where) if is_position else None
    return MdocMovie(name, shift, position)


def _numbers(text: str) -> tuple[float, float] | None:
    """Return the two numbers of a text; None where they are none."""
    try:
        x, y = map(float, text.split())
    except ValueError:
        return None
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None
