"""Fourier stacks under CryoLike's names and parameters, so that a script of its runs after a change of import.

Differences from CryoLike: ``params_input`` may be None (the default grid of the data), existing stacks are refused
without ``overwrite``, ``skip_exist`` works, and every function returns a `cryobridge.jobs.stacks.report.StacksReport`,
whose warnings are also Python's. docs/stacks.md lists the others.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.executors.devices import DeviceExecutor
from cryobridge.formats.descriptor import (
    ImageDescriptor,
    descriptor_of,
    read_image_descriptor,
    write_image_descriptor,
)
from cryobridge.formats.listing import is_there
from cryobridge.jobs.shared_options import ImageSearchOptions
from cryobridge.jobs.stacks.checks import shown
from cryobridge.jobs.stacks.inputs import StackInput, files_input, job_input, open_for_stacks, paired_input
from cryobridge.jobs.stacks.options import StackOptions
from cryobridge.jobs.stacks.pixel_size import same_size
from cryobridge.jobs.stacks.polar.plan import PolarPlan, plan_stacks
from cryobridge.jobs.stacks.report import joined
from cryobridge.jobs.stacks.run import StackJob
from cryobridge.report import part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import ArrayLike

    from cryobridge.formats.particle_files import Program
    from cryobridge.jobs.stacks.options import AngleUnit
    from cryobridge.jobs.stacks.report import StacksReport
    from cryobridge.progress import Reporter

    AnyPath = str | PathLike[str]

    class DescriptorOfCryoLike(Protocol):
        """What is used of CryoLike's own descriptor."""

        def to_dict(self) -> dict[str, Any]:
            """Return its values by name."""


__all__ = [
    "ImageDescriptor",
    "ParticleStackConverter",
    "convert_particle_stacks_from_cryosparc_job_directory",
    "convert_particle_stacks_from_indexed_cryosparc",
    "convert_particle_stacks_from_indexed_cryosparc_file",
    "convert_particle_stacks_from_indexed_star_file",
    "convert_particle_stacks_from_indexed_star_files",
    "convert_particle_stacks_from_paired_star_and_mrc_files",
    "read_image_descriptor",
    "write_image_descriptor",
]

_NO_LIMIT = -1
_PROGRAMS: dict[str, Program] = {"cryosparc": "cryosparc", "starfile": "relion"}


@dataclass(frozen=True)
class _Input:
    """Something prepared: how it is read, and in which order its images are taken."""

    read: Callable[[], StackInput]
    order: Literal["row", "file"] = "row"
    is_paired: bool = False


class ParticleStackConverter:
    """Prepares inputs, then converts them to Fourier stacks, as often as is wanted: the numbers of the stacks go on.

    Parameters
    ----------
    image_descriptor
        Parameter file, `ImageDescriptor` or CryoLike's own: the images (after binning; one for the images before it is
        adapted, with a warning) and the polar grid. None for the default grid of the first input.
    folder_output
        Where ``fft/``, ``phys/`` and ``plots/`` go; the working directory if empty.
    n_stacks_max
        Make at most so many stacks in all; no limit if not positive.
    pixel_size
        Å, one number or two equal ones; needed only where neither metadata nor image files say it.
    downsample_factor, downsample_type
        Bin blocks of so many pixels (even; 1 for none) to their ``"mean"`` or ``"max"``.
    skip_exist
        Keep stacks that are whole and were made from the same inputs and parameters.
    overwrite
        Replace stacks that are there.
    flag_plots
        Draw pictures of each stack.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:0,cuda:1"``, ``"auto"`` …, or a ``torch.device``.
    order
        Of a file that names its images: ``"file"``, CryoLike's, sorts them by file; ``"row"`` keeps its own order.
    on_missing
        ``"error"``, or ``"skip"`` to leave out particles without a usable image.
    split_optics
        Give each set of lens values stacks of its own.
    reporter
        Who hears of the progress.

    Raises
    ------
    UsageError
        If an option is impossible.
    """

    def __init__(
        self,
        image_descriptor: AnyPath | ImageDescriptor | DescriptorOfCryoLike | None,
        folder_output: AnyPath = "",
        n_stacks_max: int = _NO_LIMIT,
        pixel_size: float | ArrayLike | None = None,
        downsample_factor: int = 1,
        downsample_type: Literal["mean", "max"] = "mean",
        skip_exist: bool = False,
        overwrite: bool = False,
        flag_plots: bool = True,
        device: str | torch.device = "cpu",
        *,
        order: Literal["row", "file"] = "file",
        on_missing: Literal["error", "skip"] = "error",
        split_optics: bool = False,
        reporter: Reporter | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "descriptor": _descriptor(image_descriptor),
            "pixel_size_A": _one_pixel_size(pixel_size),
            # CryoLike passes over 0 and negative numbers.
            "downsample_factor": max(1, downsample_factor),
            "downsample_type": downsample_type,
            "on_missing": on_missing,
            "split_optics": split_optics,
            "plots": flag_plots,
        }
        StackOptions(**self._options, order=order)
        self._order = order
        self._n_stacks_max = n_stacks_max if n_stacks_max > 0 else None
        self._folder = Path(folder_output)
        self._resume = skip_exist and not overwrite
        self._overwrite = overwrite
        self._device = str(device)
        self._reporter = reporter
        self._inputs: list[_Input] = []
        self._reports: list[StacksReport] = []
        self._n_made = 0

    def prepare_star_files(
        self,
        particle_file_list: AnyPath | Sequence[AnyPath],
        star_file_list: AnyPath | Sequence[AnyPath],
        defocus_angle_is_degree: bool = True,
        phase_shift_is_degree: bool = True,
    ) -> None:
        """Add image files, each with a STAR file of its own whose rows are in the order of the images.

        A single path stands for a list of one.

        Raises
        ------
        UsageError
            If the lists are not of one length.
        MissingDataError
            If a file is missing.
        """
        stacks, stars = _paths(particle_file_list), _paths(star_file_list)
        if len(stacks) != len(stars):
            raise UsageError(
                f"{len(stacks)} image files, but {len(stars)} STAR files",
                hint="Give one STAR file an image file, in the same order.",
            )
        missing = [str(path) for path in (*stacks, *stars) if not is_there(path)]
        if missing:
            raise MissingDataError(
                f"{part_of(len(missing), 2 * len(stacks), 'file')} missing: {shown(missing)}",
                hint=f"Names count from the working directory, {Path.cwd()}.",
            )
        units: tuple[AngleUnit, AngleUnit] = (
            "degree" if defocus_angle_is_degree else "radian",
            "degree" if phase_shift_is_degree else "radian",
        )
        pairs = list(zip(stars, stacks, strict=True))
        self._inputs.append(_Input(lambda: paired_input(pairs, *units), is_paired=True))

    def prepare_indexed_file(
        self,
        src_file: AnyPath,
        filetype: Literal["cryosparc", "starfile"],
        mrc_folder: AnyPath = "",
        ignore_manual_pixel_size: bool = False,
    ) -> None:
        """Take the particles of a file that names the stack and the slice of each image.

        Parameters
        ----------
        src_file
            A ``.cs`` file (or a ``.csg`` file or a cryoSPARC job folder), or a RELION STAR file.
        filetype
            ``"cryosparc"`` or ``"starfile"``.
        mrc_folder
            Look for image files below this folder, also by bare name; as the names say if empty.
        ignore_manual_pixel_size
            Let the pixel size of the metadata, where there is one, stand against the one given by hand.

        Raises
        ------
        UsageError
            If an input other than paired STAR files waits to be converted, or the filetype is unknown.
        """
        self._refuse_second()
        if filetype not in _PROGRAMS:
            hint = "Use 'cryosparc' or 'starfile'."
            raise UsageError(f"{filetype!r} is no file type", option="filetype", hint=hint)
        search = ImageSearchOptions(folder_mrc=(Path(mrc_folder).expanduser(),) if str(mrc_folder) else None)
        files = open_for_stacks(src_file, _PROGRAMS[filetype])
        source = files_input(files, search.image_search(files.metadata), self._options["on_missing"])
        self._inputs.append(_Input(lambda: source, order=self._order))
        if ignore_manual_pixel_size and np.isfinite(source.optics.pixel_size_A).any():
            self._options["pixel_size_A"] = None

    def prepare_sequential_cryosparc(self, folder_cryosparc: AnyPath, job_number: int = 0) -> None:
        """Take the batches of a Restack or Downsample Particles job, with its passthrough metadata.

        Metadata of more images than there are is of the first ones, as in CryoLike; a warning counts the rest.

        Raises
        ------
        UsageError
            If an input other than paired STAR files waits to be converted.
        """
        self._refuse_second()
        source = job_input(Path(folder_cryosparc).expanduser(), job_number)
        self._inputs.append(_Input(lambda: source))

    def convert_stacks(self, batch_size: int = 1024, never_combine_input_files: bool = False) -> StacksReport | None:
        """Make the stacks of what was prepared since the last call, one input after the other.

        Parameters
        ----------
        batch_size
            Images in a stack.
        never_combine_input_files
            Never put images of two files into one stack; so it always is for paired STAR files.

        Returns
        -------
        StacksReport or None
            None, with a warning, where nothing was prepared or the number of stacks was reached before.

        Raises
        ------
        CryobridgeError
            If the inputs are wrong, stacks are there already, or an image can't be used.
        """
        options = StackOptions(**self._options, batch_size=batch_size, separate_files=never_combine_input_files)
        inputs, self._inputs = self._inputs, []
        plans = self._plans(inputs, options)
        if len(plans) < max(1, len(inputs)):
            unread = (
                f"{part_of(len(inputs) - len(plans), len(inputs), 'input', 'were', of_one='was')} not "
                "read: n_stacks_max is reached"
            )
            none = "no input was prepared since the last conversion: call one of the prepare_ methods first"
            warnings.warn(unread if inputs else none, stacklevel=2)
        if not plans:
            return None
        report = joined([self._run(plan) for plan in plans])
        for message in report.warnings:
            warnings.warn(str(message), stacklevel=2)
        return report

    def _plans(self, inputs: Sequence[_Input], options: StackOptions) -> list[PolarPlan]:
        """Return the plans of the inputs, whose stacks are numbered on; there are no more than were asked for."""
        plans: list[PolarPlan] = []
        first = self._n_made
        for item in inputs:
            room = None if self._n_stacks_max is None else self._n_stacks_max - first
            if room is not None and room <= 0:
                break
            plan = plan_stacks(item.read(), replace(options, order=item.order, n_stacks_max=room))
            # One grid for all inputs.
            self._options["descriptor"] = self._options["descriptor"] or plan.descriptor
            options = replace(options, descriptor=self._options["descriptor"])
            plans.append(plan.numbered_from(first))
            first += len(plan.tasks)
        # Stacks of later inputs may be there to be kept.
        n_kept = first if self._resume else 0
        return [plan.beside_others(n_kept) for plan in plans]

    def _run(self, plan: PolarPlan) -> StacksReport:
        job = StackJob(plan, self._folder, DeviceExecutor(self._device), resume=self._resume, recorded=self._recorded)
        report = job.run(overwrite=self._overwrite, reporter=self._reporter)
        self._n_made += len(plan.tasks)
        self._reports.append(report)
        return report

    def _recorded(self, report: StacksReport) -> StacksReport:
        """Return what the folder's record says: all that this converter made."""
        return joined([*self._reports, report])

    def _refuse_second(self) -> None:
        if not all(item.is_paired for item in self._inputs):
            raise UsageError(
                "an input was prepared already", hint="Convert that one first, or use another converter for this one."
            )


def _paths(given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """Return paths as a list, also of a single one: the characters of a text are no paths."""
    return [Path(given)] if isinstance(given, str | PathLike) else [Path(path) for path in given]


def _descriptor(given: Any) -> ImageDescriptor | None:
    """Return the descriptor that is given, or read it; CryoLike's own has its values in a dictionary."""
    if given is None or isinstance(given, ImageDescriptor):
        return given
    if isinstance(given, str | PathLike):
        return read_image_descriptor(given)
    if hasattr(given, "to_dict"):
        return descriptor_of(given.to_dict())
    raise UsageError(
        f"{given!r:.60} is no image descriptor", option="params_input", hint="Give the name of a parameter file."
    )


def _one_pixel_size(pixel_size: float | ArrayLike | None) -> float | None:
    """Return the one pixel size of both axes; CryoLike's -1 stands for none."""
    if pixel_size is None:
        return None
    sizes = np.atleast_1d(np.asarray(pixel_size, np.float64)).ravel()
    if len(sizes) == 1 and sizes[0] == _NO_LIMIT:
        return None
    if not (sizes > 0).all() or not all(same_size(size, sizes[0]) for size in sizes):
        raise UsageError(f"{pixel_size} is not one pixel size in Å", option="pixel_size", hint="Pixels are square.")
    return float(sizes[0])


# The four functions: what they have in common are options of the converter, in CryoLike's order of each function.

_ENDS = {"folder_mrc": "", "folder_cryosparc": "", "job_number": 0, "batch_size": 1024}
_ENDS |= {"defocus_angle_is_degree": True, "phase_shift_is_degree": True}
_CONVERTER = inspect.signature(ParticleStackConverter).parameters


def _function(
    name: str, summary: str, parameters: str, prepare: Callable[[ParticleStackConverter, Mapping[str, Any]], None]
) -> Callable[..., StacksReport]:
    """Return a function of these parameters that prepares a converter, then converts.

    Defaults are those of `ParticleStackConverter`, or of `_ENDS`; parameters without one are required.
    """
    defaults = {key: item.default for key, item in _CONVERTER.items()} | _ENDS
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [
            inspect.Parameter(key, kind, default=defaults.get(key, inspect.Parameter.empty))
            for key in ("params_input", *parameters.split())
        ],
        return_annotation="StacksReport",
    )

    def convert(*positional: Any, **named: Any) -> StacksReport:
        bound = signature.bind(*positional, **named)
        bound.apply_defaults()
        given = dict(bound.arguments)
        options = {key: value for key, value in given.items() if key in _CONVERTER}
        converter = ParticleStackConverter(given["params_input"], **options)
        prepare(converter, given)
        report = converter.convert_stacks(given["batch_size"])
        assert report is not None  # something was prepared
        return report

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"{summary}; see `ParticleStackConverter` for the parameters."
    convert.__signature__ = signature  # type: ignore[attr-defined]
    return convert


convert_particle_stacks_from_paired_star_and_mrc_files = _function(
    "convert_particle_stacks_from_paired_star_and_mrc_files",
    "Convert image files that each have a STAR file of their own",
    "particle_file_list star_file_list folder_output batch_size pixel_size defocus_angle_is_degree "
    "phase_shift_is_degree downsample_factor downsample_type skip_exist flag_plots overwrite n_stacks_max",
    lambda converter, given: converter.prepare_star_files(
        given["particle_file_list"],
        given["star_file_list"],
        given["defocus_angle_is_degree"],
        given["phase_shift_is_degree"],
    ),
)
convert_particle_stacks_from_indexed_star_file = _function(
    "convert_particle_stacks_from_indexed_star_file",
    "Convert the particles of a RELION STAR file",
    "star_file folder_mrc folder_output batch_size downsample_factor downsample_type pixel_size flag_plots overwrite "
    "skip_exist n_stacks_max",
    lambda converter, given: converter.prepare_indexed_file(given["star_file"], "starfile", given["folder_mrc"]),
)
convert_particle_stacks_from_indexed_cryosparc_file = _function(
    "convert_particle_stacks_from_indexed_cryosparc_file",
    "Convert the particles of a `.cs` file",
    "file_cs folder_cryosparc folder_output batch_size n_stacks_max pixel_size downsample_factor downsample_type "
    "skip_exist flag_plots overwrite",
    lambda converter, given: converter.prepare_indexed_file(given["file_cs"], "cryosparc", given["folder_cryosparc"]),
)
# Names in CryoLike's tutorials.
convert_particle_stacks_from_indexed_star_files = convert_particle_stacks_from_indexed_star_file
convert_particle_stacks_from_indexed_cryosparc = convert_particle_stacks_from_indexed_cryosparc_file
convert_particle_stacks_from_cryosparc_job_directory = _function(
    "convert_particle_stacks_from_cryosparc_job_directory",
    "Convert the batches of a Restack or Downsample Particles job",
    "folder_cryosparc job_number folder_output batch_size n_stacks_max pixel_size downsample_factor downsample_type "
    "skip_exist flag_plots overwrite",
    lambda converter, given: converter.prepare_sequential_cryosparc(given["folder_cryosparc"], given["job_number"]),
)
