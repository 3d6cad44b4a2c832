"""Planning a downsampling: what becomes of which image, and everything that can be checked before the work."""

from __future__ import annotations

import filecmp
import re
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError, OutputExistsError, UsageError, option
from cryobridge.formats.contrast import about_contrast, to_be_inverted
from cryobridge.formats.file_record import state_path
from cryobridge.formats.helical import norm_of_filaments
from cryobridge.formats.image_list import write_image_list
from cryobridge.formats.input_file import resolved
from cryobridge.formats.lease import State, state_of
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_header import HEADER_BYTES
from cryobridge.formats.mrc_write import alone_at, keep_whole, lease_of_partial, partial_path
from cryobridge.formats.particles_pickle import CTF_TABLE, POSES, write_pickles
from cryobridge.formats.plausible import implausible_units
from cryobridge.formats.recovar.input import reading_of_star
from cryobridge.formats.relion.accepted_images import half_precision, not_normalised
from cryobridge.formats.relion.star_write import write_star
from cryobridge.fourier.downsample import Downsampler
from cryobridge.jobs.output_folder import files_in, refuse_existing, remove_existing
from cryobridge.jobs.stacks.checks import Rows, image_box, other_boxes, refuse_larger, refuse_other_box
from cryobridge.jobs.stacks.cropping.metadata import DownsampledMetadata, downsampled_metadata, write_sources
from cryobridge.jobs.stacks.cropping.state import read_state
from cryobridge.jobs.stacks.pixel_size import PIXEL_SIZE_TOLERANCE, with_pixel_size
from cryobridge.jobs.stacks.plan import StackPlan, StackRecord, StackResult, StackTask, fingerprint
from cryobridge.jobs.stacks.report import DownsampleReport
from cryobridge.model.particles import ImageRefs, Labels
from cryobridge.report import Message, counted, note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cryobridge.formats.table import Array
    from cryobridge.jobs.stacks.cropping.transform import SmallTransform
    from cryobridge.jobs.stacks.cropping.writing import OpenSmallStack
    from cryobridge.jobs.stacks.inputs import StackInput
    from cryobridge.jobs.stacks.options import DownsampleOptions, OnMissing
    from cryobridge.model.particles import ParticleSet

_CONTENTS = """\
particles.N.mrcs          the downsampled images, N px; particles.N.0.mrcs … and particles.N.txt where in several files
particles.N.star          their metadata: pixel and image size corrected, shifts in Å as they were
particles.N_sources.csv   the row, file and slice of the source (counted from 0) and the uid of each image
poses.pkl, ctf.pkl        poses and CTF for cryoDRGN and RECOVAR, where they are known"""
# RECOVAR downsamples to this by itself unless an option forbids it.
_RECOVAR_BOX_PX = 256
_N_SHOWN = 3
# Images that stand for all.
_N_SAMPLED = 16


@dataclass(frozen=True)
class DownsamplePlan(StackPlan[DownsampleReport]):
    """Everything needed to make the images.

    Parameters
    ----------
    source, tasks, left_out, messages
        As in `cryobridge.jobs.stacks.plan.StackPlan`.
    options
        What was asked for.
    box_px
        Edge of the images before.
    metadata
        What will be written about the images if all can be used.
    known_inverted
        Which rows are multiplied by -1, for who has not the columns that it follows from.
    """

    options: DownsampleOptions
    box_px: int
    metadata: DownsampledMetadata
    known_inverted: NDArray[np.bool_] | None = None

    contents: ClassVar[str] = _CONTENTS
    # Unfinished stacks are gone on with.
    continues: ClassVar[bool] = True
    uses_torch: ClassVar[bool] = False

    @property
    def unusable(self) -> str:
        """Why images can't be used that are read."""
        constant = ", or a constant background" if self.options.norm_radius_px is not None else ""
        return f"holds NaN or infinity{constant}"

    @property
    def title(self) -> str:
        """What is made, in a few words."""
        return f"{self.source.particles.source.name} downsampled"

    @property
    def on_missing(self) -> OnMissing:
        """What to do about images that can't be used."""
        return self.options.on_missing

    @property
    def image_bytes(self) -> int:
        """How many bytes an image needs."""
        return self.options.box_px**2 * (2 if self.options.half_precision else 4)

    @property
    def smaller(self) -> tuple[int, str] | None:
        """How many bytes an image needs in half precision."""
        return None if self.options.half_precision else (self.image_bytes // 2, f"with {option('half_precision')}")

    @property
    def space_hint(self) -> str:
        """What to do where the disk has too little space."""
        return (
            f"Free some space, choose another disk with {option('output')}, or halve the size with "
            f"{option('half_precision')}."
        )

    @property
    def rows(self) -> Rows:
        """The rows that are written, in their order."""
        return self.source.rows

    @property
    def pixel_sizes_A(self) -> list[float]:
        """The distinct pixel sizes of the images before, in the order of the optics groups."""
        sizes = self.source.optics.pixel_size_A[np.unique(self.source.optics_of(self.rows))]
        return list(dict.fromkeys(np.round(sizes, 6).tolist()))

    @property
    def new_pixel_size_A(self) -> float:
        """The pixel size in the headers of the new stacks; where there are several, the first particle's."""
        first_A = float(self.source.optics.pixel_size_A[self.source.optics_of(self.rows[:1])[0]])
        return first_A * self.box_px / self.options.box_px

    @cached_property
    def inverted(self) -> NDArray[np.bool_] | None:
        """Which rows of the source, (n,), are multiplied by -1; None for none."""
        if not self.options.invert or self.known_inverted is not None:
            return self.known_inverted
        inverted = np.zeros(self.source.particles.n_rows, bool)
        inverted[self.rows] = to_be_inverted(taken_particles(self.source, self.rows))
        return inverted

    @property
    def metadata_names(self) -> dict[str, str]:
        """The files that are written besides the stacks, by what they are."""
        stem = self.options.stem
        names = {"star": f"{stem}.star", "sources": f"{stem}_sources.csv"}
        if self.metadata.has_poses:
            names["poses"] = POSES
        if self.metadata.has_ctf:
            names["ctf"] = CTF_TABLE
        if self.options.chunk is not None:
            names["list"] = f"{stem}.txt"
        return names

    def stack_name(self, task: StackTask) -> str:
        """Return the name of a stack."""
        number = "" if self.options.chunk is None else f".{task.number}"
        return f"{self.options.stem}{number}.mrcs"

    def downsampler(self, device: str = "cpu") -> Downsampler:
        """Return what makes images smaller, and normalises them, on a device."""
        new, radius_px = self.options.box_px, self.options.norm_radius_px
        return Downsampler(self.box_px, new, device, background_radius_px=radius_px, ramp=self.options.ramp)

    def transform(self, device: str) -> SmallTransform:
        """Return what makes images smaller on a device."""
        from cryobridge.jobs.stacks.cropping.transform import SmallTransform

        return SmallTransform(self, device)

    def open_stack(
        self, folder: Path, task: StackTask, _transform: SmallTransform
    ) -> AbstractContextManager[OpenSmallStack]:
        """Write a stack, or go on with it."""
        from cryobridge.jobs.stacks.cropping.writing import open_stack

        return open_stack(self, folder / self.stack_name(task), task)

    def parameters(self, task: StackTask) -> Mapping[str, Array]:
        """Return all that the bytes of a stack depend on, besides its images."""
        boxes = [self.box_px, self.options.box_px, self.options.half_precision]
        radius_px = self.options.norm_radius_px
        return {
            "name": np.array(self.stack_name(task)),
            "boxes": np.array(boxes),
            "pixel_size_A": np.array(self.new_pixel_size_A),
            # Stacks of earlier runs, which knew neither inversion nor norm, are gone on with.
            **({} if self.inverted is None else {"inverted": self.inverted[task.rows]}),
            **({} if radius_px is None else {"background": np.array([radius_px, self.options.ramp])}),
        }

    def files(self, folder: Path, task: StackTask) -> list[Path]:
        """Return the stack, and its state."""
        stack = folder / self.stack_name(task)
        return [stack, state_path(stack)]

    def record(self, folder: Path, task: StackTask) -> StackRecord | None:
        """Return what the state of a stack says."""
        stack = folder / self.stack_name(task)
        state = read_state(stack)
        if state is None:
            return None
        return StackRecord(state.made_from, state.left_out, {} if state.file is None else {stack: state.file})

    def existing(self, folder: Path) -> list[Path]:
        """Return what is there of these outputs; the metadata first, which make a stack count as there."""
        stem = self.options.stem
        there = [folder / name for name in (f"{stem}.star", f"{stem}.txt", f"{stem}_sources.csv", POSES, CTF_TABLE)]
        stacks = sorted({folder / f"{stem}.mrcs", *files_in(folder, f"{stem}.*.mrcs")})
        noted = [*files_in(folder, f".{stem}.*state.json"), *self._sums(folder), *self._dead_leases(folder)]
        found = [*there, *stacks, *self.unfinished(folder), *noted]
        return [path for path in found if path.is_file() or path.is_symlink()]

    def unfinished(self, folder: Path) -> list[Path]:
        """Return the stacks that an ended run has not finished."""
        return files_in(folder, f".{self.options.stem}.*mrcs.part")

    def keep_whole(self, folder: Path, tasks: Sequence[StackTask] | None = None) -> tuple[Message, ...]:
        """Cut off what is damaged in unfinished stacks, all or these, before they are gone on with, and say so."""
        messages = []
        own = None if tasks is None else {folder / self.stack_name(task) for task in tasks}
        for partial in self.unfinished(folder):
            stack = _stack_of(partial)
            if own is not None and stack not in own:
                continue
            if state_of(lease_of_partial(stack)) is not State.DEAD:
                continue  # a worker of a run that was killed is at it, whom `alone` waits for
            if n_cut := keep_whole(stack, self.image_bytes):
                text = (
                    f"the unfinished {stack.name}: {counted(n_cut, 'image has', 'images have')} no "
                    "checksum that fits, made again now"
                )
                messages.append(note("stacks-made-again", text, where=partial))
        # A run that was killed when a stack had just got its name left these behind.
        beside = [*self._sums(folder), *self._dead_leases(folder)]
        remove_existing([path for path in beside if not path.with_suffix("").exists()])
        return tuple(messages)

    def _sums(self, folder: Path) -> list[Path]:
        return files_in(folder, f".{self.options.stem}.*mrcs.part.sums")

    def _dead_leases(self, folder: Path) -> list[Path]:
        leases = files_in(folder, f".{self.options.stem}.*mrcs.part.lease")
        return [lease for lease in leases if state_of(lease) is State.DEAD]

    @contextmanager
    def alone(self, folder: Path, task: StackTask) -> Iterator[None]:
        """Keep others from a stack, or wait for them; what they left of it is cut to what is whole."""
        stack = folder / self.stack_name(task)
        with alone_at(stack):
            if partial_path(stack).exists():
                keep_whole(stack, self.image_bytes)
            yield

    def check_folder(self, folder: Path, *, resume: bool, overwrite: bool) -> bool:
        """Refuse a folder that is read from, that holds images of another size, or stacks that can't be gone on with.

        Returns
        -------
        bool
            Whether stacks in the folder are gone on with.

        Raises
        ------
        UsageError
            If it is one of these.
        OutputExistsError
            If an interrupted run left stacks, and neither overwriting nor resuming was asked for.
        """
        self._refuse_inputs(folder)
        self._refuse_other_sizes(folder)
        if resume and any(read_state(folder / self.stack_name(task)) for task in self.tasks):
            self._refuse_unlike(folder)
            return True
        unfinished = self.unfinished(folder)
        if unfinished and not overwrite:
            goes_on = "" if resume else f"{option('resume')} goes on with it, "
            raise OutputExistsError(
                "an interrupted run left this",
                path=unfinished[0],
                hint=f"{goes_on}{option('overwrite')} begins anew.",
            )
        return False

    def for_workers(self) -> DownsamplePlan:
        """Return the plan with no more than the making of stacks needs."""
        plan = super().for_workers()
        assert isinstance(plan, DownsamplePlan)
        return replace(plan, metadata=DownsampledMetadata((), None), known_inverted=self.inverted)

    def check_part(self, folder: Path) -> None:
        """Refuse a folder that is read from, or that holds images of another size, or stacks of other images."""
        self._refuse_inputs(folder)
        self._refuse_other_sizes(folder)
        self._refuse_unlike(folder)

    def _refuse_inputs(self, folder: Path) -> None:
        read = [self.source.particles.source, *(header.path for header in self.source.headers.values())]
        read += [path for path in (self.options.indices, self.options.poses, self.options.ctf) if path is not None]
        names = (*self.metadata_names.values(), POSES, CTF_TABLE, *map(self.stack_name, self.tasks))
        outputs = {resolved(path) for path in (*self.existing(folder), *(folder / name for name in names))}
        same = [path for path in read if resolved(path) in outputs]
        if same:
            hint = f"Give another {option('output')}."
            raise UsageError("this file is read; it can't be an output too", path=same[0], hint=hint)

    def _refuse_other_sizes(self, folder: Path) -> None:
        others = [path for path in files_in(folder, "particles.*.star") if path.name != f"{self.options.stem}.star"]
        others = [path for path in others if re.fullmatch(r"particles\.\d+\.star", path.name)]
        if others:
            raise UsageError(
                "images of another size are there, which poses.pkl and ctf.pkl belong to",
                path=others[0],
                hint=f"Give each size a folder of its own with {option('output')}.",
            )

    def _refuse_unlike(self, folder: Path) -> None:
        """Refuse to go on with stacks that were made from something else, or by somebody else."""
        planned = {folder / self.stack_name(task): task for task in self.tasks}
        stem = self.options.stem
        stacks = [path for path in (folder / f"{stem}.mrcs", *files_in(folder, f"{stem}.*.mrcs")) if path.is_file()]
        stacks += map(_stack_of, self.unfinished(folder))
        stacks += [path.with_name(path.name[1:].removesuffix(".state.json")) for path in self._states(folder)]
        for stack in stacks:
            state, task = read_state(stack), planned.get(stack)
            if state is None:
                refuse_existing([stack, partial_path(stack)], overwrite=False)
            elif task is None or state.made_from != fingerprint(self, task):
                raise UsageError(
                    "the stacks that are there were made from other images, or with other options",
                    path=folder,
                    hint=f"Give the options of that run, or begin anew with {option('overwrite')}.",
                )

    def _states(self, folder: Path) -> list[Path]:
        return files_in(folder, f".{self.options.stem}.*mrcs.state.json")

    def remaining(self, folder: Path, task: StackTask) -> Rows:
        """Return the rows of a stack whose images are not yet written."""
        stack = folder / self.stack_name(task)
        state = read_state(stack)
        if state is None:
            return task.rows
        usable = task.rows[~np.isin(task.rows, state.left_out)]
        partial = partial_path(stack)
        n_bytes = partial.stat().st_size if partial.is_file() else 0
        return usable[max(0, n_bytes - HEADER_BYTES) // self.image_bytes :]

    def refuse_unusable(self, rows: Rows) -> None:
        """Raise the error that the images of these rows are not finite, or can't be normalised."""
        source, row = self.source, int(rows[0])
        path = source.headers[int(source.images.path.codes[row])].path
        why = "holds NaN or infinity, which would spread over all of it"
        if self.options.norm_radius_px is not None:
            image = open_mrc(path).read(source.images.index[[row]])
            if np.isfinite(image).all():
                why = f"has a constant background, which {option('normalise')} can't give a deviation of 1"
        raise CryobridgeError(
            f"image {source.images.index[row] + 1} {why}",
            path=path,
            rows=tuple(source.metadata_rows[rows[:_N_SHOWN]].tolist()),
            count=len(rows),
            hint=f"Leave such images out with {option('on_missing', 'skip')}, or take these rows out of "
            f"{source.particles.source}.",
        )

    def finish(self, folder: Path, left_out: Rows) -> None:
        """Write the metadata of the images that there are."""
        kept, images = _new_images(self, left_out)
        if len(kept) == 0:
            raise MissingDataError(
                "no image can be used", path=self.source.particles.source, hint="Check the image files."
            )
        metadata, names = self.metadata, self.metadata_names
        if len(left_out):
            metadata = downsampled_metadata(self.source, kept, images, self.box_px, self.options.box_px)
        if metadata.pickles is not None:
            write_pickles(folder, metadata.pickles)
        write_sources(folder / names["sources"], self.source, kept, images)
        if "list" in names:
            write_image_list(folder / names["list"], [folder / self.stack_name(task) for task in self.tasks])
        write_star(folder / names["star"], metadata.blocks)

    def has_shared(self, folder: Path, left_out: Rows) -> bool:
        """Whether the metadata are there, as they would be written."""
        names = [*self.metadata_names.values()]
        if not all((folder / name).is_file() for name in names):
            return False
        try:
            with TemporaryDirectory() as made:
                self.finish(Path(made), left_out)
                return filecmp.cmpfiles(folder, made, names, shallow=False)[1:] == ([], [])
        except (CryobridgeError, OSError):  # no space beside, for one
            return False

    def planned_report(self, folder: Path) -> DownsampleReport:
        """Return what will be made in a folder, if all images can be used."""
        new = self.options.box_px
        before = tuple(self.pixel_sizes_A)
        return DownsampleReport(
            rows_in=self.source.particles.n_rows,
            rows_out=self.n_images,
            left_out=dict(self.left_out),
            messages=self.messages,
            outputs=tuple(folder / name for name in self.metadata_names.values()),
            stacks=tuple(folder / self.stack_name(task) for task in self.tasks),
            box_px=(self.box_px, new),
            pixel_size_A=(before, tuple(round(size * self.box_px / new, 6) for size in before)),
            optics_groups=len(self.source.optics),
            precision="float16" if self.options.half_precision else "float32",
            inverted=0 if self.inverted is None else int(np.count_nonzero(self.inverted)),
            background_radius_px=() if self.options.norm_radius_px is None else (self.options.norm_radius_px,),
            ramp=None if self.options.norm_radius_px is None else self.options.ramp,
            poses=self.metadata.has_poses,
            ctf=self.metadata.has_ctf,
            dropped_columns=self.metadata.dropped_columns,
            next=self._next(folder),
        )

    def report_of_part(self, folder: Path, results: Sequence[StackResult], n_kept: int) -> DownsampleReport:
        """Return what is made of the stacks; the metadata follow when all parts are there."""
        return replace(self.report(folder, results, n_kept), outputs=(), next=None)

    def report_so_far(self, folder: Path, results: Sequence[StackResult], n_kept: int) -> DownsampleReport:
        """Return what is made when only these stacks are whole; the metadata follow when all are."""
        return replace(super().report_so_far(folder, results, n_kept), outputs=(), next=None)

    def _next(self, folder: Path) -> tuple[str, ...] | None:
        """Return the command that takes the images further; None where none can."""
        if not self.tasks:
            return None
        names = self.metadata_names
        star, stack = folder / names["star"], folder / names.get("list", self.stack_name(self.tasks[0]))
        output = folder.with_name(f"{folder.name}_recovar")
        blocks = {block.name: block for block in self.metadata.blocks}
        main = "particles" if self.source.star is None else self.source.star.main
        reading = reading_of_star(star, blocks[main], blocks.get("optics"))
        if "poses" in names and "ctf" in names and reading.is_right:
            more = ["--no-downsample"] if self.options.box_px > _RECOVAR_BOX_PX else []
            more += reading.options
            return ("recovar", "pipeline", str(star), "-o", str(output), "--mask", "from_halfmaps", *more)
        if "ctf" in names:
            output = folder.with_name(f"{folder.name}_abinit")
            table = str(folder / CTF_TABLE)
            return ("cryodrgn", "abinit", str(stack), "--ctf", table, "--zdim", "8", "-o", str(output))
        return None


def plan_downsample(source: StackInput, options: DownsampleOptions) -> DownsamplePlan:
    """Plan the files, and check all that metadata and headers show.

    Parameters
    ----------
    source
        As `cryobridge.jobs.stacks.cropping.inputs.read_downsample_input` returns it.
    options
        What is asked for.

    Returns
    -------
    DownsamplePlan
        What `cryobridge.jobs.stacks.run.StackJob` carries out.

    Raises
    ------
    CryobridgeError
        If image files are missing or unreadable, boxes disagree or are smaller than asked for, or values of the
        metadata are impossible. Everything that is wrong is in the one error.
    """
    problems = source.problems
    box_px = None
    messages = [*source.messages]
    with problems.collect():
        source, sizes = with_pixel_size(source, options.pixel_size_A)
        messages += sizes.messages
    with problems.collect():
        box_px = _square_box(source)
    with problems.collect():
        if box_px is not None:
            refuse_larger(options.box_px, box_px)
    with problems.collect():
        if box_px is not None and source.particles.optics is not None:
            groups = np.unique(source.optics_of(source.rows))
            refuse_other_box(
                other_boxes(source.optics, groups, (box_px, box_px)), (box_px, box_px), source.particles.source
            )
    problems.raise_all()
    if box_px is None:
        raise MissingDataError(
            "no particle has an image",
            path=source.particles.source,
            hint=f"Say where the stacks are with {option('datadir')}.",
        )
    tasks = _tasks(source.rows, options.chunk)
    unmade = DownsamplePlan(source, tasks, source.left_out, (), options, box_px, DownsampledMetadata((), None))
    metadata = downsampled_metadata(source, *_new_images(unmade), box_px, options.box_px)
    taken = taken_particles(source, source.rows)
    messages += _about_sizes(unmade)
    messages += metadata.messages
    messages += implausible_units(taken)
    messages += about_contrast(taken, "RELION and cryoDRGN take", invert=options.invert)
    messages += norm_of_filaments(taken) if options.normalise is not None else []
    messages += _about_images(unmade)
    return replace(unmade, messages=tuple(messages), metadata=metadata)


def taken_particles(source: StackInput, rows: Rows) -> ParticleSet:
    """Return the particles of these rows; the set itself where they are all."""
    n = source.particles.n_rows
    return source.particles if np.array_equal(rows, np.arange(n)) else source.particles.take(rows)


def _square_box(source: StackInput) -> int | None:
    box = image_box(source)
    if box is None:
        return None
    ny, nx = box
    if ny != nx:
        raise CryobridgeError(
            f"the images have {ny} × {nx} px; only square ones are downsampled",
            path=source.headers[int(source.images.path.codes[source.rows[0]])].path,
            hint="RECOVAR, cryoDRGN and RELION take square images only; extract the particles in square boxes.",
        )
    return nx


def _about_sizes(plan: DownsamplePlan) -> list[Message]:
    """Return messages on the box, and on several pixel sizes."""
    messages = []
    box_px, new = plan.box_px, plan.options.box_px
    if new == box_px:
        messages.append(note("box-same", f"the images have {box_px} px already; they are not resampled"))
    elif box_px % 2:
        text = f"the centre of the {box_px} px, pixel {box_px // 2}, becomes pixel {new // 2}"
        messages.append(note("centre", text))
    sizes_A = plan.source.optics.pixel_size_A[np.unique(plan.source.optics_of(plan.rows))]
    if np.ptp(sizes_A) > PIXEL_SIZE_TOLERANCE * sizes_A[0]:
        text = (
            f"{len(np.unique(sizes_A))} pixel sizes: each optics group keeps its own, the header has the first "
            "particle's"
        )
        messages.append(note("pixel-sizes", text))
    return messages


def _about_images(plan: DownsamplePlan) -> list[Message]:
    """Warn of new images that RELION does not take, by a few of them."""
    messages = half_precision("the new stacks are") if plan.options.half_precision else []
    shrink, made = plan.downsampler(), []
    for row in plan.rows[:: max(1, len(plan.rows) // _N_SAMPLED)][:_N_SAMPLED]:
        header = plan.source.headers[int(plan.source.images.path.codes[row])]
        if header.whole_sections is not None:  # a compressed stack would be unpacked as a whole
            made.append(shrink(open_mrc(header.path).read(plan.source.images.index[[row]]))[0])
    # What can't be used at all is found when it is read.
    usable = [image for image in made if np.isfinite(image).all()]
    return [*messages, *not_normalised(usable, f"add {option('normalise', 'auto')}")]


def _stack_of(partial: Path) -> Path:
    """Return what an unfinished stack would become."""
    return partial.with_name(partial.name[1:].removesuffix(".part"))


def _tasks(rows: Rows, chunk: int | None) -> tuple[StackTask, ...]:
    starts = range(0, len(rows), chunk or max(1, len(rows)))
    return tuple(StackTask(number, rows[first : first + (chunk or len(rows))]) for number, first in enumerate(starts))


def _new_images(plan: DownsamplePlan, left_out: Rows | None = None) -> tuple[Rows, ImageRefs]:
    """Return the rows that have a new image, all but those left out, and where it is."""
    without = np.zeros(0, np.int64) if left_out is None else left_out
    kept = [task.rows[~np.isin(task.rows, without)] for task in plan.tasks]
    numbers = np.repeat(np.arange(len(kept), dtype=np.int32), [len(rows) for rows in kept])
    labels = Labels(numbers, tuple(map(plan.stack_name, plan.tasks)))
    return np.concatenate(kept), ImageRefs(labels, np.concatenate([np.arange(len(rows)) for rows in kept]))
