"""Gain references: MRC, TIFF and EER's `.gain`, and how they lie on the movie.

cryoSPARC flips a reference left to right (x), top to bottom (y), and then turns it counter-clockwise in quarter turns,
with the first stored row on top. RELION turns by `--gain_rot k` clockwise, then flips by `--gain_flip 1` (rows) or 2
(columns). RELION reads the rows of TIFF files in reversed order, of movies and gain references, those of MRC and EER
movies as they are stored; found by running RELION 3.1.3. So a reference for TIFF movies, written in MRC, has its rows
reversed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError, option
from cryobridge.formats.input_file import read_error, read_input
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.formats.tiff_header import is_tiff
from cryobridge.formats.tiff_pixels import read_tiff_pages
from cryobridge.report import part_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.movies import MovieFormat

# By which EER's references are known: what they hold divides, and RELION takes the inverse by the suffix alone.
EER_SUFFIX = ".gain"
# Factors are about 1, and what EER's references count about as many as the frames that they were made of.
_LARGEST = 1e9
_UNREAD = {".dm3": "Gatan's DM3", ".dm4": "Gatan's DM4", ".raw": "raw pixels"}


@dataclass(frozen=True)
class Turn:
    """How cryoSPARC puts a gain reference onto the movie.

    Parameters
    ----------
    flip_x, flip_y
        Left to right, and top to bottom; both before turning.
    quarter_turns
        Counter-clockwise, the first row on top.
    """

    flip_x: bool = False
    flip_y: bool = False
    quarter_turns: int = 0

    def of(self, gain: NDArray[Any]) -> NDArray[Any]:
        """Return a gain reference (ny, nx) as it lies on the movie.

        Examples
        --------
        >>> Turn(flip_x=True, quarter_turns=1).of(np.array([[1, 2], [3, 4]])).tolist()
        [[1, 3], [2, 4]]
        """
        flipped = gain[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return np.rot90(flipped, self.quarter_turns % 4)


# The eight ways in which a reference may lie.
ALL_TURNS = tuple(Turn(flip_x=flip, quarter_turns=turns) for flip in (False, True) for turns in range(4))


def read_gain(path: Path) -> NDArray[np.float32]:
    """Read a gain reference (ny, nx) with its rows in the order in which they are stored.

    Raises
    ------
    FormatError
        If it can't be read, is in a format that is not read, or is no single image.
    """
    convert = f"Convert it to MRC, for instance by IMOD's dm2mrc, and give that file with {option('gain_reference')}."
    if path.suffix.lower() in _UNREAD:
        raise FormatError(f"{_UNREAD[path.suffix.lower()]} is not read", path=path, hint=convert)
    try:
        head = read_input(path, 4)
    except OSError as error:
        raise read_error(path, error) from error
    if is_tiff(head):
        gain: NDArray[np.float32] = read_tiff_pages(path)[0]
    else:
        file = open_mrc(path)
        if file.header.nz != 1:
            raise FormatError(f"{file.header.nz} images; a gain reference is one", path=path, hint=convert)
        gain = file.read([0])[0]
    n_wrong = int((~(np.abs(gain) <= _LARGEST)).sum())  # NaN too
    if n_wrong:
        text = f"{part_of(n_wrong, gain.size, 'pixel')} no number, or larger than any factor"
        raise FormatError(text, path=path, hint="Make the gain reference again, or have it set them to 0.")
    if not (gain > 0).any():
        text = "no pixel is above 0, and movies would be empty"
        raise FormatError(text, path=path, hint=f"Give another one with {option('gain_reference')}.")
    return gain


def for_relion(gain: NDArray[Any], turn: Turn, movie: MovieFormat, *, divides: bool = False) -> NDArray[np.float32]:
    """Return a gain reference as RELION multiplies it, in the rows that RELION reads of the movie.

    Parameters
    ----------
    gain
        (ny, nx) with the rows as they are stored (`read_gain`).
    turn
        How cryoSPARC puts it onto the movie, whose rows it takes as they are stored.
    movie
        Format of the movies.
    divides
        Whether movies are divided by it, as by EER's `.gain` files.

    Examples
    --------
    >>> for_relion(np.array([[1.0, 2.0], [3.0, 4.0]]), Turn(), "TIFF").tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    turned = turn.of(np.asarray(gain, np.float32))
    if movie == "TIFF":
        turned = turned[::-1]
    if divides:
        mean = turned[turned > 0].mean(dtype=np.float64) if (turned > 0).any() else 1.0
        # Pixels that count nothing but for rounding are as useless as those that count nothing.
        counts = turned > mean * np.finfo(np.float32).eps
        turned = np.divide(mean, turned, out=np.zeros_like(turned), where=counts)
    return np.ascontiguousarray(turned, np.float32)


def write_gain(path: Path, gain: NDArray[Any], pixel_size_A: float) -> None:
    """Write a gain reference (ny, nx) in MRC."""
    write_mrc_stack(path, gain[np.newaxis], pixel_size_A)


@dataclass(frozen=True)
class RelionTurn:
    """How RELION's motion correction is to turn a gain reference: `--gain_rot` and `--gain_flip`."""

    rotation: int
    flip: int

    def of(self, gain: NDArray[Any]) -> NDArray[Any]:
        """Return a gain reference as RELION turns it.

        Examples
        --------
        >>> RelionTurn(1, 1).of(np.array([[1, 2], [3, 4]])).tolist()
        [[4, 2], [3, 1]]
        """
        turned = np.rot90(gain, -self.rotation)
        return {0: turned, 1: turned[::-1], 2: turned[:, ::-1]}[self.flip]


def relion_turn(turn: Turn, movie: MovieFormat, *, is_tiff_gain: bool) -> RelionTurn:
    """Return the options by which RELION turns the original gain reference as cryoSPARC does.

    Parameters
    ----------
    turn
        cryoSPARC's.
    movie
        Format of the movies.
    is_tiff_gain
        Whether the reference is TIFF too, of which RELION reverses the rows.

    Examples
    --------
    >>> relion_turn(Turn(), "TIFF", is_tiff_gain=False)
    RelionTurn(rotation=0, flip=1)
    """
    numbers = np.arange(6.0).reshape(2, 3)
    wanted = for_relion(numbers, turn, movie)
    as_read = numbers[::-1] if is_tiff_gain else numbers
    ways = (RelionTurn(rotation, flip) for flip in (0, 1, 2) for rotation in range(4))
    return next(way for way in ways if np.array_equal(way.of(as_read), wanted))


@dataclass(frozen=True)
class Flatness:
    """How well a gain reference flattens the mean of a movie, in each way that it may lie.

    Parameters
    ----------
    turn
        The way that fits best, and how cryoSPARC would say it.
    correlation, second
        Of what the reference expects with the mean of the frames, for the best way and the next one; 1 would be a mean
        without noise.
    noise
        What the correlation of unrelated images is by chance.
    """

    turn: Turn
    correlation: float
    second: float
    noise: float

    @property
    def is_sure(self) -> bool:
        """Whether one way fits, and no other nearly as well."""
        return self.correlation > max(10 * self.noise, 2 * self.second)


def flatness(gain: NDArray[Any], mean: NDArray[Any], *, divides: bool = False) -> Flatness | None:
    """Compare a gain reference with the mean of raw frames, in the eight ways in which it may lie.

    Pixels that count less have a larger gain. Each pixel is compared with those beside it, so that ice and particles
    matter little.

    Parameters
    ----------
    gain
        (ny, nx) with its rows as stored.
    mean
        (ny, nx) of the frames of a movie, with the rows as stored.
    divides
        Whether movies are divided by the reference.

    Returns
    -------
    Flatness or None
        None where sizes differ, or one of the two is flat.
    """
    sign = 1.0 if divides else -1.0
    seen = _detail(mean)
    found = []
    for turn in ALL_TURNS:
        turned = turn.of(gain)
        if turned.shape == mean.shape:
            expected = sign * _detail(turned)
            norm = float(np.linalg.norm(seen) * np.linalg.norm(expected))
            if norm > 0:
                found.append((float((seen * expected).sum()) / norm, turn))
    if not found:
        return None
    found.sort(key=lambda item: item[0], reverse=True)
    second = found[1][0] if len(found) > 1 else 0.0
    return Flatness(found[0][1], found[0][0], max(second, 0.0), 1 / float(np.sqrt(mean.size)))


def _detail(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the logarithm of an image less that of the pixels beside each, without outliers."""
    is_counted = (image > 0) & (image < np.inf)
    if not is_counted.any():
        return np.zeros(image.shape)
    logs = np.log(np.where(is_counted, image, np.median(image[is_counted])).astype(np.float64))
    beside = (np.roll(logs, 1, 0) + np.roll(logs, -1, 0) + np.roll(logs, 1, 1) + np.roll(logs, -1, 1)) / 4
    detail = logs - beside
    limit = 5 * detail.std()
    clipped = np.clip(detail, -limit, limit)
    centred: NDArray[np.float64] = clipped - clipped.mean()
    return centred
