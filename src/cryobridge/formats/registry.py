"""Which format a file is in, decided by its content; names decide only between formats of equal content."""

from __future__ import annotations

import bz2
import codecs
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Final

from cryobridge.errors import FormatError
from cryobridge.formats.atomic import read_error, readable_size

CS: Final = "cs"
CSG: Final = "csg"
STAR: Final = "star"
MRC: Final = "mrc"
PICKLE: Final = "pickle"
NPY: Final = "npy"
NPZ: Final = "npz"
PT: Final = "pt"

# The number that begins every torch file of the format before zip (torch.save before 1.6).
TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_HEAD_BYTES = 1 << 16
_MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ccp4")
_MRC_HEADER_BYTES = 1024
_MRC_MODES = {0, 1, 2, 3, 4, 6, 12, 101}
_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"
_STAR_BLOCK = re.compile(rb"^[ \t]*data_\S*[ \t\r]*(?:#.*)?$", re.MULTILINE)


def identify_file(path: Path) -> str:
    """Return the format of a file: one of this module's constants.

    Raises
    ------
    FormatError
        If the file can't be read, is empty, or is in no format that is known here.
    """
    readable_size(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise read_error(path, error) from error
    found = _by_magic(path, head) or _by_text(head) or _by_name(path)
    if found:
        _refuse_false_name(path, found)
        return found
    raise FormatError(
        f"not a format that is known here: {_beginning(head)}",
        path=path,
        hint="Known are .cs, .csg, .star, .mrc/.mrcs/.map (also .gz, .bz2), .pkl, .npy, .npz and .pt.",
    )


def _beginning(head: bytes) -> str:
    """Say how a file begins, in characters where it is text."""
    line = head[:200].partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
    if line and line.isprintable() and "\N{REPLACEMENT CHARACTER}" not in line:
        return f"it is text that starts with “{line[:40]}{'…' if len(line) > 40 else ''}”"
    return f"it starts with the bytes {head[:12].hex(' ')}"


def _by_magic(path: Path, head: bytes) -> str | None:
    if head.startswith(b"\x95CSDAT"):
        return CS
    if head.startswith(b"\x93NUMPY"):
        # A table's header lists its columns; a plain array's names one type.
        return CS if b"[(" in head[:64] or path.suffix == ".cs" else NPY
    if head.startswith(TORCH_MAGIC):
        return PT
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if _has_mrc_header(_decompressed(head) if head.startswith((_GZIP, _BZIP2)) else head):
        return MRC
    # Old MRC files without the word MAP start alike where they have 640 columns, but then with two zeros.
    is_pickle = len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2] != 0
    return PICKLE if is_pickle else None


def _zip_kind(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise FormatError(f"a damaged archive ({error})", path=path, hint="Copy it again.") from error
    if any(name.endswith("/data.pkl") for name in names):
        return PT
    return NPZ if all(name.endswith(".npy") for name in names) else None


def _decompressed(head: bytes) -> bytes:
    """Return what a compressed file starts with; nothing where its first bytes do not tell."""
    try:
        if head.startswith(_GZIP):
            return zlib.decompressobj(wbits=31).decompress(head, _MRC_HEADER_BYTES)
        return bz2.BZ2Decompressor().decompress(head, _MRC_HEADER_BYTES)
    except (zlib.error, OSError, EOFError):
        return b""


def _has_mrc_header(head: bytes) -> bool:
    if len(head) < _MRC_HEADER_BYTES:
        return False
    mode = {int.from_bytes(head[12:16], "little"), int.from_bytes(head[12:16], "big")}
    return head[208:211] == b"MAP" and bool(mode & _MRC_MODES)


def _by_text(head: bytes) -> str | None:
    head = head.removeprefix(codecs.BOM_UTF8)
    if b"\0" in head:
        return None
    if _STAR_BLOCK.search(head):
        return STAR
    keys = {line.split(b":")[0] for line in head.splitlines() if b":" in line[1:]}
    return CSG if {b"results", b"group"} <= keys else None


def _by_name(path: Path) -> str | None:
    """Name the formats that a file may have without showing it in its first bytes."""
    name = path.with_suffix("") if path.suffix in {".gz", ".bz2"} else path
    if name.suffix.lower() in _MRC_SUFFIXES:
        return MRC
    return PICKLE if path.suffix in {".pkl", ".pickle"} else None


def _refuse_false_name(path: Path, found: str) -> None:
    """Refuse a file of another format that is named .cs."""
    if path.suffix == ".cs" and found != CS:
        raise FormatError(
            f"named .cs, but its content is {found}",
            path=path,
            hint=f"Give it its right name ({path.stem}.{found}), or look for the real .cs file.",
        )
