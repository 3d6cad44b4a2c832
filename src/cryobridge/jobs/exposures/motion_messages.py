"""What is said of the motion that becomes RELION's metadata: what was assumed, with numbers, and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import option
from cryobridge.jobs.exposures.eer import about_eer
from cryobridge.jobs.exposures.motion_fit import MotionFit
from cryobridge.report import Message, note, part_of, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.formats.cryosparc.motion import Converted
    from cryobridge.jobs.exposures.motion_options import MotionOptions
    from cryobridge.jobs.exposures.motion_sources import Planned
    from cryobridge.model.micrographs import MicrographSet

# By so little a trajectory begins off its zero that nobody asks.
_NO_OFFSET_PX = 0.05
# Local motion that the model leaves over, from which it is worth a warning.
_LARGE_REST_PX = 0.5
# More than this between two frames is no motion of a movie.
_LARGE_STEP_PX = 50.0
_MOST_NAMED = 3
# Pixels of so nearly 1 Å that it is the same in both units.
_SAME_RATIO = 0.005


def fit_of(converted: Sequence[Converted]) -> MotionFit:
    """Return how well RELION's model holds the motion of all micrographs."""
    fits = [one.fit for one in converted if one.fit is not None]
    paths = [one.motion.path_px() for one in converted]
    return MotionFit(
        n_micrographs=len(converted),
        n_local=len(fits),
        rms_px=float(np.sqrt(np.mean([fit.rms_px**2 for fit in fits]))) if fits else None,
        largest_px=max(fit.largest_px for fit in fits) if fits else None,
        median_path_px=float(np.median(paths)) if paths else None,
    )


def readings(
    planned: Sequence[Planned], fit: MotionFit, options: MotionOptions, micrographs: MicrographSet
) -> list[Message]:
    """Say what was taken that the files don't say, with the numbers by which it can be judged."""
    if not planned or fit.median_path_px is None:
        return []
    size_A = planned[0][0].general["pixel_size_A"]
    messages = [_unit(planned, fit.median_path_px, size_A, options), _rows(options)]
    offset_px = float(np.median([converted.offset_px for _, converted in planned]))
    local_px = max(converted.local_offset_px for _, converted in planned)
    if max(offset_px, local_px) > _NO_OFFSET_PX:
        taken = "the first frame counts as not moved" if options.motion_zero == "first" else "its zero is kept"
        messages.append(
            warning(
                "motion-zero",
                f"{_away(offset_px, local_px)}; {taken}, and coordinates must belong to it ({option('motion_zero')})",
                option="motion_zero",
            )
        )
    messages += _frames(planned)
    eer = [source for source, _ in planned if source.eer is not None]
    messages += about_eer([source.eer for source in eer if source.eer], sum(source.finer > 1 for source in eer))
    messages.append(
        note(
            "motion-pre-exposure",
            f"the dose before the first frame is taken as {options.pre_exposure:g} e/Å²; cryoSPARC does not have it",
            option="pre_exposure",
        )
    )
    if fit.rms_px is not None and fit.largest_px is not None:
        text = (
            f"RELION's local model leaves {fit.rms_px:.2g} px of cryoSPARC's local motion over (rms; at most "
            f"{fit.largest_px:.2g} px)"
        )
        is_large = fit.largest_px > _LARGE_REST_PX
        messages.append((warning if is_large else note)("motion-residual", text))
    without = fit.n_micrographs - fit.n_local
    if without:
        text = part_of(without, fit.n_micrographs, "micrograph", "have", of_one="has")
        messages.append(note("motion-global-only", f"{text} no local motion, only that of whole frames"))
    return messages


def _away(offset_px: float, local_px: float) -> str:
    """Return how far from zero trajectories are in the first frame: whole frames, or their local motion alone."""
    if offset_px > _NO_OFFSET_PX:
        return (
            f"cryoSPARC's trajectories are not zero in the first frame, but {offset_px:.2g} px away (median; locally "
            f"up to {local_px:.2g} px)"
        )
    return f"cryoSPARC's local motion is not zero in the first frame, but up to {local_px:.2g} px"


def _unit(planned: Sequence[Planned], path_px: float, size_A: float, options: MotionOptions) -> Message:
    """Say in which unit trajectories are taken, how long they are then, and how long they would be in the other."""
    is_px = options.motion_unit == "px"
    taken, other = ("pixels", "Å") if is_px else ("Å", "pixels")
    if not path_px:
        return note("motion-unit", f"rigid trajectories don't move; they are taken as {taken}", option="motion_unit")
    own = path_px / planned[0][0].scale
    ratio = (own / size_A if is_px else own) / path_px
    text = (
        f"rigid trajectories are taken as {taken}, pixels being {size_A:.4g} Å: the path of the median micrograph is "
        f"{own:.3g} units or {path_px * size_A:.3g} Å"
    )
    if abs(ratio - 1) > _SAME_RATIO:
        text += f"; taken as {other} it would be {ratio * path_px * size_A:.3g} Å, {ratio:.3g} times as long"
    step_px = max(
        (float(np.nanmax(np.abs(np.diff(one.motion.global_px, axis=0)), initial=0.0)) for _, one in planned),
        default=0.0,
    )
    if step_px > _LARGE_STEP_PX:
        return warning(
            "motion-unit",
            f"{text}; up to {step_px:.3g} px between two frames is no motion of a movie",
            option="motion_unit",
        )
    return note("motion-unit", text, option="motion_unit")


def _frames(planned: Sequence[Planned]) -> list[Message]:
    """Say where frames of movies have no motion, which RELION takes as not moved, or as the last one."""
    used = [np.flatnonzero(np.isfinite(converted.motion.global_px[:, 0])) for _, converted in planned]
    some = [(rows, source) for rows, (source, _) in zip(used, planned, strict=True) if len(rows) < source.n_frames]
    if not some:
        return []
    ranges = {(int(rows[0]) + 1, int(rows[-1]) + 1, source.n_frames) for rows, source in some}
    first, last = max(item[0] for item in ranges), min(item[1] for item in ranges)
    of_all = " or ".join("{} to {} of {}".format(*item) for item in sorted(ranges)[:_MOST_NAMED])
    # Given the first frame alone RELION 3.1.3 leaves out the last one too.
    options = f"--first_frame {first} --last_frame {last}" if first > 1 else f"--last_frame {last}"
    text = (
        f"trajectories of {part_of(len(some), len(planned), 'micrograph', 'have', of_one='has')} only frames "
        f"{of_all}{' and so on' if len(ranges) > _MOST_NAMED else ''}; RELION polishes with the others too, as if they "
        f"did not move, unless it is given {options}"
    )
    return [warning("motion-frames", text)]


def _rows(options: MotionOptions) -> Message:
    is_reversed = options.rows == "reversed"
    taken = "in the opposite order to" if is_reversed else "in the order of"
    text = (
        f"rows of cryoSPARC's trajectories are taken {taken} those that RELION reads of the movies: shifts are "
        f"(-x, {'+' if is_reversed else '-'}y)"
    )
    if options.motion_rows == "pixels":
        text += "; no pixels of the micrographs show it, and it is known of TIFF movies only"
    return note("motion-rows", text, option="motion_rows")


def left_out(micrographs: MicrographSet, reasons: Sequence[str], found: Sequence[str]) -> list[Message]:
    """Say which micrographs have no metadata of motion, by reason, with what was found of the first ones."""
    names = micrographs.names
    messages = []
    for reason in dict.fromkeys(filter(None, reasons)):
        rows = [row for row, one in enumerate(reasons) if one == reason]
        examples = "; ".join(f"{names[row]}: {found[row]}" if found[row] else names[row] for row in rows[:_MOST_NAMED])
        more = f" and {len(rows) - _MOST_NAMED:,} more" if len(rows) > _MOST_NAMED else ""
        text = f"{part_of(len(rows), len(reasons), 'micrograph', 'have', of_one='has')} no metadata of motion, {reason}"
        messages.append(warning("motion-left-out", f"{text}: {examples}{more}"))
    return messages
