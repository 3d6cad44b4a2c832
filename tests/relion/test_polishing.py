"""Bayesian polishing on the file that convert --micrographs --reextract writes, as it is."""

import mrcfile
import numpy as np
import pytest
from interop.extraction import reversed_project
from interop.maps import correlation
from interop.relion import Relion, read_star, write_star, write_volume

import cryobridge as cb

pytestmark = pytest.mark.relion

CORRECTED = "MotionCorr/job002/corrected_micrographs.star"
N_FRAMES = 4
GENERAL = {
    "rlnMicrographBinning": 1,
    "rlnMicrographOriginalPixelSize": 2,
    "rlnMicrographDoseRate": 1,
    "rlnMicrographPreExposure": 0,
    "rlnVoltage": 300,
    "rlnMicrographStartFrame": 1,
    "rlnMotionModelVersion": 0,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Movies without motion of the reversed micrographs, and half maps of the particles as cryoSPARC has them."""
    made = reversed_project(Relion(tmp_path_factory.mktemp("relion")))
    relion, folder = made.relion, made.relion.folder
    tables = read_star(folder / "CtfFind/job003/micrographs_ctf.star")
    tables["optics"]["rlnMicrographOriginalPixelSize"] = 2.0
    names = tables["micrographs"]["rlnMicrographName"].tolist()
    tables["micrographs"]["rlnMicrographMetadata"] = [name.replace(".mrc", ".star") for name in names]
    write_star(folder / CORRECTED, tables)
    (folder / "Movies").mkdir()
    for name in names:
        write_movie(folder, name)
    extracted = made.extracted_unreversed()
    (folder / "Ref").mkdir()
    for half in (1, 2):
        relion.reconstruct(extracted, "--subset", half, output=f"Ref/half{half}_class001_unfil.mrc")
    write_volume(folder / "Ref/mask.mrc", np.ones_like(made.original), 2.0)
    half_map, pixel = "Ref/half1_class001_unfil.mrc", ("--angpix", 2)
    relion.run("relion_postprocess", "--i", half_map, "--mask", "Ref/mask.mrc", *pixel, "--o", "Ref/postprocess")
    return made


def write_movie(folder, name):
    """Write a movie of dark particles, which polishing inverts, and its metadata."""
    pixels = mrcfile.read(folder / name)
    movie = name.replace("MotionCorr/job002/", "").replace(".mrc", ".mrcs")
    noise = np.random.default_rng(0).normal(0, 0.01, (N_FRAMES, *pixels.shape))
    with mrcfile.new(folder / movie, (noise - pixels / N_FRAMES).astype("f4")) as file:
        file.set_image_stack()
        file.voxel_size = 2.0
    ny, nx = pixels.shape
    size = {"rlnImageSizeX": nx, "rlnImageSizeY": ny, "rlnImageSizeZ": N_FRAMES, "rlnMicrographMovieName": movie}
    general = "".join(f"_{label} {value}\n" for label, value in (size | GENERAL).items())
    labels = "_rlnMicrographFrameNumber\n_rlnMicrographShiftX\n_rlnMicrographShiftY\n"
    shifts = "".join(f"{frame + 1} 0 0\n" for frame in range(N_FRAMES))
    text = f"data_general\n\n{general}\n\ndata_global_shift\n\nloop_\n{labels}{shifts}\n"
    (folder / name).with_suffix(".star").write_text(text)


def polished(project, name, **options):
    relion, folder = project.relion, project.relion.folder
    micrographs, links = folder / CORRECTED, folder / "links"
    source = folder / "particles.cs"
    cb.convert(source, folder / f"{name}.star", micrographs=micrographs, datadir=folder, link_stacks=links, **options)
    (folder / "Polish" / name).mkdir(parents=True)
    relion.run(
        *("relion_motion_refine", "--i", f"{name}.star", "--f", "Ref/postprocess.star", "--mask", "Ref/mask.mrc"),
        *("--m1", "Ref/half1_class001_unfil.mrc", "--m2", "Ref/half2_class001_unfil.mrc", "--corr_mic", CORRECTED),
        *("--combine_frames", "--bfac_minfreq", 20, "--max_iters", 0, "--window", 64, "--scale", 64),
        *("--o", f"Polish/{name}/"),
    )
    return f"Polish/{name}/shiny.star"


def test_polishing_takes_every_particle_and_keeps_the_hand(project):
    star = polished(project, "mirrored", reextract=True)
    assert len(read_star(project.relion.folder / star)["particles"]) == 300
    volume = project.relion.reconstruct(star)
    truth, mirrored = project.truth(project.simulated.volume), project.truth(project.simulated.mirrored)
    assert correlation(volume, truth) > 0.9
    assert correlation(volume, mirrored) < 0.7


def test_poses_of_the_old_images_are_wrong_for_the_movies(project):
    volume = project.relion.reconstruct(polished(project, "plain"))
    assert correlation(volume, project.truth(project.simulated.volume)) < 0.9
