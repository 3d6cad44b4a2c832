"""Values of particles that no program can use: poses, shifts, CTF values, coordinates that are no finite numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, option
from cryobridge.formats.dropped import source_columns
from cryobridge.model.fields import FIELDS, Field
from cryobridge.model.particles import IMAGES_IN_A_STACK
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cryobridge.model.particles import Locations, ParticleSet

# Shown of rows that are wrong.
N_SHOWN = 3
# .cs files and pickles are in single precision, in which what is larger would be infinite.
_LARGEST = float(np.finfo(np.float32).max)
_CODED = ("poses.matrix", "poses.shift_A", "locations")


def calculated_with() -> tuple[Field, ...]:
    """Return the quantities of each particle that programs calculate with: what is not a number spoils all."""
    return tuple(item for item in FIELDS if item.name in _CODED or item.part == "ctf")


def not_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each row of (n, …) values whether one is not a number, or infinite in single precision."""
    wrong: NDArray[np.bool_] = np.logical_not(_are_finite(values).all(axis=tuple(range(1, values.ndim))))
    return wrong


def _are_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.less_equal(np.abs(values), _LARGEST)  # NaN is not
    return finite


def refuse_unusable(particles: ParticleSet, *, without: Collection[str] = ()) -> None:
    """Refuse particles of which a pose, shift, CTF value or coordinate is not a number, or an image impossible.

    Parameters
    ----------
    particles
        What is to be written.
    without
        Quantities that the output has no place for, by their names in `cryobridge.model.fields`, or ``"images"``.

    Raises
    ------
    FormatError
        If there are some; it names the rows.
    """
    if "images" not in without:
        _refuse_impossible_images(particles)
    wrong = [(item, rows) for item, rows in _wrong_rows(particles) if item.name not in without]
    if not wrong:
        return
    for item, rows in wrong:
        if item.name == "poses.shift_A":
            _refuse_unsized_shifts(particles, rows)
    any_wrong = np.logical_or.reduce([rows for _, rows in wrong])
    of_items = [(item, _spoiled(particles, item)) for item, _ in wrong]
    # A quantity whose own columns are right was made from one of the others, as new coordinates are from shifts.
    of_items = [each for each in of_items if each[1]] or [(item, source_columns(particles, item)) for item, _ in wrong]
    titles = list(dict.fromkeys(item.title for item, _ in of_items))
    spoiled = list(dict.fromkeys(name for _, names in of_items for name in names))
    columns = dict.fromkeys(name.partition("[")[0] for name in spoiled)
    subject = " and ".join([", ".join(titles[:-1]), titles[-1]] if len(titles) > 1 else titles)
    text = f"{subject}: not a number, or infinite in single precision"
    of_rows = [] if any(_is_of_optics_block(particles, item) for item, _ in of_items) else spoiled
    raise _refusal(particles, text, any_wrong, ", ".join(columns), how_to_leave_out(of_rows))


def how_to_leave_out(values: Iterable[str]) -> str:
    """Say how rows are left out in which values, named as in the condition of a selection, are no numbers."""
    where = " and ".join(f"1e9 > {name} > -1e9" for name in values)
    how = f" with `cryobridge select` ({option('where', where)})" if where else ""
    return f"Leave these particles out{how}, or correct the values."


def _spoiled(particles: ParticleSet, item: Field) -> tuple[str, ...]:
    """Return the columns of a quantity that hold no numbers in some rows, with the element where they have several."""
    extra, names = particles.extra, source_columns(particles, item)
    if extra is None or _is_of_optics_block(particles, item) or not extra.of_file.issuperset(names):
        return names
    found = []
    for name, column in extra.read(names).items():
        if not isinstance(column, np.ndarray):  # coordinates come with the names of micrographs
            continue
        values = column.astype(np.float64)
        elements = np.flatnonzero(~_are_finite(values.reshape(len(values), -1)).all(axis=0))
        found += [f"{name}[{element}]" if values.ndim > 1 else name for element in elements.tolist()]
    return tuple(found)


def _is_of_optics_block(particles: ParticleSet, item: Field) -> bool:
    """Whether a quantity stood in no column of the particles, which selections could ask for."""
    return particles.extra is None or (item.is_of_optics and particles.extra.program == "relion")


def _wrong_rows(particles: ParticleSet) -> Iterator[tuple[Field, NDArray[np.bool_]]]:
    for item in calculated_with():
        values = particles.get(item.name)
        if item.name == "locations" and values is not None:
            place: Locations = values
            values = place.coordinate_px
        if values is not None and (wrong := not_finite(values)).any():
            yield item, wrong
    if particles.optics is None or particles.optics_index is None:
        return
    for item in FIELDS:
        is_aberration = item.part == "optics.aberrations"
        values = particles.get(item.name) if is_aberration or (item.is_of_optics and item.needed_for) else None
        if values is None:
            continue
        # NaN stands for what a file does not say of the others.
        of_groups = not_finite(values if is_aberration else np.where(np.isnan(values), 0.0, values))
        if (wrong := of_groups[particles.optics_index]).any():
            yield item, wrong


def _refuse_impossible_images(particles: ParticleSet) -> None:
    """Refuse numbers of images that no stack can have, and that 32 bits would turn into others."""
    if particles.images is None:
        return
    index = particles.images.index
    wrong = (index < 0) | (index >= IMAGES_IN_A_STACK)
    if wrong.any():
        first = int(index[np.argmax(wrong)])
        text = f"image {first}, counted from 0: no stack has it, the last one can be {IMAGES_IN_A_STACK - 1}"
        is_relions = particles.extra is not None and particles.extra.program == "relion"
        hint = "Leave these particles out, or correct the numbers of their images."
        raise _refusal(particles, text, wrong, "rlnImageName" if is_relions else "blob/idx", hint)


def _refuse_unsized_shifts(particles: ParticleSet, rows: NDArray[np.bool_]) -> None:
    """Refuse shifts that are unknown because the pixels that they are counted in have no size."""
    extra, poses = particles.extra, particles.poses
    if poses is None or extra is None or extra.program != "cryosparc":
        return
    names = [f"{group}/psize_A" for group in poses.source.split(", ")]
    names = [name for name in names if name in extra.of_file]
    n = len(particles)
    has_none = np.zeros(n, bool)
    for values in extra.read(names).values():
        has_none |= ~(np.asarray(values, np.float64).reshape(n, -1) > 0).all(axis=1)
    if (unsized := rows & has_none).any():
        raise _refusal(
            particles,
            "the shifts are counted in pixels of 0 Å, or of no known size: all of them would become 0",
            unsized,
            ", ".join(names),
            "Give a file of the same particles in which it is filled in, such as the result of the refinement itself.",
        )


def _refusal(particles: ParticleSet, text: str, wrong: NDArray[np.bool_], where: str, hint: str) -> FormatError:
    rows = np.flatnonzero(wrong)
    shown = tuple(int(row) for row in rows[:N_SHOWN])
    return FormatError(text, path=particles.source, field=where, rows=shown, count=len(rows), hint=hint)


def zero_defocus(particles: ParticleSet) -> list[Message]:
    """Return a warning where defocus is 0, which files without CTF information are padded with."""
    ctf = particles.ctf
    n_without = 0 if ctf is None else int(np.count_nonzero((ctf.defocus_u_A == 0) & (ctf.defocus_v_A == 0)))
    if not n_without:
        return []
    who = "of all particles" if n_without == len(particles) else f"of {n_without:,} of {len(particles):,} particles"
    text = f"the defocus {who} is 0, as where none was found: a CTF of no defocus would be corrected for"
    return [warning("defocus-zero", text)]
