"""What the stacks jobs report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from cryobridge.report import Report, distinct


@dataclass(frozen=True, kw_only=True)
class PipelineReport(Report):
    """What is known of all kinds of stacks that are made.

    Parameters
    ----------
    stacks_kept
        Stacks that were there already, with ``resume``.
    stacks_planned
        Stacks of the whole job; of a job that came to no end fewer are made.
    left_out_rows
        Rows of the metadata whose images turned out unusable.
    stack_bytes
        How large the stacks are together: the numbers that they hold of the images.
    """

    stacks_kept: int = 0
    stacks_planned: int = 0
    left_out_rows: tuple[int, ...] = ()
    stack_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class StacksReport(PipelineReport):
    """What a conversion to Fourier stacks reads and makes; ``outputs`` are the Fourier stacks.

    Parameters
    ----------
    stacks
        How many stacks.
    images_per_stack
        Images in each, before unusable ones are left out.
    box_px
        Of the images (axis 0, axis 1), after binning.
    pixel_size_A
        After binning.
    shells, angles
        Of the polar grid.
    precision
        Of the output.
    """

    stacks: int
    images_per_stack: tuple[int, ...]
    box_px: tuple[int, int]
    pixel_size_A: float
    shells: int
    angles: int
    precision: Literal["single", "double"]


@dataclass(frozen=True, kw_only=True)
class DownsampleReport(PipelineReport):
    """What a downsampling reads and makes; ``outputs`` are the files beside the stacks, the STAR file first.

    Parameters
    ----------
    stacks
        The stacks.
    box_px
        Edge of the images before and after.
    pixel_size_A
        The distinct pixel sizes before and after.
    optics_groups
        How many there are.
    precision
        Of the output.
    inverted
        How many images are multiplied by -1.
    background_radius_px
        The radius outside of which the background is normalised; empty where it is not.
    ramp
        Whether a plane was subtracted for that, or the mean; None where neither was.
    poses, ctf
        Whether poses.pkl and ctf.pkl are written.
    dropped_columns
        Columns of the source that are in none of the files.
    next
        The words of the command that takes the images further; None where none can.
    """

    stacks: tuple[Path, ...]
    box_px: tuple[int, int]
    pixel_size_A: tuple[tuple[float, ...], tuple[float, ...]]
    optics_groups: int
    precision: Literal["float32", "float16"]
    inverted: int = 0
    background_radius_px: tuple[int, ...] = ()
    ramp: bool | None = None
    poses: bool
    ctf: bool
    dropped_columns: tuple[str, ...]
    next: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class GridReport(Report):
    """What a parameter file says; it is of no rows.

    Parameters
    ----------
    box_px
        Of the images (axis 0, axis 1).
    pixel_size_A
        Of the images.
    shells, angles
        Of the polar grid.
    resolution_A
        At the edge of the grid.
    precision
        Of the stacks.
    """

    rows_in: int = 0
    rows_out: int = 0
    box_px: tuple[int, int]
    pixel_size_A: float
    shells: int
    angles: int
    resolution_A: float
    precision: Literal["single", "double"]


def joined(reports: Sequence[StacksReport]) -> StacksReport:
    """Return the reports of several conversions as one: numbers are added, lists put one after another.

    Parameters
    ----------
    reports
        One or more, whose images and grids are alike.
    """
    left_out: Counter[str] = Counter()
    for report in reports:
        left_out.update(report.left_out)
    added: dict[str, Any] = {"left_out": dict(left_out)}
    for name in ("rows_in", "rows_out", "stacks_kept", "stacks_planned", "stack_bytes", "stacks"):
        added[name] = sum(getattr(report, name) for report in reports)
    for name in ("left_out_rows", "images_per_stack", "messages", "outputs"):
        added[name] = tuple(chain.from_iterable(getattr(report, name) for report in reports))
    added["messages"] = distinct(added["messages"])
    return replace(reports[0], **added)
