"""Planning: which micrographs go into which of RELION's lists, under which names, and what is made of their files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import MissingDataError
from cryobridge.formats.cryosparc.exposures import exposures_from_cs, is_exposures, open_exposures
from cryobridge.formats.image_search import as_given, name_some
from cryobridge.formats.optics import fill_optics
from cryobridge.formats.relion.job import as_named
from cryobridge.formats.relion.list_names import LIST_FILES
from cryobridge.formats.relion.micrographs_write import list_blocks
from cryobridge.jobs.exposures.eer import eer_of_files
from cryobridge.jobs.exposures.files import (
    absolute,
    bytes_of,
    checked_headers,
    found_files,
    micrograph_links,
    missing_error,
    refuse_useless,
)
from cryobridge.jobs.exposures.messages import about_lists, about_place
from cryobridge.jobs.exposures.names import MICROGRAPHS, MOVIES, NO_DW, Place, movie_suffix, place_of, short_names
from cryobridge.jobs.exposures.optics import in_optics_groups
from cryobridge.jobs.exposures.options import MicrographsOptions
from cryobridge.jobs.exposures.polishing import Files, Polishing, plan_polishing
from cryobridge.jobs.exposures.report import MicrographsReport
from cryobridge.jobs.links import Link, in_the_way, is_made
from cryobridge.jobs.output_folder import refuse_existing, refuse_folder_of_others, refuse_inputs, require_space
from cryobridge.model.particles import Labels
from cryobridge.progress import Silent
from cryobridge.report import distinct, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.relion.list_names import ListName
    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.progress import Reporter
    from cryobridge.report import Message

NOT_FOUND, USELESS, NAMELESS = "micrograph not found", "no file that RELION can use", "no micrograph"
REPEATED = "named twice"
_ALL: tuple[ListName, ...] = ("movies", "micrographs", "corrected", "ctf")


@dataclass(frozen=True)
class MicrographsPlan:
    """Everything needed to write RELION's lists.

    Parameters
    ----------
    source
        The files that were read.
    options
        What was asked for.
    place
        Where the output is, as RELION sees it.
    micrographs
        Those that are written, under RELION's names.
    n_rows
        Micrographs of the input.
    lists
        The rows of ``micrographs`` in each list.
    links
        Of the files that the lists name.
    rewritten
        Micrographs of half precision that become float32.
    left_out
        Micrographs that are not written, by reason.
    missing
        Names of files that are not found.
    polishing
        Metadata of motion and gain references; None where there are none.
    messages
        Notes and warnings.
    """

    source: ParticleFiles
    options: MicrographsOptions
    place: Place
    micrographs: MicrographSet
    n_rows: int
    lists: dict[ListName, NDArray[np.int64]]
    links: tuple[Link, ...]
    rewritten: int
    left_out: dict[str, int]
    missing: tuple[str, ...]
    polishing: Polishing | None
    messages: tuple[Message, ...] = field(default=())

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.place.folder

    @property
    def outputs(self) -> dict[ListName, Path]:
        """The file of each list."""
        return {kind: self.folder / LIST_FILES[kind] for kind in self.lists}

    @cached_property
    def new_links(self) -> tuple[Link, ...]:
        """The links that are not there yet."""
        return tuple(link for link in self.links if not is_made(link, copy=self.options.copy))

    def blocks(self, kind: ListName) -> list[StarBlock]:
        """Return the content of a list."""
        return list_blocks(self.micrographs.take(self.lists[kind]), kind, version=self.options.relion)

    def check(self, *, overwrite: bool) -> None:
        """Refuse what can't be written.

        Raises
        ------
        OutputExistsError
            If a list is there already and ``overwrite`` is False.
        UsageError
            If the folder is another program's, or an output is one of the inputs.
        CryobridgeError
            If the disk has not enough space for copies.
        """
        refuse_folder_of_others(self.folder, overwrite=overwrite)
        inputs = [*self.source.files, *self.options.optics_files]
        files = in_the_way(self.new_links)
        inputs += [link.target for link in self.links] if files else []
        made = () if self.polishing is None else self.polishing.outputs
        refuse_inputs([*self.outputs.values(), *files], inputs)
        refuse_existing([*self.outputs.values(), *made], overwrite=overwrite)
        n_bytes = bytes_of(self.new_links, copy=self.options.copy)
        if n_bytes:
            require_space(self.folder, n_bytes, "Free some space, or write to another disk.")

    def report(self) -> MicrographsReport:
        """Return what will be written."""
        changed = [link for link in self.links if link.change is not None]
        n_copies = len(self.links) if self.options.copy else len(changed)
        index = self.micrographs.optics_index
        return MicrographsReport(
            rows_in=self.n_rows,
            rows_out=len(self.micrographs),
            left_out=self.left_out,
            messages=self.messages,
            outputs=tuple(self.outputs.values()),
            inputs=self.source.files,
            lists={LIST_FILES[kind]: len(rows) for kind, rows in self.lists.items()},
            optics_groups=0 if index is None else len(np.unique(index)),
            links=len(self.links) - n_copies,
            copies=n_copies,
            rewritten=self.rewritten,
            flipped=len(changed) if self.options.flip_y else 0,
            missing=self.missing,
            motion=None if self.polishing is None else self.polishing.motion.fit,
            motion_left_out={} if self.polishing is None else self.polishing.left_out(len(self.micrographs)),
            gain_references=() if self.polishing is None else self.polishing.gain_files,
            dose_per_frame_e_A2=_range(self.micrographs, self.options.dose_per_frame),
            relion_project=as_given(as_named(self.place.project), self.options.relion_project or self.folder),
        )


def plan_micrographs(
    exposures: Sequence[Path],
    output: Path,
    options: MicrographsOptions | None = None,
    *,
    reporter: Reporter | None = None,
) -> MicrographsPlan:
    """Read exposures, find their files, and name them as RELION takes them.

    Parameters
    ----------
    exposures
        A `.cs` or `.csg` file or a job folder of cryoSPARC; and further `.cs` files to be joined with it.
    output
        The output folder.
    options
        What is asked for.
    reporter
        Who hears of the progress.

    Raises
    ------
    UsageError
        If the input is no file of exposures, or the output is a RELION project itself.
    MissingDataError
        If files are not found, or what a list needs is not known.
    FormatError
        If a micrograph can't be used by RELION.
    """
    options, reporter = options or MicrographsOptions(), reporter or Silent()
    place = place_of(output, options.relion_project)
    source = open_exposures(exposures[0], exposures[1:])
    if not is_exposures(source.columns.names):
        raise MissingDataError(
            "no exposures are in it" + (", but particles" if "blob/path" in source.columns else ""),
            path=exposures[0],
            hint="Give the exposures of the job that the particles' micrographs come from, such as motion correction.",
        )
    found = exposures_from_cs(source.columns)
    if not len(found):
        raise MissingDataError("it has no rows", path=exposures[0], hint="Give a file with exposures in it.")
    messages = [*source.messages, *found.messages]
    optics, index = fill_optics(found.optics, found.optics_index, len(found), options.known_optics, found.source)
    found = replace(found, optics=optics, optics_index=index)
    search = options.image_search(source.metadata)
    reporter.start("looking for files", None)
    planning = _Planning(found, options, place, search)
    planning.choose_named_once()
    planning.choose_micrographs()
    planning.choose_movies()
    planning.choose_optics()
    planning.name_files(reporter)
    planning.say_fractions()
    lists = planning.lists()
    messages += planning.messages
    is_polished, is_dose_given = planning.polishing is not None, options.dose_per_frame is not None
    messages += about_lists(planning.set, lists, is_polished=is_polished, is_dose_given=is_dose_given)
    messages += about_place(place)
    plan = MicrographsPlan(
        source,
        options,
        place,
        planning.set,
        len(found),
        lists,
        tuple(planning.links),
        planning.rewritten,
        {reason: count for reason, count in planning.left_out.items() if count},
        tuple(planning.missing),
        planning.polishing,
        distinct(messages),
    )
    for kind in lists:  # what a list lacks is found before anything is written
        plan.blocks(kind)
    return plan


class _Planning:
    """Which micrographs and movies are there, step by step; ``set`` has those that are written."""

    def __init__(self, found: MicrographSet, options: MicrographsOptions, place: Place, search: ImageSearch) -> None:
        self.set = found
        self.links: list[Link] = []
        self.messages: list[Message] = []
        self.missing: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.rewritten = 0
        self.polishing: Polishing | None = None
        self._options, self._place, self._search = options, place, search
        self._files: list[Path] = []
        self._is_half = np.zeros(0, bool)
        self._movies: list[Path | None] = []
        self._no_dw: list[Path | None] = []

    def choose_named_once(self) -> None:
        """Keep the first of the rows that name the same file, as when two exports of a session are put together."""
        names = self.set.names
        first = {name: row for row, name in reversed(list(enumerate(names)))}
        is_first = np.array([not name or first[name] == row for row, name in enumerate(names)], bool)
        n_again = int((~is_first).sum())
        if not n_again:
            return
        self._keep(is_first)
        self.left_out[REPEATED] += n_again
        text = f"{part_of(n_again, len(names), 'exposure')} left out, whose file an earlier row names"
        again = [name for name, one in zip(names, is_first.tolist(), strict=True) if not one]
        self.messages.append(warning("exposures-repeated", f"{text}: {name_some(again)}"))

    def choose_micrographs(self) -> None:
        """Keep the micrographs whose files RELION can use."""
        if self.set.name is None:
            return
        names = self.set.name.to_numpy().tolist()
        found = found_files(names, self._search)
        missing = [name for name, file in zip(names, found, strict=True) if file is None]
        if missing and (self._options.on_missing == "error" or len(missing) == len(names)):
            raise missing_error(missing, len(names), self._search, "micrograph")
        self.missing += missing
        self.left_out[NOT_FOUND] += len(missing)
        self._keep(np.array([file is not None for file in found], bool))
        files = [file for file in found if file is not None]
        headers = checked_headers(files, self.set.shape_px)
        is_good = np.array([not trouble for trouble in headers.trouble], bool)
        if not is_good.all():
            if self._options.on_missing == "error" or not is_good.any():
                refuse_useless(files, headers, len(files))
            text = f"{part_of(int((~is_good).sum()), len(files), 'micrograph')} left out: "
            first = int(np.flatnonzero(~is_good)[0])
            self.messages.append(
                warning(
                    "micrographs-useless", f"{text}{headers.trouble[first]}", where=files[first], option="on_missing"
                )
            )
            self.left_out[USELESS] += int((~is_good).sum())
            self._keep(is_good)
        self._files = [file for file, good in zip(files, is_good.tolist(), strict=True) if good]
        self._is_half = headers.is_half[is_good]
        if missing:
            text = f"{part_of(len(missing), len(names), 'micrograph')} left out, whose files are not found"
            self.messages.append(warning("micrographs-not-found", f"{text}: {name_some(missing)}", option="on_missing"))

    def choose_movies(self) -> None:
        """Look for movies and for micrographs without dose weighting; what is not there is said."""
        movies = self.set.movies
        if movies is not None:
            names = movies.name.to_numpy().tolist()
            self._movies = found_files(names, self._search)
            missing = [name for name, file in zip(names, self._movies, strict=True) if file is None]
            self._about_movies(missing, len(names))
        if self.set.name_no_dw is not None:
            names = self.set.name_no_dw.to_numpy().tolist()
            self._no_dw = found_files(names, self._search)
            missing = [name for name, file in zip(names, self._no_dw, strict=True) if file is None]
            if missing:
                text = (
                    f"{part_of(len(missing), len(names), 'micrograph')} without dose weighting not found: "
                    "none of them is named"
                )
                self.messages.append(note("no-dw-not-found", text))
                self._no_dw = []

    def choose_optics(self) -> None:
        """Put the micrographs into the optics groups that are asked for."""
        self.set, messages = in_optics_groups(self.set, self._options, self._movies or self._files)
        self.messages += messages

    def _about_movies(self, missing: list[str], n_all: int) -> None:
        if not missing:
            return
        is_asked = self._options.lists is not None and "movies" in self._options.lists
        is_all_there_is = self.set.name is None
        if (is_asked or is_all_there_is) and (self._options.on_missing == "error" or len(missing) == n_all):
            raise missing_error(missing, n_all, self._search, "movie")
        self.missing += missing
        text = f"{part_of(len(missing), n_all, 'movie')} not found, and {LIST_FILES['movies']} has none of them"
        if len(missing) == n_all:
            text = f"no movie is found, and {LIST_FILES['movies']} is not written"
            if self._options.motion and self.set.motion is not None and self.set.motion.rigid is not None:
                text += ", nor are the metadata of motion that polishing needs"
        self.messages.append(
            warning(
                "movies-not-found", f"{text}: {name_some([name or '(no name)' for name in missing])}", option="datadir"
            )
        )

    def _keep(self, rows: NDArray[np.bool_]) -> None:
        if not rows.all():
            self.set = self.set.take(rows)

    def name_files(self, reporter: Reporter) -> None:
        """Give micrographs and movies RELION's names, and plan the links and metadata behind them."""
        found, place = self.set, self._place
        own_names = found
        own = found.names if found.movies is None else found.movies.name.to_numpy().tolist()
        short = short_names(found.names if found.name is not None else own)
        if found.name is not None:
            paths = [place.files / MICROGRAPHS / f"{name}.mrc" for name in short]
            as_float32 = self._options.float16 == "rewrite"
            self.links += micrograph_links(
                self._files, paths, self._is_half, flip_y=self._options.flip_y, as_float32=as_float32
            )
            self.rewritten = int(self._is_half.sum()) if as_float32 else 0
            found = replace(found, name=self._named(paths))
            if self._no_dw:
                self.name_no_dw(short)
                found = replace(found, name_no_dw=self.set.name_no_dw)
            else:
                found = replace(found, name_no_dw=None)
        if found.movies is not None:
            files = self._movies
            paths = [
                place.files / MOVIES / f"{name}{movie_suffix(file.name if file else '')}"
                for name, file in zip(short, files, strict=True)
            ]
            self.links += [
                Link(path, absolute(file)) for path, file in zip(paths, files, strict=True) if file is not None
            ]
            found = replace(found, movies=replace(found.movies, name=self._named(paths)))
            if found.name is not None and "corrected" in (self._options.lists or _ALL):
                found = self._with_motion(own_names, found, short, reporter)
        self.set = found
        if self.rewritten:
            text = f"{part_of(self.rewritten, len(found), 'micrograph', 'have', of_one='has')} half precision"
            self.messages.append(
                note("half-precision", f"{text}, which RELION 3.1 and CTFFIND refuse: copies of float32 are written")
            )

    def say_fractions(self) -> None:
        """Say how RELION groups the frames of EER movies, where no metadata of motion say it."""
        if self.polishing is None:
            self.messages += eer_of_files(self.set.movies, self._movies)

    def _with_motion(
        self, own_names: MicrographSet, found: MicrographSet, short: list[str], reporter: Reporter
    ) -> MicrographSet:
        """Return the micrographs with the metadata of their motion, where they have trajectories and movies."""
        place = self._place
        assert found.movies is not None
        files = Files(
            self._movies,
            found.movies.name.to_numpy().tolist(),
            self._files,
            [place.files / MICROGRAPHS / f"{name}.star" for name in short],
        )
        self.polishing = plan_polishing(
            own_names,
            self._options,
            files,
            gain_folder=place.files / MOVIES,
            name=place.name,
            find=self._search.resolve,
            flip_y=self._options.flip_y,
            reporter=reporter,
        )
        if self.polishing is None:
            return self._without_motion(own_names, found)
        self.messages += self.polishing.messages
        return self.polishing.with_metadata(found, place.name)

    def _without_motion(self, own_names: MicrographSet, found: MicrographSet) -> MicrographSet:
        """Say why no metadata of motion are written, where exposures name trajectories and they are asked for."""
        rigid = None if own_names.motion is None else own_names.motion.rigid
        if rigid is None and own_names.motion is not None and self._options.motion:
            text = (
                "exposures name local motion (spline_motion) and not that of whole frames (rigid_motion/path), without "
                "which no metadata for polishing are written: give the file that has it as another input"
            )
            self.messages.append(warning("motion-not-found", text))
        if rigid is not None and self._options.motion and any(self._movies):
            names = rigid.path.to_numpy().tolist()
            text = (
                f"no trajectory of the motion is found: no metadata for polishing are written ({name_some(names)}, "
                f"{self._search.places(names[0])})"
            )
            self.messages.append(warning("motion-not-found", text, option="datadir"))
        return found

    def name_no_dw(self, short: list[str]) -> None:
        """Give micrographs without dose weighting their names."""
        paths = [self._place.files / MICROGRAPHS / f"{name}{NO_DW}.mrc" for name in short]
        files = [file for file in self._no_dw if file is not None]
        headers = checked_headers(files, None)
        self.links += micrograph_links(
            files,
            paths,
            headers.is_half,
            flip_y=self._options.flip_y,
            as_float32=self._options.float16 == "rewrite",
        )
        self.set = replace(self.set, name_no_dw=self._named(paths))

    def _named(self, paths: Sequence[Path]) -> Labels:
        return Labels.of(self._place.name(path) for path in paths)

    def lists(self) -> dict[ListName, NDArray[np.int64]]:
        """Return which rows each list has, of those that are asked for, or that there are columns for."""
        found, asked = self.set, self._options.lists
        every = np.arange(len(found))
        rows: dict[ListName, NDArray[np.int64]] = {}
        if found.movies is not None:
            rows["movies"] = np.flatnonzero([file is not None for file in self._movies])
        if found.name is not None:
            rows |= {"micrographs": every, "corrected": every if self.polishing is None else self.polishing.rows}
            if found.ctf is not None:
                rows["ctf"] = np.flatnonzero(_has_ctf(found))
        lacking = [kind for kind in asked or () if kind not in rows or not len(rows[kind])]
        if lacking:
            why = f"the exposures have no {_NEEDS[lacking[0]]}"
            if lacking[0] == "corrected" and self.polishing is not None:
                left_out = self.polishing.left_out(len(found))
                why = f"no micrograph has metadata of motion ({_counts(left_out)})"
            raise MissingDataError(
                f"{LIST_FILES[lacking[0]]} can't be written: {why}",
                path=found.source,
                option="lists",
                hint="Give the exposures of the job that has them, or ask for another list.",
            )
        if asked is None:
            usual = _ALL if self.polishing is not None else [kind for kind in _ALL if kind != "corrected"]
            asked = tuple(kind for kind in usual if len(rows.get(kind, ())))
        elif "corrected" in asked and self.polishing is None and self._options.motion:
            text = f"{LIST_FILES['corrected']} has no metadata of motion, which polishing needs"
            self.messages.append(note("no-motion", text))
        return {kind: rows[kind] for kind in _ALL if kind in asked}


_NEEDS: dict[ListName, str] = {
    "movies": "movies",
    "micrographs": "micrographs",
    "corrected": "micrographs",
    "ctf": "CTF",
}


def _counts(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count:,}: {reason}" for reason, count in left_out.items())


def _has_ctf(micrographs: MicrographSet) -> NDArray[np.bool_]:
    """Return which micrographs have a CTF, (n,): a defocus that is a number and not 0."""
    ctf = micrographs.ctf
    assert ctf is not None  # looked for before
    is_known = np.isfinite(ctf.defocus_u_A + ctf.defocus_v_A + ctf.defocus_angle_rad)
    has: NDArray[np.bool_] = is_known & ((ctf.defocus_u_A != 0) | (ctf.defocus_v_A != 0))
    return has


def _range(micrographs: MicrographSet, given: float | None) -> tuple[float, float] | None:
    if given is not None and micrographs.movies is not None:
        return (given, given)
    dose = None if micrographs.movies is None else micrographs.movies.dose_per_frame_e_A2
    known = np.zeros(0) if dose is None else dose[np.isfinite(dose)]
    return (round(float(known.min()), 6), round(float(known.max()), 6)) if len(known) else None
