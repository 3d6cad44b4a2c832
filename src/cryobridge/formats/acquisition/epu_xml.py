"""EPU's XML files beside movies: the beam shift at which an image was taken.

Files of other programs in the same form, as Leginon writes them, are read too. Expat parses them; a document type, and
with it every entity, is refused, and nothing outside the file is looked at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from xml.parsers import expat

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import open_input, read_error

if TYPE_CHECKING:
    from pathlib import Path

# EPU's have some 20 kB.
MOST_BYTES: Final = 4 << 20
_MOST_DEPTH = 64
_CHUNK_BYTES = 1 << 11
_SHIFT: Final = ("microscopeData", "optics", "BeamShift")
_HINT = "Look at the file: it is to be EPU's, of the exposure, with microscopeData/optics/BeamShift."


def read_beam_shift(path: Path) -> tuple[float, float]:
    """Return x and y of the beam shift of an XML file by EPU, in the microscope's unit.

    Raises
    ------
    FormatError
        If the file can't be read, is no XML, has a document type, is far larger than EPU's, or has no beam shift.
    """
    reader = _Reader(path)
    try:
        with open_input(path) as file:
            n_bytes = 0
            # It stands near the beginning: the rest is not read.
            while not reader.is_done and (chunk := file.read(_CHUNK_BYTES)):
                n_bytes += len(chunk)
                if n_bytes > MOST_BYTES:
                    raise FormatError(f"more than {MOST_BYTES >> 20} MB: too many for EPU's", path=path, hint=_HINT)
                reader.parser.Parse(chunk, False)
            if not reader.is_done:
                reader.parser.Parse(b"", True)
    except OSError as error:
        raise read_error(path, error) from error
    except (expat.ExpatError, UnicodeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"no XML that can be read ({error})", path=path, hint=_HINT) from error
    finally:
        reader.close()
    return reader.shift()


class _Reader:
    """Follows where in the tree the parser is, and keeps the texts of the two numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self._where: list[str] = []
        self._texts: dict[str, str] = {}

    @property
    def is_done(self) -> bool:
        """Whether both numbers were read to their end."""
        return self._texts.keys() >= {"_x", "_y"} and not (self._where and self._where[-1] in {"_x", "_y"})

    def close(self) -> None:
        """Let the parser go, which else would wait for the garbage collector: each calls the other."""
        self.parser.StartElementHandler = self.parser.EndElementHandler = self.parser.CharacterDataHandler = None
        self.parser.StartDoctypeDeclHandler = self.parser.EntityDeclHandler = None

    def shift(self) -> tuple[float, float]:
        """Return the numbers."""
        try:
            x, y = float(self._texts["_x"]), float(self._texts["_y"])
        except KeyError:
            raise FormatError("it has no beam shift", path=self.path, field="/".join(_SHIFT), hint=_HINT) from None
        except ValueError:
            x = y = math.nan
        if not (math.isfinite(x) and math.isfinite(y)):
            shown = ", ".join(f"{text:.20}" for text in self._texts.values())
            raise FormatError(f"{shown} are no numbers", path=self.path, field="/".join(_SHIFT), hint=_HINT)
        return x, y

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        if len(self._where) == _MOST_DEPTH:
            raise FormatError("elements lie too deep in each other for EPU's", path=self.path, hint=_HINT)
        # Names are compared without their prefixes, which the file chooses.
        local = name.rpartition(":")[2]
        is_number = local in {"_x", "_y"} and tuple(self._where[-3:]) == _SHIFT
        self.parser.CharacterDataHandler = self._text if is_number else None
        if is_number:
            self._texts[local] = ""
        self._where.append(local)

    def _end(self, _name: str) -> None:
        self._where.pop()
        self.parser.CharacterDataHandler = None

    def _text(self, text: str) -> None:
        self._texts[self._where[-1]] += text

    def _refuse(self, *_what: object) -> None:
        raise FormatError("it declares a document type or entities, which EPU's don't", path=self.path, hint=_HINT)
