"""The particle set: what every file becomes when it is read.

Frozen dataclasses of parallel arrays, one row a particle. Units are in the names; angles are radians, poses are
matrices and shifts are ångström, whatever the file held.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.model.fields import FIELDS, QUANTITIES, Field, numbered
from cryobridge.model.fields import field as field_of
from cryobridge.model.geometry import turn_direction_rad, turn_harmonics, turn_matrix, turn_vectors
from cryobridge.model.results import in_order, of_kind, other_length
from cryobridge.report import counted

if TYPE_CHECKING:
    from pathlib import Path

    import pandas

    from cryobridge.report import Message

Floats: TypeAlias = NDArray[np.float64]

_SHOWN_VALUES = 3
_LEAST_PIXEL_SIZE_A, _MOST_PIXEL_SIZE_A = 1e-3, 1e3


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

    @classmethod
    def of(cls, texts: Iterable[Any]) -> Labels:
        """Return labels of texts, or of what has a text.

        Examples
        --------
        >>> Labels.of(["a.mrc", "b.mrc", "a.mrc"])
        Labels(3 texts, 2 distinct: 'a.mrc', 'b.mrc')
        """
        place: dict[str, int] = {}
        codes = np.array([place.setdefault(str(text), len(place)) for text in texts], np.int32)
        return cls(codes, tuple(place))

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

    def renamed(self, texts: Sequence[str]) -> Labels:
        """Return labels with other texts, one for each of ``values``; texts that become equal are one.

        Examples
        --------
        >>> Labels.of(["a.mrc", "b.mrc", "a.mrc"]).renamed(["c.mrc", "c.mrc"])
        Labels(3 texts, 1 distinct: 'c.mrc')
        """
        place: dict[str, int] = {}
        codes = np.array([place.setdefault(text, len(place)) for text in texts], np.int32)
        return Labels(codes[self.codes], tuple(place))

    def to_numpy(self) -> NDArray[np.object_]:
        """Return the texts, one a row, as an object array (n,)."""
        return np.array(self.values, dtype=object)[self.codes]


# Counts in headers of MRC files have 31 bits: no image has this number or a larger one, counted from 0.
IMAGES_IN_A_STACK = 2**31 - 1


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

    Phases are given with k = (kx, ky) in 1/Å, λ in Å and φ = atan2(ky, kx), the polar angle of k. Even ones are added
    to RELION's γ = -π λ D k² + (π/2) Cs λ³ k⁴ - …, of which the CTF is -sin γ; by odd ones χ the transform of a
    projection is multiplied as exp(iχ), to be that of the image.

    Parameters
    ----------
    beam_tilt_A
        (g, 2) x, y: Cs × sin(tilt), of the phase -2π λ² k² (t·k).
    trefoil_A
        (g, 2) coefficients of (2π/3) λ² k³ cos 3φ and sin 3φ.
    tetrafoil_A
        (g, 4) coefficients of 2π λ³ k⁴ cos 2φ, 2π λ³ k⁴ sin 2φ, (π/2) λ³ k⁴ cos 4φ and (π/2) λ³ k⁴ sin 4φ.
    magnification
        (g, 2, 2) matrix that takes nominal frequencies to true ones; the identity for none.
    lower_even
        (g, 5) coefficients of 1, k², k⁴, k² cos 2φ and k² sin 2φ in rad Åⁿ: what could be a phase shift, defocus,
        spherical aberration and astigmatism as well, which RELION refines in both ways.
    higher_rad
        (g,) the largest coefficient of an order that only RELION has (of k⁵ and above).
    """

    beam_tilt_A: Floats
    trefoil_A: Floats
    tetrafoil_A: Floats
    magnification: Floats
    lower_even: Floats
    higher_rad: Floats

    @classmethod
    def none(cls, n_groups: int) -> Aberrations:
        """Return those of microscopes that have none."""
        tilt, trefoil, tetrafoil, lower = (np.zeros((n_groups, width)) for width in (2, 2, 4, 5))
        return cls(tilt, trefoil, tetrafoil, np.tile(np.eye(2), (n_groups, 1, 1)), lower, np.zeros(n_groups))

    @property
    def is_none(self) -> bool:
        """Whether nothing is added."""
        none = Aberrations.none(len(self.higher_rad))
        return all(np.array_equal(getattr(self, item.name), getattr(none, item.name)) for item in fields(self))

    def take(self, groups: NDArray[np.integer[Any]]) -> Aberrations:
        """Return those of the chosen groups."""
        return Aberrations(*(getattr(self, item.name)[groups] for item in fields(self)))

    def turned(self, turn: NDArray[Any]) -> Aberrations:
        """Return those of images that lie otherwise (see `cryobridge.model.geometry.turn_matrix`)."""
        of_two, of_four = self.tetrafoil_A[:, :2], self.tetrafoil_A[:, 2:]
        lower = [self.lower_even[:, :3], turn_harmonics(self.lower_even[:, 3:], turn, 2)]
        return Aberrations(
            turn_vectors(self.beam_tilt_A, turn),
            turn_harmonics(self.trefoil_A, turn, 3),
            np.hstack([turn_harmonics(of_two, turn, 2), turn_harmonics(of_four, turn, 4)]),
            turn @ self.magnification @ turn.T,
            np.hstack(lower),
            self.higher_rad,
        )


@dataclass(frozen=True)
class Optics:
    """One row an optics group; arrays are (g,) and NaN (0 for the box) where the file lacks it.

    Parameters
    ----------
    group_id
        The number that the file uses: rlnOpticsGroup, or cryoSPARC's exp_group_id.
    name
        The group's name, or its number as text.
    micrograph_pixel_size_A, movie_pixel_size_A
        Of the micrographs that the particles come from, and of their movies; None where the file lacks it.
    aberrations
        None where the file lacks it.
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
    has no such column. ``shift_A``, (n, 2) x, y, is how far odd aberrations move the image, None for not at all: it
    is subtracted from the shift of the pose for programs that have no column for it.
    """

    defocus_u_A: Floats
    defocus_v_A: Floats
    defocus_angle_rad: Floats
    phase_shift_rad: Floats | None = None
    bfactor_A2: Floats | None = None
    scale: Floats | None = None
    shift_A: Floats | None = None

    def take(self, rows: NDArray[np.int64]) -> CTF:
        """Return that of the chosen particles."""
        return take_rows(self, rows)

    def turned(self, turn: NDArray[Any]) -> CTF:
        """Return that of images that lie otherwise (see `cryobridge.model.geometry.turn_matrix`)."""
        shift_A = None if self.shift_A is None else turn_vectors(self.shift_A, turn)
        angle_rad = turn_direction_rad(self.defocus_angle_rad, turn)
        return replace(self, defocus_angle_rad=angle_rad, shift_A=shift_A)


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

    def turned(self, turn: NDArray[Any]) -> Poses:
        """Return those of images that lie otherwise; of 2D classes, where mirrored, onto averages that are so too.

        See `cryobridge.model.geometry.turn_matrix`.
        """
        matrix = turn_matrix(self.matrix, turn)
        if self.is_2d and np.linalg.det(turn) < 0:  # no view from behind: the average is mirrored
            matrix = matrix * np.array([1.0, -1.0, -1.0])
        shift_A = None if self.shift_A is None else turn_vectors(self.shift_A, turn)
        return replace(self, matrix=matrix, shift_A=shift_A)


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
        (n, 2) ny, nx of the micrograph, or None where the file lacks it.
    image_frame_px
        (n, 2) the coordinates in the frame in which the images were cut out; None where it is the same.
    micrograph_uid
        (n,) cryoSPARC's identity of the micrograph, where it was matched with cryoSPARC's; else None.
    """

    micrograph: Labels
    coordinate_px: Floats
    shape_px: NDArray[np.int64] | None = None
    image_frame_px: Floats | None = None
    micrograph_uid: NDArray[np.uint64] | None = None


@dataclass(frozen=True)
class Helix:
    """Segments of filaments; arrays are (n,).

    Parameters
    ----------
    tube
        The filament on its micrograph, from 1; 0 for a particle that is none.
    track_length_A
        Where along the filament the segment is, from its first one; None where the file lacks it.
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

    def read(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Read the named ones, or all: arrays (n, …) or `Labels`."""
        names = self.names if names is None else tuple(names)
        found = self.source.read(names)
        return {name: found[name] if self.rows is None else take_rows(found[name], self.rows) for name in names}

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
    results
        Quantities that the particles were given since (see `ParticleSet.with_columns`), by their names in
        `cryobridge.model.fields`; the set holds them.
    """

    files: Any
    rows: NDArray[np.int64] | None = None
    results: tuple[str, ...] = ()

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
    latent
        (n, d) latent coordinates: what 3D Variability, or a method of one's own, says of each particle.
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
        The files that they were read from; None for particles that were changed, but for results that they were given,
        or made otherwise.
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
    latent: Floats | None = None
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
        holders = {"optics.aberrations": "optics", "ctf.shift_A": "ctf"}
        return self.get(holders.get(item.part, holders.get(item.name, item.name))) is not None

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
        numbers = self.row_numbers(np.asarray(rows))
        parts = {item.name: getattr(self, item.name) for item in fields(self)}
        kept: dict[str, Any] = {name: parts[name] for name in ("source", "optics", "messages")}
        chosen: dict[str, Any] = {
            name: None if part is None else take_rows(part, numbers)
            for name, part in parts.items()
            if name not in kept and name != "n_rows"
        }
        taken = ParticleSet(n_rows=len(numbers), **kept, **chosen)
        return taken.with_origin(None if self.origin is None else self.origin.take(numbers))

    def row_numbers(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers, (m,), of chosen rows: of numbers, and of one truth value a particle; raises as `take`."""
        if rows.dtype == bool and rows.shape == (self.n_rows,):
            return np.flatnonzero(rows)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise IndexError(
                f"{rows.dtype} of shape {rows.shape} chooses no rows of {counted(self.n_rows, 'particle')}"
            )
        if rows.size and not 0 <= rows.min() <= rows.max() < self.n_rows:
            raise IndexError(f"rows from {rows.min():,} to {rows.max():,} are asked for; there are {self.n_rows:,}")
        return rows.astype(np.int64, copy=False)

    def __add__(self, other: ParticleSet) -> ParticleSet:
        """Return both as one set (see `cryobridge.model.concatenate.concatenate`)."""
        from cryobridge.model.concatenate import concatenate

        return concatenate([self, other]) if isinstance(other, ParticleSet) else NotImplemented

    def mirrored_y(self) -> ParticleSet:
        """Return the particles of images whose rows are reversed (see `turned`)."""
        return self.turned(np.diag([1, -1]))

    def turned(self, turn: NDArray[Any]) -> ParticleSet:
        """Return the particles of images that lie otherwise: their poses, shifts, CTF and aberrations.

        The map keeps its hand. Images and coordinates are not touched.

        Parameters
        ----------
        turn
            (2, 2) what takes x, y of an image to those of the other (see `cryobridge.model.geometry.turn_matrix`).
        """
        optics = self.optics
        if optics is not None and optics.aberrations is not None:
            optics = replace(optics, aberrations=optics.aberrations.turned(turn))
        poses = None if self.poses is None else self.poses.turned(turn)
        ctf = None if self.ctf is None else self.ctf.turned(turn)
        return replace(self, poses=poses, ctf=ctf, optics=optics)

    def replace(self, **parts: Any) -> ParticleSet:
        """Return the set with other parts, such as ``poses=None``.

        Parameters
        ----------
        parts
            By name of the field.

        Raises
        ------
        UsageError
            If there is no such part, or it has not one row a particle.

        Examples
        --------
        >>> from pathlib import Path
        >>> ParticleSet(2, Path("a.star"), half_set=np.array([1, 2])).replace(half_set=None)
        ParticleSet(2 particles of 'a.star')
        """
        known = [item.name for item in fields(self) if item.name != "n_rows"]
        for name, part in parts.items():
            if name not in known:
                raise UsageError(f"a particle set has no {name}", option=name, hint=f"It has {', '.join(known)}.")
            if isinstance(part, np.ndarray | Labels) and len(part) != self.n_rows:
                raise other_length(name, len(part), self.n_rows)
        return replace(self, **parts)

    @property
    def cluster(self) -> NDArray[np.int64] | None:
        """(n,) the class of each particle counted from 0, as labels of clusters are; -1 for none."""
        return None if self.class_number is None else np.maximum(self.class_number - 1, -1)

    def with_columns(
        self,
        *,
        latent: Any = None,
        cluster: Any = None,
        uid: Any = None,
        row: Any = None,
        unmatched: Literal["error", "drop"] = "error",
        **columns: Any,
    ) -> ParticleSet:
        """Return the set with results or labels of one's own, which RELION's and cryoSPARC's files carry along.

        The values are lists, arrays or torch tensors on any device. Those of some particles, in another order, as a
        DataLoader gives them, come with ``uid`` or ``row``. Without, there is one for each particle, in the order of
        the set.

        Parameters
        ----------
        latent
            (m, d) latent coordinates: ``cryobridgeLatent1`` … in a STAR file, ``components_mode_0`` … in a `.cs` file.
            They take the place of all those that the set has.
        cluster
            (m,) labels counted from 0. They become the class: label + 1 in a STAR file, which counts from 1, the label
            in a `.cs` file, with probability 1.
        uid
            (m,) cryoSPARC's identity of the particles that the values belong to, as uint64 or the same bits as int64.
        row
            (m,) their rows in this set, counted from 0.
        unmatched
            What becomes of particles without a result: those that ``uid`` or ``row`` don't name, and those whose latent
            coordinates are no finite numbers or whose label is negative. ``"error"``, or ``"drop"`` to leave them out.
        columns
            (m,) values by name. ``class_number`` and ``half_set`` (from 1), ``class_posterior`` and ``pick_score`` go
            where each program has them; any other name becomes a column of its own: that name in a STAR file,
            ``labels/NAME`` in a `.cs` file unless it has a group.

        Returns
        -------
        ParticleSet
            In the order of this set, whatever that of the values is.

        Raises
        ------
        UsageError
            If there is not one value a particle, particles are named twice or are not in the set, or the name is no
            name of a column.
        MissingDataError
            If particles have no result, and ``unmatched`` is ``"error"``; or none has one.

        Examples
        --------
        >>> from pathlib import Path
        >>> particles = ParticleSet(3, Path("a.star"))
        >>> labelled = particles.with_columns(class_number=[1, 2, 1], score=[0.5, 0.25, 1.0])
        >>> labelled.class_number.tolist(), labelled.columns["score"].tolist()
        ([1, 2, 1], [0.5, 0.25, 1.0])
        >>> results = particles.with_columns(latent=[[0.5, 1], [2, 3]], cluster=[1, 0], row=[2, 0], unmatched="drop")
        >>> results.cluster.tolist(), results.latent.tolist()
        ([0, 1], [[2.0, 3.0], [0.5, 1.0]])
        """
        given: dict[str, Any] = {} if latent is None else {"latent": latent}
        given |= {} if cluster is None else {"cluster": cluster}
        if cluster is not None and "class_number" in columns:
            raise UsageError("it is the class, which is given twice", option="cluster", hint="Leave class_number out.")
        particles, values = in_order(self, given | columns, uid=uid, row=row, unmatched=unmatched)
        return _with_values(particles, values)

    def to_pandas(self) -> pandas.DataFrame:
        """Return what is known of each particle as a table for a notebook, one column a quantity.

        Columns are called as in `cryobridge.model.fields` (``ctf.defocus_u_A``); vectors are one column an element,
        orientations the Euler angles of RELION in degrees.
        """
        import pandas

        from cryobridge.model.geometry import matrix_to_euler

        columns: dict[str, Any] = {"uid": self.uid}
        if self.images is not None:
            columns |= {"images.path": self.images.path, "images.index": self.images.index}
        for item in FIELDS:
            if not item.is_coded or item.part == "helix":
                values = self.get(item.name)
                is_indexed = item.is_of_optics and values is not None and self.optics_index is not None
                columns[item.name] = values[self.optics_index] if is_indexed else values
        if self.poses is not None:
            names = ("poses.rot_deg", "poses.tilt_deg", "poses.psi_deg")
            columns |= dict(zip(names, matrix_to_euler(self.poses.matrix), strict=True))
            if self.poses.shift_A is not None:
                columns |= {"poses.shift_x_A": self.poses.shift_A[:, 0], "poses.shift_y_A": self.poses.shift_A[:, 1]}
        if self.locations is not None:
            x, y = self.locations.coordinate_px.T
            columns |= {"locations.micrograph": self.locations.micrograph}
            columns |= {"locations.x_px": x, "locations.y_px": y}
        if self.latent is not None:
            columns |= {f"latent_{number}": values for number, values in enumerate(self.latent.T, 1)}
        columns |= self.columns
        known = {name: values for name, values in columns.items() if values is not None}
        return pandas.DataFrame({name: _for_pandas(values) for name, values in known.items()}, index=range(len(self)))

    def __repr__(self) -> str:
        parts = ", ".join(self._known_parts())
        return f"ParticleSet({counted(self.n_rows, 'particle')} of {self.source.name!r}{': ' if parts else ''}{parts})"

    def _known_parts(self) -> list[str]:
        hidden = {"n_rows", "source", "messages", "optics_index", "extra", "columns"}
        known = [item.name for item in fields(self) if getattr(self, item.name) is not None]
        return [*(name for name in known if name not in hidden), *self.columns]

    def _repr_html_(self) -> str:
        """Return a table of what is known, for notebooks."""
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in self._summary().items()
        )
        caption = f"{counted(self.n_rows, 'particle')} of {escape(self.source.name)}"
        return f"<table><caption>{caption}</caption>{rows}</table>"

    def _summary(self) -> dict[str, str]:
        """Return each quantity by its title, with its range or number of distinct values."""
        found: dict[str, str] = {}
        if self.images is not None:
            found["stacks"] = f"{len(np.unique(self.images.path.codes)):,}"
        if self.locations is not None:
            found["micrographs"] = f"{len(np.unique(self.locations.micrograph.codes)):,}"
        if self.optics is not None:
            found["optics groups"] = f"{len(self.optics):,}"
        if self.poses is not None:
            found["poses"] = f"{'2D' if self.poses.is_2d else '3D'}, {self.poses.source}"
        for item in FIELDS:
            values = None if item.is_coded else self.get(item.name)
            if isinstance(values, np.ndarray) and item.kind in ("float", "int"):
                unit = QUANTITIES[item.quantity].unit
                found.setdefault(item.title, _range(values) + (f" {unit}" if unit not in ("", "fraction") else ""))
        if self.latent is not None:
            found["latent coordinates"] = f"{self.latent.shape[1]:,} of each"
        return found | {name: f"{counted(len(values), 'value')}" for name, values in self.columns.items()}


def require_set(particles: Any) -> None:
    """Refuse what is no particle set, but the name of a file, say.

    Raises
    ------
    UsageError
        If it is something else.
    """
    if not isinstance(particles, ParticleSet):
        hint = "Give those of a file as cryobridge.read(path)."
        raise UsageError(f"a particle set is needed, not {particles!r:.60}", option="particles", hint=hint)


def is_pixel_size(sizes_A: Floats) -> NDArray[np.bool_]:
    """Whether numbers, of any shape, can be pixel sizes: 0.001 to 1,000 Å."""
    found: NDArray[np.bool_] = (sizes_A >= _LEAST_PIXEL_SIZE_A) & (sizes_A <= _MOST_PIXEL_SIZE_A)
    return found


def require_pixel_sizes(sizes_A: Floats, source: Path, hint: str) -> None:
    """Refuse pixel sizes of particles that are not known, or can't be right.

    Raises
    ------
    MissingDataError, FormatError
        If there are some.
    """
    if np.isnan(sizes_A).any():
        raise MissingDataError("the pixel size of the particles is not known", path=source, hint=hint)
    wrong = sizes_A[~is_pixel_size(sizes_A)]
    if len(wrong):
        raise FormatError(f"{wrong[0]:g} Å is no pixel size", path=source, hint=hint)


def _with_values(particles: ParticleSet, values: Mapping[str, Any]) -> ParticleSet:
    """Return a set with values that it has been looked into that they fit: latent (n, d), all others (n,)."""
    parts: dict[str, Any] = {}
    own: dict[str, Any] = dict(particles.columns)
    direct = {item.name: item for item in FIELDS if not item.part and not item.is_coded}
    for name, given in values.items():
        if name == "latent":
            parts[name] = given
        elif name == "cluster":
            parts["class_number"] = given + 1
            if particles.class_posterior is not None:
                parts["class_posterior"] = np.ones(len(given))
        elif name in direct and isinstance(given, np.ndarray):
            parts[name] = of_kind(name, given, direct[name].kind)
        elif name in {item.name for item in fields(particles)}:
            hint = "A part of the set is called so: take another name, or change that part by `ParticleSet.replace`."
            raise UsageError(f"{name!r} is no name for a column", option=name, hint=hint)
        elif not re.fullmatch(r"[^\W\d_][\w/.]*", name):
            hint = "Take letters and digits; a letter comes first."
            raise UsageError(f"{name!r} is no name for a column", option=name, hint=hint)
        else:
            is_text = isinstance(given, np.ndarray) and given.dtype.kind in "OSU"
            own[name] = Labels.of(given) if is_text else given
    extra = particles.extra
    if extra is not None:  # new columns replace those of the file
        gone = {
            *values,
            *(numbered(field_of("latent").names(extra.program), extra.names) if "latent" in values else ()),
        }
        extra = replace(extra, names=tuple(name for name in extra.names if name not in gone))
    changed = replace(particles, columns=own, extra=extra, **parts)
    # Whether RELION takes half sets is asked of all of them, which is done where a file is made of the model.
    if particles.origin is None or "half_set" in parts:
        return changed
    results = dict.fromkeys(
        (*particles.origin.results, *(name for name in values if name not in ("cluster", *parts)), *parts)
    )
    return changed.with_origin(replace(particles.origin, results=tuple(results)))


def _for_pandas(values: Any) -> Any:
    import pandas

    if not isinstance(values, Labels):
        return values
    return pandas.Categorical.from_codes(values.codes.tolist(), pandas.Index(values.values))


def _range(values: NDArray[Any]) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "unknown"
    low, high = known.min(), known.max()
    return f"{low:,g}" if low == high else f"{low:,g} to {high:,g}"


_Part = TypeVar("_Part")


def take_rows(part: _Part, rows: NDArray[np.int64]) -> _Part:
    """Return the chosen rows of an array, of labels, or of a record of them."""
    taken: Any
    if isinstance(part, np.ndarray):
        taken = part[rows]
    elif isinstance(part, Labels | ExtraColumns):
        taken = part.take(rows)
    elif isinstance(part, Mapping):
        taken = {name: take_rows(values, rows) for name, values in part.items()}
    else:
        values = {item.name: getattr(part, item.name) for item in fields(part)}  # type: ignore[arg-type]
        parts = {
            name: take_rows(value, rows) if isinstance(value, np.ndarray) or is_dataclass(value) else value
            for name, value in values.items()
        }
        taken = type(part)(**parts)
    return taken  # type: ignore[no-any-return]
