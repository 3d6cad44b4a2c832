"""The names that stacks and micrographs of the particles get in the output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import UsageError, option
from cryobridge.formats.cryosparc.names import relative_to_file
from cryobridge.formats.image_search import ImageSearch, names_lead_elsewhere, not_found
from cryobridge.formats.relion.accepted import named_mrc
from cryobridge.jobs.convert.names import micrograph_names, plan_links, start_of_links
from cryobridge.jobs.convert.pixels import changed_links
from cryobridge.jobs.links import Link, as_seen_from
from cryobridge.jobs.micrographs.project import project_of
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.jobs.convert.options import ConvertOptions, Target
    from cryobridge.model.particles import ParticleSet


@dataclass(frozen=True)
class Renaming:
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
                messages = [] if self.options.keeps_old_images else self._doubtful(old, names)
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
            text = f"images keep RELION's names; for cryoSPARC: {option('link_stacks', 'DIR')} beside the output"
            return [*messages, warning("image-names-of-relion", text, option="link_stacks")]
        found = self.search.resolve(old[0])
        elsewhere = names_lead_elsewhere(new[0], found, self.output, self.search.metadata) if found else None
        return [*messages, elsewhere] if elsewhere else messages
