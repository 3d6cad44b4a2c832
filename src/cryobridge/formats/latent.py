"""Latent coordinates as columns: RELION keeps those that it does not know, cryoSPARC's are 3D Variability's modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.model.fields import MODE, field, numbered

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryobridge.formats.table import ColumnReader, Values
    from cryobridge.model.fields import Program
    from cryobridge.model.particles import Floats

_LATENT = field("latent")
# cryoSPARC counts its modes from 0.
_FIRST = {"cryosparc": 0, "relion": 1}


def names_of_latent(program: Program, columns: Collection[str]) -> tuple[str, ...]:
    """Return those of a file's columns that latent coordinates have."""
    return numbered(_LATENT.columns(program), columns)


def latent_columns(latent: Floats, program: Program) -> dict[str, Values]:
    """Return the columns of latent coordinates (n, d).

    ``cryobridgeLatent1`` … in a STAR file; ``components_mode_0/component`` and ``/value`` … in a `.cs` file, as 3D
    Variability has them.
    """
    columns: dict[str, Values] = {}
    *of_the_mode, of_the_value = _LATENT.columns(program)
    for place, values in enumerate(latent.T):
        number = str(place + _FIRST[program])
        columns |= {name.replace(MODE, number): np.full(len(latent), place, np.uint32) for name in of_the_mode}
        with np.errstate(over="ignore"):  # what single precision can't hold is infinite, which reading back shows
            own = values.astype(np.float32) if program == "cryosparc" else np.ascontiguousarray(values)
        columns[of_the_value.replace(MODE, number)] = own
    return columns


def read_latent(columns: ColumnReader, program: Program) -> Floats | None:
    """Return the latent coordinates of a file, (n, d); None where it has none, or not all from the first on."""
    name = _LATENT.columns(program)[-1]
    found = numbered((name,), columns.names)
    expected = tuple(name.replace(MODE, str(place + _FIRST[program])) for place in range(len(found)))
    if not found or found != expected:
        return None
    values = [columns.floats(each) for each in found]
    known = [each for each in values if each is not None]
    return np.column_stack(known) if len(known) == len(values) else None
