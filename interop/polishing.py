"""The recipe "polish cryoSPARC's particles in RELION" of docs/tasks.md, run on the demo project as it stands there."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

import cryobridge as cb
from cryobridge.demo import simulate_project
from cryobridge.demo.truth import MICROGRAPH_SHAPE_PX
from interop.maps import correlation, volume_of
from interop.relion import Relion, read_star

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.demo import DemoProject
    from interop.checks import Checks

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "tasks.md"
_TITLE = "## Polish cryoSPARC's particles in RELION\n"
_POLISH, _CTF = "relion_motion_refine", "relion_ctf_refine"


def recipe_commands() -> list[list[str]]:
    """Return the words of the commands that the page gives, in their order; those of cryobridge begin with it."""
    section = _PAGE.read_text(encoding="utf-8").partition(_TITLE)[2].partition("\n## ")[0]
    assert section, f"{_PAGE.name} has no recipe for polishing"
    lines = section.replace("\\\n", " ").replace("\n$ ", "\n").splitlines()
    programs = ("cryobridge ", "mkdir ", "relion_")
    return [shlex.split(line) for line in lines if line.startswith(programs)]


@dataclass(frozen=True)
class Recipe:
    """The demo project, in which the commands run: those of cryobridge in its folder, RELION's in RELION's project."""

    demo: DemoProject
    relion: Relion

    def run(self, words: list[str], *more: str) -> None:
        """Run a command of the page, with more options if any."""
        if words[0] == "cryobridge":
            words = [sys.executable, "-m", *words]
            self.relion.run_command([*words, *more], folder="..")
        else:
            self.relion.run_command([*words, *more])

    def tables(self, star: str) -> dict[str, Any]:
        """Read a STAR file of RELION's project."""
        return read_star(self.relion.folder / star)

    def tracks_px(self, job: str) -> NDArray[Any]:
        """Return where RELION took particles to be, less their coordinates: (n, n_frames, 2)."""
        found = []
        for name in self.demo.truth.micrographs.name:
            (path,) = (self.relion.folder / job).rglob(f"{name}_*tracks.star")
            tracks = [table for key, table in read_star(path).items() if key.isdigit()]
            found += [table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() for table in tracks]
        return np.array(found) / self.demo.pixel_size_A

    def true_tracks_px(self) -> NDArray[Any]:
        """Return where they were."""
        truth, (ny, _) = self.demo.truth, MICROGRAPH_SHAPE_PX
        picks = truth.particles.pick_px * [1, -1] + [0, ny - 1]
        of_movies = [
            -motion.shifts_px(picks[truth.particles.micrograph == row], MICROGRAPH_SHAPE_PX)
            for row, motion in enumerate(truth.micrographs.motion)
        ]
        return np.concatenate(of_movies)


def check_recipe(checks: Checks, relion: Relion) -> None:
    """Polish the demo project's particles, and refine their CTF, by the commands of the page."""
    checks.section("The recipe of docs/tasks.md: cryoSPARC's particles are polished in RELION")
    checks.note(
        "The commands of the page run in the demo project: 300 particles in noise of ten times their variance, "
        "movies of four frames. RELION's own fits have little to go by there, "
        "so that only what is made without them is held to the truth."
    )
    demo = simulate_project(relion.folder / "cryobridge-demo")
    recipe = Recipe(demo, Relion(demo.relion))
    n = len(demo.truth.particles)
    for words in recipe_commands():
        if words[0] == _POLISH:
            _check_tracks(checks, recipe, words)
        recipe.run(words)
        if words[:2] == ["cryobridge", "convert"]:
            _check_names(checks, recipe, words)
        elif words[0] in {_POLISH, _CTF}:
            star = f"{words[words.index('--o') + 1]}{'shiny' if words[0] == _POLISH else 'particles_ctf_refine'}.star"
            checks.equal(f"{words[0]}: particles", len(recipe.tables(star)["particles"]), n)
            seen = cb.inspect(demo.relion / star)
            checks.equal("cryobridge inspect: rows", seen.to_json()["rows"], n)
            checks.equal("cryobridge inspect: warnings", len(seen.warnings), 0)
    _check_results(checks, recipe)


STAGES = (check_recipe,)


def _check_names(checks: Checks, recipe: Recipe, words: list[str]) -> None:
    """See that each particle is on one micrograph of each list, by RELION's names."""
    star = words[words.index("-o") + 1].removeprefix("relion/")
    named = recipe.tables(star)["particles"]["rlnMicrographName"]
    lists = Path(words[words.index("--micrographs") + 1].removeprefix("relion/")).parent
    for name in ("corrected_micrographs.star", "micrographs_ctf.star"):
        counts = recipe.tables(str(lists / name))["micrographs"]["rlnMicrographName"].value_counts()
        found = named.map(counts)
        checks.same_rows(f"particles that are not on one micrograph of {name}", int((found != 1).sum()), len(named))
    (recipe.relion.folder / "Import/job005").mkdir(parents=True)
    recipe.run(["relion_import", "--do_micrographs", "--i", f"{lists}/Micrographs/*.mrc", "--odir", "Import/job005/",
                "--ofile", "micrographs.star", "--optics_group_name", "og1", "--angpix", "1.5", "--kV", "300",
                "--Cs", "2.7", "--Q0", "0.1", "--beamtilt_x", "0", "--beamtilt_y", "0"])  # fmt: skip
    imported = recipe.tables("Import/job005/micrographs.star")["micrographs"]
    checks.equal("relion_import: micrographs", len(imported), len(counts))


def _check_tracks(checks: Checks, recipe: Recipe, words: list[str]) -> None:
    """Let RELION take the motion as the metadata have it."""
    (recipe.relion.folder / "Polish/tracks").mkdir(parents=True)
    place = words.index("--o") + 1
    recipe.run([*words[:place], "Polish/tracks/", *words[place + 1 :]], "--max_iters", "0")
    found, truth = recipe.tracks_px("Polish/tracks"), recipe.true_tracks_px()
    rms_px = float(np.sqrt(((found - truth) ** 2).sum(axis=-1).mean()))
    checks.at_most("--max_iters 0: particles in each frame, from where they were (rms)", rms_px, 0.1, "px")
    for axis, name in enumerate("xy"):
        alike = float(np.corrcoef(found[..., axis].ravel(), truth[..., axis].ravel())[0, 1])
        checks.at_least(f"--max_iters 0: correlation of {name} with the truth", alike, 0.999)


def _check_results(checks: Checks, recipe: Recipe) -> None:
    """Reconstruct the particles before and after, and take them back to cryoSPARC."""
    demo, truth = recipe.demo, {}
    for sign in (1.0, -1.0):
        truth[sign] = volume_of(demo.truth.molecule, demo.box_px, demo.pixel_size_A, sign)
    extracted, polished, refined = (
        "Extract/job007/particles.star",
        "Polish/tracks/shiny.star",
        "CtfRefine/job012/particles_ctf_refine.star",
    )
    alike = {}
    for star in (extracted, polished):
        recipe.relion.run("relion_reconstruct", "--i", star, "--o", "map.mrc", "--ctf", "--iter", 2, "--maxres", 9)
        volume = np.array(mrcfile.read(recipe.relion.folder / "map.mrc"))
        alike[star] = [correlation(volume, truth[sign]) for sign in (1.0, -1.0)]
    checks.at_least("map of the particles that RELION extracts: truth", alike[extracted][0], 0.9)
    checks.at_least("map of the polished particles: truth", alike[polished][0], 0.9)
    checks.at_most("map of the polished particles: with the mirror image", alike[polished][1], 0.7)
    defocus_A = recipe.tables(refined)["particles"][["rlnDefocusU", "rlnDefocusV"]].to_numpy().mean(axis=1)
    ctf = demo.truth.particles.ctf
    off_A = np.median(np.abs(defocus_A - (ctf.defocus_u_A + ctf.defocus_v_A) / 2))
    checks.at_most("relion_ctf_refine: defocus, from the truth (median)", float(off_A), 400, "Å")
    report = cb.convert(demo.relion / refined, demo.cryosparc / "polished.cs")
    checks.equal("refined particles -> .cs: rows", report.rows_out, len(demo.truth.particles))
