"""What RELION refuses, or warns of, in the images themselves; a few of them stand for all.

RELION normalises images when it extracts them: the background, which is what lies outside of a circle around the
particle, has mean 0 and standard deviation 1. Its programs look whether that is so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError
from cryobridge.formats.mrc import open_mrc
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.model.particles import ImageRefs

# Of all stacks; the rest of a project is made alike.
_N_STACKS = 8
_N_IMAGES = 16
_SAMPLED_BYTES = 64 << 20
_HALF_PRECISION = 12
# The limits of RELION (ml_optimiser.cpp), and the circle that its Extract takes unless asked otherwise: 3/4 of the box.
_LARGEST_MEAN, _LEAST_STD, _LARGEST_STD = 0.5, 0.5, 2.0
_CIRCLE = 0.375


def image_warnings(images: ImageRefs, search: ImageSearch, *, reads_float16: bool = False) -> list[Message]:
    """Return warnings of images that RELION refuses; none of stacks that are not found.

    Parameters
    ----------
    images
        (n,) of the particles, by the names in the metadata.
    search
        Where the stacks are looked for. At most 8 headers and 16 images are read.
    reads_float16
        Whether the files are for a release that reads float16, 4 or later.
    """
    headers = [
        (code, header)
        for code in _evenly(np.unique(images.path.codes), _N_STACKS).tolist()
        if (header := search.header(images.path.values[code])) is not None
    ]
    messages = []
    n_half = sum(header.mode == _HALF_PRECISION for _, header in headers)
    if n_half and not reads_float16:
        messages += half_precision(f"{n_half} of {len(headers)} stacks that were looked at are")
    sampled = []
    at_once = max(1, _N_IMAGES // max(1, len(headers)))
    for code, header in headers:
        n_fit = max(1, _SAMPLED_BYTES // max(1, _N_IMAGES * header.section_bytes)) if header.section_bytes else 0
        own = images.index[images.path.codes == code]
        # Compressed stacks are unpacked as a whole, which is no quick look.
        if n_fit and header.whole_sections is not None:
            sampled += list(_images_of(header.path, _evenly(own[own < header.n_whole], min(at_once, n_fit))))
    return [*messages, *not_normalised(sampled)]


def half_precision(who: str) -> list[Message]:
    """Return a warning of stacks in half precision, which RELION reads from release 4 on."""
    text = (
        f"{who} float16, which RELION 3.1 refuses and 4 and later read; `cryobridge stacks downsample` with the box "
        "that they have writes float32"
    )
    return [warning("float16-stacks", text)]


def not_normalised(images: list[NDArray[Any]]) -> list[Message]:
    """Return a warning where some of these images, (ny, nx) each, have a background that RELION does not take.

    Examples
    --------
    >>> not_normalised([np.random.default_rng(0).normal(size=(64, 64))])
    []
    """
    found = np.array([background(image) for image in images]).reshape(-1, 2)
    mean, std = found.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # Written as what must hold, so that NaN fails it.
        is_good = (np.abs(mean / std) <= _LARGEST_MEAN) & (std >= _LEAST_STD) & (std <= _LARGEST_STD)
    bad = np.flatnonzero(~is_good)
    if not len(bad):
        return []
    text = (
        f"{len(bad)} of {len(found)} images that were looked at are not normalised: a background of "
        f"{mean[bad[0]]:.2g} ± {std[bad[0]]:.2g}, where RELION expects 0 ± 1; `relion_preprocess --norm` does it"
    )
    return [warning("not-normalised", text)]


def background(image: NDArray[Any]) -> tuple[float, float]:
    """Return mean and standard deviation of what lies outside of a circle of 3/4 of the box."""
    ny, nx = image.shape
    y, x = np.ogrid[:ny, :nx]
    outside = image[(y - ny // 2) ** 2 + (x - nx // 2) ** 2 > (_CIRCLE * min(ny, nx)) ** 2].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(outside.mean()), float(outside.std())


def _evenly(values: NDArray[Any], n: int) -> NDArray[Any]:
    return values[np.unique(np.linspace(0, len(values) - 1, min(n, len(values))).astype(np.int64))]


def _images_of(path: Path, index: NDArray[Any]) -> Iterator[NDArray[Any]]:
    try:
        yield from open_mrc(path).read(index)
    except CryobridgeError:
        return  # who reads the images says what is wrong with them
