"""Planning output stacks: which images go into which stack, and everything that can be checked before the work.

A plan is a list of independent tasks, one an output stack, so that where they run is a choice made outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.descriptor import ImageDescriptor
from cryobridge.formats.plausible import implausible_units
from cryobridge.fourier.grid import PolarGrid
from cryobridge.jobs.stacks.checks import (
    Rows,
    compare_with_headers,
    one_box,
    one_pixel_size,
    other_boxes,
    refuse_other_box,
    same_size,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.jobs.stacks.inputs import StackInput
    from cryobridge.jobs.stacks.options import StackOptions
    from cryobridge.model.particles import Floats

_LENS_VALUES = {
    "voltage_kV": "voltage",
    "spherical_aberration_mm": "spherical aberration",
    "amplitude_contrast": "amplitude contrast",
}


@dataclass(frozen=True)
class StackTask:
    """One output stack.

    Parameters
    ----------
    number
        Its running number, from 0.
    rows
        Rows of the particle set in the order of its images.
    start
        Position of the first image among those of its file, where stacks never mix files; None elsewhere.
    """

    number: int
    rows: Rows
    start: int | None = None


@dataclass(frozen=True)
class StackPlan:
    """Everything needed to make the stacks.

    Parameters
    ----------
    source
        The particles and their image files.
    options
        What was asked for.
    descriptor
        The images, after binning, and the polar grid.
    ref_pixel_size_A
        The pixel size that the metadata give, before binning; None where they are silent, or don't count.
    tasks
        The stacks to make.
    left_out
        How many particles are in none of them, by the reason.
    notes
        What was assumed, in sentences.
    warnings
        What may be wrong, in sentences.
    """

    source: StackInput
    options: StackOptions
    descriptor: ImageDescriptor
    ref_pixel_size_A: float | None
    tasks: tuple[StackTask, ...]
    left_out: dict[str, int]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def grid(self) -> PolarGrid:
        """The polar grid of the transforms."""
        return PolarGrid(self.descriptor.radius_max, self.descriptor.dist_radii, self.descriptor.n_inplanes)


@dataclass(frozen=True)
class _PixelSize:
    """The pixel size before binning in Å, that of the metadata, and what is to be told of them; None is not known."""

    size_A: float | None
    of_metadata_A: float | None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


def plan_stacks(source: StackInput, options: StackOptions) -> StackPlan:
    """Plan the stacks, and check all that metadata and headers can tell.

    Parameters
    ----------
    source
        The particles and their image files, as `cryobridge.jobs.stacks.inputs.indexed_input` returns them.
    options
        What is asked for.

    Returns
    -------
    StackPlan
        What `cryobridge.jobs.stacks.convert.convert_stacks` carries out.

    Raises
    ------
    CryobridgeError
        If image files are missing or unreadable, or boxes, pixel sizes or the lens values within a stack disagree.
        Everything that is wrong is in the one error.
    """
    findings = source.findings
    box = None
    pixel_size = _PixelSize(None, None)
    notes = list(source.notes)
    warnings = [*source.warnings, *map(str, implausible_units(source.particles))]
    used = np.unique(source.images.path.codes[source.rows])
    headers = [source.headers[code] for code in used.tolist() if code in source.headers]
    metadata = source.particles.source
    with findings.collect():
        box = one_box(headers) if headers else None
    with findings.collect():
        if box is not None:
            warnings += _check_box(source, box, options)
    with findings.collect():
        pixel_size = _pixel_size(source, options)
        notes += pixel_size.notes
        warnings += pixel_size.warnings
    with findings.collect():
        if box is not None:
            _check_binning(box, options.downsample_factor)
    with findings.collect():
        if box is not None and options.descriptor is not None:
            _check_grid(options.descriptor, box, pixel_size.size_A, options.downsample_factor)
    tasks: tuple[StackTask, ...] = ()
    with findings.collect():
        _check_known(source)
        if options.split_optics:
            notes += _note_split(source)
        tasks = _cut(source, options)
        _refuse_mixed_lens(source, tasks)
    findings.raise_all()
    if len(source.rows) == 0 or box is None:
        raise MissingDataError(
            "no particle has an image", path=metadata, hint="Say where the images are with --folder-mrc or --datadir."
        )
    descriptor = options.descriptor or _default_grid(box, pixel_size.size_A, source, options)
    kept = tasks[: options.n_stacks_max]
    beyond = sum(len(task.rows) for task in tasks[len(kept) :])
    left_out = source.left_out | ({"beyond the number of stacks asked for": beyond} if beyond else {})
    ref_A = pixel_size.of_metadata_A
    return StackPlan(source, options, descriptor, ref_A, kept, left_out, tuple(notes), tuple(warnings))


def _parameters_stand(source: StackInput, options: StackOptions) -> bool:
    """Whether the parameter file stands against what the metadata say of the images."""
    return source.separate_files and options.descriptor is not None


def _check_box(source: StackInput, box: tuple[int, int], options: StackOptions) -> list[str]:
    """Refuse metadata of images of another box; a warning where the parameter file stands."""
    groups = source.optics_of(source.rows)
    others = other_boxes(source.optics, np.unique(groups), box)
    if not others:
        return []
    first = source.rows[np.flatnonzero(source.optics.box_px[groups] == others[0])[0]]
    # A pair is known by its stack.
    stack = source.headers[int(source.images.path.codes[first])].path
    if not _parameters_stand(source, options):
        refuse_other_box(others, box, stack if source.separate_files else source.particles.source)
    return [
        f"box: the STAR file of {stack.name} says {others[0]} px, but the images have {box[0]} px; box and pixel size "
        "of the parameter file stand"
    ]


def _pixel_size(source: StackInput, options: StackOptions) -> _PixelSize:
    """Return the pixel size before binning: the metadata's, else the one given by hand, else the image files'."""
    if _parameters_stand(source, options):
        return _pixel_size_of_parameters(source, options)
    metadata = source.particles.source
    size_A = one_pixel_size(_sizes_of_metadata(source), metadata)
    given_A = options.pixel_size_A
    if size_A is not None and given_A is not None and not same_size(given_A, size_A):
        raise CryobridgeError(
            f"--pixel-size {given_A:g} contradicts the {size_A:g} Å of the metadata",
            path=metadata,
            hint="Leave --pixel-size out, or correct the metadata.",
        )
    chosen_A, who_says = (given_A, "--pixel-size") if size_A is None else (size_A, metadata.name)
    if chosen_A is not None:
        told = compare_with_headers(np.array([chosen_A]), who_says, source.headers.values())
        return _PixelSize(chosen_A, size_A, *told)
    in_headers = [header.pixel_size_A for header in source.headers.values() if header.pixel_size_A]
    if in_headers:
        size_A = one_pixel_size(in_headers, metadata)
        return _PixelSize(size_A, None, [f"the pixel size is that of the image files: {size_A:g} Å"])
    if not source.headers:
        return _PixelSize(None, None)  # that is an error of its own
    if options.descriptor is not None:
        size_A = options.descriptor.pixel_size_A[0] / options.downsample_factor
        return _PixelSize(size_A, None, [f"the pixel size is that of the parameter file: {size_A:g} Å"])
    raise MissingDataError(
        "neither the metadata nor the image files say the pixel size",
        path=metadata,
        hint="Give it with --pixel-size, in Å.",
    )


def _pixel_size_of_parameters(source: StackInput, options: StackOptions) -> _PixelSize:
    """Return the pixel size of the parameter file, which stands in CryoLike's paired mode, or the one given by hand.

    One by hand that contradicts the parameter file is refused together with its box.
    """
    assert options.descriptor is not None
    size_A = options.pixel_size_A or options.descriptor.pixel_size_A[0] / options.downsample_factor
    known_A = _sizes_of_metadata(source)
    known_A = known_A[np.isfinite(known_A) & (known_A > 0)]
    others_A = np.unique([other for other in known_A.tolist() if not same_size(other, size_A)])
    warnings = []
    if len(others_A):
        told = ", ".join(f"{other:g}" for other in others_A[:3])
        name = source.particles.source.name
        warnings.append(f"pixel size: {name} says {told} Å, but the parameter file {size_A:g} Å, which stands")
    notes, more = compare_with_headers(np.array([size_A]), "the parameter file", source.headers.values())
    return _PixelSize(size_A, size_A if len(known_A) and not warnings else None, notes, [*warnings, *more])


def _sizes_of_metadata(source: StackInput) -> Floats:
    """Return the pixel size in Å of each optics group that has rows."""
    return source.optics.pixel_size_A[np.unique(source.optics_of(np.arange(source.particles.n_rows)))]


def _check_binning(box: tuple[int, int], factor: int) -> None:
    if any(side % factor for side in box):
        raise UsageError(
            f"a box of {box[0]} × {box[1]} pixels is not a whole number of blocks of {factor}",
            field="downsample_factor",
            hint="Choose an even number that divides the box.",
        )


def _check_grid(descriptor: ImageDescriptor, box: tuple[int, int], pixel_size_A: float | None, factor: int) -> None:
    binned = (box[0] // factor, box[1] // factor)
    after = f" after binning by {factor}" if factor > 1 else ""
    hint = "Use the parameter file that was made for these images, or leave -p out."
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
            hint="Give a parameter file with -p.",
        )
    assert pixel_size_A is not None  # or there was a finding
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
    values = np.column_stack([getattr(source.optics, name) for name in _LENS_VALUES])
    # NaN, a value that is not known, is one value here.
    _, number = np.unique(np.nan_to_num(values, nan=-1.0), axis=0, return_inverse=True)
    return np.asarray(number, np.int64).reshape(-1)


def _note_split(source: StackInput) -> list[str]:
    lens = _lens_of(source)[source.optics_of(source.rows)]
    n_runs = 1 + int(np.count_nonzero(np.diff(lens)))
    if n_runs <= len(np.unique(lens)):
        return []
    return ["particles of one set of lens values were put together, so the order of the rows is kept within each only"]


def _check_known(source: StackInput) -> None:
    groups = np.unique(source.optics_of(source.rows))
    unknown = [
        _LENS_VALUES[name]
        for name in ("voltage_kV", "spherical_aberration_mm")
        if np.isnan(getattr(source.optics, name)[groups]).any()
    ]
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
    for name, title in _LENS_VALUES.items():
        values = getattr(source.optics, name)[groups]
        if len(np.unique(values)) > 1:
            named = zip(source.optics.group_id[groups], values, strict=True)
            problems.append(f"{title} ({', '.join(f'group {group}: {value:g}' for group, value in named)})")
    raise CryobridgeError(
        f"stack {mixed[0].number} would mix values of the {' and of the '.join(problems)}",
        path=source.particles.source,
        count=len(mixed),
        hint="A stack holds one value of each: --split-optics starts a new stack for each set of them.",
    )
