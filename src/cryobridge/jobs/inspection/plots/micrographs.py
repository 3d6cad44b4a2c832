"""How micrographs are: distributions of what they are judged by, and the CTF fit from the first one to the last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.registry import STAR, identify_file
from cryobridge.jobs.inspection.micrographs import measures, of_cryosparc, of_relion
from cryobridge.plots.inspection import draw_histograms, draw_points
from cryobridge.plots.page import Panel, Sheet, path_title
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.formats.table import Table


def micrograph_sheet(path: Path, table: Table) -> Sheet | None:
    """Draw micrographs or exposures; None for other tables, and where nothing varies."""
    is_star = path.is_file() and identify_file(path) == STAR
    found = of_relion(path) if is_star else of_cryosparc(table)
    if found is None:
        return None
    known = measures(found)
    panels, constant = [], []
    for item in known:
        values = item.values[np.isfinite(item.values)]
        if values.min() == values.max():
            constant.append(f"{item.title} {values[0]:.4g}{f' {item.unit}' if item.unit else ''}")
            continue
        panels.append(Panel(item.title, draw_histograms(values[:, np.newaxis], item.unit)))
    lines = [item for item in known if item.title in {"CTF fit", "defocus"} and len(np.unique(item.values)) > 1]
    for item in lines:
        points = np.column_stack([np.arange(1, len(found) + 1), item.values])
        title = f"{item.title} ({item.unit}), from the first micrograph to the last"
        panels.append(Panel(title, draw_points(points[np.isfinite(item.values)]), is_wide=True))
    notes = (f"The same for all: {', '.join(constant)}.",) if constant else ()
    noun = "movie" if found.name is None else "micrograph"
    return Sheet(f"{path_title(path)}: {counted(len(found), noun)}", tuple(panels), notes) if panels else None
