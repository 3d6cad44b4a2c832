"""The rotations of each symmetry group are those that RELION prints."""

import numpy as np
import pytest
from interop.relion import Relion

from cryobridge.model.symmetry import symmetry_rotations

pytestmark = pytest.mark.relion

# RELION prints five digits of what it computes, of axes that it knows to six.
PRINTED = 2e-5


def printed_rotations(relion, group):
    text = relion.run("relion_refine", "--sym", group, "--print_symmetry_ops")
    numbers = [block.splitlines()[1:4] for block in text.split("R(")[1:]]
    return np.array([[line.split() for line in rows] for rows in numbers], float)


@pytest.mark.parametrize("group", ["C1", "C4", "C7", "D2", "D3", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_rotations_are_those_of_relion(group, tmp_path):
    theirs, ours = printed_rotations(Relion(tmp_path), group), symmetry_rotations(group)
    assert len(theirs) == len(ours)
    distance = np.abs(ours[:, None] - theirs[None]).max(axis=(2, 3))
    assert distance.min(axis=0).max() < PRINTED and distance.min(axis=1).max() < PRINTED
