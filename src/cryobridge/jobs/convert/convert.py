"""Carrying a conversion out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cryobridge.errors import option
from cryobridge.formats.cryosparc.particles_write import CsContent, write_cs_content
from cryobridge.formats.particles_pickle import PickleContent, write_pickles
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.convert.micrographs import micrographs_path
from cryobridge.jobs.convert.options import ConvertOptions
from cryobridge.jobs.convert.plan import plan_convert
from cryobridge.jobs.job import carried_out
from cryobridge.jobs.links import is_made, make_links
from cryobridge.jobs.micrographs.placement import refuse_contradicted
from cryobridge.jobs.output_folder import refuse_existing, refuse_inputs, require_space, whole_files
from cryobridge.options import as_path, made, takes
from cryobridge.progress import Silent

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryobridge.jobs.convert.map_check import MapSource
    from cryobridge.jobs.convert.plan import ConvertPlan
    from cryobridge.jobs.convert.report import ConvertReport
    from cryobridge.jobs.job import Job
    from cryobridge.jobs.links import Link
    from cryobridge.model.particles import ParticleSet
    from cryobridge.progress import Reporter


@takes(ConvertOptions)
def convert(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | ParticleSet,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> ConvertReport:
    """Carry particles from one program's files to another's.

    Parameters
    ----------
    inputs
        One file or folder, or several that belong together: a `.cs` file (its passthrough file is found), a `.csg`
        file, a job folder of cryoSPARC or RELION, a STAR file, or a stack with its pickles. A set in memory, too.
    output
        A `.star` or `.cs` file, or the folder for pickles.
    overwrite
        Replace outputs that are there.
    dry_run
        Check everything and write nothing.
    reporter
        Who hears of the progress.
    **options
        The fields of `ConvertOptions`.

    Returns
    -------
    ConvertReport
        What was done; its ``warnings`` say what may make the output wrong or unusable.

    Raises
    ------
    UsageError
        If options contradict one another or the files, or would do nothing.
    OutputExistsError
        If an output is there and may not be replaced.
    CryobridgeError
        If an input can't be read, or lacks what the output needs.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.convert("J4/J4_003_particles.cs", "particles.star")
    >>> report = cb.convert(["particles.mrcs", "poses.pkl", "ctf.pkl"], "particles.cs")
    >>> report = cb.convert("run_data.star", "pickles", to="pickles", classes=(1, 4))
    """
    given = made(ConvertOptions, options)
    job = convert_job(inputs, output, given, may_exist=overwrite, reporter=reporter)
    return carried_out(job, overwrite=overwrite, dry_run=dry_run, reporter=reporter)


def convert_job(
    inputs: Any,
    output: str | os.PathLike[str],
    options: ConvertOptions,
    *,
    may_exist: bool = True,
    reporter: Reporter | None = None,
) -> Job[ConvertReport]:
    """Plan a conversion, as `plan_convert` does; raises as `convert` does."""
    if options.onto is None:
        return ConvertJob(plan_convert(inputs, output, options, may_exist=may_exist, reporter=reporter))
    from cryobridge.jobs.convert.onto import OntoJob, plan_onto

    return OntoJob(plan_onto(inputs, as_path(output, "output"), options))


@dataclass(frozen=True)
class ConvertJob:
    """A conversion that can be carried out."""

    plan: ConvertPlan

    def report(self) -> ConvertReport:
        """Return what will be written."""
        return self.plan.report()

    def check(self, *, overwrite: bool = False) -> None:
        """Refuse outputs that can't be written; raises as `check_outputs` does."""
        check_outputs(self.plan, overwrite=overwrite)
        self._map_source()

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> ConvertReport:
        """Write the output, and read it back if that is asked for; raises as `write_plan` does."""
        reporter, options = reporter or Silent(), self.plan.options
        source = self._map_source()
        write_plan(self.plan, overwrite=overwrite, reporter=reporter)
        report = self.plan.report()
        if not options.verify and source is None:
            return report
        from cryobridge.jobs.convert.verify import read_back, verify

        reporter.start("reading back", None)
        found = read_back(self.plan)
        if options.verify:
            report = replace(report, verified=tuple(verify(self.plan, found)))
        if source is not None:
            reporter.start("comparing maps", None)
            report = replace(report, map_check=source.compared_with(found))
        return report

    def _map_source(self) -> MapSource | None:
        """Return what the map of the input is made of, if one is asked for; raises as `map_source` does."""
        if self.plan.options.verify_map is None:
            return None
        from cryobridge.jobs.convert.map_check import map_source

        return map_source(self.plan, self.plan.options.verify_map)


def check_outputs(plan: ConvertPlan, *, overwrite: bool) -> None:
    """Refuse outputs that are there, unless they may be replaced; an input is never replaced or removed.

    Raises
    ------
    OutputExistsError
        If an output exists.
    UsageError
        If an output is one of the inputs.
    OrientationError
        If the pixels contradict a placement that was set by hand.
    CryobridgeError
        If the disk has not enough space for copies.
    """
    if plan.mapped is not None:
        refuse_contradicted(plan.mapped.placement, plan.options)
    files = [*plan.outputs(), *plan.outdated()]
    named = [*([plan.options.micrographs] if plan.options.micrographs else []), *plan.options.optics_files]
    refuse_inputs(files, [*plan.source.files, *named])
    new_links = _new_links(plan)
    refuse_existing([*files, *(link.path for link in new_links)], overwrite=overwrite)
    if plan.options.copy and new_links:
        _require_space(new_links)


def write_plan(plan: ConvertPlan, *, overwrite: bool = False, reporter: Reporter | None = None) -> None:
    """Write the output of a plan: links first, so that a STAR file never names a stack that is not there.

    Parameters
    ----------
    plan
        As `cryobridge.jobs.convert.plan.plan_convert` returns it.
    overwrite
        Replace outputs that are there.
    reporter
        Who hears of the progress.

    Raises
    ------
    CryobridgeError
        If an output exists and may not be replaced, or can't be written.
    """
    reporter = reporter or Silent()
    check_outputs(plan, overwrite=overwrite)
    new_links = _new_links(plan)
    if new_links:
        reporter.start("copying stacks" if plan.options.copy else "linking stacks", len(new_links))
        make_links(new_links, copy=plan.options.copy, reporter=reporter)
    reporter.start("writing", None)
    with whole_files([*plan.outputs(), *plan.outdated()], overwrite=overwrite) as remove:
        if isinstance(plan.content, PickleContent):
            write_pickles(plan.output, plan.content)
        elif isinstance(plan.content, CsContent):
            title = f"Particles of {plan.source.files[0].name}"
            write_cs_content(plan.output, plan.content, len(plan.rows), title)
        else:
            write_star(plan.output, plan.content.blocks)
            if plan.micrographs is not None:
                write_star(micrographs_path(plan.output), plan.micrographs)
        for path in plan.outdated():
            remove(path)


def _new_links(plan: ConvertPlan) -> list[Link]:
    return [link for link in plan.links if not is_made(link, copy=plan.options.copy)]


def _require_space(links: Sequence[Link]) -> None:
    n_bytes = sum(link.target.stat().st_size for link in links if link.target.is_file())
    require_space(
        links[0].path.parent, n_bytes, f"Free some space, or leave out {option('copy', True)}: links need no space."
    )
