"""Which rows of two particle files are the same particle: by uid, by the image's stack and number, or by place.

Rows are never matched by their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.jobs.identity.ancestry import images_of_ancestors
from cryobridge.jobs.identity.images import Rows, first_places, match_images
from cryobridge.jobs.identity.place_match import OtherPlacesError, PlaceMatch, match_places
from cryobridge.jobs.identity.places import Places, places_of
from cryobridge.jobs.identity.records import recorded_images
from cryobridge.jobs.identity.sources import Sources, find_sources, read_sources
from cryobridge.model.particles import ImageRefs
from cryobridge.report import Message, counted, note

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.jobs.shared_options import PlaceOptions
    from cryobridge.model.convention import Convention
    from cryobridge.model.particles import Floats

_Uids = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Identities:
    """What the rows of a particle file are known by.

    Attributes
    ----------
    path
        The file.
    uid, images
        Its own; None where it has none.
    source_uid, source_images
        Those of the particles that its images were made from, by a table of sources or a column of its own
        (`cryobridge.jobs.identity.records`), or that its rows are copies of by symmetry expansion; a uid of 0 and an
        index of -1 stand for none.
    messages
        What was looked up.
    particles
        Where the file is read for the places of its particles, if these are asked for; None if they can't be.
    is_expanded
        Whether rows are copies, whose parents ``source_uid`` has.
    is_recorded
        Whether ``source_images`` are those of a column of the file: the box of a row may lie elsewhere than theirs.
    """

    path: Path
    uid: _Uids | None
    images: ImageRefs | None
    source_uid: _Uids | None = None
    source_images: ImageRefs | None = None
    messages: tuple[Message, ...] = ()
    particles: ParticleFiles | None = None
    is_expanded: bool = False
    is_recorded: bool = False

    @cached_property
    def places(self) -> Places | None:
        """Where the particles lie on their micrographs; None where that is not known."""
        return None if self.particles is None else places_of(self.particles)

    @property
    def all_uids(self) -> list[tuple[_Uids, NDArray[np.bool_]]]:
        """The uids that there are, each with whether a row has one."""
        found: list[tuple[_Uids, NDArray[np.bool_]]] = []
        if self.uid is not None:
            found.append((self.uid, np.ones(len(self.uid), dtype=bool)))
        if self.source_uid is not None:
            found.append((self.source_uid, np.asarray(self.source_uid != 0)))
        return found

    def is_parents(self, uid: _Uids) -> bool:
        """Whether these are the uids of the particles that rows are copies of."""
        return self.is_expanded and uid is self.source_uid

    def without_record(self) -> Identities:
        """Return the same without the images that a column of the file says."""
        return replace(self, source_images=None, is_recorded=False) if self.is_recorded else self

    def is_record(self, images: ImageRefs) -> bool:
        """Whether these are the images that a column of the file says."""
        return self.is_recorded and images is self.source_images

    @property
    def all_images(self) -> list[ImageRefs]:
        """The images that there are."""
        return [images for images in (self.images, self.source_images) if images is not None]


@dataclass(frozen=True, eq=False)
class Match:
    """The row of the other file for each row of the first, (n,), -1 where it has none; and how it was found.

    Attributes
    ----------
    by
        What they were compared by.
    messages
        Through which files particles were traced, and what was assumed.
    place
        What else is known where they were compared by place; None where they were not.
    is_by_record
        Whether they were compared by the image that a row was made from, by a column of its file: the boxes may lie
        elsewhere.
    """

    rows: Rows
    by: Literal["uid", "image", "place"]
    messages: tuple[Message, ...] = ()
    place: PlaceMatch | None = None
    is_by_record: bool = False
    _other_rows: Callable[[], Rows] = field(repr=False, default=lambda: np.zeros(0, np.int64))

    @cached_property
    def other_rows(self) -> Rows:
        """The row of the first file for each row of the other, (m,), -1 where it has none."""
        return self._other_rows()

    @property
    def distance_A(self) -> Floats | None:
        """(n,) how far apart the particles are, NaN where there is no other; None where not compared by place."""
        return None if self.place is None else self.place.distance_A

    @property
    def convention(self) -> Convention | None:
        """By which positions of the first file go onto the micrographs of the other; None likewise."""
        return None if self.place is None else self.place.convention

    @property
    def offset_A(self) -> Floats | None:
        """(n, 2) x, y: position of the other's box minus that of the first's, as the other's micrographs lie.

        Without shifts; NaN and None likewise.
        """
        return None if self.place is None else self.place.offset_A


def identities_of(particles: ParticleFiles, sources: Path | None = None) -> Identities:
    """Return what the rows of a particle file are known by.

    Parameters
    ----------
    particles
        The file.
    sources
        The table of sources; without one it is looked for beside the file and its stacks.
    """
    images, uid, parent = particles.images(), particles.uid(), particles.parent_uid()
    own = Identities(
        particles.metadata,
        uid,
        images,
        parent,
        recorded := recorded_images(particles),
        particles=particles,
        is_expanded=parent is not None,
        is_recorded=recorded is not None,
    )
    if images is None:
        return own
    for table in find_sources(particles.metadata, images) if sources is None else (read_sources(sources),):
        rows, _ = match_images(images, table.images)
        n_known = int(np.count_nonzero(rows >= 0))
        if n_known:
            count = f"{n_known:,} of {counted(len(particles), 'image')}"
            text = (
                f"{count} of {particles.metadata.name} {'is' if n_known == 1 else 'are'} traced to their "
                f"sources by {table.path.name}"
            )
            traced = (note("images-traced", text, where=table.path),)
            # Of copies that were made smaller, the parents are what others know.
            source_uid = _uids_at(table, rows) if parent is None else parent
            found = replace(own, source_uid=source_uid, source_images=_sources_at(table, rows), messages=traced)
            return replace(found, is_recorded=False)
    return own


def match_rows(
    first: Identities, other: Identities, places: PlaceOptions | None = None, *, bare_names: bool = True
) -> Match:
    """Find the rows of ``other`` that are the particles of ``first``.

    uids are compared where both have them; where they have none in common, the images are, by stack and number, also
    those that cryoSPARC's particles had in earlier jobs; where these are others too, the places, and last the images by
    the stack's bare name, which several jobs may give to different images. The first of these by which any row is found
    decides, also where another would find more. Of repeated particles of ``other`` the first is taken.

    Parameters
    ----------
    first, other
        What the rows of the two files are known by.
    places
        How places are compared; None for not at all.
    bare_names
        Whether stacks may be matched by their bare names, where nothing else is the same.

    Raises
    ------
    MissingDataError
        If they have no particle in common.
    CryobridgeError
        If a stack of one could be either of two of the other, or places could be compared in several ways.
    """
    if (match := _by_uid(first, other)) is not None:
        return match
    match, last = _by_image(first, other, bare_names=bare_names)
    match = match or _by_ancestors(first, other)
    if match is not None:
        return match
    if places is not None and first.places is not None and other.places is not None:
        try:
            found = match_places(first.places, other.places, places)
            messages = (*first.messages, *other.messages, *found.messages)
            back = partial(getattr, found, "other_rows")
            return Match(found.rows, "place", messages, found, _other_rows=back)
        except CryobridgeError as error:
            # The same images would lie at the same places; and who sets how places are compared means places.
            is_asked = places.within_A is not None or places.by_hand is not None
            if last is None or is_asked or isinstance(error, OtherPlacesError):
                raise
    if isinstance(last, Match):
        return last
    raise last or _nothing_shared(first, other, by_place=places is not None)


def _by_uid(first: Identities, other: Identities) -> Match | None:
    for ours, has_uid in _uids_against(first, other):
        for theirs, has_other_uid in _uids_against(other, first):
            rows = first_places(ours, theirs, has_uid)
            if (rows >= 0).any():
                copies = [side for side, uid in ((first, ours), (other, theirs)) if side.is_parents(uid)]
                traced = (*first.messages, *other.messages, *map(_by_parents, copies))
                return Match(rows, "uid", traced, _other_rows=partial(first_places, theirs, ours, has_other_uid))
    return None


def _by_image(
    first: Identities, other: Identities, *, bare_names: bool
) -> tuple[Match | None, Match | CryobridgeError | None]:
    """Compare images by stack and number.

    Returns
    -------
    match
        By the whole names of stacks; None where there is none.
    last
        What counts if nothing else is the same: a match by bare names, or the error that a stack could be several.
    """
    last: Match | CryobridgeError | None = None
    for ours in first.all_images:
        for theirs in other.all_images:
            try:
                rows, messages = match_images(ours, theirs)
            except CryobridgeError as error:  # places may tell them apart
                last = last if isinstance(last, CryobridgeError) else error
                continue
            if (rows >= 0).any():
                traced = (*first.messages, *other.messages, *messages)
                is_by_record = first.is_record(ours) or other.is_record(theirs)
                match = Match(rows, "image", traced, None, is_by_record, partial(_image_rows, theirs, ours))
                if not messages:
                    return match, None
                last = last or (match if bare_names else None)
    return None, last


def _by_ancestors(first: Identities, other: Identities) -> Match | None:
    """Compare the images of one file with those that the particles of the other had in the jobs before theirs.

    Particles that come together from several jobs are found by the images of each.
    """
    for one, two in ((first, other), (other, first)):
        if one.particles is None or two.images is None:
            continue
        found: list[Rows] = []
        back: list[Rows] = []
        messages = []
        for earlier, message in images_of_ancestors(one.particles, two.images):
            sides = (earlier, two.images) if one is first else (two.images, earlier)
            rows, by_name = match_images(*sides)
            if (rows >= 0).any() and not by_name:
                found.append(rows)
                back.append(_image_rows(*reversed(sides)))
                messages.append(message)
        if found:
            traced = (*first.messages, *other.messages, *messages)
            return Match(_first_known(found), "image", traced, _other_rows=partial(_first_known, back))
    return None


def _first_known(found: list[Rows]) -> Rows:
    """Return the first of several answers for each row, (n,), -1 where there is none."""
    rows = found[0].copy()
    for more in found[1:]:
        rows[rows < 0] = more[rows < 0]
    return rows


def _uids_against(one: Identities, other: Identities) -> list[tuple[_Uids, NDArray[np.bool_]]]:
    """Return the uids that there are, those first by which the other file is likelier to know the particles.

    Copies by symmetry expansion have uids of their own, which count among copies.
    """
    return one.all_uids[::-1] if one.is_expanded and not other.is_expanded else one.all_uids


def _by_parents(copies: Identities) -> Message:
    text = f"rows of {copies.path.name} are copies by symmetry expansion: they are known by the uid of their parents"
    return note("copies-by-parents", text, where=copies.path)


def _image_rows(images: ImageRefs, others: ImageRefs) -> Rows:
    return match_images(images, others)[0]


def _uids_at(table: Sources, rows: Rows) -> _Uids | None:
    return None if table.uid is None else np.where(rows >= 0, table.uid[rows], np.uint64(0))


def _sources_at(table: Sources, rows: Rows) -> ImageRefs:
    source = table.source_images
    return ImageRefs(source.path.take(rows), np.where(rows >= 0, source.index[rows], -1))


def _nothing_shared(first: Identities, other: Identities, *, by_place: bool) -> MissingDataError:
    shown, hint = [], ""
    for side in (other, first):
        if side.particles is not None and not len(side.particles):
            hint = "Choose another file."
            return MissingDataError("there are no particles in it", path=side.path, hint=hint)
    for side in (first, other):
        kinds = ["a uid"] * (side.uid is not None) + ["images"] * (side.images is not None)
        example = ""
        if side.images is not None and len(side.images.index):
            example = f", such as {int(side.images.index[0]) + 1}@{side.images.path[0]}"
        lacks = ""
        if by_place and side.places is None:
            lacks = ", and no positions on micrographs"
            if side.particles is not None and side.particles.program == "cryosparc":
                fetch = f"`cryobridge select {side.path.name} -o located.cs` and {option('from_ancestors', True)}"
                hint = f" Positions that earlier jobs of cryoSPARC have are fetched with {fetch}."
        shown.append(f"{side.path.name} has {' and '.join(kinds) or 'neither uid nor images'}{example}{lacks}")
    return MissingDataError(
        f"no particle of {other.path.name} is in it: {'; '.join(shown)}",
        path=first.path,
        hint="Check that both are of one data set. A downsampled set is traced through its …_sources.csv "
        f"({option('sources')}).{hint}",
    )
