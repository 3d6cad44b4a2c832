import json
import math
import os
import re
import struct

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.formats.relion import star_text
from cryobridge.formats.relion.star import StarBlock, open_star, to_labels
from cryobridge.formats.relion.star_text import quote, split_tokens
from cryobridge.formats.relion.star_write import write_star
from cryobridge.formats.table import Column
from cryobridge.model.particles import Labels
from helpers import texts
from relion_grammar import GrammarError, read_block, tokens_of

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnImagePixelSize #4
_rlnImageSize #5
           1 opticsGroup1   300.000000     1.310000          256
           2 "second group" 200.000000     1.1e+00           128

"""
PARTICLES = """
# version 30001

data_particles

loop_
_rlnImageName #1
_rlnDefocusU #2
_rlnOpticsGroup #3
000001@a.mrcs 13108.082418            1
000002@a.mrcs -1.5e+04            2
1@b.mrcs   12730.825404            1

"""


@pytest.fixture
def save(tmp_path):
    def _save(text, name="particles.star"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _save


def loop(labels, *rows, name="particles"):
    return "\n".join([f"data_{name}", "", "loop_", *(f"_{label}" for label in labels), *rows, "", ""])


def values_of(block):
    read = block.read(block.names)
    return {name: column.to_numpy().tolist() if isinstance(column, Labels) else column for name, column in read.items()}


def as_lists(block):
    return {name: list(values) for name, values in values_of(block).items()}


def texts_of(block):
    return {name: block.texts(name).to_pylist() for name in block.names}


# --- layouts --------------------------------------------------------------------------------------------------------


def test_relion_3_1_layout(save):
    star = open_star(save(OPTICS + PARTICLES))
    assert star.names == ("optics", "particles")
    assert star.main == "particles"
    assert star.comments == ("version 30001", "version 30001")
    assert star.messages == ()
    optics, particles = star["optics"], star["particles"]
    assert optics.columns == (
        Column("rlnOpticsGroup", "i8"),
        Column("rlnOpticsGroupName", "text"),
        Column("rlnVoltage", "f8"),
        Column("rlnImagePixelSize", "f8"),
        Column("rlnImageSize", "i8"),
    )
    assert as_lists(optics) == {
        "rlnOpticsGroup": [1, 2],
        "rlnOpticsGroupName": ["opticsGroup1", "second group"],
        "rlnVoltage": [300.0, 200.0],
        "rlnImagePixelSize": [1.31, 1.1],
        "rlnImageSize": [256, 128],
    }
    assert as_lists(particles) == {
        "rlnImageName": ["000001@a.mrcs", "000002@a.mrcs", "1@b.mrcs"],
        "rlnDefocusU": [13108.082418, -15000.0, 12730.825404],
        "rlnOpticsGroup": [1, 2, 1],
    }
    assert star.labels("particles") == ("rlnImageName", "rlnDefocusU", "rlnOpticsGroup")
    assert "movies" not in star


@pytest.mark.parametrize("name", ["", "images"])
def test_relion_3_0_layout(save, name):
    star = open_star(save(loop(["rlnVoltage #1", "rlnDefocusU #2"], "300 12000", "300 13000", name=name)))
    assert star.names == (name,)
    assert star.main == name
    assert as_lists(star[name])["rlnDefocusU"] == [12000.0, 13000.0]


def test_relion_5_layout(save):
    general = "\n# version 50001\n\ndata_general\n\n_rlnTomoSubTomosAre2DStacks                       1\n \n"
    star = open_star(save(general + OPTICS.replace("30001", "50001") + PARTICLES.replace("30001", "50001")))
    assert star.names == ("general", "optics", "particles")
    assert star.main == "particles"
    assert star["general"].value("rlnTomoSubTomosAre2DStacks") == 1
    assert not star.is_loop("general")
    assert star.is_loop("optics")
    assert star["general"].comments == ("version 50001",)


def test_the_main_block_of_other_files(save):
    blocks = [loop(["rlnMicrographName"], "a.mrc", name=name) for name in ("optics", "micrographs")]
    assert open_star(save("".join(blocks))).main == "micrographs"
    assert open_star(save(blocks[0])).main == "optics"
    assert open_star(save("".join(blocks).replace("micrographs", "made_up"))).main == "made_up"


def test_a_list_is_a_table_of_one_row(save):
    text = (
        "# RELION optimiser; version 3.1.0\n# --o Class2D/run --iter 25\n\ndata_optimiser_general\n\n"
        "_rlnOutputRootName       Class2D/job006/run\n"
        "_rlnCurrentIteration                     25   # a comment\n"
        "\n_rlnChangesOptimalClasses\t0.25 \n"
        '_rlnSolventMaskName ""\n'
        "_rlnParticleDiameter 2e2"
    )
    star = open_star(save(text))
    block = star["optimiser_general"]
    assert (block.n_rows, block.is_loop) == (1, False)
    assert block.value("rlnOutputRootName") == "Class2D/job006/run"
    assert block.value("rlnCurrentIteration") == 25
    assert block.value("rlnChangesOptimalClasses") == 0.25
    assert block.value("rlnSolventMaskName") == ""
    assert block.value("rlnParticleDiameter") == 200.0
    assert star.main == "optimiser_general"
    with pytest.raises(MissingDataError):
        block.value("rlnVoltage")


@pytest.mark.parametrize(
    ("line", "message"),
    [("_rlnVoltage", "0 values"), ("_rlnVoltage 300 200", "2 values"), ("_rlnVoltage #1", "0 values")],
)
def test_a_list_takes_one_value_a_label(save, line, message):
    with pytest.raises(FormatError, match=f"line 3: {message}") as caught:
        open_star(save(f"data_x\n\n{line}\n"))
    assert caught.value.field == "rlnVoltage"
    assert "loop_" in caught.value.hint


def test_rows_of_text_labels_stay_text(save):
    rows = "01 1 007 01", "02 2 1.50 02"
    labels = ["rlnMicrographName", "rlnOpticsGroup", "rlnMicrographId", "rlnOpticsGroupName"]
    values = as_lists(open_star(save(loop(labels, *rows[:1])))["particles"])
    assert values == {
        "rlnMicrographName": ["01"],
        "rlnOpticsGroup": [1],
        "rlnMicrographId": [7],
        "rlnOpticsGroupName": ["01"],
    }


def test_whole_numbers_may_be_written_as_floats(save):
    block = open_star(save(loop(["rlnClassNumber", "rlnRandomSubset"], "1.000000 1", "12.0 2")))["particles"]
    assert as_lists(block) == {"rlnClassNumber": [1, 12], "rlnRandomSubset": [1, 2]}


def test_every_spelling_of_a_number(save):
    texts = ["1e5", "-1.25E-03", ".5", "5.", "+2.5", "nan", "NaN", "-nan", "inf", "-inf", "0", "-0.0", "1e-400"]
    values = values_of(open_star(save(loop(["rlnDefocusU"], *texts)))["particles"])["rlnDefocusU"]
    assert repr(values.tolist()) == repr([float(text) for text in texts]).replace("-nan", "nan")


def test_brackets_are_one_text(save):
    block = open_star(save(loop(["rlnOpticsGroup", "rlnOddZernike"], "1 [0,1.5,-2e-3]")))["particles"]
    assert as_lists(block)["rlnOddZernike"] == ["[0,1.5,-2e-3]"]


@pytest.mark.parametrize("rows", [slice(2), slice(None, None, -1), slice(-2, None), slice(5, 2), slice(0, 3, 2)])
def test_row_slices(save, rows):
    block = open_star(save(PARTICLES))["particles"]
    values = block.read(["rlnImageName", "rlnDefocusU"], rows)
    assert values["rlnImageName"].to_numpy().tolist() == ["000001@a.mrcs", "000002@a.mrcs", "1@b.mrcs"][rows]
    assert values["rlnDefocusU"].tolist() == [13108.082418, -15000.0, 12730.825404][rows]


def test_an_absent_column_is_named(save):
    with pytest.raises(MissingDataError, match="rlnAngleRot"):
        open_star(save(PARTICLES))["particles"].read(["rlnAngleRot"])


# --- tokens ---------------------------------------------------------------------------------------------------------

TOKENS = [
    ("a b\tc", ["a", "b", "c"]),
    ("  a   b \t ", ["a", "b"]),
    ("", []),
    ("# all comment", []),
    ("a b # comment 'x", ["a", "b"]),
    ("a b#c d#", ["a", "b#c", "d#"]),
    ("a #b", ["a"]),
    ('"a b" c', ["a b", "c"]),
    ("'a b' c", ["a b", "c"]),
    ('"it\'s" \'say "x" now\'', ["it's", 'say "x" now']),
    ("\"\" '' x", ["", "", "x"]),
    ('"a"b c" d', ['a"b c', "d"]),
    ("'don't stop' x", ["don't stop", "x"]),
    ("a\"b c'd", ['a"b', "c'd"]),
    ('"a\a" b" c', ['a" b', "c"]),
    ("'a\a' b' c", ["a' b", "c"]),
    ('"5\a"" x', ['5"', "x"]),
    ('"a # b" c', ["a # b", "c"]),
    ('"#1" x', ["#1", "x"]),
    ('""', [""]),
    ('"\t" x', ["\t", "x"]),
]


@pytest.mark.parametrize(("line", "tokens"), TOKENS)
def test_tokens_are_split_as_relion_splits_them(line, tokens):
    assert split_tokens(line) == tokens
    assert tokens_of(line) == tokens  # the test's own reader


@pytest.mark.parametrize(("line", "tokens"), [pair for pair in TOKENS if pair[1]])
def test_quotes_and_comments_in_rows(save, line, tokens):
    labels = [f"label{number}" for number in range(len(tokens))]
    plain = " ".join(["x"] * len(tokens))
    for rows in ([f" {line}", plain], [plain, line, f"{line}\t"]):
        block = open_star(save(loop(labels, *rows)))["particles"]
        read = list(zip(*texts_of(block).values(), strict=True))
        assert read == [tuple(tokens) if row != plain else ("x",) * len(tokens) for row in rows]


def test_an_unclosed_quote_is_a_character(save):
    block = open_star(save(loop(["a", "b"], "\"x y'", "5' x\"")))["particles"]
    assert texts_of(block) == {"a": ['"x', "5'"], "b": ["y'", 'x"']}


def test_many_quotes_do_not_take_for_ever(save):
    row = '"' + '\a"' * 2000 + "x"
    assert texts_of(open_star(save(loop(["a"], row)))["particles"])["a"] == [row]


def test_comments_stand_anywhere(save):
    text = (
        "# first\ndata_particles # note\n# second\nloop_ # note\n_rlnDefocusU #1 note\n# third\n_rlnVoltage # 2\n"
        "# fourth\n1 2 # a row\n# between rows\n3 4#\n  # indented\n5 6\n"
    )
    with pytest.raises(FormatError, match="'4#'"):
        as_lists(open_star(save(text))["particles"])
    block = open_star(save(text.replace("4#", "4 #")))["particles"]
    assert as_lists(block) == {"rlnDefocusU": [1, 3, 5], "rlnVoltage": [2, 4, 6]}


def test_spacing_is_free(save):
    text = "data_particles\n\nloop_ \n_rlnDefocusU #1 \n  _rlnVoltage\t#2\t\n\n \t \n1\t 2\n \t3   4  \t\n5 6 "
    star = open_star(save(text))
    assert as_lists(star["particles"]) == {"rlnDefocusU": [1, 3, 5], "rlnVoltage": [2, 4, 6]}
    assert star.messages == ()


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\x85", "\u2028"])
def test_only_spaces_and_tabs_separate(save, space):
    row = f"a{space}b 'c{space}d'"
    block = open_star(save(loop(["x", "y"], row, "1 2")))["particles"]
    assert texts_of(block) == {"x": [f"a{space}b", "1"], "y": [f"c{space}d", "2"]}
    with pytest.raises(FormatError, match="line 7: 1 value for 2 columns"):
        open_star(save(loop(["x", "y"], row, f"1{space}2")))["particles"]
    assert texts_of(open_star(save(loop(["x"], space, "1")))["particles"]) == {"x": [space, "1"]}


def test_crlf_is_read_and_reported(save):
    star = open_star(save((OPTICS + PARTICLES).replace("\n", "\r\n")))
    assert as_lists(star["optics"])["rlnOpticsGroupName"] == ["opticsGroup1", "second group"]
    assert as_lists(star["particles"])["rlnOpticsGroup"] == [1, 2, 1]
    assert len(star.messages) == 1
    assert "CRLF" in texts(star.messages)[0]


def test_a_byte_order_mark_is_passed_over(save):
    assert open_star(save(b"\xef\xbb\xbf" + PARTICLES.strip().encode())).names == ("particles",)
    assert open_star(save(b"\xef\xbb\xbfdata_\n_a 1\n")).names == ("",)


def test_text_after_the_last_row_is_reported(save):
    star = open_star(save(OPTICS + PARTICLES + "1@c.mrcs 1 1\nmore\n\n" + PARTICLES.replace("particles", "extra")))
    first = (OPTICS + PARTICLES).count("\n") + 1
    assert texts(star.messages) == [
        f"line {first}: text after the last row of data_particles is ignored, 2 lines in all"
    ]
    assert [block.n_rows for block in star.blocks] == [2, 3, 3]
    assert star["extra"].comments == ("version 30001",)
    star = open_star(save(PARTICLES + "stray"))
    assert texts(star.messages)[0].endswith("after the last row of data_particles is ignored")


def test_a_glued_number_is_read_and_reported(save):
    star = open_star(save(loop(["rlnVoltage#1", "rlnDefocusU #2"], "300 1")))
    assert as_lists(star["particles"]) == {"rlnVoltage": [300.0], "rlnDefocusU": [1.0]}
    assert texts(star.messages) == ["line 4: no space between _rlnVoltage and #1"]


def test_blocks_need_no_blank_line_between_them(save):
    text = (OPTICS + PARTICLES).replace("\n\n", "\n").replace("# version 30001\n", "")
    star = open_star(save(text))
    assert [block.n_rows for block in star.blocks] == [2, 3]
    assert as_lists(star["particles"])["rlnDefocusU"] == [13108.082418, -15000.0, 12730.825404]
    assert star.messages == ()


def test_a_comment_may_follow_the_last_row(save):
    star = open_star(save((OPTICS + PARTICLES).replace("\n\n", "\n")))
    assert [block.n_rows for block in star.blocks] == [2, 3]


def test_rows_may_start_with_words_of_the_grammar(save):
    rows = ["data_0001.mrc 1", "loop_2.mrc 2", "data_ 3", "loop_ 4", "_x 5"]
    star = open_star(save(loop(["rlnMicrographName", "rlnVoltage"], *rows) + PARTICLES.replace("particles", "b")))
    assert star.names == ("particles", "b")
    assert as_lists(star["particles"])["rlnMicrographName"] == [row.split()[0] for row in rows]
    assert star.messages == ()


@pytest.mark.parametrize("chunk_bytes", range(1, 30))
def test_rows_with_words_of_the_grammar_are_cut_anywhere(save, chunk_bytes, monkeypatch):
    monkeypatch.setattr(star_text, "CHUNK_BYTES", chunk_bytes)
    rows = ["data_1.mrc 1", "loop_ 4", "data_ 3", "x 4", " \t "]
    star = open_star(save(loop(["rlnMicrographName", "rlnVoltage"], *rows) + "data_b\n_c 1"))
    assert star.names == ("particles", "b")
    assert as_lists(star["particles"])["rlnMicrographName"] == ["data_1.mrc", "loop_", "data_", "x"]
    assert star.messages == ()


def test_no_rows(save, tmp_path):
    for text in (loop(["rlnImageName", "rlnDefocusU", "made/up"]), "data_particles\nloop_\n_rlnImageName"):
        star = open_star(save(text + "\n" + PARTICLES.replace("particles", "next")))
        block = star["particles"]
        values = block.read(block.names)
        assert block.n_rows == 0
        assert all(len(column) == 0 for column in values.values())
        assert star["next"].n_rows == 3
        write_star(tmp_path / "again.star", [block])
        assert open_star(tmp_path / "again.star")["particles"].n_rows == 0
    assert open_star(save("data_empty\n"))["empty"].names == ()


def test_one_column(save):
    block = open_star(save(loop(["rlnMicrographName"], "a.mrc", '""', "c d.mrc".join("''"))))["particles"]
    assert as_lists(block) == {"rlnMicrographName": ["a.mrc", "", "c d.mrc"]}


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n\n# only a comment\n", "no data_ block"),
        ("loop_\n_rlnVoltage #1\n300\n", "line 1: 'loop_' belongs to no block"),
        ("some text\ndata_x\n", "line 1: 'some text' belongs to no block"),
        ("data_x\n\n300 200\n", "line 3: '300 200' belongs to no block"),
        ("data_x\nloop_\n300\n", "line 3: '300' belongs to no block"),
        (PARTICLES + PARTICLES, "two blocks are named data_particles"),
        (loop(["a", "b", "a"], "1 2 3"), "line 6: the column stands twice"),
        (b"data_x\n_a \xff\n", "line 2 is not text"),
        (bytes(3000), "line 1"),
        (b"\x93NUMPY\x01\x00" + bytes(200), "line 1 is not text"),
    ],
)
def test_what_is_no_star_file_is_refused(save, text, message):
    with pytest.raises(FormatError, match=message) as caught:
        open_star(save(text))
    assert caught.value.path


def test_folders_and_absent_files_are_refused(tmp_path):
    with pytest.raises(FormatError, match="folder"):
        open_star(tmp_path)
    with pytest.raises(FormatError, match="can't be read"):
        open_star(tmp_path / "absent.star")
    os.mkfifo(tmp_path / "pipe.star")
    with pytest.raises(FormatError, match="not a regular file"):
        open_star(tmp_path / "pipe.star")


@pytest.mark.parametrize(("row", "n_values"), [("1 2", 2), ("1 2 3 4", 4), ("1", 1), ('1 "2 3"', 2)])
def test_a_row_of_the_wrong_length_is_located(save, row, n_values):
    rows = ["1 2 3", "1 2 3 # comment", "# comment", row, "1 2 3"]
    path = save(PARTICLES + loop(["x", "y", "z"], *rows, name="bad"))
    line = PARTICLES.count("\n") + 6 + 4
    star = open_star(path)
    assert star["particles"].n_rows == 3
    with pytest.raises(FormatError, match=f"line {line}: {n_values} values? for 3 columns of data_bad") as caught:
        star["bad"]
    assert caught.value.rows == (2,)
    assert caught.value.hint


@pytest.mark.parametrize("word", ["abc", "1.2.3", "<NA>", "1_0", "0x10", '""', "1,5"])
def test_a_word_where_a_number_belongs_is_located(save, word):
    rows = ["1 2", f"2 {word}", "3 worse"]
    with pytest.raises(FormatError, match="is not a number") as caught:
        open_star(save(loop(["rlnVoltage", "rlnDefocusU"], *rows)))["particles"]
    assert caught.value.field == "rlnDefocusU"
    assert caught.value.rows == (1,)
    assert word.strip('"') in str(caught.value)
    assert caught.value.hint


def test_a_word_in_a_list_is_named(save):
    with pytest.raises(FormatError, match="'many' in data_x is not a number") as caught:
        open_star(save("data_x\n_rlnNrClasses many\n"))["x"]
    assert caught.value.field == "rlnNrClasses"


def test_rows_that_are_not_utf8_are_located(save):
    text = loop(["rlnMicrographName", "rlnVoltage"], "a 1", "größe 2", "c 3").encode("latin1")
    with pytest.raises(FormatError, match="line 7 of data_particles is not UTF-8") as caught:
        open_star(save(text))["particles"]
    assert caught.value.rows == (1,)
    assert "iconv" in caught.value.hint


def test_names_beyond_ascii_are_read(save):
    text = loop(["rlnMicrographName", "größe"], "Å/µ.mrc 1", "'粒 子' 2")
    assert as_lists(open_star(save(text))["particles"]) == {
        "rlnMicrographName": ["Å/µ.mrc", "粒 子"],
        "größe": [1, 2],
    }


def test_a_file_that_vanishes_or_shrinks_is_a_format_error(save):
    path = save(PARTICLES)
    star = open_star(path)
    path.write_text(PARTICLES[:-60])
    with pytest.raises(FormatError, match="shorter"):
        star["particles"]
    path.unlink()
    with pytest.raises(FormatError, match="can't be read"):
        star["particles"]


@given(
    noise=st.text(max_size=30) | st.sampled_from(["\n\n", "data_", '"', "#", "loop_\n", "\r", "\0"]),
    place=st.floats(0, 1),
)
@settings(max_examples=150)
def test_no_damage_leaves_the_reader_but_as_our_own_error(tmp_path_factory, noise, place):
    path = tmp_path_factory.getbasetemp() / "damaged.star"
    text = OPTICS + PARTICLES
    cut = int(place * len(text))
    path.write_bytes((text[:cut] + noise + text[cut + len(noise) // 2 :]).encode("utf-8", "surrogatepass"))
    try:
        for block in open_star(path).blocks:
            block.read(block.names)
    except CryobridgeError as error:
        assert str(path) in str(error)


# --- pieces ---------------------------------------------------------------------------------------------------------

TOKEN = st.text(st.sampled_from("ab01.#'\" @"), max_size=6)


@given(
    rows=st.lists(st.tuples(TOKEN, st.floats(allow_nan=False), TOKEN), max_size=12),
    chunk_bytes=st.integers(1, 120),
    tight=st.booleans(),
    comment=st.booleans(),
)
@settings(max_examples=100)
def test_where_a_file_is_cut_into_pieces_does_not_show(tmp_path_factory, rows, chunk_bytes, tight, comment):
    path = tmp_path_factory.getbasetemp() / "pieces.star"
    columns = {
        "rlnMicrographName": [row[0] for row in rows],
        "rlnDefocusU": np.array([row[1] for row in rows], float),
        "made_up": [row[2] for row in rows],
    }
    blocks = [StarBlock.from_columns(name, columns) for name in ("particles", "data_loop_", "last")]
    write_star(path, blocks)
    text = path.read_text()
    if comment:
        text = re.sub(r"(?m)^([^_#\n]+ .*)$", r"\1 # data_x", text)
    path.write_text(text.replace("\n\n", "\n") if tight else text)
    whole = [texts_of(block) for block in open_star(path).blocks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(star_text, "CHUNK_BYTES", chunk_bytes)
        star = open_star(path)
        assert star.names == ("particles", "data_loop_", "last")
        assert [texts_of(block) for block in star.blocks] == whole
        assert star.messages == ()
    for block in whole:
        assert [float(text) for text in block.pop("rlnDefocusU")] == columns["rlnDefocusU"].tolist()
        assert block == {"rlnMicrographName": columns["rlnMicrographName"], "made_up": columns["made_up"]}


@pytest.mark.parametrize("chunk_bytes", range(1, 40))
def test_errors_name_the_same_line_wherever_pieces_end(save, chunk_bytes, monkeypatch):
    monkeypatch.setattr(star_text, "CHUNK_BYTES", chunk_bytes)
    text = loop(["x", "y"], *["1 2"] * 10, name="first") + loop(["x", "y"], *["1 2"] * 20, "1", "1 2") + "stray\n"
    star = open_star(save(text))
    assert texts(star.messages) == [f"line {text.count(chr(10))}: text after the last row of data_particles is ignored"]
    with pytest.raises(FormatError, match=r"line 42: 1 value ") as caught:
        star["particles"]
    assert caught.value.rows == (20,)


def test_types_are_those_of_the_whole_column_not_of_a_piece(save, monkeypatch):
    text = loop(["rlnClassNumber", "made_up", "id"], *["1 1 01"] * 30, "2.000000 x 2")
    monkeypatch.setattr(star_text, "CHUNK_BYTES", 20)
    block = open_star(save(text))["particles"]
    assert [column.dtype for column in block.columns] == ["f8", "text", "text"]
    assert as_lists(block)["made_up"] == ["1"] * 30 + ["x"]


# --- unknown columns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "dtype", "values"),
    [
        (["1", "2", "-3"], "i8", [1, 2, -3]),
        (["1.50", "2"], "f8", [1.5, 2.0]),
        (["1e3", "nan"], "f8", [1000.0, math.nan]),
        (["-0", "1"], "f8", [-0.0, 1.0]),
        (["01", "02"], "text", ["01", "02"]),
        (["01", "2.5"], "text", ["01", "2.5"]),
        (["1", "007.5"], "text", ["1", "007.5"]),
        (["0.5", "0"], "f8", [0.5, 0.0]),
        (["1", "x"], "text", ["1", "x"]),
        (["18446744073709551615", "1"], "text", ["18446744073709551615", "1"]),
        (["9007199254740993", "1"], "i8", [9007199254740993, 1]),
        (["0x10", "1"], "text", ["0x10", "1"]),
        (["[1,2]", "[3]"], "text", ["[1,2]", "[3]"]),
    ],
)
def test_unknown_columns_are_numbers_to_read_and_stay_to_the_letter(save, tmp_path, texts, dtype, values):
    block = open_star(save(loop(["made_up", "rlnVoltage"], *(f"{text} 300" for text in texts))))["particles"]
    assert block.columns[0] == Column("made_up", dtype)
    assert repr(as_lists(block)["made_up"]) == repr(values if dtype == "text" else list(np.array(values, dtype)))
    write_star(tmp_path / "again.star", [block])
    labels, rows, is_loop = read_block((tmp_path / "again.star").read_text(), "particles")
    assert labels == ["made_up", "rlnVoltage"]
    assert is_loop
    assert [row[0] for row in rows] == texts
    assert open_star(tmp_path / "again.star")["particles"].texts("made_up").to_pylist() == texts


# --- writing --------------------------------------------------------------------------------------------------------

PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t"), max_size=10)
QUOTING = st.text(st.sampled_from("a \"'#_;\t"), max_size=8)
ODD = st.sampled_from(["_a", "data_x", "data_", "loop_", "loop_x y", ";", "#1", "'", '"', "", " ", "nan", "01", "@"])
TEXTS = PRINTABLE | QUOTING | ODD


@given(first=st.lists(TEXTS, min_size=1, max_size=5), is_loop=st.booleans())
@settings(max_examples=300)
def test_any_text_survives_a_round_trip(tmp_path_factory, first, is_loop):
    path = tmp_path_factory.getbasetemp() / "texts.star"
    first = first if is_loop else first[:1]
    columns = {"made_up": first, "rlnMicrographName": first[::-1]}
    write_star(path, [StarBlock.from_columns("", columns, is_loop=is_loop)])
    star = open_star(path)
    assert texts_of(star[""]) == columns
    assert as_lists(star[""])["rlnMicrographName"] == first[::-1]
    assert star.messages == ()


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), is_loop=st.booleans())
@settings(max_examples=300)
def test_relion_reads_any_text_that_it_can_hold(tmp_path_factory, texts, is_loop):
    # In rows RELION drops what would escape a quote, and makes one space of several.
    assume(not is_loop or not any(re.search("'([ \t]|$)", text) and re.search('"([ \t]|$)', text) for text in texts))
    path = tmp_path_factory.getbasetemp() / "relion.star"
    texts = texts if is_loop else texts[:1]
    # It takes a list whose first line has loop_ anywhere for a table.
    assume(is_loop or "loop_" not in texts[0])
    columns = {"first": texts, "rlnVoltage": np.arange(len(texts)), "last": texts[::-1]}
    write_star(path, [StarBlock.from_columns("particles", columns, is_loop=is_loop, comments=("version 30001",))])
    labels, rows, found_loop = read_block(path.read_bytes().decode(), "particles")
    assert found_loop == is_loop
    assert labels == list(columns)
    expected = [[text, str(row), texts[-1 - row]] for row, text in enumerate(texts)]
    if is_loop:
        rows = [[re.sub("[ \t]+", " ", token) for token in row] for row in rows]
        expected = [[re.sub("[ \t]+", " ", token) for token in row] for row in expected]
    assert rows == expected


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b", "bell\a", "\x01"])
def test_what_a_row_can_not_hold_is_refused(tmp_path, text):
    (tmp_path / "x.star").write_text("older")
    for is_loop in (True, False):
        with pytest.raises(FormatError, match=r"x\.star: .* control character"):
            write_star(tmp_path / "x.star", [StarBlock.from_columns("", {"a": [text]}, is_loop=is_loop)])
    assert (tmp_path / "x.star").read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_row_without_a_value_is_refused():
    with pytest.raises(ValueError, match="not every row has a value in b"):
        StarBlock.from_columns("", {"a": [1, 2], "b": ["x", None]})
    with pytest.raises(ValueError, match="length"):
        StarBlock.from_columns("", {"a": [1, 2], "b": ["x"]})


def test_quotes_are_set_only_where_they_are_needed():
    assert [quote(text) for text in ("a", "a#b", "a'b", "_x", "data_x", "", "#a", "'a", "a b")] == [
        *("a", "a#b", "a'b", "_x", "data_x", '""', '"#a"', '"\'a"', '"a b"'),
    ]
    assert [quote(text, first=True) for text in ("_x", "data_x", ";x", "loop_", "x_")] == [
        *('"_x"', '"data_x"', '";x"', '"loop_"', "x_"),
    ]
    assert quote('5" x') == "'5\" x'"
    assert quote("5\" 3' x") == '"5\a" 3\' x"'


@given(st.lists(st.floats(width=64), min_size=1, max_size=5), st.lists(st.floats(width=32), min_size=1, max_size=5))
@settings(max_examples=150)
def test_floats_survive_a_round_trip_to_the_bit(tmp_path_factory, double, single):
    path = tmp_path_factory.getbasetemp() / "floats.star"
    double, single = np.array(double), np.array(single, np.float32)
    for name, values in {"double": double, "single": single}.items():
        columns = {"rlnDefocusU": values, "rlnAngleRot": values[::-1]}
        write_star(path, [StarBlock.from_columns(name, columns)])
        read = open_star(path)[name].read(columns)
        for label, column in columns.items():
            again = read[label].astype(column.dtype)
            assert struct.pack(f"{len(again)}d", *np.nan_to_num(again, nan=7.0)) == struct.pack(
                f"{len(again)}d", *np.nan_to_num(column, nan=7.0)
            )
            assert np.isnan(again).tolist() == np.isnan(column).tolist()


def test_numbers_are_written_short(tmp_path):
    columns = {"rlnImagePixelSize": np.array([1.31], np.float32), "rlnVoltage": [300.0], "rlnDefocusU": [1e-7]}
    write_star(tmp_path / "x.star", [StarBlock.from_columns("optics", columns)])
    assert (tmp_path / "x.star").read_text().splitlines()[-2:] == ["1.31 300 1e-7", ""]


def test_integers_and_truths_are_written_as_relion_writes_them(tmp_path):
    columns = {
        "uid": np.array([2**64 - 1, 0], np.uint64),
        "rlnCtfDataAreCtfPremultiplied": np.array([True, False]),
        "rlnOpticsGroup": np.array([1, -2], np.int32),
    }
    block = StarBlock.from_columns("x", columns)
    write_star(tmp_path / "x.star", [block])
    assert read_block((tmp_path / "x.star").read_text(), "x")[1] == [
        ["18446744073709551615", "1", "1"],
        ["0", "0", "-2"],
    ]
    assert as_lists(block)["rlnCtfDataAreCtfPremultiplied"] == [1, 0]
    again = open_star(tmp_path / "x.star")["x"]
    assert as_lists(again)["rlnCtfDataAreCtfPremultiplied"] == [1, 0]
    assert as_lists(again)["uid"] == [2**64 - 1, 0]
    assert again.columns[0] == block.columns[0] == Column("uid", "u8")


def test_labels_are_written_as_texts(tmp_path):
    labels = Labels(np.array([1, 0, 1], np.int32), ("a b", "c"))
    block = StarBlock.from_columns("x", {"rlnMicrographName": labels, "other": labels})
    assert as_lists(block) == {"rlnMicrographName": ["c", "a b", "c"], "other": ["c", "a b", "c"]}
    write_star(tmp_path / "x.star", [block])
    again = open_star(tmp_path / "x.star")["x"]
    assert texts_of(again) == {"rlnMicrographName": ["c", "a b", "c"], "other": ["c", "a b", "c"]}
    read = to_labels(again.texts("other"))
    assert read.values == ("c", "a b")
    assert read.codes.dtype == np.int32


def test_several_blocks_are_written_as_relion_reads_them(save, tmp_path):
    source = open_star(
        save("\n# version 30001\n\ndata_general\n\n_rlnTomoSubTomosAre2DStacks 1\n" + OPTICS + PARTICLES)
    )
    write_star(tmp_path / "again.star", source.blocks)
    text = (tmp_path / "again.star").read_text()
    for block in source.blocks:
        labels, rows, is_loop = read_block(text, block.name)
        assert (tuple(labels), len(rows), is_loop) == (block.names, block.n_rows, block.is_loop)
    assert text.count("# version 30001") == 3
    again = open_star(tmp_path / "again.star")
    assert again.comments == source.comments
    assert [as_lists(block) for block in again.blocks] == [as_lists(block) for block in source.blocks]


def test_many_rows_are_written_in_order(tmp_path):
    n_rows = 70_000  # three pieces
    names = [f"{row % 999:06d}@stack_{row // 999}.mrcs" for row in range(n_rows)]
    columns = {"rlnImageName": names, "rlnDefocusU": np.arange(n_rows) / 7}
    write_star(tmp_path / "many.star", [StarBlock.from_columns("particles", columns)])
    block = open_star(tmp_path / "many.star")["particles"]
    assert block.texts("rlnImageName").to_pylist() == names
    np.testing.assert_array_equal(block.read(["rlnDefocusU"])["rlnDefocusU"], columns["rlnDefocusU"])


def test_the_strict_reader_is_strict():
    for text in (
        "data_a\nloop_\n_x#1\n1\n",
        "data_a\r\n",
        "data_a\nloop_\n_x #1\n_y #2\n1\n",
        "data_b\n",
        'data_a\n_x "y\n',
    ):
        with pytest.raises(GrammarError):
            read_block(text, "a")


# --- the starfile package -------------------------------------------------------------------------------------------

# What starfile copes with: it reads every quote as a double one, and takes # for a comment anywhere.
TAME = st.text(st.sampled_from("abcXYZ019_./@-"), min_size=1, max_size=8)


@given(
    names=st.lists(TAME.map(lambda text: f"{text} x.mrc"), min_size=1, max_size=6),
    numbers=st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6),
)
@settings(max_examples=30)
def test_starfile_reads_what_is_written(tmp_path_factory, names, numbers):
    path = tmp_path_factory.getbasetemp() / "for_starfile.star"
    columns = {
        "rlnMicrographName": names,
        "rlnDefocusU": np.array(numbers[: len(names)]),
        "rlnOpticsGroup": np.arange(len(names)),
    }
    general = StarBlock.from_columns("general", {"rlnOutputRootName": ["a/b"], "rlnNrClasses": [3]}, is_loop=False)
    write_star(path, [general, StarBlock.from_columns("particles", columns, comments=("version 30001",))])
    blocks = starfile.read(path, always_dict=True)
    assert blocks["general"] == {"rlnOutputRootName": "a/b", "rlnNrClasses": 3}
    frame = blocks["particles"]
    assert frame["rlnMicrographName"].tolist() == names
    assert frame["rlnDefocusU"].tolist() == pytest.approx(numbers[: len(names)], rel=1e-15)  # pandas' own parser
    assert frame["rlnOpticsGroup"].tolist() == list(range(len(names)))


@given(
    names=st.lists(TAME | st.just("with a space") | st.just(""), min_size=1, max_size=6),
    numbers=st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6),
)
@settings(max_examples=30)
def test_what_starfile_writes_is_read(tmp_path_factory, names, numbers):
    path = tmp_path_factory.getbasetemp() / "of_starfile.star"
    frame = pd.DataFrame(
        {
            # Not a name first, since a name may start like a label.
            "rlnDefocusU": numbers[: len(names)],
            "rlnMicrographName": names,
            "rlnOpticsGroup": range(len(names)),
            "made_up": names,
        }
    )
    starfile.write({"general": {"rlnOutputRootName": "a/b", "rlnNrClasses": 3}, "particles": frame}, path)
    star = open_star(path)
    assert star.names == ("general", "particles")
    assert star.messages == ()
    assert star["general"].value("rlnNrClasses") == 3
    block = star["particles"]
    assert block.texts("rlnMicrographName").to_pylist() == block.texts("made_up").to_pylist() == names
    assert as_lists(block)["rlnDefocusU"] == [float(f"{number:.6f}") for number in numbers[: len(names)]]
    assert as_lists(block)["rlnOpticsGroup"] == list(range(len(names)))


# --- real files -----------------------------------------------------------------------------------------------------


def test_starfile_and_we_agree_on_real_files(reference_data):
    for name in ("relion31.star", "empiar_10076_7.star", "run_it025_optimiser_2D.star"):
        ours = open_star(reference_data / "real" / name)
        theirs = starfile.read(reference_data / "real" / name, always_dict=True)
        assert ours.names == tuple(theirs)
        assert ours.messages == ()
        for block in ours.blocks:
            other = theirs[block.name]
            assert block.names == tuple(other)
            for label, values in as_lists(block).items():
                expected = list(other[label]) if block.is_loop else [other[label]]
                if isinstance(values[0], str):
                    assert values == [str(value) for value in expected]
                else:
                    assert values == pytest.approx(expected, rel=1e-14)


def test_real_files_survive_a_round_trip(reference_data, tmp_path):
    for name in ("relion31.star", "empiar_10076_7.star", "run_it025_optimiser_2D.star"):
        source = open_star(reference_data / "real" / name)
        write_star(tmp_path / name, source.blocks)
        again = open_star(tmp_path / name)
        assert again.names == source.names
        assert again.comments == source.comments
        assert [as_lists(block) for block in again.blocks] == [as_lists(block) for block in source.blocks]
        text = (tmp_path / name).read_text()
        for block in source.blocks:
            assert read_block(text, block.name)[0] == list(block.names)
            json.dumps(read_block(text, block.name)[1])


def test_a_table_of_very_many_columns_is_refused(tmp_path):
    labels = "".join(f"_rlnX{number}\n" for number in range(2_001))
    (tmp_path / "x.star").write_text(f"data_particles\n\nloop_\n{labels}{'1 ' * 2_001}\n")
    with pytest.raises(FormatError, match="more than 2,000 columns in data_particles"):
        open_star(tmp_path / "x.star")
