from __future__ import annotations

import json
import warnings

import mrcfile
import numpy as np
import pytest
import starfile
from scipy import constants, ndimage, optimize

from cryobridge.demo import project as demo_project
from cryobridge.demo import simulate_project
from cryobridge.demo.physics import ImageGrid, Microscope, contrast_transfer
from cryobridge.errors import CryobridgeError, OutputExistsError, UsageError
from cryobridge.formats.cryosparc.csg import read_csg
from cryobridge.formats.cryosparc.job import read_job
from cryobridge.formats.relion.job import read_relion_job
from cryobridge.model.particles import CTF


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return simulate_project(tmp_path_factory.mktemp("noisy"), n_micrographs=3, particles_per_micrograph=40)


@pytest.fixture(scope="module")
def lonely(tmp_path_factory):
    # Without noise and with one particle a micrograph: no neighbour in any box.
    folder = tmp_path_factory.mktemp("lonely")
    return simulate_project(folder, n_micrographs=8, particles_per_micrograph=1, snr=1e8, seed=7)


def read_stacks(project):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # mrcfile gives a stack of one image as an image.
        return np.concatenate([mrcfile.read(path).reshape(-1, 96, 96) for path in project.stacks])


def wavelength_from_constants(voltage):
    energy = constants.e * voltage
    momentum = np.sqrt(2 * constants.m_e * energy * (1 + energy / (2 * constants.m_e * constants.c**2)))
    return 1e10 * constants.h / momentum


def phase_in_direction(k, defocus):
    wavelength = wavelength_from_constants(300e3)
    return np.pi * wavelength * defocus * k**2 - np.pi / 2 * 2.7e7 * wavelength**3 * k**4


def independent_ctf(n, pixel, u, v, angle):
    ky, kx = np.meshgrid(np.fft.fftfreq(n, pixel), np.fft.fftfreq(n, pixel), indexing="ij")
    defocus = u * np.cos(np.arctan2(ky, kx) - angle) ** 2 + v * np.sin(np.arctan2(ky, kx) - angle) ** 2
    phase = phase_in_direction(np.hypot(kx, ky), defocus)
    return np.sqrt(1 - 0.1**2) * np.sin(phase) + 0.1 * np.cos(phase)


def voxel_volume(molecule, n, pixel):
    z, y, x = np.meshgrid(*[(np.arange(n) - n // 2) * pixel] * 3, indexing="ij")
    volume = np.zeros((n, n, n))
    for (px, py, pz), sigma, weight in zip(molecule.position_A, molecule.sigma_A, molecule.weight, strict=True):
        distance2 = (x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2
        volume += weight / sigma**3 * np.exp(-distance2 / (2 * sigma**2))
    return volume


def rotated_projection(volume, matrix):
    # affine_transform asks where each voxel of the output, in z, y, x, comes from: r = A.T r'.
    backward = matrix.T[::-1, ::-1]
    centre = np.full(3, volume.shape[0] // 2)
    return ndimage.affine_transform(volume, backward, centre - backward @ centre, order=1).sum(axis=0)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def shifted(image, xy):
    return np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(image), xy[::-1])).real


def independent_images(project, matrices):
    truth, n, pixel = project.truth, project.box_px, project.pixel_size_A
    volume = voxel_volume(truth.molecule, n, pixel)
    ctf = truth.particles.ctf
    for row, matrix in enumerate(matrices):
        projection = shifted(rotated_projection(volume, matrix), -truth.particles.shift_px[row])
        factors = independent_ctf(n, pixel, ctf.defocus_u_A[row], ctf.defocus_v_A[row], ctf.defocus_angle_rad[row])
        yield -np.fft.ifft2(np.fft.fft2(projection) * factors).real


def test_images_are_dark_ctf_modulated_projections_by_the_pose_and_shift_in_the_cs_file(lonely):
    images = read_stacks(lonely)
    right = independent_images(lonely, lonely.truth.particles.matrix)
    transposed = independent_images(lonely, lonely.truth.particles.matrix.transpose(0, 2, 1))
    scores = np.array(
        [(correlation(image, a), correlation(image, b)) for image, a, b in zip(images, right, transposed, strict=True)]
    )
    assert scores[:, 0].min() > 0.98
    assert np.median(scores[:, 1]) < 0.9
    assert np.all(scores[:, 0] > scores[:, 1])


def test_the_truth_is_what_the_files_say(noisy):
    main, passthrough = np.load(noisy.particles_cs), np.load(noisy.passthrough_cs)
    particles, micrographs = noisy.truth.particles, noisy.truth.micrographs
    np.testing.assert_array_equal(main["uid"], particles.uid)
    np.testing.assert_array_equal(main["alignments3D/pose"], particles.pose_rotvec)
    np.testing.assert_allclose(main["alignments3D/shift"] * main["alignments3D/psize_A"][:, None], particles.shift_A)
    np.testing.assert_array_equal(main["ctf/df1_A"], particles.ctf.defocus_u_A)
    np.testing.assert_array_equal(main["alignments3D/split"] + 1, particles.half_set)
    joined = passthrough[np.argsort(passthrough["uid"])][np.argsort(np.argsort(main["uid"]))]
    np.testing.assert_array_equal(joined["uid"], main["uid"])
    shape = joined["location/micrograph_shape"]
    xy = np.column_stack([joined["location/center_x_frac"], joined["location/center_y_frac"]]) * shape[:, ::-1]
    np.testing.assert_allclose(xy, particles.pick_px, atol=1e-3)
    np.testing.assert_allclose([0, 768] + xy * [1, -1], particles.relion_coordinate_px, atol=1e-3)
    np.testing.assert_array_equal(joined["location/micrograph_uid"], micrographs.uid[particles.micrograph])


def test_files_open_in_numpy_mrcfile_and_starfile(noisy):
    main, passthrough = np.load(noisy.particles_cs), np.load(noisy.passthrough_cs)
    assert set(main["uid"]) == set(passthrough["uid"])
    assert not np.array_equal(main["uid"], passthrough["uid"])
    assert main["uid"].max() > 2**63
    for row in main[::17]:
        stack = mrcfile.read(noisy.cryosparc / row["blob/path"].decode())
        assert stack.shape == (40, *row["blob/shape"])
        assert row["blob/idx"] < len(stack)
    for row in passthrough[::17]:
        micrograph = mrcfile.read(noisy.cryosparc / row["location/micrograph_path"].decode())
        assert micrograph.squeeze().shape == tuple(row["location/micrograph_shape"])
    with mrcfile.open(noisy.stacks[0]) as stack:
        assert stack.header.ispg == 0
        assert stack.voxel_size.x == pytest.approx(1.5)
    star = starfile.read(noisy.micrographs_star)
    assert len(star["micrographs"]) == 3
    assert star["optics"]["rlnVoltage"].iloc[0] == 300
    assert all((noisy.relion / name).is_file() for name in star["micrographs"]["rlnMicrographName"])
    pipeline = starfile.read(noisy.relion / "default_pipeline.star")
    assert all((noisy.relion / name).is_file() for name in pipeline["pipeline_nodes"]["rlnPipeLineNodeName"])


def test_the_refinement_is_a_job_and_a_result_group_without_problems(noisy):
    job, group = read_job(noisy.refinement), read_csg(noisy.group_csg)
    assert job.problems == group.problems == ()
    assert (job.layout, job.job_type, job.status) == ("v4", "homo_refine_new", "completed")
    (output,) = job.outputs
    assert (output.main, output.passthroughs) == (noisy.particles_cs, (noisy.passthrough_cs,))
    assert (output.iteration, output.num_items) == (3, 120)
    assert set(group.members) == {noisy.particles_cs, noisy.passthrough_cs}
    assert noisy.earlier_cs.name == "J4_002_particles.cs"


def test_the_earlier_iteration_has_the_same_particles_less_well_aligned(noisy):
    earlier, last = np.load(noisy.earlier_cs), np.load(noisy.particles_cs)
    np.testing.assert_array_equal(earlier["uid"], last["uid"])
    assert earlier.dtype == last.dtype
    moved = np.hypot(*(earlier["alignments3D/shift"] - last["alignments3D/shift"]).T)
    assert 0.5 < moved.mean() < 3
    assert not np.any(np.all(earlier["alignments3D/pose"] == last["alignments3D/pose"], axis=1))


def test_the_classification_is_written_as_relion_writes_it(noisy):
    # RELION 3.1.3: iteration 0 has no sampling, its particles are in no class, and all change class in iteration 1.
    folder = noisy.folder / "relion/Class2D/job004"
    assert not (folder / "run_it000_sampling.star").exists()
    assert (folder / "run_it001_sampling.star").exists()
    assert set(starfile.read(folder / "run_it000_data.star")["particles"]["rlnClassNumber"]) == {0}
    assert starfile.read(folder / "run_it001_optimiser.star")["rlnChangesOptimalClasses"] == 1
    found = read_relion_job(folder)
    assert (found.kind, found.status, found.problems) == ("Class2D", "success", ())


def test_ctf_has_its_zeros_where_the_one_dimensional_formula_has_them():
    n, pixel, defocus = 4096, 1.0, 15000.0
    same = CTF(np.array([defocus]), np.array([defocus]), np.array([0.3]))
    along_x = contrast_transfer(Microscope(300.0, 2.7, 0.1), same, ImageGrid(n, pixel))[0, 0]
    k = np.fft.rfftfreq(n, pixel)
    at = np.flatnonzero(np.diff(np.sign(along_x)))
    found = k[at] - along_x[at] * (k[at + 1] - k[at]) / (along_x[at + 1] - along_x[at])
    for order, zero in enumerate(found[:20], 1):

        def remainder(k, order=order):
            return phase_in_direction(k, defocus) + np.arctan(0.1 / np.sqrt(1 - 0.1**2)) - order * np.pi

        assert zero == pytest.approx(optimize.brentq(remainder, 0, 0.4), abs=2e-6)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 135.0, -60.0])
def test_astigmatic_ctf_has_defocus_u_along_its_angle_and_v_across(angle_deg):
    n, pixel = 64, 2.0
    angle = np.radians(angle_deg)
    ctf = CTF(np.array([21000.0]), np.array([17000.0]), np.array([angle]))
    factors = contrast_transfer(Microscope(300.0, 2.7, 0.1), ctf, ImageGrid(n, pixel))[0]
    expected = independent_ctf(n, pixel, 21000.0, 17000.0, angle)
    np.testing.assert_allclose(factors[:, :-1], expected[:, : n // 2], atol=2e-3)


def test_phase_flipped_images_average_to_a_centred_particle_once_shifted(noisy):
    particles, n = noisy.truth.particles, noisy.box_px
    ctf = particles.ctf
    flipped = []
    for image, u, v, angle in zip(
        read_stacks(noisy), ctf.defocus_u_A, ctf.defocus_v_A, ctf.defocus_angle_rad, strict=True
    ):
        sign = -np.sign(independent_ctf(n, noisy.pixel_size_A, u, v, angle))
        flipped.append(np.fft.ifft2(np.fft.fft2(image) * sign).real)
    centred = np.mean([shifted(image, s) for image, s in zip(flipped, particles.shift_px, strict=True)], axis=0)
    y, x = np.mgrid[:n, :n] - n // 2
    inside = np.hypot(x, y) < 20
    weight = np.where(inside, centred - centred[(~inside) & (np.hypot(x, y) < 24)].mean(), 0)
    offset = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    assert np.abs(offset).max() < 0.5
    assert centred[n // 2 - 4 : n // 2 + 5, n // 2 - 4 : n // 2 + 5].mean() > 5 * np.abs(centred[:8, :8].mean())
    wrong_way = np.mean([shifted(image, -s) for image, s in zip(flipped, particles.shift_px, strict=True)], axis=0)
    assert np.square(centred[inside]).sum() > 1.05 * np.square(wrong_way[inside]).sum()


def darkness(micrograph, xy):
    # Mean of the pixels around each position, below that of the whole micrograph, in standard errors.
    smooth = ndimage.uniform_filter(micrograph.astype(np.float64), 17)
    x, y = np.round(xy).astype(int).T
    values = smooth[y, x]
    return (micrograph.mean() - values.mean()) / (smooth.std() / np.sqrt(len(values)))


def test_picks_lie_on_particles_in_relions_micrographs_only_with_y_flipped(noisy):
    particles = noisy.truth.particles
    for row, path in enumerate(noisy.relion_micrographs):
        micrograph = mrcfile.read(path).squeeze()
        chosen = particles.micrograph == row
        x, y = particles.relion_coordinate_px[chosen].T
        here = darkness(micrograph, np.column_stack([x, y]))
        assert here > 10
        assert abs(darkness(micrograph, np.column_stack([x, micrograph.shape[0] - y]))) < 0.4 * here
        assert abs(darkness(micrograph, np.column_stack([(x + 37) % 1024, (y + 41) % 768]))) < 0.4 * here


def test_relions_micrographs_are_cryosparcs_with_rows_reversed_and_the_astigmatism_mirrored(noisy):
    for a, b in zip(noisy.cryosparc_micrographs, noisy.relion_micrographs, strict=True):
        np.testing.assert_array_equal(mrcfile.read(a).squeeze()[::-1], mrcfile.read(b).squeeze())
    main = np.load(noisy.particles_cs)
    table = starfile.read(noisy.micrographs_star)["micrographs"]
    of_first = noisy.truth.particles.micrograph == 0
    assert table["rlnDefocusAngle"][0] == pytest.approx(-np.degrees(main["ctf/df_angle_rad"][of_first][0]), abs=1e-2)
    assert table["rlnDefocusU"][0] == pytest.approx(main["ctf/df1_A"][of_first].mean(), abs=100)


def test_picks_keep_their_distance_and_boxes_lie_within(noisy):
    particles = noisy.truth.particles
    for row in range(3):
        x, y = particles.pick_px[particles.micrograph == row].T
        distance = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(len(x))
        assert distance.min() >= noisy.box_px / 2
        assert min(x.min(), y.min()) >= 48
        assert x.max() <= 1024 - 48
        assert y.max() <= 768 - 48


def test_poses_cover_all_orientations(noisy):
    directions = noisy.truth.particles.matrix[:, 2]
    assert np.linalg.norm(directions.mean(axis=0)) < 0.25
    assert np.linalg.eigvalsh(np.cov(directions.T)).min() > 0.2


@pytest.mark.parametrize("snr", [0.1, 3.0])
def test_signal_to_noise_ratio_is_what_was_asked_for(tmp_path, snr):
    project = simulate_project(tmp_path / "p", n_micrographs=6, particles_per_micrograph=5, snr=snr)
    images = read_stacks(project).astype(np.float64)
    # Neighbours are rare here; the noise is known from a stretch that is free of particles in Fourier space.
    spectrum = np.abs(np.fft.fft2(images)) ** 2
    noise = spectrum[:, 30:66, 30:66].mean() / 96**2
    assert noise == pytest.approx(1.0, rel=0.02)
    assert images.var(axis=(1, 2)).mean() - noise == pytest.approx(snr, rel=0.25)


def contents(project):
    # A result group carries the time at which it was written.
    files = [path for path in project.folder.rglob("*") if path.is_file() and path.suffix != ".csg"]
    return {path.relative_to(project.folder): path.read_bytes() for path in files}


def test_the_seed_decides_everything(tmp_path):
    first, second, other = (
        simulate_project(tmp_path / name, n_micrographs=1, particles_per_micrograph=4, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert contents(first) == contents(second)
    assert not set(first.truth.particles.uid) & set(other.truth.particles.uid)


def test_a_folder_that_is_not_a_demo_project_is_never_touched(tmp_path):
    for name, text in (("notes.txt", "mine"), ("cryobridge_demo.json", '{"kind": "something else"}')):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text(text)
        with pytest.raises(OutputExistsError, match="left as it is"):
            simulate_project(folder, n_micrographs=1, particles_per_micrograph=1, overwrite=True)
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == text
    with pytest.raises(OutputExistsError):
        simulate_project(tmp_path / "notes_txt" / "notes.txt", overwrite=True)


def test_a_link_to_a_marker_marks_nothing(tmp_path):
    demo = simulate_project(tmp_path / "demo", n_micrographs=1, particles_per_micrograph=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "cryobridge_demo.json").symlink_to(demo.folder / "cryobridge_demo.json")
    with pytest.raises(OutputExistsError):
        simulate_project(other, overwrite=True)


def test_a_demo_project_is_replaced_only_when_asked(tmp_path):
    old = simulate_project(tmp_path / "demo", n_micrographs=2, particles_per_micrograph=1)
    before = contents(old)
    with pytest.raises(OutputExistsError, match="already"):
        simulate_project(old.folder, n_micrographs=1, particles_per_micrograph=1)
    with pytest.raises(UsageError):
        simulate_project(old.folder, n_micrographs=1, particles_per_micrograph=5000, overwrite=True)
    assert contents(old) == before
    new = simulate_project(old.folder, n_micrographs=1, particles_per_micrograph=1, overwrite=True)
    assert len(list(new.folder.rglob("*_fractions.mrc"))) == 1
    assert new.kept == ()


def test_what_a_demo_did_not_make_stays_and_no_link_is_followed(tmp_path):
    old = simulate_project(tmp_path / "demo", n_micrographs=2, particles_per_micrograph=1)
    mine = {old.folder / name for name in ("results.txt", "relion/Class2D/job004/converge_notes.txt", "J5/thick.cs")}
    # As named as files of the demo, in other places.
    mine |= {old.folder / "cryosparc" / "thick.cs", old.folder / "relion" / "job.json", old.folder / ".hidden"}
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("thick.cs", "grid2_0001_fractions.mrc"):
        (precious / name).write_text("keep")
    (old.folder / "link").symlink_to(precious)
    (old.folder / "empty").mkdir()
    new = simulate_project(old.folder, n_micrographs=1, particles_per_micrograph=1, overwrite=True)
    assert set(new.kept) == {*mine, old.folder / "link"}
    assert {path.read_text() for path in mine} == {"mine"}
    assert (old.folder / "empty").is_dir()
    assert {path.read_text() for path in precious.iterdir()} == {"keep"}
    assert len(list(new.folder.rglob("*_fractions.mrc"))) == 1


@pytest.mark.parametrize("name", ["relion", "stacks", "relion/Class2D"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_the_way_of_a_demos_folder_is_refused_and_stays(name, kind, tmp_path):
    old = simulate_project(tmp_path / "demo", n_micrographs=1, particles_per_micrograph=1)
    path = old.folder / name
    if path.exists():
        path.rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere") if kind == "link" else path.write_text("mine")
    before = contents(old)
    with pytest.raises(OutputExistsError, match="in the way") as error:
        simulate_project(old.folder, n_micrographs=2, particles_per_micrograph=1, overwrite=True)
    assert error.value.path == str(path)
    assert contents(old) == before
    assert kind == "link" or path.read_text() == "mine"


def test_a_folder_under_the_name_of_a_demos_file_is_refused(tmp_path):
    old = simulate_project(tmp_path / "demo", n_micrographs=1, particles_per_micrograph=1)
    (old.folder / "thick.cs").mkdir()
    with pytest.raises(OutputExistsError, match="in the way"):
        simulate_project(old.folder, n_micrographs=1, particles_per_micrograph=1, overwrite=True)


def test_the_job_of_another_program_in_a_demos_folder_is_not_touched(tmp_path):
    old = simulate_project(tmp_path / "demo", n_micrographs=1, particles_per_micrograph=1)
    job = old.folder / "downsampled" / "job.json"
    job.parent.mkdir()
    job.write_text('{"recovar_version": "1.0"}')
    before = contents(old)
    with pytest.raises(UsageError, match="RECOVAR"):
        simulate_project(old.folder, n_micrographs=2, particles_per_micrograph=1, overwrite=True)
    assert contents(old) == before


def test_an_interrupted_run_leaves_whole_files_in_a_folder_that_can_be_replaced(tmp_path, monkeypatch):
    record = demo_project.record

    def fail_on_the_second(truth, micrograph, scale, seed):
        if micrograph == 1:
            raise KeyboardInterrupt
        return record(truth, micrograph, scale, seed)

    monkeypatch.setattr(demo_project, "record", fail_on_the_second)
    with pytest.raises(KeyboardInterrupt):
        simulate_project(tmp_path / "demo", n_micrographs=2, particles_per_micrograph=1)
    for path in (tmp_path / "demo").rglob("*.mrc"):
        assert mrcfile.validate(path)
    assert json.loads((tmp_path / "demo" / "cryobridge_demo.json").read_text())["n_micrographs"] == 2
    monkeypatch.undo()
    simulate_project(tmp_path / "demo", n_micrographs=1, particles_per_micrograph=1, overwrite=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_micrographs": 0},
        {"particles_per_micrograph": 0},
        {"particles_per_micrograph": 400},
        {"seed": -1},
        {"snr": 0.0},
        {"snr": float("nan")},
        {"seed": "7"},
        {"n_micrographs": 1.5},
        {"particles": 3},
    ],
)
def test_impossible_requests_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(UsageError) as error:
        simulate_project(tmp_path / "demo", **wrong)
    assert error.value.hint
    assert not (tmp_path / "demo").exists()


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1000, "total": 10_000})
    monkeypatch.setattr("cryobridge.jobs.output_folder.shutil.disk_usage", lambda path: usage)
    with pytest.raises(CryobridgeError, match="1 kB left"):
        simulate_project(tmp_path / "deep" / "demo")
    assert not (tmp_path / "deep").exists()


def test_progress_is_reported_micrograph_by_micrograph(tmp_path):
    sentence = []

    class Listener:
        def start(self, what, total):
            sentence.append(total)

        def advance(self, steps=1):
            sentence.append(steps)

        def note(self, message):
            raise AssertionError(message)

    simulate_project(tmp_path / "demo", n_micrographs=2, particles_per_micrograph=1, reporter=Listener())
    assert sentence == [2, 1, 1]
