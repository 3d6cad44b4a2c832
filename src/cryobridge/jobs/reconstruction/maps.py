"""Maps of the same images by what one or several files say of them; needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryobridge.errors import FormatError
from cryobridge.fourier.backprojection import BackProjector, Slices, views_of
from cryobridge.fourier.devices import pick_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cryobridge.fourier.backprojection import Views
    from cryobridge.jobs.reconstruction.images import ChosenImages
    from cryobridge.model.particles import Floats, ParticleSet


@dataclass(frozen=True, eq=False)
class Said:
    """What a file says of chosen images.

    Parameters
    ----------
    particles, rows
        The set, and (n,) the row of each image.
    is_premultiplied
        (n,) whether the images are multiplied by their CTF.
    is_dark
        (n,) whether they are to be multiplied by -1; None for none.
    """

    particles: ParticleSet
    rows: NDArray[np.int64]
    is_premultiplied: NDArray[np.bool_]
    is_dark: NDArray[np.bool_] | None = None

    def views(self, images: ChosenImages) -> Views:
        """Return it as numbers; where the file lacks the pixel size, that of the images is taken."""
        pixel_size_A: Floats = images.pixel_size_A
        if self.particles.optics is not None and self.particles.optics_index is not None:
            own = self.particles.optics.pixel_size_A[self.particles.optics_index[self.rows]]
            pixel_size_A = np.where(np.isnan(own), pixel_size_A, own)
        return views_of(self.particles, self.rows, pixel_size_A, self.is_premultiplied)


def mapped(
    images: ChosenImages, said: Sequence[Said], box_px: int, device: str
) -> tuple[list[BackProjector], NDArray[np.int64]]:
    """Backproject the same images by what several files say of them; each is read and transformed once.

    Parameters
    ----------
    images
        The images.
    said
        What each file says of them.
    box_px
        Edge of the maps; that of the first image where this is smaller.
    device
        Where to work.

    Returns
    -------
    tuple
        A map for each, and which of the images are in it: not those that are constant, or hold NaN.

    Raises
    ------
    MissingDataError
        If a file does not say enough.
    FormatError
        If all images are constant or have pixels that are not finite.
    """
    box_px = min(box_px, int(images.size_px[0]))
    voxel_size_A = images.field_A / box_px
    on = pick_device(device)
    views = [each.views(images) for each in said]
    maps = [BackProjector(box_px, voxel_size_A, on) for _ in said]
    used = []
    for batch, pixels in images.batches():
        lowest, highest = pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2))  # NaN where one is
        is_usable = np.isfinite(lowest) & np.isfinite(highest) & (lowest < highest)
        chosen = batch[is_usable]
        if not len(chosen):
            continue
        used.append(chosen)
        pixel_size_A = float(images.pixel_size_A[chosen[0]])
        slices = Slices(pixels.shape[-1], 0.5 * pixel_size_A / voxel_size_A, on)
        spectra = slices.spectra(torch.from_numpy(pixels[is_usable]).to(on))
        for each, view, projector in zip(said, views, maps, strict=True):
            signs = spectra
            if each.is_dark is not None:
                sign = np.where(each.is_dark[chosen], -1, 1).astype(np.float32)
                signs = spectra * torch.from_numpy(sign).to(on)[:, None]
            projector.add(slices, signs, view.take(chosen).to(on))
    if not used:
        raise FormatError(
            "the images are constant, or hold NaN or infinity",
            path=images.headers[int(images.refs.path.codes[0])].path,
            hint="Extract the particles again.",
        )
    return maps, np.sort(np.concatenate(used))
