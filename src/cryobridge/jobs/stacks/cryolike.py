"""The same conversions under CryoLike's names, so that a script of its runs after a change of import.

Differences from CryoLike: ``params_input`` may be None (the default grid of the data), existing stacks are refused
without ``overwrite``, ``skip_exist`` works, and every function returns a report.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.formats.descriptor import ImageDescriptor, read_image_descriptor
from cryobridge.formats.image_search import ImageSearch
from cryobridge.jobs.stacks.checks import same_size
from cryobridge.jobs.stacks.convert import convert_stacks
from cryobridge.jobs.stacks.inputs import StackInput, files_input, job_input, open_for_stacks, paired_input
from cryobridge.jobs.stacks.options import DownsampleType, OnMissing, Order, StackOptions
from cryobridge.jobs.stacks.plan import plan_stacks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from cryobridge.formats.open import Program
    from cryobridge.progress import Reporter

    AnyPath = str | PathLike[str]

_NO_LIMIT = -1


class ParticleStackConverter:
    """Prepares inputs of one kind, then converts them to Fourier stacks.

    Parameters
    ----------
    image_descriptor
        Parameter file, or `ImageDescriptor`: the images (after binning) and the polar grid. None for the default grid.
    folder_output
        Where ``fft/``, ``phys/`` and ``plots/`` go; the working directory if empty.
    n_stacks_max
        Make at most so many stacks; all if not positive.
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
        ``"cpu"``, ``"cuda"``, ``"cuda:0,cuda:1"``, ``"auto"`` …
    order
        ``"file"``, CryoLike's, sorts images by file; ``"row"`` keeps the order of the metadata.
    on_missing
        ``"error"``, or ``"skip"`` to leave out particles without a usable image.
    split_optics
        Give each set of lens values stacks of its own.
    reporter
        Who is told of the progress.

    Raises
    ------
    UsageError
        If an option is impossible.
    """

    def __init__(
        self,
        image_descriptor: AnyPath | ImageDescriptor | None,
        folder_output: AnyPath = "",
        n_stacks_max: int = _NO_LIMIT,
        pixel_size: float | ArrayLike | None = None,
        downsample_factor: int = 1,
        downsample_type: DownsampleType = "mean",
        skip_exist: bool = False,
        overwrite: bool = False,
        flag_plots: bool = True,
        device: str = "cpu",
        *,
        order: Order = "file",
        on_missing: OnMissing = "error",
        split_optics: bool = False,
        reporter: Reporter | None = None,
    ) -> None:
        is_ready = image_descriptor is None or isinstance(image_descriptor, ImageDescriptor)
        self._options: dict[str, Any] = {
            "descriptor": image_descriptor if is_ready else read_image_descriptor(image_descriptor),  # type: ignore[arg-type]
            "n_stacks_max": n_stacks_max if n_stacks_max > 0 else None,
            "pixel_size_A": _one_pixel_size(pixel_size),
            # CryoLike passes over 0 and negative numbers.
            "downsample_factor": max(1, downsample_factor),
            "downsample_type": downsample_type,
            "order": order,
            "on_missing": on_missing,
            "split_optics": split_optics,
            "plots": flag_plots,
        }
        StackOptions(**self._options)
        self._folder = Path(folder_output)
        self._skip_exist = skip_exist
        self._overwrite = overwrite
        self._device = device
        self._reporter = reporter
        self._pairs: list[tuple[Path, Path]] = []
        self._units: tuple[bool, bool] | None = None
        self._source: StackInput | None = None

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
            If the lists are not of one length, or another kind of input was prepared.
        """
        stacks, stars = _paths(particle_file_list), _paths(star_file_list)
        if len(stacks) != len(stars):
            raise UsageError(
                f"{len(stacks)} image files, but {len(stars)} STAR files",
                hint="Give one STAR file an image file, in the same order.",
            )
        units = (defocus_angle_is_degree, phase_shift_is_degree)
        if self._source is not None or self._units not in (None, units):
            raise UsageError(
                "inputs of another kind or in other units were prepared", hint="Use another converter for them."
            )
        self._units = units
        self._pairs += zip(stars, stacks, strict=True)

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
            Look for image files by bare name in this folder; as the names say if empty.
        ignore_manual_pixel_size
            Let the pixel size of the metadata, where there is one, stand against the one given by hand.

        Raises
        ------
        UsageError
            If other inputs were prepared, or the filetype is unknown.
        """
        self._refuse_second()
        programs: dict[str, Program] = {"cryosparc": "cryosparc", "starfile": "relion"}
        if filetype not in programs:
            raise UsageError(f"{filetype!r} is no file type", field="filetype", hint="Use 'cryosparc' or 'starfile'.")
        files = open_for_stacks(src_file, programs[filetype])
        search = ImageSearch(files.columns.path, Path(mrc_folder) if str(mrc_folder) else None)
        self._source = files_input(files, search, self._options["on_missing"])
        if ignore_manual_pixel_size and np.isfinite(self._source.optics.pixel_size_A).any():
            self._options["pixel_size_A"] = None

    def prepare_sequential_cryosparc(self, folder_cryosparc: AnyPath, job_number: int = 0) -> None:
        """Take the batches of a Restack or Downsample Particles job, with its passthrough metadata.

        Raises
        ------
        UsageError
            If other inputs were prepared.
        """
        self._refuse_second()
        self._source = job_input(Path(folder_cryosparc), job_number, self._options["on_missing"])

    def convert_stacks(self, batch_size: int = 1024, never_combine_input_files: bool = False) -> dict[str, Any]:
        """Make the stacks.

        Parameters
        ----------
        batch_size
            Images in a stack.
        never_combine_input_files
            Never put images of two files into one stack; so it always is for paired STAR files.

        Returns
        -------
        dict
            The report, as `cryobridge.jobs.stacks.convert.convert_stacks` gives it.

        Raises
        ------
        UsageError
            If nothing was prepared.
        CryobridgeError
            If the inputs are wrong, stacks are there already, or an image can't be used.
        """
        source = self._prepared(never_combine_input_files)
        options = StackOptions(**self._options, batch_size=batch_size, separate_files=never_combine_input_files)
        return convert_stacks(
            plan_stacks(source, options),
            self._folder,
            device=self._device,
            overwrite=self._overwrite,
            resume=self._skip_exist and not self._overwrite,
            reporter=self._reporter,
        )

    def _prepared(self, never_combine_input_files: bool) -> StackInput:
        if self._source is not None:
            return self._source
        if self._units is None:
            raise UsageError("no input was prepared", hint="Call one of the prepare_ methods first.")
        defocus_unit, phase_unit = ("degree" if is_degree else "radian" for is_degree in self._units)
        return paired_input(self._pairs, defocus_unit, phase_unit)  # type: ignore[arg-type]

    def _refuse_second(self) -> None:
        if self._source is not None or self._pairs:
            raise UsageError("an input was prepared already", hint="Use another converter for the second one.")


def convert_particle_stacks_from_paired_star_and_mrc_files(
    params_input: AnyPath | ImageDescriptor | None,
    particle_file_list: AnyPath | Sequence[AnyPath],
    star_file_list: AnyPath | Sequence[AnyPath],
    folder_output: AnyPath = "",
    batch_size: int = 1024,
    pixel_size: float | ArrayLike | None = None,
    defocus_angle_is_degree: bool = True,
    phase_shift_is_degree: bool = True,
    downsample_factor: int = 1,
    downsample_type: DownsampleType = "mean",
    skip_exist: bool = False,
    flag_plots: bool = True,
    overwrite: bool = False,
    n_stacks_max: int = _NO_LIMIT,
) -> dict[str, Any]:
    """Convert image files that each have a STAR file of their own; see `ParticleStackConverter` for the parameters."""
    converter = ParticleStackConverter(
        params_input,
        folder_output,
        n_stacks_max,
        pixel_size,
        downsample_factor,
        downsample_type,
        skip_exist,
        overwrite,
        flag_plots,
    )
    converter.prepare_star_files(particle_file_list, star_file_list, defocus_angle_is_degree, phase_shift_is_degree)
    return converter.convert_stacks(batch_size)


def convert_particle_stacks_from_indexed_star_file(
    params_input: AnyPath | ImageDescriptor | None,
    star_file: AnyPath,
    folder_mrc: AnyPath = "",
    folder_output: AnyPath = "",
    batch_size: int = 1024,
    downsample_factor: int = 1,
    downsample_type: DownsampleType = "mean",
    pixel_size: float | ArrayLike | None = None,
    flag_plots: bool = True,
    overwrite: bool = False,
    skip_exist: bool = False,
    n_stacks_max: int = _NO_LIMIT,
) -> dict[str, Any]:
    """Convert the particles of a RELION STAR file; see `ParticleStackConverter` for the parameters."""
    converter = ParticleStackConverter(
        params_input,
        folder_output,
        n_stacks_max,
        pixel_size,
        downsample_factor,
        downsample_type,
        skip_exist,
        overwrite,
        flag_plots,
    )
    converter.prepare_indexed_file(star_file, "starfile", folder_mrc)
    return converter.convert_stacks(batch_size)


def convert_particle_stacks_from_indexed_cryosparc_file(
    params_input: AnyPath | ImageDescriptor | None,
    file_cs: AnyPath,
    folder_cryosparc: AnyPath = "",
    folder_output: AnyPath = "",
    batch_size: int = 1024,
    n_stacks_max: int = _NO_LIMIT,
    pixel_size: float | ArrayLike | None = None,
    downsample_factor: int = 1,
    downsample_type: DownsampleType = "mean",
    skip_exist: bool = False,
    flag_plots: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Convert the particles of a `.cs` file; see `ParticleStackConverter` for the parameters."""
    converter = ParticleStackConverter(
        params_input,
        folder_output,
        n_stacks_max,
        pixel_size,
        downsample_factor,
        downsample_type,
        skip_exist,
        overwrite,
        flag_plots,
    )
    converter.prepare_indexed_file(file_cs, "cryosparc", folder_cryosparc)
    return converter.convert_stacks(batch_size)


def convert_particle_stacks_from_cryosparc_job_directory(
    params_input: AnyPath | ImageDescriptor | None,
    folder_cryosparc: AnyPath = "",
    job_number: int = 0,
    folder_output: AnyPath = "",
    batch_size: int = 1024,
    n_stacks_max: int = _NO_LIMIT,
    pixel_size: float | ArrayLike | None = None,
    downsample_factor: int = 1,
    downsample_type: DownsampleType = "mean",
    skip_exist: bool = False,
    flag_plots: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Convert the batches of a Restack or Downsample Particles job; see `ParticleStackConverter` for the parameters."""
    converter = ParticleStackConverter(
        params_input,
        folder_output,
        n_stacks_max,
        pixel_size,
        downsample_factor,
        downsample_type,
        skip_exist,
        overwrite,
        flag_plots,
    )
    converter.prepare_sequential_cryosparc(folder_cryosparc, job_number)
    return converter.convert_stacks(batch_size)


def _paths(given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """Return paths as a list, also of a single one: the characters of a text are no paths."""
    return [Path(given)] if isinstance(given, str | PathLike) else [Path(path) for path in given]


def _one_pixel_size(pixel_size: float | ArrayLike | None) -> float | None:
    """Return the one pixel size of both axes; CryoLike's -1 stands for none."""
    if pixel_size is None:
        return None
    sizes = np.atleast_1d(np.asarray(pixel_size, np.float64)).ravel()
    if len(sizes) == 1 and sizes[0] == _NO_LIMIT:
        return None
    if not (sizes > 0).all() or not all(same_size(size, sizes[0]) for size in sizes):
        raise UsageError(f"{pixel_size} is not one pixel size in Å", field="pixel_size", hint="Pixels are square.")
    return float(sizes[0])
