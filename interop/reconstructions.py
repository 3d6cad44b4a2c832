"""Particles that went through cryobridge, as RELION has them: reconstructions, its tools for STAR files and images.

Each stage is called with `Checks` and the `Relion` of an empty folder, which is the current one, as the project of
RELION is; `STAGES` lists them. The tests with the marker ``relion`` run the same stages.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cryobridge as cb
from interop.maps import correlation, fsc, lowest_fsc
from interop.relion import CORRELATION_LOSS, FSC, OpticsGroup, read_images, read_star, write_star

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from interop.checks import Checks
    from interop.relion import Relion, Simulated

LAYOUTS = ("3.0", "3.1", "5")
_PAGE = Path(__file__).resolve().parent.parent / "docs" / "convert.md"
# Twice the molecule's diameter, and quickly reconstructed.
_BOX_PX = 48
# Mirrored, the molecule is another one.
_MIRRORED = 0.7
# As much as the signal's.
_NOISE = 0.05
# What RELION's six decimals can hide of an angle, in degrees. The reconstruction is not continuous in the angles: the
# effect varies by about a tenth from one change of this size to another.
_ANGLE_DEG = 5e-6
_SPREAD = 1.1
_ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
# About a radian at the edge, each.
_TERMS = {
    "rlnBeamTiltX": 0.4,
    "rlnBeamTiltY": -0.3,
    "rlnOddZernike": "[0,0,60,0,0,-80]",
    "rlnEvenZernike": "[0,0,0,0,20,-15,0,10,25]",
    "rlnMagMat00": 1.03,
    "rlnMagMat01": 0.01,
    "rlnMagMat10": 0.01,
    "rlnMagMat11": 0.98,
}
_OTHER_TERMS = {
    "rlnBeamTiltX": -0.3,
    "rlnBeamTiltY": 0.5,
    "rlnOddZernike": "[0,0,-30,0,0,50]",
    "rlnEvenZernike": "[0,0,0,0,-20,10,0,15,-25]",
    "rlnMagMat00": 0.98,
    "rlnMagMat01": -0.015,
    "rlnMagMat10": -0.015,
    "rlnMagMat11": 1.02,
}


def check_layouts(checks: Checks, relion: Relion) -> None:
    """Reconstruct noise-free particles as they are, and after STAR -> .cs -> STAR in each layout."""
    checks.section("relion_reconstruct: noise-free particles, STAR -> .cs -> STAR")
    simulated = relion.simulate((OpticsGroup(_BOX_PX),), n_images=300)
    original = relion.reconstruct(simulated.star)
    checks.at_least("the original: correlation with the truth", correlation(original, simulated.volume), 0.99)
    checks.at_most("the original: with the mirror image", correlation(original, simulated.mirrored), _MIRRORED)
    for layout in LAYOUTS:
        star = _there_and_back(simulated.star, f"layout_{layout}", layout)
        _check_same(checks, f"layout of RELION {layout}", relion.reconstruct(star), original, simulated)


def check_optics_groups(checks: Checks, relion: Relion) -> None:
    """Reconstruct two optics groups with aberrations and anisotropic magnification."""
    checks.section(
        "relion_reconstruct: optics groups of 48 px, 2 Å, 300 kV and of 56 px, 1.6 Å, 200 kV, with beam tilt, trefoil, "
        "fourth-order terms and 5 % anisotropic magnification, STAR -> .cs -> STAR"
    )
    second = OpticsGroup(56, 1.6, 200.0, 2.0, 0.07, _OTHER_TERMS)
    simulated = relion.simulate((OpticsGroup(_BOX_PX, terms=_TERMS), second), n_images=250)
    original = relion.reconstruct(simulated.star)
    bare = lowest_fsc(relion.reconstruct(_without_terms(simulated.star)), original)
    checks.at_most("without all these terms: lowest FSC to the original", bare, 0.9)
    again = relion.reconstruct(_there_and_back(simulated.star, "back"))
    _check_same(checks, "with them", again, original, simulated)


def check_ctf_refine(checks: Checks, relion: Relion) -> None:
    """Reconstruct what relion_ctf_refine wrote of beam tilt, aberrations, magnification and defocus."""
    checks.section("relion_reconstruct: output of relion_ctf_refine, STAR -> .cs -> STAR")
    simulated = relion.simulate((OpticsGroup(_BOX_PX, terms=_TERMS),), n_images=300)
    star = _without_terms(simulated.star)
    halves = [f"half{number}.mrc" for number in (1, 2)]
    maps = [relion.reconstruct(star, "--subset", number, output=half) for number, half in enumerate(halves, 1)]
    _write_fsc(Path("fsc.star"), fsc(*maps), _BOX_PX * 2.0)
    for name, asked in (
        (
            "aberrations",
            ("--fit_beamtilt", "--odd_aberr_max_n", 3, "--fit_aberr", "--kmin_tilt", 20, "--kmin_aberr", 20),
        ),
        ("magnification", ("--fit_aniso", "--kmin_mag", 20)),
        ("defocus", ("--fit_defocus", "--fit_mode", "fpmff", "--kmin_defocus", 20)),
    ):
        relion.run(
            "relion_ctf_refine", "--i", star, "--f", "fsc.star", "--o", f"CtfRefine/{name}/",
            "--m1", halves[0], "--m2", halves[1], *asked,
        )  # fmt: skip
        star = f"CtfRefine/{name}/particles_ctf_refine.star"
    refined = set(read_star(Path(star))["optics"].columns)
    checks.equal("columns of terms that it wrote", len(refined & set(_TERMS)), len(_TERMS))
    original = relion.reconstruct(star, output="refined.mrc")
    bare = lowest_fsc(relion.reconstruct(_without_terms(star)), original)
    checks.at_most("without all these terms: lowest FSC to it", bare, 0.9)
    _check_same(checks, "with them", relion.reconstruct(_there_and_back(star, "back")), original, simulated)


def check_noise(checks: Checks, relion: Relion) -> None:
    """Reconstruct noisy particles: what the conversion changes is what RELION's own decimals change."""
    checks.section(f"relion_reconstruct: noisy particles, and the original with its angles changed by {_ANGLE_DEG} °")
    simulated = relion.simulate((OpticsGroup(_BOX_PX),), n_images=1000, noise=_NOISE)
    original = relion.reconstruct(simulated.star)
    changed = max(1 - lowest_fsc(relion.reconstruct(star), original) for star in _with_changed_angles(simulated))
    again = relion.reconstruct(_there_and_back(simulated.star, "back"))
    checks.note(
        f"The original correlates {correlation(original, simulated.volume):.2f} with the truth. "
        f"The bar is {_SPREAD:g} times the worst of four changes of that size."
    )
    checks.at_most(
        "STAR -> .cs -> STAR: 1 - lowest FSC to the original", 1 - lowest_fsc(again, original), changed * _SPREAD
    )
    _check_loss(checks, "STAR -> .cs -> STAR: loss of correlation with the truth", again, original, simulated)


def check_dark(checks: Checks, relion: Relion) -> None:
    """Make dark particles bright by the command that the page on convert gives, and by our own copies."""
    command = inversion_command("dark.star")
    checks.section(f"Dark particles: {shlex.join(command)}")
    simulated = relion.simulate((OpticsGroup(_BOX_PX),), n_images=40)
    cb.convert(simulated.star, "dark.cs", contrast="dark")
    cb.convert("dark.cs", "dark.star", link_stacks="links")
    cb.convert("dark.cs", "ours.star", link_stacks="copies", copy=True, invert=True)
    before = read_images(Path(), "dark.star")
    relion.run(*command)
    for what, star, expected in (
        ("that are not the dark ones times -1", "dark_bright.star", -before),
        ("of our copies that are not RELION's", "ours.star", read_images(Path(), "dark_bright.star")),
        ("of the dark particles that changed", "dark.star", before),
    ):
        checks.same_rows(f"images {what}", _n_unlike(read_images(Path(), star), expected), len(before))


def check_tools(checks: Checks, relion: Relion) -> None:
    """Let RELION convert our 3.0 layout, and select and combine the files of each layout."""
    checks.section("relion_convert_star and relion_star_handler on our files")
    simulated = relion.simulate((OpticsGroup(_BOX_PX), OpticsGroup(56, 1.6)), n_images=80)
    original = relion.reconstruct(simulated.star)
    tilts = read_star(Path(simulated.star))["particles"]["rlnAngleTilt"]
    for layout in LAYOUTS:
        star = _there_and_back(simulated.star, f"layout_{layout}", layout)
        again = relion.reconstruct(_converted(relion, star) if layout == "3.0" else star)
        name = "3.0 after relion_convert_star" if layout == "3.0" else layout
        checks.at_least(f"layout of RELION {name}: lowest FSC to the original", lowest_fsc(again, original), FSC)
        at_most = ("--select", "rlnAngleTilt", "--minval", 0, "--maxval", 90)
        relion.run("relion_star_handler", "--i", star, "--o", "selected.star", *at_most)
        n = _n_particles("selected.star")
        checks.equal(f"layout of RELION {layout}: rows with a tilt of at most 90 °", n, int((tilts <= 90).sum()))
        relion.run("relion_star_handler", "--i", f"{star} {star}", "--o", "combined.star", "--combine")
        n = _n_particles("combined.star")
        checks.equal(f"layout of RELION {layout}: rows combined with itself", n, 2 * len(tilts))


STAGES = (check_layouts, check_optics_groups, check_ctf_refine, check_noise, check_dark, check_tools)


def inversion_command(star: str) -> list[str]:
    """Return the words of the command for dark particles that docs/convert.md gives, for a STAR file."""
    found = re.search(r"`(relion_image_handler [^`]*)`", _PAGE.read_text(encoding="utf-8"))
    assert found, f"{_PAGE.name} has no command of relion_image_handler"
    return shlex.split(found[1].replace("X.star", star))


def _there_and_back(star: str, folder: str, layout: str = "3.1") -> str:
    """Convert a STAR file to a `.cs`, and that to a STAR file in a layout of RELION."""
    Path(folder).mkdir()
    cb.convert(star, f"{folder}/particles.cs", contrast="bright")
    cb.convert(f"{folder}/particles.cs", f"{folder}/again.star", link_stacks=f"{folder}/stacks", relion=layout)
    return f"{folder}/again.star"


def _without_terms(star: str) -> str:
    tables = read_star(Path(star))
    bare = tables["optics"].drop(columns=list(_TERMS))
    write_star(Path("bare.star"), {**tables, "optics": bare})
    return "bare.star"


def _with_changed_angles(simulated: Simulated) -> Iterator[str]:
    """Yield the original with each angle changed up or down; which ones is drawn four times."""
    for seed in range(4):
        tables = read_star(Path(simulated.star))
        size = (len(tables["particles"]), len(_ANGLES))
        tables["particles"][_ANGLES] += np.random.default_rng(seed).choice([-_ANGLE_DEG, _ANGLE_DEG], size)
        write_star(Path("changed.star"), tables)
        yield "changed.star"


def _converted(relion: Relion, star: str) -> str:
    relion.run("relion_convert_star", "--i", star, "--o", "converted.star")
    return "converted.star"


def _n_particles(star: str) -> int:
    return len(read_star(Path(star))["particles"])


def _check_same(checks: Checks, what: str, again: NDArray[Any], original: NDArray[Any], simulated: Simulated) -> None:
    checks.at_least(f"{what}: lowest FSC to the original", lowest_fsc(again, original), FSC)
    _check_loss(checks, f"{what}: loss of correlation with the truth", again, original, simulated)


def _check_loss(checks: Checks, what: str, again: NDArray[Any], original: NDArray[Any], simulated: Simulated) -> None:
    loss = correlation(original, simulated.volume) - correlation(again, simulated.volume)
    checks.at_most(what, loss, CORRELATION_LOSS)


def _write_fsc(path: Path, curve: NDArray[Any], length_A: float) -> None:
    """Write a Fourier shell correlation as relion_postprocess does, without a mask."""
    shells = np.arange(len(curve))
    columns = {
        "rlnSpectralIndex": shells,
        "rlnResolution": shells / length_A,
        "rlnAngstromResolution": np.where(shells > 0, length_A / np.maximum(shells, 1), 999),
        "rlnFourierShellCorrelationCorrected": curve,
        "rlnFourierShellCorrelationUnmaskedMaps": curve,
        "rlnFourierShellCorrelationMaskedMaps": curve,
    }
    write_star(path, {"fsc": columns})


def _n_unlike(found: NDArray[Any], expected: NDArray[Any]) -> int:
    return int((found != expected).any(axis=(1, 2)).sum())
