"""Which columns several files have in common, and what becomes of the others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryobridge.errors import MissingDataError
from cryobridge.model.fields import FIELDS, absent_value
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from cryobridge.model.fields import Field, Program

# What RELION takes where a file does not say.
_RELION_DEFAULTS = {"rlnCtfDataAreCtfPremultiplied": 0.0, "rlnImageDimensionality": 2.0}
# Without these the rows of a file are of no use among the others.
_NEEDED = ("uid", "images", "ctf.defocus_u_A", "ctf.defocus_v_A", "ctf.defocus_angle_rad")
_N_NAMED = 8


@dataclass(frozen=True)
class SharedColumns:
    """The columns of several files as one.

    Attributes
    ----------
    names
        Those that are written, in the order of the first file.
    filled
        Value of those that some of the files lack, where their absence says as much.
    dropped
        Those that are left out.
    messages
        Which columns are filled in and left out.
    """

    names: tuple[str, ...]
    filled: Mapping[str, float] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()


def shared_columns(
    columns: Sequence[Sequence[str]],
    paths: Sequence[Path],
    labels: Sequence[str],
    program: Program,
    unlike: Mapping[str, str] | None = None,
) -> SharedColumns:
    """Return the columns of several files as one.

    Parameters
    ----------
    columns
        Those of each file.
    paths, labels
        The files, and how they are called in messages.
    program
        Whose files they are.
    unlike
        Columns that the files have in kinds that do not go together, with the reason.

    Raises
    ------
    MissingDataError
        If images, CTF or optics are not in all of the files, or in other columns.
    """
    unlike = {} if unlike is None else unlike
    sets = [set(names) for names in columns]
    names, filled = [], {}
    lost: dict[str, list[str]] = defaultdict(list)
    dropped: list[str] = []
    for name in dict.fromkeys(name for found in columns for name in found):
        lacking = [label for label, own in zip(labels, sets, strict=True) if name not in own]
        value = (_RELION_DEFAULTS if program == "relion" else {}).get(name, absent_value(name))
        if name in unlike or (lacking and value is None):
            lost[unlike.get(name, f"not in {' and '.join(lacking)}")].append(name)
            dropped.append(name)
            continue
        names.append(name)
        if lacking and value is not None:
            filled[name] = value
    _refuse_losses(dropped, sets, paths, labels, program)
    said: list[Message] = []
    if filled:
        shown = [f"{name} {value:g}" for name, value in filled.items()]
        said.append(note("absent-filled-in", f"not in all of the files, and filled in: {_some(shown)}"))
    if lost:
        reasons = [f"{_some(group)} ({reason})" for reason, group in lost.items()]
        said.append(warning("columns-dropped", f"not known of all rows, and left out: {'; '.join(reasons)}"))
    return SharedColumns(tuple(names), filled, tuple(dropped), tuple(said))


def _some(names: Collection[str]) -> str:
    shown = list(names)[:_N_NAMED]
    return ", ".join(shown) + (f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else "")


def _refuse_losses(
    dropped: Iterable[str], sets: Sequence[set[str]], paths: Sequence[Path], labels: Sequence[str], program: Program
) -> None:
    """Refuse files of which one lacks what the rows are of no use without, or has it in other columns."""
    for name in dropped:
        item = next((item for item in FIELDS if name in item.names(program)), None)
        if item is None:
            continue
        own_names = set(item.names(program))
        has = [bool(own & own_names) for own in sets]
        is_needed = item.name in _NEEDED or bool(item.needed_for)
        if all(has) and (is_needed or item.part == "poses") and not own_names.intersection(*sets):
            raise _in_other_columns(item, sets, paths, program)
        if is_needed and not all(has):
            without = has.index(False)
            other = labels[has.index(True)]
            raise MissingDataError(
                f"no {item.title} ({name}), which {other} has",
                path=paths[without],
                field=name,
                hint="Give a file that has it, or `cryobridge convert` this one with the values that it lacks.",
            )


def _in_other_columns(
    item: Field, sets: Sequence[set[str]], paths: Sequence[Path], program: Program
) -> MissingDataError:
    own = [next(name for name in item.names(program) if name in columns) for columns in sets]
    odd = next(place for place, name in enumerate(own) if name != own[0])
    return MissingDataError(
        f"{item.title}: {own[odd]}, where {paths[0].name} has {own[0]}",
        path=paths[odd],
        field=own[odd],
        hint="Convert one of them first, so that both have the same columns.",
    )
