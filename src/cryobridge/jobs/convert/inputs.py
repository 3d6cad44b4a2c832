"""What a conversion asks of its inputs, besides that they can be opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import FormatError, MissingDataError, UsageError, option
from cryobridge.formats.cryosparc.names import holds_exposures, instead_of_exposures, parse_cs_name
from cryobridge.formats.in_memory import SetInMemory
from cryobridge.formats.input_file import resolved
from cryobridge.formats.open import KINDS, open_particles
from cryobridge.formats.particle_files import ParticleFiles
from cryobridge.formats.relion.star import open_star
from cryobridge.jobs.identity.records import ORIGINAL_IMAGE
from cryobridge.model.particles import ParticleSet
from cryobridge.options import as_path
from cryobridge.report import note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryobridge.jobs.convert.options import ConvertOptions, Target
    from cryobridge.report import Message

# A join may lose rows, which pickles must have all of: these columns are all that they need.
_FOR_PICKLES = ("blob/psize_A", "blob/shape", "ctf/", "alignments")


def opened_inputs(inputs: Any, target: Target, options: ConvertOptions) -> ParticleFiles:
    """Open files that were named, or a set in memory; raises as `read_inputs`."""
    if isinstance(inputs, ParticleSet):
        options.refuse_ancestors_of_set()
        return SetInMemory(inputs)
    several = inputs if isinstance(inputs, list | tuple) else [inputs]
    return read_inputs([as_path(path, "inputs") for path in several], target, options)


def read_inputs(paths: Sequence[Path], target: Target, options: ConvertOptions) -> ParticleFiles:
    """Open the inputs.

    Raises
    ------
    UsageError
        If they don't go together.
    CryobridgeError
        If one can't be read, or lacks what is needed.
    """
    if not paths:
        raise UsageError("no input is named", hint=KINDS)
    if len(paths) > 1:
        _refuse_micrographs(paths)
    needs = _FOR_PICKLES if target == "pickles" else ()
    files = open_particles(
        *paths,
        needs=needs,
        pose=options.pose_from,
        defaults=options.known_optics,
        from_ancestors=options.from_ancestors,
    )
    if files.program == "cryosparc":
        _refuse_redundant(files, paths)
        _refuse_exposures(files)
    elif files.program == "relion":
        _refuse_other_than_images(files)
    elif not {"poses", "ctf"} & files.parts.keys():
        raise UsageError("a stack alone has no metadata of its particles", path=files.metadata, hint=KINDS)
    return files


def _refuse_micrographs(paths: Sequence[Path]) -> None:
    """Refuse RELION's micrographs among the inputs, as `coords` takes them."""
    for path in paths:
        if path.suffix == ".star" and path.is_file() and open_star(path).main == "micrographs":
            raise UsageError(
                "a list of micrographs, not of particles",
                path=path,
                hint=f"Give it as {option('micrographs', path)}: the particles are put on these micrographs.",
            )


def why_no_locations(files: ParticleFiles) -> str:
    """Return why a cryoSPARC source does not say where the particles lie, as the end of a sentence."""
    if files.program != "cryosparc" or files.particles.locations is not None:
        return ""
    if files.table is None:
        return "the set has none"
    if any(name.startswith("location/") for name in files.table.names):
        return "its location columns are zero or not whole"
    return (
        f"no location columns are in it, and {files.sought}" if files.sought else "no location columns are in the files"
    )


def _refuse_redundant(files: ParticleFiles, paths: Sequence[Path]) -> None:
    """Refuse a file of which no column would be taken, such as another iteration; a passthrough file does no harm."""
    given = {resolved(path) for path in paths}
    main, *others = [table for table, _ in files.members]
    seen = set(main.names)
    for table in others:
        own = set(table.names)
        is_redundant = own <= seen and len(own) > 1 and not parse_cs_name(table.path.name).is_passthrough
        if is_redundant and resolved(table.path) in given and files.group is None:
            raise UsageError(
                f"all of its columns are in {main.path.name} too: of two iterations or results only one can be taken",
                path=table.path,
                hint="Give the one that is meant; a passthrough file beside it is found.",
            )
        seen |= own


def _refuse_exposures(files: ParticleFiles) -> None:
    """Refuse micrographs and movies, which have no image of a particle."""
    if holds_exposures(files.columns.names):
        raise UsageError(
            f"these are {len(files):,} exposures, not particles",
            path=files.metadata,
            hint=f"{instead_of_exposures(files.path)} `cryobridge select` chooses among exposures.",
        )


def _refuse_other_than_images(files: ParticleFiles) -> None:
    star = files.star
    assert star is not None  # RELION's
    if "rlnImageName" not in star.labels(star.main):
        raise MissingDataError(
            f"data_{star.main} has no rlnImageName",
            path=star.path,
            hint="These are to be extracted first: give the STAR file of that."
            if ORIGINAL_IMAGE in star.labels(star.main)
            else "Give a STAR file of particles, such as particles.star or run_data.star.",
        )
    if "rlnImageDimensionality" in (star.labels("optics") if "optics" in star else ()):
        (dimensions,) = star["optics"].read(["rlnImageDimensionality"]).values()
        if (np.asarray(dimensions) == 3).any():
            raise FormatError(
                "the particles are subtomograms",
                path=star.path,
                field="rlnImageDimensionality",
                hint="Only images of single particles are converted.",
            )


def messages_of(files: ParticleFiles) -> list[Message]:
    """Return what was joined, assumed or left out in reading."""
    messages = [*files.messages, *files.particles.messages]
    star = files.star
    others = [] if star is None else [name for name in star.names if name not in {star.main, "optics"}]
    if others:
        text = f"left out: the blocks {', '.join(f'data_{name}' for name in others)}"
        messages.append(note("blocks-left-out", text, where=files.metadata))
    by_text = {str(message): message for message in reversed(messages)}
    return list(reversed(by_text.values()))
