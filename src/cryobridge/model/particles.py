"""The particle set: what every file becomes at the door.

Frozen dataclasses of parallel arrays, one row a particle. Units are in the names; angles are radians, poses are
matrices and shifts are ångström, whatever the file held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.model.fields import Field
    from cryobridge.report import Message

Floats: TypeAlias = NDArray[np.float64]

_SHOWN_VALUES = 3


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

    def __repr__(self) -> str:
        first = ", ".join(repr(value) for value in self.values[:_SHOWN_VALUES])
        more = ", …" if len(self.values) > _SHOWN_VALUES else ""
        return f"Labels({len(self):,} texts, {len(self.values):,} distinct: {first}{more})"

    def take(self, rows: NDArray[np.int64] | slice) -> Labels:
        """Return the labels of the chosen rows; ``values`` is kept whole."""
        return Labels(self.codes[rows], self.values)

    def without_unused(self) -> Labels:
        """Return the same labels without the texts that no row has, which a choice of rows leaves behind."""
        is_used = np.bincount(self.codes, minlength=len(self.values)) > 0
        if is_used.all():
            return self
        new_code = np.cumsum(is_used, dtype=np.int32) - 1
        return Labels(new_code[self.codes], tuple(self.values[code] for code in np.flatnonzero(is_used)))

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
class Aberrations:
    """What a microscope adds to defocus, astigmatism and spherical aberration; one row an optics group.

    Phases are told with k = (kx, ky) in 1/Å, λ in Å and φ the polar angle of k.

    Parameters
    ----------
    beam_tilt_mrad
        (g, 2) x, y; phase -2π λ² Cs k² (t·k).
    trefoil_A
        (g, 2) coefficients of (2π/3) λ² k³ sin 3φ and cos 3φ.
    tetrafoil_A
        (g, 4) coefficients of -2π λ³ k⁴ cos 2φ, 2π λ³ k⁴ sin 2φ, (π/2) λ³ k⁴ cos 4φ and -(π/2) λ³ k⁴ sin 4φ.
    magnification
        (g, 2, 2) matrix that takes nominal frequencies to true ones; the identity for none.
    """

    beam_tilt_mrad: Floats
    trefoil_A: Floats
    tetrafoil_A: Floats
    magnification: Floats

    def take(self, groups: NDArray[np.integer[Any]]) -> Aberrations:
        """Return those of the chosen groups."""
        return Aberrations(*(getattr(self, item.name)[groups] for item in fields(self)))


@dataclass(frozen=True)
class Optics:
    """One row an optics group; arrays are (g,) and NaN (0 for the box) where the file does not say.

    Parameters
    ----------
    group_id
        The number that the file uses: rlnOpticsGroup, or cryoSPARC's exp_group_id.
    name
        The group's name, or its number as text.
    micrograph_pixel_size_A, movie_pixel_size_A
        Of the micrographs that the particles come from, and of their movies; None where the file does not say.
    aberrations
        None where the file does not say.
    """

    group_id: NDArray[np.int64]
    name: tuple[str, ...]
    voltage_kV: Floats
    spherical_aberration_mm: Floats
    amplitude_contrast: Floats
    pixel_size_A: Floats
    box_px: NDArray[np.int64]
    micrograph_pixel_size_A: Floats | None = None
    movie_pixel_size_A: Floats | None = None
    aberrations: Aberrations | None = None

    def __len__(self) -> int:
        return len(self.group_id)

    def take(self, groups: NDArray[np.integer[Any]]) -> Optics:
        """Return the chosen groups."""
        chosen: dict[str, Any] = {
            item.name: None if getattr(self, item.name) is None else getattr(self, item.name)[groups]
            for item in fields(self)
            if item.name not in {"name", "aberrations"}
        }
        names = tuple(self.name[int(group)] for group in groups)
        aberrations = None if self.aberrations is None else self.aberrations.take(groups)
        return Optics(name=names, aberrations=aberrations, **chosen)


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


def ctf_of(values: Mapping[str, Any]) -> CTF | None:
    """Return the contrast transfer of values by their names; None where one is absent that can't be."""
    if any(values[item.name] is None for item in fields(CTF) if item.default is MISSING):
        return None
    return CTF(**values)


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
    is_2d
        Whether only the angle in the plane was looked for, as in 2D classification.
    """

    matrix: Floats
    shift_A: Floats | None
    source: str
    is_2d: bool = False


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
    image_frame_px
        (n, 2) the coordinates in the frame in which the images were cut out; None where it is the same.
    """

    micrograph: Labels
    coordinate_px: Floats
    shape_px: NDArray[np.int64] | None = None
    image_frame_px: Floats | None = None


@dataclass(frozen=True)
class Helix:
    """Segments of filaments; arrays are (n,).

    Parameters
    ----------
    tube
        The filament on its micrograph, from 1; 0 for a particle that is none.
    track_length_A
        Where along the filament the segment is, from its first one; None where the file does not say.
    uid
        cryoSPARC's identity of the filament, or None.
    """

    tube: NDArray[np.int64]
    track_length_A: Floats | None = None
    uid: NDArray[np.uint64] | None = None


class ColumnSource(Protocol):
    """What columns can be read from by their names."""

    def read(self, names: Iterable[str]) -> Mapping[str, Any]:
        """Return the named columns: arrays (n, …) or `Labels`."""


@dataclass(frozen=True)
class ExtraColumns:
    """Columns that the model has no place for, to be carried to a file of the same program.

    Parameters
    ----------
    program
        Whose names they are.
    names
        The columns of the particles.
    source
        Where they are read from when they are needed.
    rows
        (n,) row in ``source`` of each particle; None where they are the same.
    optics
        Columns of the optics groups by name, (g,) each.
    of_file
        All columns that the file has, also those that the model holds.
    """

    program: Literal["cryosparc", "relion"]
    names: tuple[str, ...]
    source: ColumnSource
    rows: NDArray[np.int64] | None = None
    optics: Mapping[str, Any] = field(default_factory=dict)
    of_file: frozenset[str] = frozenset()

    def read(self) -> dict[str, Any]:
        """Read all of them: arrays (n, …) or `Labels`."""
        found = self.source.read(self.names)
        return {name: found[name] if self.rows is None else _take(found[name], self.rows) for name in self.names}

    def take(self, rows: NDArray[np.int64]) -> ExtraColumns:
        """Return those of the chosen particles."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])


@dataclass(frozen=True, eq=False)
class Origin:
    """The files that particles were read from, and which of their rows they are.

    Parameters
    ----------
    files
        What `cryobridge.formats.open.open_particles` returned.
    rows
        (n,) row of the files' table for each particle; None where they are the same.
    """

    files: Any
    rows: NDArray[np.int64] | None = None

    def take(self, rows: NDArray[np.int64]) -> Origin:
        """Return that of the chosen particles."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])


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
    class_posterior
        (n,) the probability of that class.
    pick_score
        (n,) what the picker gave.
    helix
        What is known of filaments.
    columns
        Further columns by name, (n, …) arrays or `Labels`: labels of one's own, and those that are called
        ``columns.NAME`` in `cryobridge.model.fields`.
    extra
        Columns of the file that the model does not know, for a file of the same program.
    messages
        What was assumed, repaired or left out by the reader.

    Attributes
    ----------
    origin
        The files that they were read from; None for particles that were changed or made otherwise.
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
    class_posterior: Floats | None = None
    pick_score: Floats | None = None
    helix: Helix | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    extra: ExtraColumns | None = None
    messages: tuple[Message, ...] = ()
    # No field: what `dataclasses.replace` makes is no longer what the files hold.
    origin: ClassVar[Origin | None] = None

    def __len__(self) -> int:
        return self.n_rows

    def get(self, name: str) -> Any:
        """Return a quantity by its name in `cryobridge.model.fields`, such as ``"ctf.scale"``; None where absent.

        Those of optics groups are (g, …), all others (n, …).
        """
        found: Any = self
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else getattr(found, part)
            if found is None:
                return None
        return found

    def is_modelled(self, item: Field) -> bool:
        """Whether the set holds a quantity, if its file has it; columns of the others are among `extra`."""
        if not (item.part or item.is_coded):
            return True
        # None stands for aberrations that are all zero, too.
        return self.get("optics" if item.part == "optics.aberrations" else item.name) is not None

    def with_origin(self, origin: Origin | None) -> ParticleSet:
        """Return the same particles with a link to where they were read from."""
        linked = replace(self)
        object.__setattr__(linked, "origin", origin)
        return linked

    def per_particle(self, name: str) -> Floats:
        """Return an optics value such as ``"voltage_kV"`` for each particle, (n,).

        Raises
        ------
        ValueError
            If the set has no optics, or they have no such value.
        """
        if self.optics is None or self.optics_index is None:
            raise ValueError("this particle set has no optics")
        values = getattr(self.optics, name, None)
        if not isinstance(values, np.ndarray):
            known = [
                item.name for item in fields(self.optics) if isinstance(getattr(self.optics, item.name), np.ndarray)
            ]
            raise ValueError(f"the optics of this particle set have no {name!r}; they have {', '.join(known)}")
        return values[self.optics_index]

    def take(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> ParticleSet:
        """Return the chosen particles, in the order asked for; the optics are kept whole.

        Parameters
        ----------
        rows
            Row numbers from 0, or (n,) whether a particle is chosen.

        Raises
        ------
        IndexError
            If there is no such row, or not one truth value a particle.
        """
        numbers = self._row_numbers(np.asarray(rows))
        parts = {item.name: getattr(self, item.name) for item in fields(self)}
        kept: dict[str, Any] = {name: parts[name] for name in ("source", "optics", "messages")}
        chosen: dict[str, Any] = {
            name: None if part is None else _take(part, numbers)
            for name, part in parts.items()
            if name not in kept and name != "n_rows"
        }
        taken = ParticleSet(n_rows=len(numbers), **kept, **chosen)
        return taken.with_origin(None if self.origin is None else self.origin.take(numbers))

    def _row_numbers(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        if rows.dtype == bool and rows.shape == (self.n_rows,):
            return np.flatnonzero(rows)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise IndexError(f"{rows.dtype} of shape {rows.shape} chooses no rows of {self.n_rows:,} particles")
        if rows.size and not 0 <= rows.min() <= rows.max() < self.n_rows:
            raise IndexError(f"rows from {rows.min():,} to {rows.max():,} are asked for; there are {self.n_rows:,}")
        return rows.astype(np.int64, copy=False)

    def __repr__(self) -> str:
        absent = {"n_rows", "source", "messages"}
        parts = [item.name for item in fields(self) if item.name not in absent and getattr(self, item.name) is not None]
        return f"ParticleSet({self.n_rows:,} particles of {self.source.name!r}: {', '.join(parts)})"


_Part = TypeVar("_Part")


def _take(part: _Part, rows: NDArray[np.int64]) -> _Part:
    """Return the chosen rows of an array, of labels, or of a record of them."""
    taken: Any
    if isinstance(part, np.ndarray):
        taken = part[rows]
    elif isinstance(part, Labels | ExtraColumns):
        taken = part.take(rows)
    elif isinstance(part, Mapping):
        taken = {name: _take(values, rows) for name, values in part.items()}
    else:
        values = {item.name: getattr(part, item.name) for item in fields(part)}  # type: ignore[arg-type]
        parts = {
            name: _take(value, rows) if isinstance(value, np.ndarray | Labels) else value
            for name, value in values.items()
        }
        taken = type(part)(**parts)
    return taken  # type: ignore[no-any-return]
