"""What is said of the lists that RELION gets: what it would stumble over, or take otherwise than is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.cryosparc.particles import repeated_uids
from cryobridge.formats.relion.list_names import LIST_FILES
from cryobridge.formats.relion.micrographs_write import fit_columns
from cryobridge.report import counted, note, part_of, warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.relion.list_names import ListName
    from cryobridge.jobs.exposures.names import Place
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.report import Message


def about_lists(
    micrographs: MicrographSet, lists: dict[ListName, NDArray[np.int64]], *, is_polished: bool, is_dose_given: bool
) -> list[Message]:
    """Say what RELION would stumble over."""
    messages = repeated_uids(micrographs.uid)
    without = len(micrographs) - len(lists.get("ctf", micrographs.names))
    if "ctf" in lists and without:
        text = f"{part_of(without, len(micrographs), 'micrograph', 'have', of_one='has')} no CTF"
        messages.append(warning("no-ctf", f"{text}, and {'is' if without == 1 else 'are'} not in {LIST_FILES['ctf']}"))
    if "ctf" in lists:
        messages += fit_columns(micrographs.take(lists["ctf"]))[1]
    sizes = micrographs.pixel_size_A
    with np.errstate(over="ignore"):  # of sizes that are none
        distinct_A = np.unique(np.round(sizes[np.isfinite(sizes)], 4))
    if len(distinct_A) > 1 and micrographs.name is not None:
        text = (
            f"micrographs have {counted(len(distinct_A), 'pixel size')}, from {distinct_A[0]:g} to {distinct_A[-1]:g} "
            "Å: RELION's picking takes one, so pick in each group by itself"
        )
        messages.append(warning("pixel-sizes-differ", text))
    movies = micrographs.movies
    if movies is not None and "movies" in lists and not is_polished:  # the metadata of motion need both, and say so
        if movies.gain is None and movies.is_gain_corrected is not None and not movies.is_gain_corrected.all():
            text = "movies are not gain-corrected, and the exposures name no gain reference"
            messages.append(warning("no-gain-reference", text))
        dose = movies.dose_per_frame_e_A2
        if not is_dose_given and (dose is None or not np.isfinite(dose).any()):
            messages.append(warning("no-dose", "the dose of the movies is not known, which polishing needs"))
    return messages


def about_place(place: Place) -> list[Message]:
    """Say where RELION is to be started, if that is not a project that was there."""
    if place.is_own_project:
        text = "no RELION project is above the output: it is one itself, in which RELION is to be started"
        return [note("own-project", text, option="relion_project")]
    return []
