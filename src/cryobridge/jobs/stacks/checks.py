"""What is wrong with the input of a stack conversion: found before the work, and reported together."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CombinedError, CryobridgeError, UsageError, option

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.jobs.stacks.inputs import StackInput
    from cryobridge.model.particles import Optics

Rows: TypeAlias = NDArray[np.int64]

N_SHOWN = 10


@dataclass
class Problems:
    """Errors that stand beside each other: a user mends them in one go."""

    errors: list[CryobridgeError] = field(default_factory=list)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the error that the block raises."""
        try:
            yield
        except CryobridgeError as error:
            self.errors.append(error)

    def raise_all(self) -> None:
        """Raise the errors as one, if there are any."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise CombinedError(self.errors)


def shown(items: Iterable[object]) -> str:
    """Return the first items, and … where there are more."""
    listed = list(items)
    return ", ".join(map(str, listed[:N_SHOWN])) + (" …" if len(listed) > N_SHOWN else "")


def image_box(source: StackInput) -> tuple[int, int] | None:
    """Return the size in pixels (rows, columns) of the images of an input; None where no image is found.

    Raises
    ------
    CryobridgeError
        If they are of several sizes.
    """
    used = np.unique(source.images.path.codes[source.rows]).tolist()
    headers = [source.headers[code] for code in used if code in source.headers]
    return one_box(headers) if headers else None


def one_box(headers: Iterable[MrcHeader]) -> tuple[int, int]:
    """Return the size in pixels (rows, columns) that all images have.

    Raises
    ------
    CryobridgeError
        If they are of several sizes; the files of the rarer ones are named.
    """
    by_box: dict[tuple[int, int], list[str]] = defaultdict(list)
    for header in headers:
        by_box[header.ny, header.nx].append(header.path.name)
    common = max(by_box, key=lambda box: len(by_box[box]))
    others = {box: names for box, names in by_box.items() if box != common}
    if others:
        odd = [f"{name} {ny} × {nx}" for (ny, nx), names in others.items() for name in names]
        raise CryobridgeError(
            f"the images are of {len(by_box)} sizes: most are {common[0]} × {common[1]}, but {shown(odd)}",
            count=len(odd),
            hint="Take the images of one size at a time; `cryobridge select` makes a file of their particles.",
        )
    return common


def refuse_larger(new_px: int, box_px: int) -> None:
    """Refuse to crop images of a box to a larger one.

    Raises
    ------
    UsageError
        If it is larger.
    """
    if new_px > box_px:
        raise UsageError(
            f"{option('box_px', new_px)}: the images have {box_px} px, and cropping can't enlarge them",
            hint=f"Use {box_px - box_px % 2} or less.",
        )


def other_boxes(optics: Optics, groups: Rows, box: tuple[int, int]) -> list[int]:
    """Return the boxes in pixels that metadata have for these optics groups and the images (rows, columns) have not.

    A box of 0 is not known.
    """
    return [known for known in np.unique(optics.box_px[groups]).tolist() if known > 0 and known not in box]


def refuse_other_box(boxes_px: Iterable[int], box: tuple[int, int], metadata: Path) -> None:
    """Refuse metadata of images of another box: their pixel size would be that of other images.

    Raises
    ------
    CryobridgeError
        If there are such boxes.
    """
    others = list(boxes_px)
    if others:
        raise CryobridgeError(
            f"the metadata are of images of {shown(others)} px, the image files have "
            f"{f'{box[0]} px' if box[0] == box[1] else f'{box[0]} × {box[1]} px'}",
            path=metadata,
            hint="Give the metadata that were written for these images; their pixel size differs from that of others.",
        )
