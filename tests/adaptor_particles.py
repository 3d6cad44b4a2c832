"""Particles for tests of the adaptors, made in memory: two optics groups, phase shifts, astigmatism of both signs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cryobridge.model.particles import CTF, Aberrations, ImageRefs, Labels, Optics, ParticleSet, Poses
from helpers import noise_images, save_mrc

N, BOX, PIXEL_A = 8, 64, 1.25


def rotations(n, seed=1):
    """Return random rotations, (n, 3, 3)."""
    found = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, 3, 3)))[0]
    return found * np.linalg.det(found)[:, None, None]


def particles(*, groups=2, bent=False, phase_shift_rad=None):
    """Return a set without images; the second group is of another microscope and pixel size."""
    rng = np.random.default_rng(0)
    defocus_A = rng.uniform(9000, 25000, N)
    shift_rad = rng.uniform(0, 1.4, N) if phase_shift_rad is None else np.full(N, phase_shift_rad)
    ctf = CTF(defocus_A, defocus_A - rng.uniform(-900, 900, N), rng.uniform(-1.5, 1.5, N), shift_rad)
    optics = Optics(
        np.array([1, 2]), ("1", "2"), np.array([300.0, 200.0]), np.array([2.7, 2.1]), np.array([0.1, 0.07]),
        np.array([PIXEL_A, 1.5]), np.array([BOX, BOX]), aberrations=aberrations() if bent else None,
    )  # fmt: skip
    index = np.arange(N, dtype=np.int32) % groups
    poses = Poses(rotations(N), rng.uniform(-6, 6, (N, 2)), "made")
    return ParticleSet(N, Path("made.star"), ctf=ctf, optics=optics, optics_index=index, poses=poses)


def with_envelope(made):
    """Return the set with B-factors, of which some are 0, and scales."""
    bfactor_A2 = np.where(np.arange(N) % 3 == 0, 0.0, 40.0)
    return replace(made, ctf=replace(made.ctf, bfactor_A2=bfactor_A2, scale=np.linspace(0.5, 1, N)))


def aberrations():
    """Return those of two groups, of every kind."""
    return replace(
        Aberrations.none(2),
        beam_tilt_A=np.array([[3e4, -4e4], [0, 1e4]]),
        trefoil_A=np.array([[2e4, 1e4], [0, 0]]),
        tetrafoil_A=np.array([[3e6, -5e6, 8e6, 1.6e7], [0, 0, 0, 0]]),
        magnification=np.array([[[1.03, 0.02], [-0.01, 0.98]], np.eye(2)]),
        lower_even=np.array([[0.2, 8.0, -60.0, -4.0, 6.0], [0, 0, 0, 0, 0]]),
    )


def with_images(made, folder):
    """Return the set with images in two stacks, not in the order of the rows."""
    for name, seed in (("a.mrcs", 0), ("b.mrcs", 1)):
        save_mrc(folder / name, noise_images(N, BOX, seed))
    names = Labels.of(str(folder / ("b.mrcs" if row % 3 == 0 else "a.mrcs")) for row in range(N))
    return replace(made, images=ImageRefs(names, np.arange(N)[::-1].astype(np.int64)))


def frequencies(made, row):
    """Return kx and ky in 1/Å of the half layout for a particle's images."""
    pixel_A = made.per_particle("pixel_size_A")[row]
    ky, kx = np.meshgrid(np.fft.fftfreq(BOX, pixel_A), np.fft.rfftfreq(BOX, pixel_A), indexing="ij")
    return kx, ky


def relative(found, expected):
    """Return the relative L2 error."""
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)
