"""Pictures of RECOVAR results, RELION jobs and own outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.formats.arrays import read_npy, read_pt
from cryobridge.formats.recovar.job import RecovarJob, read_recovar_job
from cryobridge.inspect.folders import inspect_own_output, inspect_recovar, inspect_relion_job
from cryobridge.inspect.options import InspectOptions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from cryobridge.drawing.page import LABELLED_MARGIN_IN, TICK_PT, Draw, Floats, Panel, Sheet, labelled, path_title
from cryobridge.inspect.plots.arrays import array_images_sheet, arrays_sheet, pickle_sheet, points_panel

_FSC_THRESHOLD = 0.143


def recovar_sheet(path: Path) -> Sheet:
    """Show the half maps' FSC, eigenvalues and latent coordinates; of an analysis or density its main file."""
    job = read_recovar_job(path)
    for file in (
        *(density.knee.path for density in job.densities if density.knee),
        *(analysis.umap or analysis.kmeans for analysis in job.analyses),
    ):
        if job.kind != "pipeline" and file is not None:
            return pickle_sheet(file)
    details = inspect_recovar(path, InspectOptions()).details["recovar"]
    panels, notes = [], []
    if details["half_maps"] and "fsc" in details["half_maps"]:
        half = next(volume for volume in details["volumes"] if volume.get("half") == 1)
        panels.append(_fsc_panel(details["half_maps"]["fsc"], half["box_px"][0] * half["voxel_size_A"]))
        notes.append(f"{details['half_maps']['text']}.")
    if details["eigenvalues"]:
        panels.append(Panel("eigenvalues", _draw_eigenvalues(np.asarray(details["eigenvalues"]))))
    panels += _latent_panels(job)
    if not panels:
        raise UsageError(
            "there is no picture of this folder: no half maps, eigenvalues or latent coordinates",
            path=path,
            hint="Name a file in it, such as a .mrc or .npy.",
        )
    return Sheet(f"{path_title(path)}: RECOVAR {job.kind}", tuple(panels), tuple(notes), (3.4, 2.8), LABELLED_MARGIN_IN)


def _fsc_panel(fsc: list[float], box_A: float) -> Panel:
    def draw(axes: Axes) -> None:
        axes.plot(np.arange(len(fsc)) / box_A, fsc)
        axes.axhline(_FSC_THRESHOLD, color="0.4", linestyle="--", linewidth=1)
        axes.text(0, _FSC_THRESHOLD + 0.02, f"{_FSC_THRESHOLD}", fontsize=TICK_PT, color="0.4")
        axes.set_ylim(min(-0.05, *fsc), 1.05)

    return Panel("FSC of the half maps", labelled(draw, "spatial frequency (1/Å)", ""))


def _draw_eigenvalues(values: Floats) -> Draw:
    def draw(axes: Axes) -> None:
        axes.plot(np.arange(1, len(values) + 1), values, ".-", linewidth=0.8)
        if bool((values > 0).all()):
            axes.set_yscale("log")

    return labelled(draw, "component", "")


def _latent_panels(job: RecovarJob) -> list[Panel]:
    """Draw the latent coordinates of the lowest dimension that has two."""
    for embedding in job.embeddings:
        for array in embedding.arrays:
            if array.name == "latent_coords" and array.shape[1:] == (embedding.zdim,) and embedding.zdim > 1:
                return [points_panel(f"latent coordinates of zdim {embedding.zdim}", read_npy(array.path))]
    return []


def own_sheet(path: Path) -> Sheet:
    """Draw the first images of a stack output."""
    stacks = inspect_own_output(path, InspectOptions()).details["output"]["series"].get("physical stacks")
    if not stacks:
        raise UsageError(
            "there is no picture of this folder: it has no physical stacks",
            path=path,
            hint="Name a file in it: a .pt or .npz in fft/, or a .star.",
        )
    images = read_pt(stacks[0]).numpy()
    if images.ndim != 3 or images.dtype.kind == "c" or images.size == 0:
        return arrays_sheet(Path(stacks[0]))
    return array_images_sheet(Path(stacks[0]), images)


def relion_sheet(path: Path) -> Sheet:
    """Draw the class averages or maps of a RELION job."""
    iterations = inspect_relion_job(path, InspectOptions()).details["iterations"]
    data = next((item["data"] for item in reversed(iterations) if item["data"]), None)
    raise UsageError(
        "there is no picture of a RELION job as a whole",
        path=path,
        hint=f"Name its particles, {data}, or a map." if data else "Name a .star or .mrc file in it.",
    )
