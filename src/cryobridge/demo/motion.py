"""How the specimen moves while a movie is taken, and cryoSPARC's files that say so, by the public specification.

The motion is kept in RELION's terms: the shift that moves a frame back. cryoSPARC's rigid trajectory is (-x, +y) of it,
the local one likewise, as coefficients of natural cubic B-splines over rows in reversed order. Nothing of cryobridge's
own reading of such files is used here, so that these movies can judge it: SciPy evaluates the splines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, ndimage

from cryobridge.formats.atomic import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.model.particles import Floats

# Coefficients in time, y and x.
_KNOTS = (4, 4, 5)


@dataclass(frozen=True)
class TrueMotion:
    """The motion of a movie.

    Parameters
    ----------
    global_px
        (n_frames, 2) RELION's shift x, y of the whole frame, zero in the first one.
    spline
        (2, KZ, KY, KX) cryoSPARC's local motion.
    """

    global_px: Floats
    spline: Floats

    @property
    def n_frames(self) -> int:
        """How many frames the movie has."""
        return len(self.global_px)

    def shifts_px(self, places_px: NDArray[Any], shape_px: tuple[int, int]) -> Floats:
        """Return the shift that moves a frame back: a particle is where it was in the first frame, less this.

        Parameters
        ----------
        places_px
            (n, 2) x, y in RELION's rows.
        shape_px
            ny, nx of the frames.

        Returns
        -------
        numpy.ndarray
            (n, n_frames, 2) x, y in RELION's rows, pixels of the movie.
        """
        return self.global_px + self._local_px(places_px, shape_px)

    def _local_px(self, places_px: NDArray[Any], shape_px: tuple[int, int]) -> Floats:
        """Return (-x, +y) of the spline at (ny - 1) - y."""
        ny, nx = shape_px
        k_z, k_y, k_x = self.spline.shape[1:]
        x, y = places_px.T[:, :, None]
        frames = np.arange(self.n_frames)[None] * ((k_z - 1) / (self.n_frames - 1))
        at = np.broadcast_arrays(frames, ((ny - 1) - y) * ((k_y - 1) / (ny - 1)), x * ((k_x - 1) / (nx - 1)))
        padded = [np.pad(one, 1, mode="reflect", reflect_type="odd") for one in self.spline]
        moved = [ndimage.map_coordinates(one, np.array(at) + 1, order=3, prefilter=False) for one in padded]
        return np.stack([-moved[0], moved[1]], axis=-1)


def draw_drift(rng: np.random.Generator, n_frames: int) -> Floats:
    """Draw the motion of whole frames, (n_frames, 2)."""
    steps = np.vstack([np.zeros((1, 2)), rng.normal([0.6, -0.4], 0.3, (n_frames - 1, 2))])
    return np.cumsum(steps, axis=0)


def draw_motion(rng: np.random.Generator, n_frames: int, roughness: float = 0.1) -> TrueMotion:
    """Draw motion with a local part on a coarse grid, which RELION's model holds the less the rougher it is."""
    k_z, k_y, k_x = _KNOTS
    time = np.linspace(0, 1, k_z)[:, None, None]
    slope = rng.normal(0, 1.5, (2, 3))
    y, x = np.linspace(-0.5, 0.5, k_y)[:, None], np.linspace(-0.5, 0.5, k_x)
    smooth = np.stack([time * (a + b * x + c * y) for a, b, c in slope])
    return TrueMotion(draw_drift(rng, n_frames), smooth + time * rng.normal(0, roughness, (2, k_z, k_y, k_x)))


def moved_images(images: NDArray[Any], paths_px: NDArray[Any]) -> NDArray[Any]:
    """Return images as they are in each frame.

    Parameters
    ----------
    images
        (n, size, size) with room around the particles, since the Fourier transform wraps around.
    paths_px
        (n, n_frames, 2) by how much x, y they move.

    Returns
    -------
    numpy.ndarray
        (n_frames, n, size, size).
    """
    size = images.shape[-1]
    spectra = fft.rfft2(images)
    kx, ky = fft.rfftfreq(size), fft.fftfreq(size)
    moved = []
    for x, y in np.moveaxis(paths_px, 1, 0).transpose(0, 2, 1):
        turn_x, turn_y = np.exp(-2j * np.pi * np.outer(x, kx)), np.exp(-2j * np.pi * np.outer(y, ky))
        phase = (turn_y[:, :, None] * turn_x[:, None]).astype(spectra.dtype)
        moved.append(fft.irfft2(spectra * phase, s=(size, size)))
    return np.stack(moved)


def write_trajectories(folder: Path, name: str, motion: TrueMotion, offset: tuple[float, float] = (0.0, 0.0)) -> None:
    """Write cryoSPARC's two files of a movie: ``NAME_rigid_traj.npy`` and ``NAME_bending_traj.npy``.

    Parameters
    ----------
    folder, name
        Where.
    motion
        In RELION's terms.
    offset
        What the rigid trajectory has in the first frame.
    """
    rigid = motion.global_px * [-1, 1] + np.array(offset)
    for end, values in (("rigid", rigid[np.newaxis]), ("bending", motion.spline)):
        with atomic_path(folder / f"{name}_{end}_traj.npy") as temporary, temporary.open("wb") as file:
            np.save(file, values)


def write_tiff(path: Path, frames: NDArray[Any]) -> None:
    """Write frames (n, ny, nx) as a compressed TIFF file, whose rows RELION reads in reversed order."""
    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in frames)
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, compression="tiff_lzw")
        _fill_gaps(temporary)


# Tags of TIFF: where the pieces of an image begin, and their bytes.
_OFFSETS, _COUNTS = 273, 279


def _fill_gaps(path: Path) -> None:
    """Write 0 where a TIFF file has an unused byte, which Pillow leaves as memory had it: equal movies, equal files."""
    from PIL import Image, ImageSequence, TiffImagePlugin

    with Image.open(path) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        tags = [dict(image.tag_v2) for _ in ImageSequence.Iterator(image)]
    ends = [max(map(sum, zip(page[_OFFSETS], page[_COUNTS], strict=True))) for page in tags]
    with path.open("r+b") as file:
        for end in ends:
            if end % 2:  # directories begin at even places
                file.seek(end)
                file.write(b"\0")
