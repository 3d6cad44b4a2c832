"""The columns of one program's particles in another file: made by the writers of that program, for the rows it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.formats.aberrations import CRYOSPARC_COLUMNS, MAGNIFICATION, RELION_COLUMNS, ZERNIKE
from cryobridge.formats.cryosparc.alignments import ALIGNED_2D, ALIGNED_3D
from cryobridge.formats.cryosparc.fields import FIT
from cryobridge.formats.cryosparc.particles_write import cs_content
from cryobridge.formats.latent import names_of_latent
from cryobridge.formats.optics import distinct_rows, first_rows, group_optics
from cryobridge.formats.relion.fields import OF_THE_FIT, PRIORS
from cryobridge.formats.relion.particles_write import star_content
from cryobridge.model.convention import AS_STORED
from cryobridge.model.fields import ALIGNMENT_GROUP, FIELDS, Field, numbered
from cryobridge.model.particles import Aberrations, Poses
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.relion.particles_write import StarContent
    from cryobridge.formats.table import Values
    from cryobridge.jobs.convert.onto_frame import Frame
    from cryobridge.jobs.convert.options import Part
    from cryobridge.model.particles import ParticleSet

_FIELDS: dict[Part, tuple[str, ...]] = {
    "poses": ("poses.matrix", "poses.shift_A"),
    "ctf": tuple(item.name for item in FIELDS if item.part == "ctf" and not item.is_coded),
    "classes": ("class_number", "class_posterior"),
    "half_sets": ("half_set",),
    "latent": ("latent",),
    "aberrations": ("ctf.shift_A", *(item.name for item in FIELDS if item.part == "optics.aberrations")),
}
# Which parts a message of a writer is about; others are about columns that are not written here.
_ABOUT: dict[str, Part] = {
    "aberration-shift-applied": "poses",
    "aberration-shift-left-out": "poses",
    "shifts-taken-as-zero": "poses",
    "fit-columns-zero": "poses",
    "zernike-terms-folded": "ctf",
    "defocus-zero": "ctf",
    "half-sets-left-out": "half_sets",
    "odd-aberrations-sign": "aberrations",
    "aberrations-dropped": "aberrations",
    "aberrations-left-out": "aberrations",
}
_OPTICS = ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast")
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class Columns:
    """What a file gets.

    Parameters
    ----------
    made
        Columns of (n,) values, one for each row that has a partner.
    without
        Columns that are not true any more, and are left out.
    optics
        Columns of the optics groups of a STAR file, (g,); None for one that is left out.
    held
        The quantities in them, by their names in `cryobridge.model.fields`.
    messages
        What was assumed.
    """

    made: Mapping[str, Values]
    without: tuple[str, ...] = ()
    optics: Mapping[str, Any] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    messages: tuple[Message, ...] = ()


def parts_of(particles: ParticleSet) -> tuple[Part, ...]:
    """Return what particles have and another file can be given, but for aberrations, which are of optics groups.

    Classes and half sets that are the same for all say nothing.
    """
    known: dict[Part, bool] = {
        "poses": particles.poses is not None,
        "ctf": particles.ctf is not None,
        "classes": _differs(particles.class_number),
        "half_sets": _differs(particles.half_set),
        "latent": particles.latent is not None,
    }
    return tuple(part for part, is_known in known.items() if is_known)


def _differs(values: NDArray[np.int64] | None) -> bool:
    return values is not None and len(values) > 0 and bool((values != values[0]).any())


def has(particles: ParticleSet, part: Part) -> bool:
    """Whether particles have a part at all."""
    if part == "aberrations":
        return particles.optics is not None
    held = {"poses": "poses", "ctf": "ctf", "classes": "class_number", "half_sets": "half_set", "latent": "latent"}
    return getattr(particles, held[part]) is not None


def in_base(
    source: ParticleSet, base: ParticleSet, frame: Frame, take: tuple[Part, ...], *, counts_px: bool
) -> ParticleSet:
    """Return particles as they are in the images of another file: poses, shifts and CTF, box and pixel size.

    Parameters
    ----------
    source, base
        The same particles in both files, row by row.
    frame
        Where the images of the base lie.
    take
        What the file is to be given.
    counts_px
        Whether shifts of the base are pixels of its images, whose size is then needed.

    Raises
    ------
    MissingDataError
        If it is not known.
    """
    extra = source.extra
    if frame.convention != AS_STORED:
        source = source.turned(frame.convention.turn)
        if extra is not None:  # as they stand these are of the images of before
            others = {name: values for name, values in extra.optics.items() if name not in RELION_COLUMNS}
            extra = replace(extra, optics=others)
    poses = source.poses
    if poses is not None and (frame.offset_A is not None or (poses.shift_A is None and base.poses is not None)):
        shift_A = np.zeros((len(source), 2)) if poses.shift_A is None else poses.shift_A
        poses = replace(poses, shift_A=shift_A if frame.offset_A is None else shift_A + frame.offset_A)
    particles = replace(
        source,
        poses=poses,
        extra=None if extra is None else replace(extra, names=()),
        images=base.images,
        locations=None,
        helix=None,
        pick_score=None,
        columns={},
        latent=source.latent if "latent" in take else None,
        half_set=source.half_set if "half_sets" in take else None,
        class_number=source.class_number if "classes" in take else None,
        class_posterior=source.class_posterior if "classes" in take else None,
        ctf=_with_absent(source, base),
    )
    return _with_optics(particles, base, counts_px=counts_px and "poses" in take)


def _with_absent(source: ParticleSet, base: ParticleSet) -> Any:
    """Return the CTF with what is true where the source has no column, but the base has one."""
    if source.ctf is None or base.ctf is None:
        return source.ctf
    given = {
        item.key: np.full(len(source), item.absent)
        for item in FIELDS
        if item.part == "ctf" and item.absent is not None and not item.is_coded
        if getattr(source.ctf, item.key) is None and getattr(base.ctf, item.key) is not None
    }
    return replace(source.ctf, **given)


def _with_optics(particles: ParticleSet, base: ParticleSet, *, counts_px: bool) -> ParticleSet:
    """Return the particles with microscopes of their own, and box and pixel size of the base.

    What the base does not say is the particles' own, but for a pixel that its shifts count.
    """
    if base.optics is None or base.optics_index is None:
        optics, index = group_optics(len(base))
        base = replace(base, optics=optics, optics_index=index)
    assert base.optics is not None and base.optics_index is not None  # just made
    if counts_px and not (base.optics.pixel_size_A[base.optics_index] > 0).all():
        raise MissingDataError(
            "the pixel size of its images is not known, in which its shifts count",
            path=base.source,
            option="onto",
            hint="Give a file that has rlnMagnification and rlnDetectorPixelSize, or optics groups.",
        )
    if particles.optics is None or particles.optics_index is None:
        return replace(particles, optics=base.optics, optics_index=base.optics_index)
    index = distinct_rows([particles.optics_index, base.optics_index])
    first = first_rows(index)
    own, of_base = particles.optics.take(particles.optics_index[first]), base.optics.take(base.optics_index[first])
    filled: dict[str, Any] = {name: _first_known(getattr(own, name), getattr(of_base, name)) for name in _OPTICS}
    filled |= {name: _first_known(getattr(of_base, name), getattr(own, name)) for name in ("pixel_size_A", "box_px")}
    optics = replace(own, **filled)
    extra = particles.extra
    if extra is not None:
        at = particles.optics_index[first]
        extra = replace(extra, optics={name: np.asarray(each)[at] for name, each in extra.optics.items()})
    return replace(particles, optics=optics, optics_index=index, extra=extra)


def _first_known(values: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isnan(values) | ((values == 0) & (others > 0)), others, values)


def columns_for(
    particles: ParticleSet,
    source: ParticleFiles,
    base: ParticleFiles,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    take: tuple[Part, ...],
    odd: Any,
) -> Columns:
    """Return the columns that a file gets of particles.

    Parameters
    ----------
    particles
        As `in_base` returns them.
    source, base
        The files.
    rows
        Of the source and of the base, one for each of the particles.
    take
        What the file is to be given.
    odd
        The sign of beam tilt and trefoil between programs.

    Raises
    ------
    CryobridgeError
        If aberrations differ within an optics group of the file, or values can't be written.
    """
    found = (
        _of_star(particles, base, rows[1], take, odd) if base.star is not None else _of_cs(particles, base, take, odd)
    )
    made, without = dict(found.made), set(found.without)
    fit = _of_fit(found, base, take)
    if source.program == base.program:  # what is said of the pose goes with it
        raw = source.columns.read([name for name in fit if name in source.columns])
        made |= {name: values[rows[0]] for name, values in raw.items() if isinstance(values, np.ndarray)}
    without |= {name for name in fit if name not in made}
    messages = [item for item in found.messages if _ABOUT.get(item.code) in take]
    if source.program == base.program == "cryosparc":
        messages = [item for item in messages if item.code != "fit-columns-zero"]
    left = sorted(name for name in without if name in base.columns)
    return replace(found, made=made, without=tuple(left), messages=tuple(messages))


def _of_fit(found: Columns, base: ParticleFiles, take: tuple[Part, ...]) -> list[str]:
    """Return the columns that are said of the poses or classes that are replaced."""
    if base.star is None:
        groups = {name.partition("/")[0] for name in found.made if name.endswith("/pose")}
        return [f"{group}/{name}" for group in sorted(groups) for name in (*FIT, "alpha", "alpha_min", "class_ess")]
    return list(OF_THE_FIT) if {"poses", "classes"} & set(take) else []


def _wanted(take: tuple[Part, ...]) -> list[Field]:
    names = {name for part in take for name in _FIELDS[part]}
    return [item for item in FIELDS if item.name in names]


def _of_star(
    particles: ParticleSet, base: ParticleFiles, rows: NDArray[np.int64], take: tuple[Part, ...], odd: Any
) -> Columns:
    assert base.star is not None  # asked before
    is_3_0 = "optics" not in base.star
    # Rows that get no images need none.
    has_images = particles.images is not None
    content = star_content(particles, version="3.0" if is_3_0 else "3.1", odd=odd, has_images=has_images)
    block = content.blocks[-1]
    wanted = _wanted(take)
    names = [name for item in wanted for name in numbered(item.names("relion"), block.names) if name in block]
    made = block.read(names)
    optics = {}
    if "aberrations" in take and not is_3_0:
        optics = _optics_columns(content, base, rows)
    old = {name for item in wanted for name in numbered(item.names("relion"), base.columns.names)}
    without = old - {*names, *RELION_COLUMNS}
    if "half_sets" in take and content.messages and "half-sets-left-out" in {each.code for each in content.messages}:
        without -= {"rlnRandomSubset"}
    if "poses" in take and "rlnHelicalTubeID" not in base.columns:
        without |= set(PRIORS)
    if "ctf" in take:
        without.add("rlnCtfAstigmatism")
    held = frozenset(item.name for item in wanted) & content.held
    return Columns(made, tuple(without), optics, held, content.messages)


def _optics_columns(content: StarContent, base: ParticleFiles, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return RELION's columns of aberrations for the optics groups of a file, (g,).

    Raises
    ------
    CryobridgeError
        If particles of one group have different ones.
    """
    optics, index = base.particles.optics, base.particles.optics_index
    assert base.star is not None and optics is not None and index is not None
    made, own = content.blocks[0], base.star["optics"]
    group_of = content.blocks[-1].read(["rlnOpticsGroup"])["rlnOpticsGroup"]
    assert isinstance(group_of, np.ndarray)
    pairs = np.unique(np.column_stack([index[rows], group_of - 1]), axis=0)
    columns: dict[str, Any] = {}
    for name in RELION_COLUMNS:
        if name not in made and name not in own:
            continue
        values = _values(own, name, own.n_rows)
        given = _values(made, name, made.n_rows)
        first: dict[int, int] = {}
        for group, of_made in pairs.tolist():
            if _is_other(given[of_made], given[first.setdefault(group, of_made)]):
                raise CryobridgeError(
                    f"particles of optics group {optics.group_id[group]} have different aberrations, "
                    "of which a group has one",
                    path=base.metadata,
                    field=name,
                    hint=f"Leave aberrations out of {option('take')}, or split the group first.",
                )
            values[group] = given[of_made]
        columns[name] = values if isinstance(values[0], str) else np.array(values, np.float64)
    return columns


def _values(block: Any, name: str, n: int) -> list[Any]:
    """Return the values of a column of optics groups, or those that stand for none."""
    if name in block:
        read = block.read([name])[name]
        values: list[Any] = read.tolist() if isinstance(read, np.ndarray) else list(read.to_numpy())
        return values
    if name in ZERNIKE:
        return [f"[{','.join('0' * (6 if name == ZERNIKE[0] else 9))}]"] * n
    return [1.0 if name in (MAGNIFICATION[0], MAGNIFICATION[3]) else 0.0] * n


def _is_other(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return str(one) != str(other)
    return bool(abs(one - other) > _SAME * max(abs(one), abs(other)))


def _of_cs(particles: ParticleSet, base: ParticleFiles, take: tuple[Part, ...], odd: Any) -> Columns:
    group = _group_of(particles, base, take)
    if "poses" not in take:
        flat = np.tile(np.eye(3), (len(particles), 1, 1))
        particles = replace(particles, poses=Poses(flat, None, group, is_2d=group == ALIGNED_2D))
    assert particles.poses is not None
    turned = replace(particles, poses=replace(particles.poses, source=group))
    content = cs_content(turned, odd=odd, contrast="bright", has_images=particles.images is not None)
    wanted = _wanted(take)
    names = [
        name.replace(ALIGNMENT_GROUP, group)
        for item in wanted
        for name in numbered(item.columns("cryosparc"), content.columns)
        if name.replace(ALIGNMENT_GROUP, group) in content.columns
    ]
    made = {name: content.columns[name] for name in names}
    without = set(names_of_latent("cryosparc", base.columns.names)) - made.keys() if "latent" in take else set[str]()
    if "aberrations" in take:
        none = {name: np.zeros((len(particles), width), np.float32) for name, width in CRYOSPARC_COLUMNS.items()}
        made = {**none, **made}
    if "poses" in take:
        of_group = {name for name in content.columns if name.startswith(f"{group}/")}
        old = {name for name in base.columns.names if name.startswith(f"{group}/")}
        kept = {f"{group}/{item}" for item in ("split", "class", "class_posterior")}
        # A group that is there gets no columns that it does not have; a new one is whole.
        made |= {name: content.columns[name] for name in of_group & (old - kept if old else of_group) - made.keys()}
        without |= old - of_group - kept
    held = frozenset(item.name for item in wanted) & content.held
    return Columns(made, tuple(without), {}, held, content.messages)


def _group_of(particles: ParticleSet, base: ParticleFiles, take: tuple[Part, ...]) -> str:
    """Return the alignment that poses, classes and half sets go to."""
    if "poses" in take:
        assert particles.poses is not None
        return ALIGNED_2D if particles.poses.is_2d else ALIGNED_3D
    group = next((name for name in (ALIGNED_3D, ALIGNED_2D) if f"{name}/pose" in base.columns), None)
    if group is None and {"classes", "half_sets"} & set(take):
        raise MissingDataError(
            f"no {ALIGNED_3D} or {ALIGNED_2D} group, in which a class or half set could be written",
            path=base.metadata,
            option="take",
            hint=f"Take poses, too: {option('take', ','.join(('poses', *take)))}.",
        )
    return group or ALIGNED_3D


def about_optics(source: ParticleSet, base: ParticleSet, take: tuple[Part, ...]) -> list[Message]:
    """Return warnings of microscopes and aberrations that differ in the two files, of the same particles row by row."""
    if source.optics is None or base.optics is None:
        return []
    differing = []
    for item in FIELDS:
        if item.name not in {f"optics.{name}" for name in _OPTICS}:
            continue
        one, other = source.per_particle(item.key), base.per_particle(item.key)
        far = np.abs(one - other) > _SAME * np.abs(other)
        if far.any():
            row = int(np.flatnonzero(far)[0])
            differing.append(f"{item.title} ({other[row]:g}, not {one[row]:g})")
    messages = []
    if differing and {"poses", "ctf", "aberrations"} & set(take):
        text = f"{' and '.join(differing)} of {base.source.name} differ from {source.source.name} and stay as they are"
        messages.append(warning("optics-differ", text))
    if "aberrations" not in take and {"poses", "ctf"} & set(take) and _aberrations_differ(source, base):
        text = (
            f"aberrations of {source.source.name} differ from those of {base.source.name}, which stay as they are: "
            f"to take them along, add aberrations to {option('take')}"
        )
        messages.append(warning("aberrations-not-taken", text, option="take"))
    return messages


def _aberrations_differ(source: ParticleSet, base: ParticleSet) -> bool:
    if not _may_have_aberrations(source) and not _may_have_aberrations(base):
        return False
    return any(
        not np.allclose(one, other, rtol=_SAME, atol=_SAME)
        for one, other in zip(_aberrations_of(source), _aberrations_of(base), strict=True)
    )


def _may_have_aberrations(particles: ParticleSet) -> bool:
    of_optics = particles.optics is not None and particles.optics.aberrations is not None
    return of_optics or (particles.ctf is not None and particles.ctf.shift_A is not None)


def _aberrations_of(particles: ParticleSet) -> list[NDArray[np.float64]]:
    """Return beam tilt, trefoil, tetrafoil and magnification of each particle, (n, ...)."""
    optics, index = particles.optics, particles.optics_index
    assert optics is not None and index is not None  # asked before
    bent = optics.aberrations or Aberrations.none(len(optics))
    names = ("beam_tilt_A", "trefoil_A", "tetrafoil_A", "magnification")
    moved = None if particles.ctf is None else particles.ctf.shift_A
    shift_A = np.zeros((len(particles), 2)) if moved is None else moved
    return [shift_A, *(np.asarray(getattr(bent, name))[index] for name in names)]
