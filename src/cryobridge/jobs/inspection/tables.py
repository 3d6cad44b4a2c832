"""Inspecting tables: `.cs`, `.csg` and STAR."""

from __future__ import annotations

import shlex
from dataclasses import replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.cryosparc.cs import CsNpyFile, open_cs
from cryobridge.formats.cryosparc.csg import Slot, read_csg
from cryobridge.formats.cryosparc.exposures import is_exposures, open_exposures
from cryobridge.formats.cryosparc.names import holds_exposures
from cryobridge.formats.open import open_particles
from cryobridge.formats.relion.accepted import PREMULTIPLIED, boxes_of_rows, refused
from cryobridge.formats.relion.job import PIPELINE
from cryobridge.formats.relion.star import NO_PARTICLES, StarBlock, StarFile, open_star
from cryobridge.formats.relion.tomography import GROUP, tilted_particles, tomography_of
from cryobridge.formats.table import ColumnReader, wide_texts
from cryobridge.jobs.inspection.commands import Content, Source, with_commands
from cryobridge.jobs.inspection.image_files import ImageFiles, check_image_files
from cryobridge.jobs.inspection.micrographs import about_micrographs, of_cryosparc, of_relion
from cryobridge.jobs.inspection.motion import WHAT as MOTION
from cryobridge.jobs.inspection.motion import about_motion, is_motion
from cryobridge.jobs.inspection.report import FieldSummary, Inspection, Use
from cryobridge.jobs.inspection.stats import summarise
from cryobridge.jobs.inspection.use_list import USE_NAMES
from cryobridge.jobs.inspection.uses import (
    of_several_files,
    uses_of_cs,
    uses_of_star,
    uses_of_tomography,
    without_images,
    without_refused,
    without_unset_locations,
)
from cryobridge.model.fields import field
from cryobridge.model.particles import ImageRefs, Labels
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Column, Table, Values
    from cryobridge.jobs.inspection.options import InspectOptions
    from cryobridge.progress import Reporter

Facts = list[tuple[str, str]]
# Rows that images to look at are chosen from.
_N_SAMPLED_FROM = 100_000
# Of a larger file that a folder is judged by, the rows that begin it stand for all.
_LARGEST_JUDGED_BYTES = 256 << 20
_JUDGED_BYTES = 16 << 20
_BOX = field("optics.box_px").columns("relion")[0]


def inspect_cs(path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
    """Describe a `.cs` file."""
    table = open_cs(path)
    found = inspect_table(table, path, options, reporter)
    container = "NumPy array" if isinstance(table, CsNpyFile) else "CSDAT stream"
    uses, sampled = uses_with_commands(found.uses, path, path, table, options)
    return replace(
        found,
        facts=(("container", container), *found.facts, *sampled),
        uses=uses,
        details={"container": table.container, **found.details},
    )


def uses_with_commands(
    uses: tuple[Use, ...], path: Path, metadata: Path, table: Table, options: InspectOptions
) -> tuple[tuple[Use, ...], Facts]:
    """Say what is done with cryoSPARC's columns, and how many of the images were looked at.

    Parameters
    ----------
    uses
        As judged by the columns.
    path
        The file, group or folder that commands are given.
    metadata
        The file that names of images are looked for from.
    table
        Its columns, as far as they are joined.
    options
        Where images are.
    """
    if not table.n_rows:
        return uses, []
    ready = {use.name for use in uses if use.ready}
    content = _content_of_cs(table.names, has_images=bool(ready & {"stacks", "stacks-job"}))
    if "stacks" in ready and "blob/path" not in table:  # it is joined by the commands, too
        table = open_particles(path, program="cryosparc").columns
    if content == "exposures" and "micrographs" in ready and not is_exposures(table.names):
        table = open_exposures(path).columns
    images = _cs_images(table, slice(0, _N_SAMPLED_FROM)) if content == "particles" else None
    search = options.image_search(metadata)
    source = Source(path, "cryosparc", content, table, search, references=images, reads_pixels=options.statistics)
    return with_commands(uses, source), _sampled(source)


def _sampled(source: Source) -> Facts:
    text = "" if source.content != "particles" or source.sample is None else source.sample.text
    return [("images", text)] if text else []


def _content_of_cs(names: tuple[str, ...], *, has_images: bool) -> Content:
    if holds_exposures(names) or (not has_images and any(name.startswith("ctf_stats/") for name in names)):
        return "exposures"
    if has_images or "blob/path" in names:
        return "particles"
    return "picks" if any(name.startswith("location/") for name in names) else "other"


def inspect_csg(path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
    """Describe a result group and the columns of its members, joined on uid."""
    group = read_csg(path)
    facts: Facts = [
        ("title", group.title or group.name),
        ("version", group.version),
        *((f"slot {slot.name}", _slot_text(slot)) for slot in group.slots),
    ]
    details = {
        "members": [str(member) for member in group.members],
        "slots": {slot.name: str(slot.metafile) for slot in group.slots},
    }
    title = f"cryoSPARC result group of {group.kind}s"
    try:
        files = open_particles(path)
    except MissingDataError as error:
        return Inspection(
            str(path),
            "csg",
            title,
            facts=tuple(facts),
            messages=(*group.problems, warning("group-incomplete", str(error))),
            details=details,
        )
    found = inspect_table(files.columns, path, options, reporter)
    judged = of_several_files(found.uses, path, files.columns)
    uses, sampled = uses_with_commands(judged, path, files.metadata, files.columns, options)
    return replace(
        found,
        kind="csg",
        title=title,
        facts=(*facts, *found.facts, *sampled),
        uses=uses,
        messages=(*group.problems, *of_joining(files), *found.messages),
        details={**details, **found.details},
    )


def of_joining(files: ParticleFiles) -> tuple[Message, ...]:
    """Return what the joined files lack, and in what they contradict each other."""
    codes = {"rows-not-joined", "file-not-read", "file-not-found", "file-not-joined", "values-contradict"}
    return tuple(message for message in files.messages if message.code in codes)


def _slot_text(slot: Slot) -> str:
    return slot.written + ("" if slot.num_items is None else f", {counted(slot.num_items, 'item')}")


def inspect_table(table: Table, path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
    """Describe cryoSPARC columns, whichever files they come from; ``path`` is where names are relative to."""
    fields = _fields(table, options, reporter)
    details: dict[str, Any] = {}
    by_name = {summary.name: summary for summary in fields}
    uses = without_unset_locations(uses_of_cs(path, table), table, by_name)
    if table.n_rows == 0:
        uses = _nothing_ready("particles")
    files, messages, uses = _image_details(details, options, path, lambda: _cs_images(table), uses, reporter)
    _first_rows(details, table, fields, options)
    exposures = of_cryosparc(table) if options.statistics else None
    about = [] if exposures is None else about_micrographs(exposures)
    facts = (("layout", _cs_layout(table.names)), *_cs_facts(table, by_name), *about, *files)
    return Inspection(
        str(path),
        "cs",
        f"cryoSPARC {_cs_content(table.names)}",
        table.n_rows,
        facts,
        fields,
        uses,
        (*_no_rows(table), *wide_texts(table), *messages),
        details,
    )


def uses_of_file(path: Path, named: Path, options: InspectOptions, reporter: Reporter) -> tuple[Use, ...]:
    """Judge a particle file by its headers.

    Parameters
    ----------
    path
        The file.
    named
        What the commands are given: the file, or the folder that it is meant by.
    options
        Where images are, and what is checked.
    reporter
        Who hears of the progress.
    """
    reads_pixels = options.statistics
    most_bytes = _JUDGED_BYTES if is_judged_by_beginning(path) else None
    options = replace(options, fields=(), rows=0, statistics=False, check_paths=False)
    if path.suffix == ".star":
        return inspect_star(path, options, reporter, named, reads_pixels=reads_pixels, most_bytes=most_bytes).uses
    return inspect_cs(path, options, reporter).uses


def is_judged_by_beginning(path: Path) -> bool:
    """Whether a file is so large that what its folder can be used for is judged by the rows that begin it."""
    return path.suffix == ".star" and path.stat().st_size > _LARGEST_JUDGED_BYTES


def inspect_star(
    path: Path,
    options: InspectOptions,
    reporter: Reporter,
    named: Path | None = None,
    *,
    reads_pixels: bool | None = None,
    most_bytes: int | None = None,
) -> Inspection:
    """Describe a STAR file: its main block's columns, its optics and the names of its blocks.

    Parameters
    ----------
    path
        The file.
    options
        What is asked for.
    reporter
        Who hears of the progress.
    named
        What commands are given instead of the file, such as the folder of its job.
    reads_pixels
        Whether a few images are read; as the options say if not given.
    most_bytes
        Judge no more than the rows that begin a file of more bytes.
    """
    star = open_star(path, most_bytes=most_bytes)
    main = star.main
    block = star[main]
    fields = _fields(block, options, reporter)
    facts: Facts = [("layout", _star_layout(star))]
    if path.name == PIPELINE:
        facts.append(("its jobs", shlex.join(["cryobridge", "inspect", str(path.parent)])))
    if len(star.names) > 1:
        facts.append(("blocks", ", ".join(f"data_{name}" for name in star.names)))
    tomography = tomography_of(star)
    images, odd = (None, ()) if tomography is not None else _named_images(block)
    facts += _star_facts(star, {summary.name: summary for summary in fields}, images)
    details: dict[str, Any] = {
        "blocks": {name: {"rows": star[name].n_rows, "is_loop": star.is_loop(name)} for name in star.names},
        "main_block": main,
        "optics": _optics_rows(star),
        "tomography": None if tomography is None else tomography.what,
    }
    about: tuple[Message, ...] = odd
    content = _star_content(main, block.names)
    if tomography is not None:
        content, uses = tomography.what, uses_of_tomography(tomography)
        about = (warning("tomography", tomography.refusal),)
    elif star.has_optics_alone:
        content, about = "no particles", (warning("no-particles", NO_PARTICLES),)
        uses = _nothing_ready("particles")
    elif is_motion(star):
        more, about = about_motion(star)
        content, uses, facts = MOTION, (), [*facts, *more]
    else:
        uses = _star_uses(path, star, block, has_odd_names=bool(odd))
        if (n_particles := tilted_particles(block)) is not None:
            text = (
                f"rows of one {GROUP} are tilts of one particle: {counted(n_particles, 'particle')} in "
                f"{counted(block.n_rows, 'row')}"
            )
            about = (*about, note("rows-are-tilts", text))
        if options.statistics and what_is_listed(star, block) == "micrographs":
            micrographs = of_relion(path)
            more = [] if micrographs is None else about_micrographs(micrographs)
            facts += [fact for fact in more if fact[0] not in dict(facts)]
    files, messages, uses = _image_details(details, options, path, lambda: images, uses, reporter)
    facts += files
    if "relion" in options.check and images is not None:
        from cryobridge.formats.relion.accepted_images import look_at

        sample = look_at(images, options.image_search(path))
        uses = without_refused(uses, sample.refused(boxes_of_rows(star)))
        messages = (*messages, *sample.warnings(reads_float16=_star_layout(star) == "RELION 5"))
    if uses and tomography is None and block.n_rows and not star.has_optics_alone:
        what: Content = "particles" if "rlnImageName" in block else "micrographs"
        has_box = any(_BOX in table for table in (block, star.optics) if table is not None)
        search, reads = options.image_search(path), options.statistics if reads_pixels is None else reads_pixels
        source = Source(named or path, "relion", what, block, search, has_box, images, reads)
        uses = with_commands(uses, source)
        facts += _sampled(source)
    _first_rows(details, block, fields, options)
    return Inspection(
        str(path),
        "star",
        f"RELION STAR, {content}",
        0 if star.has_optics_alone else block.n_rows,
        tuple(facts),
        fields,
        uses,
        (*star.messages, *about, *_no_rows(block), *messages),
        details,
    )


def what_is_listed(star: StarFile, block: StarBlock) -> Literal["particles", "micrographs", ""]:
    """Return what the main block of a STAR file lists, micrographs or movies among them; empty for anything else."""
    if star.main == "coordinate_files":
        return ""
    if "rlnImageName" in block:
        return "particles"
    is_listed = "rlnMicrographName" in block or "rlnMicrographMovieName" in block
    return "micrographs" if is_listed and "rlnCoordinateX" not in block else ""


def _star_uses(path: Path, star: StarFile, block: StarBlock, *, has_odd_names: bool) -> tuple[Use, ...]:
    """Judge the main block and the optics; files that list neither particles nor micrographs serve nothing."""
    is_listed = "rlnImageName" in block or "rlnMicrographName" in block
    if star.main == "coordinate_files" or not is_listed:
        return ()
    is_micrographs = star.main == "micrographs" or "rlnImageName" not in block
    if block.n_rows == 0:
        return _nothing_ready("micrographs" if is_micrographs else "particles")
    uses = uses_of_star(
        path,
        block,
        star.optics,
        is_micrographs=is_micrographs and "rlnCoordinateX" not in block,
        has_odd_names=has_odd_names,
    )
    found = refused(star) if "rlnImageName" in block else ()
    if star.is_cut:  # the rows that begin it may well lie in one half set
        found = tuple(item for item in found if not item.reason.startswith("rlnRandomSubset"))
    return without_refused(uses, found)


def _fields(table: Table, options: InspectOptions, reporter: Reporter) -> tuple[FieldSummary, ...]:
    columns = chosen_columns(table, options)
    return summarise(table, columns, statistics=options.statistics, reporter=reporter)


def chosen_columns(table: Table, options: InspectOptions) -> tuple[Column, ...]:
    """Return the columns that the options ask for."""
    if not options.fields:
        return table.columns
    chosen = tuple(
        column for column in table.columns if any(fnmatch(column.name, pattern) for pattern in options.fields)
    )
    if not chosen:
        raise MissingDataError(
            f"no field matches {', '.join(options.fields)}",
            path=table.path,
            hint=f"It has {', '.join(column.name for column in table.columns[:6])} …",
        )
    return chosen


def _no_rows(table: Table) -> tuple[Message, ...]:
    text = "the table has no rows: an empty selection, or an excluded output"
    return (warning("no-rows", text),) if table.n_rows == 0 else ()


def _nothing_ready(missing: str) -> tuple[Use, ...]:
    """Return that a file without any row serves nothing, whatever columns it has."""
    return tuple(Use(use, False, (missing,), applies=False) for use in USE_NAMES)


def _image_details(
    details: dict[str, Any],
    options: InspectOptions,
    path: Path,
    images: Callable[[], ImageRefs | None],
    uses: tuple[Use, ...],
    reporter: Reporter,
) -> tuple[Facts, tuple[Message, ...], tuple[Use, ...]]:
    """Check the image files when that was asked for; return what was found, what is wrong, and what they serve."""
    if not options.check_paths:
        return [], (), uses
    refs = images()
    if refs is None:
        text = "no image references (blob/path and blob/idx, or rlnImageName): no image files to check"
        return [], (warning("no-image-references", text),), uses
    found: ImageFiles = check_image_files(refs, options.image_search(path), reporter)
    details["image_files"] = found.to_json()
    return [("image files", found.summary())], found.messages(), without_images(uses, found)


def _cs_images(table: Table, rows: slice = slice(None)) -> ImageRefs | None:
    """Return the image references alone: a particle set would read and turn every pose."""
    columns = ColumnReader(table)
    path, index = columns.labels("blob/path"), columns.integers("blob/idx")
    return None if path is None or index is None else ImageRefs(path.take(np.arange(len(index))[rows]), index[rows])


def _named_images(block: StarBlock) -> tuple[ImageRefs | None, tuple[Message, ...]]:
    """Return the images that rows name; None, and what is wrong, where a name is none."""
    # Imported late: what it imports takes longer than inspecting most files.
    from cryobridge.formats.relion.particles import parse_image_names

    if "rlnImageName" not in block:
        return None, ()
    try:
        return parse_image_names(block), ()
    except FormatError as error:
        n_rows = error.count or 0
        where = f"row {error.rows[0]}" if n_rows == 1 else f"{n_rows:,} rows, the first of them row {error.rows[0]}"
        return None, (warning("image-names", f"rlnImageName: {where}: {error.message}"),)


def _first_rows(
    details: dict[str, Any], table: Table, fields: tuple[FieldSummary, ...], options: InspectOptions
) -> None:
    if options.rows:
        details["first_rows"] = rows_of(table, [summary.name for summary in fields], options.rows)


def rows_of(table: Table, names: list[str], n_rows: int) -> list[dict[str, Any]]:
    """Return the first rows, one dict a row."""
    values = table.read(names, slice(0, n_rows))
    columns = {name: _listed(column) for name, column in values.items()}
    return [{name: columns[name][row] for name in names} for row in range(min(n_rows, table.n_rows))]


def _listed(column: Values) -> list[Any]:
    array = column.to_numpy() if isinstance(column, Labels) else column
    if array.dtype == np.float32:
        # 2.95 in single precision is 2.9500000476837158 in double; its text is what was meant.
        array = array.astype(str).astype(np.float64)
    if array.dtype.kind == "c":
        array = array.astype(str)  # JSON has no complex numbers
    return list(array.tolist())


def _cs_content(names: tuple[str, ...]) -> str:
    prefixes = {name.split("/")[0] for name in names}
    kinds = (
        ("movie_blob", "exposures"),
        ("micrograph_blob", "exposures"),
        ("ctf_stats", "exposures"),
        ("map", "volumes"),
        ("blob", "particles"),
        ("location", "picks or passthrough of particles"),
    )
    return next((kind for prefix, kind in kinds if prefix in prefixes), "table")


def _cs_layout(names: tuple[str, ...]) -> str:
    if any(name.startswith("alignments3D_multi/") for name in names):
        return "cryoSPARC 4.5 or later"
    if "ctf/df1_A" not in names:
        return "cryoSPARC, of a version that only ctf/* would show"
    return "cryoSPARC 3 or later" if "ctf/tilt_A" in names else "cryoSPARC 2"


def _cs_facts(table: Table, fields: dict[str, FieldSummary]) -> Facts:
    names = {column.name for column in table.columns}
    facts: Facts = []
    if table.n_rows and "blob/shape" in names:
        facts.append(("box", _range(fields.get("blob/shape"), table, "blob/shape", "px")))
    if table.n_rows and "blob/psize_A" in names:
        facts.append(("pixel size", _range(fields.get("blob/psize_A"), table, "blob/psize_A", "Å")))
    for name, title in (
        ("location/micrograph_path", "micrographs"),
        ("blob/path", "stacks"),
        ("ctf/exp_group_id", "optics groups"),
    ):
        summary = fields.get(name)
        if summary is not None and summary.distinct is not None:
            facts.append((title, f"{summary.distinct:,}"))
    poses = [column.name.removesuffix("/pose") for column in table.columns if column.name.endswith("/pose")]
    if poses:
        facts.append(("alignments", ", ".join(poses)))
    return facts


def _range(summary: FieldSummary | None, table: Table, name: str, unit: str) -> str:
    """Return one value or a range; the first row stands in when there are no statistics, and it is said."""
    if summary is None or summary.minimum is None or summary.maximum is None:
        first = np.ravel(np.asarray(table.read([name], slice(0, 1))[name]))
        is_number = first.size and first.dtype.kind in "biuf"
        return f"{first[0]:.6g} {unit} (first row)" if is_number else "not a number"
    if summary.minimum == summary.maximum:
        return f"{summary.minimum:.6g} {unit}"
    return f"{summary.minimum:.6g} to {summary.maximum:.6g} {unit}"


def _star_layout(star: StarFile) -> str:
    versions = [comment for comment in star.comments if comment.startswith("version")]
    if any("5000" in version for version in versions):
        return "RELION 5"
    if "optics" in star:
        return "RELION 3.1 or later"
    if any("version" in comment for comment in star.comments):
        return "RELION 3.1 or later"
    return "RELION 3.0 or earlier (no optics block)" if "rlnImageName" in star.labels(star.main) else "RELION"


def _star_content(main: str, names: tuple[str, ...]) -> str:
    if main in {"particles", "images"} or "rlnImageName" in names:
        return "particles"
    if "rlnCoordinateX" in names and "rlnMicrographName" not in names:
        return "picks of one micrograph"
    return main.replace("_", " ") or "one unnamed table"


def _star_facts(star: StarFile, fields: dict[str, FieldSummary], images: ImageRefs | None) -> Facts:
    facts: Facts = []
    micrographs = fields.get("rlnMicrographName")
    if micrographs is not None and micrographs.distinct is not None:
        facts.append(("micrographs", f"{micrographs.distinct:,}"))
    names = fields.get("rlnImageName")
    if images is not None and names is not None and names.distinct is not None:
        facts.append(("stacks", f"{len(images.path.values):,}"))
    for row in _optics_rows(star):
        values = [f"{title}{row[label]:g}{unit}" for label, title, unit in _OPTICS_FACTS if label in row]
        if row.get(PREMULTIPLIED) in (1, True):
            values.append("CTF-premultiplied")
        name = f"{row['rlnOpticsGroupName']}: " if "rlnOpticsGroupName" in row else ""
        facts.append((f"optics group {row.get('rlnOpticsGroup', '?')}", name + ", ".join(values)))
    return facts


# Short titles of what is said of an optics group, and the unit that follows the value.
_OPTICS_FACTS = tuple(
    (field(f"optics.{name}").columns("relion")[0], title, unit)
    for name, title, unit in (
        ("voltage_kV", "", " kV"),
        ("spherical_aberration_mm", "Cs ", " mm"),
        ("amplitude_contrast", "amplitude contrast ", ""),
        ("pixel_size_A", "pixel ", " Å"),
        ("micrograph_pixel_size_A", "micrograph pixel ", " Å"),
        ("box_px", "box ", " px"),
    )
)


def _optics_rows(star: StarFile) -> list[dict[str, Any]]:
    if "optics" not in star:
        return []
    optics = star["optics"]
    return rows_of(optics, list(optics.names), optics.n_rows)
