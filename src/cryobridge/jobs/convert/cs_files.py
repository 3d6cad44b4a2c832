"""Which `.cs` files make one set of particles, and what they contradict each other in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.formats.cryosparc.alignments import alignments_in
from cryobridge.formats.cryosparc.companions import companion_names, companions_of
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
    companions, notes = companions_of(main)
    if not companions:
        names = companion_names(main)
        sought = f"no {names[0]} lies" if len(names) == 1 else f"neither {' nor '.join(names)} lies"
        return CsFiles(paths, notes, "; ".join(notes) or f"{sought} beside {main.name}")
    if is_passthrough:
        first, *more = companions
        last = ", the last iteration" if _is_one_of_several(first, main) else ""
        found = f"{main.name} is a passthrough file: the particles are those of {first.name}{last}"
        return CsFiles((first, main, *more), (*notes, found))
    given = {path.resolve() for path in others}
    for companion in companions:
        if companion.resolve() not in given and _adds_columns(companion, paths):
            paths = (*paths, companion)
    return CsFiles(paths, notes)


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


def _is_one_of_several(main: Path, passthrough: Path) -> bool:
    """Whether a main file was taken as the last of those that the passthrough file goes with."""
    return parse_cs_name(main.name).iteration is not None and not parse_cs_name(passthrough.name).main
