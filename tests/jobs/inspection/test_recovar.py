from __future__ import annotations

import json
import pickle
import shutil

import mrcfile
import numpy as np
import pytest

from cryobridge.jobs.inspection.describe import inspect
from helpers import left_on_screen, run, run_in_terminal
from recovar_runs import ALPHAS, BOX, VOXEL_A, simulate_run, write_density, write_job, write_map, write_pickle


def described(path, **options):
    # Through strict JSON, as a program would get it.
    return json.loads(json.dumps(inspect(path, **options).to_json(), allow_nan=False))


def problems_of(path, **options):
    return " ".join(described(path, **options)["problems"])


@pytest.fixture
def simulated(tmp_path):
    return simulate_run(tmp_path / "project")


# The real run


def test_the_real_pipeline_is_reported_whole(reference_data):
    out = reference_data / "recovar_run" / "out"
    item = described(out)
    facts, found = item["facts"], item["recovar"]
    assert (item["rows"], found["version"], found["status"], found["duration_s"]) == (600, "1.0.5", "completed", 72.1)
    assert facts["status"] == "completed, 1 min 12 s"
    assert facts["model"] == "32 × 32 × 32 px, voxel 17 Å"
    assert (found["zdims"], found["half_sets"]) == ([2, 4], [300, 300])
    assert facts["zdim 4"] == "600 particles, with precisions and contrasts; also without regularisation"
    assert found["particle_file"].endswith("particles/particles.star")
    assert len(found["eigenvalues"]) == 50
    for volume in found["volumes"]:
        with mrcfile.open(volume["path"], header_only=True) as mrc:
            assert volume["box_px"] == [mrc.header.nx, mrc.header.ny, mrc.header.nz]
            assert volume["voxel_size_A"] == pytest.approx(float(mrc.voxel_size.x))
    assert len(found["volumes"]) == len(list((out / "output" / "volumes").glob("*.mrc")))
    assert facts["eigenvolume"] == "4 maps, 32 × 32 × 32 px, voxel 17 Å"


def test_half_maps_of_the_real_run_agree_to_nyquist_with_and_without_its_mask(reference_data):
    item = described(reference_data / "recovar_run" / "out")
    half_maps = item["recovar"]["half_maps"]
    assert half_maps["mask"].endswith("output/volumes/mask.mrc")
    assert half_maps["nyquist_A"] == 34.0
    for curve, lowest in ((half_maps, 0.72), (half_maps["masked"], 0.87)):  # as RECOVAR drew them
        assert min(curve["fsc"]) == pytest.approx(lowest, abs=5e-3)
        assert curve["resolution_143_A"] is curve["resolution_500_A"] is None
    text = "not below 0.143 or 0.5 up to Nyquist (34 Å); lowest 0.719"
    assert item["facts"]["FSC, no mask"] == text
    assert item["facts"]["FSC, mask.mrc"].endswith("lowest 0.869")


def test_the_real_analysis_tells_its_clusters_maps_and_trajectories(reference_data):
    out = reference_data / "recovar_run" / "out"
    item = described(out / "analysis_2")
    labels = pickle.loads((out / "analysis_2" / "data" / "kmeans_result.pkl").read_bytes())["labels"]
    (analysis,) = item["recovar"]["analyses"]
    assert analysis["populations"] == np.bincount(labels).tolist()
    assert item["rows"] == 600
    facts = item["facts"]
    assert facts["cluster 0"] == "273 particles (45.5 %), center000.mrc"
    assert facts["cluster 1"] == "327 particles (54.5 %), center001.mrc"
    assert facts["centers"] == "2 maps, 32 × 32 × 32 px, voxel 17 Å; also 4 half maps and 2 unfiltered"
    assert facts["traj000"].startswith("cluster 0 to 1; 2 maps")
    assert [(path["ends"], path["states"]) for path in analysis["trajectories"]] == [([0, 1], 2)]
    assert described(out)["facts"]["analysis analysis_2"] == (
        "zdim 2; 2 clusters of 273, 327 particles; 1 trajectory with 2 states"
    )


def test_the_real_density_tells_its_grid_bounds_alphas_and_knee(reference_data):
    folder = reference_data / "recovar_run" / "out" / "Density"
    item = described(folder)
    (density,) = item["recovar"]["densities"]
    theirs = pickle.loads((folder / "data" / "deconv_density_knee.pkl").read_bytes())
    assert density["shape"] == [20, 20]
    np.testing.assert_allclose(density["bounds"], theirs["latent_space_bounds"])
    np.testing.assert_allclose(density["alphas"], 10.0 ** np.arange(1, -10, -1))
    assert density["knee"] == {"alpha": 0.001, "index": 4}
    facts = item["facts"]
    assert (facts["grid"], facts["knee"], facts["made from"]) == (
        "20 × 20 points",
        "alpha 0.001 (number 4)",
        "coordinates of zdim 4",
    )
    assert facts["dimension 0"] == "5350.04 to 9803.37"
    assert facts["alphas"].startswith("0: 10, 1: 1, 2: 0.1, ")


def test_files_that_were_taken_out_of_the_real_run_are_counted(reference_data):
    out = reference_data / "recovar_run" / "out"
    job = json.loads((out / "job.json").read_text())
    names = [name for names in job["outputs"].values() for name in names]
    absent = [name for name in names if not (out / name).exists()]
    item = described(out)
    assert sorted(item["recovar"]["absent"]) == sorted(absent)
    assert f"Of {len(names)} files that job.json lists, {len(absent)} are not there: " in " ".join(item["problems"])
    assert "Density: Of 14 files that job.json lists, 1 is not there: plots/all_densities.png" in item["problems"]


# Simulated runs


def test_a_run_with_nothing_wrong_has_no_problems(simulated):
    for folder in (simulated.out, simulated.analysis, simulated.density):
        assert described(folder)["problems"] == []


def test_a_run_of_some_particles_counts_those(simulated):
    item = described(simulated.out)
    assert item["rows"] == 12
    assert item["facts"]["zdim 2"].startswith("12 particles of 26 rows")
    assert item["facts"]["half sets"] == "6 and 6 particles"
    assert item["facts"]["status"] == "completed, 1 h 2 min"
    assert item["recovar"]["analyses"][0]["populations"] == [4, 4, 4]
    assert described(simulated.analysis)["facts"]["cluster 2"] == "4 particles (33.3 %), center002.mrc"


def test_the_older_layout_is_reported_as_well(tmp_path):
    simulated = simulate_run(tmp_path / "project", "older")
    item = described(simulated.out)
    assert item["rows"] == 12
    assert (
        item["facts"]["zdim 2"] == "12 particles of 26 rows, with precisions and contrasts; also without regularisation"
    )
    assert "zdim 2; 3 clusters of 4, 4, 4 particles" in item["facts"]["analysis analysis_2"]
    assert item["facts"]["density density"] == "grid of 4 × 5, 3 alphas; knee at alpha 0.1 (number 1)"
    assert item["problems"] == ["The run does not name its particle file"]
    assert described(simulated.analysis)["facts"]["cluster 0"] == "4 particles (33.3 %), vol0000.mrc"
    assert described(simulated.density)["facts"]["alphas"] == "0: 10, 1: 0.1, 2: 0.001"


def test_quick_looks_read_no_map_and_no_coordinate(simulated):
    item = described(simulated.out, statistics=False)
    assert item["recovar"]["half_maps"] is None
    assert not any(name.startswith("FSC") for name in item["facts"])
    assert item["rows"] == 12


def band_limited(last, seed=0):
    # Of two of these the signal up to a shell is the same, and beyond it is noise of each.
    rng = np.random.default_rng(seed)
    k = np.fft.fftfreq(32, 1 / 32)
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None] ** 2)
    signal, *noises = np.fft.fftn(rng.normal(size=(3, 32, 32, 32)), axes=(1, 2, 3))
    return [np.fft.ifftn(np.where(np.round(radius) <= last, signal, noise)).real for noise in noises]


def test_resolutions_are_those_of_the_half_maps(simulated):
    volumes = simulated.out / "output" / "volumes"
    for half, values in enumerate(band_limited(8), 1):
        write_map(volumes / f"mean_half{half}_unfil.mrc", box=32, values=values)
    (volumes / "mask.mrc").unlink()
    half_maps = described(simulated.out)["recovar"]["half_maps"]
    for key in ("resolution_143_A", "resolution_500_A"):
        # Between the last shell with signal and the next.
        assert 32 * VOXEL_A / 9 < half_maps[key] < 32 * VOXEL_A / 8
    assert half_maps["resolution_143_A"] < half_maps["resolution_500_A"]
    assert half_maps["mask"] is half_maps["masked"] is None
    assert "Å at 0.143, " in described(simulated.out)["facts"]["FSC, no mask"]


def test_a_mask_that_does_not_fit_costs_the_masked_curve_only(simulated):
    write_map(simulated.out / "output" / "volumes" / "mask.mrc", box=BOX + 2)
    item = described(simulated.out)
    assert len(item["recovar"]["half_maps"]["fsc"]) == BOX // 2 + 1
    assert "not cubes of one size" in item["facts"]["FSC, mask.mrc"]


# Damage


def of_pipeline(edit, text):
    return pytest.param(edit, "out", text, id=text[:40])


def of_analysis(edit, text):
    return pytest.param(edit, "analysis", text, id=text[:40])


def of_density(edit, text):
    return pytest.param(edit, "density", text, id=text[:40])


def edit_metadata(folder, **changes):
    path = folder / "model" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path, n_bytes=10):
    path.write_bytes(path.read_bytes()[:-n_bytes])


VOLUMES = "output/volumes"
DENSITIES = "data/all_densities/deconv_density_{}.pkl"


@pytest.mark.parametrize(
    ("damage", "where", "text"),
    [
        of_pipeline(lambda out: (out / VOLUMES / "mean_half1_unfil.mrc").unlink(), "no pair of half maps of the mean"),
        of_pipeline(lambda out: (out / VOLUMES / "mask.mrc").unlink(), "output/volumes: no mask map"),
        of_pipeline(lambda out: (out / VOLUMES / "mean.mrc").unlink(), "Of 1 file that job.json lists, 1 is not there"),
        of_pipeline(
            lambda out: write_map(out / VOLUMES / "mean.mrc", voxel_size=0),
            "mean.mrc: the voxel size in its header is 0",
        ),
        of_pipeline(
            lambda out: write_map(out / VOLUMES / "mean.mrc", voxel_size=4.5),
            "mean.mrc: its voxel size, 4.5 Å, is not the model's, 3 Å",
        ),
        of_pipeline(
            lambda out: write_map(out / VOLUMES / "mean.mrc", box=6),
            "mean.mrc: its size (6, 6, 6) is not the model's (8, 8, 8)",
        ),
        of_pipeline(lambda out: cut(out / VOLUMES / "mean.mrc"), "mean.mrc: it is cut off"),
        of_pipeline(lambda out: edit_metadata(out, voxel_size=0), "metadata.json: the voxel size is 0"),
        of_pipeline(
            lambda out: edit_metadata(out, zdims_computed=[2, 4, 10]), "lists zdim 10, which model/ does not have"
        ),
        of_pipeline(lambda out: (out / "model/params.pkl").unlink(), "model/params.pkl is missing"),
        of_pipeline(lambda out: cut(out / "model/params.pkl"), "params.pkl"),
        of_pipeline(lambda out: cut(out / "model/particles_halfsets.pkl"), "particles_halfsets.pkl"),
        of_pipeline(
            lambda out: write_pickle(out / "model/particles_halfsets.pkl", [np.array([1]), np.array([1])]),
            "rows are in both halves",
        ),
        of_pipeline(
            lambda out: write_pickle(out / "model/particles_halfsets.pkl", [np.array([1]), np.array([2])]),
            "half sets and latent coordinates are of different particles",
        ),
        of_pipeline(lambda out: cut(out / "model/zdim_4/latent_coords.npy"), "latent_coords.npy"),
        of_pipeline(
            lambda out: (out / "model/zdim_2/latent_coords.npy").unlink(), "zdim_2: latent_coords.npy is missing"
        ),
        of_pipeline(
            lambda out: np.save(out / "model/zdim_2/contrasts.npy", np.zeros(5)),
            "contrasts.npy and latent_coords.npy differ",
        ),
        of_pipeline(lambda out: write_job(out, "pipeline", {}, status="running"), "its job.json says “running”"),
        of_pipeline(
            lambda out: write_job(out, "pipeline", {"particles": "/gone/x.star"}),
            "names /gone/x.star, which was not found",
        ),
        of_pipeline(lambda out: (out / "job.json").write_text("{"), "job.json"),
        of_pipeline(
            lambda out: (out / "analysis_2/kmeans/center001_half2_unfil.mrc").unlink(),
            "analysis_2: Center 001: no pair of half maps",
        ),
        of_pipeline(
            lambda out: write_density(out / "Density/data/deconv_density_knee.pkl", alpha=0.7),
            "Density: deconv_density_knee.pkl: no other density has its alpha, 0.7",
        ),
        of_analysis(
            lambda path: (path / "kmeans/center001_half2_unfil.mrc").unlink(), "Center 001: no pair of half maps"
        ),
        of_analysis(
            lambda path: [(path / f"kmeans/center002{end}.mrc").unlink() for end in ("", "_unfil")],
            "k-means has 3 centers, but there are maps of 2",
        ),
        of_analysis(
            lambda path: write_pickle(
                path / "data/kmeans_result.pkl", {"centers": np.zeros((3, 2)), "labels": np.zeros(9, int)}
            ),
            "k-means has 9 labels, but there are 26 latent coordinates",
        ),
        of_analysis(
            lambda path: write_pickle(
                path / "data/kmeans_result.pkl", {"centers": np.zeros((3, 2)), "labels": np.full(26, -1)}
            ),
            "k-means has no label for 12 of the run's 12 particles",
        ),
        of_analysis(lambda path: cut(path / "data/kmeans_result.pkl"), "kmeans_result.pkl"),
        of_analysis(lambda path: cut(path / "data/trajectory_endpoints.pkl"), "trajectory_endpoints.pkl"),
        of_analysis(
            lambda path: write_pickle(path / "data/trajectory_endpoints.pkl", {"centers": [], "pairs": [["a", "b"]]}),
            "no end points of trajectories",
        ),
        of_analysis(
            lambda path: (path / "traj000/state001_half1_unfil.mrc").unlink(), "traj000: State 001: no pair of half"
        ),
        of_analysis(
            lambda path: [file.unlink() for file in path.glob("traj000/state001*")], "traj000: Missing maps: 001"
        ),
        of_analysis(
            lambda path: [file.unlink() for file in path.glob("traj000/*.mrc")], "traj000: no maps of its states"
        ),
        of_analysis(
            lambda path: write_map(path / "traj000/state002.mrc", voxel_size=0),
            "state002.mrc: the voxel size in its header",
        ),
        of_analysis(
            lambda path: write_map(path / "kmeans/center000.mrc", box=6), "center000.mrc: its size (6, 6, 6) is not"
        ),
        of_analysis(
            lambda path: write_job(path, "analyze", {"zdim": 2}, status="failed"), "its job.json says “failed”"
        ),
        of_density(lambda path: (path / DENSITIES.format(1)).unlink(), "Missing densities: 1"),
        of_density(lambda path: cut(path / DENSITIES.format(2)), "deconv_density_2.pkl"),
        of_density(
            lambda path: write_density(path / DENSITIES.format(0), shape=(5, 5), alpha=ALPHAS[0]),
            "deconv_density_0.pkl: another grid than that of deconv_density_knee.pkl",
        ),
        of_density(
            lambda path: write_density(path / DENSITIES.format(0), density=np.full((4, 5), np.nan)),
            "deconv_density_0.pkl: the density is not finite everywhere",
        ),
        of_density(
            lambda path: write_density(path / DENSITIES.format(0), latent_space_bounds=np.array([[1.0, 0], [0, 1]])),
            "deconv_density_0.pkl: a lower bound of the grid is above the upper one",
        ),
    ],
)
def test_missing_and_damaged_pieces_are_listed(simulated, damage, where, text):
    folder = getattr(simulated, where)
    damage(folder)
    assert text in problems_of(folder)


def test_a_problem_is_reported_once(simulated):
    for folder in (simulated.out, simulated.analysis):
        (folder / "job.json").write_text("{")
    for path in (simulated.analysis / "kmeans").glob("center*_half*"):
        write_map(path, voxel_size=0)
    problems = described(simulated.analysis)["problems"]
    assert len(problems) == len(set(problems)) == 2
    assert any("and 5 more maps: the voxel size in its header is 0" in problem for problem in problems)


def test_an_analysis_far_from_its_pipeline_is_described_by_itself(simulated, tmp_path):
    alone = shutil.copytree(simulated.analysis, tmp_path / "a" / "b" / "analysis_2")
    (alone / "job.json").unlink()
    item = described(alone)
    # Visible holes are no cluster; that is all that can be known without the rows of the run.
    assert item["recovar"]["analyses"][0]["populations"] == [4, 4, 4]
    assert item["problems"] == []


# In the terminal


@pytest.mark.parametrize("columns", [80, 140])
def test_the_terminal_shows_a_run_in_its_width(simulated, columns):
    status, output = run_in_terminal("inspect", simulated.out, simulated.analysis, columns=columns)
    lines = left_on_screen(output).split("\n")
    assert status == 0
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    for part in (
        "RECOVAR pipeline",
        "3 clusters of 4, 4, 4 particles",
        "FSC, mask.mrc",
        "cluster 2 4 particles (33.3 %)",
    ):
        assert part in text


def test_json_is_all_that_is_on_stdout(simulated):
    result = run("inspect", "--json", simulated.out, simulated.density)
    assert result.returncode == 0
    first, second = json.loads(result.stdout)
    assert (first["recovar"]["kind"], second["recovar"]["kind"]) == ("pipeline", "density")


def test_escapes_in_a_job_json_do_not_reach_the_terminal(simulated):
    write_job(simulated.out, "pipeline", {"particles": "\x1b[31mred.star"}, status="\x1b]0;title\x07")
    status, output = run_in_terminal("inspect", simulated.out)
    assert status == 0
    assert "\x1b[31m" not in output
    assert "\x1b]0;" not in output
