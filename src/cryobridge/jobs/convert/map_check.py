"""Making maps of the input's images by the input and by the output, and comparing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.particles_pickle import PickleContent
from cryobridge.formats.relion.accepted import is_premultiplied
from cryobridge.jobs.reconstruction.backproject import some_rows
from cryobridge.jobs.reconstruction.images import chosen_images
from cryobridge.jobs.reconstruction.options import DEFAULT_BOX_PX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.jobs.convert.plan import ConvertPlan
    from cryobridge.jobs.reconstruction.images import ChosenImages
    from cryobridge.jobs.reconstruction.maps import Said
    from cryobridge.jobs.reconstruction.report import MapCheck
    from cryobridge.model.particles import ParticleSet


@dataclass(frozen=True, eq=False)
class MapSource:
    """What the input says of chosen images.

    Parameters
    ----------
    images
        The images.
    said
        What the input says.
    output_rows
        (n,) the row of the output that each is in.
    """

    images: ChosenImages
    said: Said
    output_rows: NDArray[np.int64]

    def compared_with(self, output: ParticleSet) -> MapCheck:
        """Compare with what the output says, which was read back; raises as `compare_maps`."""
        from cryobridge.jobs.reconstruction.compare import compare_maps
        from cryobridge.jobs.reconstruction.maps import Said

        said = Said(output, self.output_rows, is_premultiplied(output)[self.output_rows])
        return compare_maps(self.images, self.said, said, DEFAULT_BOX_PX)


def map_source(plan: ConvertPlan, n: int) -> MapSource:
    """Choose rows of a plan that is to be checked by maps, and find their images.

    Parameters
    ----------
    plan
        The plan; it need not be written.
    n
        At most how many.

    Raises
    ------
    MissingDataError
        If poses, CTF, images or pixel sizes are not known, or image files are not there.
    FormatError
        If a stack can't be read.
    """
    source = plan.source.particles
    places = some_rows(source, n, among=plan.rows)
    rows = plan.rows[places]
    images = chosen_images(source, rows, plan.options.image_search(plan.source.files[0]))
    from cryobridge.jobs.reconstruction.maps import Said

    said = Said(source, rows, is_premultiplied(source)[rows])
    said.views(images)  # what is not known is said before anything is written
    return MapSource(images, said, rows if isinstance(plan.content, PickleContent) else places)
