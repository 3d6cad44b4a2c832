"""Small jobs of RELION, made by RELION: Class2D through its pipeliner, InitialModel, and Refine3D by mpirun.

    relion = Relion(folder)
    particles = noisy_particles(relion, n_images=110, box_px=32)  # particles.star, normalised as RELION asks for
    job = class_2d(relion, particles.star)  # "Class2D/job001", with all that the pipeliner leaves: 2 s
    continue_2d(relion, job, 6, n_iterations=9)  # writes run_ct6_it006 to run_ct6_it009 beside
    continue_2d(relion, job, 3, n_iterations=8)  # a second branch: run_ct3_it003 to run_ct3_it008
    model = initial_model(relion, particles.star)  # "InitialModel/job002", by stochastic gradient descent: 15 s
    small = noisy_particles(relion, name="small", n_images=64, box_px=24, noise=5)
    refined = refine_3d(relion, small.star, small)  # "Refine3D/job003", without a file that says how it ended: 30 s

Jobs of the pipeliner are numbered by it, in the order in which they are made, in the default_pipeline.star of the
folder. `refine_3d` runs without it, as a command by hand does, and takes one more than the jobs that are there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from interop.relion import OpticsGroup, Simulated, read_star, write_star, write_volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interop.relion import Relion

_PIPELINE = "default_pipeline.star"
_NO_JOBS = "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 1\n \n"
# The pipeliner waits ten seconds after each job unless told otherwise.
_AT_ONCE = ("--min_wait", 0, "--min_wait_before", 0, "--sec_wait_after", 0)
_PIXEL_SIZE_A = 4.0
_DIAMETER_OF_BOX = 0.85


def noisy_particles(
    relion: Relion, *, name: str = "particles", n_images: int = 110, box_px: int = 32, noise: float = 20.0
) -> Simulated:
    """Simulate particles with white noise, and normalise their background, without which RELION refuses them.

    Parameters
    ----------
    relion
        The folder.
    name
        The STAR file is ``NAME.star``, the stack ``NAME.mrcs``.
    n_images, box_px
        How many, of 4 Å a pixel.
    noise
        Standard deviation of the noise; the signal's is about 0.025, so that no class settles by default.
    """
    raw = f"{name}_raw"
    group = OpticsGroup(box_px=box_px, pixel_size_A=_PIXEL_SIZE_A)
    simulated = relion.simulate((group,), name=raw, n_images=n_images, noise=noise)
    stack = f"{raw}_group1.mrcs"
    radius_px = int(_DIAMETER_OF_BOX * box_px / 2)
    relion.run("relion_preprocess", "--operate_on", stack, "--operate_out", name, "--norm", "--bg_radius", radius_px)
    tables = read_star(relion.folder / simulated.star)
    names = tables["particles"]["rlnImageName"].str.replace(stack, f"{name}.mrcs", regex=False)
    tables["particles"] = tables["particles"].assign(rlnImageName=names)
    write_star(relion.folder / f"{name}.star", tables)
    return Simulated(f"{name}.star", simulated.volume, simulated.mirrored)


def run_job(relion: Relion, kind: str, options: Mapping[str, object]) -> str:
    """Add a job to the pipeline, let RELION run it, and return its folder.

    Parameters
    ----------
    relion
        The folder, which becomes a RELION project.
    kind
        As RELION 3.1 names it: ``"Class2D"``, ``"Extract"``.
    options
        Those of RELION's window, by their names in ``job.star``.
    """
    if not (relion.folder / _PIPELINE).exists():
        (relion.folder / _PIPELINE).write_text(_NO_JOBS, encoding="utf-8")
    before = set(relion.folder.glob(f"{kind}/job*"))
    # A blank after the semicolon would be taken as a part of the name.
    listed = ";".join(f"{name} == {value}" for name, value in options.items())
    relion.run("relion_pipeliner", "--addJob", kind, "--addJobOptions", listed)
    (made,) = set(relion.folder.glob(f"{kind}/job*")) - before
    job = made.relative_to(relion.folder).as_posix()
    _run(relion, job)
    return job


def class_2d(relion: Relion, star: str, *, n_classes: int = 3, n_iterations: int = 6, box_px: int = 32) -> str:
    """Run a Class2D job through RELION's pipeliner and return its folder.

    Parameters
    ----------
    relion
        The folder, which becomes a RELION project.
    star
        The particles.
    n_classes, n_iterations
        As RELION has them.
    box_px
        Of the particles.
    """
    options = {
        "nr_classes": n_classes,
        "nr_iter": n_iterations,
        "psi_sampling": 20,
        "offset_range": 3,
        "offset_step": 2,
    }
    return run_job(relion, "Class2D", {"fn_img": star, **options, **_common(box_px)})


def continue_2d(relion: Relion, job: str, iteration: int, *, n_iterations: int, continued: int | None = None) -> None:
    """Continue a Class2D job through the pipeliner, in its own folder, as RELION's window does.

    Parameters
    ----------
    relion
        The folder.
    job
        The job's folder.
    iteration
        The one to start from.
    n_iterations
        The last one.
    continued
        Take the iteration that the run ``run_ctN`` of this number wrote; None for that of the first run.
    """
    run = "run" if continued is None else f"run_ct{continued}"
    path = relion.folder / job / "job.star"
    text = path.read_text(encoding="utf-8")
    start = f"{job}/{run}_it{iteration:03d}_optimiser.star"
    for pattern, value in (
        (r"(_rlnJobIsContinue) +\S+", "1"),
        (r"(fn_cont) +\S+", start),
        (r"(nr_iter) +\S+", str(n_iterations)),
    ):
        text = re.sub(pattern, rf"\g<1> {value}", text)
    path.write_text(text, encoding="utf-8")
    _run(relion, job)


def initial_model(relion: Relion, star: str, *, n_classes: int = 1, box_px: int = 32) -> str:
    """Make an initial model by stochastic gradient descent (RELION 3.1's) in seven iterations; return its folder."""
    options = {
        "nr_classes": n_classes,
        "sgd_ini_iter": 2,
        "sgd_inbetween_iter": 3,
        "sgd_fin_iter": 2,
        "sgd_write_iter": 1,
        "sgd_ini_resol": 40,
        "sgd_fin_resol": 35,
        "sgd_ini_subset_size": 20,
        "sgd_fin_subset_size": 40,
        "sampling": "30 degrees",
    }
    return run_job(relion, "InitialModel", {"fn_img": star, **options, **_common(box_px)})


def refine_3d(relion: Relion, star: str, reference: Simulated, *, box_px: int = 24) -> str:
    """Refine with gold-standard halves by mpirun, without the pipeliner, and return the job's folder.

    Such a job leaves no RELION_JOB_EXIT_SUCCESS. With 64 particles of 24 px it takes about 30 s on two cores.

    Parameters
    ----------
    relion
        The folder.
    star
        The particles.
    reference
        Whose map the refinement starts from, low-pass filtered to 40 Å.
    box_px
        Of the particles.
    """
    return _run_by_hand(relion, refine_3d_command(relion, star, reference, box_px=box_px))


def refine_3d_command(relion: Relion, star: str, reference: Simulated, *, box_px: int = 24) -> list[str]:
    """Make the folder of a refinement and return its command, for `Relion.run_mpi` with three processes."""
    job = _next_folder(relion, "Refine3D")
    write_volume(relion.folder / job / "reference.mrc", reference.volume, _PIXEL_SIZE_A)
    words = [
        *("relion_refine_mpi", "--o", f"{job}/run", "--auto_refine", "--split_random_halves", "--i", star),
        *("--ref", f"{job}/reference.mrc", "--firstiter_cc", "--ini_high", 40, "--ctf", "--sym", "C1"),
        *("--dont_combine_weights_via_disc", "--pool", 10, "--pad", 1, "--particle_diameter", _diameter_A(box_px)),
        *("--flatten_solvent", "--zero_mask", "--oversampling", 1, "--healpix_order", 1, "--norm", "--scale"),
        *("--auto_local_healpix_order", 2, "--offset_range", 3, "--offset_step", 2, "--low_resol_join_halves", 40),
        *("--auto_ignore_angles", "--auto_resol_angles", "--j", 1, "--random_seed", 1),
    ]
    return [str(word) for word in words]


def _run_by_hand(relion: Relion, command: list[str]) -> str:
    relion.run_mpi(3, *command)
    return command[command.index("--o") + 1].removesuffix("/run")


def _common(box_px: int) -> dict[str, object]:
    return {"particle_diameter": _diameter_A(box_px), "nr_pool": 10, "other_args": "--random_seed 1"}


def _diameter_A(box_px: int) -> int:
    return int(_DIAMETER_OF_BOX * box_px * _PIXEL_SIZE_A)


def _next_folder(relion: Relion, kind: str) -> str:
    number = 1 + sum(1 for path in relion.folder.glob("*/job[0-9][0-9][0-9]"))
    job = f"{kind}/job{number:03d}"
    (relion.folder / job).mkdir(parents=True)
    return job


def _run(relion: Relion, job: str) -> None:
    # The pipeliner refuses a name of an execution that is running still.
    name = f"run{len(list((relion.folder / 'logs').iterdir()))}"
    relion.run("relion_pipeliner", "--schedule", name, "--RunJobs", f"{job}/", *_AT_ONCE)
