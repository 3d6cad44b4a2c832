"""Writing a particle set from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryobridge.errors import UsageError
from cryobridge.formats.results import has_place, results_of
from cryobridge.formats.write import suffixes_of
from cryobridge.jobs.convert.convert import convert_job
from cryobridge.jobs.convert.options import ConvertOptions
from cryobridge.jobs.job import carried_out
from cryobridge.jobs.set_file import write_set
from cryobridge.model.particles import ParticleSet
from cryobridge.options import as_path, made, takes
from cryobridge.report import Report

if TYPE_CHECKING:
    import os


@takes(ConvertOptions)
def write(particles: ParticleSet, path: str | os.PathLike[str], *, overwrite: bool = False, **options: Any) -> Report:
    """Write a particle set to a file.

    Particles as they were read, and written for the same program, keep all columns, passthrough files and the result
    group; results that they were given since (`ParticleSet.with_columns`) are added. Others go through the model, as
    `cryobridge.convert` does it. With ``onto`` they go onto the rows of another file, found by uid, image, source or
    place.

    Parameters
    ----------
    particles
        The set.
    path
        A `.star` or `.cs` file, or a folder for pickles.
    overwrite
        Replace outputs that are there.
    **options
        With any of them, particles always go through the model. The fields of `ConvertOptions`.

    Returns
    -------
    Report
        What was written.

    Raises
    ------
    UsageError
        If ``particles`` is no set, or options contradict one another.
    OutputExistsError
        If an output is there and may not be replaced.
    CryobridgeError
        If the set lacks what the file needs, or a `.cs` file has no group for classes that it was given.

    Examples
    --------
    >>> import cryobridge as cb
    >>> particles = cb.read("J4")
    >>> report = cb.write(particles.take(particles.half_set == 1), "half1.star")
    >>> labelled = particles.with_columns(cluster=[0, 1, 1], row=[2, 0, 1])
    >>> report = cb.write(labelled, "run_data_labelled.star", onto="run_data.star", take=("classes",))
    """
    if not isinstance(particles, ParticleSet):
        raise UsageError(
            f"a particle set is needed, not {type(particles).__name__}",
            option="particles",
            hint="cryobridge.read(path) returns one; cryobridge.convert takes files.",
        )
    output = as_path(path, "path")
    origin = particles.origin
    is_as_read = origin is not None and not options and output.suffix in suffixes_of(origin.files)
    # Where poses are in groups of several classes, new classes come with the poses that were chosen.
    if origin is None or not is_as_read or (particles.poses and not has_place(results_of(particles), origin.files)):
        job = convert_job(particles, output, made(ConvertOptions, options), may_exist=overwrite)
        return carried_out(job, overwrite=overwrite, dry_run=False, reporter=None)
    files, messages = write_set(particles, output, overwrite=overwrite, name="path")
    messages = [*particles.messages, *messages]
    return Report(rows_in=len(particles), rows_out=len(particles), messages=tuple(messages), outputs=files)
