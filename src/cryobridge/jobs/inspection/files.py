"""Inspecting files that are no tables: MRC, pickles, arrays and tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryobridge.errors import FormatError, UnsafeFileError, option
from cryobridge.formats.arrays import describe_arrays, numpy_values, read_npy, read_npz, read_pt
from cryobridge.formats.image_list import read_image_stack
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_header import MrcHeader, decide_kind, read_header
from cryobridge.formats.pickle_data import load_pickle, peek_pickle
from cryobridge.formats.pickle_objects import is_array
from cryobridge.formats.pickles import CTF_COLUMNS, classify_pickle
from cryobridge.formats.registry import NPY, NPZ, PT, identify_file
from cryobridge.formats.table import Array, Column, is_number_or_text, numpy_dtype_label
from cryobridge.fourier.loading import load_torch
from cryobridge.jobs.inspection.commands import free
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.report import CUT_OFF, FieldSummary, Inspection, Use
from cryobridge.jobs.inspection.stats import summarise_values
from cryobridge.jobs.inspection.use_list import UseName
from cryobridge.progress import Reporter
from cryobridge.report import Message, counted, note, warning

_PICKLE_TITLES = {
    "poses": "poses (cryoDRGN, RECOVAR)",
    "ctf": "CTF values (cryoDRGN, RECOVAR)",
    "indices": "row indices",
    "labels": "labels of clusters (cryoDRGN)",
    "latent": "coordinates, as in latent space (cryoDRGN)",
    "kmeans": "k-means clusters of a RECOVAR analysis",
    "density": "density in RECOVAR's latent space",
    "halfsets": "half sets",
    "trajectory_endpoints": "end points of RECOVAR trajectories",
    "umap": "UMAP embedding",
    "unknown": "plain data of no known use",
}
# Arrays larger than this get their statistics from evenly spaced elements, and it is said.
_MAX_ELEMENTS = 1 << 26
_SAMPLED_SECTIONS = 64
_MOST_DIMENSIONS = 128
# Python refuses to write out whole numbers of thousands of digits.
_LONGEST_SHOWN_BITS = 4096


def inspect_list(path: Path, _options: InspectOptions, _reporter: Reporter) -> Inspection:
    """Describe a list of stacks."""
    stack = read_image_stack(path)
    facts = (
        ("stacks", f"{len(stack.headers):,}"),
        ("images", f"{stack.n_whole:,} of {stack.nx} px"),
        ("pixel size", _pixel_size(stack.headers[0], is_stack=True)),
    )
    messages = tuple(message for header in stack.headers for message in header.problems)
    return Inspection(str(path), "list", "list of stacks of images", stack.n_whole, facts, messages=messages)


def inspect_mrc(path: Path, options: InspectOptions, _reporter: Reporter) -> Inspection:
    """Describe an MRC file; pixel statistics come from at most 64 evenly spaced sections."""
    header = read_header(path)
    kind = decide_kind(header)
    messages = list(header.problems)
    fields: tuple[FieldSummary, ...] = ()
    if options.statistics:
        try:
            fields, sampled = _pixel_statistics(path, header)
            messages += sampled
        except FormatError as error:
            if header.n_whole == header.nz:  # else it is known already
                code = CUT_OFF if "cut off" in error.message else "images-not-read"
                messages.append(warning(code, error.message))
    what = {"stack": "stack of images", "volume": "volume"}.get(kind.kind, "stack or volume")
    what = "single image" if kind.kind == "stack" and header.nz == 1 else what
    noun = "section" if kind.kind == "volume" else "image"
    facts = [
        ("kind", kind.reason if kind.reason.startswith("probably") else f"{what}: {kind.reason}"),
        ("box", f"{header.nx} × {header.ny} px, {counted(header.nz, noun)}"),
        ("pixel size", _pixel_size(header, is_stack=kind.kind == "stack")),
        ("pixels", f"mode {header.mode}" + (f" ({header.dtype.name})" if header.dtype else ", which is not read")),
        ("header", f"ISPG {header.ispg}, mz {header.mz}"),
    ]
    details = {
        "mrc": {
            "nx": header.nx,
            "ny": header.ny,
            "nz": header.nz,
            "mode": header.mode,
            "pixel_size_A": header.pixel_size_A,
            "ispg": header.ispg,
            "mz": header.mz,
            "whole_sections": header.whole_sections,
            "is": kind.kind,
            "certain": kind.certain,
            "reason": kind.reason,
        }
    }
    is_cut = any(message.code == CUT_OFF for message in messages)
    # One image, or images that are no squares, are micrographs or movies.
    has_particles = kind.kind != "volume" and header.nz > 1 and header.nx == header.ny
    uses = _stack_uses(path) if has_particles and not is_cut else ()
    return Inspection(
        str(path),
        "mrc",
        f"MRC, {what}",
        None if kind.kind == "volume" else header.nz,
        tuple(facts),
        fields,
        uses,
        tuple(messages),
        details,
    )


def inspect_pickle(path: Path, options: InspectOptions, _reporter: Reporter) -> Inspection:
    """Describe a pickle without running it; one that asks for code is described by the names it asks for."""
    try:
        value = load_pickle(path)
    except UnsafeFileError as error:
        safe, names = peek_pickle(path)
        fields = _array_fields(_flatten(safe), options)
        return Inspection(
            str(path),
            "pickle",
            "pickle that asks for code; it was not run",
            facts=(("asks for", ", ".join(names)),),
            fields=fields,
            messages=(warning("code-refused", error.message),),
            details={"pickle": {"content": "refused", "names": list(names)}},
        )
    content = _told_apart(classify_pickle(value), value)
    arrays = pickle_arrays(content, value)
    rows = len(next(iter(arrays.values()))) if content in _USES_OF_PICKLES and arrays else None
    ready = [Use(name, True, hint=hint) for name, hint in _USES_OF_PICKLES.get(content, ())]
    programs: tuple[UseName, ...] = ("recovar", "cryodrgn")
    others = [Use(name, False, (_WITH_PICKLES,), "Give these; they are read with it.") for name in programs]
    uses = (*ready, *(others if content in {"poses", "ctf"} else ()))
    return Inspection(
        str(path),
        "pickle",
        f"pickle: {_PICKLE_TITLES.get(content, content)}",
        rows,
        (("content", content),),
        _array_fields(arrays, options),
        uses,
        details={"pickle": {"content": content}},
    )


_WITH_PICKLES = "the images, or the particle file, whose rows it follows"
_USES_OF_PICKLES: dict[str, tuple[tuple[UseName, str], ...]] = {
    "poses": (("poses", "with the particle file whose rows it follows"),),
    "ctf": (("ctf", "with the particle file whose rows it follows"),),
    "indices": (("select", "with the particle file that these are rows of, which are kept"),),
    "labels": (
        ("select", f"{option('kmeans')} and {option('clusters')}, with the particle file whose rows it follows"),
    ),
    "latent": (("select", f"{option('attach_latent')}, with the particle file whose rows it follows"),),
    "kmeans": (),
    "halfsets": (),
}


def _told_apart(content: str, value: Any) -> str:
    """Return what is more likely of what may be several things: a row is chosen once, a cluster has many."""
    if content == "indices" and len(np.unique(value)) < len(value):
        return "labels"
    if content == "unknown" and is_array(value) and value.ndim == 2 and value.dtype.kind == "f":
        # Of two columns they may be shifts, of nine the CTF with values that none can have.
        is_latent = 0 < value.shape[1] <= _MOST_DIMENSIONS and value.shape[1] not in {2, len(CTF_COLUMNS)}
        return "latent" if is_latent else content
    return content


def inspect_arrays(path: Path, options: InspectOptions, reporter: Reporter) -> Inspection:
    """Describe a `.npy`, `.npz` or `.pt` file."""
    kind = identify_file(path)
    if kind == PT:
        load_torch(reporter)
    infos = describe_arrays(path)
    descriptor = {"n_pixels", "radius_max", "n_inplanes"} <= {info.name for info in infos}
    lens = descriptor and "defocusU" in {info.name for info in infos}
    title = {NPY: "NumPy array", NPZ: "NumPy archive"}.get(kind, "torch tensor")
    if lens:
        title = "CryoLike lens data and grid of one stack"
    elif descriptor:
        title = "CryoLike image parameters"
    fields = []
    messages: list[Message] = []
    for info in infos:
        name = info.name or path.stem
        head = FieldSummary(name, _short_dtype(info.dtype), info.shape)
        if options.statistics and not info.is_dense:
            messages.append(note("statistics-left-out", f"{name} is stored as {info.stored}: only its header was read"))
            fields.append(head)
        elif options.statistics and np.prod(info.shape, dtype=np.int64) <= _MAX_ELEMENTS:
            fields.append(_array_field(name, read_array(path, kind, info.name), head))
        else:
            if options.statistics:
                messages.append(note("statistics-left-out", f"{name} is large; only its header was read"))
            fields.append(head)
    rows = infos[0].shape[0] if len(infos) == 1 and infos[0].shape else None
    return Inspection(
        str(path),
        kind,
        title,
        rows,
        (("arrays", str(len(infos))),) if len(infos) > 1 else (),
        tuple(fields),
        messages=tuple(messages),
        details={"content": "lens" if lens else "descriptor" if descriptor else "arrays"},
    )


def read_array(path: Path, kind: str, name: str) -> Array | None:
    """Return an array; None for what is not numbers."""
    if kind == NPY:
        return read_npy(path)
    if kind == NPZ:
        return read_npz(path)[name]
    if name:
        return None
    return numpy_values(read_pt(path))


def _array_fields(arrays: dict[str, Any], options: InspectOptions) -> tuple[FieldSummary, ...]:
    fields = []
    for name, value in arrays.items():
        array = np.asarray(value)
        head = FieldSummary(name, _dtype_label(array), array.shape)
        fields.append(_array_field(name, array, head) if options.statistics else head)
    return tuple(fields)


def _array_field(name: str, array: Array | None, head: FieldSummary) -> FieldSummary:
    """Summarise an array; with its whole shape, since its first axis is not always rows."""
    if array is None or array.dtype.kind not in "biufc" or array.size == 0:
        # Times and raw bytes, which no program of the field writes, have a type alone.
        has_example = array is not None and array.size and array.dtype.kind in "SUO"
        return replace(head, example=_text(array.reshape(-1)[0]) if has_example and array is not None else "")
    array = _in_common_type(array)
    column = Column(name, numpy_dtype_label(array.dtype), array.shape)
    example = f"{array.item():g}" if array.ndim == 0 and array.dtype.kind != "c" else ""
    return replace(summarise_values(column, array.reshape(-1).copy()), shape=array.shape, example=example)


def _in_common_type(array: Array) -> Array:
    """Return truth values as numbers, and numbers of more than 64 bits as those that Python and JSON have."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if is_number_or_text(array.dtype):
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _text(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > _LONGEST_SHOWN_BITS:
        return f"a number of {value.bit_length():,} bits"
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _dtype_label(array: Array) -> str:
    return "object" if array.dtype.kind == "O" else numpy_dtype_label(array.dtype)


def _short_dtype(name: str) -> str:
    """Return ``f8`` for ``float64``; types that NumPy does not have, such as bfloat16, keep their names."""
    try:
        dtype = np.dtype(name)
    except TypeError:
        return name
    return name if dtype.kind in "OV" else numpy_dtype_label(dtype)


def pickle_arrays(content: str, value: Any) -> dict[str, Any]:
    """Return the arrays of a pickle by names that people understand."""
    if content == "poses":
        pair = value if isinstance(value, (tuple, list)) else (value,)
        return dict(zip(("rotation matrix A", "shift (fraction of the box)"), pair, strict=False))
    if content == "ctf":
        return {name: np.asarray(value)[:, place] for place, name in enumerate(CTF_COLUMNS)}
    if content == "halfsets":
        return {f"half {number}": half for number, half in enumerate(value, 1)}
    return _flatten(value)


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Return the arrays and numbers of nested plain data, by their places in it."""
    if isinstance(value, dict):
        items = [(f"{name}/{key}" if name else str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (np.ndarray, list, tuple, dict)) for item in value):
        items = [(f"{name}[{place}]", item) for place, item in enumerate(value)]
    elif isinstance(value, (np.ndarray, np.generic, int, float, str, bool)) or (
        isinstance(value, (list, tuple)) and all(isinstance(item, (int, float)) for item in value)
    ):
        return {name or "value": value}
    else:
        return {}
    return {key: item for place, inner in items for key, item in _flatten(inner, place).items()}


def _pixel_statistics(path: Path, header: MrcHeader) -> tuple[tuple[FieldSummary, ...], list[Message]]:
    mrc = open_mrc(path)
    per_section = header.nx * header.ny
    count = max(1, min(header.nz, _SAMPLED_SECTIONS, _MAX_ELEMENTS // per_section))
    chosen = np.unique(np.linspace(0, header.nz - 1, count).astype(np.int64))
    pixels = mrc.read(chosen)
    summary = summarise_values(Column("pixel", "f4", ()), pixels.reshape(-1))
    dtype = numpy_dtype_label(header.dtype) if header.dtype else ""
    shape = (header.ny, header.nx)
    messages = []
    if len(chosen) < header.nz:
        text = f"pixel statistics are of {len(chosen)} of {counted(header.nz, 'section')}"
        messages.append(note("statistics-sampled", text))
    if summary.is_constant:
        messages.append(warning("empty-image", "all pixels have one value: the image is empty"))
    return (replace(summary, name="pixel value", dtype=dtype, shape=shape, example=""),), messages


def _pixel_size(header: MrcHeader, *, is_stack: bool = False) -> str:
    x, y, z = header.pixel_size_xyz_A
    if x is None or y is None:
        return "not in the header"
    if is_stack and abs(y - x) < 1e-3 * x:  # between images there is no third one
        return f"{x:.6g} Å"
    if header.pixel_size_A and (z is None or abs(z - x) < 1e-3 * x):
        return f"{x:.6g} Å"
    return f"{x:.6g} × {y:.6g} × {'?' if z is None else format(z, '.6g')} Å"


def _stack_uses(path: Path) -> tuple[Use, ...]:
    """Say what is done with a stack, which has metadata only where cryoDRGN's pickles lie beside it."""
    pickles = [path.parent / name for name in ("poses.pkl", "ctf.pkl")]
    absent = tuple(f"{pickle.name} beside it" for pickle in pickles if not pickle.is_file())
    hint = "Or give the particle file that refers to it." if absent else "with poses.pkl and ctf.pkl beside it"
    read = Use("recovar", not absent, absent, hint)
    stacks = Use("stacks", False, ("metadata",), "Give the .star or .cs file that refers to it.")
    names: tuple[UseName, ...] = ("relion", "cryosparc", "cryodrgn")
    others = [replace(read, name=name, applies=name == "cryodrgn" or not absent) for name in names]
    if absent:
        return (stacks, read, *others)
    given, ctf = ("cryobridge", "convert", str(path), *map(str, pickles)), str(pickles[1])
    folder = free("for_cryosparc")
    commands: dict[str, tuple[str, ...]] = {
        "relion": (*given, "-o", free("particles.star")),
        "cryosparc": (*given, "-o", f"{folder}/particles.cs", "--link-stacks", f"{folder}/stacks"),
        "recovar": ("recovar", "pipeline", str(path), "--poses", str(pickles[0]), "--ctf", ctf, "-o", free("recovar")),
        "cryodrgn": ("cryodrgn", "train_vae", str(path), "--poses", str(pickles[0]), "--ctf", ctf, "--zdim", "8"),
    }
    commands["recovar"] += ("--mask", "from_halfmaps")
    commands["cryodrgn"] += ("-o", free("cryodrgn"))
    return (stacks, *(replace(use, commands=(commands[use.name],)) for use in (read, *others)))
