"""The option that says where optics groups come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from cryobridge.errors import UsageError

Kind: TypeAlias = Literal["epu", "serialem", "afis", "regex", "file"]
_WITH_FOLDER: Final[dict[str, Kind]] = {"serialem": "serialem", "afis": "afis"}
_ALONE: Final[dict[str, Kind]] = {"epu": "epu", **_WITH_FOLDER}
_FILE_ENDS: Final = (".star", ".cs", ".csg")


@dataclass(frozen=True)
class OpticsSource:
    """Where optics groups come from.

    Parameters
    ----------
    kind
        ``epu`` and ``serialem``: by the names of movies; ``afis``: by beam shifts; ``regex``: by a pattern in names;
        ``file``: as particles or micrographs of another file have them.
    value
        The folder of files that say beam shifts or positions (None: beside the movies), the pattern, or the file.
    """

    kind: Kind
    value: Any = None


def optics_source(text: str) -> OpticsSource:
    """Return what an option says: ``epu``, ``serialem``, ``afis``, ``afis:FOLDER``, ``regex:PATTERN``, or a file.

    Raises
    ------
    UsageError
        If it says something else, or the pattern is none.

    Examples
    --------
    >>> optics_source("afis:EPU/Images-Disc1")
    OpticsSource(kind='afis', value=PosixPath('EPU/Images-Disc1'))
    """
    kind, colon, rest = text.partition(":")
    if kind == "regex":
        return OpticsSource("regex", _pattern(rest))
    if kind in _WITH_FOLDER and rest:
        return OpticsSource(_WITH_FOLDER[kind], Path(rest))
    if kind in _ALONE and not colon:
        return OpticsSource(_ALONE[kind])
    if text.lower().endswith(_FILE_ENDS):
        return OpticsSource("file", Path(text))
    raise UsageError(
        f"{text!r:.60} is no source of optics groups",
        option="optics_from",
        hint="Give epu, serialem, afis, afis:FOLDER, regex:PATTERN, or a file of particles (.star, .cs).",
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(
            f"{text!r:.60} is no regular expression ({error})",
            option="optics_from",
            hint="It is one of Python's, such as regex:_Data_(\\d+)_ for the number after Data.",
        ) from None
    if not text:
        raise UsageError(
            "a regular expression is missing",
            option="optics_from",
            hint="Write it behind regex:, such as _Data_(\\d+)_.",
        )
    return pattern
