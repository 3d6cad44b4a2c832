"""What is reported of a demo project."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        What it prints as JSON.
    """

    words: tuple[str, ...]
    result: Any


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
    project
        Where the simulated files are, and what is true of them; not in the JSON.
    """

    output: Path
    seed: int
    commands: tuple[TourStep, ...] = ()
    project: DemoProject = field(metadata={"json": None}, repr=False)
