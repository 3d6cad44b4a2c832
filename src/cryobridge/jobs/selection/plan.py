"""Planning a selection: which rows stay and why the others go, before the first byte is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, option
from cryobridge.formats.classes import absent_classes
from cryobridge.formats.cryosparc.names import holds_exposures
from cryobridge.formats.in_memory import SetInMemory
from cryobridge.formats.merged import check_rows, found_from
from cryobridge.formats.open import open_particles
from cryobridge.formats.particle_files import ParticleFiles, naming_damage
from cryobridge.formats.recovar import open_recovar
from cryobridge.formats.registry import CS, identify_file
from cryobridge.formats.write import outputs_of, suffixes_of
from cryobridge.jobs.identity.dedupe import Deduped, deduped
from cryobridge.jobs.identity.report import Matched
from cryobridge.jobs.selection.attach import class_columns, latent_columns
from cryobridge.jobs.selection.classes import FileClasses, classes_of
from cryobridge.jobs.selection.collapse import Collapsed, collapse
from cryobridge.jobs.selection.like import rows_like
from cryobridge.jobs.selection.options import SelectOptions
from cryobridge.jobs.selection.report import SelectReport, SetReport
from cryobridge.jobs.selection.row_values import RowValues
from cryobridge.jobs.selection.run import RunOfRows, rows_of_run
from cryobridge.jobs.selection.sets import Compared, compare, unite
from cryobridge.jobs.selection.values import RowLabels, join_numbers, read_rows
from cryobridge.jobs.selection.values import check_rows as check_numbers
from cryobridge.jobs.selection.where import rows_where
from cryobridge.model.particles import ParticleSet
from cryobridge.options import as_path
from cryobridge.report import Message, distinct, note

if TYPE_CHECKING:
    import os

    from cryobridge.formats.recovar import RecovarRun
    from cryobridge.formats.table import Values
    from cryobridge.model.particles import Floats

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
    added
        Columns (n,) that are added or replaced.
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
    added: dict[str, Values]
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
            attached=tuple(self.added),
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
        self.kept, self.left_out = possible & ~self.kept, {"chosen, and the others are kept": n_chosen}


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
    parts = planner.parts_of_classes(folder) if file is None else planner.one_part(file)
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
        self.particles = _opened(options.run if particles is None else particles, options)
        self.compared: list[Compared] = []
        if options.or_:
            if isinstance(self.particles, SetInMemory):
                hint = "Give the file that it was read from, or unite sets as first + other."
                raise UsageError("particles of files are added to those of a file", option="or_", hint=hint)
            same = SelectOptions(from_ancestors=options.from_ancestors)
            others = [_opened(path, same, argument="or_") for path in options.or_]
            united = unite(self.particles, others, options)
            self.particles, self.compared = united.particles, list(united.stays)
        self.messages = list(self.particles.messages)
        self.absent: Message | None = None
        self.run: RunOfRows | None = None
        if self.recovar is not None and options.run is not None:
            self.run = rows_of_run(options.run, self.recovar, self.particles, options.sources)
            self.messages += self.run.messages
        self.values = RowValues(options, self.particles, self.run)
        self.choice = _Choice(np.ones(len(self.particles), dtype=bool))
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
        self._draw()
        if self.options.invert:
            choice.invert(possible)
            choice.left_out |= impossible
        self._refuse_empty()

    def plan(self, parts: tuple[OutputPart, ...]) -> SelectPlan:
        """Return the plan."""
        added = self._added() if parts else {}
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
            added,
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
            other = _opened(options.like, SelectOptions(), argument="like", needs=("uid", "blob/"))
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
                other = _opened(path, SelectOptions(), argument=f"{operation}_", needs=("uid", "blob/"))
                found = compare(self.particles, other, self.options, operation)
                self.compared.append(found)
                self.messages += found.messages
                is_and, name = operation == "and", other.path.name
                yield (found.rows, f"not in {name}") if is_and else (~found.rows, f"in {name}")

    def _listed(self, name: str) -> Mask:
        given, particles = self.options.rows, self.particles
        if isinstance(given, Path):
            rows = read_rows(given, particles.n_rows, particles.metadata)
        else:
            rows = _checked_list(given, particles)
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

    def _draw(self) -> None:
        """Keep the rows with the smallest random numbers, so that fewer rows of one seed are among more of them."""
        n_wanted = self.options.random
        if n_wanted is None:
            return
        rows = np.flatnonzero(self.choice.kept)
        if n_wanted > len(rows):
            raise CryobridgeError(
                f"{n_wanted:,} rows are to be drawn, {len(rows):,} are there",
                path=self.particles.metadata,
                option="random",
                hint="Ask for fewer.",
            )
        numbers = np.random.Generator(np.random.PCG64(self.options.seed)).random(len(rows))
        drawn = np.zeros(len(self.particles), dtype=bool)
        drawn[rows[np.argsort(numbers, kind="stable")[:n_wanted]]] = True
        self.choice.keep(drawn, "not drawn")

    def _refuse_empty(self) -> None:
        if self.choice.kept.any() or self.options.allow_empty:
            return
        reasons = [f"{count:,} {reason}" for reason, count in self.choice.left_out.items() if count]
        reasons += [str(self.absent)] if self.absent else []
        raise MissingDataError(
            f"no row is left to write ({'; '.join(reasons) or 'the file has none'})",
            path=self.particles.metadata,
            hint=f"Ask for less; {option('allow_empty', True)} writes a file without rows.",
        )

    def _added(self) -> dict[str, Values]:
        added: dict[str, Values] = {}
        for columns, messages in (
            *([class_columns(self.particles, self.attached.labels)] if self.attached is not None else []),
            *([latent_columns(self.particles, self.latent)] if self.latent is not None else []),
        ):
            added |= columns
            self.messages += messages
        return added

    def one_part(self, output: Path) -> tuple[OutputPart, ...]:
        """Return the one file that is written."""
        suffixes = suffixes_of(self.particles)
        if output.suffix not in suffixes:
            raise UsageError(
                f"a selection of {self.particles.metadata.name} is a {' or '.join(suffixes)} file",
                path=output,
                hint=f"Give {option('output')} a name with that suffix; `cryobridge convert` changes the format.",
            )
        return (OutputPart(output, self.choice.kept),)

    def parts_of_classes(self, folder: Path) -> tuple[OutputPart, ...]:
        """Return a file for each label, or for each class of the file where there are no labels."""
        labels, kept = self.attached or self.labels, self.choice.kept
        word, numbers = ("cluster", labels.labels) if labels is not None else ("class", self._file_classes().numbers)
        stem, suffix = self.particles.metadata.stem, suffixes_of(self.particles)[0]
        present = np.unique(numbers[kept])
        if len(present) > _MAX_FILES:
            raise CryobridgeError(
                f"there are {len(present):,} classes, a file for each would be too many",
                path=self.particles.metadata,
                hint=f"Choose some of them first, with {option('classes')} or {option('clusters')}.",
            )
        return tuple(
            OutputPart(folder / f"{stem}_{word}{number:03d}{suffix}", kept & (numbers == number), int(number))
            for number in present
        )

    def look_for_images(self, folder: Path) -> None:
        """Warn of stacks that are not found, or else say how they are found if not from the output."""
        self.messages += found_from(self.particles, self.choice.kept, folder)


def _checked_list(given: object, particles: ParticleFiles) -> NDArray[np.int64]:
    """Return row numbers that were given in Python."""
    if not isinstance(given, Iterable):
        raise UsageError(f"row numbers are needed, not {given!r:.60}", option="rows", hint="Give a list or an array.")
    array = given if isinstance(given, np.ndarray) else np.array(list(given))
    try:
        array = array if array.size else array.astype(np.int64)
        return check_numbers(array, None, particles.n_rows, particles.metadata)
    except CryobridgeError as error:
        error.option = "rows"
        raise


def _opened(
    particles: object, options: SelectOptions, *, argument: str = "particles", needs: tuple[str, ...] = ()
) -> ParticleFiles:
    """Open particle files; a set in memory is seen as one."""
    if isinstance(particles, ParticleSet):
        options.refuse_ancestors_of_set()
        return SetInMemory(particles)
    if particles is None:
        hint = f"Name a file such as PARTICLES.star, or a run with {option('run', 'RUNDIR')}."
        raise UsageError("no particle file is named", hint=hint)
    path = as_path(particles, argument)
    name = "passthroughs" if options.passthroughs else "no_passthrough"
    if (options.passthroughs or options.no_passthrough) and not path.is_dir() and identify_file(path) != CS:
        raise UsageError(f"{option(name)} is for a .cs file", path=path, hint=f"Leave {option(name)} out.")
    join = not (options.no_passthrough or options.passthroughs)
    files = open_particles(path, *options.passthroughs, join=join, needs=needs, from_ancestors=options.from_ancestors)
    if files.table is None:
        raise UsageError(
            "not a particle file, but a stack of images",
            path=path,
            hint="Give a .star, .cs or .csg file with one row a particle, or a job folder.",
        )
    return files
