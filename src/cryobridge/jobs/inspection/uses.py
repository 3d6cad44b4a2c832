"""What particle metadata can be used for, what is missing for it, and where that lies."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.formats.cryosparc.cs import CsNpyFile, open_cs
from cryobridge.formats.cryosparc.csdat import CsStreamFile
from cryobridge.formats.cryosparc.exposures import open_exposures
from cryobridge.formats.cryosparc.job import siblings_with
from cryobridge.formats.cryosparc.joining import with_columns_beside
from cryobridge.formats.cryosparc.names import holds_exposures
from cryobridge.formats.needs import in_words, missing_columns
from cryobridge.formats.open import IMAGES_AND_CTF, open_particles
from cryobridge.formats.optics import needed
from cryobridge.formats.particle_files import ParticleFiles
from cryobridge.formats.recovar.input import FLAT_ANGLES, downsampling, reading_of_cs, reading_of_star
from cryobridge.formats.relion.particles import PIXEL_SIZE_3_0, has_2d_poses
from cryobridge.formats.table import ColumnReader
from cryobridge.jobs.inspection.report import Use
from cryobridge.jobs.inspection.use_list import USE_NAMES, CheckName
from cryobridge.model.fields import QUANTITIES, Program, field
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from cryobridge.formats.relion.accepted import Refusal
    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.formats.relion.tomography import Tomography
    from cryobridge.formats.table import Table
    from cryobridge.jobs.inspection.image_files import ImageFiles
    from cryobridge.jobs.inspection.report import FieldSummary

_N_COMPARED = 1000

# What each use needs of the model; amplitude contrast has a default in Fourier stacks.
_DEFOCUS = ("ctf.defocus_u_A", "ctf.defocus_v_A", "ctf.defocus_angle_rad")
_CTF = (*_DEFOCUS, "optics.voltage_kV", "optics.spherical_aberration_mm")


def _columns(program: Program, *names: str) -> tuple[str, ...]:
    """Return the columns that hold quantities of the model."""
    return tuple(column for name in names for column in field(name).columns(program))


# What RELION asks of each optics group.
_OPTICS = (
    *("optics.pixel_size_A", "optics.box_px"),
    *("optics.voltage_kV", "optics.spherical_aberration_mm", "optics.amplitude_contrast"),
)
# See `cryobridge.formats.needs` for how they are written.
_CS_CTF = _columns("cryosparc", *_CTF)
_CS_NEEDS = {
    "coords": _columns("cryosparc", "locations"),
    "stacks": _columns("cryosparc", "images", *_CTF),
    "stacks-job": _CS_CTF,
    "micrographs": ("micrograph_blob/path|movie_blob/path",),
    "poses": ("alignments3D/pose|alignments3D_multi/pose|alignments_class_*",),
    "ctf": _CS_CTF,
    "relion": _columns("cryosparc", "images", *_OPTICS),
}
_POSES = _columns("relion", "poses.matrix")
_IMAGE = _columns("relion", "images")[0]
# Options of `cryobridge convert` for what a STAR file lacks.
_VALUES = {"kV": "KV", "mm": "MM"}
_STAR_OPTIONS = {
    item.columns("relion")[0]: option(item.key, _VALUES.get(QUANTITIES[item.quantity].unit, "X"))
    for item in needed("ctf")
}
_STAR_NEEDS = {
    "stacks": _columns("relion", "images", *_CTF),
    "poses": _POSES,
    "ctf": _columns("relion", *_CTF),
    "relion": (
        _IMAGE,
        "|".join((*field("optics.pixel_size_A").names("relion"), "+".join(reversed(PIXEL_SIZE_3_0)))),
        *_columns("relion", "optics.voltage_kV", "optics.spherical_aberration_mm", "optics.amplitude_contrast"),
    ),
}
# The uses that columns alone decide; `with_derived` adds those that these decide.
_JUDGED: tuple[CheckName, ...] = ("coords", "stacks", "stacks-job", "poses", "ctf", "recovar", "relion", "micrographs")
# The uses for which pixels are read through the names in the metadata.
_OF_IMAGES = ("stacks", "recovar")
# The uses for which a file is refused where a row's image has no proper name.
_OF_NAMES = ("stacks", "poses", "ctf", "recovar", "relion", "cryosparc")
# The uses that the commands join files beside a .cs file for.
_JOINED = ("coords", "stacks", "relion", "micrographs")
_POSE_2D = "alignments2D/pose"
_ONLY_2D = f"{_POSE_2D} is an angle in the plane alone"
_SHAPE, *_FRACTIONS = _CS_NEEDS["coords"][1:]


def uses_of_cs(path: Path, table: Table) -> tuple[Use, ...]:
    """Judge cryoSPARC columns; what is missing is looked for in the files beside ``path``."""
    uses = []
    for use in _JUDGED:
        if use == "recovar":
            uses.append(_recovar_use_of_cs(path, table))
            continue
        lacking = missing_columns(_CS_NEEDS[use], table.names)
        joined = _joined_by_command(use, path, table, lacking) if lacking else ""
        missing, hint = ((), joined) if joined else (in_words(lacking), _where(path, lacking))
        if use == "stacks-job":
            absent = _job_folder_lacks(path)
            missing, hint = (*missing, *absent), hint or ("Give the job's folder, not a file of it." if absent else "")
        if use == "relion" and holds_exposures(table.names):
            missing, hint = ("particles",), "These are exposures: give the particles of a later job."
        is_flat = use == "poses" and bool(missing) and _POSE_2D in table
        uses.append(Use(use, False, (), hint, (_ONLY_2D,)) if is_flat else Use(use, not missing, missing, hint))
    return (*uses, Use("cryosparc", True, hint="It is cryoSPARC's."))


def with_derived(uses: tuple[Use, ...], shown: Collection[CheckName], columns: Collection[str] = ()) -> tuple[Use, ...]:
    """Add the uses that follow from others, and say which make sense.

    Parameters
    ----------
    uses
        What the columns, images and folders decided.
    shown
        The uses that make sense for this kind of file.
    columns
        Those that there are once files are joined, which the commands do.
    """
    by_name = {use.name: use for use in uses}
    stacks, batches, poses, recovar = (by_name[name] for name in ("stacks", "stacks-job", "poses", "recovar"))
    if stacks.ready and not missing_columns(_CS_NEEDS["poses"], columns):
        poses = Use("poses", True)
    # Where boxes or pixel sizes differ, and of images that are multiplied by their CTF, no new images are made either.
    as_recovar = [recovar] if recovar.reasons and not recovar.missing and not is_mended_by_downsampling(recovar) else []
    derived = (
        replace(batches if batches.ready and not stacks.ready else stacks, name="cryolike"),
        _all_of("cryodrgn", stacks, *(as_recovar or [poses])),
        Use("select", True),
    )
    return tuple(replace(use, applies=use.name in shown) for use in (*uses, *derived))


def is_mended_by_downsampling(recovar: Use) -> bool:
    """Whether RECOVAR reads what `stacks downsample` makes of a file that it does not read itself."""
    return "stacks downsample" in recovar.hint


def _all_of(name: CheckName, *uses: Use) -> Use:
    """Return a use that needs all that others do."""
    missing = tuple(dict.fromkeys(item for use in uses for item in use.missing))
    reasons = tuple(dict.fromkeys(item for use in uses for item in use.reasons))
    hints = dict.fromkeys(use.hint for use in uses if use.hint)
    return Use(name, all(use.ready for use in uses), missing, _in_a_row(*hints), reasons)


def _in_a_row(*hints: str) -> str:
    """Return several hints as one."""
    given = [hint for hint in hints if hint]
    return " ".join(f"{hint};" if not hint.endswith((".", ";")) else hint for hint in given[:-1]) + " ".join(
        ["", *given[-1:]] if len(given) > 1 else given
    )


def without_refused(uses: tuple[Use, ...], found: Sequence[Refusal]) -> tuple[Use, ...]:
    """Take back that a STAR file of particles is ready where RELION would refuse it, or read it wrongly."""
    return tuple(
        _refused(use, [item for item in found if use.name == "relion" or item.is_damage])
        if use.name in {"relion", "cryosparc"}
        else use
        for use in uses
    )


def without_unusable_images(uses: tuple[Use, ...], found: Sequence[Refusal], program: Program) -> tuple[Use, ...]:
    """Take back that particles are ready for what reads their images, where some can't be used by any program."""
    names = {*_OF_IMAGES, "relion", *(["cryosparc"] if program == "relion" else [])}
    # What is missing besides, such as the files themselves, says enough.
    return tuple(_refused(use, found) if use.name in names and not use.missing else use for use in uses)


def _refused(use: Use, found: Sequence[Refusal]) -> Use:
    hint = " ".join(filter(None, dict.fromkeys([use.hint, *(item.remedy for item in found)])))
    reasons = (*use.reasons, *(item.reason for item in found))
    return replace(use, ready=False, reasons=reasons, hint=hint) if found else use


def _recovar_use_of_cs(path: Path, table: Table) -> Use:
    # Of files that are joined, RECOVAR takes none: `of_several_files` says what it takes instead.
    n_header = table.n_header_bytes if isinstance(table, CsNpyFile) else None if isinstance(table, CsStreamFile) else 0
    reading = reading_of_cs(path, table, n_header)
    hint = _where(path, reading.columns) if reading.columns else reading.hint
    if reading.columns and _POSE_2D in table:
        return Use("recovar", False, hint=hint, reasons=(_ONLY_2D,))
    return Use("recovar", reading.is_right, in_words(reading.columns), hint, reading.faults)


def without_unset_locations(uses: tuple[Use, ...], table: Table, fields: Mapping[str, FieldSummary]) -> tuple[Use, ...]:
    """Take back that coordinates are there where the sizes of the micrographs, or all x or all y, are zero.

    Parameters
    ----------
    uses
        As judged by the columns' names alone.
    table
        Where the values are; without statistics the first rows stand for all.
    fields
        Its columns in numbers, as far as they were asked for.
    """
    unset = _unset(table, fields)
    missing = tuple(f"{name} other than 0" for name in unset)
    hint = "Give a file in which it is filled in, such as extracted_particles.cs or picked_particles.cs."
    return _lacking(uses, ("coords",), missing, hint) if unset and table.n_rows else uses


def _unset(table: Table, fields: Mapping[str, FieldSummary]) -> list[str]:
    """Return the columns of coordinates that nobody filled in."""
    ranges = {name: _range_of(table, fields.get(name), name) for name in (_SHAPE, *_FRACTIONS) if name in table}
    unset = [name for name in (_SHAPE,) if name in ranges and ranges[name][0] == 0]
    return unset + [name for name in _FRACTIONS if name in ranges and ranges[name] == (0, 0)]


def without_images(uses: tuple[Use, ...], found: ImageFiles) -> tuple[Use, ...]:
    """Take back what needs images that are not there, or not whole."""
    if found.is_complete:
        return uses
    n_absent = len(found.missing) + len(found.too_short) + len(found.unreadable)
    missing = (f"{n_absent:,} of {counted(found.n_files, 'image file')}",)
    if found.remedy is not None:
        hint = f"Give {found.remedy.as_options()}."
    elif found.missing:
        hint = (
            f"Say where the stacks are with {option('datadir')}, and with {option('strip_prefix')} which leading part "
            "of their names is no more."
        )
    else:
        hint = "Copy them again."
    return _lacking(uses, _OF_IMAGES, missing, hint)


def of_several_files(uses: tuple[Use, ...], path: Path, table: Table | None = None) -> tuple[Use, ...]:
    """Say how RECOVAR, which takes single files, is given a job or a result group."""
    hint = f"{downsampling(path, table)} makes files that RECOVAR takes."
    return tuple(replace(use, hint=hint) if use.name == "recovar" and use.ready else use for use in uses)


def without_one_result(uses: tuple[Use, ...], error: CryobridgeError) -> tuple[Use, ...]:
    """Take back what the commands refuse a job folder for: it has no particles, or several results with them."""
    return _lacking(
        uses, ("coords", "relion", *_OF_IMAGES), (f"one result with particles ({error.message})",), error.hint or ""
    )


def _lacking(uses: tuple[Use, ...], names: tuple[str, ...], missing: tuple[str, ...], hint: str) -> tuple[Use, ...]:
    """Return uses of which some lack more."""
    return tuple(
        replace(use, ready=False, missing=(*use.missing, *missing), hint=_in_a_row(use.hint, hint))
        if use.name in names
        else use
        for use in uses
    )


def _range_of(table: Table, summary: FieldSummary | None, name: str) -> tuple[float, float]:
    if summary is not None and summary.minimum is not None and summary.maximum is not None:
        return summary.minimum, summary.maximum
    values = np.asarray(table.read([name], slice(0, _N_COMPARED))[name])
    is_numbers = values.size and values.dtype.kind in "biuf"
    return (float(values.min()), float(values.max())) if is_numbers else (1.0, 1.0)


def uses_of_star(
    path: Path, block: StarBlock, optics: StarBlock | None, *, is_micrographs: bool, has_odd_names: bool
) -> tuple[Use, ...]:
    """Judge RELION columns, those of the optics block included.

    Parameters
    ----------
    path
        The file.
    block, optics
        Its main block, and its optics.
    is_micrographs
        Whether it lists micrographs, not particles.
    has_odd_names
        Whether some of its images are not named ``number@stack``, so that the commands refuse the file.
    """
    have = (*block.names, *(() if optics is None else optics.names))
    uses = []
    missing: tuple[str, ...]
    names: tuple[CheckName, ...] = (*_JUDGED, "cryosparc")
    for use in names:
        reasons: tuple[str, ...] = ()
        if use == "coords":
            hint = (
                "This is the micrographs side; give it after a .cs file of picks."
                if is_micrographs
                else "coords reads cryoSPARC picks (.cs) and a micrographs_ctf.star."
            )
            missing = () if is_micrographs else ("rlnMicrographName of micrographs, not particles",)
        elif use == "micrographs":
            missing, hint = () if is_micrographs else ("micrographs, not particles",), ""
        elif use == "stacks-job":
            missing, hint = ("a cryoSPARC job folder",), "Use stacks (indexed) for a STAR file."
        elif use == "recovar":
            reading = reading_of_star(path, block, optics)
            missing, reasons = in_words(reading.columns), reading.faults
            hint = reading.hint or _star_hint(path, missing, have)
        else:
            missing = in_words(missing_columns(_STAR_NEEDS["relion" if use == "cryosparc" else use], have))
            hint = _star_hint(path, missing, have)
            if use == "poses" and not missing and has_2d_poses(ColumnReader(block)):
                reasons, hint = (FLAT_ANGLES,), "Give run_data.star of a Refine3D or Class3D job."
        if has_odd_names and use in _OF_NAMES:
            reasons, hint = (*reasons, "not every image is named number@stack"), "Correct the names that are none."
        uses.append(Use(use, not (missing or reasons), missing, hint, reasons))
    return tuple(uses)


def uses_of_tomography(found: Tomography) -> tuple[Use, ...]:
    """Say that a file of tomography serves nothing here."""
    return tuple(
        Use(use, False, reasons=(f"it holds {found.what}; subtomograms are not supported",), applies=False)
        for use in USE_NAMES
    )


def _where(path: Path, missing: tuple[str, ...]) -> str:
    """Say which files beside this one have the missing columns."""
    sentences = []
    for prefix in dict.fromkeys(name.split("|")[0].split("/")[0] + "/" for name in missing):
        files = [sibling.name for sibling in siblings_with(path, prefix) if _shares_rows(path, sibling)]
        if files:
            more = f" and {len(files) - 2} more" if len(files) > 2 else ""
            sentences.append(f"{prefix}* is in {', '.join(files[:2])}{more}")
        else:
            sentences.append(f"no file beside it has {prefix}*")
    return "; ".join(sentences)


def _joined_by_command(use: str, path: Path, table: Table, lacking: tuple[str, ...]) -> str:
    """Say which files the command joins by itself for what is missing; empty where it joins none, or refuses to."""
    if use not in _JOINED:
        return ""
    try:
        files = _as_joined(use, path)
    except CryobridgeError:
        return ""
    others = [member for member, _ in files.members if member.path != table.path and not _lacks_all(lacking, member)]
    if not others or missing_columns(lacking, tuple(name for member in others for name in member.names)):
        return ""
    groups = list(dict.fromkeys(f"{name.partition('/')[0]}/*" for name in lacking))
    names = ", ".join(member.path.name for member in others)
    part = "" if len(files) == table.n_rows else f" and has {len(files):,} of the {table.n_rows:,} particles"
    return f"{' and '.join(groups)} come{'s' if len(groups) == 1 else ''} from {names}, which is joined{part}"


def _lacks_all(needs: tuple[str, ...], table: Table) -> bool:
    return len(missing_columns(needs, table.names)) == len(needs)


def _as_joined(use: str, path: Path) -> ParticleFiles:
    """Open particles as `coords` or `stacks cs` does."""
    if use == "relion":
        return open_particles(path, program="cryosparc")
    if use == "micrographs":
        return open_exposures(path)
    if use == "stacks":
        files = open_particles(path, needs=IMAGES_AND_CTF, program="cryosparc")
        files.require_all_rows()
        return files
    files = open_particles(path, needs=_CS_NEEDS["coords"][:1], program="cryosparc")
    files, _ = with_columns_beside(files, _CS_NEEDS["coords"])
    if _unset(files.columns, {}):
        raise MissingDataError("the coordinates are not filled in", path=path)
    return files


def _shares_rows(path: Path, sibling: Path) -> bool:
    """Whether two files hold the same particles: some of the first uids of one are in the other."""
    if sibling == path:
        return False
    try:
        own = open_cs(path) if path.suffix == ".cs" else None
        if own is None or "uid" not in own:
            return True
        first = np.asarray(own.read(["uid"], slice(0, _N_COMPARED))["uid"])
        return bool(np.isin(first, np.asarray(open_cs(sibling).read(["uid"])["uid"])).any())
    except CryobridgeError:
        return False


def _job_folder_lacks(path: Path) -> tuple[str, ...]:
    """Return what a job folder needs, beside this file, for stacks that are read without an index."""
    absent = []
    if not path.name.endswith("_passthrough_particles.cs"):
        absent.append("the name J<n>_passthrough_particles.cs")
    kinds = ("restack/batch_000000_restacked.mrc", "downsample/batch_000000_downsample.mrc")
    if not any((path.parent / kind).is_file() for kind in kinds):
        absent.append("restack/ or downsample/ with batch_000000_*.mrc")
    return tuple(absent)


def _star_hint(path: Path, missing: tuple[str, ...], have: tuple[str, ...]) -> str:
    if not missing:
        return ""
    if any(name.startswith(("rlnAngle", "rlnOrigin")) for name in missing):
        return "Orientations and shifts come from Refine3D or Class3D: give its run_data.star."
    if any(name in _columns("relion", *_DEFOCUS) for name in missing):
        return "CTF values come from CtfFind and Extract: give particles.star of an Extract job."
    if _IMAGE in missing:
        return "Give a STAR file of particles, such as particles.star of an Extract job."
    # What is left are optics. It asks for all of them; pixel size and box come from the images too.
    words = [words for name, words in _STAR_OPTIONS.items() if name not in have]
    command = shlex.join(["cryobridge", "convert", str(path), "-o", "NEW.star"])
    return f"`{' '.join([command, *words])}` writes them."
