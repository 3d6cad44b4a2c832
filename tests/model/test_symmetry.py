import numpy as np
import pytest

from cryobridge.errors import UsageError
from cryobridge.model.symmetry import symmetry_rotations

ORDERS = {"C1": 1, "c3": 3, "D1": 2, "D5": 10, "T": 12, "O": 24, "I": 60, "I1": 60, "i2": 60, "I3": 60, "I4": 60}


@pytest.mark.parametrize("name", ORDERS)
def test_they_are_a_group_of_rotations_the_identity_first(name):
    found = symmetry_rotations(name)
    assert len(found) == ORDERS[name]
    np.testing.assert_array_equal(found[0], np.eye(3))
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.tile(np.eye(3), (len(found), 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(found), 1)
    products = (found[:, None] @ found[None]).reshape(-1, 1, 3, 3)
    nearest = np.abs(products - found).max(axis=(2, 3)).min(axis=1)
    assert nearest.max() < 1e-12
    apart = np.abs(found[:, None] - found[None]).max(axis=(2, 3)) + np.eye(len(found))
    assert apart.min() > 1e-3


@pytest.mark.parametrize("name", ["", "C0", "C", "C100", "Ci", "C2v", "TH", "I5", "X", "4"])
def test_others_are_refused(name):
    with pytest.raises(UsageError, match="no group of rotations") as caught:
        symmetry_rotations(name)
    assert caught.value.option == "symmetry"
