"""The particles that RELION's Extract cuts from its own micrographs, at the picks that `cryobridge coords` writes.

Where RELION is installed, its own program makes the same files (`cryobridge.demo.loop`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.demo.relion_files import (
    EXTRACT_JOB,
    PARTICLES_STAR,
    ctf_columns,
    micrograph_name,
    optics_block,
    star_block,
)
from cryobridge.demo.truth import BOX_PX, PIXEL_SIZE_A
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.formats.relion.star_write import write_star
from cryobridge.fourier.background import BackgroundNorm
from cryobridge.jobs.output_folder import make_folder
from cryobridge.model.background import default_radius_px
from cryobridge.model.geometry import round_px

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.demo.truth import Truth
    from cryobridge.formats.relion.star import StarBlock

BACKGROUND_RADIUS_PX = default_radius_px(BOX_PX)
_OF_MICROGRAPHS = (
    "rlnCtfMaxResolution",
    "rlnCtfFigureOfMerit",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
)


def write_extraction(project: Path, truth: Truth) -> None:
    """Cut the particles from the micrographs in RELION's project, and write the job: stacks and ``particles.star``.

    As RELION does it by default, particles are bright, and their background has mean 0 and standard deviation 1.
    """
    norm = BackgroundNorm((BOX_PX, BOX_PX), BACKGROUND_RADIUS_PX)
    coordinate_px = _coordinate_px(truth)
    for micrograph, name in enumerate(truth.micrographs.name):
        recorded = open_mrc(project / micrograph_name(truth, micrograph)).read([0])[0]
        cut = _cut(recorded, coordinate_px[truth.particles.micrograph == micrograph])
        path = project / _stack_name(name)
        make_folder(path.parent)
        write_mrc_stack(path, -norm(cut), PIXEL_SIZE_A)
    write_star(project / PARTICLES_STAR, [extracted_optics(truth), star_block("particles", extracted_columns(truth))])
    (project / EXTRACT_JOB / "RELION_JOB_EXIT_SUCCESS").touch()


def extracted_optics(truth: Truth) -> StarBlock:
    """Return the optics block of the particles."""
    sizes = {"rlnMicrographOriginalPixelSize": PIXEL_SIZE_A, "rlnImagePixelSize": PIXEL_SIZE_A}
    sizes |= {"rlnImageSize": BOX_PX, "rlnImageDimensionality": 2}
    return optics_block(truth, sizes)


def extracted_columns(truth: Truth) -> dict[str, Any]:
    """Return the columns that Extract gives the particles, in the order of the micrographs."""
    micrograph, n = truth.particles.micrograph, len(truth.particles)
    coordinate_px = _coordinate_px(truth)
    ctf = ctf_columns(truth)
    return {
        "rlnCoordinateX": coordinate_px[:, 0],
        "rlnCoordinateY": coordinate_px[:, 1],
        "rlnImageName": _image_names(truth),
        "rlnMicrographName": [micrograph_name(truth, row) for row in micrograph.tolist()],
        "rlnOpticsGroup": np.ones(n, np.int64),
        **{name: ctf[name][micrograph] for name in _OF_MICROGRAPHS},
        "rlnCtfBfactor": np.zeros(n),
        "rlnCtfScalefactor": np.ones(n),
        "rlnPhaseShift": np.zeros(n),
    }


def _stack_name(micrograph: str) -> str:
    return f"{EXTRACT_JOB}/Movies/{micrograph}_fractions.mrcs"


def _image_names(truth: Truth) -> list[str]:
    """Return the names that Extract gives: numbered from 1 within each micrograph."""
    names = truth.micrographs.name
    rows = zip(truth.particles.stack_index.tolist(), truth.particles.micrograph.tolist(), strict=True)
    return [f"{index + 1:06d}@{_stack_name(names[micrograph])}" for index, micrograph in rows]


def _coordinate_px(truth: Truth) -> NDArray[np.int64]:
    """Return the coordinates (n, 2) as `cryobridge coords` writes them: whole pixels."""
    return np.asarray(round_px(truth.particles.relion_coordinate_px), np.int64)


def _cut(micrograph: NDArray[Any], coordinate_px: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cut the boxes (n, box, box) as Extract does: the coordinate is at pixel box / 2."""
    boxes = np.lib.stride_tricks.sliding_window_view(micrograph, (BOX_PX, BOX_PX))
    corner = coordinate_px - BOX_PX // 2
    return boxes[corner[:, 1], corner[:, 0]].astype(np.float32)
