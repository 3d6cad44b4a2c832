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

    subpixel: Annotated[bool, Opt("Keep fractions of a pixel.", panel="Coordinates")] = False
    check_orientation: Annotated[
        bool, Opt("Show how all eight fit; an error if that is impossible.", panel="Orientation check")
    ] = False
    check_micrographs: Annotated[
        int, Opt("Micrographs that the check looks at.", metavar="N", panel="Orientation check", low=1)
    ] = 5
    strict_orientation: Annotated[bool, Opt("The same, without the table.", panel="Orientation check")] = False
    passthrough: Annotated[
        Path | None, Opt("The file with location/*, if not found.", metavar="FILE.cs", panel="Input")
    ] = None
    nudge: Annotated[
        bool,
        Opt(
            "Without names, infer the columns, or take the two floats right after the shape.",
            flags=("--nudge/--no-nudge",),
            panel="Input",
        ),
    ] = True
    xy_fields: Annotated[
        tuple[str, str] | None, Opt("The columns of the two fractions.", metavar="X,Y", panel="Input")
    ] = None
    on_unmatched: Annotated[
        Literal["error", "skip"], Opt("What to do about micrographs that the STAR file lacks.", panel="Input")
    ] = "error"
    drop_outside: Annotated[bool, Opt("Leave out picks outside their micrograph.", panel="Input")] = False
    picks_only: Annotated[bool, Opt("Leave out classes, angles and helical columns.", panel="Output")] = False
    copy: Annotated[bool, Opt("Put copies into Raw_data, not links to the pick files.", panel="Output")] = False
    relion_project: Annotated[
        Path | None, Opt("RELION's project, if not above the output folder.", metavar="DIR", panel="Output")
    ] = None
    preview: Annotated[
        int, Opt("Draw N micrographs with the picks.", metavar="N", panel="Output", low=0, default="")
    ] = 0

    @property
    def checks_orientation(self) -> bool:
        """Whether it is an error that the orientation can't be compared with RELION's micrographs."""
        return self.check_orientation or self.strict_orientation
