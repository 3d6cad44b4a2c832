"""The simulated data as a RELION project: motion correction (job002) and CTF estimation (job003).

RELION reads TIFF movies from the other end than cryoSPARC, so its micrographs have their rows reversed, and the
direction of the astigmatism has the other sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.demo.truth import PIXEL_SIZE_A
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.formats.optics import needed
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.output_folder import make_folder
from cryobridge.model.geometry import mirror_defocus_angle_y

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.demo.images import Recording
    from cryobridge.demo.truth import Truth

CTF_STAR = "CtfFind/job003/micrographs_ctf.star"
_MOTION_STAR = "MotionCorr/job002/corrected_micrographs.star"
_PROCESSES = {"MotionCorr/job002/": "relion.motioncorr.own", "CtfFind/job003/": "relion.ctffind.ctffind4"}
_NODES = {
    _MOTION_STAR: "MicrographGroupMetadata.star.relion.motioncorr",
    CTF_STAR: "MicrographGroupMetadata.star.relion.ctf",
}


def micrograph_name(truth: Truth, micrograph: int) -> str:
    """Return a micrograph's path in the project, as rlnMicrographName has it."""
    return f"MotionCorr/job002/Movies/{truth.micrographs.name[micrograph]}_fractions.mrc"


def write_recording(project: Path, truth: Truth, micrograph: int, recording: Recording) -> None:
    """Write a micrograph, rows reversed."""
    path = project / micrograph_name(truth, micrograph)
    make_folder(path.parent)
    write_mrc_stack(path, recording.micrograph[np.newaxis, ::-1], PIXEL_SIZE_A)


def write_metadata(project: Path, truth: Truth) -> None:
    """Write the STAR files: the pipeline, and the micrographs with and without CTF."""
    for name in (_MOTION_STAR, CTF_STAR):
        make_folder((project / name).parent)
    sizes = {"rlnMicrographOriginalPixelSize": PIXEL_SIZE_A, "rlnMicrographPixelSize": PIXEL_SIZE_A}
    optics, micrographs = optics_block(truth, sizes), _micrographs(truth)
    write_star(project / _MOTION_STAR, [optics, star_block("micrographs", micrographs)])
    write_star(project / CTF_STAR, [optics, star_block("micrographs", {**micrographs, **_ctf(truth)})])
    write_star(project / "default_pipeline.star", _pipeline())


def star_block(name: str, columns: dict[str, Any], *, is_loop: bool = True) -> StarBlock:
    """Return a block as RELION 3.1 and later write it."""
    return StarBlock.from_columns(name, columns, is_loop=is_loop, comments=("version 30001",))


def optics_block(truth: Truth, sizes: dict[str, float]) -> StarBlock:
    """Return the block of the one optics group, with the sizes that its job knows."""
    microscope = {item.columns("relion")[0]: getattr(truth.microscope, item.key) for item in needed("ctf")}
    columns = {"rlnOpticsGroupName": "opticsGroup1", "rlnOpticsGroup": 1, **microscope, **sizes}
    return star_block("optics", {name: [value] for name, value in columns.items()})


def _micrographs(truth: Truth) -> dict[str, Any]:
    n = len(truth.micrographs)
    return {
        "rlnMicrographName": [micrograph_name(truth, row) for row in range(n)],
        "rlnOpticsGroup": [1] * n,
    }


def _ctf(truth: Truth) -> dict[str, Any]:
    """Return what CTFFIND would find: rounded values, with a figure of merit and a resolution that are invented."""
    ctf, names = truth.micrographs.ctf, truth.micrographs.name
    u, v = ctf.defocus_u_A.round(2), ctf.defocus_v_A.round(2)
    angle_deg = np.degrees(mirror_defocus_angle_y(ctf.defocus_angle_rad)).round(3)
    return {
        "rlnCtfImage": [f"CtfFind/job003/Movies/{name}_fractions_PS.ctf:mrc" for name in names],
        "rlnDefocusU": u,
        "rlnDefocusV": v,
        "rlnCtfAstigmatism": np.abs(u - v).round(2),
        "rlnDefocusAngle": angle_deg,
        "rlnCtfFigureOfMerit": np.linspace(0.12, 0.18, len(names)).round(6),
        "rlnCtfMaxResolution": np.linspace(4.2, 3.6, len(names)).round(3),
    }


def _pipeline() -> list[StarBlock]:
    motion, ctf = _PROCESSES
    return [
        star_block("pipeline_general", {"rlnPipeLineJobCounter": [4]}, is_loop=False),
        star_block(
            "pipeline_processes",
            {
                "rlnPipeLineProcessName": list(_PROCESSES),
                "rlnPipeLineProcessAlias": ["None"] * len(_PROCESSES),
                "rlnPipeLineProcessTypeLabel": list(_PROCESSES.values()),
                "rlnPipeLineProcessStatusLabel": ["Succeeded"] * len(_PROCESSES),
            },
        ),
        star_block(
            "pipeline_nodes",
            {
                "rlnPipeLineNodeName": list(_NODES),
                "rlnPipeLineNodeTypeLabel": list(_NODES.values()),
            },
        ),
        star_block(
            "pipeline_input_edges",
            {
                "rlnPipeLineEdgeFromNode": [_MOTION_STAR],
                "rlnPipeLineEdgeProcess": [ctf],
            },
        ),
        star_block(
            "pipeline_output_edges",
            {
                "rlnPipeLineEdgeProcess": [motion, ctf],
                "rlnPipeLineEdgeToNode": [_MOTION_STAR, CTF_STAR],
            },
        ),
    ]
