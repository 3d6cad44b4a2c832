"""EER movies: how their frames are grouped, which pixels they are counted in, and what is said of both."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError
from cryobridge.formats.movies import UPSAMPLING, eer_fractions, movie_header
from cryobridge.report import counted, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryobridge.formats.movies import EerFractions
    from cryobridge.model.micrographs import Movies
    from cryobridge.report import Message

# Fields of view that differ by less are one: of trimmed or padded micrographs.
_SAME_FIELD = 0.05
# Movies of one session are alike.
_MOST_READ = 20
_FACTORS = {number: factor for factor, number in UPSAMPLING.items()}


def finer_pixels(eer: EerFractions, movie_width_A: float, micrograph_width_A: float | None) -> int:
    """Return how many pixels of a fraction lie along one whose size the metadata have.

    cryoSPARC imports EER movies with the size of the camera's pixels, and may count electrons in parts of these. Whose
    size a column has, the micrograph shows, which is as wide as the movie; where it doesn't, the fraction's is taken.

    Parameters
    ----------
    eer
        The fractions.
    movie_width_A
        Columns of a fraction times the pixel size that the metadata have of the movie.
    micrograph_width_A
        Columns of the micrograph times its pixel size; None where it is not known.
    """
    factor = _FACTORS.get(eer.upsampling or 1, 1)
    if factor == 1 or not micrograph_width_A or not micrograph_width_A > 0:
        return 1
    ratio = movie_width_A / micrograph_width_A
    return factor if abs(ratio / factor - 1) < _SAME_FIELD else 1


def used_part(eer: EerFractions) -> float:
    """Return which part of a movie's frames, and so of its dose, RELION's fractions have."""
    used = eer.grouping * eer.n_fractions
    return used / (used + eer.n_left)


def eer_of_files(movies: Movies | None, files: Sequence[Path | None]) -> list[Message]:
    """Say how RELION would group the frames of EER movies of which nothing else is written.

    Parameters
    ----------
    movies
        What the metadata say of them.
    files
        (n,) where they are on disk; None for those that are not found.
    """
    if movies is None or movies.n_frames is None:
        return []
    rows = [row for row, file in enumerate(files) if file is not None and file.suffix.lower() == ".eer"]
    found = []
    for row in rows[:_MOST_READ]:
        shape = None if movies.shape_px is None else movies.shape_px[row].tolist()
        with suppress(CryobridgeError):  # motion correction will say it
            header = movie_header(str(files[row]))
            if header.format == "EER":
                found.append(eer_fractions(header, int(movies.n_frames[row]), None if shape is None else tuple(shape)))
    return about_eer(found, is_sample=len(rows) > _MOST_READ)


def about_eer(found: Sequence[EerFractions], n_finer: int = 0, *, is_sample: bool = False) -> list[Message]:
    """Say how RELION groups the frames of EER movies, and where its fractions may differ from cryoSPARC's.

    Parameters
    ----------
    found
        The fractions of each EER movie.
    n_finer
        Of how many of them the pixel size was divided (`finer_pixels`).
    is_sample
        Whether they are the first ones of more.
    """
    if not found:
        return []
    kinds = Counter((eer.grouping, eer.upsampling) for eer in found)
    (grouping, upsampling), n = kinds.most_common(1)[0]
    noun, plural = ("EER movie read", "EER movies read") if is_sample else ("EER movie", "EER movies")
    movies = part_of(n, len(found), noun, "have", of_one="has", plural=plural)
    said = f"{movies} {counted(grouping, 'frame')} in a fraction"
    given = f"--eer_grouping {grouping}" + ("" if upsampling is None else f" --eer_upsampling {upsampling}")
    messages = [note("eer-fractions", f"{said}: RELION's motion correction takes {given} for the same")]
    left = [eer for eer in found if eer.n_left]
    if left:
        most = max(left, key=lambda eer: eer.n_left / eer.grouping)
        movies = part_of(len(left), len(found), noun, "make", of_one="makes", plural=plural)
        text = (
            f"the frames of {movies} no equal fractions: up to {counted(most.n_left, 'frame')} at the end are in none "
            "of RELION's; cryoSPARC divides the whole movie, so that its last ones are later by "
            f"{most.n_left / most.grouping:.2g} fractions"
        )
        messages.append(warning("eer-frames-left", text))
    if n_finer:
        text = (
            f"the pixel size of {part_of(n_finer, len(found), 'EER movie')} that of the camera's pixels, as the width "
            "of the micrographs shows: RELION is given that of the finer pixels in which electrons are counted"
        )
        messages.append(note("eer-pixel-size", text))
    return messages
