import shlex
from pathlib import Path

import pytest

import cryobridge.cli.app  # noqa: F401 - the commands make their flags known
from cryobridge.cli.build import flag
from cryobridge.errors import shown
from cryobridge.formats.image_search import ImageSearch, Remedy, folders_above, names_lead_elsewhere, not_found, suggest


@pytest.fixture
def make(tmp_path):
    def _make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return [tmp_path / name for name in names]

    return _make


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a job, and a working directory elsewhere."""
    (tmp_path / "P1" / "J2").mkdir(parents=True)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "P1" / "J2" / "particles.cs"


def typed(text):
    """Return a text as the command line shows it."""
    return shown(text, flag)


def found(search, name):
    path = search.resolve(name)
    return None if path is None else path.absolute()


def test_a_name_is_tried_here_then_upward_from_the_metadata(project, make):
    places = make("cwd/J1/a.mrc", "P1/J2/J1/a.mrc", "P1/J1/a.mrc", "J1/a.mrc")
    search = ImageSearch(project)
    for place in places:
        assert found(search, "J1/a.mrc") == place
        place.unlink()
    assert search.resolve("J1/a.mrc") is None


def test_a_project_is_looked_for_four_folders_up_and_no_further(make, tmp_path):
    metadata = tmp_path / "a/b/c/d/e/x.cs"
    (place,) = make("a/J1/a.mrc")
    assert folders_above(metadata) == [tmp_path / part for part in ("a/b/c/d/e", "a/b/c/d", "a/b/c", "a/b", "a")]
    assert ImageSearch(metadata).resolve("J1/a.mrc") == place
    make("J1/b.mrc")
    assert ImageSearch(metadata).resolve("J1/b.mrc") is None
    assert ImageSearch(metadata.parent.parent / "x.cs").resolve("J1/b.mrc") == tmp_path / "J1/b.mrc"


def test_folders_above_a_relative_file(project, monkeypatch, tmp_path):
    assert folders_above(Path("x.cs"))[0] == tmp_path / "cwd"
    assert folders_above(Path("../P1/J2/x.cs"))[:3] == [tmp_path / "P1/J2", tmp_path / "P1", tmp_path]
    monkeypatch.chdir(project.parent)
    assert folders_above(Path("../../x.cs"))[0] == tmp_path


def test_a_marked_name_lies_beside_the_metadata_only(project, make):
    (place,) = make("P1/J2/J1/a.mrc")
    make("cwd/J1/b.mrc", "P1/J1/b.mrc")
    search = ImageSearch(project)
    assert found(search, ">J1/a.mrc") == place
    assert search.resolve(">J1/b.mrc") is None
    assert search.resolve(">>J1/a.mrc") is None  # exactly one mark is taken off


def test_an_absolute_name_is_taken_as_it_is(project, make):
    (place,) = make("far/a.mrc")
    make("P1/J2/a.mrc")
    assert ImageSearch(project).resolve(str(place)) == place
    assert ImageSearch(project).resolve("/far/a.mrc") is None


def test_a_datadir_holds_the_bare_names_too(project, make, tmp_path):
    (place,) = make("mrc/a.mrc")
    make("P1/J1/b.mrc")
    search = ImageSearch(project, datadir=tmp_path / "mrc")
    for name in ("J1/a.mrc", ">J1/a.mrc", "/elsewhere/J1/a.mrc", "a.mrc"):
        assert search.resolve(name) == place
    assert search.resolve("J1/b.mrc") is None
    assert list(search.candidates("J1/a.mrc")) == [tmp_path / "mrc" / "J1" / "a.mrc", place]
    assert list(search.candidates("a.mrc")) == [place]


def test_no_image_is_taken_for_another_of_the_same_bare_name(project, make, tmp_path):
    (bare,) = make("mrc/a.mrc")
    names = ["J1/a.mrc", "J2/a.mrc", "J1/b.mrc"]
    search = ImageSearch(project, datadir=tmp_path / "mrc").among(names)
    assert [search.resolve(name) for name in names[:2]] == [None, None]
    (whole,) = make("mrc/J2/a.mrc")
    assert [search.resolve(name) for name in names[:2]] == [None, whole]
    (place,) = make("mrc/b.mrc")
    assert search.resolve("J1/b.mrc") == place
    # One file under two names, with cryoSPARC's mark and without, is one.
    assert ImageSearch(project, datadir=tmp_path / "mrc").among([">J1/a.mrc", "J1/a.mrc"]).resolve("J1/a.mrc") == bare
    assert not_found(names, ImageSearch(project, datadir=tmp_path / "mrc")) is not None


def test_datadirs_are_tried_in_order_whole_names_before_bare_ones(project, make, tmp_path):
    search = ImageSearch(project, datadir=[tmp_path / "one", str(tmp_path / "two")] if make("one/x", "two/x") else ())
    places = make("two/a.mrc", "one/a.mrc", "two/J1/a.mrc", "one/J1/a.mrc")
    for place in reversed(places):
        assert search.resolve("J1/a.mrc") == place
        place.unlink()
    assert search.resolve("J1/a.mrc") is None


def test_a_datadir_holds_the_names_below_it(project, make, tmp_path):
    (place,) = make("data/J1/a.mrc")
    make("P1/J1/b.mrc", "cwd/J1/b.mrc")
    search = ImageSearch(project, datadir=tmp_path / "data")
    for name in ("J1/a.mrc", ">J1/a.mrc", "/J1/a.mrc"):
        assert search.resolve(name) == place
    assert search.resolve("J1/b.mrc") is None


@pytest.mark.parametrize("prefix", ["/old/place", "/old/place/"])
def test_a_prefix_is_taken_off(project, make, tmp_path, prefix):
    below, near, here = make("data/J1/a.mrc", "P1/J2/J1/b.mrc", "cwd/J1/c.mrc")
    search = ImageSearch(project, datadir=tmp_path / "data", strip_prefix=prefix)
    assert search.resolve("/old/place/J1/a.mrc") == below
    assert search.resolve("J1/a.mrc") == below  # a name without the prefix is left alone
    assert search.resolve("/old/placebo/J1/a.mrc") is None
    plain = ImageSearch(project, strip_prefix=prefix)
    assert found(plain, "/old/place/J1/c.mrc") == here
    assert found(plain, ">/old/place/J1/b.mrc") == near


def test_folders_are_no_images_and_links_are(project, make, tmp_path):
    (place,) = make("data/J1/a.mrc")
    (tmp_path / "data/J1/folder.mrc").mkdir()
    (tmp_path / "data/J1/link.mrc").symlink_to(place)
    (tmp_path / "data/J1/dangling.mrc").symlink_to(tmp_path / "absent")
    search = ImageSearch(project, datadir=tmp_path / "data")
    assert search.resolve("J1/folder.mrc") is None
    assert search.resolve("J1/dangling.mrc") is None
    assert search.resolve("J1/link.mrc") == tmp_path / "data/J1/link.mrc"


@pytest.mark.parametrize("name", ["", ">", "x" * 300, "x/" * 300, "a\0b", ".", "..", "/"])
def test_names_that_name_nothing_are_not_found(project, tmp_path, name):
    for search in (ImageSearch(project), ImageSearch(project, datadir=tmp_path)):
        assert search.resolve(name) is None
    assert suggest([name], project) is None


def resolved(remedy, names, metadata):
    search = ImageSearch(metadata, datadir=remedy.datadir, strip_prefix=remedy.strip_prefix)
    return sum(search.resolve(name) is not None for name in names)


def test_a_moved_project_is_found_by_its_prefix(project, make, tmp_path):
    names = [f"/old/home/P1/J1/{number}.mrc" for number in range(5)]
    make(*(f"P1/J1/{number}.mrc" for number in range(4)))
    remedy = suggest(names, project)
    assert remedy == Remedy(tmp_path, "/old/home", 4)
    assert typed(remedy.as_options()) == f"--datadir {tmp_path} --strip-prefix /old/home"
    assert resolved(remedy, names, project) == 4


def test_extra_folders_and_the_working_directory_are_tried(project, make, tmp_path):
    make("extra/J1/a.mrc", "cwd/J1/b.mrc")
    assert suggest(["J1/a.mrc"], project) is None
    remedy = suggest([">J1/a.mrc"], project, [tmp_path / "extra"])
    assert remedy == Remedy(tmp_path / "extra", None, 1)
    assert typed(remedy.as_options()) == f"--datadir {tmp_path / 'extra'}"
    # A remedy is named as the metadata file is.
    assert suggest([">J1/b.mrc"], project) == Remedy(tmp_path / "cwd", None, 1)
    assert suggest([">J1/b.mrc"], Path("../P1/J2/particles.cs")) == Remedy(Path(), None, 1)


def test_what_finds_most_is_suggested(project, make, tmp_path):
    make("one/J1/a.mrc", "two/a.mrc", "two/b.mrc", "two/c.mrc")
    names = ["J1/a.mrc", "J1/b.mrc", "J1/c.mrc", "J1/d.mrc"]
    remedy = suggest(names, project, [tmp_path / "one", tmp_path / "two"])
    assert remedy == Remedy(tmp_path / "two", None, 3)
    assert resolved(remedy, names, project) == 3


def test_a_prefix_is_suggested_where_bare_names_would_be_shared(project, make, tmp_path):
    make("extra/J1/a.mrc", "extra/J2/a.mrc")
    names = ["old/J1/a.mrc", "old/J2/a.mrc"]
    assert suggest(names, project, [tmp_path / "extra" / "J1", tmp_path / "extra"]) == Remedy(
        tmp_path / "extra", "old", 2
    )


def test_of_equals_the_one_that_strips_least_is_suggested(project, make, tmp_path):
    make("extra/J1/a.mrc", "extra/a.mrc", "P1/J1/a.mrc")
    assert suggest(["J1/a.mrc"], project, [tmp_path / "extra"]) == Remedy(tmp_path / "extra", None, 1)


def test_suggested_options_survive_a_shell(project, make, tmp_path):
    make("my data/J1/a b.mrc")
    remedy = suggest(["/it's/old/J1/a b.mrc"], project, [tmp_path / "my data"])
    assert shlex.split(typed(remedy.as_options())) == [
        "--datadir",
        str(tmp_path / "my data"),
        "--strip-prefix",
        "/it's/old",
    ]


def test_where_nothing_is_found_nothing_is_suggested(project):
    assert suggest(["J1/a.mrc", "/x/y.mrc"], project) is None
    assert suggest([], project) is None


def test_names_that_no_longer_lead_to_images_have_a_remedy_that_can_be_typed(project, make, tmp_path, monkeypatch):
    (image,) = make("my data/J1/a.mrc")
    message = names_lead_elsewhere("J1/a.mrc", image, Path("x.star"), tmp_path / "my data" / "a.cs")
    assert shlex.split(typed(message.text))[-2:] == ["--datadir", str(tmp_path / "my data")]
    message = names_lead_elsewhere("J1/a.mrc", image, tmp_path / "far" / "x.star", Path("../my data/a.cs"))
    assert shlex.split(typed(message.text))[-2:] == ["--datadir", "../my data"]
    assert names_lead_elsewhere("J1/a.mrc", image, tmp_path / "my data" / "x.star", project) is None


def test_what_is_not_found_is_reported_with_what_finds_it(project, make, tmp_path):
    names = ["J1/a.mrc", "J1/b.mrc"]
    assert typed(not_found(names, ImageSearch(project)).text) == (
        f"2 of 2 stacks are not found below the working directory, {tmp_path}/P1/J2 and the folders above it: "
        "commands that read images need --datadir"
    )
    make("P1/J1/a.mrc", "P1/renamed/b.mrc")
    assert typed(not_found(names, ImageSearch(project)).text) == (
        f"1 of 2 stacks is not found: commands that read images need --datadir {tmp_path}/P1/renamed"
    )
    make("P1/J1/b.mrc")
    assert not_found(names, ImageSearch(project)) is None


def test_of_many_stacks_some_are_looked_for(project, monkeypatch):
    looked = []
    monkeypatch.setattr(ImageSearch, "resolve", lambda _, name: looked.append(name))
    message = not_found([f"J1/{number}.mrc" for number in range(5000)], ImageSearch(project))
    assert str(message).startswith("200 of the first 200 of 5,000 stacks are not found")
    assert len(looked) == 200
