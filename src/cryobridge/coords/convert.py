"""Writing the planned picks: everything beside its final place, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from cryobridge.coords.columns import pick_columns
from cryobridge.coords.plan import CoordsPlan, absolute
from cryobridge.coords.relion_picks import PICK_FILES, pick_file_name, rows_by_micrograph, write_pick_files
from cryobridge.errors import CryobridgeError
from cryobridge.formats.relion.star import StarBlock, write_star
from cryobridge.jobdir import make_folder, refuse_existing


def write_coords(plan: CoordsPlan, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the pick files and their list.

    Old picks in the folder do not survive: the new folder of pick files takes the place of the old one.

    Returns
    -------
    dict
        The report (see `CoordsPlan.report`).

    Raises
    ------
    OutputExistsError
        If there are picks in the folder already and ``overwrite`` is False.
    CryobridgeError
        If the folder can't be written.
    """
    refuse_existing(plan.existing(), overwrite=overwrite)
    make_folder(plan.folder)
    names = [name for name in plan.micrographs if name is not None]
    groups = rows_by_micrograph(plan.picks.micrograph.codes, len(plan.micrographs))
    groups = [rows[plan.kept[rows]] for rows, name in zip(groups, plan.micrographs, strict=True) if name is not None]
    written = [(name, rows) for name, rows in zip(names, groups, strict=True) if len(rows)]
    options = plan.options
    columns = pick_columns(plan.picks, plan.coordinate_px, plan.kept, options.convention, picks_only=options.picks_only)
    temporary = plan.folder / f".{plan.raw_data.name}.{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
        write_pick_files(
            [temporary / pick_file_name(name) for name, _ in written], columns, [rows for _, rows in written]
        )
        _replace_folder(plan.raw_data, temporary)
    except OSError as error:
        raise CryobridgeError(
            f"the picks can't be written ({error.strerror or error})",
            path=plan.folder,
            hint="Check that you may write there, and that the disk has space left.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _write_list(plan, [name for name, _ in written])
    return plan.report()


def _replace_folder(final: Path, new: Path) -> None:
    """Put a folder of pick files in the place of another; what else lies in the old one moves over."""
    if not os.path.lexists(final):
        new.rename(final)
        return
    others = [path.name for path in final.iterdir() if not path.match(PICK_FILES)]
    old = new.with_name(new.name + "-old")
    final.rename(old)
    new.rename(final)
    # Until all of them have moved the old folder stays, so that a failure loses nothing.
    for name in others:
        (old / name).rename(final / name)
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)


def _write_list(plan: CoordsPlan, names: list[str]) -> None:
    """Write the list that RELION's Extract takes: micrograph, exactly as in the micrographs STAR, and pick file."""
    folder = absolute(plan.raw_data) if plan.project else plan.raw_data
    if plan.project and folder.is_relative_to(plan.project):
        folder = folder.relative_to(plan.project)
    columns = {
        "rlnMicrographName": names,
        "rlnMicrographCoordinates": [str(folder / pick_file_name(name)) for name in names],
    }
    write_star(plan.autopick_star, [StarBlock.from_columns("coordinate_files", columns, comments=("version 30001",))])
