"""One way to open particles: the files that belong together, as one table and as one particle set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.formats import registry
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.joining import open_cs_files, open_group, open_members
from cryobridge.formats.cryosparc.members import members_of_job
from cryobridge.formats.input_file import read_error
from cryobridge.formats.optics import KnownOptics
from cryobridge.formats.particle_files import NOTHING_KNOWN, ParticleFiles, Program
from cryobridge.formats.table import Table
from cryobridge.options import as_path, checked, made
from cryobridge.report import Message, distinct

if TYPE_CHECKING:
    import os

    from cryobridge.formats.mrc import MrcFile
    from cryobridge.model.particles import ParticleSet

KINDS = (
    "Give a .cs file (with its passthrough files), a .csg file, a cryoSPARC or RELION job folder, a particle STAR "
    "file, or a .mrcs stack with poses.pkl and ctf.pkl."
)
# Columns by which images are read, for `needs`.
IMAGES_AND_CTF = ("blob/path", "ctf/df1_A")
_CRYOSPARC_JOB: Final = "cryosparc job"  # `folders.CRYOSPARC_JOB`


def open_particles(
    path: str | os.PathLike[str],
    *more: str | os.PathLike[str],
    join: bool = True,
    needs: Sequence[str] = (),
    program: Program | None = None,
    pose: str | None = None,
    defaults: KnownOptics | None = None,
    from_ancestors: bool = False,
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
    from_ancestors
        Fetch groups of columns that cryoSPARC's particles lack, such as ``location``, from the jobs before theirs.

    Raises
    ------
    UsageError
        If it is of another kind, or the files do not go together.
    MissingDataError
        If files that were named have no uid in common, a folder has no particles, or no ancestor is known.
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
        paths[0], messages = _file_in_folder(named, kinds[0], program)
        kinds[0] = registry.identify_file(paths[0])
    found = _opened(paths, kinds, request)
    if from_ancestors:
        from cryobridge.formats.cryosparc.ancestor_columns import with_ancestors

        found = with_ancestors(found)
    return replace(
        found,
        path=named,
        messages=(*messages, *found.messages),
        pose=pose,
        defaults=defaults or NOTHING_KNOWN,
    )


def read(
    path: str | os.PathLike[str],
    *more: str | os.PathLike[str],
    join: bool = True,
    pose: str | None = None,
    defaults: Mapping[str, float] | None = None,
    from_ancestors: bool = False,
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
    from_ancestors
        Fetch groups of columns that cryoSPARC's particles lack, such as ``location``, from the jobs before theirs.

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
    fetch = checked(from_ancestors, bool, "from_ancestors")
    files = open_particles(named, *more, join=asked[0], pose=asked[1], defaults=known, from_ancestors=fetch)
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
                f"not a cryoSPARC file, but {_in_words(kind)}",
                path=path,
                hint="Give the .cs file, the .csg file or the job folder of the particles.",
            )
        raise UsageError(f"not a STAR file, but {_in_words(kind)}", path=path, hint="Give a STAR file of particles.")


def _in_words(kind: str) -> str:
    return registry.BY_NAME[kind].words if kind in registry.BY_NAME else kind


def _kind_of(path: Path, program: Program | None) -> str:
    """Return the format of a file, or the kind of a folder that has particles."""
    try:
        is_folder = path.is_dir()
    except OSError as error:  # job.json may name what is too long for a file system
        raise read_error(path, error) from error
    if not is_folder:
        return registry.identify_file(path)
    # Imported late: what it imports takes longer than opening a file.
    from cryobridge.formats.folder_files import kind_of_folder

    return kind_of_folder(path, program)


def _file_in_folder(folder: Path, kind: str, program: Program | None) -> tuple[Path, list[Message]]:
    from cryobridge.formats.folder_files import file_in_folder

    return file_in_folder(folder, kind, program)


def _opened(paths: list[Path], kinds: list[str], request: _Request) -> ParticleFiles:
    first = paths[0]
    if set(kinds) == {registry.CS}:
        request.refuse("cryosparc", first, "cs")
        return open_cs_files(first, paths[1:], join=request.join, needs=request.needs)
    if registry.CSG in kinds and set(kinds) <= {registry.CS, registry.CSG} and kinds.count(registry.CSG) == 1:
        request.refuse("cryosparc", first, "csg")
        group = paths[kinds.index(registry.CSG)]
        return open_group(group, [path for path in paths if path != group], needs=request.needs)
    if kinds[0] == _CRYOSPARC_JOB and set(kinds[1:]) <= {registry.CS}:
        return open_members(members_of_job(first), paths[1:], join=request.join, needs=request.needs)
    stacks = [item for item, kind in zip(paths, kinds, strict=True) if kind in {registry.MRC, registry.LIST}]
    if len(stacks) == 1 and set(kinds) <= {registry.MRC, registry.LIST, registry.PICKLE}:
        stack = stacks[0]
        request.refuse("pickles", stack, "mrc")
        from cryobridge.formats.stack_files import open_stack

        return open_stack(stack, [path for path in paths if path != stack])
    if len(paths) == 1 and kinds[0] == registry.STAR:
        return _open_star(first, request)
    if len(paths) == 1:
        raise UsageError(f"not a particle file, but {kinds[0]}", path=first, hint=KINDS)
    names = ", ".join(f"{path.name} ({kind})" for path, kind in zip(paths, kinds, strict=True))
    raise UsageError(f"no particle set can be made of {names}", hint=KINDS)


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
