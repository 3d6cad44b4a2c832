"""What RELION's polishing needs besides lists of micrographs: metadata of the motion, and gain references."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.jobs.exposures.gain import GainPlan, plan_gains
from cryobridge.jobs.exposures.motion import MotionPlan, plan_motion
from cryobridge.jobs.exposures.motion_sources import NO_MOVIE, MovieFiles
from cryobridge.jobs.exposures.movie_drift import check_drift, drift_messages
from cryobridge.jobs.exposures.movie_rows import check_rows, row_messages, with_rows
from cryobridge.model.particles import Labels
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.jobs.exposures.motion_options import MotionOptions
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.model.particles import Floats
    from cryobridge.progress import Reporter


class Files(NamedTuple):
    """The files of micrographs, one each; None, or empty, where there is none.

    Attributes
    ----------
    movies, movie_names
        On this disk, and as RELION names them.
    micrographs
        cryoSPARC's averages.
    metadata
        Where the metadata of the motion go.
    """

    movies: Sequence[Path | None]
    movie_names: Sequence[str]
    micrographs: Sequence[Path | None]
    metadata: Sequence[Path]


@dataclass(frozen=True)
class Polishing:
    """Metadata of motion and gain references that will be written.

    Parameters
    ----------
    motion, gains
        What is in them.
    rows
        (m,) the micrographs that have metadata, by row of the whole set.
    paths
        (m,) the files of these.
    gain_folder
        Where the gain references go.
    messages
        What was assumed, found, and left out.
    """

    motion: MotionPlan
    gains: GainPlan
    rows: NDArray[np.int64]
    paths: tuple[Path, ...]
    gain_folder: Path
    messages: tuple[Message, ...]

    @property
    def gain_files(self) -> tuple[Path, ...]:
        """The gain references that will be written."""
        return tuple(self.gain_folder / gain.name for gain in self.gains.gains)

    def left_out(self, n_rows: int) -> dict[str, int]:
        """Return how many of all micrographs have no metadata of motion, by reason."""
        n_without = n_rows - len(self.motion.reasons)
        return {**self.motion.left_out, **({NO_MOVIE: n_without} if n_without else {})}

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All files that will be written."""
        return (*self.gain_files, *self.paths)

    def write(self, reporter: Reporter) -> None:
        """Write them; raises as `MotionPlan.write` and `PreparedGain.write` do."""
        for folder in {path.parent for path in self.outputs}:
            folder.mkdir(parents=True, exist_ok=True)
        for gain in self.gains.gains:
            gain.write(self.gain_folder)
        self.motion.write(self.paths, reporter)

    def with_metadata(self, micrographs: MicrographSet, name: Callable[[Path], str]) -> MicrographSet:
        """Return the micrographs with the names of their metadata, and how far they moved.

        Parameters
        ----------
        micrographs
            All of them.
        name
            From a path to what RELION calls it.
        """
        assert micrographs.motion is not None
        names = [""] * micrographs.n_rows
        for row, path in zip(self.rows.tolist(), self.paths, strict=True):
            names[row] = name(path)
        lengths: Floats = np.full((micrographs.n_rows, 3), np.nan)
        lengths[self.rows] = self.motion.accumulated_A
        motion = replace(
            micrographs.motion,
            metadata=Labels.of(names),
            total_A=lengths[:, 0],
            early_A=lengths[:, 1],
            late_A=lengths[:, 2],
        )
        return replace(micrographs, motion=motion)


def plan_polishing(
    micrographs: MicrographSet,
    options: MotionOptions,
    files: Files,
    *,
    gain_folder: Path,
    name: Callable[[Path], str],
    find: Callable[[str], Path | None],
    flip_y: bool,
    reporter: Reporter | None = None,
) -> Polishing | None:
    """Plan the metadata of the motion of micrographs whose movies are there, and their gain references.

    Parameters
    ----------
    micrographs
        Of cryoSPARC, under its own names.
    options
        What the files don't say.
    files
        Of each micrograph.
    gain_folder
        Where gain references go.
    name
        From a path to what RELION calls it.
    find
        From a name of cryoSPARC to its file, or None.
    flip_y
        Whether micrographs are written with their rows reversed.
    reporter
        Who hears of the progress.

    Returns
    -------
    Polishing or None
        None where there are no trajectories or no movies on this disk, or motion is not asked for.

    Raises
    ------
    CryobridgeError
        As `plan_motion` and `plan_gains` do.
    """
    if micrographs.motion is None or micrographs.motion.rigid is None or not options.motion:
        return None
    has_movie = np.flatnonzero([movie is not None for movie in files.movies])
    trajectories = micrographs.motion.rigid.path.to_numpy()[has_movie].tolist()
    if not any(path and find(path) for path in trajectories):
        return None
    chosen = micrographs.take(has_movie)
    movies = [files.movies[row] for row in has_movie.tolist()]
    gains = plan_gains(chosen, options, movies, find)
    gain_names = [None if gain is None else name(gain_folder / gain) for gain in gains.names]
    movie_files = MovieFiles([files.movie_names[row] for row in has_movie.tolist()], movies, gain_names)
    gain = _Gains(gains)
    rows_found = check_rows(movies, [files.micrographs[row] for row in has_movie.tolist()], gain)
    given, options = options, with_rows(options, rows_found)
    motion = plan_motion(chosen, options, movie_files, find, reporter)
    assert motion is not None  # there are trajectories
    rows = has_movie[motion.rows]
    messages = [*gains.messages, *motion.messages]
    if len(motion.rows):
        places = motion.rows.tolist()
        drift = check_drift(motion.motions, [movies[place] for place in places], lambda place: gain(places[place]))
        messages += drift_messages(drift, options, motion.pixel_size_A)
        messages += row_messages(rows_found, given, flip_y=flip_y)
    if len(has_movie) < micrographs.n_rows:
        n = micrographs.n_rows - len(has_movie)
        text = f"{n:,} of {micrographs.n_rows:,} movies are not found: no metadata of motion for their micrographs"
        messages.append(warning("motion-left-out", text, option="datadir"))
    paths = tuple(files.metadata[row] for row in rows.tolist())
    return Polishing(motion, gains, rows, paths, gain_folder, tuple(messages))


class _Gains:
    """What RELION multiplies a movie by, each reference read once."""

    def __init__(self, gains: GainPlan) -> None:
        self._by_name = {gain.name: gain for gain in gains.gains}
        self._names = gains.names
        self._read: dict[str, NDArray[np.float32]] = {}

    def __call__(self, place: int) -> NDArray[np.float32] | None:
        name = self._names[place]
        if name is None:
            return None
        try:
            if name not in self._read:
                self._read[name] = self._by_name[name].pixels()
            return self._read[name]
        except CryobridgeError:
            return None
