"""The contrast transfer function of each particle: RELION's formula, which all of cryobridge computes it by.

With k = (kx, ky) the frequency in 1/Å, φ = atan2(ky, kx), λ the wavelength in Å, u, v and α the defocus and its angle,
φ₀ the phase shift, w the amplitude contrast and M the magnification matrix, which takes k to true frequencies::

    CTF = s exp(-B k²/4) sin(π λ D k² - π/2 Cs λ³ k⁴ + φ₀ + asin(w) - E)        all at M k
    D = (u + v)/2 + (u - v)/2 cos 2(φ - α)
    λ = 12.2643247 / √(V (1 + 0.978466e-6 V))

with the scale s, the B-factor B and the even phase E of tetrafoil and the like
(`cryobridge.model.particles.Aberrations`). It starts at +w, so that a particle with it is bright. An image is the
projection times CTF exp(iχ), with χ the odd phase of beam tilt, trefoil and the shift that comes with them.

That is `CTF::getCTF` and `CTF::initialise` of RELION, held to its programs in `tests/relion/test_ctf.py`; the theory is
in Rohou and Grigorieff 2015, doi:10.1016/j.jsb.2015.08.008, and Zivanov et al. 2020, doi:10.1107/S2052252520000081.

Every phase is a polynomial of kx and ky. So a particle is a row of coefficients, and its CTF on any grid a product of
that row with the terms on the grid, which are the same for all particles.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, option
from cryobridge.model.particles import Aberrations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.model.particles import CTF, Floats, ParticleSet

A_PER_MM = 1e7
# The powers of k that the terms of `even_terms` and `odd_terms` have; those of a damping are the second to the fourth.
_EVEN_POWERS = np.array([0, 2, 2, 2, 4, 4, 4, 4, 4])
_ODD_POWERS = np.array([1, 1, 3, 3, 3, 3])
_SQUARES = slice(1, 4)
_MICROSCOPE = {
    "voltage_kV": "voltage",
    "spherical_aberration_mm": "spherical aberration",
    "amplitude_contrast": "amplitude contrast",
}


def wavelength_A(voltage_kV: Floats) -> Floats:
    """Return the wavelength of the electrons by RELION's formula, 12.2643247 / √(V (1 + 0.978466e-6 V)).

    Examples
    --------
    >>> float(wavelength_A(np.array([300.0])).round(6)[0])
    0.019688
    """
    volts = 1e3 * voltage_kV
    wavelength: Floats = 12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts))
    return wavelength


def even_terms(kx: Any, ky: Any) -> list[Any]:
    """Return 1, k², k² cos 2φ, k² sin 2φ, k⁴, k⁴ cos 2φ, k⁴ sin 2φ, k⁴ cos 4φ and k⁴ sin 4φ of arrays or tensors."""
    square, cos_2, sin_2 = kx * kx + ky * ky, kx * kx - ky * ky, 2 * kx * ky
    of_four = (square * square, square * cos_2, square * sin_2, cos_2 * cos_2 - sin_2 * sin_2, 2 * cos_2 * sin_2)
    return [0 * square + 1, square, cos_2, sin_2, *of_four]


def odd_terms(kx: Any, ky: Any) -> list[Any]:
    """Return kx, ky, k² kx, k² ky, k³ cos 3φ and k³ sin 3φ of arrays or tensors."""
    square = kx * kx + ky * ky
    return [kx, ky, square * kx, square * ky, kx * (kx * kx - 3 * ky * ky), ky * (3 * kx * kx - ky * ky)]


@dataclass(frozen=True, eq=False)
class Lens:
    """What a microscope does to the images of n particles, as coefficients of polynomials of the frequency.

    The frequency is that of the images: a magnification matrix is in the coefficients. Arrays, or tensors.

    Parameters
    ----------
    even
        (n, 9) of `even_terms`: RELION's γ, with the phase shift and -asin(w) of the amplitude contrast w.
    odd
        (n, 6) of `odd_terms`: χ.
    damping
        (n, 3) of k², k² cos 2φ and k² sin 2φ: the logarithm of what a B-factor multiplies by.
    scale
        (n,) factor.
    """

    even: Any
    odd: Any
    damping: Any
    scale: Any

    @classmethod
    @np.errstate(invalid="ignore", over="ignore", divide="ignore")  # values that are no numbers give none
    def of(
        cls,
        ctf: CTF,
        voltage_kV: Floats,
        spherical_aberration_mm: Floats,
        amplitude_contrast: Floats,
        aberrations: Aberrations | None = None,
    ) -> Lens:
        """Return the coefficients of n particles.

        Parameters
        ----------
        ctf
            Of the particles.
        voltage_kV, spherical_aberration_mm, amplitude_contrast
            (n,) of the microscope of each.
        aberrations
            (n, …) of each; None for none.
        """
        n = len(ctf.defocus_u_A)
        wavelength = wavelength_A(voltage_kV)[:, np.newaxis]
        bent = Aberrations.none(n) if aberrations is None else aberrations
        mean, half = (ctf.defocus_u_A + ctf.defocus_v_A) / 2, (ctf.defocus_u_A - ctf.defocus_v_A) / 2
        twice = 2 * ctf.defocus_angle_rad
        defocus = np.column_stack([mean, half * np.cos(twice), half * np.sin(twice)])
        even: Floats = np.zeros((n, len(_EVEN_POWERS)))
        odd: Floats = np.zeros((n, len(_ODD_POWERS)))
        damping: Floats = np.zeros((n, 3))
        even[:, 0] = -np.arcsin(amplitude_contrast) - (0.0 if ctf.phase_shift_rad is None else ctf.phase_shift_rad)
        even[:, 1:4] = -np.pi * wavelength * defocus
        even[:, 4] = np.pi / 2 * A_PER_MM * spherical_aberration_mm * wavelength[:, 0] ** 3
        even[:, :5] += bent.lower_even[:, (0, 1, 3, 4, 2)]
        even[:, 5:] = np.array([2, 2, 0.5, 0.5]) * np.pi * wavelength**3 * bent.tetrafoil_A
        odd[:, 2:4] = -2 * np.pi * wavelength**2 * bent.beam_tilt_A
        odd[:, 4:6] = 2 * np.pi / 3 * wavelength**2 * bent.trefoil_A
        if ctf.bfactor_A2 is not None:
            damping[:, 0] = -ctf.bfactor_A2 / 4
        if (bent.magnification != np.eye(2)).any():
            even, odd, damping = _at_true_frequencies(even, odd, damping, bent.magnification)
        if ctf.shift_A is not None:  # of the image, and so at the frequencies of the image
            odd[:, :2] -= 2 * np.pi * ctf.shift_A
        return cls(even, odd, damping, np.ones(n) if ctf.scale is None else ctf.scale)

    def __len__(self) -> int:
        return len(self.scale)

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> Lens:
        """Return that of the chosen particles."""
        return Lens(*(getattr(self, item.name)[rows] for item in fields(self)))

    @np.errstate(invalid="ignore", over="ignore", divide="ignore")
    def in_pixels(self, pixel_size_A: Floats) -> Lens:
        """Return the same for frequencies in cycles a pixel.

        Parameters
        ----------
        pixel_size_A
            (n,) of each particle's image.
        """
        per_pixel = 1.0 / pixel_size_A[:, np.newaxis]
        even, odd = self.even * per_pixel**_EVEN_POWERS, self.odd * per_pixel**_ODD_POWERS
        return Lens(even, odd, self.damping * per_pixel**2, self.scale)

    def phases(self, kx: Any, ky: Any, module: Any = np) -> tuple[Any, Any]:
        """Return γ and χ, (n, m) each, at m frequencies; tensors with ``module=torch``."""
        even, odd = module.stack(even_terms(kx, ky)), module.stack(odd_terms(kx, ky))
        return self.even @ even, self.odd @ odd

    @property
    def has_envelope(self) -> bool:
        """Whether B-factors or scales change anything; of arrays."""
        return bool(self.damping.any() or (self.scale != 1).any())

    def transfer(
        self,
        kx: Any,
        ky: Any,
        module: Any = np,
        *,
        has_odd: bool = False,
        has_envelope: bool = True,
        out: Any = None,
    ) -> Any:
        """Return the CTF at m frequencies, (n, m).

        Parameters
        ----------
        kx, ky
            (m,) in the unit of the coefficients.
        module
            ``numpy``, or ``torch`` for tensors.
        has_odd
            Whether the odd phase is a part of it, as exp(iχ); then it is complex.
        has_envelope
            Whether B-factor and scale are.
        out
            (n, m) where to write, without the odd phase.
        """
        terms = module.stack(even_terms(kx, ky))
        found = module.matmul(self.even, terms, out=out)
        module.negative(module.sin(found, out=found), out=found)
        if has_envelope:
            envelope = self.damping @ terms[_SQUARES]
            module.exp(envelope, out=envelope)
            envelope *= self.scale[:, None]
            found *= envelope
        if not has_odd:
            return found
        return found * module.exp(1j * (self.odd @ module.stack(odd_terms(kx, ky))))


def given_where_read(name: str) -> str:
    """Return the hint to give an optics value that a file lacks."""
    return f"Give {option(name)} where the file is read; cryobridge.read takes defaults={{{name!r}: …}}."


def lens_of(particles: ParticleSet, rows: NDArray[np.int64] | None = None, *, aberrations: bool = True) -> Lens:
    """Return what the microscope does to the images of each particle of a set.

    Parameters
    ----------
    particles
        With CTF and optics.
    rows
        (n,) which of them; all if not given.
    aberrations
        Whether aberrations and anisotropic magnification count.

    Raises
    ------
    MissingDataError
        If a value is not known, or the set has aberrations of an order that it does not keep.
    FormatError
        If an amplitude contrast can't be one.

    Examples
    --------
    >>> lens = lens_of(cb.read("J4"))
    >>> k = np.linspace(0, 0.2, 50)  # 1/Å
    >>> lens.transfer(k, 0 * k).shape
    (16, 50)
    """
    ctf, optics, index = particles.ctf, particles.optics, particles.optics_index
    if ctf is None or optics is None or index is None:
        raise MissingDataError(
            "nothing is known of the CTF of the particles",
            path=particles.source,
            hint="Give a file that has their defocus, voltage and spherical aberration.",
        )
    if rows is not None:
        ctf, index = ctf.take(rows), index[rows]
    microscope = {name: getattr(optics, name)[index] for name in _MICROSCOPE}
    microscope["voltage_kV"] = np.where(microscope["voltage_kV"] > 0, microscope["voltage_kV"], np.nan)
    absent = [name for name, values in microscope.items() if np.isnan(values).any()]
    if absent:
        raise MissingDataError(
            f"the {' and '.join(_MICROSCOPE[name] for name in absent)} of the particles is not known",
            path=particles.source,
            hint=given_where_read(absent[0]),
        )
    contrast = microscope["amplitude_contrast"]
    wrong = contrast[np.abs(contrast) > 1]
    if len(wrong):
        raise FormatError(
            f"{wrong[0]:g} is no amplitude contrast",
            path=particles.source,
            hint="It is a part of 1, such as 0.1: correct the column.",
        )
    bent = optics.aberrations if aberrations else None
    if bent is not None and bent.higher_rad[index].any():
        raise MissingDataError(
            "the optics have Zernike terms above the fourth order, which are not kept",
            path=particles.source,
            hint=f"Leave all aberrations out with {option('aberrations', 'none')}.",
        )
    ctf = ctf if aberrations else replace(ctf, shift_A=None)
    return Lens.of(ctf, **microscope, aberrations=None if bent is None else bent.take(index))


def _at_true_frequencies(
    even: Floats, odd: Floats, damping: Floats, magnification: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return coefficients for k of polynomials of M k, which have the same powers.

    The terms of one power of k span all polynomials of that power, so a few frequencies determine the coefficients.
    """
    matrices, which = np.unique(magnification.reshape(-1, 4), axis=0, return_inverse=True)
    # 1, k² and k⁴ need three radii, the fourth harmonic nine angles.
    radius, angle = (axis.ravel() for axis in np.meshgrid([0.5, 0.8, 1.0], np.arange(9) * (2 * np.pi / 9)))
    here = radius * np.array([np.cos(angle), np.sin(angle)])
    even, odd, damping = even.copy(), odd.copy(), damping.copy()
    for number, matrix in enumerate(matrices):
        rows = which.ravel() == number
        there = matrix.reshape(2, 2) @ here
        of_even, of_odd = (
            np.linalg.lstsq(np.stack(terms(*here), 1), np.stack(terms(*there), 1), rcond=None)[0]
            for terms in (even_terms, odd_terms)
        )
        even[rows], odd[rows] = even[rows] @ of_even.T, odd[rows] @ of_odd.T
        damping[rows] = damping[rows] @ of_even[_SQUARES, _SQUARES].T
    return even, odd, damping
