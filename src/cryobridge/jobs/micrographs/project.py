"""RELION's project, and the newest lists of micrographs in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.errors import MissingDataError
from cryobridge.formats.input_file import meant
from cryobridge.formats.listing import is_there
from cryobridge.formats.relion.job import MICROGRAPH_STARS, PIPELINE, as_named

if TYPE_CHECKING:
    from pathlib import Path


def newest_micrographs(project: Path) -> tuple[Path, ...]:
    """Return the STAR files of micrographs of RELION's last CTF and motion correction jobs."""
    found = []
    for name in ("CtfFind", "MotionCorr"):
        files = [
            path
            for star in MICROGRAPH_STARS
            for path in sorted((project / name).glob(f"job[0-9]*/{star}"), reverse=True)
        ]
        found += files[:1]
    return tuple(found)


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
        hint = meant(given, f"Give the folder that has {PIPELINE}.")
        raise MissingDataError("no such folder", path=given, hint=hint)
    return as_named(given)
