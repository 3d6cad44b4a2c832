"""Matching cryoSPARC's micrograph names with RELION's."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from pathlib import PurePath
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# cryoSPARC puts a 21-digit uid before imported and corrected names, and what it did behind them.
_UID_PREFIX = re.compile(r"^[0-9]{21}_")
_SUFFIX = re.compile(
    r"_(patch_aligned|rigid_aligned|aligned|doseweighted|dose_weighted|DW|noDW|fractions|movie|background)$",
    re.IGNORECASE,
)
_N_SHOWN = 5


def normalised_stem(name: str) -> str:
    """Return a micrograph's name without folder, extension, uid, and what motion correction appends.

    RELION turns dots in names into underscores; so does this.
    """
    stem = _UID_PREFIX.sub("", PurePath(name.removeprefix(">")).stem).replace(".", "_")
    while (shorter := _SUFFIX.sub("", stem)) != stem:
        stem = shorter
    return stem


def match_micrographs(cryosparc: Sequence[str], relion: Sequence[str]) -> dict[str, str]:
    """Find RELION's name for each of cryoSPARC's micrographs.

    By equal normalised stems, else by one stem containing the other where that is so for one name only.

    Raises
    ------
    CryobridgeError
        If a name fits two micrographs, or two names one.
    MissingDataError
        If a name fits none; the nearest are shown.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in relion:
        by_stem[normalised_stem(name)].append(name)
    matches: dict[str, str] = {}
    unmatched: list[str] = []
    for name in cryosparc:
        stem = normalised_stem(name)
        fitting = by_stem.get(stem) or _containing(stem, by_stem)
        if len(fitting) > 1:
            raise CryobridgeError(
                f"micrograph {name} fits {len(fitting)}: {', '.join(fitting[:_N_SHOWN])}",
                field="location/micrograph_path",
                hint="Give a micrographs STAR file in which names are told apart.",
            )
        if fitting:
            matches[name] = fitting[0]
        else:
            unmatched.append(name)
    if unmatched:
        raise _unmatched(unmatched, len(cryosparc), list(by_stem))
    _refuse_shared(matches)
    return matches


def _containing(stem: str, by_stem: dict[str, list[str]]) -> list[str]:
    return [name for other, names in by_stem.items() if stem in other or other in stem for name in names]


def _unmatched(unmatched: list[str], n_all: int, stems: list[str]) -> MissingDataError:
    nearest = difflib.get_close_matches(normalised_stem(unmatched[0]), stems, n=2, cutoff=0.5)
    near = f"; nearest to the first: {', '.join(nearest)}" if nearest else ""
    return MissingDataError(
        f"{len(unmatched)} of {n_all} micrographs are not in the STAR file: {_some(unmatched)}{near}",
        field="location/micrograph_path",
        count=len(unmatched),
        hint="Give the micrographs_ctf.star of the same micrographs.",
    )


def _refuse_shared(matches: dict[str, str]) -> None:
    by_relion: dict[str, list[str]] = defaultdict(list)
    for name, match in matches.items():
        by_relion[match].append(name)
    for match, names in by_relion.items():
        if len(names) > 1:
            raise CryobridgeError(
                f"{len(names)} cryoSPARC micrographs fit {match}: {_some(names)}",
                field="location/micrograph_path",
                hint="Give a micrographs STAR file in which names are told apart.",
            )


def _some(names: Iterable[str]) -> str:
    chosen = list(names)
    return ", ".join(chosen[:_N_SHOWN]) + (" …" if len(chosen) > _N_SHOWN else "")
