"""The demo project: a folder with the same simulated data as cryoSPARC and as RELION would have it."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cryobridge.demo import classification, cryosparc_files, extraction, relion_files
from cryobridge.demo.cryosparc_files import FitStatistics
from cryobridge.demo.folder import check_folder, prepare_folder
from cryobridge.demo.images import record, signal_scale
from cryobridge.demo.options import DemoOptions
from cryobridge.demo.report import DemoReport
from cryobridge.demo.truth import BOX_PX, MICROGRAPH_SHAPE_PX, N_FRAMES, PIXEL_SIZE_A, Truth, draw_truth
from cryobridge.jobs.job import carried_out
from cryobridge.jobs.output_folder import locked, make_folder, messages_of, refuse_busy
from cryobridge.options import as_path, made, takes
from cryobridge.progress import Reporter
from cryobridge.report import Message, note
from cryobridge.version import __version__

_BYTES_A_PIXEL = 4
_BYTES_OF_METADATA = 1 << 20
_N_FILES_NAMED = 3


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
    exposures_cs
        Its micrographs, with their CTF and motion, as J2 has them.
    movies
        Their movies, which J1 imported.
    cryosparc_micrographs, stacks
        Image files, one a micrograph.
    relion
        The RELION project.
    relion_micrographs
        The same micrographs with their rows reversed.
    micrographs_star
        RELION's micrographs with their CTF.
    extracted_star
        The particles that RELION's Extract cut from its micrographs.
    classification
        A Class2D job of RELION of these, finished.
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
    exposures_cs: Path
    movies: tuple[Path, ...]
    cryosparc_micrographs: tuple[Path, ...]
    stacks: tuple[Path, ...]
    relion: Path
    relion_micrographs: tuple[Path, ...]
    micrographs_star: Path
    extracted_star: Path
    classification: Path
    pixel_size_A: float
    box_px: int
    truth: Truth = field(repr=False)
    kept: tuple[Path, ...] = ()


@takes(DemoOptions)
def simulate_project(
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> DemoProject:
    """Simulate a small cryo-EM project, and write it as cryoSPARC and as RELION would have.

    The same seed and numbers give the same data.

    Parameters
    ----------
    folder
        Where it shall be: new or empty.
    overwrite
        Replace a demo project that is in the folder. Files in it that the demo did not make, and any other folder,
        are left alone.
    reporter
        What shows the progress, a step a micrograph.
    **options
        The fields of `DemoOptions`: ``seed``, ``n_micrographs``, ``particles_per_micrograph``, and ``snr``, the mean
        variance of a particle's signal within its box, divided by the variance of the noise.

    Returns
    -------
    DemoProject
        The files and the truth.

    Raises
    ------
    UsageError
        If an argument is of another type or out of bounds, or so many particles do not fit on a micrograph.
    OutputExistsError
        If the folder is not empty.
    CryobridgeError
        If the disk has too little space, or the operating system refuses to write.

    Examples
    --------
    >>> import cryobridge as cb
    >>> project = cb.simulate_project("trial", n_micrographs=1, particles_per_micrograph=10, seed=7)
    >>> project.truth.particles.matrix  # (n, 3, 3) what a refinement should find
    """
    plan = plan_demo(folder, made(DemoOptions, options))
    return carried_out(plan, overwrite=overwrite, dry_run=False, reporter=reporter).project


def plan_demo(folder: str | os.PathLike[str], options: DemoOptions | None = None) -> DemoPlan:
    """Return what is to be simulated, before anything is written.

    Raises
    ------
    UsageError
        If the folder is no path, or so many particles do not fit on a micrograph.
    """
    return DemoPlan(as_path(folder, "folder"), options or DemoOptions())


class DemoPlan:
    """A demo project that is to be written; `cryobridge.jobs.job.Plan`."""

    def __init__(self, folder: Path, options: DemoOptions) -> None:
        self._options = options
        truth = draw_truth(options.n_micrographs, options.particles_per_micrograph, options.seed)
        self.project = _describe(folder, truth)

    def check(self, *, overwrite: bool) -> None:
        """Refuse a folder that is at work, or that holds anything but a demo project that may be replaced.

        Raises
        ------
        OutputExistsError
            If the folder is not empty.
        CryobridgeError
            If the disk has too little space.
        """
        refuse_busy(self.project.folder)
        self._check_folder(overwrite=overwrite)

    def run(self, *, overwrite: bool, reporter: Reporter) -> DemoReport:
        """Simulate and write everything, and return the report."""
        self.check(overwrite=overwrite)
        project, options = self.project, self._options
        description = {"cryobridge_version": __version__, **asdict(options)}
        make_folder(project.folder)
        with locked(project.folder) as lease:
            self._check_folder(overwrite=overwrite)  # another run may have ended since
            self.project = project = replace(project, kept=prepare_folder(project.folder, description))
            _write(project, options.snr, options.seed, reporter)
        report = self.report()
        return replace(report, messages=(*report.messages, *messages_of(lease)))

    def report(self) -> DemoReport:
        """Return what is simulated."""
        project = self.project
        n_particles = len(project.truth.particles)
        outputs = (project.particles_cs, project.passthrough_cs, project.group_csg, project.micrographs_star)
        return DemoReport(
            rows_in=n_particles,
            rows_out=n_particles,
            messages=_kept(project),
            outputs=outputs,
            output=project.folder,
            seed=self._options.seed,
            project=project,
        )

    def _check_folder(self, *, overwrite: bool) -> None:
        check_folder(self.project.folder, _size_in_bytes(self.project.truth), overwrite=overwrite)


def _kept(project: DemoProject) -> tuple[Message, ...]:
    if not project.kept:
        return ()
    names = [str(path.relative_to(project.folder)) for path in project.kept]
    more = " …" if len(names) > _N_FILES_NAMED else ""
    files = "1 file" if len(names) == 1 else f"{len(names):,} files"
    text = f"kept {files} that the demo did not make: {', '.join(names[:_N_FILES_NAMED])}{more}"
    return (note("files-kept", text, where=project.folder),)


def _write(project: DemoProject, snr: float, seed: int, reporter: Reporter) -> None:
    truth = project.truth
    scale = signal_scale(truth, snr)
    statistics = []
    reporter.start("simulating micrographs", len(project.stacks))
    for micrograph in range(len(project.stacks)):
        recording = record(truth, micrograph, scale, seed)
        cryosparc_files.write_recording(project.cryosparc, truth, micrograph, recording)
        relion_files.write_recording(project.relion, truth, micrograph, recording)
        statistics.append(FitStatistics.of(recording))
        reporter.advance()
    of_all = FitStatistics.concatenate(statistics)
    cryosparc_files.write_movies(project.cryosparc, truth, seed)
    cryosparc_files.write_exposures(project.cryosparc, truth)
    cryosparc_files.write_extraction(project.cryosparc, truth, of_all)
    cryosparc_files.write_refinement(project.cryosparc, truth, of_all, seed)
    relion_files.write_metadata(project.relion, truth)
    extraction.write_extraction(project.relion, truth)
    classification.write_classification(project.relion, truth, seed)


def _size_in_bytes(truth: Truth) -> int:
    in_micrographs = 2 * len(truth.micrographs) * math.prod(MICROGRAPH_SHAPE_PX)
    in_stacks = 2 * len(truth.particles) * BOX_PX**2
    in_movies = len(truth.micrographs) * N_FRAMES * math.prod(MICROGRAPH_SHAPE_PX)
    return _BYTES_A_PIXEL * (in_micrographs + in_stacks) + in_movies // 2 + _BYTES_OF_METADATA


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
        exposures_cs=cryosparc / "J2" / cryosparc_files.EXPOSURES_NAME,
        movies=tuple(cryosparc / cryosparc_files.movie_name(truth, row) for row in rows),
        cryosparc_micrographs=tuple(cryosparc / cryosparc_files.micrograph_name(truth, row) for row in rows),
        stacks=tuple(cryosparc / cryosparc_files.stack_name(truth, row) for row in rows),
        relion=relion,
        relion_micrographs=tuple(relion / relion_files.micrograph_name(truth, row) for row in rows),
        micrographs_star=relion / relion_files.CTF_STAR,
        extracted_star=relion / relion_files.PARTICLES_STAR,
        classification=relion / relion_files.CLASSES_JOB,
        pixel_size_A=PIXEL_SIZE_A,
        box_px=BOX_PX,
        truth=truth,
    )
