"""The ways in: particles, and where the image of each one lies.

What is wrong with files and rows is collected, not raised, so that the plan reports it together with the rest.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError, option
from cryobridge.formats.cryosparc.job import ImageBatches, read_job
from cryobridge.formats.folders import CRYOSPARC_JOB, identify_folder
from cryobridge.formats.input_file import meant
from cryobridge.formats.listing import list_if_there
from cryobridge.formats.open import IMAGES_AND_CTF, open_particles
from cryobridge.formats.particle_files import ParticleFiles, Program, naming_damage
from cryobridge.formats.relion.accepted import premultiplied
from cryobridge.jobs.stacks.checks import Problems, Rows, shown
from cryobridge.jobs.stacks.image_files import find_images, read_headers
from cryobridge.jobs.stacks.options import PairedOptions
from cryobridge.model.concatenate import concatenate
from cryobridge.model.particles import CTF, ImageRefs, Labels, Optics, ParticleSet
from cryobridge.options import as_path
from cryobridge.report import counted, distinct, note, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.formats.optics import KnownOptics
    from cryobridge.formats.relion.star import StarFile
    from cryobridge.jobs.shared_options import ImageSearchOptions
    from cryobridge.jobs.stacks.options import AngleUnit, OnMissing
    from cryobridge.report import Message

_Part = Literal["images", "ctf", "optics"]
# Each part in words, and the columns that it is in: cryoSPARC's and RELION's.
_PARTS: dict[_Part, tuple[str, str, str]] = {
    "images": ("image references", "blob/*", "rlnImageName"),
    "ctf": ("CTF values", "ctf/*", "rlnDefocusU"),
    "optics": ("optics", "ctf/*", "rlnVoltage"),
}
_OTHER_JOB = "Name the job that restacked or downsampled the particles; `stacks cs` takes any other."


@dataclass(frozen=True)
class StackInput:
    """Particles with the files of their images.

    Parameters
    ----------
    particles
        With CTF and optics. Rows without an image are there too.
    images
        Where the image of each row is.
    headers
        The header of each image file, by its number in ``images.path.values``; files that are missing are absent.
    rows
        The rows that have an image.
    metadata_rows
        (n,) the row of the metadata file that each row of the set was read from.
    left_out
        How many rows have no image, by the reason.
    separate_files
        Whether this way in never mixes image files.
    star
        The STAR file that the particles are from, for who writes it anew; None for others.
    reread
        Reads the particles again, given what a user or the image files say of their optics; None where that is not
        needed.
    messages
        What was assumed, and what may be wrong.
    problems
        What is wrong.
    """

    particles: ParticleSet
    images: ImageRefs
    headers: dict[int, MrcHeader]
    rows: Rows
    metadata_rows: Rows
    left_out: dict[str, int] = field(default_factory=dict)
    separate_files: bool = False
    star: StarFile | None = None
    reread: Callable[[KnownOptics], ParticleSet] | None = None
    messages: tuple[Message, ...] = ()
    problems: Problems = field(default_factory=Problems)

    @property
    def ctf(self) -> CTF:
        """The contrast transfer of each row, which every way in requires."""
        assert self.particles.ctf is not None
        return self.particles.ctf

    @property
    def optics(self) -> Optics:
        """The optics groups, which every way in requires."""
        assert self.particles.optics is not None
        return self.particles.optics

    def optics_of(self, rows: Rows) -> Rows:
        """Return the row of `optics` for each of these rows."""
        assert self.particles.optics_index is not None
        return self.particles.optics_index[rows].astype(np.int64)


def read_stack_input(
    particles: str | os.PathLike[str] | Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    search: ImageSearchOptions,
    on_missing: OnMissing = "error",
    units: PairedOptions | None = None,
) -> StackInput:
    """Read particles of any kind that Fourier stacks are made of.

    Parameters
    ----------
    particles
        A `.cs`, `.csg` or STAR file, a cryoSPARC job folder, or pairs of a STAR file and a stack.
    search
        Where image files are looked for, by the files that name them.
    on_missing
        ``"skip"`` leaves out particles whose image is missing.
    units
        Of pairs.

    Raises
    ------
    UsageError
        If it is none of these.
    CryobridgeError
        If a file can't be read, or lacks something.
    """
    if not isinstance(particles, str | os.PathLike):
        given = units or PairedOptions()
        return paired_input(_pairs(particles), given.defocus_angle_unit, given.phase_shift_unit)
    path = as_path(particles, "particles")
    if path.is_dir() and _has_batches(path):
        return job_input(path.absolute().parent, int(path.absolute().name[1:]))
    files = open_for_stacks(path)
    return files_input(files, search.image_search(files.metadata), on_missing)


def _pairs(given: Any) -> list[tuple[Path, Path]]:
    try:
        return [(as_path(star, "particles"), as_path(stack, "particles")) for star, stack in given]
    except CryobridgeError:
        raise
    except (TypeError, ValueError):
        raise UsageError(
            f"a file, a folder, or pairs of a STAR file and a stack are needed, not {given!r:.60}",
            option="particles",
            hint='Give a name, or a list such as [("a.star", "a.mrc")].',
        ) from None


def _has_batches(folder: Path) -> bool:
    """Whether a folder is that of a Restack or Downsample Particles job."""
    if re.fullmatch(r"J\d+", folder.absolute().name) is None:
        return False
    return identify_folder(folder) == CRYOSPARC_JOB and any(batch.n_from_zero for batch in read_job(folder).batches)


def indexed_input(particles: ParticleSet, search: ImageSearch, on_missing: OnMissing = "error") -> StackInput:
    """Return the input of metadata that name a stack and a slice for each particle: a `.cs` or a RELION STAR file.

    Parameters
    ----------
    particles
        The particles of a `.cs` or a STAR file.
    search
        Where the image files are looked for.
    on_missing
        ``"skip"`` leaves out particles whose image is missing.

    Raises
    ------
    MissingDataError
        If there are no particles, or they have no image references, CTF or optics.
    """
    require(particles, "images", "ctf", "optics")
    assert particles.images is not None
    found = find_images(particles.images, search, on_missing)
    return StackInput(
        particles,
        particles.images,
        found.headers,
        found.rows,
        np.arange(particles.n_rows),
        found.left_out,
        messages=(*particles.messages, *_defaults(particles), *found.messages),
        problems=found.problems,
    )


def rows_input(
    particles: ParticleSet,
    rows: Rows,
    search: ImageSearch,
    on_missing: OnMissing = "error",
    reread: Callable[[KnownOptics], ParticleSet] | None = None,
) -> StackInput:
    """Return the input of some rows of particles, of which no more than the images need be known.

    Parameters
    ----------
    particles
        The particles.
    rows
        Which of them, in any order.
    search, on_missing
        See `indexed_input`.
    reread
        See `StackInput`.

    Raises
    ------
    MissingDataError
        If there are no particles, or they have no image references.
    """
    require(particles, "images")
    assert particles.images is not None
    images = ImageRefs(particles.images.path.take(rows), particles.images.index[rows])
    found = find_images(images, search, on_missing)
    return StackInput(
        particles,
        particles.images,
        found.headers,
        rows[found.rows],
        np.arange(particles.n_rows),
        found.left_out,
        reread=reread,
        messages=distinct([*particles.messages, *found.messages]),
        problems=found.problems,
    )


def files_input(files: ParticleFiles, search: ImageSearch, on_missing: OnMissing = "error") -> StackInput:
    """Return the input of particle files, of either program.

    Parameters
    ----------
    files
        As `open_for_stacks` returns them.
    search, on_missing
        See `indexed_input`.

    Raises
    ------
    CryobridgeError
        As `indexed_input`.
    """
    make = star_input if files.program == "relion" else indexed_input
    with naming_damage(files):
        source = make(files.particles, search, on_missing)
    return replace(source, messages=distinct([*files.messages, *source.messages]))


def open_for_stacks(path: str | os.PathLike[str], program: Program | None = None) -> ParticleFiles:
    """Open the particles of a program, or of any; stacks have an image for each row, so that none may be lost.

    Raises
    ------
    MissingDataError
        If a file that has images or CTF values lacks some of the rows.
    CryobridgeError
        As `cryobridge.formats.open.open_particles`.
    """
    files = open_particles(path, needs=IMAGES_AND_CTF, program=program)
    files.require_all_rows()
    return files


def star_input(particles: ParticleSet, search: ImageSearch, on_missing: OnMissing = "error") -> StackInput:
    """Return the input of a RELION STAR file, with CryoLike's defaults for the B-factor and the scale of its CTF.

    Parameters, what is returned and what is raised are those of `indexed_input`.
    """
    require(particles, "images", "ctf", "optics")
    assert particles.ctf is not None
    entered = indexed_input(particles, search, on_missing)
    return replace(entered, particles=replace(particles, ctf=_with_defaults(particles.ctf)))


def paired_input(
    pairs: Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    defocus_angle_unit: AngleUnit = "degree",
    phase_shift_unit: AngleUnit = "degree",
) -> StackInput:
    """Return the input of STAR files that each describe the images of one stack, in its order.

    Parameters
    ----------
    pairs
        The STAR file and the stack of each pair.
    defocus_angle_unit, phase_shift_unit
        Units of the two columns; RELION's are degrees.

    Raises
    ------
    UsageError
        If there is no pair.
    CryobridgeError
        If a STAR file can't be read, or has no CTF or no optics.
    """
    if not pairs:
        raise UsageError(
            "no pair of a STAR file and a stack", hint=f"Give {option('pairs')} FILE.star FILE.mrc, once or more."
        )
    stacks = [Path(stack) for _, stack in pairs]
    _refuse_absent([Path(path) for pair in pairs for path in pair])
    problems = Problems()
    sets = []
    for star, _ in pairs:
        particles = open_particles(star, program="relion").particles
        require(particles, "ctf", "optics")
        sets.append(particles)
    headers = read_headers(dict(enumerate(stacks)), problems)
    for code, header in headers.items():
        with problems.collect():
            _refuse_other_number(sets[code], header.n_whole, stacks[code].name)
    lengths = [particles.n_rows for particles in sets]
    index = np.concatenate([np.arange(n) for n in lengths])
    images = ImageRefs(
        Labels(np.repeat(np.arange(len(sets)), lengths).astype(np.int32), tuple(map(str, stacks))), index
    )
    joined = _joined(sets, images)
    assert joined.ctf is not None
    ctf = _in_radians(joined.ctf, defocus_angle_unit, phase_shift_unit)
    joined = replace(joined, ctf=ctf)
    messages = distinct(
        item
        for particles in sets
        for item in (*particles.messages, *_defaults(particles), *premultiplied(particles, "CryoLike"))
    )
    twice = next((stack for stack in stacks if stacks.count(stack) > 1), None)
    if twice is not None:
        messages += (warning("stack-repeated", f"{twice.name} is in two pairs, so its images are converted twice"),)
    if any(particles.poses is not None for particles in sets):
        text = "angles and shifts of paired STAR files are not carried along, as in CryoLike"
        messages += (note("poses-left-out", text),)
    return StackInput(
        joined, images, headers, np.arange(len(index)), index, separate_files=True, messages=messages, problems=problems
    )


def _refuse_absent(paths: Sequence[Path]) -> None:
    absent = list(dict.fromkeys(str(path) for path in paths if not path.exists()))
    if absent:
        remedy = "Check the names; each pair is a STAR file and the stack whose images its rows describe."
        raise MissingDataError(f"no such file: {shown(absent)}", count=len(absent), hint=meant(Path(absent[0]), remedy))


def job_input(folder_cryosparc: str | os.PathLike[str], job_number: int) -> StackInput:
    """Return the input of a Restack or Downsample Particles job: batches of images in the order of its metadata.

    Restacked images are preferred to downsampled ones; batches count from 0 until the first that is missing. Rows after
    the last image are left out and counted, as CryoLike does.

    Parameters
    ----------
    folder_cryosparc
        The project's folder, which holds the job folders.
    job_number
        The job: 12 for J12.

    Raises
    ------
    UsageError
        If there is no such job folder.
    MissingDataError
        If the job has no passthrough file or no batch 0.
    """
    folder = _job_folder(Path(folder_cryosparc), job_number)
    metadata = folder / f"{folder.name}_passthrough_particles.cs"
    if not metadata.is_file():
        raise MissingDataError(f"no {metadata.name} in this job", path=folder, hint=_OTHER_JOB)
    by_kind = {batches.kind: batches for batches in read_job(folder).batches if batches.n_from_zero}
    chosen = by_kind.get("restack") or by_kind.get("downsample")
    if chosen is None:
        raise MissingDataError(
            "no batch_000000_restacked.mrc in restack/ and no batch_000000_downsample.mrc in downsample/",
            path=folder,
            hint=_OTHER_JOB,
        )
    particles = open_particles(metadata, join=False, program="cryosparc").particles
    require(particles, "ctf", "optics")
    problems = Problems()
    files = chosen.files[: chosen.n_from_zero]
    headers = read_headers(dict(enumerate(files)), problems)
    sections = [headers[code].n_whole if code in headers else 0 for code in range(len(files))]
    n_images = sum(sections)
    with problems.collect():
        _refuse_cut_batches(headers.values())
    messages = [*particles.messages, *_defaults(particles)]
    if len(chosen.files) > len(files):
        messages.append(_stopped_at_gap(chosen))
    left_out = {}
    if 0 < n_images < particles.n_rows:
        left_out["no image in the batches"] = particles.n_rows - n_images
        messages.append(_rows_beyond(particles, n_images))
    elif not problems.errors:
        with problems.collect():
            _refuse_other_number(particles, n_images, f"the {len(files)} batches in {chosen.kind}/")
    index = np.concatenate([np.arange(n) for n in sections])
    # Rows after the last image get a reference that nothing reads.
    padding = max(0, particles.n_rows - n_images)
    codes = np.pad(np.repeat(np.arange(len(files)), sections), (0, padding)).astype(np.int32)
    images = ImageRefs(Labels(codes, tuple(map(str, files))), np.pad(index, (0, padding)))
    rows = np.arange(min(n_images, particles.n_rows))
    return StackInput(
        particles,
        images,
        headers,
        rows,
        np.arange(particles.n_rows),
        left_out,
        messages=tuple(messages),
        problems=problems,
    )


def _job_folder(project: Path, number: int) -> Path:
    """Return the folder of a job in that of its project."""
    folder = project / f"J{number}"
    if folder.is_dir():
        return folder
    inner = list_if_there(project).folders
    jobs = sorted((name for name in inner if re.fullmatch(r"J\d+", name)), key=lambda name: int(name[1:]))
    if re.fullmatch(r"J\d+", project.name):
        problem, hint = "this is a job's folder", f"`cryobridge stacks job {project.parent} {project.name[1:]}`."
    elif not project.is_dir():
        problem, hint = "there is no such folder", f"FOLDER/J12 is read. {meant(project, '')}".rstrip()
    else:
        has = f"it has {shown(jobs)}" if jobs else "it has no job"
        problem, hint = f"there is no J{number} in it", f"FOLDER/J12 is read; {has}."
    raise UsageError(problem, path=project, hint=f"Give the project's folder, and the number of the job: {hint}")


def require(particles: ParticleSet, *parts: _Part) -> None:
    """Refuse a set without particles, or without one of these parts.

    Raises
    ------
    MissingDataError
        Then.
    """
    if particles.n_rows == 0:
        raise MissingDataError("there are no particles in it", path=particles.source, hint="Choose another file.")
    missing = [part for part in parts if getattr(particles, part) is None]
    if missing:
        raise MissingDataError(
            f"no {', no '.join(_PARTS[part][0] for part in missing)}",
            path=particles.source,
            hint=file_with(particles.source, *missing),
        )


def file_with(path: Path, *parts: _Part) -> str:
    """Return the hint which kind of file has the parts that a file of the same program lacks."""
    of_cryosparc = path.suffix == ".cs"
    columns = dict.fromkeys(_PARTS[part][1 if of_cryosparc else 2] for part in parts)
    kind = "a .cs file" if of_cryosparc else "a STAR file of particles"
    such_as = (
        "the one that a job computed (J4_003_particles.cs), or the job folder" if of_cryosparc else "run_data.star"
    )
    return f"Give {kind} with {', '.join(columns)}, such as {such_as}."


def _refuse_other_number(particles: ParticleSet, n_images: int, where: str) -> None:
    if particles.n_rows == n_images:
        return
    raise MissingDataError(
        f"{counted(particles.n_rows, 'row')}, but {counted(n_images, 'image')} in {where}",
        path=particles.source,
        hint="Rows and images must be those of one job, in one order.",
    )


def _refuse_cut_batches(headers: Collection[MrcHeader]) -> None:
    """Refuse batches that are cut off: the images after them would be taken for those of other rows."""
    cut = [header for header in headers if header.n_whole < header.n_sections]
    if cut:
        raise FormatError(
            f"cut off after {cut[0].n_whole:,} of {counted(cut[0].n_sections, 'image')}, so that "
            "the rows of later images are "
            "unknown",
            path=cut[0].path,
            count=len(cut),
            hint="Copy the batch again.",
        )


def _stopped_at_gap(batches: ImageBatches) -> Message:
    later = len(batches.files) - batches.n_from_zero
    return note(
        "batch-missing",
        f"batch {batches.n_from_zero:06d} is missing in {batches.kind}/: the {batches.n_from_zero} before it are "
        f"taken, the {later} after it are not",
    )


def _rows_beyond(particles: ParticleSet, n_images: int) -> Message:
    text = (
        f"{particles.source.name} has {counted(particles.n_rows, 'row')}, and there are "
        f"{counted(n_images, 'image')}: they are taken to "
        f"be of the first rows, and the last {particles.n_rows - n_images:,} are left out"
    )
    return warning("rows-without-image", text, where=particles.source)


def _joined(sets: Sequence[ParticleSet], images: ImageRefs) -> ParticleSet:
    """Return the CTF and optics of several sets, one after another, with their images."""
    known = [
        ParticleSet(len(item), item.source, optics=item.optics, optics_index=item.optics_index, ctf=item.ctf)
        for item in sets
    ]
    joined = concatenate(known)
    assert joined.ctf is not None  # required of each
    return replace(joined, images=images, ctf=_with_defaults(joined.ctf), messages=())


def _with_defaults(ctf: CTF) -> CTF:
    """Fill in the B-factor and the scale that CryoLike takes for a STAR file without them."""
    n = len(ctf.defocus_u_A)
    return replace(
        ctf,
        bfactor_A2=np.zeros(n) if ctf.bfactor_A2 is None else ctf.bfactor_A2,
        scale=np.ones(n) if ctf.scale is None else ctf.scale,
    )


def _in_radians(ctf: CTF, defocus_angle_unit: AngleUnit, phase_shift_unit: AngleUnit) -> CTF:
    """Undo the conversion from degrees where the file held radians."""
    degrees = 180 / math.pi
    if defocus_angle_unit == "radian":
        ctf = replace(ctf, defocus_angle_rad=ctf.defocus_angle_rad * degrees)
    if phase_shift_unit == "radian" and ctf.phase_shift_rad is not None:
        ctf = replace(ctf, phase_shift_rad=ctf.phase_shift_rad * degrees)
    return ctf


def _defaults(particles: ParticleSet) -> tuple[Message, ...]:
    """Say which defaults stand in for what the metadata do not have."""
    assert particles.ctf is not None and particles.optics is not None
    defaults = {
        "phase shift in the metadata: 0": particles.ctf.phase_shift_rad is None,
        "amplitude contrast in the metadata: 0.1": bool(np.isnan(particles.optics.amplitude_contrast).any()),
        "CTF B-factor in the metadata: 0": particles.ctf.bfactor_A2 is None,
        "CTF scale factor in the metadata: 1": particles.ctf.scale is None,
    }
    return tuple(note("default-taken", f"no {text}") for text, holds in defaults.items() if holds)
