"""The jobs that a cryoSPARC result was made from, nearest first, by what their job.json say (v4 and v5)."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.errors import CryobridgeError, FormatError, option
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.csg import project_folder
from cryobridge.formats.cryosparc.job import is_cryosparc_description
from cryobridge.formats.cryosparc.outputs import described_outputs
from cryobridge.formats.listing import is_there, list_of, object_of, objects_of, read_json, text_of
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Table

# Deeper trees than any project's; the search ends there, with a warning.
MAX_JOBS = 300
# How many are asked where they are only to be named in an error.
_QUICK = 40
# Folders above a file that its project's folder is looked for in.
_LEVELS_UP = 6
_JOB = re.compile(r"J[0-9]{1,9}")
_DESCRIPTION = "job.json"


@dataclass(frozen=True)
class AncestorJob:
    """A job of which particles come.

    Parameters
    ----------
    uid
        Such as ``J3``.
    folder
        Its folder.
    content
        Its job.json.
    """

    uid: str
    folder: Path
    content: dict[str, Any]

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """The jobs that it was made from, those of its particles first."""
        inputs = object_of(object_of(self.content, "spec"), "inputs")
        groups = [
            *objects_of(self.content, "input_slot_groups"),
            *(item for item in inputs.values() if isinstance(item, dict)),
        ]
        groups.sort(key=lambda group: text_of(group, "type") != "particle")
        connections = [item for group in groups for item in objects_of(group, "connections")]
        # A single slot may be of another job than the rest of the connection.
        slots = [slot for item in connections for key in ("slots", "results") for slot in objects_of(item, key)]
        uids = [text_of(item, "job_uid") for item in (*connections, *slots)]
        uids += [item for item in list_of(self.content, "parents") if isinstance(item, str)]
        return tuple(uid for uid in dict.fromkeys(uids) if _JOB.fullmatch(uid))

    def particle_files(self) -> tuple[Path, ...]:
        """Return the `.cs` files of its results of particles that are there, each once."""
        outputs = [item for item in described_outputs(self.folder, self.content) if item.kind == "particle"]
        files = [path for item in outputs for path in (item.main, *item.passthroughs) if path is not None]
        return tuple(path for path in dict.fromkeys(files) if is_there(path))


class Ancestry:
    """The jobs that particles come from.

    Parameters
    ----------
    files
        The particles. After the jobs that job.json leads to come those that the names of their images begin with, for
        files that lie in no job's folder, and where a job between was deleted.

    Attributes
    ----------
    messages
        Jobs that are missing, damaged or of another project; those that were met so far.
    """

    def __init__(self, files: ParticleFiles) -> None:
        self.messages: list[Message] = []
        self._files = files
        self._own = _job_around(files.metadata)

    @property
    def is_known(self) -> bool:
        """Whether there is a job to begin with."""
        return self._own is not None or bool(self._of_images)

    @cached_property
    def _of_images(self) -> tuple[Path, ...]:
        return _jobs_of_images(self._files)

    def jobs(self, most: int = MAX_JOBS) -> Iterator[AncestorJob]:
        """Yield them, the nearest first, each once.

        Parameters
        ----------
        most
            Stop after so many.
        """
        queue: deque[tuple[AncestorJob | None, Path]] = deque()
        seen: set[Path] = set()
        if self._own is not None:
            seen.add(self._own.folder)
            self._add_parents(self._own, queue, seen)
        n_read, has_images = 0, False
        while queue or not has_images:
            if not queue:
                has_images = True
                for folder in self._of_images:
                    self._add(None, folder, queue, seen)
                continue
            if n_read == most:
                text = f"only the nearest {most} of the jobs that the particles come from are looked at"
                self.messages.append(warning("ancestors-left-out", text))
                return
            child, folder = queue.popleft()
            n_read += 1
            job = self._read(child, folder)
            if job is not None:
                yield job
                self._add_parents(job, queue, seen)

    def tables(self, most: int = MAX_JOBS) -> Iterator[tuple[AncestorJob, Table]]:
        """Yield the tables of the results that are particles, the nearest job's first; headers only are read."""
        for job in self.jobs(most):
            for path in job.particle_files():
                try:
                    yield job, open_cs(path)
                except CryobridgeError as error:
                    self.messages.append(warning("file-not-read", f"{job.uid}: {error}", where=path))

    def _add_parents(self, job: AncestorJob, queue: deque[tuple[AncestorJob | None, Path]], seen: set[Path]) -> None:
        for uid in job.parents:
            self._add(job, job.folder.parent / uid, queue, seen)

    def _add(
        self, child: AncestorJob | None, folder: Path, queue: deque[tuple[AncestorJob | None, Path]], seen: set[Path]
    ) -> None:
        if folder not in seen:
            seen.add(folder)
            queue.append((child, folder))

    def _read(self, child: AncestorJob | None, folder: Path) -> AncestorJob | None:
        """Read a job; None, with a message, where that is not possible or it is another project's."""
        uid, of = folder.name, f", which {child.uid} was made from," if child is not None else ""
        path = folder / _DESCRIPTION
        if not is_there(path):
            text = f"{uid}{of} has no {_DESCRIPTION} in {folder.parent}: neither it nor what it was made from is known"
            self.messages.append(warning("ancestor-not-found", text, where=folder))
            return None
        try:
            job = _read_job(folder)
        except FormatError as error:
            self.messages.append(warning("file-not-read", f"{uid}: {error}", where=path))
            return None
        if job is None:
            text = f"{uid}{of} is no job of cryoSPARC's"
        elif text_of(job.content, "uid") not in {"", uid}:
            text = f"the folder {uid} has the {_DESCRIPTION} of {text_of(job.content, 'uid')}"
        elif child is not None and not _is_same_project(child, job):
            text = f"{uid}{of} is of project {text_of(job.content, 'project_uid')} here, not of the same"
        else:
            return job
        self.messages.append(warning("ancestor-not-taken", f"{text}: it is not looked at", where=path))
        return None


def _is_same_project(one: AncestorJob, other: AncestorJob) -> bool:
    named = {text_of(job.content, "project_uid") for job in (one, other)} - {""}
    return len(named) < 2


def _read_job(folder: Path) -> AncestorJob | None:
    """Read a job's description; None where that is not cryoSPARC's.

    Raises
    ------
    FormatError
        If it can't be read.
    """
    content = read_json(folder / _DESCRIPTION)
    return AncestorJob(folder.name, folder, content) if is_cryosparc_description(content) else None


def _job_around(path: Path) -> AncestorJob | None:
    """Return the job in whose folder a file lies, also in a folder of it; None where there is none."""
    start = path.absolute().parent
    inside = [folder for folder in (start, *start.parents) if folder.parent == project_folder(start)]
    for folder in dict.fromkeys((start, *inside)):
        try:
            job = _read_job(folder) if is_there(folder / _DESCRIPTION) else None
        except FormatError:
            continue
        if job is not None:
            return job
    return None


def _jobs_of_images(files: ParticleFiles) -> tuple[Path, ...]:
    """Return the folders of the jobs that the names of images begin with (J3/extract/a.mrc), those that are there."""
    images = files.images()
    if images is None:
        return ()
    names = dict.fromkeys(name.removeprefix(">").partition("/")[0] for name in images.path.without_unused().values)
    uids = [name for name in names if _JOB.fullmatch(name)][:MAX_JOBS]
    start = files.metadata.absolute().parent
    for project in (start, *start.parents[:_LEVELS_UP]):
        found = tuple(project / uid for uid in uids if is_there(project / uid / _DESCRIPTION))
        if found:
            return found
    return ()


def ancestor_with(files: ParticleFiles, group: str) -> str:
    """Say which job that particles come from has a group of columns that they lack, and how to have it; else nothing.

    A few job.json and headers are read, no rows: whether these are the same particles is not known.

    Parameters
    ----------
    files
        The particles.
    group
        Such as ``location``.
    """
    if files.program != "cryosparc" or files.table is None:
        return ""
    for job, table in Ancestry(files).tables(_QUICK):
        if any(name.startswith(f"{group}/") for name in table.names):
            return f"{job.uid} has {group}/* in {table.path.name}: {option('from_ancestors', True)} fetches it"
    return ""
