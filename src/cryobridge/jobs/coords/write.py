"""Writing planned picks: everything beside its final place, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError
from cryobridge.formats.atomic import leftovers, temporary_path, together
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.coords.columns import pick_columns
from cryobridge.jobs.coords.relion_picks import PICK_FILES, pick_file_name, rows_by_micrograph, write_pick_files
from cryobridge.jobs.output_folder import locked, make_folder, refuse_existing

if TYPE_CHECKING:
    from cryobridge.jobs.coords.plan import CoordsPlan

# After the name of a new folder: the one that it replaces.
_OLD = ".old"


def write_picks(plan: CoordsPlan, *, overwrite: bool) -> None:
    """Write the pick files and their list.

    Old picks in the folder do not survive: the new folder of pick files takes the place of the old one.

    Parameters
    ----------
    plan
        What `CoordsPlan.check` let pass.
    overwrite
        Replace picks that are there.

    Raises
    ------
    OutputExistsError
        If there are picks in the folder already and ``overwrite`` is False.
    CryobridgeError
        If the folder can't be written.
    """
    make_folder(plan.folder)
    names = [name for name in plan.micrographs if name is not None]
    groups = rows_by_micrograph(plan.picks.micrograph.codes, len(plan.micrographs))
    groups = [rows[plan.kept[rows]] for rows, name in zip(groups, plan.micrographs, strict=True) if name is not None]
    written = [(name, rows) for name, rows in zip(names, groups, strict=True) if len(rows)]
    convention, picks_only = plan.placement.convention, plan.options.picks_only
    columns = pick_columns(plan.picks, plan.coordinate_px, plan.kept, convention, picks_only=picks_only)
    with locked(plan.folder), _new_folder(plan.raw_data) as temporary, together():
        # Another run may have ended since.
        refuse_existing(plan.existing(), overwrite=overwrite)
        write_pick_files(
            [temporary / pick_file_name(name) for name, _ in written], columns, [rows for _, rows in written]
        )
        # The list appears when the block ends: right after the files that it names.
        _write_list(plan, [name for name, _ in written])
        _replace_folder(plan.raw_data, temporary)


@contextmanager
def _new_folder(final: Path) -> Iterator[Path]:
    """Make a hidden folder beside the one that it is to replace; it is gone afterwards."""
    temporary = temporary_path(final)
    try:
        _recover(final)
        temporary.mkdir()
        yield temporary
    except OSError as error:
        raise CryobridgeError(
            f"the picks can't be written ({error.strerror or error})",
            path=final.parent,
            hint="Check that you may write there, and that the disk has space left.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _recover(final: Path) -> None:
    """Clear away what a killed run left, and put back what it had moved out of the way."""
    for left in leftovers(final.parent, final.name, of_any_host=True):
        if left.name.endswith(_OLD) and not os.path.lexists(final):
            left.rename(final)
            continue
        if left.name.endswith(_OLD):
            _move_others(left, final)
        _remove_folder(left)


def _replace_folder(final: Path, new: Path) -> None:
    """Put a folder of pick files in the place of another; what else lies in the old one moves over."""
    if not os.path.lexists(final):
        new.rename(final)
        return
    old = new.with_name(new.name + _OLD)
    try:
        final.rename(old)
        new.rename(final)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(final):
            old.rename(final)
        raise
    # Until all of them have moved the old folder stays, so that a failure loses nothing.
    _move_others(old, final)
    _remove_folder(old)


def _move_others(old: Path, new: Path) -> None:
    """Move what is no pick file from one folder to another; what a link leads to is not ours to move."""
    if old.is_symlink():
        return
    for path in [path for path in old.iterdir() if not path.match(PICK_FILES)]:
        path.rename(new / path.name)


def _remove_folder(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _write_list(plan: CoordsPlan, names: list[str]) -> None:
    """Write the list that RELION's Extract takes: micrograph, exactly as in the micrographs STAR, and pick file."""
    folder = plan.raw_data_in_project
    columns = {
        "rlnMicrographName": names,
        "rlnMicrographCoordinates": [str(folder / pick_file_name(name)) for name in names],
    }
    write_star(plan.autopick_star, [StarBlock.from_columns("coordinate_files", columns, comments=("version 30001",))])
