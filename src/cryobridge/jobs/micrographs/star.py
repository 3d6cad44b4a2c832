"""RELION's project and the STAR file that names its micrographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError
from cryobridge.formats.input_file import meant
from cryobridge.formats.listing import is_there
from cryobridge.formats.projects import INSTEAD, folder_refusal
from cryobridge.formats.relion.job import MICROGRAPH_STARS, PIPELINE, as_named
from cryobridge.formats.relion.particles import PIXEL_SIZE_3_0
from cryobridge.formats.relion.star import StarBlock, open_star, to_labels
from cryobridge.formats.relion.tomography import refuse_tomography
from cryobridge.formats.table import ColumnReader

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.model.particles import Floats

_STAR_HINT = INSTEAD["micrographs"][0]


@dataclass(frozen=True)
class RelionMicrographs:
    """RELION's micrographs, with their optics groups.

    Parameters
    ----------
    names
        The distinct names.
    group
        (m,) the optics group of each, as its place in ``group_names``.
    group_names, group_numbers
        The optics groups, ordered by number; empty, and all micrographs in group 0, in the layout of RELION 3.0.
    pixel_size_A, movie_pixel_size_A
        (m,) Å a pixel of each micrograph and of its movie; NaN where the file does not say.
    voltage_kV, spherical_aberration_mm
        (m,) of each micrograph; NaN where the file does not say.
    """

    names: tuple[str, ...]
    group: NDArray[np.int64]
    group_names: tuple[str, ...]
    group_numbers: tuple[int, ...]
    pixel_size_A: Floats
    movie_pixel_size_A: Floats
    voltage_kV: Floats
    spherical_aberration_mm: Floats


def read_micrographs(path: Path) -> RelionMicrographs:
    """Return the micrographs of a STAR file with their optics groups.

    Raises
    ------
    FormatError
        If a value is not a number.
    UsageError
        If it is a folder.
    MissingDataError
        If it names none, or is a list of particles: their micrographs may be those of another program; and if an
        optics group is not defined.
    """
    block, optics = _micrographs_block(path)
    labels = to_labels(block.texts("rlnMicrographName"))
    # The first row of each name.
    rows = np.unique(labels.codes, return_index=True)[1]
    columns: dict[str, Any] = {name: np.asarray(values)[rows] for name, values in _numbers(block).items()}
    names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    group: NDArray[np.int64] = np.zeros(len(rows), np.int64)
    if optics is not None and "rlnOpticsGroup" in columns:
        of_groups: dict[str, Any] = {name: np.asarray(values) for name, values in _numbers(optics).items()}
        defined = ColumnReader(optics).integers("rlnOpticsGroup")
        number: NDArray[np.int64] = np.arange(1, optics.n_rows + 1) if defined is None else defined
        order = np.argsort(number, kind="stable")
        of_rows = ColumnReader(block).as_integers(columns["rlnOpticsGroup"], "rlnOpticsGroup")
        group = np.searchsorted(number[order], of_rows).astype(np.int64)
        found = np.append(number[order], -1)[group]
        absent = np.flatnonzero(found != of_rows)
        if len(absent):
            raise MissingDataError(
                f"optics group {of_rows[absent[0]]} is not defined in data_optics",
                path=path,
                field="rlnOpticsGroup",
                rows=tuple(rows[absent[:3]].tolist()),
                count=len(absent),
                hint=_STAR_HINT,
            )
        texts = to_labels(optics.texts("rlnOpticsGroupName")) if "rlnOpticsGroupName" in optics else None
        numbers = tuple(number[order].tolist())
        names = tuple(
            f"opticsGroup{number}" if texts is None else texts[row] for number, row in zip(numbers, order, strict=True)
        )
        columns = {name: values[order][group] for name, values in of_groups.items()} | columns

    def known(*choices: str) -> Floats:
        values = next((columns[name] for name in choices if name in columns), np.full(len(rows), np.nan))
        positive: Floats = np.where(values > 0, values, np.nan)
        return positive

    pixel_size_A = known("rlnMicrographPixelSize", "rlnImagePixelSize")
    if all(name in columns for name in PIXEL_SIZE_3_0) and np.isnan(pixel_size_A).all():
        magnification, detector_um = (known(name) for name in PIXEL_SIZE_3_0)
        pixel_size_A = 1e4 * detector_um / magnification
    return RelionMicrographs(
        labels.values,
        group,
        names,
        numbers,
        pixel_size_A,
        known("rlnMicrographOriginalPixelSize"),
        known("rlnVoltage"),
        known("rlnSphericalAberration"),
    )


_NUMBERS = (
    *("rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnMicrographPixelSize", "rlnImagePixelSize"),
    *("rlnMicrographOriginalPixelSize", *PIXEL_SIZE_3_0),
)


def _numbers(block: StarBlock) -> dict[str, Any]:
    return block.read([name for name in _NUMBERS if name in block])


def _micrographs_block(path: Path) -> tuple[StarBlock, StarBlock | None]:
    """Return the block of micrographs of a STAR file, and that of their optics."""
    if path.is_dir():
        raise folder_refusal(path, "micrographs")
    star = open_star(path)
    refuse_tomography(star)
    block = star[star.main]
    if "rlnImageName" in block or "rlnCoordinateX" in block:
        raise MissingDataError(f"data_{star.main} lists particles, not micrographs", path=path, hint=_STAR_HINT)
    if "rlnMicrographName" not in block:
        raise MissingDataError(f"data_{star.main} has no rlnMicrographName", path=path, hint=_STAR_HINT)
    return block, star.optics


def newest_micrographs(project: Path) -> tuple[Path, ...]:
    """Return the STAR files of micrographs of RELION's last CTF and motion correction jobs."""
    found = []
    for name in ("CtfFind", "MotionCorr"):
        files = [
            path
            for star in MICROGRAPH_STARS
            for path in sorted((project / name).glob(f"job[0-9]*/{star}"), reverse=True)
        ]
        found += files[:1]
    return tuple(found)


def project_of(folder: Path, given: Path | None = None) -> Path | None:
    """Return RELION's project: the one that is given, else the nearest of a folder and those above it, or None.

    Raises
    ------
    MissingDataError
        If the one that is given is not there.
    """
    if given is None:
        own = as_named(folder)
        return next((above for above in (own, *own.parents) if is_there(above / PIPELINE)), None)
    if not given.is_dir():
        hint = meant(given, f"Give the folder that has {PIPELINE}.")
        raise MissingDataError("no such folder", path=given, hint=hint)
    return as_named(given)
