"""A simulated 2D classification of the project's particles: iteration files in which classes settle, and one dies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.demo.relion_files import optics_block, star_block
from cryobridge.demo.truth import BOX_PX, PIXEL_SIZE_A
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.output_folder import make_folder
from cryobridge.model.geometry import round_px

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.demo.truth import Truth

JOB = "Class2D/job004"
N_ITERATIONS = 20
_N_CLASSES = 5
_DYING_CLASS = 5
_LAST_ITERATION_OF_DYING_CLASS = 7
_ITERATIONS_TO_SETTLE = 2.5
# A particle in so many still jumps at each iteration.
_RESTLESS = 0.002
# What RELION writes before there is a first value.
_NO_CHANGES, _NO_CHANGE = 9999999.0, 999.0


def write_classification(project: Path, truth: Truth, seed: int) -> None:
    """Write a finished Class2D job: the STAR files of each of iterations 0 to `N_ITERATIONS`.

    As RELION writes it, iteration 0 has no sampling, and its particles are in no class.
    """
    folder = project / JOB
    make_folder(folder)
    names = _image_names(truth)
    previous = None
    for iteration, classes in enumerate(_assignments(len(names), np.random.default_rng([seed, 2]))):
        stem = folder / f"run_it{iteration:03d}"
        # The first classes are other ones than none.
        changed = _NO_CHANGES if previous is None else float((classes != previous).mean())
        resolution_A = 30 * np.exp(-iteration / 5) + 9
        write_star(f"{stem}_data.star", [_optics(truth), star_block("particles", _particles(truth, names, classes))])
        write_star(f"{stem}_model.star", _model(classes, resolution_A))
        write_star(f"{stem}_optimiser.star", [_optimiser(iteration, changed, resolution_A)])
        if previous is not None:
            write_star(f"{stem}_sampling.star", [_sampling()])
        previous = classes
    (folder / "RELION_JOB_EXIT_SUCCESS").touch()


def _image_names(truth: Truth) -> list[str]:
    """Return the names that Extract would give: numbered from 1 within each micrograph."""
    of_micrograph = truth.particles.micrograph
    names = [""] * len(of_micrograph)
    for micrograph, name in enumerate(truth.micrographs.name):
        for number, row in enumerate(np.flatnonzero(of_micrograph == micrograph).tolist(), 1):
            names[row] = f"{number:06d}@Extract/job005/Movies/{name}_fractions.mrcs"
    return names


def _assignments(n: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Draw the class (from 1) of each particle at each iteration: none, at random, then where it belongs."""
    belongs = rng.choice(_N_CLASSES - 1, n, p=[0.4, 0.3, 0.2, 0.1]) + 1
    settled_at = rng.exponential(_ITERATIONS_TO_SETTLE, n)
    assignments = [rng.integers(1, _N_CLASSES + 1, n)]
    for iteration in range(1, N_ITERATIONS + 1):
        classes = np.where(settled_at <= iteration, belongs, assignments[-1])
        jumps = (settled_at > iteration) & (rng.random(n) < 0.5) | (rng.random(n) < _RESTLESS)
        classes[jumps] = rng.integers(1, _N_CLASSES + 1, int(jumps.sum()))
        if iteration > _LAST_ITERATION_OF_DYING_CLASS:
            classes = np.where(classes == _DYING_CLASS, belongs, classes)
        assignments.append(classes)
    return [np.zeros(n, np.int64), *assignments[1:]]


def _particles(truth: Truth, names: list[str], classes: NDArray[np.int64]) -> dict[str, object]:
    n, coordinate_px = len(names), round_px(truth.particles.relion_coordinate_px)
    return {
        "rlnImageName": names,
        "rlnMicrographName": [
            f"MotionCorr/job002/Movies/{truth.micrographs.name[row]}_fractions.mrc"
            for row in truth.particles.micrograph.tolist()
        ],
        "rlnCoordinateX": coordinate_px[:, 0],
        "rlnCoordinateY": coordinate_px[:, 1],
        "rlnOpticsGroup": np.ones(n, np.int64),
        "rlnClassNumber": classes,
    }


def _optics(truth: Truth) -> StarBlock:
    sizes = {"rlnMicrographOriginalPixelSize": PIXEL_SIZE_A, "rlnImagePixelSize": PIXEL_SIZE_A}
    sizes |= {"rlnImageSize": BOX_PX, "rlnImageDimensionality": 2}
    return optics_block(truth, sizes)


def _model(classes: NDArray[np.int64], resolution_A: float) -> list[StarBlock]:
    counts = np.bincount(classes, minlength=_N_CLASSES + 1)[1:]
    if not counts.any():  # at first all classes are taken to be equal
        counts = np.ones(_N_CLASSES, np.int64)
    resolutions = np.where(counts > 0, resolution_A * (1 + 0.1 * np.arange(_N_CLASSES)), 999.0)
    return [
        star_block(
            "model_general",
            {"rlnNrClasses": [_N_CLASSES], "rlnCurrentResolution": [round(resolution_A, 6)]},
            is_loop=False,
        ),
        star_block(
            "model_classes",
            {
                "rlnReferenceImage": [f"{number:06d}@run_classes.mrcs" for number in range(1, _N_CLASSES + 1)],
                "rlnClassDistribution": (counts / counts.sum()).round(6),
                "rlnEstimatedResolution": resolutions.round(6),
            },
        ),
    ]


def _optimiser(iteration: int, changed: float, resolution_A: float) -> StarBlock:
    return star_block(
        "optimiser_general",
        {
            "rlnCurrentIteration": [iteration],
            "rlnNumberOfIterations": [N_ITERATIONS],
            "rlnChangesOptimalClasses": [round(changed, 6)],
            "rlnChangesOptimalOrientations": [round(20 * np.exp(-iteration / 4), 6) if iteration else _NO_CHANGE],
            "rlnChangesOptimalOffsets": [round(resolution_A / 10, 6) if iteration else _NO_CHANGE],
        },
        is_loop=False,
    )


def _sampling() -> StarBlock:
    """Return what RELION samples in 2D by default; offsets are in Å."""
    return star_block(
        "sampling_general",
        {
            "rlnIs3DSampling": [0],
            "rlnIs3DTranslationalSampling": [0],
            "rlnPsiStep": [12.0],
            "rlnOffsetRange": [5 * PIXEL_SIZE_A],
            "rlnOffsetStep": [2 * PIXEL_SIZE_A],
        },
        is_loop=False,
    )
