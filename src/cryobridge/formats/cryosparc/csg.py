"""cryoSPARC result groups (`.csg`): a YAML file that names, for each slot, the `.cs` file with its columns."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UnsafeFileError
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.image_search import as_given
from cryobridge.formats.input_file import read_error, read_input, readable_size
from cryobridge.formats.listing import int_of, is_there, object_of, text_of
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryobridge.formats.table import Table

# A group has a few dozen slots of some hundred bytes.
_MAX_BYTES = 256 << 10
# The group of columns that the user adds, which cryoSPARC does not know.
OWN_GROUP = "labels"
_JOB_FOLDER = re.compile(r"J\d+")
_CLASS_SLOT = re.compile(r"class_\d+$")
_MODE_SLOT = re.compile(r"components_mode_\d+")


@dataclass(frozen=True)
class Slot:
    """A group of columns such as ``blob`` or ``alignments3D``, and the file that holds it.

    Parameters
    ----------
    name
        What comes before the ``/`` of its columns' names.
    type
        cryoSPARC's type of it, such as ``particle.blob``.
    metafile
        The `.cs` file, as a path that need not exist.
    written
        The same as the group spells it.
    num_items
        Rows that the file should have, or None where it is unknown.
    """

    name: str
    type: str
    metafile: Path
    written: str
    num_items: int | None


@dataclass(frozen=True)
class ResultGroup:
    """What a `.csg` file says.

    Parameters
    ----------
    kind
        ``particle``, ``exposure``, ``volume``, ``template``, ``mask`` …
    version
        The cryoSPARC version that wrote it.
    created
        When it was written, as text.
    problems
        Members that are missing or of another length than promised, in sentences.
    """

    path: Path
    name: str
    title: str
    description: str
    kind: str
    version: str
    created: str
    slots: tuple[Slot, ...]
    problems: tuple[Message, ...] = ()

    @property
    def members(self) -> tuple[Path, ...]:
        """The `.cs` files, each once, in the order of the slots."""
        return tuple(dict.fromkeys(slot.metafile for slot in self.slots))


def read_csg(path: str | os.PathLike[str]) -> ResultGroup:
    """Read a result group and check its members' headers.

    A name that starts with ``>`` is relative to the folder of the `.csg`, any other to the project's folder,
    which is the parent of the job's (``J42``).

    Raises
    ------
    FormatError
        If it is not a result group.
    UnsafeFileError
        If it is built to blow up in memory.
    """
    path = Path(path)
    content = _load_yaml(path)
    results = content.get("results")
    if not isinstance(results, dict) or not results:
        raise FormatError(
            "not a result group: it has no results", path=path, field="results", hint="Export it again from cryoSPARC."
        )
    if not content.get("version"):
        raise FormatError(
            "damaged: it ends without its version, which stands last, so that results may be missing",
            path=path,
            field="version",
            hint="Copy it again, or export it again from cryoSPARC; a .cs file can be given by itself.",
        )
    head = object_of(content, "group")
    slots = tuple(_slot(path, str(name), entry) for name, entry in results.items())
    return ResultGroup(
        path,
        text_of(head, "name"),
        text_of(head, "title"),
        text_of(head, "description"),
        text_of(head, "type"),
        str(content.get("version") or ""),
        str(content.get("created") or ""),
        slots,
        _check_members(slots),
    )


def names_file(path: Path, name: str) -> bool:
    """Whether a `.csg` file may name a `.cs` file; one that is cut or can't be read may name any.

    It is a look at the bytes, for the many groups of a job that are about something else.
    """
    try:
        if readable_size(path) > _MAX_BYTES:
            return True
        content, written = read_input(path), os.fsencode(name)
    except (OSError, ValueError):  # the name may be one that no file system takes
        return True
    is_whole = b".cs" in content and b"\nversion:" in content
    return written in content or not is_whole


def slot_origin(group: ResultGroup, tables: Sequence[Table]) -> dict[str, int]:
    """Return the place of the table that each column of a group is taken from: the file of its slot."""
    places = {table.path: place for place, table in enumerate(tables)}
    origin = {"uid": 0}
    for slot in group.slots:
        if slot.metafile in places:
            place, prefix = places[slot.metafile], f"{slot.name}/"
            origin |= {column.name: place for column in tables[place].columns if column.name.startswith(prefix)}
    return origin


def refuse_missing_members(group: ResultGroup) -> None:
    """Refuse a group that names files which are not there.

    Raises
    ------
    MissingDataError
        Then.
    """
    missing = [member for member in group.members if not is_there(member)]
    if missing:
        raise MissingDataError(
            f"names files that do not exist: {', '.join(str(member) for member in missing)}",
            path=group.path,
            field="metafile",
            count=len(missing),
            hint="Copy the .cs files of the group along with the .csg, or give the .cs file itself.",
        )


def slot_types(columns: Iterable[str], kind: str = "particle") -> dict[str, str]:
    """Return cryoSPARC's type of each slot that columns make up, such as ``particle.blob`` for ``blob/path``.

    Slots that come once for each class or mode (``alignments_class_0``, ``components_mode_2``) share the type of their
    kind. Labels of the user are none.
    """
    slots = dict.fromkeys(name.partition("/")[0] for name in columns if "/" in name)
    slots.pop(OWN_GROUP, None)
    return {slot: f"{kind}.{_slot_kind(slot)}" for slot in slots}


def _slot_kind(slot: str) -> str:
    if _CLASS_SLOT.search(slot):
        return "alignments3D"
    return "components" if _MODE_SLOT.fullmatch(slot) else slot


def write_csg(
    path: str | os.PathLike[str],
    slots: Mapping[str, tuple[str, str]],
    num_items: int,
    *,
    name: str = "particles",
    title: str = "",
    description: str = "",
    kind: str = "particle",
    version: str = "v4.4.1",
) -> None:
    """Write a result group in the form that cryoSPARC's "Import Result Group" takes.

    Parameters
    ----------
    path
        The `.csg` to write or replace.
    slots
        Type (``particle.blob``) and `.cs` file name by slot. The files lie beside the `.csg`.
    num_items
        Rows of each file; cryoSPARC refuses a group in which they differ.
    version
        The cryoSPARC version to name; later ones read it too.

    Raises
    ------
    ValueError
        If a file name has a folder in it, or there is no slot.
    """
    path = Path(path)
    for slot, (_, file_name) in slots.items():
        if file_name in {"", ".."} or Path(file_name).name != file_name:
            raise ValueError(f"slot {slot}: {file_name!r} is not the name of a file beside {path.name}")
    if not slots:
        raise ValueError("a result group has at least one slot")
    content = {
        "created": datetime.now(),
        "group": {"description": description, "name": name, "title": title or name, "type": kind},
        "results": {
            slot: {"metafile": f">{file_name}", "num_items": num_items, "type": type_name}
            for slot, (type_name, file_name) in slots.items()
        },
        "version": version,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        if readable_size(path) > _MAX_BYTES:
            raise FormatError(
                f"larger than {_MAX_BYTES >> 10} KiB, which no result group is",
                path=path,
                hint="Check that this is a .csg file.",
            )
        text = read_input(path).decode("utf-8")
        _refuse_nested_aliases(path, text)
        content = yaml.safe_load(text)
    except CryobridgeError:
        raise
    except OSError as error:
        raise read_error(path, error) from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"not UTF-8 text: byte {error.start:,} begins no character",
            path=path,
            hint="Export it again from cryoSPARC, or save it as UTF-8.",
        ) from error
    except yaml.constructor.ConstructorError as error:
        raise UnsafeFileError(
            f"asks for more than plain data ({error.problem})", path=path, hint="Export it again from cryoSPARC."
        ) from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        raise FormatError(
            f"not YAML that can be read ({type(error).__name__})", path=path, hint="Export it again from cryoSPARC."
        ) from error
    if not isinstance(content, dict):
        raise FormatError("not a result group: it holds no mapping", path=path, hint="Check that this is a .csg file.")
    return content


def _refuse_nested_aliases(path: Path, text: str) -> None:
    """Refuse aliases of lists and mappings, out of which a small file can unfold to a huge one.

    An alias of a single text or number (YAML writers make them for repeated values) is harmless.
    """
    scalars = set()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.ScalarEvent) and event.anchor:
            scalars.add(event.anchor)
        if isinstance(event, yaml.AliasEvent) and event.anchor not in scalars:
            raise UnsafeFileError(
                "holds aliases of lists or mappings, which can unfold without bound",
                path=path,
                hint="cryoSPARC writes none; export the group again.",
            )


def _slot(path: Path, name: str, entry: object) -> Slot:
    written = text_of(entry, "metafile") if isinstance(entry, dict) else ""
    if not isinstance(entry, dict) or not written.removeprefix(">") or "\0" in written:
        raise FormatError("the slot names no metafile", path=path, field=f"results/{name}")
    return Slot(name, text_of(entry, "type"), _resolve(path, written), written, int_of(entry.get("num_items")))


def _resolve(path: Path, written: str) -> Path:
    if written.startswith(">"):
        return path.parent / written[1:]
    return locate_in_project(path.parent, written)


def locate_in_project(folder: Path, written: str) -> Path:
    """Return the path of a file that is named relative to the project's folder.

    Parameters
    ----------
    folder
        The job's folder.
    written
        The name, such as ``J42/J42_005_particles.cs``.

    Returns
    -------
    pathlib.Path
        Where it should be. If it is not there but ``folder`` has a file of that name, then that one: this is
        how a job looks that was copied out of its project.
    """
    proper = project_folder(folder) / written
    beside = folder / Path(written).name
    return beside if not is_there(proper) and is_there(beside) else proper


def project_folder(folder: Path) -> Path:
    """Return the project's folder: the parent of the nearest folder named ``J`` and a number, else the parent."""
    absolute = folder.absolute()
    jobs = (candidate for candidate in (absolute, *absolute.parents) if _JOB_FOLDER.fullmatch(candidate.name))
    return as_given(next(jobs, absolute).parent, folder)


def _check_members(slots: tuple[Slot, ...]) -> tuple[Message, ...]:
    problems: list[Message] = []
    for member in dict.fromkeys(slot.metafile for slot in slots):
        own = [slot for slot in slots if slot.metafile == member]
        names = ", ".join(slot.name for slot in own)
        if not is_there(member):
            problems.append(warning("file-not-found", f"{member} does not exist (slots {names})", where=member))
            continue
        try:
            table = open_cs(member)
        except FormatError as error:
            problems.append(warning("file-not-read", f"{error} (slots {names})", where=member))
            continue
        problems += [
            warning(
                "rows-differ",
                f"Slot {slot.name} should have {counted(slot.num_items, 'row')}; {member.name} has {table.n_rows:,}",
                where=member,
            )
            for slot in own
            if slot.num_items is not None and slot.num_items != table.n_rows
        ]
        problems += [
            warning(
                "columns-not-found",
                f"{member.name} has no column {slot.name}/…, which the group promises",
                where=member,
            )
            for slot in own
            if not any(name.startswith(f"{slot.name}/") for name in table.names)
        ]
    problems += _without_slot(slots)
    if len({slot.num_items for slot in slots}) > 1:
        text = "The slots differ in num_items; cryoSPARC refuses to import such a group"
        problems.append(warning("slots-differ", text))
    return tuple(problems)


def _without_slot(slots: tuple[Slot, ...]) -> list[Message]:
    """Warn of columns in the members that no slot speaks of: results were lost from the group."""
    named = {slot.name for slot in slots}
    problems = []
    for member in dict.fromkeys(slot.metafile for slot in slots):
        try:
            own = slot_types(open_cs(member).names) if is_there(member) else {}
        except FormatError:
            continue
        lost = [name for name in own if name not in named]
        if lost:
            text = f"the group is damaged: it names no {', '.join(lost)}, which {member.name} has; they are not read"
            problems.append(warning("slots-missing", text, where=member))
    return problems
