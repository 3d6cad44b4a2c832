"""Pictures of RELION jobs and own outputs."""

from __future__ import annotations

from pathlib import Path

from cryobridge.errors import UsageError
from cryobridge.formats.arrays import numpy_values, read_pt
from cryobridge.formats.listing import list_folder
from cryobridge.jobs.inspection.folders import inspect_own_output, inspect_relion_job
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.plots.arrays import array_images_sheet, arrays_sheet
from cryobridge.jobs.inspection.projects import known_files
from cryobridge.plots.page import Sheet
from cryobridge.progress import Silent


def own_sheet(path: Path) -> Sheet:
    """Draw the first images of a stack output."""
    stacks = inspect_own_output(path, InspectOptions(), Silent()).details["output"]["series"].get("physical stacks")
    if not stacks:
        lists = [path / name for name in known_files(list_folder(path)) if name.endswith(".star")]
        raise UsageError(
            "there is no picture of this folder: it has no physical stacks",
            path=path,
            hint=f"Name a file in it: {lists[0]}."
            if lists
            else "Name a file in it: a .pt or .npz in fft/, or a .star.",
        )
    images = numpy_values(read_pt(stacks[0]))
    if images.ndim != 3 or images.dtype.kind == "c" or images.size == 0:
        return arrays_sheet(Path(stacks[0]))
    return array_images_sheet(Path(stacks[0]), images)


def relion_sheet(path: Path) -> Sheet:
    """Draw the class averages or maps of a RELION job."""
    iterations = inspect_relion_job(path, InspectOptions(), Silent()).details["iterations"]
    data = next((item["data"] for item in reversed(iterations) if item["data"]), None)
    raise UsageError(
        "there is no picture of a RELION job as a whole",
        path=path,
        hint=f"Name its particles, {data}, or a map." if data else "Name a .star or .mrc file in it.",
    )
