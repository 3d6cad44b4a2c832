"""Planning a conversion: reading, choosing rows, naming, and everything that can be checked before writing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError
from cryobridge.formats.classes import absent_classes
from cryobridge.formats.cryosparc.particles_write import CsContent, cs_content, dark_particles
from cryobridge.formats.image_search import ImageSearch, names_lead_elsewhere, not_found
from cryobridge.formats.particles_pickle import INDICES, PickleContent, pickle_content
from cryobridge.formats.plausible import implausible_units
from cryobridge.formats.relion.particles_write import StarContent, star_content
from cryobridge.jobs.convert.inputs import Source, read_inputs
from cryobridge.jobs.convert.micrographs import micrographs_content, micrographs_path
from cryobridge.jobs.convert.names import (
    Link,
    as_seen_from,
    micrograph_names,
    plan_links,
    relative_to_file,
    relion_project,
    renamed,
    tell_start_of_links,
    without_unused,
)
from cryobridge.jobs.convert.options import ConvertOptions, target_of
from cryobridge.jobs.convert.placement import placed
from cryobridge.jobs.convert.sizes import with_sizes_of_stacks
from cryobridge.jobs.convert.told import Told
from cryobridge.options import as_path

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.model.particles import ParticleSet

Content: TypeAlias = StarContent | CsContent | PickleContent


@dataclass(frozen=True)
class ConvertPlan:
    """Everything needed to write the output.

    Parameters
    ----------
    source
        The inputs.
    options
        What was asked for.
    output
        The file, or the folder of pickles.
    rows
        Rows of the source that are written.
    particles
        What is written, in the terms of the program that it is for.
    content
        The same as columns.
    micrographs
        The blocks of the STAR file of micrographs (see `micrographs_path`), or None.
    links
        Links to the stacks.
    left_out
        Rows that are not written, by reason.
    notes
        What was joined, made or taken, in sentences.
    warnings
        What may make the output wrong or unusable, in sentences.
    """

    source: Source
    options: ConvertOptions
    output: Path
    rows: NDArray[np.int64]
    particles: ParticleSet
    content: Content
    micrographs: tuple[StarBlock, ...] | None
    links: tuple[Link, ...]
    left_out: dict[str, int]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def outputs(self) -> list[Path]:
        """Return the files that are written, without the links."""
        if isinstance(self.content, PickleContent):
            return [self.output / name for name in self.content.names]
        if isinstance(self.content, CsContent):
            return [self.output, self.output.with_suffix(".csg")]
        return [self.output, *([micrographs_path(self.output)] if self.micrographs else [])]

    def outdated(self) -> list[Path]:
        """Return what an earlier run may have left and no longer goes with the outputs: a choice of rows."""
        if not isinstance(self.content, PickleContent) or INDICES in self.content.names:
            return []
        return [self.output / INDICES]

    def report(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        poses = self.particles.poses
        optics = self.particles.optics
        locations = self.particles.locations
        is_moved = {self.source.program, self.options.target} in ({"cryosparc", "star"}, {"relion", "cs"})
        is_placed = is_moved and locations is not None and locations.shape_px is not None
        return {
            "inputs": [str(path) for path in self.source.files],
            "outputs": [str(path) for path in self.outputs()],
            "particles_in": self.source.n_rows,
            "particles_out": len(self.rows),
            "left_out": self.left_out,
            "alignment": None if poses is None else poses.source,
            "optics_groups": 0 if optics is None else _n_used(self.particles),
            "coordinates": self.options.placement.formula if is_placed else None,
            "not_held": list(self.content.dropped_columns),
            "links": len(self.links),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def plan_convert(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: ConvertOptions | None = None,
) -> ConvertPlan:
    """Read the inputs, choose rows, and turn them into what is to be written.

    Parameters
    ----------
    inputs
        One file or folder, or several that belong together, such as a `.cs` file and its passthrough file.
    output
        A `.star` or `.cs` file, or the folder for pickles.
    options
        What is asked for; if not given, a STAR or `.cs` file as the name of the output says.

    Returns
    -------
    ConvertPlan
        What `cryobridge.jobs.convert.convert.write_plan` writes.

    Raises
    ------
    UsageError
        If options contradict one another or the files, or would do nothing.
    CryobridgeError
        If an input can't be read, or lacks what the output needs.
    """
    paths, output = _as_paths(inputs), as_path(output, "output")
    options = ConvertOptions(target_of(output)) if options is None else options
    target_of(output, options.target)
    source = read_inputs(paths, options)
    options.refuse_idle(source.program)
    told = Told(list(source.notes), list(source.warnings))
    rows, left_out = _choose(source, options, told)
    search = ImageSearch(source.files[0], datadir=options.datadir, strip_prefix=options.strip_prefix)
    if options.target == "pickles":
        return _pickles_plan(source, options, output, rows, left_out, search, told)
    particles = source.particles if len(rows) == len(source.particles) else source.particles.take(rows)
    particles = with_sizes_of_stacks(particles, search, told.notes)
    told.add(implausible_units(particles))
    particles = placed(particles, source.program, options, search, told)
    particles, links = _named(particles, source, output, options, search, told)
    if options.target == "cs":
        particles = _counted_from_1(particles, told)
    content = _content(particles, source, options)
    micrographs = _micrographs(particles, source, options)
    if source.program == "cryosparc" and options.target == "star":
        told.warnings += _lost_to_relion(particles, source)
    told.add(content.messages)
    notes, warnings = tuple(told.notes), tuple(told.warnings)
    return ConvertPlan(source, options, output, rows, particles, content, micrographs, links, left_out, notes, warnings)


def _as_paths(inputs: Any) -> list[Path]:
    several = inputs if isinstance(inputs, list | tuple) else [inputs]
    return [as_path(path, "inputs") for path in several]


def _lost_to_relion(particles: ParticleSet, source: Source) -> list[str]:
    """Say what RELION needs and does not get of a cryoSPARC file."""
    told = []
    if source.why_no_locations:
        told.append(
            "no micrographs and coordinates are written, which RELION extracts and polishes by: "
            f"{source.why_no_locations}; give the file that has them as another INPUT"
        )
    dark = dark_particles(particles)
    if dark:
        told.append(
            f"{dark}, and RELION takes bright ones: extract them again there, or invert copies (--link-stacks DIR "
            "--copy, then `relion_image_handler --i STACK.mrcs --multiply_constant -1` for each); cryoDRGN needs "
            "--uninvert-data"
        )
    return told


def _content(particles: ParticleSet, source: Source, options: ConvertOptions) -> StarContent | CsContent:
    """Return the columns of a STAR or `.cs` file; what is wrong with a value is told of the input."""
    try:
        if options.target == "cs":
            return cs_content(particles, aberrations=options.aberrations, contrast=options.contrast)
        return star_content(particles, version=options.layout, aberrations=options.aberrations)
    except CryobridgeError as error:
        error.path = error.path or str(source.files[0])
        raise
    except UnicodeEncodeError as error:
        raise FormatError(
            "a name is not UTF-8 text, which a STAR file needs", path=source.files[0], hint="Rename that file."
        ) from error


def _micrographs(particles: ParticleSet, source: Source, options: ConvertOptions) -> tuple[StarBlock, ...] | None:
    if source.program != "cryosparc" or options.target != "star" or options.layout == "3.0":
        return None
    return micrographs_content(particles, options.layout)


def _pickles_plan(
    source: Source,
    options: ConvertOptions,
    output: Path,
    rows: NDArray[np.int64],
    left_out: dict[str, int],
    search: ImageSearch,
    told: Told,
) -> ConvertPlan:
    """Plan pickles, which have a row for each row of the particle file, chosen or not."""
    if source.left_out:
        absent = sum(source.left_out.values())
        raise MissingDataError(
            f"{absent:,} rows of it have no partner in the joined files, but pickles have a row for each of its rows",
            path=source.files[0],
            count=absent,
            hint="Convert to .star first, which leaves these rows out, and make the pickles of that.",
        )
    particles = with_sizes_of_stacks(source.particles, search, told.notes)
    content = pickle_content(particles, rows if len(rows) < source.n_rows else None)
    told.add([*implausible_units(particles), *content.messages])
    told.notes.append(f"rows are those of {source.files[0].name}: give both to cryoDRGN or RECOVAR")
    dark = dark_particles(particles)
    if dark:
        told.warnings.append(f"{dark}: cryoDRGN needs --uninvert-data; RECOVAR finds the sign by itself")
    notes, warnings = tuple(told.notes), tuple(told.warnings)
    plan = ConvertPlan(source, options, output, rows, particles, content, None, (), left_out, notes, warnings)
    there = [
        f"{path} is of another choice of rows: --overwrite removes it" for path in plan.outdated() if path.exists()
    ]
    return replace(plan, notes=(*notes, *there))


def _choose(source: Source, options: ConvertOptions, told: Told) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the rows to write, and how many are left out for which reason."""
    particles, left_out, absent = source.particles, dict(source.left_out), None
    if not len(particles):
        raise MissingDataError("there are no particles in it", path=particles.source, hint="Choose another file.")
    kept = np.ones(len(particles), bool)

    def keep(is_wanted: NDArray[np.bool_], reason: str) -> None:
        count = int((kept & ~is_wanted).sum())
        if count:
            left_out[reason] = count
        kept[~is_wanted] = False

    if source.chosen is not None:
        is_chosen = np.zeros(len(particles), bool)
        is_chosen[source.chosen] = True
        keep(is_chosen, "not in ind.pkl")
    if options.class_numbers:
        if particles.class_number is None:
            raise MissingDataError("no classes in it", path=particles.source, hint="Leave out --class.")
        wanted = ", ".join(map(str, options.class_numbers))
        numbers = particles.class_number - 1 + _first_class(particles)
        absent = absent_classes(numbers, options.class_numbers)
        told.warnings += [absent] if absent else []
        keep(np.isin(numbers, options.class_numbers), f"not of class {wanted}")
    if options.min_posterior is not None:
        if particles.class_posterior is None:
            raise MissingDataError("no class posterior in it", path=particles.source, hint="Leave out --min-posterior.")
        keep(particles.class_posterior >= options.min_posterior, f"class posterior below {options.min_posterior:g}")
    if not kept.any():
        reasons = [f"{count:,} {reason}" for reason, count in left_out.items()] + ([absent] if absent else [])
        raise MissingDataError(
            f"no particle is left to write ({'; '.join(reasons)})",
            path=particles.source,
            hint="Ask for less.",
        )
    return np.flatnonzero(kept), left_out


def _first_class(particles: ParticleSet) -> int:
    """Return the number by which a user knows the first class: cryoSPARC shows it as 0, RELION as 1."""
    return 0 if particles.extra is not None and particles.extra.program == "cryosparc" else 1


def _counted_from_1(particles: ParticleSet, told: Told) -> ParticleSet:
    """Put particles without half set or class into the first one: cryoSPARC has no word for none."""
    numbers: dict[str, Any] = {"half_set": particles.half_set, "class_number": particles.class_number}
    for name, words in (("half_set", "half set"), ("class_number", "class")):
        values = numbers[name]
        n_without = 0 if values is None else int((values < 1).sum())
        if n_without == len(particles) > 0:
            numbers[name] = None
        elif n_without:
            told.warnings.append(f"{n_without:,} particles without a {words} are put into the first one")
            numbers[name] = np.maximum(values, 1)
    return replace(particles, **numbers)


def _named(
    particles: ParticleSet,
    source: Source,
    output: Path,
    options: ConvertOptions,
    search: ImageSearch,
    told: Told,
) -> tuple[ParticleSet, tuple[Link, ...]]:
    """Give stacks and micrographs the names that they have in the output."""
    links: tuple[Link, ...] = ()
    to_star = options.target == "star"
    if particles.images is not None:
        images = replace(particles.images, path=without_unused(particles.images.path))
        names: list[str] = list(images.path.values)
        if options.link_stacks is not None:
            links = tuple(plan_links(names, search, options.link_stacks, strip_uid=options.strip_uid))
            project = relion_project(output) if to_star else None
            names = [_link_name(link.path, project, output, to_star=to_star) for link in links]
            if to_star and names:
                tell_start_of_links(project, told)
        else:
            names = [_moved(name, source, output, options, to_star=to_star) for name in names]
            told.warnings += _unread_suffix(names) if to_star else []
            told.warnings += _where_images_are(images.path.values, names[0], source, output, search, to_star=to_star)
        particles = replace(particles, images=replace(images, path=renamed(images.path, names)))
    if particles.locations is not None:
        micrograph = without_unused(particles.locations.micrograph)
        names = [_moved(name, source, output, options, to_star=to_star) for name in micrograph.values]
        names = micrograph_names(names, strip_uid=options.strip_uid, folder=options.micrograph_path)
        particles = replace(particles, locations=replace(particles.locations, micrograph=renamed(micrograph, names)))
    elif options.micrograph_path is not None:
        raise UsageError("--micrograph-path: nothing is known of micrographs", hint="Leave it out.")
    return particles, links


def _link_name(path: Path, project: Path | None, output: Path, *, to_star: bool) -> str:
    if to_star:
        return as_seen_from(path, project)
    folder = output.absolute().parent
    inside = path.absolute().is_relative_to(folder)
    return f">{path.absolute().relative_to(folder)}" if inside else str(path.absolute())


def _moved(name: str, source: Source, output: Path, options: ConvertOptions, *, to_star: bool) -> str:
    """Return a name as the other program shall read it."""
    if to_star:
        name = name.removeprefix(">")
    elif source.program == "cryosparc":
        name = relative_to_file(name, source.particles.source.parent, output)
    elif source.program == "pickles":  # the stack itself was given, from the working directory
        name = relative_to_file(f">{name}", Path(), output)
    prefix = options.strip_prefix
    if prefix and Path(name).is_relative_to(prefix):
        name = str(Path(name).relative_to(prefix))
    return name


def _unread_suffix(names: Sequence[str]) -> list[str]:
    n_mrc = sum(name.endswith(".mrc") for name in names)
    if not n_mrc:
        return []
    stacks = "1 stack is" if n_mrc == 1 else f"{n_mrc:,} stacks are"
    return [
        f"{stacks} named .mrc, which RELION takes for single images; --link-stacks DIR gives them names that it opens"
    ]


def _where_images_are(
    names: Sequence[str], written: str, source: Source, output: Path, search: ImageSearch, *, to_star: bool
) -> list[str]:
    """Say which stacks are not found, or else who does not find them under the new names, the first being `written`."""
    of_cryosparc = not to_star and source.program == "relion"
    lost = not_found(names, search)
    if lost:
        return [lost + ("; cryoSPARC looks for the same names in its project folder" if of_cryosparc else "")]
    if of_cryosparc:
        return [
            "names of images are those of the STAR file, which cryoSPARC looks for in its project folder; "
            "--link-stacks DIR, with DIR beside the output, brings them along"
        ]
    found = search.resolve(names[0])
    elsewhere = "" if found is None else names_lead_elsewhere(written, found, output, search.metadata)
    return [elsewhere] if elsewhere else []


def _n_used(particles: ParticleSet) -> int:
    return 0 if particles.optics_index is None else len(np.unique(particles.optics_index))
