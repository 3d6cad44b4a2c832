from __future__ import annotations

import json

import numpy as np
import pytest

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.jobs.selection.choose import select_files as select
from helpers import particle_columns, run, save_cs, save_star, texts
from relion_grammar import read_block

UID = "012345678901234567890_"


def star_of(path, names):
    return save_star(path, "particles", {"rlnImageName": names, "rlnDefocusU": range(len(names))})


def cs_of(path, images, *, first_uid=2**63):
    columns = particle_columns([stack for stack, _ in images], [index for _, index in images])
    return save_cs(path, columns | {"uid": np.arange(len(images), dtype="u8") + np.uint64(first_uid)})


def kept_of_star(path):
    labels, rows, _ = read_block(path.read_text(), "particles")
    place = labels.index("rlnDefocusU")
    return [int(row[place]) for row in rows]


def kept_of_cs(path, first_uid=2**63):
    return [int(uid) - first_uid for uid in np.load(path)["uid"]]


IMAGES = [("J3/extract/a.mrc", 4), ("J3/extract/b.mrc", 0), ("J3/extract/a.mrc", 0), ("J3/extract/b.mrc", 9)]


def test_cs_files_are_compared_by_uid_whatever_their_images(tmp_path):
    one = cs_of(tmp_path / "one.cs", IMAGES)
    other = cs_of(tmp_path / "other.cs", [("elsewhere.mrc", 7)] * 2, first_uid=2**63 + 2)
    report = select(one, tmp_path / "out.cs", like=other)
    assert kept_of_cs(tmp_path / "out.cs") == [2, 3]
    assert "particles are compared by uid" in texts(report.notes)


def test_uids_that_a_float_could_not_tell_apart(tmp_path):
    one = cs_of(tmp_path / "one.cs", IMAGES)
    other = cs_of(tmp_path / "other.cs", IMAGES[:1], first_uid=2**63 + 1)
    select(one, tmp_path / "out.cs", like=other)
    assert kept_of_cs(tmp_path / "out.cs") == [1]


@pytest.mark.parametrize(
    "stack",
    [
        "J3/extract/{}.mrc",
        ">J3/extract/{}.mrc",
        "J3/extract/{}.mrcs",
        "./J3/../J3/extract/{}.mrcs",
        "/data/project/J3/extract/{}.mrcs",
        "Import/job001/J3/extract/{}.mrcs",
        "extract/{}.mrcs",
        "{}.mrcs",
        f"J3/extract/{UID}{{}}.mrc",
        f"mirror/J3/extract/{UID}{{}}.mrcs",
        "J3/extract/{}.mrc:mrcs",
    ],
)
def test_a_selection_goes_from_relion_to_cryosparc_and_back(tmp_path, stack):
    # RELION counts from 1: 000001@a is row 2 of the .cs file, 10@b its row 3, and 5@b none.
    names = [f"000001@{stack.format('a')}", f"10@{stack.format('b')}", f"5@{stack.format('b')}"]
    star = star_of(tmp_path / "relion" / "run_data.star", names)
    cs = cs_of(tmp_path / "J3" / "J3_particles.cs", IMAGES)
    report = select(cs, tmp_path / "out.cs", like=star)
    assert kept_of_cs(tmp_path / "out.cs") == [2, 3]
    assert report.left_out == {"not in run_data.star": 2}
    assert "1 of 3 rows of run_data.star is not in J3_particles.cs" in texts(report.notes)
    select(star, tmp_path / "back.star", like=tmp_path / "out.cs")
    assert kept_of_star(tmp_path / "back.star") == [0, 1]


def test_a_stack_that_was_imported_elsewhere_is_found_by_its_name_and_that_is_reported(tmp_path):
    cs = cs_of(tmp_path / "J1_particles.cs", [(f">J1/imported/{UID}mic1_particles.mrcs", 0), ("J1/imported/x.mrc", 0)])
    star = star_of(tmp_path / "a.star", ["000001@Extract/job012/Movies/mic1_particles.mrcs"])
    report = select(cs, tmp_path / "out.cs", like=star)
    assert kept_of_cs(tmp_path / "out.cs") == [0]
    assert any("matched by file name alone" in message for message in texts(report.warnings))


def test_stacks_of_one_name_in_several_folders_are_kept_apart(tmp_path):
    cs = cs_of(tmp_path / "a.cs", [("J1/a.mrc", 0), ("J2/a.mrc", 0)])
    select(cs, tmp_path / "out.cs", like=star_of(tmp_path / "a.star", ["1@J2/a.mrcs"]))
    assert kept_of_cs(tmp_path / "out.cs") == [1]


def test_a_name_that_fits_two_stacks_is_refused(tmp_path):
    cs = cs_of(tmp_path / "a.cs", [("J1/a.mrc", 0), ("J2/a.mrc", 0)])
    star = star_of(tmp_path / "a.star", ["1@a.mrcs"])
    for path, like, out in ((cs, star, "out.cs"), (star, cs, "out.star")):
        with pytest.raises(CryobridgeError, match="the stack a may be J1/a and J2/a"):
            select(path, tmp_path / out, like=like)


def test_files_without_a_particle_in_common_show_an_example_of_each(tmp_path):
    cs = cs_of(tmp_path / "a.cs", [("J1/a.mrc", 0)])
    star = star_of(tmp_path / "b.star", ["000003@J9/other.mrcs"])
    with pytest.raises(MissingDataError) as caught:
        select(cs, tmp_path / "out.cs", like=star)
    assert "1@J1/a.mrc" in str(caught.value)
    assert "3@J9/other.mrcs" in str(caught.value)


def test_a_file_without_images_can_not_be_compared(tmp_path):
    star = save_star(tmp_path / "a.star", "micrographs", {"rlnMicrographName": ["a.mrc"]})
    with pytest.raises(MissingDataError, match="neither uid nor images"):
        select(star_of(tmp_path / "b.star", ["1@a.mrcs"]), tmp_path / "out.star", like=star)


def test_repeated_particles_are_all_kept(tmp_path):
    # Symmetry expansion: one image in several rows.
    star = star_of(tmp_path / "a.star", ["1@a.mrcs", "2@a.mrcs", "1@a.mrcs"])
    other = star_of(tmp_path / "b.star", ["1@a.mrcs", "1@a.mrcs"])
    select(star, tmp_path / "out.star", like=other)
    assert kept_of_star(tmp_path / "out.star") == [0, 2]


def test_many_rows_agree_with_a_loop_over_them(tmp_path):
    rng = np.random.default_rng(5)

    def images(n):
        return [(f"J{rng.integers(3)}/x{rng.integers(4)}.mrc", int(rng.integers(40))) for _ in range(n)]

    ours, theirs = images(400), images(150)
    cs = cs_of(tmp_path / "a.cs", ours)
    star = star_of(tmp_path / "b.star", [f"{index + 1}@p/{stack}s" for stack, index in theirs])
    select(cs, tmp_path / "out.cs", like=star)
    assert kept_of_cs(tmp_path / "out.cs") == [row for row, image in enumerate(ours) if image in theirs]


# Downsampled sets


def downsampled(folder, images, *, uid=True, stem="particles.128", order=None):
    """A set as `stacks downsample` leaves it, rows in an order of their own."""
    order = list(range(len(images))) if order is None else order
    star = star_of(folder / f"{stem}.star", [f"{place + 1:06d}@{stem}.mrcs" for place in range(len(order))])
    lines = ["image,source_row,source_file,source_slice,uid"]
    for place, row in enumerate(order):
        stack, index = images[row]
        lines.append(f"{place + 1:06d}@{stem}.mrcs,{row},{stack},{index},{2**63 + row if uid else ''}")
    (folder / f"{stem}_sources.csv").write_text("\n".join(lines) + "\n")
    return star


@pytest.mark.parametrize("uid", [True, False])
def test_a_selection_of_a_downsampled_set_reaches_its_source(tmp_path, uid):
    cs = cs_of(tmp_path / "J3" / "J3_particles.cs", IMAGES)
    small = downsampled(tmp_path / "small", IMAGES, uid=uid, order=[3, 1, 0])
    select(small, tmp_path / "small" / "subset.star", where="rlnDefocusU in (0, 2)")
    # The selection has another name than the table of sources: it is found by the name of the stack.
    report = select(cs, tmp_path / "out.cs", like=tmp_path / "small" / "subset.star")
    assert kept_of_cs(tmp_path / "out.cs") == [0, 3]
    assert f"particles are compared by {'uid' if uid else 'image'}" in texts(report.notes)
    traced = "2 of 2 images of subset.star are traced to their sources by particles.128_sources.csv"
    assert traced in texts(report.notes)
    select(small, tmp_path / "back.star", like=tmp_path / "out.cs")
    assert kept_of_star(tmp_path / "back.star") == [0, 2]


def test_a_selection_of_several_stacks_is_traced_by_the_one_table_beside_it(tmp_path):
    cs = cs_of(tmp_path / "J3_particles.cs", IMAGES)
    folder = tmp_path / "small"
    names = ["000001@particles.128.000.mrcs", "000002@particles.128.000.mrcs", "000001@particles.128.001.mrcs"]
    star_of(folder / "chosen.star", names[1:])
    lines = [f"{name},{row},{IMAGES[row][0]},{IMAGES[row][1]}," for row, name in enumerate(names)]
    head = "image,source_row,source_file,source_slice,uid"
    (folder / "particles.128_sources.csv").write_text("\n".join([head, *lines, ""]))
    (folder / "notes_sources.csv").write_text("who,when\nme,today\n")
    select(cs, tmp_path / "out.cs", like=folder / "chosen.star")
    assert kept_of_cs(tmp_path / "out.cs") == [1, 2]


def test_two_downsampled_sets_of_one_source_meet_in_it(tmp_path):
    one = downsampled(tmp_path / "one", IMAGES, uid=False, order=[3, 1, 0], stem="particles.128")
    two = downsampled(tmp_path / "two", IMAGES, uid=False, order=[0, 2, 3], stem="particles.64")
    select(one, tmp_path / "out.star", like=two)
    assert kept_of_star(tmp_path / "out.star") == [0, 2]


def test_the_table_of_sources_can_be_named(tmp_path):
    cs = cs_of(tmp_path / "J3_particles.cs", IMAGES)
    small = downsampled(tmp_path / "small", IMAGES, order=[3, 1])
    moved = tmp_path / "moved.csv"
    (tmp_path / "small" / "particles.128_sources.csv").rename(moved)
    with pytest.raises(MissingDataError, match="no particle of"):
        select(cs, tmp_path / "out.cs", like=small)
    select(cs, tmp_path / "out.cs", like=small, sources=moved)
    assert kept_of_cs(tmp_path / "out.cs") == [1, 3]


@pytest.mark.parametrize(
    "text", ["", "image,uid\n1@a.mrcs,3\n", "image,source_row,source_file,source_slice,uid\nx,y,z,w,v\n", "\x00\x01"]
)
def test_a_damaged_table_of_sources_is_reported(tmp_path, text):
    small = downsampled(tmp_path / "small", IMAGES)
    (tmp_path / "small" / "particles.128_sources.csv").write_text(text)
    with pytest.raises(FormatError):
        select(cs_of(tmp_path / "a.cs", IMAGES), tmp_path / "out.cs", like=small)


def test_the_command_compares_files(tmp_path):
    cs_of(tmp_path / "J3_particles.cs", IMAGES)
    star_of(tmp_path / "sel.star", ["10@J3/extract/b.mrcs"])
    done = run("select", "J3_particles.cs", "--like", "sel.star", "-o", "out.cs", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["rows_out"] == 1
    assert kept_of_cs(tmp_path / "out.cs") == [3]


@pytest.mark.parametrize("argument", ["like", "and_"])
def test_a_list_without_particles_keeps_none_where_that_is_allowed(argument, tmp_path):
    path, empty = star_of(tmp_path / "a.star", ["1@a.mrcs", "2@a.mrcs"]), star_of(tmp_path / "empty.star", [])
    chosen = {argument: empty if argument == "like" else (empty,)}
    with pytest.raises(MissingDataError, match="there are no particles in it"):
        select(path, tmp_path / "b.star", **chosen)
    report = select(path, tmp_path / "b.star", allow_empty=True, **chosen)
    assert (report.rows_in, report.rows_out) == (2, 0)
    assert "there are no particles in empty.star: none is kept" in texts(report.warnings)
    assert kept_of_star(tmp_path / "b.star") == []


def test_a_condition_that_is_none_is_said_before_the_file_is_read(tmp_path):
    done = run("select", "absent.star", "-o", "b.star", "--where", "a >> 1", cwd=tmp_path)
    assert done.returncode == 2
    assert "--where" in done.stderr
