"""Pictures of what files hold: distributions of columns, sheets of images, slices of volumes, latent coordinates."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryobridge.errors import MissingDataError, UsageError, option
from cryobridge.formats import folders as folder_kinds
from cryobridge.formats import registry
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.image_list import read_image_list
from cryobridge.jobs.inspection.kinds import kind_of
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.plots.arrays import arrays_sheet, pickle_sheet
from cryobridge.jobs.inspection.plots.folders import own_sheet, relion_sheet
from cryobridge.jobs.inspection.plots.images import mrc_sheet
from cryobridge.jobs.inspection.plots.micrographs import micrograph_sheet
from cryobridge.jobs.inspection.plots.motion import motion_sheet
from cryobridge.jobs.inspection.plots.recovar import recovar_sheet
from cryobridge.jobs.inspection.plots.tables import TABLES, table_sheet
from cryobridge.plots.page import Picture, Sheet, lay_out, written_as

_SUFFIXES = (".png", ".pdf", ".svg")


def plot_path(
    path: str | os.PathLike[str], target: str | os.PathLike[str], options: InspectOptions | None = None
) -> None:
    """Draw what a file or folder holds and write the picture; one that is there is replaced.

    Parameters
    ----------
    path
        The file or folder.
    target
        The picture; its suffix, ``.png``, ``.pdf`` or ``.svg``, decides the format.
    options
        Of these, ``fields`` choose the columns of a table.

    Raises
    ------
    UsageError
        If the suffix is another, or there is no picture of such a folder.
    MissingDataError
        If there is nothing to draw, or the patterns match nothing.
    FormatError
        If the file can't be read.
    """
    target = Path(target)
    suffix = target.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(
            f"a picture can't be written as {suffix}" if suffix else "the name of the picture has no suffix",
            path=target,
            hint=f"End it with one of {', '.join(_SUFFIXES)}.",
        )
    content = written_as(build_figure(path, options), suffix[1:])
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def build_figure(path: str | os.PathLike[str], options: InspectOptions | None = None) -> Picture:
    """Draw what a file or folder holds and return the figure; see `plot_path`."""
    path, options = Path(path), options or InspectOptions()
    kind = kind_of(path)
    if kind in TABLES:
        table = TABLES[kind](path)
        own = None if options.fields else micrograph_sheet(path, table) or motion_sheet(path)
        sheet = own or table_sheet(path, table, options)
    elif options.fields:
        raise UsageError(
            f"{option('fields')} is for particle tables, this is {kind}",
            path=path,
            hint="Leave it out, or name a .cs, .csg or .star file.",
        )
    elif kind in _SHEETS:
        sheet = _SHEETS[kind](path)
    else:
        raise UsageError(
            "there is no picture of a folder that is no job", path=path, hint="Name a job, or a file in it."
        )
    if not sheet.panels:
        raise MissingDataError(
            "there is nothing to draw: it holds no numbers that vary",
            path=path,
            hint=f"Leave {option('plot')} out to see what is in it.",
        )
    return lay_out(sheet)


_SHEETS: dict[str, Callable[[Path], Sheet]] = {
    registry.MRC: mrc_sheet,
    registry.PICKLE: pickle_sheet,
    registry.NPY: arrays_sheet,
    registry.NPZ: arrays_sheet,
    registry.PT: arrays_sheet,
    registry.LIST: lambda path: mrc_sheet(read_image_list(path)[0]),
    folder_kinds.RECOVAR_RESULT: recovar_sheet,
    folder_kinds.OWN_OUTPUT: own_sheet,
    folder_kinds.RELION_JOB: relion_sheet,
}
