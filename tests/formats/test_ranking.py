"""Which of several rows is the best one."""

from pathlib import Path

import numpy as np
import pytest

from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.in_memory import SetInMemory
from cryobridge.formats.open import open_particles
from cryobridge.formats.ranking import ranking_of
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.model.particles import ParticleSet

IMAGES = ["1@a.mrcs", "2@a.mrcs", "3@a.mrcs"]


@pytest.mark.parametrize(
    ("columns", "taken", "order"),
    [
        ({"rlnMaxValueProbDistribution": [0.2, 0.9, 0.5], "rlnAutopickFigureOfMerit": [3.0, 2.0, 1.0]}, 0, [1, 2, 0]),
        # A column that says the same of all says nothing.
        ({"rlnMaxValueProbDistribution": [1.0, 1.0, 1.0], "rlnAutopickFigureOfMerit": [3.0, 3.0, 5.0]}, 1, [2, 0, 1]),
        ({"rlnLogLikeliContribution": [float("nan"), 2.0, 2.0]}, 0, [1, 2, 0]),
    ],
)
def test_rows_of_a_star_file_are_ranked_by_the_first_column_that_tells_them_apart(columns, taken, order, tmp_path):
    path = tmp_path / "a.star"
    write_star(path, [StarBlock.from_columns("particles", {"rlnImageName": IMAGES, **columns})])
    ranking = ranking_of(open_particles(path))
    assert ranking.column == list(columns)[taken]
    assert ranking.order.tolist() == order


def test_the_least_error_is_the_best_of_a_cs_file_and_of_several_classes_the_most_probable(tmp_path):
    uid = np.arange(3, dtype=np.uint64)
    error = {"uid": uid, "alignments3D/error": np.array([5, 1, 3], np.float32)}
    write_cs(tmp_path / "error.cs", error)
    assert ranking_of(open_particles(tmp_path / "error.cs")).order.tolist() == [1, 2, 0]
    multi = np.array([[0.5, 0.5], [0.1, 0.9], [0.7, 0.3]], np.float32)
    write_cs(tmp_path / "multi.cs", error | {"alignments3D_multi/class_posterior": multi})
    assert ranking_of(open_particles(tmp_path / "multi.cs")).order.tolist() == [1, 2, 0]


def test_where_no_column_says_the_first_row_is_the_best():
    ranking = ranking_of(SetInMemory(ParticleSet(3, Path("none"))))
    assert ranking.column == ""
    assert ranking.order.tolist() == [0, 1, 2]
    assert "first row" in str(ranking.message)
