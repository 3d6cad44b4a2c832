"""Particle images and their metadata -> Fourier-polar stacks, as CryoLike reads them.

The names below are loaded when they are first used, so that importing the package does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryobridge.formats.descriptor import ImageDescriptor, read_image_descriptor, write_image_descriptor
    from cryobridge.jobs.stacks.cryolike import (
        ParticleStackConverter,
        convert_particle_stacks_from_cryosparc_job_directory,
        convert_particle_stacks_from_indexed_cryosparc_file,
        convert_particle_stacks_from_indexed_star_file,
        convert_particle_stacks_from_paired_star_and_mrc_files,
    )

__all__ = [
    "ImageDescriptor",
    "ParticleStackConverter",
    "convert_particle_stacks_from_cryosparc_job_directory",
    "convert_particle_stacks_from_indexed_cryosparc_file",
    "convert_particle_stacks_from_indexed_star_file",
    "convert_particle_stacks_from_paired_star_and_mrc_files",
    "read_image_descriptor",
    "write_image_descriptor",
]

_OF_FORMATS = {"ImageDescriptor", "read_image_descriptor", "write_image_descriptor"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "cryobridge.formats.descriptor" if name in _OF_FORMATS else f"{__name__}.cryolike"
    return getattr(import_module(module), name)
