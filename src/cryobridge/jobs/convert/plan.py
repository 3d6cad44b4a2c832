"""Planning a conversion: reading, choosing rows, naming, and everything that can be checked before writing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, option
from cryobridge.formats.classes import absent_classes
from cryobridge.formats.contrast import about_contrast, dark_particles, to_be_inverted
from cryobridge.formats.cryosparc.ancestors import ancestor_with
from cryobridge.formats.cryosparc.names import relative_to_file
from cryobridge.formats.cryosparc.particles_write import CsContent, cs_content, is_cryosparcs
from cryobridge.formats.image_search import ImageSearch, names_lead_elsewhere, not_found
from cryobridge.formats.in_memory import SetInMemory
from cryobridge.formats.particle_files import ParticleFiles, naming_damage
from cryobridge.formats.particles_pickle import INDICES, PickleContent, pickle_content
from cryobridge.formats.plausible import implausible_units
from cryobridge.formats.relion.accepted import named_mrc
from cryobridge.formats.relion.particles_write import StarContent, star_content
from cryobridge.formats.table import rows_of_file
from cryobridge.formats.unusable import N_SHOWN
from cryobridge.jobs.convert.coordinates import with_sizes_of_micrographs
from cryobridge.jobs.convert.inputs import messages_of, read_inputs, why_no_locations
from cryobridge.jobs.convert.mapping import Mapped, MicrographMap, map_micrographs, onto_micrographs, unused_project
from cryobridge.jobs.convert.micrographs import micrographs_content, micrographs_path
from cryobridge.jobs.convert.names import (
    Link,
    as_seen_from,
    micrograph_names,
    plan_links,
    start_of_links,
)
from cryobridge.jobs.convert.options import ConvertOptions, Target, moves_coordinates, target_of
from cryobridge.jobs.convert.pixels import about_pixels, changed_links, radii_px
from cryobridge.jobs.convert.recentering import RecentredSet, recentre, without_images
from cryobridge.jobs.convert.report import ConvertReport
from cryobridge.jobs.convert.sizes import with_sizes_of_stacks
from cryobridge.jobs.micrographs.star import project_of
from cryobridge.model.convention import AS_STORED, Convention
from cryobridge.model.particles import ParticleSet
from cryobridge.options import as_path
from cryobridge.report import note, warning

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.report import Message

Content: TypeAlias = StarContent | CsContent | PickleContent


@dataclass(frozen=True)
class ConvertPlan:
    """Everything needed to write the output.

    Parameters
    ----------
    source
        The inputs.
    target
        What is written.
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
    messages
        Notes and warnings.
    mapped
        How the particles were put on the other program's micrographs; None where that was not asked for.
    recentred
        How they got other centres; None where that was not asked for.
    dropped
        Columns of the input that are wrong for images with other centres.
    """

    source: ParticleFiles
    target: Target
    options: ConvertOptions
    output: Path
    rows: NDArray[np.int64]
    particles: ParticleSet
    content: Content
    micrographs: tuple[StarBlock, ...] | None
    links: tuple[Link, ...]
    left_out: dict[str, int]
    messages: tuple[Message, ...]
    mapped: Mapped | None = None
    recentred: RecentredSet | None = None
    dropped: tuple[str, ...] = ()

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

    @property
    def convention(self) -> Convention:
        """How the places in the input become those in the output."""
        return AS_STORED if self.mapped is None else self.mapped.convention

    def report(self) -> ConvertReport:
        """Return what will be written."""
        poses, locations = self.particles.poses, self.particles.locations
        moves = moves_coordinates(self.source.program, self.target)
        has_frame = moves and locations is not None and locations.shape_px is not None
        return ConvertReport(
            rows_in=self.source.n_rows,
            rows_out=len(self.rows),
            left_out=self.left_out,
            messages=self.messages,
            outputs=tuple(self.outputs()),
            inputs=self.source.files,
            alignment=None if poses is None else poses.source,
            optics_groups=0 if self.particles.optics is None else _n_used(self.particles),
            coordinates=self.convention.formula if has_frame else None,
            coordinates_from=None if self.mapped is None else self.mapped.placement.source,
            micrographs=self.options.micrographs,
            dropped_columns=tuple(dict.fromkeys((*self.dropped, *self.content.dropped_columns))),
            links=len(self.links),
            inverted=int(np.count_nonzero(to_be_inverted(self.particles))) if self.options.invert else 0,
            background_radius_px=radii_px(self.links),
            ramp=self.options.ramp if self.options.normalise is not None else None,
            from_ancestors=self.source.from_ancestors,
            recentring=None if self.recentred is None else self.recentred.figures,
        )


def plan_convert(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | ParticleSet,
    output: str | os.PathLike[str],
    options: ConvertOptions | None = None,
) -> ConvertPlan:
    """Read the inputs, choose rows, and turn them into what is to be written.

    Parameters
    ----------
    inputs
        One file or folder, or several that belong together, such as a `.cs` file and its passthrough file; or a set in
        memory.
    output
        A `.star` or `.cs` file, or the folder for pickles.
    options
        What is asked for; if not given, a STAR or `.cs` file as the name of the output says.

    Returns
    -------
    ConvertPlan
        What `cryobridge.jobs.convert.convert.ConvertJob` carries out.

    Raises
    ------
    UsageError
        If options contradict one another or the files, or would do nothing.
    CryobridgeError
        If an input can't be read, or lacks what the output needs.
    """
    output = as_path(output, "output")
    options = ConvertOptions() if options is None else options
    target = target_of(output, options.to)
    source = opened_inputs(inputs, target, options)
    with naming_damage(source):
        return _planned(source, output, target, options)


def _planned(source: ParticleFiles, output: Path, target: Target, options: ConvertOptions) -> ConvertPlan:
    options.refuse_idle(source.program, target)
    messages = messages_of(source)
    found_micrographs = _found_micrographs(source, target, options)
    rows, left_out, found = choose_rows(source, options, found_micrographs)
    messages += [*found, *_repeated_uids(source.particles, rows)]
    search = options.image_search(source.files[0])
    if source.particles.images is not None:
        search = search.among(source.particles.images.path.values)
    if target == "pickles":
        return _pickles_plan(source, options, output, rows, left_out, search, messages)
    particles = source.particles if len(rows) == len(source.particles) else source.particles.take(rows)
    particles, found = with_sizes_of_stacks(particles, search)
    messages += [*found, *implausible_units(particles)]
    images, dropped = particles.images, tuple[str, ...]()
    if options.is_recentred:
        particles, dropped = without_images(particles)
    messages += about_pixels(particles, target, search, options)
    particles, found = with_sizes_of_micrographs(particles, source.program, target, options, search)
    messages += found
    named = replace(particles, images=images)
    particles, links, found = _Names(source, target, options, output, search, rows).given_to(particles)
    messages += found
    mapped = None
    if found_micrographs is not None:
        mapped = onto_micrographs(named, found_micrographs, options, search, output)
        particles = replace(mapped.particles, images=particles.images)
        messages += mapped.messages
    again = None
    if options.is_recentred:
        again = recentre(particles, images, target, options, search)
        particles, rows, left_out = again.found.particles, rows[again.found.parent], left_out | again.left_out
        messages += again.messages
    if target == "cs":
        particles, found = counted_from_1(particles)
        messages += found
    with rows_of_file(source.table, rows):
        content = _content(particles, source, target, options)
    micrographs = _micrographs(particles, source, target, options)
    if source.program == "cryosparc" and target == "star":
        if mapped is None and particles.locations is not None:
            messages += unused_project(particles.locations.micrograph.values, output)
        messages += _lost_to_relion(particles, source, invert=options.invert)
    messages += content.messages
    messages += _rows_left_out(left_out)
    return ConvertPlan(
        source,
        target,
        options,
        output,
        rows,
        particles,
        content,
        micrographs,
        links,
        left_out,
        tuple(messages),
        mapped,
        again,
        dropped,
    )


def opened_inputs(inputs: Any, target: Target, options: ConvertOptions) -> ParticleFiles:
    """Open files that were named, or a set in memory; raises as `read_inputs`."""
    if isinstance(inputs, ParticleSet):
        options.refuse_ancestors_of_set()
        return SetInMemory(inputs)
    several = inputs if isinstance(inputs, list | tuple) else [inputs]
    return read_inputs([as_path(path, "inputs") for path in several], target, options)


def _repeated_uids(particles: ParticleSet, rows: NDArray[np.int64]) -> list[Message]:
    if particles.uid is None:
        return []
    n_repeated = len(rows) - len(np.unique(particles.uid[rows]))
    text = f"{n_repeated:,} of {len(rows):,} rows repeat another row's uid, by which cryoSPARC tells particles apart"
    return [warning("uid-repeated", text)] if n_repeated else []


def _rows_left_out(left_out: dict[str, int]) -> list[Message]:
    return [
        warning("rows-left-out", f"{count:,} particles are left out: {reason}") for reason, count in left_out.items()
    ]


def _lost_to_relion(particles: ParticleSet, source: ParticleFiles, *, invert: bool) -> list[Message]:
    """Return warnings of what RELION needs and does not get of a cryoSPARC file."""
    messages = []
    if why := why_no_locations(source):
        messages.append(
            warning(
                "no-coordinates",
                "no micrographs and coordinates are written, which RELION extracts and polishes by: "
                f"{why}; {ancestor_with(source, 'location') or 'give the file that has them as another input'}",
            )
        )
    messages += about_contrast(particles, "RELION takes", invert=invert)
    return messages


def _content(
    particles: ParticleSet, source: ParticleFiles, target: Target, options: ConvertOptions
) -> StarContent | CsContent:
    """Return the columns of a STAR or `.cs` file; an error about a value names the input."""
    aberrations, odd = options.has_aberrations, options.odd_aberrations or "as-derived"
    try:
        if target == "cs":
            return cs_content(
                particles,
                aberrations=aberrations,
                odd=odd,
                contrast=options.contrast,
                inverted=options.invert,
                has_images=not options.is_recentred,
            )
        # Several groups of particles may be on micrographs of one group, whose name RELION looks for.
        shares_names = options.micrographs is not None
        return star_content(
            particles,
            version=options.layout,
            aberrations=aberrations,
            odd=odd,
            shares_names=shares_names,
            has_images=not options.is_recentred,
        )
    except CryobridgeError as error:
        error.path = error.path or str(source.files[0])
        raise


def _micrographs(
    particles: ParticleSet, source: ParticleFiles, target: Target, options: ConvertOptions
) -> tuple[StarBlock, ...] | None:
    if source.program != "cryosparc" or target != "star" or options.layout == "3.0" or options.micrographs is not None:
        return None
    return micrographs_content(particles, options.layout)


def _pickles_plan(
    source: ParticleFiles,
    options: ConvertOptions,
    output: Path,
    rows: NDArray[np.int64],
    left_out: dict[str, int],
    search: ImageSearch,
    messages: list[Message],
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
    particles, sizes = with_sizes_of_stacks(source.particles, search)
    indices = rows if len(rows) < source.n_rows else None
    with rows_of_file(source.table):
        content = pickle_content(particles, indices, aberrations=options.has_aberrations)
    messages = [
        *messages,
        *sizes,
        note("rows-of-pickles", f"rows are those of {source.files[0].name}: give both to cryoDRGN or RECOVAR"),
        *implausible_units(particles),
        *content.messages,
    ]
    dark = dark_particles(particles)
    if dark:
        text = f"{dark}: cryoDRGN needs --uninvert-data"
        messages.append(warning("dark-particles", text))
    plan = ConvertPlan(source, "pickles", options, output, rows, particles, content, None, (), left_out, ())
    messages += [
        note("outdated-rows", f"{path} is of another choice of rows: {option('overwrite', True)} removes it")
        for path in plan.outdated()
        if path.exists()
    ]
    return replace(plan, messages=(*messages, *_rows_left_out(left_out)))


def _found_micrographs(source: ParticleFiles, target: Target, options: ConvertOptions) -> MicrographMap | None:
    """Return which of the other program's micrographs those of the particles are, if that is asked for."""
    if options.micrographs is None:
        return None
    locations = source.particles.locations
    if locations is None:
        why = why_no_locations(source)
        raise MissingDataError(
            f"nothing is known of the micrographs of the particles{f': {why}' if why else ''}",
            path=source.files[0],
            option="micrographs",
            hint=ancestor_with(source, "location")
            or "Give the file that has them as another input, such as the passthrough file.",
        )
    return map_micrographs(locations, options.micrographs, target, skip_unmatched=options.on_unmatched == "skip")


def choose_rows(
    source: ParticleFiles, options: ConvertOptions, found: MicrographMap | None = None
) -> tuple[NDArray[np.int64], dict[str, int], list[Message]]:
    """Return the rows to write, how many are left out for which reason, and warnings."""
    particles, left_out, warnings = source.particles, dict(source.left_out), []
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
    if found is not None:
        assert particles.locations is not None  # they are matched
        keep(found.place[particles.locations.micrograph.codes] >= 0, "micrograph not in the file of micrographs")
    if options.classes:
        if particles.class_number is None:
            raise MissingDataError(
                "no classes in it", path=particles.source, option="classes", hint="Leave this option out."
            )
        wanted = ", ".join(map(str, options.classes))
        numbers = particles.class_number - 1 + _first_class(particles)
        absent = absent_classes(numbers, options.classes)
        warnings += [absent] if absent else []
        keep(np.isin(numbers, options.classes), f"not of class {wanted}")
    if options.min_posterior is not None:
        if particles.class_posterior is None:
            raise MissingDataError(
                "no class posterior in it", path=particles.source, option="min_posterior", hint="Leave this option out."
            )
        keep(particles.class_posterior >= options.min_posterior, f"class posterior below {options.min_posterior:g}")
    if not kept.any():
        reasons = [f"{count:,} {reason}" for reason, count in left_out.items()] + [str(item) for item in warnings]
        raise MissingDataError(
            f"no particle is left to write ({'; '.join(reasons)})",
            path=particles.source,
            hint="Ask for less.",
        )
    return np.flatnonzero(kept), left_out, warnings


def _first_class(particles: ParticleSet) -> int:
    """Return the number by which a user knows the first class: cryoSPARC shows it as 0, RELION as 1."""
    return 0 if particles.extra is not None and particles.extra.program == "cryosparc" else 1


def counted_from_1(particles: ParticleSet) -> tuple[ParticleSet, list[Message]]:
    """Put particles without half set or class into the first one: cryoSPARC has no word for none.

    Half sets other than two are left out; cryoSPARC's own stay as they are.
    """
    numbers: dict[str, Any] = {"half_set": particles.half_set, "class_number": particles.class_number}
    warnings = []
    if particles.half_set is not None and not is_cryosparcs(particles):
        odd = np.unique(particles.half_set[~np.isin(particles.half_set, (0, 1, 2))])
        if len(odd):
            text = f"half sets are left out: {', '.join(map(str, odd[:N_SHOWN]))} is among them, cryoSPARC has 1 and 2"
            warnings.append(warning("half-sets-left-out", text))
            numbers["half_set"] = None
    for name, words in (("half_set", "half set"), ("class_number", "class")):
        values = numbers[name]
        n_without = 0 if values is None else int((values < 1).sum())
        if n_without == len(particles) > 0:
            numbers[name] = None
        elif n_without:
            text = f"{n_without:,} particles without a {words} are put into the first one"
            warnings.append(warning("put-into-first", text))
            numbers[name] = np.maximum(values, 1)
    return replace(particles, **numbers), warnings


@dataclass(frozen=True)
class _Names:
    """The names that stacks and micrographs get in the output."""

    source: ParticleFiles
    target: Target
    options: ConvertOptions
    output: Path
    search: ImageSearch
    rows: NDArray[np.int64]

    def given_to(self, particles: ParticleSet) -> tuple[ParticleSet, tuple[Link, ...], list[Message]]:
        """Return the particles with their new names, links to be made, and messages."""
        links: tuple[Link, ...] = ()
        messages: list[Message] = []
        if particles.images is not None:
            images = replace(particles.images, path=particles.images.path.without_unused())
            old = list(images.path.values)
            if self.options.link_stacks is not None:
                links, names, messages = self._linked(old, self.options.link_stacks)
                if self.options.changes_pixels:
                    links = changed_links(links, particles, images, self.rows, self.options, self.source.metadata)
            else:
                names = [self._moved(name) for name in old]
                messages = self._doubtful(old, names)
            particles = replace(particles, images=replace(images, path=images.path.renamed(names)))
        if particles.locations is not None and self.options.micrographs is None:
            micrograph = particles.locations.micrograph.without_unused()
            moved = [self._moved(name) for name in micrograph.values]
            folder = self.options.micrograph_path
            names = micrograph_names(moved, strip_uid=self.options.strip_uid, folder=folder)
            locations = replace(particles.locations, micrograph=micrograph.renamed(names))
            particles = replace(particles, locations=locations)
        elif self.options.micrograph_path is not None:  # with micrographs= it was refused
            raise UsageError("nothing is known of micrographs", option="micrograph_path", hint="Leave it out.")
        return particles, links, messages

    def _linked(self, names: list[str], folder: Path) -> tuple[tuple[Link, ...], list[str], list[Message]]:
        links = tuple(plan_links(names, self.search, folder, strip_uid=self.options.strip_uid))
        if self.target != "star":
            return links, [self._as_cryosparc_reads(link.path) for link in links], []
        project = project_of(self.output.parent)
        messages = [start_of_links(project)] if links else []
        return links, [as_seen_from(link.path, project) for link in links], messages

    def _as_cryosparc_reads(self, link: Path) -> str:
        folder = self.output.absolute().parent
        inside = link.absolute().is_relative_to(folder)
        return f">{link.absolute().relative_to(folder)}" if inside else str(link.absolute())

    def _moved(self, name: str) -> str:
        """Return a name as the other program shall read it."""
        if self.target == "star":
            name = name.removeprefix(">")
        elif self.source.program == "cryosparc":
            name = relative_to_file(name, self.source.particles.source.parent, self.output.parent)
        elif self.source.program == "pickles":  # the stack itself was given, from the working directory
            name = relative_to_file(f">{name}", Path(), self.output.parent)
        prefix = self.options.strip_prefix
        if prefix and Path(name).is_relative_to(prefix):
            name = str(Path(name).relative_to(prefix))
        return name

    def _doubtful(self, old: list[str], new: list[str]) -> list[Message]:
        """Return warnings of stacks that are not found, or that the other program would not find or open."""
        messages = named_mrc(new) if self.target == "star" else []
        of_cryosparc = self.target == "cs" and self.source.program == "relion"
        addition = "; cryoSPARC looks for the same names in its project folder" if of_cryosparc else ""
        lost = not_found(old, self.search, addition)
        if lost:
            return [*messages, lost]
        if of_cryosparc:
            text = (
                "names of images are those of the STAR file, which cryoSPARC looks for in its project folder; "
                f"{option('link_stacks', 'DIR')}, with DIR beside the output, brings them along"
            )
            return [*messages, warning("image-names-of-relion", text, option="link_stacks")]
        found = self.search.resolve(old[0])
        elsewhere = names_lead_elsewhere(new[0], found, self.output, self.search.metadata) if found else None
        return [*messages, elsewhere] if elsewhere else messages


def _n_used(particles: ParticleSet) -> int:
    return 0 if particles.optics_index is None else len(np.unique(particles.optics_index))
