"""Planning: which picks go where, and everything that can be checked before the first byte is written."""

from __future__ import annotations

import os
import posixpath
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError, option
from cryobridge.formats.folders import CRYOSPARC_JOB, identify_folder
from cryobridge.formats.image_search import ImageSearch, as_given
from cryobridge.formats.projects import INSTEAD
from cryobridge.formats.registry import CS, CSG, STAR, identify_file
from cryobridge.formats.relion.job import as_named
from cryobridge.formats.relion.micrographs import read_micrographs
from cryobridge.formats.relion.star import open_star, to_labels
from cryobridge.formats.unusable import not_finite
from cryobridge.jobs.coords.options import CoordsOptions
from cryobridge.jobs.coords.picks import SCORE, Picks, read_picks
from cryobridge.jobs.coords.relion_picks import (
    AUTOPICK_STAR,
    COORDS_SUFFIX,
    PICK_FILES,
    RAW_DATA,
    pick_file_name,
    pick_file_place,
)
from cryobridge.jobs.coords.report import CoordsReport
from cryobridge.jobs.micrographs.matching import match_micrographs, unmatched_error
from cryobridge.jobs.micrographs.orientation_report import orientation_of
from cryobridge.jobs.micrographs.placement import Placement, Positions, place
from cryobridge.jobs.micrographs.project import project_of
from cryobridge.jobs.micrographs.sizes import MicrographFiles, MicrographSizes, compare_sizes
from cryobridge.jobs.output_folder import files_in, refuse_existing, require_open
from cryobridge.model.geometry import round_px
from cryobridge.model.particles import Floats
from cryobridge.options import as_path
from cryobridge.progress import Silent
from cryobridge.report import Message, counted, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryobridge.formats.table import Array
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.progress import Reporter

_STAR_HINT = INSTEAD["micrographs"][0]
_CS_HINT = "Give a file in which it is filled in: a passthrough file, extracted_particles.cs or picked_particles.cs."


@dataclass(frozen=True)
class CoordsPlan:
    """Everything needed to write the picks.

    Parameters
    ----------
    picks
        All picks of the file.
    options
        What was asked for.
    folder
        The output folder.
    project
        RELION's project folder, or None.
    micrographs
        RELION's name of each of ``picks.micrograph.values``, or None where it is left out.
    positions
        The picks beside RELION's micrographs.
    placement
        Which way they go onto these.
    coordinate_px
        (n, 2) pixels of RELION's micrograph.
    sizes
        Their sizes beside cryoSPARC's. With an error in it nothing is written.
    kept
        (n,) whether a pick is written.
    left_out
        Picks that are not, by reason.
    unmatched
        Micrographs that the STAR file lacks.
    messages
        Notes and warnings.
    """

    picks: Picks
    options: CoordsOptions
    folder: Path
    project: Path | None
    micrographs: tuple[str | None, ...]
    positions: Positions
    placement: Placement
    coordinate_px: Floats
    sizes: MicrographSizes
    kept: NDArray[np.bool_]
    left_out: dict[str, int]
    unmatched: tuple[str, ...]
    messages: tuple[Message, ...]

    @cached_property
    def written(self) -> tuple[int, ...]:
        """The micrographs that have picks, by their place in ``micrographs``."""
        return tuple(np.unique(self.picks.micrograph.codes[self.kept]).tolist())

    @property
    def raw_data(self) -> Path:
        """The folder where reliosparc has pick files."""
        return self.folder / RAW_DATA

    @property
    def autopick_star(self) -> Path:
        """The list of pick files, for RELION 4 and 5."""
        return self.folder / AUTOPICK_STAR

    @property
    def coords_suffix(self) -> Path:
        """What RELION 3.1 takes: it finds the pick files in their tree."""
        return self.folder / COORDS_SUFFIX

    @cached_property
    def has_tree(self) -> bool:
        """Whether pick files can lie in a tree that mirrors the micrographs: nothing else has the place of a folder."""
        return not any(_is_blocked(self.folder, folder) for folder in {posixpath.dirname(p) for p in self._tree})

    @cached_property
    def places(self) -> tuple[str, ...]:
        """Where the pick file of each written micrograph goes, below the output folder."""
        return self._tree if self.has_tree else tuple(f"{RAW_DATA}/{posixpath.basename(place)}" for place in self._tree)

    @cached_property
    def _tree(self) -> tuple[str, ...]:
        names = (self.micrographs[code] for code in self.written)
        return tuple(pick_file_place(name) for name in names if name is not None)

    def as_in_project(self, path: Path) -> Path:
        """Return a path as RELION, which runs in its project, finds it."""
        if self.project is None:
            return path
        own = as_named(path)
        return own.relative_to(self.project) if own.is_relative_to(self.project) else own

    @property
    def is_refused(self) -> bool:
        """Whether nothing is to be written because another axis convention fits."""
        return self.placement.is_refused

    def existing(self) -> list[Path]:
        """Return the outputs that are there already."""
        places = [place for place in {*self.places, *self.old_places()} if os.path.lexists(f"{self.folder}/{place}")]
        return list(dict.fromkeys([*_existing_lists(self.folder), *(self.folder / place for place in sorted(places))]))

    def old_places(self) -> set[str]:
        """Return where pick files of an older run lie outside `raw_data`, as its links and the list of them say."""
        links = [path for path in files_in(self.raw_data, PICK_FILES) if path.is_symlink()]
        named = [posixpath.normpath(posixpath.join(RAW_DATA, os.readlink(path))) for path in links]  # noqa: PTH115
        here = f"{self.as_in_project(self.folder)}/".removeprefix("./")
        named += [text.removeprefix(here) for text in _listed(self.autopick_star) if text.startswith(here)]
        return {
            place
            for place in set(named)
            if PurePosixPath(place).match(PICK_FILES)
            and posixpath.dirname(place) != RAW_DATA
            and not (place.startswith("/") or ".." in place.split("/"))
            and not _is_blocked(self.folder, posixpath.dirname(place))
        }

    def report(self) -> CoordsReport:
        """Return what will be written."""
        convention, check = self.placement.convention, self.placement.check
        return CoordsReport(
            rows_in=len(self.picks) + sum(self.picks.left_out.values()),
            rows_out=int(self.kept.sum()),
            left_out=self.left_out,
            messages=self.messages,
            outputs=() if self.is_refused else self._outputs(),
            micrographs=len(self.written),
            micrographs_unmatched=self.unmatched,
            convention=convention.formula,
            convention_words=convention.words,
            convention_from=self.placement.source,
            columns_inferred=self.picks.fields.found_by == "content",
            coordinate_fields=self.picks.fields.names,
            relion_project=as_given(self.project, self.options.relion_project or self.folder) if self.project else None,
            orientation=None if check is None else orientation_of(check, convention),
            set_by_hand=self.options.given_by_hand,
            from_ancestors=self.picks.from_ancestors,
        )

    def _outputs(self) -> tuple[Path, ...]:
        """Return the files that lead to the picks, and the topmost folders, or files, of these."""
        tops = dict.fromkeys(self.folder / place.partition("/")[0] for place in self.places)
        lists = (self.autopick_star, *((self.coords_suffix,) if self.has_tree else ()))
        return (*lists, self.raw_data, *(path for path in tops if path != self.raw_data))


def _existing_lists(folder: Path) -> list[Path]:
    """Return what any run leaves in its output folder, as far as it is there."""
    files = [folder / AUTOPICK_STAR, folder / COORDS_SUFFIX, *files_in(folder / RAW_DATA, PICK_FILES)]
    return [path for path in files if os.path.lexists(path)]


def plan_coords(
    picks: str | os.PathLike[str],
    micrographs: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    options: CoordsOptions | None = None,
    *,
    may_exist: bool = True,
    reporter: Reporter | None = None,
) -> CoordsPlan:
    """Read picks and micrographs, match them, find out which way the micrographs lie, and compute the coordinates.

    What the sizes of RELION's micrographs forbid is an error of `cryobridge.jobs.coords.job.CoordsJob.check`.

    Parameters
    ----------
    picks
        A `.cs` or `.csg` file of picks or particles, or a cryoSPARC job folder.
    micrographs
        The STAR file with RELION's names of the micrographs, such as ``CtfFind/job003/micrographs_ctf.star``.
    output
        The output folder; the current one, with a message, if not given.
    options
        What is asked for; the axis convention that RELION's micrographs show if not given.
    may_exist
        Whether picks may be in the output folder; if not, that is found before micrographs are compared, which takes
        seconds. What becomes of them is for the job to say.
    reporter
        Who hears of the progress.

    Returns
    -------
    CoordsPlan
        What `cryobridge.jobs.coords.job.CoordsJob` carries out.

    Raises
    ------
    UsageError
        If the files are given in the wrong order.
    OutputExistsError
        If picks are there that may not be.
    MissingDataError
        If a file lacks columns, rows or values, or a micrograph is not in the STAR file.
    CryobridgeError
        If picks lie outside their micrograph, names are ambiguous, or two micrographs would share a pick file.
    """
    picks_path, star, folder = as_path(picks, "picks"), as_path(micrographs, "micrographs"), Path()
    folder = folder if output is None else as_path(output, "output")
    options, reporter = options or CoordsOptions(), reporter or Silent()
    plan = _matched(picks_path, star, folder, options, reporter, may_exist=may_exist)
    if not plan.has_tree:
        _refuse_shared_files(plan.micrographs, pick_file_name)
    return replace(plan, messages=(*plan.messages, *_messages(plan, has_output=output is not None)))


def _matched(
    picks_path: Path, star: Path, folder: Path, options: CoordsOptions, reporter: Reporter, *, may_exist: bool
) -> CoordsPlan:
    """Read picks and micrographs, match them, and compute the coordinates."""
    _refuse_exchanged(picks_path, star)
    reporter.start("reading picks", None)
    picks = read_picks(
        picks_path,
        options.passthrough,
        infer=options.nudge,
        xy_fields=options.xy_fields,
        from_ancestors=options.from_ancestors,
    )
    relion = read_micrographs(star).distinct()
    match = match_micrographs(picks.micrograph.values, relion.names)
    if match.unmatched and (options.on_unmatched == "error" or not match.relion_name):
        raise unmatched_error(match, relion.names)
    micrographs = tuple(match.relion_name.get(name) for name in picks.micrograph.values)
    _refuse_shared_files(micrographs, pick_file_place)
    kept, left_out = _choose(picks, micrographs, drop_outside=options.drop_outside, picks_only=options.picks_only)
    project = project_of(folder, options.relion_project)
    positions = _positions(picks, micrographs, kept, MicrographFiles(star, project))
    require_open(folder)
    refuse_existing(_existing_lists(folder), overwrite=may_exist)
    if options.preview:
        for code, _ in positions.busiest(options.preview):
            positions.require_file(code)
    is_required = options.checks_orientation
    n_micrographs = options.check_micrographs
    placement = place(positions, options, n_micrographs=n_micrographs, required=is_required, reporter=reporter)
    convention = placement.convention
    sizes = compare_sizes(
        micrographs,
        positions.codes,
        picks.shape_px,
        kept,
        positions.files,
        swap_xy=convention.swap_xy,
        own_pixel_size_A=picks.micrograph_pixel_size_A,
        pixel_size_A=_of_micrographs(relion, micrographs)[picks.micrograph.codes],
    )
    coordinate_px = round_px(convention.to_px(picks.fraction_xy, sizes.shape_px), subpixel=options.subpixel)
    return CoordsPlan(
        picks,
        options,
        folder,
        project,
        micrographs,
        positions,
        placement,
        coordinate_px,
        sizes,
        kept,
        left_out,
        match.unmatched,
        picks.messages,
    )


def _positions(
    picks: Picks, micrographs: tuple[str | None, ...], kept: NDArray[np.bool_], files: MicrographFiles
) -> Positions:
    return Positions(
        names=micrographs,
        codes=picks.micrograph.codes,
        fraction_xy=picks.fraction_xy,
        shape_px=picks.shape_px,
        kept=kept,
        files=files,
        micrograph_pixel_size_A=picks.micrograph_pixel_size_A,
        images=picks.images,
        image_pixel_size_A=picks.image_pixel_size_A,
        search=ImageSearch(picks.source),
    )


def _of_micrographs(relion: MicrographSet, micrographs: tuple[str | None, ...]) -> Floats:
    """Return Å a pixel of each of RELION's micrographs; NaN for None, and where the STAR file does not say."""
    known = dict(zip(relion.names, relion.pixel_size_A.tolist(), strict=True))
    return np.array([np.nan if name is None else known[name] for name in micrographs])


def _choose(
    picks: Picks, micrographs: tuple[str | None, ...], *, drop_outside: bool, picks_only: bool
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Return which picks are written (n,), and how many are not, by reason.

    Raises
    ------
    MissingDataError
        If none is left, or values are not filled in.
    FormatError
        If what is written of a pick is no number.
    CryobridgeError
        If picks lie outside their micrograph and may not be left out.
    """
    is_known = np.array([name is not None for name in micrographs], dtype=bool)
    is_matched: NDArray[np.bool_] = is_known.take(picks.micrograph.codes)
    is_inside = _inside(picks, drop_outside=drop_outside)
    left_out = {
        **picks.left_out,
        "micrograph not in the STAR file": int((~is_matched).sum()),
        "outside the micrograph": int((is_matched & ~is_inside).sum()),
    }
    kept: NDArray[np.bool_] = np.logical_and(is_matched, is_inside)
    if not kept.any():
        raise MissingDataError("no pick is left to write", path=picks.source, hint="Check the files and the options.")
    _refuse_unset(picks, kept)
    _refuse_no_numbers(picks, kept, picks_only=picks_only)
    return kept, {reason: count for reason, count in left_out.items() if count}


def _messages(plan: CoordsPlan, *, has_output: bool) -> list[Message]:
    """Return what there is to say besides the picks themselves."""
    messages = [
        warning("rows-left-out", f"{counted(count, 'pick is', 'picks are')} left out: {reason}")
        for reason, count in plan.left_out.items()
    ]
    if plan.project is None:
        text = f"no RELION project above the folder: paths in {AUTOPICK_STAR} are relative to the working directory"
        messages.append(warning("no-relion-project", text, option="relion_project"))
    messages += [] if plan.has_tree else [_without_tree(plan)]
    messages += _not_in_raw_data(plan)
    messages += [message for message in (plan.sizes.message, plan.placement.message) if message is not None]
    return messages if has_output else [*messages, _current_folder()]


def _without_tree(plan: CoordsPlan) -> Message:
    text = f"{plan.folder} has links or files where folders of pick files would go: they are in {RAW_DATA} only, "
    return warning("no-tree-of-picks", f"{text}which RELION 3.1 does not take", option="output")


def _current_folder() -> Message:
    """Return that nobody chose where the picks go; a warning where they hardly belong there."""
    text = f"without {option('output')} the picks go into the current folder"
    try:
        is_cryosparc = identify_folder(Path()) == CRYOSPARC_JOB
    except CryobridgeError:
        is_cryosparc = False
    if is_cryosparc:
        return warning("current-folder", f"{text}, which is that of a cryoSPARC job", option="output")
    return note("current-folder", text, option="output")


def _refuse_exchanged(picks_cs: Path, micrographs_star: Path) -> None:
    first, second = _format_of(picks_cs), _format_of(micrographs_star)
    if second not in {CS, CSG}:
        return
    if first == STAR:
        command = shlex.join(["cryobridge", "coords", str(micrographs_star), str(picks_cs)])
        raise UsageError("a STAR file; cryoSPARC's picks come first", path=picks_cs, hint=f"{command} …")
    raise UsageError(f"a .{second} file; the second file is a STAR file", path=micrographs_star, hint=_STAR_HINT)


def _format_of(path: Path) -> str | None:
    """Return the format of a file; None where whoever reads it has more to say."""
    try:
        return identify_file(path)
    except CryobridgeError:
        return None


def _is_blocked(folder: Path, name: str) -> bool:
    """Whether a folder below another can't be made, or leads out of it, since a link or file has its place."""
    above = [part for part in PurePosixPath(name).parents if part.name] + [PurePosixPath(name)]
    places = [folder / part for part in above if str(part) not in {RAW_DATA, "."}]
    return any(place.is_symlink() or (os.path.lexists(place) and not place.is_dir()) for place in places)


def _listed(autopick_star: Path) -> tuple[str, ...]:
    """Return the pick files that an older list names; none where there is none that can be read."""
    try:
        star = open_star(autopick_star)
        return to_labels(star["coordinate_files"].texts("rlnMicrographCoordinates")).values
    except (CryobridgeError, KeyError):
        return ()


def _refuse_unset(picks: Picks, kept: NDArray[np.bool_]) -> None:
    """Refuse sizes and fractions that nobody filled in, which would put all picks into a corner or on an edge."""
    unset = np.flatnonzero(kept & ~(picks.shape_px >= 1).all(axis=1))
    if len(unset):
        ny, nx = picks.shape_px[unset[0]].tolist()
        raise MissingDataError(
            f"the micrographs of {len(unset)} of {counted(len(picks), 'pick')} have no size, the first {ny} × {nx} px",
            path=picks.source,
            field=picks.fields.shape,
            rows=tuple(int(row) for row in unset[:3]),
            count=len(unset),
            hint=_CS_HINT,
        )
    for axis, name in enumerate((picks.fields.x, picks.fields.y)):
        if not picks.fraction_xy[kept, axis].any():
            raise MissingDataError(
                f"0 for all of {int(kept.sum())} picks",
                path=picks.source,
                field=name,
                rows=tuple(int(row) for row in np.flatnonzero(kept)[:3]),
                count=int(kept.sum()),
                hint=_CS_HINT,
            )


def _refuse_no_numbers(picks: Picks, kept: NDArray[np.bool_], *, picks_only: bool) -> None:
    """Refuse NaN and infinity in what RELION's pick files are made of."""
    values: dict[str, Array | None] = {picks.fields.shape: picks.shape_px, SCORE: picks.score}
    if not picks_only:
        values |= {"alignments2D/pose": picks.psi_rad, "filament/position_A": picks.position_A}
    wrong = {name: not_finite(found) for name, found in values.items() if found is not None}
    for name, rows in wrong.items():
        bad = np.flatnonzero(rows & kept)
        if len(bad):
            raise FormatError(
                "not a number, or infinite in single precision",
                path=picks.source,
                field=name,
                rows=tuple(int(row) for row in bad[:3]),
                count=len(bad),
                hint="Leave these picks out, or correct the values.",
            )


def _inside(picks: Picks, *, drop_outside: bool) -> NDArray[np.bool_]:
    x_y = picks.fraction_xy
    inside: NDArray[np.bool_] = np.all(np.logical_and(x_y >= 0, x_y <= 1), axis=1)
    outside = np.flatnonzero(~inside)
    if len(outside) and not drop_outside:
        x, y = picks.fraction_xy[outside[0]]
        raise CryobridgeError(
            f"{part_of(len(outside), len(picks), 'pick')} outside their micrograph, the first at x {x:.6g}, y {y:.6g} "
            "(fractions)",
            path=picks.source,
            field=f"{picks.fields.x}, {picks.fields.y}",
            rows=tuple(int(row) for row in outside[:3]),
            count=len(outside),
            hint=_about_outside(picks, all_are=len(outside) == len(picks)),
        )
    return inside


def _about_outside(picks: Picks, *, all_are: bool) -> str:
    if not all_are:
        return f"Check where the picks come from, or leave them out with {option('drop_outside')}."
    named = f"name the columns of x and y with {option('xy_fields', 'X,Y')}"
    if picks.fields.found_by == "position":
        return f"These two columns are no coordinates: leave {option('nudge', False)} out, or {named}."
    return f"These two columns are no coordinates: {named}."


def _refuse_shared_files(names: Iterable[str | None], place_of: Callable[[str], str]) -> None:
    """Refuse micrographs whose pick files would have one place."""
    by_file: dict[str, str] = {}
    for name in names:
        if name is None:
            continue
        other = by_file.setdefault(place_of(name), name)
        if other != name:
            raise CryobridgeError(
                f"micrographs {other} and {name} would share {place_of(name)}",
                hint="RELION distinguishes pick files by the micrograph's name after its job; rename one of them.",
            )


def _not_in_raw_data(plan: CoordsPlan) -> list[Message]:
    n_unlinked = len(plan.places) - sum(count == 1 for count in Counter(map(posixpath.basename, plan.places)).values())
    text = f"{n_unlinked:,} pick files of micrographs of one name in several folders have no link in {RAW_DATA}"
    return [note("not-in-raw-data", text)] if n_unlinked else []
