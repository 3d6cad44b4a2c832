"""The comparison of picks with micrographs, where sizes are such that nothing can be compared."""

from __future__ import annotations

import numpy as np
import pytest

from cryobridge.jobs.micrographs.orientation import PicksOnMicrograph, check_orientation
from helpers import noise_images, save_mrc


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size_A", [0.0, -1.0, 5e-324, 1e6, 1e308, np.inf, np.nan])
def test_images_of_an_impossible_pixel_size_show_no_convention(size_A, tmp_path):
    path = save_mrc(tmp_path / "m.mrc", noise_images(1, 64), 1.5)
    images = noise_images(3, 16)
    picks = PicksOnMicrograph(path, np.full((3, 2), 0.5), np.full((3, 2), 64), lambda: images, size_A, 1.5)
    found = check_orientation([picks])
    assert not found.is_sure
    assert [score.n_particles for score in found.scores] == [0] * 8
