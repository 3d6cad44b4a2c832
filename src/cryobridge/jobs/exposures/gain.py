"""Gain references of movies, as RELION multiplies by them: turned, in MRC, and compared with the movies' pixels."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, option
from cryobridge.formats.gain import (
    EER_SUFFIX,
    Flatness,
    Turn,
    flatness,
    for_relion,
    read_gain,
    relion_turn,
    write_gain,
)
from cryobridge.formats.image_search import as_given
from cryobridge.formats.input_file import read_input
from cryobridge.formats.movies import MovieFormat, movie_header, sum_of_frames
from cryobridge.formats.tiff_header import is_tiff
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from cryobridge.jobs.exposures.motion_options import MotionOptions
    from cryobridge.model.micrographs import GainReference, MicrographSet

# Frames of a movie that are compared with a reference, and movies: enough for gains that differ by a few per cent.
_N_MOVIES, _N_FRAMES = 3, 8
_TIFF = {".tif", ".tiff"}


class _Use(NamedTuple):
    """One reference, for movies of one format."""

    name: str
    turn: Turn
    movie: MovieFormat


@dataclass(frozen=True)
class PreparedGain:
    """A gain reference for RELION.

    Parameters
    ----------
    name
        Of the file that is written.
    source
        The original.
    turn, movie
        How cryoSPARC puts it onto the movies, and their format.
    pixel_size_A
        Of the movies, for the header.
    """

    name: str
    source: Path
    turn: Turn
    movie: MovieFormat
    pixel_size_A: float

    @property
    def is_kept(self) -> bool:
        """Whether RELION reads the original itself: EER's own form, which is not turned."""
        return self.name.endswith(EER_SUFFIX)

    def pixels(self) -> NDArray[np.float32]:
        """Return what RELION multiplies movies by, in the rows that it reads.

        Raises
        ------
        CryobridgeError
            If the original can't be read.
        """
        divides = self.source.suffix.lower() == EER_SUFFIX
        return for_relion(read_gain(self.source), self.turn, self.movie, divides=divides)

    def write(self, folder: Path) -> None:
        """Write it into a folder; a reference that RELION reads itself becomes a link.

        Raises
        ------
        CryobridgeError
            If the original can't be read, or the file not be written.
        """
        path = folder / self.name
        if self.is_kept:
            path.unlink(missing_ok=True)
            path.symlink_to(self.source.resolve())
            return
        write_gain(path, self.pixels(), self.pixel_size_A)


@dataclass(frozen=True)
class GainPlan:
    """The gain references that will be written.

    Parameters
    ----------
    gains
        Each once.
    names
        Of each micrograph the name of its reference in the folder; None where its movie needs none.
    messages
        How they are turned, and whether that flattens the movies.
    """

    gains: tuple[PreparedGain, ...]
    names: tuple[str | None, ...]
    messages: tuple[Message, ...]


def plan_gains(
    micrographs: MicrographSet,
    options: MotionOptions,
    files: Sequence[Path | None],
    find: Callable[[str], Path | None],
) -> GainPlan:
    """Find the gain references of movies, and see that they fit.

    Parameters
    ----------
    micrographs
        Of cryoSPARC.
    options
        A reference that takes the place of cryoSPARC's, and how it is turned.
    files
        The movies, None where they are not on this disk.
    find
        From the name of a file to where it is, or None.

    Raises
    ------
    MissingDataError
        If a reference is not found, without which RELION would crash.
    FormatError
        If one can't be read, or is of another size than the movies, at which RELION would crash.
    """
    uses = _uses(micrographs, options, files)
    distinct = list(dict.fromkeys(use for use in uses if use is not None))
    messages = _without(micrographs, uses, options)
    gains: dict[_Use, PreparedGain] = {}
    for number, use in enumerate(distinct, 1):
        rows = [row for row, one in enumerate(uses) if one == use]
        source = options.gain_reference or _found(use.name, micrographs, find)
        if source is None:
            raise MissingDataError(
                f"the gain reference {use.name} of {counted(len(rows), 'movie')} is not found; RELION would crash",
                path=micrographs.source,
                field="gain_ref_blob/path",
                hint=f"Name the file with {option('gain_reference')}, or cryoSPARC's project with {option('datadir')}; "
                f"or give {option('motion', False)}, and polishing is not possible.",
            )
        turn, said = _checked(micrographs, options, use, source, [(row, files[row]) for row in rows])
        messages += said
        is_kept = use.movie == "EER" and source.suffix.lower() == EER_SUFFIX and turn == Turn()
        stem = "gain" if len(distinct) == 1 else f"gain{number}"
        sizes = None if micrographs.movies is None else micrographs.movies.pixel_size_A
        size_A = 1.0 if sizes is None or not sizes[rows[0]] > 0 else float(sizes[rows[0]])
        name = f"{stem}{EER_SUFFIX if is_kept else '.mrc'}"
        gains[use] = PreparedGain(name, Path(source), turn, use.movie, size_A)
    names = tuple(None if use is None else gains[use].name for use in uses)
    return GainPlan(tuple(gains.values()), names, tuple(messages))


def _found(name: str, micrographs: MicrographSet, find: Callable[[str], Path | None]) -> Path | None:
    """Return where a reference is, as the exposures were given: from here, or from the root."""
    found = find(name)
    return found if found is None or Path(name).is_absolute() else as_given(found, micrographs.source)


def _uses(micrographs: MicrographSet, options: MotionOptions, files: Sequence[Path | None]) -> list[_Use | None]:
    """Return the reference of each micrograph's movie; None where it needs none."""
    movies = micrographs.movies
    if movies is None:
        return [None] * micrographs.n_rows
    names = [""] * micrographs.n_rows if movies.gain is None else movies.gain.name.to_numpy().tolist()
    if options.gain_reference is not None:
        names = [str(options.gain_reference)] * micrographs.n_rows
    corrected = movies.is_gain_corrected
    movie_names = movies.name.to_numpy().tolist()
    formats: dict[str, MovieFormat] = {}
    uses: list[_Use | None] = []
    for row, name in enumerate(names):
        if not name or (corrected is not None and corrected[row]):
            uses.append(None)
            continue
        suffix = PurePath(movie_names[row]).suffix.lower()
        if suffix not in formats:
            formats[suffix] = _format(suffix, files[row])
        uses.append(_Use(name, _turn(movies.gain, row), formats[suffix]))
    return uses


def _format(suffix: str, file: Path | None) -> MovieFormat:
    with suppress(CryobridgeError):  # of a damaged movie the name says it
        if file is not None:
            return movie_header(file).format
    return "TIFF" if suffix in _TIFF else "EER" if suffix == ".eer" else "MRC"


def _turn(gain: GainReference | None, row: int) -> Turn:
    if gain is None:
        return Turn()
    flip_x, flip_y = (False if flip is None else bool(flip[row]) for flip in (gain.flip_x, gain.flip_y))
    return Turn(flip_x, flip_y, 0 if gain.quarter_turns is None else int(gain.quarter_turns[row]) % 4)


def _without(micrographs: MicrographSet, uses: Sequence[_Use | None], options: MotionOptions) -> list[Message]:
    """Warn of movies that are not corrected and name no reference, which RELION takes as they are in silence."""
    corrected = None if micrographs.movies is None else micrographs.movies.is_gain_corrected
    if corrected is None:
        return []
    n = sum(use is None and not is_corrected for use, is_corrected in zip(uses, corrected, strict=True))
    if not n:
        return []
    text = (
        f"{counted(n, 'movie is', 'movies are')} not gain-corrected, and no gain reference is named; RELION takes none"
    )
    return [warning("gain-missing", f"{text} unless {option('gain_reference')} is given", option="gain_reference")]


def _checked(
    micrographs: MicrographSet,
    options: MotionOptions,
    use: _Use,
    source: Path,
    movies: Sequence[tuple[int, Path | None]],
) -> tuple[Turn, list[Message]]:
    """Return how a reference is turned, and what its size and the pixels of movies say of that."""
    gain = read_gain(source)
    divides = source.suffix.lower() == EER_SUFFIX
    seen = _seen(gain, [file for _, file in movies if file is not None], divides=divides)
    turn = seen.turn if options.gain_turn == "pixels" and seen is not None and seen.is_sure else use.turn
    own = micrographs.movies
    shapes = None if own is None else own.shape_px
    turned = turn.of(gain)
    if own is not None and shapes is not None and use.movie != "EER":
        for row, _ in movies:
            if tuple(shapes[row].tolist()) != turned.shape:
                is_turned = turned.shape[::-1] == tuple(shapes[row].tolist())
                pixels = f"turn it with {option('gain_turn', 'pixels')}, " if is_turned else ""
                raise FormatError(
                    "{} × {} px, and the movie {} has {} × {}; RELION would crash".format(
                        *turned.shape, own.name.to_numpy()[row], *shapes[row].tolist()
                    ),
                    path=source,
                    field="gain_ref_blob/rotate_num" if is_turned else None,
                    hint=f"Give the reference of these movies with {option('gain_reference')}, {pixels}or "
                    f"{option('motion', False)} for lists without what polishing needs.",
                )
    if use.movie == "EER":
        _refuse_other_camera(source, turned.shape, [file for _, file in movies if file is not None])
    messages = [_turned(source, turn, use)]
    if seen is not None:
        messages.append(_fits(source, gain, turn, seen))
    elif options.gain_turn == "pixels":
        text = f"no pixels of movies can be compared with {source.name}; it is turned as cryoSPARC's columns say"
        messages.append(warning("gain-orientation", text, where=source, option="gain_turn"))
    return turn, messages


def _refuse_other_camera(source: Path, shape: tuple[int, ...], movies: Sequence[Path]) -> None:
    """Refuse a reference that has neither the pixels of an EER movie's camera nor finer ones of the same."""
    for file in movies[:_N_MOVIES]:
        try:
            camera = movie_header(file).shape_px
        except CryobridgeError:  # it is left out by itself
            continue
        if shape not in {(camera[0] * finer, camera[1] * finer) for finer in (1, 2, 4)}:
            raise FormatError(
                "{} × {} px, and the camera of {} has {} × {}; RELION would crash".format(*shape, file.name, *camera),
                path=source,
                hint=f"Give the reference of these movies with {option('gain_reference')}, or "
                f"{option('motion', False)} for lists without what polishing needs.",
            )


def _turned(source: Path, turn: Turn, use: _Use) -> Message:
    is_tiff_gain = is_tiff(read_input(source, 4)) and source.suffix.lower() != EER_SUFFIX
    way = relion_turn(turn, use.movie, is_tiff_gain=is_tiff_gain)
    return note(
        "gain-turned",
        f"the gain reference {source.name} is written for RELION as it lies on {use.movie} movies; of the original, "
        f"relion_run_motioncorr would take it with --gain_rot {way.rotation} --gain_flip {way.flip}",
        where=source,
    )


def _fits(source: Path, gain: NDArray[np.float32], turn: Turn, seen: Flatness) -> Message:
    """Say whether a reference flattens the movies as it is turned."""
    if not seen.is_sure:
        text = f"movies don't show how {source.name} lies (correlation {seen.correlation:.2g}, next {seen.second:.2g})"
        return note("gain-orientation", text, where=source)
    if np.array_equal(seen.turn.of(gain), turn.of(gain)):
        text = f"{source.name} flattens the movies as it is turned (correlation {seen.correlation:.2g}"
        return note("gain-orientation", f"{text}, in other ways at most {seen.second:.2g})", where=source)
    return warning(
        "gain-orientation",
        f"{source.name} does not flatten the movies as it is turned, but with flip_x {int(seen.turn.flip_x)}, flip_y 0 "
        f"and {counted(seen.turn.quarter_turns, 'quarter turn')} (correlation {seen.correlation:.2g}, in other ways at "
        f"most {seen.second:.2g}): {option('gain_turn', 'pixels')} takes it so",
        where=source,
        option="gain_turn",
    )


def _seen(gain: NDArray[np.float32], files: Sequence[Path], *, divides: bool) -> Flatness | None:
    """Compare a reference with some frames of some movies; None where there are none."""
    total: NDArray[np.float32] | None = None
    for file in files[:: max(1, len(files) // _N_MOVIES)][:_N_MOVIES]:
        try:
            header = movie_header(file)
            pixels = sum_of_frames(header, range(min(_N_FRAMES, header.n_frames)))
            total = pixels if total is None else total + pixels
        except CryobridgeError:
            continue
        except ValueError:  # movies of different sizes
            continue
    return None if total is None else flatness(gain, total, divides=divides)
