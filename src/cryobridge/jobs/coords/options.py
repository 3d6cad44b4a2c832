"""What can be asked of `coords`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryobridge.jobs.shared_options import AncestorOptions, OrientationOptions
from cryobridge.options import Opt


@dataclass(frozen=True, kw_only=True)
class CoordsOptions(OrientationOptions, AncestorOptions):
    """How cryoSPARC's picks become coordinates of RELION's.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds.

    Examples
    --------
    >>> CoordsOptions(flip_y=True, drop_outside=True, xy_fields=("f6", "f7"))
    """

    subpixel: Annotated[bool, Opt("Keep fractions of a pixel in the coordinates.", panel="Coordinates")] = False
    check_orientation: Annotated[
        bool,
        Opt(
            "Show how well each of the eight orientations fits; an error if they can't be compared.",
            panel="Orientation check",
        ),
    ] = False
    check_micrographs: Annotated[
        int, Opt("Number of micrographs to compare.", metavar="N", panel="Orientation check", low=1)
    ] = 5
    strict_orientation: Annotated[
        bool, Opt("Stop if the orientation can't be checked, without the table.", panel="Orientation check")
    ] = False
    passthrough: Annotated[
        Path | None,
        Opt("File with the location columns, if it is not found beside PICKS.", metavar="FILE.cs", panel="Input"),
    ] = None
    nudge: Annotated[
        bool,
        Opt(
            "If the file has no column names: infer which columns are x and y, or take the two right after the shape.",
            flags=("--nudge/--no-nudge",),
            panel="Input",
        ),
    ] = True
    xy_fields: Annotated[
        tuple[str, str] | None,
        Opt("Names of the columns with x and y, as fractions of the micrograph.", metavar="X,Y", panel="Input"),
    ] = None
    on_unmatched: Annotated[
        Literal["error", "skip"],
        Opt("If the STAR file lacks a micrograph: stop, or leave its picks out.", panel="Input"),
    ] = "error"
    drop_outside: Annotated[bool, Opt("Leave out picks that lie outside their micrograph.", panel="Input")] = False
    picks_only: Annotated[bool, Opt("Write positions only: no classes, angles or helical columns.", panel="Output")] = (
        False
    )
    copy: Annotated[bool, Opt("Put copies of the pick files into Raw_data instead of links.", panel="Output")] = False
    relion_project: Annotated[
        Path | None, Opt("RELION's project folder, if the output folder is not in it.", metavar="DIR", panel="Output")
    ] = None
    preview: Annotated[int, Opt("Draw the picks on N micrographs.", metavar="N", panel="Output", low=0, default="")] = 0

    @property
    def checks_orientation(self) -> bool:
        """Whether it is an error that the orientation can't be compared with RELION's micrographs."""
        return self.check_orientation or self.strict_orientation
