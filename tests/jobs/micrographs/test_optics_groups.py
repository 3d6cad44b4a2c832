import time
from pathlib import Path

import numpy as np
import pytest

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.formats.open import open_particles
from cryobridge.jobs.micrographs.beam_shifts import exposure_key, read_sidecars
from cryobridge.jobs.micrographs.optics_groups import Acquired, about_groups, optics_groups
from cryobridge.jobs.micrographs.optics_source import OpticsSource, optics_source
from cryobridge.jobs.micrographs.regrouping import with_groups
from helpers import codes, particle_columns, save_cs, save_star, texts

UID = "000090334788266266069_"
XML = (
    '<?xml version="1.0"?><MicroscopeImage xmlns="u"><microscopeData><optics><BeamShift xmlns:a="v"><a:_x>{}</a:_x>'
    "<a:_y>{}</a:_y></BeamShift></optics></microscopeData></MicroscopeImage>"
)


def epu_names(n, n_places=2, n_holes=3):
    """Movies by EPU, in turn of each place of each hole of the pattern."""
    pattern = [(place, hole) for hole in range(1, n_holes + 1) for place in range(n_places)]
    return [
        f"FoilHole_{1000 + number}_Data_{500 + place}_{hole}_20240101_{number:06d}_fractions.tiff"
        for number, (place, hole) in zip(range(n), pattern * n, strict=False)
    ]


def averages(movies, ends="_patch_aligned_doseweighted.mrc"):
    return [f"J2/motioncorrected/{UID}{Path(name).stem}{ends}" for name in movies]


# The option


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("epu", "epu", None),
        ("serialem", "serialem", None),
        ("afis", "afis", None),
        ("afis:EPU/Images", "afis", Path("EPU/Images")),
        ("serialem:a:b", "serialem", Path("a:b")),
        ("J3/particles.star", "file", Path("J3/particles.star")),
        ("J3/particles.cs", "file", Path("J3/particles.cs")),
    ],
)
def test_the_option_names_a_source(text, kind, value):
    assert optics_source(text) == OpticsSource(kind, value)


def test_the_option_has_a_pattern():
    source = optics_source(r"regex:_Data_(\d+)_")
    assert (source.kind, source.value.pattern) == ("regex", r"_Data_(\d+)_")


@pytest.mark.parametrize("text", ["EPU", "epu:folder", "regex", "regex:", "regex:(", "afis:", "particles", "", ":"])
def test_other_words_are_refused(text):
    with pytest.raises(UsageError) as caught:
        optics_source(text)
    assert caught.value.option == "optics_from"
    assert caught.value.hint


# By names


def test_positions_of_epu_make_groups():
    movies = epu_names(120)
    found = optics_groups(averages(movies), optics_source("epu"))
    assert found.names == ("epu_500_1", "epu_500_2", "epu_500_3", "epu_501_1", "epu_501_2", "epu_501_3")
    assert np.bincount(found.index).tolist() == [20] * 6
    assert texts(found.messages) == ["6 optics groups by names"]


def test_names_of_movies_come_first():
    movies = epu_names(40)
    names = [f"mic_{number}.mrc" for number in range(40)]
    found = optics_groups(names, optics_source("epu"), Acquired(movies=movies))
    assert len(found) == 6
    with pytest.raises(MissingDataError, match=r"is EPU's .* they are called as mic_0"):
        optics_groups(names, optics_source("epu"))


def test_older_names_of_epu_lack_the_hole():
    names = [f"FoilHole_{n}_Data_{500 + n % 2}_{700 + n % 2}1234_20190726_{n:06d}.mrc" for n in range(40)]
    assert "epu-names-of-holes" in codes(optics_groups(names, optics_source("epu")).messages)


def test_positions_of_serialem_make_groups_in_the_order_of_their_numbers():
    positions = [f"X{x:+d}Y{y:+d}-{place}" for x in (-1, 0, 10, 2) for y in (0,) for place in (0, 1)]
    names = [f"g_{number:04d}_{position}_patch_aligned.mrc" for number, position in enumerate(positions * 12)]
    found = optics_groups(names, optics_source("serialem"))
    order = ["X-1Y+0-0", "X-1Y+0-1", "X+0Y+0-0", "X+0Y+0-1", "X+2Y+0-0", "X+2Y+0-1", "X+10Y+0-0", "X+10Y+0-1"]
    assert list(found.names) == [f"serialem_{position}" for position in order]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (r"_Data_(\d+)_(\d+)_", ("500_1", "500_2", "500_3", "501_1", "501_2", "501_3")),
        (r"_Data_\d+_(\d+)_", ("1", "2", "3")),
        (r"Data_\d+", ("Data_500", "Data_501")),
        (r"(Data)_(x)?", ("Data_",)),
        (r"FoilHole|motioncorrected", ("FoilHole",)),
        (r"J\d+/", ("J2_",)),
        (r"()FoilHole", ("none",)),
    ],
)
def test_a_pattern_makes_groups_of_what_its_brackets_match(pattern, names):
    found = optics_groups(averages(epu_names(120)), optics_source(f"regex:{pattern}"))
    assert found.names == names


def test_names_that_do_not_match_are_a_group_and_are_counted():
    names = [*averages(epu_names(120)), *(f"J2/{UID}other_{n}.mrc" for n in range(15))]
    for source in ("epu", r"regex:_Data_(\d+)"):
        found = optics_groups(names, optics_source(source))
        assert found.names[-1] == "unassigned"
        assert (found.index[120:] == len(found) - 1).all()
        assert "15 of 135 micrographs are in an optics group of their own" in "".join(texts(found.messages))


def test_names_of_groups_are_words_and_distinct():
    names = [f"{word}_{n}.mrc" for n, word in enumerate(["a b", "a/b", "a_b", "ä"])]
    found = optics_groups(names, optics_source(r"regex:^(.*)_\d"))
    assert len(set(found.names)) == len(found) == 4
    assert all(name.isascii() and not set(name) & set(" /@") for name in found.names)


@pytest.mark.parametrize("source", ["epu", "serialem", r"regex:nothing"])
def test_names_without_any_position_are_an_error(source):
    with pytest.raises(MissingDataError) as caught:
        optics_groups(["m1.mrc", "m2.mrc"], optics_source(source))
    assert caught.value.option == "optics_from"
    assert caught.value.hint


@pytest.mark.parametrize("source", ["epu", r"regex:_Data_(\d+)_"])
def test_ten_thousand_names_take_less_than_a_second(source):
    names = averages(epu_names(10_000))
    start = time.process_time()
    optics_groups(names, optics_source(source))
    assert time.process_time() - start < 1


def test_many_and_small_groups_are_warned_of():
    assert codes(about_groups([str(n) for n in range(400)], np.full(400, 50))) == ["many-optics-groups"]
    small = about_groups(["a", "b", "c"], np.array([3, 200, 9]))
    assert texts(small) == [
        "2 of 3 optics groups have fewer than 10 micrographs (a, c): few particles for RELION's CTF refinement"
    ]
    assert about_groups(["a"], np.array([3])) == []


# By beam shifts


def holes(n, n_x=3, n_y=3, spread=0.02):
    random = np.random.default_rng(5)
    of = np.arange(n) % (n_x * n_y)
    return np.stack([of % n_x, of // n_x], axis=1) + random.normal(0, spread, (n, 2)), of


@pytest.fixture
def session(tmp_path):
    """A session by EPU: movies with two .xml files each, and cryoSPARC's links to them with other names."""

    def _session(n=90, written=lambda number: True):
        movies = epu_names(n)
        shifts, of = holes(n)
        data = tmp_path / "Images-Disc1/GridSquare_1/Data"
        imported = tmp_path / "J1/imported"
        for folder in (data, imported):
            folder.mkdir(parents=True)
        links = []
        for number, (movie, (x, y)) in enumerate(zip(movies, shifts, strict=True)):
            (data / movie).write_bytes(b"II*\0")
            if written(number):
                (data / movie.replace("_fractions.tiff", ".xml")).write_text(XML.format(x, y))
                (data / movie.replace(".tiff", ".xml")).write_text("<MicroscopeImage/>")  # of the movie, without shift
            link = imported / f"{UID}{movie}"
            link.symlink_to(data / movie)
            links.append(link)
        return movies, links, of, data

    return _session


def same_groups(first, second):
    pairs = {*zip(first.tolist(), second.tolist(), strict=True)}
    return len(pairs) == len({*first.tolist()}) == len({*second.tolist()})


def test_beam_shifts_are_found_beside_the_movies_that_links_lead_to(session):
    movies, links, of, _ = session()
    found = optics_groups(averages(movies), optics_source("afis"), Acquired(movies, links))
    assert same_groups(found.index, of)
    assert found.names == tuple(f"afis_{number}" for number in range(1, 10))
    (said,) = texts(found.messages)
    assert said.startswith("9 optics groups by the beam shifts in 90 files; gaps between them are ")


def test_beam_shifts_are_found_in_a_folder_for_names_alone(session, tmp_path):
    movies, _, of, _ = session()
    found = optics_groups(averages(movies), optics_source(f"afis:{tmp_path}/Images-Disc1"))
    assert same_groups(found.index, of)


def test_beam_shifts_of_the_metadata_come_first(session):
    movies, links, _, _ = session()
    shifts, of = holes(90, 2, 3)
    found = optics_groups(averages(movies), optics_source("afis"), Acquired(movies, links, shifts))
    assert same_groups(found.index, of)
    assert "of the metadata" in found.messages[0].text


def test_missing_and_damaged_files_are_counted(session):
    movies, links, of, data = session(written=lambda number: number % 30)
    (data / movies[1].replace("_fractions.tiff", ".xml")).write_text("<a>")
    found = optics_groups(averages(movies), optics_source("afis"), Acquired(movies, links))
    said = texts(found.messages)
    assert said[0].startswith("1 of 87 files can't be read, such as ")
    assert "4 of 90 micrographs are in an optics group of their own, unassigned: their beam shift is not known" in said
    known = found.index < 9
    assert known.sum() == 86
    assert same_groups(found.index[known], of[known])


def test_no_files_are_an_error(session, tmp_path):
    movies, links, _, _ = session(n=3, written=lambda number: False)
    with pytest.raises(MissingDataError, match="no beam shift is known") as caught:
        optics_groups(averages(movies), optics_source("afis"), Acquired(movies, links))
    assert "afis:FOLDER" in caught.value.hint
    with pytest.raises(MissingDataError, match="no such folder"):
        optics_groups(averages(movies), optics_source(f"afis:{tmp_path}/none"))


def test_shifts_without_gaps_are_one_group_and_are_said():
    shifts = np.random.default_rng(0).normal(size=(300, 2))
    names = [f"m{n}.mrc" for n in range(300)]
    found = optics_groups(names, optics_source("afis"), Acquired(beam_shift=shifts))
    assert (len(found), codes(found.messages)) == (1, ["beam-shifts-not-separate"])
    assert len(optics_groups(names, optics_source("afis"), Acquired(beam_shift=shifts), 5)) == 5


def test_another_number_of_groups_than_the_gaps_show_is_said():
    shifts, of = holes(300)
    names = [f"m{n}.mrc" for n in range(300)]
    found = optics_groups(names, optics_source("afis"), Acquired(beam_shift=shifts), 3)
    assert (len(found), codes(found.messages)) == (3, ["optics-groups", "beam-shifts-not-separate"])
    assert "show 9 groups, not 3" in found.messages[1].text
    asked = optics_groups(names, optics_source("afis"), Acquired(beam_shift=shifts), 9)
    assert codes(asked.messages) == ["optics-groups"]
    assert same_groups(asked.index, of)


def test_outliers_are_counted():
    shifts, _ = holes(300)
    shifts[0] = (0.5, 0.5)
    found = optics_groups([f"m{n}.mrc" for n in range(300)], optics_source("afis"), Acquired(beam_shift=shifts))
    assert "the beam shifts of 1 micrograph lie apart from all groups, and are in the nearest" in texts(found.messages)


MDOC = "[FrameSet = 0]\nImageShift = {} {}\nMultishotHoleAndPosition = {} 1\nSubFramePath = X:\\d\\{}\n"


@pytest.mark.parametrize("end", [".tif.mdoc", ".mdoc"])
def test_mdoc_files_of_movies_have_shifts_and_positions(tmp_path, end):
    shifts, of = holes(45)
    names = [f"g_{number:04d}_Dec23_13.20.{number:02d}.tif" for number in range(45)]
    for name, (x, y), hole in zip(names, shifts, of, strict=True):
        (tmp_path / name).write_bytes(b"II*\0")
        (tmp_path / f"{name[:-4]}{end}").write_text(MDOC.format(x, y, hole + 1, name))
    files = [tmp_path / name for name in names]
    for source in ("afis", "serialem"):
        found = optics_groups(averages(names), optics_source(source), Acquired(names, files))
        assert same_groups(found.index, of)
    assert found.names[0] == "serialem_1-1"


def test_an_mdoc_file_of_a_session_names_its_movies(tmp_path):
    shifts, of = holes(45)
    names = [f"g_{number:04d}.tif" for number in range(45)]
    sections = [MDOC.format(x, y, hole, name) for name, (x, y), hole in zip(names, shifts, of, strict=True)]
    (tmp_path / "Frames.mdoc").write_text("Voltage = 300\n" + "\n".join(sections))
    found = optics_groups(averages(names), optics_source(f"afis:{tmp_path}"))
    assert same_groups(found.index, of)


def test_movies_of_one_name_have_the_files_of_their_own_folders(tmp_path):
    names, files, expected = [], [], []
    for session in range(2):
        for number in range(30):
            path = tmp_path / f"session{session}" / f"g_{number:04d}.tif"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"II*\0")
            path.with_suffix(".tif.mdoc").write_text(MDOC.format(session, number % 2, 1, path.name))
            names.append(f"J{session}/imported/{UID}{path.name}")
            files.append(path)
            expected.append(2 * session + number % 2)
    found = optics_groups(names, optics_source("afis"), Acquired(names, files))
    assert found.index.tolist() == expected
    # In a folder above both it is not known which one is meant.
    with pytest.raises(MissingDataError, match="no beam shift is known"):
        optics_groups(names, optics_source(f"afis:{tmp_path}"))
    said = read_sidecars([*names, "h.tif"], folder=tmp_path)
    assert texts(said.messages)[0].startswith("30 of 31 movies have several files of one name there")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a_Fractions.tif.mdoc", "a"),
        ("m_13.20.21.mdoc", "m_13_20_21"),
        ("m_13.20.21.tif", "m_13_20_21"),
        (f"J2/{UID}m_13.20.21_patch_aligned_doseweighted.mrc", "m_13_20_21"),
        ("a.mrc", "a"),
        (f"{UID}FoilHole_1_Data_2_3_20240101_000000_EER.eer", "FoilHole_1_Data_2_3_20240101_000000"),
        ("FoilHole_1_Data_2_3_20240101_000000.xml", "FoilHole_1_Data_2_3_20240101_000000"),
    ],
)
def test_files_of_one_exposure_have_one_key(name, key):
    assert exposure_key(name) == key


def test_thousands_of_files_are_read_fast(tmp_path):
    names = epu_names(3000)
    for number, name in enumerate(names):
        (tmp_path / name.replace("_fractions.tiff", ".xml")).write_text(XML.format(number % 3, 0))
    start = time.process_time()
    said = read_sidecars(names, folder=tmp_path)
    assert time.process_time() - start < 10
    assert said.n_files == 3000
    assert np.isfinite(said.shift).all()


# As another file has them


def particles_star(path, micrographs, groups):
    optics = "\n".join(f"{n} og_{n} 300 2.7 0.1 1.0 64 2" for n in sorted({*groups}))
    rows = "\n".join(f"{k + 1}@p.mrcs {name} {n}" for k, (name, n) in enumerate(zip(micrographs, groups, strict=True)))
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnOpticsGroupName\n_rlnVoltage\n_rlnSphericalAberration\n"
        "_rlnAmplitudeContrast\n_rlnImagePixelSize\n_rlnImageSize\n_rlnImageDimensionality\n"
        f"{optics}\n\ndata_particles\n\nloop_\n_rlnImageName\n_rlnMicrographName\n_rlnOpticsGroup\n{rows}\n\n"
    )
    return path


def test_groups_of_particles_are_matched_by_their_micrographs(tmp_path):
    movies = [f"m{n}" for n in range(30)]
    relion = [f"MotionCorr/job002/raw/{name}_fractions.mrc" for name in movies]
    star = particles_star(
        tmp_path / "p.star", [name for name in relion for _ in range(3)], [1, 2, 2] * 10 + [2, 2, 1] * 20
    )
    found = optics_groups(averages(movies, "_fractions_patch_aligned.mrc"), optics_source(str(star)))
    assert found.names == ("og_2",)
    assert codes(found.messages) == ["optics-groups", "optics-groups-mixed"]
    assert "30 of 30 micrographs are in several optics groups of p.star" in found.messages[1].text


def test_micrographs_that_the_file_lacks_are_counted(tmp_path):
    movies = [f"m{n}" for n in range(30)]
    star = particles_star(tmp_path / "p.star", [f"{name}.mrc" for name in movies[:20]], [7, 3] * 10)
    found = optics_groups(averages(movies), optics_source(str(star)))
    assert found.names == ("og_3", "og_7", "unassigned")
    assert found.index.tolist() == [1, 0] * 10 + [2] * 10
    assert "10 of 30 micrographs are in an optics group of their own, unassigned: p.star does not have them" in texts(
        found.messages
    )


def test_groups_of_cryosparcs_particles_are_taken_too(tmp_path):
    columns = particle_columns(["p.mrc"] * 4, range(4), ctf__exp_group_id=np.array([5, 5, 9, 9], "u4"))
    columns |= {"location/micrograph_path": ["J2/m1.mrc", "J2/m1.mrc", "J2/m2.mrc", "J2/m2.mrc"]}
    columns |= {f"location/center_{axis}_frac": np.full(4, 0.5, "f4") for axis in "xy"}
    columns |= {"location/micrograph_shape": np.full((4, 2), 100, "u4")}
    path = save_cs(tmp_path / "p.cs", columns)
    found = optics_groups(["m2.mrc", "m1.mrc"], optics_source(str(path)))
    assert (found.names, found.index.tolist()) == (("opticsGroup5", "opticsGroup9"), [1, 0])


def test_a_list_of_micrographs_is_taken_too(tmp_path):
    path = tmp_path / "m.star"
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnOpticsGroupName\n_rlnVoltage\n_rlnSphericalAberration\n"
        "_rlnAmplitudeContrast\n_rlnMicrographPixelSize\n1 a 300 2.7 0.1 1.0\n2 b 300 2.7 0.1 1.0\n\n"
        "data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\nMotionCorr/job002/m1.mrc 1\n"
        "MotionCorr/job002/m2.mrc 2\n\n"
    )
    found = optics_groups(averages(["m2", "m1"]), optics_source(str(path)))
    assert (found.names, found.index.tolist()) == (("a", "b"), [1, 0])


def test_micrographs_that_fit_several_get_the_group_that_all_of_these_have(tmp_path):
    listed = ["a/m1.mrc", "b/m1.mrc", "a/m2.mrc", "b/m2.mrc", "a/m3.mrc"]
    star = particles_star(tmp_path / "p.star", listed, [1, 1, 1, 2, 2])
    found = optics_groups(averages(["m1", "m2", "m3"]), optics_source(str(star)))
    assert [found.names[group] for group in found.index] == ["og_1", "unassigned", "og_2"]
    (said,) = [message.text for message in found.messages if message.code == "optics-unassigned"]
    assert "or it is not clear which they are, as of J2/motioncorrected/" in said


def test_names_of_groups_are_taken_to_the_letter(tmp_path):
    star = particles_star(tmp_path / "p.star", ["m1.mrc", "m2.mrc", "m3.mrc"], [1, 2, 3])
    text = star.read_text()
    for old, new in (("1 og_1 ", "1 'krios jan' "), ("2 og_2 ", "2 001 "), ("3 og_3 ", "3 opticsGroup7 ")):
        text = text.replace(old, new)
    star.write_text(text)
    found = optics_groups(["m3.mrc", "m1.mrc", "m2.mrc"], optics_source(str(star)))
    assert [found.names[group] for group in found.index] == ["opticsGroup7", "krios jan", "001"]


def test_a_file_of_other_micrographs_is_an_error(tmp_path):
    star = particles_star(tmp_path / "p.star", ["a.mrc", "b.mrc"], [1, 2])
    with pytest.raises(MissingDataError, match="none of the micrographs is in it"):
        optics_groups(["x1.mrc"], optics_source(str(star)))
    star = save_star(tmp_path / "q.star", "particles", {"rlnImageName": ["1@p.mrcs"]})
    with pytest.raises(MissingDataError):
        optics_groups(["x1.mrc"], optics_source(str(star)))
    with pytest.raises(FormatError):
        optics_groups(["x1.mrc"], optics_source(str(tmp_path / "none.star")))


# Micrographs and particles in their new groups


def exposures(path, **changes):
    n = 6
    columns = {
        "uid": np.arange(n, dtype="u8") + 2**63,
        "micrograph_blob/path": averages(epu_names(n)),
        "micrograph_blob/shape": np.full((n, 2), 64, "u4"),
        "micrograph_blob/psize_A": np.full(n, 0.8, "f4"),
        "mscope_params/accel_kv": np.full(n, 300, "f4"),
        "mscope_params/cs_mm": np.full(n, 2.7, "f4"),
        "mscope_params/exp_group_id": np.array([1, 2, 3, 1, 2, 3], "u4"),
        **{name.replace("__", "/"): values for name, values in changes.items()},
    }
    return read_exposures(save_cs(path, columns))


def test_groups_keep_their_values(tmp_path):
    micrographs = exposures(tmp_path / "e.cs")
    grouped, messages = with_groups(micrographs, np.array([0, 1, 0, 1, 0, 1], np.int32), ["a", "b"])
    assert messages == []
    assert (grouped.optics.name, grouped.optics.group_id.tolist()) == (("a", "b"), [1, 2])
    assert grouped.optics_index.tolist() == [0, 1, 0, 1, 0, 1]
    for name in ("voltage_kV", "spherical_aberration_mm", "pixel_size_A"):
        np.testing.assert_array_equal(grouped.per_micrograph(name), micrographs.per_micrograph(name))


def test_groups_are_split_where_values_differ(tmp_path):
    voltage = np.array([300, 300, 300, 200, 300, 300], "f4")
    micrographs = exposures(tmp_path / "e.cs", mscope_params__accel_kv=voltage)
    grouped, messages = with_groups(micrographs, np.array([0, 1, 0, 1, 0, 1], np.int32), ["a", "b"])
    assert codes(messages) == ["optics-groups-split"]
    assert "2 optics groups became 3" in messages[0].text
    assert sorted(grouped.optics.name) == ["a", "b", "b_2"]
    np.testing.assert_array_equal(grouped.per_micrograph("voltage_kV"), voltage)


def test_columns_of_optics_that_the_model_lacks_go_along(tmp_path):
    star = particles_star(tmp_path / "p.star", ["a.mrc", "b.mrc", "c.mrc"], [1, 2, 3])
    text = star.read_text().replace("_rlnImageDimensionality\n", "_rlnImageDimensionality\n_rlnMtfFileName\n", 1)
    text = text.replace("64 2\n", "64 2 k2.star\n").replace(
        "og_3 300 2.7 0.1 1.0 64 2 k2", "og_3 300 2.7 0.1 1.0 64 2 k3"
    )
    star.write_text(text)
    particles = open_particles(star).particles
    grouped, messages = with_groups(particles, np.zeros(3, np.int32), ["a"])
    assert grouped.extra.optics["rlnMtfFileName"].tolist() == ["k2.star", "k3.star"]
    assert (grouped.optics.name, grouped.optics_index.tolist()) == (("a", "a_2"), [0, 0, 1])
    assert codes(messages) == ["optics-groups-split"]
