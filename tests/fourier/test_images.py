from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import torch

from cryobridge.errors import UsageError
from cryobridge.fourier.grid import PolarGrid
from cryobridge.fourier.images import bin_images, normalise_fourier, normalise_images, power_spectrum
from cryobridge.fourier.polar import PolarTransform


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


@pytest.mark.parametrize("how", ["mean", "max"])
def test_binned_and_normalised_images_are_cryolikes(reference_data, how):
    folder = reference_data / "cryolike_reference" / f"downsample_{how}"
    with mrcfile.open(folder / "a.mrc") as stack:
        images = torch.from_numpy(stack.data.copy())
    expected = np.load(folder / "expected" / "particles_phys_stack_000000.npy")
    found, unusable = normalise_images(bin_images(images, images.shape[1] // expected.shape[1], how))
    assert not unusable.any()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_normalised_transforms_are_cryolikes(reference_data, precision):
    folder = reference_data / "cryolike_reference" / "indexed_star"
    params = np.load(folder / "params_plain.npz")
    grid = PolarGrid(float(params["radius_max"]), float(params["dist_radii"]), int(params["n_inplanes"]))
    images = torch.from_numpy(np.load(folder / "expected" / "particles_phys_stack_000000.npy"))
    expected = np.load(folder / "expected" / "particles_fourier_stack_000000.npy")
    transform = PolarTransform(grid, tuple(images.shape[1:]), precision)
    found, unusable = normalise_fourier(transform.forward(images), grid)
    assert not unusable.any()
    assert np.linalg.norm(found.numpy() - expected) < 1e-5 * np.linalg.norm(expected)


def test_bins_are_block_means_or_block_maxima():
    image = torch.arange(32, dtype=torch.float32).reshape(1, 4, 8)
    assert bin_images(image, 2).tolist() == [[[4.5, 6.5, 8.5, 10.5], [20.5, 22.5, 24.5, 26.5]]]
    assert bin_images(image, 2, "max").tolist() == [[[9, 11, 13, 15], [25, 27, 29, 31]]]
    assert bin_images(image, 4, "max").tolist() == [[[27, 31]]]


def test_binning_takes_whole_numbers_and_views():
    whole = torch.randint(-9, 9, (3, 8, 12), dtype=torch.int16)
    assert torch.equal(bin_images(whole, 2), bin_images(whole.float(), 2))
    turned = noise(3, 12, 8).transpose(1, 2)
    assert torch.equal(bin_images(turned, 4), bin_images(turned.contiguous(), 4))
    assert bin_images(noise(2, 8, 8).double(), 2).dtype == torch.float64


@pytest.mark.parametrize("factor", [-2, 0, 1, 3])
def test_binning_by_anything_but_an_even_factor_is_refused(factor):
    with pytest.raises(UsageError, match="not a positive even number"):
        bin_images(noise(1, 12, 12), factor)


def test_a_box_that_is_not_whole_blocks_is_refused_with_the_factors_that_fit():
    with pytest.raises(UsageError, match="12 x 18") as caught:
        bin_images(noise(1, 12, 18), 4)
    assert caught.value.hint == "it can be binned by 2, 6"
    with pytest.raises(UsageError) as caught:
        bin_images(noise(1, 9, 9), 2)
    assert "crop or pad" in caught.value.hint


def test_unknown_way_of_binning_is_refused():
    with pytest.raises(UsageError, match="'median'"):
        bin_images(noise(1, 8, 8), 2, "median")


def test_normalised_images_have_mean_zero_and_largest_value_one():
    images = noise(5, 17, 20) * 7 + 100
    found, unusable = normalise_images(images)
    assert not unusable.any()
    assert found.mean((1, 2)).abs().max() < 1e-6
    assert torch.equal(found.abs().amax((1, 2)), torch.ones(5))
    assert images.mean() > 90, "the images given are left alone"
    again, _ = normalise_images(images * -3)
    torch.testing.assert_close(again, -found, atol=1e-5, rtol=0)


def test_images_without_a_normal_form_are_named_and_come_back_as_zeros():
    images = noise(7, 9, 9)
    images[1] = 123.456  # its mean in single precision is not exact
    images[2] = 0
    images[3, 4, 4] = float("nan")
    images[4, 0, 0] = float("inf")
    images[5, 0, 0] = -float("inf")
    found, unusable = normalise_images(images)
    assert unusable.nonzero().flatten().tolist() == [1, 2, 3, 4, 5]
    assert torch.isfinite(found).all()
    assert (found[unusable] == 0).all()
    expected, _ = normalise_images(images[[0, 6]])
    assert torch.equal(found[[0, 6]], expected)


def test_half_precision_images_are_normalised_in_single():
    images = (noise(2, 64, 64) * 1000 + 20000).half()
    found, unusable = normalise_images(images)
    assert found.dtype == torch.float32
    assert not unusable.any()
    assert found.mean((1, 2)).abs().max() < 1e-5


def test_normalised_transforms_have_norm_one():
    grid = PolarGrid.for_box(16)
    polar = PolarTransform(grid, 16, torch.float64).forward(noise(4, 16, 16))
    found, unusable = normalise_fourier(polar, grid)
    assert not unusable.any()
    norm = np.sqrt((np.abs(found.numpy()) ** 2 * grid.point_weights).sum((1, 2))) * 2 * np.pi
    np.testing.assert_allclose(norm, 1, rtol=1e-12)
    kept = polar.clone()
    in_place, _ = normalise_fourier(polar, grid, out=polar)
    assert in_place is polar
    assert not torch.equal(polar, kept)
    assert torch.equal(polar, found)


def test_a_transform_is_normalised_the_same_whichever_come_with_it():
    grid = PolarGrid.for_box(32)
    polar = PolarTransform(grid, 32).forward(noise(50, 32, 32))
    together, _ = normalise_fourier(polar, grid)
    alone = torch.cat([normalise_fourier(one[None], grid)[0] for one in polar])
    assert torch.equal(together, alone)


def test_transforms_without_a_norm_are_named_and_come_back_as_zeros():
    grid = PolarGrid.for_box(16)
    images = noise(4, 16, 16)
    images[1] = 0
    images[2, 3, 3] = float("nan")
    found, unusable = normalise_fourier(PolarTransform(grid, 16).forward(images), grid)
    assert unusable.tolist() == [False, True, True, False]
    assert torch.isfinite(torch.view_as_real(found)).all()
    assert (found[unusable] == 0).all()


def test_transforms_of_another_grid_are_refused():
    polar = torch.zeros(2, 17, 32, dtype=torch.complex64)
    with pytest.raises(UsageError, match="is not"):
        normalise_fourier(polar, PolarGrid.for_box(18))


def test_power_spectrum_is_the_mean_square_on_each_shell():
    grid = PolarGrid.for_box(16)
    polar = PolarTransform(grid, 16, torch.float64).forward(noise(3, 16, 16))
    np.testing.assert_allclose(power_spectrum(polar), (np.abs(polar.numpy()) ** 2).mean(2), rtol=1e-12)


def test_power_spectrum_of_white_noise_is_flat():
    # Each pixel adds its variance to |Σ image exp(…)|², which the transform scales by (4π)² / (n0 n1).
    spectrum = power_spectrum(PolarTransform(PolarGrid.for_box(32), 32).forward(noise(400, 32, 32)))
    assert spectrum.mean().item() == pytest.approx((4 * np.pi) ** 2, rel=0.05)
