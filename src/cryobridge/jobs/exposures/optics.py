"""Micrographs in the optics groups that are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.optics import group_names
from cryobridge.jobs.micrographs.optics_groups import Acquired, about_groups, optics_groups
from cryobridge.jobs.micrographs.regrouping import with_groups

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryobridge.jobs.shared_options import OpticsGroupOptions
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.model.particles import Floats
    from cryobridge.report import Message

_SHIFT, _IS_KNOWN = "mscope_params/beam_shift", "mscope_params/beam_shift_known"


def in_optics_groups(
    micrographs: MicrographSet, options: OpticsGroupOptions, files: Sequence[Path | None]
) -> tuple[MicrographSet, list[Message]]:
    """Return micrographs in the optics groups that are asked for, and what is said of these.

    Parameters
    ----------
    micrographs
        Under the names that their program gave them.
    options
        Where the groups come from; without any, they are those that the micrographs have.
    files
        (n,) where the movies are on disk, or for want of any the micrographs, beside which beam shifts are looked for;
        None for those that are not found. Empty where there are none.

    Raises
    ------
    CryobridgeError
        As `cryobridge.jobs.micrographs.optics_groups.optics_groups`.
    """
    source = options.optics_source
    if source is None:
        return micrographs, _about_own(micrographs)
    names = () if micrographs.movies is None else tuple(micrographs.movies.name.to_numpy().tolist())
    acquired = Acquired(names, files, beam_shifts(micrographs))
    groups = optics_groups(micrographs.names, source, acquired, options.optics_groups)
    grouped, messages = with_groups(micrographs, groups.index, groups.names)
    return grouped, [*groups.messages, *messages]


def beam_shifts(micrographs: MicrographSet) -> Floats | None:
    """Return the beam shifts that cryoSPARC imported with the movies, (n, 2) x, y; NaN for unknown, None without any.

    Raises
    ------
    FormatError
        If the column is not one of two numbers a row.
    """
    extra = micrographs.extra
    if extra is None or _SHIFT not in extra.names:
        return None
    found = extra.read([name for name in (_SHIFT, _IS_KNOWN) if name in extra.names])
    shift = np.asarray(found[_SHIFT])
    if shift.shape != (micrographs.n_rows, 2) or shift.dtype.kind not in "fiu":
        raise FormatError(
            "it has no two numbers in each row",
            path=micrographs.source,
            field=_SHIFT,
            hint="Take the file of cryoSPARC itself.",
        )
    is_known = np.asarray(found[_IS_KNOWN] if _IS_KNOWN in found else np.ones(len(shift))) != 0
    known: Floats = np.where(is_known[:, None], shift.astype(np.float64), np.nan)
    # Where none was imported, all are 0.
    return known if np.nan_to_num(known).any() else None


def _about_own(micrographs: MicrographSet) -> list[Message]:
    if micrographs.optics is None or micrographs.optics_index is None:
        return []
    sizes = np.bincount(micrographs.optics_index, minlength=len(micrographs.optics))
    return about_groups(group_names(micrographs.optics), sizes)
