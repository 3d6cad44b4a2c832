"""Which files of a job folder are its iterations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.cryosparc.names import parse_cs_name
from cryobridge.formats.listing import Listing, list_folder, say_numbers
from cryobridge.formats.relion.job import EXIT_MARKERS, looks_like_relion_job, read_relion_job
from cryobridge.formats.relion.names import chain_of, sort_iterations
from cryobridge.report import Message, warning

if TYPE_CHECKING:
    from cryobridge.formats.relion.names import RelionIteration


@dataclass(frozen=True)
class IterationFiles:
    """The files of one iteration.

    Parameters
    ----------
    number
        The iteration.
    data
        The particles with their classes: `_data.star`, or `_particles.cs`.
    models
        One `_model.star`, or one for each half set; empty where there is none.
    optimiser
        `_optimiser.star`, or None.
    """

    number: int
    data: Path
    models: tuple[Path, ...] = ()
    optimiser: Path | None = None


@dataclass(frozen=True)
class JobFiles:
    """What a job folder holds at one moment.

    Parameters
    ----------
    folder
        The job folder.
    program
        ``RELION`` or ``cryoSPARC``; empty where there is no iteration.
    iterations
        Ascending, each number once.
    ended
        ``success``, ``failure`` or ``aborted``; empty while the job runs, and where it is unknown.
    messages
        What was passed over.
    """

    folder: Path
    program: str
    iterations: tuple[IterationFiles, ...]
    ended: str = ""
    messages: tuple[Message, ...] = ()


def find_iterations(listing: Listing) -> JobFiles:
    """Find the iterations of a RELION job, or those that a cryoSPARC job kept, in the listing of its folder.

    Where an iteration was written twice, that of the continued run counts.
    """
    folder = listing.path
    ended = next((status for name, status in EXIT_MARKERS.items() if name in listing.files), "")
    found, _, problems = sort_iterations(folder, listing.files)
    with_data = [item for item in found if item.data is not None]
    if with_data:
        chain = chain_of(with_data)
        return JobFiles(folder, "RELION", _relion(chain), ended, (*problems, *_superseded(with_data, chain)))
    kept = _kept_by_cryosparc(listing)
    if kept:
        numbering = warning("classes-from-zero", "cryoSPARC counts classes from 0; its class 0 is class 1 here")
        return JobFiles(folder, "cryoSPARC", kept, ended, (numbering,))
    return JobFiles(folder, "", (), ended)


def kind_of(folder: Path) -> str:
    """Return Class2D, Class3D, Refine3D …; empty where it is unknown, as in cryoSPARC's folders."""
    return read_relion_job(folder).kind if looks_like_relion_job(list_folder(folder)) else ""


def require_iterations(job: JobFiles) -> None:
    """Raise where a folder has no iterations at all.

    Raises
    ------
    MissingDataError
        Then.
    """
    if not job.iterations:
        raise MissingDataError(
            "no iterations: neither run_it…_data.star nor J…_000_particles.cs",
            path=job.folder,
            hint="Give the folder of a Class2D, Class3D or Refine3D job; "
            f"{option('watch')} waits for the first iteration.",
        )


def _superseded(all_of_them: list[RelionIteration], chain: tuple[RelionIteration, ...]) -> list[Message]:
    again = sorted({item.number for item in all_of_them if item not in chain and item.number is not None})
    if not again:
        return []
    text = (
        f"Iteration {say_numbers(again)} was written again, or left behind, when the run was continued; "
        "the continued run counts"
    )
    return [warning("iterations-superseded", text)]


def _relion(chain: tuple[RelionIteration, ...]) -> tuple[IterationFiles, ...]:
    return tuple(
        IterationFiles(
            item.number,
            item.data,
            tuple(path for path in (item.model, item.half1_model, item.half2_model) if path is not None),
            item.optimiser,
        )
        for item in chain
        if item.number is not None and item.data is not None
    )


def _kept_by_cryosparc(listing: Listing) -> tuple[IterationFiles, ...]:
    """Return the particles that a job wrote at each iteration, such as ``J2_000_particles.cs``."""
    found = {}
    for name in sorted(listing.files):
        parsed = parse_cs_name(name) if name.endswith(".cs") else None
        if parsed is None or not parsed.job or parsed.group != "particles" or parsed.is_passthrough:
            continue
        if isinstance(parsed.iteration, int):
            found[parsed.iteration] = IterationFiles(parsed.iteration, listing.path / name)
    return tuple(found[number] for number in sorted(found))
