"""The particle set -> a cryoSPARC `.cs` file, and the result group (`.csg`) by which cryoSPARC imports it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError, UsageError, option
from cryobridge.formats.aberrations import CRYOSPARC_COLUMNS, NAMES, Odd, chosen, held_after, left_out, to_cryosparc
from cryobridge.formats.contrast import SIGN, SIGNS, Contrast, to_be_inverted
from cryobridge.formats.cryosparc.alignments import ALIGNED_2D, ALIGNED_3D
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.cryosparc.csg import OWN_GROUP, slot_types, write_csg
from cryobridge.formats.cryosparc.fields import FIT
from cryobridge.formats.dropped import FileContent, dropped_columns
from cryobridge.formats.latent import latent_columns
from cryobridge.formats.optics import exposure_groups, has_exposure_groups, needed, require_optics
from cryobridge.formats.relion.accepted import premultiplied
from cryobridge.formats.unusable import N_SHOWN, refuse_unusable, zero_defocus
from cryobridge.model.fields import ALIGNMENT_GROUP, FIELDS, Field, field, fields_of, numbered
from cryobridge.model.geometry import matrix_to_euler, matrix_to_rotvec, shift_A_to_px
from cryobridge.model.particles import Labels
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.table import Values
    from cryobridge.model.particles import CTF, Helix, ImageRefs, Locations, Optics, ParticleSet, Poses

# Columns that hold a stand-in until a file says better.
_ASSUMED = {
    *(SIGN, "blob/import_sig", "ctf/type", "ctf/scale_const", "ctf/shift_A", "location/micrograph_uid"),
    *(f"{group}/{name}" for group in (ALIGNED_2D, ALIGNED_3D) for name in (*FIT, "alpha", "alpha_min", "class_ess")),
}
# The constants of splitmix64.
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, kw_only=True)
class CsContent(FileContent):
    """What becomes of a particle set in a `.cs` file.

    Parameters
    ----------
    columns
        To be written.
    """

    columns: dict[str, Values]


def write_cs_content(path: Path, content: CsContent, n_rows: int, title: str) -> None:
    """Write a `.cs` file, and beside it the `.csg` that Import Result Group takes."""
    write_cs(path, content.columns)
    slots = {slot: (kind, path.name) for slot, kind in slot_types(content.columns).items()}
    write_csg(path.with_suffix(".csg"), slots, n_rows, title=title)


def cs_content(
    particles: ParticleSet,
    *,
    aberrations: bool = True,
    odd: Odd = "as-derived",
    contrast: Contrast | None = None,
    inverted: bool = False,
    has_images: bool = True,
) -> CsContent:
    """Turn particles into cryoSPARC's columns.

    Matrices become rotation vectors (an angle for 2D alignments), shifts pixels of the image, coordinates
    fractions of the micrograph. Rows without a uid get one that is made of the image's name and slice, the same
    one in every run.

    Parameters
    ----------
    particles
        Whose coordinates are pixels of cryoSPARC's micrographs.
    aberrations, odd
        Of files that are not cryoSPARC's: whether beam tilt, trefoil, tetrafoil and magnification are written, and the
        sign of the first two (see `cryobridge.formats.aberrations`).
    contrast
        How the particles look in the images, for files without it (`blob/sign`); bright if not given.
    inverted
        The images are copies that were multiplied by -1 (see `cryobridge.formats.contrast.to_be_inverted`).
    has_images
        Whether images are needed; particles that are to be extracted again have none.

    Raises
    ------
    MissingDataError
        If there are no images, or an optics value is not known that cryoSPARC needs.
    FormatError
        If a pose, shift, CTF value or coordinate is not a number.
    UsageError
        If the contrast is given for particles that have it.
    """
    if particles.images is None and has_images:
        raise MissingDataError(
            "image references are missing",
            path=particles.source,
            hint="blob/path and blob/idx, or rlnImageName, are needed; give the file that has them as another input.",
        )
    # A .cs file of particles without a CTF is as cryoSPARC extracts them.
    purposes = ("image",) if is_cryosparcs(particles) else ("ctf", "image")
    require_optics(particles, needed(*purposes), ", which cryoSPARC needs")
    refuse_unusable(particles)
    messages = (_about_contrast(particles, contrast) if has_images else []) + premultiplied(particles, "cryoSPARC")
    source = particles
    if not is_cryosparcs(particles):
        messages += zero_defocus(particles)
        particles, found = chosen(particles, aberrations=aberrations, odd=odd)
        messages += found
    assert particles.optics is not None  # just asked for
    columns: dict[str, Values] = {} if particles.uid is None else {"uid": particles.uid}
    if particles.images is not None:
        columns.setdefault("uid", make_uids(particles.images))
        columns |= _blob(particles, particles.images, SIGNS[contrast or "bright"])
    columns |= ctf_columns(particles, particles.optics, particles.ctf)
    if particles.poses is not None:
        columns |= _alignment(particles, particles.poses)
        if particles.poses.shift_A is None:
            messages.append(note("shifts-taken-as-zero", "no shifts are known; taken as 0"))
    elif particles.class_number is not None and len(np.unique(particles.class_number)) > 1:
        text = "classes are left out: cryoSPARC has them beside poses, of which there are none; write one file a class"
        messages.append(warning("classes-left-out", text))
    if particles.locations is not None and particles.locations.shape_px is not None:
        columns |= _location(particles, particles.locations)
    columns |= plain_columns(particles)
    if particles.helix is not None:
        columns |= _filament(particles, particles.helix)
    held = _held(particles, set(columns))
    if not is_cryosparcs(particles):
        held = held - NAMES | held_after(aberrations=aberrations, odd=odd)
    messages += left_out(source, held, "cryoSPARC", aberrations=aberrations, odd=odd)
    dropped = dropped_columns(source, held, "cryosparc")
    if is_cryosparcs(particles):
        carried, replaced = _carried(particles, columns)
        columns |= carried
        dropped += tuple(replaced)
    elif particles.poses is not None:
        text = "cryoSPARC's own measures of the fit are not known: error, power and ess columns are 0"
        messages.append(note("fit-columns-zero", text))
    if inverted:
        sign = np.asarray(columns[SIGN])
        columns[SIGN] = np.where(to_be_inverted(particles), -sign, sign)
    return CsContent(
        columns=columns,
        held=held,
        dropped_columns=dropped,
        messages=tuple(messages),
        keeps_aberrations=is_cryosparcs(particles),
    )


def _about_contrast(particles: ParticleSet, contrast: Contrast | None) -> list[Message]:
    """Refuse a contrast that the particles have already; warn where it is neither in the file nor given."""
    has_sign = is_cryosparcs(particles) and particles.extra is not None and SIGN in particles.extra.names
    if has_sign and contrast is not None:
        raise UsageError(
            f"{option('contrast')} is for files without it, and this one has it (blob/sign)",
            path=particles.source,
            hint="Leave it out.",
        )
    if has_sign or contrast is not None:
        return []
    text = (
        "the contrast of the particles in the images is unknown: bright is assumed (blob/sign 1); "
        f"give {option('contrast', 'dark')} if they are dark"
    )
    return [warning("contrast-assumed", text, option="contrast")]


def is_cryosparcs(particles: ParticleSet) -> bool:
    """Whether the particles come from a cryoSPARC file."""
    return particles.extra is not None and particles.extra.program == "cryosparc"


def _carried(particles: ParticleSet, columns: dict[str, Values]) -> tuple[dict[str, Values], list[str]]:
    """Return the other columns of the file that stay true, and the names of those that a chosen pose replaces.

    A pose that was chosen among several classes stands in the one group of poses; what is left of the groups that
    it comes from, and of the one that it takes the place of, would be said of another pose.
    """
    assert particles.extra is not None  # the particles are cryoSPARC's
    stale: set[str] = set()
    if particles.poses is not None:
        group = ALIGNED_2D if particles.poses.is_2d else ALIGNED_3D
        stale = {group, *particles.poses.source.split(", ")} if particles.poses.source != group else set()
    replaced = [name for name in particles.extra.names if name.partition("/")[0] in stale]
    carried = {name: values for name, values in particles.extra.read().items() if name not in replaced}
    return {name: values for name, values in carried.items() if name not in columns or name in _ASSUMED}, replaced


def _held(particles: ParticleSet, written: set[str]) -> frozenset[str]:
    """Return the quantities that are among the columns."""
    groups = {name.partition("/")[0] for name in written} & {ALIGNED_2D, ALIGNED_3D}
    written = written | {
        f"{ALIGNMENT_GROUP}/{name.partition('/')[2]}" for name in written if name.startswith(tuple(groups))
    }
    held = {item.name for item in FIELDS if not written.isdisjoint(numbered(item.columns("cryosparc"), written))}
    if particles.poses is not None and particles.poses.is_2d and not is_cryosparcs(particles):
        held -= {"half_set"}
    if "helix.uid" in held:  # the uid of a filament stands for its number
        held.add("helix.tube")
    if particles.optics is not None and has_exposure_groups(particles.optics):
        held.add("optics.name")
    return frozenset(held)


def make_uids(images: ImageRefs) -> NDArray[np.uint64]:
    """Return an identity of 64 bits for each image, (n,), out of its stack's name and its slice.

    The same image has the same uid in every run. Rows that repeat an image differ by how many of it came before.
    """
    return distinct_uids(identity_of_names(images.path, images.index))


def distinct_uids(uid: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return uids of which no two are the same, (n,): those that repeat one get others, the same ones in every run."""
    order = np.argsort(uid, kind="stable")
    is_new = np.ones(len(uid), bool)
    is_new[1:] = np.diff(uid[order]) != 0
    if is_new.all():
        return uid
    place = np.arange(len(uid))
    repeat = np.empty(len(uid), np.uint64)
    repeat[order] = place - np.maximum.accumulate(np.where(is_new, place, 0))
    return np.where(repeat > 0, _mixed(uid ^ _mixed(repeat)), uid)


def uids_of_copies(uid: NDArray[np.uint64], copy: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return an identity for each copy of a particle, (n,), the same one in every run.

    Parameters
    ----------
    uid
        (n,) of the particle.
    copy
        (n,) which copy it is, from 0.
    """
    return _mixed(uid ^ _mixed(copy.astype(np.uint64) + np.uint64(1)))


def identity_of_names(name: Labels, number: NDArray[np.int64] | None = None) -> NDArray[np.uint64]:
    """Return 64 bits for each row, (n,), out of a text and a number."""
    digests = [hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8) for text in name.values]
    of_name = np.array([int.from_bytes(digest.digest(), "little") for digest in digests], np.uint64)
    of_row: NDArray[np.uint64] = of_name[name.codes]
    return of_row if number is None else _mixed(of_row ^ _mixed(number.astype(np.uint64)))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter whole numbers over 64 bits: the finaliser of splitmix64, which is one to one."""
    mixed = values + _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[2]
    scattered: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return scattered


def _unsigned(particles: ParticleSet, name: str, values: NDArray[Any]) -> NDArray[np.uint32]:
    """Return whole numbers (n, …) of a column in 32 bits; raise where that would make others of them."""
    beyond = ((values < 0) | (values > np.iinfo(np.uint32).max)).reshape(len(values), -1)
    rows = np.flatnonzero(beyond.any(axis=1))
    if len(rows):
        raise FormatError(
            f"{values[rows[0]]} is not a whole number below 2^32, as {name} of a .cs file holds",
            path=particles.source,
            field=name,
            rows=tuple(int(row) for row in rows[:N_SHOWN]),
            count=len(rows),
            hint="Leave these particles out, or correct the values.",
        )
    return values.astype(np.uint32)


def single(values: Any) -> NDArray[np.float32]:
    """Return values as cryoSPARC's columns of numbers hold them."""
    with np.errstate(over="ignore"):  # what single precision can't hold is infinite, which reading back shows
        return np.asarray(values, np.float32)


def _constant(n: int, value: float, width: int = 0) -> NDArray[np.float32]:
    return np.full((n, width) if width else n, value, np.float32)


def _text(n: int, text: str) -> Labels:
    return Labels(np.zeros(n, np.int32), (text,))


def _column(particles: ParticleSet, item: Field, missing: float | None = None) -> dict[str, Values]:
    """Return the column of a quantity of each particle, in cryoSPARC's unit; none where nothing is known or taken."""
    values = particles.get(item.name)
    if values is None and missing is not None:
        values = np.full(len(particles), missing)
    if values is None or not item.columns("cryosparc"):
        return {}
    if isinstance(values, Labels):
        return {item.columns("cryosparc")[0]: values}
    values = values if item.cs_unit is None else item.cs_unit.from_model(values)
    name = item.columns("cryosparc")[0]
    found: Values = _unsigned(particles, name, values) if item.kind == "int" else single(values)
    return {name: found}


def plain_columns(particles: ParticleSet) -> dict[str, Values]:
    """Return what the set itself has of each particle and is no part of an alignment, and the columns of the user.

    Of these one without a group is of ``labels``.
    """
    columns: dict[str, Values] = {
        name: values
        for item in FIELDS
        if item.part in ("", "columns") and not item.is_coded
        for name, values in _column(particles, item).items()
        if not name.startswith(ALIGNMENT_GROUP)
    }
    if particles.latent is not None:
        columns |= latent_columns(particles.latent, "cryosparc")
    described = {item.key for item in FIELDS if item.part == "columns"}
    own = {name: values for name, values in particles.columns.items() if name not in described}
    return columns | {name if "/" in name else f"{OWN_GROUP}/{name}": values for name, values in own.items()}


def _optics_columns(particles: ParticleSet, group: str) -> dict[str, Values]:
    """Return the columns of a group that say something of the optics, for each particle."""
    optics = particles.optics
    columns: dict[str, Values] = {}
    for item in fields_of("optics"):
        name = next((name for name in item.columns("cryosparc") if name.startswith(f"{group}/")), None)
        values = None if item.is_coded else getattr(optics, item.key)
        if name is None or values is None or (item.kind == "float" and np.isnan(values).all()):
            continue
        of_rows = values[particles.optics_index]
        per_row = _unsigned(particles, name, of_rows) if item.kind == "int" else single(np.nan_to_num(of_rows))
        columns[name] = np.column_stack([per_row] * item.cs_width) if item.cs_width else per_row
    return columns


def _blob(particles: ParticleSet, images: ImageRefs, sign: float) -> dict[str, Values]:
    n = len(particles)
    return {
        "blob/path": images.path,
        "blob/idx": images.index.astype(np.uint32),
        SIGN: _constant(n, sign),
        "blob/import_sig": np.zeros(n, np.uint64),
        **_optics_columns(particles, "blob"),
    }


def _exposure_group(particles: ParticleSet, optics: Optics) -> NDArray[np.uint32]:
    """Return the exposure group of each particle, (n,)."""
    number = optics.group_id if is_cryosparcs(particles) else exposure_groups(optics)
    return _unsigned(particles, "ctf/exp_group_id", number[particles.optics_index])


def ctf_columns(particles: ParticleSet, optics: Optics, ctf: CTF | None) -> dict[str, Values]:
    """Return the columns of the group ctf: exposure groups and optics of each row, and its CTF where that is known."""
    n = len(particles)
    columns: dict[str, Values] = {"ctf/exp_group_id": _exposure_group(particles, optics)}
    columns |= _optics_columns(particles, "ctf")
    if ctf is not None:
        columns |= {
            "ctf/type": _text(n, "imported"),
            "ctf/scale_const": _constant(n, 0),
            "ctf/shift_A": _constant(n, 0, 2) if ctf.shift_A is None else single(ctf.shift_A),
        }
        for item in fields_of("ctf"):
            columns |= {} if item.is_coded else _column(particles, item, item.absent)
        columns |= {name: _constant(n, 0, width) for name, width in CRYOSPARC_COLUMNS.items()}
    if optics.aberrations is not None:
        bent = to_cryosparc(optics.aberrations)
        columns |= {name: single(values)[particles.optics_index] for name, values in bent.items()}
    return columns


def _alignment(particles: ParticleSet, poses: Poses) -> dict[str, Values]:
    n = len(particles)
    group = ALIGNED_2D if poses.is_2d else ALIGNED_3D
    pixel_size_A = particles.per_particle("pixel_size_A")
    pose = np.radians(matrix_to_euler(poses.matrix)[2]) if poses.is_2d else matrix_to_rotvec(poses.matrix)
    shift = np.zeros((n, 2)) if poses.shift_A is None else shift_A_to_px(poses.shift_A, pixel_size_A)
    columns: dict[str, Values] = {
        "shift": single(shift),
        "pose": single(pose),
        "psize_A": single(pixel_size_A),
        **{name: _constant(n, 0) for name in FIT},
        "alpha": _constant(n, 1),
        "alpha_min": _constant(n, 1),
        "class_ess": _constant(n, 1),
    }
    # cryoSPARC has no word for none: particles without half set and class are of the first.
    columns |= aligned_columns(particles, missing=1)
    return {f"{group}/{name}": values for name, values in columns.items()}


def aligned_columns(particles: ParticleSet, missing: float | None = None) -> dict[str, Values]:
    """Return half sets, classes and their probabilities by their names in the group of an alignment.

    Parameters
    ----------
    particles
        The set.
    missing
        What is written where the set has none; if not given, nothing.
    """
    found: dict[str, Values] = {}
    for name in ("half_set", "class_number", "class_posterior"):
        columns = _column(particles, field(name), missing)
        found |= {key.rpartition("/")[2]: values for key, values in columns.items()}
    return found


def _location(particles: ParticleSet, locations: Locations) -> dict[str, Values]:
    assert locations.shape_px is not None  # asked before
    shape = locations.shape_px
    fraction = locations.coordinate_px / shape[:, ::-1]
    uid = locations.micrograph_uid
    columns: dict[str, Values] = {
        "location/micrograph_uid": identity_of_names(locations.micrograph) if uid is None else uid,
        "location/micrograph_path": locations.micrograph,
        "location/micrograph_shape": _unsigned(particles, "location/micrograph_shape", shape),
        "location/center_x_frac": single(fraction[:, 0]),
        "location/center_y_frac": single(fraction[:, 1]),
    }
    optics = particles.optics
    if optics is not None:
        columns["location/exp_group_id"] = _exposure_group(particles, optics)
        if optics.micrograph_pixel_size_A is not None and not np.isnan(optics.micrograph_pixel_size_A).any():
            columns |= _optics_columns(particles, "location")
    return columns


def _filament(particles: ParticleSet, helix: Helix) -> dict[str, Values]:
    """Return the filaments; each one without a uid gets one out of its micrograph's name and its number."""
    uid = helix.uid
    if uid is None:
        locations = particles.locations
        micrograph = _text(len(particles), "") if locations is None else locations.micrograph
        uid = identity_of_names(micrograph, helix.tube)
    columns: dict[str, Values] = {"filament/filament_uid": uid}
    return columns | _column(particles, field("helix.track_length_A"))
