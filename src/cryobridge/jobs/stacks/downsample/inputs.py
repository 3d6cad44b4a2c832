"""What is downsampled: particles of a file or a job folder, or a bare stack, and where their images are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats import registry
from cryobridge.formats.open import IMAGES_AND_CTF, ParticleFiles, open_particles
from cryobridge.formats.optics import KnownOptics
from cryobridge.jobs.stacks.checks import Findings, Rows, one_pixel_size
from cryobridge.jobs.stacks.image_files import FoundImages, find_images
from cryobridge.jobs.stacks.inputs import file_with
from cryobridge.model.particles import ImageRefs, ParticleSet

if TYPE_CHECKING:
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.formats.relion.star import StarFile
    from cryobridge.jobs.stacks.downsample.options import DownsampleOptions

_Read: TypeAlias = Callable[[KnownOptics], ParticleSet]
_NOTHING_KNOWN = KnownOptics()
_N_SHOWN = 3


@dataclass(frozen=True)
class DownsampleInput:
    """Particles that have an image.

    Parameters
    ----------
    particles
        Those that are taken, in the order in which they are written; with optics, whatever is known of them.
    headers
        The header of each image file, by its number in ``particles.images.path.values``.
    source_rows
        (n,) the row of the metadata that each particle is.
    n_source_rows
        How many rows the metadata have.
    left_out
        How many of them are not taken, by reason.
    star
        The STAR file that they are from, or None.
    notes
        What was assumed, in sentences.
    warnings
        What may be wrong, in sentences.
    findings
        What is wrong.
    """

    particles: ParticleSet
    headers: dict[int, MrcHeader]
    source_rows: Rows
    n_source_rows: int
    left_out: dict[str, int]
    star: StarFile | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    findings: Findings

    @property
    def images(self) -> ImageRefs:
        """Where the image of each particle is."""
        assert self.particles.images is not None
        return self.particles.images


def read_downsample_input(
    path: str | os.PathLike[str], search: ImageSearch, options: DownsampleOptions
) -> DownsampleInput:
    """Read particles and find their images.

    Parameters
    ----------
    path
        The `.star`, `.cs` or `.csg` file, the job folder, or the stack.
    search
        Where image files are looked for; ``metadata`` of it becomes the file that names them.
    options
        What was asked for.

    Raises
    ------
    UsageError
        If the file is of another kind, or options don't go with it.
    CryobridgeError
        If it can't be read, or says nothing of images.
    """
    path = Path(path)
    files, more = _open(path, search, options)
    read = files.read
    contradiction = Findings()
    everything = None
    with contradiction.collect():
        everything = read(KnownOptics(pixel_size_A=options.pixel_size_A))
    if everything is None:
        everything = read(_NOTHING_KNOWN)
    if everything.n_rows == 0:
        raise MissingDataError("there are no particles in it", path=path, hint="Choose another file.")
    if everything.images is None:
        raise MissingDataError(
            "nothing says where the images are", path=path, hint=file_with(everything.source, "images")
        )
    rows = np.arange(everything.n_rows) if options.indices is None else _indices(options.indices, everything)
    chosen = everything.images
    search = replace(search, metadata=everything.source)
    found = find_images(ImageRefs(chosen.path.take(rows), chosen.index[rows]), search, options.on_missing)
    findings, notes = Findings([*contradiction.errors, *found.findings.errors]), [*more, *found.notes]
    with findings.collect():
        everything, about_size = _with_pixel_size(read, everything, found)
        notes += about_size
    kept = rows[found.rows]
    n_unchosen = everything.n_rows - len(rows)
    particles = everything if len(kept) == everything.n_rows and options.indices is None else everything.take(kept)
    return DownsampleInput(
        particles,
        found.headers,
        kept,
        everything.n_rows,
        ({f"not in {options.indices.name}": n_unchosen} if options.indices and n_unchosen else {}) | found.left_out,
        files.star,
        tuple(dict.fromkeys([*map(str, everything.messages), *notes])),
        files.warnings,
        findings,
    )


def _open(path: Path, search: ImageSearch, options: DownsampleOptions) -> tuple[ParticleFiles, list[str]]:
    """Open the particles, and say which files beside a bare stack are not used."""
    pickles = [item for item in (options.poses, options.ctf) if item is not None]
    is_stack = not path.is_dir() and registry.identify_file(path) == registry.MRC
    if pickles and not is_stack:
        raise UsageError("--poses and --ctf are for a bare stack", path=path, hint="Leave them out.")
    if is_stack and (search.folder or search.datadir or search.strip_prefix):
        raise UsageError(
            "--folder-mrc, --datadir and --strip-prefix are for metadata; this is the image file itself",
            path=path,
            hint="Leave them out.",
        )
    files = open_particles(path, *pickles, needs=(*IMAGES_AND_CTF, "alignments"))
    files.require_all_rows()
    notes = list(files.notes)
    for name, given in (("poses", options.poses), ("ctf", options.ctf)) if is_stack else ():
        beside = path.with_name(f"{name}.pkl")
        if given is None and beside.is_file():
            notes.append(f"{beside.name} lies beside the stack and is not used; --{name} {beside} would carry it along")
    return files, notes


def _indices(path: Path, particles: ParticleSet) -> Rows:
    """Read the rows to take, from a pickle or a `.npy` file."""
    if registry.identify_file(path) == registry.NPY:
        from cryobridge.formats.arrays import read_npy

        values = read_npy(path)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise FormatError(
                f"rows are a one-dimensional array of whole numbers, not {values.ndim}-dimensional {values.dtype}",
                path=path,
                hint="Write row numbers, counted from 0; np.flatnonzero makes them of a mask.",
            )
        rows = values.astype(np.int64)
    else:
        from cryobridge.formats.pickles import read_indices

        rows = read_indices(path)
    wrong = np.flatnonzero((rows < 0) | (rows >= particles.n_rows))
    if len(wrong):
        raise UsageError(
            f"row {rows[wrong[0]]:,} is asked for, {particles.source.name} has {particles.n_rows:,}, counted from 0",
            path=path,
            count=len(wrong),
            hint="Give the rows that were chosen from this very file.",
        )
    if len(np.unique(rows)) < len(rows):
        counts = np.bincount(rows)
        twice = np.flatnonzero(counts > 1)
        raise UsageError(
            f"rows are in it twice: {', '.join(map(str, twice[:_N_SHOWN]))}",
            path=path,
            count=len(twice),
            hint="np.unique takes each once.",
        )
    if len(rows) == 0:
        raise UsageError("there are no rows in it", path=path, hint="Leave --ind out to take all.")
    return rows


def _with_pixel_size(read: _Read, particles: ParticleSet, found: FoundImages) -> tuple[ParticleSet, list[str]]:
    """Take the pixel size from the image files where nothing else says it."""
    optics, index = particles.optics, particles.optics_index
    if optics is not None and index is not None and not np.isnan(optics.pixel_size_A[np.unique(index)]).any():
        return particles, []
    if not found.headers:
        return particles, []  # that is an error of its own
    in_headers = [header.pixel_size_A for header in found.headers.values() if header.pixel_size_A]
    size_A = one_pixel_size(in_headers, particles.source)
    if size_A is None:
        raise MissingDataError(
            "neither the metadata nor the image files say the pixel size",
            path=particles.source,
            hint="Give it with --pixel-size, in Å.",
        )
    note = f"the pixel size is that of the image files: {size_A:g} Å"
    return read(KnownOptics(pixel_size_A=size_A)), [note]
