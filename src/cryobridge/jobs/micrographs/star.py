"""RELION's project and the STAR file that names its micrographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.errors import MissingDataError
from cryobridge.formats.listing import is_there
from cryobridge.formats.projects import INSTEAD, folder_refusal
from cryobridge.formats.relion.job import PIPELINE, as_named
from cryobridge.formats.relion.star import open_star, to_labels
from cryobridge.formats.relion.tomography import refuse_tomography

if TYPE_CHECKING:
    from pathlib import Path

_STAR_HINT = INSTEAD["micrographs"][0]


def micrograph_names(path: Path) -> tuple[str, ...]:
    """Return the distinct micrographs of a STAR file.

    Raises
    ------
    UsageError
        If it is a folder.
    MissingDataError
        If it names none, or is a list of particles: their micrographs may be those of another program.
    """
    if path.is_dir():
        raise folder_refusal(path, "micrographs")
    star = open_star(path)
    refuse_tomography(star)
    block = star[star.main]
    if "rlnImageName" in block or "rlnCoordinateX" in block:
        raise MissingDataError(f"data_{star.main} lists particles, not micrographs", path=path, hint=_STAR_HINT)
    if "rlnMicrographName" not in block:
        raise MissingDataError(f"data_{star.main} has no rlnMicrographName", path=path, hint=_STAR_HINT)
    return to_labels(block.texts("rlnMicrographName")).values


def project_of(folder: Path, given: Path | None = None) -> Path | None:
    """Return RELION's project: the one that is given, else the nearest of a folder and those above it, or None.

    Raises
    ------
    MissingDataError
        If the one that is given is not there.
    """
    if given is None:
        own = as_named(folder)
        return next((above for above in (own, *own.parents) if is_there(above / PIPELINE)), None)
    if not given.is_dir():
        raise MissingDataError("no such folder", path=given, hint=f"Give the folder that has {PIPELINE}.")
    return as_named(given)
