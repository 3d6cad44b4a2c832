"""Our STAR files, read by starfile."""

from __future__ import annotations

import numpy as np
import pytest

from cryobridge.errors import FormatError
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_check import compare_with_starfile, require_starfile_reads
from cryobridge.formats.relion.star_write import write_star

N = 50


@pytest.fixture
def star(tmp_path):
    rng = np.random.default_rng(0)
    optics = StarBlock.from_columns("optics", {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["group 1"]})
    particles = {
        "rlnDefocusU": rng.normal(15000, 3000, N),
        "rlnAngleRot": rng.uniform(-180, 180, N).astype(np.float32),
        "rlnClassNumber": rng.integers(1, 5, N),
        "rlnImageName": [f"{row + 1:06d}@stack.mrcs" for row in range(N)],
        "rlnNote": ["nan" if row % 2 else "two words" for row in range(N)],
    }
    general = StarBlock.from_columns("general", {"rlnVersion": ["5.0"], "rlnCount": [3]}, is_loop=False)
    path = tmp_path / "a.star"
    write_star(path, [optics, StarBlock.from_columns("particles", particles), general])
    return path


def test_starfile_reads_what_we_write(star):
    check = compare_with_starfile(star)
    assert (check.rows, check.n_compared, check.differing) == ({"optics": 1, "particles": N, "general": 1}, N + 2, {})


def test_a_long_table_is_compared_at_its_ends(star):
    check = compare_with_starfile(star, whole_rows=20, end_rows=10)
    assert (check.rows["particles"], check.n_compared, check.differing) == (N, 22, {})


@pytest.mark.parametrize(("row", "is_seen"), [(3, True), (25, False), (48, True)])
def test_a_row_that_the_two_read_differently_is_counted(star, row, is_seen, monkeypatch):
    import starfile

    read = starfile.read

    def misread(*given, **named):
        blocks = read(*given, **named)
        table = blocks["particles"]
        table.loc[table["rlnImageName"] == f"{row + 1:06d}@stack.mrcs", "rlnDefocusU"] += 1e-6
        return blocks

    monkeypatch.setattr(starfile, "read", misread)
    check = compare_with_starfile(star, whole_rows=20, end_rows=10)
    assert check.differing == ({"particles rlnDefocusU": 1} if is_seen else {})
    assert compare_with_starfile(star).n_differing == 1


def test_a_row_too_few_is_seen(star, monkeypatch):
    import starfile

    read = starfile.read

    def misread(*given, **named):
        blocks = read(*given, **named)
        blocks["particles"] = blocks["particles"][:-1]
        return blocks

    monkeypatch.setattr(starfile, "read", misread)
    assert compare_with_starfile(star).differing == {"particles": N}


def test_a_file_with_texts_that_starfile_takes_for_quotes_is_not_compared(tmp_path):
    path = tmp_path / "a.star"
    write_star(path, [StarBlock.from_columns("particles", {"rlnNote": ["a'b", "c"], "rlnDefocusU": [1.5, 2.5]})])
    check = compare_with_starfile(path)
    assert (check.unreadable, check.n_compared, check.differing) == (("particles rlnNote",), 0, {})


def test_what_starfile_cannot_read_is_an_error(tmp_path):
    path = tmp_path / "a.star"
    path.write_text("data_particles\nloop_\n_rlnA\n_rlnB\n1 2\n3 4 5\n")
    with pytest.raises(FormatError):
        compare_with_starfile(path)


def test_select_checks_its_star_file_when_asked(star, tmp_path, monkeypatch):
    import starfile

    from cryobridge.errors import CryobridgeError
    from helpers import run

    out = tmp_path / "out.star"
    words = ("select", star, "--where", "rlnClassNumber < 4", "-o", out, "--verify")
    assert run(*words).returncode == 0
    with pytest.raises(CryobridgeError, match="not the 7 rows"):
        require_starfile_reads(out, 7)
    read = starfile.read

    def misread(*given, **named):
        blocks = read(*given, **named)
        blocks["particles"]["rlnClassNumber"] += 1
        return blocks

    monkeypatch.setattr(starfile, "read", misread)
    with pytest.raises(CryobridgeError, match="particles rlnClassNumber in"):
        require_starfile_reads(out, N)
