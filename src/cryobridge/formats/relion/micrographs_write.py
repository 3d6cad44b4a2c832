"""The micrograph set -> RELION's lists of movies, of micrographs, of corrected ones, and of those with a CTF.

Columns and their order are those of RELION 3.1.3, which later releases read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.aberrations import BEAM_TILT, RELION_COLUMNS, to_relion
from cryobridge.formats.optics import group_names
from cryobridge.formats.relion.ctf_fits import fits_for_relion
from cryobridge.formats.relion.particles_write import COMMENTS, star_column
from cryobridge.formats.relion.star import StarBlock
from cryobridge.model.fields import field, micrograph_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.relion.list_names import ListName
    from cryobridge.formats.relion.particles_write import Version
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.model.particles import Floats, Labels, Optics
    from cryobridge.report import Message

ASTIGMATISM = "rlnCtfAstigmatism"
# Half a digit of a number in single precision is more.
_DIGITS = 9
_NEEDED = ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast")


def list_blocks(micrographs: MicrographSet, kind: ListName, *, version: Version = "3.1") -> list[StarBlock]:
    """Return the optics groups and rows of one of RELION's lists.

    Parameters
    ----------
    micrographs
        Under the names that RELION is to see. Optics groups without a micrograph are left out, and the others
        numbered from 1.
    kind
        Which list. Rows without a CTF are for the caller to leave out of ``ctf``, those without metadata of
        ``corrected``.
    version
        The release in whose layout it is.

    Returns
    -------
    list
        ``data_optics`` and ``data_movies`` or ``data_micrographs``.

    Raises
    ------
    MissingDataError
        If there are no movies, no micrographs or no CTF, or RELION needs an optics value that is not known.
    """
    optics, number = _groups(micrographs)
    is_of_movies = kind == "movies"
    columns: dict[str, Any] = {}
    if is_of_movies:
        movies = None if micrographs.movies is None else micrographs.movies.name
        columns[_star("movies.name")] = _required(movies, "movies", micrographs)
    else:
        name = _required(micrographs.name, "micrographs", micrographs)
        if kind == "corrected" and micrographs.name_no_dw is not None:
            columns[_star("name_no_dw")] = micrographs.name_no_dw
        columns[_star("name")] = name
    if kind == "corrected" and micrographs.motion is not None and micrographs.motion.metadata is not None:
        columns[_star("motion.metadata")] = micrographs.motion.metadata
    columns["rlnOpticsGroup"] = number
    if kind == "ctf":
        columns |= _ctf(micrographs)
    if kind in ("corrected", "ctf"):
        columns |= _motion(micrographs)
    blocks = {"optics": _optics(optics, micrographs, of_movies=is_of_movies)}
    blocks["movies" if is_of_movies else "micrographs"] = columns
    return [
        StarBlock(
            Path(),
            block,
            pa.table({label: star_column(values) for label, values in of_block.items()}),
            comments=COMMENTS[version],
        )
        for block, of_block in blocks.items()
    ]


def _star(name: str) -> str:
    return micrograph_field(name).columns("relion")[0]


def _required(labels: Labels | None, what: str, micrographs: MicrographSet) -> Labels:
    if labels is None:
        raise MissingDataError(
            f"no {what} are known", path=micrographs.source, hint="Give the exposures of a later job."
        )
    return labels


def _groups(micrographs: MicrographSet) -> tuple[Optics, NDArray[np.int64]]:
    """Return the optics groups that have micrographs, and (n,) the number of each micrograph's, from 1."""
    if micrographs.optics is None or micrographs.optics_index is None:
        raise MissingDataError(
            "nothing is known of the optics",
            path=micrographs.source,
            hint=f"Give {', '.join(option(name, 'X') for name in _NEEDED)}.",
        )
    used, place = np.unique(micrographs.optics_index, return_inverse=True)
    optics = micrographs.optics.take(used)
    unknown = [name for name in _NEEDED if np.isnan(getattr(optics, name)).any()]
    unknown += [name for name in ("voltage_kV",) if (optics.voltage_kV <= 0).any()]
    if unknown:
        titles = " and ".join(field(f"optics.{name}").title for name in dict.fromkeys(unknown))
        raise MissingDataError(
            f"{titles} of the micrographs {'is' if len(set(unknown)) == 1 else 'are'} not known, which RELION needs",
            path=micrographs.source,
            hint=f"Give {', '.join(option(name, 'X') for name in dict.fromkeys(unknown))}.",
        )
    return optics, place.astype(np.int64) + 1


def _optics(optics: Optics, micrographs: MicrographSet, *, of_movies: bool) -> dict[str, Any]:
    """Return the columns of the optics groups, in the order of RELION's Import for movies and for micrographs."""
    own, movies = optics.pixel_size_A, optics.movie_pixel_size_A
    if of_movies and (movies is None or np.isnan(movies).any()):
        movies = own  # of exposures that name movies without their pixel size
    if np.isnan(movies if of_movies and movies is not None else own).any():
        raise MissingDataError(
            f"the pixel size of the {'movies' if of_movies else 'micrographs'} is not known",
            path=micrographs.source,
            hint="Give the exposures of a job that has it.",
        )
    columns: dict[str, Any] = {
        "rlnOpticsGroupName": group_names(optics),
        "rlnOpticsGroup": np.arange(1, len(optics) + 1),
    }
    extra = {} if micrographs.extra is None or micrographs.extra.program != "relion" else micrographs.extra.optics
    used = np.unique(micrographs.optics_index) if micrographs.optics_index is not None else np.arange(len(optics))
    kept = {name: np.asarray(values)[used] for name, values in extra.items()}
    if "rlnMtfFileName" in kept:
        columns["rlnMtfFileName"] = kept.pop("rlnMtfFileName")
    if not of_movies:
        columns[_of_optics("micrograph_pixel_size_A")] = own
    if movies is not None and not np.isnan(movies).any():
        columns[_of_optics("movie_pixel_size_A")] = movies
    for name in _NEEDED:
        columns[_of_optics(name)] = getattr(optics, name)
    if optics.aberrations is not None:
        bent = to_relion(optics.aberrations, optics)
        columns |= {name: values for name, values in bent.items() if not of_movies or name in BEAM_TILT}
    return columns | {name: values for name, values in kept.items() if name not in {*columns, *RELION_COLUMNS}}


def _of_optics(name: str) -> str:
    return field(f"optics.{name}").columns("relion")[0]


def _ctf(micrographs: MicrographSet) -> dict[str, Any]:
    ctf = micrographs.ctf
    if ctf is None:
        raise MissingDataError(
            "no CTF is known", path=micrographs.source, hint="Give the exposures of a job that estimated it."
        )
    columns: dict[str, Any] = {}
    for name in ("defocus_u_A", "defocus_v_A"):
        columns[field(f"ctf.{name}").columns("relion")[0]] = getattr(ctf, name)
    columns[ASTIGMATISM] = _digits(np.abs(ctf.defocus_u_A - ctf.defocus_v_A))
    columns |= _angle("ctf.defocus_angle_rad", ctf.defocus_angle_rad)
    columns |= fit_columns(micrographs)[0]
    if ctf.phase_shift_rad is not None and ctf.phase_shift_rad.any():
        columns |= _angle("ctf.phase_shift_rad", ctf.phase_shift_rad)
    return columns


def fit_columns(micrographs: MicrographSet) -> tuple[dict[str, Floats], list[Message]]:
    """Return score and resolution of the CTF fits, as far as they are known, and what is said of them."""
    fit = micrographs.fit
    measures = {} if fit is None else {name: getattr(fit, name) for name in ("score", "resolution_A")}
    columns = {_star(f"fit.{name}"): values for name, values in measures.items() if values is not None}
    return fits_for_relion(columns, "micrograph")


def _angle(name: str, values: Floats) -> dict[str, Floats]:
    item = field(name)
    assert item.star_unit is not None  # degrees
    return {item.columns("relion")[0]: _digits(item.star_unit.from_model(values))}


def _motion(micrographs: MicrographSet) -> dict[str, Any]:
    motion = micrographs.motion
    parts = (
        {}
        if motion is None
        else {_star(f"motion.{part}_A"): getattr(motion, f"{part}_A") for part in ("total", "early", "late")}
    )
    return {label: _digits(values) for label, values in parts.items() if values is not None}


def _digits(values: Floats) -> Floats:
    """Round what was computed to more digits than single precision has, and no more."""
    with np.errstate(divide="ignore"):
        size = np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** (_DIGITS - 1 - np.where(np.isfinite(size), size, 0))
    found: Floats = np.where(np.isfinite(size), np.round(values * scale) / scale, values) + 0.0
    return found
