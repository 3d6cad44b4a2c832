"""Which rows of two particle files are the same particle: by uid, or by the image's stack and number.

Names of one stack differ from program to program: cryoSPARC's may begin with ``>``, end with ``.mrc`` and carry a uid
of 21 digits; RELION's end with ``.mrcs`` and may start in another folder. Rows are never matched by their position.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.jobs.selection.sources import Sources, find_sources, read_sources
from cryobridge.model.particles import ImageRefs
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.open import ParticleFiles
    from cryobridge.formats.table import Array

Rows = NDArray[np.int64]
_Uids = NDArray[np.uint64]
_Parts = tuple[str, ...]
_UID_PREFIX = re.compile(r"\d{21}_(?=.)")
_N_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Identities:
    """What the rows of a particle file are known by.

    Attributes
    ----------
    path
        The file.
    uid, images
        Its own; None where it has none.
    source_uid, source_images
        Those of the particles that its images were made from, by a table of sources; a uid of 0 and an index of -1
        stand for none.
    messages
        What was looked up.
    """

    path: Path
    uid: _Uids | None
    images: ImageRefs | None
    source_uid: _Uids | None = None
    source_images: ImageRefs | None = None
    messages: tuple[Message, ...] = ()

    @property
    def all_uids(self) -> list[tuple[_Uids, NDArray[np.bool_]]]:
        """The uids that there are, each with whether a row has one."""
        found: list[tuple[_Uids, NDArray[np.bool_]]] = []
        if self.uid is not None:
            found.append((self.uid, np.ones(len(self.uid), dtype=bool)))
        if self.source_uid is not None:
            found.append((self.source_uid, np.asarray(self.source_uid != 0)))
        return found

    @property
    def all_images(self) -> list[ImageRefs]:
        """The images that there are."""
        return [images for images in (self.images, self.source_images) if images is not None]


@dataclass(frozen=True, eq=False)
class Match:
    """The row of the other file for each row of the first, (n,), -1 where it has none; and how it was found.

    Attributes
    ----------
    messages
        Through which files particles were traced, and what was assumed.
    """

    rows: Rows
    by: str
    messages: tuple[Message, ...] = ()


def identities_of(particles: ParticleFiles, sources: Path | None = None) -> Identities:
    """Return what the rows of a particle file are known by.

    Parameters
    ----------
    particles
        The file.
    sources
        The table of sources; without one it is looked for beside the file and its stacks.
    """
    images, uid = particles.images(), particles.uid()
    if images is None:
        return Identities(particles.metadata, uid, None)
    for table in find_sources(particles.metadata, images) if sources is None else (read_sources(sources),):
        rows, _ = match_images(images, table.images)
        n_known = int(np.count_nonzero(rows >= 0))
        if n_known:
            count = f"{n_known:,} of {len(particles):,} images"
            text = f"{count} of {particles.metadata.name} are traced to their sources by {table.path.name}"
            traced = (note("images-traced", text, where=table.path),)
            return Identities(particles.metadata, uid, images, _uids_at(table, rows), _sources_at(table, rows), traced)
    return Identities(particles.metadata, uid, images)


def match_rows(first: Identities, other: Identities) -> Match:
    """Find the rows of ``other`` that are the particles of ``first``.

    uids are compared where both have them; where they have none in common, the images are. Of repeated particles of
    ``other`` the first is taken.

    Raises
    ------
    MissingDataError
        If they have no particle in common.
    CryobridgeError
        If a stack of one could be either of two of the other.
    """
    traced = (*first.messages, *other.messages)
    for ours, has_uid in first.all_uids:
        for theirs, _ in other.all_uids:
            rows = _first_places(ours, theirs, has_uid)
            if (rows >= 0).any():
                return Match(rows, "uid", traced)
    for our_images in first.all_images:
        for their_images in other.all_images:
            rows, messages = match_images(our_images, their_images)
            if (rows >= 0).any():
                return Match(rows, "image", (*traced, *messages))
    raise _nothing_shared(first, other)


def match_images(ours: ImageRefs, theirs: ImageRefs) -> tuple[Rows, tuple[Message, ...]]:
    """Return the first row of ``theirs`` with the image of each of ``ours``, -1 where there is none; and messages.

    Raises
    ------
    CryobridgeError
        If a stack of one could be either of two of the other.
    """
    our_stack, their_stack, messages = _same_stacks(ours, theirs)
    width = max(int(ours.index.max(initial=0)), int(theirs.index.max(initial=0))) + 1
    our_id, their_id = our_stack[ours.path.codes], their_stack[theirs.path.codes]
    our_key = np.where((our_id >= 0) & (ours.index >= 0), our_id * width + ours.index, -1)
    their_key = np.where((their_id >= 0) & (theirs.index >= 0), their_id * width + theirs.index, -2)
    return _first_places(our_key, their_key, our_key >= 0), messages


def _first_places(wanted: Array, keys: Array, valid: NDArray[np.bool_]) -> Rows:
    """Return the first place of each wanted value among the keys, -1 where it is not there or not valid."""
    rows = np.full(len(wanted), -1, dtype=np.int64)
    if len(keys) == 0 or len(wanted) == 0:
        return rows
    # Both sides are sorted: looking up sorted values walks through memory instead of jumping in it.
    order, wanted_order = np.argsort(keys, kind="stable"), np.argsort(wanted)
    ordered, sought = keys[order], wanted[wanted_order]
    place = np.minimum(np.searchsorted(ordered, sought), len(ordered) - 1)
    rows[wanted_order] = np.where(ordered[place] == sought, order[place], -1)
    rows[~valid] = -1
    return rows


def _same_stacks(ours: ImageRefs, theirs: ImageRefs) -> tuple[Rows, Rows, tuple[Message, ...]]:
    """Return for each text of either side the number of a common stack, -1 for none."""
    our_parts, their_parts = _parts_of(ours), _parts_of(theirs)
    our_names, their_names = set(our_parts.values()), set(their_parts.values())
    messages: tuple[Message, ...] = ()
    pairs = {name: name for name in our_names & their_names}
    rest = (our_names - pairs.keys(), their_names - pairs.keys())
    pairs |= _pair(*rest, _tails)
    rest = (our_names - pairs.keys(), their_names - set(pairs.values()))
    pairs |= _pair(*rest, lambda name: _tails(_without_uid(name)))
    if not pairs:
        pairs = _pair(our_names, their_names, lambda name: [_without_uid(name)[-1:]])
        if pairs:
            example, other = next(iter(pairs.items()))
            text = (
                f"the folders of the stacks differ; they are matched by file name alone, as {'/'.join(example)} and "
                f"{'/'.join(other)}: check that these are the same images"
            )
            messages = (warning("stacks-matched-by-name", text),)
    number = {name: place for place, name in enumerate(pairs)}
    number_of_theirs = {other: number[name] for name, other in pairs.items()}
    return _numbers(ours, our_parts, number), _numbers(theirs, their_parts, number_of_theirs), messages


def _parts_of(images: ImageRefs) -> dict[int, _Parts]:
    """Return the folders and the name, without suffix, of each stack that some row has, by its code."""
    used = np.flatnonzero(np.bincount(images.path.codes, minlength=len(images.path.values)))
    return {int(code): _parts(images.path.values[int(code)]) for code in used}


def _parts(name: str) -> _Parts:
    name = posixpath.normpath(name.removeprefix(">").removesuffix(":mrcs"))
    stem, suffix = posixpath.splitext(name)
    return tuple((stem if suffix in {".mrc", ".mrcs"} else name).strip("/").split("/"))


def _without_uid(name: _Parts) -> _Parts:
    return (*name[:-1], _UID_PREFIX.sub("", name[-1]))


def _tails(name: _Parts) -> list[_Parts]:
    return [name[start:] for start in range(len(name))]


def _pair(ours: set[_Parts], theirs: set[_Parts], forms: Callable[[_Parts], list[_Parts]]) -> dict[_Parts, _Parts]:
    """Pair names one of whose forms is the first form of the other: a path and the same from a folder further down."""
    by_form: dict[_Parts, set[_Parts]] = defaultdict(set)
    by_first: dict[_Parts, set[_Parts]] = defaultdict(set)
    for name in ours:
        all_forms = forms(name)
        by_first[all_forms[0]].add(name)
        for form in all_forms:
            by_form[form].add(name)
    pairs: dict[_Parts, _Parts] = {}
    for other in sorted(theirs):
        other_forms = forms(other)
        found = by_form.get(other_forms[0], set()).union(*(by_first.get(form, ()) for form in other_forms))
        if len(found) > 1:
            raise _ambiguous(other, sorted(found))
        for name in found:
            if name in pairs:
                raise _ambiguous(name, [pairs[name], other])
            pairs[name] = other
    return pairs


def _numbers(images: ImageRefs, parts: dict[int, _Parts], number: dict[_Parts, int]) -> Rows:
    found = np.full(len(images.path.values), -1, dtype=np.int64)
    for code, name in parts.items():
        found[code] = number.get(name, -1)
    return found


def _uids_at(table: Sources, rows: Rows) -> _Uids | None:
    return None if table.uid is None else np.where(rows >= 0, table.uid[rows], np.uint64(0))


def _sources_at(table: Sources, rows: Rows) -> ImageRefs:
    source = table.source_images
    return ImageRefs(source.path.take(rows), np.where(rows >= 0, source.index[rows], -1))


def _ambiguous(name: _Parts, candidates: list[_Parts]) -> CryobridgeError:
    shown = " and ".join("/".join(candidate) for candidate in candidates[:_N_SHOWN])
    return CryobridgeError(
        f"the stack {'/'.join(name)} may be {shown}",
        count=len(candidates),
        hint=f"Rows can't be distinguished by these names; choose by uid (two .cs files), or by {option('rows')}.",
    )


def _nothing_shared(first: Identities, other: Identities) -> MissingDataError:
    shown = []
    for side in (first, other):
        kinds = ["a uid"] * (side.uid is not None) + ["images"] * (side.images is not None)
        example = ""
        if side.images is not None and len(side.images.index):
            example = f", such as {side.images.index[0] + 1}@{side.images.path[0]}"
        shown.append(f"{side.path.name} has {' and '.join(kinds) or 'neither uid nor images'}{example}")
    return MissingDataError(
        f"no particle of {other.path.name} is in it: {'; '.join(shown)}",
        path=first.path,
        hint="Check that both are of one data set. A downsampled set is traced through its …_sources.csv "
        f"({option('sources')}).",
    )
