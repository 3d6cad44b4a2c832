import numpy as np
import pytest
import starfile

import cryobridge as cb
import exposure_files as written
from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.jobs.exposures.optics import beam_shifts, in_optics_groups
from cryobridge.jobs.shared_options import OpticsGroupOptions
from helpers import codes, particle_columns, save_cs

UID = "000090334788266266069_"
N = 60
MOVIES = [f"FoilHole_{1000 + n}_Data_5_{n % 4 + 1}_20240101_{n:06d}_fractions.tiff" for n in range(N)]
XML = (
    "<MicroscopeImage><microscopeData><optics><BeamShift><_x>{}</_x><_y>0</_y></BeamShift></optics></microscopeData>"
    "</MicroscopeImage>"
)


def exposures(path, **changes):
    columns = {
        "uid": np.arange(N, dtype="u8") + 2**63,
        "movie_blob/path": [f"J1/imported/{UID}{name}" for name in MOVIES],
        "movie_blob/shape": np.tile(np.array([40, 64, 64], "u4"), (N, 1)),
        "movie_blob/psize_A": np.full(N, 0.4, "f4"),
        "micrograph_blob/path": [f"J2/motioncorrected/{n:021d}_m{n}_patch_aligned.mrc" for n in range(N)],
        "micrograph_blob/shape": np.full((N, 2), 64, "u4"),
        "micrograph_blob/psize_A": np.full(N, 0.8, "f4"),
        "mscope_params/accel_kv": np.full(N, 300, "f4"),
        "mscope_params/cs_mm": np.full(N, 2.7, "f4"),
        "mscope_params/exp_group_id": np.arange(N, dtype="u4") % 3 + 1,
        **{name.replace("__", "/"): values for name, values in changes.items()},
    }
    return read_exposures(save_cs(path, columns))


def names_of(micrographs):
    return [micrographs.optics.name[group] for group in micrographs.optics_index.tolist()]


def test_exposure_groups_stay_where_nothing_else_is_asked_for(tmp_path):
    micrographs = exposures(tmp_path / "e.cs")
    grouped, messages = in_optics_groups(micrographs, OpticsGroupOptions(), [None] * N)
    assert names_of(grouped) == [f"opticsGroup{n % 3 + 1}" for n in range(N)]
    assert messages == []


def test_small_exposure_groups_are_warned_of(tmp_path):
    of = np.ones(N, "u4")
    of[:4] = 7
    micrographs = exposures(tmp_path / "e.cs", mscope_params__exp_group_id=of)
    assert codes(in_optics_groups(micrographs, OpticsGroupOptions(), [])[1]) == ["small-optics-groups"]


def test_names_of_movies_make_groups_of_micrographs(tmp_path):
    micrographs = exposures(tmp_path / "e.cs")
    grouped, messages = in_optics_groups(micrographs, OpticsGroupOptions(optics_from="epu"), [])
    assert names_of(grouped) == [f"epu_5_{n % 4 + 1}" for n in range(N)]
    assert codes(messages) == ["optics-groups"]
    np.testing.assert_array_equal(grouped.per_micrograph("pixel_size_A"), micrographs.per_micrograph("pixel_size_A"))
    np.testing.assert_array_equal(grouped.per_micrograph("movie_pixel_size_A"), np.full(N, np.float32(0.4)))


def test_beam_shifts_that_cryosparc_imported_make_groups(tmp_path):
    shift = np.stack([np.arange(N) % 3, np.zeros(N)], axis=1).astype("f4")
    micrographs = exposures(
        tmp_path / "e.cs", mscope_params__beam_shift=shift, mscope_params__beam_shift_known=np.ones(N, "u4")
    )
    grouped, messages = in_optics_groups(micrographs, OpticsGroupOptions(optics_from="afis"), [])
    assert names_of(grouped) == [f"afis_{n % 3 + 1}" for n in range(N)]
    assert "of the metadata" in messages[0].text


def test_shifts_that_are_not_known_are_not_taken(tmp_path):
    shift = np.zeros((N, 2), "f4")
    assert beam_shifts(exposures(tmp_path / "a.cs", mscope_params__beam_shift=shift)) is None
    is_known = np.ones(N, "u4")
    is_known[:12] = 0
    columns = {"mscope_params__beam_shift": shift + 1, "mscope_params__beam_shift_known": is_known}
    found = beam_shifts(exposures(tmp_path / "b.cs", **columns))
    assert np.isnan(found).all(axis=1).tolist() == [True] * 12 + [False] * (N - 12)
    assert beam_shifts(exposures(tmp_path / "c.cs")) is None
    with pytest.raises(FormatError, match="two numbers"):
        beam_shifts(exposures(tmp_path / "d.cs", mscope_params__beam_shift=np.ones(N, "f4")))


def test_beam_shifts_beside_the_movies_make_groups(tmp_path):
    data, imported = tmp_path / "data", tmp_path / "J1/imported"
    data.mkdir()
    imported.mkdir(parents=True)
    files = []
    for number, name in enumerate(MOVIES):
        (data / name).write_bytes(b"II*\0")
        (data / name.replace("_fractions.tiff", ".xml")).write_text(XML.format(number % 5))
        files.append(imported / f"{UID}{name}")
        files[-1].symlink_to(data / name)
    micrographs = exposures(tmp_path / "e.cs", mscope_params__beam_shift=np.zeros((N, 2), "f4"))
    grouped, _ = in_optics_groups(micrographs, OpticsGroupOptions(optics_from="afis"), files)
    assert names_of(grouped) == [f"afis_{n % 5 + 1}" for n in range(N)]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """cryoSPARC's job of micrographs, whose movies are at three positions by SerialEM."""
    monkeypatch.chdir(tmp_path)
    written.write_project(tmp_path / "P1", 30)
    (tmp_path / "relion").mkdir()
    (tmp_path / "relion/default_pipeline.star").touch()
    sections = [
        f"[FrameSet = 0]\nSubFramePath = X:\\d\\grid1_{row:04d}.tif\nMultishotHoleAndPosition = {row % 3} 0\n"
        for row in range(30)
    ]
    (tmp_path / "frames.mdoc").write_text("".join(sections))
    return tmp_path


def test_lists_have_the_groups_and_particles_get_them(project):
    out = "relion/MotionCorr/job002"
    report = cb.micrographs("P1/J3", out, optics_from=f"serialem:{project}")
    assert report.optics_groups == 3
    assert "optics-groups" in codes(report.messages)
    for name in ("micrographs.star", "micrographs_ctf.star"):
        blocks = starfile.read(f"{out}/{name}", always_dict=True)
        assert blocks["optics"]["rlnOpticsGroupName"].tolist() == [f"serialem_{hole}-0" for hole in range(3)]
        assert blocks["micrographs"]["rlnOpticsGroup"].tolist() == [row % 3 + 1 for row in range(30)]
    columns = particle_columns(["J4/extract/a.mrc"] * 30, range(30), ctf__exp_group_id=np.arange(30, dtype="u4") % 2)
    columns |= {
        "location/micrograph_path": [
            f"J2/motioncorrected/{stem}_patch_aligned_doseweighted.mrc" for stem in written.stems(30)
        ],
        "location/center_x_frac": np.full(30, 0.5, "f4"),
        "location/center_y_frac": np.full(30, 0.5, "f4"),
        "location/micrograph_shape": np.tile(np.array([[written.NY, written.NX]], "u4"), (30, 1)),
    }
    save_cs(project / "P1/J4/particles.cs", columns)
    listed = f"{out}/micrographs_ctf.star"
    cb.convert("P1/J4/particles.cs", "relion/p.star", micrographs=listed, orientation="stored", force=True)
    particles = starfile.read("relion/p.star", always_dict=True)
    names = particles["optics"].set_index("rlnOpticsGroup")["rlnOpticsGroupName"]
    found = names[particles["particles"]["rlnOpticsGroup"]].tolist()
    assert found == [f"serialem_{row % 3}-0" for row in range(30)]


def test_the_list_that_has_the_groups_is_never_replaced(project):
    out = "relion/MotionCorr/job002"
    cb.micrographs("P1/J3", out)
    with pytest.raises(UsageError, match="one of the inputs"):
        cb.micrographs("P1/J3", out, optics_from=f"{out}/micrographs.star", overwrite=True)
    listed = f"{out}/micrographs_ctf.star"
    report = cb.micrographs("P1/J3", "relion/MotionCorr/job003", optics_from=listed)
    assert report.optics_groups == 2


def test_a_number_of_groups_is_for_beam_shifts(project):
    with pytest.raises(UsageError, match="would do nothing here"):
        cb.micrographs("P1/J3", "out", optics_groups=3)
    with pytest.raises(MissingDataError, match="no beam shift is known"):
        cb.micrographs("P1/J3", "out", optics_from="afis")
