"""A simulated 2D classification of the project's particles: iteration files in which classes settle, and one dies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.demo.extraction import extracted_columns, extracted_optics
from cryobridge.demo.relion_files import CLASSES_JOB, N_ITERATIONS, star_block
from cryobridge.demo.truth import CLASS_SHARES, PIXEL_SIZE_A
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.output_folder import make_folder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.demo.truth import Truth
    from cryobridge.formats.relion.star import StarBlock

_N_CLASSES = len(CLASS_SHARES) + 1
_DYING_CLASS = _N_CLASSES
_LAST_ITERATION_OF_DYING_CLASS = 7
_ITERATIONS_TO_SETTLE, _ALL_SETTLED = 2.5, 15
# A particle in so many still jumps at each iteration.
_RESTLESS = 0.001
# What RELION writes before there is a first value.
_NO_CHANGES, _NO_CHANGE = 9999999.0, 999.0


def write_classification(project: Path, truth: Truth, seed: int) -> None:
    """Write a finished Class2D job: the STAR files of each of iterations 0 to `N_ITERATIONS`.

    As RELION writes it, iteration 0 has no sampling, and its particles are in no class. In the last one they are in the
    classes that the truth says.
    """
    folder = project / CLASSES_JOB
    make_folder(folder)
    optics, extracted = extracted_optics(truth), extracted_columns(truth)
    previous = None
    for iteration, classes in enumerate(_assignments(truth.particles.class_number, np.random.default_rng([seed, 2]))):
        stem = folder / f"run_it{iteration:03d}"
        # The first classes are other ones than none.
        changed = _NO_CHANGES if previous is None else float((classes != previous).mean())
        resolution_A = 30 * np.exp(-iteration / 5) + 9
        write_star(f"{stem}_data.star", [optics, star_block("particles", {**extracted, "rlnClassNumber": classes})])
        write_star(f"{stem}_model.star", _model(classes, resolution_A))
        write_star(f"{stem}_optimiser.star", [_optimiser(iteration, changed, resolution_A)])
        if previous is not None:
            write_star(f"{stem}_sampling.star", [_sampling()])
        previous = classes
    (folder / "RELION_JOB_EXIT_SUCCESS").touch()


def _assignments(belongs: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Draw the class (from 1) of each particle at each iteration: none, at random, then where it belongs."""
    n = len(belongs)
    settled_at = np.minimum(rng.exponential(_ITERATIONS_TO_SETTLE, n), _ALL_SETTLED)
    assignments = [rng.integers(1, _N_CLASSES + 1, n)]
    for iteration in range(1, N_ITERATIONS + 1):
        classes = np.where(settled_at <= iteration, belongs, assignments[-1])
        jumps = (settled_at > iteration) & (rng.random(n) < 0.5) | (rng.random(n) < _RESTLESS)
        classes[jumps] = rng.integers(1, _N_CLASSES + 1, int(jumps.sum()))
        if iteration > _LAST_ITERATION_OF_DYING_CLASS:
            classes = np.where(classes == _DYING_CLASS, belongs, classes)
        assignments.append(classes)
    return [np.zeros(n, np.int64), *assignments[1:-1], belongs]


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
