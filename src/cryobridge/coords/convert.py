"""cryoSPARC picks and RELION micrographs -> RELION pick files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cryobridge.coords.matching import match_micrographs
from cryobridge.coords.picks import COORDINATE_FIELDS, read_picks
from cryobridge.coords.relion_picks import (
    AUTOPICK_STAR,
    RAW_DATA,
    pick_file_name,
    rows_by_micrograph,
    write_autopick_star,
    write_pick_file,
)
from cryobridge.errors import CryobridgeError, MissingDataError
from cryobridge.formats.star import open_star, to_labels
from cryobridge.geometry import fractions_to_px
from cryobridge.jobdir import refuse_existing
from cryobridge.progress import Reporter, Silent

# What reliosparc writes for picks without a score of their own.
_DEFAULT_FIGURE_OF_MERIT = 0.08
CONVENTION = "x = nx · fx, y = ny − ny · fy: rows count from the other edge, as after motion correction from TIFF"
PIPELINE = "default_pipeline.star"


def convert_picks(
    picks_cs: str | os.PathLike[str],
    micrographs_star: str | os.PathLike[str],
    folder: Path,
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Write RELION pick files for cryoSPARC picks.

    Coordinates are rounded to whole pixels of the micrograph. Paths in autopick.star are relative to the RELION
    project above ``folder``, where there is one.

    Parameters
    ----------
    picks_cs
        A cryoSPARC file with ``location/*``.
    micrographs_star
        RELION's micrographs_ctf.star.
    folder
        The output folder.
    overwrite
        Replace what is there.

    Returns
    -------
    dict
        The report: particles in and out, micrographs, convention, outputs.

    Raises
    ------
    MissingDataError
        If a file lacks columns, or a micrograph is not in the STAR file.
    CryobridgeError
        If two micrographs would share a pick file.
    OutputExistsError
        If there are picks in the folder already.
    """
    reporter = reporter or Silent()
    picks = read_picks(picks_cs)
    raw_data, autopick = folder / RAW_DATA, folder / AUTOPICK_STAR
    refuse_existing([autopick, *(raw_data.glob("*.star") if raw_data.is_dir() else ())], overwrite=overwrite)
    matches = match_micrographs(picks.micrograph.values, _micrograph_names(Path(micrographs_star)))
    files = {name: raw_data / pick_file_name(match) for name, match in matches.items()}
    _refuse_shared_files(files)

    coordinate_px = np.round(fractions_to_px(picks.fraction_xy, picks.shape_px, flip_y=True))
    merit = np.full(len(picks), _DEFAULT_FIGURE_OF_MERIT) if picks.score is None else picks.score
    raw_data.mkdir(parents=True, exist_ok=True)
    reporter.start("micrographs", len(files))
    groups = rows_by_micrograph(picks.micrograph.codes, len(picks.micrograph.values))
    for name, rows in zip(picks.micrograph.values, groups, strict=True):
        write_pick_file(files[name], coordinate_px[rows], merit[rows])
        reporter.advance()
    project = next((above for above in folder.absolute().parents if (above / PIPELINE).is_file()), None)
    write_autopick_star(
        autopick,
        {matches[name]: str(path.absolute().relative_to(project) if project else path) for name, path in files.items()},
    )
    return {
        "particles_in": len(picks),
        "particles_out": len(picks),
        "micrographs": len(files),
        "convention": CONVENTION,
        "coordinate_fields": list(COORDINATE_FIELDS),
        "relion_project": str(project) if project else None,
        "outputs": [str(autopick), str(raw_data)],
    }


def _micrograph_names(path: Path) -> tuple[str, ...]:
    star = open_star(path)
    block = star[star.main]
    if "rlnMicrographName" not in block:
        raise MissingDataError(
            f"data_{star.main} has no rlnMicrographName",
            path=path,
            hint="Give the micrographs_ctf.star of a CtfFind job.",
        )
    return to_labels(block.texts("rlnMicrographName")).values


def _refuse_shared_files(files: dict[str, Path]) -> None:
    by_file: dict[Path, str] = {}
    for name, path in files.items():
        if path in by_file:
            raise CryobridgeError(
                f"micrographs {by_file[path]} and {name} would share {path.name}",
                hint="RELION tells pick files apart by the micrograph's name; rename one of them.",
            )
        by_file[path] = name
