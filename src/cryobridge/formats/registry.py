"""Which format a file is in, decided by its content; names decide only between formats of equal content."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from cryobridge.errors import FormatError

CS: Final = "cs"
CSG: Final = "csg"
STAR: Final = "star"
MRC: Final = "mrc"
PICKLE: Final = "pickle"
NPY: Final = "npy"
NPZ: Final = "npz"
PT: Final = "pt"

_HEAD_BYTES = 1 << 16
_MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ccp4")
_MRC_MODES = {0, 1, 2, 3, 4, 6, 12, 101}
_COMPRESSED = {b"\x1f\x8b": ".gz", b"BZ": ".bz2"}


def identify_file(path: Path) -> str:
    """Return the format of a file: one of this module's constants.

    Raises
    ------
    FormatError
        If the file can't be read, is empty, or is in no format that is known here.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise FormatError(
            f"can't be read ({error.strerror})", path=path, hint="Check the name and its permissions."
        ) from error
    if size == 0:
        raise FormatError("the file is empty", path=path, hint="Export or copy it again.")
    found = _by_magic(path, head) or _by_text(head)
    if found:
        _refuse_false_name(path, found)
        return found
    raise FormatError(
        f"not a format that is known here: it starts with {head[:12]!r}",
        path=path,
        hint="Known are .cs, .csg, .star, .mrc/.mrcs/.map (also .gz, .bz2), .pkl, .npy, .npz and .pt.",
    )


def _by_magic(path: Path, head: bytes) -> str | None:
    if head.startswith(b"\x95CSDAT"):
        return CS
    if head.startswith(b"\x93NUMPY"):
        # A table's header lists its columns; a plain array's names one type.
        return CS if b"[(" in head[:64] or path.suffix == ".cs" else NPY
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head[:2] in _COMPRESSED and _mrc_name(path.with_suffix("") if path.suffix in {".gz", ".bz2"} else path):
        return MRC
    if _looks_like_mrc(path, head):
        return MRC
    is_pickle = head[:1] == b"\x80" and 2 <= head[1] <= 5 if len(head) > 1 else False
    return PICKLE if is_pickle or path.suffix in {".pkl", ".pickle"} else None


def _zip_kind(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise FormatError(f"a damaged archive ({error})", path=path, hint="Copy it again.") from error
    if any(name.endswith("/data.pkl") for name in names):
        return PT
    return NPZ if all(name.endswith(".npy") for name in names) else None


def _mrc_name(path: Path) -> bool:
    return path.suffix.lower() in _MRC_SUFFIXES


def _looks_like_mrc(path: Path, head: bytes) -> bool:
    if _mrc_name(path):
        return True
    if len(head) < 1024:
        return False
    mode = {int.from_bytes(head[12:16], "little"), int.from_bytes(head[12:16], "big")}
    return head[208:211] == b"MAP" and bool(mode & _MRC_MODES)


def _by_text(head: bytes) -> str | None:
    if b"\0" in head:
        return None
    lines = [line.strip() for line in head.decode("utf-8", "replace").splitlines()]
    if any(line.startswith("data_") for line in lines):
        return STAR
    keys = {line.split(":")[0] for line in head.decode("utf-8", "replace").splitlines() if ":" in line[1:]}
    return CSG if {"results", "group"} <= keys else None


def _refuse_false_name(path: Path, found: str) -> None:
    """Refuse a file of another format that is named .cs."""
    if path.suffix == ".cs" and found != CS:
        raise FormatError(
            f"named .cs, but its content is {found}",
            path=path,
            hint=f"Give it its right name ({path.stem}.{found}), or look for the real .cs file.",
        )
