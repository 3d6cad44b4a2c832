"""RELION's programs on what `micrographs` writes, and on particles that convert puts onto it."""

import mrcfile
import numpy as np
import pytest
from interop.relion import Relion, read_images, read_star

import cryobridge as cb
from cryobridge.demo import simulate_project
from cryobridge.formats.cryosparc.cs import open_cs, write_cs

pytestmark = pytest.mark.relion

# Where the lists go, and what the names in them start with.
PLACES = {
    "a job's folder": ("MotionCorr/job002", "MotionCorr/job002/Micrographs/"),
    "another folder": ("cs/mics", "cs/mics/job001/Micrographs/"),
    "a project of its own": (".", "MotionCorr/job001/Micrographs/"),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return simulate_project(tmp_path_factory.mktemp("demo"), n_micrographs=3, particles_per_micrograph=30)


@pytest.fixture(params=PLACES)
def place(request):
    return PLACES[request.param]


@pytest.fixture
def relion(tmp_path, place):
    if place[0] != ".":
        (tmp_path / "default_pipeline.star").touch()
    return Relion(tmp_path)


def numbers(table, columns):
    return table[columns].to_numpy(float)


def test_every_particle_is_extracted_from_cryosparcs_micrographs(demo, relion, place, monkeypatch):
    folder, start = place
    cb.micrographs(demo.exposures_cs, relion.folder / folder)
    star = f"{folder}/micrographs_ctf.star"
    monkeypatch.chdir(relion.folder)
    cb.convert(
        demo.refinement, "particles.star", micrographs=star, link_stacks="stacks", datadir=demo.cryosparc
    ).require()
    relion.run(
        *("relion_preprocess", "--i", star, "--reextract_data_star", "particles.star", "--part_dir", "Extract/"),
        *("--part_star", "Extract/particles.star", "--extract", "--extract_size", demo.box_px),
    )
    stars = ("particles.star", "Extract/particles.star")
    own, extracted = (read_star(relion.folder / name)["particles"] for name in stars)
    assert len(extracted) == len(own) == 90
    assert own["rlnMicrographName"].str.startswith(start).all()
    # The images are those that cryoSPARC cut, pixel by pixel.
    at = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]
    places = {tuple(row): number for number, row in enumerate(own[at].round().itertuples(index=False))}
    rows = [places[tuple(row)] for row in extracted[at].round().itertuples(index=False)]
    images, cut = (read_images(relion.folder, name) for name in stars)
    np.testing.assert_array_equal(images[rows], cut)


def test_ctffind_takes_every_micrograph_with_its_optics(demo, relion, place):
    folder, start = place
    cb.micrographs(demo.exposures_cs, relion.folder / folder)
    (relion.folder / "CtfFind/job009").mkdir(parents=True)
    said = relion.run(
        *("relion_run_ctffind", "--i", f"{folder}/micrographs.star", "--o", "CtfFind/job009/", "--only_make_star"),
        *("--ctffind_exe", "/bin/true", "--is_ctffind4"),
    )
    assert [line.strip(" *") for line in said.splitlines() if line.startswith("  * ")] == [
        f"{start}{name}_fractions.mrc" for name in demo.truth.micrographs.name
    ]
    columns = ["rlnMicrographPixelSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"]
    ours, theirs = (
        read_star(relion.folder / star)["optics"]
        for star in (f"{folder}/micrographs.star", "CtfFind/job009/micrographs_ctf.star")
    )
    np.testing.assert_allclose(numbers(theirs, columns), numbers(ours, columns), rtol=1e-6)
    assert theirs["rlnOpticsGroupName"].tolist() == ours["rlnOpticsGroupName"].tolist()


def test_relion_reads_back_what_is_written(demo, relion, place):
    folder, _ = place
    cb.micrographs(demo.exposures_cs, relion.folder / folder)
    for name in ("micrographs.star", "micrographs_ctf.star"):
        relion.run("relion_star_handler", "--i", f"{folder}/{name}", "--o", f"again_{name}", "--combine")
        ours, theirs = (read_star(relion.folder / star) for star in (f"{folder}/{name}", f"again_{name}"))
        assert list(theirs) == list(ours) == ["optics", "micrographs"]
        for block, table in ours.items():
            assert theirs[block].columns.tolist() == table.columns.tolist()
            texts = [column for column in table if column.endswith("Name")]
            assert (theirs[block][texts] == table[texts]).all(axis=None)
            others = [column for column in table if column not in texts]
            np.testing.assert_allclose(numbers(theirs[block], others), numbers(table, others), rtol=0, atol=6e-7)


def test_reversed_rows_and_mirrored_poses_give_the_same_images(demo, relion, place):
    folder, _ = place
    cb.micrographs(demo.exposures_cs, relion.folder / folder, flip_y=True)
    star = relion.folder / folder / "micrographs_ctf.star"
    report = cb.convert(
        demo.refinement, relion.folder / "particles.star", micrographs=star, reextract=True, datadir=demo.cryosparc
    )
    assert report.coordinates_from == "pixels"
    relion.run(
        *("relion_preprocess", "--i", f"{folder}/micrographs_ctf.star", "--reextract_data_star", "particles.star"),
        *("--part_dir", "Extract/", "--part_star", "Extract/particles.star", "--extract"),
        *("--extract_size", demo.box_px),
    )
    cut = read_images(relion.folder, "Extract/particles.star")
    stacks = np.concatenate([mrcfile.read(stack) for stack in demo.stacks])
    # Row 0 of an even box has no partner.
    flat = {image[:0:-1].tobytes() for image in stacks}
    assert all(image[1:].tobytes() in flat for image in cut)


def test_fits_without_a_measure_are_not_selected_as_the_best(demo, tmp_path):
    table = open_cs(demo.exposures_cs)
    values = dict(table.read(table.names))
    values["ctf_stats/ctf_fit_to_A"] = np.array([np.nan, 4.0, np.inf], "f4")
    write_cs(demo.cryosparc / "unfitted.cs", values)
    (tmp_path / "default_pipeline.star").touch()
    cb.micrographs(demo.cryosparc / "unfitted.cs", tmp_path / "MotionCorr/job002", lists="ctf")
    relion = Relion(tmp_path)
    relion.run(
        *("relion_star_handler", "--i", "MotionCorr/job002/micrographs_ctf.star", "--o", "good.star"),
        *("--select", "rlnCtfMaxResolution", "--maxval", 6),
    )
    name = demo.truth.micrographs.name[1]
    good = read_star(tmp_path / "good.star")["micrographs"]["rlnMicrographName"].tolist()
    assert good == [f"MotionCorr/job002/Micrographs/{name}_fractions.mrc"]
