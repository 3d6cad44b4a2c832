"""The micrograph set -> cryoSPARC's exposures, as its "Import Result Group" takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.aberrations import chosen
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.cryosparc.csg import slot_types, write_csg
from cryobridge.formats.cryosparc.particles_write import ctf_columns, identity_of_names, single
from cryobridge.formats.optics import exposure_groups
from cryobridge.model.fields import MICROGRAPH_FIELDS, MICROSCOPE, field, micrograph_field
from cryobridge.model.particles import Labels, ParticleSet

if TYPE_CHECKING:
    from cryobridge.formats.table import Values
    from cryobridge.model.micrographs import MicrographSet, Movies
    from cryobridge.report import Message

_NEEDED = ("voltage_kV", "spherical_aberration_mm")


def exposure_columns(
    micrographs: MicrographSet, shape_px: Any, paths: Labels, formats: Labels, movie_formats: Labels | None = None
) -> tuple[dict[str, Values], tuple[str, ...], list[Message]]:
    """Return cryoSPARC's columns of micrographs.

    Parameters
    ----------
    micrographs
        Of RELION. A row's uid is made of its name, as `cs_content` makes that of a particle's micrograph.
    shape_px
        (n, 2) ny, nx.
    paths
        The files, as cryoSPARC finds them.
    formats, movie_formats
        Their formats, and those of the movies, such as ``MRC/2``: the mode of the pixels. Without the latter no movies
        are written.

    Returns
    -------
    tuple
        The columns, what there is no place for, and what was done to aberrations.

    Raises
    ------
    MissingDataError
        If names, voltage, spherical aberration or pixel size are not known.
    """
    if micrographs.optics is None or micrographs.optics_index is None:
        raise MissingDataError(
            "nothing is known of the optics",
            path=micrographs.source,
            hint="Give the micrographs_ctf.star of a CtfFind job, or "
            f"{', '.join(option(name, 'X') for name in (*_NEEDED, 'amplitude_contrast'))}.",
        )
    assert micrographs.name is not None  # lists of movies are refused when they are read
    n = len(micrographs)
    unknown = [name for name in _NEEDED if not (micrographs.per_micrograph(name) >= 0).all()]
    if unknown:
        raise MissingDataError(
            f"{' and '.join(field(f'optics.{name}').title for name in unknown)} of the micrographs not known",
            path=micrographs.source,
            hint=f"Give {', '.join(option(name, 'X') for name in unknown)}.",
        )
    rows = ParticleSet(
        n,
        micrographs.source,
        optics=micrographs.optics,
        optics_index=micrographs.optics_index,
        ctf=micrographs.ctf,
    )
    rows, messages = chosen(rows, aberrations=True, odd="as-derived")
    assert rows.optics is not None  # as before
    uid = identity_of_names(micrographs.name) if micrographs.uid is None else micrographs.uid
    columns: dict[str, Values] = {"uid": uid, **_blob(micrographs, shape_px, paths, formats)}
    if micrographs.movies is not None and movie_formats is not None:
        columns |= _movies(micrographs.movies, movie_formats)
    microscope = {
        "group_id": exposure_groups(rows.optics)[micrographs.optics_index].astype(np.uint32),
        **{name: single(micrographs.per_micrograph(name)) for name in _NEEDED},
    }
    columns |= {MICROSCOPE[name]: values for name, values in microscope.items()}
    dose = None if micrographs.movies is None else micrographs.movies.dose_e_A2
    columns[_cs("movies.dose_e_A2")] = np.zeros(n, "f4") if dose is None else single(np.nan_to_num(dose))
    columns |= {f"mscope_params/{name}": np.zeros(n, np.uint32) for name in ("phase_plate", "neg_stain")}
    columns["mscope_params/defect_path"] = Labels.of([""] * n)
    if micrographs.ctf is not None:
        columns |= ctf_columns(rows, rows.optics, rows.ctf)
        for name in ("fit.score", "fit.resolution_A"):
            values = micrographs.get(name)
            if values is not None:
                columns[_cs(name)] = single(values)
    return columns, _dropped(micrographs, set(columns)), messages


def _cs(name: str) -> str:
    return micrograph_field(name).columns("cryosparc")[0]


def _blob(micrographs: MicrographSet, shape_px: Any, paths: Labels, formats: Labels) -> dict[str, Values]:
    n = len(micrographs)
    if not (micrographs.pixel_size_A > 0).all():
        raise MissingDataError(
            "the pixel size of the micrographs is not known",
            path=micrographs.source,
            hint="Give the micrographs_ctf.star of a CtfFind job, which has it.",
        )
    return {
        "micrograph_blob/path": paths,
        "micrograph_blob/idx": np.zeros(n, np.uint32),
        "micrograph_blob/shape": np.asarray(shape_px).astype(np.uint32),
        "micrograph_blob/psize_A": single(micrographs.pixel_size_A),
        "micrograph_blob/format": formats,
        "micrograph_blob/is_background_subtracted": np.zeros(n, np.uint32),
        "micrograph_blob/vmin": np.zeros(n, np.float32),
        "micrograph_blob/vmax": np.zeros(n, np.float32),
        "micrograph_blob/import_sig": np.zeros(n, np.uint64),
    }


def _movies(movies: Movies, formats: Labels) -> dict[str, Values]:
    assert movies.shape_px is not None
    assert movies.n_frames is not None
    assert movies.pixel_size_A is not None
    assert movies.is_gain_corrected is not None
    n = len(movies.n_frames)
    shape = np.column_stack([movies.n_frames, movies.shape_px]).astype(np.uint32)
    columns: dict[str, Values] = {
        "movie_blob/path": movies.name,
        "movie_blob/shape": shape,
        "movie_blob/psize_A": single(movies.pixel_size_A),
        "movie_blob/is_gain_corrected": movies.is_gain_corrected.astype(np.uint32),
        "movie_blob/format": formats,
        "movie_blob/has_defect_file": np.zeros(n, np.uint32),
        "movie_blob/import_sig": np.zeros(n, np.uint64),
    }
    gain = movies.gain
    if gain is None:
        return columns
    turns = {"flip_x": gain.flip_x, "flip_y": gain.flip_y, "rotate_num": gain.quarter_turns}
    columns |= {
        "gain_ref_blob/path": gain.name,
        "gain_ref_blob/idx": np.zeros(n, np.uint32),
        "gain_ref_blob/shape": shape[:, 1:],
    }
    return columns | {
        f"gain_ref_blob/{name}": np.zeros(n, np.uint32) if values is None else values.astype(np.uint32)
        for name, values in turns.items()
    }


def _dropped(micrographs: MicrographSet, written: set[str]) -> tuple[str, ...]:
    """Return RELION's columns that are not among those of cryoSPARC."""
    lost = [
        column
        for item in MICROGRAPH_FIELDS
        if micrographs.get(item.name) is not None and written.isdisjoint(item.names("cryosparc"))
        for column in item.columns("relion")
    ]
    optics = micrographs.optics
    if optics is not None and optics.movie_pixel_size_A is not None and "movie_blob/psize_A" not in written:
        lost += field("optics.movie_pixel_size_A").columns("relion")
    extra = () if micrographs.extra is None else (*micrographs.extra.names, *micrographs.extra.optics)
    derived = {"rlnOpticsGroup", "rlnOpticsGroupName", "rlnCtfAstigmatism"}
    derived |= {"rlnImageSizeZ"} if "movie_blob/shape" in written else set()
    return tuple(name for name in dict.fromkeys((*lost, *extra)) if name not in derived)


def write_exposures(path: Path, columns: dict[str, Values], n_rows: int, title: str) -> None:
    """Write a `.cs` file of exposures, and beside it the `.csg` that Import Result Group takes."""
    write_cs(path, columns)
    slots = {slot: (kind, path.name) for slot, kind in slot_types(columns, "exposure").items()}
    write_csg(path.with_suffix(".csg"), slots, n_rows, name="exposures", title=title, kind="exposure")
