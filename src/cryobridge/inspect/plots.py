"""Pictures of what files hold: distributions of columns, sheets of images, slices of volumes, latent coordinates."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, UnsafeFileError, UsageError
from cryobridge.formats import folders as folder_kinds
from cryobridge.formats import registry
from cryobridge.formats._atomic import atomic_path
from cryobridge.formats.arrays import describe_arrays, read_npy, read_pt
from cryobridge.formats.cryosparc_job import read_job
from cryobridge.formats.cs import CsNpyFile, open_cs
from cryobridge.formats.cs_join import join_on_uid
from cryobridge.formats.csg import open_group
from cryobridge.formats.mrc import MrcFile, decide_kind, open_mrc
from cryobridge.formats.pickles import classify_pickle, load_pickle, peek_pickle, read_density
from cryobridge.formats.recovar_job import RecovarJob, read_recovar_job
from cryobridge.formats.star import open_star
from cryobridge.formats.table import Array, Column, Table, numpy_dtype_label
from cryobridge.geometry import matrix_to_euler
from cryobridge.inspect.dispatch import kind_of
from cryobridge.inspect.files import _pickle_arrays, _read_array
from cryobridge.inspect.folders import _particles_of, inspect_own_output, inspect_recovar, inspect_relion_job
from cryobridge.inspect.options import InspectOptions
from cryobridge.inspect.stats import _passes, is_identifier, summarise_values
from cryobridge.inspect.tables import _chosen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".pdf", ".svg")
_DPI = 120
_MAX_PANELS = 36
_MIN_WIDTH_IN = 6.0
_HEADING_PT, _TITLE_PT, _NOTE_PT, _TICK_PT = 11.0, 8.5, 8.0, 7.0
_MAX_NAMES = 60

# What is drawn of a long table or a large array: so many rows in so many evenly spaced runs, and no more bytes.
_MAX_ROWS = 200_000
_N_RUNS = 1000
_SAMPLE_BYTES = 64 << 20
# An array of an archive can't be read in part.
_MAX_ARRAY_BYTES = 1 << 30
_FEWEST_BINS, _MOST_BINS = 10, 50
# Numbers beyond are no measurements, and their differences overflow.
_LARGEST = 1e100
# Components of a vector that still have a colour each.
_MAX_COMPONENTS = 10
_FEWEST_POINTS = 10
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "text.usetex": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "savefig.bbox": None,
    "savefig.dpi": "figure",
}
_TICK_STEPS = (1, 2, 2.5, 5, 10)
# With numbers of five digits and a label at the left.
_LABELLED_MARGIN_IN = (0.75, 0.55, 0.12, 0.28)

_N_IMAGES = 16
_LEAST_IMAGE_PX = 24
_PANEL_PX = 512
_SLICE_PX = 1024
_FSC_THRESHOLD = 0.143

_Draw = Callable[["Axes"], None]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Panel:
    """One pair of axes: the title and what draws into it; marked where values are implausible."""

    title: str
    draw: _Draw
    is_marked: bool = False


@dataclass(frozen=True)
class _Sheet:
    """A page of equal panels, with a heading above and notes below.

    A panel leaves ``margin_in`` of its cell free: left, bottom, right, top; lengths are in inches.
    """

    heading: str
    panels: tuple[_Panel, ...]
    notes: tuple[str, ...] = ()
    cell_in: tuple[float, float] = (3.0, 2.1)
    margin_in: tuple[float, float, float, float] = (0.5, 0.55, 0.12, 0.28)


class _Findings:
    """Gathers what the panels do not show: names by reason, and sentences."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self.sentences: list[str] = []

    def leave_out(self, reason: str, names: Iterable[str]) -> None:
        self._names.setdefault(reason, []).extend(names)

    def notes(self) -> tuple[str, ...]:
        left_out = [f"{reason}: {_listed(names)}" for reason, names in self._names.items() if names]
        return (*self.sentences, *([f"Not drawn - {'; '.join(left_out)}."] if left_out else []))


def plot_path(path: Path, target: Path, options: InspectOptions | None = None) -> None:
    """Draw what a file or folder holds and write the picture; one that is there is replaced.

    Parameters
    ----------
    path
        The file or folder.
    target
        The picture; its suffix, ``.png``, ``.pdf`` or ``.svg``, decides the format.
    options
        Of these, ``field_patterns`` choose the columns of a table.

    Raises
    ------
    UsageError
        If the suffix is another, or there is no picture of such a folder.
    MissingDataError
        If there is nothing to draw, or the patterns match nothing.
    FormatError
        If the file can't be read.
    """
    target = Path(target)
    suffix = target.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(
            f"a picture can't be written as {suffix}" if suffix else "the name of the picture has no suffix",
            path=target,
            hint=f"End it with one of {', '.join(_SUFFIXES)}.",
        )
    figure = build_figure(path, options)
    with _style(), atomic_path(target) as temporary:
        figure.savefig(temporary, format=suffix[1:])


def build_figure(path: Path, options: InspectOptions | None = None) -> Figure:
    """Draw what a file or folder holds and return the figure; see `plot_path`."""
    path, options = Path(path), options or InspectOptions()
    kind = kind_of(path)
    if kind in _TABLES:
        sheet = _table_sheet(path, _TABLES[kind](path), options)
    elif options.field_patterns:
        raise UsageError(
            f"--fields is for particle tables, this is {kind}",
            path=path,
            hint="Leave it out, or name a .cs, .csg or .star file.",
        )
    else:
        sheet = _SHEETS[kind](path)
    if not sheet.panels:
        raise MissingDataError(
            "there is nothing to draw: it holds no numbers that vary",
            path=path,
            hint="`cryobridge inspect` without --plot tells what is in it.",
        )
    with _style():
        return _lay_out(sheet)


# Tables and distributions


def _job_table(path: Path) -> Table:
    """Return the particles that a cryoSPARC job put out, joined with their passthrough."""
    output = _particles_of(read_job(path))
    if output is None or output.main is None:
        raise UsageError("this job has no particles to draw", path=path, hint="Name one of its .cs or .mrc files.")
    return join_on_uid(open_cs(output.main), *(open_cs(extra) for extra in output.passthroughs))


def _star_table(path: Path) -> Table:
    star = open_star(path)
    return star[star.main]


_TABLES: dict[str, Callable[[Path], Table]] = {
    registry.CS: open_cs,
    registry.CSG: open_group,
    registry.STAR: _star_table,
    folder_kinds.CRYOSPARC_JOB: _job_table,
}


def _table_sheet(path: Path, table: Table, options: InspectOptions) -> _Sheet:
    found = _Findings()
    columns = []
    for column in _chosen(table, options):
        if column.is_text or is_identifier(column):
            found.leave_out("text" if column.is_text else "identifiers", [column.name])
        else:
            columns.append(column)
    sample, n_drawn = _sample_table(table, columns)
    if n_drawn < table.n_rows:
        found.sentences.append(f"Drawn and judged from {n_drawn:,} of {table.n_rows:,} rows, in evenly spaced runs.")
    panels: list[_Panel] = []
    for column in columns:
        values = sample.pop(column.name)
        if len(panels) == _MAX_PANELS:
            found.leave_out(f"beyond {_MAX_PANELS} panels", [column.name])
        elif panel := _distribution(column, values, found):
            panels.append(panel)
    return _Sheet(f"{_name(path)}: {table.n_rows:,} rows", tuple(panels), found.notes())


def _sample_table(table: Table, columns: list[Column]) -> tuple[dict[str, Array], int]:
    """Read evenly spaced rows of columns of numbers; return them, and how many rows they are."""
    names = [column.name for column in columns]
    row_bytes = sum(int(column.dtype[1:]) * math.prod(column.shape) for column in columns)
    runs = _even_runs(table.n_rows, row_bytes)
    n_drawn = sum(run.stop - run.start for run in runs)
    sample: dict[str, Array] = {}
    if isinstance(table, CsNpyFile):
        parts = [table.read(names, run) for run in runs]
        for name in names:
            sample[name] = np.concatenate([np.asarray(part.pop(name)) for part in parts])
        return sample, n_drawn
    # Other tables unpack or look up a whole column for each read: once is enough.
    for batch in _passes(table.n_rows, columns):
        whole = table.read([column.name for column in batch])
        for column in batch:
            values = np.asarray(whole.pop(column.name))
            sample[column.name] = np.concatenate([values[run] for run in runs])
    return sample, n_drawn


def _even_runs(n_rows: int, row_bytes: int) -> list[slice]:
    """Choose runs of rows that are spread evenly: all rows, or as many as the limits allow."""
    n_wanted = min(_MAX_ROWS, max(1, _SAMPLE_BYTES // max(1, row_bytes)))
    if n_rows <= n_wanted:
        return [slice(0, n_rows)]
    n_runs = min(_N_RUNS, n_wanted)
    starts = np.linspace(0, n_rows, n_runs, endpoint=False).astype(np.int64).tolist()
    return [slice(start, start + n_wanted // n_runs) for start in starts]


def _distribution(column: Column, values: Array, found: _Findings) -> _Panel | None:
    """Draw how the values of a column, (n, …), are distributed; None where there is nothing to see."""
    if values.size == 0 or bool((values == values[:1]).all()):
        found.leave_out("constant" if values.size else "empty", [column.name])
        return None
    summary = summarise_values(column, values.copy())
    found.sentences += [f"⚠ {column.name}: {problem}." for problem in summary.problems]
    if summary.minimum is None:
        found.leave_out("no finite number", [column.name])
        return None
    if max(-summary.minimum, summary.maximum or 0) >= _LARGEST:
        found.sentences.append(f"{column.name}: numbers beyond {_LARGEST:g} are not drawn.")
    rows = values.reshape(len(values), -1)
    if rows.shape[1] > _MAX_COMPONENTS:
        rows = rows.reshape(-1, 1)
    return _Panel(column.name, _draw_histograms(rows, summary.unit), is_marked=bool(summary.problems))


def _draw_histograms(rows: Array, unit: str) -> _Draw:
    """Count values, (n, components), in bins that the components share; complex ones by their magnitude."""
    is_whole = rows.dtype.kind in "iub"
    components = (np.abs(rows) if rows.dtype.kind == "c" else rows).astype(np.float64).T
    # Rice's rule, with finer bins: the defocus of a data set has a peak for each micrograph.
    n_bins = min(_MOST_BINS, max(_FEWEST_BINS, math.ceil(5 * len(rows) ** (1 / 3))))
    edges = _bin_edges(components[np.abs(components) < _LARGEST], n_bins, is_whole=is_whole)
    counts = [np.histogram(component, edges)[0] for component in components]
    magnitude = "magnitude" if rows.dtype.kind == "c" else ""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import EngFormatter, MaxNLocator

        for number, count in enumerate(counts):
            axes.stairs(count, edges, fill=len(counts) == 1, color=f"C{number}", label=str(number), linewidth=1.2)
        if len(counts) > 1:
            axes.legend(
                loc="upper right",
                fontsize=_TICK_PT - 0.5,
                ncols=math.ceil(len(counts) / 4),
                handlelength=0.8,
                columnspacing=0.8,
                borderpad=0.2,
                labelspacing=0.2,
            )
        axes.set_ylim(0, 1.05 * max(1, *(count.max() for count in counts)))
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=_TICK_STEPS, integer=is_whole))
        axes.ticklabel_format(axis="x", scilimits=(-3, 5))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=_TICK_STEPS, integer=True))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(unit or magnitude)

    return draw


def _bin_edges(finite: _Floats, n_bins: int, *, is_whole: bool) -> NDArray[np.floating[Any]]:
    """Return edges of equal bins; those for whole numbers lie between them and hold equally many."""
    if finite.size == 0:
        return np.array([0.0, 1.0])
    low, high = float(finite.min()), float(finite.max())
    if is_whole and max(abs(low), abs(high)) < 2**52:  # beyond, float64 has no halves to put edges on
        width = math.ceil((high - low + 1) / _MOST_BINS)
        return low - 0.5 + width * np.arange(math.ceil((high - low + 1) / width) + 1)
    # Numbers that differ in their last digits alone leave no room for bins between them.
    largest = max(abs(low), abs(high), 1e-100)
    if high - low < 1e-12 * largest:
        low, high = low - 0.01 * largest, high + 0.01 * largest
    return np.linspace(low, high, n_bins + 1)


# Images and volumes


def _mrc_sheet(path: Path) -> _Sheet:
    mrc = open_mrc(path)
    header, kind = mrc.header, decide_kind(mrc.header)
    is_volume = kind.kind == "volume"
    notes = [] if kind.certain else [f"Drawn as a {'volume' if is_volume else 'stack of images'}; {kind.reason}."]
    pixel = f", pixel {header.pixel_size_A:.4g} Å" if header.pixel_size_A else ""
    if is_volume:
        return _slices_sheet(f"{_name(path)}: {header.nx} × {header.ny} × {header.nz} px{pixel}", mrc, notes)
    heading = f"{_name(path)}: {_images(header.nz)} of {header.nx} × {header.ny} px{pixel}"
    return _contact_sheet(heading, header.nz, lambda index: mrc.read([index])[0], notes)


def _contact_sheet(heading: str, n_images: int, read: Callable[[int], Array], notes: list[str]) -> _Sheet:
    """Show evenly spaced images; each is read, made small and dropped before the next one."""
    chosen = np.unique(np.linspace(0, n_images - 1, min(n_images, _N_IMAGES)).round().astype(int)).tolist()
    panels, block_px, aspect = [], 1, 1.0
    for index in chosen:
        image, block_px = _shrink(np.asarray(read(index)))
        aspect = image.shape[0] / image.shape[1]
        panels.append(_Panel(f"image {index}", _draw_gray(image, *_contrast(image, 1, 99))))
    notes = [*notes, f"{len(chosen)} of {_images(n_images)}, numbered from 0; gray from percentile 1 to 99 of each."]
    if block_px > 1:
        notes.append(f"Blocks of {block_px} × {block_px} px are averaged.")
    cell_in = (2.2, 2.2 * min(max(aspect, 0.3), 2.0) + 0.25)
    return _Sheet(heading, tuple(panels), tuple(notes), cell_in, (0.15, 0.05, 0.05, 0.28))


def _shrink(image: Array) -> tuple[_Floats, int]:
    """Average blocks of an image, (ny, nx), where it has more pixels than a panel; return the block's side too."""
    side = max(1, max(image.shape) // _PANEL_PX)
    (ny, y), (nx, x) = ((max(1, n // side), min(side, n)) for n in image.shape)
    with np.errstate(invalid="ignore"):
        return image[: ny * y, : nx * x].reshape(ny, y, nx, x).mean(axis=(1, 3), dtype=np.float64), side


def _contrast(pixels: _Floats, low: float, high: float) -> tuple[float, float]:
    """Return percentiles of the finite pixels, or the extremes where the percentiles are one value."""
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return 0.0, 1.0
    black, white = np.percentile(finite, (low, high)).tolist()
    return (black, white) if white > black else (float(finite.min()), float(finite.max()))


def _draw_gray(image: _Floats, black: float, white: float, **place: Any) -> _Draw:
    shown = np.clip((image - black) / (white - black or 1.0), 0, 1)

    def draw(axes: Axes) -> None:
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, **place)
        if not place:
            axes.set_axis_off()
            axes.set_anchor("NW")

    return draw


def _slices_sheet(heading: str, mrc: MrcFile, notes: list[str]) -> _Sheet:
    """Show the central slices of a volume across z, y and x, of a large one every second pixel or fewer."""
    header, sizes_A = mrc.header, mrc.header.pixel_size_xyz_A
    x, y, z = header.nx // 2, header.ny // 2, header.nz // 2
    step = math.ceil(max(header.nx, header.ny, header.nz) / _SLICE_PX)
    rows, columns = [], []
    for number in range(0, header.nz, step):
        section = mrc.read([number])[0]
        rows.append(section[y, ::step].astype(np.float64))
        columns.append(section[::step, x].astype(np.float64))
    images = {
        f"xy, z = {z} px": mrc.read([z])[0, ::step, ::step].astype(np.float64),
        f"xz, y = {y} px": np.stack(rows),
        f"yz, x = {x} px": np.stack(columns),
    }
    black, white = _contrast(np.concatenate([image.ravel() for image in images.values()]), 1, 99.8)
    unit = "px" if None in sizes_A else "Å"
    lengths = {
        axis: n if size is None or unit == "px" else n * size
        for axis, n, size in zip("xyz", (header.nx, header.ny, header.nz), sizes_A, strict=True)
    }
    panels = []
    for title, image in images.items():
        across, up = title[0], title[1]
        draw = _draw_gray(image, black, white, origin="lower", extent=(0, lengths[across], 0, lengths[up]))
        panels.append(_Panel(title, _labelled(draw, f"{across} ({unit})", f"{up} ({unit})")))
    notes = [*notes, "Central slices, counted from 0; one gray scale, from percentile 1 to 99.8."]
    return _Sheet(heading, tuple(panels), tuple(notes), (3.4, 3.4), (0.65, 0.5, 0.15, 0.3))


# Arrays and pickles


def _arrays_sheet(path: Path) -> _Sheet:
    kind = registry.identify_file(path)
    infos = describe_arrays(path)
    if len(infos) == 1 and len(infos[0].shape) == 3 and min(infos[0].shape[1:]) >= _LEAST_IMAGE_PX:
        array = _read_array(path, kind, infos[0].name)
        if array is not None and array.dtype.kind in "fiu" and len(array):
            return _array_images_sheet(path, array)
    found = _Findings()

    def arrays() -> Iterator[tuple[str, Any]]:
        for info in infos:
            name = info.name or path.stem
            if kind == registry.NPZ and info.nbytes > _MAX_ARRAY_BYTES:
                found.leave_out("too large", [name])
            else:
                yield name, _read_array(path, kind, info.name)

    return _arrays_page(path, _array_panels(arrays(), len(infos), found), found)


def _arrays_page(path: Path, panels: tuple[_Panel, ...], found: _Findings) -> _Sheet:
    return _Sheet(_name(path), panels, found.notes(), margin_in=_LABELLED_MARGIN_IN)


def _array_images_sheet(path: Path, array: Array) -> _Sheet:
    n_images, ny, nx = array.shape
    return _contact_sheet(f"{_name(path)}: {_images(n_images)} of {nx} × {ny} px", n_images, array.__getitem__, [])


def _array_panels(arrays: Iterable[tuple[str, Any]], n_arrays: int, found: _Findings) -> tuple[_Panel, ...]:
    """Draw the distribution of each array; before it, the points of what may be coordinates."""
    panels: list[_Panel] = []
    for name, value in arrays:
        array = np.atleast_1d(np.asarray(value))
        if array.dtype.kind not in "biufc":
            found.leave_out("no numbers", [name])
            continue
        column = Column(name, numpy_dtype_label(array.dtype))
        if is_identifier(column) or len(panels) >= _MAX_PANELS:
            found.leave_out("identifiers" if is_identifier(column) else f"beyond {_MAX_PANELS} panels", [name])
            continue
        panel = _distribution(column, _sampled(name, array, found), found)
        if panel and _are_coordinates(array, is_alone=n_arrays == 1):
            panels.append(_points_panel(name if array.shape[1] == 2 else f"{name}, first two", array))
        panels += [panel] if panel else []
    return tuple(panels[:_MAX_PANELS])


def _are_coordinates(array: Array, *, is_alone: bool) -> bool:
    if array.ndim != 2 or array.dtype.kind != "f":
        return False
    n_rows, n_components = array.shape
    is_long = n_rows >= max(_FEWEST_POINTS, n_components)
    return is_long and (n_components == 2 or (is_alone and n_components > 2))


def _sampled(name: str, array: Array, found: _Findings) -> Array:
    """Return what is drawn of an array, and say so where it is not all."""
    sample = _sample_array(array)
    if sample.size < array.size:
        found.sentences.append(f"{name}: drawn from {sample.size:,} of {array.size:,} elements, in evenly spaced runs.")
    return sample


def _sample_array(array: Array) -> Array:
    """Take evenly spaced rows of an array; of one with long rows, evenly spaced elements."""
    rows = array if math.prod(array.shape[1:]) <= _MAX_COMPONENTS else array.ravel(order="K")
    runs = _even_runs(len(rows), rows.itemsize * math.prod(rows.shape[1:]))
    sample = np.concatenate([rows[run] for run in runs])
    return sample.astype(np.uint8) if sample.dtype.kind == "b" else sample


def _points_panel(title: str, coordinates: Array) -> _Panel:
    """Draw the first two of the coordinates, (n, 2 or more), as points."""
    points = _sample_array(coordinates[:, :2]).astype(np.float64)
    points = points[(np.abs(points) < _LARGEST).all(axis=1)]
    size = 4 if len(points) < 5000 else 1.5

    def draw(axes: Axes) -> None:
        axes.plot(*points.T, ".", markersize=size, markeredgewidth=0, alpha=0.5, rasterized=True)
        axes.locator_params(nbins=5)
        axes.ticklabel_format(scilimits=(-3, 5))

    return _Panel(title, _labelled(draw, "dimension 0", "dimension 1"))


def _pickle_sheet(path: Path) -> _Sheet:
    found = _Findings()
    try:
        value = load_pickle(path)
        content = classify_pickle(value)
    except UnsafeFileError as error:
        value, content = peek_pickle(path)[0], "unknown"
        found.sentences.append(f"Only the plain data in it: {error.message}.")
    if content == "density":
        return _density_sheet(path)
    arrays = {path.stem if name == "value" else name: array for name, array in _pickle_arrays(content, value).items()}
    if content == "poses":
        arrays = _with_angles(arrays, found)
    return _arrays_page(path, _array_panels(arrays.items(), len(arrays), found), found)


def _with_angles(poses: dict[str, Any], found: _Findings) -> dict[str, Any]:
    """Replace the matrices, which come first, by RELION's angles; leave them where they are no rotations."""
    name, matrices = next(iter(poses.items()))
    try:
        angles_deg = matrix_to_euler(_sampled(name, matrices, found))
    except CryobridgeError as error:
        found.sentences.append(f"⚠ {name}: {error.message}.")
        return poses
    angles = dict(zip(("rot (degrees)", "tilt (degrees)", "psi (degrees)"), angles_deg, strict=True))
    return {**angles, **{other: array for other, array in poses.items() if other != name}}


def _density_sheet(path: Path) -> _Sheet:
    """Show a density in latent space along its first two dimensions."""
    density = read_density(path)
    grid, bounds = density.density, density.bounds
    alpha = "" if density.alpha is None else f", alpha {density.alpha:.4g}"
    heading = f"{_name(path)}: density on a grid of {' × '.join(map(str, grid.shape))}{alpha}"
    notes = [f"Summed over the other {grid.ndim - 2} dimensions."] if grid.ndim > 2 else []
    grid = grid.sum(axis=tuple(range(2, grid.ndim)))
    ends = [(float(low), float(high)) for low, high in bounds]

    def draw(axes: Axes) -> None:
        if grid.ndim == 1:
            axes.plot(np.linspace(*ends[0], len(grid)), grid)
        else:
            axes.imshow(grid.T, origin="lower", aspect="auto", extent=(*ends[0], *ends[1]))

    labels = ("dimension 0", "density" if grid.ndim == 1 else "dimension 1")
    return _Sheet(
        heading, (_Panel("density", _labelled(draw, *labels)),), tuple(notes), (3.0, 2.3), _LABELLED_MARGIN_IN
    )


# Folders


def _recovar_sheet(path: Path) -> _Sheet:
    """Show the half maps' FSC, eigenvalues and latent coordinates; of an analysis or density its main file."""
    job = read_recovar_job(path)
    for file in (
        *(density.knee.path for density in job.densities if density.knee),
        *(analysis.umap or analysis.kmeans for analysis in job.analyses),
    ):
        if job.kind != "pipeline" and file is not None:
            return _pickle_sheet(file)
    details = inspect_recovar(path, InspectOptions()).details["recovar"]
    panels, notes = [], []
    if details["half_maps"] and "fsc" in details["half_maps"]:
        half = next(volume for volume in details["volumes"] if volume.get("half") == 1)
        panels.append(_fsc_panel(details["half_maps"]["fsc"], half["box_px"][0] * half["voxel_size_A"]))
        notes.append(f"{details['half_maps']['text']}.")
    if details["eigenvalues"]:
        panels.append(_Panel("eigenvalues", _draw_eigenvalues(np.asarray(details["eigenvalues"]))))
    panels += _latent_panels(job)
    if not panels:
        raise UsageError(
            "there is no picture of this folder: no half maps, eigenvalues or latent coordinates",
            path=path,
            hint="Name a file in it, such as a .mrc or .npy.",
        )
    return _Sheet(f"{_name(path)}: RECOVAR {job.kind}", tuple(panels), tuple(notes), (3.4, 2.8), _LABELLED_MARGIN_IN)


def _fsc_panel(fsc: list[float], box_A: float) -> _Panel:
    def draw(axes: Axes) -> None:
        axes.plot(np.arange(len(fsc)) / box_A, fsc)
        axes.axhline(_FSC_THRESHOLD, color="0.4", linestyle="--", linewidth=1)
        axes.text(0, _FSC_THRESHOLD + 0.02, f"{_FSC_THRESHOLD}", fontsize=_TICK_PT, color="0.4")
        axes.set_ylim(min(-0.05, *fsc), 1.05)

    return _Panel("FSC of the half maps", _labelled(draw, "spatial frequency (1/Å)", ""))


def _draw_eigenvalues(values: _Floats) -> _Draw:
    def draw(axes: Axes) -> None:
        axes.plot(np.arange(1, len(values) + 1), values, ".-", linewidth=0.8)
        if bool((values > 0).all()):
            axes.set_yscale("log")

    return _labelled(draw, "component", "")


def _latent_panels(job: RecovarJob) -> list[_Panel]:
    """Draw the latent coordinates of the lowest dimension that has two."""
    for embedding in job.embeddings:
        for array in embedding.arrays:
            if array.name == "latent_coords" and array.shape[1:] == (embedding.zdim,) and embedding.zdim > 1:
                return [_points_panel(f"latent coordinates of zdim {embedding.zdim}", read_npy(array.path))]
    return []


def _own_sheet(path: Path) -> _Sheet:
    stacks = inspect_own_output(path, InspectOptions()).details["output"]["series"].get("physical stacks")
    if not stacks:
        raise UsageError(
            "there is no picture of this folder: it has no physical stacks",
            path=path,
            hint="Name a file in it: a .pt or .npz in fft/, or a .star.",
        )
    images = read_pt(stacks[0]).numpy()
    if images.ndim != 3 or images.dtype.kind == "c" or images.size == 0:
        return _arrays_sheet(Path(stacks[0]))
    return _array_images_sheet(Path(stacks[0]), images)


def _relion_sheet(path: Path) -> _Sheet:
    iterations = inspect_relion_job(path, InspectOptions()).details["iterations"]
    data = next((item["data"] for item in reversed(iterations) if item["data"]), None)
    raise UsageError(
        "there is no picture of a RELION job as a whole",
        path=path,
        hint=f"Name its particles, {data}, or a map." if data else "Name a .star or .mrc file in it.",
    )


_SHEETS: dict[str, Callable[[Path], _Sheet]] = {
    registry.MRC: _mrc_sheet,
    registry.PICKLE: _pickle_sheet,
    registry.NPY: _arrays_sheet,
    registry.NPZ: _arrays_sheet,
    registry.PT: _arrays_sheet,
    folder_kinds.RECOVAR_RESULT: _recovar_sheet,
    folder_kinds.OWN_OUTPUT: _own_sheet,
    folder_kinds.RELION_JOB: _relion_sheet,
}


# The page


def _lay_out(sheet: _Sheet) -> Figure:
    """Place the panels in rows from the top left; sizes are fixed, so that no text meets another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_panels = len(sheet.panels)
    n_columns = n_panels if n_panels <= 3 else math.ceil(math.sqrt(n_panels))
    n_rows = math.ceil(n_panels / n_columns)
    scale = max(1.0, _MIN_WIDTH_IN / (n_columns * sheet.cell_in[0]))
    cell_w, cell_h = (side * scale for side in sheet.cell_in)
    left, bottom, right, top = sheet.margin_in
    width = n_columns * cell_w
    heading = _wrapped([sheet.heading], width - 0.3, _HEADING_PT)
    notes = _wrapped(sheet.notes, width - 0.3, _NOTE_PT)
    head_h = 0.2 + len(heading) * _HEADING_PT * 1.5 / 72
    foot_h = 0.15 + len(notes) * _NOTE_PT * 1.5 / 72
    height = head_h + n_rows * cell_h + foot_h
    figure = Figure((width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    plain: dict[str, Any] = {"parse_math": False, "va": "top", "linespacing": 1.3}
    figure.text(0.15 / width, 1 - 0.1 / height, "\n".join(heading), fontsize=_HEADING_PT, **plain)
    figure.text(0.15 / width, (foot_h - 0.05) / height, "\n".join(notes), fontsize=_NOTE_PT, **plain)
    for place, panel in enumerate(sheet.panels):
        row, column = divmod(place, n_columns)
        x, y = column * cell_w + left, height - head_h - (row + 1) * cell_h + bottom
        axes = figure.add_axes(
            (x / width, y / height, (cell_w - left - right) / width, (cell_h - bottom - top) / height)
        )
        axes.tick_params(labelsize=_TICK_PT)
        panel.draw(axes)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set_fontsize(_NOTE_PT)
            axis.get_offset_text().set_fontsize(_TICK_PT)
        room = _characters(cell_w - left, _TITLE_PT)
        title = _shortened(f"⚠ {panel.title}" if panel.is_marked else panel.title, room)
        colour = "firebrick" if panel.is_marked else "black"
        axes.set_title(title, loc="left", fontsize=_TITLE_PT, color=colour, parse_math=False)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    """Draw alike whatever the user's matplotlibrc says; TeX would read the texts of files as its own."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def _labelled(draw: _Draw, x_label: str, y_label: str) -> _Draw:
    def draw_and_label(axes: Axes) -> None:
        draw(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    return draw_and_label


def _wrapped(texts: Iterable[str], width_in: float, size_pt: float) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(_drawable(text), _characters(width_in, size_pt))]


def _characters(width_in: float, size_pt: float) -> int:
    """Return how many characters have room; on average one is 0.62 of the font's size wide."""
    return int(width_in * 72 / (0.62 * size_pt))


def _shortened(text: str, room: int) -> str:
    """Take out the middle of a text that is too long; names of columns differ at their ends."""
    text = _drawable(text)
    return text if len(text) <= room else f"{text[: (room - 1) // 2]}…{text[-(room // 2) :]}"


def _drawable(text: str) -> str:
    """Replace what the font has no glyph for."""
    return "".join(character if ord(character) in _glyphs() else "?" for character in text)


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap()) - {*range(32), 127}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _name(path: Path) -> str:
    return path.absolute().name
