"""What the adaptors for packages without aberrations have in common: values of each particle, and its image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from cryobridge.dataset.images import ItemImages
from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.aberrations import folded, held_after, left_out
from cryobridge.formats.contrast import is_dark
from cryobridge.formats.optics import needed, require_optics
from cryobridge.formats.relion.accepted import premultiplied
from cryobridge.formats.unusable import refuse_unusable
from cryobridge.jobs.reconstruction.images import chosen_images
from cryobridge.jobs.shared_options import ImageSearchOptions
from cryobridge.model.geometry import matrix_to_euler, rounded
from cryobridge.model.particles import ParticleSet, require_set
from cryobridge.options import Opt
from cryobridge.report import warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.adaptors.packages import WavelengthFormula
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc import Images
    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.fourier.ctf import Rows
    from cryobridge.model.particles import CTF, Floats, Optics
    from cryobridge.report import Message


@dataclass(frozen=True, kw_only=True)
class PixelSourceOptions(ImageSearchOptions):
    """Where images are, and how particles look in them."""

    contrast: Annotated[
        Literal["bright", "as_stored"],
        Opt("Whether images of particles that a cryoSPARC file says are dark are multiplied by -1."),
    ] = "bright"


@dataclass(frozen=True, kw_only=True)
class ImageModelOptions(PixelSourceOptions):
    """The same, and what a package's model of the images is to be."""

    sign: Annotated[
        Literal["relion", "opposite"],
        Opt("Of the CTF: RELION's, by which a particle is bright; or the package's own, by which it is dark."),
    ] = "relion"
    envelope: Annotated[bool, Opt("Whether B-factor and scale count, where the set has them.")] = True


def chosen_particles(particles: ParticleSet, rows: Rows | None) -> ParticleSet:
    """Return the particles that a package is given.

    Parameters
    ----------
    particles
        As the adaptor was given them.
    rows
        (n,) which of them, from 0, in this order, or one truth value a particle; all if None.

    Raises
    ------
    UsageError
        If they are no particle set, but the name of a file, say.
    IndexError
        If there is no such row.
    MissingDataError
        If no particle is left.
    """
    require_set(particles)
    found = particles if rows is None else particles.take(particles.row_numbers(np.asarray(rows)))
    if not len(found):
        raise MissingDataError("no particle is left", path=particles.source, hint="Choose other rows.")
    return found


def about_poses(particles: ParticleSet, who: str) -> list[Message]:
    """Return a warning where a package gets no poses, or those of a 2D classification."""
    if particles.poses is None:
        return [warning("poses-absent", f"no poses are known, which {who} would take")]
    if particles.poses.is_2d:
        text = "the poses are in-plane angles of a 2D alignment; a reconstruction needs 3D ones"
        return [warning("poses-are-2d", text)]
    return []


@dataclass(frozen=True, eq=False)
class ParticleValues:
    """What a package needs of n particles, aberrations put where it has a place for them.

    Attributes
    ----------
    particles
        With these values in their columns.
    ctf, optics, optics_index
        Theirs, which are known.
    messages
        What was done, and what has no place.
    """

    particles: ParticleSet
    ctf: CTF
    optics: Optics
    optics_index: NDArray[np.int32]
    messages: tuple[Message, ...] = ()

    @classmethod
    def of(cls, particles: ParticleSet, who: str) -> ParticleValues:
        """Return those of particles.

        Parameters
        ----------
        particles
            With CTF and optics.
        who
            The package, in words.

        Raises
        ------
        MissingDataError
            If the CTF, or an optics value, is not known.
        FormatError
            If a value is not a number.
        """
        if particles.ctf is None:
            raise MissingDataError(
                "nothing is known of the CTF of the particles",
                path=particles.source,
                hint="Give a file that has their defocus.",
            )
        particles = _with_used_optics(particles)
        try:
            require_optics(particles, needed("ctf", "image"), f", which {who} needs")
        except MissingDataError as error:
            error.add_hint("cryobridge.read takes what a file lacks as defaults={'voltage_kV': 300}.")
            raise
        refuse_unusable(particles, without=("images", "locations"))
        put, messages = folded(particles)
        lost = left_out(particles, held_after(only=()), who)
        optics, index, ctf = put.optics, put.optics_index, put.ctf
        assert optics is not None and index is not None and ctf is not None  # just asked for
        said = (*premultiplied(particles, who), *about_poses(particles, who), *messages, *lost)
        return cls(put, ctf, optics, index, said)

    def __len__(self) -> int:
        return len(self.particles)

    def of_each(self, name: str) -> Floats:
        """Return an optics value of each particle, (n,)."""
        values: Floats = getattr(self.optics, name)[self.optics_index]
        return values

    def voltage_kV(self, formula: WavelengthFormula) -> Floats:
        """Return the voltages (n,) by which a package has RELION's wavelength."""
        return formula.voltage_kV(self.of_each("voltage_kV"))

    @property
    def phase_shift_rad(self) -> Floats:
        """(n,)."""
        none: Floats = np.zeros(len(self))
        return none if self.ctf.phase_shift_rad is None else self.ctf.phase_shift_rad

    def envelope(self) -> tuple[Floats, Floats] | None:
        """Return B-factor in Å² and scale, (n,) each; None where there is nothing but 0 and 1."""
        bfactor_A2 = np.zeros(len(self)) if self.ctf.bfactor_A2 is None else self.ctf.bfactor_A2
        scale = np.ones(len(self)) if self.ctf.scale is None else self.ctf.scale
        return (bfactor_A2, scale) if bfactor_A2.any() or (scale != 1).any() else None

    @property
    def angles_deg(self) -> Floats | None:
        """(n, 3) RELION's rot, tilt and psi; None where no poses are known."""
        poses = self.particles.poses
        return None if poses is None else np.stack(matrix_to_euler(poses.matrix), axis=1)

    @property
    def shift_A(self) -> Floats:
        """(n, 2) RELION's origin x, y; 0 where it is not known."""
        poses = self.particles.poses
        none: Floats = np.zeros((len(self), 2))
        return none if poses is None or poses.shift_A is None else poses.shift_A

    def box_px(self, who: str) -> int:
        """Return the one box of all images; raises as `_one`."""
        return int(self._one(self.optics.box_px.astype(np.float64), "boxes", "px", who))

    def pixel_size_A(self, who: str) -> float:
        """Return the one pixel size of all images; raises as `_one`."""
        return self._one(rounded(self.optics.pixel_size_A, 6), "pixel sizes", "Å", who)

    def _one(self, values: Floats, what: str, unit: str, who: str) -> float:
        """Return the one value.

        Raises
        ------
        UsageError
            If there are several: the package would take one for all.
        """
        several = np.unique(values)
        if len(several) > 1:
            listed = ", ".join(f"{value:g}" for value in several[:4])
            raise UsageError(
                f"the images have {what} of {listed} {unit}; {who} takes one for all",
                path=self.particles.source,
                hint="Take the particles of one optics group, or bring the images to one size before.",
            )
        return float(several[0]) if len(several) else 0.0


def _with_used_optics(particles: ParticleSet) -> ParticleSet:
    """Return the set without optics groups that none of the particles is of."""
    if particles.optics is None or particles.optics_index is None:
        return particles
    used, index = np.unique(particles.optics_index, return_inverse=True)
    return replace(particles, optics=particles.optics.take(used), optics_index=index.astype(np.int32))


@dataclass(frozen=True, eq=False)
class StoredImages:
    """The images of a set, which are looked for when the first is read.

    Parameters
    ----------
    particles
        Whose images they are.
    box_px
        Edge of all of them.
    search
        Where image files are looked for.
    inverted
        (n,) which are multiplied by -1; None for none.
    """

    particles: ParticleSet
    box_px: int
    search: ImageSearch
    inverted: NDArray[np.bool_] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, particles: ParticleSet, box_px: int, options: PixelSourceOptions) -> StoredImages:
        """Return those of particles, as the options say."""
        dark = is_dark(particles) if options.contrast == "bright" else None
        bare = replace(particles, extra=None, columns={})  # no open files in what may go to other processes
        inverted = dark if dark is not None and dark.any() else None
        return cls(bare, box_px, options.image_search(particles.source), inverted)

    @cached_property
    def headers(self) -> dict[int, MrcHeader]:
        """Of each stack, by its number; raises as `chosen_images`."""
        return chosen_images(self.particles, np.arange(len(self.particles)), self.search).headers

    @cached_property
    def _items(self) -> ItemImages:
        refs = self.particles.images
        assert refs is not None  # the headers are there
        for header in self.headers.values():
            if header.nx != self.box_px:
                raise FormatError(
                    f"images of {header.nx} px, where the metadata say {self.box_px} px",
                    path=header.path,
                    hint="Give the metadata that belong to these images.",
                )
        return ItemImages(refs, self.headers, (self.box_px, self.box_px), is_inverted=self.inverted)

    def read(self, rows: NDArray[Any]) -> Images:
        """Return the images of rows, (m, box, box) float32.

        Raises
        ------
        MissingDataError
            If images, or their pixel size, are not known or not there.
        FormatError
            If a stack can't be read, its images are not square, or have another box than the metadata say.
        """
        images: Images = self._items.read(rows).numpy()
        return images
