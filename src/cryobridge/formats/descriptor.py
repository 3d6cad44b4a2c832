"""CryoLike's image parameters (`params.npz`): the images and the polar grid of their transforms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, OutputExistsError, UsageError
from cryobridge.formats.arrays import Array, read_npz, write_npz

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

Precision = Literal["single", "double"]
# CryoLike's names for one thing; it takes the default precision for single.
_PRECISIONS = {"": "single", "default": "single"}
_ATOM_SHAPES = {"hard": "hard-sphere", "hard_sphere": "hard-sphere", "gauss": "gaussian", "default": "gaussian"}


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

    @classmethod
    def from_individual_values(
        cls,
        n_pixels: int,
        pixel_size: float,
        precision: Any = "single",
        resolution_factor: float = 1.0,
        viewing_distance: float | None = None,
        n_inplanes: int | None = None,
        atom_radii: float | None = None,
        atom_selection: str | None = "name CA",
        use_protein_residue_model: bool = True,
        atom_shape: Any = "gaussian",
    ) -> ImageDescriptor:
        """Return the descriptor of square images, under CryoLike's name and with its parameters.

        Parameters
        ----------
        n_pixels, pixel_size
            Box, and Å.
        precision
            ``"single"`` or ``"double"``, or CryoLike's enumeration.
        resolution_factor, n_inplanes
            Radius of the grid, 1 for Nyquist, and angles on a shell: see `for_box`.
        viewing_distance, atom_radii, atom_selection, use_protein_residue_model, atom_shape
            For CryoLike's templates; carried along.

        Raises
        ------
        UsageError
            If a value is impossible.

        Examples
        --------
        >>> ImageDescriptor.from_individual_values(132, 1.346, n_inplanes=256).radius_max
        33.0
        """
        described = cls.for_box(
            int(n_pixels), float(pixel_size), resolution_factor, n_inplanes, _word(precision, _PRECISIONS)
        )
        return replace(
            described,
            viewing_distance=described.viewing_distance if viewing_distance is None else float(viewing_distance),
            atom_radii=atom_radii,
            atom_selection=atom_selection,
            use_protein_residue_model=use_protein_residue_model,
            atom_shape=_word(atom_shape, _ATOM_SHAPES),
        )

    @classmethod
    def load(cls, filename: str | os.PathLike[str]) -> ImageDescriptor:
        """Return the descriptor in a parameter file; see `read_image_descriptor`."""
        return read_image_descriptor(filename)

    def save(self, filename: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write a parameter file; ``.npz`` is appended to a name without it, as NumPy and CryoLike do.

        Raises
        ------
        OutputExistsError
            If the file is there, and ``overwrite`` is not given.
        """
        path = Path(filename)
        path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
        if path.exists() and not overwrite:
            raise OutputExistsError("the file is there already", path=path, hint="Give overwrite=True to replace it.")
        write_image_descriptor(path, self)

    def print(self) -> None:
        """Print the parameters, each with CryoLike's name."""
        for name, value in self.to_arrays().items():
            print(f"{name}: {value.tolist()}")  # noqa: T201 - that is what it is for

    def binned(self, factor: int) -> ImageDescriptor:
        """Return what describes the images after binning: the grid ends at their Nyquist frequency.

        A radius stands for the same frequency in 1/Å as before, since binning does not change the box in Å.

        Parameters
        ----------
        factor
            Pixels of an edge that become one; it divides the box.

        Examples
        --------
        >>> full = ImageDescriptor.for_box(96, 1.5)
        >>> full.radius_max, full.binned(2).n_pixels, full.binned(2).radius_max
        (24.0, (48, 48), 12.0)
        """
        box = (self.n_pixels[0] // factor, self.n_pixels[1] // factor)
        size_A = (self.pixel_size_A[0] * factor, self.pixel_size_A[1] * factor)
        return replace(self, n_pixels=box, pixel_size_A=size_A, radius_max=min(self.radius_max, min(box) / 4))

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
    return descriptor_of(read_npz(path), Path(path))


def descriptor_of(values: Mapping[str, Any], source: Path | None = None) -> ImageDescriptor:
    """Return the descriptor that has these values under CryoLike's names, as its own ``to_dict`` returns them.

    Parameters
    ----------
    values
        Arrays, numbers and texts; None for what is absent.
    source
        The file that they are from.

    Raises
    ------
    MissingDataError, FormatError
        As `read_image_descriptor`.
    """
    arrays = _Values(values, source)
    given: dict[str, Any] = {
        "n_pixels": tuple(int(side) for side in arrays.read("n_pixels", "iu", 2)),
        "pixel_size_A": tuple(float(side) for side in arrays.read("pixel_size", "fiu", 2)),
        "n_inplanes": int(arrays.read("n_inplanes", "iu", 1)[0]),
        "precision": _word(arrays.read("precision", "U", 1)[0], _PRECISIONS),
    }
    for name in ("radius_max", "dist_radii", "viewing_distance"):
        given[name] = float(arrays.read(name, "fiu", 1)[0])
    for name, kinds, convert in (
        ("atom_radii", "fiu", float),
        ("atom_selection", "U", str),
        ("use_protein_residue_model", "b", bool),
        ("atom_shape", "U", str),
    ):
        if name not in values:
            continue
        if not arrays.is_absent(name):
            given[name] = convert(arrays.read(name, kinds, 1)[0])
        elif name == "atom_selection":
            given[name] = None
    try:
        return ImageDescriptor(**given)
    except UsageError as error:
        raise FormatError(
            error.message,
            path=source,
            field=error.field,
            hint="Make the parameter file again with CryoLike or cryobridge.",
        ) from error


def _word(value: Any, same: Mapping[str, str]) -> Any:
    """Return a word, also one in CryoLike's enumeration, under its first name."""
    word = getattr(value, "value", value)
    return same.get(word.lower(), word.lower()) if isinstance(word, str) else word


def _is_absent(array: Array) -> bool:
    return array.size == 0 or (array.dtype.hasobject and array.ndim == 0 and array.item() is None)


class _Values:
    """The values of a parameter file, with errors that name it."""

    def __init__(self, values: Mapping[str, Any], source: Path | None) -> None:
        self._values = values
        self._source = source

    def is_absent(self, name: str) -> bool:
        """Whether a field is not there, an empty array, or None."""
        return _is_absent(np.asarray(self._values.get(name)))

    def read(self, name: str, kinds: str, count: int) -> list[Any]:
        """Return the values of a field; one value stands for ``count`` equal ones, and equal ones for one."""
        value = self._values.get(name)
        array = np.asarray(getattr(value, "value", value))  # CryoLike's enumerations have a text
        if _is_absent(array):
            raise MissingDataError(
                "the field is missing",
                path=self._source,
                field=name,
                hint="Name a parameter file (.npz) of CryoLike; `cryobridge inspect` lists what is in a file.",
            )
        values = array.ravel().tolist()
        fits = len(values) in {1, count} or (count == 1 and len(set(values)) == 1)
        if array.dtype.kind not in kinds or not fits:
            raise FormatError(
                f"expected {count} value{'s' * (count > 1)}, found an array of shape {array.shape} and type "
                f"{array.dtype}",
                path=self._source,
                field=name,
                hint="Name a parameter file (.npz) of CryoLike; `cryobridge inspect` lists what is in a file.",
            )
        return values if len(values) == count else values[:1] * count
