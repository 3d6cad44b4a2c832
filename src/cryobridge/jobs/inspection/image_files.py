"""Whether the image files that metadata name exist, and are long enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.image_search import ImageSearch, Remedy, name_some, suggest
from cryobridge.formats.mrc_header import read_header
from cryobridge.progress import Silent
from cryobridge.report import Message, counted, note, part_of, warning

if TYPE_CHECKING:
    from cryobridge.jobs.inspection.json_keys import ImageFilesKeys
    from cryobridge.model.particles import ImageRefs
    from cryobridge.progress import Reporter

# Names that are tried when a remedy is looked for; the rest of a project is laid out alike.
_N_TRIED = 200
_N_SHOWN = 5


@dataclass(frozen=True)
class ImageFiles:
    """The state of the image files of a particle set.

    Parameters
    ----------
    n_files, n_found
        Distinct files named, and how many of them are there.
    missing
        Names that resolve to no file.
    too_short
        Name, sections in the file, and highest index asked for (counted from 1).
    unreadable
        Name and what is wrong.
    remedy
        Options that would make missing names resolve, if some were found.
    """

    n_files: int
    n_found: int
    missing: tuple[str, ...]
    too_short: tuple[tuple[str, int, int], ...]
    unreadable: tuple[tuple[str, str], ...]
    remedy: Remedy | None

    @property
    def is_complete(self) -> bool:
        """Whether every image is there."""
        return not (self.missing or self.too_short or self.unreadable)

    def to_json(self) -> ImageFilesKeys:
        """Return the same as JSON-ready data."""
        return {
            "files": self.n_files,
            "found": self.n_found,
            "missing": list(self.missing),
            "too_short": [
                {"name": name, "sections": sections, "highest_index": highest}
                for name, sections, highest in self.too_short
            ],
            "unreadable": [{"name": name, "problem": problem} for name, problem in self.unreadable],
            "remedy": self.remedy.as_options() if self.remedy else None,
        }

    def summary(self) -> str:
        """Return how many are there, and whether they suffice."""
        return f"{self.n_found:,} of {self.n_files:,} found" + (", each long enough" if self.is_complete else "")

    def messages(self) -> tuple[Message, ...]:
        """Return what is wrong."""
        found = []
        if self.missing:
            text = f"{part_of(len(self.missing), self.n_files, 'image file')} missing: {name_some(self.missing)}"
            found.append(warning("images-not-found", text))
        if self.missing and self.remedy:
            text = f"{self.remedy.n_found} of them resolve with {self.remedy.as_options()}"
            found.append(note("images-found-with-options", text))
        found += [
            warning("images-too-short", f"{name} has {counted(sections, 'section')}, image {highest} is referred to")
            for name, sections, highest in self.too_short[:_N_SHOWN]
        ]
        found += [warning("images-not-read", f"{name}: {problem}") for name, problem in self.unreadable[:_N_SHOWN]]
        return tuple(found)


def check_image_files(images: ImageRefs, search: ImageSearch, reporter: Reporter | None = None) -> ImageFiles:
    """Look for every distinct image file and compare its length with the highest index referred to."""
    n_files = len(images.path.values)
    highest = np.full(n_files, -1, np.int64)
    np.maximum.at(highest, images.path.codes, images.index)
    missing: list[str] = []
    too_short: list[tuple[str, int, int]] = []
    unreadable: list[tuple[str, str]] = []
    reporter, search = reporter or Silent(), search.among(images.path.values)
    reporter.start("image files", n_files)
    for name, top in zip(images.path.values, highest.tolist(), strict=True):
        reporter.advance()
        path = search.resolve(name)
        if path is None:
            missing.append(name)
            continue
        try:
            sections = read_header(path).n_whole
        except FormatError as error:
            unreadable.append((name, error.message))
            continue
        if top >= sections:
            too_short.append((name, sections, top + 1))
    remedy = suggest(missing[:_N_TRIED], search.metadata, search.datadir) if missing else None
    return ImageFiles(n_files, n_files - len(missing), tuple(missing), tuple(too_short), tuple(unreadable), remedy)
