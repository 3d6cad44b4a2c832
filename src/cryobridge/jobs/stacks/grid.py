"""Parameter files: the images and the polar grid of Fourier stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.errors import UsageError
from cryobridge.formats.atomic import together
from cryobridge.formats.descriptor import ImageDescriptor, write_image_descriptor
from cryobridge.formats.plausible import tiny_box
from cryobridge.fourier.grid import PolarGrid
from cryobridge.jobs.output_folder import make_folder, refuse_existing
from cryobridge.jobs.stacks.report import GridReport

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.jobs.stacks.options import GridImages, GridOptions


def write_grid_file(output: Path, images: GridImages, options: GridOptions, *, overwrite: bool = False) -> GridReport:
    """Write a parameter file; see `cryobridge.jobs.stacks.api.write_grid`."""
    if output.suffix != ".npz":
        hint = f"Name it {output.with_suffix('.npz')}."
        raise UsageError(f"{output} does not end in .npz", option="output", hint=hint)
    refuse_existing([output], overwrite=overwrite)
    descriptor = ImageDescriptor.for_box(
        images.n_pixels, images.pixel_size_A, options.resolution_factor, options.n_inplanes, options.precision
    )
    make_folder(output.parent)
    with together():
        write_image_descriptor(output, descriptor)
        refuse_existing([output], overwrite=overwrite)
    grid = PolarGrid(descriptor.radius_max, descriptor.dist_radii, descriptor.n_inplanes)
    tiny = tiny_box(images.pixel_size_A, images.n_pixels)
    return GridReport(
        messages=(tiny,) if tiny else (),
        outputs=(output,),
        box_px=(descriptor.n_pixels[0], descriptor.n_pixels[1]),
        pixel_size_A=images.pixel_size_A,
        shells=grid.n_shells,
        angles=grid.n_inplanes,
        resolution_A=2 * images.pixel_size_A / options.resolution_factor,
        precision=options.precision,
    )
