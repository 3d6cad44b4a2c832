"""`cb.ParticleDataset`: particles of any file as a map-style dataset of torch."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from operator import index as whole_number
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cryobridge.dataset.batches import Batch, collate
from cryobridge.dataset.images import ItemImages
from cryobridge.dataset.options import DatasetOptions
from cryobridge.dataset.sending import reduced
from cryobridge.dataset.values import ItemValues, partly_absent
from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.executors.threads import n_threads
from cryobridge.formats.aberrations import named_aberrations
from cryobridge.formats.contrast import SIGN, is_dark
from cryobridge.formats.in_memory import SetInMemory
from cryobridge.formats.open import read
from cryobridge.formats.relion.accepted import PREMULTIPLIED, is_premultiplied
from cryobridge.fourier.ctf import images_of_rows
from cryobridge.fourier.devices import pick_device
from cryobridge.fourier.images import normalised_transforms
from cryobridge.fourier.polar import PolarTransform
from cryobridge.jobs.half_sets import is_of_half
from cryobridge.jobs.selection.values import read_rows
from cryobridge.jobs.selection.where import rows_where
from cryobridge.jobs.stacks.checks import image_box, other_boxes, refuse_larger, refuse_other_box
from cryobridge.jobs.stacks.inputs import StackInput, rows_input
from cryobridge.jobs.stacks.pixel_size import with_pixel_size
from cryobridge.model.particles import Optics, ParticleSet
from cryobridge.options import as_path, made, takes
from cryobridge.report import Message, counted, distinct, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cryobridge.formats.optics import KnownOptics
    from cryobridge.jobs.stacks.checks import Rows

_ALL = {"aberrations": "all"}

ForkingPickler.register(Batch, reduced)  # how workers send it


@takes(DatasetOptions)
class ParticleDataset(Dataset[Batch]):
    """Particles of any file as a dataset of torch: images, poses, CTF and all else as tensors.

    An item is a dictionary of tensors by these names; a batch has the same with the item as the first axis. A name is
    absent where its value is not known of all particles of the dataset: nothing is NaN (`absent` says why).

    ================================ ============ ====================================================================
    name                             type         what
    ================================ ============ ====================================================================
    image                            float32      (ny, nx), with the sign and the norm that are asked for
    polar                            complex64    (shells, angles), its transform; with ``polar`` only
    ctf                              float32      (box, box // 2 + 1), its CTF; with ``ctf="image"`` only
    rotation                         float32      (3, 3) RELION's matrix A, which takes the reference to the view
    shift_A                          float32      (2,) x, y: subtracted from the centre of the image to find the
                                                  particle, as rlnOriginXAngst and rlnOriginYAngst
    defocus_u_A, defocus_v_A,        float32      defocus, positive for underfocus, the angle of u from x towards y,
    defocus_angle_rad,                            phase shift, B-factor and scale of the CTF
    phase_shift_rad, bfactor_A2,
    scale
    ctf_shift_A                      float32      (2,) how far odd aberrations move the image; a method that knows
                                                  nothing of them subtracts it from ``shift_A``
    voltage_kV,                      float32      the microscope
    spherical_aberration_mm,
    amplitude_contrast
    pixel_size_A                     float32      of the item's image, after cropping
    half_set                         int64        1 or 2
    class                            int64        from 1
    uid                              int64        cryoSPARC's uid: the bits of a uint64, which ``.numpy().view("u8")``
                                                  gives back
    row                              int64        of the particles that were given, from 0
    ================================ ============ ====================================================================

    Parameters
    ----------
    particles
        A set, or what `cryobridge.read` takes: a `.cs`, `.csg` or `.star` file, a stack, a job folder.
    **options
        The fields of `DatasetOptions`.

    Attributes
    ----------
    messages
        What was assumed, and what may be wrong.

    Raises
    ------
    UsageError
        If an option is wrong, or contradicts the files.
    MissingDataError
        If no particle is left, images are not there, or what was asked for is not known.
    CryobridgeError
        If a file can't be read, or images are of several sizes.

    Notes
    -----
    Images of files that are not compressed are copied from memory maps, or, where they are neighbours, read; others,
    and pixels of other types than float32, are read and converted, which is slower. Each process and thread opens the
    files for itself, and what is sent to another process has neither files nor images: workers may be forked, spawned
    or come from a fork server. All work is done by one thread. ``device`` other than the CPU is for a loader without
    workers, or with spawned ones.

    `__getitems__`, which torch's ``DataLoader`` calls, makes a batch as a whole: give ``collate_fn=cb.collate``, which
    leaves it as it is.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from torch.utils.data import DataLoader
    >>> dataset = cb.ParticleDataset("J4", half_set=1)
    >>> dataset[0]["image"].shape
    torch.Size([96, 96])
    >>> loader = DataLoader(dataset, batch_size=4, collate_fn=cb.collate)
    >>> next(iter(loader))["rotation"].shape
    torch.Size([4, 3, 3])
    """

    def __init__(self, particles: ParticleSet | str | os.PathLike[str], **options: Any) -> None:
        asked = made(DatasetOptions, options)
        found = _read(particles, asked)
        source = rows_input(
            found, _chosen(found, asked), asked.image_search(found.source), asked.on_missing, _reread(found)
        )
        shape_px, known = None, found
        about_size: tuple[Message, ...] = ()
        with source.problems.collect():
            shape_px = _shape_px(source, asked)
        if shape_px is not None:
            with source.problems.collect():
                source, known, about_size = _with_optics(source, shape_px, asked.pixel_size_A)
        source.problems.raise_all()
        if shape_px is None:
            raise MissingDataError("no particle is left", path=found.source, hint="Choose other rows.")
        self.options = asked
        self._found: ParticleSet | None = source.particles
        self._images = _images(source, shape_px, asked)
        self._values = ItemValues.of(known, source.rows, shape_px[0] / self._images.item_shape_px[0])
        self._device = pick_device(asked.device)
        self._transform: PolarTransform | None = None
        self._ctf_bytes = self._bytes_of_ctf()
        about = [*about_size, *_about(source, asked, self._images), *partly_absent(self._values)]
        outdated = _outdated(found, source.particles)
        self.messages: tuple[Message, ...] = distinct(
            [*(message for message in source.messages if message not in outdated), *about]
        )

    @property
    def rows(self) -> NDArray[np.int64]:
        """(n,) the row of each item in the particles that were given, from 0."""
        return self._values.rows

    @property
    def absent(self) -> dict[str, str]:
        """Names that items do not have, and why."""
        return self._values.absent

    @property
    def particles(self) -> ParticleSet:
        """The particles in the order of the items, for what is computed of them: ``particles.with_columns(...)``.

        Those of a copied dataset, such as one in another process, have no more than its items.
        """
        if self._found is None:  # in another process, where no names of images are
            return replace(self._values.particles, images=None)
        return self._found.take(self.rows)

    @property
    def shape_px(self) -> tuple[int, int]:
        """(ny, nx) of the images."""
        return self._images.item_shape_px

    def __len__(self) -> int:
        """Return how many particles there are."""
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        """Return an item, by its number; a negative one counts from the end. Of a slice, or several numbers, a batch.

        Raises
        ------
        IndexError
            If there is no such item.
        """
        if isinstance(index, slice):
            return self.batch(range(len(self))[index])
        if not hasattr(index, "__index__") or np.ndim(index):  # a tensor of one number is both
            return self.batch(index)
        index = whole_number(index)
        return self._items([index])[0] if self.options.transform is not None else self._first(self._batch([index]))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return a batch of items; with ``transform`` a list of items, which `cryobridge.collate` makes a batch of."""
        return self._batch(indices) if self.options.transform is None else self._items(indices)

    def batch(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Any:
        """Return a batch of items, by number or one truth value an item, as a loader with `cryobridge.collate` does.

        Raises
        ------
        IndexError
            If there is no such item.

        Examples
        --------
        >>> import cryobridge as cb
        >>> cb.ParticleDataset("J4").batch(range(3))["image"].shape
        torch.Size([3, 96, 96])
        """
        return collate(self.__getitems__(self._places(indices).tolist()))

    def __repr__(self) -> str:
        names = ["image", *self._made, *self._values.names]
        return f"ParticleDataset({counted(len(self), 'particle')} of {self._values.particles.source.name!r}: " + (
            f"{self.shape_px[0]} × {self.shape_px[1]} px; {', '.join(names)})"
        )

    def image_places(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the file of each item's image, by a number for each file, and the image's number there, from 0."""
        refs, at = self._images.refs, self._values.at
        return refs.path.codes[at], refs.index[at]

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: names of files and values of the items, no files and no images."""
        values = self._values.of_these_alone()
        assert values.particles.images is not None
        images = self._images.of(values.particles.images, self._values.at)
        return {**self.__dict__, "_found": None, "_values": values, "_images": images, "_transform": None}

    @property
    def _made(self) -> list[str]:
        asked = self.options
        return ["polar"] * (asked.polar is not None) + ["ctf"] * (asked.ctf == "image")

    def _bytes_sent(self) -> int:
        """Return how many bytes of an item a worker sends in the memory where they were made."""
        asked = self.options
        if asked.transform is not None or self._device.type != "cpu":
            return 0
        n_samples = 0 if asked.polar is None else asked.polar.n_shells * asked.polar.n_inplanes
        return (
            math.prod(self.shape_px) * torch.float32.itemsize + n_samples * torch.complex64.itemsize + self._ctf_bytes
        )

    def _bytes_of_ctf(self) -> int:
        """Return how many bytes a CTF image has; refuse those that can't be made, before an item is asked for."""
        if self.options.ctf != "image":
            return 0
        self.options.of_ctf()
        why = self._values.why_no_ctf()
        if why:
            raise MissingDataError(
                f"there is no CTF image without {why}",
                path=self._values.particles.source,
                option="ctf",
                hint="Choose rows that have it, or leave CTF images out.",
            )
        try:
            return self._ctf(self._values.at[:1]).nbytes
        except MissingDataError as error:
            error.add_hint(f"Options of CTF images are given as {option('ctf_options')}.")
            raise

    def _batch(self, indices: Sequence[int]) -> Batch:
        places = self._places(indices)
        at = self._values.at[places]
        memory = self._images.memory
        memory.begin(len(at) * self._bytes_sent())
        found = {"image": self._images.read(at)}
        if self._made:
            with n_threads(1):
                self._make(found, at)
        memory.end()
        found |= self._values.tensors(places)
        if self._device.type != "cpu":
            found = {name: tensor.to(self._device) for name, tensor in found.items()}
        return Batch(found)

    def _places(self, indices: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers of items, from 0."""
        if isinstance(indices, list) and indices and not isinstance(indices[0], bool):
            with suppress(TypeError, OverflowError):  # other things than whole numbers are looked at below
                found = np.frombuffer(array("q", indices), np.int64)  # in half of the time of asarray
                if int(found.view(np.uint64).max()) < len(self):  # negative ones are larger than any
                    return found
        places = np.asarray(indices)
        if places.dtype == bool and places.shape == (len(self),):
            return np.flatnonzero(places)
        is_known = places.ndim == 1 and (not places.size or places.dtype.kind in "iu")
        lowest, highest = (int(places.min(initial=0)), int(places.max(initial=0))) if is_known else (0, 0)
        if not is_known or lowest < -len(self) or highest >= len(self):
            raise IndexError(f"items {indices!r:.60} are asked for; there are {len(self):,}, counted from 0")
        if lowest < 0:
            places = np.where(places < 0, places + len(self), places)
        return places.astype(np.int64, copy=False)

    def _make(self, found: dict[str, torch.Tensor], at: Rows) -> None:
        """Add the transforms and the CTF images of some rows."""
        if self.options.polar is not None:
            found["image"] = found["image"].to(self._device)
            if self._transform is None:
                self._transform = PolarTransform(self.options.polar, self.shape_px, device=self._device)
            images, grid = found["image"], self.options.polar
            out = {}
            if self._device.type == "cpu":
                out["out"] = self._images.memory.empty(images.shape, images.dtype, is_sent=False)
                out["polar_out"] = self._images.memory.empty((len(at), grid.n_shells, grid.n_inplanes), torch.complex64)
            _, found["polar"], unusable = normalised_transforms(images, self._transform, **out)
            if bool(unusable.any()):
                self._images.refuse(at[unusable.numpy(force=True)], "is constant or holds NaN, and has no transform")
        if self.options.ctf == "image":
            found["ctf"] = self._ctf(at)

    def _ctf(self, at: Rows) -> torch.Tensor:
        return images_of_rows(
            self._values.particles, at, self.shape_px[0], self.options.of_ctf(), self._images.memory.empty
        )

    def _items(self, indices: Sequence[int]) -> list[Any]:
        batch, transform = self._batch(indices), self.options.transform
        items = [transform(Batch({name: values[k] for name, values in batch.items()})) for k in range(len(indices))]
        if any(item is None for item in items):
            hint = "What it returns is the item: have it return the dictionary that it is given, or another one."
            raise UsageError("the function returned None", option="transform", hint=hint)
        return items

    @staticmethod
    def _first(batch: Batch) -> Batch:
        return Batch({name: values[0] for name, values in batch.items()})


def _read(particles: Any, asked: DatasetOptions) -> ParticleSet:
    if isinstance(particles, ParticleSet):
        return particles
    known = None if asked.pixel_size_A is None else {"pixel_size_A": asked.pixel_size_A}
    return read(as_path(particles, "particles"), defaults=known)


def _reread(found: ParticleSet) -> Callable[[KnownOptics], ParticleSet] | None:
    """Return what reads particles again, given what the image files say of them; None for those that were changed."""
    origin = found.origin
    if origin is None:
        return None

    def read_again(known: KnownOptics) -> ParticleSet:
        again: ParticleSet = origin.files.read(known)
        return (again if origin.rows is None else again.take(origin.rows)).with_origin(origin)

    return read_again


def _outdated(found: ParticleSet, now: ParticleSet) -> list[Message]:
    """Return what was said of particles and does not hold since they were read again."""
    if now is found or found.origin is None:
        return []
    return [message for message in found.origin.files.particles.messages if message not in now.messages]


def _chosen(found: ParticleSet, asked: DatasetOptions) -> Rows:
    """Return the rows that are asked for, in their order."""
    rows: Rows
    if asked.rows is None:
        rows = np.arange(len(found))
    elif isinstance(asked.rows, Path):
        rows = read_rows(asked.rows, len(found), found.source)
    else:
        given = asked.rows if isinstance(asked.rows, Sequence | np.ndarray | torch.Tensor) else list(asked.rows)
        try:
            rows = found.row_numbers(np.asarray(given))
        except IndexError as error:
            raise UsageError(str(error), option="rows", hint="Rows are counted from 0.") from error
    if asked.where is not None:
        rows = rows[rows_where(asked.where, SetInMemory(found).columns)[rows]]
    if asked.half_set is not None:
        rows = rows[is_of_half(found, asked.half_set)[rows]]
    return rows


def _shape_px(source: StackInput, asked: DatasetOptions) -> tuple[int, int] | None:
    """Return the size of the images; None where there is none. Refuse what can't be made of them."""
    shape_px = image_box(source)
    if shape_px is None:
        return None
    if shape_px[0] == shape_px[1]:
        if asked.box_px is not None:
            refuse_larger(asked.box_px, shape_px[0])
        return shape_px
    needs = {"box_px": asked.box_px is not None, "normalise": asked.normalise is not None, "ctf": asked.ctf == "image"}
    for name, is_asked in needs.items():
        if is_asked:
            raise UsageError(
                f"it is for square images; these have {shape_px[0]} × {shape_px[1]} px",
                path=source.particles.source,
                option=name,
                hint="Leave it out.",
            )
    return shape_px


def _with_optics(
    source: StackInput, shape_px: tuple[int, int], given_A: float | None
) -> tuple[StackInput, ParticleSet, tuple[Message, ...]]:
    """Return the input, its particles with the box and the pixel size that their images have, and messages."""
    missing_A: float = np.nan
    messages: tuple[Message, ...] = ()
    try:
        source, sizes = with_pixel_size(source, given_A)
        missing_A, messages = sizes.missing_A or np.nan, sizes.messages
    except MissingDataError:
        pass  # then items have none
    particles = source.particles
    optics, index = particles.optics, particles.optics_index
    if optics is None or index is None:
        optics, index = _unknown_optics(), np.zeros(len(particles), np.int32)
    groups = np.unique(index[source.rows]).astype(np.int64)
    refuse_other_box(other_boxes(optics, groups, shape_px), shape_px, particles.source)
    size_A = optics.pixel_size_A
    size_A = np.where(np.isfinite(size_A) & (size_A > 0), size_A, missing_A)
    optics = replace(optics, pixel_size_A=size_A, box_px=np.full(len(optics), shape_px[0]))
    return source, replace(particles, optics=optics, optics_index=index), messages


def _unknown_optics() -> Optics:
    nan = np.full(1, np.nan)
    return Optics(np.ones(1, np.int64), ("1",), nan, nan, nan, nan, np.zeros(1, np.int64))


def _images(source: StackInput, shape_px: tuple[int, int], asked: DatasetOptions) -> ItemImages:
    """Return where the images are, and what is made of them."""
    dark = is_dark(source.particles) if asked.sign == "bright" else None
    return ItemImages(
        source.images,
        {code: replace(header, path=header.path.absolute()) for code, header in source.headers.items()},
        shape_px,
        asked.box_px,
        asked.background_radius_px(asked.box_px or shape_px[0]),
        asked.ramp,
        dark if dark is not None and dark[source.rows].any() else None,
    )


def _about(source: StackInput, asked: DatasetOptions, images: ItemImages) -> list[Message]:
    """Return messages about the signs of images, and about poses."""
    chosen, found = source.particles, []
    n_dark = 0 if images.is_inverted is None else int(np.count_nonzero(images.is_inverted[source.rows]))
    if n_dark:
        text = f"{part_of(n_dark, len(source.rows), 'image')} multiplied by -1, for {SIGN} says that particles are dark"
        found.append(note("inverted", text, option="sign"))
    if asked.sign == "as_stored" and (dark := is_dark(chosen)) is not None and dark[source.rows].any():
        found.append(note("dark-particles", f"particles are dark ({SIGN} -1)", option="sign"))
    if is_premultiplied(chosen)[source.rows].any():
        text = f"the images are multiplied by their CTF ({PREMULTIPLIED} 1)"
        found.append(warning("ctf-premultiplied", text))
    bent = named_aberrations(chosen, source.rows, but=asked.aberrations_of_ctf())
    if bent:
        text = (
            f"{bent}: not zero, and items have no values of them; {option('ctf_options', _ALL)} has them in CTF images"
        )
        found.append(warning("aberrations-dropped", text, option="ctf"))
    if chosen.poses is not None and chosen.poses.is_2d:
        text = f"the poses are those of a 2D classification ({chosen.poses.source}): an angle in the plane"
        found.append(warning("poses-are-2d", text))
    return found
