"""Whether the classes of a job settle: reading its iterations, writing what is known of them, and the report."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.formats.atomic import together
from cryobridge.formats.listing import list_folder
from cryobridge.jobs.converge.drawing import Pictures
from cryobridge.jobs.converge.files import find_iterations, require_iterations
from cryobridge.jobs.converge.follow import Follower
from cryobridge.jobs.converge.options import ConvergeOptions
from cryobridge.jobs.converge.outputs import OutputFile, OutputFiles
from cryobridge.jobs.converge.report import ConvergeReport
from cryobridge.jobs.converge.watch import watch
from cryobridge.jobs.job import carried_out
from cryobridge.jobs.output_folder import refuse_existing
from cryobridge.options import as_path, made, takes
from cryobridge.progress import Silent
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.jobs.converge.watch import Look
    from cryobridge.model.classification import History
    from cryobridge.progress import Reporter


@takes(ConvergeOptions)
def converge(
    job: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> ConvergeReport:
    """Read the iterations of a classification and judge whether its classes settle.

    Parameters
    ----------
    job
        A job folder of RELION or cryoSPARC.
    output
        The folder for log, tables and pictures; the job folder if not given, and none if one may only read that.
    overwrite
        Replace the files that ``html``, ``volatile`` and ``settled`` name; the others are always replaced.
    dry_run
        Read everything and write nothing.
    reporter
        What shows the progress.
    **options
        The fields of `ConvergeOptions`.

    Returns
    -------
    ConvergeReport
        ``verdict`` is the answer, ``history`` has the arrays behind it.

    Raises
    ------
    UsageError
        If an argument is of another type or out of bounds, or options contradict each other.
    MissingDataError
        If there is no iteration.
    CryobridgeError
        If the folder can't be read or written.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.converge("Class2D/job004", "convergence", threshold_percent=0.5, plots=False)
    >>> report.verdict.converged, report.history.iterations[-1].transitions
    """
    plan = plan_converge(job, output, made(ConvergeOptions, options))
    return carried_out(plan, overwrite=overwrite, dry_run=dry_run, reporter=reporter)


def plan_converge(
    job: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    options: ConvergeOptions | None = None,
    *,
    settle_s: float | None = None,
) -> ConvergePlan:
    """Return what is to be read and written, before anything is.

    Parameters
    ----------
    job, output
        As `converge` has them.
    options
        What is asked for.
    settle_s
        For how long a new file must be still, for a job that is followed while it runs; None for one that is not.

    Raises
    ------
    UsageError
        If a path is neither text nor path.
    FormatError
        If there is no such folder.
    """
    folder = as_path(job, "job")
    to = None if output is None else as_path(output, "output")
    list_folder(folder)
    return ConvergePlan(folder, to, options or ConvergeOptions(), settle_s)


class ConvergePlan:
    """A job folder with what is asked of it; `cryobridge.jobs.job.Plan`."""

    def __init__(self, folder: Path, output: Path | None, options: ConvergeOptions, settle_s: float | None) -> None:
        self.options = options
        self._is_watched, self._settle_s = settle_s is not None, settle_s or 0.0
        self.follower = Follower(folder, options.last_iteration, self._settle_s)
        self._pictures = Pictures()
        self._files = OutputFiles(
            folder if output is None else output,
            plots=options.plots,
            each=options.draws_each or self._is_watched,
            legacy_names=options.legacy_names,
            html=options.html,
            is_skipped=output is None and not os.access(folder, os.W_OK),
        )

    def check(self, *, overwrite: bool) -> None:
        """Refuse to replace files that the user named.

        Raises
        ------
        OutputExistsError
            If one is there, and ``overwrite`` is False.
        """
        refuse_existing(self.options.named_outputs, overwrite=overwrite)

    def run(self, *, overwrite: bool, reporter: Reporter) -> ConvergeReport:
        """Read all iterations that are there, write what is known of them, and return the report."""
        self.check(overwrite=overwrite)
        with self._pictures.beside():
            self._read(reporter, draws=True)
            # What is refused at the end is refused before anything is replaced.
            with together():
                self.write(self.follower.tracker.numbers, reporter)
                return self.finish(overwrite=overwrite)

    def report(self) -> ConvergeReport:
        """Read all iterations that are there and return what `run` would, without writing."""
        self._read(Silent())
        return self.finish(overwrite=False, dry_run=True)

    @contextmanager
    def watching(self, timeout_s: float | None, *, dry_run: bool = False) -> Iterator[Iterator[Look]]:
        """Follow the job until it ends: pictures are drawn in a process of its own until the block is left.

        Parameters
        ----------
        timeout_s
            For how long to look at most; None for ever.
        dry_run
            Whether nothing is written, so that nothing is drawn.

        Yields
        ------
        iterator of `cryobridge.jobs.converge.watch.Look`
            One a look; `write` writes what it found.
        """
        with self._pictures.beside():
            each = None if dry_run else self._draw_ahead
            yield watch(self.follower, self.options.last_iteration, self._settle_s, timeout_s, each)

    def history(self) -> History:
        """Return what was read so far, with the verdict."""
        return self.follower.history(self.options.rule)

    def write(self, numbers: Iterable[int], reporter: Reporter | None = None) -> None:
        """Write log, tables, page, and the pictures of these iterations.

        Raises
        ------
        CryobridgeError
            If a file can't be written.
        """
        self._files.write(self.history(), numbers, self._pictures, reporter)

    def finish(self, *, overwrite: bool, dry_run: bool = False) -> ConvergeReport:
        """Write the particles that were asked for and return the report.

        Parameters
        ----------
        overwrite
            Whether they may replace files.
        dry_run
            Whether nothing is written.

        Raises
        ------
        UsageError
            If particles of a cryoSPARC job are asked for.
        CryobridgeError
            If a file can't be written.
        """
        from cryobridge.jobs.converge.volatile import write_particles

        messages, files = self._split()
        if self._files.is_skipped:
            text = f"{self._files.folder} may only be read, so that no log, table or picture is written; "
            messages.append(warning("outputs-skipped", f"{text}{option('output', 'DIR')} writes them elsewhere"))
        for path, (source, chosen, _) in files.items() if not dry_run else ():
            refuse_existing([path], overwrite=overwrite)  # it may have appeared while the job was read
            with together() as remove:
                if chosen.any():
                    write_particles(source, chosen, path)
                else:
                    remove(path)
        written = [OutputFile(path, what) for path, (_, chosen, what) in files.items() if chosen.any()]
        if not self._is_watched:
            messages += self._awaited()
        return self._report(messages, written, dry_run=dry_run)

    def _read(self, reporter: Reporter, *, draws: bool = False) -> None:
        follower = self.follower
        reporter.start("reading", len(find_iterations(list_folder(follower.tracker.folder)).iterations))
        for _ in follower.look(is_final=True):
            reporter.advance()
            if draws:
                self._draw_ahead()
        if not follower.tracker.numbers:
            require_iterations(follower.files)
            if self.options.last_iteration == 0 and follower.errors:
                raise UsageError(
                    "in iteration 0, the start, no particle has a class", hint=f"Give a larger {option('iterations')}."
                )
            # That the start has no classes is as it should be: what is wrong with a later iteration goes first.
            faults = sorted(follower.errors.values(), key=lambda error: isinstance(error, MissingDataError))
            raise next(iter(faults), _none_so_early(follower))

    def _draw_ahead(self) -> None:
        if self._files.draws:
            so_far = self.follower.tracker.history(self.options.rule, final=self.follower.final)
            self._pictures.draw_ahead(so_far, each=self._files.draws_each)

    def _split(self) -> tuple[list[Message], dict[Path, tuple[Path, NDArray[Any], str]]]:
        """Return what is said of the files of particles, and of each its source, the rows that it takes, and a word."""
        options = self.options
        if options.volatile is None and options.settled is None:
            return [], {}
        from cryobridge.jobs.converge.volatile import is_volatile, require_star

        tracker = self.follower.tracker
        require_star(tracker.program)
        source, jumps = is_volatile(tracker, options.volatile_last, options.volatile_min)
        steps = min(options.volatile_last, len(tracker.numbers) - 1)
        messages: list[Message] = []
        files = {}
        for path, chosen, how_often in (
            (options.volatile, jumps, f"at least {options.volatile_min}"),
            (options.settled, ~jumps, f"fewer than {options.volatile_min}"),
        ):
            if path is None:
                continue
            what = f"changed class in {how_often} of the last {steps} steps"
            files[path] = source, chosen, f"particles that {what}"
            count = int(chosen.sum())
            if count:
                text = f"{path}: {count:,} of {counted(len(chosen), 'particle')}, those that {what}"
                messages.append(note("particles-chosen", text, where=path))
            else:
                text = f"{path} is not written: no particle {what}"
                messages.append(warning("no-particles-chosen", text, where=path))
        return messages, files

    def _awaited(self) -> list[Message]:
        last, limit = self.follower.tracker.last_iteration, self.options.last_iteration
        if last is None or limit is None or last.number >= limit:
            return []
        text = f"iterations after {last.number} are not there yet; {option('watch')} waits for them"
        return [note("iterations-awaited", text)]

    def _report(self, messages: list[Message], particles: list[OutputFile], *, dry_run: bool) -> ConvergeReport:
        tracker, history = self.follower.tracker, self.history()
        files = [*self._files.files(history, tracker.numbers), *particles] if history.iterations else []
        report = ConvergeReport.of(history, tracker.jumps(self.options.volatile_last), tuple(messages), tuple(files))
        return replace(report, dry_run=dry_run)


def _none_so_early(follower: Follower) -> UsageError:
    first = follower.files.iterations[0].number
    return UsageError(f"the first iteration that is there is {first}", hint=f"Give a larger {option('iterations')}.")
