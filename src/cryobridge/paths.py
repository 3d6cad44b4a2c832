"""Finding the image files that metadata name."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# How far above the metadata file a project folder is looked for.
_MAX_LEVELS_UP = 4


@dataclass(frozen=True)
class ImageSearch:
    """Where image files are looked for.

    Without options a name is tried as it stands: beside the metadata file when it starts with cryoSPARC's ``>``,
    else from the working directory, then from the folders above the metadata file, nearest first (a cryoSPARC
    name starts at the project folder, which is above the job's; a RELION name likewise).

    Parameters
    ----------
    metadata
        The file that holds the names.
    folder
        Look for the bare file name in this folder only (CryoLike's ``folder_mrc``).
    datadir
        Look for the name, after `strip_prefix`, below this folder only.
    strip_prefix
        Leading part to take off each name that starts with it.
    """

    metadata: Path
    folder: Path | None = None
    datadir: Path | None = None
    strip_prefix: str | None = None

    def candidates(self, name: str) -> Iterator[Path]:
        """Yield the places where a name may lie, in the order in which they are tried."""
        beside_metadata = name.startswith(">")
        relative = self._stripped(name.removeprefix(">"))
        if self.folder is not None:
            yield self.folder / relative.name
        elif self.datadir is not None:
            yield self.datadir / (relative.relative_to("/") if relative.is_absolute() else relative)
        elif relative.is_absolute():
            yield relative
        elif beside_metadata:
            yield self.metadata.parent / relative
        else:
            yield relative
            yield from (folder / relative for folder in folders_above(self.metadata))

    def resolve(self, name: str) -> Path | None:
        """Return the first candidate that is a file, or None."""
        return next((path for path in self.candidates(name) if _is_file(path)), None)

    def _stripped(self, name: str) -> Path:
        path = Path(name)
        if self.strip_prefix and path.is_relative_to(self.strip_prefix):
            return path.relative_to(self.strip_prefix)
        return path


def folders_above(path: Path) -> list[Path]:
    """Return the folder of a file and those above it, nearest first."""
    folder = Path(os.path.normpath(path.absolute())).parent
    return [folder, *folder.parents][: _MAX_LEVELS_UP + 1]


@dataclass(frozen=True)
class Remedy:
    """Options that would make missing names resolve."""

    datadir: Path
    strip_prefix: str | None
    n_found: int

    def as_options(self) -> str:
        """Return the options as they are typed."""
        strip = ["--strip-prefix", self.strip_prefix] if self.strip_prefix else []
        return shlex.join(["--datadir", str(self.datadir), *strip])


def suggest(names: Iterable[str], metadata: Path, extra_folders: Iterable[Path] = ()) -> Remedy | None:
    """Find the ``--datadir`` and ``--strip-prefix`` that make the most of these names resolve.

    Tried are the folders above the metadata file, the working directory and `extra_folders`, each with every
    leading part of a name taken off.

    Returns
    -------
    Remedy or None
        None where nothing resolves.
    """
    bases = list(dict.fromkeys([*extra_folders, Path(), *folders_above(metadata)]))
    found: Counter[tuple[Path, str]] = Counter()
    for name in names:
        parts = Path(name.removeprefix(">")).parts
        for cut in range(len(parts)):
            rest = Path(*parts[cut:])
            prefix = str(Path(*parts[:cut])) if cut else ""
            for base in bases if not rest.is_absolute() else ():
                if _is_file(base / rest):
                    found[base, prefix] += 1
    if not found:
        return None
    (datadir, strip_prefix), n_found = found.most_common(1)[0]
    return Remedy(datadir, strip_prefix or None, n_found)


def _is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file system takes names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
