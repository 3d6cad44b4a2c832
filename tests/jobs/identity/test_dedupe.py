"""Particles that were picked more than once."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cryobridge as cb
from cryobridge.errors import MissingDataError
from cryobridge.jobs.identity import dedupe
from cryobridge.jobs.identity.dedupe import apart
from helpers import codes, save_star

# On a small grid, so that many lie at the limit and in one place; scores with ties.
PARTICLES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=30
)


def by_hand(particles, limit):
    """Every pair is looked at, from the best particle down."""
    stays = []
    for row in sorted(range(len(particles)), key=lambda row: (-particles[row][3], row)):
        micrograph, x, y, _ = particles[row]
        near = [
            other
            for other in stays
            if particles[other][0] == micrograph
            and (particles[other][1] - x) ** 2 + (particles[other][2] - y) ** 2 < limit**2
        ]
        if not near:
            stays.append(row)
    return sorted(stays)


@pytest.mark.parametrize("most", [20_000, 0])  # by pairs, and with the neighbours of one at a time
@settings(max_examples=150, deadline=None)
@given(particles=PARTICLES, limit=st.sampled_from([1, 2, 3, 5, 2.5, 20]))
def test_from_the_best_down_a_particle_stays_if_none_that_stays_is_nearer(particles, limit, most):
    micrograph, x, y, score = np.array(particles).T
    before, dedupe._MOST_FOR_PAIRS = dedupe._MOST_FOR_PAIRS, most
    try:
        stays = apart(micrograph.astype(np.int32), np.column_stack([x, y]).astype(float), score.astype(float), limit)
    finally:
        dedupe._MOST_FOR_PAIRS = before
    assert np.flatnonzero(stays).tolist() == by_hand(particles, limit)


def particles_star(path, x, *, optics_pixel_size=True, **columns):
    n = len(x)
    own = {
        "rlnImageName": [f"{row + 1}@a.mrcs" for row in range(n)],
        "rlnMicrographName": ["m.mrc"] * n,
        "rlnCoordinateX": x,
        "rlnCoordinateY": [100.0] * n,
        "rlnOpticsGroup": [1] * n,
        **columns,
    }
    save_star(path, "particles", own)
    optics = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "o", "rlnImagePixelSize": 1.06, "rlnImageSize": 64}
    optics |= {"rlnMicrographPixelSize": 1.06} if optics_pixel_size else {"rlnMicrographOriginalPixelSize": 1.06}
    head = ["", "data_optics", "", "loop_", *(f"_{name}" for name in optics), " ".join(map(str, optics.values())), ""]
    path.write_text("\n".join(head) + path.read_text())
    return path


def test_a_distance_of_the_limit_is_far_enough_whatever_the_rounding(tmp_path):
    # 106 Å are 100 pixels, in fractions that are not exact.
    path = particles_star(tmp_path / "a.star", [100.0 * k for k in range(1, 30)])
    assert len(cb.select(path, dedupe_A=106)) == 29
    assert len(cb.select(path, dedupe_A=106.001)) == 15


def test_a_particle_lies_where_its_coordinates_are_less_its_shift(tmp_path):
    shifts = {"rlnAngleRot": [0, 0], "rlnAngleTilt": [0, 0], "rlnAnglePsi": [0, 0], "rlnOriginYAngst": [0, 0]}
    path = particles_star(tmp_path / "a.star", [100.0, 150.0], **shifts, rlnOriginXAngst=[-53.0, 0.0])
    assert len(cb.select(path, dedupe_A=5)) == 1
    path = particles_star(tmp_path / "b.star", [100.0, 150.0], **shifts, rlnOriginXAngst=[53.0, 0.0])
    assert len(cb.select(path, dedupe_A=100)) == 2


def test_the_best_stays_and_the_report_says_by_which_column(tmp_path):
    path = particles_star(tmp_path / "a.star", [100.0, 101.0, 300.0], rlnAutopickFigureOfMerit=[0.1, 0.9, 0.5])
    report = cb.select_files(path, tmp_path / "out.star", dedupe_A=50)
    assert report.left_out == {"nearer than 50 Å to a better one": 1}
    assert report.ranked_by == "rlnAutopickFigureOfMerit" and report.dedupe_A == 50
    assert cb.read(tmp_path / "out.star").pick_score.tolist() == [0.9, 0.5]


def test_where_the_pixel_size_of_micrographs_is_not_known_that_of_the_movies_is_taken_and_said(tmp_path):
    path = particles_star(tmp_path / "a.star", [100.0, 200.0], optics_pixel_size=False)
    found = cb.select(path, dedupe_A=106)
    assert len(found) == 2 and "micrograph-pixel-size-assumed" in codes(found.messages)
    with pytest.raises(MissingDataError, match="where particles lie"):
        cb.select(save_star(tmp_path / "b.star", "particles", {"rlnImageName": ["1@a.mrcs"]}), dedupe_A=5)


def test_two_hundred_thousand_particles_take_seconds():
    rng = np.random.default_rng(0)
    n = 200_000
    micrograph, score = rng.integers(0, 1000, n).astype(np.int32), rng.random(n)
    position_A = rng.uniform(0, 6e3, (n, 2))
    start = time.process_time()
    apart(micrograph, position_A, score, 150)
    assert time.process_time() - start < 5


def test_a_set_in_memory_is_ranked_as_the_file_that_it_was_read_from(tmp_path):
    scores = {"rlnMaxValueProbDistribution": [0.2, 0.9, 0.4], "rlnAutopickFigureOfMerit": [0.9, 0.1, 0.2]}
    path = particles_star(tmp_path / "a.star", [10.0, 12.0, 14.0], **scores)
    for source in (path, cb.read(path)):
        assert cb.select(source, dedupe_A=50).images.index.tolist() == [1]
