from __future__ import annotations

import numpy as np
import pytest

from cryobridge.errors import MissingDataError
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.relion.star import StarBlock


@pytest.fixture
def table(tmp_path):
    columns = {
        "uid": np.array([2**63 + 5, 7], "u8"),
        "blob/shape": np.array([[64, 96], [64, 96]], "u4"),
        "blob/path": ["b.mrc", "a.mrc"],
    }
    write_cs(tmp_path / "x.cs", columns)
    return open_cs(tmp_path / "x.cs")


def test_a_notebook_gets_a_frame_with_texts_and_a_column_for_each_element_of_a_vector(table):
    frame = table.to_pandas()
    assert list(frame.columns) == ["uid", "blob/shape[0]", "blob/shape[1]", "blob/path"]
    assert frame["uid"].dtype == np.uint64
    assert frame["uid"].tolist() == [2**63 + 5, 7]
    assert frame["blob/shape[1]"].tolist() == [96, 96]
    assert frame["blob/path"].tolist() == ["b.mrc", "a.mrc"]


def test_a_star_block_gives_a_frame_too():
    block = StarBlock.from_columns("particles", {"rlnDefocusU": [1.5, 2.5], "rlnImageName": ["1@a", "2@a"]})
    frame = block.to_pandas()
    assert frame["rlnDefocusU"].tolist() == [1.5, 2.5]
    assert frame["rlnImageName"].tolist() == ["1@a", "2@a"]


def test_a_column_that_is_not_there_is_named_with_those_that_are(table):
    with pytest.raises(MissingDataError, match="no column ctf/df1_A") as caught:
        table.read(["uid", "ctf/df1_A"])
    assert "blob/shape" in caught.value.hint


def test_a_table_shows_its_file_and_size(table):
    assert repr(table) == "CsNpyFile('x.cs': 2 rows, 3 columns)"
