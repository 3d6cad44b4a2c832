"""Movies with a known motion, as cryoSPARC's exposures by the specification, and RELION's polishing as the judge.

The motion and cryoSPARC's files of it are simulated as those of the demo project are, `cryobridge.demo.motion`.

RELION's fit forgets from where it began, so that good polished particles prove nothing. With ``--max_iters 0`` it takes
the motion as it is, and lists for each particle where it was in each frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

import cryobridge as cb
from cryobridge.demo.motion import TrueMotion, draw_drift, draw_motion, moved_images, write_tiff, write_trajectories
from interop.relion import OpticsGroup, Relion, read_images, read_star, write_star, write_volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from interop.checks import Checks

SHAPE_PX = (288, 352)
N_FRAMES = 8
PIXEL_SIZE_A = 2.0
DOSE_E_A2 = 12.0
_BOX_PX = 48
_PER_ROW, _PER_MICROGRAPH = 4, 12
_N_MICROGRAPHS = 2
_COUNTS = 4000


@dataclass(frozen=True)
class PolynomialMotion(TrueMotion):
    """Local motion that RELION's model holds, which the spline follows closely.

    Attributes
    ----------
    polynomial
        (2, 18) RELION's coefficients.
    """

    polynomial: NDArray[Any]

    def _local_px(self, places_px: NDArray[Any], shape_px: tuple[int, int]) -> NDArray[Any]:
        return _polynomial(self.polynomial, places_px, self.n_frames, shape_px)


def _polynomial(coefficients: NDArray[Any], places_px: NDArray[Any], n: int, shape_px: tuple[int, int]) -> NDArray[Any]:
    x, y = (places_px / np.array(shape_px[::-1]) - 0.5).T[:, :, None]
    z = np.arange(n)[None]
    found = []
    for c in coefficients.reshape(2, 6, 3):
        at, bt, ct, dt, et, ft = (one[0] * z + one[1] * z**2 + one[2] * z**3 for one in c)
        found.append(at + bt * x + ct * x**2 + dt * y + et * y**2 + ft * x * y)
    return np.stack(found, axis=-1)


def _through(values: NDArray[Any]) -> NDArray[Any]:
    """Return the coefficients of the natural cubic spline through values (KZ, KY, KX) at its knots."""
    for axis, size in enumerate(values.shape):
        # A natural spline is at its ends what the first and the last coefficient are.
        matrix = np.diag(np.full(size, 2 / 3)) + np.diag(np.full(size - 1, 1 / 6), 1)
        matrix += np.diag(np.full(size - 1, 1 / 6), -1)
        matrix[0], matrix[-1] = np.eye(size)[0], np.eye(size)[-1]
        values = np.moveaxis(
            np.linalg.solve(matrix, np.moveaxis(values, axis, 0).reshape(size, -1)).reshape(
                np.moveaxis(values, axis, 0).shape
            ),
            0,
            axis,
        )
    return values


def polynomial_motion(rng: np.random.Generator, n_frames: int = N_FRAMES) -> PolynomialMotion:
    """Return local motion of up to about 3 pixels that RELION's model holds."""
    size = 1.0 / (n_frames - 1) ** np.arange(1, 4)
    coefficients = rng.normal(0, [1.5, 0.6, 0.3], (2, 6, 3)) * size
    k_z, k_y, k_x = 12, 13, 15
    z, y, x = np.linspace(0, n_frames - 1, k_z), np.linspace(0, 1, k_y), np.linspace(0, 1, k_x)
    ny, nx = SHAPE_PX
    sampled = np.empty((2, k_z, k_y, k_x))
    for axis, sign in enumerate((-1, 1)):
        # Knots lie on cryoSPARC's rows, from its first to its last.
        x_n = (x * (nx - 1)) / nx - 0.5
        y_n = ((ny - 1) - y * (ny - 1)) / ny - 0.5
        terms = np.stack(
            [
                np.ones((k_y, k_x)),
                *np.broadcast_arrays(
                    x_n[None], x_n[None] ** 2, y_n[:, None], y_n[:, None] ** 2, x_n[None] * y_n[:, None]
                ),
            ]
        )
        powers = z[:, None] ** np.arange(1, 4)
        sampled[axis] = sign * np.einsum("zt,pt,pyx->zyx", powers, coefficients[axis], terms)
    spline = np.stack([_through(one) for one in sampled])
    return PolynomialMotion(draw_drift(rng, n_frames), spline, coefficients.reshape(2, 18))


def exposures(names: list[str], suffix: str, gain: str = "", **changes: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the columns of cryoSPARC's exposures of Patch Motion; names of its files are relative to its project."""
    n = len(names)
    columns: dict[str, NDArray[Any]] = {
        "uid": np.arange(1001, 1001 + n, dtype="<u8"),
        "movie_blob/path": np.array([f"J1/imported/{name}{suffix}" for name in names]),
        "movie_blob/shape": np.tile(np.array([N_FRAMES, *SHAPE_PX], "<u4"), (n, 1)),
        "movie_blob/psize_A": np.full(n, PIXEL_SIZE_A, "<f4"),
        "movie_blob/is_gain_corrected": np.full(n, not gain, "<u4"),
        "mscope_params/accel_kv": np.full(n, 300, "<f4"),
        "mscope_params/cs_mm": np.full(n, 2.7, "<f4"),
        "mscope_params/total_dose_e_per_A2": np.full(n, DOSE_E_A2, "<f4"),
        "mscope_params/exp_group_id": np.full(n, 3, "<u4"),
        "micrograph_blob/path": np.array([f"J2/motioncorrected/{name}_patch_aligned.mrc" for name in names]),
        "micrograph_blob/idx": np.zeros(n, "<u4"),
        "micrograph_blob/shape": np.tile(np.array(SHAPE_PX, "<u4"), (n, 1)),
        "micrograph_blob/psize_A": np.full(n, PIXEL_SIZE_A, "<f4"),
        "rigid_motion/path": np.array([f"J2/motioncorrected/{name}_rigid_traj.npy" for name in names]),
        "rigid_motion/idx": np.zeros(n, "<u4"),
        "rigid_motion/psize_A": np.full(n, PIXEL_SIZE_A, "<f4"),
        "rigid_motion/frame_start": np.zeros(n, "<u4"),
        "rigid_motion/frame_end": np.full(n, N_FRAMES, "<u4"),
        "rigid_motion/zero_shift_frame": np.zeros(n, "<u4"),
        "spline_motion/path": np.array([f"J2/motioncorrected/{name}_bending_traj.npy" for name in names]),
        "spline_motion/idx": np.zeros(n, "<u4"),
        "spline_motion/psize_A": np.full(n, PIXEL_SIZE_A, "<f4"),
    }
    if gain:
        columns |= {
            "gain_ref_blob/path": np.array([gain] * n),
            "gain_ref_blob/idx": np.zeros(n, "<u4"),
            "gain_ref_blob/shape": np.tile(np.array(SHAPE_PX, "<u4"), (n, 1)),
            "gain_ref_blob/flip_x": np.zeros(n, "<u4"),
            "gain_ref_blob/flip_y": np.zeros(n, "<u4"),
            "gain_ref_blob/rotate_num": np.zeros(n, "<u4"),
        }
    return columns | changes


def write_cs(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """Write columns as a `.cs` file."""
    stored = {name: np.char.encode(values) if values.dtype.kind == "U" else values for name, values in columns.items()}
    types = [(name, values.dtype.str, values.shape[1:]) for name, values in stored.items()]
    table = np.empty(len(next(iter(stored.values()))), types)
    for name, values in stored.items():
        table[name] = values
    with path.open("wb") as file:
        np.save(file, table)


@dataclass(frozen=True)
class MovingProject:
    """A RELION project of movies in which particles move as it is known.

    Attributes
    ----------
    relion
        Of its folder, in which cryoSPARC's project is ``cryosparc``.
    motions
        Of each movie.
    places_px
        (n, 2) x, y of the particles of each movie in the first frame, in RELION's rows.
    names
        Of the movies, without suffix.
    images
        (n, box, box) the particles as they were put into the movies, by movie.
    """

    relion: Relion
    motions: list[TrueMotion]
    places_px: NDArray[Any]
    names: list[str]
    images: NDArray[Any]

    @property
    def exposures(self) -> Path:
        """CryoSPARC's exposures."""
        return self.relion.folder / "cryosparc/J2/exposures.cs"

    def polished(self, name: str, metadata: list[str], particles: str = "particles.star") -> Polished:
        """Let RELION take the motion as metadata have it.

        Parameters
        ----------
        name
            Of the output folder.
        metadata
            The files, from the project.
        particles
            Their STAR file.
        """
        folder = self.relion.folder
        micrographs = {
            "rlnMicrographName": [f"MotionCorr/job002/Movies/{movie}.mrc" for movie in self.names],
            "rlnMicrographMetadata": metadata,
            "rlnOpticsGroup": 1,
        }
        optics = read_star(folder / particles)["optics"]
        write_star(folder / f"{name}_corrected.star", {"optics": optics, "micrographs": micrographs})
        return self.polished_with(name, f"{name}_corrected.star", particles)

    def polished_with(self, name: str, corrected: str, particles: str, *options: object) -> Polished:
        """Let RELION polish particles with a list of micrographs."""
        out = self.relion.folder / "Polish" / name
        out.mkdir(parents=True)
        self.relion.run(
            *("relion_motion_refine", "--i", particles, "--f", "Ref/postprocess.star", "--mask", "Ref/mask.mrc"),
            *("--m1", "Ref/half1_class001_unfil.mrc", "--m2", "Ref/half2_class001_unfil.mrc", "--corr_mic", corrected),
            *("--combine_frames", "--bfac_minfreq", 20, "--max_iters", 0, "--window", _BOX_PX, "--scale", _BOX_PX),
            *("--o", f"Polish/{name}/", "--j", 1, *options),
        )
        return Polished(self, name)

    def write_cryosparc_particles(self) -> Path:
        """Write the particles as cryoSPARC has them, cut out of its own averages: ``cryosparc/J3/particles.cs``."""
        folder = self.relion.folder
        (folder / "cryosparc/J3").mkdir()
        # Rows are reversed about the centre of an even box, which stays where it is.
        mirrored = np.roll(self.images.reshape(-1, _BOX_PX, _BOX_PX)[:, ::-1], 1, axis=1)
        with mrcfile.new(folder / "cryosparc/J3/particles.mrcs", mirrored.astype("f4")) as file:
            file.set_image_stack()
            file.voxel_size = PIXEL_SIZE_A
        tables = read_star(folder / "particles.star")
        particles = tables["particles"]
        particles["rlnCoordinateY"] = SHAPE_PX[0] - 1 - particles["rlnCoordinateY"]
        particles["rlnMicrographName"] = np.repeat(
            [f"J2/motioncorrected/{name}_patch_aligned.mrc" for name in self.names], self.places_px.shape[1]
        )
        particles["rlnImageName"] = [f"{number + 1:06d}@J3/particles.mrcs" for number in range(len(particles))]
        # A mirrored image is one of the same map, from behind.
        particles["rlnAngleRot"] += 180
        particles["rlnAngleTilt"] = 180 - particles["rlnAngleTilt"]
        particles["rlnAnglePsi"] *= -1
        particles["rlnOriginYAngst"] *= -1
        particles["rlnDefocusAngle"] *= -1
        write_star(folder / "cryosparc/J3/particles.star", tables)
        path = folder / "cryosparc/J3/particles.cs"
        cb.convert(
            folder / "cryosparc/J3/particles.star", path, micrograph_shape_px=SHAPE_PX, datadir=folder / "cryosparc"
        )
        return path


@dataclass(frozen=True)
class Polished:
    """What RELION made of the movies.

    Attributes
    ----------
    project, name
        The output folder is ``Polish/NAME``.
    """

    project: MovingProject
    name: str

    def tracks_px(self) -> NDArray[Any]:
        """Return where RELION took particles to be, less their coordinates: (n_movies, n, n_frames, 2)."""
        found = []
        for movie in self.project.names:
            paths = sorted((self.project.relion.folder / "Polish" / self.name).rglob(f"{movie}_tracks.star"))
            tables = read_star(paths[0])
            tracks = [table for key, table in tables.items() if key.isdigit()]
            found.append([table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / PIXEL_SIZE_A for table in tracks])
        return np.array(found)

    def true_tracks_px(self) -> NDArray[Any]:
        """Return where the particles were."""
        moving = zip(self.project.motions, self.project.places_px, strict=True)
        return -np.array([motion.shifts_px(places, SHAPE_PX) for motion, places in moving])

    def rms_px(self) -> float:
        """Return how far RELION's tracks are from the truth, over all particles and frames."""
        rest = self.tracks_px() - self.true_tracks_px()
        return float(np.sqrt((rest**2).sum(axis=-1).mean()))

    def correlations(self) -> tuple[float, float]:
        """Return how RELION's tracks correlate with the truth, in x and y."""
        found, truth = self.tracks_px(), self.true_tracks_px()
        x, y = (float(np.corrcoef(found[..., axis].ravel(), truth[..., axis].ravel())[0, 1]) for axis in (0, 1))
        return x, y

    def likeness(self) -> float:
        """Return how the polished images correlate with the particles that were put into the movies, on average."""
        images = read_images(self.project.relion.folder, f"Polish/{self.name}/shiny.star")
        truth = self.project.images.reshape(images.shape)
        return float(
            np.mean([np.corrcoef(one.ravel(), two.ravel())[0, 1] for one, two in zip(images, truth, strict=True)])
        )


def moving_project(
    relion: Relion, motions: list[TrueMotion], *, suffix: str = ".mrcs", gain: NDArray[Any] | None = None
) -> MovingProject:
    """Write movies of simulated particles, their exposures and what polishing needs besides.

    Parameters
    ----------
    relion
        Runs in the folder that becomes the project.
    motions
        One a movie.
    suffix
        ``.mrcs`` or ``.tif``: RELION reads the rows of TIFF files in reversed order.
    gain
        By which RELION has to multiply the movies, in the rows that it reads, or None.
    """
    folder = relion.folder
    rng = np.random.default_rng(7)
    names = [f"mov{number}" for number in range(len(motions))]
    simulated = relion.simulate(
        (OpticsGroup(box_px=_BOX_PX, pixel_size_A=PIXEL_SIZE_A),), n_images=_PER_MICROGRAPH * len(motions)
    )
    tables = read_star(folder / simulated.star)
    images = read_images(folder, simulated.star).reshape(len(motions), _PER_MICROGRAPH, _BOX_PX, _BOX_PX)
    grid = np.stack(np.meshgrid(np.arange(_PER_ROW), np.arange(_PER_MICROGRAPH // _PER_ROW)), -1).reshape(-1, 2)
    places = np.array([52, 60]) + grid * [80, 80] + rng.integers(-4, 5, (len(motions), _PER_MICROGRAPH, 2))
    for folder_name in ("Movies", "Ref", "cryosparc/J1/imported", "cryosparc/J2/motioncorrected"):
        (folder / folder_name).mkdir(parents=True)
    for name, motion, at, of_movie in zip(names, motions, places, images, strict=True):
        frames = _frames(motion, at, of_movie, rng)
        write_movie(folder / f"cryosparc/J1/imported/{name}{suffix}", frames, gain)
        write_trajectories(folder / "cryosparc/J2/motioncorrected", name, motion)
        # cryoSPARC's average has its rows reversed.
        average = frames.mean(axis=0, dtype=np.float32)[::-1]
        with mrcfile.new(folder / f"cryosparc/J2/motioncorrected/{name}_patch_aligned.mrc", average) as file:
            file.voxel_size = PIXEL_SIZE_A
        (folder / f"Movies/{name}{suffix}").symlink_to(f"../cryosparc/J1/imported/{name}{suffix}")
    _write_gain(folder, gain, suffix)
    write_cs(
        folder / "cryosparc/J2/exposures.cs", exposures(names, suffix, "" if gain is None else "J1/imported/gain.mrc")
    )
    _write_particles(folder, tables, names, places)
    for half in (1, 2):
        # Noise, since RELION's postprocess stops where halves agree up to the last shell.
        noisy = simulated.volume + rng.normal(0, 0.3 * simulated.volume.std(), simulated.volume.shape)
        write_volume(folder / f"Ref/half{half}_class001_unfil.mrc", noisy, PIXEL_SIZE_A)
    write_volume(folder / "Ref/mask.mrc", np.ones((_BOX_PX,) * 3), PIXEL_SIZE_A)
    half_map = ("--i", "Ref/half1_class001_unfil.mrc", "--mask", "Ref/mask.mrc", "--angpix", PIXEL_SIZE_A)
    relion.run("relion_postprocess", *half_map, "--o", "Ref/postprocess")
    return MovingProject(relion, motions, places, names, images)


def _frames(
    motion: TrueMotion, places_px: NDArray[Any], images: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Return frames (n_frames, ny, nx) of dark particles, which polishing inverts, in RELION's rows."""
    frames = rng.normal(1.0, 0.002, (N_FRAMES, *SHAPE_PX))
    wide = np.pad(images, ((0, 0), (_BOX_PX // 2,) * 2, (_BOX_PX // 2,) * 2))
    for frame, moved in zip(frames, moved_images(wide, -motion.shifts_px(places_px, SHAPE_PX)), strict=True):
        for (left, top), whole in zip(places_px - _BOX_PX, moved, strict=True):
            top_in, left_in = max(0, -top), max(0, -left)
            part = whole[top_in : SHAPE_PX[0] - top, left_in : SHAPE_PX[1] - left]
            frame[top + top_in : top + top_in + part.shape[0], left + left_in : left + left_in + part.shape[1]] -= part
    return frames


def write_movie(path: Path, frames: NDArray[Any], gain: NDArray[Any] | None) -> None:
    """Write frames in RELION's rows as counts that are to be multiplied by a gain; a TIFF file has them reversed."""
    counts = np.rint(_COUNTS * frames / (1 if gain is None else gain))
    if path.suffix == ".tif":
        write_tiff(path, counts[:, ::-1].astype("u2"))
        return
    with mrcfile.new(path, counts.astype("f4")) as file:
        file.set_image_stack()
        file.voxel_size = PIXEL_SIZE_A


def _write_gain(folder: Path, gain: NDArray[Any] | None, suffix: str) -> None:
    """Write the gain reference as cryoSPARC has it: with the rows of the movie's file."""
    if gain is None:
        return
    stored = gain[::-1] if suffix == ".tif" else gain
    with mrcfile.new(folder / "cryosparc/J1/imported/gain.mrc", stored.astype("f4")):
        pass


def _write_particles(folder: Path, tables: dict[str, Any], names: list[str], places: NDArray[Any]) -> None:
    particles = tables["particles"]
    particles["rlnMicrographName"] = np.repeat(
        [f"MotionCorr/job002/Movies/{name}.mrc" for name in names], places.shape[1]
    )
    particles["rlnCoordinateX"], particles["rlnCoordinateY"] = places.reshape(-1, 2).T.astype(float)
    tables["optics"]["rlnMicrographPixelSize"] = PIXEL_SIZE_A
    tables["optics"]["rlnMicrographOriginalPixelSize"] = PIXEL_SIZE_A
    write_star(folder / "particles.star", tables)


def check_polishing(checks: Checks, relion: Relion) -> None:
    """Polish the particles of cryoSPARC's movies from the output of two commands, in MRC, and in TIFF with a gain."""
    title = (
        "relion_motion_refine --max_iters 0: cryobridge micrographs and cryobridge convert --micrographs --reextract"
    )
    checks.section(title)
    checks.note("Movies with a known motion, and cryoSPARC's trajectories of it by the public specification.")
    rng = np.random.default_rng(11)
    motions = [polynomial_motion(rng), draw_motion(rng, N_FRAMES)]
    gain = rng.uniform(0.7, 1.3, SHAPE_PX)
    for name, suffix, reference in (("MRC", ".mrcs", None), ("TIFF, gain reference", ".tif", gain)):
        folder = relion.folder / name[:4].strip()
        folder.mkdir()
        project = moving_project(Relion(folder), motions, suffix=suffix, gain=reference)
        corrected = folder / "MotionCorr/job020/corrected_micrographs.star"
        made = cb.micrographs(project.exposures, corrected.parent, flip_y=True, amplitude_contrast=0.1)
        checks.equal(f"{name}: warnings", len(made.warnings), 0)
        particles, star = project.write_cryosparc_particles(), folder / "polish.star"
        cb.convert(particles, star, micrographs=corrected, reextract=True, datadir=folder / "cryosparc")
        polished = project.polished_with("two", str(corrected.relative_to(folder)), star.name)
        checks.at_most(f"{name}: particles in each frame, from where they were (rms)", polished.rms_px(), 0.1, "px")
        for axis, found in zip("xy", polished.correlations(), strict=True):
            checks.at_least(f"{name}: correlation of {axis} with the truth", found, 0.999)
        checks.at_least(f"{name}: polished images, correlated with the particles", polished.likeness(), 0.99)
        wrong = project.polished("zero", [_without_motion(folder / file) for file in _metadata(corrected)])
        checks.at_least(f"{name}: without motion, particles from where they were (rms, px)", wrong.rms_px(), 1.0)


STAGES = (check_polishing,)


def _metadata(corrected: Path) -> list[str]:
    return read_star(corrected)["micrographs"]["rlnMicrographMetadata"].tolist()


def _without_motion(path: Path) -> str:
    """Write the metadata with zeros beside, and return their name from the project."""
    tables = read_star(path)
    tables["global_shift"][["rlnMicrographShiftX", "rlnMicrographShiftY"]] = 0.0
    tables["local_motion_model"]["rlnMotionModelCoeff"] = 0.0
    still = path.with_name(f"{path.stem}_still.star")
    write_star(still, tables)
    return str(still.relative_to(path.parents[3]))
