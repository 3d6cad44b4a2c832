"""Finding the particle file that a RECOVAR run was made from, also after the run was copied elsewhere."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError
from cryobridge.formats.image_search import as_given, folders_above
from cryobridge.formats.input_file import read_input
from cryobridge.formats.listing import is_there, list_if_there, read_json, text_of
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.formats.recovar.parts import JobFacts

_SUFFIXES = (".star", ".cs", ".mrcs", ".txt")
_COMMAND_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class ParticleFile:
    """The particle file of a run.

    Parameters
    ----------
    name
        As the run names it; empty where it names none.
    path
        Where it is; None where it was not found.
    messages
        What was assumed in finding it, or where it was looked for.
    """

    name: str
    path: Path | None
    messages: tuple[Message, ...] = ()


def find_particle_file(folder: Path, facts: JobFacts | None) -> ParticleFile:
    """Find the particle file that a pipeline was given.

    The name is that of job.json, model/metadata.json (where the pipeline made the images smaller first) or
    command.txt. It is tried as it stands; then as if the project had been moved as a whole, with the result's folder
    in its old place; then with ever fewer of its leading folders, below the result and the folders above it. After that
    come the images that the pipeline made smaller, whose rows are those of the file, and last a file of the same bare
    name in the folders beside the result, where only one may have it.
    """
    name, source = _name_of(folder, facts)
    if not name:
        return _found("", None, "The run does not name its particle file")
    out = facts.parameters.get("outdir") if facts is not None else None
    for candidate in _candidates(name, folder, out if isinstance(out, str) else ""):
        if is_there(candidate):
            path = Path(os.path.normpath(candidate))
            if path == Path(name) and path.is_absolute():
                return ParticleFile(name, path)
            path = as_given(path, folder)
            return _found(name, path, f"{source} names {name}; {path} was taken for it")
    smaller = _downsampled(folder)
    if len(smaller) == 1:
        text = f"{source} names {name}, which was not found; {smaller[0]} was taken, whose rows are the same"
        return _found(name, smaller[0], text)
    beside = _beside(folder, PurePath(name).name)
    if len(beside) == 1:
        text = f"{source} names {name}, which is not there; {beside[0]}, of the same name, was taken for it"
        return _found(name, beside[0], text)
    if beside:
        text = f"{source} names {name}; {' and '.join(map(str, beside))} may be it, none was taken"
        return _found(name, None, text)
    return _found(name, None, f"{source} names {name}, which was not found, neither there nor near the run")


def _found(name: str, path: Path | None, text: str) -> ParticleFile:
    """Return the particle file with a message: a warning where it was not found."""
    return ParticleFile(name, path, ((warning if path is None else note)("particle-file", text, where=path),))


def _name_of(folder: Path, facts: JobFacts | None) -> tuple[str, str]:
    if facts is not None and (name := text_of(facts.parameters, "particles")):
        return name, "job.json"
    if is_there(folder / "model" / "metadata.json"):
        try:
            if name := text_of(read_json(folder / "model" / "metadata.json"), "original_particles_file"):
                return name, "model/metadata.json"
        except CryobridgeError:
            pass  # reported where the model is described
    return _name_in_command(folder / "command.txt"), "command.txt"


def _name_in_command(path: Path) -> str:
    """Return the first word of a command line that looks like a particle file and belongs to no option."""
    try:
        if not is_there(path) or path.stat().st_size > _COMMAND_MAX_BYTES:
            return ""
        words = shlex.split(read_input(path).decode("utf-8", "replace"), comments=False)
    except (OSError, ValueError):
        return ""
    for before, word in zip(["", *words], words, strict=False):
        if word.endswith(_SUFFIXES) and not word.startswith("-") and not before.startswith("-"):
            return word
    return ""


def _candidates(name: str, folder: Path, out: str) -> Iterator[Path]:
    if PurePath(name).is_absolute():
        yield Path(name)
    if out and PurePath(out).is_absolute() and PurePath(name).is_absolute():
        yield folder.absolute() / os.path.relpath(name, out)
    parts = PurePath(name).parts[1:] if PurePath(name).is_absolute() else PurePath(name).parts
    for start in range(len(parts)):
        for above in folders_above(folder / "job.json"):
            yield above.joinpath(*parts[start:])
    # From the working directory last: it is the reader's, not that of the run.
    yield Path(name).absolute()


def _downsampled(folder: Path) -> list[Path]:
    """Return the particle file of images that the pipeline made smaller, which keeps all rows."""
    try:
        inner = list_if_there(folder / "downsampled")
    except CryobridgeError:
        return []
    return [inner.path / name for name in sorted(inner.files) if name.endswith(".star")]


def _beside(folder: Path, name: str) -> list[Path]:
    parent = as_given(folder.absolute().parent, folder)
    try:
        siblings = sorted(list_if_there(parent).folders)
    except CryobridgeError:
        return []
    return [parent / sibling / name for sibling in siblings if is_there(parent / sibling / name)]
