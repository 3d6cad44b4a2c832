"""Beam tilt, trefoil, tetrafoil and anisotropic magnification, between cryoSPARC's columns and RELION's.

cryoSPARC's phases are those of specter, a public source that derives them from cryoSPARC's own code. It measures the
azimuth from +y, θ = atan2(kx, ky): its astigmatism in θ is the usual one in φ = atan2(ky, kx), which anchors the axes.
RELION's are what its programs do when they are run. The even terms follow, for both carry Cs with the same sign. The
odd terms rest on exp(-iχ) of that source: their one sign, the same for tilt and trefoil, is open (`Odd`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, option
from cryobridge.formats.dropped import is_known
from cryobridge.model.contrast_transfer import A_PER_MM, wavelength_A
from cryobridge.model.fields import field, fields_of
from cryobridge.model.particles import CTF, Aberrations, Floats, Optics, ParticleSet
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from cryobridge.model.fields import Field

# What becomes of beam tilt and trefoil between the programs.
Odd: TypeAlias = Literal["as-derived", "reversed", "drop"]
_TILT, _TREFOIL, _TETRAFOIL, _MAGNIFICATION, *_ = ROWS = fields_of("optics.aberrations")
NAMES = {"ctf.shift_A", *(item.name for item in ROWS)}
ODD = (_TILT.name, _TREFOIL.name)
EVEN = tuple(item.name for item in ROWS if item.name not in ODD)
_HIGHER, _SHIFT = "optics.aberrations.higher_rad", "ctf.shift_A"
# What goes into columns that all programs have.
_FOLDED = {"optics.aberrations.lower_even", _SHIFT}
# With how many values each has.
CRYOSPARC_COLUMNS = {row.columns("cryosparc")[0]: width for row, width in zip(ROWS[:4], (2, 2, 4, 4), strict=True)}
BEAM_TILT = _TILT.columns("relion")
ZERNIKE = (*_TREFOIL.columns("relion"), *_TETRAFOIL.columns("relion"))
MAGNIFICATION = _MAGNIFICATION.columns("relion")
RELION_COLUMNS = (*BEAM_TILT, *ZERNIKE, *MAGNIFICATION)
# Distortions are of a few per cent; a determinant far from 1 is no distortion.
_LEAST_DETERMINANT = 0.1
_N_ODD, _N_EVEN = 6, 9
# RELION's phase is linear in the tilt. What would be a larger one, as on microscopes whose Cs is corrected, is written
# as Zernike terms.
_LARGEST_SINE = 0.1
# What is smaller of the Zernike coefficients, in rad, is the rounding of others.
_ROUNDING_RAD = 1e-6


def from_cryosparc(columns: Mapping[str, Any], rows: NDArray[np.int64], path: Path) -> Aberrations | None:
    """Turn cryoSPARC's columns of each optics group into aberrations; None where all are zero.

    With T, t and Q the columns and χ = -2π λ² k² (T·k) - (2π/3) λ² k³ (t₀ cos 3φ + t₁ sin 3φ), cryoSPARC's image is
    that of exp(-iχ); its even phase is 2π λ³ k⁴ (Q₀ cos 2φ + Q₁ sin 2φ) + (π/2) λ³ k⁴ (Q₂ cos 4φ + Q₃ sin 4φ).

    Parameters
    ----------
    columns
        Those of `CRYOSPARC_COLUMNS` that are there, (g, 2) or (g, 4) each.
    rows
        (g,) the first row of each group, for the message.
    path
        The file, for the message.

    Raises
    ------
    FormatError
        If a magnification is singular.
    """
    n_groups = len(rows)
    tilt_A, trefoil_A, tetra_A, anisomag = (
        np.asarray(columns.get(name, np.zeros((n_groups, width))), np.float64).reshape(n_groups, width)
        for name, width in CRYOSPARC_COLUMNS.items()
    )
    true_to_nominal = np.eye(2) + anisomag.reshape(n_groups, 2, 2)
    singular = np.flatnonzero(is_singular(true_to_nominal))
    if len(singular):
        raise FormatError(
            f"the magnification {anisomag[singular[0]].tolist()} plus the identity is singular, or holds no numbers",
            path=path,
            field="ctf/anisomag",
            rows=tuple(int(row) for row in rows[singular[:3]]),
            count=len(singular),
            hint="Correct the column, or set it to zeros, which stand for no distortion.",
        )
    magnification = np.linalg.inv(true_to_nominal).astype(np.float64)
    found = replace(
        Aberrations.none(n_groups),
        beam_tilt_A=0.0 - tilt_A,
        trefoil_A=trefoil_A,
        tetrafoil_A=tetra_A,
        magnification=magnification,
    )
    return None if found.is_none else found


def to_cryosparc(aberrations: Aberrations) -> dict[str, Floats]:
    """Return cryoSPARC's columns of each optics group; the inverse of `from_cryosparc`."""
    anisomag = np.linalg.inv(aberrations.magnification) - np.eye(2)
    tilt_A = 0.0 - aberrations.beam_tilt_A
    parts = (tilt_A, aberrations.trefoil_A, aberrations.tetrafoil_A, anisomag.reshape(-1, 4))
    return dict(zip(CRYOSPARC_COLUMNS, parts, strict=True))


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def to_relion(aberrations: Aberrations, optics: Optics, *, has_zernike: bool = True) -> dict[str, Any]:
    """Return RELION's columns of each optics group, those that are zero everywhere left out.

    The beam tilt is in rlnBeamTiltX/Y alone, to which RELION adds the coefficients; where Cs is too small for it, in
    the coefficients alone.

    Parameters
    ----------
    aberrations, optics
        Of the groups.
    has_zernike
        Whether the layout has more than the beam tilt, which is all that RELION 3.0 has.
    """
    columns: dict[str, Any] = {}
    cs_A = np.nan_to_num(optics.spherical_aberration_mm)[:, np.newaxis] * A_PER_MM
    tilt_A = aberrations.beam_tilt_A
    sine = np.divide(tilt_A, cs_A, out=np.where(tilt_A == 0, 0.0, np.inf), where=cs_A > 0)
    # All groups alike: RELION 3.1 sets the coefficients of the tilt to 0 where there is a column for it.
    is_tilt = not has_zernike or bool((np.abs(sine) <= _LARGEST_SINE).all())
    tilt_mrad = 1e3 * np.arcsin(np.where(np.abs(sine) <= 1, sine, 0.0))
    if is_tilt and tilt_mrad.any():
        columns |= dict(zip(BEAM_TILT, tilt_mrad.T, strict=True))
    if not has_zernike:
        return columns
    wavelength = wavelength_A(optics.voltage_kV)[:, np.newaxis]
    odd = _odd_coefficients(np.zeros_like(tilt_A) if is_tilt else tilt_A, aberrations.trefoil_A, wavelength)
    even = _even_coefficients(aberrations.tetrafoil_A, aberrations.lower_even, wavelength)
    columns |= {name: _tokens(table) for name, table in zip(ZERNIKE, (odd, even), strict=True) if table.any()}
    if (aberrations.magnification != np.eye(2)).any():
        columns |= dict(zip(MAGNIFICATION, aberrations.magnification.reshape(-1, 4).T, strict=True))
    return columns


# RELION's order of the terms Z(m, n), of which negative m are sines:
# odd (-1,1) (1,1) (-3,3) (-1,3) (1,3) (3,3); even (0,0) (-2,2) (0,2) (2,2) (-4,4) (-2,4) (0,4) (2,4) (4,4).
# With radial parts k, k³, 3k³ - 2k; 1, k², 2k² - 1, k⁴, 4k⁴ - 3k², 6k⁴ - 6k² + 1.
def _odd_coefficients(tilt_A: Floats, trefoil_A: Floats, wavelength: Floats) -> Floats:
    """Return the odd coefficients (g, 6) of a beam tilt and trefoil."""
    odd = np.zeros((len(tilt_A), _N_ODD))
    odd[:, (5, 2)] = (2 * np.pi / 3) * wavelength**2 * trefoil_A
    odd[:, (4, 3)] = (-2 * np.pi / 3) * wavelength**2 * tilt_A
    odd[:, (1, 0)] = 2 * odd[:, (4, 3)]
    return odd


def _even_coefficients(tetrafoil_A: Floats, lower: Floats, wavelength: Floats) -> Floats:
    """Return the even coefficients (g, 9) of a tetrafoil and terms of lower order."""
    even = np.zeros((len(tetrafoil_A), _N_EVEN))
    even[:, (7, 5)] = (np.pi / 2) * wavelength**3 * tetrafoil_A[:, :2]  # k⁴ is a quarter of the term's
    even[:, (8, 4)] = (np.pi / 2) * wavelength**3 * tetrafoil_A[:, 2:]
    even[:, (3, 1)] = 3 * even[:, (7, 5)] + lower[:, 3:]
    even[:, 6] = lower[:, 2] / 6
    even[:, 2] = lower[:, 1] / 2 + 3 * even[:, 6]
    even[:, 0] = lower[:, 0] + even[:, 2] - even[:, 6]
    return even


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def from_relion(
    columns: Mapping[str, Any], optics: Optics, path: Path
) -> tuple[Aberrations | None, Floats | None, list[Message]]:
    """Turn RELION's columns of each optics group into aberrations.

    Parameters
    ----------
    columns
        Those of `RELION_COLUMNS` that are there, arrays (g,) or texts.
    optics
        The groups, with their voltage and spherical aberration.
    path
        The file, for the message.

    Returns
    -------
    aberrations
        None where all are zero.
    shift_A
        (g, 2) how far they move the images, or None for not at all.
    messages
        What was corrected.

    Raises
    ------
    FormatError
        If a list of coefficients can't be read.
    """
    n = len(optics)
    messages: list[Message] = []
    tilt_mrad = np.column_stack([np.asarray(columns.get(name, np.zeros(n)), np.float64) for name in BEAM_TILT])
    (odd, odd_rest), (even, even_rest) = (
        _coefficients(columns.get(name), n, width, name, path)
        for name, width in zip(ZERNIKE, (_N_ODD, _N_EVEN), strict=True)
    )
    if odd[:, (3, 4)].any() and not columns.keys().isdisjoint(BEAM_TILT):
        text = "rlnBeamTiltX/Y and the same terms in rlnOddZernike are added, as RELION 5 does; 3.1 has the tilt alone"
        messages.append(warning("beam-tilt-twice", text, where=path))
    wavelength = wavelength_A(optics.voltage_kV)[:, np.newaxis]
    cs_A = optics.spherical_aberration_mm[:, np.newaxis] * A_PER_MM
    # No value that is unknown makes one of what is zero.
    tilt_A = _where_any(tilt_mrad, np.sin(1e-3 * tilt_mrad) * cs_A)
    tilt_A = tilt_A - _where_any(odd[:, (4, 3)], odd[:, (4, 3)] * 3 / (2 * np.pi * wavelength**2))
    trefoil_A = _where_any(odd[:, (5, 2)], odd[:, (5, 2)] * 3 / (2 * np.pi * wavelength**2))
    four = even[:, (7, 5, 8, 4)]
    tetrafoil_A = _where_any(four, four / ((np.pi / 2) * wavelength**3))
    lower = np.column_stack(
        [
            even[:, 0] - even[:, 2] + even[:, 6],
            2 * even[:, 2] - 6 * even[:, 6],
            6 * even[:, 6],
            even[:, (3, 1)] - 3 * even[:, (7, 5)],
        ]
    )
    largest = np.abs(even).max(axis=1, keepdims=True, initial=1.0)
    lower = np.where(np.abs(lower) > _ROUNDING_RAD * largest, lower, 0.0)
    matrix, found = _magnification(columns, n, path)
    messages += found
    linear = odd[:, (1, 0)] - 2 * odd[:, (4, 3)]
    linear = np.where(np.abs(linear) > _ROUNDING_RAD * np.abs(odd).max(axis=1, keepdims=True, initial=1.0), linear, 0.0)
    # A phase 2π k·d moves an image by -d; RELION takes it at the frequencies that the magnification leads to.
    shift_A = np.einsum("gij,gi->gj", matrix, linear) / (-2 * np.pi) + 0.0
    aberrations = Aberrations(tilt_A, trefoil_A, tetrafoil_A, matrix, lower, np.maximum(odd_rest, even_rest))
    return None if aberrations.is_none else aberrations, shift_A if shift_A.any() else None, messages


def _magnification(columns: Mapping[str, Any], n: int, path: Path) -> tuple[Floats, list[Message]]:
    """Return the matrices (g, 2, 2); a singular one becomes the identity."""
    matrix = np.tile(np.eye(2), (n, 1, 1))
    if not all(name in columns for name in MAGNIFICATION):
        return matrix, []
    matrix = np.stack([np.asarray(columns[name], np.float64) for name in MAGNIFICATION], axis=1).reshape(n, 2, 2)
    singular = is_singular(matrix)
    if not singular.any():
        return matrix, []
    text = f"rlnMagMat is singular in {int(singular.sum())} optics groups; the identity is taken"
    matrix = np.where(singular[:, np.newaxis, np.newaxis], np.eye(2), matrix)
    return matrix, [note("magnification-singular", text, where=path)]


def _where_any(source: Floats, values: Floats) -> Floats:
    """Return values, and 0 where what they are made of is 0."""
    return np.where(source != 0, values, 0.0)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def folded(particles: ParticleSet) -> tuple[ParticleSet, list[Message]]:
    """Put what aberrations say into the columns that every program has, as far as they can hold it.

    The CTF and the phases stay the same. With a + b k² + c k⁴ + k² (d cos 2φ + e sin 2φ) the terms of lower order: the
    phase shift becomes less by a, the defocus by b / (π λ), Cs more by 2c / (π λ³), and the vector of astigmatism,
    (U - V)/2 at twice its angle, less by (d, e) / (π λ). The beam tilt is kept as Cs × sin(tilt). The shift by odd
    terms is subtracted from that of the pose.

    Parameters
    ----------
    particles
        As they were read.

    Returns
    -------
    particles
        Whose `Aberrations.lower_even` is zero and `CTF.shift_A` None.
    messages
        What was done.
    """
    messages: list[Message] = []
    optics, index, ctf, poses = particles.optics, particles.optics_index, particles.ctf, particles.poses
    if ctf is not None and ctf.shift_A is not None:
        largest = f"up to {np.abs(ctf.shift_A).max(initial=0.0):.3g} Å"
        if poses is not None and poses.shift_A is not None:
            poses = replace(poses, shift_A=poses.shift_A - ctf.shift_A)
            text = f"the shift by odd aberrations, {largest}, is subtracted from the shifts of the particles"
            messages.append(note("aberration-shift-applied", text))
        else:
            text = f"no shifts are known, from which the shift by odd aberrations, {largest}, could be subtracted"
            messages.append(warning("aberration-shift-left-out", text))
        ctf = replace(ctf, shift_A=None)
    bent = None if optics is None else optics.aberrations
    if optics is not None and index is not None and bent is not None and bent.lower_even.any():
        wavelength = wavelength_A(optics.voltage_kV)
        if ctf is not None:
            ctf = _with_lower_even(ctf, bent.lower_even[index], wavelength[index])
        added_A = 2 * bent.lower_even[:, 2] / (np.pi * wavelength**3)
        optics = replace(
            optics,
            spherical_aberration_mm=optics.spherical_aberration_mm + added_A / A_PER_MM,
            aberrations=replace(bent, lower_even=np.zeros_like(bent.lower_even)),
        )
        text = "terms of rlnEvenZernike are put into defocus, astigmatism, phase shift and Cs, with the same CTF"
        messages.append(note("zernike-terms-folded", text))
    return replace(particles, optics=optics, ctf=ctf, poses=poses), messages


def _with_lower_even(ctf: CTF, lower: Floats, wavelength: Floats) -> CTF:
    """Return the CTF of particles with terms (n, 5) put into it."""
    phase, square, _, cosine, sine = lower.T
    is_changed = (cosine != 0) | (sine != 0)
    mean = (ctf.defocus_u_A + ctf.defocus_v_A) / 2
    half = (ctf.defocus_u_A - ctf.defocus_v_A) / 2
    along = half * np.cos(2 * ctf.defocus_angle_rad) - cosine / (np.pi * wavelength)
    across = half * np.sin(2 * ctf.defocus_angle_rad) - sine / (np.pi * wavelength)
    half = np.where(is_changed, np.hypot(along, across), half)
    mean = mean - square / (np.pi * wavelength)
    phase_shift_rad = np.zeros_like(mean) if ctf.phase_shift_rad is None else ctf.phase_shift_rad
    shifted = phase_shift_rad - phase
    return replace(
        ctf,
        defocus_u_A=mean + half,
        defocus_v_A=mean - half,
        defocus_angle_rad=np.where(is_changed, 0.5 * np.arctan2(across, along), ctf.defocus_angle_rad),
        phase_shift_rad=np.where(phase == 0, phase_shift_rad, np.arctan2(np.sin(shifted), np.cos(shifted)))
        if phase.any()
        else ctf.phase_shift_rad,
    )


def chosen(particles: ParticleSet, *, aberrations: bool, odd: Odd) -> tuple[ParticleSet, list[Message]]:
    """Return particles with the aberrations that are to go to another program, in its columns as far as they fit.

    Parameters
    ----------
    particles
        As they were read.
    aberrations
        Whether they go at all.
    odd
        What becomes of beam tilt and trefoil, of whose sign a warning says what was taken.
    """
    if not aberrations:
        ctf = None if particles.ctf is None else replace(particles.ctf, shift_A=None)
        optics = None if particles.optics is None else replace(particles.optics, aberrations=None)
        return replace(particles, ctf=ctf, optics=optics), []
    particles, messages = folded(particles)
    optics = particles.optics
    if optics is None or optics.aberrations is None:
        return particles, messages
    bent = optics.aberrations
    if odd != "drop" and (bent.beam_tilt_A.any() or bent.trefoil_A.any()):
        other = "reversed" if odd == "as-derived" else "as-derived"
        text = (
            f"the sign of beam tilt and trefoil is {'derived' if odd == 'as-derived' else 'reversed'}, and no data "
            "have confirmed it: compare with RELION's fit (relion_ctf_refine --fit_beamtilt), and give "
            f"{option('odd_aberrations', other)} where that has the other sign"
        )
        messages.append(warning("odd-aberrations-sign", text, option="odd_aberrations"))
    return replace(particles, optics=replace(optics, aberrations=with_sign(bent, odd))), messages


def with_sign(aberrations: Aberrations, odd: Odd) -> Aberrations:
    """Return aberrations with beam tilt and trefoil as another program is to get them."""
    sign = {"as-derived": 1.0, "reversed": -1.0, "drop": 0.0}[odd]
    beam_tilt_A, trefoil_A = (sign * values + 0.0 for values in (aberrations.beam_tilt_A, aberrations.trefoil_A))
    return replace(aberrations, beam_tilt_A=beam_tilt_A, trefoil_A=trefoil_A)


def held_after(*, aberrations: bool = True, odd: Odd = "as-derived", only: Collection[str] | None = None) -> set[str]:
    """Return the names of the quantities that an output of another program holds after `chosen`.

    Parameters
    ----------
    aberrations, odd
        As there.
    only
        Names of those that the program has columns for; None for all but what only RELION has.
    """
    if not aberrations:
        return set()
    columns = {item.name for item in ROWS} - {_HIGHER} if only is None else set(only)
    return (columns | _FOLDED) - set(ODD if odd == "drop" else ())


def left_out(
    particles: ParticleSet, held: Collection[str], who: str, *, aberrations: bool = True, odd: Odd = "as-derived"
) -> list[Message]:
    """Return warnings of aberrations that are not zero and left out.

    Parameters
    ----------
    particles
        As they were read.
    held
        Names of the quantities that the output holds.
    who
        The program that lacks columns for them.
    aberrations, odd
        What was asked for.
    """
    lost = [item for item in (*ROWS, field(_SHIFT)) if item.name not in held and is_known(particles, item)]
    asked = lost if not aberrations else [item for item in lost if odd == "drop" and item.name in ODD]
    name = "odd_aberrations" if aberrations else "aberrations"
    messages = []
    if asked:
        said = option(name, odd) if aberrations else option(name, False)
        text = f"{_titles(asked)}: not zero, and left out, as {said} says"
        messages.append(warning("aberrations-left-out", text, option=name))
    if others := [item for item in lost if item not in asked]:
        text = f"{_titles(others)}: not zero, and left out: files for {who} have no place for it"
        messages.append(warning("aberrations-dropped", text))
    return messages


def named_aberrations(particles: ParticleSet, rows: NDArray[np.int64], *, but: Collection[str] = ()) -> str:
    """Return what aberrations of some rows are called that are not zero; without those of the names ``but``."""
    optics, index = particles.optics, particles.optics_index
    if optics is None or index is None:
        return ""
    few = ParticleSet(0, particles.source, optics=optics.take(np.unique(index[rows])))
    return _titles(item for item in ROWS if item.name not in but and is_known(few, item))


def _titles(rows: Iterable[Field]) -> str:
    return ", ".join(item.title for item in rows)


def is_singular(matrix: Floats) -> Any:
    """Return which matrices (g, 2, 2) are no magnification, (g,): zeros, as some converters write them."""
    with np.errstate(over="ignore", invalid="ignore"):
        return ~(np.abs(np.linalg.det(matrix)) > _LEAST_DETERMINANT)


def _tokens(coefficients: Floats) -> list[str]:
    """Return each row as RELION's list in one token, without a space."""
    return ["[" + ",".join(f"{value:.9g}" for value in row + 0.0) + "]" for row in coefficients]


def _coefficients(
    tokens: Sequence[str] | None, n_groups: int, width: int, name: str, path: Path
) -> tuple[Floats, Floats]:
    """Return lists of coefficients as (g, width), and the largest of those beyond, (g,).

    What a list lacks is 0, as in RELION.
    """
    table, beyond = np.zeros((n_groups, width)), np.zeros(n_groups)
    for row, token in enumerate(() if tokens is None else tokens):
        try:
            values = [float(value) for value in str(token).strip("[]").split(",") if value]
        except ValueError as error:
            raise FormatError(
                f"{token!r} is not a list of numbers", path=path, field=name, hint="RELION writes [0.1,0.2,0.3]."
            ) from error
        table[row, : min(width, len(values))] = values[:width]
        beyond[row] = np.abs(values[width:]).max(initial=0.0)
    return table, beyond
