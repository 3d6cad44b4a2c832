"""From cryoSPARC's trajectories to the metadata by which RELION polishes, one file a micrograph.

`plan_motion` reads and fits every trajectory, checks what RELION would answer with silence or a crash, and says what is
left out; `MotionPlan.write` writes the files.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError
from cryobridge.executors.threads import thread_count
from cryobridge.formats.cryosparc.motion import Reading
from cryobridge.formats.lease import holding
from cryobridge.formats.relion.motion import MotionMetadata, write_motion
from cryobridge.jobs.exposures.motion_fit import MotionFit
from cryobridge.jobs.exposures.motion_messages import fit_of, left_out, readings
from cryobridge.jobs.exposures.motion_sources import (
    OTHER_FRAMES,
    OTHER_PIXELS,
    UNREADABLE,
    LeftOutError,
    MovieFiles,
    Planned,
    Sources,
)
from cryobridge.model.motion import accumulated_A
from cryobridge.progress import Silent
from cryobridge.report import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cryobridge.jobs.exposures.motion_options import MotionOptions
    from cryobridge.model.micrographs import MicrographSet
    from cryobridge.model.motion import MotionModel
    from cryobridge.model.particles import Floats
    from cryobridge.progress import Reporter


@dataclass(frozen=True)
class MotionPlan:
    """The metadata of motion that will be written.

    Parameters
    ----------
    rows
        (m,) the micrographs that have them, by row of the set.
    reasons
        Of each micrograph of the set why it has none; empty where it has.
    fit
        How well the model holds the motion.
    accumulated_A
        (m, 3) length of the global motion: in all, early, late.
    messages
        What was assumed, and what is left out.
    """

    rows: NDArray[np.int64]
    reasons: tuple[str, ...]
    fit: MotionFit
    accumulated_A: Floats
    messages: tuple[Message, ...]
    _planned: tuple[Planned, ...] = field(repr=False)
    _reading: Reading = field(repr=False)

    @property
    def left_out(self) -> dict[str, int]:
        """How many micrographs have no metadata of motion, by reason."""
        return dict(Counter(reason for reason in self.reasons if reason))

    @property
    def motions(self) -> list[MotionModel]:
        """The motion of each of `rows`."""
        return [converted.motion for _, converted in self._planned]

    @property
    def pixel_size_A(self) -> float:
        """Of the movies of all `rows`; NaN where there are none."""
        return float(self._planned[0][0].general["pixel_size_A"]) if self._planned else float("nan")

    def metadata(self, place: int) -> MotionMetadata:
        """Return the metadata of one of `rows`."""
        source, converted = self._planned[place]
        n_frames = int(np.isfinite(converted.motion.global_px[:, 0]).sum())
        patches = source.patches_px(n_frames, self._reading)
        return MotionMetadata(motion=converted.motion, patches_px=patches, **source.general)

    def write(self, paths: Sequence[Path], reporter: Reporter | None = None) -> None:
        """Write the files.

        Parameters
        ----------
        paths
            (m,) where the metadata of each of `rows` go; the folders are there.
        reporter
            Is told of each.

        Raises
        ------
        CryobridgeError
            If a file can't be written, or a trajectory not be read any more.
        """
        reporter = reporter or Silent()
        reporter.start("motion", len(paths))

        def write_one(place: int) -> None:
            write_motion(paths[place], self.metadata(place))

        with ExitStack() as stack:
            for folder in {path.parent for path in paths}:  # one lease for all files of a folder
                stack.enter_context(holding(folder))
            pool = stack.enter_context(ThreadPoolExecutor(thread_count()))
            for _ in pool.map(write_one, range(len(paths))):
                reporter.advance()


def plan_motion(
    micrographs: MicrographSet,
    options: MotionOptions,
    movies: MovieFiles,
    find: Callable[[str], Path | None],
    reporter: Reporter | None = None,
) -> MotionPlan | None:
    """Read the trajectories of micrographs and fit RELION's model to them.

    Parameters
    ----------
    micrographs
        Of cryoSPARC.
    options
        What the files don't say.
    movies
        Names and files of the movies and their gain references.
    find
        From the name of a trajectory to its file, or None where it is not on this disk.
    reporter
        Is told of each micrograph.

    Returns
    -------
    MotionPlan or None
        None where the micrographs have no trajectories, or motion is not asked for.

    Raises
    ------
    MissingDataError
        If the dose of a frame, or the pixel size of the movies, is not known.
    """
    rigid = None if micrographs.motion is None else micrographs.motion.rigid
    if rigid is None or not options.motion:
        return None
    reporter = reporter or Silent()
    reporter.start("trajectories", micrographs.n_rows)
    reading = Reading(options.motion_unit, options.rows, options.motion_zero)
    sources = Sources(micrographs, options, movies, find)
    reasons, found, planned = [""] * micrographs.n_rows, [""] * micrographs.n_rows, {}

    def convert(row: int) -> Planned | tuple[str, str]:
        try:
            source = sources.of(row)
            return source, source.converted(reading)
        except LeftOutError as error:
            return error.args[0], error.args[1]
        except CryobridgeError as error:
            return UNREADABLE, str(error)

    with ThreadPoolExecutor(thread_count()) as pool:
        for row, result in enumerate(pool.map(convert, range(micrographs.n_rows))):
            if isinstance(result[0], str):
                reasons[row], found[row] = result[0], str(result[1])
            else:
                planned[row] = result
            reporter.advance()
    for row, (reason, text) in _others(planned).items():
        reasons[row], found[row] = reason, text
        del planned[row]
    rows = np.array(sorted(planned), np.int64)
    chosen = tuple(planned[row] for row in rows.tolist())
    fit = fit_of([converted for _, converted in chosen])
    messages = [
        *sources.messages,
        *readings(chosen, fit, options, micrographs),
        *left_out(micrographs, reasons, found),
    ]
    return MotionPlan(rows, tuple(reasons), fit, _accumulated(chosen), tuple(messages), chosen, reading)


def _others(planned: dict[int, Planned]) -> dict[int, tuple[str, str]]:
    """Return the micrographs that RELION can't polish with the most, since it takes frames and sizes of the first."""
    if not planned:
        return {}
    sizes = Counter(round(source.general["pixel_size_A"], 4) for source, _ in planned.values())
    size = sizes.most_common(1)[0][0]
    frames = Counter(
        source.n_frames for source, _ in planned.values() if round(source.general["pixel_size_A"], 4) == size
    )
    n_frames = frames.most_common(1)[0][0]
    found = {}
    for row, (source, _) in planned.items():
        if round(source.general["pixel_size_A"], 4) != size:
            found[row] = OTHER_PIXELS, f"{source.general['pixel_size_A']:.4g} Å, most have {size:.4g}"
        elif source.n_frames != n_frames:
            found[row] = OTHER_FRAMES, f"{source.n_frames} frames, most movies have {n_frames}"
    return found


def _accumulated(planned: Sequence[Planned]) -> Floats:
    lengths = [
        accumulated_A(
            converted.motion,
            source.general["pixel_size_A"],
            source.general["dose_per_frame_e_A2"],
            source.general["pre_exposure_e_A2"],
        )
        for source, converted in planned
    ]
    return np.array(lengths, np.float64).reshape(-1, 3)
