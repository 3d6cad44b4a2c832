"""What is downsampled: particles of a file or a job folder, or a bare stack, and where their images are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cryobridge.errors import FormatError, UsageError, option
from cryobridge.formats import registry
from cryobridge.formats.open import IMAGES_AND_CTF, open_particles
from cryobridge.formats.optics import KnownOptics
from cryobridge.formats.particle_files import ParticleFiles, naming_damage
from cryobridge.jobs.stacks.inputs import StackInput, require, rows_input
from cryobridge.model.particles import ParticleSet
from cryobridge.report import Message, distinct, note

if TYPE_CHECKING:
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.options import DownsampleOptions

_Read: TypeAlias = Callable[[KnownOptics], ParticleSet]
_NOTHING_KNOWN = KnownOptics()
_N_SHOWN = 3


def read_downsample_input(path: str | os.PathLike[str], search: ImageSearch, options: DownsampleOptions) -> StackInput:
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
        If it can't be read, or has no image references.
    """
    path = Path(path)
    files, messages = _open(path, search, options)
    with naming_damage(files):
        return _input(path, files, messages, search, options)


def _input(
    path: Path, files: ParticleFiles, messages: list[Message], search: ImageSearch, options: DownsampleOptions
) -> StackInput:
    everything = files.read(_NOTHING_KNOWN)
    require(everything, "images")
    rows = np.arange(everything.n_rows) if options.indices is None else _indices(options.indices, everything)
    found = rows_input(everything, rows, replace(search, metadata=everything.source), options.on_missing, files.read)
    n_unchosen = everything.n_rows - len(rows)
    unchosen = {f"not in {options.indices.name}": n_unchosen} if options.indices and n_unchosen else {}
    return replace(
        found,
        left_out=unchosen | found.left_out,
        star=files.star,
        messages=distinct([*everything.messages, *messages, *found.messages]),
    )


def _open(path: Path, search: ImageSearch, options: DownsampleOptions) -> tuple[ParticleFiles, list[Message]]:
    """Open the particles, and say which files beside a bare stack are not used."""
    pickles = [item for item in (options.poses, options.ctf) if item is not None]
    is_stack = not path.is_dir() and registry.identify_file(path) in {registry.MRC, registry.LIST}
    if pickles and not is_stack:
        text = f"{option('poses')} and {option('ctf')} are for a bare stack"
        raise UsageError(text, path=path, hint="Leave them out.")
    if is_stack and (search.datadir or search.strip_prefix):
        raise UsageError(
            f"{option('datadir')} and {option('strip_prefix')} are for metadata; this is the image file itself",
            path=path,
            hint="Leave them out.",
        )
    files = open_particles(path, *pickles, needs=(*IMAGES_AND_CTF, "alignments"))
    files.require_all_rows()
    messages = list(files.messages)
    for name, given in (("poses", options.poses), ("ctf", options.ctf)) if is_stack else ():
        beside = path.with_name(f"{name}.pkl")
        if given is None and beside.is_file():
            text = f"{beside.name} lies beside the stack and is not used; {option(name, beside)} would carry it along"
            messages.append(note("pickle-not-used", text, option=name))
    return files, messages


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
        raise UsageError("there are no rows in it", path=path, hint=f"Leave {option('indices')} out to take all.")
    return rows
