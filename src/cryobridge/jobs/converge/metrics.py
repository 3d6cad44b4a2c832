"""What RELION says of an iteration itself: its `_model.star` and its `_optimiser.star`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.formats.relion.star import StarBlock, open_star
from cryobridge.model.classification import Floats, IterationMetrics
from cryobridge.model.particles import Labels
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.jobs.converge.files import IterationFiles

# What RELION writes before there is a first value.
_NO_CLASSES, _NO_ANGLE = 9_999_999, 999
# RELION 4 and later, and RELION 3.1.
_GRADIENTS = {"rlnDoGradientRefine": "VDAM", "rlnDoStochasticGradientDescent": "SGD"}


def read_metrics(files: IterationFiles) -> tuple[IterationMetrics, list[Message]]:
    """Read what the model and the optimiser say; a file that can't be read is left out with a warning.

    Of two half sets, the distributions and resolutions of the classes are averaged, the accuracies and the
    resolution are the worse ones, and the log-likelihoods are added.
    """
    messages: list[Message] = []
    models = [block for path in files.models if (block := _blocks(path, ("model_general", "model_classes"), messages))]
    found = _blocks(files.optimiser, ("optimiser_general",), messages) if files.optimiser is not None else {}
    optimiser = found.get("optimiser_general")
    general = [model["model_general"] for model in models if "model_general" in model]
    classes = [model["model_classes"] for model in models if "model_classes" in model]
    in_angstrom = optimiser is not None and "rlnOverallAccuracyTranslationsAngst" in optimiser
    metrics = IterationMetrics(
        changed_fraction=_number(optimiser, "rlnChangesOptimalClasses", _NO_CLASSES),
        orientation_change_deg=_number(optimiser, "rlnChangesOptimalOrientations", _NO_ANGLE),
        # RELION 3.0 counted pixels, under the same name.
        offset_change_A=_number(optimiser, "rlnChangesOptimalOffsets", _NO_ANGLE) if in_angstrom else None,
        resolution_A=_worst(_number(block, "rlnCurrentResolution", math.inf) for block in general),
        rotation_accuracy_deg=_worst(_best_class(block, "rlnAccuracyRotations") for block in classes),
        translation_accuracy_A=_worst(_best_class(block, "rlnAccuracyTranslationsAngst") for block in classes),
        log_likelihood=_sum(_number(block, "rlnLogLikelihood", math.inf) for block in general),
        class_distribution=_mean([_column(block, "rlnClassDistribution") for block in classes]),
        class_resolution_A=_mean([_column(block, "rlnEstimatedResolution") for block in classes]),
        last_iteration=_whole(_number(optimiser, "rlnNumberOfIterations", math.inf)),
        has_converged=_flag(optimiser, "rlnHasConverged") if _flag(optimiser, "rlnDoAutoRefine") else None,
        gradient=next((name for label, name in _GRADIENTS.items() if _flag(optimiser, label)), ""),
    )
    return metrics, messages


def _blocks(path: Path, names: tuple[str, ...], messages: list[Message]) -> dict[str, StarBlock]:
    try:
        star = open_star(path)
        return {name: star[name] for name in names if name in star}
    except CryobridgeError as error:
        messages.append(warning("metrics-unreadable", f"{path.name} is passed over: {error.message}", where=path))
        return {}


def _number(block: StarBlock | None, label: str, missing: float) -> float | None:
    """Return a number of a list block; None where it is absent, not finite, or the value that means none."""
    if block is None or label not in block or block.n_rows != 1:
        return None
    try:
        value = float(block.value(label))
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < missing else None


def _flag(block: StarBlock | None, label: str) -> bool | None:
    value = _number(block, label, math.inf)
    return None if value is None else value != 0


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _column(block: StarBlock, label: str) -> Floats:
    """Return a column of the classes, NaN where RELION has no value; empty where there is no such column."""
    if label not in block:
        return np.zeros(0)
    values = block.read([label])[label]
    if isinstance(values, Labels):
        return np.zeros(0)
    numbers = values.astype(np.float64)
    return np.where(np.isfinite(numbers) & (numbers < _NO_ANGLE), numbers, np.nan)


def _best_class(block: StarBlock, label: str) -> float | None:
    values = _column(block, label)
    # Before the first estimate, and with stochastic gradients, RELION writes 0.
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.min()) if len(values) else None


def _worst(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(columns: list[Floats]) -> Floats:
    """Average the half sets, class by class."""
    columns = [column for column in columns if len(column)]
    if len({len(column) for column in columns}) != 1:
        return np.zeros(0)
    return np.mean(columns, axis=0)  # type: ignore[no-any-return]
