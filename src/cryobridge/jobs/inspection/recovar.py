"""Inspecting RECOVAR results: pipelines, analyses and densities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.errors import CryobridgeError
from cryobridge.formats.particle_files import TABLE_SUFFIXES
from cryobridge.formats.recovar.job import RecovarJob, read_recovar_job
from cryobridge.formats.recovar.parts import filtered_maps
from cryobridge.formats.recovar.run import RecovarRun, open_recovar
from cryobridge.jobs.inspection.commands import free
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.recovar_maps import (
    describe_half_maps,
    describe_volumes,
    half_map_facts,
    sizes_text,
    volume_facts,
)
from cryobridge.jobs.inspection.report import Inspection, Use
from cryobridge.jobs.inspection.tables import uses_of_file
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.formats.recovar.analysis import Analysis, Trajectory
    from cryobridge.formats.recovar.density import Density
    from cryobridge.formats.recovar.model import Embedding, Model
    from cryobridge.formats.recovar.parts import JobFacts, Volume
    from cryobridge.jobs.inspection.tables import Facts
    from cryobridge.progress import Reporter

_N_SHOWN = 6
_N_CLUSTERS_SHOWN = 40
_N_ABSENT_SHOWN = 3
_ARRAY_TITLES = {"latent_precision": "precisions", "contrasts": "contrasts"}


def inspect_recovar(path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
    """Describe a RECOVAR result: a pipeline, an analysis or a density."""
    job = read_recovar_job(path)
    facts = _job_facts(job.facts)
    messages = [*job.problems, *_of_status(job.facts)]
    if job.kind == "pipeline":
        facts += _particle_facts(job)
        messages += _of_particles(job, is_whole=options.statistics)
        facts += _model_facts(job)
    volumes = describe_volumes(job.volumes)
    half_maps = describe_half_maps(job.volumes) if options.statistics else None
    facts += [*volume_facts(volumes), *half_map_facts(half_maps)]
    parts: tuple[Analysis | Density, ...] = (*job.analyses, *job.densities)
    if job.kind == "pipeline":
        facts += [(f"analysis {analysis.path.name}", _analysis_text(analysis)) for analysis in job.analyses]
        facts += [(f"density {density.path.name}", _density_text(density)) for density in job.densities]
        for part in parts:
            found = (*part.problems, *_of_status(part.facts))
            messages += [replace(message, text=f"{part.path.name}: {message.text}") for message in found]
    else:
        facts += [fact for analysis in job.analyses for fact in _analysis_facts(analysis)]
        facts += [fact for density in job.densities for fact in _density_facts(density)]
        messages += [message for part in parts for message in part.problems]
    messages += _of_absent_files((job, *parts) if job.kind in {"pipeline", "other"} else parts, job.path)
    return Inspection(
        str(path),
        "recovar result",
        f"RECOVAR {job.kind}",
        _n_particles(job),
        tuple(facts),
        uses=_uses(job, options, reporter),
        # A part that is inspected alone has the problems of its folder.
        messages=tuple(dict.fromkeys(messages)),
        details={"recovar": _details(job, volumes, half_maps)},
    )


def _uses(job: RecovarJob, options: InspectOptions, reporter: Reporter) -> tuple[Use, ...]:
    """Say what is done with a pipeline's particles, and with the clusters of an analysis."""
    if job.kind not in {"pipeline", "analysis"}:
        return ()
    try:
        particles = (RecovarRun(job) if job.kind == "pipeline" else open_recovar(job.path)).particles_file
        if particles is None or particles.suffix not in TABLE_SUFFIXES:
            return ()
        uses = uses_of_file(particles, particles, options, reporter)
    except CryobridgeError:
        return ()
    has_clusters = any(analysis.kmeans is not None for analysis in job.analyses)
    words = ("--clusters", "0") if has_clusters else ()
    output = free(f"{'state_0' if has_clusters else 'run_particles'}{particles.suffix}")
    select = ("cryobridge", "select", "--run", str(job.path), *words, "-o", output)
    uses = tuple(replace(use, commands=(select,)) if use.name == "select" else use for use in uses)
    return tuple(use for use in uses if job.kind == "pipeline" or use.name == "select")


def _job_facts(facts: JobFacts | None) -> Facts:
    if facts is None:
        return []
    duration = f", {duration_text(facts.duration_s)}" if facts.duration_s is not None else ""
    return [
        ("program", f"RECOVAR {facts.version}".strip()),
        ("status", f"{facts.status or 'unknown'}{duration}"),
        ("command", facts.command_line or facts.command),
        *([("pipeline", facts.pipeline_folder)] if facts.pipeline_folder else []),
    ]


def duration_text(seconds: float) -> str:
    """Return a duration as people write it, such as ``2 min 23 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _of_status(facts: JobFacts | None) -> tuple[Message, ...]:
    if facts is None or facts.status in {"", "completed"}:
        return ()
    return (warning("job-incomplete", f"The job is not complete: its job.json says “{facts.status}”"),)


def _of_absent_files(parts: Iterable[RecovarJob | Analysis | Density], root: Path) -> list[Message]:
    """Say, for each job.json, how many of the files that it lists are not there."""
    messages = []
    for part in parts:
        if part.absent and part.facts is not None:
            where = "" if part.path == root else f"{part.path.name}: "
            shown = ", ".join(part.absent[:_N_ABSENT_SHOWN]) + (" …" if len(part.absent) > _N_ABSENT_SHOWN else "")
            verb = "is" if len(part.absent) == 1 else "are"
            listed = counted(len(part.facts.outputs), "file")
            text = f"{where}Of {listed} that job.json lists, {len(part.absent):,} {verb} not there: {shown}"
            messages.append(warning("outputs-not-found", text))
    return messages


def _n_particles(job: RecovarJob) -> int | None:
    """Count the particles of the run; without half sets the latent coordinates stand for them."""
    if job.kind == "analysis":
        return next((sum(analysis.populations) for analysis in job.analyses if analysis.populations), None)
    if job.model is not None and job.model.rows is not None:
        return len(job.model.rows)
    return next((embedding.n_rows for embedding in job.embeddings), None)


def _particle_facts(job: RecovarJob) -> Facts:
    """Say where the particle file is."""
    run = RecovarRun(job)
    facts: Facts = []
    if run.particles.name:
        facts.append(("particle file", str(run.particles.path or run.particles.name)))
    if job.model is not None and job.model.halves is not None:
        first, second = job.model.halves
        facts.append(("half sets", f"{first:,} and {counted(second, 'particle')}"))
    return facts


def _of_particles(job: RecovarJob, *, is_whole: bool) -> tuple[Message, ...]:
    """Return what the rows of the run contradict in its particle file."""
    run = RecovarRun(job)
    try:
        return run.messages if is_whole else run.particles.messages
    except CryobridgeError as error:
        return (*run.particles.messages, warning("particle-file", str(error)))


def _model_facts(job: RecovarJob) -> Facts:
    facts: Facts = []
    model = job.model
    if model is not None and model.volume_shape:
        size = f", voxel {model.voxel_size_A:g} Å" if model.voxel_size_A else ""
        facts.append(("model", " × ".join(map(str, model.volume_shape)) + f" px{size}"))
    facts += [(f"zdim {embedding.zdim}", _embedding_text(embedding, model)) for embedding in job.embeddings]
    values = _eigenvalues(model)
    if values:
        more = f" … ({len(values)} in all)" if len(values) > _N_SHOWN else ""
        facts.append(("eigenvalues", ", ".join(f"{value:.4g}" for value in values[:_N_SHOWN]) + more))
    elif model is not None and model.refused_names:
        facts.append(("eigenvalues", f"in params.pkl, which asks for code ({model.refused_names[0]} …): not opened"))
    return facts


def _embedding_text(embedding: Embedding, model: Model | None) -> str:
    if embedding.n_rows is None:
        return "no latent coordinates"
    n = len(model.rows) if model is not None and model.rows is not None else embedding.n_rows
    left_out = f" of {embedding.n_rows:,} rows" if n != embedding.n_rows else ""
    others = [title for name, title in _ARRAY_TITLES.items() if embedding.array(name) is not None]
    noreg = "; also without regularisation" if embedding.array("latent_coords_noreg") is not None else ""
    return counted(n, "particle") + left_out + (f", with {' and '.join(others)}" if others else "") + noreg


def _eigenvalues(model: Model | None) -> list[float]:
    return [] if model is None or model.eigenvalues is None else [float(value) for value in model.eigenvalues]


def _analysis_text(analysis: Analysis) -> str:
    """Describe an analysis in one line of its pipeline's report."""
    n_states = sum(trajectory.n_states for trajectory in analysis.trajectories)
    trajectories = counted(len(analysis.trajectories), "trajectory", "trajectories")
    populations = [f"{n:,}" for n in analysis.populations[:_N_SHOWN]]
    more = " …" if len(analysis.populations) > _N_SHOWN else ""
    of = f" of {', '.join(populations)}{more} particles" if populations else ""
    clusters = counted(analysis.n_centers, "cluster") + of if analysis.n_centers is not None else "no k-means result"
    states = f" with {counted(n_states, 'state')}" if n_states else ""
    noreg = ", without regularisation" if analysis.is_noreg else ""
    return (
        f"zdim {analysis.zdim if analysis.zdim is not None else 'unknown'}{noreg}; {clusters}; {trajectories}{states}"
    )


def _analysis_facts(analysis: Analysis) -> Facts:
    """Describe an analysis that is inspected alone."""
    noreg = ", coordinates without regularisation" if analysis.is_noreg else ""
    facts: Facts = [("zdim", f"{analysis.zdim if analysis.zdim is not None else 'unknown'}{noreg}")]
    maps = {volume.index: volume for volume in analysis.centers}
    total = sum(analysis.populations)
    for cluster, n in enumerate(analysis.populations[:_N_CLUSTERS_SHOWN]):
        share = f" ({100 * n / total:.1f} %)" if total else ""
        name = f", {maps[cluster].path.name}" if cluster in maps else ""
        facts.append((f"cluster {cluster}", f"{counted(n, 'particle')}{share}{name}"))
    if len(analysis.populations) > _N_CLUSTERS_SHOWN:
        facts.append(("more clusters", f"{len(analysis.populations) - _N_CLUSTERS_SHOWN} (all are in the JSON)"))
    if not analysis.populations and analysis.n_centers is not None:
        facts.append(("clusters", f"{analysis.n_centers}, populations unknown"))
    if analysis.center_volumes:
        facts.append(("centers", _maps_text(analysis.center_volumes)))
    facts += [(trajectory.path.name, _trajectory_text(trajectory)) for trajectory in analysis.trajectories]
    if analysis.umap is not None:
        facts.append(("UMAP", str(analysis.umap.relative_to(analysis.path))))
    return facts


def _trajectory_text(trajectory: Trajectory) -> str:
    ends = "" if trajectory.ends is None else f"cluster {trajectory.ends[0]} to {trajectory.ends[1]}; "
    return ends + (_maps_text(trajectory.volumes) if trajectory.volumes else "no maps")


def _maps_text(volumes: tuple[Volume, ...]) -> str:
    """Describe filtered maps, and how many there are of other kinds."""
    n_halves = sum(volume.half is not None for volume in volumes)
    n_unfiltered = len(volumes) - n_halves - len(filtered_maps(volumes))
    others = [counted(n_halves, "half map")] if n_halves else []
    others += [f"{n_unfiltered} unfiltered"] if n_unfiltered else []
    also = f"; also {' and '.join(others)}" if others else ""
    return sizes_text(describe_volumes(filtered_maps(volumes))) + also


def _density_text(density: Density) -> str:
    """Describe a density in one line of its pipeline's report."""
    shape = " × ".join(map(str, density.knee.shape)) if density.knee is not None else ""
    grid = f"grid of {shape}" if shape else "no grid at the knee"
    return f"{grid}, {counted(len(density.all_densities), 'alpha')}; {_knee_text(density)}"


def _knee_text(density: Density) -> str:
    if density.knee is None or density.knee.alpha is None:
        return "knee unknown"
    number = f" (number {density.knee_index})" if density.knee_index is not None else ""
    return f"knee at alpha {density.knee.alpha:.4g}{number}"


def _density_facts(density: Density) -> Facts:
    """Describe a density that is inspected alone."""
    facts: Facts = [("made from", f"coordinates of zdim {density.zdim}")] if density.zdim is not None else []
    grid = next((file for file in (density.knee, *density.all_densities) if file is not None and file.shape), None)
    if grid is not None:
        facts.append(("grid", " × ".join(map(str, grid.shape)) + " points"))
        for axis, (low, high) in enumerate(grid.bounds):
            facts.append((f"dimension {axis}", f"{low:.6g} to {high:.6g}"))
    alphas = [
        f"{file.index}: {'unknown' if file.alpha is None else format(file.alpha, '.4g')}"
        for file in density.all_densities
    ]
    return [*facts, ("alphas", ", ".join(alphas) or "none"), ("knee", _knee_text(density).removeprefix("knee at "))]


def _details(job: RecovarJob, volumes: list[dict[str, Any]], half_maps: dict[str, Any] | None) -> dict[str, Any]:
    run = RecovarRun(job) if job.kind == "pipeline" else None
    return {
        "kind": job.kind,
        **_facts_details(job.facts),
        "particle_file": str(run.particles.path) if run is not None and run.particles.path is not None else None,
        "zdims": [embedding.zdim for embedding in job.embeddings],
        "half_sets": list(job.model.halves) if job.model is not None and job.model.halves is not None else None,
        "eigenvalues": _eigenvalues(job.model),
        "volumes": volumes,
        "half_maps": half_maps,
        "analyses": [_analysis_details(analysis) for analysis in job.analyses],
        "densities": [_density_details(density) for density in job.densities],
        "absent": list(job.absent),
    }


def _facts_details(facts: JobFacts | None) -> dict[str, Any]:
    return {
        "version": facts.version if facts else None,
        "status": facts.status if facts else None,
        "duration_s": facts.duration_s if facts else None,
    }


def _analysis_details(analysis: Analysis) -> dict[str, Any]:
    return {
        "path": str(analysis.path),
        "layout": analysis.layout,
        **_facts_details(analysis.facts),
        "zdim": analysis.zdim,
        "noreg": analysis.is_noreg,
        "centers": analysis.n_centers,
        "labels": analysis.n_labels,
        "populations": list(analysis.populations),
        "volumes": describe_volumes(analysis.center_volumes),
        "trajectories": [
            {
                "path": str(trajectory.path),
                "ends": trajectory.ends,
                "states": trajectory.n_states,
                "volumes": describe_volumes(trajectory.volumes),
            }
            for trajectory in analysis.trajectories
        ],
        "absent": list(analysis.absent),
        "problems": list(map(str, analysis.problems)),
    }


def _density_details(density: Density) -> dict[str, Any]:
    grid = density.knee
    return {
        "path": str(density.path),
        "layout": density.layout,
        **_facts_details(density.facts),
        "zdim": density.zdim,
        "shape": list(grid.shape) if grid is not None else None,
        "bounds": [list(ends) for ends in grid.bounds] if grid is not None else None,
        "alphas": [file.alpha for file in density.all_densities],
        "knee": None if grid is None else {"alpha": grid.alpha, "index": density.knee_index},
        "absent": list(density.absent),
        "problems": list(map(str, density.problems)),
    }
