"""What the folder adapters share: one listing of a folder, bounded JSON, and gaps in running numbers."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.input_file import meant, read_error, read_input, readable_size
from cryobridge.report import warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cryobridge.report import Message

# Far above any job's; a file beyond it is not a job description.
_JSON_MAX_BYTES = 64 << 20
_MAX_SHOWN_RANGES = 5


@dataclass(frozen=True)
class Listing:
    """The names in one folder, without its subfolders' content.

    Parameters
    ----------
    path
        The folder.
    files
        Names that are not folders, hidden ones left out.
    folders
        Names of folders, hidden ones left out.
    """

    path: Path
    files: frozenset[str]
    folders: frozenset[str]


def list_folder(path: Path) -> Listing:
    """List a folder with one pass over its entries.

    Raises
    ------
    FormatError
        If it is no folder, or may not be read.
    """
    files: set[str] = set()
    folders: set[str] = set()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if _is_folder(entry) else files).add(entry.name)
    except NotADirectoryError as error:
        raise FormatError(
            "this is a file, not a folder", path=path, hint=f"Give the folder that it is in, {path.parent}."
        ) from error
    except OSError as error:
        remedy = "Give the name of a folder that you may read."
        raise FormatError(
            f"can't be listed ({error.strerror or error})",
            path=path,
            hint=meant(path, remedy) if isinstance(error, FileNotFoundError) else remedy,
        ) from error
    return Listing(path, frozenset(files), frozenset(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a link in a circle, or to where one may not look, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_json_of(listing: Listing, name: str, problems: list[Message], *, otherwise: str = "") -> dict[str, Any]:
    """Read a JSON file of a folder; empty where it is not there.

    Parameters
    ----------
    listing, name
        The folder, and the file in it.
    problems
        A file that can't be read is added to it, and the content is empty.
    otherwise
        What is used instead of such a file.
    """
    if name not in listing.files:
        return {}
    try:
        return read_json(listing.path / name)
    except CryobridgeError as error:
        text = f"{error}; {otherwise}" if otherwise else str(error)
        problems.append(warning("file-not-read", text, where=listing.path / name))
        return {}


def list_if_there(path: Path) -> Listing:
    """List a folder that may be absent: then the listing is empty."""
    return list_folder(path) if path.is_dir() else Listing(path, frozenset(), frozenset())


def is_there(path: Path) -> bool:
    """Whether a path that was read from a file leads to a file; one that no file can have does not."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    FormatError
        If it can't be read, is not JSON, or is not an object.
    """
    try:
        if readable_size(path) > _JSON_MAX_BYTES:
            raise FormatError(f"larger than {_JSON_MAX_BYTES >> 20} MiB, which no job description is", path=path)
        content = json.loads(read_input(path))
    except CryobridgeError:
        raise
    except OSError as error:
        raise read_error(path, error) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            "not JSON, or broken off", path=path, hint="The job may still be writing it; copy it again when it is done."
        ) from error
    if not isinstance(content, dict):
        raise FormatError(f"a JSON {type(content).__name__}, not an object", path=path)
    return content


def text_of(content: Mapping[str, Any], *keys: str) -> str:
    """Return the first of the keys that holds a text, else an empty one."""
    for key in keys:
        value = content.get(key)
        if isinstance(value, str):
            return value
    return ""


def int_of(value: object) -> int | None:
    """Return an integer of up to 64 bits as it is and anything else, True and False too, as None."""
    return value if type(value) is int and abs(value) < 1 << 63 else None


def float_of(value: object) -> float | None:
    """Return a finite number, whole ones of up to 64 bits too, as a float, and anything else as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if (whole := int_of(value)) is None else float(whole)


def object_of(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object under a key, or an empty one where there is something else."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def list_of(content: Mapping[str, Any], key: str) -> list[Any]:
    """Return the list under a key, or an empty one where there is something else."""
    value = content.get(key)
    return value if isinstance(value, list) else []


def objects_of(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects of the list under a key; other items are passed over."""
    return [item for item in list_of(content, key) if isinstance(item, dict)]


def gaps(numbers: Iterable[int], *, first: int = 0) -> tuple[range, ...]:
    """Return the runs of numbers that are missing below the highest one.

    Parameters
    ----------
    numbers
        The numbers that are there, in any order.
    first
        Where the numbering should begin.
    """
    expected = first
    missing = []
    for number in sorted(set(numbers)):
        if number > expected:
            missing.append(range(expected, number))
        expected = max(expected, number + 1)
    return tuple(missing)


def say_ranges(ranges: Iterable[range], width: int = 0) -> str:
    """Write runs of numbers as ``3, 7-9``; of many the first few, and how many numbers there are."""
    runs = list(ranges)
    shown = [
        f"{run[0]:0{width}d}" if len(run) == 1 else f"{run[0]:0{width}d}-{run[-1]:0{width}d}"
        for run in runs[:_MAX_SHOWN_RANGES]
    ]
    more = f" … ({sum(map(len, runs)):,} in all)" if len(runs) > _MAX_SHOWN_RANGES else ""
    return ", ".join(shown) + more


def say_numbers(numbers: Iterable[int], width: int = 0) -> str:
    """Write numbers as ``3, 7, 9``; of many the first few, and how many there are."""
    return say_ranges((range(number, number + 1) for number in sorted(numbers)), width)
