"""Planning a selection: which rows stay and why the others go, before the first byte is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import UsageError, option
from cryobridge.formats.classes import absent_classes
from cryobridge.formats.cryosparc.names import holds_exposures
from cryobridge.formats.in_memory import SetInMemory
from cryobridge.formats.merged import check_rows, found_from
from cryobridge.formats.particle_files import ParticleFiles, naming_damage
from cryobridge.formats.recovar import open_recovar
from cryobridge.formats.write import Changes, outputs_of
from cryobridge.jobs.identity.dedupe import Deduped, deduped
from cryobridge.jobs.identity.report import Matched
from cryobridge.jobs.selection.attach import attached_columns
from cryobridge.jobs.selection.choice import Choice, Mask
from cryobridge.jobs.selection.classes import FileClasses, classes_of
from cryobridge.jobs.selection.collapse import Collapsed, collapse
from cryobridge.jobs.selection.inputs import opened
from cryobridge.jobs.selection.like import rows_like
from cryobridge.jobs.selection.options import SelectOptions
from cryobridge.jobs.selection.parts import OutputPart, one_part, parts_of_classes
from cryobridge.jobs.selection.report import SelectReport, SetReport
from cryobridge.jobs.selection.row_values import RowValues
from cryobridge.jobs.selection.run import RunOfRows, rows_of_run
from cryobridge.jobs.selection.sets import Compared, compare, nothing_in, unite
from cryobridge.jobs.selection.values import RowLabels, checked_list, join_numbers, read_rows
from cryobridge.jobs.selection.where import rows_where
from cryobridge.model.particles import ParticleSet
from cryobridge.options import as_path
from cryobridge.report import Message, distinct, note

if TYPE_CHECKING:
    import os

    from cryobridge.formats.recovar import RecovarRun
    from cryobridge.model.particles import Floats


@dataclass(frozen=True, eq=False)
class SelectPlan:
    """A choice of rows, and everything needed to write it.

    Attributes
    ----------
    particles
        What is chosen from.
    options
        What was asked for.
    kept
        (n,) whether a row is kept.
    parts
        What is written: one file, or one for each class; nothing for a choice in memory.
    left_out
        Rows that are not kept, by reason.
    changes
        Columns (n,) that are added or replaced, and those that are left out for them.
    attached
        (n,) the labels that are attached as classes, or None.
    messages
        Notes and warnings.
    inputs
        All files that are read.
    collapsed
        Which copy of each particle stays; None where that is not asked.
    matched
        How its particles were compared with another file's; None where they were not.
    sets
        The same for files that particles are added from, have to be in, or may not be in.
    deduped
        Which particles stay of those that lie near each other; None where that is not asked.
    """

    particles: ParticleFiles
    options: SelectOptions
    kept: Mask
    parts: tuple[OutputPart, ...]
    left_out: dict[str, int]
    changes: Changes
    attached: NDArray[np.int64] | None
    messages: tuple[Message, ...]
    inputs: tuple[Path, ...]
    collapsed: Collapsed | None = None
    matched: Matched | None = None
    sets: tuple[SetReport, ...] = ()
    deduped: Deduped | None = None

    def outputs(self) -> list[Path]:
        """Return all files that are written."""
        return [path for part in self.parts for path in outputs_of(self.particles, part.path)]

    def report(self) -> SelectReport:
        """Return what will be written."""
        is_drawn = self.options.random is not None
        return SelectReport(
            rows_in=self.particles.n_rows,
            rows_out=int(np.count_nonzero(self.kept)),
            left_out=self.left_out,
            messages=self.messages,
            outputs=tuple(self.outputs()),
            inputs=self.inputs,
            attached=tuple(self.changes.added),
            files={str(part.path): int(np.count_nonzero(part.kept)) for part in self.parts},
            rows_are=_kind_of_rows(self.particles),
            random=self.options.random,
            seed=self.options.seed if is_drawn else None,
            collapsed=None if self.collapsed is None else self.collapsed.report,
            from_ancestors=self.particles.from_ancestors,
            matched=self.matched,
            sets=self.sets,
            dedupe_A=self.options.dedupe_A,
            ranked_by=None if self.deduped is None else self.deduped.ranked_by,
        )


def _kind_of_rows(files: ParticleFiles) -> Literal["particles", "exposures", "micrographs"]:
    if files.star is not None:
        return "micrographs" if files.star.main == "micrographs" else "particles"
    return "exposures" if files.table is not None and holds_exposures(files.table.names) else "particles"


def plan_select(
    particles: str | os.PathLike[str] | None, output: str | os.PathLike[str] | None, options: SelectOptions
) -> SelectPlan:
    """Read what decides on the rows, and work out what is to be written.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file or a job folder; None for the particles of ``options.run``.
    output
        The file to write, of the same program; None with ``options.split_by_class``.
    options
        What is asked for.

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
    >>> plan = plan_select("run_data.star", "good.star", SelectOptions(classes=(1, 4)))
    >>> plan.report().rows_out
    120
    """
    path = None if particles is None else as_path(particles, "particles")
    file = None if output is None else as_path(output, "output")
    options.refuse_contradictions()
    if (file is None) == (options.split_by_class is None):
        hint = f"Give {option('output', 'FILE')}, or {option('split_by_class', 'DIR')}."
        raise UsageError("one place to write to is needed", hint=hint)
    planner = _Planner(path, options)
    folder = options.split_by_class if file is None else file.parent
    assert folder is not None  # one of the two is given
    with naming_damage(planner.particles):
        planner.choose(splits=file is None)
    kept = planner.choice.kept
    if file is None:
        parts = parts_of_classes(planner.particles, kept, folder, *planner.numbers_to_split_by())
    else:
        parts = one_part(planner.particles, kept, file)
    planner.look_for_images(folder)
    return planner.plan(parts)


def plan_choice(particles: str | os.PathLike[str] | ParticleSet | None, options: SelectOptions) -> SelectPlan:
    """Read what decides on the rows, for a choice that is not written; raises as `plan_select` does."""
    options.refuse_contradictions()
    planner = _Planner(particles, options)
    with naming_damage(planner.particles):
        planner.choose(splits=False)
    return planner.plan(())


class _Planner:
    """Looks at one request after the other."""

    def __init__(self, particles: object, options: SelectOptions) -> None:
        self.options = options
        self.recovar: RecovarRun | None = open_recovar(options.run) if options.run is not None else None
        self.particles = opened(options.run if particles is None else particles, options)
        self.compared: list[Compared] = []
        if options.or_:
            if isinstance(self.particles, SetInMemory):
                hint = "Give the file that it was read from, or unite sets as first + other."
                raise UsageError("particles of files are added to those of a file", option="or_", hint=hint)
            same = SelectOptions(from_ancestors=options.from_ancestors)
            others = [opened(path, same, argument="or_") for path in options.or_]
            united = unite(self.particles, others, options)
            self.particles, self.compared = united.particles, list(united.stays)
        self.messages = list(self.particles.messages)
        self.absent: Message | None = None
        self.run: RunOfRows | None = None
        if self.recovar is not None and options.run is not None:
            self.run = rows_of_run(options.run, self.recovar, self.particles, options.sources)
            self.messages += self.run.messages
        self.values = RowValues(options, self.particles, self.run)
        self.choice = Choice(self.particles.metadata, np.ones(len(self.particles), dtype=bool))
        self.labels: RowLabels | None = None
        self.attached: RowLabels | None = None
        self.latent: Floats | None = None
        self.collapsed: Collapsed | None = None
        self.deduped: Deduped | None = None
        self.matched: Matched | None = None

    def choose(self, *, splits: bool) -> None:
        """Work out which rows are kept."""
        choice = self.choice
        self.labels = self.values.labels(splits=splits)
        self.attached, self.latent = self.values.attached_labels(), self.values.latent()
        self.messages += self.values.messages
        for united in self.compared:
            self.messages += united.messages
            choice.keep(united.rows, f"of {Path(united.report.file).name}, in a file before it too")
        if self.run is not None:
            choice.keep(self.run.place >= 0, "not in the run")
        for values in (self.labels, self.attached):
            if values is not None:
                choice.keep(values.labels >= 0, f"no label in {values.source}")
        if self.latent is not None:
            choice.keep(np.asarray(np.isfinite(self.latent).all(axis=1)), "no latent coordinates")
        possible, impossible = choice.kept, dict(choice.left_out)
        for fulfil, reason in self._requests():
            choice.keep(fulfil, reason)
        if self.options.collapse:
            self.collapsed = collapse(self.particles, choice.kept, first=self.options.first)
            self.messages += self.collapsed.messages
            choice.keep(self.collapsed.kept, "other copies of a particle")
        if self.options.dedupe_A is not None:
            self.deduped = deduped(self.particles, choice.kept, self.options.dedupe_A)
            self.messages += self.deduped.messages
            choice.keep(self.deduped.kept, f"nearer than {self.options.dedupe_A:g} Å to a better one")
        if self.options.random is not None:
            choice.draw(self.options.random, self.options.seed)
        if self.options.invert:
            choice.invert(possible)
            choice.left_out |= impossible
        if not self.options.allow_empty:
            choice.refuse_empty(*([str(self.absent)] if self.absent else []))

    def plan(self, parts: tuple[OutputPart, ...]) -> SelectPlan:
        """Return the plan."""
        changes = self._attached_columns() if parts else Changes()
        self._check_for_relion(parts)
        left_out = {**self.particles.left_out, **self.choice.left_out}
        run_file = (self.recovar.particles_file,) if self.recovar is not None and self.recovar.particles_file else ()
        inputs = tuple(dict.fromkeys((*self.particles.files, *self.options.files, *run_file)))
        attached = None if self.attached is None else self.attached.labels
        return SelectPlan(
            self.particles,
            self.options,
            self.choice.kept,
            parts,
            left_out,
            changes,
            attached,
            distinct(self.messages),
            inputs,
            self.collapsed,
            self.matched,
            tuple(found.report for found in self.compared),
            self.deduped,
        )

    def _check_for_relion(self, parts: tuple[OutputPart, ...]) -> None:
        """Ask the rules of what RELION takes before a STAR file is written."""
        for part in parts:
            self.messages += check_rows(self.particles, part.kept)

    def _requests(self) -> Iterator[tuple[Mask, str]]:
        """Yield for each request which rows fulfil it, (n,), and what the others are."""
        options = self.options
        if options.rows is not None:
            name = options.rows.name if isinstance(options.rows, Path) else "the list"
            yield self._listed(name), f"not in {name}"
        if options.clusters is not None:
            yield self._of_clusters(options.clusters), f"in other clusters than {join_numbers(options.clusters)}"
        if options.classes is not None:
            numbers = self._file_classes(options.classes).numbers
            yield np.isin(numbers, options.classes), f"in other classes than {join_numbers(options.classes)}"
        if options.like is not None:
            other = opened(options.like, SelectOptions(), argument="like", needs=("uid", "blob/"))
            is_like: Mask
            if options.allow_empty and not len(other):
                self.messages.append(nothing_in(other, "like"))
                is_like = np.zeros(len(self.particles), dtype=bool)
            else:
                is_like, self.matched, messages = rows_like(self.particles, other, options)
                self.messages += messages
            yield is_like, f"not in {other.path.name}"
        yield from self._sets()
        if options.where is not None:
            yield rows_where(options.where, self.particles.columns), f"for which {options.where} does not hold"

    def _sets(self) -> Iterator[tuple[Mask, str]]:
        """Yield the same for files that have to have a particle, and then for those that may not."""
        operations: tuple[Literal["and", "not"], ...] = ("and", "not")
        for operation in operations:
            for path in self.options.and_ if operation == "and" else self.options.not_:
                other = opened(path, SelectOptions(), argument=f"{operation}_", needs=("uid", "blob/"))
                found = compare(self.particles, other, self.options, operation, allow_empty=self.options.allow_empty)
                self.compared.append(found)
                self.messages += found.messages
                is_and, name = operation == "and", other.path.name
                yield (found.rows, f"not in {name}") if is_and else (~found.rows, f"in {name}")

    def _listed(self, name: str) -> Mask:
        given, particles = self.options.rows, self.particles
        if isinstance(given, Path):
            rows = read_rows(given, particles.n_rows, particles.metadata)
        else:
            rows = checked_list(given, particles.n_rows, particles.metadata)
        if (np.diff(rows) < 0).any():
            text = f"{name} is not in ascending order; rows are written in the order of the particle file"
            self.messages.append(note("rows-sorted", text, option="rows"))
        listed = np.zeros(particles.n_rows, dtype=bool)
        listed[rows] = True
        of_rows: Mask = listed[particles.file_rows]
        return of_rows

    def _of_clusters(self, clusters: tuple[int, ...]) -> Mask:
        labels = self.labels
        assert labels is not None  # refused as a contradiction
        if max(clusters, default=-1) >= labels.n_labels:
            raise UsageError(
                f"there is no cluster {max(clusters)}: {labels.source} has {labels.n_labels}, counted from 0",
                hint=f"Give {option('clusters')} numbers from 0 to {labels.n_labels - 1}.",
            )
        return np.isin(labels.labels, clusters)

    def _file_classes(self, wanted: tuple[int, ...] = ()) -> FileClasses:
        classes = classes_of(self.particles)
        self.absent = absent_classes(classes.numbers, wanted)
        self.messages += [*classes.messages, *([self.absent] if self.absent else [])]
        return classes

    def _attached_columns(self) -> Changes:
        labels = None if self.attached is None else self.attached.labels
        changes, messages = attached_columns(self.particles, labels, self.latent)
        self.messages += messages
        return changes

    def numbers_to_split_by(self) -> tuple[NDArray[np.int64], str]:
        """Return the labels of rows, (n,), or the classes of the file where there are none; and what they are."""
        labels = self.attached or self.labels
        return (self._file_classes().numbers, "class") if labels is None else (labels.labels, "cluster")

    def look_for_images(self, folder: Path) -> None:
        """Warn of stacks that are not found, or else say how they are found if not from the output."""
        self.messages += found_from(self.particles, self.choice.kept, folder)
