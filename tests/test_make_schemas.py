"""The schemas of `--json` are derived from the report classes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import jsonschema
import pytest

from cryobridge.jobs.inspection.describe import _FILES, _FOLDERS
from cryobridge.jobs.inspection.json_keys import KEYS_OF_KIND
from cryobridge.report import Report, warning

DOCS = Path(__file__).resolve().parents[1] / "docs"
_spec = importlib.util.spec_from_file_location("make_schemas", DOCS / "make_schemas.py")
make_schemas = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_schemas)


@dataclass(frozen=True)
class Part:
    """A part.

    Parameters
    ----------
    place, shift_A
        Where it is, and by how much
        it is shifted.
    """

    place: Path
    shift_A: float


@dataclass(frozen=True, kw_only=True)
class MadeUp(Report):
    """Made up.

    Parameters
    ----------
    mode
        One of ``fast`` and ``slow``.

    Examples
    --------
    mode
        Not this one.
    """

    mode: Literal["fast", "slow"] | None
    parts: tuple[Part, ...]
    best: Part | None = None
    pair: tuple[int, str] = (1, "a")
    counts: Mapping[str, int | None] = field(default_factory=dict)
    anything: Any = None
    hidden: int = field(default=0, metadata={"json": None})
    renamed: bool = field(default=False, metadata={"json": "is_new"})


class Optional(TypedDict, total=False):
    first: int


def report(**changes):
    given = {"rows_in": 3, "rows_out": 2, "left_out": {"bad": 1}, "mode": "fast", "parts": (Part(Path("a"), 0.5),)}
    return MadeUp(**{**given, "messages": (warning("odd", "something is odd"),), **changes}).to_json()


def valid(data):
    schema = make_schemas.schema_of(MadeUp)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid(data)


@pytest.mark.parametrize(
    "changes",
    [{}, {"mode": None}, {"best": Part(Path("b"), float("nan"))}, {"counts": {"a": 1, "b": None}}, {"anything": [1]}],
)
def test_what_a_report_gives_fits_its_schema(changes):
    assert valid(report(**changes))


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "other"},
        {"rows_in": "3"},
        {"parts": [{"place": "a"}]},
        {"parts": [{"place": "a", "shift_A": 1, "more": 2}]},
        {"pair": [1, "a", 2]},
        {"pair": [1]},
        {"rows_in": -1},
        {"left_out": {"bad": -1}},
        {"counts": {"a": "1"}},
        {"is_new": 1},
        {"unknown": 1},
        {"warnings": [{"code": "a"}]},
    ],
)
def test_what_is_of_another_type_does_not(change):
    assert not valid({**report(), **change})


def test_a_missing_key_does_not():
    data = report()
    del data["notes"]
    assert not valid(data)


def test_descriptions_come_from_the_docstrings_of_a_class_and_its_bases():
    properties = make_schemas.schema_of(MadeUp)["properties"]
    assert properties["mode"]["description"] == "One of fast and slow."
    assert properties["rows_in"]["description"].startswith("Rows of the input")
    part = properties["parts"]["items"]["properties"]
    assert part["shift_A"] == {
        "type": ["number", "null"],
        "description": "Where it is, and by how much it is shifted.",
    }


@pytest.mark.parametrize("name", make_schemas.SCHEMAS)
def test_the_schemas_are_those_of_the_reports(name):
    written = json.loads((DOCS / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert written == make_schemas.command_schema(name), "run docs/make_schemas.py"


def test_no_schema_is_written_by_hand():
    assert {path.name for path in (DOCS / "schemas").iterdir()} == {
        f"{name}.schema.json" for name in make_schemas.SCHEMAS
    }


def test_the_keys_of_every_kind_that_inspect_knows_are_declared():
    assert set(KEYS_OF_KIND) == {*_FILES, *_FOLDERS}


@pytest.mark.parametrize(
    ("kind", "value", "is_valid"),
    [
        (int, -1, False),
        (float | int | None, -1, True),
        (int | None, None, True),
        (int | None, -1, False),
        (float | str | None, "nan", True),
        (Optional, {"first": 1}, True),
        (Optional, {}, True),
        (Optional, {"first": "a"}, False),
        (Optional, {"other": 1}, False),
    ],
)
def test_plain_types_and_dictionaries(kind, value, is_valid):
    assert jsonschema.Draft202012Validator(make_schemas.schema_of(kind)).is_valid(value) == is_valid
