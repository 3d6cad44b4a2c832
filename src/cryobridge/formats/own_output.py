"""cryobridge's own outputs, and CryoLike's of the same names: converted stacks, and coordinates for RELION."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cryobridge.errors import CryobridgeError, FormatError, option
from cryobridge.formats.listing import (
    Listing,
    gaps,
    list_folder,
    list_if_there,
    read_json_of,
    say_numbers,
    say_ranges,
    text_of,
)
from cryobridge.formats.relion.star import open_star, to_labels
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    import os

Kind: TypeAlias = Literal["stacks", "coords", "other"]

FOURIER_STACKS = "Fourier stacks"
_NUMBER_DIGITS = 6
_FFT = re.compile(r"particles_fourier_stack_(?P<number>\d{6,9})\.(?P<suffix>pt|npz)")
_PHYS = re.compile(r"particles_phys_stack_(?P<number>\d{6,9})\.(?P<suffix>pt)")
_PLOT = re.compile(r"(?:particles_phys_stack|particles_fourier_stack|power_spectrum_stack)_\d{6,}\.png")
_PICKS = re.compile(r".+_autopick\.star")
_PICKS_FOLDER = "Raw_data"
_COORDINATES = "rlnMicrographCoordinates"


@dataclass(frozen=True)
class StackSeries:
    """Stacks in running numbers, one file each.

    Parameters
    ----------
    content
        ``Fourier stacks``, ``descriptors`` (what is in each Fourier stack) or ``physical stacks``.
    files
        In the order of their numbers.
    numbers
        The same as numbers.
    missing
        Runs of numbers from 0 on that are absent.
    """

    content: str
    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    missing: tuple[range, ...]


@dataclass(frozen=True)
class OwnOutput:
    """What an output folder holds.

    Parameters
    ----------
    kind
        ``stacks``, ``coords``, or ``other`` for a folder that is cryobridge's by its job.json only.
    version, command, status, title
        From job.json; empty without one, as in folders that CryoLike wrote.
    stacks_made, stacks_planned
        How many stacks are made, and how many the job makes in all, from job.json; None where it does not say.
    pixel_bytes
        How many bytes a pixel of smaller images has.
    series
        Fourier stacks, descriptors and physical stacks, as far as there are any.
    plots
        How many plots there are.
    pick_files
        The coordinate files of single micrographs.
    autopick_star
        The list of them, or None.
    problems
        Gaps and missing partners, in sentences.
    """

    path: Path
    kind: Kind
    version: str
    command: str
    status: str
    title: str
    stacks_made: int | None = None
    stacks_planned: int | None = None
    pixel_bytes: int = 4
    series: tuple[StackSeries, ...] = ()
    plots: int = 0
    pick_files: tuple[Path, ...] = ()
    autopick_star: Path | None = None
    problems: tuple[Message, ...] = ()


def is_own_description(content: dict[str, Any]) -> bool:
    """Whether a job.json is cryobridge's."""
    return content.get("program") == "cryobridge"


def looks_like_stacks(listing: Listing) -> bool:
    """Whether a folder holds converted stacks."""
    return any(
        any(pattern.fullmatch(name) for name in list_if_there(listing.path / folder).files)
        for folder, pattern in (("fft", _FFT), ("phys", _PHYS))
        if folder in listing.folders
    )


def looks_like_coords(listing: Listing) -> bool:
    """Whether a folder holds coordinates of many micrographs and no other job of RELION's."""
    if "autopick.star" not in listing.files or _PICKS_FOLDER not in listing.folders:
        return False
    return any(_PICKS.fullmatch(name) for name in list_if_there(listing.path / _PICKS_FOLDER).files)


def read_own_output(folder: str | os.PathLike[str]) -> OwnOutput:
    """Describe an output folder.

    Raises
    ------
    FormatError
        If it can't be listed, or is not an output of cryobridge.
    """
    listing = list_folder(Path(folder))
    problems: list[Message] = []
    content = read_json_of(listing, "job.json", problems)
    version, command, status, title = (text_of(content, key) for key in ("version", "command", "status", "title"))
    numbers = _numbers_of_stacks(content)
    report = content.get("report")
    pixel_bytes = 2 if isinstance(report, dict) and report.get("precision") == "float16" else 4
    output = OwnOutput(
        *(listing.path, "other", version, command, status, title, *numbers, pixel_bytes), problems=tuple(problems)
    )
    if looks_like_stacks(listing):
        series, plots = _read_stacks(listing, problems)
        return replace(output, kind="stacks", series=series, plots=plots, problems=tuple(problems))
    if looks_like_coords(listing):
        picks = _read_picks(listing, problems)
        autopick = listing.path / "autopick.star"
        return replace(output, kind="coords", pick_files=picks, autopick_star=autopick, problems=tuple(problems))
    if is_own_description(content):
        return output
    raise FormatError(
        "not an output of cryobridge: no job.json of its, no fft/particles_fourier_stack_000000.pt, no autopick.star",
        path=listing.path,
        hint=f"Give the folder that was named with {option('output')}.",
    )


def _numbers_of_stacks(content: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return how many stacks are made, and how many are to be, as far as a job.json says."""
    report = content.get("report")
    if not isinstance(report, dict):
        return None, None
    stacks, planned = report.get("stacks"), report.get("stacks_planned")
    made = len(stacks) if isinstance(stacks, list) else stacks
    return (made if isinstance(made, int) else None), (planned if isinstance(planned, int) and planned > 0 else None)


def _read_stacks(listing: Listing, problems: list[Message]) -> tuple[tuple[StackSeries, ...], int]:
    fft = list_if_there(listing.path / "fft")
    phys = list_if_there(listing.path / "phys")
    plots = list_if_there(listing.path / "plots")
    found = (
        _series(fft, _FFT, "pt", FOURIER_STACKS),
        _series(fft, _FFT, "npz", "descriptors"),
        _series(phys, _PHYS, "pt", "physical stacks"),
    )
    for series in found:
        if series.missing:
            text = f"Missing {series.content}: {say_ranges(series.missing, _NUMBER_DIGITS)}"
            problems.append(warning("files-missing", text, where=listing.path))
    stacks, descriptors, images = (set(series.numbers) for series in found)
    pairs = [
        (stacks - descriptors, "Fourier stacks without their .npz"),
        (descriptors - stacks, "Descriptors without their Fourier stack"),
    ]
    if images and stacks:
        pairs += [
            (stacks - images, "Fourier stacks without their physical stack"),
            (images - stacks, "Physical stacks without their Fourier stack"),
        ]
    texts = (f"{what}: {say_numbers(lone, _NUMBER_DIGITS)}" for lone, what in pairs if lone)
    problems += [warning("files-unpaired", text, where=listing.path) for text in texts]
    n_plots = sum(_PLOT.fullmatch(name) is not None for name in plots.files)
    return tuple(series for series in found if series.files), n_plots


def _series(listing: Listing, pattern: re.Pattern[str], suffix: str, content: str) -> StackSeries:
    matches = (pattern.fullmatch(name) for name in listing.files)
    numbered = sorted((int(match["number"]), match.string) for match in matches if match and match["suffix"] == suffix)
    numbers = tuple(number for number, _ in numbered)
    return StackSeries(content, tuple(listing.path / name for _, name in numbered), numbers, gaps(numbers))


def _read_picks(listing: Listing, problems: list[Message]) -> tuple[Path, ...]:
    """List the coordinate files and compare them with those that autopick.star names."""
    inner = list_if_there(listing.path / _PICKS_FOLDER)
    there = {name for name in inner.files if _PICKS.fullmatch(name)}
    try:
        star = open_star(listing.path / "autopick.star")
        block = star["coordinate_files"] if "coordinate_files" in star else star[star.main]
        listed = {Path(text).name for text in to_labels(block.texts(_COORDINATES)).values}
    except CryobridgeError as error:
        problems.append(warning("file-not-read", str(error), where=listing.path / "autopick.star"))
    else:
        texts = (
            f"{what}: {', '.join(sorted(lone)[:3])}{f' … ({len(lone):,} in all)' if len(lone) > 3 else ''}"
            for lone, what in (
                (listed - there, f"Named in autopick.star but not in {_PICKS_FOLDER}"),
                (there - listed, f"In {_PICKS_FOLDER} but not named in autopick.star"),
            )
            if lone
        )
        problems += [warning("files-unpaired", text, where=listing.path) for text in texts]
    return tuple(inner.path / name for name in sorted(there))
