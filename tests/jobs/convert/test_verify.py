"""What counts as equal when an output is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryobridge.jobs.convert.verify import compare
from cryobridge.model.particles import ParticleSet

INF, NAN = np.inf, np.nan


def particles(scores):
    return ParticleSet(len(scores), Path("a.star"), pick_score=np.array(scores))


@pytest.mark.parametrize(
    ("expected", "found", "is_equal"),
    [
        ([1.0, INF, -INF, NAN], [1.0, INF, -INF, NAN], True),
        ([1.0, INF], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, INF], False),
        ([1.0, INF], [1.0, -INF], False),
        ([1.0, INF], [1.0, NAN], False),
        ([1.0, NAN], [1.0, INF], False),
        ([1.0, INF], [1.5, INF], False),
        ([1.0, NAN], [1.5, NAN], False),
    ],
)
def test_infinities_and_nan_equal_themselves_and_hide_no_other_difference(expected, found, is_equal):
    *_, difference = compare(particles(expected), particles(found), {"pick_score"})
    assert difference.quantity != "particles"
    assert difference.is_good is is_equal
