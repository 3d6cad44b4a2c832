"""The image files that rows refer to: found, opened and long enough, or what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, option
from cryobridge.formats.image_search import ImageSearch, name_some, what_finds
from cryobridge.formats.mrc_header import UNREAD_MODES, MrcHeader, read_header
from cryobridge.jobs.stacks.checks import N_SHOWN, Problems, Rows, shown
from cryobridge.report import Message, counted, note, part_of

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.jobs.stacks.options import OnMissing
    from cryobridge.model.particles import ImageRefs


@dataclass(frozen=True)
class FoundImages:
    """Which rows have an image, and the files that they are in.

    Parameters
    ----------
    headers
        The header of each image file, by its number in ``images.path.values``; files that are missing are absent.
    rows
        The rows that have an image.
    left_out
        How many rows have none, by the reason.
    messages
        What is missing.
    problems
        What is wrong.
    """

    headers: dict[int, MrcHeader]
    rows: Rows
    left_out: dict[str, int]
    messages: tuple[Message, ...] = ()
    problems: Problems = field(default_factory=Problems)


def find_images(images: ImageRefs, search: ImageSearch, on_missing: OnMissing) -> FoundImages:
    """Find the image of each row.

    Parameters
    ----------
    images
        A file name and a slice for each row.
    search
        Where the files are looked for.
    on_missing
        ``"skip"`` leaves out rows without an image; else they are problems.
    """
    problems = Problems()
    names = {code: images.path.values[code] for code in np.unique(images.path.codes).tolist()}
    search = search.among(names.values())
    found = {code: path for code, name in names.items() if (path := search.resolve(name)) is not None}
    missing = [name for code, name in names.items() if code not in found]
    with problems.collect():
        if missing and (on_missing == "error" or not found):
            _refuse_missing(missing, len(names), search)
    headers = read_headers(found, problems)
    has_file = np.isin(images.path.codes, list(found))
    available = np.zeros(len(images.path.values), np.int64)
    for code, header in headers.items():
        available[code] = header.n_whole
    beyond = has_file & ((images.index < 0) | (images.index >= available[images.path.codes]))
    beyond &= np.isin(images.path.codes, list(headers))
    if on_missing == "error":
        problems.errors += _errors_beyond(np.flatnonzero(beyond), images, headers)
    reasons = {"image file missing": int((~has_file).sum()), "beyond the end of its file": int(beyond.sum())}
    return FoundImages(
        headers,
        np.flatnonzero(has_file & ~beyond),
        {reason: count for reason, count in reasons.items() if count},
        (note("images-not-found", f"{_missing_of(len(missing), len(names))}: {name_some(missing)}"),)
        if missing
        else (),
        problems,
    )


def read_headers(files: dict[int, Path], problems: Problems) -> dict[int, MrcHeader]:
    """Read the headers of image files; those that can't be read are one problem."""
    headers: dict[int, MrcHeader] = {}
    unreadable: list[str] = []
    for code, path in files.items():
        try:
            header = read_header(path)
        except FormatError as error:
            unreadable.append(str(error))
            continue
        if header.dtype is None:
            unreadable.append(f"{path}: mode {header.mode} ({UNREAD_MODES[header.mode]}) is not read")
        else:
            headers[code] = header
    if unreadable:
        problems.errors.append(
            FormatError(
                shown(unreadable),
                count=len(unreadable),
                hint="Copy those files again, or convert them to mode 2 (float32).",
            )
        )
    return headers


def _missing_of(n_missing: int, n_files: int) -> str:
    if n_files == 1:
        return "the image file is missing"
    return f"{part_of(n_missing, n_files, 'image file')} missing"


def _refuse_missing(missing: list[str], n_files: int, search: ImageSearch) -> None:
    raise MissingDataError(
        f"{_missing_of(len(missing), n_files)}: {name_some(missing)}",
        path=search.metadata,
        count=len(missing),
        hint=_where_to_look(missing, n_files, search),
    )


def _where_to_look(missing: list[str], n_files: int, search: ImageSearch) -> str:
    found_with = what_finds(missing, search)
    if found_with:
        return f"Give {found_with}."
    looked = f"Looked {search.places(missing[0])}."
    prefix = search.strip_prefix
    if prefix and not any(name.removeprefix(">").startswith(prefix) for name in missing):
        looked += f" None of the names starts with {option('strip_prefix', prefix)}."
    leave_out = f", or leave their particles out with {option('on_missing', 'skip')}"
    skip = leave_out if len(missing) < n_files else ""
    return f"{looked} Say where the stacks are with {option('datadir')}{skip}."


def _errors_beyond(rows: Rows, images: ImageRefs, headers: dict[int, MrcHeader]) -> list[CryobridgeError]:
    """Return an error for each file that is too short for these rows; where many are, the last speaks of the rest."""
    codes = images.path.codes[rows]
    by_file = {code: rows[codes == code] for code in dict.fromkeys(codes.tolist())}
    listed = [_error_beyond(own, images, headers[code]) for code, own in list(by_file.items())[:N_SHOWN]]
    rest = list(by_file.values())[N_SHOWN:]
    if rest:
        text = f"{len(rest):,} more files are too short for {counted(sum(map(len, rest)), 'row')}"
        listed.append(MissingDataError(text, count=sum(map(len, rest))))
    return listed


def _error_beyond(rows: Rows, images: ImageRefs, header: MrcHeader) -> CryobridgeError:
    return MissingDataError(
        f"image {int(images.index[rows[0]]) + 1} is asked for, the file has {header.n_whole} whole ones",
        path=header.path,
        rows=tuple(int(row) for row in rows[:3]),
        count=len(rows),
        hint="The stack is truncated or is another one: copy it again or correct the metadata, "
        f"or leave these particles out with {option('on_missing', 'skip')}.",
    )
