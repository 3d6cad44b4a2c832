"""Picks, micrographs and pick files for the tests of `coords`."""

from __future__ import annotations

import numpy as np

from cryobridge.jobs.coords.coords import coords
from cryobridge.jobs.coords.options import CoordsOptions
from cryobridge.jobs.coords.plan import plan_coords
from helpers import save_star
from relion_grammar import read_block

SHAPE = (4092, 5760)  # ny, nx


def cryosparc_name(stem, uid=1):
    return f"J2/motioncorrected/{uid:021d}_{stem}_fractions_patch_aligned_doseweighted.mrc"


def relion_name(stem):
    return f"MotionCorr/job002/Movies/{stem.replace('.', '_')}_fractions.mrc"


def location(stems, xy=None, *, shape=SHAPE, psize=0.83, seed=0):
    """Columns of picks on micrographs of these stems, one stem a pick."""
    n = len(stems)
    xy = np.random.default_rng(seed).uniform(0.02, 0.98, (n, 2)) if xy is None else np.asarray(xy)
    uid_of = {stem: number for number, stem in enumerate(dict.fromkeys(stems), 1)}
    return {
        "uid": np.arange(n, dtype="u8") + 2**63 + 7,
        "location/micrograph_uid": np.array([uid_of[stem] for stem in stems], "u8"),
        "location/exp_group_id": np.ones(n, "u4"),
        "location/micrograph_path": [cryosparc_name(stem, uid_of[stem]) for stem in stems],
        "location/micrograph_shape": np.tile(np.array(shape, "u4"), (n, 1)),
        "location/micrograph_psize_A": np.full(n, psize, "f4"),
        "location/center_x_frac": xy[:, 0].astype("f4"),
        "location/center_y_frac": xy[:, 1].astype("f4"),
    }


def save_micrographs(path, stems):
    names = [relion_name(stem) for stem in dict.fromkeys(stems)]
    return save_star(path, "micrographs", {"rlnMicrographName": names, "rlnOpticsGroup": [1] * len(names)})


def in_pixels(x_frac, y_frac, *, shape=SHAPE, flip_x=False, flip_y=False, swap_xy=False):
    """The formulas of the specification, one pick at a time."""
    ny, nx = shape
    x = nx - nx * float(x_frac) if flip_x else nx * float(x_frac)
    y = ny * float(y_frac) if flip_y else ny - ny * float(y_frac)
    return (y, x) if swap_xy else (x, y)


def convert(picks, star, folder, **options):
    return coords(picks, star, folder, **options)


def planned(picks, star, folder, **options):
    return plan_coords(picks, star, folder, CoordsOptions(**options))


def flips(convention):
    """The options that choose an axis convention."""
    return dict.fromkeys(convention.flips, True)


def convention_id(convention):
    """The same as they are typed, for the names of tests."""
    return " ".join(f"--{name.replace('_', '-')}" for name in convention.flips) or "(no option)"


def read_picks_of(folder, stem):
    """The rows of a micrograph's pick file as RELION's own reader takes them, label -> numbers."""
    path = folder / "Raw_data" / f"{stem.replace('.', '_')}_fractions_autopick.star"
    labels, rows, is_loop = read_block(path.read_text(), "")
    assert is_loop
    return {label: np.array(column, float) for label, column in zip(labels, zip(*rows, strict=True), strict=True)}


def coordinates_of(folder, stem):
    found = read_picks_of(folder, stem)
    return np.column_stack([found["rlnCoordinateX"], found["rlnCoordinateY"]])


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def alignment(n, **changes):
    columns = {
        "alignments2D/split": np.zeros(n, "u4"),
        "alignments2D/shift": np.zeros((n, 2), "f4"),
        "alignments2D/pose": np.zeros(n, "f4"),
        "alignments2D/psize_A": np.full(n, 0.83, "f4"),
        "alignments2D/class": np.zeros(n, "u4"),
    }
    return columns | {f"alignments2D/{name}": values for name, values in changes.items()}


def as_seen_by_relion(image, convention):
    """The stored image as the micrograph of a placement shows it: columns, rows, then both axes exchanged."""
    image = image[:, ::-1] if convention.mirror_x else image
    image = image[::-1] if convention.mirror_y else image
    return image.T if convention.swap_xy else image


def filament(stems, uids, positions):
    return {
        "filament/filament_uid": np.array(uids, "u8") + 2**63,
        "filament/position_A": np.asarray(positions, "f4"),
    }
