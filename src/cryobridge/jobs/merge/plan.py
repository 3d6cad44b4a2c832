"""Planning a merge: which rows are written, before the first byte is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.formats.input_file import resolved
from cryobridge.formats.merged import MergedFiles, check_rows, found_from, merged_files, names_of
from cryobridge.formats.open import KINDS, open_particles
from cryobridge.formats.relion.star_check import require_starfile_reads
from cryobridge.formats.write import RowWriter, outputs_of, require_suffix
from cryobridge.jobs.identity.dedupe import deduped
from cryobridge.jobs.merge.clashes import refuse_clashes
from cryobridge.jobs.merge.halves import Halves, half_sets_of, split_halves
from cryobridge.jobs.merge.options import MergeOptions
from cryobridge.jobs.merge.report import MergeReport
from cryobridge.jobs.output_folder import refuse_existing, refuse_inputs, whole_files
from cryobridge.options import as_path
from cryobridge.progress import Silent
from cryobridge.report import Message, distinct

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.progress import Reporter


@dataclass(frozen=True, eq=False)
class MergeJob:
    """A merge that can be carried out.

    Attributes
    ----------
    files
        The files as one.
    options
        What was asked for.
    output
        The file to write.
    kept
        (n,) whether a row is written.
    left_out
        The others, by reason.
    halves
        New half sets, or None.
    ranked_by
        The column that says which particle is better, or None.
    messages
        Notes and warnings.
    """

    files: MergedFiles
    options: MergeOptions
    output: Path
    kept: NDArray[np.bool_]
    left_out: Mapping[str, int]
    halves: Halves | None
    ranked_by: str | None
    messages: tuple[Message, ...]

    def report(self) -> MergeReport:
        """Return what will be written."""
        n_rows = [int(np.count_nonzero(self.kept[start:stop])) for start, stop in pairwise(self.files.starts)]
        return MergeReport(
            rows_in=self.files.n_rows,
            rows_out=int(np.count_nonzero(self.kept)),
            left_out=self.left_out,
            messages=self.messages,
            outputs=outputs_of(self.files, self.output),
            inputs=self.files.files,
            merged=dict(zip(names_of(self.files.merged), n_rows, strict=True)),
            dropped=self.files.dropped,
            half_sets=self._half_sets(),
            halves_of=None if self.halves is None else self.halves.of,
            seed=self.options.split_halves,
            dedupe_A=self.options.dedupe_A,
            ranked_by=self.ranked_by,
        )

    def _half_sets(self) -> dict[str, int] | None:
        half_set = half_sets_of(self.files) if self.halves is None else self.halves.half_set
        if half_set is None:
            return None
        found, counts = np.unique(half_set[self.kept], return_counts=True)
        return {str(half): int(count) for half, count in zip(found, counts, strict=True)}

    def check(self, *, overwrite: bool = False) -> None:
        """Refuse to write over a file that is read, or over one that is there.

        Raises
        ------
        UsageError
            If an output is an input.
        OutputExistsError
            If an output is there already and ``overwrite`` is False.
        """
        outputs = outputs_of(self.files, self.output)
        refuse_inputs(outputs, self.files.files)
        refuse_existing(outputs, overwrite=overwrite)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> MergeReport:
        """Write the files, all or none, and read a STAR file back if that is asked for; raises as `check` does."""
        self.check(overwrite=overwrite)
        (reporter or Silent()).start("writing", None)
        with whole_files(outputs_of(self.files, self.output), overwrite=overwrite):
            RowWriter(self.files).write(self.output, self.kept, {} if self.halves is None else self.halves.columns)
        if self.options.verify and self.output.suffix == ".star":
            require_starfile_reads(self.output, int(self.kept.sum()))
        return self.report()


def plan_merge(
    particles: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], options: MergeOptions
) -> MergeJob:
    """Read what decides on the rows, and work out what is to be written.

    Parameters
    ----------
    particles
        Two or more `.star`, `.cs` or `.csg` files or job folders, all of one program.
    output
        The file to write, of the same program.
    options
        What is asked for.

    Raises
    ------
    UsageError
        If the files are of several programs or layouts, or one is named twice.
    CryobridgeError
        If a particle stands in more than one of them, or the files do not go together.

    Examples
    --------
    >>> from cryobridge.jobs.merge.options import MergeOptions
    >>> from cryobridge.jobs.merge.plan import plan_merge
    >>> plan_merge(["J42", "J57"], "both.cs", MergeOptions()).report().rows_out
    24000
    """
    path = as_path(output, "output")
    parts = _opened([as_path(item, "particles") for item in particles])
    files = merged_files(parts)
    assert isinstance(files, MergedFiles)  # there are several
    require_suffix(files, path, "these files make")
    kept: NDArray[np.bool_] = np.ones(len(files), bool)
    ranked_by = None
    left_out, messages = dict(files.left_out), list(files.messages)
    if options.dedupe_A is not None:
        found = deduped(files, kept, options.dedupe_A)
        kept, ranked_by = found.kept, found.ranked_by
        n_near = int(np.count_nonzero(~kept))
        left_out |= {f"nearer than {options.dedupe_A:g} Å to a better one": n_near} if n_near else {}
        messages += found.messages
    messages += refuse_clashes(files, kept)
    seed = options.split_halves
    halves = None if seed is None else split_halves(files, kept, seed, options.halves_of)
    for_relion = check_rows(files, kept)
    messages += for_relion if halves is None else halves.messages
    messages += found_from(files, kept, path.parent)
    return MergeJob(files, options, path, kept, left_out, halves, ranked_by, distinct(messages))


def _opened(paths: Sequence[Path]) -> list[ParticleFiles]:
    if len(paths) < 2:
        raise UsageError(
            "two or more particle files are needed",
            option="particles",
            hint="Name them one after the other: cryobridge merge A.star B.star -o C.star.",
        )
    parts = [open_particles(path) for path in paths]
    known: dict[Path, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        if part.table is None:
            raise UsageError("not a particle file, but a stack of images", path=path, hint=KINDS)
        same = known.setdefault(resolved(part.columns.path), path)
        if same is not path:
            raise UsageError(
                f"the particles of {part.columns.path.name} are named twice", path=path, hint="Name each file once."
            )
    return parts
