"""RELION's Extract on what coords and convert write: picks, and particles that are cut again from its own micrographs.

RELION's micrographs have their rows reversed against cryoSPARC's, as after motion correction of TIFF movies in RELION.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

import cryobridge as cb
from cryobridge.demo import simulate_project
from interop.maps import correlation, lowest_fsc
from interop.relion import FSC, OpticsGroup, Relion, read_images, read_star, write_star
from interop.relion_jobs import run_job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.jobs.convert import ConvertReport
    from cryobridge.model.convention import Convention
    from interop.checks import Checks
    from interop.relion import Simulated

# Reversed rows of an even box have a row more at the other end: images are cut smaller than they were simulated.
REEXTRACTED_FSC = 0.99
_SIMULATED_PX, _BOX_PX, _PIXEL_SIZE_A = 80, 64, 2.0
_SHAPE_PX = (864, 1104)
_PER_ROW, _PER_MICROGRAPH, _N_MICROGRAPHS = 12, 100, 3
# Even and odd terms, whose signs the mirror has to change.
_TERMS = {
    "rlnBeamTiltX": 0.3,
    "rlnBeamTiltY": 0.4,
    "rlnOddZernike": "[0,0,-60,0,0,80]",
    "rlnEvenZernike": "[0,0,0,0,120,0,0,0,90]",
}
_MICROSCOPE = {
    "rlnVoltage": 300,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1,
    "rlnMicrographPixelSize": _PIXEL_SIZE_A,
}
# Those of the particles count, but without any RELION multiplies none.
_CTF = {"rlnDefocusU": 12000, "rlnDefocusV": 12000, "rlnDefocusAngle": 0}
_REVERSED, _UNREVERSED = "CtfFind/job003/micrographs_ctf.star", "CtfFind/job004/micrographs_ctf.star"


@dataclass(frozen=True)
class ReversedProject:
    """A RELION project with reversed micrographs, and the particles in cryoSPARC's terms, in ``particles.cs``.

    Attributes
    ----------
    relion
        Of its folder.
    simulated
        The particles, before they were put on micrographs.
    """

    relion: Relion
    simulated: Simulated

    @cached_property
    def original(self) -> NDArray[Any]:
        """The map of images that RELION's Extract cut from cryoSPARC's micrographs."""
        return self.relion.reconstruct(self.extracted_unreversed())

    def convert(self, name: str, **options: Any) -> ConvertReport:
        """Write ``NAME.star``, mapped onto the reversed micrographs."""
        return _convert(self.relion, name, _REVERSED, **options)

    def extracted(self, name: str, *options: object) -> str:
        """Extract the particles of ``NAME.star`` from the reversed micrographs; return the STAR file of the result."""
        return _extracted(self.relion, name, _REVERSED, *options)

    def extracted_unreversed(self, *options: object, name: str = "unreversed") -> str:
        """Extract the particles, mapped onto cryoSPARC's micrographs, from these."""
        return _extracted(self.relion, "unreversed", _UNREVERSED, *options, name=name)

    def extracted_elsewhere(self, name: str, convention: Convention, moved_px: NDArray[Any], less_px: float) -> str:
        """Extract the particles, without poses and in another order, from micrographs that lie otherwise.

        Parameters
        ----------
        name
            Of the STAR file of the result, which is returned.
        convention
            How these micrographs lie.
        moved_px
            (n, 2) by how many pixels of these each box is beside the particle's.
        less_px
            What is behind the point of each coordinate, which RELION's Extract leaves out.
        """
        folder, new = self.relion.folder, {each: f"MotionCorr/{name}/mic{each}.mrc" for each in range(_N_MICROGRAPHS)}
        for each, path in new.items():
            pixels = convention.image(mrcfile.read(folder / _of_cryosparc(each))[np.newaxis])[0]
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with mrcfile.new(folder / path, np.ascontiguousarray(pixels)) as file:
                file.voxel_size = _PIXEL_SIZE_A
        names = {_of_cryosparc(each): path for each, path in new.items()}
        micrographs, picks = read_star(folder / _UNREVERSED), read_star(folder / "unreversed.star")
        (x, y), (ny, nx) = picks["particles"][["rlnCoordinateX", "rlnCoordinateY"]].round().to_numpy().T, _SHAPE_PX
        x, y = nx - 1 - x if convention.mirror_x else x, ny - 1 - y if convention.mirror_y else y
        x, y = np.array([y, x] if convention.swap_xy else [x, y]) + moved_px.T + less_px
        for table in (micrographs["micrographs"], picks["particles"]):
            table["rlnMicrographName"] = table["rlnMicrographName"].map(names)
        picked = picks["particles"].assign(rlnCoordinateX=x, rlnCoordinateY=y)
        kept = ["rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnOpticsGroup"]
        bare = [column for column in picks["optics"] if "Zernike" not in column and "BeamTilt" not in column]
        picked = picked[kept].sample(frac=1, random_state=1)
        write_star(folder / f"{name}.star", {"optics": picks["optics"][bare], "particles": picked})
        write_star(folder / f"{name}_micrographs.star", micrographs)
        return _extracted(self.relion, name, f"{name}_micrographs.star")

    def truth(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Cut a simulated volume to the size of the images."""
        edge = (_SIMULATED_PX - _BOX_PX) // 2
        return volume[edge:-edge, edge:-edge, edge:-edge]


def reversed_project(relion: Relion) -> ReversedProject:
    """Simulate 300 particles with aberrations, and put them on three micrographs.

    Parameters
    ----------
    relion
        Of an empty folder, which becomes the project.
    """
    folder = relion.folder
    simulated = relion.simulate(
        (OpticsGroup(_SIMULATED_PX, _PIXEL_SIZE_A, terms=_TERMS),), n_images=_PER_MICROGRAPH * _N_MICROGRAPHS
    )
    tables = read_star(folder / simulated.star)
    place = np.arange(len(tables["particles"]))
    number, within = place // _PER_MICROGRAPH, place % _PER_MICROGRAPH
    # Off the grid, so that neither a reversal nor an exchange of x and y finds them again.
    x, y = within % _PER_ROW * 90 + 45, within // _PER_ROW * 92 + 42 + within % _PER_ROW
    tables["particles"] = tables["particles"].assign(
        rlnCoordinateX=x, rlnCoordinateY=y, rlnMicrographName=[_of_cryosparc(each) for each in number]
    )
    tables["optics"]["rlnMicrographPixelSize"] = _PIXEL_SIZE_A
    write_star(folder / "cryosparc.star", tables)
    _write_micrographs(folder, read_images(folder, simulated.star), x, y, number)
    (folder / "default_pipeline.star").touch()
    cb.convert(folder / "cryosparc.star", folder / "particles.cs", micrograph_shape_px=_SHAPE_PX)
    _convert(relion, "unreversed", _UNREVERSED)
    return ReversedProject(relion, simulated)


def check_picks(checks: Checks, relion: Relion) -> None:
    """Give the picks of cryobridge coords to RELION's Extract job, as its window takes them."""
    checks.section("Extract of RELION: picks of cryobridge coords, reversed rows")
    project = simulate_project(relion.folder / "demo", n_micrographs=3, particles_per_micrograph=30)
    picks = project.relion / "Picks"
    cb.coords(project.group_csg, project.micrographs_star, picks).require()
    # RELION 3.1 reads no list of jobs of RELION 4, as which the project is simulated.
    (project.relion / "default_pipeline.star").unlink()
    extracting = Relion(project.relion)
    job = run_job(
        extracting,
        "Extract",
        {
            "star_mics": project.micrographs_star.relative_to(project.relion),
            "coords_suffix": "Picks/coords_suffix_autopick.star",
            "extract_size": project.box_px,
            "do_invert": "No",
            "do_norm": "No",
            "bg_diameter": -1,
        },
    )
    status = "RELION_JOB_EXIT_SUCCESS"
    checks.equal("the job's end", [path.name for path in (project.relion / job).glob("RELION_JOB_*")], [status])
    images = read_images(project.relion, f"{job}/particles.star")
    stacks = np.concatenate([mrcfile.read(stack) for stack in project.stacks])
    checks.equal("particles", len(images), len(stacks))
    # Rows ny - y - box/2 and on are those of the box at y from its end.
    alike = _correlations(images, stacks[:, ::-1])
    partner = alike.argmax(axis=1).tolist()
    checks.same_rows("cryoSPARC's images that are none of RELION's", len(stacks) - len(set(partner)), len(stacks))
    checks.at_least("lowest correlation with cryoSPARC's image, rows reversed", float(alike.max(axis=1).min()), 0.999)
    unreversed = _correlations(images, stacks)[np.arange(len(images)), partner]
    checks.at_most("highest correlation with it as it is", float(unreversed.max()), 0.7)


def check_reextraction(checks: Checks, relion: Relion) -> None:
    """Extract what convert --micrographs writes from RELION's reversed micrographs, and reconstruct it."""
    checks.section("relion_preprocess --reextract_data_star: cryobridge convert --micrographs, reversed rows")
    project = reversed_project(relion)
    plain = project.convert("plain", verify=True)
    checks.equal("rows are compared with the micrographs", plain.coordinates_from, "pixels")
    star = project.extracted("plain")
    groups = read_star(relion.folder / star)["optics"]["rlnOpticsGroupName"].tolist()
    checks.equal("names of the optics groups are those of the micrographs", groups, ["session2", "session3"])
    new, old = (read_images(relion.folder, each) for each in (star, project.extracted_unreversed()))
    # The middle row stays, and row 0 has no partner.
    differ = (new[:, 1:] != old[:, :0:-1]).any(axis=(1, 2))
    checks.same_rows("images that are not the others with reversed rows", int(differ.sum()), len(differ))
    for name, options in (("--reextract", ()), ("--reextract, centred by RELION", ("--recenter",))):
        project.convert("mirrored", reextract=True)
        again = relion.reconstruct(project.extracted("mirrored", *options))
        unreversed = project.original
        if options:
            unreversed = relion.reconstruct(project.extracted_unreversed(*options, name="centred"))
        fsc = lowest_fsc(again, unreversed)
        checks.at_least(f"{name}: lowest FSC to the map of cryoSPARC's micrographs", fsc, REEXTRACTED_FSC)
        checks.at_least(f"{name}: truth", correlation(again, project.truth(project.simulated.volume)), 0.9)
        mirrored = correlation(again, project.truth(project.simulated.mirrored))
        checks.at_most(f"{name}: with the mirror image", mirrored, 0.7)


def check_premultiplied(checks: Checks, relion: Relion) -> None:
    """Extract particles multiplied by their CTF, and reconstruct them before and after our STAR -> STAR."""
    checks.section("relion_preprocess --premultiply_ctf: STAR -> STAR")
    project = reversed_project(relion)
    star = project.extracted_unreversed("--premultiply_ctf", name="premultiplied")
    original = relion.reconstruct(star, output="original.mrc")
    for layout in ("3.1", "5"):
        cb.convert(relion.folder / star, relion.folder / f"again_{layout}.star", relion=layout)
        again = relion.reconstruct(f"again_{layout}.star")
        checks.at_least(f"layout of RELION {layout}: lowest FSC to the original", lowest_fsc(again, original), FSC)
    tables = read_star(relion.folder / star)
    bare = tables["optics"].drop(columns="rlnCtfDataAreCtfPremultiplied")
    write_star(relion.folder / "bare.star", {**tables, "optics": bare})
    lowest = lowest_fsc(relion.reconstruct("bare.star"), original)
    checks.at_most("without rlnCtfDataAreCtfPremultiplied: lowest FSC to the original", lowest, 0.9)
    report = cb.convert(relion.folder / star, relion.folder / "premultiplied.cs", contrast="bright")
    told = "ctf-premultiplied" in {message.code for message in report.warnings}
    checks.equal("-> .cs, which has no place for it: a warning says so", told, True)


STAGES = (check_picks, check_reextraction, check_premultiplied)


def _of_relion(number: int) -> str:
    return f"MotionCorr/job002/Movies/mic{number}.mrc"


def _of_cryosparc(number: int) -> str:
    return f"J2/motioncorrected/mic{number}_patch_aligned.mrc"


def _correlations(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Correlate each of the images with each of the others: (n, m)."""
    rows = [images.reshape(len(images), -1) - images.mean(axis=(1, 2))[:, None] for images in (first, second)]
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows)
    product: NDArray[Any] = one @ other.T
    return product


def _write_micrographs(
    folder: Path, images: NDArray[Any], x: NDArray[Any], y: NDArray[Any], number: NDArray[Any]
) -> None:
    """Write each micrograph in both ways, and RELION's lists of them, with more optics groups than they use."""
    rng = np.random.default_rng(0)
    half = _SIMULATED_PX // 2
    for each in range(_N_MICROGRAPHS):
        pixels = rng.normal(0, 0.05, _SHAPE_PX).astype("f4")
        for row in np.flatnonzero(number == each):
            pixels[y[row] - half : y[row] + half, x[row] - half : x[row] + half] = images[row]
        for name, rows in ((_of_relion(each), pixels[::-1]), (_of_cryosparc(each), pixels)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with mrcfile.new(folder / name, np.ascontiguousarray(rows)) as file:
                file.voxel_size = _PIXEL_SIZE_A
    optics = [{"rlnOpticsGroup": group, "rlnOpticsGroupName": f"session{group}", **_MICROSCOPE} for group in (1, 2, 3)]
    for star, name in ((_REVERSED, _of_relion), (_UNREVERSED, _of_cryosparc)):
        listed = [
            {"rlnMicrographName": name(each), "rlnOpticsGroup": 2 + each % 2, **_CTF} for each in range(_N_MICROGRAPHS)
        ]
        (folder / star).parent.mkdir(parents=True)
        write_star(folder / star, {"optics": optics, "micrographs": listed})


def _convert(relion: Relion, name: str, micrographs: str, **options: Any) -> ConvertReport:
    return cb.convert(
        relion.folder / "particles.cs",
        relion.folder / f"{name}.star",
        micrographs=relion.folder / micrographs,
        datadir=relion.folder,
        overwrite=True,
        **options,
    )


def _extracted(relion: Relion, star: str, micrographs: str, *options: object, name: str | None = None) -> str:
    to = f"Extract/{name or star}"
    relion.run(
        "relion_preprocess", "--i", micrographs, "--reextract_data_star", f"{star}.star", "--part_dir", f"{to}/",
        "--part_star", f"{to}/particles.star", "--extract", "--extract_size", _BOX_PX, *options,
    )  # fmt: skip
    return f"{to}/particles.star"
