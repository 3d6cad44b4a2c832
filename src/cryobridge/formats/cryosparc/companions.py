"""The file that holds the rest of a `.cs` file's columns: the passthrough of the same result, beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.join import join_on_uid
from cryobridge.formats.cryosparc.names import group_by_name, parse_cs_name
from cryobridge.formats.listing import list_if_there

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.table import Table


def companion_by_name(path: Path) -> Path | None:
    """Return the passthrough file of a main file, or the main file of a passthrough, as the names tell; else None."""
    own = parse_cs_name(path.name)
    names = {name for name in list_if_there(path.parent).files if name.endswith(".cs")} | {path.name}
    # Copies of several jobs' files may lie in one folder.
    names = {name for name in names if not own.job or parse_cs_name(name).job == own.job}
    for group in group_by_name(names):
        if own.is_passthrough:
            if group.passthrough is not None and group.passthrough.name == path.name and group.main is not None:
                return path.parent / group.main.name
        elif group.name == own.group and group.passthrough is not None:
            return path.parent / group.passthrough.name
    return None


def companion_of(path: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Return the companion by name if it shares uids; and why one that is there does not count, in sentences."""
    partner = companion_by_name(path)
    if partner is None:
        return None, ()
    try:
        own, others = (np.asarray(open_cs(item).read(["uid"])["uid"]) for item in (path, partner))
    except (FormatError, MissingDataError) as error:
        return None, (f"not joined: {error}",)
    # A file without rows shares those it would have.
    if len(own) and not np.isin(others, own).any():
        return None, (f"{partner.name} beside it has none of its uids and is not joined",)
    return partner, ()


def open_completed(path: Path, *prefixes: str) -> tuple[Table, tuple[str, ...]]:
    """Open a `.cs` file; where it lacks columns, joined on uid with its companion, in its own row order.

    Parameters
    ----------
    path
        The file.
    prefixes
        What the names of needed columns start with, such as ``"ctf/"``.

    Returns
    -------
    tuple
        The table, with all rows of the file, and what was joined, in sentences.

    Raises
    ------
    MissingDataError
        If the companion lacks some of its rows.
    """
    table = open_cs(path)
    lacking = [prefix for prefix in prefixes if not _has(table, prefix)]
    if not lacking:
        return table, ()
    partner, notes = companion_of(path)
    other = None if partner is None else open_cs(partner)
    if partner is None or other is None or not any(_has(other, prefix) for prefix in lacking):
        return table, notes
    joined = join_on_uid(table, other)
    absent = table.n_rows - joined.n_rows
    if absent:
        raise MissingDataError(
            f"{absent:,} of its {table.n_rows:,} uids are not in {partner.name}, which has columns that it lacks",
            path=path,
            field="uid",
            count=absent,
            hint=f"`cryobridge select {path} -o subset.cs` leaves these rows out.",
        )
    return joined, (*notes, f"joined on uid with {partner.name}", *joined.notes)


def _has(table: Table, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in table.names)
