"""What a selection is asked for, and which requests contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryobridge.errors import UsageError
from cryobridge.options import as_path

# Given for a file of labels or coordinates, it means those of --run.
OF_THE_RUN = Path("run")


@dataclass(frozen=True)
class SelectOptions:
    """What is asked for; a row is kept that fulfils all of it.

    Parameters
    ----------
    ind
        A list of rows, counted from 0.
    kmeans, clusters
        Labels, one a row, and those to keep.
    classes
        Classes to keep, as the file's program counts them.
    like, sources
        Another particle file, of which particles are kept; and the table that traces a downsampled set to its source,
        where it is not found.
    where
        A condition on columns (see `where_text`).
    random, seed
        How many rows to draw of those that all else keeps.
    invert
        Keep the others.
    run, zdim
        A RECOVAR run, whose rows and labels are taken, and the latent dimension.
    label_rows
        The rows that labels and coordinates belong to, where a program was given only some.
    attach_class, attach_latent
        Labels and coordinates to write as columns; `OF_THE_RUN` for those of the run.
    passthroughs, join
        See `tables.open_particles`.
    allow_empty
        Write a file without rows where none is left.

    Raises
    ------
    UsageError
        If what is to be a file is neither a text nor a path.
    """

    ind: Path | None = None
    kmeans: Path | None = None
    clusters: tuple[int, ...] | None = None
    classes: tuple[int, ...] | None = None
    like: Path | None = None
    sources: Path | None = None
    where: str | None = None
    random: int | None = None
    seed: int = 0
    invert: bool = False
    run: Path | None = None
    zdim: int | None = None
    label_rows: Path | None = None
    attach_class: Path | None = None
    attach_latent: Path | None = None
    passthroughs: tuple[Path, ...] = ()
    join: bool = True
    allow_empty: bool = False

    def __post_init__(self) -> None:
        for name in ("ind", "kmeans", "like", "sources", "run", "label_rows", "attach_class", "attach_latent"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else as_path(value, name))
        several = (self.passthroughs,) if isinstance(self.passthroughs, str | Path) else self.passthroughs
        object.__setattr__(self, "passthroughs", tuple(as_path(path, "passthroughs") for path in several))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are named, besides the particles."""
        named = (self.ind, self.kmeans, self.like, self.sources, self.label_rows, self.attach_class, self.attach_latent)
        return tuple(path for path in (*named, *self.passthroughs) if path not in (None, OF_THE_RUN))

    @property
    def chooses(self) -> bool:
        """Whether anything is asked that rows could fail to fulfil."""
        asked = (self.ind, self.clusters, self.classes, self.like, self.where, self.random, self.run)
        return any(item is not None for item in asked)


def check_options(options: SelectOptions, *, splits: bool) -> None:
    """Refuse requests that contradict each other, or that ask for nothing.

    Raises
    ------
    UsageError
        If there is one.
    """
    o = options
    labelled = o.kmeans is not None or o.run is not None
    attaches = o.attach_class is not None or o.attach_latent is not None
    of_files = o.kmeans is not None or attaches
    faults = (
        (
            o.kmeans is not None and o.run is not None,
            "--kmeans and --run both name labels",
            "--run finds the labels of the run by itself: leave --kmeans out.",
        ),
        (
            o.clusters is not None and not labelled,
            "--clusters needs the labels",
            "Name them with --kmeans kmeans_result.pkl or --run RUNDIR; classes of the file itself are --class.",
        ),
        (
            o.kmeans is not None and o.clusters is None and not splits,
            "--kmeans without --clusters chooses nothing",
            "Give --clusters 0,3; or write the labels with --attach-class, or a file for each with --split-by-class.",
        ),
        (
            o.zdim is not None and o.run is None,
            "--zdim belongs to --run",
            "Name the run with --run RUNDIR, or leave --zdim out.",
        ),
        (
            OF_THE_RUN in (o.attach_class, o.attach_latent) and o.run is None,
            "what is attached is that of the run, and no run is named",
            "Name the run with --run RUNDIR, or the file to attach.",
        ),
        (
            o.label_rows is not None and not of_files,
            "--label-rows belongs to --kmeans, --attach-class and --attach-latent",
            "Leave it out; to choose rows by a list use --ind.",
        ),
        (o.invert and not o.chooses, "--invert without a choice keeps nothing", "Leave --invert out."),
        (
            o.sources is not None and o.like is None and o.run is None,
            "--sources belongs to --like and --run",
            "Leave --sources out.",
        ),
        (
            not (o.chooses or attaches or splits),
            "nothing is asked for",
            "Choose rows, for instance with --class 1,4 or --where 'rlnDefocusU > 12000'; -h lists all options.",
        ),
    )
    for is_wrong, message, hint in faults:
        if is_wrong:
            raise UsageError(message, hint=hint)
