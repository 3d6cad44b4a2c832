"""Writing a particle set as it was read, to a new file of the same program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.formats.write import origin_for, outputs_of, warnings_of_rows, write_as_read
from cryobridge.jobs.output_folder import refuse_existing, refuse_inputs, whole_files

if TYPE_CHECKING:
    from cryobridge.model.particles import ParticleSet
    from cryobridge.report import Message


def write_set(
    particles: ParticleSet, output: Path, *, overwrite: bool, name: str = "output"
) -> tuple[tuple[Path, ...], list[Message]]:
    """Write particles with all columns that their files have, all files or none.

    Parameters
    ----------
    particles
        As they were read, or some of them.
    output
        A file of the program that they were read from.
    overwrite
        Replace files that are there.
    name
        The argument that ``output`` was given by, for messages.

    Returns
    -------
    files
        Those that are written.
    messages
        What RELION would not take, and is left out.

    Raises
    ------
    UsageError
        If the particles were changed, the file is of another program, or they are read from it.
    OutputExistsError
        If a file is there and may not be replaced.
    FormatError
        If a pose, shift, CTF value or coordinate in a STAR file is not a number.
    """
    origin = origin_for(particles, output)
    source = origin.files
    files = outputs_of(source, output)
    refuse_inputs(files, source.files, name=name)
    refuse_existing(files, overwrite=overwrite)
    messages = warnings_of_rows(origin)
    with whole_files(files, overwrite=overwrite):
        write_as_read(particles, output)
    return files, messages
