"""Where the motion of each micrograph is, and what else RELION's metadata say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.cryosparc.motion import Converted, Reading, patch_shifts, read_rigid, read_spline, to_relion
from cryobridge.formats.movies import EerFractions, MovieHeader, eer_fractions, movie_header
from cryobridge.jobs.exposures.eer import finer_pixels, used_part
from cryobridge.model.motion import MOST_FRAMES
from cryobridge.model.particles import is_pixel_size
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cryobridge.jobs.exposures.motion_options import MotionOptions
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.model.particles import Floats

# Why a micrograph has no metadata of motion, as reports say it.
NO_TRAJECTORY = "trajectory of the motion not found"
UNREADABLE = "trajectory of the motion not usable"
OTHER_FRAMES = "another number of frames"
NO_MOVIE = "no movie"
OTHER_PIXELS = "movie with another pixel size"
OTHER_SIZE = "movie of another size"
# A file of metadata has six decimals.
_SAME_SIZE = 1e-4


class LeftOutError(Exception):
    """A micrograph has no metadata of motion: the reason, and what was found."""


@dataclass(frozen=True)
class MovieFiles:
    """The movies of micrographs as RELION finds them, and on this disk.

    Parameters
    ----------
    names
        One a micrograph, from RELION's project; empty where there is none.
    files
        The files, None where they are not on this disk.
    gains
        The gain reference of each as RELION finds it, in MRC and in the rows that RELION reads of the movie
        (`cryobridge.jobs.exposures.gain`); None where the movie needs none.
    """

    names: Sequence[str]
    files: Sequence[Path | None]
    gains: Sequence[str | None]


@dataclass(frozen=True)
class Source:
    """Where the motion of one micrograph is, how many shifts it has, and what else the metadata say."""

    rigid: Path
    index: int
    spline: Path | None
    scale: float
    n_frames: int
    first_frame: int
    length: int
    shape_px: tuple[int, int]
    general: dict[str, Any]
    eer: EerFractions | None = None
    finer: int = 1  # pixels of the movie along one whose size the metadata have

    def converted(self, reading: Reading) -> Converted:
        """Return the motion in RELION's terms."""
        rigid = read_rigid(self.rigid, self.index)
        # One with all frames to the movie's last is whole too, whatever frame it says to end at.
        if len(rigid) not in {self.length, self.n_frames - self.first_frame + 1}:
            text = f"{counted(len(rigid), 'shift')} for {counted(self.length, 'frame')}"
            raise LeftOutError(OTHER_FRAMES, text)
        spline = None if self.spline is None else read_spline(self.spline)
        frames = {"n_frames": self.n_frames, "first_frame": self.first_frame}
        return to_relion(rigid, spline, self.shape_px, **frames, scale=self.scale, reading=reading)

    def patches_px(self, n_frames: int, reading: Reading) -> Floats | None:
        """Return the local shifts at the centres of patches."""
        if self.spline is None:
            return None
        return patch_shifts(read_spline(self.spline), n_frames, self.shape_px, scale=self.scale, rows=reading.rows)


Planned: TypeAlias = tuple[Source, Converted]


class Sources:
    """Where the motion of each micrograph is; what one lacks raises `LeftOutError`."""

    def __init__(
        self,
        micrographs: MicrographSet,
        options: MotionOptions,
        movies: MovieFiles,
        find: Callable[[str], Path | None],
    ) -> None:
        assert micrographs.motion is not None
        assert micrographs.motion.rigid is not None
        self._rigid, self._spline = micrographs.motion.rigid, micrographs.motion.spline
        self._rigid_names: list[str] = self._rigid.path.to_numpy().tolist()
        self._spline_names: list[str] | None = None if self._spline is None else self._spline.path.to_numpy().tolist()
        self._movies, self._files, self._find = micrographs.movies, movies, find
        self._options = options
        self._voltage_kV = micrographs.per_micrograph("voltage_kV")
        self._micrograph_size_A, self._shape = micrographs.pixel_size_A, micrographs.shape_px
        self.messages: list[Message] = []
        self._movie_size_A = self._known_sizes(micrographs)
        self._scale = self._scales()
        self._dose = self._known_doses(micrographs)

    def of(self, row: int) -> Source:
        """Return where the motion of a micrograph is."""
        if not self._files.names[row]:
            raise LeftOutError(NO_MOVIE, "")
        name = self._rigid_names[row]
        rigid = self._find(name) if name else None
        if rigid is None:
            raise LeftOutError(NO_TRAJECTORY, name)
        spline_name = None if self._spline_names is None else self._spline_names[row]
        spline = self._find(spline_name) if spline_name else None
        if spline_name and spline is None:
            raise LeftOutError(NO_TRAJECTORY, spline_name)
        index = 0 if self._rigid.index is None else int(self._rigid.index[row])
        n_frames, shape_px, eer = self._frames(row)
        first = 0 if self._rigid.first_frame is None else int(self._rigid.first_frame[row])
        if not 0 <= first < n_frames:
            raise LeftOutError(OTHER_FRAMES, f"frame {first + 1} of {n_frames}")
        size_A, dose = float(self._movie_size_A[row]), float(self._dose[row])
        finer = 1 if eer is None else finer_pixels(eer, shape_px[1] * size_A, self._micrograph_width_A(row))
        size_A /= finer
        if eer is not None and not self._options.dose_per_frame:  # the dose is that of all frames
            dose *= used_part(eer)
        voltage = float(self._voltage_kV[row])
        binning = float(self._micrograph_size_A[row]) / size_A
        general = {
            "movie": self._files.names[row],
            "pixel_size_A": size_A,
            "dose_per_frame_e_A2": dose,
            "voltage_kV": voltage if np.isfinite(voltage) else None,
            "pre_exposure_e_A2": self._options.pre_exposure,
            "gain": self._files.gains[row],
            "binning": round(binning, 6) if np.isfinite(binning) else 1.0,
            "eer_grouping": None if eer is None else eer.grouping,
            "eer_upsampling": None if eer is None else eer.upsampling,
        }
        # A trajectory has the frames from `frame_start` up to the one before `frame_end`, as cryosparc-tools says.
        end = 0 if self._rigid.end_frame is None else int(self._rigid.end_frame[row])
        length = (min(end, n_frames) if end > first else n_frames) - first
        scale = float(self._scale[row]) * finer
        return Source(rigid, index, spline, scale, n_frames, first + 1, length, shape_px, general, eer, finer)

    def _micrograph_width_A(self, row: int) -> float | None:
        return None if self._shape is None else float(self._shape[row, 1] * self._micrograph_size_A[row])

    def _frames(self, row: int) -> tuple[int, tuple[int, int], EerFractions | None]:
        """Return how many frames a movie has and how large they are, by the metadata and its file."""
        movies = self._movies
        n_frames = int(movies.n_frames[row]) if movies is not None and movies.n_frames is not None else 0
        shape = tuple(movies.shape_px[row].tolist()) if movies is not None and movies.shape_px is not None else None
        file = self._files.files[row]
        header = None if file is None else movie_header(file)
        eer = None
        if header is not None and header.format == "EER":
            n_frames, shape = n_frames or header.n_frames, shape or header.shape_px
            eer = eer_fractions(header, n_frames, (int(shape[0]), int(shape[1])))
            if eer.upsampling is None:
                sizes = "{} × {} px in the metadata, {} × {} of the camera".format(*shape, *header.shape_px)
                raise LeftOutError(OTHER_SIZE, sizes)
        elif header is not None:
            self._require_same(header, n_frames, shape)
            n_frames, shape = header.n_frames, header.shape_px
        if not n_frames or shape is None:
            raise LeftOutError(NO_MOVIE, "neither the metadata nor a file say how many frames it has")
        if n_frames > MOST_FRAMES:
            raise LeftOutError(OTHER_FRAMES, f"{counted(n_frames, 'frame')}, as no movie has")
        return n_frames, (int(shape[0]), int(shape[1])), eer

    @staticmethod
    def _require_same(header: MovieHeader, n_frames: int, shape: tuple[int, ...] | None) -> None:
        if n_frames and header.n_frames != n_frames:
            text = f"{counted(header.n_frames, 'frame')} in {header.path.name}, {n_frames} in the metadata"
            raise LeftOutError(OTHER_FRAMES, text)
        if shape is not None and shape != header.shape_px:
            text = "{} × {} px in {}, {} × {} in the metadata".format(*header.shape_px, header.path.name, *shape)
            raise LeftOutError(OTHER_SIZE, text)

    def _known_sizes(self, micrographs: MicrographSet) -> Floats:
        sizes = None if self._movies is None else self._movies.pixel_size_A
        if sizes is None and self._rigid.pixel_size_A is not None:
            sizes = self._rigid.pixel_size_A
        wrong = np.arange(micrographs.n_rows) if sizes is None else np.flatnonzero(~is_pixel_size(sizes))
        if sizes is None or len(wrong):
            raise MissingDataError(
                "the pixel size of the movies is not known, without which RELION can't polish",
                path=micrographs.source,
                field="movie_blob/psize_A",
                rows=tuple(wrong[:3].tolist()),
                count=len(wrong),
                hint=f"Give the exposures of the job that imported the movies, or {option('motion', False)}.",
            )
        return sizes

    def _scales(self) -> Floats:
        """Return pixels of the movie for one of the trajectory's units."""
        if self._options.motion_unit == "A":
            return 1 / self._movie_size_A
        sizes = self._rigid.pixel_size_A
        if sizes is None:
            return np.ones_like(self._movie_size_A)
        scale: Floats = np.where(is_pixel_size(sizes), sizes, self._movie_size_A) / self._movie_size_A
        other = np.abs(scale - 1) > _SAME_SIZE
        if other.any():
            assert sizes is not None
            row = int(np.flatnonzero(other)[0])
            self.messages.append(
                warning(
                    "motion-pixel-size",
                    f"trajectories of {int(other.sum()):,} of {counted(len(scale), 'micrograph')} count "
                    f"pixels of {sizes[row]:.4g} Å (rigid_motion/psize_A), and the movie's are of "
                    f"{self._movie_size_A[row]:.4g} Å: shifts are taken {scale[row]:.4g} times as long",
                )
            )
        return np.where(other, scale, 1.0)

    def _known_doses(self, micrographs: MicrographSet) -> Floats:
        given, n = self._options.dose_per_frame, micrographs.n_rows
        known = None if self._movies is None else self._movies.dose_per_frame_e_A2
        dose = np.full(n, np.nan) if known is None else np.asarray(known, np.float64)
        if given:
            if (np.abs(dose - given) > 0.01 * given).any():
                text = f"a dose of {given:g} e/Å² a frame is taken; the exposures have {np.nanmedian(dose):.4g}"
                self.messages.append(note("motion-dose", text, option="dose_per_frame"))
            return np.full(n, given)
        wrong = np.flatnonzero(~(dose > 0))
        if len(wrong):
            raise MissingDataError(
                f"the dose of {len(wrong):,} of {counted(n, 'movie')} is not known, which RELION would take as -1 in "
                "silence",
                path=micrographs.source,
                field="mscope_params/total_dose_e_per_A2",
                rows=tuple(wrong[:3].tolist()),
                count=len(wrong),
                hint=f"Give {option('dose_per_frame')} in e/Å², or {option('motion', False)}.",
            )
        return dose
