"""Writing planned picks: everything beside its final place, then renamed."""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.errors import CryobridgeError
from cryobridge.formats.atomic import atomic_path, leftovers, temporary_path, together, write_remedy
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.coords.columns import pick_columns
from cryobridge.jobs.coords.relion_picks import (
    PICK_FILES,
    RAW_DATA,
    is_in_raw_data,
    rows_by_micrograph,
    write_pick_files,
)
from cryobridge.jobs.output_folder import locked, make_folder, messages_of, refuse_existing

if TYPE_CHECKING:
    from cryobridge.jobs.coords.plan import CoordsPlan
    from cryobridge.report import Message

# After the name of a new folder: the one that it replaces.
_OLD = ".old"
# What file systems without links say.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def write_picks(plan: CoordsPlan, *, overwrite: bool) -> tuple[Message, ...]:
    """Write the pick files, the links to them in ``Raw_data``, and the files that lead RELION to them.

    Old picks in the folder do not survive, and nothing else is touched. What leads RELION to the pick files appears
    last: a run that was killed is made good by the next.

    Parameters
    ----------
    plan
        What `CoordsPlan.check` let pass.
    overwrite
        Replace picks that are there.

    Returns
    -------
    tuple of Message
        What is to be said of the folder.

    Raises
    ------
    OutputExistsError
        If there are picks in the folder already and ``overwrite`` is False.
    CryobridgeError
        If the folder can't be written.
    """
    make_folder(plan.folder)
    groups = rows_by_micrograph(plan.picks.micrograph.codes, len(plan.micrographs))
    rows = [groups[code][plan.kept[groups[code]]] for code in plan.written]
    convention, picks_only = plan.placement.convention, plan.options.picks_only
    columns = pick_columns(plan.picks, plan.coordinate_px, plan.kept, convention, picks_only=picks_only)
    with locked(plan.folder) as lease, _new_folder(plan.raw_data) as temporary, together() as remove:
        # Another run may have ended since.
        refuse_existing(plan.existing(), overwrite=overwrite)
        outdated = plan.old_places() - set(plan.places)
        _make_folders(temporary, [f"{RAW_DATA}/", *plan.places])
        write_pick_files([f"{temporary}/{place}" for place in plan.places], columns, rows)
        _fill_raw_data(temporary, plan.places, copy=plan.options.copy)
        # The lists appear when the block ends: right after the files that they name.
        _write_lists(plan)
        if not plan.has_tree:
            remove(plan.coords_suffix)
        _move_in(temporary, plan.folder, plan.places)
        _replace_folder(plan.raw_data, temporary / RAW_DATA, temporary.with_name(temporary.name + _OLD))
        _remove_outdated(plan.folder, outdated)
    return messages_of(lease)


def _make_folders(folder: Path, places: Iterable[str]) -> None:
    for name in {posixpath.dirname(place) for place in places}:
        (folder / name).mkdir(parents=True, exist_ok=True)


def _fill_raw_data(folder: Path, places: Sequence[str], *, copy: bool) -> None:
    """Put a link to each pick file, or a copy of it, into ``Raw_data``, where reliosparc has it.

    Of pick files of one name there is none, since it would be taken for that of the other micrographs too.
    """
    counts = Counter(map(posixpath.basename, places))
    for place in places:
        base = posixpath.basename(place)
        name = f"{RAW_DATA}/{base}"
        if name == place or counts[base] > 1:
            continue
        if not copy:
            try:
                os.symlink(_from_raw_data(place), f"{folder}/{name}")  # noqa: PTH211 -- as in write_pick_files
                continue
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                copy = True
        shutil.copyfile(f"{folder}/{place}", f"{folder}/{name}")


def _from_raw_data(place: str) -> str:
    """Return a pick file's place as a link in ``Raw_data`` has it."""
    return place.removeprefix(f"{RAW_DATA}/") if is_in_raw_data(place) else f"../{place}"


def _move_in(source: Path, folder: Path, places: Sequence[str]) -> None:
    """Move the pick files of the tree to their places, one by one: other files may lie beside them."""
    tree = [place for place in places if not is_in_raw_data(place)]
    _make_folders(folder, tree)
    for place in tree:
        os.replace(f"{source}/{place}", f"{folder}/{place}")  # noqa: PTH105 -- as in write_pick_files


def _remove_outdated(folder: Path, places: Iterable[str]) -> None:
    """Remove old pick files, and the folders that they leave empty."""
    for place in places:
        (folder / place).unlink(missing_ok=True)
        for above in list((folder / place).relative_to(folder).parents)[:-1]:
            with suppress(OSError):  # something else is in it
                (folder / above).rmdir()


@contextmanager
def _new_folder(final: Path) -> Iterator[Path]:
    """Make a hidden folder beside one that is to be replaced; it is gone afterwards."""
    try:
        with temporary_path(final) as temporary:
            try:
                _recover(final)
                temporary.mkdir()
                yield temporary
            finally:
                _remove_folder(temporary)
    except OSError as error:
        raise CryobridgeError(
            f"the picks can't be written ({error.strerror or error})",
            path=final.parent,
            hint=write_remedy(error),
        ) from error


def _recover(final: Path) -> None:
    """Clear away what a killed run left, and put back what it had moved out of the way."""
    for left in leftovers(final.parent, final.name, of_any_host=True):
        if left.name.endswith(_OLD) and not os.path.lexists(final):
            left.rename(final)
            continue
        if left.name.endswith(_OLD):
            _move_others(left, final)
        _remove_folder(left)


def _replace_folder(final: Path, new: Path, old: Path) -> None:
    """Put a folder of pick files in the place of another; what else lies in the old one moves over."""
    if not os.path.lexists(final):
        new.rename(final)
        return
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
        if path.is_dir() and (new / path.name).is_dir():
            _move_others(path, new / path.name)
        else:
            path.rename(new / path.name)


def _remove_folder(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:  # an interrupt; others are ignored for a moment
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_lists(plan: CoordsPlan) -> None:
    """Write what Extract takes: for RELION 4 and 5 the list of micrographs and pick files, for 3.1 the micrographs."""
    names = [plan.micrographs[code] for code in plan.written]
    folder = plan.as_in_project(plan.folder)
    columns: dict[str, Any] = {
        # Exactly as in the micrographs STAR.
        "rlnMicrographName": names,
        "rlnMicrographCoordinates": [str(folder / place) for place in plan.places],
    }
    write_star(plan.autopick_star, [StarBlock.from_columns("coordinate_files", columns, comments=("version 30001",))])
    if plan.has_tree:
        with atomic_path(plan.coords_suffix) as temporary:
            temporary.write_text(f"{plan.as_in_project(plan.positions.files.star)}\n", encoding="utf-8")
