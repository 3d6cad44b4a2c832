"""Picks of coords, as RELION 3.1's Extract finds and cuts them."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from interop.relion import Relion, read_images, read_star, write_star

import cryobridge as cb
from helpers import save_cs, save_mrc

pytestmark = pytest.mark.relion

NY, NX, BOX, N_PICKS = 240, 320, 16, 30
# Wherever micrographs lie: below a job's folder, deeper, as reliosparc's pick files do, and in no job's folder.
# Two have one name.
NAMES = (
    "MotionCorr/job002/Movies/a.mrc",
    "MotionCorr/job002/Movies/grid2/b.mrc",
    "MotionCorr/job002/Movies/grid2/a.mrc",
    "MotionCorr/job002/Raw_data/c.mrc",
    "MotionCorr/job002/Raw_data/grid3/d.mrc",
    "MotionCorr/job1234/e.one.mrc",
    "Micrographs/f.mrc",
    "g.mrc",
)
MICROSCOPE = {
    "rlnVoltage": 300,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1,
    "rlnMicrographPixelSize": 1.5,
}


def stack_of(name):
    return f"J3/extract/{name.replace('/', '_').removesuffix('.mrc')}_particles.mrc"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A RELION project with micrographs of noise whose rows are reversed against cryoSPARC's, and cryoSPARC's picks."""
    relion = Relion(tmp_path_factory.mktemp("relion"))
    rng = np.random.default_rng(0)
    columns = {"uid": [], "location/micrograph_path": [], "blob/path": [], "blob/idx": [], "y": [], "x": []}
    for number, name in enumerate(NAMES):
        pixels = rng.normal(size=(NY, NX)).astype("f4")
        save_mrc(relion.folder / name, pixels[None, ::-1], 1.5)
        folder, _, last = name.rpartition("/")
        x, y = rng.integers(BOX, NX - BOX, N_PICKS), rng.integers(BOX, NY - BOX, N_PICKS)
        half = BOX // 2
        boxes = [pixels[j - half : j + half, i - half : i + half] for i, j in zip(x, y, strict=True)]
        stack = save_mrc(relion.folder / stack_of(name), np.stack(boxes), 1.5)
        columns["uid"] += range(100 * number + 1, 100 * number + 1 + N_PICKS)
        columns["location/micrograph_path"] += [f"J2/{Path(folder).name}/{Path(last).stem}_patch_aligned.mrc"] * N_PICKS
        columns["blob/path"] += [str(stack.relative_to(relion.folder))] * N_PICKS
        columns["blob/idx"] += range(N_PICKS)
        columns["x"] += x.tolist()
        columns["y"] += y.tolist()
    x, y = np.array(columns.pop("x")), np.array(columns.pop("y"))
    n = len(x)
    picks = {
        **columns,
        "uid": np.array(columns["uid"], "u8"),
        "blob/idx": np.array(columns["blob/idx"], "u4"),
        "blob/shape": np.full((n, 2), BOX, "u4"),
        "blob/psize_A": np.full(n, 1.5, "f4"),
        "location/micrograph_shape": np.tile(np.array([NY, NX], "u4"), (n, 1)),
        "location/micrograph_psize_A": np.full(n, 1.5, "f4"),
        "location/center_x_frac": (x / NX).astype("f4"),
        "location/center_y_frac": (y / NY).astype("f4"),
    }
    save_cs(relion.folder / "J3" / "particles.cs", picks)
    optics = [{"rlnOpticsGroup": 1, "rlnOpticsGroupName": "session1", **MICROSCOPE}]
    ctf = {"rlnOpticsGroup": 1, "rlnDefocusU": 12000, "rlnDefocusV": 12000, "rlnDefocusAngle": 0}
    (relion.folder / "CtfFind" / "job003").mkdir(parents=True)
    listed = [{"rlnMicrographName": name, **ctf} for name in NAMES]
    write_star(relion.folder / "CtfFind/job003/micrographs_ctf.star", {"optics": optics, "micrographs": listed})
    (relion.folder / "default_pipeline.star").touch()
    return relion


def extracted(relion, name, **options):
    """The particles that Extract cuts at the picks: how many of each micrograph, and the images."""
    folder = relion.folder
    micrographs = folder / "CtfFind/job003/micrographs_ctf.star"
    report = cb.coords(folder / "J3" / "particles.cs", micrographs, folder / "Picks" / name, **options)
    (line,) = (folder / "Picks" / name / "coords_suffix_autopick.star").read_text().splitlines()
    # As its window makes the command of that file: its name after "coords_suffix" is the suffix.
    relion.run(
        "relion_preprocess", "--i", line, "--coord_dir", f"Picks/{name}/", "--coord_suffix", "_autopick.star",
        "--part_star", f"Extract/{name}/particles.star", "--part_dir", f"Extract/{name}/",
        "--extract", "--extract_size", BOX,
    )  # fmt: skip
    star = f"Extract/{name}/particles.star"
    counts = read_star(folder / star)["particles"]["rlnMicrographName"].value_counts().to_dict()
    return report, counts, read_images(folder, star)


def cryosparc_images(relion):
    """cryoSPARC's images in the order of RELION's micrographs."""
    stacks = [relion.folder / stack_of(name) for name in NAMES]
    return np.concatenate([mrcfile.read(stack) for stack in stacks])


@pytest.mark.parametrize("options", [{}, {"subpixel": True}, {"copy": True}], ids=["whole", "subpixel", "copies"])
def test_extract_finds_every_pick_wherever_micrographs_lie_and_cuts_cryosparcs_rows(project, options):
    report, counts, images = extracted(project, "_".join(["as", *options]), **options)
    assert report.convention_from == "pixels"
    assert report.convention == "x = nx·fx, y = ny − ny·fy"
    assert counts == dict.fromkeys(NAMES, N_PICKS)
    # Rows from ny - y - box/2 on are those of cryoSPARC's box from its other end, all of them.
    np.testing.assert_array_equal(images, cryosparc_images(project)[:, ::-1])


def test_against_the_pixels_it_needs_force_and_extract_cuts_something_else(project):
    with pytest.raises(cb.CryobridgeError, match="contradict"):
        extracted(project, "refused", orientation="stored")
    assert not (project.folder / "Picks" / "refused").exists()
    _, counts, images = extracted(project, "forced", orientation="stored", force=True)
    assert counts == dict.fromkeys(NAMES, N_PICKS)
    assert not (images == cryosparc_images(project)[:, ::-1]).all(axis=(1, 2)).any()
