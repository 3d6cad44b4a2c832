"""Particles that RELION extracts again from its own micrographs, by the file that convert --micrographs writes.

RELION's micrographs have their rows reversed against those that the images were cut from, as after motion correction of
TIFF movies in RELION. The maps that RELION reconstructs of the new images are compared with that of images from the
micrographs as they were. Those are smaller than what was simulated: reversed rows of an even box have a row more at the
other end.
"""

from dataclasses import replace

import mrcfile
import numpy as np
import pytest
from interop.maps import correlation, lowest_fsc
from interop.relion import OpticsGroup, Relion, read_star, write_star

import cryobridge as cb
from cryobridge.model.particles import ParticleSet

pytestmark = pytest.mark.relion

NY, NX, SIMULATED, BOX, PIXEL_SIZE_A = 864, 1104, 80, 64, 2.0
PER_ROW, PER_MICROGRAPH = 12, 100
N = 300
REEXTRACTED = 0.99
REVERSED, UNREVERSED = "CtfFind/job003/micrographs_ctf.star", "CtfFind/job004/micrographs_ctf.star"
# Even and odd terms, whose signs the mirror has to change.
TERMS = {
    "rlnBeamTiltX": 0.3,
    "rlnBeamTiltY": 0.4,
    "rlnOddZernike": "[0,0,-60,0,0,80]",
    "rlnEvenZernike": "[0,0,0,0,120,0,0,0,90]",
}


def mic(number):
    return f"MotionCorr/job002/Movies/mic{number}.mrc"


def as_cryosparc_has(number):
    return f"J2/motioncorrected/mic{number}_patch_aligned.mrc"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A RELION project with reversed micrographs, and the particles in cryoSPARC's terms."""
    relion = Relion(tmp_path_factory.mktemp("relion"))
    folder = relion.folder
    simulated = relion.simulate((OpticsGroup(box_px=SIMULATED, terms=TERMS),), n_images=N)
    tables = read_star(folder / simulated.star)
    images = mrcfile.read(folder / "simulated_group1.mrcs")
    (folder / "default_pipeline.star").touch()
    particles = tables["particles"]
    place = np.arange(N) % PER_MICROGRAPH
    x, y = place % PER_ROW * 90 + 45, place // PER_ROW * 92 + 42 + place % PER_ROW
    particles["rlnCoordinateX"], particles["rlnCoordinateY"] = x, y
    numbers = np.arange(N) // PER_MICROGRAPH
    particles["rlnMicrographName"] = [as_cryosparc_has(number) for number in numbers]
    tables["optics"]["rlnMicrographPixelSize"] = PIXEL_SIZE_A
    write_star(folder / "cryosparc.star", tables)
    rng = np.random.default_rng(0)
    for number in range(N // PER_MICROGRAPH):
        pixels = rng.normal(0, 0.05, (NY, NX)).astype("f4")
        half = SIMULATED // 2
        for row in np.flatnonzero(numbers == number):
            pixels[y[row] - half : y[row] + half, x[row] - half : x[row] + half] = images[row]
        for name, rows in ((mic(number), pixels[::-1]), (as_cryosparc_has(number), pixels)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with mrcfile.new(folder / name) as file:
                file.set_data(np.ascontiguousarray(rows))
                file.voxel_size = PIXEL_SIZE_A
    optics = [
        {
            "rlnOpticsGroup": group,
            "rlnOpticsGroupName": f"session{group}",
            "rlnVoltage": 300,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnMicrographPixelSize": PIXEL_SIZE_A,
        }
        for group in (1, 2, 3)
    ]
    for star, name in ((REVERSED, mic), (UNREVERSED, as_cryosparc_has)):
        listed = [{"rlnMicrographName": name(number), "rlnOpticsGroup": 2 + number % 2} for number in range(3)]
        (folder / star).parent.mkdir(parents=True)
        write_star(folder / star, {"optics": optics, "micrographs": listed})
    cb.convert(folder / "cryosparc.star", folder / "particles.cs", micrograph_shape_px=(NY, NX))
    report = convert(relion, "unreversed", UNREVERSED)
    assert report.coordinates == "x = nx·fx, y = ny·fy"
    original = relion.reconstruct(reextracted(relion, "unreversed", UNREVERSED))
    return relion, simulated, original


def convert(relion, name, micrographs=None, **options):
    return cb.convert(
        relion.folder / "particles.cs",
        relion.folder / f"{name}.star",
        micrographs=relion.folder / (micrographs or REVERSED),
        datadir=relion.folder,
        **options,
    )


def reextracted(relion, name, micrographs=None, options=()):
    relion.run(
        *("relion_preprocess", "--i", micrographs or REVERSED, "--reextract_data_star", f"{name}.star"),
        *("--part_dir", f"Extract/{name}/", "--part_star", f"Extract/{name}/particles.star"),
        *("--extract", "--extract_size", BOX, *options),
    )
    return f"Extract/{name}/particles.star"


def test_relion_takes_every_particle_of_the_file_as_it_is_written(project):
    relion, _, _ = project
    report = convert(relion, "plain", verify=True)
    report.require()
    assert report.coordinates == "x = nx·fx, y = ny − 1 − ny·fy"
    assert report.coordinates_from == "pixels"
    found = read_star(relion.folder / reextracted(relion, "plain"))
    assert len(found["particles"]) == N
    assert found["optics"]["rlnOpticsGroupName"].tolist() == ["session2", "session3"]
    # The images are the others with their rows reversed: row 32 stays, and row 0 has no partner.
    new, old = (
        np.concatenate([mrcfile.read(relion.folder / f"{place}{number}{end}.mrcs") for number in range(3)])
        for place, end in (
            ("Extract/plain/Movies/mic", ""),
            ("Extract/unreversed/J2/motioncorrected/mic", "_patch_aligned"),
        )
    )
    np.testing.assert_array_equal(new[:, 1:], old[:, :0:-1])


@pytest.mark.parametrize("options", [(), ("--recenter",)], ids=["as it is", "centred"])
def test_relion_reconstructs_the_map_with_its_hand_from_reversed_micrographs(project, options):
    relion, simulated, original = project
    name = f"mirrored{len(options)}"
    convert(relion, name, reextract=True, verify=True).require()
    again = relion.reconstruct(reextracted(relion, name, options=options))
    original = relion.reconstruct(reextracted(relion, "unreversed", UNREVERSED, options))
    assert lowest_fsc(again, original) > REEXTRACTED
    assert correlation(again, cropped(simulated.volume)) > 0.9 > correlation(again, cropped(simulated.mirrored))


def cropped(volume):
    edge = (SIMULATED - BOX) // 2
    return volume[edge:-edge, edge:-edge, edge:-edge]


PARTS = {
    "poses": lambda old, new: replace(new, poses=replace(new.poses, matrix=old.poses.matrix)),
    "shifts": lambda old, new: replace(new, poses=replace(new.poses, shift_A=old.poses.shift_A)),
    "defocus angles": lambda old, new: replace(new, ctf=old.ctf),
    "aberrations": lambda old, new: replace(new, optics=old.optics),
}


@pytest.mark.parametrize("part", PARTS)
def test_mirrored_in_part_it_is_another_map(project, part, monkeypatch):
    relion, _, original = project
    right = ParticleSet.mirrored_y
    monkeypatch.setattr(ParticleSet, "mirrored_y", lambda old: PARTS[part](old, right(old)))
    name = f"without_{part.replace(' ', '_')}"
    convert(relion, name, reextract=True)
    again = relion.reconstruct(reextracted(relion, name))
    assert lowest_fsc(again, original) < REEXTRACTED
