"""Write docs/schemas/ from the report classes: types from their annotations, descriptions from their docstrings.

A whole number of a report is a count, the number of something, or a seed: its minimum is 0. What may be negative is a
float.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from cryobridge.jobs.inspection.json_keys import KEYS_OF_KIND, InspectionKeys
from cryobridge.report import Message, Report, json_key

FOLDER = Path(__file__).resolve().parent / "schemas"
# Name of the schema -> the report, and the classes that its annotations name without importing them.
REPORTS = {
    "convert": ("cryobridge.jobs.convert.report:ConvertReport", []),
    "coords": ("cryobridge.jobs.coords.report:CoordsReport", []),
    "micrographs": ("cryobridge.jobs.exposures.report:MicrographsReport", []),
    "select": ("cryobridge.jobs.selection.report:SelectReport", []),
    "merge": ("cryobridge.jobs.merge.report:MergeReport", []),
    "stacks": ("cryobridge.jobs.stacks.report:StacksReport", []),
    "stacks-grid": ("cryobridge.jobs.stacks.report:GridReport", []),
    "stacks-downsample": ("cryobridge.jobs.stacks.report:DownsampleReport", []),
    "converge": ("cryobridge.jobs.converge.report:ConvergeReport", []),
    "converge-jobs": ("cryobridge.jobs.converge.files:FoundJobs", []),
    "demo": ("cryobridge.demo.report:DemoReport", ["cryobridge.demo.project:DemoProject"]),
}
SCHEMAS = (*REPORTS, "inspect")
_COMMANDS = {
    "stacks": "stacks cs, star, job and paired",
    "stacks-grid": "stacks grid",
    "stacks-downsample": "stacks downsample",
    "converge-jobs": "converge PROJECT",
}
_PLAIN: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    # What JSON does not know, such as NaN, becomes null.
    float: {"type": ["number", "null"]},
    str: {"type": "string"},
    Path: {"type": "string"},
    type(None): {"type": "null"},
    Any: {},
    object: {},
}


def command_schema(name: str) -> dict[str, Any]:
    """Return the schema of what a command prints with ``--json``."""
    title = f"cryobridge {_COMMANDS.get(name, name)} --json"
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    if name == "inspect":
        return {**head, "type": "array", "items": _inspection(), "minItems": 1, "description": "One object a path."}
    report, named = REPORTS[name]
    known = {kind.__name__: kind for kind in map(_imported, named)}
    return {**head, **schema_of(_imported(report), known)}


def _inspection() -> dict[str, Any]:
    """Return the schema of one file or folder: the keys that all have, and those of its kind."""
    schema = schema_of(InspectionKeys)
    schema["properties"]["kind"] |= {"enum": list(KEYS_OF_KIND)}
    conditions = []
    for kinds, keys in _kinds_by_keys().items():
        special = [schema_of(item) for item in keys]
        schema["properties"] |= {key: value for item in special for key, value in item["properties"].items()}
        required = [key for item in special for key in item["required"]]
        conditions.append({"if": {"properties": {"kind": {"enum": list(kinds)}}}, "then": {"required": required}})
    return {**schema, "allOf": conditions}


def _kinds_by_keys() -> dict[tuple[str, ...], tuple[type, ...]]:
    """Return which kinds have the same keys."""
    kinds: dict[tuple[type, ...], list[str]] = {}
    for kind, keys in KEYS_OF_KIND.items():
        kinds.setdefault(keys, []).append(kind)
    return {tuple(names): keys for keys, names in kinds.items()}


def schema_of(kind: Any, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON schema of a type, as `cryobridge.report.jsonable` writes its values.

    Parameters
    ----------
    kind
        A dataclass, ``TypedDict``, ``Literal``, union, container, or a plain type.
    known
        Classes by name, for annotations that name what their module does not import.

    Raises
    ------
    TypeError
        If it is none of these.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if is_dataclass(kind):
        return _object(kind, known or {})
    if is_typeddict(kind):
        return _dictionary(kind)
    if origin is Annotated:
        return schema_of(parts[0], known)
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, types.UnionType):
        return _either([schema_of(part, known) for part in parts])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(parts[1], known)}
    if origin is tuple and parts[-1:] != (Ellipsis,):
        return {"type": "array", "prefixItems": [schema_of(part, known) for part in parts], **_as_many(parts)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": schema_of(parts[0], known)}
    raise TypeError(f"{kind} has no JSON schema")


def _object(kind: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind, localns=dict(known), include_extras=True)
    texts = descriptions(kind)
    properties: dict[str, Any] = {}
    for item in fields(kind):
        key = json_key(item)
        if issubclass(kind, Report) and item.name == "messages":
            messages = {"type": "array", "items": schema_of(Message)}
            properties |= {
                "notes": {**messages, "description": "What was assumed or done."},
                "warnings": {**messages, "description": "What may make the result wrong or unusable."},
            }
        elif key is not None:
            text = texts.get(item.name)
            properties[key] = schema_of(hints[item.name], known) | ({"description": text} if text else {})
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _dictionary(kind: Any) -> dict[str, Any]:
    texts = descriptions(kind)
    properties = {
        key: schema_of(hint) | ({"description": texts[key]} if key in texts else {})
        for key, hint in get_type_hints(kind).items()
    }
    required = [key for key in properties if key in kind.__required_keys__]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _as_many(parts: Sequence[Any]) -> dict[str, Any]:
    return {"items": False, "minItems": len(parts)}


def _either(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of one of several; plain types are listed in one."""
    if any("number" in _listed(schema.get("type")) for schema in schemas):
        schemas = [schema for schema in schemas if schema.get("type") != "integer"]  # which is a number
    kinds = [schema for schema in schemas if set(schema) == {"type"}]
    names = list(dict.fromkeys(name for schema in kinds for name in _listed(schema["type"])))
    others = [schema for schema in schemas if schema not in kinds]
    if others == [] or {} in others:
        return {} if others else {"type": names if len(names) > 1 else names[0]}
    if len(others) == 1 and "type" in others[0]:
        return others[0] | {"type": [*_listed(others[0]["type"]), *names]}
    return {"anyOf": [*others, {"type": names if len(names) > 1 else names[0]}] if names else others}


def _listed(kind: Any) -> list[str]:
    return kind if isinstance(kind, list) else [kind]


def descriptions(kind: type) -> dict[str, str]:
    """Return what the ``Parameters`` and ``Attributes`` of the docstrings of a class and its bases say of each name."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for section in re.split(r"\n\n(?=\s*\w+\n\s*---)", f"\n\n{_dedented(base.__dict__.get('__doc__') or '')}"):
            title, _, body = section.strip("\n").partition("\n")
            if title not in {"Parameters", "Attributes"}:
                continue
            for names, text in re.findall(r"^(\w[\w, ]*)\n((?: {4}.*\n?|\n)+)", body, re.MULTILINE):
                found |= dict.fromkeys(names.split(", "), _sentence(text))
    return found


def _dedented(text: str) -> str:
    import inspect

    return inspect.cleandoc(text)


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("``", "").replace("`", "")


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Write every schema."""
    for name in SCHEMAS:
        text = json.dumps(command_schema(name), indent=2, ensure_ascii=False)
        (FOLDER / f"{name}.schema.json").write_text(f"{text}\n", encoding="utf-8")
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
