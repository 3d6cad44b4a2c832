"""What RELION refuses, or reads wrongly, of particles.

The rules are asked before particles are written for RELION, and by inspect of a STAR file as it stands. Each of them
was found by running RELION 3.1.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, option
from cryobridge.formats.aberrations import MAGNIFICATION, is_singular
from cryobridge.formats.unusable import N_SHOWN, calculated_with, how_to_leave_out, not_finite
from cryobridge.model.fields import FIELDS
from cryobridge.report import Message, counted, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.formats.relion.star import StarBlock, StarFile
    from cryobridge.formats.table import Values
    from cryobridge.model.particles import ParticleSet

HALF_SETS = "rlnRandomSubset"
PREMULTIPLIED = "rlnCtfDataAreCtfPremultiplied"
_IMAGE, _GROUP, _SIZE = "rlnImageName", "rlnOpticsGroup", "rlnImageSize"
# RELION keeps the suffix .mrc for maps and micrographs.
_NAMED_MRC = r"@.*\.mrc$"
# Without these no CTF can be computed, and no pixel has a size.
_NEVER_ZERO = ("optics.voltage_kV", "optics.pixel_size_A")


@dataclass(frozen=True)
class Refusal:
    """Why RELION would refuse a STAR file as it stands, or read it wrongly.

    Parameters
    ----------
    reason
        What is wrong, with the column and the first rows (0-based).
    remedy
        What to do, as a sentence.
    is_damage
        Whether the commands refuse it too, since a value is none.
    """

    reason: str
    remedy: str
    is_damage: bool = False


def half_sets_refused(half_set: NDArray[np.integer[Any]]) -> str:
    """Say why RELION's refinement stops with these half sets.

    Parameters
    ----------
    half_set
        (n,) of each particle, counted from 1.

    Returns
    -------
    str
        The beginning of a sentence; empty where it takes them: all are 1 or 2 and both occur, or all are 0, for
        which it divides the particles itself.

    Examples
    --------
    >>> half_sets_refused(np.array([1, 1, 1]))
    'all particles are in half set 1'
    """
    found = np.unique(half_set)
    if len(half_set) < 2 or not found.any():
        return ""
    if not np.isin(found, (0, 1, 2)).all():
        odd = ", ".join(map(str, found[:N_SHOWN])) + (" …" if len(found) > N_SHOWN else "")
        return f"half sets are {odd}; RELION takes 1 and 2 only"
    if found[0] == 0:
        return f"{part_of(int(np.count_nonzero(half_set == 0)), len(half_set), 'particle')} in no half set"
    return f"all particles are in half set {found[0]}" if len(found) == 1 else ""


def half_sets_left_out(half_set: NDArray[np.integer[Any]] | None) -> list[Message]:
    """Return a warning where half sets are left out, for RELION's refinement would stop; none where they are written.

    Parameters
    ----------
    half_set
        (n,) of each particle, counted from 1, or None.
    """
    why = "" if half_set is None else half_sets_refused(half_set)
    if not why:
        return []
    text = f"{why}: {HALF_SETS}, with which RELION's refinement would stop, is left out"
    return [warning("half-sets-left-out", text)]


def premultiplied(particles: ParticleSet, who: str) -> list[Message]:
    """Return a warning of images that are multiplied by their CTF, for a target that has no place to say so.

    Parameters
    ----------
    particles
        What is to be written.
    who
        The target, such as ``"cryoSPARC"``.
    """
    if not is_premultiplied(particles).any():
        return []
    text = (
        f"the images are multiplied by their CTF ({PREMULTIPLIED} 1), which {who} can't be given to know: the CTF "
        "would be applied twice; extract the particles again without it"
    )
    return [warning("ctf-premultiplied", text)]


def is_premultiplied(particles: ParticleSet) -> NDArray[np.bool_]:
    """Return of each particle, (n,), whether a STAR file says that its image is multiplied by its CTF."""
    none, extra, index = np.zeros(len(particles), bool), particles.extra, particles.optics_index
    if extra is None or extra.program != "relion":
        return none
    if PREMULTIPLIED in extra.names:  # a file without optics groups
        flags = extra.read([PREMULTIPLIED])[PREMULTIPLIED]
    else:
        flags = extra.optics.get(PREMULTIPLIED)
        if flags is None or index is None:
            return none
        flags = np.asarray(flags)[index]
    found: NDArray[np.bool_] = np.asarray(flags, np.float64) != 0
    return found


def named_mrc(names: Sequence[str]) -> list[Message]:
    """Return a warning of stacks that RELION does not open because of their names.

    Parameters
    ----------
    names
        Distinct names of stacks, as they are written.
    """
    n_mrc = sum(name.endswith(".mrc") for name in names)
    if not n_mrc:
        return []
    stacks = "1 stack is" if n_mrc == 1 else f"{n_mrc:,} stacks are"
    text = f"{stacks} named .mrc, which RELION can't read as stacks: {option('link_stacks', 'DIR')}"
    return [warning("stacks-named-mrc", text, option="link_stacks")]


def refused(star: StarFile) -> tuple[Refusal, ...]:
    """Return why RELION would refuse a STAR file of particles as it stands, or read it wrongly.

    Parameters
    ----------
    star
        The file, with a column of image names.

    Returns
    -------
    tuple of Refusal
        Empty where nothing is found.

    Examples
    --------
    >>> [item.reason for item in refused(open_star("half1.star"))]
    ['rlnRandomSubset: all particles are in half set 1']
    """
    block = star[star.main]
    optics = star.optics
    return (
        *_no_numbers(block),
        *_odd_half_sets(block),
        *_incomplete_layout(block, optics),
        *_undefined_groups(block, optics),
        *_useless_optics(block if optics is None else optics),
        *_singular_magnification(optics),
        *_stacks_named_mrc(block),
    )


def boxes_of_rows(star: StarFile) -> NDArray[Any] | None:
    """Return the box of each row of a STAR file, (n,) in pixels, 0 where unknown; None where it says of none."""
    block, optics = star[star.main], star.optics
    groups = _numbers(block, _GROUP)
    defined, sizes = (None if optics is None else _numbers(optics, name) for name in (_GROUP, _SIZE))
    if groups is None or defined is None or sizes is None or not len(defined):
        return None
    order = np.argsort(defined)
    place = np.minimum(np.searchsorted(defined[order], groups), len(order) - 1)
    boxes: NDArray[Any] = np.where(defined[order][place] == groups, sizes[order][place], 0)
    return boxes


def check_star_rows(star: StarFile, rows: NDArray[Any]) -> list[Message]:
    """Refuse rows of a STAR file of particles that are to be written as they are, if values in them are not numbers.

    Parameters
    ----------
    star
        The file.
    rows
        (n,) whether a row is written; or the rows to write.

    Returns
    -------
    list of Message
        A warning where half sets are left out (see `half_sets_of_rows`).

    Raises
    ------
    FormatError
        If a pose, shift, CTF value or coordinate of these rows is not a number.
    """
    block = star[star.main]
    if _IMAGE not in block:
        return []
    chosen = np.zeros(block.n_rows, bool)
    chosen[rows] = True
    wrong = {name: bad & chosen for name, bad in _not_numbers(block)}
    wrong = {name: bad for name, bad in wrong.items() if bad.any()}
    if wrong:
        bad_rows = np.flatnonzero(np.logical_or.reduce(list(wrong.values())))
        raise FormatError(
            "not a number, or infinite",
            path=star.path,
            field=", ".join(wrong),
            rows=tuple(int(row) for row in bad_rows[:N_SHOWN]),
            count=len(bad_rows),
            hint=how_to_leave_out(wrong),
        )
    return half_sets_left_out(half_sets_of_rows(block, rows))


def half_sets_of_rows(block: StarBlock, rows: NDArray[Any]) -> NDArray[np.integer[Any]] | None:
    """Return the half sets of rows of a STAR file of particles; None where there are none."""
    values = _numbers(block, HALF_SETS) if _IMAGE in block else None
    return None if values is None else values[rows]


def _numbers(block: StarBlock, name: str) -> NDArray[Any] | None:
    values: Values | None = block.read([name])[name] if name in block else None
    return values if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" else None


def _rows(wrong: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(wrong)
    more = f" … ({len(rows):,} in all)" if len(rows) > N_SHOWN else ""
    return f"row {', '.join(map(str, rows[:N_SHOWN]))}{more}"


def _not_numbers(block: StarBlock) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the columns that programs calculate with in which some rows, (n,), are not numbers."""
    for item in calculated_with():
        for name in item.names("relion"):
            values = _numbers(block, name)
            if values is not None and values.dtype.kind == "f" and (wrong := not_finite(values)).any():
                yield name, wrong


def _no_numbers(block: StarBlock) -> Iterator[Refusal]:
    for name, wrong in _not_numbers(block):
        yield Refusal(
            f"{name}: not a number, or infinite, in {_rows(wrong)}",
            how_to_leave_out([name]),
            is_damage=True,
        )


def _odd_half_sets(block: StarBlock) -> Iterator[Refusal]:
    values = _numbers(block, HALF_SETS)
    if values is not None and (why := half_sets_refused(values)):
        yield Refusal(f"{HALF_SETS}: {why}", "`cryobridge convert` to a new STAR file leaves the column out.")


def _undefined_groups(block: StarBlock, optics: StarBlock | None) -> Iterator[Refusal]:
    groups = _numbers(block, _GROUP)
    defined = None if optics is None else _numbers(optics, _GROUP)
    if groups is not None and defined is not None and (wrong := ~np.isin(groups, defined)).any():
        yield Refusal(
            f"{_GROUP}: not defined in data_optics, in {_rows(wrong)}",
            "Add the group, or correct the rows.",
            is_damage=True,
        )


def _incomplete_layout(block: StarBlock, optics: StarBlock | None) -> Iterator[Refusal]:
    """Yield what a file with optics groups lacks, and RELION 3.1 stops without."""
    if optics is None:
        return
    if _GROUP not in block:
        yield Refusal(f"{_GROUP}: not a column of the particles", "`cryobridge convert` to a new STAR file adds it.")
    if _SIZE not in optics:
        yield Refusal(
            f"{_SIZE}: not a column of data_optics", "`cryobridge convert` to a new STAR file reads it off the stacks."
        )


def _singular_magnification(optics: StarBlock | None) -> Iterator[Refusal]:
    columns = [] if optics is None else [_numbers(optics, name) for name in MAGNIFICATION]
    matrix = [values for values in columns if values is not None]
    if len(matrix) == len(MAGNIFICATION) and (wrong := is_singular(np.stack(matrix, -1).reshape(-1, 2, 2))).any():
        yield Refusal(
            f"rlnMagMat*: singular, as zeros are, in {_rows(wrong)}",
            "`cryobridge convert` to a new STAR file writes no magnification instead.",
            is_damage=True,
        )


def _useless_optics(block: StarBlock) -> Iterator[Refusal]:
    for item in FIELDS:
        if not (item.is_of_optics and item.needed_for):
            continue
        for name in item.names("relion"):
            values = _numbers(block, name)
            if values is None:
                continue
            wrong = not_finite(values) | ((values <= 0) if item.name in _NEVER_ZERO else False)
            if wrong.any():
                yield Refusal(
                    f"{name}: {values[wrong][0]:g}, with which RELION can't calculate, in {_rows(wrong)}",
                    f"`cryobridge convert` with {option(item.key, 'X')} writes another.",
                    is_damage=True,
                )


def _stacks_named_mrc(block: StarBlock) -> Iterator[Refusal]:
    import pyarrow.compute as pc

    if _IMAGE not in block or not block.n_rows:
        return
    n_named = pc.sum(pc.match_substring_regex(block.texts(_IMAGE), _NAMED_MRC)).as_py() or 0
    if n_named:
        yield Refusal(
            f"{_IMAGE}: {counted(n_named, 'image is in a stack', 'images are in stacks')} named .mrc, which RELION "
            "keeps for maps",
            f"`cryobridge convert` with {option('link_stacks', 'DIR')} gives them names that it opens.",
        )
