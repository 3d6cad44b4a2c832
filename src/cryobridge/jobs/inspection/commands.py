"""The commands that use particles: made for the paths that were given, so that they can be pasted as they stand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.contrast import SIGN
from cryobridge.formats.cryosparc.ancestors import ancestor_with
from cryobridge.formats.image_search import folders_above, name_some, suggest
from cryobridge.formats.listing import is_there
from cryobridge.formats.open import open_particles
from cryobridge.formats.relion.job import PIPELINE
from cryobridge.formats.relion.micrographs import read_micrographs
from cryobridge.jobs.inspection.uses import with_derived, without_unusable_images
from cryobridge.jobs.micrographs.matching import match_micrographs
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.mrc_header import MrcHeader
    from cryobridge.formats.relion.accepted_images import Sample
    from cryobridge.formats.table import Array, Table
    from cryobridge.jobs.inspection.report import Use
    from cryobridge.jobs.inspection.use_list import CheckName
    from cryobridge.model.particles import ImageRefs

Content = Literal["particles", "picks", "exposures", "micrographs", "other"]
Command = tuple[str, ...]

# What makes sense for what a file holds.
_SHOWN: dict[Content, tuple[CheckName, ...]] = {
    "particles": ("relion", "cryosparc", "select", "coords", "cryolike", "recovar", "cryodrgn"),
    "picks": ("select", "coords"),
    "exposures": ("micrographs", "select"),
    "micrographs": ("micrographs", "select", "coords"),
    "other": (),
}
# Rows that are looked at, and image files that are looked for: the rest is laid out alike.
_N_ROWS = 1000
_N_FILES = 8
_N_FOLDERS = 100
# The box that RECOVAR and cryoDRGN work with unless they are asked for another, in pixels.
_USUAL_BOX = 128
_CLASSES = "rlnClassNumber"
_MICROGRAPH = "location/micrograph_path"


@dataclass(frozen=True)
class Source:
    """What commands are given, and what has to be known of it.

    Parameters
    ----------
    path
        The file or folder, as commands take it.
    program
        Whose columns they are.
    content
        What the rows are.
    table
        The columns, as far as files are joined.
    search
        Where its images are looked for.
    has_box
        Whether the metadata say the box, which else is that of the images.
    references
        The images that rows name, as far as they are known.
    reads_pixels
        Whether a few images are read, or headers alone.
    """

    path: Path
    program: Literal["cryosparc", "relion"]
    content: Content
    table: Table
    search: ImageSearch
    has_box: bool = True
    references: ImageRefs | None = None
    reads_pixels: bool = True

    @cached_property
    def sample(self) -> Sample | None:
        """A few of the stacks and images, where these are found."""
        if self.references is None or self.images.lost:
            return None
        from cryobridge.formats.relion.accepted_images import look_at  # late: it loads what headers alone don't need

        return look_at(self.references, self.images.search, reads_pixels=self.reads_pixels)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the distinct texts of the first rows of a column; empty where there is none."""
        if name not in self.table:
            return ()
        values = self.table.read([name], slice(0, _N_ROWS))[name]
        return values.values if isinstance(values, Labels) else ()

    def numbers(self, name: str) -> Array:
        """Return the numbers of the first rows of a column; empty where there are none."""
        if name not in self.table:
            return np.zeros(0)
        values = np.asarray(self.table.read([name], slice(0, _N_ROWS))[name])
        return values if values.dtype.kind in "biuf" and values.ndim == 1 else np.zeros(0)

    @property
    def classes(self) -> Array:
        """The classes of the first rows, where they are more than one."""
        names = [_CLASSES] if self.program == "relion" else [n for n in self.table.names if n.endswith("/class")]
        columns = [self.numbers(name) for name in names]
        return next((values for values in columns if len(np.unique(values)) > 1), np.zeros(0))

    @cached_property
    def images(self) -> Images:
        """What is found of the images of the first rows."""
        if self.program == "cryosparc":
            names = self.texts("blob/path")
        else:
            names = tuple(dict.fromkeys(name.rpartition("@")[2] for name in self.texts("rlnImageName")))
        return _looked_for(names[:_N_FILES], self.search)

    @cached_property
    def micrographs(self) -> Images:
        """What is found of the micrographs, or the movies, of the first rows."""
        columns = ("micrograph_blob/path", "movie_blob/path", "rlnMicrographName", "rlnMicrographMovieName")
        # Exposures of an import may have empty names of micrographs beside those of movies.
        names = next((names for column in columns if any(names := self.texts(column))), ())
        return _looked_for(names[:_N_FILES], self.search)


@dataclass(frozen=True)
class Images:
    """Image files that were looked for.

    Parameters
    ----------
    options
        What finds them, as it is typed.
    header
        That of the first of them; None where none is found.
    lost
        What is missing, as a sentence; empty where all are found.
    search
        What finds them.
    """

    search: ImageSearch
    options: Command = ()
    header: MrcHeader | None = None
    lost: str = ""

    @property
    def new_box_px(self) -> int:
        """The box to make images for RECOVAR and cryoDRGN with, even."""
        box = _USUAL_BOX if self.header is None else min(self.header.nx, _USUAL_BOX)
        return box - box % 2


def _looked_for(names: Command, search: ImageSearch) -> Images:
    given = _search_options(search)
    missing = [name for name in names if search.resolve(name) is None]
    if not names:
        return Images(search, given, lost="No image file is named.")
    if missing:
        remedy = suggest(missing, search.metadata)
        if remedy is None or remedy.n_found < len(missing) or len(missing) < len(names):
            text = f"{len(missing)} of the {len(names)} image files that were looked for" if len(names) > 1 else "Its"
            verb = "are not found" if len(names) > 1 else "image file is not found"
            such_as = f"such as {name_some(missing[:1])}. Say where they are: {option('datadir')}."
            return Images(search, given, lost=f"{text} {verb}, {such_as}")
        search = replace(search, datadir=(remedy.datadir,), strip_prefix=remedy.strip_prefix)
        given = _search_options(search)
    return Images(search, given, search.header(names[0]))


def _search_options(search: ImageSearch) -> Command:
    """Return the options that say where images are, as they are typed."""
    words = [word for folder in search.datadir for word in (_flag("datadir"), str(folder))]
    return (*words, *((_flag("strip_prefix"), search.strip_prefix) if search.strip_prefix else ()))


def with_commands(uses: tuple[Use, ...], source: Source) -> tuple[Use, ...]:
    """Add the uses that follow from others, and the commands of those that are ready and make sense."""
    # It is cryoSPARC's own; and RELION has the coordinates of its particles.
    own: CheckName = "cryosparc" if source.program == "cryosparc" else "coords"
    shown = {name for name in _SHOWN[source.content] if name != own or source.content == "micrographs"}
    if source.content == "particles" and source.sample is not None:
        uses = without_unusable_images(uses, source.sample.damage(), source.program)
    found = with_derived(uses, shown, source.table.names)
    for_cryodrgn = any(use.ready for use in found if use.name == "cryodrgn")
    return tuple(
        _with_command(use, source, found)
        if use.title and (use.ready or (use.name == "recovar" and for_cryodrgn) or _is_mended_by_converting(use, found))
        else _with_ancestor(use, source)
        for use in found
    )


def _is_mended_by_converting(use: Use, uses: tuple[Use, ...]) -> bool:
    """Whether RELION takes what `convert` makes of a STAR file that it refuses as it stands."""
    is_sound = any(other.ready for other in uses if other.name == "cryosparc")
    return use.name == "relion" and is_sound and bool(use.reasons) and not use.missing


def _with_ancestor(use: Use, source: Source) -> Use:
    """Say which job that the particles come from has the coordinates."""
    if use.name != "coords" or use.ready or not use.title or source.program != "cryosparc":
        return use
    try:
        found = ancestor_with(open_particles(source.path), "location")
    except CryobridgeError:
        return use
    return replace(use, hint=f"{found}.") if found else use


def _with_command(use: Use, source: Source, uses: tuple[Use, ...]) -> Use:
    if use.name == "coords":
        return _with_micrographs(use, source) if source.program == "cryosparc" else use
    if use.name == "micrographs":
        lost = source.micrographs.lost
        return replace(use, no_images=lost) if lost else replace(use, commands=_micrographs(source))
    if use.name == "relion" and source.program == "relion" and use.ready:
        return use if use.hint else replace(use, hint="as it stands")
    if use.name == "cryolike" and not any(other.ready for other in uses if other.name == "stacks"):
        return replace(use, commands=_of_batches(source))
    make = _MAKERS[use.name]
    if use.name not in _OF_PIXELS and not (use.name == "cryosparc" and not source.has_box):
        return replace(use, commands=make(source))
    if source.images.lost:
        return replace(use, no_images=source.images.lost)
    return replace(use, commands=make(source))


def _to_relion(source: Source) -> tuple[Command, ...]:
    links = (_flag("link_stacks"), free("stacks_for_relion")) if not source.images.lost else ()
    return (_command(source, "convert", output="particles.star", more=(*links, *_of_images(source))),)


def _to_cryosparc(source: Source) -> tuple[Command, ...]:
    folder = free("for_cryosparc")
    links = (_flag("link_stacks"), f"{folder}/stacks") if not source.images.lost else ()
    words = _of_images(source)
    return (("cryobridge", "convert", _given(source), "-o", f"{folder}/particles.cs", *links, *words),)


def _select(source: Source) -> tuple[Command, ...]:
    suffix = ".star" if source.program == "relion" else ".cs"
    classes = source.classes
    if len(classes):
        values, counts = np.unique(classes, return_counts=True)
        largest = str(int(values[counts.argmax()]))
        return (_command(source, "select", output=f"class_{largest}{suffix}", more=(_flag("class"), largest)),)
    n_rows = str(max(1, source.table.n_rows // 2))
    return (_command(source, "select", output=f"subset{suffix}", more=(_flag("random"), n_rows)),)


def _micrographs(source: Source) -> tuple[Command, ...]:
    output = "exposures.cs" if source.program == "relion" else "micrographs_for_relion"
    return (_command(source, "micrographs", output=output, more=source.micrographs.options),)


def _to_cryolike(source: Source) -> tuple[Command, ...]:
    kind = "cs" if source.program == "cryosparc" else "star"
    return (_command(source, "stacks", kind, output="cryolike", more=source.images.options),)


def _of_batches(source: Source) -> tuple[Command, ...]:
    """Return the command for the batches of a job that restacked or downsampled its particles."""
    job = source.path if source.path.is_dir() else source.path.parent
    job = job if job.name else job.absolute()
    return (("cryobridge", "stacks", "job", str(job.parent), job.name, "-o", free("cryolike")),)


def _to_recovar(source: Source) -> tuple[Command, ...]:
    downsampled = _downsampled(source, "for_recovar")
    star = f"{downsampled[downsampled.index('-o') + 1]}/particles.{source.images.new_box_px}.star"
    return (downsampled, ("recovar", "pipeline", star, "-o", free("recovar"), _flag("mask"), "from_halfmaps"))


def _to_cryodrgn(source: Source) -> tuple[Command, ...]:
    downsampled = _downsampled(source, "for_cryodrgn")
    folder = downsampled[downsampled.index("-o") + 1]
    pickles = (_flag("poses"), f"{folder}/poses.pkl", _flag("ctf"), f"{folder}/ctf.pkl")
    words = ("train_vae", f"{folder}/particles.{source.images.new_box_px}.mrcs", *pickles, _flag("zdim"), "8")
    return (downsampled, ("cryodrgn", *words, "-o", free("cryodrgn")))


def _downsampled(source: Source, output: str) -> Command:
    dark = (_flag("invert"),) if (source.numbers(SIGN) < 0).any() else ()
    more = ("-D", str(source.images.new_box_px), *dark, *source.images.options)
    return _command(source, "stacks", "downsample", output=output, more=more)


_MAKERS: dict[CheckName, Callable[[Source], tuple[Command, ...]]] = {
    "relion": _to_relion,
    "cryosparc": _to_cryosparc,
    "select": _select,
    "cryolike": _to_cryolike,
    "recovar": _to_recovar,
    "cryodrgn": _to_cryodrgn,
}
_OF_PIXELS: tuple[CheckName, ...] = ("cryolike", "recovar", "cryodrgn")


def _with_micrographs(use: Use, source: Source) -> Use:
    """Give the picks with RELION's micrographs, where these are near and are the same."""
    names = source.texts(_MICROGRAPH)
    for star in _micrographs_near(source.path):
        try:
            match = match_micrographs(names, read_micrographs(star).names)
        except CryobridgeError:
            continue
        if not match.unmatched:
            words = ("cryobridge", "coords", _given(source), str(star), "-o", free("picks"))
            return replace(use, commands=(words,))
    return replace(use, hint=" ".join(filter(None, [f"{use.hint}." if use.hint else "", _NEEDS_MICROGRAPHS])))


_NEEDS_MICROGRAPHS = "Give RELION's micrographs_ctf.star after it."


def _micrographs_near(path: Path) -> Iterator[Path]:
    """Yield the micrographs of the RELION projects here, above and beside, those of the last job first."""
    above = folders_above(path.absolute())
    for folder in dict.fromkeys((Path.cwd(), *above)):
        for project in (folder, *_folders_in(folder)):
            if is_there(project / PIPELINE):
                found = sorted(project.glob("CtfFind/job*/micrographs_ctf.star"), reverse=True)
                yield from (_as_typed(star, path) for star in found[:1])


def _folders_in(folder: Path) -> list[Path]:
    try:
        return [inner for inner in itertools.islice(sorted(folder.iterdir()), _N_FOLDERS) if inner.is_dir()]
    except OSError:
        return []


def _as_typed(path: Path, given: Path) -> Path:
    """Name a file from the working directory, where it lies below it and the other was not given from the root."""
    here = Path.cwd()
    return path.relative_to(here) if not given.is_absolute() and path.is_relative_to(here) else path


def _command(source: Source, *verb: str, output: str, more: Command = ()) -> Command:
    return ("cryobridge", *verb, _given(source), "-o", free(output), *more)


def _given(source: Source) -> str:
    """Return the path as it is typed: one that begins like an option gets a folder before it."""
    text = str(source.path)
    return f"./{text}" if text.startswith("-") else text


def _of_images(source: Source) -> Command:
    return () if source.images.lost else source.images.options


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def free(name: str) -> str:
    """Return a name for an output in the working directory that is not taken, such as ``particles_2.star``."""
    path = Path(name)
    names = itertools.chain([name], (f"{path.stem}_{number}{path.suffix}" for number in itertools.count(2)))
    return next(candidate for candidate in names if not Path(candidate).exists())
