"""What is reported of a demo project."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryobridge.report import Report

if TYPE_CHECKING:
    from cryobridge.demo.project import DemoProject


@dataclass(frozen=True, kw_only=True)
class TourStep:
    """A command that the project was taken through.

    Parameters
    ----------
    words
        The command as it is typed.
    result
        What it prints as JSON; null for a program of RELION.
    folder
        Where it is typed, if not in the current folder.
    """

    words: tuple[str, ...]
    result: Any
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The particles of RELION's good classes, back in cryoSPARC's terms: their uids are those that were simulated.

    Parameters
    ----------
    extracted_by
        "relion_preprocess" where RELION extracted the particles, else "simulation".
    picked
        How many were picked in cryoSPARC.
    came_back
        How many are in the good classes, by the truth and by the file that came back.
    """

    extracted_by: Literal["relion_preprocess", "simulation"]
    picked: int
    came_back: int


@dataclass(frozen=True, kw_only=True)
class DemoReport(Report):
    """What was simulated, and what the commands made of it.

    Parameters
    ----------
    output
        The folder of the project.
    seed
        What the simulation was drawn with.
    commands
        The commands that the project was taken through, in their order; none in Python or with a dry run.
    loop
        What came back to cryoSPARC from RELION's classes; null without commands.
    project
        Where the simulated files are, and what is true of them; not in the JSON.
    """

    output: Path
    seed: int
    commands: tuple[TourStep, ...] = ()
    loop: Loop | None = None
    project: DemoProject = field(metadata={"json": None}, repr=False)
