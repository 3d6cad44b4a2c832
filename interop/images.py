"""Images: what the loaders read from our files, and our downsampled sets beside the programs' own."""

from __future__ import annotations

import csv
import pickle
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

from interop import metadata
from interop.files import (
    CRYOSPARC,
    CS,
    CS_OF_STAR,
    NEW_BOX,
    PARTICLES,
    STAR,
    Simulated,
    largest,
    rows_that_differ,
    with_pickles,
)
from interop.maps import correlation

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from interop.checks import Checks
    from interop.programs import Arrays, Programs

SETS = {"small_star": STAR, "small_cs": CS}
STACK, SMALL_STAR = f"particles.{NEW_BOX}.mrcs", f"particles.{NEW_BOX}.star"
# Both in units of the images' standard deviation; the arithmetic of all is float32.
DOWNSAMPLED = 1e-5
MEAN = 1e-5
# Rounding to 11 bits.
HALF_PRECISION = 2.0**-11
CORRELATION = 0.9
MIRRORED = 0.7


def check_loaders(checks: Checks, programs: Programs, simulated: Simulated) -> None:
    """Read the full images through both programs' loaders, from each of the three files."""
    checks.section("Images, full size: rows that the loaders read otherwise than they were simulated")
    files = {
        "cs": {"particles": CS, "datadir": CRYOSPARC},
        "star": {"particles": STAR},
        "of_star": {"particles": CS_OF_STAR, "datadir": "of_star"},
    }
    for program, name in (("cryodrgn", "cryoDRGN"), ("recovar", "RECOVAR")):
        read = programs.read_with(program, files)
        for key, file in files.items():
            n_different = rows_that_differ(read[key]["images"], simulated.images)
            of = file["particles"].removeprefix(f"{CRYOSPARC}/J4/")
            checks.same_rows(f"{of}, {name}", n_different, len(simulated.images))


def check_downsampled(checks: Checks, programs: Programs, simulated: Simulated) -> list[str]:
    """Downsample from both sources, and compare with the programs' own results; return the next command it prints."""
    printed = programs.cryobridge("stacks", "downsample", STAR, "-D", str(NEW_BOX), "-o", "small_star")
    programs.cryobridge("stacks", "downsample", CS, "-D", str(NEW_BOX), "-o", "small_cs")
    programs.recovar("downsample", STAR, "-D", str(NEW_BOX), "-o", "recovar_small")
    programs.cryodrgn("downsample", STAR, "-D", str(NEW_BOX), "-o", f"cryodrgn_small/{STACK}")
    checks.section(
        f"Images, {simulated.project.box_px} -> {NEW_BOX} px: differences in standard deviations of the images"
    )
    ours = {name: _stack(programs.folder / name / STACK) for name in SETS}
    recovar, cryodrgn = (_stack(programs.folder / name / STACK) for name in ("recovar_small", "cryodrgn_small"))
    for name, source in SETS.items():
        scale = float(ours[name].std())
        of = f"from the {'.cs' if source == CS else '.star'}"
        checks.at_most(f"{of}: recovar downsample", largest(ours[name], recovar) / scale, DOWNSAMPLED)
        factor, difference = _below_nyquist(ours[name], cryodrgn)
        checks.at_most(f"{of}: cryodrgn downsample, scaled, below Nyquist", difference / scale, DOWNSAMPLED)
        means = largest(ours[name].mean(axis=(1, 2)), simulated.images.mean(axis=(1, 2), dtype=np.float64))
        checks.at_most(f"{of}: mean of each image before and after", means / scale, MEAN)
        _check_sources(checks, of, programs.folder / name, simulated, with_uid=source == CS)
    checks.note(
        f"cryoDRGN multiplies its values by {factor:.4g}, the square of the ratio of the boxes, and treats the Nyquist "
        "frequency in its own way; RECOVAR keeps the mean, and cryobridge does as RECOVAR."
    )
    _check_small_loaders(checks, programs, ours)
    _check_parts(checks, programs, ours["small_star"])
    return next(line[2:].split() for line in printed.splitlines() if line.startswith("$ recovar"))


def _check_sources(checks: Checks, of: str, folder: Path, simulated: Simulated, *, with_uid: bool) -> None:
    """Trace each small image to its source by the table beside it."""
    with (folder / f"particles.{NEW_BOX}_sources.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    particles = simulated.project.truth.particles
    names = [simulated.project.stacks[micrograph].stem for micrograph in particles.micrograph]
    expected = list(zip(names, particles.stack_index, strict=True))
    found = [(row["source_file"].rsplit("/", 1)[-1].rsplit(".", 1)[0], int(row["source_slice"])) for row in rows]
    checks.same_rows(f"{of}: stack and slice in the table of sources", _n_unlike(found, expected), len(expected))
    if with_uid:
        uids = [int(row["uid"]) for row in rows]
        checks.same_rows(f"{of}: uid in the table of sources", _n_unlike(uids, particles.uid.tolist()), len(expected))


def _check_small_loaders(checks: Checks, programs: Programs, ours: dict[str, NDArray[Any]]) -> None:
    checks.section("Downsampled sets in the loaders: STAR file, and stack with pickles")
    files = {}
    for name in SETS:
        files[f"{name}_star"] = {"particles": f"{name}/{SMALL_STAR}"}
        files[f"{name}_stack"] = with_pickles(f"{name}/{STACK}", name)
    cryodrgn, recovar = programs.read_with("cryodrgn", files), programs.read_with("recovar", files)
    for program, read in (("cryoDRGN", cryodrgn), ("RECOVAR", recovar)):
        for key, arrays in read.items():
            stack = ours[key.rsplit("_", 1)[0]]
            name = files[key]["particles"]
            checks.same_rows(
                f"{name}, {program}: images of the stack", rows_that_differ(arrays["images"], stack), len(stack)
            )
    for name in SETS:
        star = recovar[f"{name}_star"]
        metadata.compare_datasets(checks, f"{name}, RECOVAR, STAR and pickles", star, recovar[f"{name}_stack"])
        metadata.compare_datasets(
            checks, f"{name}, pickles in cryoDRGN and STAR in RECOVAR", _as_dataset(cryodrgn[f"{name}_stack"]), star
        )
        metadata.check_parsers(checks, programs, metadata.Source(f"{name}/{SMALL_STAR}", name))


def _as_dataset(arrays: Arrays) -> Arrays:
    """Name what cryoDRGN has for training as RECOVAR does: there the pixel size is the first column of the CTF."""
    return {**arrays, "pixel_size_A": arrays["ctf"][0, 0], "ctf": arrays["ctf"][:, 1:]}


def _check_parts(checks: Checks, programs: Programs, stack: NDArray[Any]) -> None:
    """Read some rows that were written in half precision and over several stacks."""
    rows = np.sort(np.random.default_rng(0).permutation(PARTICLES)[: PARTICLES // 3])
    with (programs.folder / "rows.pkl").open("wb") as file:
        pickle.dump(rows, file)
    programs.cryobridge(
        "stacks", "downsample", STAR, "-D", str(NEW_BOX), "--ind", "rows.pkl", "--chunk", "40", "--float16",
        "-o", "small_parts",
    )  # fmt: skip
    listed = f"small_parts/particles.{NEW_BOX}.txt"
    files = {
        "small_parts_star": {"particles": f"small_parts/{SMALL_STAR}"},
        "small_parts_txt": with_pickles(listed, "small_parts"),
    }
    cryodrgn, recovar = programs.read_with("cryodrgn", files), programs.read_with("recovar", files)
    for program, read in (("cryoDRGN", cryodrgn), ("RECOVAR", recovar)):
        for key, arrays in read.items():
            difference = largest(arrays["images"], stack[rows]) / float(np.abs(stack).max())
            name = files[key]["particles"]
            checks.at_most(f"{name}, {program}: images, relative to the largest value", difference, HALF_PRECISION)
    datasets = recovar["small_parts_star"], recovar["small_parts_txt"]
    metadata.compare_datasets(checks, "small_parts, RECOVAR, STAR and pickles", *datasets)


def check_reconstruction(checks: Checks, programs: Programs, simulated: Simulated) -> None:
    """Have cryoDRGN reconstruct from each downsampled set, and compare with the molecule that was simulated."""
    checks.section("cryoDRGN's backproject_voxel of our stacks and pickles, correlated with the simulated molecule")
    pixel_size_A = simulated.project.pixel_size_A * simulated.project.box_px / NEW_BOX
    for name in SETS:
        files = with_pickles(f"{name}/{STACK}", name)
        programs.cryodrgn(
            "backproject_voxel", files["particles"], "--poses", files["poses"], "--ctf", files["ctf"],
            "-o", f"backprojected_{name}", "--uninvert-data", "--no-half-maps",
        )  # fmt: skip
        volume = mrcfile.read(programs.folder / f"backprojected_{name}" / "backproject.mrc")
        checks.at_least(f"{name}", correlation(volume, simulated.molecule(NEW_BOX, pixel_size_A)), CORRELATION)
        mirrored = correlation(volume, simulated.molecule(NEW_BOX, pixel_size_A, x_sign=-1.0))
        checks.at_most(f"{name}, with the mirror image of the molecule", mirrored, MIRRORED)


def _below_nyquist(ours: NDArray[Any], theirs: NDArray[Any]) -> tuple[float, float]:
    """Return the factor between two stacks and their largest difference, both without the Nyquist frequencies."""
    nyquist = ours.shape[-1] // 2
    cut = []
    for images in (ours, theirs):
        spectra = np.fft.rfft2(images)
        spectra[:, nyquist] = 0
        spectra[:, :, nyquist] = 0
        cut.append(np.fft.irfft2(spectra))
    factor = float((cut[0] * cut[1]).sum() / (cut[0] ** 2).sum())
    return factor, largest(cut[0], cut[1] / factor)


def _stack(path: Path) -> NDArray[Any]:
    return np.asarray(mrcfile.read(path), np.float32)


def _n_unlike(found: list[Any], expected: list[Any]) -> int:
    return sum(bool(one != other) for one, other in zip(found, expected, strict=False)) + abs(
        len(found) - len(expected)
    )
