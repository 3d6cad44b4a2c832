"""Opening what is chosen from, and what it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.errors import UsageError, option
from cryobridge.formats.in_memory import SetInMemory
from cryobridge.formats.open import open_particles
from cryobridge.formats.registry import CS, identify_file
from cryobridge.model.particles import ParticleSet
from cryobridge.options import as_path

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.jobs.selection.options import SelectOptions


def opened(
    particles: object, options: SelectOptions, *, argument: str = "particles", needs: tuple[str, ...] = ()
) -> ParticleFiles:
    """Open particle files; a set in memory is seen as one."""
    if isinstance(particles, ParticleSet):
        options.refuse_ancestors_of_set()
        return SetInMemory(particles)
    if particles is None:
        hint = f"Name a file such as PARTICLES.star, or a run with {option('run', 'RUNDIR')}."
        raise UsageError("no particle file is named", hint=hint)
    path = as_path(particles, argument)
    name = "passthroughs" if options.passthroughs else "no_passthrough"
    if (options.passthroughs or options.no_passthrough) and not path.is_dir() and identify_file(path) != CS:
        raise UsageError(f"{option(name)} is for a .cs file", path=path, hint=f"Leave {option(name)} out.")
    join = not (options.no_passthrough or options.passthroughs)
    files = open_particles(path, *options.passthroughs, join=join, needs=needs, from_ancestors=options.from_ancestors)
    if files.table is None:
        raise UsageError(
            "not a particle file, but a stack of images",
            path=path,
            hint="Give a .star, .cs or .csg file with one row a particle, or a job folder.",
        )
    return files
