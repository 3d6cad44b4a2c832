"""The one list of what files can be used for: the names for checks and JSON, and the titles of those that are shown."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

# What a file can be used for; the first six are judged by its columns alone.
UseName: TypeAlias = Literal[
    "coords",
    "stacks",
    "stacks-job",
    "poses",
    "ctf",
    "recovar",
    "relion",
    "cryosparc",
    "cryolike",
    "cryodrgn",
    "select",
    "micrographs",
]
USE_NAMES: tuple[UseName, ...] = get_args(UseName)
# What it can be held to besides: that an output of cryobridge is as it was written.
CheckName: TypeAlias = Literal[UseName, "whole"]
CHECK_NAMES: tuple[CheckName, ...] = get_args(CheckName)
# Those that are shown, in this order; the others are parts of them.
TITLES: dict[CheckName, str] = {
    "relion": "to RELION",
    "cryosparc": "to cryoSPARC",
    "select": "select",
    "micrographs": "micrographs",
    "coords": "coords",
    "cryolike": "CryoLike stacks",
    "recovar": "RECOVAR",
    "cryodrgn": "cryoDRGN",
    "whole": "whole",
}
