"""cryoSPARC job folders: which `.cs` files are the results, by `job.json` or, without one, by the file names."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.names import iteration_order, parse_cs_name
from cryobridge.formats.cryosparc.outputs import JobOutput, described_outputs, disagreements, named_outputs
from cryobridge.formats.listing import (
    Listing,
    gaps,
    is_there,
    list_folder,
    list_if_there,
    object_of,
    objects_of,
    read_json_of,
    say_ranges,
    text_of,
)
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    import os

_BATCH = re.compile(r"batch_(?P<number>\d{1,9})_(?:restacked|downsample)\.mrcs?")
_JOB_NAME = re.compile(r"J\d+")


@dataclass(frozen=True)
class JobInput:
    """Where an input came from: a result group of another job."""

    name: str
    job_uid: str
    output: str


@dataclass(frozen=True)
class ImageBatches:
    """Image stacks in running numbers, as Restack Particles and Downsample Particles write them.

    Parameters
    ----------
    kind
        ``restack`` or ``downsample``, the name of the folder too.
    files
        All of them, in the order of their numbers.
    n_from_zero
        How many follow one another from number 0 on, until the first that is missing.
    """

    kind: Literal["restack", "downsample"]
    files: tuple[Path, ...]
    n_from_zero: int


@dataclass(frozen=True)
class CryosparcJob:
    """What a job folder holds.

    Parameters
    ----------
    layout
        ``v4`` or ``v5`` after the form of its job.json, or ``file names`` where it has none that can be read.
    class_averages
        2D class averages of the last iteration, `.mrc`.
    groups
        The `.csg` files.
    problems
        Files that are named and missing, lengths that disagree, in sentences.
    """

    path: Path
    uid: str
    job_type: str
    title: str
    status: str
    version: str
    layout: Literal["v4", "v5", "file names"]
    outputs: tuple[JobOutput, ...]
    inputs: tuple[JobInput, ...] = ()
    class_averages: Path | None = None
    batches: tuple[ImageBatches, ...] = ()
    groups: tuple[Path, ...] = ()
    problems: tuple[Message, ...] = ()


def is_cryosparc_description(content: dict[str, Any]) -> bool:
    """Whether a job.json is cryoSPARC's."""
    if isinstance(content.get("spec"), dict):
        return "outputs" in content["spec"] or "type" in content["spec"]
    return bool({"output_results", "output_result_groups", "input_slot_groups"} & content.keys())


def has_cryosparc_names(listing: Listing) -> bool:
    """Whether the names of a folder and its files are those of a cryoSPARC job."""
    tables = [name for name in listing.files if name.endswith(".cs")]
    if _JOB_NAME.fullmatch(listing.path.absolute().name):
        return bool(tables)
    return any(parse_cs_name(name).job for name in tables)


def read_job(folder: str | os.PathLike[str]) -> CryosparcJob:
    """Describe a job folder.

    Raises
    ------
    FormatError
        If it can't be listed, or is no cryoSPARC job's.
    """
    listing = list_folder(Path(folder))
    problems: list[Message] = []
    content = read_json_of(listing, "job.json", problems, otherwise="the file names are used instead")
    if not is_cryosparc_description(content):
        if not has_cryosparc_names(listing):
            raise FormatError(
                "not a cryoSPARC job: no job.json of cryoSPARC's and no J##_….cs",
                path=listing.path,
                hint="Give the folder of one job, such as J42.",
            )
        content = {}
    layout: Literal["v4", "v5", "file names"] = "file names"
    if content:
        layout = "v5" if "spec" in content else "v4"
        outputs = described_outputs(listing.path, content)
        problems += disagreements(outputs)
    else:
        outputs = named_outputs(listing, problems)
    spec = object_of(content, "spec")
    batches = tuple(_batches(listing, problems))
    return CryosparcJob(
        listing.path,
        text_of(content, "uid") or _uid_from_names(listing),
        text_of(spec, "type") or text_of(content, "job_type", "type"),
        text_of(content, "title"),
        text_of(content, "status"),
        text_of(content, "version", "last_dumped_version"),
        layout,
        outputs,
        _inputs(content),
        _class_averages(listing),
        batches,
        tuple(listing.path / name for name in sorted(listing.files) if name.endswith(".csg")),
        tuple(problems),
    )


def siblings_with(path_of_cs: str | os.PathLike[str], field_prefix: str) -> list[Path]:
    """Return the other `.cs` files of a folder that have a column such as ``location/…``; headers only are read.

    Passthrough files come first, then the latest iterations. Files that can't be read are passed over.

    Parameters
    ----------
    path_of_cs
        The file whose folder is searched.
    field_prefix
        What a column's name starts with.
    """
    path = Path(path_of_cs)
    try:
        names = list_folder(path.parent).files - {path.name}
    except FormatError:
        return []
    found = []
    for item in (parse_cs_name(name) for name in sorted(names) if name.endswith(".cs")):
        try:
            columns = open_cs(path.parent / item.name).names if is_there(path.parent / item.name) else ()
        except CryobridgeError:
            continue
        if any(column.startswith(field_prefix) for column in columns):
            found.append(item)
    found.sort(key=lambda item: (not item.is_passthrough, -iteration_order(item.iteration), item.name))
    return [path.parent / item.name for item in found]


def _inputs(content: dict[str, Any]) -> tuple[JobInput, ...]:
    described: list[tuple[str, dict[str, Any]]] = [
        (text_of(group, "name"), group) for group in objects_of(content, "input_slot_groups")
    ]
    spec_inputs = object_of(object_of(content, "spec"), "inputs")
    described += [(name, group) for name, group in spec_inputs.items() if isinstance(group, dict)]
    return tuple(
        JobInput(name, text_of(connection, "job_uid"), text_of(connection, "group_name", "output"))
        for name, group in described
        for connection in objects_of(group, "connections")
    )


def _uid_from_names(listing: Listing) -> str:
    name = listing.path.absolute().name
    if _JOB_NAME.fullmatch(name):
        return name
    jobs = Counter(parse_cs_name(name).job for name in sorted(listing.files) if name.endswith(".cs"))
    jobs.pop("", None)
    return jobs.most_common(1)[0][0] if jobs else ""


def _class_averages(listing: Listing) -> Path | None:
    items = [parse_cs_name(name.removesuffix(".mrc")) for name in listing.files if name.endswith("_class_averages.mrc")]
    last = max(items, key=lambda item: (iteration_order(item.iteration), item.name), default=None)
    return listing.path / f"{last.name}.mrc" if last else None


def _batches(listing: Listing, problems: list[Message]) -> list[ImageBatches]:
    kinds: tuple[Literal["restack", "downsample"], ...] = ("restack", "downsample")
    found = []
    for kind in kinds:
        if kind not in listing.folders:
            continue
        inner = list_if_there(listing.path / kind)
        matches = {name: match for name in inner.files if (match := _BATCH.fullmatch(name))}
        numbers = {name: int(match["number"]) for name, match in matches.items()}
        missing = gaps(numbers.values())
        if missing:
            text = f"{kind}/: missing batches: {say_ranges(missing, 6)}"
            problems.append(warning("files-missing", text, where=inner.path))
        if numbers:
            files = tuple(inner.path / name for name in sorted(numbers, key=lambda name: (numbers[name], name)))
            n_from_zero = missing[0][0] if missing else max(numbers.values()) + 1
            found.append(ImageBatches(kind, files, n_from_zero))
    return found
