"""Pictures of what a file or folder holds."""

from cryobridge.inspect.plots.draw import build_figure, plot_path

__all__ = ["build_figure", "plot_path"]
