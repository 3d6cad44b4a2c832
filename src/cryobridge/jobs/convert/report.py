"""What a conversion reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryobridge.errors import CryobridgeError
from cryobridge.formats.particle_files import FromAncestor
from cryobridge.jobs.identity.report import Matched
from cryobridge.jobs.reconstruction.report import MapCheck
from cryobridge.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Difference:
    """How far one quantity of the output is from the input's.

    Parameters
    ----------
    quantity
        What was compared.
    largest
        The largest difference of all particles.
    unit
        Its unit; ``rows`` where differing rows were counted.
    tolerance
        What rounding explains.
    row
        Where it is, counted from 0; the first row of those that differ. None where no row does, or all.
    """

    quantity: str
    largest: float
    unit: str
    tolerance: float
    row: int | None = None

    @property
    def is_good(self) -> bool:
        """Whether rounding explains the difference; NaN is no answer."""
        return self.largest <= self.tolerance

    def as_text(self) -> str:
        """Say how far it is, in which row, and what rounding explains."""
        where = "" if self.row is None else f" in row {self.row:,}"
        if not math.isfinite(self.largest):
            return f"{self.quantity}: " + ("absent in the output" if self.row is None else f"no number{where}")
        if self.unit == "rows":
            n_rows = f"{self.largest:,.0f} row{'' if self.largest == 1 else 's'}"
            return f"{self.quantity} in {n_rows}" + ("" if self.row is None else f", the first {self.row:,}")
        far, most = (in_unit(value, self.unit, digits=4) for value in (self.largest, self.tolerance))
        return f"{self.quantity} by {far}{where} (at most {most})"

    def to_json(self) -> dict[str, Any]:
        """Return the difference as JSON-ready data."""
        largest = self.largest if math.isfinite(self.largest) else None
        own = {"quantity": self.quantity, "largest": largest, "unit": self.unit, "tolerance": self.tolerance}
        return own | {"row": self.row}


@dataclass(frozen=True)
class Recentring:
    """How far centres were moved.

    Parameters
    ----------
    moved
        Rows of the output whose coordinates are others.
    median_px, largest_px
        How far, in pixels of the micrographs; rows that stay count too.
    copies
        Rows for each particle: the places that a symmetry takes the centre to.
    nearest_copies_A
        The smallest distance between two of these places; None where there is one.
    rows_added
        By copies: rows_in + rows_added = rows_out + the rows that are left out.
    """

    moved: int
    median_px: float
    largest_px: float
    copies: int
    nearest_copies_A: float | None
    rows_added: int


def in_unit(value: float, unit: str, digits: int = 2) -> str:
    """Return a number with its unit, such as ``1.1e-06°`` or ``0.5 Å``."""
    return f"{value:.{digits}g}°" if unit == "°" else f"{value:.{digits}g} {unit}".rstrip()


def summary(differences: Sequence[Difference]) -> str:
    """Return in one line how an output that was read back compares.

    Parameters
    ----------
    differences
        As `cryobridge.jobs.convert.verify.verify` returns them, at least one.

    Returns
    -------
    str
        Such as ``identical within rounding (largest: rotation 1.1e-06°)``: the quantity that comes nearest to what
        rounding explains; or all that is beyond that.
    """
    bad = [item.as_text() for item in differences if not item.is_good]
    if bad:
        return "different: " + ", ".join(bad)
    rounded = [item for item in differences if item.largest > 0]
    if not rounded:
        return "identical"
    most = max(rounded, key=lambda item: item.largest / item.tolerance)
    return f"identical within rounding (largest: {most.quantity} {in_unit(most.largest, most.unit)})"


def require_equal(differences: Sequence[Difference], output: Path) -> None:
    """Raise where rounding does not explain a difference.

    Parameters
    ----------
    differences
        As `cryobridge.jobs.convert.verify.verify` returns them.
    output
        The file or folder that was read back.

    Raises
    ------
    CryobridgeError
        If one is larger than its tolerance.
    """
    bad = [item for item in differences if not item.is_good]
    if bad:
        differing = ", ".join(item.as_text() for item in bad)
        raise CryobridgeError(
            f"the output does not read back as the input: {differing}",
            path=output,
            count=len(bad),
            hint="Don't use it. If nothing else wrote to that file, this is a mistake in cryobridge; please report it.",
        )


@dataclass(frozen=True, kw_only=True)
class OntoReport:
    """How particles were put onto the rows of another file.

    Parameters
    ----------
    base
        That file.
    take
        What its rows were given.
    matched
        How the particles of the input, and of that file, were found to be the same.
    rows, rows_without_partner
        Of that file: all, and those that got nothing.
    unmatched
        What became of these.
    source_rows, source_rows_not_used
        Of the input: those that were asked for, and those that have no partner.
    copies
        How many rows are written more than rows have a partner, where the input has several rows of a particle.
    offset_largest_A
        How far the box of that file is from the input's, at most; None where it is the same.
    replaced, added, removed
        Columns that the file had and that have new values, that it did not have, and that were not true any more.
    """

    base: Path
    take: tuple[str, ...]
    matched: Matched
    rows: int
    rows_without_partner: int
    unmatched: Literal["drop", "keep", "error"]
    source_rows: int
    source_rows_not_used: int
    copies: int
    offset_largest_A: float | None
    replaced: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ConvertReport(Report):
    """What a conversion reads and writes.

    Parameters
    ----------
    inputs
        The files that were read.
    alignment
        The columns that the poses come from, such as ``alignments3D``; None where there are none.
    optics_groups
        Groups that have particles.
    coordinates
        The axis convention of the coordinates, as formulas; None where there are none, or within one program.
    coordinates_from
        Where it is from: options that set it by hand, the pixels of the other program's micrographs, or the default.
        None where the micrographs stay the same.
    micrographs
        The file of the other program's micrographs that the particles are put on; None where there is none.
    dropped_columns
        Columns of the input that the output has no place for.
    links
        Links to stacks, or copies of them, that the output names.
    inverted
        How many images are multiplied by -1.
    background_radius_px
        The radius outside of which the background is normalised, one for each size of images; empty where it is not.
    ramp
        Whether a plane was subtracted for that, or the mean; None where neither was.
    recentring
        How far centres were moved; None where they were not. With copies of a symmetric map there are more rows than in
        the input.
    verified
        What was compared when the output was read back, and how far it is off; None where it was not.
    map_check
        How the map of the output compares with the input's; None where that was not asked for.
    from_ancestors
        Columns that were fetched from jobs that the particles come from.
    onto
        What became of the rows of another file, which ``rows_in`` then counts, once for each copy; None for other
        conversions.
    """

    inputs: tuple[Path, ...]
    alignment: str | None
    optics_groups: int
    coordinates: str | None
    coordinates_from: Literal["options", "pixels", "default"] | None
    micrographs: Path | None
    dropped_columns: tuple[str, ...]
    links: int
    inverted: int = 0
    background_radius_px: tuple[int, ...] = ()
    ramp: bool | None = None
    recentring: Recentring | None = None
    verified: tuple[Difference, ...] | None = None
    map_check: MapCheck | None = None
    from_ancestors: tuple[FromAncestor, ...] = ()
    onto: OntoReport | None = None

    def require(self) -> None:
        """Raise where the output does not read back as the input, or makes another map.

        Raises
        ------
        CryobridgeError
            If rounding does not explain a difference.
        """
        require_equal(self.verified or (), self.outputs[0])
        if self.map_check is not None:
            self.map_check.require(self.outputs[0])
