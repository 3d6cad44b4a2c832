"""Errors are ValueErrors, and readers that catch ValueError pass them on as they are."""

from __future__ import annotations

import inspect
import pickle
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

import cryobridge as cb
from cryobridge import errors
from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats import listing
from cryobridge.formats.cryosparc import csg
from cryobridge.formats.recovar import analysis
from cryobridge.jobs.identity.sources import read_sources


def test_all_errors_are_value_errors():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert CryobridgeError in kinds
    assert all(issubclass(kind, ValueError) and issubclass(kind, CryobridgeError) for kind in kinds)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python shows notes from 3.11 on")
def test_python_shows_what_to_do_next_below_an_error_that_nobody_catches():
    error = errors.UsageError("the box is odd", option="box_px", hint=f"Give {errors.option('box_px', 48)}.")
    shown = traceback.format_exception_only(error)
    assert "".join(shown).splitlines()[-2:] == [
        "cryobridge.errors.UsageError: box_px: the box is odd",
        "Give box_px=48.",
    ]
    error.add_hint("Or leave it out.")
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again):
        assert traceback.format_exception_only(one)[-1] == "Give box_px=48. Or leave it out.\n"
    assert str(error) == "box_px: the box is odd"
    assert not hasattr(CryobridgeError("a"), "__notes__")


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_that_is_too_large_is_not_called_damaged(tmp_path, monkeypatch):
    path = _written(tmp_path / "a", "{}")
    monkeypatch.setattr(listing, "_JSON_MAX_BYTES", 1)
    monkeypatch.setattr(csg, "_MAX_BYTES", 1)
    monkeypatch.setattr(analysis, "_TABLE_MAX_BYTES", 1)
    for read in (listing.read_json, csg.read_csg, analysis._read_table):
        with pytest.raises(FormatError, match="larger than"):
            read(path)


def test_what_is_wrong_with_one_name_is_said_of_it(tmp_path):
    with pytest.raises(CryobridgeError, match="a path is needed, not int"):
        cb.stacks([(3, "a.mrc")], tmp_path / "out")
    table = _written(tmp_path / "sources.csv", "image,source_file,source_slice,source_row,uid\nx,a.mrc,0,0,1\n")
    with pytest.raises(FormatError, match="'x'"):
        read_sources(table)


def test_an_archive_that_is_refused_keeps_its_reason(tmp_path, monkeypatch):
    from cryobridge.formats import arrays, input_file

    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    monkeypatch.setattr(input_file, "_UNPACKED_FREE_BYTES", 0)
    monkeypatch.setattr(input_file, "_UNPACKED_RATIO", 0)
    with pytest.raises(FormatError, match="zip bomb") as caught:
        arrays.read_npz(tmp_path / "a.npz")
    assert "damaged" not in str(caught.value)
