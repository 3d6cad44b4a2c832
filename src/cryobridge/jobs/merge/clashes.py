"""Rows of two files that are the same particle, which one file can't hold twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.merged import names_of
from cryobridge.formats.optics import distinct_rows
from cryobridge.formats.particle_files import PARENT_UID
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.merged import MergedFiles
    from cryobridge.model.particles import ImageRefs

_POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@dataclass(frozen=True, eq=False)
class _Identity:
    """By what rows are the same: a number for each, (n,), and how one of them is called.

    Files that are in ``alike``, by their places, may have such rows in common: copies of a particle.
    """

    what: str
    keys: NDArray[Any]
    name: Callable[[int], str]
    alike: tuple[int, ...] = ()


def refuse_clashes(files: MergedFiles, kept: NDArray[np.bool_]) -> list[Message]:
    """Refuse particles that stand in more than one of the files; return notes.

    Particles are the same that have the same uid or the same image. Where images stand several times in one file, as
    after symmetry expansion, rows of one image are copies of a particle: these are the same only with the same uid in
    `.cs` files, and with the same image and angles in STAR files. A copy is the same as the particle that was expanded.

    Parameters
    ----------
    files
        The files.
    kept
        (n,) the rows that are written.

    Raises
    ------
    CryobridgeError
        If there are any; two of the files are named.
    """
    file_of = np.repeat(np.arange(len(files.merged)), np.diff(files.starts))
    rows = np.flatnonzero(kept)
    messages: list[Message] = []
    for identity in _identities(files, messages):
        keys, side = identity.keys[rows], np.where(np.isin(file_of, identity.alike), -1, file_of)[rows]
        order = np.lexsort((side, keys))
        ordered, of_side, of_file = keys[order], side[order], file_of[rows][order]
        clash = np.flatnonzero((ordered[1:] == ordered[:-1]) & (of_side[1:] != of_side[:-1]))
        if len(clash):
            raise _clash(files, identity, rows[order], of_file, clash)
    return messages


def _identities(files: MergedFiles, messages: list[Message]) -> Iterator[_Identity]:
    uid = files.uid()
    if uid is not None:
        yield _Identity("uid", uid, lambda row: str(uid[row]))
        yield from _parents(files)
    images = files.images()
    if images is None:
        if files.star is not None and "rlnMicrographName" in files.columns:
            names = files.star[files.star.main].texts("rlnMicrographName").combine_chunks().dictionary_encode()
            codes = names.indices.to_numpy()
            yield _Identity("micrograph", codes, lambda row: str(names[row].as_py()))
        return
    width = int(images.index.max(initial=0)) + 1
    key = images.path.codes.astype(np.int64) * width + images.index
    key = np.where(images.index >= 0, key, -1 - np.arange(len(files)))  # a row without an image is like no other
    if PARENT_UID not in files.columns and not _is_repeated(files, key):
        yield _Identity("image", key, lambda row: _shown(images, row))
        return
    text = "images stand several times in a file: rows of one image are taken for copies of a particle"
    messages.append(note("images-repeated", text))
    pose = [name for name in _POSE if name in files.columns]
    if uid is None:
        angles = [np.asarray(values) for values in files.columns.read(pose).values()]
        what = "image and angles" if pose else "image"
        yield _Identity(what, distinct_rows([key, *angles]), lambda row: _shown(images, row))


def _parents(files: MergedFiles) -> Iterator[_Identity]:
    """Yield the uids of particles before they were expanded, where some of the files have been and some have not."""
    own = [part.parent_uid() for part in files.merged]
    expanded = tuple(place for place, uid in enumerate(own) if uid is not None)
    if 0 < len(expanded) < len(own):
        keys = np.concatenate([part.uid() if uid is None else uid for part, uid in zip(files.merged, own, strict=True)])
        yield _Identity(f"uid or {PARENT_UID}", keys, lambda row: str(keys[row]), expanded)


def _shown(images: ImageRefs, row: int) -> str:
    return f"{images.index[row] + 1}@{images.path[row]}"


def _is_repeated(files: MergedFiles, key: NDArray[np.int64]) -> bool:
    parts = (key[start:stop] for start, stop in pairwise(files.starts))
    return any(len(np.unique(part)) < len(part) for part in parts)


def _clash(
    files: MergedFiles,
    identity: _Identity,
    rows: NDArray[np.int64],
    of_file: NDArray[np.int64],
    clash: NDArray[np.int64],
) -> CryobridgeError:
    place = int(clash[0])
    labels = names_of(files.merged)
    sources = [int(of_file[row]) for row in (place, place + 1)]
    one, other = (labels[source] for source in sources)
    paths = [files.merged[source].path for source in sources]
    what = "micrograph" if identity.what == "micrograph" else "particle"
    what += " is" if len(clash) == 1 else "s are"
    example = f"{identity.name(int(rows[place]))} is in {one} and in {other}"
    return CryobridgeError(
        f"{len(clash):,} {what} in more than one of the files, by their {identity.what}: {example}",
        path=files.merged[sources[1]].metadata,
        count=len(clash),
        hint=f"`cryobridge select {paths[0]}` with {option('or_', str(paths[1]))} writes them once; "
        f"{option('dedupe_A', '1')} keeps the best of those that lie in one place.",
    )
