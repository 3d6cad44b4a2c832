"""Where the images of a smaller set came from: the table that lies beside a downsampled stack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.input_file import readable_size
from cryobridge.formats.listing import is_there
from cryobridge.formats.relion.particles import parse_image_names
from cryobridge.formats.relion.star import StarBlock, to_labels
from cryobridge.jobs.output_folder import files_in
from cryobridge.model.particles import ImageRefs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SOURCES_SUFFIX = "_sources.csv"
_COLUMNS = {
    "image": pa.string(),
    "source_row": pa.int64(),
    "source_file": pa.string(),
    "source_slice": pa.int64(),
    "uid": pa.string(),
}
# A downsampled set has one stack or a few; the search stops there.
_MAX_STACKS = 8


@dataclass(frozen=True, eq=False)
class Sources:
    """The table; one row an image of the smaller set.

    Attributes
    ----------
    path
        The file.
    images
        The smaller images.
    source_images
        Those that they were made from.
    uid
        (n,) uint64 of the row that they were made from, 0 where it had none; None where no row had one.
    """

    path: Path
    images: ImageRefs
    source_images: ImageRefs
    uid: NDArray[np.uint64] | None


def read_sources(path: Path) -> Sources:
    """Read a table of sources.

    Raises
    ------
    FormatError
        If it can't be read, or lacks a column.
    """
    readable_size(path)
    try:
        table = pa.csv.read_csv(
            path, convert_options=pa.csv.ConvertOptions(column_types=_COLUMNS, include_columns=list(_COLUMNS))
        )
        texts = table["uid"].to_pylist()
        uid = np.array([int(text) if text else 0 for text in texts], dtype=np.uint64)
        return Sources(
            path,
            parse_image_names(StarBlock(path, "", table.select(["image"]).rename_columns(["rlnImageName"]))),
            ImageRefs(to_labels(table["source_file"]), table["source_slice"].combine_chunks().to_numpy()),
            uid if uid.any() else None,
        )
    except CryobridgeError:
        raise
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, ValueError, OverflowError) as error:
        raise FormatError(
            f"no table of sources that can be read ({str(error).splitlines()[0]})",
            path=path,
            hint=f"It has the columns {', '.join(_COLUMNS)}, as `cryobridge stacks downsample` writes them.",
        ) from error


def find_sources(table: Path, images: ImageRefs) -> Iterator[Sources]:
    """Yield the tables of sources beside a particle file and beside its stacks.

    First come those that are named after the file or a stack; a damaged one is an error. Then come others, of which
    those that can't be read are passed over: a selection has another name than the set that it is from.

    Parameters
    ----------
    table
        The particle file, such as ``particles.128.star`` or a selection of it.
    images
        Its images, such as ``000001@particles.128.mrcs``.
    """
    search = ImageSearch(table)
    places = [table]
    for stack in _first_used(images):
        places += [table.parent / PurePosixPath(stack).name, *search.candidates(stack)]
    named = dict.fromkeys(place.with_name(f"{place.stem}{SOURCES_SUFFIX}") for place in places)
    found = [path for path in named if is_there(path)]
    yield from map(read_sources, found)
    folders = dict.fromkeys(place.parent for place in places)
    for path in (path for folder in folders for path in files_in(folder, f"*{SOURCES_SUFFIX}") if path not in found):
        try:
            yield read_sources(path)
        except FormatError:
            continue


def _first_used(images: ImageRefs) -> Iterable[str]:
    used = np.unique(images.path.codes)[:_MAX_STACKS]
    return (images.path.values[int(code)] for code in used)
