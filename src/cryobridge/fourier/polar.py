"""Fourier transforms of real images on a polar grid, planned once and applied to whole stacks.

Grid and transform are those of CryoLike's image stacks: Gauss-Jacobi radii, uniform angles, and

    F(r, θ) = (4π / sqrt(n0 n1)) Σ_ab image[a, b] exp(-i (k0 (a - ⌊n0/2⌋) + k1 (b - ⌊n1/2⌋))),
    k0 = 4π r cos θ / n0,  k1 = 4π r sin θ / n1,

so that r = n / 4 is the Nyquist frequency. A point beyond it takes the value of its periodic image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from cryobridge.errors import UsageError
from cryobridge.fourier._gridding import TapSums, axis_taps, deapodisation, n_taps, padded_size
from cryobridge.fourier.grid import PolarGrid

__all__ = ["PolarGrid", "PolarTransform"]

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


class _Strip(NamedTuple):
    """Consecutive columns of the padded grid and where the half spectrum holds them."""

    columns: slice  # in the grid that the taps read
    source: slice  # in the half spectrum
    mirrored: bool  # then reversed and conjugated, for the image is real


class PolarTransform:
    """The transform of real images of one size on one polar grid.

    Planning takes a fraction of a second; ``forward``, ``adjoint`` and ``inverse`` may then be called
    any number of times, from several threads too. Images are transformed each on its own: one that
    holds NaN spoils no other.

    Parameters
    ----------
    grid
        The points.
    n_pixels
        Image size, one number for a square box or (n0, n1).
    dtype
        Real type of the arithmetic. The relative L2 error is about 1e-6 for ``torch.float32`` and below
        1e-12 for ``torch.float64``.
    device
        Where to work.

    Raises
    ------
    UsageError
        For another dtype, an empty image, or double precision on MPS, which has none.
    """

    def __init__(
        self,
        grid: PolarGrid,
        n_pixels: int | tuple[int, int],
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.grid = grid
        self.n_pixels = (n_pixels, n_pixels) if isinstance(n_pixels, int) else (n_pixels[0], n_pixels[1])
        self.dtype = dtype
        # By way of a tensor, which knows the number that "cuda" leaves out.
        self.device = torch.empty(0, device=device).device
        if dtype not in _COMPLEX:
            raise UsageError(f"{dtype} is not torch.float32 or torch.float64", field="dtype")
        if dtype is torch.float64 and self.device.type == "mps":
            raise UsageError("MPS has no double precision", field="device", hint="use the cpu or float32")
        if min(self.n_pixels) < 1:
            raise UsageError(f"an image of {self.n_pixels} pixels is empty", field="n_pixels")
        # With an even number of angles θ and θ + π are conjugates, and half of the points are enough.
        self._paired = grid.n_inplanes % 2 == 0
        self._n_angles = grid.n_inplanes // 2 if self._paired else grid.n_inplanes
        self._padded = (padded_size(self.n_pixels[0]), padded_size(self.n_pixels[1]))
        self._plan_taps()
        self._plan_tiles()
        self._idle: list[_Work] = []
        scale = 4 * math.pi / math.sqrt(self.n_pixels[0] * self.n_pixels[1])
        axis_0, axis_1 = (
            deapodisation(size, padded, n_taps(dtype)) for size, padded in zip(self.n_pixels, self._padded, strict=True)
        )
        self._pixel_weights = (scale * axis_0[:, None] * axis_1).to(dtype).to(self.device)

    @property
    def bytes_per_image(self) -> int:
        """Memory for one more image in a call: its pixels and its transform."""
        real = 4 if self.dtype is torch.float32 else 8
        return real * (self.n_pixels[0] * self.n_pixels[1] + 2 * self.grid.n_points)

    @property
    def images_at_a_time(self) -> int:
        """Images that are in hand together: a call with a multiple of them wastes nothing."""
        return int(self._batch)

    def _plan_taps(self) -> None:
        taps = n_taps(self.dtype)
        radii = torch.from_numpy(self.grid.radii)[:, None]
        angles = torch.from_numpy(self.grid.angles_rad[: self._n_angles])
        steps = [2 * padded / size for size, padded in zip(self.n_pixels, self._padded, strict=True)]
        row, row_weight = axis_taps((steps[0] * radii * torch.cos(angles)).reshape(-1), taps)
        column, column_weight = axis_taps((steps[1] * radii * torch.sin(angles)).reshape(-1), taps)
        # The grid that the taps read holds the columns they need, in one run without a wrap if it can.
        self._first_column = int(column.min())
        self._n_columns = min(int(column.max()) - self._first_column + 1, self._padded[1])
        row = (row % self._padded[0]).to(torch.int32)
        column = ((column - self._first_column) % self._padded[1]).to(torch.int32)
        row_weight, column_weight = row_weight.to(self.dtype), column_weight.to(self.dtype)
        self._taps = TapSums(
            (column[:, :, None] * self._padded[0] + row[:, None, :]).reshape(len(row), -1),
            (column_weight[:, :, None] * row_weight[:, None, :]).reshape(len(row), -1),
            self._n_columns * self._padded[0],
            self.device,
        )

    def _plan_tiles(self) -> None:
        """Choose how many images, grid columns and shells to have in hand at a time.

        On a CPU the pieces are kept to what its caches hold, also because fresh memory is dearer than
        the arithmetic; an accelerator is given few large pieces.
        """
        column_bytes = self._padded[0] * (8 if self.dtype is torch.float32 else 16)
        if self.device.type == "cpu":
            grid_bytes, strip_bytes, shell_bytes, most = 2.0e7, 1.0e6, 1.2e6, 32
        else:
            grid_bytes, strip_bytes, shell_bytes, most = 5.0e8, math.inf, math.inf, 64
        fitting = grid_bytes / (self._n_columns * column_bytes)
        self._batch = min(most, max(8, 2 ** math.floor(math.log2(max(fitting, 1)))))
        width = max(1, int(min(strip_bytes / (self._batch * column_bytes), self._n_columns)))
        point_bytes = self._batch * column_bytes // self._padded[0]
        self._shells = max(1, int(min(shell_bytes / (self._n_angles * point_bytes), self.grid.n_shells)))
        self._strips = _strips(self._first_column, self._n_columns, self._padded[1], width)

    def forward(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Transform a stack.

        Parameters
        ----------
        images
            (n, n0, n1), real, on the transform's device.
        out
            (n, n_shells, n_inplanes) to write to. Reusing one saves the cost of fresh memory, which
            is a fifth of the time for large boxes.

        Returns
        -------
        Tensor
            (n, n_shells, n_inplanes), complex64 or complex128; ``out`` if it was given.

        Raises
        ------
        UsageError
            If a shape, type or device is not the planned one.
        """
        self._check(images, self.n_pixels, "images")
        if images.is_complex():
            raise UsageError("the images are complex; they must be real", field="images")
        n_images, complex_type = len(images), _COMPLEX[self.dtype]
        if out is None:
            shape = (n_images, self.grid.n_shells, self.grid.n_inplanes)
            out = torch.empty(shape, dtype=complex_type, device=self.device)
        self._check(out, (self.grid.n_shells, self.grid.n_inplanes), "out")
        if len(out) != n_images or out.dtype != complex_type:
            raise UsageError(f"{n_images} images need as many places of {complex_type}", field="out")
        with torch.no_grad():
            for start in range(0, n_images, self._batch):
                batch = images[start : start + self._batch]
                with self._work(len(batch)) as work:
                    self._to_padded_grid(batch, work)
                    self._to_points(work.grid, out[start : start + self._batch])
        return out

    def adjoint(self, polar: Tensor) -> Tensor:
        """Apply the transposed transform: Re Σ conj(forward(x)) y = Σ x adjoint(y) for real images x.

        Parameters
        ----------
        polar
            (n, n_shells, n_inplanes), complex, on the transform's device.

        Returns
        -------
        Tensor
            (n, n0, n1), real.

        Raises
        ------
        UsageError
            If the shape or device is not the planned one.
        """
        return self._adjoint(polar, torch.ones(self.grid.n_shells))

    def inverse(self, polar: Tensor) -> Tensor:
        """Images whose spectrum is that of ``polar`` inside the disc and zero outside.

        The integral over the disc is done by the grid's own quadrature, so it is as exact as the grid
        is fine: with two angles a pixel, for images that fade out towards the edges of the box.

        Parameters and what is returned are those of `adjoint`.

        Raises
        ------
        UsageError
            If the disc passes Nyquist, where values repeat, or the shape or device is not the planned one.
        """
        if self.grid.radius_max > min(self.n_pixels) / 4:
            raise UsageError(
                f"radius {self.grid.radius_max:g} is beyond Nyquist ({min(self.n_pixels) / 4:g})",
                field="radius_max",
                hint="plan the transform on a grid with resolution_factor <= 1",
            )
        return self._adjoint(polar, torch.from_numpy(self.grid.shell_weights / self.grid.n_inplanes))

    def _check(self, tensor: Tensor, shape: tuple[int, int], field: str) -> None:
        if not isinstance(tensor, Tensor):
            raise UsageError(f"a {type(tensor).__name__} is no tensor", field=field, hint="torch.from_numpy makes one.")
        if tensor.dim() != 3 or tuple(tensor.shape[1:]) != shape:
            found = tuple(tensor.shape)
            raise UsageError(f"shape {found} is not (n, {shape[0]}, {shape[1]})", field=field)
        if tensor.device != self.device:
            raise UsageError(
                f"the tensor is on {tensor.device}, the transform on {self.device}",
                field=field,
                hint=f"move it with .to({str(self.device)!r})",
            )

    @contextmanager
    def _work(self, batch: int) -> Iterator[_Work]:
        """Yield buffers; on a CPU, where fresh memory costs a fifth of the time, those of a whole batch are kept."""
        if self.device.type != "cpu" or batch < self._batch:
            yield self._new_work(batch)
            return
        # Each thread takes its own.
        try:
            work = self._idle.pop()
        except IndexError:
            work = self._new_work(batch)
        yield work
        self._idle.append(work)

    def _new_work(self, batch: int) -> _Work:
        (n0, _), (m0, m1) = self.n_pixels, self._padded
        width = max(strip.columns.stop - strip.columns.start for strip in self._strips)
        complex_type = _COMPLEX[self.dtype]
        return _Work(
            torch.zeros(batch, n0, m1, dtype=self.dtype, device=self.device),
            torch.zeros(width, batch, m0, dtype=complex_type, device=self.device),
            torch.empty(self._n_columns, m0, batch, dtype=complex_type, device=self.device),
        )

    def _to_padded_grid(self, images: Tensor, work: _Work) -> None:
        """Fill ``work.grid`` (column, row, image) with the padded transform, the images' centres at 0."""
        (c0, c1), (n0, n1) = (size // 2 for size in self.n_pixels), self.n_pixels
        weights = self._pixel_weights
        torch.mul(images[:, :, c1:], weights[:, c1:], out=work.rows[:, :, : n1 - c1])
        if c1:
            torch.mul(images[:, :, :c1], weights[:, :c1], out=work.rows[:, :, -c1:])
        # Rows of padding are zero: only the image's own rows are transformed along axis 1.
        half = torch.fft.rfft(work.rows).permute(2, 0, 1)
        for strip in self._strips:
            source = half[strip.source]
            if strip.mirrored:
                source = source.flip(0).conj()
            columns = work.columns[: len(source)]
            columns[:, :, : n0 - c0] = source[:, :, c0:]
            if c0:
                columns[:, :, -c0:] = source[:, :, :c0]
            work.grid[strip.columns] = torch.fft.fft(columns).permute(0, 2, 1)

    def _to_points(self, grid: Tensor, out: Tensor) -> None:
        """Sum the taps of every point, a few shells at a time, and turn the images outermost."""
        n_images, n_angles = grid.shape[2], self._n_angles
        block = torch.view_as_real(grid).view(-1, 2 * n_images)
        for start in range(0, self.grid.n_shells, self._shells):
            shells = out[:, start : start + self._shells]
            stop = start + shells.shape[1]
            sums = self._taps.product(block, start * n_angles, stop * n_angles)
            points = torch.view_as_complex(sums.view(stop - start, n_angles, n_images, 2))
            shells[:, :, :n_angles] = points.permute(2, 0, 1)
            if self._paired:
                torch.conj_physical(shells[:, :, :n_angles], out=shells[:, :, n_angles:])

    def _adjoint(self, polar: Tensor, shell_weights: Tensor) -> Tensor:
        self._check(polar, (self.grid.n_shells, self.grid.n_inplanes), "polar")
        images = torch.empty(len(polar), *self.n_pixels, dtype=self.dtype, device=self.device)
        weights = shell_weights.to(self.dtype).to(self.device)[:, None]
        with torch.no_grad():
            for start in range(0, len(polar), self._batch):
                points = weights * polar[start : start + self._batch].to(_COMPLEX[self.dtype])
                if self._paired:
                    points = points[:, :, : self._n_angles] + points[:, :, self._n_angles :].conj()
                block = torch.view_as_real(points.permute(1, 2, 0).contiguous())
                sums = self._taps.transposed_product(block.view(self._taps.n_rows, -1))
                grid = torch.view_as_complex(sums.view(self._n_columns, self._padded[0], -1, 2))
                self._from_padded_grid(grid, images[start : start + self._batch])
        return images

    def _from_padded_grid(self, grid: Tensor, images: Tensor) -> None:
        """Transpose of ``_to_padded_grid``: (column, row, image) -> (image, n0, n1)."""
        (c0, c1), (n0, n1), m1 = (size // 2 for size in self.n_pixels), self.n_pixels, self._padded[1]
        half = torch.zeros(m1 // 2 + 1, n0, grid.shape[2], dtype=grid.dtype, device=grid.device)
        for strip in self._strips:
            columns = torch.fft.ifft(grid[strip.columns], dim=1, norm="forward")
            pixels = torch.roll(columns, c0, dims=1)[:, :n0]
            half[strip.source] += pixels.flip(0).conj() if strip.mirrored else pixels
        # irfft counts every column but the first and last twice; the transpose of rfft counts all once.
        half[1:-1] *= 0.5
        rows = torch.fft.irfft(half.permute(2, 1, 0), n=m1, norm="forward")
        torch.mul(torch.roll(rows, c1, dims=2)[:, :, :n1], self._pixel_weights, out=images)


class _Work(NamedTuple):
    """Buffers of one sub-batch; what is padding in the first two stays zero."""

    rows: Tensor  # (image, n0, padded 1)
    columns: Tensor  # (column, image, padded 0)
    grid: Tensor  # (column, padded 0, image)


def _strips(first: int, count: int, padded: int, width: int) -> tuple[_Strip, ...]:
    """Cut the columns first … first + count - 1 into strips that the half spectrum holds in one piece."""
    strips = []
    start = 0
    while start < count:
        column = (first + start) % padded
        mirrored = column > padded // 2
        last = padded - 1 if mirrored else padded // 2
        length = min(width, count - start, last - column + 1)
        source = slice(padded - column - length + 1, padded - column + 1)
        if not mirrored:
            source = slice(column, column + length)
        strips.append(_Strip(slice(start, start + length), source, mirrored))
        start += length
    return tuple(strips)
