"""The simulated data as a RELION project: its list of jobs, motion correction (job002) and CTF estimation (job003).

RELION reads TIFF movies from the other end than cryoSPARC, so its micrographs have their rows reversed, and the
direction of the astigmatism has the other sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

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
EXTRACT_JOB, CLASSES_JOB = "Extract/job005", "Class2D/job004"
N_ITERATIONS = 20
PARTICLES_STAR = f"{EXTRACT_JOB}/particles.star"


class _Job(NamedTuple):
    """A job in the list of RELION 4: what it takes, and what it makes with what that is."""

    name: str
    label: str
    input: str | None
    outputs: dict[str, str]


_CLASSES = f"{CLASSES_JOB}/run_it{N_ITERATIONS:03d}"
_JOBS = (
    _Job(
        "MotionCorr/job002/",
        "relion.motioncorr.own",
        None,
        {_MOTION_STAR: "MicrographGroupMetadata.star.relion.motioncorr"},
    ),
    _Job(
        "CtfFind/job003/",
        "relion.ctffind.ctffind4",
        _MOTION_STAR,
        {CTF_STAR: "MicrographGroupMetadata.star.relion.ctf"},
    ),
    _Job(f"{EXTRACT_JOB}/", "relion.extract", CTF_STAR, {PARTICLES_STAR: "ParticleGroupMetadata.star.relion"}),
    _Job(
        f"{CLASSES_JOB}/",
        "relion.class2d.em",
        PARTICLES_STAR,
        {
            f"{_CLASSES}_data.star": "ParticleGroupMetadata.star.relion.class2d",
            f"{_CLASSES}_optimiser.star": "ProcessData.star.relion.optimiser.class2d",
        },
    ),
)
_NEXT_JOB = 6


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
    write_star(project / CTF_STAR, [optics, star_block("micrographs", {**micrographs, **ctf_columns(truth)})])
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


def ctf_columns(truth: Truth) -> dict[str, Any]:
    """Return what CTFFIND would find of each micrograph, rounded; figure of merit and resolution are invented."""
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
    nodes = {name: label for job in _JOBS for name, label in job.outputs.items()}
    inputs = [(job.input, job.name) for job in _JOBS if job.input]
    outputs = [(job.name, name) for job in _JOBS for name in job.outputs]
    return [
        star_block("pipeline_general", {"rlnPipeLineJobCounter": [_NEXT_JOB]}, is_loop=False),
        star_block(
            "pipeline_processes",
            {
                "rlnPipeLineProcessName": [job.name for job in _JOBS],
                "rlnPipeLineProcessAlias": ["None"] * len(_JOBS),
                "rlnPipeLineProcessTypeLabel": [job.label for job in _JOBS],
                "rlnPipeLineProcessStatusLabel": ["Succeeded"] * len(_JOBS),
            },
        ),
        star_block(
            "pipeline_nodes",
            {"rlnPipeLineNodeName": list(nodes), "rlnPipeLineNodeTypeLabel": list(nodes.values())},
        ),
        star_block(
            "pipeline_input_edges",
            {
                "rlnPipeLineEdgeFromNode": [node for node, _ in inputs],
                "rlnPipeLineEdgeProcess": [job for _, job in inputs],
            },
        ),
        star_block(
            "pipeline_output_edges",
            {
                "rlnPipeLineEdgeProcess": [job for job, _ in outputs],
                "rlnPipeLineEdgeToNode": [node for _, node in outputs],
            },
        ),
    ]
