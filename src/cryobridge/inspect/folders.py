"""Inspecting folders: cryoSPARC and RELION jobs, RECOVAR results, cryobridge's own outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cryobridge.errors import CryobridgeError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.job import CryosparcJob, read_job
from cryobridge.formats.cryosparc.join import join_on_uid
from cryobridge.formats.cryosparc.outputs import JobOutput
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.own_output import read_own_output
from cryobridge.formats.recovar.job import RecovarJob, read_recovar_job
from cryobridge.formats.recovar.parts import Volume
from cryobridge.formats.relion.job import read_relion_job
from cryobridge.inspect.options import InspectOptions
from cryobridge.inspect.report import Inspection, Use
from cryobridge.inspect.tables import Facts, inspect_table
from cryobridge.inspect.uses import uses_of_cs
from cryobridge.inspect.wording import counted

_FSC_THRESHOLD = 0.143
_N_SHOWN = 6


def inspect_cryosparc_job(path: Path, options: InspectOptions) -> Inspection:
    """Describe a job folder, and the particles that it put out, joined with their passthrough."""
    job = read_job(path)
    facts: Facts = [
        ("job", " ".join(part for part in (job.uid, job.job_type, f"“{job.title}”" if job.title else "") if part)),
        ("status", job.status or "unknown"),
        ("known by", {"file names": "the names of its files"}.get(job.layout, f"job.json ({job.layout})")),
    ]
    facts += [(f"output {output.name}", _output_text(output)) for output in job.outputs]
    facts += [(batch.kind, counted(len(batch.files), "batch", "batches")) for batch in job.batches]
    details = {
        "outputs": [
            {
                "name": output.name,
                "kind": output.kind,
                "main": str(output.main) if output.main else None,
                "passthroughs": [str(passthrough) for passthrough in output.passthroughs],
                "num_items": output.num_items,
                "excluded": output.is_excluded,
            }
            for output in job.outputs
        ],
    }
    inspection = Inspection(
        str(path), "cryosparc job", "cryoSPARC job", facts=tuple(facts), problems=job.problems, details=details
    )
    output = particles_of(job)
    if output is None:
        return inspection
    files = _files_of(output)
    table = join_on_uid(*map(open_cs, files))
    particles = inspect_table(table, files[0], options)
    return replace(
        inspection,
        rows=table.n_rows,
        facts=(*facts, *particles.facts),
        fields=particles.fields,
        uses=_uses_of_job(job, output, table.names),
        problems=(*job.problems, *table.notes, *particles.problems),
        details={**details, **particles.details},
    )


def _output_text(output: JobOutput) -> str:
    files = [file.name for file in _files_of(output)]
    items = f", {counted(output.num_items, 'item')}" if output.num_items is not None else ""
    return ", ".join(files) + items + (" (excluded ones)" if output.is_excluded else "")


def _files_of(output: JobOutput) -> list[Path]:
    """Return its files, the one with what the job computed first; some jobs leave a passthrough alone."""
    return [file for file in (output.main, *output.passthroughs) if file is not None]


def particles_of(job: CryosparcJob) -> JobOutput | None:
    """Return the output that the job is about: the first particles that were not excluded and whose files exist."""
    return next(
        (
            output
            for output in job.outputs
            if output.kind == "particle"
            and not output.is_excluded
            and _files_of(output)
            and all(file.is_file() for file in _files_of(output))
        ),
        None,
    )


def _uses_of_job(job: CryosparcJob, output: JobOutput, names: tuple[str, ...]) -> tuple[Use, ...]:
    """Judge the joined columns; stacks of the job need a passthrough and batches."""
    uses = []
    for use in uses_of_cs(_files_of(output)[0], names):
        if use.name != "stacks-job":
            uses.append(use)
            continue
        missing = [] if output.passthroughs else ["J<n>_passthrough_particles.cs"]
        missing += [] if job.batches else ["restack/ or downsample/ with batch_000000_*.mrc"]
        uses.append(Use("stacks-job", not missing, tuple(missing), "Run Restack Particles." if missing else ""))
    return tuple(uses)


def inspect_relion_job(path: Path, _options: InspectOptions) -> Inspection:
    """Describe a RELION job: its kind, state and iterations."""
    job = read_relion_job(path)
    numbers = [iteration.number for iteration in job.iterations if iteration.number is not None]
    continued = sorted({i.continued_from for i in job.iterations if i.continued_from is not None})
    facts: Facts = [
        ("job", f"{job.kind or 'of unknown kind'}" + (f" (told by {job.told_by})" if job.told_by else "")),
        ("status", job.status),
        ("project", str(job.project) if job.project else "no default_pipeline.star above it"),
    ]
    if numbers:
        facts.append(("iterations", f"{numbers[0]} to {numbers[-1]} ({len(numbers)} sets of files)"))
    if continued:
        facts.append(("continued from", ", ".join(map(str, continued))))
    last = job.final or (job.iterations[-1] if job.iterations else None)
    if last is not None:
        facts.append(("last", ", ".join(_names(last.data, last.model, last.half1_model, *last.volumes[:2])) or "-"))
    facts += [("output", output.name) for output in job.outputs[:_N_SHOWN]]
    details: dict[str, Any] = {
        "job": {"kind": job.kind, "status": job.status, "project": str(job.project) if job.project else None},
        "iterations": [
            {
                "iteration": iteration.number,
                "continued_from": iteration.continued_from,
                "data": str(iteration.data) if iteration.data else None,
                "model": str(iteration.model or iteration.half1_model or "") or None,
                "optimiser": str(iteration.optimiser) if iteration.optimiser else None,
                "volumes": [str(volume) for volume in iteration.volumes],
            }
            for iteration in job.iterations
        ],
    }
    if last is not None and last.data is not None:
        facts.append(("its particles", f"cryobridge inspect {last.data}"))
    return Inspection(
        str(path),
        "relion job",
        f"RELION job {job.kind}".strip(),
        facts=tuple(facts),
        problems=job.problems,
        details=details,
    )


def inspect_recovar(path: Path, _options: InspectOptions) -> Inspection:
    """Describe a RECOVAR result: a pipeline, an analysis or a density."""
    job = read_recovar_job(path)
    facts: Facts = []
    if job.facts is not None:
        duration = f", {job.facts.duration_s:.0f} s" if job.facts.duration_s is not None else ""
        facts += [("program", f"RECOVAR {job.facts.version}"), ("status", f"{job.facts.status}{duration}")]
        facts.append(("command", job.facts.command_line or job.facts.command))
    facts += _model_facts(job)
    facts += [
        (f"zdim {embedding.zdim}", counted(embedding.n_rows, "particle") if embedding.n_rows else "unknown length")
        for embedding in job.embeddings
    ]
    volumes = [_volume_details(volume) for volume in job.volumes]
    facts += _volume_facts(job.volumes, volumes)
    half_maps = _half_map_resolution(job.volumes)
    if half_maps:
        facts.append(("half maps", half_maps["text"]))
    for analysis in job.analyses:
        centers = counted(analysis.n_centers or 0, "center")
        trajectories = counted(len(analysis.trajectories), "trajectory", "trajectories")
        facts.append((f"analysis {analysis.path.name}", f"zdim {analysis.zdim}, {centers}, {trajectories}"))
    for density in job.densities:
        shape = " × ".join(map(str, density.knee.shape)) if density.knee else "no knee"
        facts.append((f"density {density.path.name}", f"{shape}, {counted(len(density.all_densities), 'alpha')}"))
    details: dict[str, Any] = {
        "recovar": {
            "kind": job.kind,
            "version": job.facts.version if job.facts else None,
            "status": job.facts.status if job.facts else None,
            "zdims": [embedding.zdim for embedding in job.embeddings],
            "eigenvalues": _eigenvalues(job),
            "volumes": volumes,
            "half_maps": half_maps,
            "analyses": [
                {"path": str(a.path), "zdim": a.zdim, "centers": a.n_centers, "labels": a.n_labels}
                for a in job.analyses
            ],
            "densities": [
                {"path": str(d.path), "alphas": [file.alpha for file in d.all_densities]} for d in job.densities
            ],
        }
    }
    rows = next((embedding.n_rows for embedding in job.embeddings), None)
    return Inspection(
        str(path), "recovar result", f"RECOVAR {job.kind}", rows, tuple(facts), problems=job.problems, details=details
    )


def _model_facts(job: RecovarJob) -> Facts:
    if job.model is None:
        return []
    facts: Facts = []
    if job.model.volume_shape:
        size = f", voxel {job.model.voxel_size_A:g} Å" if job.model.voxel_size_A else ""
        facts.append(("volumes", " × ".join(map(str, job.model.volume_shape)) + f" px{size}"))
    if job.model.zdims:
        facts.append(("zdims", ", ".join(map(str, job.model.zdims))))
    eigenvalues = _eigenvalues(job)
    if eigenvalues:
        more = " …" if len(eigenvalues) > _N_SHOWN else ""
        facts.append(("eigenvalues", ", ".join(f"{value:.4g}" for value in eigenvalues[:_N_SHOWN]) + more))
    elif job.model.refused_names:
        facts.append(
            ("eigenvalues", f"in params.pkl, which asks for code ({job.model.refused_names[0]} …): not opened")
        )
    return facts


def _eigenvalues(job: RecovarJob) -> list[float]:
    if job.model is None or job.model.eigenvalues is None:
        return []
    return [float(value) for value in job.model.eigenvalues]


def _volume_details(volume: Volume) -> dict[str, Any]:
    try:
        header = read_header(volume.path)
    except CryobridgeError as error:
        return {"path": str(volume.path), "kind": volume.kind, "problem": error.message}
    return {
        "path": str(volume.path),
        "kind": volume.kind,
        "index": volume.index,
        "half": volume.half,
        "box_px": [header.nx, header.ny, header.nz],
        "voxel_size_A": header.pixel_size_A,
    }


def _volume_facts(volumes: tuple[Volume, ...], details: list[dict[str, Any]]) -> Facts:
    by_kind: dict[str, list[str]] = {}
    for volume, described in zip(volumes, details, strict=True):
        size = described.get("voxel_size_A")
        by_kind.setdefault(volume.kind, []).append(f"{size:g} Å" if size else "voxel size unknown")
    return [(f"{kind}", f"{len(sizes)}, voxel {', '.join(dict.fromkeys(sizes))}") for kind, sizes in by_kind.items()]


def _half_map_resolution(volumes: tuple[Volume, ...]) -> dict[str, Any] | None:
    """Return the resolution of the mean's half maps at FSC 0.143, without a mask."""
    halves = {volume.half: volume.path for volume in volumes if volume.half in (1, 2)}
    if set(halves) != {1, 2}:
        return None
    import torch

    from cryobridge.fourier.fsc import fourier_shell_correlation, resolution_A

    try:
        first, second = (open_mrc(halves[half]) for half in (1, 2))
        maps = [torch.from_numpy(mrc.images.astype("f4")) for mrc in (first, second)]
        fsc = fourier_shell_correlation(*maps)
    except CryobridgeError as error:
        return {"text": f"no FSC: {error.message}", "resolution_A": None}
    pixel_size_A = first.header.pixel_size_A
    if not pixel_size_A:
        return {"text": "no FSC resolution: the voxel size is not known", "resolution_A": None}
    found = resolution_A(fsc, _FSC_THRESHOLD, maps[0].shape[0], pixel_size_A)
    text = f"at {found:.3g} Å" if found else f"not reached before Nyquist ({2 * pixel_size_A:g} Å)"
    return {
        "text": f"FSC {_FSC_THRESHOLD} {text}, no mask",
        "resolution_A": found,
        "nyquist_A": 2 * pixel_size_A,
        "fsc": [round(float(value), 6) for value in fsc],
    }


def inspect_own_output(path: Path, _options: InspectOptions) -> Inspection:
    """Describe an output of cryobridge, or of CryoLike in the same layout."""
    output = read_own_output(path)
    facts: Facts = []
    if output.command:
        facts.append(("command", output.command))
    if output.status:
        facts.append(("status", f"{output.status} (cryobridge {output.version})"))
    facts += [(series.content, counted(len(series.files), "file")) for series in output.series]
    if output.plots:
        facts.append(("plots", str(output.plots)))
    if output.pick_files:
        facts.append(("pick files", f"{len(output.pick_files):,}"))
    details = {
        "output": {
            "kind": output.kind,
            "version": output.version,
            "status": output.status,
            "series": {series.content: [str(file) for file in series.files] for series in output.series},
            "pick_files": len(output.pick_files),
        }
    }
    return Inspection(
        str(path),
        "cryobridge output",
        f"cryobridge output: {output.kind}",
        facts=tuple(facts),
        problems=output.problems,
        details=details,
    )


def _names(*paths: Path | None) -> list[str]:
    return [path.name for path in paths if path is not None]
