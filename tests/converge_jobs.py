"""Job folders with known classes, and counts of them that plain dictionaries make."""

from __future__ import annotations

import numpy as np

from helpers import save_cs

OPTICS = "\n# version 30001\n\ndata_optics\n\nloop_ \n_rlnOpticsGroup #1 \n_rlnVoltage #2 \n 1 300.0 \n \n"


def image_name(number):
    return f"{number % 7 + 1:06d}@Extract/job005/mic{number // 7:03d}.mrcs"


def data_text(rows, name_label="rlnImageName"):
    """Rows of (name, class), with columns around those that count and RELION's blanks and final empty line."""
    labels = ["rlnMicrographName", name_label, "rlnAnglePsi", "rlnClassNumber", "rlnOpticsGroup"]
    head = "".join(f"_{label} #{place} \n" for place, label in enumerate(labels, 1))
    lines = "".join(
        f"mic.mrc {name}   {17.5 * place:12.6f} {number:12d} 1 \n" for place, (name, number) in enumerate(rows)
    )
    return f"{OPTICS}\n# version 30001\n\ndata_particles\n\nloop_ \n{head}{lines} \n"


def write_iteration(folder, number, classes, *, run_name="run", order=None, figures=True, last=25):
    """classes: {particle number: class}."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{run_name}_it{number:03d}"
    particles = list(classes) if order is None else order
    if figures:
        (folder / f"{stem}_optimiser.star").write_text(optimiser_text(number, last))
        (folder / f"{stem}_model.star").write_text(model_text(classes))
    path = folder / f"{stem}_data.star"
    path.write_text(data_text([(image_name(particle), classes[particle]) for particle in particles]))
    return path


def optimiser_text(number, last, **changes):
    values = {
        "rlnCurrentIteration": number,
        "rlnNumberOfIterations": last,
        "rlnOverallAccuracyTranslationsAngst": 1.5,
        "rlnChangesOptimalOrientations": 12.25,
        "rlnChangesOptimalOffsets": 2.5,
        "rlnChangesOptimalClasses": 0.0625,
        **changes,
    }
    lines = "".join(f"_{label} {value}\n" for label, value in values.items())
    return f"# RELION optimiser; version 4.0\n# --o run\n\n# version 30001\n\ndata_optimiser_general\n\n{lines} \n"


def model_text(classes, resolution=9.5, shares=None):
    counts = count(classes)
    n_classes = max(classes.values())
    shares = shares or [counts.get(number, 0) / len(classes) for number in range(1, n_classes + 1)]
    rows = "".join(
        f"{number:06d}@run_classes.mrcs {share:.6f} {0.5 + number / 10:.4f} {2 + number:.4f} {10 + number:.4f} \n"
        for number, share in enumerate(shares, 1)
    )
    labels = [
        "ReferenceImage",
        "ClassDistribution",
        "AccuracyRotations",
        "AccuracyTranslationsAngst",
        "EstimatedResolution",
    ]
    head = "".join(f"_rln{label} #{place} \n" for place, label in enumerate(labels, 1))
    general = f"_rlnCurrentResolution {resolution}\n_rlnLogLikelihood -1.25e+6\n \n"
    return (
        f"\n# version 30001\n\ndata_model_general\n\n{general}"
        f"\n# version 30001\n\ndata_model_classes\n\nloop_ \n{head}{rows} \n"
    )


def count(classes):
    counts = {}
    for number in classes.values():
        counts[number] = counts.get(number, 0) + 1
    return counts


def changed(before, after):
    return sum(before[particle] != after[particle] for particle in after if particle in before)


def texts(history):
    return " ".join(map(str, history.messages))


def wander(n_particles, n_classes, n_iterations, seed=0, share=0.4):
    """Classes of each iteration: dictionaries, in which fewer and fewer particles change."""
    rng = np.random.default_rng(seed)
    classes = {particle: int(rng.integers(1, n_classes + 1)) for particle in range(n_particles)}
    course = [classes]
    for step in range(1, n_iterations):
        classes = dict(classes)
        for particle in rng.choice(n_particles, round(share * n_particles * 0.7**step), replace=False).tolist():
            classes[particle] = int(rng.integers(1, n_classes + 1))
        course.append(classes)
    return course


def save_kept_iterations(folder, assignments, seed=0):
    rng = np.random.default_rng(seed)
    uids = rng.integers(2**63, 2**64 - 1, len(assignments[0]), dtype=np.uint64)
    for number, classes in enumerate(assignments):
        order = rng.permutation(len(classes))
        numbers = np.array([classes[particle] - 1 for particle in order], "u4")
        columns = {
            "uid": uids[order],
            "alignments2D/class": numbers,
            "alignments2D/class_posterior": np.ones(len(order), "f4"),
        }
        save_cs(folder / f"J2_{number:03d}_particles.cs", columns)
    save_cs(folder / "J2_passthrough_particles.cs", {"uid": uids})


def write_refinement(folder, resolutions_A, *, final_A=None, run_name="run", first=0, version=3.1):
    """Write an automatic refinement as RELION does: rlnHasConverged stays 0, and iteration 0 has no class.

    resolutions_A: of iterations from `first` on; final_A: that of the files that it ends with, None while it runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, resolution_A in enumerate(resolutions_A, first):
        stem = f"{run_name}_it{number:03d}"
        classes = dict.fromkeys(range(20), 0 if number == 0 else 1)
        says = {"rlnDoAutoRefine": 1, "rlnHasConverged": 0, "rlnChangesOptimalOrientations": 90 / (1 + number)}
        (folder / f"{stem}_optimiser.star").write_text(optimiser_text(number, 999, **says))
        for half in (1, 2):
            model = model_text(dict.fromkeys(range(20), 1), resolution_A)
            (folder / f"{stem}_half{half}_model.star").write_text(model)
        if number > first:
            (folder / f"{stem}_sampling.star").write_text("data_sampling_general\n\n_rlnHealpixOrder 2\n \n")
        rows = [(image_name(particle), number) for particle, number in classes.items()]
        (folder / f"{stem}_data.star").write_text(data_text(rows))
    if final_A is not None:
        if version >= 4:
            (folder / f"{run_name}_optimiser.star").write_text(optimiser_text(number, 999, rlnHasConverged=1))
        (folder / f"{run_name}_data.star").write_text(data_text([(image_name(place), 1) for place in range(20)]))
        (folder / f"{run_name}_model.star").write_text(model_text(dict.fromkeys(range(20), 1), final_A))
    return folder
