"""Planning Fourier stacks: the grid, which images go into which stack, and all checks of metadata and headers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, option
from cryobridge.formats.aberrations import left_out
from cryobridge.formats.descriptor import ImageDescriptor
from cryobridge.formats.optics import needed, unknown_optics
from cryobridge.formats.plausible import implausible_units
from cryobridge.formats.relion.accepted import premultiplied
from cryobridge.fourier.grid import PolarGrid
from cryobridge.jobs.output_folder import refuse_existing
from cryobridge.jobs.stacks.checks import Rows, image_box, other_boxes, refuse_other_box
from cryobridge.jobs.stacks.pixel_size import (
    PixelSizes,
    one_pixel_size,
    pixel_size_of_parameters,
    same_size,
    settle_pixel_size,
)
from cryobridge.jobs.stacks.plan import StackPlan, StackRecord, StackResult, StackTask
from cryobridge.jobs.stacks.polar import output
from cryobridge.jobs.stacks.report import StacksReport
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryobridge.formats.table import Array
    from cryobridge.jobs.stacks.inputs import StackInput
    from cryobridge.jobs.stacks.options import OnMissing, StackOptions
    from cryobridge.jobs.stacks.polar.preview import Preview
    from cryobridge.jobs.stacks.polar.transform import PolarChunkTransform
    from cryobridge.jobs.stacks.polar.writing import OpenPolarStack

_MICROSCOPE = needed("ctf")  # a stack holds one value of each


@dataclass(frozen=True)
class PolarPlan(StackPlan[StacksReport]):
    """Everything needed to make Fourier stacks.

    Parameters
    ----------
    source, tasks, left_out, messages
        As in `cryobridge.jobs.stacks.plan.StackPlan`.
    options
        What was asked for.
    descriptor
        The images, after binning, and the polar grid.
    ref_pixel_size_A
        The pixel size that the metadata give, before binning; None where they are silent, or don't count.
    others
        Numbers of stacks in the output folder that are of other plans, and stay.
    """

    options: StackOptions
    descriptor: ImageDescriptor
    ref_pixel_size_A: float | None
    others: frozenset[int] = frozenset()

    contents: ClassVar[str] = output.CONTENTS

    @property
    def unusable(self) -> str:
        """Why images can't be used that are read."""
        return "constant, or holds NaN or infinity"

    @property
    def grid(self) -> PolarGrid:
        """The polar grid of the transforms."""
        return PolarGrid(self.descriptor.radius_max, self.descriptor.dist_radii, self.descriptor.n_inplanes)

    @property
    def title(self) -> str:
        """What is made, in a few words."""
        return f"Fourier stacks of {self.source.particles.source.name}"

    @property
    def on_missing(self) -> OnMissing:
        """What to do about images that can't be used."""
        return self.options.on_missing

    @property
    def image_bytes(self) -> int:
        """How many bytes the stacks need for one image: its transform, and itself where it is written."""
        return output.image_bytes(self, physical=self.options.physical)

    @property
    def smaller(self) -> tuple[int, str] | None:
        """How many bytes an image needs where only its transform is written."""
        if not self.options.physical:
            return None
        return output.image_bytes(self, physical=False), f"without {option('physical')}"

    @property
    def space_hint(self) -> str:
        """What to do where the disk has too little space."""
        images = f" {option('physical', 'False')} leaves out the images themselves." if self.options.physical else ""
        return f"Free some space, or choose another disk with {option('output')}.{images}"

    @property
    def folders(self) -> Sequence[str]:
        """The folders that are made in the output folder."""
        files = output.stack_files(Path(), 0, physical=self.options.physical, plots=self.options.plots)
        return tuple(dict.fromkeys(file.parent.name for file in files))

    def transform(self, device: str) -> PolarChunkTransform:
        """Return what bins, normalises and transforms images on a device."""
        from cryobridge.jobs.stacks.polar.transform import PolarChunkTransform

        return PolarChunkTransform(self, device)

    def process(self) -> AbstractContextManager[None]:
        """Let torch use one core for each thread that transforms."""
        from cryobridge.jobs.stacks.polar.transform import one_core_each

        return one_core_each()

    def open_stack(
        self, folder: Path, task: StackTask, transform: PolarChunkTransform
    ) -> AbstractContextManager[OpenPolarStack]:
        """Write the files of a stack; the Fourier stack appears last."""
        from cryobridge.jobs.stacks.polar.writing import open_stack

        return open_stack(self, folder, task, transform.complex_type)

    def parameters(self, task: StackTask) -> Mapping[str, Array]:
        """Return all that the bytes of a stack depend on, besides its images."""
        binning = f"{self.options.downsample_factor} {self.options.downsample_type}"
        return {**output.stack_arrays(self, task.rows, task.start), "binning": np.array(binning)}

    def files(self, folder: Path, task: StackTask) -> list[Path]:
        """Return the files of a stack, the Fourier stack first."""
        return output.stack_files(folder, task.number, physical=self.options.physical, plots=self.options.plots)

    def all_files(self, folder: Path, task: StackTask) -> list[Path]:
        """Return the files of a stack, with images and pictures that are not asked for now."""
        return output.stack_files(folder, task.number)

    def pictures(self, folder: Path, task: StackTask) -> list[Path]:
        """Return the pictures of a stack; they are drawn of the images, too, which are there if they are written."""
        o = self.options
        return list(output.plot_paths(folder, task.number)) if o.plots and o.physical else []

    def preview(self, folder: Path, task: StackTask, left_out: Rows) -> Preview:
        """Return what pictures of a stack that is there are drawn from."""
        from cryobridge.jobs.stacks.polar.preview import preview_of

        return preview_of(folder, task.number, task.rows, left_out)

    def record(self, folder: Path, task: StackTask) -> StackRecord | None:
        """Return what the `.npz` beside a stack says of how it was made."""
        return output.read_record(self, folder, task)

    def existing(self, folder: Path) -> list[Path]:
        """Return the files of earlier stacks in a folder, whatever their numbers; not those of other plans."""
        return output.existing_outputs(folder, self.others)

    def for_workers(self) -> PolarPlan:
        """Return the plan with no more than the making of stacks needs; the descriptor is the plan's own."""
        plan = super().for_workers()
        assert isinstance(plan, PolarPlan)
        return replace(plan, options=replace(self.options, descriptor=None, params=None), others=frozenset())

    def check_part(self, folder: Path) -> None:
        """Refuse stacks with other numbers than those of the plan, which a reader would take for its own."""
        numbers = frozenset(task.number for task in self.tasks)
        refuse_existing(output.existing_outputs(folder, self.others | numbers), overwrite=False)

    def unfinished(self, folder: Path) -> list[Path]:
        """Return what a killed run left of files that it had not finished."""
        return output.unfinished_outputs(folder)

    def beside(self, folder: Path) -> AbstractContextManager[Callable[[StackResult], None] | None]:
        """Return what has each stack drawn in a process of its own."""
        if not self.options.plots:
            return super().beside(folder)
        from cryobridge.jobs.stacks.polar.drawing import drawing

        return drawing(self, folder)

    def refuse_unusable(self, rows: Rows) -> None:
        """Raise the error that the images of these rows are constant or not finite."""
        row = int(rows[0])
        raise CryobridgeError(
            f"image {self.source.images.index[row] + 1} is constant or holds NaN or infinity, and has no transform",
            path=self.source.headers[int(self.source.images.path.codes[row])].path,
            rows=tuple(int(row) for row in self.source.metadata_rows[rows[:3]]),
            count=len(rows),
            hint=f"Leave such images out with {option('on_missing', 'skip')}, or take these rows out of "
            f"{self.source.particles.source}. {option('resume')} goes on after the stacks that are done.",
        )

    def numbered_from(self, first: int) -> PolarPlan:
        """Return the plan with its stacks numbered from one on: those before it in the folder are others', and stay."""
        tasks = tuple(replace(task, number=number) for number, task in enumerate(self.tasks, first))
        return replace(self, tasks=tasks, others=frozenset(range(first)))

    def beside_others(self, n_stacks: int) -> PolarPlan:
        """Return the plan as one of several in a folder, which have so many stacks together; those of others stay."""
        own = {task.number for task in self.tasks}
        return replace(self, others=self.others | frozenset(range(n_stacks)) - own)

    def planned_report(self, folder: Path) -> StacksReport:
        """Return what will be made in a folder, if all images can be used."""
        return StacksReport(
            rows_in=self.source.particles.n_rows,
            rows_out=self.n_images,
            left_out=dict(self.left_out),
            messages=self.messages,
            outputs=tuple(output.fourier_stack_path(folder, task.number) for task in self.tasks),
            stacks=len(self.tasks),
            images_per_stack=tuple(len(task.rows) for task in self.tasks),
            box_px=(self.descriptor.n_pixels[0], self.descriptor.n_pixels[1]),
            pixel_size_A=self.descriptor.pixel_size_A[0],
            shells=self.grid.n_shells,
            angles=self.grid.n_inplanes,
            precision=self.descriptor.precision,
        )


def plan_stacks(source: StackInput, options: StackOptions) -> PolarPlan:
    """Plan the stacks, and check all that metadata and headers show.

    Parameters
    ----------
    source
        The particles and their image files, as `cryobridge.jobs.stacks.inputs.indexed_input` returns them.
    options
        What is asked for.

    Returns
    -------
    PolarPlan
        What `cryobridge.jobs.stacks.run.StackJob` carries out.

    Raises
    ------
    CryobridgeError
        If image files are missing or unreadable, or boxes, pixel sizes or the lens values within a stack disagree.
        Everything that is wrong is in the one error.
    """
    problems = source.problems
    given = options.image_descriptor()
    factor = options.downsample_factor
    box, size_A, sizes = None, None, PixelSizes(np.zeros(0), None)
    messages = [*source.messages, *implausible_units(source.particles)]
    messages += left_out(source.particles, (), "CryoLike")
    messages += premultiplied(source.particles, "CryoLike")
    metadata = source.particles.source
    with problems.collect():
        box = image_box(source)
    if given is not None and box is not None and factor > 1 and tuple(given.n_pixels) == box:
        given = given.binned(factor)
        messages.append(_adapted(given, factor))
    with problems.collect():
        if box is not None:
            messages += _check_box(source, box, given)
    with problems.collect():
        sizes = _pixel_size(source, options, given)
        messages += sizes.messages
        size_A = one_pixel_size(sizes.all_A, metadata) if len(sizes.all_A) else None
    with problems.collect():
        if box is not None:
            _check_binning(box, factor)
    with problems.collect():
        if box is not None and given is not None:
            _check_grid(given, box, size_A, factor)
    tasks: tuple[StackTask, ...] = ()
    with problems.collect():
        _check_known(source)
        if options.split_optics:
            messages += _note_split(source)
        tasks = _cut(source, options)
        _refuse_mixed_lens(source, tasks)
    problems.raise_all()
    if len(source.rows) == 0 or box is None:
        raise MissingDataError(
            "no particle has an image",
            path=metadata,
            hint=f"Say where the stacks are with {option('datadir')}.",
        )
    kept = tasks[: options.n_stacks_max]
    beyond = sum(len(task.rows) for task in tasks[len(kept) :])
    return PolarPlan(
        source,
        kept,
        source.left_out | ({"beyond the number of stacks asked for": beyond} if beyond else {}),
        tuple(messages),
        options,
        given or _default_grid(box, size_A, source, options),
        float(sizes.known_A[0]) if len(sizes.known_A) else None,
    )


def _adapted(descriptor: ImageDescriptor, factor: int) -> Message:
    """Say that the parameter file describes the images before they are binned."""
    text = (
        f"the parameter file is for the images before binning by {factor}; adapted to {descriptor.n_pixels[0]} × "
        f"{descriptor.n_pixels[1]} px of {descriptor.pixel_size_A[0]:g} Å, radius {descriptor.radius_max:g}: templates "
        "need parameters like these"
    )
    return warning("parameters-adapted", text, option="params")


def _parameters_stand(source: StackInput, descriptor: ImageDescriptor | None) -> bool:
    """Whether the parameter file stands against what the metadata say of the images."""
    return source.separate_files and descriptor is not None


def _check_box(source: StackInput, box: tuple[int, int], descriptor: ImageDescriptor | None) -> list[Message]:
    """Refuse metadata of images of another box; a warning where the parameter file stands."""
    groups = source.optics_of(source.rows)
    others = other_boxes(source.optics, np.unique(groups), box)
    if not others:
        return []
    first = source.rows[np.flatnonzero(source.optics.box_px[groups] == others[0])[0]]
    # A pair is known by its stack.
    stack = source.headers[int(source.images.path.codes[first])].path
    if not _parameters_stand(source, descriptor):
        refuse_other_box(others, box, stack if source.separate_files else source.particles.source)
    text = (
        f"box: the STAR file of {stack.name} says {others[0]} px, but the images have {box[0]} px; box and pixel size "
        "of the parameter file stand"
    )
    return [warning("box-contradicts", text)]


def _pixel_size(source: StackInput, options: StackOptions, descriptor: ImageDescriptor | None) -> PixelSizes:
    of_parameters_A = None if descriptor is None else descriptor.pixel_size_A[0] / options.downsample_factor
    if of_parameters_A is not None and _parameters_stand(source, descriptor):
        # One by hand that contradicts the parameter file is refused together with its box.
        return pixel_size_of_parameters(source, options.pixel_size_A or of_parameters_A)
    return settle_pixel_size(source, options.pixel_size_A, of_parameters_A)


def _check_binning(box: tuple[int, int], factor: int) -> None:
    if any(side % factor for side in box):
        raise UsageError(
            f"a box of {box[0]} × {box[1]} pixels is not a whole number of blocks of {factor}",
            option="downsample_factor",
            hint="Choose an even number that divides the box.",
        )


def _check_grid(descriptor: ImageDescriptor, box: tuple[int, int], pixel_size_A: float | None, factor: int) -> None:
    binned = (box[0] // factor, box[1] // factor)
    after = f" after binning by {factor}" if factor > 1 else ""
    hint = f"Use the parameter file that was made for these images, or leave {option('params')} out."
    if tuple(descriptor.n_pixels) != binned:
        raise CryobridgeError(
            f"the grid is for {descriptor.n_pixels[0]} × {descriptor.n_pixels[1]} px, "
            f"the images have {binned[0]} × {binned[1]}{after}",
            hint=hint,
        )
    if pixel_size_A is not None and not all(same_size(size, pixel_size_A * factor) for size in descriptor.pixel_size_A):
        raise CryobridgeError(
            f"the grid is for pixels of {descriptor.pixel_size_A[0]:g} Å, "
            f"those of the images have {pixel_size_A * factor:g} Å{after}",
            hint=hint,
        )


def _default_grid(
    box: tuple[int, int], pixel_size_A: float | None, source: StackInput, options: StackOptions
) -> ImageDescriptor:
    if box[0] != box[1]:
        raise MissingDataError(
            f"there is no default grid for images of {box[0]} × {box[1]} px, which are not square",
            path=source.particles.source,
            hint=f"Give a parameter file with {option('params')}.",
        )
    assert pixel_size_A is not None  # or there was a problem
    factor = options.downsample_factor
    return ImageDescriptor.for_box(
        box[0] // factor,
        pixel_size_A * factor,
        resolution_factor=options.resolution_factor,
        n_inplanes=options.n_inplanes,
        precision=options.precision,
    )


def _cut(source: StackInput, options: StackOptions) -> tuple[StackTask, ...]:
    """Cut the ordered rows into stacks, anew at each file or set of lens values that must not be mixed."""
    rows = _ordered(source, options.order)
    separate = source.separate_files or options.separate_files
    nothing = np.zeros(len(rows), np.int64)
    file = source.images.path.codes[rows].astype(np.int64) if separate else nothing
    lens = _lens_of(source)[source.optics_of(rows)] if options.split_optics else nothing
    _, first, part_of_row = np.unique(file * len(source.optics) + lens, return_index=True, return_inverse=True)
    by_appearance = np.argsort(np.argsort(first))[part_of_row]
    grouped = rows[np.argsort(by_appearance, kind="stable")]
    tasks: list[StackTask] = []
    for part in np.split(grouped, np.cumsum(np.bincount(by_appearance))[:-1]):
        for start in range(0, len(part), options.batch_size):
            chosen = part[start : start + options.batch_size]
            tasks.append(StackTask(len(tasks), chosen, start if separate else None))
    return tuple(tasks)


def _ordered(source: StackInput, order: str) -> Rows:
    if order == "row":
        return source.rows
    codes = source.images.path.codes[source.rows]
    rank = np.argsort(np.argsort(source.images.path.values))
    return source.rows[np.argsort(rank[codes], kind="stable")]


def _lens_of(source: StackInput) -> Rows:
    """Return for each optics group the number of its set of lens values."""
    values = np.column_stack([getattr(source.optics, item.key) for item in _MICROSCOPE])
    # NaN, a value that is not known, is one value here.
    _, number = np.unique(np.nan_to_num(values, nan=-1.0), axis=0, return_inverse=True)
    return np.asarray(number, np.int64).reshape(-1)


def _note_split(source: StackInput) -> list[Message]:
    lens = _lens_of(source)[source.optics_of(source.rows)]
    n_runs = 1 + int(np.count_nonzero(np.diff(lens)))
    if n_runs <= len(np.unique(lens)):
        return []
    text = (
        "particles with the same voltage, spherical aberration and amplitude contrast are put together; within each "
        "such group rows keep their order"
    )
    return [note("order-changed", text)]


def _check_known(source: StackInput) -> None:
    stored = [item for item in _MICROSCOPE if item.key != "amplitude_contrast"]  # which has a default
    unknown = [item.title for item in unknown_optics(source.particles, stored, of=source.rows)]
    if unknown:
        raise MissingDataError(
            f"the {' and the '.join(unknown)} is not known",
            path=source.particles.source,
            hint="A stack holds both; they must be in the metadata.",
        )


def _refuse_mixed_lens(source: StackInput, tasks: tuple[StackTask, ...]) -> None:
    """Refuse stacks whose particles differ in a lens value of which the format holds one."""
    lens = _lens_of(source)
    mixed = [task for task in tasks if len(np.unique(lens[source.optics_of(task.rows)])) > 1]
    if not mixed:
        return
    groups = np.unique(source.optics_of(mixed[0].rows))
    problems = []
    for item in _MICROSCOPE:
        values = getattr(source.optics, item.key)[groups]
        if len(np.unique(values)) > 1:
            named = zip(source.optics.group_id[groups], values, strict=True)
            problems.append(f"{item.title} ({', '.join(f'group {group}: {value:g}' for group, value in named)})")
    raise CryobridgeError(
        f"stack {mixed[0].number} would mix values of the {' and of the '.join(problems)}",
        path=source.particles.source,
        count=len(mixed),
        hint=f"A stack holds one value of each: {option('split_optics')} starts a new stack for each set of them.",
    )
