"""What is downsampled: particles of a file or a job folder, or a bare stack, and where their images are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats import folders, registry
from cryobridge.formats.mrc_header import decide_kind, read_header
from cryobridge.formats.optics import KnownOptics, fill_optics
from cryobridge.formats.projects import folder_refusal
from cryobridge.jobs.stacks.checks import Findings, Rows, one_pixel_size
from cryobridge.jobs.stacks.image_files import FoundImages, find_images, whole_sections
from cryobridge.jobs.stacks.inputs import file_with
from cryobridge.model.particles import ImageRefs, Labels, ParticleSet

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
        The `.star`, `.cs` or `.csg` file, the cryoSPARC job folder, or the stack.
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
    read, star, more = _reader(path, search, options)
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
        star,
        (*map(str, everything.messages), *notes),
        findings,
    )


def _reader(path: Path, search: ImageSearch, options: DownsampleOptions) -> tuple[_Read, StarFile | None, list[str]]:
    """Return what reads the particles, given what the user says of the optics, and notes about the file."""
    if path.is_dir() and folders.identify_folder(path) != folders.CRYOSPARC_JOB:
        raise folder_refusal(path, "particles")
    kind = registry.CS if path.is_dir() else registry.identify_file(path)
    if kind != registry.MRC and (options.poses or options.ctf):
        raise UsageError("--poses and --ctf are for a bare stack", path=path, hint="Leave them out.")
    if kind == registry.STAR:
        from cryobridge.formats.relion.particles import particles_from_star
        from cryobridge.formats.relion.star import open_star

        star = open_star(path)
        return lambda known: particles_from_star(star, known=known), star, []
    if kind in {registry.CS, registry.CSG}:
        from cryobridge.formats.cryosparc.companions import IMAGES_AND_CTF, open_completed
        from cryobridge.formats.cryosparc.particles import particles_from_cs

        table, notes = open_completed(path, *IMAGES_AND_CTF, "alignments")
        return lambda known: particles_from_cs(table, known=known), None, list(notes)
    if kind == registry.MRC:
        if search.folder or search.datadir or search.strip_prefix:
            raise UsageError(
                "--folder-mrc, --datadir and --strip-prefix are for metadata; this is the image file itself",
                path=path,
                hint="Leave them out.",
            )
        return _stack_reader(path, options)
    raise UsageError(
        f"not particles, but {kind}",
        path=path,
        hint="Give a .star, .cs, .csg or .mrcs file, or a cryoSPARC job folder.",
    )


def _stack_reader(path: Path, options: DownsampleOptions) -> tuple[_Read, None, list[str]]:
    header = read_header(path)
    decided = decide_kind(header)
    if decided.kind == "volume":
        raise UsageError(f"a volume: {decided.reason}", path=path, hint="Give a stack of images.")
    notes = [] if decided.certain else [f"{path.name} is taken for a stack of images: {decided.reason}"]
    for name, given in (("poses", options.poses), ("ctf", options.ctf)):
        beside = path.with_name(f"{name}.pkl")
        if given is None and beside.is_file():
            notes.append(f"{beside.name} lies beside the stack and is not used; --{name} {beside} would carry it along")
    if options.poses or options.ctf:
        from cryobridge.formats.particles_pickle import particles_from_pickles

        return lambda known: particles_from_pickles(path, options.poses, options.ctf, known=known), None, notes
    return lambda known: _bare_stack(path, header, known), None, notes


def _bare_stack(path: Path, header: MrcHeader, known: KnownOptics) -> ParticleSet:
    """Return the images of a stack of which nothing else is known."""
    n = whole_sections(header)
    optics, index = fill_optics(None, None, n, replace(known, box_px=header.nx), path)
    refs = ImageRefs(Labels(np.zeros(n, np.int32), (str(path),)), np.arange(n))
    return ParticleSet(n, path, images=refs, optics=optics, optics_index=index)


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
