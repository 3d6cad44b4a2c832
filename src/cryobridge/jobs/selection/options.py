"""What a selection is asked for, and which requests contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cryobridge.errors import UsageError, option
from cryobridge.jobs.offers import class_lists, conditions
from cryobridge.jobs.shared_options import AncestorOptions, DedupeOptions, MatchOptions
from cryobridge.options import Opt

# Given for a file of labels or coordinates, it means those of the run.
OF_THE_RUN = Path("run")
_ROWS, _RUN, _ATTACH, _INPUT, _OUTPUT = "Which rows", "RECOVAR and cryoDRGN", "Added columns", "Input", "Output"


@dataclass(frozen=True, kw_only=True)
class SelectOptions(DedupeOptions, MatchOptions, AncestorOptions):
    """What is asked for; a row is kept that fulfils all of it. None stands for what is not asked.

    Raises
    ------
    UsageError
        If a value is of another type, or out of bounds, or the condition is none.

    Examples
    --------
    >>> SelectOptions(classes=(1, 4), where="rlnDefocusU > 12000")
    """

    where: Annotated[
        str | None,
        Opt(
            "Keep rows that fulfil this, such as 'rlnDefocusU > 12000'.",
            metavar="CONDITION",
            panel=_ROWS,
            complete=conditions,
        ),
    ] = None
    classes: Annotated[
        tuple[int, ...] | None,
        Opt(
            "Keep these classes, numbered as in the input. Repeatable.",
            flags=("--class",),
            metavar="N,N",
            panel=_ROWS,
            low=0,
            complete=class_lists,
        ),
    ] = None
    like: Annotated[
        Path | Sized | None, Opt("Keep particles that are in this .star or .cs file too.", metavar="FILE", panel=_ROWS)
    ] = None
    and_: Annotated[
        tuple[Path | Sized, ...],
        Opt(
            "Keep only particles that are in this file too. Repeatable.", flags=("--and",), metavar="FILE", panel=_ROWS
        ),
    ] = ()
    or_: Annotated[
        tuple[Path, ...],
        Opt("Add the particles of this file. Repeatable.", flags=("--or",), metavar="FILE", panel=_ROWS),
    ] = ()
    not_: Annotated[
        tuple[Path | Sized, ...],
        Opt("Leave out particles that are in this file. Repeatable.", flags=("--not",), metavar="FILE", panel=_ROWS),
    ] = ()
    rows: Annotated[
        Path | Iterable[int] | None,
        Opt("Keep these rows, counted from 0: .pkl, .npy or .txt.", flags=("--ind",), metavar="FILE", panel=_ROWS),
    ] = None
    random: Annotated[
        int | None, Opt("Keep N of the chosen particles, drawn at random.", metavar="N", panel=_ROWS, low=1)
    ] = None
    seed: Annotated[int, Opt("Seed of the random choice.", metavar="N", panel=_ROWS, low=0)] = 0
    invert: Annotated[bool, Opt("Keep what would be left out.", panel=_ROWS)] = False
    collapse: Annotated[bool, Opt("Keep the best copy of each particle, after symmetry expansion.", panel=_ROWS)] = (
        False
    )
    first: Annotated[bool, Opt("Keep the first copy instead of the best one.", panel=_ROWS)] = False
    run: Annotated[
        Path | None, Opt("RECOVAR run whose particles, rows and clusters are taken.", metavar="RUNDIR", panel=_RUN)
    ] = None
    zdim: Annotated[
        int | None, Opt("Number of latent dimensions of the run's clusters.", metavar="K", panel=_RUN, low=1)
    ] = None
    kmeans: Annotated[
        Path | None,
        Opt("Cluster of each particle: kmeans_result.pkl, or a list of numbers.", metavar="FILE", panel=_RUN),
    ] = None
    clusters: Annotated[
        tuple[int, ...] | None,
        Opt("Keep these clusters, counted from 0. Repeatable.", metavar="N,N", panel=_RUN, low=0),
    ] = None
    label_rows: Annotated[
        Path | None,
        Opt(
            "Rows of the particle file that clusters and coordinates belong to, if not all.", metavar="IND", panel=_RUN
        ),
    ] = None
    attach_class: Annotated[
        Path | None,
        Opt("Write the clusters of this file as classes; run: those of the run.", metavar="FILE", panel=_ATTACH),
    ] = None
    attach_latent: Annotated[
        Path | None,
        Opt("Write the latent coordinates of this file; run: those of the run.", metavar="FILE", panel=_ATTACH),
    ] = None
    split_by_class: Annotated[
        Path | None,
        Opt("Write a file for each class into this folder, instead of one output.", metavar="DIR", panel=_OUTPUT),
    ] = None
    allow_empty: Annotated[bool, Opt("Write a file even if no row is left.", panel=_OUTPUT)] = False
    verify: Annotated[bool, Opt("Check STAR outputs with an independent reader (starfile).", panel=_OUTPUT)] = False
    passthroughs: Annotated[
        tuple[Path, ...],
        Opt(
            "Passthrough file of a .cs, if it is not found beside it. Repeatable.",
            flags=("--passthrough",),
            metavar="FILE.cs",
            panel=_INPUT,
        ),
    ] = ()
    no_passthrough: Annotated[bool, Opt("Read a .cs file without its passthrough file.", panel=_INPUT)] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where is not None:
            from cryobridge.jobs.selection.where_text import parse_where

            parse_where(self.where)  # before a large file is read for it

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are named, besides the particles."""
        named: tuple[Any, ...] = (
            *(self.rows, self.kmeans, self.like, self.sources, self.label_rows),
            *(self.attach_class, self.attach_latent, *self.passthroughs, *self.and_, *self.or_, *self.not_),
        )
        return tuple(path for path in named if isinstance(path, Path) and path != OF_THE_RUN)

    @property
    def chooses(self) -> bool:
        """Whether anything is asked that rows could fail to fulfil."""
        asked = (self.rows, self.clusters, self.classes, self.like, self.where, self.random, self.run, self.dedupe_A)
        return self.collapse or bool(self.and_ or self.not_) or any(item is not None for item in asked)

    @property
    def attaches(self) -> bool:
        """Whether columns are added."""
        return self.attach_class is not None or self.attach_latent is not None

    def refuse_contradictions(self) -> None:
        """Refuse requests that contradict each other, ask for nothing, or hold no condition.

        Raises
        ------
        UsageError
            If there is one.
        """
        for is_wrong, message, hint in _contradictions(self):
            if is_wrong:
                raise UsageError(message, hint=hint)
        if self.where is not None:
            from cryobridge.jobs.selection.where_text import parse_where

            parse_where(self.where)


def _contradictions(o: SelectOptions) -> Iterable[tuple[bool, str, str]]:
    """Yield whether something is wrong, what it is, and what to do."""
    has_labels, splits = o.kmeans is not None or o.run is not None, o.split_by_class is not None
    run, the_run = option("run"), f"Name the run with {option('run', 'RUNDIR')}"
    yield (
        o.kmeans is not None and o.run is not None,
        f"{option('kmeans')} and {run} both name labels",
        f"{run} finds the labels of the run by itself: leave {option('kmeans')} out.",
    )
    yield (
        o.clusters is not None and not has_labels,
        f"{option('clusters')} needs the labels",
        f"Name them with {option('kmeans', 'kmeans_result.pkl')} or {option('run', 'RUNDIR')}; classes of the file "
        f"itself are {option('classes')}.",
    )
    yield (
        o.kmeans is not None and o.clusters is None and not splits,
        f"{option('kmeans')} without {option('clusters')} chooses nothing",
        f"Give {option('clusters', (0, 3))}; or write the labels with {option('attach_class')}, or a file for each "
        f"with {option('split_by_class')}.",
    )
    yield (
        o.zdim is not None and o.run is None,
        f"{option('zdim')} belongs to {run}",
        f"{the_run}, or leave {option('zdim')} out.",
    )
    yield (
        OF_THE_RUN in (o.attach_class, o.attach_latent) and o.run is None,
        "what is attached is that of the run, and no run is named",
        f"{the_run}, or the file to attach.",
    )
    yield (
        o.label_rows is not None and o.kmeans is None and not o.attaches,
        f"{option('label_rows')} belongs to {option('kmeans')}, {option('attach_class')} and {option('attach_latent')}",
        f"Leave it out; to choose rows by a list use {option('rows')}.",
    )
    yield (
        o.invert and not o.chooses,
        f"{option('invert')} without a choice keeps nothing",
        f"Leave {option('invert')} out.",
    )
    yield (
        o.first and not o.collapse,
        f"{option('first')} belongs to {option('collapse')}",
        f"Add {option('collapse', True)}, or leave {option('first')} out.",
    )
    yield (
        o.invert and o.collapse,
        f"{option('invert')} and {option('collapse')} contradict each other",
        f"Write what {option('invert')} keeps first, and collapse that.",
    )
    by_row = [
        name for name in ("rows", "kmeans", "run", "attach_class", "attach_latent") if getattr(o, name) is not None
    ]
    yield (
        bool(o.or_ and by_row),
        f"{' and '.join(map(option, by_row))} count the rows of one file, and {option('or_')} adds others",
        f"Choose from each file first, and unite what that gives with {option('or_')}.",
    )
    compares = o.like is not None or bool(o.and_ or o.or_ or o.not_)
    yield (
        o.sources is not None and not compares and o.run is None,
        f"{option('sources')} belongs to {option('like')} and {run}",
        f"Leave {option('sources')} out.",
    )
    of_places = ["within_A"] * (o.within_A is not None) + (list(o.given_by_hand) if o.by_hand is not None else [])
    yield (
        bool(of_places) and not compares,
        f"{' and '.join(map(option, of_places))} belong to {option('like')}, which compares positions",
        f"Leave {'it' if len(of_places) == 1 else 'them'} out.",
    )
    yield (
        bool(o.passthroughs) and o.no_passthrough,
        f"{option('passthroughs')} and {option('no_passthrough')} contradict each other",
        "Leave out either.",
    )
    yield (
        not (o.chooses or o.or_ or o.attaches or splits or o.from_ancestors),
        "nothing is asked for",
        f"Choose rows, for instance with {option('classes', (1, 4))} or {option('where', 'rlnDefocusU > 12000')}.",
    )
