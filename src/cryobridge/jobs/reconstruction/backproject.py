"""`cb.backproject`: a small map of particles."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.formats.contrast import is_dark
from cryobridge.formats.open import read
from cryobridge.formats.relion.accepted import is_premultiplied
from cryobridge.jobs.half_sets import is_of_half
from cryobridge.jobs.reconstruction.images import chosen_images
from cryobridge.jobs.reconstruction.options import BackprojectOptions
from cryobridge.model.particles import ParticleSet
from cryobridge.options import made, takes
from cryobridge.report import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A small map.

    Parameters
    ----------
    density
        (box, box, box) float32, z, y, x, its centre at ``box // 2``.
    voxel_size_A
        Edge of a voxel.
    rows
        (n,) the particles that it is made of.
    """

    density: Tensor
    voxel_size_A: float
    rows: NDArray[np.int64]

    def __repr__(self) -> str:
        made_of = (
            f"{counted(len(self.rows), 'particle')}, {len(self.density)} voxels of {self.voxel_size_A:g} Å an edge"
        )
        return f"Reconstruction({made_of})"

    def fsc(self, other: Reconstruction | Tensor) -> Tensor:
        """Return the Fourier shell correlation with another map of the same box, (box // 2 + 1,).

        Raises
        ------
        UsageError
            If the boxes differ.
        """
        from cryobridge.fourier.fsc import fourier_shell_correlation

        return fourier_shell_correlation(self.density, other.density if isinstance(other, Reconstruction) else other)


@takes(BackprojectOptions)
def backproject(particles: ParticleSet | str | os.PathLike[str], **options: Any) -> Reconstruction:
    """Reconstruct a small map of some particles, to check what metadata say of their images; not for science.

    Direct Fourier inversion with CTF weights (`cryobridge.fourier.backprojection`): all of poses, shifts, CTF,
    aberrations and anisotropic magnification counts, and whether a STAR file says that images are multiplied by their
    CTF. A map of 2,000 images of 64 px takes some seconds on a CPU.

    Parameters
    ----------
    particles
        With poses, CTF and images: a set, or what `cryobridge.read` takes.
    **options
        The fields of `BackprojectOptions`.

    Returns
    -------
    Reconstruction
        The map. It has the field of view of the first image.

    Raises
    ------
    UsageError
        If an option is wrong, or the poses are those of a 2D classification.
    MissingDataError
        If poses, CTF, images or what they need are not known or not there.
    FormatError
        If a stack can't be read.

    Examples
    --------
    >>> import cryobridge as cb
    >>> halves = [cb.backproject("J4", half_set=number) for number in (1, 2)]
    >>> halves[0].fsc(halves[1])[:8]
    """
    chosen = made(BackprojectOptions, options)
    found = particles if isinstance(particles, ParticleSet) else read(particles)
    if found.poses is not None and found.poses.is_2d:
        raise UsageError(
            f"the poses are those of a 2D classification ({found.poses.source}), which make no map",
            hint="Give the particles of a refinement or of an ab-initio reconstruction.",
        )
    rows = some_rows(found, chosen.n, half_set=chosen.half_set)
    images = chosen_images(found, rows, chosen.image_search(found.source))
    dark = is_dark(found) if chosen.contrast == "bright" else None

    from cryobridge.jobs.reconstruction.maps import Said, mapped

    said = Said(found, rows, is_premultiplied(found)[rows], None if dark is None else dark[rows])
    (made_map,), used = mapped(images, [said], chosen.box_px, chosen.device)
    return Reconstruction(made_map.density().float(), made_map.voxel_size_A, rows[used])


def some_rows(
    particles: ParticleSet, n: int, *, half_set: int | None = None, among: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return rows that are drawn from those with a pose, the same ones each time; in order.

    Parameters
    ----------
    particles
        The set.
    n
        At most how many.
    half_set
        Only particles of this half set.
    among
        (m,) rows of the set; places in these are returned. All of the set if not given.

    Raises
    ------
    MissingDataError
        If no particle has a pose, or the half set is not known.
    """
    poses = particles.poses
    among = np.arange(len(particles)) if among is None else among
    is_taken: NDArray[np.bool_] = np.zeros(len(among), bool)
    if poses is not None:
        is_taken = is_taken | np.isfinite(poses.matrix[among]).all(axis=(1, 2))
        if poses.shift_A is not None:
            is_taken = is_taken & np.isfinite(poses.shift_A[among]).all(axis=1)
    if half_set is not None:
        is_taken = is_taken & is_of_half(particles, half_set)[among]
    places = np.flatnonzero(is_taken)
    if not len(places):
        raise MissingDataError(
            "no particle has a pose", path=particles.source, hint="Give the particles of a refinement."
        )
    return places if len(places) <= n else np.sort(np.random.default_rng(0).choice(places, n, replace=False))
