"""Pictures of stacks, drawn in a process of their own beside the transform."""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.errors import CryobridgeError, option
from cryobridge.executors.helper_process import HelperError, HelperProcess
from cryobridge.formats.atomic import atomic_path, leftovers
from cryobridge.fourier.grid import PolarGrid
from cryobridge.jobs.output_folder import make_subfolder, remove_existing
from cryobridge.jobs.stacks.polar.output import plot_paths
from cryobridge.plots.page import png
from cryobridge.plots.stacks import stack_sheets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from cryobridge.jobs.stacks.plan import StackResult
    from cryobridge.jobs.stacks.polar.plan import PolarPlan

_LOW_PRIORITY = 10
# Stacks whose pictures wait to be drawn; more would fill the memory.
_MOST_WAITING = 2


def draw_stack(folder: Path, number: int, *content: Any, **more: Any) -> tuple[Path, Path, Path]:
    """Draw a stack into ``plots`` of an output folder; pictures that are there are replaced.

    It may run in a thread or process of its own.

    Parameters
    ----------
    folder
        The output folder.
    number
        Running number of the stack.
    content, more
        What `cryobridge.plots.stacks.stack_sheets` takes besides.

    Returns
    -------
    tuple of pathlib.Path
        The three pictures: images, transforms, power spectrum.

    Raises
    ------
    UsageError
        If there are no images, or shapes don't match.
    CryobridgeError
        If a picture can't be written.
    """
    sheets = stack_sheets(number, *content, **more)
    targets = plot_paths(folder, number)
    make_subfolder(targets[0].parent)
    for sheet, target in zip(sheets, targets, strict=True):
        with atomic_path(target) as temporary:
            temporary.write_bytes(png(sheet))
    return targets


@contextmanager
def drawing(plan: PolarPlan, folder: Path) -> Iterator[Callable[[StackResult], None]]:
    """Yield what has a finished stack drawn beside the work; leaving the block well waits for the last of them.

    Raises
    ------
    CryobridgeError
        If pictures could not be drawn.
    """
    asked: deque[Future[Any]] = deque()
    try:
        with HelperProcess() as process:

            def draw(result: StackResult) -> None:
                if not asked:
                    asked.append(process.call(os.nice, _LOW_PRIORITY))
                while len(asked) > _MOST_WAITING:
                    asked.popleft().result()
                asked.append(process.call(partial(draw_stack, **_content(plan, folder, result))))

            yield draw
            for picture in asked:
                picture.result()
    except HelperError as error:
        raise CryobridgeError(
            f"the pictures could not be drawn ({error})",
            path=folder / "plots",
            hint=f"The stacks are whole. {option('resume')} draws what is missing, {option('plots', 'False')} goes "
            "without.",
        ) from error
    finally:
        # A picture may have been in the making when the process was ended.
        remove_existing(leftovers(folder / "plots"))


def _content(plan: PolarPlan, folder: Path, result: StackResult) -> dict[str, Any]:
    """Return what `draw_stack` takes for a stack."""
    refs, descriptor, preview = plan.source.images, plan.descriptor, result.preview
    return {
        "folder": folder,
        "number": result.number,
        "images": preview.images.numpy(),
        "polar": preview.polar.numpy(),
        "grid": PolarGrid(descriptor.radius_max, descriptor.dist_radii, descriptor.n_inplanes),
        "pixel_size_A": tuple(descriptor.pixel_size_A),
        "names": [f"{refs.index[row] + 1} @ {Path(refs.path[row]).name}" for row in preview.rows.tolist()],
        "power": preview.power.numpy(),
        "n_images": preview.n_images,
    }
