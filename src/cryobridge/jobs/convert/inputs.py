"""Reading the inputs of a conversion, whatever program wrote them, into one particle set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats import folders, registry
from cryobridge.formats.cryosparc.companions import particles_of_job
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.projects import folder_refusal
from cryobridge.jobs.convert.cs_files import contradictions, files_to_join, is_enough_for_pickles, refuse_redundant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.formats.cryosparc.join import JoinedTable
    from cryobridge.formats.table import Table
    from cryobridge.jobs.convert.options import ConvertOptions, Program, Target
    from cryobridge.model.particles import ParticleSet

_KINDS = (
    "Give a .cs file (with its passthrough files), a .csg file, a cryoSPARC job folder, a particle STAR file, or a "
    ".mrcs stack with poses.pkl and ctf.pkl."
)


@dataclass(frozen=True)
class Source:
    """What the inputs hold.

    Parameters
    ----------
    particles
        All rows that could be read.
    program
        Whose files they are.
    files
        What was read.
    n_rows
        Rows of the main file.
    left_out
        Rows of it that are not among the particles, by reason.
    chosen
        Rows that an ind.pkl chooses, or None.
    notes
        What was joined or taken, in sentences.
    warnings
        What files contradict each other in, in sentences.
    why_no_locations
        Why a cryoSPARC source does not say where the particles lie, as the end of a sentence.
    """

    particles: ParticleSet
    program: Program
    files: tuple[Path, ...]
    n_rows: int
    left_out: dict[str, int]
    chosen: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    why_no_locations: str = ""


def read_inputs(paths: Sequence[Path], target: Target, options: ConvertOptions) -> Source:
    """Read the inputs.

    Raises
    ------
    UsageError
        If they don't go together.
    CryobridgeError
        If one can't be read, or lacks what is needed.
    """
    if not paths:
        raise UsageError("no input is named", hint=_KINDS)
    kinds = [_kind_of(path) for path in paths]
    first = kinds[0]
    if set(kinds) == {registry.CS}:
        return _from_cs(tuple(paths), target, options)
    if len(paths) == 1 and first == registry.CSG:
        return _from_group(paths[0], options)
    if len(paths) == 1 and first == folders.CRYOSPARC_JOB:
        return _from_job(paths[0], options)
    if len(paths) == 1 and first == registry.STAR:
        return _from_star(paths[0], options)
    if kinds.count(registry.MRC) == 1 and set(kinds) <= {registry.MRC, registry.PICKLE}:
        stack = paths[kinds.index(registry.MRC)]
        return _from_pickles(stack, [path for path in paths if path != stack], options)
    names = ", ".join(f"{path.name} ({kind})" for path, kind in zip(paths, kinds, strict=True))
    raise UsageError(f"no particle set can be made of {names}", hint=_KINDS)


def _kind_of(path: Path) -> str:
    if not path.is_dir():
        return registry.identify_file(path)
    if folders.identify_folder(path) != folders.CRYOSPARC_JOB:
        raise folder_refusal(path, "particles")
    return folders.CRYOSPARC_JOB


def _from_cs(paths: tuple[Path, ...], target: Target, options: ConvertOptions) -> Source:
    # A join may lose rows, which pickles must have all of.
    if len(paths) == 1 and target == "pickles" and is_enough_for_pickles(paths[0]):
        return _from_tables([open_cs(paths[0])], options)
    refuse_redundant([open_cs(path) for path in paths])
    files = files_to_join(paths)
    return _from_tables([open_cs(path) for path in files.paths], options, files.notes, files.why_alone)


def _from_tables(
    tables: Sequence[Table], options: ConvertOptions, notes: tuple[str, ...] = (), why_alone: str = ""
) -> Source:
    from cryobridge.formats.cryosparc.join import join_on_uid

    if len(tables) == 1:
        return _cryosparc(tables[0], tables[0].n_rows, (tables[0].path,), notes, options, why_alone)
    names = ", ".join(table.path.name for table in tables[1:])
    joined = join_on_uid(*tables)
    notes = (*notes, f"joined on uid with {names}", *joined.notes)
    source = _cryosparc(joined, tables[0].n_rows, tuple(table.path for table in tables), notes, options, why_alone)
    return replace(source, warnings=tuple(contradictions(joined)))


def _cryosparc(
    table: Table,
    n_rows: int,
    files: tuple[Path, ...],
    notes: tuple[str, ...],
    options: ConvertOptions,
    why_alone: str = "",
) -> Source:
    from cryobridge.formats.cryosparc.particles import particles_from_cs

    if n_rows and not table.n_rows:
        raise MissingDataError(
            f"none of its uids is in {', '.join(path.name for path in files[1:])}",
            path=files[0],
            field="uid",
            hint="Give the passthrough file of the same job.",
        )
    particles = particles_from_cs(table, pose_from=options.pose_from, known=options.known_optics)
    absent = n_rows - table.n_rows
    left_out = {"uid not in the joined files": absent} if absent else {}
    why = "its location columns are zero or not whole"
    if not any(name.startswith("location/") for name in table.names):
        why = f"no location columns are in it, and {why_alone}" if why_alone else "no location columns are in the files"
    return Source(
        particles,
        "cryosparc",
        files,
        n_rows,
        left_out,
        notes=(*notes, *map(str, particles.messages)),
        why_no_locations="" if particles.locations is not None else why,
    )


def _from_group(path: Path, options: ConvertOptions) -> Source:
    from cryobridge.formats.cryosparc.csg import open_group, read_csg

    members = read_csg(path).members
    joined: JoinedTable = open_group(path)
    first = open_cs(joined.path)
    return _cryosparc(joined, first.n_rows, (path, *members), joined.notes, options)


def _from_job(path: Path, options: ConvertOptions) -> Source:
    job = particles_of_job(path)
    return _from_tables([open_cs(item) for item in (job.main, *job.passthroughs)], options, job.notes)


def _from_star(path: Path, options: ConvertOptions) -> Source:
    from cryobridge.formats.relion.particles import particles_from_star
    from cryobridge.formats.relion.star import open_star

    star = open_star(path)
    if "rlnImageName" not in star.labels(star.main):
        raise MissingDataError(
            f"data_{star.main} has no rlnImageName",
            path=path,
            hint="Give a STAR file of particles, such as particles.star or run_data.star.",
        )
    if "rlnImageDimensionality" in (star.labels("optics") if "optics" in star else ()):
        (dimensions,) = star["optics"].read(["rlnImageDimensionality"]).values()
        if (np.asarray(dimensions) == 3).any():
            raise FormatError(
                "the particles are subtomograms",
                path=path,
                field="rlnImageDimensionality",
                hint="Only images of single particles are converted.",
            )
    particles = particles_from_star(star, known=options.known_optics)
    others = [name for name in star.names if name not in {star.main, "optics"}]
    notes = [str(message) for message in particles.messages]
    if others:
        notes.append(f"left out: the blocks {', '.join(f'data_{name}' for name in others)}")
    return Source(particles, "relion", (path,), len(particles), {}, notes=tuple(notes))


def _from_pickles(stack: Path, pickles: Sequence[Path], options: ConvertOptions) -> Source:
    from cryobridge.formats.particles_pickle import particles_from_pickles
    from cryobridge.formats.pickles import classify_pickle, read_indices

    parts: dict[str, Path] = {}
    for path in pickles:
        kind = classify_pickle(path)
        if kind not in {"poses", "ctf", "indices"} or kind in parts:
            again = f", and so is {parts[kind].name}" if kind in parts else ""
            raise UsageError(f"this is {kind}{again}", path=path, hint="One poses.pkl, ctf.pkl and ind.pkl are taken.")
        parts[kind] = path
    if not {"poses", "ctf"} & parts.keys():
        raise UsageError("a stack alone says nothing of its particles", path=stack, hint=_KINDS)
    particles = particles_from_pickles(stack, parts.get("poses"), parts.get("ctf"), known=options.known_optics)
    chosen = None
    if "indices" in parts:
        chosen = read_indices(parts["indices"])
        if chosen.max(initial=-1) >= len(particles):
            raise UsageError(
                f"row {chosen.max():,} is beyond the {len(particles):,} images of {stack.name}",
                path=parts["indices"],
                hint="Give the ind.pkl that was made for this stack.",
            )
    files = (stack, *parts.values())
    return Source(particles, "pickles", files, len(particles), {}, chosen, tuple(map(str, particles.messages)))
