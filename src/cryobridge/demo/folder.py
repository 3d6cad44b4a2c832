"""The folder of a demo project: new or empty, or marked as a demo project, whose own files may be replaced."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NoReturn

from cryobridge.errors import CryobridgeError, OutputExistsError, option
from cryobridge.formats.atomic import atomic_path, leftovers
from cryobridge.formats.input_file import read_error, read_input
from cryobridge.formats.lease import lease_name
from cryobridge.jobs.output_folder import RECORD, refuse_folder_of_others, require_space

MARKER = "cryobridge_demo.json"
_KIND = "cryobridge demo project"
_MAX_MARKER_BYTES = 1 << 16
_STEM = "*_fractions_patch_aligned_doseweighted"
_STACK = "particles_*_stack_*"
_OF_CONVERGE = (
    "converge.csv",
    "converge.log",
    "converge_classes.csv",
    "converge_flow.png",
    "converge_summary.png",
    "converge_run_it0??_data.png",
)
# All that the simulation and the tour write, by folder: nothing else is ever removed.
_MADE = {
    ".": tuple(f"{name}{end}" for name in ("thick", "good") for end in (".cs", ".csg", "_passthrough.cs")),
    "cryosparc/J1": ("imported_movies.cs", "job.json"),
    "cryosparc/J1/imported": ("*_fractions.tif", "gain.tif"),
    "cryosparc/J2": ("J2_exposures.cs", "job.json"),
    "cryosparc/J2/motioncorrected": (f"{_STEM}.mrc", "*_fractions_*_traj.npy"),
    "cryosparc/J3/extract": (f"{_STEM}_particles.mrc",),
    "cryosparc/J3": ("extracted_particles.cs", "job.json"),
    "cryosparc/J4": ("J4_00[23]_particles.cs", "J4_passthrough_particles.cs", "J4_particles.csg", "job.json"),
    "relion": ("default_pipeline.star", "particles.star", "particles_micrographs.star", "thick.star", "good.star"),
    "relion/MotionCorr/job002": ("corrected_micrographs.star",),
    "relion/MotionCorr/job002/Movies": ("*_fractions.mrc",),
    "relion/MotionCorr/job006": (
        *RECORD,
        "movies.star",
        "micrographs.star",
        "corrected_micrographs.star",
        "micrographs_ctf.star",
    ),
    "relion/MotionCorr/job006/Micrographs": ("*_fractions.mrc", "*_fractions.star"),
    "relion/MotionCorr/job006/Movies": ("*_fractions.tif", "gain.mrc"),
    "relion/CtfFind/job003": ("micrographs_ctf.star",),
    "relion/Class2D/job004": ("RELION_JOB_EXIT_SUCCESS", "run_it0??_*.star", *_OF_CONVERGE),
    "relion/Extract/job005": ("RELION_JOB_EXIT_SUCCESS", "particles.star"),
    "relion/Extract/job005/Movies": ("*_fractions.mrcs", "*_fractions_extract.star"),
    "relion/Extract/J3/extract": (f"{_STEM}_particles.mrcs",),
    "relion/picks": ("autopick.star", "coords_suffix_autopick.star"),
    "relion/picks/Movies": ("*_autopick.star",),
    "relion/picks/Raw_data": ("*_autopick.star",),
    "relion/picks/preview": ("*_fractions.png",),
    "stacks": RECORD,
    "stacks/fft": (f"{_STACK}.pt", f"{_STACK}.npz"),
    "stacks/phys": (f"{_STACK}.pt",),
    "stacks/plots": (f"{_STACK}.png", "power_spectrum_stack_*.png"),
    "downsampled": (*RECORD, "particles.48.*", "particles.48_sources.csv", ".particles.48.*", "poses.pkl", "ctf.pkl"),
}
_FOLDERS = {str(folder) for name in _MADE for folder in (PurePosixPath(name), *PurePosixPath(name).parents)} - {"."}


def check_folder(folder: Path, n_bytes: int, *, overwrite: bool) -> None:
    """See whether a demo project of so many bytes can go to a folder; nothing is changed.

    Parameters
    ----------
    folder
        Where it shall be.
    n_bytes
        How large it will be.
    overwrite
        Whether the files of a demo project that is there may be removed.

    Raises
    ------
    OutputExistsError
        If the folder is not empty, unless it is a demo project, ``overwrite`` is set and nothing stands in the way.
    UsageError
        If another program's job is where a demo project has its stacks.
    CryobridgeError
        If the folder can't be read, or the disk has too little space.
    """
    n_entries = len(_entries(folder))
    if n_entries:
        if not _is_demo(folder):
            raise OutputExistsError(
                f"the folder holds {n_entries} files or folders and is no demo project; it is left as it is",
                path=folder,
                hint="Choose a folder that is new or empty.",
            )
        if not overwrite:
            raise OutputExistsError(
                "a demo project is there already",
                path=folder,
                hint=f"Give {option('overwrite', True)} to replace it; your own files in it stay.",
            )
        _look_through(folder)
        for name in ("stacks", "downsampled"):
            refuse_folder_of_others(folder / name, overwrite=True)
    # What overwriting sets free is not counted on.
    require_space(folder, n_bytes, "Choose a folder on another disk, or ask for fewer micrographs.")


def prepare_folder(folder: Path, description: dict[str, int | float | str]) -> tuple[Path, ...]:
    """Remove an earlier demo project from a folder that `check_folder` has let pass, and mark the folder.

    The marker is the first file to be written and never removed, so that what an interrupted run leaves behind is
    known as a demo project.

    Parameters
    ----------
    folder
        Where the project shall be.
    description
        What it is made with, for the marker.

    Returns
    -------
    tuple of pathlib.Path
        The files in the folder that no demo project makes; they stay.

    Raises
    ------
    CryobridgeError
        If something stands in the way, or the operating system refuses.
    """
    made, others = _look_through(folder)
    try:
        for path in made:
            path.unlink()
    except OSError as error:
        raise CryobridgeError(
            f"{error.filename or 'its content'} can't be removed ({error.strerror})",
            path=folder,
            hint="Check that you may write there, or choose another folder.",
        ) from error
    for name in sorted(_FOLDERS, key=len, reverse=True):
        # One that is not empty stays.
        with suppress(OSError):
            (folder / name).rmdir()
    with atomic_path(folder / MARKER) as temporary:
        temporary.write_text(json.dumps({"kind": _KIND, **description}, indent=2) + "\n", encoding="utf-8")
    return tuple(sorted(others))


def _look_through(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files in the folder that a demo project makes, but its marker, and the others; follow no link.

    Raises
    ------
    OutputExistsError
        If a file or link stands where a demo project has a folder, or the other way round.
    """
    made: list[Path] = []
    others: list[Path] = []
    for place, folder_names, file_names in os.walk(folder):
        here = Path(place)
        unfinished = leftovers(here)
        folders = [here / name for name in folder_names]
        # A writer that is killed may leave a folder, which its next run clears away.
        folder_names[:] = [path.name for path in folders if path not in unfinished]
        links = [path for path in folders if path.is_symlink()]
        for path in sorted([*links, *(here / name for name in file_names)]):
            if path.relative_to(folder).as_posix() in _FOLDERS:
                _refuse(path)
            if path != folder / MARKER and lease_name(path.name) is None:
                (made if path in unfinished or _is_made(path, folder) else others).append(path)
        for path in folders:
            if path not in links and _is_made(path, folder):
                _refuse(path)
    return made, others


def _is_made(path: Path, folder: Path) -> bool:
    """Whether a path is that of a file that a demo project has."""
    return any(fnmatchcase(path.name, name) for name in _MADE.get(path.parent.relative_to(folder).as_posix(), ()))


def _refuse(path: Path) -> NoReturn:
    raise OutputExistsError(
        "this stands in the way of the demo project, which did not make it",
        path=path,
        hint="Move it away, or choose another folder.",
    )


def _entries(folder: Path) -> list[Path]:
    try:
        # A marker that a killed run had not finished is nobody's file.
        unfinished = leftovers(folder, MARKER.removesuffix(".json"))
        return [path for path in folder.iterdir() if path not in unfinished and lease_name(path.name) is None]
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise OutputExistsError("a file of that name is there", path=folder, hint="Choose another name.") from error
    except OSError as error:
        raise read_error(folder, error) from error


def _is_demo(folder: Path) -> bool:
    marker = folder / MARKER
    try:
        if marker.is_symlink() or marker.stat().st_size > _MAX_MARKER_BYTES:
            return False
        content = json.loads(read_input(marker))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("kind") == _KIND
