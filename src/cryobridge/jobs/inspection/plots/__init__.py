"""Pictures of what a file or folder holds."""

from cryobridge.jobs.inspection.plots.draw import build_figure, plot_path

__all__ = ["build_figure", "plot_path"]
