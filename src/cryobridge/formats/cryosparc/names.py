"""What the names of a cryoSPARC job's files, and of their columns, say where no job.json does."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

Iteration: TypeAlias = int | Literal["final"] | None

_PREFIX = re.compile(r"(?:cryosparc_)?(?:P\d+_)?(?P<job>J\d+)_")
# What `cryobridge select` writes beside NAME.cs: NAME_passthrough.cs, NAME_passthrough_2.cs …
_OF_ONE_FILE = re.compile(r"(?P<main>.+)_passthrough(?:_\d+)?", re.DOTALL)
_CLASS = re.compile(r"class_(?P<number>\d+)_")
_ITERATION = re.compile(r"(?P<iteration>\d{3,9}|final)_")
_CLASS_SUFFIX = re.compile(r"_class_0*(?P<number>\d+)$")
_EXCLUDED = re.compile(r"excluded|incomplete|remainder|rejected|uncategorized|unused")
_KINDS = (
    ("particle", re.compile(r"particle")),
    ("template", re.compile(r"class_averages|template")),
    ("exposure", re.compile(r"exposure|micrograph|movie")),
    ("mask", re.compile(r"mask")),
    ("volume", re.compile(r"volume|map")),
)


@dataclass(frozen=True)
class CsName:
    """What a `.cs` file's name says.

    Parameters
    ----------
    name
        The file's name.
    job
        ``J42``, or empty.
    group
        The result that it belongs to, such as ``particles`` or ``particles_class_0``.
    iteration
        Number of the iteration, ``"final"``, or None where there is none.
    is_passthrough
        Whether it carries columns that the job did not compute.
    main
        The one file that it belongs to, where it is named after that: NAME.cs of ``NAME_passthrough.cs``; else empty.
    """

    name: str
    job: str
    group: str
    iteration: Iteration
    is_passthrough: bool
    main: str = ""


@dataclass(frozen=True)
class NamedGroup:
    """Files that make one result: the main one of the last iteration, and those passed through."""

    name: str
    main: CsName | None
    passthroughs: tuple[CsName, ...]
    iterations: tuple[Iteration, ...]


def instead_of_exposures(path: Path) -> str:
    """Return what to do with exposures where particles are needed, as a hint."""
    command = f"cryobridge micrographs {shlex.quote(str(path))} -o MotionCorr/job002"
    return f"`{command}` writes RELION's lists of them; for particles give those of a later job."


def parse_cs_name(name: str) -> CsName:
    """Take a `.cs` file name apart; any name is accepted.

    ``J42_class_00_00863_particles.cs`` is iteration 863 of ``particles_class_0``,
    ``J42_passthrough_particles_class_0.cs`` its passthrough. ``subset_passthrough.cs`` is that of ``subset.cs`` alone.
    """
    stem = name.removesuffix(".cs")
    named_after = _OF_ONE_FILE.fullmatch(stem)
    if named_after is None:
        return _parse(name, stem)
    main = _parse(f"{named_after['main']}.cs", named_after["main"])
    return replace(main, name=name, job=_parse(name, stem).job, is_passthrough=True, main=main.name)


def _parse(name: str, stem: str) -> CsName:
    rest = stem
    prefix = _PREFIX.match(rest)
    rest = rest[prefix.end() :] if prefix else rest
    is_passthrough = rest.startswith("passthrough_")
    rest = rest.removeprefix("passthrough_")
    in_class = _CLASS.match(rest)
    rest = rest[in_class.end() :] if in_class else rest
    at = _ITERATION.match(rest)
    rest = rest[at.end() :] if at else rest
    group = _CLASS_SUFFIX.sub(r"_class_\g<number>", rest)
    if in_class:
        group = f"{group}_class_{int(in_class['number'])}"
    iteration: Iteration = None
    if at:
        iteration = "final" if at["iteration"] == "final" else int(at["iteration"])
    return CsName(name, prefix["job"] if prefix else "", group, iteration, is_passthrough)


def group_by_name(names: Iterable[str]) -> tuple[NamedGroup, ...]:
    """Sort `.cs` files into results, taking the last iteration of each.

    ``_final`` comes after every number. A main file without a passthrough of its own takes that of all classes,
    then the one of the plain result of its kind; excluded particles take only their own. Files that are named after
    one main file go with that alone.
    """
    parsed = [parse_cs_name(name) for name in names]
    mains: dict[str, list[CsName]] = {}
    passed: dict[str, CsName] = {}
    of_one: dict[str, list[CsName]] = {}
    for item in sorted(parsed, key=lambda item: (iteration_order(item.iteration), item.name)):
        if item.main:
            of_one.setdefault(item.main, []).append(item)
        elif item.is_passthrough:
            passed[item.group] = item
        else:
            mains.setdefault(item.group, []).append(item)
    groups, used = [], set()
    for group, items in sorted(mains.items()):
        choices = [group]
        if not is_excluded(group):
            choices += [f"{kind_of(group)}s_all_classes", f"{kind_of(group)}s"]
        own = next((choice for choice in choices if choice in passed), None)
        used.add(own)
        taken = of_one.get(items[-1].name) or ([] if own is None else [passed[own]])
        groups.append(NamedGroup(group, items[-1], tuple(taken), tuple(item.iteration for item in items)))
    groups += [NamedGroup(group, None, (item,), ()) for group, item in sorted(passed.items()) if group not in used]
    names_of_mains = {item.name for items in mains.values() for item in items}
    groups += [
        NamedGroup(f"{items[0].group}_passthrough", None, tuple(items), ())
        for main, items in sorted(of_one.items())
        if main not in names_of_mains
    ]
    return tuple(groups)


def iteration_order(iteration: Iteration) -> float:
    """Return a number by which iterations sort: none, then 0, 1, …, then final."""
    if iteration is None:
        return -1
    return float("inf") if iteration == "final" else iteration


def is_excluded(group: str) -> bool:
    """Whether a result of this name is what a job threw out."""
    return _EXCLUDED.search(group) is not None


def holds_exposures(columns: Collection[str]) -> bool:
    """Whether the rows with these columns are micrographs or movies, not particles.

    Examples
    --------
    >>> holds_exposures(["uid", "micrograph_blob/path", "ctf/df1_A"])
    True
    """
    has_micrographs = any(f"{slot}/path" in columns for slot in ("micrograph_blob", "movie_blob"))
    return has_micrographs and not any(name.startswith(("blob/", "location/", "alignments")) for name in columns)


def kind_of(group: str) -> str:
    """Return ``particle``, ``template``, ``exposure``, ``mask`` or ``volume``; else empty."""
    return next((kind for kind, pattern in _KINDS if pattern.search(group)), "")


def relative_to_file(name: str, folder: Path, new_folder: Path) -> str:
    """Return a name of a `.cs` file as it has to stand in another folder: one with ``>`` starts at the file's own."""
    if not name.startswith(">"):
        return name
    there = os.path.normpath(folder.absolute() / name[1:])
    return ">" + os.path.relpath(there, os.path.normpath(new_folder.absolute()))
