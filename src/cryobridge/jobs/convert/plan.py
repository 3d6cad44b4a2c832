"""Planning a conversion: reading, choosing rows, naming, and everything that can be checked before writing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.contrast import dark_particles, to_be_inverted
from cryobridge.formats.cryosparc.ancestors import ancestor_with
from cryobridge.formats.cryosparc.particles import repeated_uids
from cryobridge.formats.cryosparc.particles_write import CsContent
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.particle_files import ParticleFiles, naming_damage
from cryobridge.formats.particles_pickle import INDICES, PickleContent, pickle_content
from cryobridge.formats.plausible import implausible_units
from cryobridge.formats.relion.particles_write import StarContent
from cryobridge.formats.table import rows_of_file
from cryobridge.jobs.convert.content import content_of, counted_from_1, lost_to_relion, micrographs_of
from cryobridge.jobs.convert.coordinates import with_sizes_of_micrographs
from cryobridge.jobs.convert.inputs import messages_of, opened_inputs, why_no_locations
from cryobridge.jobs.convert.mapping import Mapped, MicrographMap, map_micrographs, onto_micrographs, unused_project
from cryobridge.jobs.convert.micrographs import micrographs_path
from cryobridge.jobs.convert.optics_groups import in_optics_groups
from cryobridge.jobs.convert.options import ConvertOptions, Target, moves_coordinates, target_of
from cryobridge.jobs.convert.pixels import about_pixels, radii_px
from cryobridge.jobs.convert.recentering import RecentredSet, recentre, without_images
from cryobridge.jobs.convert.renaming import Renaming
from cryobridge.jobs.convert.report import ConvertReport
from cryobridge.jobs.convert.rows import choose_rows, rows_left_out
from cryobridge.jobs.convert.sizes import with_sizes_of_stacks
from cryobridge.jobs.links import Link, is_made
from cryobridge.jobs.output_folder import refuse_existing
from cryobridge.model.convention import AS_STORED, Convention
from cryobridge.model.particles import ParticleSet
from cryobridge.options import as_path
from cryobridge.progress import Silent
from cryobridge.report import counted, note, warning

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.progress import Reporter
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
    *,
    may_exist: bool = True,
    reporter: Reporter | None = None,
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
    may_exist
        Whether outputs may be there; if not, that is found before micrographs are compared, which takes seconds. What
        becomes of them is for the job to say.
    reporter
        Who hears of the progress.

    Returns
    -------
    ConvertPlan
        What `cryobridge.jobs.convert.convert.ConvertJob` carries out.

    Raises
    ------
    UsageError
        If options contradict one another or the files, or would do nothing.
    OutputExistsError
        If outputs are there that may not be.
    CryobridgeError
        If an input can't be read, or lacks what the output needs.
    """
    output = as_path(output, "output")
    options = ConvertOptions() if options is None else options
    target = target_of(output, options.to)
    source = opened_inputs(inputs, target, options)
    with naming_damage(source):
        return _planned(source, output, target, options, reporter or Silent(), may_exist=may_exist)


def _planned(
    source: ParticleFiles, output: Path, target: Target, options: ConvertOptions, reporter: Reporter, *, may_exist: bool
) -> ConvertPlan:
    options.refuse_idle(source.program, target)
    messages = messages_of(source)
    found_micrographs = _found_micrographs(source, target, options)
    rows, left_out, found = choose_rows(source, options, found_micrographs)
    messages += [*found, *repeated_uids(source.particles.uid, rows)]
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
    particles, found = in_optics_groups(particles, options, search)
    messages += found
    named = replace(particles, images=images)
    particles, links, found = Renaming(source, target, options, output, search, rows).given_to(particles)
    messages += found
    mapped = None
    if found_micrographs is not None:
        named_group = [output.with_suffix(".csg")] if target == "cs" else []
        new_links = [link.path for link in links if not is_made(link, copy=options.copy)]
        refuse_existing([output, *named_group, *new_links], overwrite=may_exist)
        mapped = onto_micrographs(named, found_micrographs, options, search, output, reporter)
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
        content = content_of(particles, source, target, options)
    micrographs = micrographs_of(particles, source, target, options)
    if source.program == "cryosparc" and target == "star":
        if mapped is None and particles.locations is not None:
            messages += unused_project(particles.locations.micrograph.values, output)
        messages += lost_to_relion(particles, source, options=options)
    messages += content.messages
    messages += rows_left_out(left_out)
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
            f"{counted(absent, 'row')} of it {'has' if absent == 1 else 'have'} no partner in the joined files, but "
            "pickles have a row for each of its rows",
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
    return replace(plan, messages=(*messages, *rows_left_out(left_out)))


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


def _n_used(particles: ParticleSet) -> int:
    return 0 if particles.optics_index is None else len(np.unique(particles.optics_index))
