"""STAR files of tomography: which ones are recognised, and said not to be supported; and tilts of one particle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow.compute as pc

from cryobridge.errors import FormatError
from cryobridge.formats.relion.star import to_labels
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.formats.relion.star import StarBlock, StarFile

ARE_2D_STACKS: Final = "rlnTomoSubTomosAre2DStacks"
GROUP: Final = "rlnGroupName"
_SUBTOMOGRAMS = "subtomograms"
_IMAGE, _MICROGRAPH = "rlnImageName", "rlnMicrographName"
# Blocks of a run, which name files of tomography among much else.
_OF_A_RUN = {"optimiser_general", "model_general"}
_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
# What each kind of table without images has, the telling columns first.
_TABLES = (
    ("an optimisation set", ("rlnTomoParticlesFile", "rlnTomoTomogramsFile")),
    ("a list of tomograms", ("rlnTomoTiltSeriesStarFile", "rlnTomoReconstructedTomogram", "rlnTomoSizeX")),
    ("a tilt series", ("rlnTomoNominalStageTiltAngle", "rlnTomoTiltMovieIndex", "rlnTomoProjX", "wrpMovieName")),
    (
        "places in tomograms",
        ("rlnCenteredCoordinateZAngst", "wrpSourceName", "wrpCoordinateX", "wrpCoordinateX1", "rlnCoordinateZ"),
    ),
    ("particles in tomograms", ("rlnTomoName", "rlnTomoParticleName")),
)
# What only images of subtomograms have, where their names are those of whole files.
_OF_SUBTOMOGRAMS = (
    *("rlnTomoParticleName", "rlnTomoParticleId", "rlnTomoVisibleFrames", "rlnTomoName"),
    *("rlnTomoTiltSeriesPixelSize", "rlnTomoSubtomogramBinning", "rlnCenteredCoordinateZAngst", "rlnCtfImage"),
    *("wrpSourceName", "rlnCoordinateZ", "rlnOriginZAngst", "rlnOriginZ"),
)
# Who writes a column, the most particular first; a name that ends in "*" is how columns begin.
_PROGRAMS = (
    ("M", ("wrpSourceName", "wrpCoordinate*", "rlnSourceName")),
    ("Warp", ("wrp*",)),
    ("PyTom", ("ptm*", "rlnLCCmax")),
    ("RELION 5", (ARE_2D_STACKS, "rlnCenteredCoordinate*", "rlnTomoVisibleFrames")),
    ("RELION 4 or later", ("rlnTomo*",)),
)


@dataclass(frozen=True)
class Tomography:
    """What a STAR file of tomography holds.

    Parameters
    ----------
    what
        In words, such as ``subtomograms``.
    program
        Whose layout it is.
    known_by
        What it was recognised by: a column, with its block where that is not the main one.
    """

    what: str
    program: str
    known_by: str

    @property
    def text(self) -> str:
        """What it is, and by what that is known."""
        return f"{self.what}, as of {self.program} ({self.known_by})"

    @property
    def refusal(self) -> str:
        """A sentence for who wanted to use it."""
        return f"the file holds {self.text}; subtomograms are not supported"


def tomography_of(star: StarFile) -> Tomography | None:
    """Say what a STAR file of tomography holds; None for single particles, and for what says nothing of tomograms.

    Names of images decide where columns do not: tilts that are stacked as images of single particles are
    ``number@stack``, subtomograms are files of their own.
    """
    labels = {name: star.labels(name) for name in star.names}
    everywhere = tuple(label for names in labels.values() for label in names)
    place = next((name for name, names in labels.items() if ARE_2D_STACKS in names), None)
    if place is not None:
        flag = str(star[place].read([ARE_2D_STACKS], slice(0, 1))[ARE_2D_STACKS][0]) if star[place].n_rows else "1"
        what = f"{_SUBTOMOGRAMS} as stacks of 2D images" if flag in {"1", "True", "true"} else _SUBTOMOGRAMS
        return Tomography(what, "RELION 5", f"data_{place} has {ARE_2D_STACKS}")
    main = labels[star.main]
    if star.main in _OF_A_RUN:
        return None
    if _IMAGE not in main:
        found = next(((what, name) for what, names in _TABLES for name in names if name in main), None)
        return None if found is None else Tomography(found[0], _program(everywhere, star), f"it has {found[1]}")
    if _is_3d(star):
        return Tomography(_SUBTOMOGRAMS, _program(everywhere, star), "rlnImageDimensionality is 3")
    telling = next((name for name in _OF_SUBTOMOGRAMS if name in everywhere), None)
    if telling is None or not _are_whole_files(star[star.main]):
        return None
    known_by = f"it has {telling}, and images without number@"
    return Tomography(_SUBTOMOGRAMS, _program(everywhere, star), known_by)


def refuse_tomography(star: StarFile) -> None:
    """Raise where a STAR file holds subtomograms, or something else of tomography.

    Raises
    ------
    FormatError
        Which says what it is.
    """
    found = tomography_of(star)
    if found is not None:
        raise FormatError(
            found.refusal,
            path=star.path,
            hint="Give a STAR file of single particles, whose images are named as in "
            "000001@Extract/job012/stack.mrcs; `cryobridge inspect` shows this one.",
        )


def tilted_particles(block: StarBlock) -> int | None:
    """Return how many particles rows are tilts of, as Warp and M write them; None where each row is a particle.

    Rows of one rlnGroupName are tilts where they have the place in common. In a file of single particles such a group
    has the particles of a micrograph, each at its own place.
    """
    if GROUP not in block or _IMAGE not in block or not block.n_rows:
        return None
    groups = to_labels(block.texts(GROUP))
    n_groups = len(groups.without_unused().values)
    if n_groups == block.n_rows:
        return None
    places = [name for name in _COORDINATES if name in block]
    if places:
        is_tilts = all(_is_constant_within(groups, block.read([name])[name]) for name in places)
    else:
        weights = [name for name in ("rlnCtfBfactor", "rlnCtfScalefactor") if name in block]
        is_tilts = len(weights) == 2 and not _is_constant_within(groups, block.read(weights)[weights[0]])
    return n_groups if is_tilts else None


def _is_constant_within(groups: Labels, values: object) -> bool:
    codes = values.codes if isinstance(values, Labels) else np.asarray(values)
    first = np.zeros(len(groups.values), np.int64)
    first[groups.codes[::-1]] = np.arange(len(codes))[::-1]
    return bool((codes == codes[first[groups.codes]]).all())


def _is_3d(star: StarFile) -> bool:
    if "optics" not in star or "rlnImageDimensionality" not in star.labels("optics"):
        return False
    values = np.asarray(star["optics"].read(["rlnImageDimensionality"])["rlnImageDimensionality"])
    return bool(len(values)) and bool((values == 3).all())


def _are_whole_files(block: StarBlock) -> bool:
    """Whether most images are files of their own; one odd name does not decide."""
    named = pc.sum(pc.match_substring(block.texts(_IMAGE), "@")).as_py() or 0
    return 2 * int(named) < block.n_rows


def _program(names: Iterable[str], star: StarFile) -> str:
    found = tuple(names)
    for program, columns in _PROGRAMS:
        for column in columns:
            if any(name.startswith(column[:-1]) if column.endswith("*") else name == column for name in found):
                return program
    main = star[star.main]
    if _MICROGRAPH in main and main.n_rows and str(main.texts(_MICROGRAPH)[0].as_py()).endswith(".tomostar"):
        return "Warp"
    return "RELION 3, Warp or Dynamo"
