"""What is true of the simulated project: drawn first, then recorded in images and written into both programs' files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from cryobridge.demo.motion import TrueMotion, draw_motion
from cryobridge.demo.physics import Microscope, Molecule, demo_molecule
from cryobridge.errors import UsageError
from cryobridge.model.geometry import fractions_to_px, px_to_fractions, rotvec_to_matrix, shift_px_to_A
from cryobridge.model.particles import CTF

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.model.particles import Floats

PIXEL_SIZE_A = 1.5
BOX_PX = 96
# ny, nx: not square, so that exchanged axes show.
MICROGRAPH_SHAPE_PX = (768, 1024)
# So few keep the movies small, and RELION polishes them.
N_FRAMES = 4

# The molecule is some 70 pixels across: neighbours touch at most.
_NEAREST_PX = 0.7 * BOX_PX
_TRIES = 20_000
_SHIFT_PX = 1.5
_LARGEST_SHIFT_PX = 4.0
# How many of the particles belong to classes 1, 2, ... of a 2D classification, and which of these one would go on with.
CLASS_SHARES = (0.4, 0.3, 0.2, 0.1)
GOOD_CLASSES = (1, 2)


@dataclass(frozen=True)
class TrueMicrographs:
    """The micrographs of the project; arrays are (m,).

    Parameters
    ----------
    uid
        uint64, cryoSPARC's identity of the exposure.
    name
        Stem that the names in both programs share.
    ctf
        Mean defocus of each micrograph, in the frame of cryoSPARC's files.
    motion
        Of each movie: where the picks are is where particles were in its first frame.
    """

    uid: NDArray[np.uint64]
    name: tuple[str, ...]
    ctf: CTF
    motion: tuple[TrueMotion, ...]

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True)
class TrueParticles:
    """The particles of the project, in the row order of the main `.cs` file; arrays are (n, …).

    All but ``relion_coordinate_px`` is in the frame of cryoSPARC's files. A particle's centre lies at
    ``pick_px - shift_px`` in its micrograph, hence at ``box / 2 - shift_px`` in its image.

    Parameters
    ----------
    uid
        uint64, over the full 64 bits.
    micrograph
        int64, row of `TrueMicrographs`.
    stack_index
        int64, 0-based slice in the micrograph's stack.
    pick_px
        (n, 2) x, y of the pick in the micrograph, whole pixels.
    fraction
        (n, 2) float32, the same as cryoSPARC writes it.
    relion_coordinate_px
        (n, 2) x, y in RELION's micrographs, whose rows are reversed: ``y = ny - ny * fy``. The pixel itself has
        the row ``ny - 1 - y``, one less; programs do not agree on which of the two is meant.
    pose_rotvec
        (n, 3) float32, radians.
    matrix
        (n, 3, 3) RELION's matrix A of that pose.
    shift_px
        (n, 2) float32 x, y.
    shift_A
        (n, 2) x, y.
    ctf
        Defocus of each particle.
    half_set
        int64, 1 or 2.
    class_number
        int64 from 1, the class of RELION's 2D classification in which it ends.
    """

    uid: NDArray[np.uint64]
    micrograph: NDArray[np.int64]
    stack_index: NDArray[np.int64]
    pick_px: NDArray[np.int64]
    fraction: NDArray[np.float32]
    relion_coordinate_px: Floats
    pose_rotvec: NDArray[np.float32]
    matrix: Floats
    shift_px: NDArray[np.float32]
    shift_A: Floats
    ctf: CTF
    half_set: NDArray[np.int64]
    class_number: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.uid)

    @property
    def good_uid(self) -> NDArray[np.uint64]:
        """The uids of the particles in the classes that one would go on with, `GOOD_CLASSES`, in their order."""
        return self.uid[np.isin(self.class_number, GOOD_CLASSES)]


@dataclass(frozen=True)
class Truth:
    """What is true of the project."""

    molecule: Molecule
    microscope: Microscope
    micrographs: TrueMicrographs
    particles: TrueParticles


def draw_truth(n_micrographs: int, particles_per_micrograph: int, seed: int) -> Truth:
    """Draw a project: picks that keep their distance, poses over all orientations, small shifts, defocus.

    Values that a file holds as float32 are rounded to that here, so that the images agree with the files.

    Raises
    ------
    UsageError
        If so many particles do not fit on a micrograph.
    """
    rng = np.random.default_rng(seed)
    micrographs = _draw_micrographs(rng, n_micrographs, _draw_motion(seed, n_micrographs))
    pick_px = np.concatenate([_scatter(rng, particles_per_micrograph) for _ in range(n_micrographs)])
    particles = _draw_particles(rng, micrographs, pick_px, particles_per_micrograph)
    return Truth(demo_molecule(), Microscope(300.0, 2.7, 0.1), micrographs, particles)


def _draw_motion(seed: int, n: int) -> tuple[TrueMotion, ...]:
    rng = np.random.default_rng([seed, 0, 1])  # of its own, so that all else is as it would be without
    return tuple(draw_motion(rng, N_FRAMES) for _ in range(n))


def _draw_micrographs(rng: np.random.Generator, n: int, motion: tuple[TrueMotion, ...]) -> TrueMicrographs:
    # Spread over the range and not just drawn from it, so that a small project has low and high defocus.
    mean_A = rng.permutation(np.linspace(8000.0, 20000.0, n) if n > 1 else np.array([14000.0]))
    half_astigmatism_A = rng.uniform(50.0, 250.0, n)
    ctf = CTF(mean_A + half_astigmatism_A, mean_A - half_astigmatism_A, rng.uniform(-np.pi / 2, np.pi / 2, n))
    names = tuple(f"grid2_{number:04d}" for number in range(1, n + 1))
    return TrueMicrographs(_draw_uids(rng, n), names, ctf, motion)


def _draw_particles(
    rng: np.random.Generator, micrographs: TrueMicrographs, pick_px: NDArray[np.int64], per_micrograph: int
) -> TrueParticles:
    n = len(pick_px)
    micrograph = np.repeat(np.arange(len(micrographs)), per_micrograph)
    fraction = px_to_fractions(pick_px, np.array(MICROGRAPH_SHAPE_PX)).astype(np.float32)
    # A random direction in four dimensions is a quaternion of a random rotation.
    pose = Rotation.from_quat(rng.standard_normal((n, 4))).as_rotvec().astype(np.float32)
    shift_px = np.clip(rng.normal(0.0, _SHIFT_PX, (n, 2)), -_LARGEST_SHIFT_PX, _LARGEST_SHIFT_PX).astype(np.float32)
    height_A = rng.normal(0.0, 150.0, n)
    of_micrograph = micrographs.ctf
    ctf = CTF(
        _float32(of_micrograph.defocus_u_A[micrograph] + height_A),
        _float32(of_micrograph.defocus_v_A[micrograph] + height_A),
        _float32(of_micrograph.defocus_angle_rad[micrograph]),
    )
    return TrueParticles(
        uid=_draw_uids(rng, n),
        micrograph=micrograph,
        stack_index=np.tile(np.arange(per_micrograph), len(micrographs)),
        pick_px=pick_px,
        fraction=fraction,
        relion_coordinate_px=fractions_to_px(fraction, np.array(MICROGRAPH_SHAPE_PX), flip_y=True),
        pose_rotvec=pose,
        matrix=rotvec_to_matrix(pose),
        shift_px=shift_px,
        shift_A=shift_px_to_A(shift_px, PIXEL_SIZE_A),
        ctf=ctf,
        half_set=rng.integers(1, 3, n),
        class_number=rng.choice(len(CLASS_SHARES), n, p=CLASS_SHARES) + 1,
    )


def _draw_uids(rng: np.random.Generator, n: int) -> NDArray[np.uint64]:
    return rng.integers(0, np.iinfo(np.uint64).max, n, dtype=np.uint64, endpoint=True)


def _float32(values: Floats) -> Floats:
    """Round to what a file holds."""
    return values.astype(np.float32).astype(np.float64)


def _scatter(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Return n picks, (n, 2) x, y: their boxes lie within the micrograph and none is too near to another."""
    size_xy = np.array(MICROGRAPH_SHAPE_PX[::-1])
    candidates = rng.integers(BOX_PX // 2, size_xy - BOX_PX // 2, (_TRIES, 2), endpoint=True)
    picks = np.empty((n, 2), np.int64)
    n_found = 0
    for candidate in candidates:
        distance_px = np.hypot(*(picks[:n_found] - candidate).T)
        if np.all(distance_px >= _NEAREST_PX):
            picks[n_found] = candidate
            n_found += 1
            if n_found == n:
                return picks
    raise UsageError(
        f"{n} particles do not fit on a micrograph of {size_xy[0]} × {size_xy[1]} pixels",
        hint=f"Ask for some {4 * n_found // 5} particles per micrograph, and for more micrographs.",
    )
