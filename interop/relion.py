"""RELION's own programs, as the judge of what cryobridge writes: running them, simulated particles, reconstructions.

The stages of ``make interop`` and the tests with the marker ``relion`` use the same functions. A test is::

    from interop.maps import correlation, lowest_fsc
    from interop.relion import CORRELATION_LOSS, FSC, OpticsGroup, Relion

    @pytest.mark.relion  # skipped where RELION is not installed
    def test_relion_reconstructs_what_we_write(tmp_path):
        relion = Relion(tmp_path)  # all paths are relative to this folder, as in a RELION project
        simulated = relion.simulate(n_images=300)  # simulated.star in RELION 3.1's layout, images by relion_project
        cb.convert(tmp_path / simulated.star, tmp_path / "particles.cs")
        cb.convert(tmp_path / "particles.cs", tmp_path / "again.star", link_stacks=tmp_path / "stacks")
        original, again = relion.reconstruct(simulated.star), relion.reconstruct("again.star")
        assert lowest_fsc(again, original) >= FSC
        assert correlation(again, simulated.volume) >= correlation(original, simulated.volume) - CORRELATION_LOSS

Several optics groups, and what an optics block can say of them, are given as

    relion.simulate(
        (
            OpticsGroup(terms={"rlnBeamTiltX": 0.5, "rlnEvenZernike": "[0,0,0,0,50,0,0,0,0]"}),
            OpticsGroup(box_px=72, pixel_size_A=1.6, voltage_kV=200, terms={"rlnBeamTiltX": 0, "rlnEvenZernike": ...}),
        )
    )

relion_project applies the even Zernike terms and the magnification matrix, and neither beam tilt nor the odd terms;
relion_reconstruct applies all of them: a conversion that loses odd terms shows in the FSC of both reconstructions.
`read_star` and `write_star` give STAR files as pandas tables by block, to change them in between. Any other program:
``relion.run("relion_star_handler", "--i", "particles.star", ...)``, and several processes ``relion.run_mpi(3, ...)``.
A program that fails raises `ProgramFailedError` with the end of what it printed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np
import pandas as pd
import starfile
from scipy.spatial.transform import Rotation

from cryobridge.demo.physics import Molecule, demo_molecule
from interop.maps import volume_of
from interop.programs import Runner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# The bar for a conversion of noise-free particles: FSC to the original at every shell up to 0.85 of Nyquist, and
# what the correlation with the truth may be lower than the original's.
FSC = 0.999
CORRELATION_LOSS = 0.001

_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
_TEXTS = ("rlnOpticsGroupName", "rlnGroupName", "rlnImageName", "rlnMicrographName", "rlnRandomSubset")

Tables = dict[str, pd.DataFrame]


def is_installed(program: str = "relion_refine") -> bool:
    """Whether a program is on the path: one of RELION's, or ``mpirun``."""
    return shutil.which(program) is not None


@dataclass(frozen=True)
class OpticsGroup:
    """Images of one microscope.

    Attributes
    ----------
    box_px, pixel_size_A
        Size of the images.
    voltage_kV, cs_mm, amplitude_contrast
        The microscope.
    terms
        Further columns of the optics block: ``rlnBeamTiltX`` (mrad), ``rlnOddZernike`` ("[a,b,...]"), ``rlnMagMat00``
        and so on. All groups of a set have the same ones.
    """

    box_px: int = 64
    pixel_size_A: float = 2.0
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    terms: Mapping[str, float | str] = field(default_factory=dict)

    def row(self, number: int) -> dict[str, float | str]:
        """Return the row of the optics block."""
        return {
            "rlnOpticsGroup": number,
            "rlnOpticsGroupName": f"opticsGroup{number}",
            "rlnVoltage": self.voltage_kV,
            "rlnSphericalAberration": self.cs_mm,
            "rlnAmplitudeContrast": self.amplitude_contrast,
            "rlnImagePixelSize": self.pixel_size_A,
            "rlnImageSize": self.box_px,
            "rlnImageDimensionality": 2,
            **self.terms,
        }


@dataclass(frozen=True)
class Simulated:
    """Simulated particles.

    Attributes
    ----------
    star
        The STAR file, relative to the folder of the run.
    volume
        (box, box, box) The truth, with box and pixel size of the first optics group.
    mirrored
        Its mirror image.
    """

    star: str
    volume: NDArray[Any]
    mirrored: NDArray[Any]


class Relion(Runner):
    """Runs RELION's programs in a folder, which is their project: all paths are relative to it.

    Parameters
    ----------
    folder
        The folder; logs go to ``logs`` in it.
    n_gridding
        Iterations of the gridding correction of reconstructions. RELION has 10, as ``make interop`` does; with two,
        which take a quarter of the time, maps that are compared with each other agree and differ in the same shells.
    """

    def __init__(self, folder: Path, *, n_gridding: int = 2) -> None:
        super().__init__(folder)
        self._n_gridding = n_gridding

    def run(self, program: str, *arguments: object, folder: str = ".") -> str:
        """Run a program of RELION and return what it printed on stdout.

        Parameters
        ----------
        program, *arguments
            The words of the command.
        folder
            Where to run it, relative to the folder of all.

        Raises
        ------
        ProgramFailedError
            With the exit code and the end of what the program printed.
        """
        return self.run_command([program, *map(str, arguments)], folder=folder)

    def run_mpi(self, n_processes: int, program: str, *arguments: object, folder: str = ".") -> str:
        """Run a program as so many processes of Open MPI, also as root and on fewer cores."""
        words = ["mpirun", "--oversubscribe", "-n", str(n_processes), program, *map(str, arguments)]
        return self.run_command(words, folder=folder, environment=_ROOT)

    def version(self) -> str:
        """Return the version of RELION."""
        return self.run("relion_refine", "--version").split("version:")[1].split()[0]

    def simulate(
        self,
        groups: Sequence[OpticsGroup] = (OpticsGroup(),),
        *,
        name: str = "simulated",
        n_images: int = 400,
        noise: float = 0.0,
        seed: int = 0,
    ) -> Simulated:
        """Write particles of random poses, shifts, defocus, astigmatism and phase shifts, and project them.

        Parameters
        ----------
        groups
            The optics groups.
        name
            The STAR file is ``NAME.star``, the stacks ``NAME_group1.mrcs`` and so on.
        n_images
            Images of each optics group.
        noise
            Standard deviation of white noise; the signal's is about 0.05.
        seed
            For the random numbers.

        Returns
        -------
        Simulated
            Of a molecule of blobs without symmetry, whose mirror image is none of its views.
        """
        rng = np.random.default_rng(seed)
        optics, particles = [], []
        for number, group in enumerate(groups, 1):
            root = f"{name}_group{number}"
            write_volume(self.folder / f"{root}_truth.mrc", _molecule_volume(group), group.pixel_size_A)
            rows = _random_particles(rng, n_images, f"{root}.mrcs")
            write_star(self.folder / f"{root}_in.star", {"optics": [group.row(1)], "particles": rows})
            white = ("--add_noise", "--white_noise", noise) if noise else ()
            self.run(
                "relion_project", "--i", f"{root}_truth.mrc", "--ang", f"{root}_in.star", "--o", root,
                "--ctf", "--angpix", group.pixel_size_A, *white,
            )  # fmt: skip
            optics.append(group.row(number))
            particles.append(rows.assign(rlnOpticsGroup=number))
        write_star(self.folder / f"{name}.star", {"optics": optics, "particles": pd.concat(particles)})
        return Simulated(f"{name}.star", _molecule_volume(groups[0]), _molecule_volume(groups[0], x_sign=-1.0))

    def reconstruct(self, star: str, *options: object, output: str | None = None, folder: str = ".") -> NDArray[Any]:
        """Reconstruct with ``relion_reconstruct --ctf`` and return the map (z, y, x).

        Parameters
        ----------
        star
            The particles, relative to the folder.
        *options
            More options of the program: ``"--subset", 1`` for a half map, ``"--maxres", 8``.
        output
            Name of the map; by default that of the STAR file.
        folder
            Where to run it: image names in the STAR file are relative to it.
        """
        output = output or f"{Path(star).with_suffix('')}_map.mrc"
        words = ("--i", star, "--o", output, "--ctf", "--iter", self._n_gridding, *options)
        self.run("relion_reconstruct", *words, folder=folder)
        volume: NDArray[Any] = np.array(mrcfile.read(self.folder / folder / output))
        return volume


def read_star(path: Path) -> Tables:
    """Read a STAR file as pandas tables by block, with `starfile`; a table without a name is ``particles``."""
    tables = starfile.read(path, always_dict=True, parse_as_string=list(_TEXTS))
    return {name or "particles": _as_table(table) for name, table in tables.items()}


def write_star(path: Path, tables: Mapping[str, Any]) -> None:
    """Write tables as blocks of a STAR file, with `starfile` and the six decimals of RELION."""
    blocks = {name: pd.DataFrame(table) for name, table in tables.items()}
    starfile.write(blocks, path, overwrite=True, float_format="%.6f")


def read_images(folder: Path, star: str) -> NDArray[Any]:
    """Read the images (n, box, box) of a STAR file of particles, by its rows; names are relative to the folder."""
    names = read_star(folder / star)["particles"]["rlnImageName"].str.split("@", n=1, expand=True)
    stacks = {name: mrcfile.read(folder / name) for name in names[1].unique()}
    sections = {name: stack.reshape(-1, *stack.shape[-2:]) for name, stack in stacks.items()}
    return np.stack([sections[name][int(number) - 1] for number, name in names.itertuples(index=False)])


def write_volume(path: Path, volume: NDArray[Any], voxel_size_A: float) -> None:
    """Write a map as RELION reads it."""
    with mrcfile.new(path, np.asarray(volume, np.float32), overwrite=True) as file:
        file.voxel_size = voxel_size_A


def _as_table(table: Any) -> pd.DataFrame:
    return table if isinstance(table, pd.DataFrame) else pd.DataFrame([table])


def _molecule_volume(group: OpticsGroup, x_sign: float = 1.0) -> NDArray[Any]:
    # At half its size the demo's molecule has signal at every shell of images of 2 Å a pixel.
    molecule = demo_molecule()
    small = Molecule(molecule.position_A / 2, molecule.sigma_A / 2, molecule.weight)
    return volume_of(small, group.box_px, group.pixel_size_A, x_sign)


def _random_particles(rng: np.random.Generator, n: int, stack: str) -> pd.DataFrame:
    rot, tilt, psi = Rotation.random(n, random_state=int(rng.integers(2**31))).as_euler("ZYZ", degrees=True).T
    defocus_A = rng.uniform(8000, 20000, n)
    numbers = np.arange(n)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{number + 1:06d}@{stack}" for number in numbers],
            "rlnMicrographName": [f"Micrographs/{Path(stack).stem}_{number % 4}.mrc" for number in numbers],
            "rlnCoordinateX": rng.uniform(100, 3000, n),
            "rlnCoordinateY": rng.uniform(100, 3000, n),
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi,
            "rlnOriginXAngst": rng.uniform(-6, 6, n),
            "rlnOriginYAngst": rng.uniform(-6, 6, n),
            "rlnDefocusU": defocus_A,
            "rlnDefocusV": defocus_A - rng.uniform(0, 800, n),
            "rlnDefocusAngle": rng.uniform(-90, 90, n),
            "rlnPhaseShift": rng.uniform(0, 90, n),
            "rlnRandomSubset": numbers % 2 + 1,
            "rlnOpticsGroup": 1,
        }
    )
    return table.round(6)
