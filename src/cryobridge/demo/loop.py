"""The loop of the project: picks go to RELION, and the particles of good classes come back to cryoSPARC's file.

RELION's own Extract is run where it is installed; what comes back is compared with what was simulated.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import numpy as np

from cryobridge.demo.extraction import BACKGROUND_RADIUS_PX, write_extraction
from cryobridge.demo.relion_files import CTF_STAR, EXTRACT_JOB, PARTICLES_STAR
from cryobridge.demo.report import Loop
from cryobridge.errors import CryobridgeError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.relion.star import open_star
from cryobridge.report import Message, note

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.demo.project import DemoProject

PROGRAM: Final = "relion_preprocess"
PICKS = "picks"
LONGEST_S = 60


def relion_is_installed() -> bool:
    """Whether RELION's program that extracts particles is on the path."""
    return shutil.which(PROGRAM) is not None


def extract_words(project: DemoProject) -> list[str]:
    """Return RELION's command, typed in its project, that extracts the particles at the picks in `PICKS`.

    It is that of its Extract job with the options that the window has at first; RELION 3.1, 4 and 5 take it.
    """
    return [
        *(PROGRAM, "--i", CTF_STAR, "--coord_dir", f"{PICKS}/", "--coord_suffix", "_autopick.star"),
        *("--part_star", PARTICLES_STAR, "--part_dir", f"{EXTRACT_JOB}/"),
        *("--extract", "--extract_size", str(project.box_px), "--norm", "--bg_radius", str(BACKGROUND_RADIUS_PX)),
        *("--white_dust", "-1", "--black_dust", "-1", "--invert_contrast"),
    ]


def extract(project: DemoProject) -> list[Message]:
    """Let RELION extract the particles in place of the simulated ones.

    Returns
    -------
    list of Message
        Why it could not; the simulated job is then there as before.
    """
    before = _image_names(project.extracted_star)
    problem = _problem(project)
    if problem is None:
        try:
            if _image_names(project.extracted_star) == before:
                return []
            problem = "made other particles than were picked"
        except CryobridgeError as error:
            problem = f"made what can't be read ({error})"
    write_extraction(project.relion, project.truth)
    return [note("relion-failed", f"{PROGRAM} {problem}: the simulated particles are taken", where=project.relion)]


def compare(project: DemoProject, particles_cs: Path, *, by_relion: bool) -> Loop:
    """Compare the uids of the particles that came back with those that were simulated as good.

    Parameters
    ----------
    project
        The project.
    particles_cs
        What came back.
    by_relion
        Whether RELION extracted the particles.

    Raises
    ------
    CryobridgeError
        If they are others.
    """
    particles = project.truth.particles
    uids = set(np.asarray(open_cs(particles_cs).read(["uid"])["uid"]).tolist())
    good = set(particles.good_uid.tolist())
    if uids != good:
        raise CryobridgeError(
            f"{len(uids - good)} particles came back that are in no good class, and {len(good - uids)} of these are "
            "missing",
            path=particles_cs,
            hint="This is a fault of cryobridge: please report it.",
        )
    return Loop(
        extracted_by=PROGRAM if by_relion else "simulation",
        picked=len(particles),
        came_back=len(uids),
    )


def _problem(project: DemoProject) -> str | None:
    """Run RELION's program and return what went wrong."""
    try:
        done = subprocess.run(
            extract_words(project),
            cwd=project.relion,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"had not ended after {LONGEST_S} s"
    except OSError as error:
        return f"could not be started ({error.strerror})"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return f"ended with {done.returncode}" + (f" ({lines[-1]})" if lines else "")


def _image_names(star: Path) -> list[str]:
    """Return the names of the images; none where RELION found no particles."""
    file = open_star(star)
    return [str(name) for name in file["particles"].texts("rlnImageName").to_pylist()] if "particles" in file else []
