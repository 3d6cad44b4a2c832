"""One way to open particles: the files that belong together, as one table and as one particle set."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, option
from cryobridge.formats import registry
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.csg import read_csg, refuse_missing_members, slot_origin
from cryobridge.formats.cryosparc.join import JoinedTable, Matched, UidJoin
from cryobridge.formats.cryosparc.members import Members, files_beside, main_first, members_of, members_of_job
from cryobridge.formats.input_file import read_error, resolved
from cryobridge.formats.optics import KnownOptics
from cryobridge.formats.table import ColumnReader, Table, wide_texts
from cryobridge.model.particles import ImageRefs, Labels, Origin, ParticleSet
from cryobridge.options import as_path, checked, made
from cryobridge.report import Message, distinct, note, warning

if TYPE_CHECKING:
    import os

    from cryobridge.formats.cryosparc.csg import ResultGroup
    from cryobridge.formats.image_list import ImageStack
    from cryobridge.formats.mrc import MrcFile
    from cryobridge.formats.projects import Wanted
    from cryobridge.formats.relion.star import StarBlock, StarFile
    from cryobridge.formats.table import Values

Program: TypeAlias = Literal["cryosparc", "relion", "pickles"]
Rows: TypeAlias = NDArray[np.int64]

KINDS = (
    "Give a .cs file (with its passthrough files), a .csg file, a cryoSPARC or RELION job folder, a particle STAR "
    "file, or a .mrcs stack with poses.pkl and ctf.pkl."
)
NOT_JOINED = "uid not in the joined files"
# Columns by which images are read, for `needs`.
IMAGES_AND_CTF = ("blob/path", "ctf/df1_A")
_NOTHING_KNOWN = KnownOptics()
_CRYOSPARC_JOB: Final = "cryosparc job"  # `folders.CRYOSPARC_JOB`
_N_NAMED = 6
TABLE_SUFFIXES = (".star", ".cs", ".csg")
_WANTED: dict[Program | None, Wanted] = {
    None: "particles",
    "pickles": "particles",
    "cryosparc": "cryoSPARC particles",
    "relion": "RELION particles",
}


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
    defaults: KnownOptics = _NOTHING_KNOWN
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

            particles = particles_from_star(self.star, known=defaults)
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
        uid = np.asarray(self.columns.read(["uid"])["uid"])
        return uid.view(np.uint64) if uid.dtype.kind in "iu" and uid.dtype.itemsize == 8 else None

    def images(self) -> ImageRefs | None:
        """Return the images of the rows, or None where no row says."""
        if self.table is None:
            return self.particles.images
        if self.star is not None:
            from cryobridge.formats.relion.particles import parse_image_names

            block = self.star[self.star.main]
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
                f"{absent:,} of its {self.n_rows:,} uids are not in {others}, which has columns that it lacks",
                path=self.metadata,
                field="uid",
                count=absent,
                hint=f"`cryobridge select {shlex.quote(str(self.path))} -o subset.cs` leaves these rows out.",
            )


def open_particles(
    path: str | os.PathLike[str],
    *more: str | os.PathLike[str],
    join: bool = True,
    needs: Sequence[str] = (),
    program: Program | None = None,
    pose: str | None = None,
    defaults: KnownOptics | None = None,
) -> ParticleFiles:
    """Open particles, with the files that belong to them.

    A `.cs` file is joined on uid with what a result group (`.csg`) beside it or job.json names along with it; where
    neither does, with its passthrough file by their names. A file that lacks some of its uids leaves these rows out.
    A file that was not named by the user and can't be read, or has none of its uids, is passed over with a warning.

    Parameters
    ----------
    path
        A `.cs`, `.csg` or `.star` file, a stack of images, the folder of a cryoSPARC or RELION job, of a RECOVAR run,
        or of our own output.
    more
        `.cs` files to be joined with a `.cs` file, before others that are found; the pickles of a stack. Their order
        and the stack's do not matter.
    join
        False for a `.cs` file by itself.
    needs
        Names of columns, or what they start with, that are all that matters. A file that was found and lacks some
        uids is then joined only if it has one that the others lack.
    program
        Refuse files of another program.
    pose
        The alignment that poses are read from, such as ``alignments3D``; the first if not given.
    defaults
        Optics values for files that lack them.

    Raises
    ------
    UsageError
        If it is of another kind, or the files do not go together.
    MissingDataError
        If files that were named have no uid in common, or a folder has no particles.
    FormatError
        If a file that was named can't be read.

    Examples
    --------
    >>> files = open_particles("cryosparc/J4/J4_003_particles.cs")
    >>> [table.path.name for table, _ in files.members]
    ['J4_003_particles.cs', 'J4_passthrough_particles.cs']
    >>> files.particles
    ParticleSet(16 particles of 'J4_003_particles.cs': uid, images, optics, …)
    """
    paths = [as_path(item, "particles") for item in (path, *more)]
    named, request = paths[0], _Request(join, tuple(needs), program)
    messages: list[Message] = []
    kinds = [_kind_of(item, program) for item in paths]
    if kinds[0] not in registry.BY_NAME and kinds[0] != _CRYOSPARC_JOB:
        paths[0], messages = _file_in_folder(named, kinds[0], request)
        kinds[0] = registry.identify_file(paths[0])
    found = _opened(paths, kinds, request)
    return replace(
        found,
        path=named,
        messages=(*messages, *found.messages),
        pose=pose,
        defaults=defaults or _NOTHING_KNOWN,
    )


def read(
    path: str | os.PathLike[str],
    *more: str | os.PathLike[str],
    join: bool = True,
    pose: str | None = None,
    defaults: Mapping[str, float] | None = None,
) -> ParticleSet:
    """Read particles of any program, joined with the files that belong to them.

    Parameters
    ----------
    path
        A `.cs`, `.csg` or `.star` file, a stack of images, the folder of a cryoSPARC or RELION job, of a RECOVAR run,
        or of cryobridge's own output.
    more
        `.cs` files to be joined with a `.cs` file, before others that are found; the pickles of a stack.
    join
        False for a `.cs` file by itself.
    pose
        The alignment that poses are read from, such as ``alignments3D``; the first if not given.
    defaults
        Optics values for files that lack them, such as ``{"voltage_kV": 300, "pixel_size_A": 1.06}``.

    Returns
    -------
    ParticleSet
        One row a particle; what was joined or assumed is in its ``messages``.

    Raises
    ------
    UsageError
        If the files are of kinds that do not go together, or hold no particles.
    MissingDataError
        If a file that is needed is not there, or lacks what joins it with the others.
    FormatError
        If a file can't be read or is damaged.

    Examples
    --------
    >>> import cryobridge as cb
    >>> particles = cb.read("J4")
    >>> particles.poses.matrix.shape
    (16, 3, 3)
    """
    known = None if defaults is None else made(KnownOptics, checked(defaults, dict, "defaults"))
    named = as_path(path, "path")
    asked = checked(join, bool, "join"), None if pose is None else checked(pose, str, "pose")
    files = open_particles(named, *more, join=asked[0], pose=asked[1], defaults=known)
    particles = files.particles
    messages = distinct([*files.messages, *particles.messages])
    return replace(particles, messages=messages).with_origin(particles.origin)


def open_table(path: str | os.PathLike[str], block: str | None = None) -> Table:
    """Open a table as it is in its file; columns are read when they are asked for.

    Parameters
    ----------
    path
        A `.cs` or `.star` file; a `.csg` file or a job folder for the columns of all files that belong together.
    block
        The block of a STAR file; its main one if not given.

    Raises
    ------
    MissingDataError
        If there is no such block.
    FormatError
        If the file has no table.

    Examples
    --------
    >>> import cryobridge as cb
    >>> micrographs = cb.open_table("micrographs_ctf.star", "micrographs").to_pandas()
    """
    named = as_path(path, "path")
    kind = None if named.is_dir() else registry.identify_file(named)
    if kind == registry.CS:
        return open_cs(named)
    if kind != registry.STAR:
        return open_particles(named).columns
    from cryobridge.formats.relion.star import open_star

    star = open_star(named)
    name = star.main if block is None else checked(block, str, "block")
    if name not in star:
        raise MissingDataError(f"there is no data_{name} in it", path=named, hint=f"It has {', '.join(star.names)}.")
    return star[name]


def open_images(path: str | os.PathLike[str]) -> MrcFile:
    """Open an MRC file of images or a volume; pixels are mapped into memory, or read when they are asked for.

    Raises
    ------
    FormatError
        If it is no MRC file.

    Examples
    --------
    >>> import cryobridge as cb
    >>> file = cb.open_images("particles.mrcs")
    >>> file.images[0].shape
    (128, 128)
    """
    from cryobridge.formats.mrc import open_mrc

    return open_mrc(as_path(path, "path"))


@dataclass(frozen=True)
class _Request:
    join: bool
    needs: tuple[str, ...]
    program: Program | None

    def refuse(self, program: Program, path: Path, kind: str) -> None:
        if self.program in (None, program):
            return
        if self.program == "cryosparc":
            raise UsageError(
                f"not a cryoSPARC file, but {kind}",
                path=path,
                hint="Give the .cs file, the .csg file or the job folder of the particles.",
            )
        raise UsageError(f"not a STAR file, but {kind}", path=path, hint="Give a STAR file of particles.")


def _kind_of(path: Path, program: Program | None) -> str:
    """Return the format of a file, or the kind of a folder that has particles."""
    try:
        is_folder = path.is_dir()
    except OSError as error:  # job.json may name what is too long for a file system
        raise read_error(path, error) from error
    if not is_folder:
        return registry.identify_file(path)
    # Imported late: what it imports takes longer than opening a file.
    from cryobridge.formats import folders

    kind = folders.identify_folder(path)
    taken = {
        None: (folders.CRYOSPARC_JOB, folders.RELION_JOB, folders.RECOVAR_RESULT, folders.OWN_OUTPUT),
        "cryosparc": (folders.CRYOSPARC_JOB,),
        "relion": (folders.RELION_JOB, folders.OWN_OUTPUT),
        "pickles": (),
    }[program]
    if kind is None or kind not in taken:
        raise _refusal(path, program)
    return kind


def _refusal(folder: Path, program: Program | None) -> UsageError:
    from cryobridge.formats.projects import folder_refusal

    return folder_refusal(folder, _WANTED[program])


def _file_in_folder(folder: Path, kind: str, request: _Request) -> tuple[Path, list[Message]]:
    """Return the particle file in the folder of a RELION job, a RECOVAR run or our own output, and which it is."""
    from cryobridge.formats import folders

    if kind == folders.RELION_JOB:
        return _in_relion_job(folder, request)
    return _of_run(folder) if kind == folders.RECOVAR_RESULT else _in_own_output(folder, request)


def _opened(paths: list[Path], kinds: list[str], request: _Request) -> ParticleFiles:
    first = paths[0]
    if set(kinds) == {registry.CS}:
        request.refuse("cryosparc", first, "cs")
        return _open_cs(first, paths[1:], request)
    if registry.CSG in kinds and set(kinds) <= {registry.CS, registry.CSG} and kinds.count(registry.CSG) == 1:
        request.refuse("cryosparc", first, "csg")
        group = paths[kinds.index(registry.CSG)]
        return _open_csg(group, [path for path in paths if path != group], request)
    if kinds[0] == _CRYOSPARC_JOB and set(kinds[1:]) <= {registry.CS}:
        members = members_of_job(first)
        return _open_members(members, paths[1:], request)
    stacks = [item for item, kind in zip(paths, kinds, strict=True) if kind in {registry.MRC, registry.LIST}]
    if len(stacks) == 1 and set(kinds) <= {registry.MRC, registry.LIST, registry.PICKLE}:
        stack = stacks[0]
        request.refuse("pickles", stack, "mrc")
        return _open_stack(stack, [path for path in paths if path != stack])
    if len(paths) == 1 and kinds[0] == registry.STAR:
        return _open_star(first, request)
    if len(paths) == 1:
        raise UsageError(f"not a particle file, but {kinds[0]}", path=first, hint=KINDS)
    names = ", ".join(f"{path.name} ({kind})" for path, kind in zip(paths, kinds, strict=True))
    raise UsageError(f"no particle set can be made of {names}", hint=KINDS)


def _in_relion_job(folder: Path, request: _Request) -> tuple[Path, list[Message]]:
    from cryobridge.formats.relion.job import particles_in, read_relion_job

    job = read_relion_job(folder)
    path = particles_in(job)
    if path is None:
        raise _refusal(folder, request.program)
    number = job.last.number if job.last is not None and job.last.data == path else None
    last = "" if number is None else f", the last iteration ({number})"
    name = f"{folder.absolute().parent.name}/{folder.absolute().name}" if job.kind else folder.name
    messages = [note("result-chosen", f"{name}: the particles are those of {path.name}{last}", where=path)]
    return path, [*messages, *(replace(problem, severity="note") for problem in job.problems)]


def _of_run(folder: Path) -> tuple[Path, list[Message]]:
    from cryobridge.formats.recovar import open_recovar

    run = open_recovar(folder)
    path = run.particles_file
    if path is None:
        raise MissingDataError(
            "; ".join(map(str, run.particles.messages)) or "the run's particle file was not found",
            path=run.path,
            hint="Name the particle file that the run was given.",
        )
    if path.suffix not in TABLE_SUFFIXES:
        raise MissingDataError(
            f"the run was made from {path.name}, which has no metadata of particles",
            path=run.path,
            hint="Name the .star or .cs file of the same images.",
        )
    text = f"{folder.name}: the particles are those of {path.name}, which the run was made from"
    return path, [note("result-chosen", text, where=path), *run.particles.messages]


def _in_own_output(folder: Path, request: _Request) -> tuple[Path, list[Message]]:
    from cryobridge.formats.listing import list_folder
    from cryobridge.formats.own_output import read_own_output

    files = sorted(name for name in list_folder(folder).files if name.endswith(TABLE_SUFFIXES))
    if read_own_output(folder).kind != "other" or len(files) != 1:
        raise _refusal(folder, request.program)
    path = folder / files[0]
    return path, [note("result-chosen", f"{folder.name}: the particles are those of {path.name}", where=path)]


def _open_cs(path: Path, more: Sequence[Path], request: _Request) -> ParticleFiles:
    is_alone = not request.join or (more and _is_passthrough(path))
    return _open_members(Members(path, named=path) if is_alone else members_of(path), more, request)


def _is_passthrough(path: Path) -> bool:
    from cryobridge.formats.cryosparc.names import parse_cs_name

    return parse_cs_name(path.name).is_passthrough


def _open_members(members: Members, more: Sequence[Path], request: _Request) -> ParticleFiles:
    """Join a main file with the files that the user names, then with those that were found."""
    messages = list(members.messages)
    joining = _with_main(members, request, messages)
    taken = set() if members.named == members.main else {resolved(path) for path in (members.main, members.named)}
    for path in more:
        if resolved(path) not in taken:
            joining.add(open_cs(path), is_named=True)
            taken.add(resolved(path))
    for path in members.others if request.join else ():
        if resolved(path) not in taken:
            joining.add_found(path)
    table = joining.joined(members.group)
    return _files_of_cryosparc(members.named, table, members.group, (), messages, joining.why_alone or members.sought)


def _with_main(members: Members, request: _Request, messages: list[Message]) -> _Joining:
    """Start a join with the main file; with the passthrough file that was named where that has others' particles."""
    if members.main == members.named:
        return _Joining(open_cs(members.main), request.needs, messages)
    named = open_cs(members.named)
    try:
        joining = _Joining(open_cs(members.main), request.needs, messages)
        joining.add(named, is_named=True)
    except CryobridgeError as error:
        text = f"{members.main.name} beside it is not joined: {error}"
        messages[:] = [warning("file-not-joined", text, where=members.main)]
        return _Joining(named, request.needs, messages)
    return joining


def _open_csg(path: Path, more: Sequence[Path], request: _Request) -> ParticleFiles:
    """Join the members of a result group: each column from the file of its slot."""
    group = read_csg(path)
    refuse_missing_members(group)
    messages = list(group.problems)
    main, *others = [open_cs(member) for member in main_first(group)]
    joining = _Joining(main, request.needs, messages)
    for table in others:
        joining.add(table, is_named=True, may_be_left_out=True)
    known = {resolved(table.path) for table in (main, *others)}
    extra = [open_cs(item) for item in more if resolved(item) not in known]
    for table in extra:
        joining.add(table, is_named=True)
    joined = joining.joined(group, only_slots_of=[main, *others])
    return _files_of_cryosparc(main.path, joined, group, (path,), messages, "")


class _Joining:
    """Collects the tables that are joined with a main one.

    Parameters
    ----------
    main
        The table whose row order is kept.
    needs
        See `open_particles`.
    messages
        What is to be said is added to it.
    """

    def __init__(self, main: Table, needs: tuple[str, ...], messages: list[Message]) -> None:
        self.main = main
        self.why_alone = ""
        self._needs = needs
        self._messages = messages
        self._names = set(main.names)
        self._join: UidJoin | None = None
        self._taken: list[Matched] = []

    def add_found(self, path: Path) -> None:
        """Add a file that belongs to the main one; one that can't be read is passed over with a warning."""
        try:
            table = open_cs(path)
            if not set(table.names) <= self._names:
                self.add(table, is_named=False)
        except CryobridgeError as error:
            self._pass_over("file-not-read", f"{path.name} beside it is not joined: {error}", path, is_warning=True)

    def add(self, table: Table, *, is_named: bool, may_be_left_out: bool = False) -> None:
        """Add a table.

        Parameters
        ----------
        table
            The table.
        is_named
            Whether it is an error if it has none of the uids.
        may_be_left_out
            Whether it may be passed over although it was named, as a member of a group.
        """
        if self._join is None:
            self._join = UidJoin(self.main)
        match, n_rows, name = self._join.match(table), self.main.n_rows, table.path.name
        if n_rows and not match.n_rows:
            if is_named:
                raise _disjoint(self.main, [table])
            text = f"{name} beside it has none of its uids and is not joined"
            self._pass_over("file-not-joined", text, table.path)
            return
        is_optional = may_be_left_out or not is_named
        if match.n_rows < n_rows and is_optional and self._needs and not self._has_what_is_needed(table):
            text = f"{name} lacks {n_rows - match.n_rows:,} of its uids, and nothing of it is needed: it is not joined"
            self._pass_over("file-not-joined", text, table.path)
            return
        self._taken.append(match)
        self._names |= set(table.names)

    def joined(self, group: ResultGroup | None, only_slots_of: Sequence[Table] = ()) -> Table:
        """Return the tables as one; the main one itself where it is alone.

        Parameters
        ----------
        group
            Where it names the file of a slot, the columns are taken from that.
        only_slots_of
            Tables of which no other columns are taken.
        """
        tables = [self.main, *(match.table for match in self._taken)]
        if len(tables) == 1 and not only_slots_of:
            return self.main
        origin: dict[str, int] = {}
        for place, table in enumerate(tables):
            if table not in only_slots_of:
                for column in table.columns:
                    origin.setdefault(column.name, place)
        slots = {} if group is None else slot_origin(group, tables)
        order = {**slots, **origin} if only_slots_of else origin
        joined = (self._join or UidJoin(self.main)).joined(self._taken, {**order, **slots})
        if self.main.n_rows and not joined.n_rows:
            raise _disjoint(self.main, tables[1:])
        if tables[1:]:
            text = f"joined on uid with {', '.join(table.path.name for table in tables[1:])}"
            self._messages.append(note("files-joined", text, where=self.main.path))
        self._messages += joined.messages
        self._messages += _contradictions(joined, slots)
        return joined

    def _has_what_is_needed(self, table: Table) -> bool:
        lacking = [need for need in self._needs if not any(name.startswith(need) for name in self._names)]
        return any(name.startswith(need) for need in lacking for name in table.names)

    def _pass_over(self, code: str, text: str, path: Path, *, is_warning: bool = False) -> None:
        self._messages.append((warning if is_warning else note)(code, text, where=path))
        self.why_alone = f"{self.why_alone}; {text}" if self.why_alone else text


def _disjoint(main: Table, others: Sequence[Table]) -> MissingDataError:
    return MissingDataError(
        f"none of its uids is in {' and '.join(table.path.name for table in others)}",
        path=main.path,
        field="uid",
        count=main.n_rows,
        hint="Give the passthrough file of the same job.",
    )


def _files_of_cryosparc(
    named: Path,
    table: Table,
    group: ResultGroup | None,
    first: tuple[Path, ...],
    messages: Sequence[Message],
    sought: str,
) -> ParticleFiles:
    members = table.members if isinstance(table, JoinedTable) else ((table, None),)
    place = next((place for place, (member, _) in enumerate(members) if member.path == named), 0)
    counted = members[place][0]
    absent = max(0, counted.n_rows - table.n_rows)
    return ParticleFiles(
        named,
        "cryosparc",
        tuple(dict.fromkeys([*first, *(member.path for member, _ in members)])),
        tuple(members),
        table,
        counted.n_rows,
        group,
        left_out={NOT_JOINED: absent} if absent else {},
        messages=(*messages, *wide_texts(table)),
        sought="" if len(members) > 1 else sought,
        _counted=place,
    )


def _contradictions(joined: JoinedTable, decided: Mapping[str, int]) -> list[Message]:
    """Say which columns two files have with different values, where no group decides which is taken."""
    messages = []
    for table, rows in joined.members[1:]:
        shared = [name for name in table.names if name in joined and name not in {"uid", *decided}]
        differing = []
        for name in shared:
            if joined.source_of(name) is table:
                continue
            taken, other = joined.read([name])[name], table.read([name])[name]
            if rows is not None:
                other = other[rows] if isinstance(other, np.ndarray) else other.take(rows)
            if not _is_equal(taken, other):
                differing.append(name)
        if differing:
            more = f" and {len(differing) - _N_NAMED} more" if len(differing) > _N_NAMED else ""
            first = joined.path.name
            text = f"{table.path.name} has other values than {first} in {', '.join(differing[:_N_NAMED])}{more}"
            text = f"{text}: those of {first} are taken"
            messages.append(warning("values-contradict", text, where=table.path))
    return messages


def _is_equal(one: Values, other: Values) -> bool:
    a, b = (values if isinstance(values, np.ndarray) else values.to_numpy() for values in (one, other))
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


def with_columns_beside(files: ParticleFiles, columns: Sequence[str]) -> tuple[ParticleFiles, dict[Path, int]]:
    """Join cryoSPARC particles with a file beside them that has columns which they lack, whatever its name.

    Parameters
    ----------
    files
        The particles.
    columns
        The columns, all in one column group.

    Returns
    -------
    tuple
        The particles, joined where one file beside them has the columns for all of them; else as they are, and how many
        of the particles each file beside them has.

    Raises
    ------
    MissingDataError
        If several files have the columns; they are named.
    """
    if all(name in files.columns for name in columns):
        return files, {}
    beside = files_beside(files.columns, columns)
    if len(beside.fit) > 1:
        names = ", ".join(path.name for path in beside.fit[:_N_NAMED])
        raise MissingDataError(
            f"no {columns[0].partition('/')[0]} columns; {len(beside.fit)} files beside it have them: {names}",
            path=files.metadata,
            hint=f"Choose one with {option('passthrough')}.",
        )
    if not beside.fit:
        return files, beside.n_shared
    messages = list(files.messages)
    joining = _Joining(files.columns, (), messages)
    joining.add(open_cs(beside.fit[0]), is_named=True)
    table = joining.joined(None)
    assert isinstance(table, JoinedTable)  # two tables
    members = (*files.members, table.members[1])
    return replace(
        files, table=table, members=members, files=(*files.files, beside.fit[0]), messages=tuple(messages)
    ), {}


def _open_star(path: Path, request: _Request) -> ParticleFiles:
    from cryobridge.formats.relion.star import NO_PARTICLES, open_star
    from cryobridge.formats.relion.tomography import refuse_tomography

    star = open_star(path)
    refuse_tomography(star)
    request.refuse("relion", path, "star")
    if star.has_optics_alone:
        raise MissingDataError(NO_PARTICLES, path=path, hint="Give a STAR file that has particles.")
    block = star[star.main]
    return ParticleFiles(
        path, "relion", (path,), ((block, None),), block, block.n_rows, star=star, messages=star.messages
    )


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


_PICKLES = (
    "One poses.pkl (rotations (N, 3, 3), and shifts (N, 2)), one ctf.pkl (N, 9) and one ind.pkl (N,) are taken, each "
    "made for this stack."
)


def _open_stack(stack: Path, pickles: Sequence[Path]) -> ParticleFiles:
    """Put a stack and its pickles together; a stack alone is images of which no more is known."""
    from cryobridge.formats.image_list import read_image_stack
    from cryobridge.formats.mrc_header import decide_kind
    from cryobridge.formats.pickle_data import load_pickle
    from cryobridge.formats.pickles import classify_pickle, in_words, read_indices

    parts: dict[str, Path] = {}
    for path in pickles:
        value = load_pickle(path)
        kind = classify_pickle(value)
        if kind == "unknown":
            raise UsageError(f"neither poses nor CTF nor rows, but {in_words(value)}", path=path, hint=_PICKLES)
        if kind not in {"poses", "ctf", "indices"} or kind in parts:
            again = f", and so is {parts[kind].name}" if kind in parts else ""
            raise UsageError(f"this is {kind}{again}", path=path, hint="One poses.pkl, ctf.pkl and ind.pkl are taken.")
        parts[kind] = path
    images = read_image_stack(stack)
    messages = []
    if not pickles and images.path == images.headers[0].path:
        decided = decide_kind(images.headers[0])
        if decided.kind == "volume":
            raise UsageError(f"a volume: {decided.reason}", path=stack, hint="Give a stack of images.")
        if not decided.certain:
            text = f"{stack.name} is taken for a stack of images: {decided.reason}"
            messages.append(note("taken-for-stack", text, where=stack))
    n_rows = images.n_sections if parts.keys() & {"poses", "ctf"} else images.n_whole
    chosen = None if "indices" not in parts else read_indices(parts["indices"])
    if chosen is not None and chosen.max(initial=-1) >= n_rows:
        raise UsageError(
            f"row {chosen.max():,} is beyond the {n_rows:,} images of {stack.name}",
            path=parts["indices"],
            hint="Give the ind.pkl that was made for this stack.",
        )

    def read(known: KnownOptics) -> ParticleSet:
        if parts.keys() & {"poses", "ctf"}:
            from cryobridge.formats.particles_pickle import particles_from_pickles

            return particles_from_pickles(stack, parts.get("poses"), parts.get("ctf"), known=known)
        return _bare_stack(images, known)

    return ParticleFiles(
        stack,
        "pickles",
        (stack, *parts.values()),
        (),
        None,
        n_rows,
        parts=parts,
        chosen=chosen,
        messages=tuple(messages),
        _read_pickles=read,
    )


def _bare_stack(stack: ImageStack, known: KnownOptics) -> ParticleSet:
    """Return the images of a stack of which nothing else is known."""
    from cryobridge.formats.optics import fill_optics

    n = stack.n_whole
    optics, index = fill_optics(None, None, n, replace(known, box_px=stack.nx), stack.path)
    return ParticleSet(n, stack.path, images=stack.images(are_whole=True), optics=optics, optics_index=index)
