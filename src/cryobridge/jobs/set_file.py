"""Writing a particle set as it was read, to a new file of the same program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.formats.atomic import together
from cryobridge.formats.write import origin_for, outputs_of, write_as_read
from cryobridge.jobs.output_folder import make_folder, refuse_existing, refuse_inputs

if TYPE_CHECKING:
    from cryobridge.model.particles import ParticleSet


def write_set(particles: ParticleSet, output: Path, *, overwrite: bool, name: str = "output") -> tuple[Path, ...]:
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
    tuple
        The files that are written.

    Raises
    ------
    UsageError
        If the particles were changed, the file is of another program, or they are read from it.
    OutputExistsError
        If a file is there and may not be replaced.
    """
    source = origin_for(particles, output).files
    files = outputs_of(source, output)
    refuse_inputs(files, source.files, name=name)
    refuse_existing(files, overwrite=overwrite)
    make_folder(output.parent)
    with together():
        write_as_read(particles, output)
        # Another run may have written them since.
        refuse_existing(files, overwrite=overwrite)
    return files
