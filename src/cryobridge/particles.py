"""The particle set: what every file becomes at the door.

Frozen dataclasses of parallel arrays, one row a particle. Units are in the names; angles are radians, poses are
matrices and shifts are ångström, whatever the file held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """A text column in which values repeat: each distinct text once, and a code a row.

    Parameters
    ----------
    codes
        (n,) int32, index into ``values``.
    values
        The distinct texts, in the order in which they first appear.
    """

    codes: NDArray[np.int32]
    values: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> str:
        return self.values[int(self.codes[row])]

    def take(self, rows: NDArray[np.int64] | slice) -> Labels:
        """Return the labels of the chosen rows; ``values`` is kept whole."""
        return Labels(self.codes[rows], self.values)

    def to_numpy(self) -> NDArray[np.object_]:
        """Return the texts, one a row, as an object array (n,)."""
        return np.array(self.values, dtype=object)[self.codes]


@dataclass(frozen=True)
class ImageRefs:
    """Where each particle's image is.

    Parameters
    ----------
    path
        Stack file as the metadata names it, with cryoSPARC's leading ``>`` kept.
    index
        (n,) int64, 0-based slice in that stack.
    """

    path: Labels
    index: NDArray[np.int64]


@dataclass(frozen=True)
class Optics:
    """One row an optics group; arrays are (g,) and NaN (0 for the box) where the file does not say.

    Parameters
    ----------
    group_id
        The number that the file uses: rlnOpticsGroup, or cryoSPARC's exp_group_id.
    name
        The group's name, or its number as text.
    """

    group_id: NDArray[np.int64]
    name: tuple[str, ...]
    voltage_kV: Floats
    spherical_aberration_mm: Floats
    amplitude_contrast: Floats
    pixel_size_A: Floats
    box_px: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.group_id)


@dataclass(frozen=True)
class CTF:
    """Contrast transfer of each particle; arrays are (n,).

    Defocus is positive for underfocus. ``phase_shift_rad``, ``bfactor_A2`` and ``scale`` are None where the file
    has no such column.
    """

    defocus_u_A: Floats
    defocus_v_A: Floats
    defocus_angle_rad: Floats
    phase_shift_rad: Floats | None = None
    bfactor_A2: Floats | None = None
    scale: Floats | None = None


@dataclass(frozen=True)
class Poses:
    """Orientation and in-plane shift of each particle.

    Parameters
    ----------
    matrix
        (n, 3, 3) RELION's matrix A: it takes the reference to the view.
    shift_A
        (n, 2) x, y in ångström; subtracted from the image's centre to find the particle's. None where absent.
    source
        The columns that it was read from, such as ``alignments3D``.
    """

    matrix: Floats
    shift_A: Floats | None
    source: str


@dataclass(frozen=True)
class Locations:
    """Where each particle lies on its micrograph.

    Parameters
    ----------
    micrograph
        Micrograph file as the metadata names it.
    coordinate_px
        (n, 2) x, y in pixels of the micrograph file; first stored pixel is 0.
    shape_px
        (n, 2) ny, nx of the micrograph, or None where the file does not say.
    """

    micrograph: Labels
    coordinate_px: Floats
    shape_px: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ParticleSet:
    """Particles and what is known of them; a part that the file lacks is None.

    Parameters
    ----------
    n_rows
        Number of particles.
    source
        The metadata file.
    uid
        (n,) uint64, the identity of a cryoSPARC row.
    optics_index
        (n,) int32, row of ``optics`` for each particle.
    half_set
        (n,) int64, 1 or 2.
    class_number
        (n,) int64, counted from 1.
    notes
        What was assumed, repaired or is odd, in sentences for the user.
    """

    n_rows: int
    source: Path
    uid: NDArray[np.uint64] | None = None
    images: ImageRefs | None = None
    optics: Optics | None = None
    optics_index: NDArray[np.int32] | None = None
    ctf: CTF | None = None
    poses: Poses | None = None
    locations: Locations | None = None
    half_set: NDArray[np.int64] | None = None
    class_number: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return self.n_rows

    def per_particle(self, name: str) -> Floats:
        """Return an optics value such as ``"voltage_kV"`` for each particle, (n,).

        Raises
        ------
        ValueError
            If the set has no optics.
        """
        if self.optics is None or self.optics_index is None:
            raise ValueError("this particle set has no optics")
        values: Floats = getattr(self.optics, name)[self.optics_index]
        return values
