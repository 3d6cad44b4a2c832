"""What a finished file is known by later: its size and checksums tell whether it is still that file, and whole."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import open_input, read_input
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Where headers and the lists of archives lie: their bytes differ between any two files of one kind and size.
_END_BYTES = 1024
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """Size and checksums (CRC-32) of a file, taken while it was written.

    Parameters
    ----------
    n_bytes
        Its size.
    ends
        Checksum of its first and last 1024 bytes, which is looked at in no time.
    head_bytes
        So many bytes at its beginning are counted last, as writers know them last.
    checksum
        Of all its bytes.

    Examples
    --------
    >>> path = Path("particles.128.mrcs")
    >>> FileRecord.of(path).why_not(path) is None
    True
    """

    n_bytes: int
    ends: int
    head_bytes: int
    checksum: int

    @classmethod
    def written(cls, path: Path, head_bytes: int, body_bytes: int, body_checksum: int) -> FileRecord:
        """Return the record of a file whose body, which follows the head, was counted as it was written."""
        # Opened once: on a network disk each time asks a server.
        with open_input(path) as file:
            size = file.seek(0, os.SEEK_END)
            checksum = _checksum(file, head_bytes + body_bytes, size, body_checksum)
            return cls(size, _checksum_of_ends(file, size), head_bytes, _checksum(file, 0, head_bytes, checksum))

    @classmethod
    def of(cls, path: Path, head_bytes: int = 0) -> FileRecord:
        """Return the record of a file by reading it through."""
        return cls.written(path, head_bytes, 0, 0)

    def why_not(self, path: Path, *, read_through: bool = False, advance: Callable[[int], None] | None = None) -> str:
        """Say why a file is not the one that was written; an empty text if it is.

        Parameters
        ----------
        path
            The file.
        read_through
            Read all of it, rather than its ends.
        advance
            Called with numbers of bytes that were read through.
        """
        try:
            if not path.is_file():
                return "is missing"
            with open_input(path) as file:
                size = file.seek(0, os.SEEK_END)
                if size != self.n_bytes:
                    shorter = f"has {counted(size, 'byte')} of {self.n_bytes:,}"
                    return shorter if size < self.n_bytes else "is longer than it was"
                if _checksum_of_ends(file, size) != self.ends:
                    return "holds something else"
                if not read_through:
                    return ""
                checksum = _checksum(file, self.head_bytes, size, 0, advance)
                return "" if _checksum(file, 0, self.head_bytes, checksum) == self.checksum else "was changed"
        except OSError as error:
            return f"can't be read ({error.strerror or error})"


def _checksum_of_ends(file: IO[bytes], size: int) -> int:
    first = _checksum(file, 0, min(size, _END_BYTES), 0)
    return _checksum(file, max(0, size - _END_BYTES), size, first)


def _checksum(file: IO[bytes], begin: int, end: int, start: int, advance: Callable[[int], None] | None = None) -> int:
    """Go on with a checksum over some bytes of a file."""
    checksum = start
    file.seek(begin)
    while (left := end - file.tell()) > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
        checksum = zlib.crc32(block, checksum)
        if advance is not None:
            advance(len(block))
    return checksum


# Where records lie: for Fourier stacks in the `.npz` beside them, for others in a hidden file.
RECORDS = "cryobridge_files"


def records_text(records: Mapping[str, FileRecord]) -> str:
    """Return records of files, which are named as seen from the output folder, as JSON."""
    return json.dumps({name: asdict(record) for name, record in records.items()})


def records_of(text: str) -> dict[str, FileRecord]:
    """Return the records that `records_text` wrote; none of what is no such text."""
    try:
        return {str(name): record_of(content) for name, content in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return {}


def record_of(content: Any) -> FileRecord:
    """Return the record that JSON-ready data describe.

    Raises
    ------
    ValueError, TypeError, KeyError
        If they don't.
    """
    return FileRecord(*(int(content[key]) for key in ("n_bytes", "ends", "head_bytes", "checksum")))


def state_path(stack: Path) -> Path:
    """Return where the state of a stack lies that can be gone on with."""
    return stack.with_name(f".{stack.name}.state.json")


def recorded_files(folder: Path) -> dict[Path, FileRecord]:
    """Return the files of an output folder of which a record was left, whether they are there or not."""
    from cryobridge.formats.arrays import read_npz

    found: dict[Path, FileRecord] = {}
    for path in sorted((folder / "fft").glob("particles_fourier_stack_*.npz")):
        try:
            arrays = read_npz(path)
            records = records_of(str(arrays[RECORDS])) if RECORDS in arrays else {}
        except FormatError:  # what is wrong with it is said where it is looked for
            continue
        found |= {folder / name: record for name, record in records.items() if not Path(name).is_absolute()}
    for path in sorted(folder.glob(".*.mrcs.state.json")):
        try:
            content = json.loads(read_input(path))["file"]
            found[path.with_name(path.name[1:].removesuffix(".state.json"))] = record_of(content)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
    return found
