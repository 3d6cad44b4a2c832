"""CryoLike's image parameters (`params.npz`): the images and the polar grid of their transforms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, UsageError

if TYPE_CHECKING:
    import os

from cryobridge.formats.arrays import Array, NpzArrays, read_npz, write_npz

Precision = Literal["single", "double"]


@dataclass(frozen=True)
class ImageDescriptor:
    """CryoLike's description of images and of the polar grid of their transforms.

    Attributes
    ----------
    n_pixels
        Box along axis 0 and 1.
    pixel_size_A
        Å along axis 0 and 1.
    radius_max, dist_radii
        Extent and spacing of the polar grid's shells, in units in which N / 4 is the Nyquist frequency of a box N.
    n_inplanes
        Angles on a shell.
    precision
        "single" or "double".
    viewing_distance, atom_radii, atom_selection, use_protein_residue_model, atom_shape
        For CryoLike's templates; carried along.

    Raises
    ------
    UsageError
        If a number is impossible.
    """

    n_pixels: tuple[int, int]
    pixel_size_A: tuple[float, float]
    radius_max: float
    dist_radii: float
    n_inplanes: int
    precision: Precision
    viewing_distance: float
    atom_radii: float | None = None
    atom_selection: str | None = "name CA"
    use_protein_residue_model: bool = True
    atom_shape: str = "gaussian"

    def __post_init__(self) -> None:
        if self.precision not in {"single", "double"}:
            raise UsageError(f"must be single or double, not {self.precision!r}", field="precision")
        for field in ("n_pixels", "pixel_size_A", "radius_max", "dist_radii", "n_inplanes", "viewing_distance"):
            value = getattr(self, field)
            if not all(math.isfinite(part) and part > 0 for part in np.atleast_1d(value)):
                raise UsageError(f"must be greater than zero, not {value}", field=field)

    @classmethod
    def for_box(
        cls,
        n_pixels: int,
        pixel_size_A: float,
        resolution_factor: float = 1.0,
        n_inplanes: int | None = None,
        precision: Precision = "single",
    ) -> ImageDescriptor:
        """Return CryoLike's defaults for square images; a resolution factor of 1 reaches the Nyquist frequency."""
        if not (math.isfinite(resolution_factor) and resolution_factor > 0):
            raise UsageError(f"must be greater than zero, not {resolution_factor}", field="resolution_factor")
        return cls(
            n_pixels=(n_pixels, n_pixels),
            pixel_size_A=(pixel_size_A, pixel_size_A),
            radius_max=resolution_factor * n_pixels / 4,
            dist_radii=0.25,
            n_inplanes=2 * n_pixels if n_inplanes is None else n_inplanes,
            precision=precision,
            viewing_distance=1 / (4 * math.pi * resolution_factor),
        )

    def to_arrays(self) -> dict[str, Array]:
        """Return the arrays under CryoLike's names; what is absent is an empty array, which needs no pickle."""
        return {
            "n_pixels": np.array(self.n_pixels, np.int64),
            "pixel_size": np.array(self.pixel_size_A, np.float64),
            "radius_max": np.array(self.radius_max, np.float64),
            "dist_radii": np.array(self.dist_radii, np.float64),
            "n_inplanes": np.array(self.n_inplanes, np.int64),
            "precision": np.array(self.precision),
            "viewing_distance": np.array(self.viewing_distance, np.float64),
            "atom_radii": np.array([] if self.atom_radii is None else self.atom_radii, np.float64),
            "atom_selection": np.array([]) if self.atom_selection is None else np.array(self.atom_selection),
            "use_protein_residue_model": np.array(self.use_protein_residue_model),
            "atom_shape": np.array(self.atom_shape),
        }


def write_image_descriptor(path: str | os.PathLike[str], descriptor: ImageDescriptor) -> None:
    """Write the parameter file that CryoLike reads."""
    write_npz(path, descriptor.to_arrays())


def read_image_descriptor(path: str | os.PathLike[str]) -> ImageDescriptor:
    """Read CryoLike's parameter file, or the descriptor in the `.npz` of a converted stack.

    An absent value may be an empty array or a stored None; template fields that are not there at all have
    CryoLike's defaults.

    Raises
    ------
    MissingDataError
        If a field that describes images is not there.
    FormatError
        If a field has another type or shape, or an impossible value.
    """
    arrays = read_npz(path)
    given: dict[str, Any] = {
        "n_pixels": tuple(int(side) for side in _values(arrays, "n_pixels", "iu", 2)),
        "pixel_size_A": tuple(float(side) for side in _values(arrays, "pixel_size", "fiu", 2)),
        "n_inplanes": int(_values(arrays, "n_inplanes", "iu", 1)[0]),
        "precision": str(_values(arrays, "precision", "U", 1)[0]),
    }
    for name in ("radius_max", "dist_radii", "viewing_distance"):
        given[name] = float(_values(arrays, name, "fiu", 1)[0])
    for name, kinds, convert in (
        ("atom_radii", "fiu", float),
        ("atom_selection", "U", str),
        ("use_protein_residue_model", "b", bool),
        ("atom_shape", "U", str),
    ):
        if name not in arrays:
            continue
        if not _is_absent(arrays[name]):
            given[name] = convert(_values(arrays, name, kinds, 1)[0])
        elif name == "atom_selection":
            given[name] = None
    try:
        return ImageDescriptor(**given)
    except UsageError as error:
        raise FormatError(
            error.message,
            path=path,
            field=error.field,
            hint="Make the parameter file again with CryoLike or cryobridge.",
        ) from error


def _is_absent(array: Array) -> bool:
    return array.size == 0 or (array.dtype.hasobject and array.ndim == 0 and array.item() is None)


def _values(arrays: NpzArrays, name: str, kinds: str, count: int) -> list[Any]:
    """Return the values of a field; one value stands for ``count`` equal ones, and equal ones for one."""
    array = arrays.get(name)
    if array is None or _is_absent(array):
        raise MissingDataError(
            "the field is missing",
            path=arrays.path,
            field=name,
            hint="Name a parameter file (.npz) of CryoLike; `cryobridge inspect` lists what is in a file.",
        )
    values = array.ravel().tolist()
    fits = len(values) in {1, count} or (count == 1 and len(set(values)) == 1)
    if array.dtype.kind not in kinds or not fits:
        raise FormatError(
            f"expected {count} value{'s' * (count > 1)}, found an array of shape {array.shape} and type {array.dtype}",
            path=arrays.path,
            field=name,
            hint="Name a parameter file (.npz) of CryoLike; `cryobridge inspect` lists what is in a file.",
        )
    return values if len(values) == count else values[:1] * count
