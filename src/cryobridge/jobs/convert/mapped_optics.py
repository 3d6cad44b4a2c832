"""The optics of particles that are put on the other program's micrographs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.optics import distinct_optics, distinct_rows, first_rows
from cryobridge.report import warning

if TYPE_CHECKING:
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.model.particles import Floats, Optics, ParticleSet
    from cryobridge.report import Message

# Pixel sizes that differ by more are two calibrations, not roundings: of digits, or of the size of a binned micrograph.
_ROUNDED = 0.005


def under_relions_names(
    particles: ParticleSet, relion: MicrographSet, place: NDArray[np.int64], by_size_A: Floats | None
) -> tuple[Optics | None, NDArray[np.int32] | None, list[Message]]:
    """Return the optics under RELION's names: its groups in order, each once for each set of values in it.

    Parameters
    ----------
    particles
        Of cryoSPARC's files.
    relion
        RELION's micrographs.
    place
        (n,) the micrograph of each particle among them.
    by_size_A
        (n,) Å a pixel of RELION's micrographs by cryoSPARC's pixel size, taken where RELION's file does not say; None
        where that is not known.

    Returns
    -------
    tuple
        The optics, the group of each particle, and warnings.
    """
    optics, index = particles.optics, particles.optics_index
    if optics is None or index is None:
        return optics, index, []
    groups = _groups(relion)
    number = np.zeros(len(place), np.int64) if groups is None else groups.group_id[place]
    # Pixel sizes of micrographs and movies are RELION's.
    own = replace(optics, micrograph_pixel_size_A=None, movie_pixel_size_A=None)
    values = distinct_optics(own, (optics.group_id,) if groups is None else ())  # RELION 3.0
    pixel_size_A = relion.pixel_size_A[place]
    of_pixels = _other_pixel_size(pixel_size_A, by_size_A)
    if by_size_A is not None:
        pixel_size_A = np.where(np.isnan(pixel_size_A), by_size_A, pixel_size_A)
    new = distinct_rows([number, values[index], pixel_size_A])
    first = first_rows(new)
    movie_A = _known(relion, "movie_pixel_size_A")[place][first]
    merged = replace(
        optics.take(index[first]),
        micrograph_pixel_size_A=None if np.isnan(pixel_size_A).any() else pixel_size_A[first],
        movie_pixel_size_A=None if np.isnan(movie_A).any() else movie_A,
    )
    if groups is not None:
        of_relion = groups.take(place[first])
        merged = replace(merged, name=of_relion.name, group_id=of_relion.group_id)
    return merged, new, [*_shared_groups(merged), *_other_optics(merged, relion, place[first]), *of_pixels]


def _groups(relion: MicrographSet) -> Optics | None:
    """Return RELION's optics group of each micrograph; None in the layout of 3.0, which has none."""
    is_3_0 = relion.extra is None or "rlnOpticsGroup" not in relion.extra.of_file
    if is_3_0 or relion.optics is None or relion.optics_index is None:
        return None
    return relion.optics.take(relion.optics_index)


def _known(relion: MicrographSet, name: str) -> Floats:
    """Return an optics value of each micrograph, (n,); NaN where the file does not say."""
    values = relion.per_micrograph(name)
    known: Floats = np.where(values > 0, values, np.nan)
    return known


def with_micrograph_pixel_size(
    particles: ParticleSet, pixel_size_A: Floats
) -> tuple[Optics | None, NDArray[np.int32] | None]:
    """Return the optics, and the group of each particle, with Å a pixel (n,) of its micrograph; NaN for unknown."""
    optics, index = particles.optics, particles.optics_index
    if optics is None or index is None:
        return optics, index
    new = distinct_rows([index, pixel_size_A])
    first = first_rows(new)
    sizes = None if np.isnan(pixel_size_A).any() else pixel_size_A[first]
    return replace(optics.take(index[first]), micrograph_pixel_size_A=sizes), new


def _shared_groups(optics: Optics) -> list[Message]:
    """Return a warning of a name that several groups share: one of RELION's groups has particles of several optics."""
    shared = [name for name in dict.fromkeys(optics.name) if optics.name.count(name) > 1]
    if not shared:
        return []
    text = (
        f"{optics.name.count(shared[0])} optics groups are called {shared[0]}, whose particles differ in optics: "
        "RELION's re-extraction takes them; rename them before relion_star_handler, which joins groups of one name"
    )
    return [warning("optics-groups-shared", text)]


def _other_optics(optics: Optics, relion: MicrographSet, place: NDArray[np.int64]) -> list[Message]:
    """Return a warning where voltage or Cs of both programs differ."""
    rows = (
        ("voltage", "kV", optics.voltage_kV, _known(relion, "voltage_kV")[place]),
        ("Cs", "mm", optics.spherical_aberration_mm, _known(relion, "spherical_aberration_mm")[place]),
    )
    messages = []
    for title, unit, own, other in rows:
        differing = np.flatnonzero(np.abs(own - other) > 1e-3 * np.abs(own))
        if len(differing):
            first = int(differing[0])
            values = f"{own[first]:g} {unit} in cryoSPARC's file, which is taken, and {other[first]:g} in RELION's"
            text = f"{title} is {values}"
            messages.append(warning("optics-differ", text))
    return messages


def _other_pixel_size(pixel_size_A: Floats, by_size_A: Floats | None) -> list[Message]:
    """Return a warning where RELION's file has another pixel size than cryoSPARC's and the sizes of both say."""
    if by_size_A is None:
        return []
    differing = np.flatnonzero(np.abs(pixel_size_A - by_size_A) > _ROUNDED * by_size_A)
    if not len(differing):
        return []
    row = int(differing[0])
    text = (
        f"the pixel size of RELION's micrographs is {pixel_size_A[row]:g} Å in its file, which is taken, and "
        f"{by_size_A[row]:.4g} Å by cryoSPARC's: shifts and defocus are those of cryoSPARC's"
    )
    return [warning("optics-differ", text)]
