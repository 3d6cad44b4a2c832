"""A plan on the disk, as JSON and arrays: workers of a cluster read it from there, each the pages that it needs.

Nothing in it is run when it is read: it names dataclasses of cryobridge, which are made of the values beside the names.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.input_file import read_error, read_input
from cryobridge.jobs.output_folder import make_subfolder
from cryobridge.jobs.stacks.plan import StackPlan
from cryobridge.version import __version__

if TYPE_CHECKING:
    from cryobridge.formats.table import Array

_PREFIX = ".plan-"
_CONTENT = "plan.json"
# All of them in one file: there may be more stacks than files that a process can map.
_ARRAYS = "arrays.bin"
_ALIGNED_BYTES = 64
_CLASS = re.compile(r"(cryobridge(?:\.\w+)+):(\w+)")
_N_HEX = 16


@contextmanager
def stored_plan(plan: StackPlan[Any], folder: Path) -> Iterator[tuple[Path, str]]:
    """Write a plan under the output folder while it is carried out.

    Yields
    ------
    pathlib.Path
        Its folder, absolute.
    str
        Its fingerprint, by which a worker knows that it has read this plan.

    Raises
    ------
    CryobridgeError
        If the operating system refuses.
    """
    arrays: list[Array] = []
    content: dict[str, Any] = {"version": __version__, "plan": _as_json(plan.for_workers(), arrays)}
    digest = hashlib.sha256(json.dumps(content).encode())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    fingerprint = digest.hexdigest()
    place = folder.absolute() / f"{_PREFIX}{fingerprint[:_N_HEX]}"
    remove_stored_plans(folder)
    make_subfolder(place)
    try:
        with atomic_path(place / _ARRAYS) as temporary:
            content |= {"fingerprint": fingerprint, "arrays": _write_arrays(temporary, arrays)}
        # Last: where it is, all is.
        with atomic_path(place / _CONTENT) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        yield place, fingerprint
    finally:
        shutil.rmtree(place, ignore_errors=True)


def remove_stored_plans(folder: Path) -> None:
    """Remove the plan that a killed run left; for who has the folder for himself, as there is one at a time."""
    for left in folder.glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def read_plan(place: Path, fingerprint: str) -> StackPlan[Any]:
    """Return the plan that `stored_plan` wrote.

    Raises
    ------
    FormatError
        If it is another plan, of another version of cryobridge, or can't be read.
    """
    path = place / _CONTENT
    try:
        content = json.loads(read_input(path))
    except OSError as error:
        raise read_error(path, error) from error
    except ValueError as error:
        raise FormatError("is no plan", path=path, hint="Start the run again.") from error
    if content.get("version") != __version__:
        raise FormatError(
            f"the plan is of cryobridge {content.get('version')}, and this worker has {__version__}",
            path=path,
            hint="Install the same version everywhere.",
        )
    if content.get("fingerprint") != fingerprint:
        raise FormatError("this is another plan", path=path, hint="Start the run again.")
    plan = _from_json(content["plan"], _mapped_arrays(place / _ARRAYS, content["arrays"]), path)
    assert isinstance(plan, StackPlan)
    return plan


def _as_json(value: Any, arrays: list[Array]) -> Any:
    """Return a value as JSON; arrays are put into a list, and their places there stand for them."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind not in "OV":
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.dtype):
        return {"dtype": value.str}
    if isinstance(value, Path):
        return {"path": str(value.absolute())}
    if isinstance(value, Mapping):
        return {"map": [[_as_json(key, arrays), _as_json(item, arrays)] for key, item in value.items()]}
    if isinstance(value, tuple | list):
        return [_as_json(item, arrays) for item in value]
    if isinstance(value, frozenset):
        return {"set": [_as_json(item, arrays) for item in sorted(value)]}
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        content = {item.name: _as_json(getattr(value, item.name), arrays) for item in fields(value)}
        return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": content}
    raise TypeError(f"{type(value).__name__} has no place in a plan")


def _write_arrays(path: Path, arrays: Sequence[Array]) -> list[tuple[int, str, tuple[int, ...]]]:
    """Write arrays one after the other; return where each begins, its type and its shape."""
    places = []
    with path.open("wb") as file:
        for array in arrays:
            places.append((file.tell(), array.dtype.str, array.shape))
            file.write(np.ascontiguousarray(array).data)
            file.write(bytes(-array.nbytes % _ALIGNED_BYTES))
        # Of an empty file there is nothing to map.
        file.write(bytes(_ALIGNED_BYTES))
    return places


def _mapped_arrays(path: Path, places: Iterable[tuple[int, str, Sequence[int]]]) -> list[Array]:
    try:
        content = np.asarray(np.memmap(path, np.uint8, mode="r"))
    except OSError as error:
        raise read_error(path, error) from error
    return [np.ndarray(tuple(shape), dtype, content, offset) for offset, dtype, shape in places]


def _from_json(value: Any, arrays: Sequence[Array], path: Path) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(item, arrays, path) for item in value)
    if not isinstance(value, dict):
        return value
    match value:
        case {"array": int(number)}:
            return arrays[number]
        case {"dtype": str(text)}:
            return np.dtype(text)
        case {"path": str(text)}:
            return Path(text)
        case {"map": list(items)}:
            return {_from_json(key, arrays, path): _from_json(item, arrays, path) for key, item in items}
        case {"set": list(items)}:
            return frozenset(_from_json(item, arrays, path) for item in items)
        case {"class": str(name), "fields": dict(content)}:
            made = {key: _from_json(item, arrays, path) for key, item in content.items()}
            return _class(name, path)(**made)
    raise FormatError("is no plan", path=path, hint="Start the run again.")


def _class(name: str, path: Path) -> Any:
    found = _CLASS.fullmatch(name)
    kind = None if found is None else getattr(importlib.import_module(found[1]), found[2], None)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise FormatError(f"{name:.80} has no place in a plan", path=path, hint="Start the run again.")
    return kind
