"""Reading picks from cryoSPARC files: micrograph, coordinates, score, and what 2D alignment and filaments give."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError, option
from cryobridge.formats.cryosparc.alignments import whole_numbers
from cryobridge.formats.cryosparc.ancestors import ancestor_with
from cryobridge.formats.cryosparc.joining import with_columns_beside
from cryobridge.formats.cryosparc.particles import images_of
from cryobridge.formats.open import open_particles
from cryobridge.formats.particle_files import FromAncestor, ParticleFiles, naming_damage
from cryobridge.formats.table import ColumnReader
from cryobridge.jobs.coords.locate import NAMES, CoordinateFields, locate_coordinates
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryobridge.formats.table import Array
    from cryobridge.model.particles import Floats, ImageRefs, Labels

SCORE = "pick_stats/ncc_score"
# What reliosparc writes for picks without a score of their own.
DEFAULT_FIGURE_OF_MERIT = 0.08
_N_NAMED = 4


@dataclass(frozen=True)
class Picks:
    """Picks of a cryoSPARC file; arrays have one row a pick.

    Parameters
    ----------
    source
        The file.
    fields
        The columns that the coordinates were read from, and how they were found.
    micrograph
        Path of the micrograph as cryoSPARC has it.
    shape_px
        (n, 2) ny, nx.
    fraction_xy
        (n, 2) x, y as fractions of nx and ny.
    score
        (n,) the picker's correlation, or None.
    class_number
        (n,) class of the 2D alignment, from 1, or None.
    psi_rad
        (n,) in-plane angle of the 2D alignment, or None.
    filament_uid, position_A
        (n,) the filament that a segment is of, and where along it; or None.
    images
        The extracted images, or None.
    image_pixel_size_A, micrograph_pixel_size_A
        (n,) or None.
    left_out
        How many rows of the file are not among the picks, by reason: those that a joined file lacks.
    from_ancestors
        Columns that were fetched from jobs that the picks come from.
    messages
        What was joined or assumed.
    """

    source: Path
    fields: CoordinateFields
    micrograph: Labels
    shape_px: Array
    fraction_xy: Floats
    score: Floats | None
    class_number: NDArray[np.int64] | None
    psi_rad: Floats | None
    filament_uid: NDArray[np.uint64] | None
    position_A: Floats | None
    images: ImageRefs | None
    image_pixel_size_A: Floats | None
    micrograph_pixel_size_A: Floats | None
    left_out: Mapping[str, int]
    from_ancestors: tuple[FromAncestor, ...]
    messages: tuple[Message, ...]

    def __len__(self) -> int:
        return len(self.fraction_xy)


def read_picks(
    path: str | os.PathLike[str],
    passthrough: str | os.PathLike[str] | None = None,
    *,
    infer: bool = True,
    xy_fields: tuple[str, str] | None = None,
    from_ancestors: bool = False,
) -> Picks:
    """Read picks, joined with a passthrough file where the coordinates are in that.

    Parameters
    ----------
    path
        A cryoSPARC file of picks or particles, a result group (`.csg`) or a job folder.
    passthrough
        The file that has ``location/*``; without one, and without coordinates in ``path``, the job folder names it,
        or it is looked for beside the file, by its name and as the one that has all of the uids.
    infer, xy_fields
        See `locate_coordinates`.
    from_ancestors
        Fetch columns that the file lacks from the jobs that the particles come from.

    Raises
    ------
    MissingDataError
        If there are no particles, or no coordinates; files beside it that have them are named.
    CryobridgeError
        If it is ambiguous where the coordinates are.
    """
    files, elsewhere = _opened(path, passthrough, xy_fields, from_ancestors=from_ancestors)
    table = files.columns
    with naming_damage(files):
        fields = _located(files, elsewhere, infer=infer, xy_fields=xy_fields)
    columns = ColumnReader(table)
    micrograph, shape = columns.labels(fields.path), columns.get(fields.shape)
    x, y = columns.floats(fields.x), columns.floats(fields.y)
    if micrograph is None or shape is None or shape.shape[1:] != (2,) or x is None or y is None:
        raise MissingDataError("the location columns are of the wrong type", path=path, field=", ".join(fields.names))
    has_2d = "alignments2D/pose" in columns
    return Picks(
        source=table.path,
        fields=fields,
        micrograph=micrograph.without_unused(),
        shape_px=shape,
        fraction_xy=np.column_stack([x, y]),
        score=columns.floats(SCORE),
        class_number=_class_number(columns) if has_2d else None,
        psi_rad=columns.floats("alignments2D/pose") if has_2d else None,
        filament_uid=_filament_uid(columns),
        position_A=columns.floats("filament/position_A", "filament/arc_length_A"),
        images=images_of(columns),
        image_pixel_size_A=columns.floats("blob/psize_A"),
        micrograph_pixel_size_A=columns.floats("location/micrograph_psize_A", "micrograph_blob/psize_A"),
        left_out=files.left_out,
        from_ancestors=files.from_ancestors,
        messages=(*files.messages, *_assumed(fields, has_score=SCORE in columns)),
    )


def _assumed(fields: CoordinateFields, *, has_score: bool) -> list[Message]:
    """Return what is taken for granted where names or values are not there."""
    messages = []
    if fields.found_by == "content":
        text = f"the coordinate columns were inferred: x from {fields.x}, y from {fields.y}, after {fields.shape}"
        others = "; ".join(f"{rival.x} and {rival.y} after {rival.shape}" for rival in fields.rivals)
        messages.append(warning("columns-inferred", text + (f" (others that may be them: {others})" if others else "")))
    if fields.found_by == "position":
        text = f"the fractions are taken from {fields.x} and {fields.y}, the two columns right after the shape"
        messages.append(note("columns-by-position", text))
    if not has_score:
        text = f"no {SCORE}: the figure of merit is {DEFAULT_FIGURE_OF_MERIT} for all"
        messages.append(note("figure-of-merit-assumed", f"{text} ({option('passthrough')} may have it)"))
    return messages


def _opened(
    path: str | os.PathLike[str],
    passthrough: str | os.PathLike[str] | None,
    xy_fields: tuple[str, str] | None,
    *,
    from_ancestors: bool,
) -> tuple[ParticleFiles, dict[Path, int]]:
    """Open picks with what belongs to them; where that has no coordinates, with a file beside them that has.

    Also return how many of the picks each file beside them has the coordinates of, where none has all.
    """
    given = () if passthrough is None else (passthrough,)
    needs = NAMES[:1] if xy_fields is None else xy_fields
    files = open_particles(path, *given, needs=needs, program="cryosparc", from_ancestors=from_ancestors)
    if files.n_rows == 0:
        raise MissingDataError(
            "there are no particles in it", path=path, hint="An empty selection, or an excluded output; choose another."
        )
    return (files, {}) if given or xy_fields is not None else with_columns_beside(files, NAMES)


def _located(
    files: ParticleFiles, elsewhere: dict[Path, int], *, infer: bool, xy_fields: tuple[str, str] | None
) -> CoordinateFields:
    """Locate the coordinates; where there are none, name the job or the files beside them that have them, or a part."""
    table = files.columns
    try:
        return locate_coordinates(table, infer=infer, xy_fields=xy_fields)
    except MissingDataError as error:
        if hint := ancestor_with(files, "location"):
            raise MissingDataError(error.message, path=table.path, hint=f"{hint}.") from error
        if not elsewhere:
            raise
        parts = ", ".join(f"{path.name} has {count:,}" for path, count in list(elsewhere.items())[:_N_NAMED])
        most = max(elsewhere, key=lambda path: elsewhere[path])
        raise MissingDataError(
            f"no coordinates, and no file beside it has those of all {counted(table.n_rows, 'particle')}: {parts}",
            path=table.path,
            hint=f"{option('passthrough', most)} takes those that it has, and leaves the others out.",
        ) from error


def _filament_uid(columns: ColumnReader) -> NDArray[np.uint64] | None:
    name = "filament/filament_uid"
    uid = columns.get(name, shapes=((),))
    if uid is not None and uid.dtype.kind not in "iu":
        raise FormatError("whole numbers are needed", path=columns.path, field=name, hint="Correct the values.")
    return None if uid is None else uid.astype(np.uint64)


def _class_number(columns: ColumnReader) -> NDArray[np.int64] | None:
    """Return the class, from 1; 0 for none."""
    name = "alignments2D/class"
    values = columns.get(name, shapes=((),))
    return None if values is None else whole_numbers(columns, values, name) + 1
