"""The file names of RELION's classification and refinement jobs, sorted into iterations."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cryobridge.formats.listing import say_numbers, say_ranges
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_ITERATION_FILE = re.compile(r"(?P<root>.+?)(?:_ct(?P<continued>\d{1,9}))?_it(?P<number>\d{3,9})_(?P<part>.+)")
_FINAL_FILE = re.compile(r"(?P<root>run)(?:_ct(?P<continued>\d{1,9}))?_(?P<part>.+)")
_VOLUME = re.compile(r"(?:half(?P<half>[12])_)?(?:class|body)(?P<number>\d{3,9})(?P<unfiltered>_unfil)?\.mrc")
_PARTS = {
    "data.star": "data",
    "model.star": "model",
    "optimiser.star": "optimiser",
    "sampling.star": "sampling",
    "half1_model.star": "half1_model",
    "half2_model.star": "half2_model",
    "classes.mrcs": "class_averages",
}
_SUFFIXES = (".star", ".mrc", ".mrcs")
# What each iteration writes; the model is one file, or one for each half set.
_EXPECTED = ("data", "model", "optimiser", "sampling")


@dataclass(frozen=True)
class RelionIteration:
    """The files of one iteration; a part that is not there is None.

    Parameters
    ----------
    number
        The iteration, or None for the files without a number that a refinement ends with.
    continued_from
        The iteration at which the run that wrote it was continued, or None.
    data, model, half1_model, half2_model, optimiser, sampling
        STAR files.
    class_averages
        2D class averages, `.mrcs`.
    volumes
        Maps of the classes or bodies, in their order.
    half_volumes
        Maps of the half sets.
    unfiltered_halves
        Unfiltered half maps, at the end of a refinement.
    """

    number: int | None
    continued_from: int | None
    data: Path | None = None
    model: Path | None = None
    half1_model: Path | None = None
    half2_model: Path | None = None
    optimiser: Path | None = None
    sampling: Path | None = None
    class_averages: Path | None = None
    volumes: tuple[Path, ...] = ()
    half_volumes: tuple[Path, ...] = ()
    unfiltered_halves: tuple[Path, ...] = ()

    @property
    def lacking(self) -> tuple[str, ...]:
        """The STAR files that such an iteration has and this one does not; a run's first one has no sampling."""
        halves = (self.half1_model, self.half2_model)
        if any(halves):
            model = [f"half{half}_model" for half, path in enumerate(halves, 1) if path is None]
        else:
            model = [] if self.model else ["model"]
        is_first = self.number == (self.continued_from or 0)
        expected = _EXPECTED[:-1] if is_first else _EXPECTED
        others = [part for part in expected if part != "model" and getattr(self, part) is None]
        return (*model, *others)


def sort_iterations(
    folder: Path, names: Iterable[str]
) -> tuple[tuple[RelionIteration, ...], tuple[RelionIteration, ...], list[Message]]:
    """Sort file names into iterations.

    Where a folder holds runs under several names, ``run`` is taken, else the one with most files.

    Returns
    -------
    tuple
        The iterations, ascending, those of a continued run after those that it continues; the final sets
        (usually one, or none); and problems.
    """
    numbered: dict[str, dict[tuple[int, int | None], dict[str, str]]] = {}
    final: dict[int | None, dict[str, str]] = {}
    for name in names:
        match = _ITERATION_FILE.fullmatch(name)
        if match and not name.endswith(_SUFFIXES):
            continue  # a picture of an iteration, for instance
        if match:
            key = (int(match["number"]), _int(match["continued"]))
            numbered.setdefault(match["root"], {}).setdefault(key, {})[match["part"]] = name
        elif (match := _FINAL_FILE.fullmatch(name)) is not None:
            final.setdefault(_int(match["continued"]), {})[match["part"]] = name
    root, problems = _choose_root(folder, {root: len(found) for root, found in numbered.items()})
    found = numbered.get(root, {})
    sets = [_as_set(folder, number, continued, parts) for (number, continued), parts in found.items()]
    sets = [item for item in sets if _holds_something(item)]
    sets.sort(key=lambda item: (item.number or 0, -1 if item.continued_from is None else item.continued_from))
    finals = [_as_set(folder, None, continued, parts) for continued, parts in final.items()]
    finals = [item for item in finals if item.data or item.model or item.volumes]
    finals.sort(key=lambda item: -1 if item.continued_from is None else item.continued_from)
    return tuple(sets), tuple(finals), problems


def iteration_problems(iterations: tuple[RelionIteration, ...], chain: tuple[RelionIteration, ...]) -> list[Message]:
    """Say which iterations of the chain that counts are missing, and which of all are half-written."""
    numbers = [item.number for item in chain if item.number is not None]
    problems: list[Message] = []
    # Some jobs write only every n-th iteration, and the last one: that is no gap.
    steps = Counter(after - before for before, after in pairwise(numbers) if after > before)
    step = max(steps, key=lambda distance: (steps[distance], -distance), default=1)
    missing = [range(before + step, after, step) for before, after in pairwise(numbers) if after > before + step]
    if missing:
        problems.append(warning("iterations-missing", f"Missing iterations: {say_ranges(missing)}"))
    n_after_start = sum(item.number != 0 for item in iterations)  # at its start a job writes fewer files
    by_lack: dict[tuple[str, ...], list[int]] = {}
    for item in iterations:
        if item.lacking and item.number is not None:
            by_lack.setdefault(item.lacking, []).append(item.number)
    for lacking, which in by_lack.items():
        files = [f"{part}.star" for part in lacking]
        if 1 < len(which) == n_after_start:
            text = f"No iteration has its {' or '.join(files)}"
        else:
            text = f"Iteration {say_numbers(which)}: no {', no '.join(files)}"
        problems.append(warning("iterations-incomplete", text))
    return problems


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


def _choose_root(folder: Path, counts: Mapping[str, int]) -> tuple[str, list[Message]]:
    if not counts:
        return "run", []
    root = "run" if "run" in counts else Counter(counts).most_common(1)[0][0]
    others = sorted(set(counts) - {root})
    text = f"Other runs lie in the folder and are passed over: {', '.join(others)}"
    return root, [warning("other-runs", text, where=folder)] if others else []


def _as_set(folder: Path, number: int | None, continued: int | None, parts: Mapping[str, str]) -> RelionIteration:
    named = {_PARTS[part]: folder / name for part, name in parts.items() if part in _PARTS}
    maps: dict[str, list[tuple[int, int, Path]]] = {"volumes": [], "half_volumes": [], "unfiltered_halves": []}
    for part, name in parts.items():
        match = _VOLUME.fullmatch(part)
        if match:
            kind = "unfiltered_halves" if match["unfiltered"] else "half_volumes" if match["half"] else "volumes"
            maps[kind].append((int(match["number"]), int(match["half"] or 0), folder / name))
    sorted_maps = {kind: tuple(path for *_, path in sorted(found)) for kind, found in maps.items()}
    return RelionIteration(
        number,
        continued,
        data=named.get("data"),
        model=named.get("model"),
        half1_model=named.get("half1_model"),
        half2_model=named.get("half2_model"),
        optimiser=named.get("optimiser"),
        sampling=named.get("sampling"),
        class_averages=named.get("class_averages"),
        volumes=sorted_maps["volumes"],
        half_volumes=sorted_maps["half_volumes"],
        unfiltered_halves=sorted_maps["unfiltered_halves"],
    )


def _holds_something(item: RelionIteration) -> bool:
    return any((item.data, item.model, item.half1_model, item.half2_model, item.optimiser, item.sampling))
