"""The demo project: a folder with the same simulated data as cryoSPARC and as RELION would have it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cryobridge import __version__
from cryobridge.demo import classification, cryosparc_files, relion_files
from cryobridge.demo.cryosparc_files import FitStatistics
from cryobridge.demo.folder import check_folder, prepare_folder
from cryobridge.demo.images import record, signal_scale
from cryobridge.demo.truth import BOX_PX, MICROGRAPH_SHAPE_PX, PIXEL_SIZE_A, Truth, draw_truth
from cryobridge.errors import UsageError
from cryobridge.jobs.output_folder import locked, make_folder, refuse_busy
from cryobridge.progress import Reporter, Silent

_BYTES_A_PIXEL = 4
_BYTES_OF_METADATA = 1 << 20


@dataclass(frozen=True)
class DemoProject:
    """Where the simulated files are, and what is true of them.

    Parameters
    ----------
    folder
        Holds the two projects.
    cryosparc
        The cryoSPARC project; paths in its `.cs` files start here.
    refinement
        Its job J4.
    particles_cs, earlier_cs, passthrough_cs, group_csg
        The refinement's particles: last iteration, the one before, the columns passed through (in another row
        order), and the result group of all.
    cryosparc_micrographs, stacks
        Image files, one a micrograph.
    relion
        The RELION project.
    relion_micrographs
        The same micrographs with their rows reversed.
    micrographs_star
        RELION's micrographs with their CTF.
    classification
        A Class2D job of RELION that is finished.
    pixel_size_A, box_px
        Of micrographs and particle images.
    truth
        What was simulated.
    kept
        Files that were in the folder and that no demo project makes.
    """

    folder: Path
    cryosparc: Path
    refinement: Path
    particles_cs: Path
    earlier_cs: Path
    passthrough_cs: Path
    group_csg: Path
    cryosparc_micrographs: tuple[Path, ...]
    stacks: tuple[Path, ...]
    relion: Path
    relion_micrographs: tuple[Path, ...]
    micrographs_star: Path
    classification: Path
    pixel_size_A: float
    box_px: int
    truth: Truth = field(repr=False)
    kept: tuple[Path, ...] = ()


def simulate_project(
    folder: str | os.PathLike[str],
    *,
    n_micrographs: int = 6,
    particles_per_micrograph: int = 50,
    snr: float = 0.1,
    seed: int = 0,
    overwrite: bool = False,
    report: Reporter | None = None,
) -> DemoProject:
    """Simulate a small cryo-EM project, and write it as cryoSPARC and as RELION would have.

    The same seed and numbers give the same data.

    Parameters
    ----------
    folder
        Where it shall be: new or empty.
    n_micrographs, particles_per_micrograph
        How much; some 8 MB a micrograph.
    snr
        Mean variance of a particle's signal within its box, divided by the variance of the noise.
    seed
        Of everything that is drawn.
    overwrite
        Replace a demo project that is in the folder. Files in it that the demo did not make, and any other folder,
        are left alone.
    report
        Told of each micrograph that is done.

    Returns
    -------
    DemoProject
        The files and the truth.

    Raises
    ------
    UsageError
        If a number is too small, or so many particles do not fit on a micrograph.
    OutputExistsError
        If the folder is not empty.
    CryobridgeError
        If the disk has too little space, or the operating system refuses to write.
    """
    if not (math.isfinite(snr) and snr > 0):
        raise UsageError(f"a signal-to-noise ratio of {snr} can't be simulated", hint="Give a number above 0.")
    truth = draw_truth(n_micrographs, particles_per_micrograph, seed)
    project = _describe(Path(folder), truth)
    check = partial(check_folder, project.folder, _size_in_bytes(truth), overwrite=overwrite)
    refuse_busy(project.folder)
    check()
    description: dict[str, int | float | str] = {
        "cryobridge_version": __version__,
        "n_micrographs": n_micrographs,
        "particles_per_micrograph": particles_per_micrograph,
        "snr": snr,
        "seed": seed,
    }
    make_folder(project.folder)
    with locked(project.folder):
        check()  # another run may have ended since
        project = replace(project, kept=prepare_folder(project.folder, description))
        _write(project, snr, seed, report or Silent())
    return project


def _write(project: DemoProject, snr: float, seed: int, report: Reporter) -> None:
    truth = project.truth
    scale = signal_scale(truth, snr)
    statistics = []
    report.start("simulating micrographs", len(project.stacks))
    for micrograph in range(len(project.stacks)):
        recording = record(truth, micrograph, scale, seed)
        cryosparc_files.write_recording(project.cryosparc, truth, micrograph, recording)
        relion_files.write_recording(project.relion, truth, micrograph, recording)
        statistics.append(FitStatistics.of(recording))
        report.advance()
    cryosparc_files.write_refinement(project.cryosparc, truth, FitStatistics.concatenate(statistics), seed)
    relion_files.write_metadata(project.relion, truth)
    classification.write_classification(project.relion, truth, seed)


def _size_in_bytes(truth: Truth) -> int:
    in_micrographs = 2 * len(truth.micrographs) * math.prod(MICROGRAPH_SHAPE_PX)
    in_stacks = len(truth.particles) * BOX_PX**2
    return _BYTES_A_PIXEL * (in_micrographs + in_stacks) + _BYTES_OF_METADATA


def _describe(folder: Path, truth: Truth) -> DemoProject:
    cryosparc, relion = folder / "cryosparc", folder / "relion"
    refinement = cryosparc / "J4"
    rows = range(len(truth.micrographs))
    return DemoProject(
        folder=folder,
        cryosparc=cryosparc,
        refinement=refinement,
        particles_cs=refinement / cryosparc_files.MAIN_NAME,
        earlier_cs=refinement / cryosparc_files.EARLIER_NAME,
        passthrough_cs=refinement / cryosparc_files.PASSTHROUGH_NAME,
        group_csg=refinement / cryosparc_files.GROUP_NAME,
        cryosparc_micrographs=tuple(cryosparc / cryosparc_files.micrograph_name(truth, row) for row in rows),
        stacks=tuple(cryosparc / cryosparc_files.stack_name(truth, row) for row in rows),
        relion=relion,
        relion_micrographs=tuple(relion / relion_files.micrograph_name(truth, row) for row in rows),
        micrographs_star=relion / relion_files.CTF_STAR,
        classification=relion / classification.JOB,
        pixel_size_A=PIXEL_SIZE_A,
        box_px=BOX_PX,
        truth=truth,
    )
