"""Poses and CTF: our pickles beside what cryoDRGN and RECOVAR parse from the same files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interop.files import (
    CRYOSPARC,
    CS,
    CS_OF_STAR,
    MIXED_CS,
    MIXED_STAR,
    MIXED_STAR_30,
    STAR,
    Simulated,
    largest,
    unpickle,
    with_pickles,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from interop.checks import Checks
    from interop.programs import Arrays, Programs

# Rotations are float32 and went through an exponential map or three angles: a few units of 6e-8 in the last place.
ROTATION = 2e-6
# STAR files have shifts in Å and angles in degrees with six decimals.
SHIFT_PX = 1e-4
ANGLE_DEG = 1e-4
# Spacing of float32 at 20,000 Å: 0.002.
DEFOCUS_A = 0.01
RELATIVE = 1e-6
_CONSTANT = [0, 1, 5, 6, 7]


@dataclass(frozen=True)
class Source:
    """A file that cryoDRGN parses, and the folder of our pickles of it."""

    path: str
    folder: str
    pose_options: tuple[str, ...] = ()
    ctf_options: tuple[str, ...] = ()

    @property
    def parser(self) -> str:
        """How cryoDRGN's parsers of such files end."""
        return "star" if self.path.endswith(".star") else "csparc"

    @property
    def name(self) -> str:
        """For the reader."""
        return self.path.removeprefix(f"{CRYOSPARC}/J4/")


def check(checks: Checks, programs: Programs, simulated: Simulated, mixed_ctf: NDArray[Any]) -> None:
    """Compare pickles with cryoDRGN's parsers, with the simulation, and with RECOVAR's readers."""
    # RELION 3.0 files don't say the size of the images, and cryoDRGN asks for it.
    sizes = ("-D", str(simulated.project.box_px), "--Apix", str(simulated.project.pixel_size_A))
    plain = (Source(CS, "pickles_cs"), Source(STAR, "pickles_star"), Source(CS_OF_STAR, "pickles_cs_of_star"))
    mixed = (
        Source(MIXED_CS, "pickles_mixed_cs", pose_options=("--hetrefine",)),
        Source(MIXED_STAR, "pickles_mixed_star"),
        Source(MIXED_STAR_30, "pickles_mixed_30", pose_options=sizes, ctf_options=sizes),
    )
    checks.section("Poses and CTF: our pickles and cryoDRGN's parsers")
    for source in (*plain, *mixed):
        check_parsers(checks, programs, source)
    checks.note(
        "mixed.cs has two optics groups, phase shifts, and shifts in pixels twice as large (alignments3D/psize_A), as "
        "a heterogeneous refinement on cropped images has them. cryoDRGN's parser needs --hetrefine to see that; "
        "without it, and in RECOVAR, the shifts are half of what they should be. Our STAR files and pickles of it "
        "need no option."
    )
    checks.section("Poses and CTF: our pickles and what was simulated")
    for source in (*plain, *mixed):
        truth = (*simulated.poses, mixed_ctf if source in mixed else simulated.ctf)
        folder = programs.folder / source.folder
        compare_pickles(checks, source.name, read_pickles(folder / "poses.pkl", folder / "ctf.pkl"), truth)
    _check_recovar(checks, programs, plain)


def check_parsers(checks: Checks, programs: Programs, source: Source) -> None:
    """Let cryoDRGN parse a file, and compare with our pickles of it."""
    folder = programs.folder / "cryodrgn"
    folder.mkdir(exist_ok=True)
    poses, ctf = folder / f"{source.folder}_poses.pkl", folder / f"{source.folder}_ctf.pkl"
    programs.cryodrgn(f"parse_pose_{source.parser}", source.path, "-o", str(poses), *source.pose_options)
    programs.cryodrgn(f"parse_ctf_{source.parser}", source.path, "-o", str(ctf), *source.ctf_options)
    ours = programs.folder / source.folder
    compare_pickles(
        checks,
        f"{source.name}, parse_*_{source.parser}",
        read_pickles(ours / "poses.pkl", ours / "ctf.pkl"),
        read_pickles(poses, ctf),
    )


def _check_recovar(checks: Checks, programs: Programs, sources: tuple[Source, ...]) -> None:
    checks.section("Poses and CTF: RECOVAR's dataset from the file itself and from our pickles")
    datadirs = {CS: CRYOSPARC, STAR: ".", CS_OF_STAR: "of_star"}
    files = {}
    for source in sources:
        datadir = datadirs[source.path]
        files[f"{source.folder}_file"] = {"particles": source.path, "datadir": datadir}
        files[source.folder] = with_pickles(source.path, source.folder, datadir=datadir)
    read = programs.read_with("recovar", files)
    for source in sources:
        compare_datasets(checks, source.name, read[f"{source.folder}_file"], read[source.folder])


def compare_datasets(checks: Checks, what: str, first: Arrays, second: Arrays) -> None:
    """Compare two of RECOVAR's datasets: poses, shifts, pixel size and CTF."""
    checks.at_most(f"{what}: rotation matrices", largest(first["rotations"], second["rotations"]), ROTATION)
    checks.at_most(f"{what}: shifts", largest(first["shifts_px"], second["shifts_px"]), SHIFT_PX, "px")
    checks.at_most(f"{what}: pixel size", largest(first["pixel_size_A"][None], second["pixel_size_A"][None]), 1e-5, "Å")
    first_ctf, second_ctf = first["ctf"].astype(np.float64), second["ctf"].astype(np.float64)
    for column, columns, tolerance, unit in (
        ("defocus", [0, 1], DEFOCUS_A, "Å"),
        ("angles of defocus and phase", [2, 6], ANGLE_DEG, "°"),
    ):
        checks.at_most(f"{what}: {column}", largest(first_ctf[:, columns], second_ctf[:, columns]), tolerance, unit)
    ratio = first_ctf[:, 3:6] / second_ctf[:, 3:6]
    checks.at_most(f"{what}: voltage, Cs, contrast (relative)", largest(ratio, np.ones_like(ratio)), RELATIVE)


def read_pickles(poses: Path, ctf: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return rotations, shifts and CTF of a pair of pickles."""
    rotations, shifts = unpickle(poses)
    return rotations, shifts, unpickle(ctf)


def compare_pickles(
    checks: Checks,
    what: str,
    ours: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    theirs: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
) -> None:
    """Compare two pairs of pickles: poses, shifts and the columns of the CTF."""
    box_px = theirs[2][0, 0]
    checks.at_most(f"{what}: rotation matrices", largest(ours[0], theirs[0]), ROTATION)
    checks.at_most(f"{what}: shifts", largest(ours[1], theirs[1]) * box_px, SHIFT_PX, "px")
    checks.at_most(f"{what}: defocus", largest(ours[2][:, 2:4], theirs[2][:, 2:4]), DEFOCUS_A, "Å")
    checks.at_most(
        f"{what}: angles of defocus and phase", largest(ours[2][:, [4, 8]], theirs[2][:, [4, 8]]), ANGLE_DEG, "°"
    )
    constant = theirs[2][:, _CONSTANT].astype(np.float64)
    checks.at_most(
        f"{what}: box, pixel size, voltage, Cs, contrast (relative)",
        largest(ours[2][:, _CONSTANT] / constant, np.ones_like(constant)),
        RELATIVE,
    )
