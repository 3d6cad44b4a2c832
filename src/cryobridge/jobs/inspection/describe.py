"""Describing a file or folder: which description goes with which kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cryobridge.errors import UsageError, option
from cryobridge.formats import folders as folder_kinds
from cryobridge.formats import registry
from cryobridge.jobs.inspection import files, folders, projects, tables
from cryobridge.jobs.inspection.kinds import kind_of
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.report import Inspection
from cryobridge.options import as_path, made, takes
from cryobridge.progress import Reporter, Silent
from cryobridge.report import size_text

if TYPE_CHECKING:
    import os


def _inspect_recovar(path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
    from cryobridge.jobs.inspection.recovar import inspect_recovar  # late: its readers are for RECOVAR's files alone

    return inspect_recovar(path, options, reporter)


_Describe: TypeAlias = Callable[[Path, InspectOptions, Reporter], Inspection]
_FILES: dict[str, _Describe] = {
    registry.CS: tables.inspect_cs,
    registry.CSG: tables.inspect_csg,
    registry.STAR: tables.inspect_star,
    registry.MRC: files.inspect_mrc,
    registry.PICKLE: files.inspect_pickle,
    registry.NPY: files.inspect_arrays,
    registry.NPZ: files.inspect_arrays,
    registry.PT: files.inspect_arrays,
    registry.LIST: files.inspect_list,
}
_FOLDERS: dict[str, _Describe] = {
    folder_kinds.CRYOSPARC_JOB: folders.inspect_cryosparc_job,
    folder_kinds.RELION_JOB: folders.inspect_relion_job,
    folder_kinds.RECOVAR_RESULT: _inspect_recovar,
    folder_kinds.OWN_OUTPUT: folders.inspect_own_output,
    projects.CRYOSPARC_PROJECT: projects.inspect_folder,
    projects.RELION_PROJECT: projects.inspect_folder,
    projects.FOLDER: projects.inspect_folder,
}
# What has columns to choose from and rows to show.
_TABLES = {registry.CS, registry.CSG, registry.STAR, folder_kinds.CRYOSPARC_JOB}
_IN_WORDS = {
    **{item.name: item.words for item in registry.FORMATS},
    folder_kinds.RELION_JOB: "the folder of a RELION job",
    folder_kinds.RECOVAR_RESULT: "a RECOVAR result",
    folder_kinds.OWN_OUTPUT: "an output folder of cryobridge",
    projects.CRYOSPARC_PROJECT: "the folder of a whole project",
    projects.RELION_PROJECT: "the folder of a whole project",
    projects.FOLDER: "a folder that is no job itself",
}


@takes(InspectOptions)
def inspect(path: str | os.PathLike[str], *, reporter: Reporter | None = None, **options: Any) -> Inspection:
    """Describe a file or folder, recognised by its content.

    Parameters
    ----------
    path
        A file, the folder of a job or a project, or a RECOVAR result. Nothing in it is executed.
    reporter
        Who hears of the progress.
    **options
        The fields of `InspectOptions`.

    Returns
    -------
    Inspection
        Its columns with their statistics, what it can be used for, and what is wrong with it.

    Raises
    ------
    UsageError
        If a value is of the wrong type, or options go with other kinds of files.
    FormatError
        If it can't be read, is damaged, or nothing is known of it.
    MissingDataError
        If ``fields`` match no column.
    NotReadyError
        If it is not ready for what ``check`` names.

    Examples
    --------
    >>> import cryobridge as cb
    >>> found = cb.inspect("J4/J4_003_particles.cs", fields="ctf/*")
    >>> found.rows, [field.name for field in found.fields][:2]
    (300, ['ctf/type', 'ctf/exp_group_id'])
    """
    place, asked = as_path(path, "path"), made(InspectOptions, options)
    found = describe(place, asked, reporter)
    if asked.plot is not None:
        from cryobridge.jobs.inspection.plots import plot_path

        plot_path(place, asked.plot, asked)
    found.require(asked.check)
    return found


def describe(path: Path, options: InspectOptions, reporter: Reporter | None = None) -> Inspection:
    """Describe a file or folder, without the picture and the checks (see `inspect`)."""
    options.refuse_idle()
    reporter, kind = reporter or Silent(), kind_of(path)
    if kind not in _TABLES and options.asks_for_columns:
        asked = f"{option('fields')}, {option('rows')} and {option('check_paths', True)}"
        raise UsageError(
            f"{asked} are for particle tables, this is {_IN_WORDS[kind]}",
            path=path,
            hint="Leave them out, or name a .cs, .csg or .star file.",
        )
    reporter.start(f"reading {path.name or path}", None)
    inspection = {**_FILES, **_FOLDERS}[kind](path, options, reporter)
    if kind not in _FILES:
        return inspection
    of_file = (*folders.facts_of_job_around(path), ("size", size_text(path.stat().st_size)))
    return replace(inspection, facts=(*inspection.facts[:1], *of_file, *inspection.facts[1:]))
