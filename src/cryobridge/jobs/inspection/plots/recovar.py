"""Pictures of RECOVAR results: half maps' FSC, eigenvalues, latent planes by cluster, densities."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError, UsageError
from cryobridge.formats.recovar.job import RecovarJob, pipeline_of, read_recovar_job
from cryobridge.formats.recovar.run import RecovarRun
from cryobridge.jobs.inspection.recovar_maps import FSC_THRESHOLDS, describe_half_maps
from cryobridge.plots.page import (
    LABELLED_MARGIN_IN,
    MAX_PANELS,
    Floats,
    Panel,
    Sheet,
    path_title,
)
from cryobridge.plots.recovar import Clusters, draw_density, draw_eigenvalues, draw_fsc, draw_latent, draw_populations
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.formats.recovar.analysis import Analysis
    from cryobridge.formats.recovar.density import Density, DensityFile

_MAX_POINTS = 20_000
_N_PLANE_DIMENSIONS = 3


class _Page:
    """Gathers panels, and sentences on what they leave out."""

    def __init__(self) -> None:
        self.panels: list[Panel] = []
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def recovar_sheet(path: Path) -> Sheet:
    """Show what a pipeline, an analysis or a density found."""
    job = read_recovar_job(path)
    page = _Page()
    if job.kind == "pipeline":
        _add_pipeline(page, job)
    for analysis in job.analyses if job.kind == "analysis" else ():
        _add_analysis(page, analysis, job)
    for density in job.densities if job.kind == "density" else ():
        _add_densities(page, density)
    if not page.panels:
        raise UsageError(
            "there is no picture of this folder: no half maps, eigenvalues, latent coordinates or densities",
            path=path,
            hint="Name a file in it, such as a .mrc or .npy.",
        )
    if len(page.panels) > MAX_PANELS:
        page.note(f"{len(page.panels) - MAX_PANELS} panels are left out.")
    heading = f"{path_title(path)}: RECOVAR {job.kind}"
    return Sheet(heading, tuple(page.panels[:MAX_PANELS]), tuple(page.notes), (3.4, 2.8), LABELLED_MARGIN_IN)


def _add_pipeline(page: _Page, job: RecovarJob) -> None:
    half_maps = describe_half_maps(job.volumes)
    if half_maps is not None and half_maps.get("box_A"):
        page.panels.append(_fsc_panel(half_maps))
    run = RecovarRun(job)
    if run.eigenvalues is not None and len(run.eigenvalues):
        page.panels.append(Panel("eigenvalues", draw_eigenvalues(run.eigenvalues)))
    drawn = [analysis for analysis in job.analyses if _add_planes(page, run, analysis, n_dimensions=2)]
    if not drawn and run.zdims:
        # The lowest of two dimensions or more, else the only one.
        _add_plain_latent(page, run, next((zdim for zdim in run.zdims if zdim > 1), run.zdims[0]))
    for density in job.densities:
        if density.knee is not None:
            _add_density(page, density.knee, f"{density.path.name} at the knee")


def _add_analysis(page: _Page, analysis: Analysis, job: RecovarJob) -> None:
    pipeline = pipeline_of(job)
    if pipeline is None:
        page.note("The pipeline's result was not found, so that the latent coordinates are not drawn.")
    else:
        run = RecovarRun(pipeline, job)
        _add_planes(page, run, analysis, n_dimensions=_N_PLANE_DIMENSIONS)
        _add_umap(page, run, analysis)
    if analysis.populations:
        page.panels.append(Panel("particles of each cluster", draw_populations(analysis.populations)))


def _add_densities(page: _Page, density: Density) -> None:
    if density.knee is not None:
        _add_density(page, density.knee, "at the knee")
    for file in density.all_densities:
        _add_density(page, file, f"number {file.index}")


def _fsc_panel(half_maps: dict[str, Any]) -> Panel:
    curves = {"no mask": half_maps["fsc"]}
    if half_maps["masked"] is not None:
        curves[Path(half_maps["mask"]).name] = half_maps["masked"]["fsc"]
    return Panel("FSC of the half maps", draw_fsc(curves, half_maps["box_A"], FSC_THRESHOLDS.values()))


def _add_plain_latent(page: _Page, run: RecovarRun, zdim: int) -> None:
    try:
        points = run.latent(zdim)
    except CryobridgeError as error:
        page.note(f"⚠ {error}.")
        return
    shown = points[_sample(page, len(points))][:, :2]
    page.panels.append(Panel(f"latent coordinates of zdim {zdim}", draw_latent(shown, None, _dimensions((0, 1)))))


def _add_planes(page: _Page, run: RecovarRun, analysis: Analysis, *, n_dimensions: int) -> bool:
    """Draw the planes of the first dimensions by cluster; return whether it was done, and say what prevents it."""
    try:
        if analysis.zdim is None or analysis.kmeans is None:
            return False
        result = run.kmeans(analysis)
        points = run.latent(analysis.zdim, regularised=not analysis.is_noreg)
    except CryobridgeError as error:
        page.note(f"⚠ {error}.")
        return False
    chosen, paths = _sample(page, len(points)), _paths(page, analysis)
    n_drawn = min(n_dimensions, points.shape[1], result.centers.shape[1])
    planes: list[tuple[int, ...]] = [*combinations(range(n_drawn), 2)] or [(0,)]
    title = f"zdim {analysis.zdim} by cluster" + (f", {analysis.path.name}" if n_dimensions == 2 else "")
    for plane in planes:
        axes = list(plane)
        lines = [path[:, axes] for path in paths if path.shape[1] > max(axes)]
        clusters = Clusters(result.labels[chosen], result.centers[:, axes], lines)
        page.panels.append(Panel(title, draw_latent(points[chosen][:, axes], clusters, _dimensions(plane))))
    return True


def _dimensions(plane: tuple[int, ...]) -> list[str]:
    return [f"dimension {axis}" for axis in plane]


def _paths(page: _Page, analysis: Analysis) -> list[Floats]:
    """Read the latent coordinates of the states of each trajectory."""
    paths = []
    for trajectory in analysis.trajectories:
        if trajectory.coordinates is not None:
            try:
                paths.append(trajectory.states())
            except CryobridgeError as error:
                page.note(f"⚠ {error}.")
    if paths:
        page.note("Lines: trajectories, through the latent coordinates of their states.")
    return paths


def _add_umap(page: _Page, run: RecovarRun, analysis: Analysis) -> None:
    if analysis.umap is None:
        return
    try:
        points, result = run.umap(analysis), run.kmeans(analysis)
    except CryobridgeError as error:
        page.note(f"⚠ {error}.")
        return
    chosen = _sample(page, len(points))
    # The embedding has no centers of its own.
    members = [points[result.labels == cluster, :2] for cluster in range(len(result.centers))]
    middles = [np.median(part, axis=0) if len(part) else np.full(2, np.nan) for part in members]
    clusters = Clusters(result.labels[chosen], np.array(middles), [])
    page.panels.append(Panel("UMAP by cluster", draw_latent(points[chosen][:, :2], clusters, ["UMAP 0", "UMAP 1"])))


def _sample(page: _Page, n_points: int) -> slice:
    """Return every k-th point, so that at most 20,000 are drawn, and say so."""
    step = max(1, -(-n_points // _MAX_POINTS))
    if step > 1:
        page.note(f"Drawn are {-(-n_points // step):,} of {counted(n_points, 'particle')}, evenly spaced.")
    return slice(None, None, step)


def _add_density(page: _Page, file: DensityFile, name: str) -> None:
    """Draw a density along its first two dimensions, summed over the others."""
    try:
        grid = file.open()
    except CryobridgeError as error:
        page.note(f"⚠ {error}.")
        return
    values, n_summed = grid.density, grid.density.ndim - 2
    if n_summed > 0:
        values = values.sum(axis=tuple(range(2, values.ndim)))
        page.note(
            f"Densities are summed over dimension{'s 2 to' if n_summed > 1 else ''} {values.ndim + n_summed - 1}."
        )
    alpha = "" if grid.alpha is None else f", alpha {grid.alpha:.4g}"
    panel = Panel(f"{name}{alpha}", draw_density(values, grid.axes))
    page.panels.append(panel)
    if values.ndim > 1:
        page.note("Each density has its own scale; bright is dense.")
