"""The files of one set of particles: what opening them gives, whatever program they are of."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CombinedError, MissingDataError, UsageError
from cryobridge.formats.optics import KnownOptics
from cryobridge.formats.table import ColumnReader, Table, rows_of_file
from cryobridge.model.particles import ImageRefs, Labels, Origin, ParticleSet
from cryobridge.report import Message, part_of

if TYPE_CHECKING:
    from cryobridge.formats.cryosparc.csg import ResultGroup
    from cryobridge.formats.relion.star import StarBlock, StarFile

Program: TypeAlias = Literal["cryosparc", "relion", "pickles"]
Rows: TypeAlias = NDArray[np.int64]

NOTHING_KNOWN = KnownOptics()
TABLE_SUFFIXES = (".star", ".cs", ".csg")
# cryoSPARC's columns of sets that were expanded by symmetry, and the one that says of which particle a row is a copy.
EXPANDED = "sym_expand"
PARENT_UID = f"{EXPANDED}/src_uid"


@dataclass(frozen=True)
class FromAncestor:
    """Columns that were fetched from a job that the particles come from.

    Parameters
    ----------
    job
        Such as ``J3``.
    file
        Its `.cs` file.
    group
        The group of columns, such as ``location``.
    rows
        Particles that have them from there.
    """

    job: str
    file: Path
    group: str
    rows: int


@dataclass(frozen=True, eq=False)
class ParticleFiles:
    """The files of one set of particles; columns are read when they are asked for.

    Attributes
    ----------
    path
        What was named.
    program
        Whose files they are.
    files
        All that are read, the one that names the images first.
    members
        The tables, each with its row for every joined row, (n,), or None where they are the same; empty for pickles.
    table
        The columns of all of them: the rows that all have, in the order of the first. None for pickles.
    n_rows
        Rows of the file that was named: of the first, or of a passthrough file that was named in its place.
    group
        The result group that names them, or None.
    star
        The STAR file, or None.
    parts
        The pickles of a stack: ``poses``, ``ctf`` and ``indices``, as far as there are any.
    chosen
        The rows that an ind.pkl among the pickles chooses, or None.
    left_out
        How many rows of the named file are not among the joined ones, by reason.
    messages
        Which files were taken, those that could not be, and in what they contradict each other.
    sought
        Why nothing was found that belongs to a `.cs` file, as the end of a sentence; empty where something was.
    pose
        The alignment that poses are read from; None for the first.
    defaults
        Optics values for files that lack them.
    from_ancestors
        Columns that were fetched from jobs that the particles come from.
    """

    path: Path
    program: Program
    files: tuple[Path, ...]
    members: tuple[tuple[Table, Rows | None], ...]
    table: Table | None
    n_rows: int
    group: ResultGroup | None = None
    star: StarFile | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    chosen: Rows | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    sought: str = ""
    pose: str | None = None
    defaults: KnownOptics = NOTHING_KNOWN
    from_ancestors: tuple[FromAncestor, ...] = ()
    _counted: int = 0
    _read_pickles: Callable[[KnownOptics], ParticleSet] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.n_rows if self.table is None else self.table.n_rows

    @property
    def file_rows(self) -> Rows:
        """(n,) the row of the named file, counted from 0, for each joined row."""
        rows = self.members[self._counted][1] if self.members else None
        return np.arange(len(self)) if rows is None else rows

    @property
    def metadata(self) -> Path:
        """The file that names the images, from which they are looked for: the first of `files`."""
        return self.files[0]

    @cached_property
    def particles(self) -> ParticleSet:
        """The particles in the terms of the model; made when they are first asked for.

        Raises
        ------
        CryobridgeError
            If values can't be read, or contradict what the user says.
        """
        return self.read(self.defaults).with_origin(Origin(self))

    def read(self, defaults: KnownOptics) -> ParticleSet:
        """Return the particles, given other optics values for files that lack them; raises as `particles` does."""
        if self._read_pickles is not None:
            particles = self._read_pickles(defaults)
        elif self.star is not None:
            from cryobridge.formats.relion.particles import particles_from_star

            with rows_of_file(self.table):
                particles = particles_from_star(self.star, known=defaults, images=self._images)
        else:
            from cryobridge.formats.cryosparc.particles import particles_from_cs

            assert self.table is not None  # only pickles have none
            particles = particles_from_cs(self.table, pose_from=self.pose, known=defaults)
        return particles

    @property
    def columns(self) -> Table:
        """The table of files that have one.

        Raises
        ------
        UsageError
            If they are a stack and pickles.
        """
        if self.table is None:
            raise UsageError(
                "a stack of images, which has no columns", path=self.path, hint="Give a .star or .cs file."
            )
        return self.table

    def uid(self) -> NDArray[np.uint64] | None:
        """Return cryoSPARC's identity of each row, (n,), or None where there is none."""
        if self.program != "cryosparc" or "uid" not in self.columns:
            return None
        return self._uids("uid")

    def parent_uid(self) -> NDArray[np.uint64] | None:
        """Return the uid of the particle that each row is a copy of by symmetry expansion, (n,).

        A row that is no copy has its own; None where there are no copies.
        """
        if self.program != "cryosparc" or PARENT_UID not in self.columns:
            return None
        uid, parent = self.uid(), self._uids(PARENT_UID)
        return parent if uid is None or parent is None else np.where(parent == 0, uid, parent)

    def _uids(self, name: str) -> NDArray[np.uint64] | None:
        values = np.asarray(self.columns.read([name])[name])
        return values.view(np.uint64) if values.dtype.kind in "iu" and values.dtype.itemsize == 8 else None

    def images(self) -> ImageRefs | None:
        """Return the images of the rows, or None where no row says."""
        return self.particles.images if self.table is None else self._images

    @cached_property
    def _images(self) -> ImageRefs | None:
        """The images of rows of a table; their names are parsed once, which is as long as all else for RELION's."""
        assert self.table is not None
        if self.star is not None:
            from cryobridge.formats.relion.particles import parse_image_names

            block = self.star[self.star.main]
            with rows_of_file(self.table):
                return parse_image_names(block) if "rlnImageName" in block else None
        from cryobridge.formats.cryosparc.particles import images_of

        return images_of(ColumnReader(self.table))

    def image_files(self, kept: NDArray[np.bool_]) -> list[str]:
        """Return the distinct names of the files of the chosen rows' images, as they are written."""
        if self.star is not None:
            return _stacks_in(self.star[self.star.main], kept)
        names = self.columns.read(["blob/path"])["blob/path"] if "blob/path" in self.columns else None
        return [names.values[code] for code in np.unique(names.codes[kept])] if isinstance(names, Labels) else []

    def require_all_rows(self) -> None:
        """Raise where rows of the named file are lost by the join.

        Raises
        ------
        MissingDataError
            Then; the files that lack them are named.
        """
        absent = sum(self.left_out.values())
        if absent:
            others = ", ".join(table.path.name for table, _ in self.members[1:])
            raise MissingDataError(
                f"{part_of(absent, self.n_rows, 'uid')} not in {others}, which has columns that it lacks",
                path=self.metadata,
                field="uid",
                count=absent,
                hint=f"`cryobridge select {shlex.quote(str(self.path))} -o subset.cs` leaves these rows out.",
            )


@contextmanager
def naming_damage(files: ParticleFiles) -> Iterator[None]:
    """Have errors of the block name the result group that the particles come from where results were lost from it."""
    try:
        yield
    except (MissingDataError, UsageError, CombinedError) as error:
        for message in files.messages:
            if message.code == "slots-missing" and files.group is not None:
                text = f"{files.group.path}: {message.text}"
                error.add_hint(f"{text}. Export the group again from cryoSPARC, or give {message.where} by itself.")
        raise


def _stacks_in(block: StarBlock, kept: NDArray[np.bool_]) -> list[str]:
    if "rlnImageName" not in block:
        return []
    import pyarrow.compute as pc

    from cryobridge.formats.arrow import mask_to_arrow, numbers_to_arrow

    found: dict[str, None] = {}
    for chunk in block.texts("rlnImageName").filter(mask_to_arrow(kept)).chunks:  # some hundred times as fast as rows
        parts = pc.split_pattern(chunk, "@", max_splits=1)
        last = numbers_to_arrow(parts.offsets.to_numpy()[1:].astype(np.int64) - 1)
        found |= dict.fromkeys(parts.flatten().take(last).unique().to_pylist())
    return list(found)
