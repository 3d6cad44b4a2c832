"""The results of a cryoSPARC job: out of its job.json, or out of the names of its files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryobridge.errors import FormatError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.csg import locate_in_project
from cryobridge.formats.cryosparc.names import Iteration, group_by_name, is_excluded, kind_of, parse_cs_name
from cryobridge.formats.listing import Listing, int_of, is_there, list_of, object_of, objects_of, text_of
from cryobridge.report import Message, warning


@dataclass(frozen=True)
class JobSlot:
    """One column group of a result, in its last iteration.

    Parameters
    ----------
    name
        ``blob``, ``alignments3D`` …
    type
        Such as ``particle.blob``.
    metafile
        The `.cs` file, or None where the job has not written one.
    """

    name: str
    type: str
    metafile: Path | None
    num_items: int | None
    iteration: Iteration
    is_passthrough: bool


@dataclass(frozen=True)
class JobOutput:
    """One result group of a job.

    Parameters
    ----------
    name
        Such as ``particles``, ``particles_class_0`` or ``particles_selected``.
    kind
        ``particle``, ``exposure``, ``volume``, ``template``, ``mask`` …
    main
        The `.cs` file with the columns that the job computed.
    passthroughs
        The other `.cs` files of the group, to be joined on uid.
    num_items
        Rows, as the job says, or the file's header where it does not.
    iteration
        The iteration that was taken: the last.
    is_excluded
        Whether it is what the job threw out.
    slots
        The column groups; empty where only file names were there to read.
    """

    name: str
    kind: str
    title: str
    main: Path | None
    passthroughs: tuple[Path, ...]
    num_items: int | None
    iteration: Iteration
    is_excluded: bool
    slots: tuple[JobSlot, ...] = ()


def described_outputs(folder: Path, content: dict[str, Any]) -> tuple[JobOutput, ...]:
    """Read the results out of a job.json of either layout: v5 has a ``spec``, v4 lists results and groups apart."""
    if "spec" in content:
        described = object_of(object_of(content, "spec"), "outputs")
        return tuple(
            _output(folder, name, group, objects_of(group, "results"), "dtype")
            for name, group in described.items()
            if isinstance(group, dict)
        )
    groups = {text_of(group, "name"): group for group in objects_of(content, "output_result_groups")}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in groups}
    for result in objects_of(content, "output_results"):
        results.setdefault(text_of(result, "group_name"), []).append(result)
    return tuple(_output(folder, name, groups.get(name, {}), own, "type") for name, own in results.items())


def _output(folder: Path, name: str, group: dict[str, Any], results: list[dict[str, Any]], type_key: str) -> JobOutput:
    slots = tuple(_slot(folder, result, type_key) for result in results)
    computed = Counter(slot.metafile for slot in slots if slot.metafile and not slot.is_passthrough)
    main = computed.most_common(1)[0][0] if computed else None
    others = dict.fromkeys(slot.metafile for slot in slots if slot.metafile and slot.metafile != main)
    lead = next((slot for slot in slots if slot.metafile == main), None)
    kind = text_of(group, "type") or next((slot.type.split(".")[0] for slot in slots if slot.type), "")
    num_items = int_of(group.get("num_items"))
    return JobOutput(
        name,
        kind or kind_of(name),
        text_of(group, "title"),
        main,
        tuple(others),
        lead.num_items if lead and lead.num_items is not None else num_items,
        lead.iteration if lead else None,
        is_excluded(name),
        slots,
    )


def _slot(folder: Path, result: dict[str, Any], type_key: str) -> JobSlot:
    """Take a result's last version; versions, metafiles and num_items are parallel lists."""
    files = [item if isinstance(item, str) else "" for item in list_of(result, "metafiles")]
    versions = [int_of(item) for item in list_of(result, "versions")]
    counts = list_of(result, "num_items") or [result.get("num_items")]
    last = max(range(len(files)), key=lambda at: (_version_at(versions, at), at), default=-1)
    written = files[last] if files else ""
    iteration: Iteration = versions[last] if 0 <= last < len(versions) else None
    if iteration is None and written:
        iteration = parse_cs_name(Path(written).name).iteration
    return JobSlot(
        text_of(result, "name"),
        text_of(result, type_key),
        locate_in_project(folder, written) if written else None,
        int_of(counts[last]) if -1 <= last < len(counts) else None,
        iteration,
        result.get("passthrough") is True,
    )


def _version_at(versions: list[int | None], at: int) -> int:
    version = versions[at] if at < len(versions) else None
    return -1 if version is None else version


def disagreements(outputs: tuple[JobOutput, ...]) -> list[Message]:
    """Compare what job.json says with the headers of the files."""
    problems: list[Message] = []
    for output in outputs:
        for path in (output.main, *output.passthroughs):
            if path is None:
                continue
            if not is_there(path):
                problems.append(warning("file-not-found", f"{output.name}: {path} does not exist", where=path))
                continue
            try:
                n_rows = open_cs(path).n_rows
            except FormatError as error:
                problems.append(warning("file-not-read", f"{output.name}: {error}", where=path))
                continue
            promised = {slot.num_items for slot in output.slots if slot.metafile == path} - {None, n_rows}
            texts = (
                f"{output.name}: job.json says {count:,} row{'' if count == 1 else 's'}, {path.name} has {n_rows:,}"
                for count in promised
            )
            problems += [warning("rows-differ", text, where=path) for text in texts]
    return problems


def named_outputs(listing: Listing, problems: list[Message]) -> tuple[JobOutput, ...]:
    """Read the results off the file names of a folder; problems are added to ``problems``."""
    outputs = []
    for group in group_by_name(name for name in listing.files if name.endswith(".cs")):
        first = group.main or group.passthroughs[0]
        num_items = None
        try:
            num_items = open_cs(listing.path / first.name).n_rows
        except FormatError as error:
            problems.append(warning("file-not-read", f"{group.name}: {error}", where=listing.path / first.name))
        outputs.append(
            JobOutput(
                group.name,
                kind_of(group.name),
                "",
                listing.path / group.main.name if group.main else None,
                tuple(listing.path / item.name for item in group.passthroughs),
                num_items,
                group.main.iteration if group.main else None,
                is_excluded(group.name),
            )
        )
        numbers = [iteration for iteration in group.iterations if isinstance(iteration, int)]
        if len(numbers) != len(set(numbers)):
            text = f"{group.name}: an iteration has two files; the one whose name sorts last is taken"
            problems.append(warning("iteration-repeated", text, where=listing.path))
    return tuple(outputs)
