"""RELION's lists of micrographs and movies, by what its jobs call them; nothing is imported, for the command line."""

from __future__ import annotations

from typing import Literal, TypeAlias

ListName: TypeAlias = Literal["movies", "micrographs", "corrected", "ctf"]
LIST_FILES: dict[ListName, str] = {
    "movies": "movies.star",
    "micrographs": "micrographs.star",
    "corrected": "corrected_micrographs.star",
    "ctf": "micrographs_ctf.star",
}
