"""Which format a file is in, decided by its content; names decide only between formats of equal content."""

from __future__ import annotations

import bz2
import codecs
import re
import struct
import zipfile
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from cryobridge.errors import FormatError
from cryobridge.formats.base import FileFormat, Format
from cryobridge.formats.input_file import open_input, read_error, readable_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CS: Final = "cs"
CSG: Final = "csg"
STAR: Final = "star"
MRC: Final = "mrc"
PICKLE: Final = "pickle"
NPY: Final = "npy"
NPZ: Final = "npz"
PT: Final = "pt"
LIST: Final = "list"

# The number that begins every torch file of the format before zip (torch.save before 1.6).
TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_HEAD_BYTES = 1 << 16
_MRC_HEADER_BYTES = 1024
_MRC_MODES = {0, 1, 2, 3, 4, 6, 12, 101}
_NUMPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"
_STAR_BLOCK = re.compile(rb"^[ \t]*data_\S*[ \t\r]*(?:#.*)?$", re.MULTILINE)


def identify_file(path: Path) -> str:
    """Return the name of the format of a file: one of this module's constants.

    Raises
    ------
    FormatError
        If the file can't be read, is empty, or is in no format that is known here.
    """
    return format_of(path).name


def format_of(path: Path) -> Format:
    """Return the format of a file; raises as `identify_file` does."""
    readable_size(path)
    try:
        with open_input(path) as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise read_error(path, error) from error
    found = next((item for item in FORMATS if item.recognise(head, path)), None) or _by_name(path)
    if found:
        _refuse_false_name(path, found.name)
        return found
    if path.suffix == ".star" and (micrographs := _LINE_OF_STAR.fullmatch(head)) is not None:
        raise FormatError(
            f"no STAR file, but what RELION 3.1 knows picks by: it names {micrographs[1].decode('utf-8', 'replace')}",
            path=path,
            hint="Give it to Extract of RELION 3.1 as its coordinates; the picks lie in folders beside it.",
        )
    raise FormatError(
        f"not a format that is known here: {_beginning(head)}",
        path=path,
        hint="Known are .cs, .csg, .star, .mrc/.mrcs/.map (also .gz, .bz2), .pkl, .npy, .npz, .pt and .txt (stacks).",
    )


def _beginning(head: bytes) -> str:
    """Say how a file begins, in characters where it is text."""
    line = head[:200].partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
    if line and line.isprintable() and "\N{REPLACEMENT CHARACTER}" not in line:
        return f"it is text that starts with “{line[:40]}{'…' if len(line) > 40 else ''}”"
    return f"it starts with the bytes {head[:12].hex(' ')}"


def _is_cs(head: bytes, path: Path) -> bool:
    if head.startswith(b"\x95CSDAT"):
        return True
    # A table's header lists its columns; a plain array's names one type.
    return head.startswith(_NUMPY) and (b"[(" in head[:64] or path.suffix == ".cs")


def _is_npy(head: bytes, path: Path) -> bool:
    return head.startswith(_NUMPY) and not _is_cs(head, path)


def _is_pt(head: bytes, path: Path) -> bool:
    return head.startswith(TORCH_MAGIC) or (head.startswith(_ZIP) and _zip_kind(path) == PT)


def _is_npz(head: bytes, path: Path) -> bool:
    return head.startswith(_ZIP) and _zip_kind(path) == NPZ


def _is_mrc(head: bytes, _path: Path) -> bool:
    return _has_mrc_header(_decompressed(head) if head.startswith((_GZIP, _BZIP2)) else head)


def _is_pickle(head: bytes, _path: Path) -> bool:
    # Old MRC files without the word MAP start alike where they have 640 columns, but then with two zeros.
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2] != 0


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
    """Return what a compressed file starts with; nothing where its first bytes do not show it."""
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


def _is_star(head: bytes, _path: Path) -> bool:
    return b"\0" not in head and _STAR_BLOCK.search(head.removeprefix(codecs.BOM_UTF8)) is not None


def _is_csg(head: bytes, _path: Path) -> bool:
    if b"\0" in head:
        return False
    lines = head.removeprefix(codecs.BOM_UTF8).splitlines()
    return {b"results", b"group"} <= {line.split(b":")[0] for line in lines if b":" in line[1:]}


def _is_list(head: bytes, _path: Path) -> bool:
    from cryobridge.formats.image_list import is_image_list

    return head[:1] not in {b"", b"\x80"} and b"\0" not in head and is_image_list(head)


def _by_name(path: Path) -> Format | None:
    """Return the format that a file may have without showing it in its first bytes."""
    name = path.with_suffix("") if path.suffix in {".gz", ".bz2"} else path
    if name.suffix.lower() in BY_NAME[MRC].suffixes:
        return BY_NAME[MRC]
    return BY_NAME[PICKLE] if path.suffix in BY_NAME[PICKLE].suffixes else None


def _refuse_false_name(path: Path, found: str) -> None:
    """Refuse a file of another format that is named .cs."""
    if path.suffix == ".cs" and found != CS:
        raise FormatError(
            f"named .cs, but its content is {found}",
            path=path,
            hint=f"Give it its right name ({path.stem}.{found}), or look for the real .cs file.",
        )


def _read_with(module: str, name: str) -> Callable[[Path], Any]:
    """Return a reader that is imported when it is first called."""

    def read(path: Path) -> Any:
        return getattr(import_module(f"cryobridge.formats.{module}"), name)(path)

    return read


def _write_with(module: str, name: str, *more: Any) -> Callable[[Path, Any], None]:
    return lambda path, content: getattr(import_module(f"cryobridge.formats.{module}"), name)(path, content, *more)


def _write_cs(path: Path, content: Any) -> None:
    from cryobridge.formats.cryosparc.cs import write_cs

    write_cs(path, content.read(content.names) if hasattr(content, "names") else content)


def _write_csg(path: Path, content: Any) -> None:
    from cryobridge.formats.cryosparc.csg import write_csg

    slots = {slot.name: (slot.type, slot.metafile.name) for slot in content.slots}
    num_items = next((slot.num_items for slot in content.slots if slot.num_items is not None), 0)
    write_csg(path, slots, num_items, name=content.name, title=content.title, kind=content.kind)


def _write_star(path: Path, content: Any) -> None:
    from cryobridge.formats.relion.star_write import write_star

    write_star(path, [content[name] for name in content.names])


def _write_images(path: Path, content: Any) -> None:
    from cryobridge.formats.mrc_write import write_mrc_stack

    write_mrc_stack(path, content.images, content.header.pixel_size_A or 0.0)


# All that is in a coords_suffix_*.star.
_LINE_OF_STAR = re.compile(rb"\s*(\S[^\n\r]*\.star)\s*")
FORMATS: tuple[Format, ...] = (
    FileFormat(
        CS,
        "a cryoSPARC table",
        (".cs",),
        _is_cs,
        _read_with("cryosparc.cs", "open_cs"),
        _write_cs,
        lambda table: tuple(table.names),
    ),
    FileFormat(
        NPY, "a NumPy array", (".npy",), _is_npy, _read_with("arrays", "read_npy"), _write_with("arrays", "write_npy")
    ),
    FileFormat(
        PT, "a torch file", (".pt",), _is_pt, _read_with("arrays", "read_pt"), _write_with("arrays", "write_pt")
    ),
    FileFormat(
        NPZ,
        "a NumPy archive",
        (".npz",),
        _is_npz,
        _read_with("arrays", "read_npz"),
        _write_with("arrays", "write_npz"),
        tuple,
    ),
    FileFormat(
        MRC,
        "an MRC file",
        (".mrc", ".mrcs", ".map", ".st", ".rec", ".ccp4"),
        _is_mrc,
        _read_with("mrc", "open_mrc"),
        _write_images,
    ),
    FileFormat(
        PICKLE,
        "a pickle",
        (".pkl", ".pickle"),
        _is_pickle,
        _read_with("pickle_data", "load_pickle"),
        _write_with("pickles", "write_pickle"),
    ),
    FileFormat(
        STAR,
        "a STAR file",
        (".star",),
        _is_star,
        _read_with("relion.star", "open_star"),
        _write_star,
        lambda star: tuple(star[star.main].names),
    ),
    FileFormat(
        CSG,
        "a cryoSPARC result group",
        (".csg",),
        _is_csg,
        _read_with("cryosparc.csg", "read_csg"),
        _write_csg,
        lambda group: tuple(slot.name for slot in group.slots),
    ),
    FileFormat(
        LIST,
        "a list of stacks",
        (".txt",),
        _is_list,
        _read_with("image_list", "read_image_list"),
        _write_with("image_list", "write_image_list"),
    ),
)
BY_NAME = {item.name: item for item in FORMATS}
