from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import UsageError
from cryobridge.fourier.fsc import fourier_shell_correlation, resolution_A


def radii(n):
    k = np.fft.fftfreq(n, 1 / n)
    return np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)


def direct_fsc(first, second):
    # The definition, over the whole spectrum and shell by shell.
    n = len(first)
    one, two = np.fft.fftn(first.astype("f8")), np.fft.fftn(second.astype("f8"))
    shell = np.round(radii(n))
    curve = []
    for s in range(n // 2 + 1):
        a, b = one[shell == s], two[shell == s]
        norm = np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum())
        curve.append((a * b.conj()).real.sum() / norm if norm else 0.0)
    return np.array(curve)


def fsc_of(first, second, mask=None):
    tensors = [None if volume is None else torch.from_numpy(volume) for volume in (first, second, mask)]
    return fourier_shell_correlation(*tensors).numpy()


@given(n=st.integers(1, 17), seed=st.integers(0, 9), masked=st.booleans())
@settings(max_examples=25)
def test_the_curve_is_the_definition(n, seed, masked):
    rng = np.random.default_rng(seed)
    first, second, mask = rng.normal(size=(3, n, n, n))
    second += first
    if masked:
        np.testing.assert_allclose(fsc_of(first, second, mask), direct_fsc(first * mask, second * mask), atol=1e-12)
    else:
        np.testing.assert_allclose(fsc_of(first, second), direct_fsc(first, second), atol=1e-12)


def test_scale_does_not_matter_and_sign_does():
    volume = np.random.default_rng(1).normal(size=(12, 12, 12))
    np.testing.assert_allclose(fsc_of(volume, 1e-9 * volume), 1.0, rtol=1e-12)
    np.testing.assert_allclose(fsc_of(volume, -3 * volume), -1.0, rtol=1e-12)


def test_a_shell_without_signal_is_0_and_not_nan():
    volume = np.ones((8, 8, 8), np.float32)
    assert fsc_of(volume, volume).tolist() == [1, 0, 0, 0, 0]


def test_the_resolution_is_where_agreement_ends():
    # Up to shell 9 one signal; beyond, phases a quarter of a turn apart, whose correlation is exactly 0.
    n, pixel_A, last = 32, 1.5, 9
    first = np.random.default_rng(2).normal(size=(n, n, n))
    spectrum, radius = np.fft.fftn(first), radii(n)
    kx = np.fft.fftfreq(n, 1 / n)[None, None, :] * np.ones((n, n, 1))
    quarter = np.where(kx > 0, 1j, np.where(kx < 0, -1j, 0))
    quarter[..., n // 2] = 0
    second = np.fft.ifftn(np.where(np.round(radius) <= last, spectrum, spectrum * quarter)).real
    curve = fourier_shell_correlation(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(curve[: last + 1], 1.0, atol=1e-12)
    np.testing.assert_allclose(curve[last + 1 :], 0.0, atol=1e-12)
    # Straight from 1 to 0 between shells 9 and 10.
    for threshold in (0.5, 0.143):
        expected = n * pixel_A / (last + 1 - threshold)
        assert resolution_A(curve, threshold, n, pixel_A) == pytest.approx(expected, rel=1e-9)


def test_maps_that_agree_to_nyquist_have_no_resolution_limit():
    assert resolution_A(torch.tensor([1.0, 0.9, 0.8]), 0.5, 4, 2.0) is None
    assert resolution_A(torch.tensor([1.0, 0.9, 0.8]), 0.85, 4, 2.0) == pytest.approx(8 / 1.5)
    # Nothing agrees but the mean: no better than the whole box.
    assert resolution_A(torch.tensor([1.0, 0.1, 0.8]), 0.5, 4, 2.0) == 8.0


@pytest.mark.parametrize(
    ("shapes"), [[(4, 4, 4), (6, 6, 6)], [(4, 4, 5)] * 2, [(4, 4)] * 2, [(4, 4, 4)] * 2 + [(6, 6, 6)]]
)
def test_what_are_no_cubes_of_one_size_is_refused(shapes):
    with pytest.raises(UsageError, match="cube"):
        fourier_shell_correlation(*map(torch.ones, shapes))


def test_the_real_half_maps_give_the_curves_that_recovar_drew(reference_data):
    folder = reference_data / "recovar_run" / "out" / "output" / "volumes"
    maps = [mrcfile.read(folder / f"{name}.mrc") for name in ("mean_half1_unfil", "mean_half2_unfil", "mask")]
    # Read off output/plots/mean_fsc.png of the run: where the curves are lowest, and how low they are.
    for mask, lowest in ((None, 0.72), (maps[2], 0.87)):
        curve = fsc_of(maps[0], maps[1], mask)
        shell = int(curve.argmin())
        assert shell / (32 * 17) == pytest.approx(0.0165, abs=2e-4)
        assert curve[shell] == pytest.approx(lowest, abs=5e-3)
        np.testing.assert_allclose(curve, direct_fsc(*(m * (1 if mask is None else mask) for m in maps[:2])), atol=1e-6)
