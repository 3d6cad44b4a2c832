"""The kind of a file or folder."""

from __future__ import annotations

import stat
from pathlib import Path

from cryobridge.errors import FormatError
from cryobridge.formats import folders as folder_kinds
from cryobridge.formats import registry
from cryobridge.formats.input_file import read_error, readable_size
from cryobridge.jobs.inspection import projects


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
