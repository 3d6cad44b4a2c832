"""`to_torch_ctf`: particles as arguments of torch-ctf, and of the projectors of torch-fourier-slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cryobridge.adaptors.packages import CODATA, loaded, tell
from cryobridge.adaptors.particle_values import about_poses, chosen_particles
from cryobridge.errors import UsageError
from cryobridge.formats.unusable import refuse_unusable
from cryobridge.fourier.ctf import frequencies, tensors
from cryobridge.fourier.devices import pick_device
from cryobridge.jobs.shared_options import Options
from cryobridge.model.contrast_transfer import A_PER_MM, Lens, given_where_read, lens_of, wavelength_A
from cryobridge.model.particles import require_pixel_sizes
from cryobridge.options import Opt, made, takes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.fourier.ctf import Rows
    from cryobridge.model.particles import Floats, ParticleSet


_A_PER_UM = 1e4
# torch-ctf's names of the terms of `Lens.even` from k⁴ cos 2φ on, and of `Lens.odd` from k² kx on.
_EVEN = ("Z42c", "Z42s", "Z44c", "Z44s")
_ODD = ("Z31c", "Z31s", "Z33c", "Z33s")


@dataclass(frozen=True, kw_only=True)
class TorchCTFOptions(Options):
    """What of the optics goes to torch-ctf."""

    aberrations: Annotated[
        Literal["none", "even", "all"],
        Opt("Neither aberrations nor anisotropic magnification; those that leave the CTF real; all."),
    ] = "all"
    envelope: Annotated[bool, Opt("Whether B-factor and scale count, where the set has them.")] = True
    device: Annotated[str, Opt("cpu, cuda, cuda:1, mps, or auto.")] = "cpu"


@dataclass(frozen=True, eq=False)
class TorchCTF:
    """The CTF of n particles as torch-ctf takes it; tensors are float32, as all that it computes.

    Attributes
    ----------
    kwargs
        Of ``torch_ctf.calculate_ctf_2d``: all but ``image_shape``, ``rfft`` and ``fftshift``, (n,) each, with the pixel
        size of the particles' images. The voltage is the one that gives torch-ctf RELION's wavelength; defocus and
        astigmatism hold what a magnification matrix does to them; tilt is among ``odd_zernike_coeffs``, since torch-ctf
        drops it where it has Zernike terms too. Coefficients, in rad Åⁿ, are (n, 1, 1).
    own_box_px
        (n,) edge of each particle's image; 0 where it is not known.
    lens
        What torch-ctf has no argument for: B-factor and scale, and the shift by odd aberrations (`factor`).
    rotation
        (n, 3, 3) for ``torch_fourier_slice.project_3d_to_2d(volume, rotation)``: RELION's matrix, transposed; None
        where no poses are known.
    shift_yx_px
        (n, 2) for ``torch_fourier_shift.fourier_shift_image_2d(projections, shift_yx_px)``, which brings a projection
        to where the particle is; None where no shifts are known.
    """

    kwargs: dict[str, Any]
    own_box_px: NDArray[np.int64]
    lens: Lens
    rotation: Tensor | None = None
    shift_yx_px: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lens)

    def call(self, box_px: int | None = None, *, rfft: bool = True, fftshift: bool = False) -> dict[str, Any]:
        """Return all arguments of ``torch_ctf.calculate_ctf_2d`` for images of one box.

        Parameters
        ----------
        box_px
            Edge of the images; if not the particles' own, they are theirs cropped or padded in Fourier space.
        rfft, fftshift
            As torch-ctf has them.

        Raises
        ------
        UsageError
            If the box is not known.
        """
        own = np.unique(self.own_box_px)
        size_px = box_px if box_px is not None else int(own[0]) if len(own) == 1 else 0
        if size_px < 1:
            raise UsageError("the box is not known, or not one", option="box_px", hint="Give the edge of the images.")
        pixel_size_A = self.kwargs["pixel_size"]
        scale = _tensor(np.where(self.own_box_px > 0, self.own_box_px / size_px, 1.0), pixel_size_A.device)
        shape = {"image_shape": (size_px, size_px), "rfft": rfft, "fftshift": fftshift}
        return self.kwargs | {"pixel_size": pixel_size_A * scale} | shape

    def images(self, box_px: int | None = None) -> Tensor:
        """Compute the CTF with torch-ctf, and what it has no argument for.

        Parameters
        ----------
        box_px
            As `call` has it.

        Returns
        -------
        Tensor
            (n, box, box // 2 + 1), as `cryobridge.ctf_images` has it, whose sign is also RELION's; complex where there
            are odd aberrations.

        Raises
        ------
        UsageError
            If torch-ctf is not installed, or the box is not known.

        Notes
        -----
        torch-ctf computes in single precision: 2e-5 of the CTF for 1.5 µm at 2.4 Å, and more in proportion to the
        largest phase.
        """
        package = loaded("torch_ctf", "torch-ctf")
        given = self.call(box_px)
        found: Tensor = package.calculate_ctf_2d(**given)
        factor = self.factor(given["image_shape"][0])
        return found if factor is None else found * factor

    def factor(self, box_px: int | None = None) -> Tensor | None:
        """Return what torch-ctf's image is multiplied by: envelope and shift, (n, box, box // 2 + 1); None for 1."""
        given = self.call(box_px)
        size_px, pixel_size_A = given["image_shape"][0], given["pixel_size"]
        lens = self.lens.in_pixels(pixel_size_A.double().cpu().numpy())
        has_envelope = bool(lens.damping.any() or (lens.scale != 1).any())
        has_ramp = bool(lens.odd[:, :2].any())
        if not has_envelope and not has_ramp:
            return None
        kx, ky, shape = frequencies(size_px, "half", torch.float32, pixel_size_A.device)
        terms = tensors(lens, torch.float32, pixel_size_A.device)
        squares = torch.stack([kx * kx + ky * ky, kx * kx - ky * ky, 2 * kx * ky])
        found: Tensor = torch.exp(terms.damping @ squares) * terms.scale[:, None]
        if has_ramp:
            found = found * torch.exp(1j * (terms.odd[:, :2] @ torch.stack([kx, ky])))
        return found.view(-1, *shape)


@takes(TorchCTFOptions)
def to_torch_ctf(particles: ParticleSet, rows: Rows | None = None, **options: Any) -> TorchCTF:
    """Return the CTF of particles as arguments of torch-ctf, by which it computes RELION's.

    torch-ctf takes micrometres, an astigmatism that is not negative (U < V is turned by 90°), the angle as RELION, and
    a voltage, of which it computes a wavelength that is not RELION's: 299.996863 kV give RELION's of 300 kV. Terms of
    Zernike polynomials are in rad Åⁿ. The poses are for torch-fourier-slice and torch-fourier-shift.

    Parameters
    ----------
    particles
        With CTF and optics.
    rows
        (n,) which particles, from 0, in this order, or one truth value a particle; all if not given.
    **options
        The fields of `TorchCTFOptions`.

    Returns
    -------
    TorchCTF
        ``kwargs`` for one's own call, and ``images()``.

    Raises
    ------
    UsageError
        If an option is wrong.
    MissingDataError
        If the CTF, or the pixel size, of a particle is not known.
    FormatError
        If a value is not a number.
    IndexError
        If there is no such row.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from cryobridge.adaptors import to_torch_ctf
    >>> found = to_torch_ctf(cb.read("J4"))
    >>> found.kwargs["defocus"].shape
    torch.Size([16])
    >>> ctf = found.images()  # needs torch-ctf
    """
    chosen = made(TorchCTFOptions, options)
    particles = chosen_particles(particles, rows)
    refuse_unusable(particles, without=("images", "locations"))
    if particles.poses is not None:
        tell(about_poses(particles, "torch-fourier-slice"))
    lens = lens_of(particles, aberrations=chosen.aberrations != "none")
    optics, index = particles.optics, particles.optics_index
    assert optics is not None and index is not None  # lens_of asks for them
    pixel_size_A = optics.pixel_size_A[index]
    require_pixel_sizes(pixel_size_A, particles.source, given_where_read("pixel_size_A"))
    n, device = len(particles), pick_device(chosen.device)
    if chosen.aberrations != "all":
        lens = Lens(lens.even, np.zeros_like(lens.odd), lens.damping, lens.scale)
    if not chosen.envelope:
        lens = Lens(lens.even, lens.odd, np.zeros_like(lens.damping), np.ones(n))
    microscope = (optics.voltage_kV[index], optics.amplitude_contrast[index])
    values = {"pixel_size": pixel_size_A} | _arguments(lens, *microscope)
    return TorchCTF(
        {name: _tensor(column, device) for name, column in values.items()} | _zernikes(lens, device),
        optics.box_px[index],
        lens,
        *_poses(particles, pixel_size_A, device),
    )


def _arguments(lens: Lens, voltage_kV: Floats, amplitude_contrast: Floats) -> dict[str, Floats]:
    """Return the values (n,) by which torch-ctf has the terms of lower order, of which any magnification is a part."""
    wavelength = wavelength_A(voltage_kV)
    phase, square, cosine, sine, fourth = lens.even[:, :5].T
    per_A = -np.pi * wavelength
    return {
        "defocus": square / per_A / _A_PER_UM,
        "astigmatism": np.hypot(cosine, sine) / np.abs(per_A) / _A_PER_UM,
        "astigmatism_angle": np.degrees(0.5 * np.arctan2(sine / per_A, cosine / per_A)),
        "voltage": CODATA.voltage_kV(voltage_kV),
        "spherical_aberration": fourth / (np.pi / 2 * wavelength**3) / A_PER_MM,
        "amplitude_contrast": amplitude_contrast,
        "phase_shift": np.degrees(-phase - np.arcsin(amplitude_contrast)),
    }


def _zernikes(lens: Lens, device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for argument, names, terms in (
        ("even_zernike_coeffs", _EVEN, lens.even[:, 5:]),
        ("odd_zernike_coeffs", _ODD, lens.odd[:, 2:]),
    ):
        if terms.any():
            found[argument] = {
                name: _tensor(column, device)[:, None, None] for name, column in zip(names, terms.T, strict=True)
            }
    return found


def _poses(particles: ParticleSet, pixel_size_A: Floats, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    poses = particles.poses
    if poses is None:
        return None, None
    rotation = _tensor(np.ascontiguousarray(np.swapaxes(poses.matrix, 1, 2)), device)
    if poses.shift_A is None:
        return rotation, None
    return rotation, _tensor(-poses.shift_A[:, ::-1] / pixel_size_A[:, np.newaxis], device)


def _tensor(values: Floats, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)
