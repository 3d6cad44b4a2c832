"""Movies: how many frames a file has and how large they are, whether it is MRC, TIFF or EER."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from cryobridge.errors import FormatError
from cryobridge.formats.input_file import read_error, read_input
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.tiff_header import is_tiff, read_tiff_header
from cryobridge.report import Message, counted, part_of, warning

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

MovieFormat: TypeAlias = Literal["MRC", "TIFF", "EER"]
# RELION's numbers for how much finer than the camera's pixels electrons are counted, by the factor.
UPSAMPLING: Final = {1: 1, 2: 2, 4: 3}
# No pixel counts so many electrons.
_LARGEST_SUM = 1e9


@dataclass(frozen=True)
class MovieHeader:
    """What the header of a movie says.

    Attributes
    ----------
    n_frames
        Frames in the file; of an EER file those of the camera, of which many make a fraction.
    ny, nx
        Rows and columns of a frame; of an EER file the camera's pixels, whatever electrons are counted in.
    format
        Decided by the first bytes, not by the name.
    messages
        What is wrong with the file, in words.
    """

    path: Path
    n_frames: int
    ny: int
    nx: int
    format: MovieFormat
    messages: tuple[Message, ...] = ()

    @property
    def shape_px(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self.ny, self.nx


def movie_header(path: str | os.PathLike[str]) -> MovieHeader:
    """Read the header of a movie; no pixel is read.

    Parameters
    ----------
    path
        An MRC file (also one compressed by gzip or bzip2), a TIFF or BigTIFF file, or an EER file, which is a BigTIFF.

    Raises
    ------
    FormatError
        If the file can't be read or is none of these.

    Examples
    --------
    >>> header = movie_header("movie_0001.tif")
    >>> header.n_frames, header.shape_px
    (38, (7676, 7420))
    """
    path = Path(path)
    try:
        head = read_input(path, 4)
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise read_error(path, error) from error
    if is_tiff(head):
        return _of_tiff(path)
    if path.suffix.lower() == ".eer":
        raise FormatError(
            "an EER file of the first version of the format, which is no TIFF file",
            path=path,
            hint="Its frames can't be counted: give its fractions, as they were when its motion was corrected.",
        )
    header = read_header(path)
    return MovieHeader(path, header.nz, header.ny, header.nx, "MRC", header.problems)


def _of_tiff(path: Path) -> MovieHeader:
    header = read_tiff_header(path)
    messages = []
    # An EER file may begin with an image of the sum.
    if header.n_other and not header.is_eer:
        text = f"{part_of(header.n_other, header.n_pages + header.n_other, 'page')} of another size or kind than the "
        messages.append(warning("movie-header", f"{text}first; not counted as frames", where=path))
    name: MovieFormat = "EER" if header.is_eer else "TIFF"
    return MovieHeader(path, header.n_pages, header.ny, header.nx, name, tuple(messages))


@dataclass(frozen=True)
class EerFractions:
    """How the frames of an EER movie are grouped.

    Parameters
    ----------
    grouping
        Frames of the camera in a fraction: rlnEERGrouping.
    n_fractions
        Fractions: rlnImageSizeZ.
    n_left
        Frames at the end that are in none of them with this grouping. It is not known which fractions another program
        put them into, so that its frames and RELION's differ in time where there are some.
    upsampling
        rlnEERUpsampling: 1 for the camera's pixels, 2 for half of them, 3 for quarters; None where the sizes don't say.
    """

    grouping: int
    n_fractions: int
    n_left: int
    upsampling: int | None


def eer_fractions(header: MovieHeader, n_fractions: int, shape_px: tuple[int, int] | None = None) -> EerFractions:
    """Return RELION's grouping of an EER movie that another program has made fractions of.

    Parameters
    ----------
    header
        Of the movie.
    n_fractions
        How many fractions were made of it, as ``movie_blob/shape`` has them.
    shape_px
        Rows and columns of a fraction, by which it is known whether electrons were counted in parts of pixels.

    Raises
    ------
    FormatError
        If the movie has fewer frames than fractions.

    Examples
    --------
    >>> eer_fractions(MovieHeader(Path("m.eer"), 1005, 4096, 4096, "EER"), 40, (8192, 8192))
    EerFractions(grouping=25, n_fractions=40, n_left=5, upsampling=2)
    """
    if not 0 < n_fractions <= header.n_frames:
        raise FormatError(
            f"{counted(header.n_frames, 'frame')} can't make {counted(n_fractions, 'fraction')}",
            path=header.path,
            hint="Compare the file with the one that cryoSPARC imported.",
        )
    grouping = header.n_frames // n_fractions
    factor = None if shape_px is None else _factor(header.shape_px, shape_px)
    upsampling = None if factor is None else UPSAMPLING.get(factor)
    return EerFractions(grouping, n_fractions, header.n_frames - grouping * n_fractions, upsampling)


def _factor(of_camera: tuple[int, int], of_fraction: tuple[int, int]) -> int | None:
    """Return how many times larger a fraction is; None where it is no whole number, or differs by the axis."""
    (ny, nx), (ny_fraction, nx_fraction) = of_camera, of_fraction
    factor = ny_fraction // ny
    return factor if (ny_fraction, nx_fraction) == (factor * ny, factor * nx) and factor else None


def read_frames(header: MovieHeader, frames: Sequence[int]) -> NDArray[np.float32]:
    """Read frames of a movie, (n, ny, nx), with the rows in the order in which they are stored.

    Parameters
    ----------
    header
        Of the movie.
    frames
        Which ones, from 0.

    Raises
    ------
    FormatError
        If they can't be read, or it is an EER movie.
    """
    if header.format == "EER":
        raise FormatError("frames of EER movies are not read", path=header.path)
    if header.format == "TIFF":
        from cryobridge.formats.tiff_pixels import read_tiff_pages

        return read_tiff_pages(header.path, frames)
    from cryobridge.formats.mrc import open_mrc

    return open_mrc(header.path).read(list(frames))


def sum_of_frames(header: MovieHeader, frames: Iterable[int]) -> NDArray[np.float32]:
    """Return the sum (ny, nx) of frames of a movie, of which one is in memory at a time.

    Raises
    ------
    FormatError
        As `read_frames`, or if pixels are no numbers or larger than those of movies.
    """
    import numpy as np

    total = np.zeros(header.shape_px, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for frame in frames:
            total += read_frames(header, [frame])[0]
    if not (np.abs(total) <= _LARGEST_SUM).all():  # nor NaN
        hint = "Have the movie made again; its frames are no images."
        raise FormatError("pixels that are no numbers, or larger than any of a movie", path=header.path, hint=hint)
    return total
