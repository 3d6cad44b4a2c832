"""Images of the contrast transfer function, for any number of particles, on any torch device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cryobridge.errors import UsageError, option
from cryobridge.fourier.devices import batch_size_for, pick_device
from cryobridge.model.contrast_transfer import Lens, lens_of
from cryobridge.model.particles import require_pixel_sizes, require_set
from cryobridge.options import Opt, check, checked, made, takes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from cryobridge.model.particles import Floats, ParticleSet

    Rows: TypeAlias = Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]

_REAL = {"single": torch.float32, "double": torch.float64}
# What a batch has in hand besides its result: phases, and the factors that are multiplied.
_ARRAYS_IN_HAND = 4


@dataclass(frozen=True, kw_only=True)
class CTFOptions:
    """What is computed of the CTF, and how it lies in memory.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.
    """

    aberrations: Annotated[
        Literal["none", "even", "all"],
        Opt(
            "Neither aberrations nor anisotropic magnification; those that leave the CTF real; all, as a complex phase."
        ),
    ] = "even"
    envelope: Annotated[bool, Opt("Whether B-factor and scale count, where the set has them.")] = True
    sign: Annotated[
        Literal["relion", "opposite"],
        Opt(
            "RELION's, at the origin the amplitude contrast, positive; or that of cryoDRGN and others, negative there."
        ),
    ] = "relion"
    layout: Annotated[Literal["half", "full"], Opt("The frequencies of torch.fft.rfft2, or of torch.fft.fft2.")] = (
        "half"
    )
    centred: Annotated[bool, Opt("Whether the origin is at row, and of full ones column, box // 2; else at 0.")] = False
    pixel_size_A: Annotated[
        float | None,
        Opt("Of the images, for all of them, in place of that of their optics.", low=1e-3),
    ] = None
    precision: Annotated[Literal["single", "double"], Opt("Of the arithmetic and of the result.")] = "single"
    device: Annotated[str, Opt("cpu, cuda, cuda:1, mps, or auto.")] = "cpu"

    def __post_init__(self) -> None:
        check(self)


@takes(CTFOptions)
def ctf_images(
    particles: ParticleSet,
    box_px: int | None = None,
    *,
    rows: Rows | None = None,
    **options: Any,
) -> Tensor:
    """Compute the contrast transfer function of each particle as an image, by RELION's formula.

    With the defocus u and v in Å, its angle α from x towards y, spherical aberration Cs and wavelength λ in Å, phase
    shift φ₀, amplitude contrast w, B-factor B, scale s, and φ the polar angle of the frequency k in 1/Å::

        CTF = s exp(-B k²/4) sin(π λ D k² - π/2 Cs λ³ k⁴ + φ₀ + asin(w) - E)
        D = (u + v)/2 + (u - v)/2 cos 2(φ - α)
        λ = 12.2643247 / √(V (1 + 0.978466e-6 V))  for V volts

    E is the phase of tetrafoil and other even aberrations. With ``aberrations="all"`` the result is complex: that times
    exp(iχ), χ being the odd phase of beam tilt, trefoil and of the shift that comes with them; the transform of an
    image, the centre of the box at its origin, is that of the projection times this. All phases are taken at the
    frequencies that a magnification matrix leads to. Source: ``CTF::getCTF`` of RELION, doi:10.1016/j.jsb.2015.08.008
    and doi:10.1107/S2052252520000081.

    Parameters
    ----------
    particles
        With CTF and optics.
    box_px
        Edge of the images. If it is not that of the particles' images, it is that of theirs cropped or padded in
        Fourier space, whose field of view is the same and whose pixels are larger or smaller. Theirs if not given.
    rows
        (n,) which particles, from 0, in this order, or one truth value a particle; all if not given.
    **options
        The fields of `CTFOptions`.

    Returns
    -------
    Tensor
        (n, box, box // 2 + 1), or (n, box, box) for the full layout; float32 or float64, complex64 or complex128 with
        ``aberrations="all"``. Axis 1 is ky, axis 2 kx. The frequency of Nyquist is that of ``torch.fft.rfftfreq``,
        +1/2, and of ``torch.fft.fftfreq``, -1/2.

    Raises
    ------
    UsageError
        If an option is wrong, or the images differ in size and ``box_px`` is not given.
    MissingDataError
        If the CTF, or the pixel size, of a particle is not known.
    FormatError
        If an amplitude contrast, or a pixel size, can't be one.
    IndexError
        If there is no such row.

    Notes
    -----
    In single precision the error is some 1e-7 times the largest phase: 2e-5 for 3 µm at 2 Å. All images are in memory;
    `ctf_batches` makes them batch by batch.

    Examples
    --------
    >>> import cryobridge as cb
    >>> particles = cb.read("J4")
    >>> cb.ctf_images(particles, 96).shape
    torch.Size([16, 96, 49])
    """
    chosen = made(CTFOptions, options)
    return images_of_rows(particles, _row_numbers(particles, rows), box_px, chosen)


@takes(CTFOptions)
def ctf_batches(
    particles: ParticleSet,
    box_px: int | None = None,
    *,
    rows: Rows | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Compute the same as `ctf_images` batch by batch, so that only a batch is in memory.

    Parameters
    ----------
    particles, box_px, rows
        As there.
    batch_size
        Images in a batch; by the memory that is free, at most 1,024, if not given.
    **options
        The fields of `CTFOptions`.

    Yields
    ------
    tuple
        The rows (n,) of a batch, and its images (n, …).

    Raises
    ------
    UsageError, MissingDataError, FormatError, IndexError
        As there; before the first batch.

    Examples
    --------
    >>> import cryobridge as cb
    >>> sum(float(images.square().sum()) for rows, images in cb.ctf_batches(particles, 96))  # total power
    """
    chosen = made(CTFOptions, options)
    numbers = _row_numbers(particles, rows)
    _, size_px = _pixel_sizes(particles, numbers, box_px, chosen)
    if batch_size is None:
        n_bytes = _ARRAYS_IN_HAND * 2 * _REAL[chosen.precision].itemsize * size_px**2
        batch_size = batch_size_for(pick_device(chosen.device), n_bytes)
    else:
        batch_size = checked(batch_size, int, "batch_size", Opt(low=1))
    batches = (numbers[first : first + batch_size] for first in range(0, len(numbers), batch_size))
    return ((batch, images_of_rows(particles, batch, size_px, chosen)) for batch in batches)


def images_of_rows(
    particles: ParticleSet,
    rows: NDArray[np.int64],
    box_px: int | None,
    options: CTFOptions,
    empty: Callable[[tuple[int, ...], torch.dtype], Tensor] | None = None,
) -> Tensor:
    """Compute what `ctf_images` returns, for rows by their numbers.

    Parameters
    ----------
    particles, rows, box_px, options
        As there.
    empty
        What gives memory for real images on the CPU, if it is not to be fresh.

    Raises
    ------
    UsageError, MissingDataError, FormatError
        As there.
    """
    pixel_size_A, size_px = _pixel_sizes(particles, rows, box_px, options)
    lens = lens_of(particles, rows, aberrations=options.aberrations != "none").in_pixels(pixel_size_A)
    dtype, device = _REAL[options.precision], pick_device(options.device)
    kx, ky, shape = frequencies(size_px, options.layout, dtype, device, is_centred=options.centred)
    has_odd = options.aberrations == "all"
    out = None if empty is None or has_odd or device.type != "cpu" else empty((len(rows), len(kx)), dtype)
    has_envelope = options.envelope and lens.has_envelope
    found: Tensor = tensors(lens, dtype, device).transfer(
        kx, ky, torch, has_odd=has_odd, has_envelope=has_envelope, out=out
    )
    if options.sign == "opposite":
        found = found.neg_()
    return found.view(len(rows), *shape)


@lru_cache(maxsize=8)
def frequencies(
    box_px: int,
    layout: Literal["half", "full"],
    dtype: torch.dtype,
    device: torch.device,
    *,
    is_centred: bool = False,
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Return the frequencies of a transform in cycles a pixel.

    Returns
    -------
    tuple
        kx and ky, (m,) each, row by row, and the shape (rows, columns) of the transform.
    """
    ky = torch.fft.fftfreq(box_px, dtype=torch.float64)
    kx = torch.fft.rfftfreq(box_px, dtype=torch.float64) if layout == "half" else ky
    if is_centred:
        ky = torch.fft.fftshift(ky)
        kx = kx if layout == "half" else ky
    rows, columns = torch.meshgrid(ky, kx, indexing="ij")
    x, y = (axis.reshape(-1).to(dtype).to(device) for axis in (columns, rows))
    return x, y, (len(ky), len(kx))


def tensors(lens: Lens, dtype: torch.dtype, device: torch.device) -> Lens:
    """Return the coefficients as tensors."""
    return Lens(*(torch.from_numpy(getattr(lens, item.name)).to(dtype).to(device) for item in fields(lens)))


def _row_numbers(particles: ParticleSet, rows: Rows | None) -> NDArray[np.int64]:
    require_set(particles)
    return np.arange(len(particles)) if rows is None else particles.row_numbers(np.asarray(rows))


def _pixel_sizes(
    particles: ParticleSet, rows: NDArray[np.int64], box_px: int | None, options: CTFOptions
) -> tuple[Floats, int]:
    """Return the pixel sizes (n,) of images of one box, and that box."""
    optics, index = particles.optics, particles.optics_index
    own_box: NDArray[np.int64] = np.zeros(len(rows), np.int64)
    pixel_size_A: Floats = np.full(len(rows), np.nan)
    if optics is not None and index is not None:
        own_box, pixel_size_A = optics.box_px[index[rows]], optics.pixel_size_A[index[rows]]
    size_px: int | None = None if box_px is None else checked(box_px, int, "box_px")
    if size_px is None:
        sizes = np.unique(own_box if len(rows) or optics is None else optics.box_px)
        if len(sizes) > 1:
            listed = ", ".join(map(str, sizes.tolist()))
            raise UsageError(f"the images have boxes of {listed} px", option="box_px", hint="Give the box of all.")
        size_px = int(sizes[0]) if len(sizes) else 0
    if size_px < 1:
        raise UsageError("the box is not known, or empty", option="box_px", hint="Give the edge of the images in px.")
    if options.pixel_size_A is not None:
        return np.full(len(rows), options.pixel_size_A), size_px
    require_pixel_sizes(pixel_size_A, particles.source, f"Give it: {option('pixel_size_A')}, in Å.")
    return np.where(own_box > 0, pixel_size_A * own_box / size_px, pixel_size_A), size_px
