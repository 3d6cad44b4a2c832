"""cryoSPARC's exposures become a micrograph set, whichever of its jobs wrote them."""

import numpy as np
import pytest

import exposure_files as files
from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.cryosparc.exposures import is_exposures, read_exposures

N = 4


@pytest.fixture
def project(tmp_path):
    return files.write_project(tmp_path / "P1", N)


@pytest.mark.parametrize(
    "name", ["J3", "J3/exposures_ctf_estimated.cs", "J3/J3_passthrough_exposures_ctf_estimated.cs"]
)
def test_all_columns_of_a_job_come_together_by_uid(project, name):
    found = read_exposures(project / name)
    order = np.argsort(found.uid)
    stems = [files.stems(N)[row] for row in np.argsort(files.uids(N))]
    assert [found.names[row] for row in order] == [
        f"J2/motioncorrected/{stem}_patch_aligned_doseweighted.mrc" for stem in stems
    ]
    assert [found.movies.name[row] for row in order] == [f"J1/imported/{stem}.tif" for stem in stems]
    assert [found.motion.rigid.path[row] for row in order] == [
        f"J2/motioncorrected/{stem}_rigid_traj.npy" for stem in stems
    ]
    by_uid = files.ctf_columns(N)["ctf/df1_A"][np.argsort(files.uids(N))]
    np.testing.assert_array_equal(found.ctf.defocus_u_A[order], by_uid)


def test_what_is_known_of_micrographs_and_movies(project):
    found = read_exposures(project / "J3")
    assert (len(found), found.program, found.source.name) == (N, "cryosparc", "exposures_ctf_estimated.cs")
    assert found.shape_px.tolist() == [[files.NY, files.NX]] * N
    np.testing.assert_allclose(found.pixel_size_A, files.PIXEL_SIZE_A, rtol=1e-6)
    movies = found.movies
    assert movies.shape_px.tolist() == [[2 * files.NY, 2 * files.NX]] * N
    assert movies.n_frames.tolist() == [files.FRAMES] * N
    np.testing.assert_allclose(movies.pixel_size_A, files.PIXEL_SIZE_A / 2, rtol=1e-6)
    assert movies.dose_per_frame_e_A2.tolist() == [5.0] * N
    assert not movies.is_gain_corrected.any()
    gain = movies.gain
    assert set(gain.name.values) == {"J1/imported/gain.mrc"}
    assert (gain.flip_x.any(), gain.flip_y.all(), gain.quarter_turns.tolist()) == (False, True, [0] * N)
    spline = found.motion.spline
    assert (spline.first_frame.tolist(), spline.end_frame.tolist()) == ([0] * N, [files.FRAMES] * N)
    np.testing.assert_allclose(spline.pixel_size_A, files.PIXEL_SIZE_A / 2, rtol=1e-6)
    assert found.fit.resolution_A[0] == pytest.approx(3.5)
    assert found.fit.ice_thickness[-1] == pytest.approx(1.2)


def test_exposure_groups_are_optics_groups(project):
    found = read_exposures(project / "J3")
    assert found.optics.group_id.tolist() == [3, 4]
    assert found.optics_index.tolist() == [0, 1, 0, 1]
    assert found.per_micrograph("voltage_kV").tolist() == [300.0] * N
    np.testing.assert_allclose(found.optics.pixel_size_A, files.PIXEL_SIZE_A, rtol=1e-6)
    np.testing.assert_allclose(found.optics.movie_pixel_size_A, files.PIXEL_SIZE_A / 2, rtol=1e-6)


def test_movies_have_the_optics_of_the_microscope(project):
    found = read_exposures(project / "J1/imported_movies.cs")
    assert found.name is None
    assert found.names[0].endswith("_grid1_0000.tif")
    assert (found.ctf, found.motion, found.shape_px) == (None, None, None)
    assert np.isnan(found.pixel_size_A).all()
    assert found.optics.group_id.tolist() == [3, 4]
    assert found.optics.voltage_kV.tolist() == [300, 300]
    assert np.isnan(found.optics.amplitude_contrast).all()


def test_a_dose_of_zero_is_none(project, tmp_path):
    write_cs(tmp_path / "a.cs", files.exposure_columns(N) | {"mscope_params/total_dose_e_per_A2": np.zeros(N, "f4")})
    assert np.isnan(read_exposures(tmp_path / "a.cs").movies.dose_per_frame_e_A2).all()


def test_fits_of_zero_are_none(tmp_path):
    """An imported CTF has 0 for what was not fitted; statistics of cryoSPARC's own fit stand beside it."""
    columns = files.exposure_columns(N) | files.motion_columns(N) | files.ctf_columns(N)
    zeros = np.zeros(N, "f4")
    columns |= {"ctf/ctf_fit_to_A": np.where(np.arange(N) < 2, 5, 0).astype("f4"), "ctf/cross_corr_ctffind4": zeros}
    columns["ctf_stats/ctf_fit_to_A"][-1] = 0
    write_cs(tmp_path / "a.cs", columns)
    fit = read_exposures(tmp_path / "a.cs").fit
    np.testing.assert_allclose(fit.resolution_A, [5, 5, columns["ctf_stats/ctf_fit_to_A"][2], np.nan])
    np.testing.assert_allclose(fit.score, columns["ctf_stats/cross_corr"])
    write_cs(tmp_path / "b.cs", columns | {f"ctf_stats/{name}": zeros for name in ("cross_corr", "ctf_fit_to_A")})
    assert read_exposures(tmp_path / "b.cs").fit.score is None


def test_rows_are_taken_and_names_are_distinct(project):
    found = read_exposures(project / "J3")
    part = found.take(np.array([2, 0, 2]))
    assert part.names == tuple(found.names[row] for row in (2, 0, 2))
    assert part.movies.gain.flip_y.tolist() == [True] * 3
    assert part.motion.rigid.path[1] == found.motion.rigid.path[0]
    assert part.distinct().names == part.names[:2]
    assert found.take(np.arange(N) == 1).uid.tolist() == found.uid[1:2].tolist()


def test_particles_say_on_which_micrographs_they_are(demo_project):
    found = read_exposures(demo_project.refinement)
    assert len(found) == 2
    assert found.shape_px.tolist() == [list(shape) for shape in [found.shape_px[0]] * 2]
    assert set(found.uid.tolist()) == set(demo_project.truth.micrographs.uid.tolist())
    assert found.ctf is None


def test_what_has_no_exposures_is_refused(demo_project, tmp_path):
    with pytest.raises(UsageError, match="not exposures of cryoSPARC"):
        read_exposures(demo_project.micrographs_star)
    with pytest.raises(MissingDataError, match="no micrographs of cryoSPARC are in it"):
        write_cs(tmp_path / "a.cs", {"uid": files.uids(N)})
        read_exposures(tmp_path / "a.cs")
    with pytest.raises(UsageError) as caught:
        read_exposures(demo_project.relion)
    assert "exposures" in caught.value.hint
    (tmp_path / "J9").mkdir()
    with pytest.raises(CryobridgeError):
        read_exposures(tmp_path / "J9")
    columns = files.exposure_columns(N)
    with pytest.raises(MissingDataError, match="no size"):
        write_cs(tmp_path / "b.cs", columns | {"micrograph_blob/shape": np.zeros((N, 2), "u4")})
        read_exposures(tmp_path / "b.cs")


def test_exposures_are_told_from_particles(project, demo_project):
    assert is_exposures(tuple(files.exposure_columns()))
    assert is_exposures(("uid", "movie_blob/path"))
    assert not is_exposures(("uid", "blob/path", "micrograph_blob/path"))
    assert not is_exposures(("uid", "ctf/df1_A"))


def test_a_microscope_that_is_another_by_the_ctf_is_said(tmp_path):
    columns = files.exposure_columns(N)
    columns["mscope_params/accel_kv"] = np.array([300, 300, 200, 0], "f4")
    write_cs(tmp_path / "exposures.cs", columns)
    found = read_exposures(tmp_path / "exposures.cs")
    assert found.per_micrograph("voltage_kV").tolist() == [300] * N
    (said,) = [message.text for message in found.messages if message.code == "optics-contradiction"]
    assert said.endswith("mscope_params/accel_kv 200 and 300 in 1 of 4 rows")
