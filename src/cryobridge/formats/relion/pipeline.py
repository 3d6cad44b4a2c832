"""RELION's list of the jobs of a project, default_pipeline.star."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError
from cryobridge.formats.relion.job import PIPELINE
from cryobridge.formats.relion.star import open_star
from cryobridge.model.particles import Labels
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from cryobridge.formats.listing import Listing

_PROCESS = "rlnPipeLineProcess"
_BLOCK = "pipeline_processes"
_STATUS_OF_LABEL = {"Succeeded": "success", "Failed": "failure", "Aborted": "aborted"}
# rlnPipeLineProcessStatus, before RELION 4.
_STATUS_OF_NUMBER = {"0": "running", "1": "scheduled", "2": "success", "3": "failure", "4": "aborted"}


@dataclass(frozen=True)
class Process:
    """What the list says of a job.

    Parameters
    ----------
    status
        ``success``, ``failure``, ``aborted``, ``running``, ``scheduled`` or another word of RELION's; empty where it
        does not say.
    alias
        The name that the user gave the job; empty where there is none.
    """

    status: str = ""
    alias: str = ""


def read_pipeline(listing: Listing, problems: list[Message]) -> dict[str, Process]:
    """Read the jobs of a project by their folder, such as ``Class3D/job012``.

    Parameters
    ----------
    listing
        The project's folder.
    problems
        A warning is added where the list can't be read.
    """
    if PIPELINE not in listing.files:
        return {}
    try:
        star = open_star(listing.path / PIPELINE)
        if _BLOCK not in star or f"{_PROCESS}Name" not in star[_BLOCK]:
            return {}
        block = star[_BLOCK]
        columns = {
            name: [str(item) for item in (values.to_numpy() if isinstance(values, Labels) else values).tolist()]
            for name, values in block.read(block.names).items()
        }
    except CryobridgeError as error:
        problems.append(warning("file-not-read", str(error), where=listing.path / PIPELINE))
        return {}
    names = [name.rstrip("/") for name in columns[f"{_PROCESS}Name"]]
    labels, numbers = columns.get(f"{_PROCESS}StatusLabel"), columns.get(f"{_PROCESS}Status")
    if labels is not None:
        states = [_STATUS_OF_LABEL.get(label, label.lower()) for label in labels]
    else:
        states = [_STATUS_OF_NUMBER.get(number, "") for number in numbers or [""] * len(names)]
    aliases = columns.get(f"{_PROCESS}Alias", ["None"] * len(names))
    titles = ["" if alias == "None" else alias.strip("/").rpartition("/")[2] for alias in aliases]
    return {name: Process(*parts) for name, *parts in zip(names, states, titles, strict=True)}
