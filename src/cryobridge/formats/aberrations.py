"""Beam tilt, trefoil, tetrafoil and anisotropic magnification, between cryoSPARC's columns and RELION's.

The phases agree term by term in both programs' formulas, but which way their axes point relative to one another was
never checked with data: what is converted here is written only when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.model.fields import fields_of
from cryobridge.model.particles import Aberrations, Floats
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TILT, _TREFOIL, _TETRAFOIL, _MAGNIFICATION = ROWS = fields_of("optics.aberrations")
# With how many values each has.
CRYOSPARC_COLUMNS = {row.columns("cryosparc")[0]: width for row, width in zip(ROWS, (2, 2, 4, 4), strict=True)}
BEAM_TILT = _TILT.columns("relion")
ZERNIKE = (*_TREFOIL.columns("relion"), *_TETRAFOIL.columns("relion"))
MAGNIFICATION = _MAGNIFICATION.columns("relion")
RELION_COLUMNS = (*BEAM_TILT, *ZERNIKE, *MAGNIFICATION)
_A_PER_MM = 1e7
# Distortions are of a few per cent; a determinant far from 1 is no distortion.
_LEAST_DETERMINANT = 0.1
_N_ODD, _N_EVEN = 6, 9


def wavelength_A(voltage_kV: Floats) -> Floats:
    """Return the wavelength of the electrons by RELION's formula, 12.2643247 / √(V (1 + 0.978466e-6 V))."""
    volts = 1e3 * voltage_kV
    wavelength: Floats = 12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts))
    return wavelength


def from_cryosparc(columns: Mapping[str, Any], spherical_aberration_mm: Floats, path: Path) -> Aberrations | None:
    """Turn cryoSPARC's columns of each optics group into aberrations; None where all are zero.

    Parameters
    ----------
    columns
        Those of `CRYOSPARC_COLUMNS` that are there, (g, 2) or (g, 4) each.
    spherical_aberration_mm
        (g,); the beam tilt is kept as Cs × sin(tilt), which says nothing where Cs is 0.
    path
        The file, for the message.

    Raises
    ------
    FormatError
        If a magnification is singular.
    """
    n = len(spherical_aberration_mm)
    tilt_A, trefoil_A, tetra_A, anisomag = (
        np.asarray(columns.get(name, np.zeros((n, width))), np.float64).reshape(n, width)
        for name, width in CRYOSPARC_COLUMNS.items()
    )
    if not any(part.any() for part in (tilt_A, trefoil_A, tetra_A, anisomag)):
        return None
    cs_A = np.nan_to_num(spherical_aberration_mm)[:, np.newaxis] * _A_PER_MM
    sine = np.divide(tilt_A, cs_A, out=np.zeros_like(tilt_A), where=cs_A > 0)
    true_to_nominal = np.eye(2) + anisomag.reshape(n, 2, 2)
    singular = np.flatnonzero(~(np.abs(np.linalg.det(true_to_nominal)) > _LEAST_DETERMINANT))
    if len(singular):
        raise FormatError(
            f"the magnification {anisomag[singular[0]].tolist()} plus the identity is singular",
            path=path,
            field="ctf/anisomag",
            hint="Correct the column, or set it to zeros, which stand for no distortion.",
        )
    tilt_mrad = 1e3 * np.arcsin(np.clip(sine, -1.0, 1.0))
    nominal_to_true: Floats = np.linalg.inv(true_to_nominal).astype(np.float64)
    return Aberrations(tilt_mrad, trefoil_A, tetra_A, nominal_to_true)


def to_cryosparc(aberrations: Aberrations, spherical_aberration_mm: Floats) -> dict[str, Floats]:
    """Return cryoSPARC's columns of each optics group; the inverse of `from_cryosparc`."""
    n = len(spherical_aberration_mm)
    cs_A = np.nan_to_num(spherical_aberration_mm)[:, np.newaxis] * _A_PER_MM
    anisomag = np.linalg.inv(aberrations.magnification) - np.eye(2)
    tilt_A = np.sin(1e-3 * aberrations.beam_tilt_mrad) * cs_A
    parts = (tilt_A, aberrations.trefoil_A, aberrations.tetrafoil_A, anisomag.reshape(n, 4))
    return dict(zip(CRYOSPARC_COLUMNS, parts, strict=True))


def to_relion(aberrations: Aberrations, voltage_kV: Floats) -> dict[str, Floats | list[str]]:
    """Return RELION's columns of each optics group, those that are zero everywhere left out.

    The beam tilt stands in rlnBeamTiltX/Y alone: RELION adds it to the coefficients itself.
    """
    columns: dict[str, Floats | list[str]] = {}
    if aberrations.beam_tilt_mrad.any():
        columns |= dict(zip(BEAM_TILT, aberrations.beam_tilt_mrad.T, strict=True))
    wavelength = wavelength_A(voltage_kV)[:, np.newaxis]
    n = len(wavelength)
    if aberrations.trefoil_A.any():
        odd = np.zeros((n, _N_ODD))
        odd[:, (2, 5)] = (2 * np.pi / 3) * wavelength**2 * aberrations.trefoil_A
        columns["rlnOddZernike"] = _tokens(odd)
    if aberrations.tetrafoil_A.any():
        two, four = 2 * np.pi * wavelength**3, (np.pi / 2) * wavelength**3
        cos_2, sin_2, cos_4, sin_4 = (
            factor * aberrations.tetrafoil_A[:, [place]] for place, factor in enumerate((-two, two, four, -four))
        )
        even = np.zeros((n, _N_EVEN))
        # k⁴ cos 2φ = (Z(2,4) + 3 Z(2,2)) / 4, and likewise for the sine.
        even[:, (3, 7)] = cos_2 * (0.75, 0.25)
        even[:, (1, 5)] = sin_2 * (0.75, 0.25)
        even[:, [8]], even[:, [4]] = cos_4, sin_4
        columns["rlnEvenZernike"] = _tokens(even)
    if (aberrations.magnification != np.eye(2)).any():
        columns |= dict(zip(MAGNIFICATION, aberrations.magnification.reshape(n, 4).T, strict=True))
    return columns


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def from_relion(
    columns: Mapping[str, Any], n_groups: int, voltage_kV: Floats, path: Path
) -> tuple[Aberrations | None, list[Message]]:
    """Turn RELION's columns of each optics group into aberrations, None where all are zero; and messages.

    Parameters
    ----------
    columns
        Those of `RELION_COLUMNS` that are there, arrays (g,) or texts.
    n_groups
        Number of groups.
    voltage_kV
        (g,).
    path
        The file, for the message.

    Raises
    ------
    FormatError
        If a list of coefficients can't be read.
    """
    messages: list[Message] = []
    tilt_mrad = np.column_stack([np.asarray(columns.get(name, np.zeros(n_groups)), np.float64) for name in BEAM_TILT])
    odd, even = (
        _coefficients(columns.get(name), n_groups, width, name, path)
        for name, width in zip(ZERNIKE, (_N_ODD, _N_EVEN), strict=True)
    )
    with np.errstate(invalid="ignore"):
        wavelength = wavelength_A(voltage_kV)[:, np.newaxis]
    trefoil_A = np.nan_to_num(odd[:, (2, 5)] / ((2 * np.pi / 3) * wavelength**2))
    two, four = 2 * np.pi * wavelength**3, (np.pi / 2) * wavelength**3
    signed = np.hstack([-even[:, [7]] * 4 / two, even[:, [5]] * 4 / two, even[:, [8]] / four, -even[:, [4]] / four])
    tetrafoil_A = np.nan_to_num(signed)
    rest = (odd[:, (0, 1, 3, 4)], even[:, (0, 2, 6)], even[:, (1, 3)] - 3 * even[:, (5, 7)])
    if any(np.abs(part).max(initial=0.0) > 1e-6 * max(1.0, np.abs(even).max(initial=0.0)) for part in rest):
        text = "rlnOddZernike and rlnEvenZernike have terms that cryoSPARC has no column for"
        messages.append(note("zernike-terms-dropped", text, where=path))
    matrix = np.tile(np.eye(2), (n_groups, 1, 1))
    if all(name in columns for name in MAGNIFICATION):
        found = np.stack([np.asarray(columns[name], np.float64) for name in MAGNIFICATION], axis=1)
        matrix = found.reshape(n_groups, 2, 2)
        singular = is_singular(matrix)
        if singular.any():
            text = f"rlnMagMat is singular in {int(singular.sum())} optics groups; the identity is taken"
            messages.append(note("magnification-singular", text, where=path))
            matrix = np.where(singular[:, np.newaxis, np.newaxis], np.eye(2), matrix)
    found_any = any(part.any() for part in (tilt_mrad, trefoil_A, tetrafoil_A, matrix - np.eye(2)))
    return (Aberrations(tilt_mrad, trefoil_A, tetrafoil_A, matrix) if found_any else None), messages


def is_singular(matrix: Floats) -> Any:
    """Return which matrices (g, 2, 2) are no magnification, (g,): zeros, as some converters write them."""
    return ~(np.abs(np.linalg.det(matrix)) > _LEAST_DETERMINANT)


def _tokens(coefficients: Floats) -> list[str]:
    """Return each row as RELION's list in one token, without a space."""
    return ["[" + ",".join(f"{value:.9g}" for value in row) + "]" for row in coefficients]


def _coefficients(tokens: Sequence[str] | None, n_groups: int, width: int, name: str, path: Path) -> Floats:
    """Return lists of coefficients as (g, width); what a list lacks is 0, as in RELION."""
    table = np.zeros((n_groups, width))
    for row, token in enumerate(() if tokens is None else tokens):
        try:
            values = [float(value) for value in str(token).strip("[]").split(",") if value]
        except ValueError as error:
            raise FormatError(
                f"{token!r} is not a list of numbers", path=path, field=name, hint="RELION writes [0.1,0.2,0.3]."
            ) from error
        table[row, : min(width, len(values))] = values[:width]
    return table
