"""Particles that are the same by micrograph and position; the truth is simulated here, with numpy alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.open import open_particles
from cryobridge.jobs.identity.match import identities_of, match_rows
from cryobridge.jobs.identity.nearest import mutual_nearest, same_points
from cryobridge.jobs.micrographs.orientation_report import OrientationError
from cryobridge.jobs.selection.choose import select_files as select
from cryobridge.jobs.shared_options import PlaceOptions
from helpers import codes, particle_columns, run, save_cs, save_star

NY, NX, PIXEL_A, BOX_PX = 300, 420, 2.0, 60  # a tenth of the box is 12 Å
# A micrograph as RELION may have it, of one as cryoSPARC has it.
TURNS = {
    "as stored": lambda image: image,
    "rows": lambda image: image[::-1],
    "columns": lambda image: image[:, ::-1],
    "rows and columns": lambda image: image[::-1, ::-1],
    "exchanged": lambda image: image.T,
    "rows, exchanged": lambda image: image[::-1].T,
    "columns, exchanged": lambda image: image[:, ::-1].T,
    "rows and columns, exchanged": lambda image: image[::-1, ::-1].T,
}


def turned(xy, turn, shape=(NY, NX)):
    """Find whole pixels x, y of a micrograph in the turned one, by their numbers."""
    numbers = turn(np.arange(shape[0] * shape[1]).reshape(shape))
    where = np.empty(numbers.size, int)
    where[numbers.ravel()] = np.arange(numbers.size)
    y, x = np.divmod(where[xy[:, 1] * shape[1] + xy[:, 0]], numbers.shape[1])
    return np.column_stack([x, y])


def picks(rng, n_micrographs=6, n=40, nearest_px=15):
    """Draw whole pixels on micrographs that are not close to each other."""
    micrograph, xy = [], []
    for number in range(n_micrographs):
        own = []
        while len(own) < n:
            new = rng.integers((5, 5), (NX - 5, NY - 5))
            if all(np.hypot(*(new - old)) > nearest_px for old in own):
                own.append(new)
        micrograph += [number] * n
        xy += own
    return np.array(micrograph), np.array(xy)


def cs_file(path, micrograph, xy, *, shape=(NY, NX), pixel_A=PIXEL_A, shift_A=None, name="J2/mic{}_patch_aligned.mrc"):
    n = len(micrograph)
    columns = particle_columns([f"J3/extract/{number}.mrc" for number in micrograph], range(n), box_px=BOX_PX)
    columns |= {
        "uid": np.arange(n, dtype="u8") + np.uint64(2**63),
        "blob/psize_A": np.full(n, PIXEL_A, "f4"),
        "location/micrograph_path": np.array([name.format(number) for number in micrograph]),
        "location/micrograph_shape": np.tile(np.array(shape, "u4"), (n, 1)),
        "location/center_x_frac": (xy[:, 0] / shape[1]).astype("f4"),
        "location/center_y_frac": (xy[:, 1] / shape[0]).astype("f4"),
    }
    if pixel_A is not None:
        columns["location/micrograph_psize_A"] = np.full(n, pixel_A, "f4")
    if shift_A is not None:
        columns |= {
            "alignments2D/pose": np.zeros(n, "f4"),
            "alignments2D/shift": (shift_A / PIXEL_A).astype("f4"),
            "alignments2D/psize_A": np.full(n, PIXEL_A, "f4"),
        }
    return save_cs(path, columns)


def star_file(path, micrograph, xy, *, pixel_A=PIXEL_A, movie_A=None, shift_A=None, name="M/job002/mic{}.mrc", job=12):
    n = len(micrograph)
    columns = {
        "rlnImageName": [f"{row + 1:06d}@Extract/job{job:03d}/all.mrcs" for row in range(n)],
        "rlnMicrographName": [name.format(number) for number in micrograph],
        "rlnCoordinateX": xy[:, 0],
        "rlnCoordinateY": xy[:, 1],
        "rlnOpticsGroup": [1] * n,
        "rlnDefocusU": np.arange(n),
    }
    if shift_A is not None:
        columns |= {"rlnAnglePsi": [0] * n, "rlnOriginXAngst": shift_A[:, 0], "rlnOriginYAngst": shift_A[:, 1]}
    optics = {"rlnOpticsGroup": [1], "rlnVoltage": [300], "rlnImagePixelSize": [PIXEL_A], "rlnImageSize": [BOX_PX]}
    if pixel_A is not None:
        optics["rlnMicrographPixelSize"] = [pixel_A]
    if movie_A is not None:
        optics["rlnMicrographOriginalPixelSize"] = [movie_A]
    particles = save_star(path.with_suffix(".tmp"), "particles", columns).read_text()
    save_star(path, "optics", optics)
    path.write_text(path.read_text() + "\n" + particles)
    return path


def matched(first, other, **options):
    sides = [identities_of(open_particles(path)) for path in (first, other)]
    return match_rows(*sides, PlaceOptions(**options))


@dataclass
class Scene:
    """A set of cryoSPARC and one of RELION: some of its particles in another order, and others among them.

    ``row`` is cryoSPARC's row of each of RELION's, -1 for those that it lacks.
    """

    seed: int = 0
    turn: str = "rows"
    jitter_px: float = 0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        micrograph, xy = picks(self.rng)
        # A third is in both, a third in one, a third in the other.
        order = self.rng.permutation(len(xy))
        part = len(xy) // 3
        ours, theirs = np.sort(order[: 2 * part]), order[part:]
        self.ours = micrograph[ours], xy[ours]
        moved = turned(xy[theirs], TURNS[self.turn])
        self.theirs = micrograph[theirs], moved + self.rng.uniform(-1, 1, moved.shape) * self.jitter_px
        place = {row: place for place, row in enumerate(ours)}
        self.row = np.array([place.get(row, -1) for row in theirs])

    @property
    def partner(self):
        """RELION's row of each of cryoSPARC's."""
        partner = np.full(len(self.ours[0]), -1)
        partner[self.row[self.row >= 0]] = np.flatnonzero(self.row >= 0)
        return partner


# Which way micrographs lie


@pytest.mark.parametrize("turn", TURNS)
def test_micrographs_that_lie_in_any_of_the_eight_ways(tmp_path, turn):
    scene = Scene(turn=turn)
    cs = cs_file(tmp_path / "a.cs", *scene.ours)
    star = star_file(tmp_path / "b.star", *scene.theirs)
    there, back = matched(cs, star), matched(star, cs)
    assert there.by == back.by == "place"
    assert there.rows.tolist() == back.other_rows.tolist() == scene.partner.tolist()
    assert back.rows.tolist() == there.other_rows.tolist() == scene.row.tolist()
    assert there.convention == back.convention.inverse
    for match in (there, back):
        found = match.rows >= 0
        # To the pixel: what is counted from the other edge is counted from the last pixel.
        assert np.abs(match.offset_A[found]).max() < 1e-3
        assert np.isnan(match.offset_A[~found]).all()
        assert np.isnan(match.distance_A[~found]).all()


def test_positions_that_differ_by_some_pixels(tmp_path):
    scene = Scene(turn="columns, exchanged", jitter_px=3)
    cs, star = cs_file(tmp_path / "a.cs", *scene.ours), star_file(tmp_path / "b.star", *scene.theirs)
    match = matched(cs, star)
    assert match.rows.tolist() == scene.partner.tolist()
    xy = turned(scene.ours[1], TURNS[scene.turn])
    found = match.rows >= 0
    off_A = PIXEL_A * (scene.theirs[1][match.rows] - xy)[found]
    # RELION cuts boxes at whole pixels.
    boxes_A = PIXEL_A * (np.trunc(scene.theirs[1][match.rows]) - xy)[found]
    np.testing.assert_allclose(match.offset_A[found], boxes_A, atol=1e-3)
    np.testing.assert_allclose(match.distance_A[found], np.hypot(*off_A.T), atol=1e-3)
    # Only those that are as near as is asked for.
    near = matched(cs, star, within_A=4.0)
    assert (near.rows[found] >= 0).tolist() == (np.hypot(*off_A.T) <= 4.0).tolist()


def test_sets_that_fit_in_two_ways_are_refused_with_the_counts(tmp_path):
    micrograph, xy = picks(np.random.default_rng(1), n=20, nearest_px=25)
    both = np.concatenate([xy, turned(xy, TURNS["rows"])])
    cs = cs_file(tmp_path / "a.cs", np.tile(micrograph, 2), both)
    star = star_file(tmp_path / "b.star", np.tile(micrograph, 2), both)
    with pytest.raises(CryobridgeError, match="is not clear") as caught:
        matched(cs, star)
    n = len(both)
    for formula in ("x = nx·fx, y = ny·fy", "x = nx·fx, y = ny − 1 − ny·fy"):
        assert f"{n:,} with {formula};" in str(caught.value)
    stored = matched(cs, star, orientation="stored")
    assert stored.rows.tolist() == list(range(len(both)))
    reversed_rows = matched(star, cs, orientation="reliosparc").rows
    assert reversed_rows.tolist() == [*range(len(xy), 2 * len(xy)), *range(len(xy))]


def test_what_is_set_by_hand_and_contradicted_is_refused_unless_forced(tmp_path):
    scene = Scene(turn="rows, exchanged")
    cs, star = cs_file(tmp_path / "a.cs", *scene.ours), star_file(tmp_path / "b.star", *scene.theirs)
    with pytest.raises(OrientationError, match="set by hand"):
        matched(cs, star, orientation="stored")
    forced = matched(cs, star, orientation="stored", force=True)
    assert "matches-by-chance" in codes(forced.messages)
    # Rows counted from the other edge, then x and y exchanged; seen from the other side too.
    by_hand = {"swap_xy": True}
    assert matched(cs, star, **by_hand).rows.tolist() == scene.partner.tolist()
    assert matched(star, cs, **by_hand).rows.tolist() == scene.row.tolist()


def test_a_few_particles_decide_where_chance_would_not_make_them_match(tmp_path):
    rng = np.random.default_rng(4)
    micrograph, xy = picks(rng, n_micrographs=3, n=40)
    one_each = np.array([3, 50, 100])
    cs = cs_file(tmp_path / "a.cs", micrograph, xy)
    star = star_file(tmp_path / "b.star", micrograph[one_each], turned(xy[one_each], TURNS["rows"]))
    assert matched(star, cs).rows.tolist() == one_each.tolist()


def test_one_particle_is_too_few_unless_it_is_said_which_way_micrographs_lie(tmp_path):
    micrograph, xy = picks(np.random.default_rng(4), n_micrographs=1, n=60)
    cs = cs_file(tmp_path / "a.cs", micrograph, xy)
    star = star_file(tmp_path / "b.star", micrograph[:1], turned(xy[:1], TURNS["rows"]))
    with pytest.raises(MissingDataError, match=r"1 particle .* too few to find out") as caught:
        matched(star, cs, within_A=60)
    assert "orientation" in caught.value.hint
    assert matched(star, cs, within_A=60, orientation="reliosparc").rows.tolist() == [0]


def test_other_particles_are_no_match_and_chance_is_named(tmp_path):
    rng = np.random.default_rng(5)
    cs = cs_file(tmp_path / "a.cs", *picks(rng, n=60))
    star = star_file(tmp_path / "b.star", *picks(rng, n=60))
    with pytest.raises(MissingDataError, match=r"where chance alone makes \d") as caught:
        matched(cs, star)
    assert "neither uids nor images are the same" in str(caught.value)


# Pixels


@pytest.mark.parametrize("says", ["micrograph", "movie", "nothing"])
def test_binned_micrographs(tmp_path, says):
    scene = Scene(turn="rows")
    micrograph, xy = scene.theirs
    sizes = {"pixel_A": 2 * PIXEL_A} if says == "micrograph" else {"pixel_A": None}
    if says == "movie":
        sizes["movie_A"] = PIXEL_A  # twice that is tried as well
    star = star_file(tmp_path / "b.star", micrograph, xy / 2, **sizes)
    cs = cs_file(tmp_path / "a.cs", *scene.ours)
    if says == "nothing":
        with pytest.raises(MissingDataError, match="chance"):
            matched(cs, star)
        return
    match = matched(cs, star)
    assert match.rows.tolist() == scene.partner.tolist()
    assert ("micrograph-pixel-size-assumed" in codes(match.messages)) == (says == "movie")


@pytest.mark.parametrize("cs_pixel_A", [PIXEL_A, None])
@pytest.mark.parametrize("star_pixel_A", [PIXEL_A, None])
def test_a_pixel_size_that_a_file_lacks(tmp_path, cs_pixel_A, star_pixel_A):
    # RELION's Extract leaves out that of the micrographs; cryoSPARC has it in newer versions.
    scene = Scene()
    cs = cs_file(tmp_path / "a.cs", *scene.ours, pixel_A=cs_pixel_A)
    star = star_file(tmp_path / "b.star", *scene.theirs, pixel_A=star_pixel_A)
    match = matched(cs, star)
    assert match.rows.tolist() == scene.partner.tolist()
    is_assumed = "micrograph-pixel-size-assumed" in codes(match.messages)
    assert is_assumed == (cs_pixel_A is None or star_pixel_A is None)


def test_pixel_sizes_that_were_calibrated_differently(tmp_path):
    scene = Scene()
    cs = cs_file(tmp_path / "a.cs", *scene.ours, pixel_A=PIXEL_A)
    match = matched(cs, star_file(tmp_path / "b.star", *scene.theirs, pixel_A=1.04 * PIXEL_A))
    assert match.rows.tolist() == scene.partner.tolist()
    assert "as many pixels, although they say 2 and 2.08 Å" in " ".join(map(str, match.messages))


def test_nothing_that_gives_a_box_or_a_pixel_size(tmp_path):
    scene = Scene()
    columns = {
        "rlnMicrographName": [f"mic{number}.mrc" for number in scene.theirs[0]],
        "rlnCoordinateX": scene.theirs[1][:, 0],
        "rlnCoordinateY": scene.theirs[1][:, 1],
    }
    one, other = (save_star(tmp_path / name, "particles", columns) for name in ("a.star", "b.star"))
    with pytest.raises(MissingDataError, match="box"):
        matched(one, other)
    with pytest.raises(MissingDataError, match="pixel size of the micrographs"):
        matched(one, other, within_A=10.0)


def test_two_sets_of_relion_without_sizes_are_compared_as_stored(tmp_path):
    scene = Scene(turn="as stored")
    one = star_file(tmp_path / "a.star", *scene.ours, pixel_A=None, name="MotionCorr/job002/mic{}.mrc", job=3)
    other = star_file(tmp_path / "b.star", *scene.theirs, pixel_A=None, name="MotionCorr/job009/mic{}.mrc")
    match = matched(one, other)
    assert match.rows.tolist() == scene.partner.tolist()
    assert "micrographs-as-stored" in codes(match.messages)


def test_sizes_out_of_the_headers_of_micrographs(tmp_path):
    scene = Scene(turn="rows")
    one = star_file(tmp_path / "a.star", *scene.ours, name="MotionCorr/job002/mic{}.mrc", job=3)
    other = star_file(tmp_path / "b.star", *scene.theirs, name="MotionCorr/job009/mic{}.mrc")
    with pytest.raises(MissingDataError, match="chance"):
        matched(one, other)
    with pytest.raises(MissingDataError, match="size of the micrographs is not known"):
        matched(one, other, orientation="reliosparc")
    for number in range(6):
        path = tmp_path / f"MotionCorr/job009/mic{number}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.new(path) as file:
            file.set_data(np.zeros((NY, NX), "i1"))
    assert matched(one, other).rows.tolist() == scene.partner.tolist()


# Shifts


def recentred(rng, xy, largest_px=9):
    """Move whole pixels of shifts into coordinates, as RELION does: coordinate - shift stays."""
    shift_A = rng.uniform(-largest_px, largest_px, xy.shape) * PIXEL_A
    whole = np.round(shift_A / PIXEL_A).astype(int)
    return shift_A, xy - whole, shift_A - whole * PIXEL_A


@pytest.mark.parametrize("side", ["relion", "cryosparc"])
def test_recentred_sets_match_where_their_shifts_put_them(tmp_path, side):
    scene = Scene(turn="as stored")
    (micrograph, xy), (their_micrograph, their_xy) = scene.ours, scene.theirs
    shift_A, moved, rest_A = recentred(scene.rng, xy)
    their_shift_A = scene.rng.uniform(-9, 9, their_xy.shape) * PIXEL_A
    known = scene.row >= 0
    their_shift_A[known] = shift_A[scene.row[known]]
    their_rest_A, their_moved = their_shift_A, their_xy
    if side == "relion":
        _, their_moved, their_rest_A = recentred(scene.rng, their_xy)
        whole = np.round(their_shift_A / PIXEL_A).astype(int)
        their_moved, their_rest_A = their_xy - whole, their_shift_A - whole * PIXEL_A
        moved, rest_A = xy, shift_A
    cs = cs_file(tmp_path / "a.cs", micrograph, moved, shift_A=rest_A)
    star = star_file(tmp_path / "b.star", their_micrograph, their_moved, shift_A=their_rest_A)
    match = matched(cs, star)
    assert match.place.shifts == "both"
    assert match.rows.tolist() == scene.partner.tolist()
    found = match.rows >= 0
    assert match.distance_A[found].max() < 1e-2
    boxes_A = PIXEL_A * (their_moved[match.rows] - moved)[found]
    np.testing.assert_allclose(match.offset_A[found], boxes_A, atol=1e-2)


@pytest.mark.parametrize(("turn", "vector"), [("rows", (1, -1)), ("rows, exchanged", (-1, 1))])
def test_shifts_turn_with_the_micrographs(tmp_path, turn, vector):
    scene = Scene(turn=turn)
    shift_A, moved, rest_A = recentred(scene.rng, scene.ours[1])
    cs = cs_file(tmp_path / "a.cs", scene.ours[0], moved, shift_A=rest_A)
    # RELION's boxes are where the particles were picked, with whole shifts in its own frame.
    known = scene.row >= 0
    theirs_A = np.zeros((len(scene.row), 2))
    own = shift_A[scene.row[known]]
    theirs_A[known] = (own[:, ::-1] if "exchanged" in turn else own) * vector
    star = star_file(tmp_path / "b.star", *scene.theirs, shift_A=theirs_A)
    match = matched(cs, star)
    assert match.place.shifts == "both"
    assert match.rows.tolist() == scene.partner.tolist()
    found = match.rows >= 0
    assert match.distance_A[found].max() < 1e-2
    boxes = turned(moved, TURNS[turn])
    np.testing.assert_allclose(match.offset_A[found], PIXEL_A * (scene.theirs[1][match.rows] - boxes)[found], atol=1e-2)


def test_sets_that_were_extracted_at_the_same_picks_match_without_their_shifts(tmp_path):
    scene = Scene(turn="rows")
    ours, theirs = (scene.rng.normal(0, 8, side[1].shape) for side in (scene.ours, scene.theirs))
    cs = cs_file(tmp_path / "a.cs", *scene.ours, shift_A=ours)
    for shift_A in (None, theirs):
        match = matched(cs, star_file(tmp_path / "b.star", *scene.theirs, shift_A=shift_A))
        assert match.place.shifts == "neither"
        assert match.rows.tolist() == scene.partner.tolist()
        assert "shifts-applied" in codes(match.messages)


# Copies, and micrographs that only one file has


def test_copies_of_a_particle_stay_together(tmp_path):
    micrograph, xy = picks(np.random.default_rng(2), n=20)
    expanded = np.repeat(np.arange(len(xy)), 4)
    shift_A = np.tile(np.array([[0, 9.0], [9, 0], [0, -9], [-9, 0]]), (len(xy), 1))
    cs = cs_file(tmp_path / "a.cs", micrograph[expanded], xy[expanded], shift_A=shift_A)
    chosen = np.array([5, 17, 60])
    star = star_file(tmp_path / "b.star", micrograph[chosen], turned(xy[chosen], TURNS["rows"]))
    match = matched(cs, star)
    assert np.flatnonzero(match.rows >= 0).tolist() == [row for row, of in enumerate(expanded) if of in chosen]
    assert match.other_rows.tolist() == (4 * chosen).tolist()
    back = matched(star, cs)
    assert back.rows.tolist() == (4 * chosen).tolist()
    assert np.flatnonzero(back.other_rows >= 0).tolist() == np.flatnonzero(match.rows >= 0).tolist()


def test_micrographs_of_one_file_alone_are_counted(tmp_path):
    scene = Scene(turn="rows")
    (micrograph, xy), (their_micrograph, their_xy) = scene.ours, scene.theirs
    cs = cs_file(tmp_path / "a.cs", np.where(micrograph == 5, 77, micrograph), xy)
    star = star_file(tmp_path / "b.star", np.where(their_micrograph == 0, 88, their_micrograph), their_xy)
    match = matched(cs, star)
    assert match.place.micrographs == (4, 2, 2)
    expected = np.where((micrograph == 0) | (micrograph == 5), -1, scene.partner)
    assert match.rows.tolist() == expected.tolist()


def test_micrographs_that_can_not_be_told_apart_are_left_over_with_a_warning(tmp_path):
    scene = Scene(turn="rows")
    cs = cs_file(tmp_path / "a.cs", *scene.ours)
    star = star_file(tmp_path / "b.star", *scene.theirs)
    names = star.read_text()
    star.write_text(names.replace("M/job002/mic3.mrc", "M/x/mic3.mrc", 1))
    match = matched(cs, star)
    assert "micrographs-ambiguous" in codes(match.messages)
    assert match.rows.tolist() == np.where(scene.ours[0] == 3, -1, scene.partner).tolist()


def test_no_micrograph_in_common_names_one_of_each(tmp_path):
    scene = Scene()
    star = star_file(tmp_path / "b.star", *scene.theirs, name="other{}.mrc")
    with pytest.raises(MissingDataError, match=r"J2/mic0_patch_aligned\.mrc.*other\d\.mrc"):
        matched(cs_file(tmp_path / "a.cs", *scene.ours), star)


def test_a_file_without_positions_is_named_with_what_fetches_them(tmp_path):
    scene = Scene()
    table = np.load(cs_file(tmp_path / "a.cs", *scene.ours))
    kept = [name for name in table.dtype.names if not name.startswith("location/")]
    save_cs(tmp_path / "a.cs", {name: table[name] for name in kept})
    with pytest.raises(MissingDataError, match=r"a\.cs has a uid and images, .*, and no positions") as caught:
        matched(tmp_path / "a.cs", star_file(tmp_path / "b.star", *scene.theirs))
    assert "cryobridge select a.cs -o located.cs" in caught.value.hint


def test_distances_are_for_files_that_are_compared(tmp_path):
    cs = cs_file(tmp_path / "a.cs", *Scene().ours)
    for options in ({"within_A": 5.0}, {"orientation": "stored"}, {"swap_xy": True}):
        with pytest.raises(UsageError, match="which compares positions"):
            select(cs, tmp_path / "out.cs", where="uid > 0", **options)


def test_images_of_two_extractions_that_have_the_same_bare_names_are_told_apart_by_place(tmp_path):
    # Both jobs call their stacks after the micrographs, and number other particles.
    micrograph, xy = picks(np.random.default_rng(6))
    order = np.random.default_rng(7).permutation(len(xy))
    one = star_file(tmp_path / "a.star", micrograph, xy, job=3)
    other = star_file(tmp_path / "b.star", micrograph[order], xy[order], job=4)
    match = matched(one, other)
    assert (match.by, match.rows[order].tolist()) == ("place", list(range(len(xy))))
    sides = [identities_of(open_particles(path)) for path in (one, other)]
    assert match_rows(*sides).by == "image"


def test_stacks_whose_names_fit_several_are_told_apart_by_place(tmp_path):
    micrograph, xy = picks(np.random.default_rng(8))
    one = star_file(tmp_path / "a.star", micrograph, xy, job=3)
    other = star_file(tmp_path / "b.star", micrograph[::-1], xy[::-1], job=4)
    other.write_text(other.read_text().replace("000001@Extract/job004", "000001@Extract/job005"))
    for first, second in ((one, other), (other, one)):
        match = matched(first, second)
        assert (match.by, match.rows.tolist()) == ("place", list(range(len(xy)))[::-1])
    with pytest.raises(CryobridgeError, match="may be"):
        match_rows(*(identities_of(open_particles(path)) for path in (one, other)))


# Points


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 30), st.floats(0.5, 30))
def test_mutual_neighbours_are_those_of_all_distances(seed, n, m, within):
    rng = np.random.default_rng(seed)
    first, other = rng.uniform(0, 40, (n, 2)), rng.uniform(0, 40, (m, 2))
    on, other_on = rng.integers(0, 3, n), rng.integers(0, 3, m)
    distance = np.hypot(*(first[:, None] - other[None]).transpose(2, 0, 1))
    distance[on[:, None] != other_on[None]] = np.inf
    expected = [
        (a, b)
        for a in range(n)
        for b in range(m)
        if distance[a, b] <= within and distance[a, b] == distance[a].min() == distance[:, b].min()
    ]
    a, b, found = mutual_nearest(first, on, other, other_on, within)
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == expected
    np.testing.assert_allclose(found, distance[a, b], atol=1e-9)


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 2)), max_size=40))
def test_rows_at_one_point(rows):
    table = np.array(rows, float).reshape(-1, 3)
    first, point = same_points(table[:, :2] * 0.1, table[:, 2].astype(int))
    assert first.tolist() == sorted({row: place for place, row in reversed(list(enumerate(rows)))}.values())
    assert [rows[first[place]] for place in point] == rows


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(TURNS)), st.floats(0, 2.5))
def test_any_subset_in_any_order_is_found_again(tmp_path_factory, seed, turn, jitter_px):
    folder = tmp_path_factory.mktemp("places")
    scene = Scene(seed, turn, jitter_px)
    cs, star = cs_file(folder / "a.cs", *scene.ours), star_file(folder / "b.star", *scene.theirs)
    assert matched(cs, star).rows.tolist() == scene.partner.tolist()
    assert matched(star, cs).rows.tolist() == scene.row.tolist()


# The command


@pytest.mark.parametrize("way", ["there", "back"])
def test_the_command_selects_by_place_and_reports_it(tmp_path, way):
    scene = Scene(turn="rows", jitter_px=1)
    names = ("a.cs", "b.star") if way == "there" else ("b.star", "a.cs")
    cs_file(tmp_path / "a.cs", *scene.ours)
    star_file(tmp_path / "b.star", *scene.theirs, pixel_A=None)
    out = f"out{names[0][1:]}"
    done = run("select", names[0], "--like", names[1], "-o", out, "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    n = int((scene.row >= 0).sum())
    assert report["rows_out"] == n
    matched_rows = report["matched"]
    assert {key: matched_rows[key] for key in ("by", "other", "rows", "other_rows")} == {
        "by": "place",
        "other": names[1],
        "rows": n,
        "other_rows": n,
    }
    assert matched_rows["rows_left_over"] == matched_rows["other_rows_left_over"] == 80
    places = matched_rows["places"]
    assert 0 < places["median_A"] < places["largest_A"] <= np.hypot(PIXEL_A, PIXEL_A)
    assert (places["within_A"], places["shifts"], places["micrographs"]) == (12, "neither", 6)
    again = run("select", names[0], "--like", names[1], "-o", "again" + out, cwd=tmp_path)
    assert f"compared by  place: {n} rows are in {names[1]}" in again.stdout
    assert "Å in the median" in again.stdout
    assert f"left over    80 here, 80 in {names[1]}" in again.stdout
    expected = np.flatnonzero(scene.partner >= 0) if way == "there" else np.flatnonzero(scene.row >= 0)
    if way == "there":
        rows = (np.load(tmp_path / out)["uid"] - np.uint64(2**63)).tolist()
    else:
        rows = np.asarray(open_particles(tmp_path / out).columns.read(["rlnDefocusU"])["rlnDefocusU"]).tolist()
    assert rows == expected.tolist()


def test_sets_in_memory_are_compared_too(tmp_path):
    import cryobridge as cb

    scene = Scene(turn="rows")
    cs, star = cs_file(tmp_path / "a.cs", *scene.ours), star_file(tmp_path / "b.star", *scene.theirs)
    chosen = cb.select(cb.read(cs), like=cb.read(star))
    assert (chosen.uid - np.uint64(2**63)).tolist() == np.flatnonzero(scene.partner >= 0).tolist()


def test_classes_of_the_demo_go_back_to_cryosparc(demo_project, tmp_path):
    # RELION's micrographs have reversed rows, and its images are others.
    truth = demo_project.truth
    star = sorted(demo_project.classification.glob("run_it*_data.star"))[-1]
    good = select(star, tmp_path / "good.star", classes=(1,))
    report = select(demo_project.particles_cs, tmp_path / "good.cs", like=tmp_path / "good.star")
    assert report.matched.by == "place"
    assert report.rows_out == good.rows_out
    classes = np.asarray(open_particles(star).columns.read(["rlnClassNumber"])["rlnClassNumber"])
    assert set(np.load(tmp_path / "good.cs")["uid"]) == set(truth.particles.uid[classes == 1])
    back = select(star, tmp_path / "back.star", like=tmp_path / "good.cs")
    assert (tmp_path / "back.star").read_text() == (tmp_path / "good.star").read_text()
    assert back.matched.places.shifts == "neither"
