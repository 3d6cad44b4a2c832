"""The folder of a demo project: it must be new or empty, or marked as a demo project that may be replaced."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, OutputExistsError
from cryobridge.formats.atomic import atomic_path, leftovers, read_error
from cryobridge.jobdir import make_folder, require_space

if TYPE_CHECKING:
    from pathlib import Path

MARKER = "cryobridge_demo.json"
_KIND = "cryobridge demo project"
_MAX_MARKER_BYTES = 1 << 16


def check_folder(folder: Path, n_bytes: int, *, overwrite: bool) -> None:
    """See whether a demo project of so many bytes can go to a folder; nothing is changed.

    Parameters
    ----------
    folder
        Where it shall be.
    n_bytes
        How large it will be.
    overwrite
        Whether a demo project that is there may be removed.

    Raises
    ------
    OutputExistsError
        If the folder is not empty, unless it is a demo project and ``overwrite`` is set.
    CryobridgeError
        If the folder can't be read, or the disk has too little space.
    """
    n_entries = len(_entries(folder))
    if n_entries:
        if not _is_demo(folder):
            raise OutputExistsError(
                f"the folder holds {n_entries} files or folders and is no demo project; it is left as it is",
                path=folder,
                hint="Choose a folder that is new or empty.",
            )
        if not overwrite:
            raise OutputExistsError(
                "a demo project is there already",
                path=folder,
                hint="Choose another folder, or ask for overwriting, which removes everything in this one.",
            )
    # What overwriting sets free is not counted on.
    require_space(folder, n_bytes, "Choose a folder on another disk, or ask for fewer micrographs.")


def prepare_folder(folder: Path, description: dict[str, int | float | str]) -> None:
    """Make the folder, or empty one that `check_folder` has let pass, and mark it.

    The marker is the last to be removed and the first to be written, so that what an interrupted run leaves
    behind is still known as a demo project.

    Parameters
    ----------
    folder
        Where the project shall be.
    description
        What it was made with, for the marker.

    Raises
    ------
    CryobridgeError
        If the operating system refuses.
    """
    entries = _entries(folder)
    if entries and not _is_demo(folder):
        raise OutputExistsError(
            "files appeared in the folder meanwhile", path=folder, hint="Choose a folder that is new or empty."
        )
    try:
        for entry in sorted(entries, key=lambda entry: entry.name == MARKER):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise CryobridgeError(
            f"{error.filename or 'its content'} can't be removed ({error.strerror})",
            path=folder,
            hint="Check that you may write there, or choose another folder.",
        ) from error
    make_folder(folder)
    with atomic_path(folder / MARKER) as temporary:
        temporary.write_text(json.dumps({"kind": _KIND, **description}, indent=2) + "\n", encoding="utf-8")


def _entries(folder: Path) -> list[Path]:
    try:
        # A marker that a killed run had not finished is nobody's file.
        unfinished = leftovers(folder, MARKER.removesuffix(".json"))
        return [path for path in folder.iterdir() if path not in unfinished]
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise OutputExistsError("a file of that name is there", path=folder, hint="Choose another name.") from error
    except OSError as error:
        raise read_error(folder, error) from error


def _is_demo(folder: Path) -> bool:
    marker = folder / MARKER
    try:
        if marker.is_symlink() or marker.stat().st_size > _MAX_MARKER_BYTES:
            return False
        content = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("kind") == _KIND
