"""What micrographs and movies are called in RELION, and where their files lie.

RELION compares names of micrographs after the job's folder, ``MotionCorr/job002/``, and stops at names without one that
differ. So files lie in a folder that is called like a job's.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cryobridge.errors import UsageError
from cryobridge.formats.relion.job import JOB_KINDS, PIPELINE, as_named
from cryobridge.jobs.links import as_seen_from
from cryobridge.jobs.micrographs.matching import bare_stem, full_stem, whole_name
from cryobridge.jobs.micrographs.project import project_of

if TYPE_CHECKING:
    from collections.abc import Sequence

MICROGRAPHS, MOVIES = "Micrographs", "Movies"
# Behind the names of micrographs without dose weighting.
NO_DW = "_noDW"
# What RELION takes for a job's folder.
_JOB = re.compile(r"job\d{3,9}")
_OWN_JOB = "MotionCorr/job001"
_FIRST_JOB = "job001"
# Where the folders of files may lie in an output folder, as `place_of` has it.
FILE_FOLDERS = (".", _FIRST_JOB, _OWN_JOB)
# What cryoSPARC's motion correction puts behind the name of a movie.
_ALIGNED = re.compile(r"_(?:patch|rigid)_aligned(?:_doseweighted)?$")
# RELION tells stacks, which movies are, from volumes by their suffix.
_SUFFIXES = {".mrc": ".mrcs"}


@dataclass(frozen=True)
class Place:
    """Where the output is, as RELION sees it.

    Parameters
    ----------
    folder
        The output folder, with the lists.
    project
        RELION's project; the output folder itself where it is in none.
    files
        The folder of the files, called like a job's.
    """

    folder: Path
    project: Path
    files: Path
    _names: dict[Path, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def is_own_project(self) -> bool:
        """Whether the output folder is a project of its own."""
        return as_named(self.folder) == as_named(self.project)

    def name(self, path: Path) -> str:
        """Return a path as RELION names it, which starts at its project."""
        folder = path.parent
        if folder not in self._names:  # thousands of files lie in a few folders
            name = as_seen_from(folder, self.project)
            self._names[folder] = "" if name == "." else f"{name.rstrip('/')}/"
        return f"{self._names[folder]}{path.name}"


def place_of(folder: Path, relion_project: Path | None) -> Place:
    """Return where the files of an output folder go.

    The RELION project is the one that is given, else the nearest at or above the folder; where there is none, a folder
    such as ``MotionCorr/job002`` lies in a project, and any other is one.

    Raises
    ------
    UsageError
        If it is the folder of a RELION project that has jobs, or called like a file.
    MissingDataError
        If the project that is given is not there.
    """
    if folder.suffix in (".star", ".cs", ".csg") and not folder.is_dir():
        example = folder.with_suffix("") / "MotionCorr/job002"
        raise UsageError(
            "a folder is written, with RELION's lists in it", path=folder, hint=f"Give a folder, such as {example}."
        )
    own = as_named(folder)
    project = project_of(folder, relion_project)
    if project is None and _JOB.fullmatch(own.name) and own.parent.name in JOB_KINDS:
        project = own.parents[1]
    if project is None:
        return Place(folder, folder, folder / _OWN_JOB)
    if as_named(project) == own and (own / PIPELINE).exists():
        example = folder / "MotionCorr/job002"
        raise UsageError(
            "this is a RELION project itself", path=folder, hint=f"Give a folder for a job in it, such as {example}."
        )
    inner = own.relative_to(project).parts if own.is_relative_to(project) else ()
    has_job = any(_JOB.fullmatch(part) for part in inner[1:])
    return Place(folder, project, folder if has_job else folder / _FIRST_JOB)


def short_names(names: Sequence[str]) -> list[str]:
    """Return a short name for each of some files, without folder, suffix and cryoSPARC's uid; none is used twice.

    Dots and spaces become underscores, since RELION cuts names at them. Names that would be alike keep their uid,
    or get their folders or a number.

    Examples
    --------
    >>> short_names(["J2/motioncorrected/000000000000000000011_a.b_patch_aligned_doseweighted.mrc"])
    ['a_b']
    """
    found = [_ALIGNED.sub("", bare_stem(name)) for name in names]
    # Whole, so that they are still known for the same micrographs as cryoSPARC's.
    for longer in (full_stem, whole_name):
        counts = Counter(found)
        found = [short if counts[short] == 1 else longer(name) for name, short in zip(names, found, strict=True)]
    return _numbered(found)


def _numbered(names: list[str]) -> list[str]:
    """Return names of which none is used twice: as with "a.b" and "a_b" in one folder, which are one word alike."""
    used, numbered = set(names), []
    seen: set[str] = set()
    for name in names:
        new, number = name, 1
        while new in seen or (number > 1 and new in used):
            number += 1
            new = f"{name}_{number}"
        seen.add(new)
        numbered.append(new)
    return numbered


def movie_suffix(name: str) -> str:
    """Return the suffix under which RELION reads a movie.

    Examples
    --------
    >>> movie_suffix("a.mrc"), movie_suffix("a.tiff"), movie_suffix("a.eer")
    ('.mrcs', '.tiff', '.eer')
    """
    suffix = PurePosixPath(name).suffix
    return _SUFFIXES.get(suffix.lower(), suffix)
