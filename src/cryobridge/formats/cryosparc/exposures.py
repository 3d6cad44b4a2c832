"""cryoSPARC's exposures -> the micrograph set: movies, averages, CTF and motion of any job that has them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats import registry
from cryobridge.formats.cryosparc.joining import open_cs_files, open_group, open_members
from cryobridge.formats.cryosparc.members import members_of_job
from cryobridge.formats.cryosparc.particles import InMemory, ctf_of_columns, optics_of_columns, uid_of
from cryobridge.formats.folders import CRYOSPARC_JOB, identify_folder
from cryobridge.formats.projects import folder_refusal
from cryobridge.formats.table import ColumnReader, rows_of_file
from cryobridge.model.fields import MICROGRAPH_FIELDS, MICROSCOPE, fields_of, micrograph_field
from cryobridge.model.micrographs import CtfFit, GainReference, MicrographSet, Motion, Movies, Trajectories
from cryobridge.model.particles import ExtraColumns, Labels
from cryobridge.report import counted, distinct, warning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Array, Table
    from cryobridge.model.particles import Floats, Optics

_HINT = "Give cryoSPARC's exposures, such as J2/J2_exposures.cs of its motion correction, or particles with location/*."
# Where particles say on which micrographs they are, for want of exposures.
_LOCATION = ("location/micrograph_path", "location/micrograph_shape", "location/micrograph_uid")
_LOCATION_SIZE = "location/micrograph_psize_A"
# Values of single precision that differ by less are the same.
_SAME_VALUE = 1e-4


def is_exposures(names: Sequence[str]) -> bool:
    """Whether columns are those of exposures: of micrographs or movies, and not of particles."""
    has_any = any(name in names for name in ("micrograph_blob/path", "movie_blob/path"))
    return has_any and "blob/path" not in names and "location/center_x_frac" not in names


def open_exposures(path: Path, more: Sequence[Path] = ()) -> ParticleFiles:
    """Open exposures, joined on uid with the files that belong to them, as particles are.

    Parameters
    ----------
    path
        A `.cs` or `.csg` file, or the folder of a cryoSPARC job.
    more
        `.cs` files to be joined with it.

    Raises
    ------
    UsageError
        If it is of another kind.
    MissingDataError
        If files that were named have no uid in common, or a folder has no exposures.
    FormatError
        If a file can't be read.
    """
    if path.is_dir():
        if identify_folder(path) != CRYOSPARC_JOB:
            raise folder_refusal(path, "exposures")
        return open_members(members_of_job(path, "exposure"), more)
    kind = registry.identify_file(path)
    if kind == registry.CSG:
        return open_group(path, more)
    if kind != registry.CS:
        words = registry.BY_NAME[kind].words if kind in registry.BY_NAME else kind
        raise UsageError(f"not exposures of cryoSPARC, but {words}", path=path, hint=_HINT)
    return open_cs_files(path, more)


def read_exposures(path: Path, more: Sequence[Path] = ()) -> MicrographSet:
    """Read cryoSPARC's exposures, or the micrographs that particles lie on.

    Parameters
    ----------
    path, more
        As `open_exposures` takes them.

    Raises
    ------
    MissingDataError
        If no micrographs and no movies are in it, or they have no names or no sizes.
    CryobridgeError
        As `open_exposures`.
    """
    files = open_exposures(path, more)
    found = exposures_from_cs(files.columns)
    return replace(found, messages=distinct([*files.messages, *found.messages]))


def exposures_from_cs(table: Table) -> MicrographSet:
    """Turn cryoSPARC columns into a micrograph set; what the table lacks is None.

    Raises
    ------
    MissingDataError
        If no micrographs and no movies are in it, or they have no names or no sizes.
    FormatError
        If a column has another shape than cryoSPARC gives it.
    """
    if not is_exposures(table.names) and all(name in table for name in _LOCATION):
        return _of_particles(table)
    if not any(name in table for name in ("micrograph_blob/path", "movie_blob/path")):
        raise MissingDataError("no micrographs of cryoSPARC are in it", path=table.path, hint=_HINT)
    with rows_of_file(table):
        return _exposures(table)


def _exposures(table: Table) -> MicrographSet:
    of_model = [item for part in ("optics", "ctf", "optics.aberrations") for item in fields_of(part)]
    names = [name for item in (*MICROGRAPH_FIELDS, *of_model) for name in item.names("cryosparc") if name in table]
    names += [name for name in ("uid", *MICROSCOPE.values()) if name in table]
    columns = ColumnReader(InMemory(table, list(dict.fromkeys(names))))
    optics, index = optics_of_columns(columns, table.path, MICROSCOPE)
    sizes, movies = (
        None if values is None or not (values > 0).any() else _positive(values)
        for values in (optics.micrograph_pixel_size_A, optics.movie_pixel_size_A)
    )
    optics = replace(
        optics,
        pixel_size_A=optics.pixel_size_A if sizes is None else sizes,
        micrograph_pixel_size_A=sizes,
        movie_pixel_size_A=movies,
    )
    name = _field(columns, "name")
    if name is None and _field(columns, "movies.name") is None and columns.n_rows:
        raise MissingDataError("micrographs have no names", path=table.path, field="micrograph_blob/path", hint=_HINT)
    found = MicrographSet(
        n_rows=table.n_rows,
        source=table.path,
        program="cryosparc",
        name=name,
        uid=uid_of(columns),
        shape_px=None if name is None else _shape(columns),
        pixel_size_A=np.full(table.n_rows, np.nan) if sizes is None else sizes[index],
        name_no_dw=_field(columns, "name_no_dw"),
        optics=optics,
        optics_index=index,
        ctf=ctf_of_columns(columns),
        fit=_fit(columns),
        movies=_movies(columns),
        motion=_motion(columns),
    )
    _say_contradictions(columns, optics, index)
    others = tuple(column for column in table.names if column not in names)
    extra = ExtraColumns("cryosparc", others, table, of_file=frozenset(table.names))
    return replace(found, extra=extra, messages=tuple(columns.messages))


def _say_contradictions(columns: ColumnReader, optics: Optics, index: NDArray[np.int32]) -> None:
    """Warn where the microscope differs between ctf/*, which is taken, and mscope_params/*."""
    differing = []
    for key in ("voltage_kV", "spherical_aberration_mm"):
        own, taken = columns.floats(MICROSCOPE[key]), getattr(optics, key)
        if own is None or taken is None:
            continue
        taken = taken[index]
        wrong = np.flatnonzero((own > 0) & (np.abs(own - taken) > _SAME_VALUE * np.abs(own)))
        if len(wrong):
            values = f"{own[wrong[0]]:g} and {taken[wrong[0]]:g}"
            differing.append(f"{MICROSCOPE[key]} {values} in {len(wrong):,} of {counted(len(own), 'row')}")
    if differing:
        text = f"the microscope differs from that of ctf/*, which is taken: {'; '.join(differing)}"
        columns.messages.append(warning("optics-contradiction", text))


def _of_particles(table: Table) -> MicrographSet:
    """Return the distinct micrographs that particles lie on."""
    with rows_of_file(table):
        sized = _LOCATION_SIZE in table
        columns = ColumnReader(InMemory(table, [*_LOCATION, *([_LOCATION_SIZE] if sized else [])]))
        name = columns.labels(_LOCATION[0])
        if name is None:
            raise MissingDataError("micrographs have no names", path=table.path, field=_LOCATION[0], hint=_HINT)
        shape = _checked_shape(columns.get(_LOCATION[1], shapes=((2,),)), table.path, _LOCATION[1])
        uid, size = columns.get(_LOCATION[2], shapes=((),)), columns.floats(_LOCATION_SIZE)
    assert uid is not None  # it is there
    first = np.unique(name.codes, return_index=True)[1]
    return MicrographSet(
        n_rows=len(first),
        source=table.path,
        program="cryosparc",
        name=name.take(first).without_unused(),
        uid=uid[first].astype(np.uint64),
        shape_px=shape[first],
        pixel_size_A=np.full(len(first), np.nan) if size is None else _positive(size[first]),
        messages=tuple(columns.messages),
    )


def _field(columns: ColumnReader, name: str) -> Any:
    """Return a column; None also where it names no file, as ``micrograph_blob/path`` of imported movies may."""
    values = columns.field(micrograph_field(name), "cryosparc")
    is_unnamed = isinstance(values, Labels) and len(values) > 0 and not any(values.values)
    return None if is_unnamed else values


def _whole(kind: type[Any], columns: ColumnReader, part: str, **coded: Any) -> Any:
    """Return a part of the model by its columns; None where there are none."""
    rows = [item for item in MICROGRAPH_FIELDS if item.part == part and not item.is_coded]
    values = {item.key: columns.field(item, "cryosparc") for item in rows} | coded
    return kind(**values) if any(value is not None for value in values.values()) else None


def _fit(columns: ColumnReader) -> CtfFit | None:
    """Return how well CTFs fit, by ``ctf/*`` and, where it has 0, as an imported CTF has, by ``ctf_stats/*``."""
    found: CtfFit | None = _whole(CtfFit, columns, "fit")
    if found is None:
        return None
    known: dict[str, Floats | None] = {}
    for key in ("resolution_A", "score"):
        values = None
        for name in micrograph_field(f"fit.{key}").names("cryosparc"):
            next_values = columns.floats(name)
            if next_values is not None:
                values = next_values if values is None else np.where(values > 0, values, next_values)
        known[key] = None if values is None or not (values > 0).any() else _positive(values)
    return replace(found, **known)


def _positive(values: Floats) -> Floats:
    known: Floats = np.where(values > 0, values, np.nan)
    return known


def _shape(columns: ColumnReader) -> NDArray[np.int64]:
    name = "micrograph_blob/shape"
    return _checked_shape(columns.get(name, shapes=((2,),)), columns.path, name)


def _checked_shape(values: Array | None, path: Path, name: str) -> NDArray[np.int64]:
    if values is None or (values < 1).any():
        raise MissingDataError("micrographs have no size", path=path, field=name, hint=_HINT)
    return values.astype(np.int64)


def _movies(columns: ColumnReader) -> Movies | None:
    name = _field(columns, "movies.name")
    if name is None:
        return None
    shape = columns.get("movie_blob/shape", shapes=((3,),))
    dose = _field(columns, "movies.dose_e_A2")
    pixel_size_A = _field(columns, "movies.pixel_size_A")
    return Movies(
        name,
        shape_px=None if shape is None else shape[:, 1:].astype(np.int64),
        n_frames=None if shape is None else shape[:, 0].astype(np.int64),
        pixel_size_A=None if pixel_size_A is None else _positive(pixel_size_A),
        is_gain_corrected=_flag(columns, "movies.is_gain_corrected"),
        gain=_gain(columns),
        defects=_field(columns, "movies.defects"),
        dose_e_A2=None if dose is None else _positive(dose),
    )


def _gain(columns: ColumnReader) -> GainReference | None:
    name = _field(columns, "movies.gain.name")
    if name is None:
        return None
    flips = {key: _flag(columns, f"movies.gain.{key}") for key in ("flip_x", "flip_y")}
    return GainReference(name, **flips, quarter_turns=_field(columns, "movies.gain.quarter_turns"))


def _flag(columns: ColumnReader, name: str) -> NDArray[np.bool_] | None:
    column = micrograph_field(name).columns("cryosparc")[0]
    values = columns.get(column, shapes=((),))
    if values is None:
        return None
    if not np.isin(values, (0, 1)).all():
        raise FormatError("neither 0 nor 1", path=columns.path, field=column, hint="Take the file of cryoSPARC itself.")
    return values.astype(bool)


def _motion(columns: ColumnReader) -> Motion | None:
    rigid, spline = _trajectories(columns, "rigid"), _trajectories(columns, "spline")
    return None if rigid is None and spline is None else Motion(rigid, spline)


def _trajectories(columns: ColumnReader, kind: str) -> Trajectories | None:
    if _field(columns, f"motion.{kind}.path") is None:
        return None
    found: Trajectories = _whole(Trajectories, columns, f"motion.{kind}")
    return found
