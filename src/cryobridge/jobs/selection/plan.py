"""Planning a selection: which rows stay and why the others go, before the first byte is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.classes import absent_classes
from cryobridge.formats.image_search import ImageSearch, names_lead_elsewhere, not_found
from cryobridge.formats.open import ParticleFiles, open_particles
from cryobridge.formats.recovar import open_recovar
from cryobridge.formats.registry import CS, identify_file
from cryobridge.formats.write import outputs_of, suffixes_of
from cryobridge.jobs.selection.attach import class_columns, latent_columns
from cryobridge.jobs.selection.classes import FileClasses, classes_of
from cryobridge.jobs.selection.identity import identities_of, match_rows
from cryobridge.jobs.selection.options import SelectOptions, check_options
from cryobridge.jobs.selection.row_values import RowValues
from cryobridge.jobs.selection.run import RunOfRows, rows_of_run
from cryobridge.jobs.selection.values import RowLabels, read_rows, say_list
from cryobridge.jobs.selection.where import rows_where
from cryobridge.options import as_path

if TYPE_CHECKING:
    import os

    from cryobridge.formats.recovar import RecovarRun
    from cryobridge.formats.table import Values
    from cryobridge.model.particles import Floats
    from cryobridge.report import Message

Mask = NDArray[np.bool_]
_MAX_FILES = 1000


@dataclass(frozen=True, eq=False)
class OutputPart:
    """One file to be written: its rows, (n,), and the class or cluster that they are, if one."""

    path: Path
    kept: Mask
    label: int | None = None


@dataclass(frozen=True, eq=False)
class SelectPlan:
    """Everything needed to write a selection.

    Attributes
    ----------
    particles
        The particle file.
    parts
        What is written: one file, or one for each class.
    left_out
        Rows that are not written, by reason.
    added
        Columns (n,) that are added or replaced.
    notes
        What was joined, matched or taken, in sentences.
    warnings
        What may make the output wrong or unusable, in sentences.
    inputs
        All files that are read.
    """

    particles: ParticleFiles
    parts: tuple[OutputPart, ...]
    left_out: dict[str, int]
    added: dict[str, Values]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    inputs: tuple[Path, ...]

    @property
    def n_kept(self) -> int:
        """Rows that are written."""
        return sum(int(np.count_nonzero(part.kept)) for part in self.parts)

    def outputs(self) -> list[Path]:
        """Return all files that are written."""
        return [path for part in self.parts for path in outputs_of(self.particles, part.path)]

    def report(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return {
            "particles_in": self.particles.n_rows,
            "particles_out": self.n_kept,
            "left_out": self.left_out,
            "attached": list(self.added),
            "files": {str(part.path): int(np.count_nonzero(part.kept)) for part in self.parts},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "outputs": [str(path) for path in self.outputs()],
        }


@dataclass
class _Choice:
    """The rows that are left, while one request after the other is looked at."""

    kept: Mask
    left_out: dict[str, int] = field(default_factory=dict)

    def keep(self, fulfil: Mask, reason: str) -> None:
        """Leave out the rows that don't fulfil a request."""
        lost = int(np.count_nonzero(self.kept & ~fulfil))
        if lost:
            self.left_out[reason] = self.left_out.get(reason, 0) + lost
        self.kept = self.kept & fulfil

    def invert(self, possible: Mask) -> None:
        """Keep the others of the rows that could be written."""
        n_chosen = int(np.count_nonzero(self.kept))
        self.kept, self.left_out = possible & ~self.kept, {"chosen, and --invert keeps the others": n_chosen}


def plan_select(
    particles: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    options: SelectOptions,
    *,
    split_folder: str | os.PathLike[str] | None = None,
) -> SelectPlan:
    """Read what decides on the rows, and work out what is to be written.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file; None for the one of ``options.run``.
    output
        The file to write, of the same program; None with ``split_folder``.
    options
        What is asked for.
    split_folder
        The folder for one file a class.

    Raises
    ------
    UsageError
        If the requests contradict each other, or name what is not there.
    CryobridgeError
        If rows, labels and particles don't line up, or no row is left.

    Examples
    --------
    >>> from cryobridge.jobs.selection.options import SelectOptions
    >>> from cryobridge.jobs.selection.plan import plan_select
    >>> from cryobridge.jobs.selection.write import write_selection
    >>> plan = plan_select("run_data.star", "good.star", SelectOptions(classes=(1, 4)))
    >>> report = write_selection(plan)
    """
    particles = None if particles is None else as_path(particles, "particles")
    output = None if output is None else as_path(output, "output")
    split_folder = None if split_folder is None else as_path(split_folder, "split_folder")
    check_options(options, splits=split_folder is not None)
    if (output is None) == (split_folder is None):
        raise UsageError("one place to write to is needed", hint="Give -o FILE, or --split-by-class DIR.")
    if particles is None and options.run is None:
        raise UsageError(
            "no particle file is named", hint="cryobridge select PARTICLES.star --class 1,4 -o OUTPUT.star"
        )
    return _Planner(particles, options).plan(output, split_folder)


class _Planner:
    """Looks at one request after the other."""

    def __init__(self, path: Path | None, options: SelectOptions) -> None:
        self.options = options
        self.recovar: RecovarRun | None = open_recovar(options.run) if options.run is not None else None
        self.particles = _opened(path or options.run, options)
        self.notes = list(self.particles.notes)
        self.warnings = list(self.particles.warnings)
        self.absent = ""
        self.run: RunOfRows | None = None
        if self.recovar is not None and options.run is not None:
            self.run = rows_of_run(options.run, self.recovar, self.particles, options.sources)
            self.notes += self.run.notes
            self.warnings += self.run.warnings
        self.values = RowValues(options, self.particles, self.run)

    def plan(self, output: Path | None, split_folder: Path | None) -> SelectPlan:
        """Return the plan."""
        labels = self.values.labels(splits=split_folder is not None)
        attached, latent = self.values.attached_labels(), self.values.latent()
        self.notes += self.values.notes
        self.warnings += self.values.warnings
        choice = _Choice(np.ones(len(self.particles), dtype=bool))
        if self.run is not None:
            choice.keep(self.run.place >= 0, "not in the run")
        for values in (labels, attached):
            if values is not None:
                choice.keep(values.labels >= 0, f"no label in {values.source}")
        if latent is not None:
            choice.keep(np.asarray(np.isfinite(latent).all(axis=1)), "no latent coordinates")
        possible, impossible = choice.kept, dict(choice.left_out)
        for fulfil, reason in self._requests(labels):
            choice.keep(fulfil, reason)
        self._draw(choice)
        if self.options.invert:
            choice.invert(possible)
            choice.left_out |= impossible
        self._refuse_empty(choice)
        added = self._added(attached, latent)
        parts = self._one_part(output, choice) if split_folder is None else ()
        if split_folder is not None:
            parts = self._split(split_folder, choice.kept, attached or labels)
        folder = output.parent if output is not None else split_folder
        assert folder is not None  # one of the two is given
        where = _where_images_are(self.particles, choice.kept, folder)
        self.warnings += [str(where)] if where else []
        left_out = {**self.particles.left_out, **choice.left_out}
        run_file = (self.recovar.particles_file,) if self.recovar is not None and self.recovar.particles_file else ()
        inputs = (*self.particles.files, *self.options.files, *run_file)
        notes = tuple(dict.fromkeys(self.notes))
        return SelectPlan(self.particles, tuple(parts), left_out, added, notes, tuple(self.warnings), inputs)

    def _requests(self, labels: RowLabels | None) -> Iterator[tuple[Mask, str]]:
        """Yield for each request which rows fulfil it, (n,), and what is to be said of the others."""
        options = self.options
        if options.ind is not None:
            yield self._listed(options.ind), f"not in {options.ind.name}"
        if options.clusters is not None:
            assert labels is not None  # `check_options` refuses it
            self._check_clusters(labels, options.clusters)
            yield np.isin(labels.labels, options.clusters), f"in other clusters than {say_list(options.clusters)}"
        if options.classes is not None:
            numbers = self._file_classes(options.classes).numbers
            yield np.isin(numbers, options.classes), f"in other classes than {say_list(options.classes)}"
        if options.like is not None:
            yield self._like(options.like), f"not in {options.like.name}"
        if options.where is not None:
            yield rows_where(options.where, self.particles.columns), f"for which {options.where} does not hold"

    def _listed(self, path: Path) -> Mask:
        rows = read_rows(path, self.particles.n_rows, self.particles.metadata)
        if (np.diff(rows) < 0).any():
            self.notes.append(
                f"{path.name} is not in ascending order; rows are written in the order of the particle file"
            )
        listed = np.zeros(self.particles.n_rows, dtype=bool)
        listed[rows] = True
        of_rows: Mask = listed[self.particles.file_rows]
        return of_rows

    def _check_clusters(self, labels: RowLabels, clusters: tuple[int, ...]) -> None:
        if clusters[-1] >= labels.n_labels:
            raise UsageError(
                f"there is no cluster {clusters[-1]}: {labels.source} has {labels.n_labels}, counted from 0",
                hint=f"Give --clusters with numbers from 0 to {labels.n_labels - 1}.",
            )

    def _file_classes(self, wanted: tuple[int, ...] = ()) -> FileClasses:
        classes = classes_of(self.particles)
        self.notes += classes.notes
        self.absent = absent_classes(classes.numbers, wanted) or ""
        self.warnings += [self.absent] if self.absent else []
        return classes

    def _like(self, path: Path) -> Mask:
        other = open_particles(path, needs=("uid", "blob/"))
        self.notes += other.notes
        self.warnings += other.warnings
        ours = identities_of(self.particles, self.options.sources)
        theirs = identities_of(other, self.options.sources)
        match = match_rows(ours, theirs)
        reverse = match_rows(theirs, ours).rows >= 0
        self.notes += [*match.notes, f"particles are compared by {match.by}"]
        self.warnings += match.warnings
        if not reverse.all():
            missing = int(np.count_nonzero(~reverse))
            self.notes.append(
                f"{missing:,} of {len(other):,} rows of {path.name} are not in {self.particles.metadata.name}"
            )
        return match.rows >= 0

    def _draw(self, choice: _Choice) -> None:
        """Keep the rows with the smallest random numbers, so that fewer rows of one seed are among more of them."""
        n_wanted = self.options.random
        if n_wanted is None:
            return
        rows = np.flatnonzero(choice.kept)
        if n_wanted > len(rows):
            raise CryobridgeError(
                f"{n_wanted:,} rows are to be drawn, {len(rows):,} are there",
                path=self.particles.metadata,
                hint="Ask for fewer with --random.",
            )
        numbers = np.random.Generator(np.random.PCG64(self.options.seed)).random(len(rows))
        drawn = np.zeros(len(self.particles), dtype=bool)
        drawn[rows[np.argsort(numbers, kind="stable")[:n_wanted]]] = True
        choice.keep(drawn, "not drawn")

    def _refuse_empty(self, choice: _Choice) -> None:
        if choice.kept.any() or self.options.allow_empty:
            return
        reasons = [f"{count:,} {reason}" for reason, count in choice.left_out.items() if count]
        reasons += [self.absent] if self.absent else []
        raise MissingDataError(
            f"no row is left to write ({'; '.join(reasons) or 'the file has none'})",
            path=self.particles.metadata,
            hint="Ask for less; --allow-empty writes a file without rows.",
        )

    def _added(self, attached: RowLabels | None, latent: Floats | None) -> dict[str, Values]:
        added: dict[str, Values] = {}
        if attached is not None:
            columns, told = class_columns(self.particles, attached.labels)
            added |= columns
            self.notes += told
        if latent is not None:
            columns, told = latent_columns(self.particles, latent)
            added |= columns
            self.notes += told
        return added

    def _one_part(self, output: Path | None, choice: _Choice) -> tuple[OutputPart, ...]:
        assert output is not None  # there is no folder
        suffixes = suffixes_of(self.particles)
        if output.suffix not in suffixes:
            raise UsageError(
                f"a selection of {self.particles.metadata.name} is a {' or '.join(suffixes)} file",
                path=output,
                hint="Give -o a name with that suffix; `cryobridge convert` changes the format.",
            )
        return (OutputPart(output, choice.kept),)

    def _split(self, folder: Path, kept: Mask, labels: RowLabels | None) -> tuple[OutputPart, ...]:
        """Return a file for each label, or for each class of the file where there are no labels."""
        word, numbers = ("cluster", labels.labels) if labels is not None else ("class", self._file_classes().numbers)
        stem, suffix = self.particles.metadata.stem, suffixes_of(self.particles)[0]
        present = np.unique(numbers[kept])
        if len(present) > _MAX_FILES:
            raise CryobridgeError(
                f"there are {len(present):,} classes, a file for each would be too many",
                path=self.particles.metadata,
                hint="Choose some of them first, with --class or --clusters.",
            )
        return tuple(
            OutputPart(folder / f"{stem}_{word}{number:03d}{suffix}", kept & (numbers == number), int(number))
            for number in present
        )


def _opened(path: Path | None, options: SelectOptions) -> ParticleFiles:
    """Open the particle file that is named, or that of the run."""
    assert path is not None  # the caller has seen to it
    if (options.passthroughs or not options.join) and not path.is_dir() and identify_file(path) != CS:
        name = "--passthrough" if options.passthroughs else "--no-passthrough"
        raise UsageError(f"{name} is for a .cs file", path=path, hint=f"Leave {name} out.")
    particles = open_particles(path, *options.passthroughs, join=options.join and not options.passthroughs)
    if particles.table is None:
        raise UsageError(
            "not a particle file, but a stack of images",
            path=path,
            hint="Give a .star, .cs or .csg file with one row a particle, or a job folder.",
        )
    return particles


def _where_images_are(particles: ParticleFiles, kept: Mask, folder: Path) -> Message | None:
    """Say which stacks are not found, or else how they are found if not from the output."""
    names, search = particles.image_files(kept), ImageSearch(particles.metadata)
    lost = not_found(names, search)
    found = search.resolve(names[0]) if names else None
    if lost or found is None:
        return lost
    return names_lead_elsewhere(names[0], found, folder / particles.metadata.name, particles.metadata)
