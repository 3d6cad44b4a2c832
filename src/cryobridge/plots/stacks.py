"""Pictures of one output stack: its images, their Fourier transforms, and the power spectrum."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import UsageError
from cryobridge.plots.images import TileAxes, contrast, evenly_spaced, image_tiles, scale_gray, tile_sheet
from cryobridge.plots.page import TICK_PT, Draw, Floats, Panel, Sheet, image_count, labelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from torch import Tensor

# About the pixels of a tile, which a finer disc would only be thinned out to; few tiles are larger.
_DISC_PX = 200
_LARGE_DISC_PX = 400
_MOST_LARGE_DISCS = 4
_SPECTRUM_CELL_IN = (7.0, 4.2)
_SPECTRUM_MARGIN_IN = (0.75, 0.5, 0.2, 0.35)
_RESOLUTIONS_A = np.outer(10.0 ** np.arange(-1, 5), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)).ravel()
# The radius of that frequency. Below it there is little but the mean, which is subtracted.
_ONE_WAVE_A_BOX = 0.5
# Beyond, power is a matter of rounding.
_MOST_DECADES = 12
# As a part of the axis; closer numbers would touch.
_LEAST_TICK_DISTANCE = 0.05


class Grid(Protocol):
    """What is asked of a polar grid (see `cryobridge.fourier.grid.PolarGrid`); it is hashable."""

    @property
    def radius_max(self) -> float:
        """Radius of the last shell; a quarter of the box is Nyquist."""

    @property
    def n_shells(self) -> int:
        """Number of shells."""

    @property
    def n_inplanes(self) -> int:
        """Number of angles on a shell."""

    @property
    def radii(self) -> Floats:
        """(n_shells,)."""

    def __hash__(self) -> int: ...


def stack_sheets(
    number: int,
    images: Tensor | NDArray[Any],
    polar: Tensor | NDArray[Any],
    grid: Grid,
    pixel_size_A: float | tuple[float, float],
    names: Sequence[str] | None = None,
    *,
    power: Tensor | NDArray[Any] | None = None,
    n_images: int | None = None,
) -> tuple[Sheet, Sheet, Sheet]:
    """Return the pages of one stack: its images, their Fourier transforms and the power spectrum.

    Of more than 16 images evenly spaced ones are shown, which `cryobridge.plots.images.evenly_spaced` chooses
    beforehand as well.

    Parameters
    ----------
    number
        Running number of the stack.
    images
        (n, n_0, n_1), real.
    polar
        (n, n_shells, n_inplanes), complex: the transforms of these images.
    grid
        The grid that they were made on.
    pixel_size_A
        Å a pixel, of both axes or along axis 0 and axis 1.
    names
        What the images are called; without it they are numbered from 0.
    power
        (n_shells,) mean of |F|² over the angles and over all images of the stack; without it, over those given.
    n_images
        Images in the stack, where it has more than are given.

    Raises
    ------
    UsageError
        If there are no images, or shapes don't match.
    """
    stack = _Stack(number, images, polar, grid, pixel_size_A, names, n_images)
    return stack.images_sheet(), stack.fourier_sheet(), stack.power_sheet(power)


class _Stack:
    """What is drawn of a stack: the chosen images, and the power of their transforms."""

    def __init__(
        self,
        number: int,
        images: Tensor | NDArray[Any],
        polar: Tensor | NDArray[Any],
        grid: Grid,
        pixel_size_A: float | tuple[float, float],
        names: Sequence[str] | None,
        n_images: int | None,
    ) -> None:
        n_given = len(images)
        if n_given == 0 or tuple(polar.shape) != (n_given, grid.n_shells, grid.n_inplanes):
            raise UsageError(
                f"shape {tuple(polar.shape)} is not ({n_given or 'n'}, {grid.n_shells}, {grid.n_inplanes})",
                field="polar",
            )
        if names is not None and len(names) != n_given:
            raise UsageError(f"there are {len(names)} names of {image_count(n_given)}", field="names")
        chosen = evenly_spaced(n_given)
        self._heading = f"Stack {number:06d}"
        self._grid = grid
        self._titles = [f"image {index}" if names is None else names[index] for index in chosen]
        self._images = _array(images[chosen])
        self._power = _power(_array(polar[chosen]))
        self._n_images = n_given if n_images is None else n_images
        sizes: list[float] = np.broadcast_to(pixel_size_A, 2).tolist()
        self._pixel_size_A = sizes
        # Radii are scaled so that a quarter of the box is Nyquist, which is 1 / (2 pixel sizes).
        n_0, n_1 = self._images.shape[1:]
        self._per_radius = 2 / (n_0 * sizes[0]), 2 / (n_1 * sizes[1])

    def images_sheet(self) -> Sheet:
        """Show the images themselves."""
        n_0, n_1 = self._images.shape[1:]
        size_0, size_1 = self._pixel_size_A
        pixel = f"{size_0:.4g}" if size_0 == size_1 else f"{size_0:.4g} × {size_1:.4g}"
        heading = f"{self._heading}: particle images, {n_0} × {n_1} px of {pixel} Å"
        notes = [self._shown(), "Axis 0 of the stack points down, axis 1 to the right."]
        return image_tiles(heading, self._images, self._titles, (n_0 * size_0) / (n_1 * size_1), notes)

    def fourier_sheet(self) -> Sheet:
        """Show the logarithm of the magnitude of the transforms, as discs in the plane of spatial frequencies."""
        n_images = len(self._power)
        side_px = _LARGE_DISC_PX if n_images <= _MOST_LARGE_DISCS else _DISC_PX
        source, outside, starts = _disc(self._grid, side_px)
        n_rings = len(starts)
        rings = np.add.reduceat(self._power, starts, axis=1)
        rings /= np.diff(starts, append=self._grid.n_shells)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            discs = np.log10(rings.reshape(n_images, -1)[:, source]) / 2
        black, white = contrast(discs[:, ~outside], 1, 99.8)
        discs[:, outside] = np.nan
        end_0, end_1 = (self._grid.radius_max * scale for scale in self._per_radius)
        notes = [
            self._shown() + (" All have the axes of the one in the lower left corner." if n_images > 1 else ""),
            f"Gray is log10 |F| on the polar grid, from {black:.2f} (black) to {white:.2f} (white).",
        ]
        if n_rings < self._grid.n_shells:
            notes.append(f"The {self._grid.n_shells} shells are averaged into {n_rings} rings.")
        axes = TileAxes((-end_1, end_1, end_0, -end_0), "k along axis 1 (1/Å)", "k along axis 0 (1/Å)")
        heading = f"{self._heading}: Fourier transforms, magnitude"
        return tile_sheet(heading, scale_gray(discs, black, white), self._titles, end_0 / end_1, notes, axes)

    def power_sheet(self, mean: Tensor | NDArray[Any] | None) -> Sheet:
        """Show the power of each shell: of the images drawn, and the mean."""
        grid, power = self._grid, self._power.mean(axis=2, dtype=np.float64)
        n_averaged = len(power) if mean is None else self._n_images
        average = power.mean(axis=0) if mean is None else _array(mean).astype(np.float64)
        if average.shape != (grid.n_shells,):
            raise UsageError(f"shape {average.shape} is not ({grid.n_shells},)", field="power")
        scale_0, scale_1 = self._per_radius
        end = grid.radius_max * scale_0
        nyquist = 0.5 / self._pixel_size_A[0]
        is_measured = grid.radii >= min(_ONE_WAVE_A_BOX, float(grid.radii[-1]))
        draw = _draw_spectra(grid.radii * scale_0, power, average, is_measured, (end, nyquist), n_averaged)
        notes = [
            f"|F|² is averaged over the angles of each shell. The grid ends at {end:.4g} 1/Å ({1 / end:.4g} Å); "
            f"the Nyquist frequency is {nyquist:.4g} 1/Å ({1 / nyquist:.4g} Å)."
        ]
        if not np.isclose(scale_0, scale_1, rtol=1e-6):
            notes.append(
                f"Frequencies are those along axis 0; along axis 1 they are {scale_1 / scale_0:.4g} times them."
            )
        panel = Panel("", labelled(draw, "spatial frequency (1/Å); above: resolution (Å)", "mean |F|² of a shell"))
        heading = f"{self._heading}: power spectrum of {image_count(n_averaged)}"
        return Sheet(heading, (panel,), tuple(notes), _SPECTRUM_CELL_IN, _SPECTRUM_MARGIN_IN)

    def _shown(self) -> str:
        return f"{len(self._images)} of {image_count(self._n_images)}."


def _array(values: Tensor | NDArray[Any]) -> NDArray[Any]:
    """Return a tensor's values as an array, wherever it lies."""
    if isinstance(values, np.ndarray):
        return values
    array: NDArray[Any] = values.detach().cpu().resolve_conj().numpy()
    return array


def _power(polar: NDArray[Any]) -> Floats:
    """Return |F|², (n, n_shells, n_inplanes)."""
    power: Floats = np.square(polar.real)
    power += np.square(polar.imag)
    return power


@lru_cache(maxsize=4)
def _disc(grid: Grid, side_px: int) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
    """Plan a picture, (side, side), of the disc of a grid; axis 0 of the images points down, axis 1 to the right.

    Returns
    -------
    tuple
        For each pixel the nearest point, (ring, angle) as one number; a mask of what lies outside; and the first
        shell of each ring. A ring is one shell, or several where they are narrower than a pixel.
    """
    n_rings = min(grid.n_shells, side_px // 2)
    starts = np.arange(n_rings) * grid.n_shells // n_rings
    offset = (np.arange(side_px) + 0.5) * (2 / side_px) - 1
    x, y = offset[:, None], offset[None, :]
    radius = np.hypot(x, y)
    halfway = (grid.radii[1:] + grid.radii[:-1]) / 2
    shell = np.searchsorted(halfway, radius * grid.radius_max)
    ring = np.searchsorted(starts, shell, side="right") - 1
    angle = np.round(np.arctan2(y, x) * (grid.n_inplanes / (2 * np.pi))).astype(np.intp) % grid.n_inplanes
    return ring * grid.n_inplanes + angle, radius > 1, starts


def _draw_spectra(
    frequency: Floats,
    power: Floats,
    average: Floats,
    is_measured: NDArray[np.bool_],
    end_and_nyquist: tuple[float, float],
    n_averaged: int,
) -> Draw:
    """Return a drawing of single spectra, (n, n_shells), and of their mean over more of them; frequencies in 1/Å."""
    end, nyquist = end_and_nyquist
    limits = _limits(np.vstack([power[:, is_measured], average[is_measured]]))

    def draw(axes: Axes) -> None:
        single = axes.plot(frequency, power.T, color="0.7", linewidth=0.5)[0]
        (mean,) = axes.plot(frequency, average, color="tab:blue", linewidth=1.5)
        if limits is not None:
            axes.set_yscale("log")
            axes.set_ylim(limits)
        axes.set_xlim(0, end)
        single_label = image_count(1) if len(power) == 1 else f"{len(power)} single images"
        lines = {single_label: single, f"mean of {image_count(n_averaged)}": mean}
        if nyquist < 0.999 * end:
            lines["Nyquist frequency"] = axes.axvline(nyquist, color="0.4", linestyle="--", linewidth=1)
        axes.legend(lines.values(), lines.keys(), fontsize=TICK_PT, loc="upper right")
        above = axes.twiny()
        above.set_xlim(0, end)
        resolutions = _round_resolutions_A(end)
        above.set_xticks([1 / value for value in resolutions], [f"{value:g} Å" for value in resolutions])
        above.tick_params(labelsize=TICK_PT)

    return draw


def _limits(power: Floats) -> tuple[float, float] | None:
    """Return the ends of a logarithmic axis; none where nothing is greater than zero."""
    positive = power[np.isfinite(power) & (power > 0)]
    if positive.size == 0:
        return None
    highest = float(positive.max())
    return max(float(positive.min()), highest * 10.0**-_MOST_DECADES) / 2, highest * 2


def _round_resolutions_A(end: float) -> list[float]:
    """Return round resolutions whose frequencies lie well apart on an axis from 0 to ``end``, in 1/Å."""
    chosen: list[float] = []
    for value in _RESOLUTIONS_A[_RESOLUTIONS_A * end >= 1].tolist():
        last = 1 / chosen[-1] if chosen else np.inf
        if last - 1 / value >= _LEAST_TICK_DISTANCE * end and 1 / value >= _LEAST_TICK_DISTANCE * end:
            chosen.append(value)
    return chosen
