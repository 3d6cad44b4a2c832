"""The files that a selection writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.write import require_suffix, suffixes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.jobs.selection.choice import Mask

_MAX_FILES = 1000


@dataclass(frozen=True, eq=False)
class OutputPart:
    """One file to be written: its rows, (n,), and the class or cluster that they are, if one."""

    path: Path
    kept: Mask
    label: int | None = None


def one_part(particles: ParticleFiles, kept: Mask, output: Path) -> tuple[OutputPart, ...]:
    """Return the one file that is written."""
    require_suffix(particles, output, f"a selection of {particles.metadata.name} is")
    return (OutputPart(output, kept),)


def parts_of_classes(
    particles: ParticleFiles, kept: Mask, folder: Path, numbers: NDArray[np.int64], word: str
) -> tuple[OutputPart, ...]:
    """Return a file for each of the numbers that rows have, (n,), which are called so in their names."""
    stem, suffix = particles.metadata.stem, suffixes_of(particles)[0]
    present = np.unique(numbers[kept])
    if len(present) > _MAX_FILES:
        raise CryobridgeError(
            f"there are {len(present):,} classes, a file for each would be too many",
            path=particles.metadata,
            hint=f"Choose some of them first, with {option('classes')} or {option('clusters')}.",
        )
    return tuple(
        OutputPart(folder / f"{stem}_{word}{number:03d}{suffix}", kept & (numbers == number), int(number))
        for number in present
    )
