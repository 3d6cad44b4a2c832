"""RELION's micrographs as exposures of cryoSPARC: a `.cs` file and its group, and links to the files beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.formats.cryosparc.exposures_write import exposure_columns, write_exposures
from cryobridge.formats.image_search import name_some
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.optics import fill_optics
from cryobridge.formats.relion.micrographs import read_micrographs
from cryobridge.jobs.exposures.files import absolute, bytes_of, checked_headers, found_files, missing_error
from cryobridge.jobs.exposures.movies_to_cryosparc import inside, with_movies
from cryobridge.jobs.exposures.optics import in_optics_groups
from cryobridge.jobs.exposures.options import MicrographsOptions
from cryobridge.jobs.exposures.report import MicrographsReport
from cryobridge.jobs.links import Link, in_the_way, is_made, make_links
from cryobridge.jobs.output_folder import refuse_existing, refuse_inputs, require_space, whole_files
from cryobridge.model.particles import Labels
from cryobridge.progress import Silent
from cryobridge.report import distinct, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.formats.table import Values
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.progress import Reporter
    from cryobridge.report import Message

# On the way to cryoSPARC these would do nothing.
_IDLE = ("lists", "relion", "relion_project", "float16", "flip_y")


@dataclass(frozen=True)
class ExposuresPlan:
    """Everything needed to write exposures; `cryobridge.jobs.job.Job`.

    Parameters
    ----------
    source
        The STAR file.
    output
        The `.cs` file.
    options
        What was asked for.
    micrographs
        Those that are written.
    n_rows
        Micrographs of the STAR file.
    columns
        cryoSPARC's.
    dropped
        RELION's columns that there is no place for.
    links
        Of the micrographs.
    left_out, missing
        Micrographs that are not written, by reason, and the names of those that are not found.
    messages
        Notes and warnings.
    """

    source: Path
    output: Path
    options: MicrographsOptions
    micrographs: MicrographSet
    n_rows: int
    columns: dict[str, Values]
    dropped: tuple[str, ...]
    links: tuple[Link, ...]
    left_out: dict[str, int]
    missing: tuple[str, ...]
    messages: tuple[Message, ...]

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files that are written, without the links."""
        return self.output, self.output.with_suffix(".csg")

    @property
    def new_links(self) -> tuple[Link, ...]:
        """The links that are not there yet."""
        return tuple(link for link in self.links if not is_made(link, copy=self.options.copy))

    def report(self) -> MicrographsReport:
        """Return what will be written."""
        n_links, index = len(self.links), self.micrographs.optics_index
        return MicrographsReport(
            rows_in=self.n_rows,
            rows_out=len(self.micrographs),
            left_out=self.left_out,
            messages=self.messages,
            outputs=self.outputs,
            inputs=(self.source,),
            lists={self.output.name: len(self.micrographs)},
            optics_groups=0 if index is None else len(np.unique(index)),
            links=0 if self.options.copy else n_links,
            copies=n_links if self.options.copy else 0,
            missing=self.missing,
            dropped_columns=self.dropped,
        )

    def check(self, *, overwrite: bool) -> None:
        """Refuse what can't be written.

        Raises
        ------
        OutputExistsError
            If an output is there already and ``overwrite`` is False.
        UsageError
            If an output is one of the inputs.
        CryobridgeError
            If the disk has not enough space for copies.
        """
        files = in_the_way(self.new_links)
        inputs = [self.source, *self.options.optics_files, *([link.target for link in self.links] if files else [])]
        refuse_inputs([*self.outputs, *files], inputs)
        refuse_existing([*self.outputs, *(link.path for link in self.new_links)], overwrite=overwrite)
        n_bytes = bytes_of(self.new_links, copy=self.options.copy)
        if n_bytes:
            require_space(self.output.parent, n_bytes, "Free some space, or write to another disk.")

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> MicrographsReport:
        """Make the links and write the exposures."""
        reporter = reporter or Silent()
        self.check(overwrite=overwrite)
        if self.new_links:
            reporter.start("copying files" if self.options.copy else "linking files", len(self.new_links))
            make_links(self.new_links, copy=self.options.copy, reporter=reporter, place="output", replaces=overwrite)
        with whole_files(list(self.outputs), overwrite=overwrite):
            title = f"Micrographs of {self.source.name}"
            write_exposures(self.output, self.columns, len(self.micrographs), title)
        return self.report()


def plan_exposures(
    star: Path, output: Path, options: MicrographsOptions | None = None, *, reporter: Reporter | None = None
) -> ExposuresPlan:
    """Read RELION's micrographs, find their files, and turn what is known of them into cryoSPARC's columns.

    Parameters
    ----------
    star
        A list of micrographs, such as ``CtfFind/job003/micrographs_ctf.star``.
    output
        The `.cs` file to write.
    options
        What is asked for.
    reporter
        Who hears of the progress.

    Raises
    ------
    UsageError
        If the output is no `.cs` file, or an option would do nothing on this way.
    MissingDataError
        If files are not found, or what cryoSPARC needs is not known.
    FormatError
        If a file can't be read.
    """
    options = options or MicrographsOptions()
    _refuse_idle(output, options)
    found = read_micrographs(star)
    if not len(found):
        raise MissingDataError("it has no rows", path=star, hint="Give a list with micrographs in it.")
    messages = list(found.messages)
    optics, index = fill_optics(found.optics, found.optics_index, len(found), options.known_optics, star)
    found, n_rows = replace(found, optics=optics, optics_index=index), len(found)
    first = found.distinct()
    left_out = {"named twice": n_rows - len(first)}
    if len(first) < n_rows:
        messages.append(warning("rows-left-out", f"{part_of(n_rows - len(first), n_rows, 'row')} named twice"))
    (reporter or Silent()).start("looking for files", None)
    search = options.image_search(star)
    files = found_files(list(first.names), search)
    missing = tuple(name for name, file in zip(first.names, files, strict=True) if file is None)
    if missing and (options.on_missing == "error" or len(missing) == len(first)):
        raise missing_error(missing, len(first), search, "micrograph")
    if missing:
        text = f"{part_of(len(missing), len(first), 'micrograph')} left out, whose files are not found"
        messages.append(warning("micrographs-not-found", f"{text}: {name_some(missing)}", option="on_missing"))
    left_out["micrograph not found"] = len(missing)
    kept = first.take(np.array([file is not None for file in files], bool))
    there = [file for file in files if file is not None]
    shapes, formats, half = _shapes(there)
    if half:
        text = f"{part_of(half, len(there), 'micrograph', 'have', of_one='has')} half precision, which cryoSPARC reads"
        messages.append(note("half-precision", text))
    kept, about = in_optics_groups(kept, options, [])
    if options.optics_from is None:  # the groups are RELION's own, and not for its CTF refinement
        about = []
    folder = output.with_name(f"{output.stem}_micrographs")
    links = tuple(Link(folder / inside(name), absolute(file)) for name, file in zip(kept.names, there, strict=True))
    paths = Labels.of(f">{PurePosixPath(folder.name, inside(name))}" for name in kept.names)
    carried = with_movies(kept, search, folder)
    kept, links = carried.micrographs, (*links, *carried.links)
    messages += carried.messages
    columns, dropped, of_optics = exposure_columns(kept, shapes, paths, formats, carried.formats)
    return ExposuresPlan(
        star,
        output,
        options,
        kept,
        n_rows,
        columns,
        dropped,
        links,
        {reason: count for reason, count in left_out.items() if count},
        missing,
        distinct([*messages, *about, *of_optics]),
    )


def _refuse_idle(output: Path, options: MicrographsOptions) -> None:
    if output.suffix != ".cs":
        raise UsageError(
            "RELION's micrographs become exposures of cryoSPARC, in a .cs file",
            path=output,
            option="output",
            hint=f"Give {option('output', 'exposures.cs')}.",
        )
    defaults = MicrographsOptions()
    given = [name for name in _IDLE if getattr(options, name) != getattr(defaults, name)]
    if given:
        raise UsageError(
            f"{option(given[0])} is for lists of RELION, and this writes exposures of cryoSPARC",
            option=given[0],
            hint="Leave it out.",
        )


def _shapes(files: Sequence[Path]) -> tuple[Any, Labels, int]:
    """Return ny, nx of each file, (n, 2), its format as cryoSPARC names it, and how many are of half precision.

    Raises
    ------
    MissingDataError
        If one is no micrograph.
    FormatError
        If one can't be read.
    """
    headers = checked_headers(files, None)
    wrong = next((place for place, trouble in enumerate(headers.trouble) if trouble), None)
    if wrong is not None:
        raise MissingDataError(
            headers.trouble[wrong], path=files[wrong], hint=f"Leave it out of the list; it is one of {len(files):,}."
        )
    found = [read_header(file) for file in files]
    shapes = np.array([(header.ny, header.nx) for header in found], np.int64)
    return shapes, Labels.of(f"MRC/{header.mode}" for header in found), int(headers.is_half.sum())
