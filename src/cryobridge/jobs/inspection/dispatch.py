"""Which description goes with which kind of file or folder."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryobridge.errors import FormatError, UsageError
from cryobridge.formats import folders as folder_kinds
from cryobridge.formats import registry
from cryobridge.formats.atomic import read_error, readable_size
from cryobridge.jobs.inspection import files, folders, projects, recovar, tables
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.report import Inspection
from cryobridge.jobs.inspection.wording import size_text

_Describe = Callable[[Path, InspectOptions], Inspection]
_FILES: dict[str, _Describe] = {
    registry.CS: tables.inspect_cs,
    registry.CSG: tables.inspect_csg,
    registry.STAR: tables.inspect_star,
    registry.MRC: files.inspect_mrc,
    registry.PICKLE: files.inspect_pickle,
    registry.NPY: files.inspect_arrays,
    registry.NPZ: files.inspect_arrays,
    registry.PT: files.inspect_arrays,
}
_FOLDERS: dict[str, _Describe] = {
    folder_kinds.CRYOSPARC_JOB: folders.inspect_cryosparc_job,
    folder_kinds.RELION_JOB: folders.inspect_relion_job,
    folder_kinds.RECOVAR_RESULT: recovar.inspect_recovar,
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


def kind_of(path: Path) -> str:
    """Return the kind of a file or folder.

    Raises
    ------
    FormatError
        If it can't be read, is no regular file or folder, or nothing is known of it.
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise read_error(path, error) from error
    if not is_folder:
        readable_size(path)
        return registry.identify_file(path)
    kind = folder_kinds.identify_folder(path) or projects.read_contents(path).kind
    if not kind:
        raise FormatError(
            "nothing known is in this folder, or in a folder in it",
            path=path,
            hint="Known are projects and jobs of cryoSPARC and RELION, RECOVAR results, and our own outputs.",
        )
    return kind


def describe(path: Path, options: InspectOptions) -> Inspection:
    """Describe a file or folder (see `cryobridge.jobs.inspection.inspect_path`)."""
    kind = kind_of(path)
    if kind not in _TABLES and (options.field_patterns or options.n_rows or options.check_paths):
        raise UsageError(
            f"--fields, --rows and --paths are for particle tables, this is {_IN_WORDS[kind]}",
            path=path,
            hint="Leave them out, or name a .cs, .csg or .star file.",
        )
    options.reporter.start(f"reading {path.name or path}", None)
    inspection = {**_FILES, **_FOLDERS}[kind](path, options)
    size = (("size", size_text(path.stat().st_size)),) if path.is_file() else ()
    return replace(inspection, facts=(*inspection.facts[:1], *size, *inspection.facts[1:]))
