"""What is wrong with the input of a stack conversion: found before the work, and told all at once."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CombinedError, CryobridgeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.model.particles import Floats, Optics

Rows: TypeAlias = NDArray[np.int64]

# float32 pixel sizes of one nominal value differ by less than this.
PIXEL_SIZE_TOLERANCE = 1e-4
# Of the headers' pixel sizes from the metadata's: less is rounding, and more than a calibration changes is a mistake.
_ROUNDING = 0.01
_CALIBRATION = 0.05
N_SHOWN = 10


@dataclass
class Findings:
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
            hint="Convert each box size on its own.",
        )
    return common


def one_pixel_size(sizes_A: Iterable[float], source: Path) -> float | None:
    """Return the pixel size in Å that all agree on, None where nobody says.

    Raises
    ------
    CryobridgeError
        If there are several.
    """
    known = np.array([size for size in sizes_A if np.isfinite(size) and size > 0])
    if len(known) == 0:
        return None
    if np.ptp(known) > PIXEL_SIZE_TOLERANCE * known[0]:
        raise CryobridgeError(
            f"several pixel sizes: {', '.join(f'{size:g} Å' for size in np.unique(known))}",
            path=source,
            hint="Convert each pixel size on its own.",
        )
    return float(known[0])


def same_size(size_A: float, other_A: float) -> bool:
    """Whether two pixel sizes are one nominal value."""
    return abs(size_A - other_A) <= PIXEL_SIZE_TOLERANCE * other_A


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


def compare_with_headers(sizes_A: Floats, who_says: str, headers: Iterable[MrcHeader]) -> tuple[list[str], list[str]]:
    """Compare pixel sizes in Å with those in the headers of image files, of which some have none.

    Returns
    -------
    notes, warnings : lists of str
        Small and large contradictions, in sentences.
    """
    in_files = np.unique([round(header.pixel_size_A, 4) for header in headers if header.pixel_size_A])
    sizes_A = sizes_A[np.isfinite(sizes_A) & (sizes_A > 0)]
    if len(in_files) == 0 or len(sizes_A) == 0:
        return [], []
    factor = in_files[:, None] / sizes_A
    deviation = np.abs(factor - 1).min(axis=1)
    if not (deviation > _ROUNDING).any():
        return [], []
    in_files = in_files[deviation > _ROUNDING]
    told = ", ".join(f"{size:g}" for size in in_files[:3])
    if deviation.max() <= _CALIBRATION:
        return [f"the image files say pixels of {told} Å; {sizes_A[0]:g} Å stands"], []
    nm = ", as if it were in nm" if (np.abs(in_files / sizes_A[0] - 10) < _CALIBRATION * 10).any() else ""
    return [], [
        f"pixel size: {who_says} says {sizes_A[0]:g} Å{nm}, but the image files {told} Å; {sizes_A[0]:g} Å stands. "
        "Correct it if the images are right."
    ]


def refuse_equal_names(names: Iterable[str], metadata: Path) -> None:
    """Refuse different paths that share the file name by which they are looked for in one folder.

    Raises
    ------
    CryobridgeError
        If there are any.
    """
    by_name: dict[str, set[str]] = defaultdict(set)
    for name in names:
        path = name.removeprefix(">")
        by_name[path.rpartition("/")[2]].add(path)
    clashes = [" and ".join(sorted(paths)) for paths in by_name.values() if len(paths) > 1]
    if clashes:
        raise CryobridgeError(
            f"different files have one name in the folder of images: {'; '.join(clashes[:3])}",
            path=metadata,
            count=len(clashes),
            hint="Use --datadir, which keeps their folders apart.",
        )
