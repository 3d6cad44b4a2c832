"""Inspecting folders: cryoSPARC and RELION jobs, cryobridge's own outputs."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.cryosparc.exposures import open_exposures
from cryobridge.formats.cryosparc.job import CryosparcJob, read_job
from cryobridge.formats.cryosparc.outputs import JobOutput
from cryobridge.formats.file_record import recorded_files
from cryobridge.formats.folder_files import file_in_folder, kind_of_folder
from cryobridge.formats.folders import RELION_JOB, identify_folder
from cryobridge.formats.lease import FOLDER_LEASE, STALE_S, State, state_of
from cryobridge.formats.listing import list_folder
from cryobridge.formats.mrc_header import HEADER_BYTES
from cryobridge.formats.open import open_particles
from cryobridge.formats.own_output import FOURIER_STACKS, OwnOutput, read_own_output
from cryobridge.formats.particle_files import ParticleFiles
from cryobridge.formats.relion.job import RelionJob, particles_in, read_relion_job
from cryobridge.formats.relion.star import NO_PARTICLES, open_star
from cryobridge.formats.table import Table
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.projects import files_text, known_files
from cryobridge.jobs.inspection.report import Inspection, Use
from cryobridge.jobs.inspection.tables import (
    Facts,
    inspect_table,
    is_judged_by_beginning,
    of_joining,
    uses_of_file,
    uses_with_commands,
)
from cryobridge.jobs.inspection.uses import of_several_files, without_one_result
from cryobridge.progress import Reporter
from cryobridge.report import Message, counted, note, part_of, warning

_N_SHOWN = 6
# Of a run whose record says that it is running, and whose lease that it is not.
STOPPED = "stopped without an end"
# Of a stack: images, transforms, power spectrum.
_PICTURES = 3
# Smaller images that are being written, with their edge in pixels; their header comes last.
_BEGUN = re.compile(r"\.particles\.(\d+)(?:\.\d+)?\.mrcs\.part")
# Optics groups alone are few; a larger file has particles.
_LARGEST_EMPTY_BYTES = 64 << 10


def inspect_cryosparc_job(path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
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
        str(path),
        "cryosparc job",
        "cryoSPARC job",
        facts=tuple(facts),
        messages=job.problems,
        details=details,
    )
    files, error = particles_of(job)
    if files is None:
        return inspection
    particles = inspect_table(files.columns, files.metadata, options, reporter)
    judged = _uses_of_job(job, files.columns, particles.uses, error)
    uses, sampled = uses_with_commands(judged, path, files.metadata, files.columns, options)
    return replace(
        inspection,
        rows=len(files),
        facts=(*facts, *particles.facts, *sampled),
        fields=particles.fields,
        uses=uses,
        messages=(*inspection.messages, *of_joining(files), *particles.messages),
        details={**details, **particles.details},
    )


def _output_text(output: JobOutput) -> str:
    files = [file.name for file in _files_of(output)]
    items = f", {counted(output.num_items, 'item')}" if output.num_items is not None else ""
    return ", ".join(files) + items + (" (excluded ones)" if output.is_excluded else "")


def _files_of(output: JobOutput) -> list[Path]:
    """Return its files, the one with what the job computed first; some jobs leave a passthrough alone."""
    return [file for file in (output.main, *output.passthroughs) if file is not None]


def particles_of(job: CryosparcJob) -> tuple[ParticleFiles | None, CryobridgeError | None]:
    """Open the particles, or else the exposures, of a job; and return why the commands refuse the folder, if they do.

    They are those that the commands take when they are given the folder. Where these ask for one of several results,
    or for a file that is not there, it is the first result that is not what the job threw out.
    """
    refusal = None
    try:
        return open_particles(job.path), None
    except CryobridgeError as error:
        refusal = error
    for output in job.outputs:
        if output.kind == "particle" and not output.is_excluded:
            try:
                return open_particles(*_files_of(output), join=False), refusal
            except CryobridgeError:
                continue
    if any(output.kind == "exposure" and not output.is_excluded for output in job.outputs):
        with suppress(CryobridgeError):
            return open_exposures(job.path), None
    return None, refusal


def _uses_of_job(
    job: CryosparcJob, table: Table, of_table: tuple[Use, ...], refusal: CryobridgeError | None
) -> tuple[Use, ...]:
    """Judge a job: its joined columns, whether commands take its folder, and its batches of images."""
    missing = [] if _has_passthrough(job) else ["J<n>_passthrough_particles.cs"]
    missing += [] if job.batches else ["restack/ or downsample/ with batch_000000_*.mrc"]
    of_batches = Use("stacks-job", not missing, tuple(missing), "Run Restack Particles." if missing else "")
    uses = tuple(of_batches if use.name == "stacks-job" else use for use in of_table)
    return of_several_files(uses, job.path, table) if refusal is None else without_one_result(uses, refusal)


def _has_passthrough(job: CryosparcJob) -> bool:
    return any(output.passthroughs for output in job.outputs if output.kind == "particle" and not output.is_excluded)


def inspect_relion_job(path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
    """Describe a RELION job: its kind, state and iterations."""
    job = read_relion_job(path)
    numbers = [iteration.number for iteration in job.iterations if iteration.number is not None]
    continued = sorted({i.continued_from for i in job.iterations if i.continued_from is not None})
    facts: Facts = [
        ("job", f"{job.kind or 'of unknown kind'}" + (f" (known by {job.known_by})" if job.known_by else "")),
        ("status", job.status),
        ("project", str(job.project) if job.project else "no default_pipeline.star above it"),
    ]
    if numbers:
        facts.append(("iterations", f"{numbers[0]} to {numbers[-1]} ({len(numbers)} sets of files)"))
    if continued:
        facts.append(("continued from", ", ".join(map(str, continued))))
    last = job.last
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
    messages = job.problems
    if (particles := _without_particles(job)) is not None:
        messages = (*messages, warning("no-particles", f"{particles.name}: {NO_PARTICLES}", where=particles))
    if last is not None and last.data is not None:
        facts.append(("its particles", shlex.join(["cryobridge", "inspect", str(last.data)])))
    uses, about = _uses_of_particles_in(path, options, reporter)
    return Inspection(
        str(path),
        "relion job",
        f"RELION job {job.kind}".strip(),
        facts=tuple(facts),
        uses=uses,
        messages=(*messages, *about),
        details=details,
    )


def _uses_of_particles_in(
    folder: Path, options: InspectOptions, reporter: Reporter
) -> tuple[tuple[Use, ...], tuple[Message, ...]]:
    """Judge the particle file that commands take when they are given a folder; nothing where they take none."""
    try:
        path, _ = file_in_folder(folder, kind_of_folder(folder, None), None)
        uses = uses_of_file(path, folder, options, reporter)
        if not is_judged_by_beginning(path):
            return uses, ()
        text = f"{path.name} is large: what can be done with it is judged by the rows that begin it"
        return uses, (note("judged-by-first-rows", text, where=path),)
    except (CryobridgeError, OSError):
        return (), ()


def _without_particles(job: RelionJob) -> Path | None:
    """Return the STAR file of a job's particles where it lists none."""
    path = particles_in(job)
    try:
        is_empty = path is not None and path.stat().st_size <= _LARGEST_EMPTY_BYTES and open_star(path).has_optics_alone
    except (CryobridgeError, OSError):  # `read_relion_job` says what is wrong with the last files
        return None
    return path if is_empty else None


def facts_of_job_around(path: Path) -> Facts:
    """Say which RELION job a file lies in the folder of, and how it stands."""
    try:
        if identify_folder(path.parent) != RELION_JOB:
            return []
        job = read_relion_job(path.parent)
    except CryobridgeError:
        return []
    return [("job", f"{job.kind or 'RELION job'}, {job.status}")]


def inspect_own_output(path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
    """Describe an output of cryobridge, or of CryoLike in the same layout."""
    output = _as_it_stands(read_own_output(path))
    facts: Facts = []
    if output.title:
        facts.append(("made", output.title))
    if output.command:
        facts.append(("command", output.command))
    if output.status:
        facts.append(("status", f"{output.status} (cryobridge {output.version})"))
    facts += [(series.content, counted(len(series.files), "file")) for series in output.series]
    if output.plots:
        facts.append(("plots", str(output.plots)))
    if output.pick_files:
        facts.append(("pick files", f"{len(output.pick_files):,}"))
        facts += _given_to_extract(output)
    files = known_files(list_folder(path)) if output.kind == "other" else ()
    if files:
        facts += [("files", files_text(files)), ("next", shlex.join(["cryobridge", "inspect", str(path / files[0])]))]
    details = {
        "output": {
            "kind": output.kind,
            "version": output.version,
            "status": output.status,
            "stacks_planned": output.stacks_planned,
            "series": {series.content: [str(file) for file in series.files] for series in output.series},
            "pick_files": len(output.pick_files),
        }
    }
    uses, about = _uses_of_output(output, options, reporter)
    return Inspection(
        str(path),
        "cryobridge output",
        "cryobridge output" if output.kind == "other" else f"cryobridge output: {output.kind}",
        facts=tuple(facts),
        uses=(*uses, *_checked(output, options, reporter)),
        messages=(*_unfinished(output), *_undrawn(output), *output.problems, *about),
        details=details,
    )


def _given_to_extract(output: OwnOutput) -> Facts:
    """Say which files of picks RELION's Extract takes."""
    star, suffixed = output.autopick_star, output.path / "coords_suffix_autopick.star"
    facts = [] if star is None else [("give to Extract", f"{star} (RELION 4 and 5)")]
    return [*facts, *([("give to Extract", f"{suffixed} (RELION 3.1)")] if suffixed.is_file() else [])]


def _uses_of_output(
    output: OwnOutput, options: InspectOptions, reporter: Reporter
) -> tuple[tuple[Use, ...], tuple[Message, ...]]:
    """Say that Fourier stacks are there for CryoLike; of other outputs judge the particles."""
    if any(series.files for series in output.series):
        check = ("cryobridge", "inspect", str(output.path), "--check", "whole", "--no-stats")
        hint = "These are Fourier stacks; are they as they were written?"
        return (Use("cryolike", True, hint=hint, commands=(check,)),), ()
    return _uses_of_particles_in(output.path, options, reporter)


def _checked(output: OwnOutput, options: InspectOptions, reporter: Reporter) -> tuple[Use, ...]:
    return (_wholeness(output, reporter),) if "whole" in options.check else ()


def _unfinished(output: OwnOutput) -> tuple[Message, ...]:
    """Say how far stacks are that a run left unfinished, and what goes on with them."""
    planned = output.stacks_planned
    if planned is None or output.status in {"completed", "running"}:
        return ()
    n_there = output.stacks_made or 0
    if output.status == STOPPED:  # and could not write down what it made last
        fourier = next((series.files for series in output.series if series.content == FOURIER_STACKS), ())
        n_there = len(fourier) or len(list(output.path.glob("particles.*.mrcs")))
    words = [word for word in output.command.split() if word.strip("-") not in {"overwrite", "resume"}]
    resume = option("resume", True)
    is_command = words[:2] == ["cryobridge", "stacks"]
    goes_on = f"`{' '.join(words)} {resume}` goes on" if is_command else f"the same call with {resume} goes on"
    whole = f"{part_of(n_there, planned, 'stack')} whole{_begun(output, planned - n_there)}"
    return (warning("job-incomplete", f"{whole}; {goes_on}", where=output.path),)


def _undrawn(output: OwnOutput) -> tuple[Message, ...]:
    """Say that pictures are missing of stacks that are finished, where there are others."""
    fourier = next((series.files for series in output.series if series.content == FOURIER_STACKS), ())
    n_all = _PICTURES * len(fourier)
    if output.status != "completed" or not 0 < output.plots < n_all:
        return ()
    text = f"{output.plots:,} of {n_all:,} pictures are there; {option('resume', True)} draws the others"
    return (warning("pictures-missing", text, where=output.path),)


def _begun(output: OwnOutput, n_unfinished: int) -> str:
    """Say how many images of stacks that were begun are written."""
    begun = [(path, match) for path in output.path.glob(".particles.*") if (match := _BEGUN.fullmatch(path.name))]
    n_pixels = {path: int(match[1]) ** 2 for path, match in begun}
    n_written = sum(
        max(0, path.stat().st_size - HEADER_BYTES) // (n * output.pixel_bytes) for path, n in n_pixels.items() if n
    )
    whose = "it" if n_unfinished == 1 else "the others"
    return f", of {whose} {counted(n_written, 'image is', 'images are')} written" if n_written else ""


def _as_it_stands(output: OwnOutput) -> OwnOutput:
    """Correct what a run that was killed could not: that it is running."""
    if output.status != "running" or state_of(output.path / FOLDER_LEASE, patience_s=STALE_S) is not State.DEAD:
        return output
    return replace(output, status=STOPPED)


def _wholeness(output: OwnOutput, reporter: Reporter) -> Use:
    """Read the stacks of an output through, and say what is not as it was written."""
    records = recorded_files(output.path)
    reporter.start("bytes read through", sum(record.n_bytes for record in records.values()))
    reasons = [] if output.status in {"", "completed"} else [f"the run that made it: {output.status}"]
    reasons += map(str, output.problems)
    for path, record in records.items():
        if reason := record.why_not(path, read_through=True, advance=reporter.advance):
            reasons.append(f"{path.relative_to(output.path)} {reason}")
    series = [file for series in output.series for file in series.files]
    stacks = [*series, *sorted(output.path.glob("particles.*.mrcs"))]
    unknown = [path for path in stacks if path.suffix != ".npz" and path not in records]
    if unknown:
        names = ", ".join(str(path.relative_to(output.path)) for path in unknown[:_N_SHOWN])
        reasons.append(f"without a record of size and checksum: {names}{' …' if len(unknown) > _N_SHOWN else ''}")
    hint = f"{option('resume', True)} with {option('verify_outputs', True)} makes again what is not whole."
    return Use("whole", not reasons, (), hint if reasons else "", tuple(reasons))


def _names(*paths: Path | None) -> list[str]:
    return [path.name for path in paths if path is not None]
