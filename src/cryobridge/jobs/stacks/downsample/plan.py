"""Planning a downsampling: what becomes of which image, and everything that can be checked before the work."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.particles_write import dark_particles
from cryobridge.formats.plausible import implausible_units
from cryobridge.jobs.stacks.checks import (
    PIXEL_SIZE_TOLERANCE,
    Rows,
    compare_with_headers,
    one_box,
    other_boxes,
    refuse_other_box,
)
from cryobridge.jobs.stacks.downsample.metadata import DownsampledMetadata, downsampled_metadata
from cryobridge.model.particles import ImageRefs, Labels
from cryobridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.jobs.stacks.downsample.inputs import DownsampleInput
    from cryobridge.jobs.stacks.downsample.options import DownsampleOptions

# RECOVAR downsamples to this by itself unless it is told not to.
_RECOVAR_BOX_PX = 256


@dataclass(frozen=True)
class OutputStack:
    """One file of downsampled images, and the particles that it is made of, by their place among those taken."""

    name: str
    places: Rows


@dataclass(frozen=True)
class DownsamplePlan:
    """Everything needed to make the images.

    Parameters
    ----------
    source
        The particles and their image files.
    options
        What was asked for.
    box_px
        Edge of the images before.
    stacks
        The files to make.
    metadata
        What will be written about the images if all can be used.
    notes
        What was assumed, in sentences.
    warnings
        What may be wrong, in sentences.
    """

    source: DownsampleInput
    options: DownsampleOptions
    box_px: int
    stacks: tuple[OutputStack, ...]
    metadata: DownsampledMetadata
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def pixel_sizes_A(self) -> list[float]:
        """The distinct pixel sizes of the images before, in the order of the optics groups."""
        optics, index = self.source.particles.optics, self.source.particles.optics_index
        assert optics is not None and index is not None
        sizes = optics.pixel_size_A[np.unique(index)]
        return list(dict.fromkeys(np.round(sizes, 6).tolist()))

    @property
    def new_pixel_size_A(self) -> float:
        """The pixel size in the headers of the new stacks; where there are several, the first particle's."""
        first_A = float(self.source.particles.per_particle("pixel_size_A")[0])
        return first_A * self.box_px / self.options.box_px

    def names(self) -> dict[str, str]:
        """Return the files that are written besides the stacks, by what they are."""
        stem = self.options.stem
        names = {"star": f"{stem}.star", "sources": f"{stem}_sources.csv"}
        if self.metadata.has_poses:
            names["poses"] = "poses.pkl"
        if self.metadata.has_ctf:
            names["ctf"] = "ctf.pkl"
        if self.options.chunk is not None:
            names["list"] = f"{stem}.txt"
        return names

    def new_images(self, left_out: Rows) -> tuple[Rows, ImageRefs]:
        """Return the particles that have a new image, all but those left out, and where it is."""
        kept, codes, index = [], [], []
        for code, stack in enumerate(self.stacks):
            places = np.setdiff1d(stack.places, left_out, assume_unique=True)
            kept.append(places)
            codes.append(np.full(len(places), code, np.int32))
            index.append(np.arange(len(places)))
        labels = Labels(np.concatenate(codes), tuple(stack.name for stack in self.stacks))
        return np.concatenate(kept), ImageRefs(labels, np.concatenate(index))

    def fingerprint(self) -> str:
        """Return a digest of all that the bytes of the stacks depend on, size and age of the image files included.

        Raises
        ------
        OSError
            If an image file has vanished.
        """
        options, images = self.options, self.source.images
        parts = (__version__, self.box_px, options.box_px, options.chunk, options.half_precision, options.on_missing)
        digest = hashlib.sha256(repr((*parts, self.new_pixel_size_A)).encode())
        for array in (images.path.codes, images.index, self.source.source_rows):
            digest.update(np.ascontiguousarray(array).tobytes())
        for code in np.unique(images.path.codes).tolist():
            status = self.source.headers[code].path.stat()
            digest.update(f"{images.path.values[code]} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def plan_downsample(source: DownsampleInput, options: DownsampleOptions) -> DownsamplePlan:
    """Plan the files, and check all that metadata and headers can tell.

    Parameters
    ----------
    source
        As `cryobridge.jobs.stacks.downsample.inputs.read_downsample_input` returns it.
    options
        What is asked for.

    Returns
    -------
    DownsamplePlan
        What `cryobridge.jobs.stacks.downsample.execute.downsample` carries out.

    Raises
    ------
    CryobridgeError
        If image files are missing or unreadable, boxes disagree or are smaller than asked for, or values of the
        metadata are impossible. Everything that is wrong is in the one error.
    """
    findings = source.findings
    box_px = None
    with findings.collect():
        box_px = _box(source)
    with findings.collect():
        if box_px is not None and options.box_px > box_px:
            raise UsageError(
                f"-D {options.box_px}: the images have {box_px} px, and cropping can't enlarge them",
                hint=f"Use {box_px - box_px % 2} or less.",
            )
    with findings.collect():
        if box_px is not None:
            _refuse_other_box(source, box_px)
    if findings.errors:
        findings.raise_all()
    if box_px is None:
        raise MissingDataError(
            "no particle has an image",
            path=source.particles.source,
            hint="Say where the images are with --folder-mrc or --datadir.",
        )
    stacks = _stacks(len(source.particles), options)
    unmade = DownsamplePlan(source, options, box_px, stacks, DownsampledMetadata((), None, (), ()))
    metadata = downsampled_metadata(source, *unmade.new_images(np.zeros(0, np.int64)), box_px, options.box_px)
    notes, warnings = _told_of_sizes(source, box_px, options)
    return DownsamplePlan(
        source,
        options,
        box_px,
        stacks,
        metadata,
        (*source.notes, *notes, *metadata.notes),
        (
            *source.warnings,
            *map(str, implausible_units(source.particles)),
            *warnings,
            *metadata.warnings,
            *_told_of_contrast(source),
        ),
    )


def _box(source: DownsampleInput) -> int | None:
    used = np.unique(source.images.path.codes).tolist()
    headers = [source.headers[code] for code in used if code in source.headers]
    if not headers:
        return None
    ny, nx = one_box(headers)
    if ny != nx:
        raise CryobridgeError(
            f"the images have {ny} × {nx} px; only square ones are downsampled",
            path=headers[0].path,
            hint="RECOVAR, cryoDRGN and RELION take square images only; extract the particles in square boxes.",
        )
    return nx


def _refuse_other_box(source: DownsampleInput, box_px: int) -> None:
    optics, index = source.particles.optics, source.particles.optics_index
    if optics is None or index is None:
        return  # then there is no pixel size either, which is told
    box = (box_px, box_px)
    refuse_other_box(other_boxes(optics, np.unique(index).astype(np.int64), box), box, source.particles.source)


def _told_of_sizes(
    source: DownsampleInput, box_px: int, options: DownsampleOptions
) -> tuple[Sequence[str], Sequence[str]]:
    """Return notes and warnings on the box and the pixel size."""
    assert source.particles.optics is not None and source.particles.optics_index is not None
    sizes_A = source.particles.optics.pixel_size_A[np.unique(source.particles.optics_index)]
    notes, warnings = compare_with_headers(sizes_A, source.particles.source.name, source.headers.values())
    if options.box_px == box_px:
        notes.append(f"the images have {box_px} px already; they are copied as they are")
    elif box_px % 2:
        notes.append(f"the centre of the {box_px} px, pixel {box_px // 2}, becomes pixel {options.box_px // 2}")
    if np.ptp(sizes_A) > PIXEL_SIZE_TOLERANCE * sizes_A[0]:
        n_sizes = len(np.unique(sizes_A))
        notes.append(f"{n_sizes} pixel sizes: each optics group keeps its own, the header has the first particle's")
    return notes, warnings


def _told_of_contrast(source: DownsampleInput) -> list[str]:
    dark = dark_particles(source.particles)
    readers = "RECOVAR finds the sign by itself, cryoDRGN needs --uninvert-data, and RELION takes bright ones"
    return [f"{dark}: {readers}"] if dark else []


def _stacks(n_images: int, options: DownsampleOptions) -> tuple[OutputStack, ...]:
    places = np.arange(n_images)
    if options.chunk is None:
        return (OutputStack(f"{options.stem}.mrcs", places),)
    starts = range(0, n_images, options.chunk)
    return tuple(
        OutputStack(f"{options.stem}.{number}.mrcs", places[first : first + options.chunk])
        for number, first in enumerate(starts)
    )


def plan_report(plan: DownsamplePlan, folder: Path) -> dict[str, Any]:
    """Return what a plan will make in a folder, as JSON-ready data."""
    new, optics = plan.options.box_px, plan.source.particles.optics
    assert optics is not None
    factor = plan.box_px / new
    names = plan.names()
    return {
        "images_in": plan.source.n_source_rows,
        "images_out": len(plan.source.particles),
        "left_out": dict(plan.source.left_out),
        "box_px": [plan.box_px, new],
        "pixel_size_A": [plan.pixel_sizes_A, [round(size * factor, 6) for size in plan.pixel_sizes_A]],
        "optics_groups": len(optics),
        "precision": "float16" if plan.options.half_precision else "float32",
        "poses": plan.metadata.has_poses,
        "ctf": plan.metadata.has_ctf,
        "not_held": list(plan.metadata.not_held),
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "stacks": [str(folder / stack.name) for stack in plan.stacks],
        "outputs": [str(folder / name) for name in names.values()],
        "next": next_command(plan, folder),
    }


def next_command(plan: DownsamplePlan, folder: Path) -> list[str] | None:
    """Return the command that takes the images further; None where none can."""
    star, stack = folder / f"{plan.options.stem}.star", folder / plan.stacks[0].name
    if plan.options.chunk is not None:
        stack = folder / f"{plan.options.stem}.txt"
    output = folder.with_name(f"{folder.name}_recovar")
    if plan.metadata.has_poses and plan.metadata.has_ctf:
        larger = ["--no-downsample"] if plan.options.box_px > _RECOVAR_BOX_PX else []
        return ["recovar", "pipeline", str(star), "-o", str(output), "--mask", "from_halfmaps", *larger]
    if plan.metadata.has_ctf:
        output = folder.with_name(f"{folder.name}_abinit")
        return ["cryodrgn", "abinit", str(stack), "--ctf", str(folder / "ctf.pkl"), "--zdim", "8", "-o", str(output)]
    return None
