"""Which program wrote a folder, decided by its content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryobridge.errors import FormatError
from cryobridge.formats.cryosparc.job import has_cryosparc_names, is_cryosparc_description
from cryobridge.formats.listing import Listing, list_folder, read_json
from cryobridge.formats.own_output import is_own_description, looks_like_coords, looks_like_stacks
from cryobridge.formats.relion.job import looks_like_relion_job

if TYPE_CHECKING:
    import os

CRYOSPARC_JOB: Final = "cryosparc job"
RELION_JOB: Final = "relion job"
RECOVAR_RESULT: Final = "recovar result"
OWN_OUTPUT: Final = "cryobridge output"
# As people call them.
FOLDER_WORDS: Final = {
    CRYOSPARC_JOB: "cryoSPARC job",
    RELION_JOB: "RELION job",
    RECOVAR_RESULT: "RECOVAR result",
    OWN_OUTPUT: "cryobridge output",
}


def identify_folder(path: str | os.PathLike[str]) -> str | None:
    """Return which kind of folder this is: one of this module's constants, or None where nothing is known.

    A job.json that names its program decides. Without one the files do, the most particular names first. Only
    the folder itself and the places in it that those programs use are looked at.

    Raises
    ------
    FormatError
        If it is no folder, or can't be listed.
    """
    listing = list_folder(Path(path))
    if "job.json" in listing.files:
        try:
            content = read_json(listing.path / "job.json")
        except FormatError:
            content = {}
        if is_own_description(content):
            return OWN_OUTPUT
        if "recovar_version" in content:
            return RECOVAR_RESULT
        if is_cryosparc_description(content):
            return CRYOSPARC_JOB
    for kind, is_one in (
        (OWN_OUTPUT, looks_like_stacks),
        (RELION_JOB, looks_like_relion_job),
        (OWN_OUTPUT, looks_like_coords),
        (RECOVAR_RESULT, _looks_like_recovar),
        (CRYOSPARC_JOB, has_cryosparc_names),
    ):
        if is_one(listing):
            return kind
    return None


def _looks_like_recovar(listing: Listing) -> bool:
    from cryobridge.formats.recovar.job import looks_like_recovar  # late: most folders are of other programs

    return looks_like_recovar(listing)
