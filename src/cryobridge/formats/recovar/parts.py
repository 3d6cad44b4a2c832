"""What RECOVAR's pipeline, analyses and densities have in common: job.json, volumes, and pickles of bounded size."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cryobridge.errors import CryobridgeError
from cryobridge.formats.listing import Listing, float_of, is_there, object_of, read_json_of, text_of
from cryobridge.formats.mrc import MrcFile, open_mrc
from cryobridge.formats.mrc_header import read_header
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

# A summary of a folder does not read what takes longer than a moment.
PICKLE_MAX_BYTES = 256 << 20

_Content = TypeVar("_Content")
_NUMBERED = re.compile(
    r"(?P<kind>center|state|vol)(?P<index>\d{1,9})(?:_half(?P<half>[12])_unfil|(?P<raw>_unfil))?\.mrc"
)
_NUMBERED_KINDS = {"center": "center", "state": "trajectory state", "vol": "volume"}
# Headers hold the length of the box in float32.
_VOXEL_TOLERANCE = 1e-3
_PIPELINE_VOLUMES = (
    (re.compile(r"mean\.mrc"), "mean"),
    (re.compile(r"mean_filt\.mrc"), "filtered mean"),
    (re.compile(r"mean_half(?P<half>[12])_unfil\.mrc"), "half map"),
    (re.compile(r"(?:.+_)?mask\.mrc"), "mask"),
    (re.compile(r"eigen_pos(?P<index>\d{1,9})\.mrc"), "eigenvolume"),
    (re.compile(r"variance(?P<index>\d{1,9})\.mrc"), "variance"),
)


@dataclass(frozen=True)
class JobFacts:
    """What a job.json of RECOVAR says; empty or None where it does not.

    Parameters
    ----------
    command
        ``pipeline``, ``analyze``, ``estimate_conformational_density`` …
    pipeline_folder
        The result that an analysis was made from, as it was called on the machine that made it.
    parameters
        The command's options.
    outputs
        The files that it wrote, relative to its folder.
    """

    version: str
    status: str
    command: str
    command_line: str
    started: str
    completed: str
    duration_s: float | None
    pipeline_folder: str
    parameters: dict[str, Any]
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """A map.

    Parameters
    ----------
    kind
        ``mean``, ``filtered mean``, ``half map``, ``mask``, ``eigenvolume``, ``variance``, ``center``,
        ``trajectory state`` or ``volume``.
    index
        Its number: of the eigenvolume, center or state, or how many eigenvolumes a variance is made of.
    half
        1 or 2 for the map of a half set.
    is_unfiltered
        Whether it was left as reconstructed.
    """

    path: Path
    kind: str
    index: int | None = None
    half: int | None = None
    is_unfiltered: bool = False

    def open(self) -> MrcFile:
        """Open the map; its pixels are read when they are asked for.

        Raises
        ------
        FormatError
            If it can't be read, or is cut off.
        """
        return open_mrc(self.path)


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What a pipeline's model says that its maps, analyses and densities must agree with.

    Parameters
    ----------
    volume_shape, voxel_size_A
        Of all maps; empty and None where not known.
    n_coordinates
        Number of latent coordinates by latent dimension.
    rows
        (n,) rows of the particle file that the run used, ascending; None where not known.
    """

    volume_shape: tuple[int, ...] = ()
    voxel_size_A: float | None = None
    n_coordinates: Mapping[int, int] = field(default_factory=dict)
    rows: NDArray[np.int64] | None = None


def facts_of(content: dict[str, Any]) -> JobFacts:
    """Take what is known out of a job.json; nothing in it is required."""
    timing = object_of(content, "timing")
    duration = timing.get("duration_seconds")
    return JobFacts(
        text_of(content, "recovar_version"),
        text_of(content, "status"),
        text_of(content, "command"),
        text_of(content, "command_line"),
        text_of(timing, "started_at"),
        text_of(timing, "completed_at"),
        float_of(duration),
        text_of(object_of(content, "provenance"), "pipeline_result_dir"),
        object_of(content, "parameters"),
        tuple(name for names in object_of(content, "outputs").values() for name in _texts(names)),
    )


def absent_outputs(folder: Path, facts: JobFacts | None) -> tuple[str, ...]:
    """Return the files that job.json says were written and that are not there any more."""
    return tuple(name for name in (facts.outputs if facts is not None else ()) if not is_there(folder / name))


def read_facts(listing: Listing, problems: list[Message]) -> JobFacts | None:
    """Read the job.json of a folder; None where there is none, and a broken one is added to the problems."""
    content = read_json_of(listing, "job.json", problems)
    return facts_of(content) if content else None


def first_there(folder: Path, *names: str) -> Path | None:
    """Return the first of these files that the folder has."""
    return next((folder / name for name in names if is_there(folder / name)), None)


def pipeline_volumes(listing: Listing) -> tuple[Volume, ...]:
    """Sort the maps of ``output/volumes`` by kind and number; names that are not known are of the kind volume."""
    volumes = []
    for name in sorted(listing.files):
        if not name.endswith(".mrc"):
            continue
        path = listing.path / name
        for pattern, kind in _PIPELINE_VOLUMES:
            if match := pattern.fullmatch(name):
                found = match.groupdict()
                volumes.append(Volume(path, kind, _int(found.get("index")), _int(found.get("half")), "unfil" in name))
                break
        else:
            volumes.append(Volume(path, "volume"))
    order = {kind: place for place, (_, kind) in enumerate(_PIPELINE_VOLUMES)}
    return tuple(
        sorted(volumes, key=lambda volume: (order.get(volume.kind, len(order)), volume.index or 0, volume.path.name))
    )


def numbered_volumes(listing: Listing, kind: str | None = None) -> tuple[Volume, ...]:
    """Sort the maps of k-means centers or of a trajectory, by number; ``kind`` overrides what their names say."""
    volumes = []
    for name in listing.files:
        if match := _NUMBERED.fullmatch(name):
            volumes.append(
                Volume(
                    listing.path / name,
                    kind or _NUMBERED_KINDS[match["kind"]],
                    int(match["index"]),
                    _int(match["half"]),
                    match["half"] is not None or match["raw"] is not None,
                )
            )
    return tuple(sorted(volumes, key=lambda volume: (volume.index or 0, volume.path.name)))


def filtered_maps(volumes: Iterable[Volume]) -> tuple[Volume, ...]:
    """Return the maps that are a result: neither those of half sets nor those left as reconstructed."""
    return tuple(volume for volume in volumes if volume.half is None and not volume.is_unfiltered)


def volume_problems(volumes: Iterable[Volume], model: ModelFacts) -> list[Message]:
    """Say what is wrong with the headers of maps: no voxel size, cut off, another box or voxel than the model's."""
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for volume in volumes:
        for problem in _header_problems(volume.path, model):
            counts[problem] += 1
            example.setdefault(problem, volume.path.name)
    texts = (
        f"{example[problem]}{f' and {count - 1} more maps' if count > 1 else ''}: {problem}"
        for problem, count in counts.items()
    )
    return [warning("map-header", text) for text in texts]


def read_bounded(path: Path, read: Callable[[Path], _Content], problems: list[Message]) -> _Content | None:
    """Read a file unless it is large; what goes wrong is added to the problems, and then the content is None."""
    try:
        size = path.stat().st_size
        if size > PICKLE_MAX_BYTES:
            text = f"{path.name} was not read: it is {size >> 20} MiB large"
            problems.append(warning("file-not-read", text, where=path))
            return None
        return read(path)
    except OSError as error:
        text = f"{path.name} can't be read ({error.strerror or error})"
        problems.append(warning("file-not-read", text, where=path))
    except CryobridgeError as error:
        problems.append(warning("file-not-read", str(error), where=path))
    return None


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _header_problems(path: Path, model: ModelFacts) -> list[str]:
    try:
        header = read_header(path)
    except CryobridgeError as error:
        return [error.message]
    problems = []
    if None in header.pixel_size_xyz_A:
        problems.append("the voxel size in its header is 0")
    elif model.voxel_size_A and any(
        abs(size - model.voxel_size_A) > _VOXEL_TOLERANCE * model.voxel_size_A
        for size in header.pixel_size_xyz_A
        if size
    ):
        sizes = dict.fromkeys(f"{size:g}" for size in header.pixel_size_xyz_A if size)
        problems.append(f"its voxel size, {' × '.join(sizes)} Å, is not the model's, {model.voxel_size_A:g} Å")
    if header.whole_sections is not None and header.whole_sections < header.nz:
        problems.append("it is cut off")
    shape = (header.nz, header.ny, header.nx)
    if model.volume_shape and shape != model.volume_shape:
        problems.append(f"its size {shape} is not the model's {model.volume_shape}")
    return problems
