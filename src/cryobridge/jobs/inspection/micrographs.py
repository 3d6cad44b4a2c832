"""What `inspect` says of micrographs and movies of either program: how many, their CTF fit, dose, motion and ice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.cryosparc.exposures import exposures_from_cs, is_exposures
from cryobridge.formats.relion.micrographs import read_micrographs
from cryobridge.report import part_of

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.table import Table
    from cryobridge.model.micrographs import GainReference, MicrographSet
    from cryobridge.model.particles import Floats

# From here on, what is behind the point says nothing.
_LARGE = 1000

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Measure:
    """A number of each micrograph by which people judge it.

    Parameters
    ----------
    title, unit
        What it is, and its unit; empty for none.
    values
        (n,) NaN where it is not known.
    """

    title: str
    unit: str
    values: Floats


def measures(micrographs: MicrographSet) -> list[Measure]:
    """Return what is known by which micrographs are judged, the telling ones first."""
    fit, ctf, motion, movies = micrographs.fit, micrographs.ctf, micrographs.motion, micrographs.movies
    found: list[tuple[str, str, Floats | None]] = [
        ("CTF fit", "Å", None if fit is None else fit.resolution_A),
        ("score of the fit", "", None if fit is None else fit.score),
    ]
    if ctf is not None:
        found += [
            ("defocus", "Å", (ctf.defocus_u_A + ctf.defocus_v_A) / 2),
            ("astigmatism", "Å", np.abs(ctf.defocus_u_A - ctf.defocus_v_A)),
        ]
    found += [
        ("ice thickness", "", None if fit is None else fit.ice_thickness),
        ("motion", "Å", None if motion is None else motion.total_A),
        ("early motion", "Å", None if motion is None else motion.early_A),
        ("dose", "e/Å²", None if movies is None else movies.dose_e_A2),
    ]
    known = [Measure(title, unit, values) for title, unit, values in found if values is not None]
    return [item for item in known if np.isfinite(item.values).any()]


def about_micrographs(micrographs: MicrographSet) -> Facts:
    """Return facts on micrographs: counts, ranges and medians."""
    n, movies = len(micrographs), micrographs.movies
    facts: Facts = [("movies" if micrographs.name is None else "micrographs", f"{n:,}")]
    facts += [(item.title, _range(item)) for item in measures(micrographs)]
    if micrographs.ctf is not None:
        without = int((micrographs.ctf.defocus_u_A == 0).sum())
        if without:
            facts.append(("without CTF", f"{part_of(without, n, 'micrograph', 'have', of_one='has')} a defocus of 0"))
    if movies is not None and movies.n_frames is not None:
        low, high = int(movies.n_frames.min()), int(movies.n_frames.max())
        frames = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        dose = movies.dose_per_frame_e_A2
        known = np.zeros(0) if dose is None else dose[np.isfinite(dose)]
        facts.append(("frames", frames + (f", {np.median(known):.4g} e/Å² each" if len(known) else "")))
    if movies is not None and movies.gain is not None:
        facts.append(("gain reference", _gain(movies.gain)))
    motion = micrographs.motion
    if motion is not None:
        kinds = [
            ("of whole frames", motion.rigid),
            ("local", motion.spline),
            ("RELION's metadata", motion.metadata),
        ]
        there = [title for title, part in kinds if part is not None]
        if there:
            facts.append(("motion files", ", ".join(there)))
    return facts


def _range(item: Measure) -> str:
    known = item.values[np.isfinite(item.values)]
    unit = f" {item.unit}" if item.unit else ""
    if known.min() == known.max():
        return f"{_number(known[0])}{unit}"
    low, high, median = (_number(value) for value in (known.min(), known.max(), np.median(known)))
    return f"{low} to {high}{unit}, median {median}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.4g}"


def _gain(gain: GainReference) -> str:
    names = gain.name.without_unused().values
    text = names[0] if len(names) == 1 else f"{len(names):,} files"
    turns = [f"{title} flipped" for title, flip in (("x", gain.flip_x), ("y", gain.flip_y)) if _any(flip)]
    if _any(gain.quarter_turns):
        turns.append("turned")
    return f"{text}, {', '.join(turns)}" if turns else text


def _any(values: object) -> bool:
    return isinstance(values, np.ndarray) and bool(values.any())


def of_cryosparc(table: Table) -> MicrographSet | None:
    """Return the exposures in a table of cryoSPARC; None where it has none, or they can't be read."""
    if not table.n_rows or not is_exposures(table.names):
        return None
    try:
        return exposures_from_cs(table)
    except CryobridgeError:  # what is wrong with a column is said with the column
        return None


def of_relion(path: Path) -> MicrographSet | None:
    """Return the micrographs or movies of a STAR file; None where it lists none, or they can't be read."""
    try:
        found = read_micrographs(path, movies=True)
    except CryobridgeError:
        return None
    return found if len(found) else None
