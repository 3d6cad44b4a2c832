"""The movies of RELION's micrographs, for cryoSPARC: as the metadata of motion and the files themselves say.

What is written is known: files, frames, sizes, dose, and gain references, which lie on the movies as they are stored
(`cryobridge.formats.gain`). The motion itself stays out, since no source says in which rows cryoSPARC would take
trajectories together with averages of RELION. So do EER movies, whose fractions are an option of cryoSPARC's import.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.input_file import read_input
from cryobridge.formats.movies import movie_header
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.relion.motion import read_motion
from cryobridge.formats.tiff_header import is_tiff
from cryobridge.jobs.exposures.files import absolute, found_files
from cryobridge.jobs.links import Link
from cryobridge.model.micrographs import GainReference, Movies
from cryobridge.model.particles import Labels
from cryobridge.report import note, part_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.movies import MovieHeader
    from cryobridge.formats.relion.motion import MotionMetadata
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.report import Message


class CarriedMovies(NamedTuple):
    """Micrographs with their movies, the movies' formats as cryoSPARC names them, and links to the files."""

    micrographs: MicrographSet
    formats: Labels | None
    links: tuple[Link, ...]
    messages: list[Message]


class _Movie(NamedTuple):
    metadata: MotionMetadata
    header: MovieHeader
    gain: Path | None

    @property
    def format(self) -> str:
        """As cryosparc-tools' `get_exposure_format` makes it: MRC with the mode of the pixels."""
        return f"MRC/{read_header(self.header.path).mode}" if self.header.format == "MRC" else self.header.format

    @property
    def is_gain_reversed(self) -> bool:
        """Whether the gain reference, as stored, is reversed in its rows against the movie, as stored."""
        return self.gain is not None and is_tiff(read_input(self.gain, 4)) != (self.header.format == "TIFF")


class _LacksError(Exception):
    """Something of a movie is not known."""


def with_movies(micrographs: MicrographSet, search: ImageSearch, folder: Path) -> CarriedMovies:
    """Return micrographs with the movies that the metadata of their motion name; as they are, where one lacks them.

    Parameters
    ----------
    micrographs
        Of RELION.
    search
        Where files are.
    folder
        Beside the output, for links to movies and gain references.
    """
    names = None if micrographs.motion is None else micrographs.motion.metadata
    if names is None:
        return CarriedMovies(micrographs, None, (), [])
    files = found_files(names.to_numpy().tolist(), search)
    movies, lacking = [], []
    for file in files:
        try:
            movies.append(_movie(file, search.resolve))
        except (CryobridgeError, _LacksError) as error:
            lacking.append(str(error))
    if lacking:
        text = f"{part_of(len(lacking), len(files), 'movie')} not usable ({lacking[0]}), and no movies are written"
        return CarriedMovies(micrographs, None, (), [note("movies-left-out", text, option="datadir")])
    links = {_place(folder, item.metadata.movie): item.header.path for item in movies}
    links |= {_place(folder, str(item.metadata.gain)): item.gain for item in movies if item.gain is not None}
    return CarriedMovies(
        replace(micrographs, movies=_movies(movies, folder)),
        Labels.of(item.format for item in movies),
        tuple(Link(path, absolute(file)) for path, file in links.items()),
        [],
    )


def _movie(file: Path | None, resolve: Callable[[str], Path | None]) -> _Movie:
    if file is None:
        raise _LacksError("the metadata of its motion are not found")
    metadata = read_motion(file)
    path = resolve(metadata.movie)
    if path is None:
        raise _LacksError(f"{metadata.movie} is not found")
    header = movie_header(path)
    if header.format == "EER":
        raise _LacksError("the fractions of EER movies are an option of cryoSPARC's import")
    if (header.n_frames, header.shape_px) != (metadata.motion.n_frames, metadata.motion.shape_px):
        raise _LacksError(f"{path.name} has other frames than the metadata of its motion say")
    gain = None if metadata.gain is None else resolve(metadata.gain)
    if metadata.gain is not None and gain is None:
        raise _LacksError(f"{metadata.gain} is not found")
    return _Movie(metadata, header, gain)


def _movies(movies: list[_Movie], folder: Path) -> Movies:
    general = [item.metadata for item in movies]
    dose = np.array([item.dose_per_frame_e_A2 * item.motion.n_frames for item in general])
    has_gain = np.array([item.gain is not None for item in movies])
    gain = GainReference(
        Labels.of("" if item.gain is None else _name(folder, item.gain) for item in general),
        flip_x=np.zeros(len(movies), bool),
        flip_y=np.array([item.is_gain_reversed for item in movies]),
        quarter_turns=np.zeros(len(movies), np.int64),
    )
    return Movies(
        Labels.of(_name(folder, item.movie) for item in general),
        shape_px=np.array([item.motion.shape_px for item in general], np.int64),
        n_frames=np.array([item.motion.n_frames for item in general], np.int64),
        pixel_size_A=np.array([item.pixel_size_A for item in general]),
        is_gain_corrected=~has_gain,
        gain=gain if has_gain.any() else None,
        dose_e_A2=np.where(dose > 0, dose, np.nan),  # RELION writes -1 where it is not known
    )


def inside(name: str) -> str:
    """Return a name as a place below a folder: no root and no way up in it."""
    return str(PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in {"/", ".."})))


def _name(folder: Path, name: str) -> str:
    return f">{PurePosixPath(folder.name, inside(name))}"


def _place(folder: Path, name: str) -> Path:
    return folder / inside(name)
