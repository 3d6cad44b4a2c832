"""What can be asked of `micrographs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryobridge.errors import UsageError, option
from cryobridge.formats.relion.list_names import ListName
from cryobridge.jobs.exposures.motion_options import MotionOptions
from cryobridge.jobs.shared_options import ImageSearchOptions, MicroscopeDefaults, OpticsGroupOptions
from cryobridge.options import Opt


@dataclass(frozen=True, kw_only=True)
class MicrographsOptions(MotionOptions, OpticsGroupOptions, MicroscopeDefaults, ImageSearchOptions):
    """How exposures become RELION's lists and files.

    Raises
    ------
    UsageError
        If a value is of another type, none of the choices, or out of bounds, or a list is named twice.

    Examples
    --------
    >>> MicrographsOptions(lists=("micrographs", "ctf"), copy=True)
    """

    lists: Annotated[
        tuple[ListName, ...] | None,
        Opt(
            "Which lists to write, unless all that the exposures have columns for. Repeatable.",
            flags=("--as",),
            metavar="LIST",
            panel="Output",
            complete=("movies", "micrographs", "corrected", "ctf"),
        ),
    ] = None
    relion: Annotated[Literal["3.1", "5"], Opt("Which RELION the lists are for: 3.1 to 4, or 5.", panel="Output")] = (
        "3.1"
    )
    relion_project: Annotated[
        Path | None, Opt("RELION's project folder, if the output folder is not in it.", metavar="DIR", panel="Output")
    ] = None
    copy: Annotated[bool, Opt("Put copies of the image files there instead of links.", panel="Output")] = False
    float16: Annotated[
        Literal["rewrite", "keep"],
        Opt(
            "Micrographs in half precision, which RELION 3.1 and CTFFIND refuse: as float32, or as they are.",
            panel="Output",
        ),
    ] = "rewrite"
    flip_y: Annotated[bool, Opt("Write the micrographs with their rows reversed, as copies.", panel="Output")] = False
    on_missing: Annotated[
        Literal["error", "skip"], Opt("If an image is missing or unusable: stop, or leave it out.", panel="Input")
    ] = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        named = self.lists or ()
        if self.lists is not None and (not named or len(set(named)) < len(named)):
            raise UsageError(
                f"{option('lists', named[0])} is given twice" if named else "no list is named",
                option="lists",
                hint="Name each list once, or leave it out for all that the exposures have columns for.",
            )
