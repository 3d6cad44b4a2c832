"""A real run of RECOVAR on our files, read by cryobridge, and its clusters carried back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

from interop.files import (
    CRYOSPARC,
    CS,
    NEW_BOX,
    PARTICLES,
    STAR,
    Simulated,
    largest,
    rows_that_differ,
    unpickle,
    with_pickles,
)
from interop.images import CORRELATION, MIRRORED, SMALL_STAR, STACK
from interop.maps import correlation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interop.checks import Checks
    from interop.programs import Arrays, Programs

RUN = "recovar_run"
ANALYSIS = f"{RUN}/analysis_2"
_ZDIM, _CLUSTERS = 2, 3
_ON_CPU = ("--accept-cpu", "--low-memory-option")


def run_recovar(checks: Checks, programs: Programs, simulated: Simulated, printed: list[str]) -> None:
    """Run the pipeline as `stacks downsample` says, and once from the pickles; then the analysis.

    Parameters
    ----------
    checks, programs, simulated
        As everywhere.
    printed
        The command that `stacks downsample` printed, as words.
    """
    checks.section("recovar pipeline and analyze on our files")
    command = printed[1:]
    command[command.index("-o") + 1] = RUN
    programs.recovar(*command, *_ON_CPU, "--zdim", str(_ZDIM))
    checks.equal(
        "the printed command, `recovar pipeline STAR`: job.json of RECOVAR", _status(programs, RUN), "completed"
    )
    programs.recovar(
        "analyze", RUN, "-o", ANALYSIS, "--zdim", str(_ZDIM), "--n-clusters", str(_CLUSTERS),
        "--n-trajectories", "0", "--skip-umap", "--skip-centers",
    )  # fmt: skip
    checks.equal("recovar analyze --skip-centers: job.json of RECOVAR", _status(programs, ANALYSIS), "completed")
    files = with_pickles(f"small_cs/{STACK}", "small_cs")
    programs.recovar(
        "pipeline", files["particles"], "--poses", files["poses"], "--ctf", files["ctf"], "-o", "recovar_run_pickles",
        "--halfsets", f"{RUN}/model/halfsets.pkl", "--mask", "sphere", "--only-mean", *_ON_CPU,
    )  # fmt: skip
    means = [mrcfile.read(programs.folder / run / "output/volumes/mean.mrc") for run in (RUN, "recovar_run_pickles")]
    checks.at_least(
        "mean from the STAR file and from the .cs's stack and pickles: correlation", correlation(*means), 0.999
    )
    _check_mean(checks, programs, simulated)


def _check_mean(checks: Checks, programs: Programs, simulated: Simulated) -> None:
    mean = mrcfile.read(programs.folder / RUN / "output/volumes/mean_filt.mrc")
    voxel_A = simulated.project.pixel_size_A * simulated.project.box_px / NEW_BOX
    by_size = {size: correlation(mean, simulated.molecule(NEW_BOX, voxel_A / size)) for size in (1, 2)}
    size = max(by_size, key=lambda size: by_size[size])
    checks.at_least("filtered mean and the simulated molecule: correlation", by_size[size], CORRELATION)
    mirrored = correlation(mean, simulated.molecule(NEW_BOX, voxel_A / size, x_sign=-1.0))
    checks.at_most("filtered mean and the mirror image of the molecule: correlation", mirrored, MIRRORED)
    if size != 1:
        checks.note(
            f"Without CUDA, RECOVAR 1.0.5 draws its mean {size} times too large, and what follows builds on that: "
            "recovar.core.relion_interp.backproject leaves out the factor by which the volume's grid is finer than the "
            "images', which the CUDA path has by its source. The correlation is with the molecule of that size. On a "
            "CPU its maps, and what the latent coordinates mean, are not to be trusted; files, rows and labels are "
            "what they are."
        )


def check_inspect(checks: Checks, programs: Programs) -> None:
    """Compare what `cryobridge inspect` tells of the run with the files themselves."""
    checks.section("cryobridge inspect of that run")
    told = programs.cryobridge_json("inspect", RUN)[0]
    run = told["recovar"]
    labels = np.asarray(_kmeans(programs)["labels"])
    checks.equal("kind and version", f"{run['kind']} {run['version']}", "pipeline 1.0.5")
    checks.equal("status of the pipeline", run["status"], "completed")
    checks.equal("particle file", run["particle_file"].rsplit("/", 2)[1:], ["small_star", SMALL_STAR])
    checks.equal("zdims", run["zdims"], [_ZDIM])
    halves = unpickle(programs.folder / RUN / "model/halfsets.pkl")
    checks.equal("particles in the half sets", run["half_sets"], [len(half) for half in halves])
    checks.equal("all particles are in one of them", sum(run["half_sets"]), PARTICLES)
    volumes = sorted((programs.folder / RUN / "output/volumes").glob("*.mrc"))
    checks.equal("volumes", len(run["volumes"]), len(volumes))
    checks.same_rows(
        "box and voxel size of the volumes, and those in mrcfile", _n_unlike_volumes(programs, run), len(volumes)
    )
    (analysis,) = run["analyses"]
    checks.equal(
        "clusters and labels of the analysis", [analysis["centers"], analysis["labels"]], [_CLUSTERS, len(labels)]
    )
    checks.equal(
        "particles in each cluster, and labels in the pickle", analysis["populations"], np.bincount(labels).tolist()
    )
    checks.equal("absent files", run["absent"], [])
    checks.equal("problems", told["problems"], [])
    programs.cryobridge("inspect", RUN, "--plot", "recovar_run.png")


def _n_unlike_volumes(programs: Programs, run: dict[str, Any]) -> int:
    unlike = 0
    for volume in run["volumes"]:
        with mrcfile.open(programs.folder / volume["path"], header_only=True) as file:
            box = [int(file.header.nz), int(file.header.ny), int(file.header.nx)]
            voxel_A = float(file.header.cella.x) / int(file.header.mx)
        unlike += volume["box_px"] != box or abs(volume["voxel_size_A"] - voxel_A) > 1e-4
    return unlike


def check_select(checks: Checks, programs: Programs, simulated: Simulated) -> None:
    """Select each cluster, from the set that RECOVAR had and from the original files, and read back with RECOVAR."""
    checks.section("cryobridge select --run, read back by RECOVAR and cryoDRGN")
    labels = np.asarray(_kmeans(programs)["labels"])
    of_run = ("--run", RUN, "--zdim", str(_ZDIM))
    for cluster in range(_CLUSTERS):
        programs.cryobridge("select", *of_run, "--clusters", str(cluster), "-o", f"small_star/cluster{cluster}.star")
    programs.cryobridge("select", STAR, *of_run, "--clusters", "0", "-o", "cluster0.star")
    programs.cryobridge("select", CS, *of_run, "--clusters", "0", "-o", f"{CRYOSPARC}/J4/cluster0.cs")
    programs.cryobridge(
        "select", *of_run, "--attach-class", "run", "--attach-latent", "run", "-o", "small_star/labelled.star"
    )
    files = {"all": {"particles": f"small_star/{SMALL_STAR}"}, "original": {"particles": STAR}}
    files |= {f"cluster{cluster}": {"particles": f"small_star/cluster{cluster}.star"} for cluster in range(_CLUSTERS)}
    files |= {
        "cluster0_original": {"particles": "cluster0.star"},
        "labelled": {"particles": "small_star/labelled.star"},
    }
    files |= {"cluster0_cs": {"particles": f"{CRYOSPARC}/J4/cluster0.cs", "datadir": CRYOSPARC}}
    read = programs.read_with("recovar", files)
    for cluster in range(_CLUSTERS):
        rows = np.flatnonzero(labels == cluster)
        found = read[f"cluster{cluster}"]
        checks.same_rows(
            f"cluster {cluster}: particles", rows_that_differ(found["names"], read["all"]["names"][rows]), len(rows)
        )
        checks.same_rows(
            f"cluster {cluster}: images", rows_that_differ(found["images"], read["all"]["images"][rows]), len(rows)
        )
        checks.at_most(
            f"cluster {cluster}: rotations", largest(found["rotations"], read["all"]["rotations"][rows]), 0.0
        )
    _check_original(checks, programs, simulated, read, np.flatnonzero(labels == 0))
    _check_labelled(checks, programs, read["labelled"], labels)


def _check_original(
    checks: Checks, programs: Programs, simulated: Simulated, read: dict[str, Arrays], rows: NDArray[Any]
) -> None:
    names = read["original"]["names"][rows]
    checks.same_rows(
        "cluster 0 of the original STAR: particles",
        rows_that_differ(read["cluster0_original"]["names"], names),
        len(rows),
    )
    for name, program, arrays in (
        ("STAR", "RECOVAR", read["cluster0_original"]),
        (".cs", "RECOVAR", read["cluster0_cs"]),
        *_by_cryodrgn(programs),
    ):
        n_different = rows_that_differ(arrays["images"], simulated.images[rows])
        checks.same_rows(f"cluster 0 of the original {name}: images, {program}", n_different, len(rows))
    selected = np.load(programs.folder / CRYOSPARC / "J4/cluster0.cs")
    uid = simulated.project.truth.particles.uid[rows]
    checks.same_rows("cluster 0 of the original .cs: uid", rows_that_differ(selected["uid"], uid), len(rows))


def _by_cryodrgn(programs: Programs) -> list[tuple[str, str, Arrays]]:
    read = programs.read_with(
        "cryodrgn",
        {
            "cluster0_original": {"particles": "cluster0.star"},
            "cluster0_cs": {"particles": f"{CRYOSPARC}/J4/cluster0.cs", "datadir": CRYOSPARC},
        },
    )
    return [("STAR", "cryoDRGN", read["cluster0_original"]), (".cs", "cryoDRGN", read["cluster0_cs"])]


def _check_labelled(checks: Checks, programs: Programs, labelled: Arrays, labels: NDArray[Any]) -> None:
    classes = labelled["_rlnClassNumber"].astype(int)
    checks.same_rows(
        "attached classes, and labels in the pickle + 1", rows_that_differ(classes, labels + 1), len(labels)
    )
    coordinates = np.load(programs.folder / RUN / f"model/zdim_{_ZDIM}/latent_coords.npy")
    columns = [labelled[f"_cryobridgeLatent{axis + 1}"].astype(np.float64) for axis in range(_ZDIM)]
    scale = float(np.abs(coordinates).max())
    checks.at_most("attached latent coordinates (relative)", largest(np.stack(columns, 1), coordinates) / scale, 1e-6)


def _kmeans(programs: Programs) -> dict[str, Any]:
    result: dict[str, Any] = unpickle(programs.folder / ANALYSIS / "data/kmeans_result.pkl")
    return result


def _status(programs: Programs, job: str) -> str:
    described = json.loads((programs.folder / job / "job.json").read_text(encoding="utf-8"))
    return str(described["status"])
