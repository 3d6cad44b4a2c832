"""Filaments whose numbers and positions no program writes."""

from __future__ import annotations

import numpy as np

from cryobridge.formats.helical import from_first_segment, tube_codes


def test_filaments_of_any_number_get_codes_without_a_gap():
    micrograph = np.array([0, 1, 1, 0, 1])
    for largest in (2**62, 2**63 - 1):
        tube = np.array([1, 1, largest, largest, 1])
        assert tube_codes(micrograph, tube).tolist() == [0, 2, 3, 1, 2]


def test_positions_that_are_no_numbers_raise_no_warning():
    with np.errstate(all="raise"):
        found = from_first_segment(np.array([2.0, 3.0, np.nan, np.inf]), np.array([0, 0, 1, 2]))
    assert found[:2].tolist() == [0, 1]
    assert np.isnan(found[2:]).all()
