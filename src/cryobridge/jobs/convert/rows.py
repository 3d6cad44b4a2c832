"""Which rows of the particles are converted, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError
from cryobridge.formats.classes import absent_classes
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.jobs.convert.mapping import MicrographMap
    from cryobridge.jobs.convert.options import ConvertOptions
    from cryobridge.model.particles import ParticleSet


def choose_rows(
    source: ParticleFiles, options: ConvertOptions, found: MicrographMap | None = None
) -> tuple[NDArray[np.int64], dict[str, int], list[Message]]:
    """Return the rows to write, how many are left out for which reason, and warnings."""
    particles, left_out, warnings = source.particles, dict(source.left_out), []
    if not len(particles):
        raise MissingDataError("there are no particles in it", path=particles.source, hint="Choose another file.")
    kept = np.ones(len(particles), bool)

    def keep(is_wanted: NDArray[np.bool_], reason: str) -> None:
        count = int((kept & ~is_wanted).sum())
        if count:
            left_out[reason] = count
        kept[~is_wanted] = False

    if source.chosen is not None:
        is_chosen = np.zeros(len(particles), bool)
        is_chosen[source.chosen] = True
        keep(is_chosen, "not in ind.pkl")
    if found is not None:
        assert particles.locations is not None  # they are matched
        keep(found.place[particles.locations.micrograph.codes] >= 0, "micrograph not in the file of micrographs")
    if options.classes:
        if particles.class_number is None:
            raise MissingDataError(
                "no classes in it", path=particles.source, option="classes", hint="Leave this option out."
            )
        wanted = ", ".join(map(str, options.classes))
        numbers = particles.class_number - 1 + _first_class(particles)
        absent = absent_classes(numbers, options.classes)
        warnings += [absent] if absent else []
        keep(np.isin(numbers, options.classes), f"not of class {wanted}")
    if options.min_posterior is not None:
        if particles.class_posterior is None:
            raise MissingDataError(
                "no class posterior in it", path=particles.source, option="min_posterior", hint="Leave this option out."
            )
        keep(particles.class_posterior >= options.min_posterior, f"class posterior below {options.min_posterior:g}")
    if not kept.any():
        reasons = [f"{count:,} {reason}" for reason, count in left_out.items()] + [str(item) for item in warnings]
        raise MissingDataError(
            f"no particle is left to write ({'; '.join(reasons)})",
            path=particles.source,
            hint="Ask for less.",
        )
    return np.flatnonzero(kept), left_out, warnings


def _first_class(particles: ParticleSet) -> int:
    """Return the number by which a user knows the first class: cryoSPARC shows it as 0, RELION as 1."""
    return 0 if particles.extra is not None and particles.extra.program == "cryosparc" else 1


def rows_left_out(left_out: dict[str, int]) -> list[Message]:
    """Return a warning for each reason that rows are left out for."""
    return [
        warning("rows-left-out", f"{counted(count, 'particle is', 'particles are')} left out: {reason}")
        for reason, count in left_out.items()
    ]
