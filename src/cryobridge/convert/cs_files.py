"""Which `.cs` files make one set of particles, and what they contradict each other in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.formats.cryosparc.alignments import alignments_in
from cryobridge.formats.cryosparc.companions import companion_of
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.names import parse_cs_name

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.cryosparc.join import JoinedTable
    from cryobridge.formats.table import Table, Values

_N_NAMED = 6


@dataclass(frozen=True)
class CsFiles:
    """Files to be joined on uid.

    Parameters
    ----------
    paths
        The main file first.
    notes
        Which were found, in sentences.
    why_alone
        Why none was found that goes with the given ones, as the end of a sentence; empty where one was.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    why_alone: str = ""


def files_to_join(paths: tuple[Path, ...]) -> CsFiles:
    """Add what belongs to the main file by its name: its passthrough file, or to one of these its main file."""
    main, *others = paths
    is_passthrough = parse_cs_name(main.name).is_passthrough
    if is_passthrough and others:
        return CsFiles(paths)
    companion, notes = companion_of(main)
    if companion is None:
        return CsFiles(paths, notes, "; ".join(notes) or f"no {_partner_name(main)} lies beside {main.name}")
    if is_passthrough:
        last = "" if parse_cs_name(companion.name).iteration is None else ", the last iteration"
        found = f"{main.name} is a passthrough file: the particles are those of {companion.name}{last}"
        return CsFiles((companion, main), (*notes, found))
    if companion.resolve() in {path.resolve() for path in others} or not _adds_columns(companion, paths):
        return CsFiles(paths, notes)
    return CsFiles((*paths, companion), notes)


def is_enough_for_pickles(path: Path) -> bool:
    """Whether a `.cs` file by itself has all columns of pickles."""
    names = open_cs(path).names
    needed = {"blob/psize_A", "blob/shape", "ctf/accel_kv", "ctf/cs_mm", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad"}
    return needed <= set(names) and bool(alignments_in(names))


def refuse_redundant(tables: list[Table]) -> None:
    """Refuse a file of which no column would be taken, such as another iteration; a passthrough file does no harm.

    Raises
    ------
    UsageError
        If there is one.
    """
    seen = set(tables[0].names)
    for table in tables[1:]:
        own = set(table.names)
        if own <= seen and len(own) > 1 and not parse_cs_name(table.path.name).is_passthrough:
            raise UsageError(
                f"all of its columns are in {tables[0].path.name} too: of two iterations or results only one can be "
                "taken",
                path=table.path,
                hint="Give the one that is meant; a passthrough file beside it is found.",
            )
        seen |= own


def contradictions(joined: JoinedTable) -> list[str]:
    """Say which columns two files have with different values; those of the first file are taken."""
    told = []
    for table, rows in joined.members[1:]:
        shared = [name for name in table.names if name != "uid" and joined.source_of(name) is not table]
        differing = []
        for name in shared:
            taken, other = joined.read([name])[name], table.read([name])[name]
            if rows is not None:
                other = other[rows] if isinstance(other, np.ndarray) else other.take(rows)
            if not _is_equal(taken, other):
                differing.append(name)
        if differing:
            more = f" and {len(differing) - _N_NAMED} more" if len(differing) > _N_NAMED else ""
            names = ", ".join(differing[:_N_NAMED]) + more
            told.append(
                f"{table.path.name} has other values than {joined.path.name} in {names}: those of {joined.path.name} "
                "are taken"
            )
    return told


def _is_equal(one: Values, other: Values) -> bool:
    a, b = (values if isinstance(values, np.ndarray) else values.to_numpy() for values in (one, other))
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


def _adds_columns(companion: Path, paths: tuple[Path, ...]) -> bool:
    return not set(open_cs(companion).names) <= {name for path in paths for name in open_cs(path).names}


def _partner_name(main: Path) -> str:
    """Return the name by which the passthrough file of a main file is looked for, or the other way round."""
    own = parse_cs_name(main.name)
    start = main.name[: main.name.index(f"{own.job}_") + len(own.job) + 1] if own.job else ""
    return f"{start}[NUMBER_]{own.group}.cs" if own.is_passthrough else f"{start}passthrough_{own.group}.cs"
