"""New centres of particles: RELION's Extract moves the same pixels, and its projections have their parts there."""

import mrcfile
import numpy as np
import pandas as pd
import pytest
from interop.relion import Relion, read_star, write_star, write_volume
from scipy.spatial.transform import Rotation

import cryobridge as cb
from cryobridge.formats.open import open_particles
from cryobridge.jobs.identity.match import identities_of, match_rows

pytestmark = pytest.mark.relion

OPTICS = {
    "rlnOpticsGroup": 1,
    "rlnOpticsGroupName": "opticsGroup1",
    "rlnVoltage": 300,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1,
}
CTF = {"rlnDefocusU": 12000, "rlnDefocusV": 12000, "rlnDefocusAngle": 0}
PLACES = ["rlnCoordinateX", "rlnCoordinateY", "rlnOriginXAngst", "rlnOriginYAngst"]
# Micrographs at 1.5 Å a pixel, images and map at 3 Å.
PIXEL_SIZE_A, IMAGE_PIXEL_SIZE_A = 1.5, 3.0
# Halves of a pixel on both sides of zero are among them, and what is just below.
SHIFTS_A = np.array([0, 0.75, -0.75, 2.25, -2.25, 3.75, 1, -1, 0.7499, -0.7499, 7.123456, -7.123456, 1.5, 3, -19.1])
# What RELION prints: six digits, fewer with a sign before them.
PRINTED = 1.1e-5


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A micrograph, and particles with shifts on it."""
    relion = Relion(tmp_path_factory.mktemp("relion"))
    rng = np.random.default_rng(0)
    (relion.folder / "Micrographs").mkdir()
    with mrcfile.new(relion.folder / "Micrographs/m0.mrc") as file:
        file.set_data(rng.normal(size=(400, 500)).astype("f4"))
        file.voxel_size = PIXEL_SIZE_A
    micrographs = [{"rlnMicrographName": "Micrographs/m0.mrc", "rlnOpticsGroup": 1, **CTF}]
    optics = [{**OPTICS, "rlnMicrographPixelSize": PIXEL_SIZE_A}]
    write_star(relion.folder / "micrographs.star", {"optics": optics, "micrographs": micrographs})
    write_star(relion.folder / "particles.star", particles(rng, SHIFTS_A, np.roll(SHIFTS_A, 4) / 2))
    return relion


def particles(rng, x_shift_A, y_shift_A, box=32):
    n = len(x_shift_A)
    rot, tilt, psi = Rotation.random(n, random_state=int(rng.integers(100))).as_euler("ZYZ", degrees=True).T
    return {
        "optics": [
            {**OPTICS, "rlnImagePixelSize": IMAGE_PIXEL_SIZE_A, "rlnImageSize": box, "rlnImageDimensionality": 2}
        ],
        "particles": pd.DataFrame(
            {
                "rlnImageName": [f"{number + 1:06d}@old.mrcs" for number in range(n)],
                "rlnMicrographName": "Micrographs/m0.mrc",
                "rlnCoordinateX": (200 + rng.uniform(0, 100, n)).round(2),
                "rlnCoordinateY": (150 + rng.uniform(0, 100, n)).round(2),
                "rlnOriginXAngst": x_shift_A,
                "rlnOriginYAngst": y_shift_A,
                "rlnAngleRot": rot,
                "rlnAngleTilt": tilt,
                "rlnAnglePsi": psi,
                "rlnOpticsGroup": 1,
                **CTF,
            }
        ).round(6),
    }


def extracted(relion, star, to, *options):
    relion.run(
        "relion_preprocess", "--i", "micrographs.star", "--reextract_data_star", star, "--part_dir", f"{to}/",
        "--part_star", f"{to}/particles.star", "--extract", "--extract_size", 32, *options,
    )  # fmt: skip
    return read_star(relion.folder / to / "particles.star")["particles"]


CENTERS = {
    "shifts": ({"recenter": True}, ()),
    "place in the map": (
        {"center_A": (9, -6, 15)},
        ("--recenter_x", 3, "--recenter_y", -2, "--recenter_z", 5),
    ),
    "place in a finer map": (
        {"center_A": (9, -6, 15)},
        ("--recenter_x", 9, "--recenter_y", -6, "--recenter_z", 15, "--ref_angpix", 1),
    ),
}


@pytest.mark.parametrize("case", CENTERS)
def test_coordinates_and_shifts_are_those_of_relions_extract(project, case):
    options, theirs = CENTERS[case]
    name = case.replace(" ", "_")
    expected = extracted(project, "particles.star", f"Extract/{name}", "--recenter", *theirs)
    report = cb.convert(
        project.folder / "particles.star", project.folder / f"{name}.star", verify=True,
        micrograph_pixel_size_A=PIXEL_SIZE_A, **options,
    )  # fmt: skip
    report.require()
    found = read_star(project.folder / f"{name}.star")["particles"]
    np.testing.assert_allclose(found[PLACES], expected[PLACES], rtol=0, atol=PRINTED)
    # RELION's Extract takes the file as it is, cuts the same images, and keeps the record of the old ones.
    again = extracted(project, f"{name}.star", f"Extract/again_{name}")
    np.testing.assert_allclose(again[PLACES], expected[PLACES], rtol=0, atol=PRINTED)
    ours, others = (
        mrcfile.read(project.folder / f"Extract/{each}{name}/Micrographs/m0.mrcs") for each in ("again_", "")
    )
    np.testing.assert_array_equal(ours, others)
    old = read_star(project.folder / "particles.star")["particles"]["rlnImageName"]
    assert again["rlnImageOriginalName"].tolist() == old.tolist()
    stars = (f"Extract/again_{name}/particles.star", "particles.star")
    match = match_rows(*(identities_of(open_particles(project.folder / star)) for star in stars))
    assert match.rows.tolist() == list(range(len(old)))


def map_of(blobs_A, box):
    """A map of blobs at x, y, z in Å from its centre."""
    axis_A = (np.arange(box) - box // 2) * IMAGE_PIXEL_SIZE_A
    z, y, x = np.meshgrid(axis_A, axis_A, axis_A, indexing="ij")
    square = [(x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2 for place in blobs_A]
    return np.exp(-np.array(square) / (2 * 7.0**2)).sum(axis=0)


def centre_of_blob(image):
    """x, y in pixels from the image's centre, by the phases of its transform: RELION's interpolation leaves a halo."""
    box = len(image)
    frequency = np.array([(kx, ky) for kx in range(-6, 7) for ky in range(-6, 7) if 0 < kx**2 + ky**2 <= 36])
    transform = np.fft.fft2(np.fft.ifftshift(image))[frequency[:, 1], frequency[:, 0]]
    wave, place = 2 * np.pi / box * frequency, np.array(np.unravel_index(image.argmax(), image.shape))[::-1] - box // 2
    weight = np.abs(transform)
    for _ in range(5):
        phase = np.angle(transform * np.exp(1j * wave @ place))
        place = place - np.linalg.lstsq(wave * weight[:, None], phase * weight, rcond=None)[0]
    return place


def test_the_part_is_where_relion_projects_it(tmp_path):
    """A blob at a place of the map, projected at known poses and shifts, has its centre where the file says."""
    relion, rng = Relion(tmp_path), np.random.default_rng(1)
    box, place_A = 48, (18.0, -9.0, 24.0)
    write_volume(tmp_path / "blob.mrc", map_of([place_A], box), IMAGE_PIXEL_SIZE_A)
    tables = particles(rng, rng.uniform(-6, 6, 12), rng.uniform(-6, 6, 12), box)
    write_star(tmp_path / "particles.star", tables)
    project_of(relion, "blob.mrc", "particles.star")
    seen_px = np.array([centre_of_blob(image) for image in mrcfile.read(tmp_path / "images.mrcs")])
    ratio = IMAGE_PIXEL_SIZE_A / PIXEL_SIZE_A
    expected = tables["particles"][PLACES[:2]].to_numpy() + seen_px * ratio
    size = {"micrograph_pixel_size_A": PIXEL_SIZE_A}
    cb.convert(
        tmp_path / "particles.star", tmp_path / "a.cs", center_A=place_A, micrograph_shape_px=(4000, 4000), **size
    )
    cb.convert(tmp_path / "particles.star", tmp_path / "a.star", center_A=place_A, **size)
    found = read_star(tmp_path / "a.star")["particles"][PLACES].to_numpy()
    of_relion = found[:, :2] - found[:, 2:] / PIXEL_SIZE_A
    names = [f"location/center_{axis}_frac" for axis in "xy"] + ["alignments3D/shift", "alignments3D/psize_A"]
    x, y, shift_px, pixel_size_A = cb.open_table(tmp_path / "a.cs").read(names).values()
    of_cryosparc = np.column_stack([x, y]).astype(float) * 4000 - shift_px * pixel_size_A[:, None] / PIXEL_SIZE_A
    np.testing.assert_allclose(of_relion, expected, atol=0.01)
    np.testing.assert_allclose(of_cryosparc, expected, atol=0.01)
    assert (np.abs(found[:, 2:]) <= PIXEL_SIZE_A / 2 + 1e-6).all()


def project_of(relion, volume, star):
    relion.run("relion_project", "--i", volume, "--ang", star, "--o", "images", "--angpix", IMAGE_PIXEL_SIZE_A)


@pytest.mark.parametrize(("group", "place_A", "copies"), [("C4", (27, 12, 18), 4), ("D2", (0, 0, 33), 2)])
def test_relion_reconstructs_the_part_of_its_copies(group, place_A, copies, tmp_path):
    """Of a symmetric map, projected onto micrographs, the part is extracted and reconstructed; another one is not."""
    relion, rng = Relion(tmp_path), np.random.default_rng(2)
    box, small, n, step = 64, 24, 60, 70
    near_A = np.array([(0, 0, 0), (14, 3, 0), (-4, 15, 5), (2, -6, -16)])
    part_A = np.array(place_A) + near_A
    rotations = {
        "C4": Rotation.from_euler("z", [0, 90, 180, 270], degrees=True),
        "D2": Rotation.from_rotvec(np.pi * np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])),
    }[group]
    volume = map_of(np.concatenate([rotation.apply(part_A) for rotation in rotations]), box)
    write_volume(tmp_path / "map.mrc", volume, IMAGE_PIXEL_SIZE_A)
    tables = particles(rng, rng.uniform(-6, 6, n), rng.uniform(-6, 6, n), box)
    y, x = np.divmod(np.arange(n), 8)
    tables["particles"] = tables["particles"].assign(rlnCoordinateX=x * step + 40, rlnCoordinateY=y * step + 40)
    write_star(tmp_path / "particles.star", tables)
    project_of(relion, "map.mrc", "particles.star")
    pixels = np.zeros((step * 8 + 20, step * 8 + 20), "f4")
    for image, cx, cy in zip(mrcfile.read(tmp_path / "images.mrcs"), x * step + 40, y * step + 40, strict=True):
        pixels[cy - 32 : cy + 32, cx - 32 : cx + 32] = image
    (tmp_path / "Micrographs").mkdir()
    with mrcfile.new(tmp_path / "Micrographs/m0.mrc") as file:
        file.set_data(pixels)
        file.voxel_size = IMAGE_PIXEL_SIZE_A
    optics = [{**OPTICS, "rlnMicrographPixelSize": IMAGE_PIXEL_SIZE_A}]
    micrographs = [{"rlnMicrographName": "Micrographs/m0.mrc", "rlnOpticsGroup": 1, **CTF}]
    write_star(tmp_path / "micrographs.star", {"optics": optics, "micrographs": micrographs})
    report = cb.convert(
        tmp_path / "particles.star", tmp_path / "part.star", center_A=place_A, symmetry=group, verify=True
    )
    report.require()
    assert (report.rows_out, report.recentring.copies) == (copies * n, copies)
    relion.run(
        "relion_preprocess", "--i", "micrographs.star", "--reextract_data_star", "part.star", "--part_dir", "Part/",
        "--part_star", "part_extracted.star", "--extract", "--extract_size", small,
    )  # fmt: skip
    relion.run("relion_reconstruct", "--i", "part_extracted.star", "--o", "part.mrc", "--iter", 2)
    found = mrcfile.read(tmp_path / "part.mrc")
    centre = box // 2 + np.rint(np.array(place_A) / IMAGE_PIXEL_SIZE_A).astype(int)
    truth = volume[tuple(slice(at - small // 2, at + small // 2) for at in centre[::-1])]
    other = volume[tuple(slice(at - small // 2, at + small // 2) for at in (box - centre)[::-1])]
    assert alike(found, truth) > 0.9
    assert alike(found, other) < 0.7


def alike(one, other, radius=8):
    axis = np.arange(len(one)) - len(one) // 2
    is_inside = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < radius**2
    return np.corrcoef(one[is_inside], other[is_inside])[0, 1]
