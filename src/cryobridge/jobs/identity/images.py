"""Which images of two files are the same: by the name of the stack and the number in it.

Names of one stack differ from program to program: cryoSPARC's may begin with ``>``, end with ``.mrc`` and carry a uid
of 21 digits; RELION's end with ``.mrcs`` and may start in another folder.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, option
from cryobridge.model.particles import IMAGES_IN_A_STACK
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from cryobridge.formats.table import Array
    from cryobridge.model.particles import ImageRefs

Rows = NDArray[np.int64]
_Parts = tuple[str, ...]
_UID_PREFIX = re.compile(r"\d{21}_(?=.)")
_N_SHOWN = 3


def match_images(ours: ImageRefs, theirs: ImageRefs) -> tuple[Rows, tuple[Message, ...]]:
    """Return the first row of ``theirs`` with the image of each of ``ours``, -1 where there is none; and messages.

    Raises
    ------
    CryobridgeError
        If a stack of one could be either of two of the other.
    """
    our_stack, their_stack, messages = _same_stacks(ours, theirs)
    our_id, their_id = our_stack[ours.path.codes], their_stack[theirs.path.codes]
    our_key = np.where((our_id >= 0) & _is_possible(ours), our_id * IMAGES_IN_A_STACK + ours.index, -1)
    their_key = np.where((their_id >= 0) & _is_possible(theirs), their_id * IMAGES_IN_A_STACK + theirs.index, -2)
    return first_places(our_key, their_key, our_key >= 0), messages


def _is_possible(images: ImageRefs) -> NDArray[np.bool_]:
    possible: NDArray[np.bool_] = (images.index >= 0) & (images.index < IMAGES_IN_A_STACK)
    return possible


def first_places(wanted: Array, keys: Array, valid: NDArray[np.bool_]) -> Rows:
    """Return the first place of each wanted value among the keys, (n,), -1 where it is not there or not ``valid``."""
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


def _ambiguous(name: _Parts, candidates: list[_Parts]) -> CryobridgeError:
    shown = " and ".join("/".join(candidate) for candidate in candidates[:_N_SHOWN])
    return CryobridgeError(
        f"the stack {'/'.join(name)} may be {shown}",
        count=len(candidates),
        hint=f"Rows can't be distinguished by these names; choose by uid (two .cs files), or by {option('rows')}.",
    )
