"""Which iterations of a RELION job lead to its newest one, where it was continued once or more often.

The second line of an optimiser that a continued run wrote names the iteration that the run started from:
``# --continue Class2D/job004/run_it006_optimiser.star --o Class2D/job004/run_ct6 …``. The names of the files alone
don't tell: of ``run_ct3`` and ``run_ct6`` either may be the later one, and each may start from the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cryobridge.formats.input_file import open_input
from cryobridge.formats.listing import say_numbers
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cryobridge.formats.relion.names import RelionIteration

# At which iteration a run was continued (None: the first run), and the iteration.
_Place: TypeAlias = "tuple[int | None, int]"
_HEAD_BYTES = 8192
_COMMAND = re.compile(rb"#.*?--continue\s+(?P<start>\S+)(?:.*?\s--o\s+(?P<output>\S+))?")
_START = re.compile(r".+?(?:_ct(?P<continued>\d{1,9}))?_it(?P<number>\d{3,9})_optimiser\.star")


@dataclass(frozen=True)
class Branches:
    """The iterations of a job, by the branch that they are of.

    Parameters
    ----------
    chain
        Those that lead to the file that was written last, ascending, each number once. The iteration that a continued
        run starts from counts as that run wrote it, where it did.
    others
        For each other branch what is of it alone.
    """

    chain: tuple[RelionIteration, ...]
    others: tuple[tuple[RelionIteration, ...], ...] = ()


@dataclass(frozen=True)
class _Run:
    """Iterations that one run wrote, ascending; `start` is the iteration that it was continued from, if it tells."""

    continued: int | None
    start: _Place | None
    items: tuple[RelionIteration, ...]


@dataclass(frozen=True)
class _Path:
    """What leads to the end of a run: the iterations, and all that it passes through, those written again as well."""

    chain: tuple[RelionIteration, ...]
    passed: tuple[RelionIteration, ...]


def branches_of(iterations: Iterable[RelionIteration]) -> Branches:
    """Sort the iterations of a job into the branch that leads to its newest file, and the others.

    The newest is the file of particles that was written last; at equal times that of the highest iteration.
    """
    runs = _runs([item for item in iterations if item.number is not None])
    if not runs:
        return Branches(())
    paths = [_path(run, runs) for run in runs]
    ends = [
        place
        for place, run in enumerate(runs)
        if not any(run.items[-1] in path.passed for path in (*paths[:place], *paths[place + 1 :]))
    ]
    newest = max(ends or range(len(runs)), key=lambda place: _age(runs[place]))
    counts = paths[newest]
    others = (tuple(item for item in paths[end].chain if item not in counts.passed) for end in ends if end != newest)
    return Branches(counts.chain, tuple(items for items in others if items))


def branch_messages(branches: Branches) -> list[Message]:
    """Name the branches that don't lead to the newest iteration."""
    found = []
    for items in branches.others:
        last = branches.chain[-1]
        counts = "first run" if last.continued_from is None else "continued run"
        text = (
            f"{_say(items)} {'is' if len(items) == 1 else 'are'} of another branch, and left out: "
            f"the job was continued from an earlier iteration, and the {counts} counts ({_stem(last)})"
        )
        found.append(warning("iterations-superseded", text))
    return found


def _say(items: tuple[RelionIteration, ...]) -> str:
    """Say which iterations of which runs these are."""
    of_run: dict[int | None, list[RelionIteration]] = {}
    for item in items:
        of_run.setdefault(item.continued_from, []).append(item)
    parts = []
    for own in of_run.values():
        run, _, _ = _stem(own[0]).rpartition("_it")
        numbers = [item.number for item in own if item.number is not None]
        is_whole = len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1))
        which = f"{numbers[0]} to {numbers[-1]}" if is_whole else say_numbers(numbers)
        parts.append(f"iteration{'s' if len(numbers) > 1 else ''} {which} of {run}")
    text = " and ".join(parts)
    return text[0].upper() + text[1:]


def _stem(item: RelionIteration) -> str:
    """Return the part of the names of an iteration's files that they have in common, such as ``run_ct6_it009``."""
    path = _any_file(item)
    parts = re.match(r".+?_it\d{3,9}", path.name) if path is not None else None
    return parts[0] if parts else f"iteration {item.number}"


def _any_file(item: RelionIteration) -> Path | None:
    own = (item.data, item.optimiser, item.model, item.half1_model, item.half2_model, item.sampling)
    return next((path for path in own if path is not None), None)


def _runs(items: list[RelionIteration]) -> list[_Run]:
    """Group iterations by the run that wrote them; a second run that is continued at this number has the same names."""
    groups: dict[tuple[int | None, _Place | None], list[RelionIteration]] = {}
    starts: dict[int | None, _Place | None] = {}
    for item in sorted(items, key=lambda item: item.number or 0):
        start = None if item.continued_from is None else _start(item)
        # An iteration without an optimiser is taken for one of the run that wrote the one before it.
        start = starts.setdefault(item.continued_from, start) if start is None else start
        starts[item.continued_from] = start
        groups.setdefault((item.continued_from, start), []).append(item)
    return [_Run(continued, start, tuple(own)) for (continued, start), own in groups.items()]


def _start(item: RelionIteration) -> _Place | None:
    """Return the iteration that a run was continued from; None where the optimiser doesn't tell."""
    if item.optimiser is None:
        return None
    try:
        with open_input(item.optimiser) as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    command = next((found for line in head.splitlines()[:2] if (found := _COMMAND.match(line))), None)
    if command is None:
        return None
    folder, _, name = command["start"].decode("utf-8", "replace").rpartition("/")
    output, _, _ = (command["output"] or b"").decode("utf-8", "replace").rpartition("/")
    parts = _START.fullmatch(name)
    if parts is None or (output and output != folder):  # it was continued from the files of another job
        return None
    return None if parts["continued"] is None else int(parts["continued"]), int(parts["number"])


def _path(run: _Run, runs: list[_Run]) -> _Path:
    """Go back from the end of a run to the first iteration."""
    chain, passed = run.items, run.items
    gone_through = [run]
    while (before := _before(gone_through[-1], [other for other in runs if other not in gone_through])) is not None:
        parent, last = before
        through = tuple(item for item in parent.items if (item.number or 0) <= last)
        chain = (*(item for item in through if (item.number or 0) < (chain[0].number or 0)), *chain)
        passed = (*through, *passed)
        gone_through.append(parent)
    return _Path(chain, passed)


def _before(run: _Run, others: list[_Run]) -> tuple[_Run, int] | None:
    """Return the run that a run continues, and up to which iteration; None for the first one."""
    if run.continued is None:
        return None
    if run.start is not None:
        continued, number = run.start
        parents = [other for other in others if other.continued == continued and (other.items[0].number or 0) <= number]
        holding = [other for other in parents if any(item.number == number for item in other.items)]
        if holding or parents:
            return (holding or parents)[-1], number
    # Names tell at which iteration it was continued, and no more.
    earlier = [other for other in others if _order(other) < run.continued]
    return (max(earlier, key=_order), run.continued) if earlier else None


def _order(run: _Run) -> int:
    return -1 if run.continued is None else run.continued


def _age(run: _Run) -> tuple[int, int, int]:
    """Return when the newest particles of a run were written, then its last iteration."""
    return max(_written(item) for item in run.items), run.items[-1].number or 0, _order(run)


def _written(item: RelionIteration) -> int:
    path = item.data or _any_file(item)
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        return 0
