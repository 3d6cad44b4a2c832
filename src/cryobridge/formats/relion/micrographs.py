"""RELION's STAR files of micrographs and movies -> the micrograph set, from the layouts of 3.0 and of 3.1 to 5."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import MissingDataError
from cryobridge.formats.projects import INSTEAD, folder_refusal
from cryobridge.formats.relion.particles import (
    PIXEL_SIZE_3_0,
    AsWritten,
    optics_of_block,
    optics_of_rows,
    pixel_size_3_0,
    with_aberrations,
)
from cryobridge.formats.relion.star import open_star
from cryobridge.formats.relion.tomography import refuse_tomography
from cryobridge.formats.table import ColumnReader
from cryobridge.model.fields import MICROGRAPH_FIELDS, fields_of, micrograph_field
from cryobridge.model.micrographs import CtfFit, GainReference, MicrographSet, Motion, Movies
from cryobridge.model.particles import ExtraColumns, Labels, Optics, ctf_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.model.particles import Floats

_HINT = INSTEAD["micrographs"][0]
_NAME, _MOVIE = "rlnMicrographName", "rlnMicrographMovieName"


def read_micrographs(path: Path, *, movies: bool = False) -> MicrographSet:
    """Read a STAR file of RELION's micrographs, with their optics groups.

    Parameters
    ----------
    path
        Such as ``CtfFind/job003/micrographs_ctf.star``.
    movies
        Whether a list of movies, which have no micrographs yet, is taken too.

    Returns
    -------
    MicrographSet
        In the layout of RELION 3.0, without optics groups, these are made of the values and have the number 0.

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
    block, block_of_optics = _blocks(path, movies=movies)
    columns = ColumnReader(block)
    if block_of_optics is None:
        optics, index = optics_of_rows(columns)
    else:
        optics, index = optics_of_block(block_of_optics, columns)
    pixel_size_A = _pixel_size_A(columns, optics, index)
    if optics is not None and index is not None:
        optics, _ = with_aberrations(optics, index, block_of_optics, columns)
        if block_of_optics is not None and optics.micrograph_pixel_size_A is not None:
            optics = replace(optics, pixel_size_A=optics.micrograph_pixel_size_A)
    return MicrographSet(
        n_rows=block.n_rows,
        source=path,
        program="relion",
        pixel_size_A=pixel_size_A,
        name=_field(columns, "name"),
        name_no_dw=_field(columns, "name_no_dw"),
        optics=optics,
        optics_index=index,
        ctf=ctf_of(columns.part("ctf", "relion")),
        fit=_whole(CtfFit, columns, "fit"),
        movies=_movies(columns, optics, index),
        motion=_whole(Motion, columns, "motion"),
        extra=_extra(block, block_of_optics),
        messages=tuple(columns.messages),
    )


def _blocks(path: Path, *, movies: bool) -> tuple[StarBlock, StarBlock | None]:
    """Return the block of micrographs of a STAR file, and that of their optics."""
    if path.is_dir():
        raise folder_refusal(path, "micrographs")
    star = open_star(path)
    refuse_tomography(star)
    block = star[star.main]
    if "rlnImageName" in block or "rlnCoordinateX" in block:
        raise MissingDataError(f"data_{star.main} lists particles, not micrographs", path=path, hint=_HINT)
    if _NAME not in block and not (movies and _MOVIE in block):
        raise MissingDataError(f"data_{star.main} has no {_NAME}", path=path, hint=_HINT)
    return block, star.optics


def _field(columns: ColumnReader, name: str) -> Any:
    return columns.field(micrograph_field(name), "relion")


def _whole(kind: type[Any], columns: ColumnReader, part: str) -> Any:
    """Return a part of the model by its columns; None where there are none."""
    rows = [item for item in MICROGRAPH_FIELDS if item.part == part and item.columns("relion")]
    values = {item.key: columns.field(item, "relion") for item in rows}
    return kind(**values) if any(value is not None for value in values.values()) else None


def _positive(values: Floats) -> Floats:
    known: Floats = np.where(values > 0, values, np.nan)
    return known


def _pixel_size_A(columns: ColumnReader, optics: Optics | None, index: NDArray[np.int32] | None) -> Floats:
    """Return Å a pixel of each micrograph, (n,): of its own row, of its optics group, or by the magnification."""
    own = columns.floats("rlnMicrographPixelSize", "rlnImagePixelSize")
    if own is not None:
        return _positive(own)
    nothing: Floats = np.full(columns.n_rows, np.nan)
    of_groups: Floats = nothing
    if optics is not None and index is not None:
        sizes = optics.micrograph_pixel_size_A
        of_groups = _positive((optics.pixel_size_A if sizes is None else sizes)[index])
    if np.isnan(of_groups).all():
        by_magnification = pixel_size_3_0(columns)
        return nothing if by_magnification is None else by_magnification
    return of_groups


def _movies(columns: ColumnReader, optics: Optics | None, index: NDArray[np.int32] | None) -> Movies | None:
    name = _field(columns, "movies.name")
    if name is None:
        return None
    own = columns.floats("rlnMicrographOriginalPixelSize")
    if own is None and optics is not None and index is not None and optics.movie_pixel_size_A is not None:
        own = optics.movie_pixel_size_A[index]
    gain = _field(columns, "movies.gain.name")
    return Movies(
        name,
        n_frames=columns.integers("rlnImageSizeZ"),
        pixel_size_A=None if own is None else _positive(own),
        gain=None if gain is None else GainReference(gain),
        defects=_field(columns, "movies.defects"),
    )


def _extra(block: StarBlock, block_of_optics: StarBlock | None) -> ExtraColumns:
    modelled = {name for item in MICROGRAPH_FIELDS for name in item.names("relion")}
    modelled |= {
        name
        for part in ("ctf", "optics", "optics.aberrations")
        for item in fields_of(part)
        for name in item.names("relion")
    }
    others = tuple(name for name in block.names if name not in modelled | {*PIXEL_SIZE_3_0})
    of_optics: dict[str, Any] = {}
    if block_of_optics is not None:
        read = AsWritten(block_of_optics).read(name for name in block_of_optics.names if name not in modelled)
        of_optics = {name: values.to_numpy() if isinstance(values, Labels) else values for name, values in read.items()}
    of_file = frozenset((*block.names, *(() if block_of_optics is None else block_of_optics.names)))
    return ExtraColumns("relion", others, AsWritten(block), optics=of_optics, of_file=of_file)
