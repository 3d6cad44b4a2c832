"""Draw the figures of the page on conventions, with the functions that cryobridge itself uses.

python docs/make_figures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from cryobridge.cli.build import flag
from cryobridge.demo.physics import ImageGrid, demo_molecule, project
from cryobridge.fourier.grid import PolarGrid
from cryobridge.model.convention import Convention
from cryobridge.model.geometry import euler_to_matrix

FIGURES = Path(__file__).resolve().parent / "figures"
BOX_PX, PIXEL_SIZE_A = 96, 1.5
SHAPE_PX = np.array([3000, 4000])
# Picks in the shape of a letter that has no symmetry, so that each axis convention looks different.
LETTER_F = np.array(
    [
        *((0.30, fy) for fy in np.linspace(0.12, 0.76, 9)),
        *((fx, 0.76) for fx in (0.36, 0.42, 0.48, 0.54)),
        *((fx, 0.52) for fx in (0.36, 0.42, 0.48)),
    ]
)
BLUE, RED, GRAY = "#2f6f9f", "#c0392b", "#808080"


def coordinates() -> Figure:
    """Draw the same picks in cryoSPARC's fractions, in the four flips, and with x and y exchanged."""
    figure, grid = plt.subplots(2, 3, figsize=(9, 5.4), layout="constrained")
    axes = grid.flat
    axes[0].plot(*LETTER_F.T, "o", color=GRAY, ms=4)
    axes[0].set(title="cryoSPARC\nfractions fx, fy", xlim=(0, 1), ylim=(0, 1), xlabel="fx", ylabel="fy", aspect=0.75)
    conventions = (
        Convention(False, True),
        Convention(False, False),
        Convention(True, True),
        Convention(True, False),
        Convention(False, True, swap_xy=True),
    )
    for panel, convention in zip(axes[1:], conventions, strict=True):
        panel.plot(*convention.to_px(LETTER_F, SHAPE_PX).T, "o", color=BLUE, ms=4)
        options = " ".join(map(flag, convention.flips)) or "(no option)"
        title = f"RELION, {options}\n{convention.formula}"
        panel.set(title=title, xlim=(0, 4000), ylim=(0, 3000), xlabel="x (pixels)", aspect="equal")
        panel.set_ylabel("y (pixels)")
    axes[5].set(xlim=(0, 3000), ylim=(0, 4000))
    for panel in axes:
        panel.title.set_fontsize(10)
        panel.tick_params(labelsize=8)
    return figure


def _image(panel: Axes, matrix: np.ndarray, shift_px: tuple[float, float] = (0.0, 0.0)) -> None:
    """Draw a projection with its first row at the bottom, so that y points up."""
    centre_px = BOX_PX // 2 - np.array([shift_px])
    picture = project(demo_molecule(), matrix, centre_px, ImageGrid(BOX_PX, PIXEL_SIZE_A))[0]
    panel.imshow(picture, cmap="gray_r", origin="lower")
    panel.set(xticks=[0, BOX_PX // 2], yticks=[0, BOX_PX // 2])
    panel.tick_params(labelsize=8)


def poses() -> Figure:
    """Draw projections of the demo's molecule for one angle at a time."""
    figure, axes = plt.subplots(1, 5, figsize=(9, 2.5), layout="constrained")
    angles = ((0, 0, 0), (40, 0, 0), (0, 40, 0), (0, 0, 40), (40, 40, 40))
    for panel, (rot, tilt, psi) in zip(axes, angles, strict=True):
        _image(panel, euler_to_matrix(*(np.array([float(angle)]) for angle in (rot, tilt, psi))))
        panel.set_title(f"rot {rot}°, tilt {tilt}°\npsi {psi}°", fontsize=10)
        panel.set_xlabel("x", fontsize=9)
    axes[0].set_ylabel("y", fontsize=9)
    return figure


def shifts() -> Figure:
    """Draw a particle off the centre, and the shift that takes it there."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.3), layout="constrained")
    identity, shift_px = np.eye(3)[np.newaxis], (18.0, -10.0)
    centre = BOX_PX // 2
    for panel, shift, title in (
        (axes[0], shift_px, "stored image: shift (+18, −10) px"),
        (axes[1], (0.0, 0.0), "moved by its shift"),
    ):
        _image(panel, identity, shift)
        panel.plot(centre, centre, "+", color=BLUE, ms=12, mew=2)
        panel.set_title(title, fontsize=9)
    start = (centre - shift_px[0], centre - shift_px[1])
    axes[0].annotate("", (centre, centre), start, arrowprops={"arrowstyle": "->", "color": RED, "lw": 2})
    return figure


def fourier() -> Figure:
    """Draw where the centre of a box is, what cropping keeps, and the polar grid."""
    figure, (boxes, crop, polar) = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    for row, n_pixels in enumerate((8, 7)):
        colours = [RED if pixel == n_pixels // 2 else "white" for pixel in range(n_pixels)]
        boxes.bar(range(n_pixels), 0.7, bottom=row, width=1, color=colours, edgecolor="black")
        for pixel in range(n_pixels):
            boxes.text(pixel, row + 0.35, str(pixel), ha="center", va="center", fontsize=9)
    boxes.set(title="centre of a box:\npixel n // 2", yticks=[0.35, 1.35], yticklabels=["n = 8", "n = 7"], xticks=[])
    frequency = np.arange(-4, 4)
    first, second = np.meshgrid(frequency, frequency)
    is_kept = (first >= -2) & (first < 2) & (second >= -2) & (second < 2)
    crop.plot(first[~is_kept], second[~is_kept], "o", color=GRAY, mfc="white")
    crop.plot(first[is_kept], second[is_kept], "o", color=RED)
    crop.set(title="cropping 8 → 4 px\nkeeps −2 … 1", xlabel="frequency (1 / box)", aspect="equal", xticks=frequency)
    n_pixels = 16
    grid = PolarGrid.for_box(n_pixels)
    radius, angle = np.meshgrid(grid.radii, grid.angles_rad)
    polar.plot(radius * np.cos(angle), radius * np.sin(angle), ".", color=BLUE, ms=2)
    polar.add_patch(Circle((0, 0), n_pixels / 4, fill=False, ec=RED))
    polar.set(
        title=f"polar grid of a box of {n_pixels} px\nr = {n_pixels} / 4 is Nyquist", aspect="equal", xlabel="r cos θ"
    )
    polar.set_ylabel("r sin θ")
    for panel in (boxes, crop, polar):
        panel.title.set_fontsize(10)
    return figure


def main() -> None:
    """Write every figure; the same figures are the same bytes."""
    plt.rcParams |= {"svg.hashsalt": "cryobridge", "font.family": "DejaVu Sans", "savefig.facecolor": "white"}
    FIGURES.mkdir(exist_ok=True)
    for draw in (coordinates, poses, shifts, fourier):
        figure = draw()
        figure.savefig(FIGURES / f"{draw.__name__}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
