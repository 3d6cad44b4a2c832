"""Carrying a conversion out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.convert.micrographs import MICROGRAPHS_STAR
from cryobridge.convert.names import is_made, make_links
from cryobridge.convert.plan import plan_convert
from cryobridge.errors import FormatError, UsageError
from cryobridge.formats.atomic import together
from cryobridge.formats.cryosparc.particles_write import CsContent, write_cs_content
from cryobridge.formats.particles_pickle import PickleContent, write_pickles
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobdir import make_folder, refuse_existing, require_space
from cryobridge.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryobridge.convert.names import Link
    from cryobridge.convert.options import ConvertOptions
    from cryobridge.convert.plan import ConvertPlan
    from cryobridge.formats.relion.star import StarBlock
    from cryobridge.formats.relion.star_write import write_star
    from cryobridge.progress import Reporter


def convert(
    inputs: Sequence[Path], output: Path, options: ConvertOptions, *, overwrite: bool = False
) -> dict[str, Any]:
    """Convert particles and return the report (see `plan_convert` and `write_plan`)."""
    plan = plan_convert(inputs, output, options)
    write_plan(plan, overwrite=overwrite)
    return plan.report()


def check_outputs(plan: ConvertPlan, *, overwrite: bool) -> None:
    """Refuse outputs that are there, unless they may be replaced; an input is never replaced.

    Raises
    ------
    OutputExistsError
        If an output exists.
    UsageError
        If an output is one of the inputs.
    """
    inputs = {path.resolve() for path in plan.source.files}
    same = next((path for path in plan.outputs() if path.resolve() in inputs), None)
    if same is not None:
        raise UsageError("the output is one of the inputs", path=same, hint="Give it another name with -o.")
    new_links = [link.path for link in plan.links if not is_made(link, copy=plan.options.copy)]
    refuse_existing([*plan.outputs(), *new_links], overwrite=overwrite)


def write_plan(plan: ConvertPlan, *, overwrite: bool = False, reporter: Reporter | None = None) -> None:
    """Write the output of a plan: links first, so that a STAR file never names a stack that is not there.

    Raises
    ------
    CryobridgeError
        If an output exists and may not be replaced, or can't be written.
    """
    reporter = reporter or Silent()
    check_outputs(plan, overwrite=overwrite)
    new_links = [link for link in plan.links if not is_made(link, copy=plan.options.copy)]
    if new_links:
        if plan.options.copy:
            _require_space(new_links)
        reporter.start("copying stacks" if plan.options.copy else "linking stacks", len(new_links))
        make_links(new_links, copy=plan.options.copy, reporter=reporter)
    folder = plan.output if isinstance(plan.content, PickleContent) else plan.output.parent
    make_folder(folder)
    with together():
        if isinstance(plan.content, PickleContent):
            write_pickles(plan.output, plan.content)
        elif isinstance(plan.content, CsContent):
            title = f"Particles of {plan.source.files[0].name}"
            write_cs_content(plan.output, plan.content, len(plan.rows), title)
        else:
            _write_star(plan.output, plan.content.blocks)
            if plan.micrographs is not None:
                _write_star(plan.output.with_name(MICROGRAPHS_STAR), plan.micrographs)


def _require_space(links: Sequence[Link]) -> None:
    n_bytes = sum(link.target.stat().st_size for link in links if link.target.is_file())
    require_space(links[0].path.parent, n_bytes, "Make room, or leave --copy out: links need no space.")


def _write_star(path: Path, blocks: Iterable[StarBlock]) -> None:
    try:
        write_star(path, blocks)
    except ValueError as error:  # a text that STAR has no word for
        raise FormatError(str(error), path=path, hint="Rename that file in the input.") from error
