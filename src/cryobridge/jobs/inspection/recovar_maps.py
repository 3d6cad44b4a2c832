"""The maps of a RECOVAR result: their boxes and voxel sizes, and how far the half maps agree."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cryobridge.errors import CryobridgeError
from cryobridge.formats.mrc_header import read_header
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.formats.recovar.parts import Volume
    from cryobridge.jobs.inspection.tables import Facts

    HalfMaps = dict[str, Any]

# Gold standard, and the older criterion of van Heel and Harauz; keys as in JSON.
FSC_THRESHOLDS = {"resolution_143_A": 0.143, "resolution_500_A": 0.5}
_MASK = "mask.mrc"


def describe_volumes(volumes: Iterable[Volume]) -> list[dict[str, Any]]:
    """Return the headers of maps as JSON-ready data; ``problem`` stands for a header that can't be read."""
    return [_describe_volume(volume) for volume in volumes]


def _describe_volume(volume: Volume) -> dict[str, Any]:
    try:
        header = read_header(volume.path)
    except CryobridgeError as error:
        return {"path": str(volume.path), "kind": volume.kind, "problem": error.message}
    return {
        "path": str(volume.path),
        "kind": volume.kind,
        "index": volume.index,
        "half": volume.half,
        "unfiltered": volume.is_unfiltered,
        "box_px": [header.nx, header.ny, header.nz],
        "voxel_size_A": header.pixel_size_A,
    }


def volume_facts(volumes: list[dict[str, Any]]) -> Facts:
    """Return a line for each kind of map: how many there are, of which box and voxel size."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for volume in volumes:
        by_kind.setdefault(volume["kind"], []).append(volume)
    return [(kind, sizes_text(found)) for kind, found in by_kind.items()]


def sizes_text(volumes: list[dict[str, Any]]) -> str:
    """Say how many maps there are, of which box and voxel size."""
    sizes = Counter(_size_text(volume) for volume in volumes)
    if len(sizes) == 1:
        return f"{counted(len(volumes), 'map')}, {next(iter(sizes))}"
    return f"{counted(len(volumes), 'map')}: " + "; ".join(f"{count} of {size}" for size, count in sizes.items())


def _size_text(volume: dict[str, Any]) -> str:
    if "problem" in volume:
        return "a header that can't be read"
    size = volume["voxel_size_A"]
    voxel = f"voxel {size:g} Å" if size else "voxel size not in the header"
    return f"{' × '.join(map(str, volume['box_px']))} px, {voxel}"


def describe_half_maps(volumes: tuple[Volume, ...]) -> HalfMaps | None:
    """Correlate the half maps of the mean, without a mask and with the run's own.

    Returns
    -------
    dict or None
        ``fsc`` by shell, ``resolution_143_A`` and ``resolution_500_A`` (None where the curve stays above), ``box_A``,
        ``nyquist_A``; ``mask``, its path or None; ``masked``, with the same three keys as the first, or None and
        ``mask_problem``. Where the maps can't be correlated, ``problem`` alone. None without a pair of half maps.
    """
    halves = {volume.half: volume for volume in volumes if volume.kind == "half map"}
    if not {1, 2} <= set(halves):
        return None
    mask = next((volume for volume in volumes if volume.path.name == _MASK), None)
    try:
        return _correlate(halves[1], halves[2], mask)
    except CryobridgeError as error:
        return {"problem": str(error)}


def _correlate(first: Volume, second: Volume, mask: Volume | None) -> HalfMaps:
    import torch

    from cryobridge.fourier.fsc import fourier_shell_correlation, resolution_A

    opened = first.open()
    map_1, map_2 = (torch.from_numpy(volume.open().images.astype("f4")) for volume in (first, second))
    pixel_size_A, box_px = opened.header.pixel_size_A, opened.header.nx

    def described(weights: Any) -> dict[str, Any]:
        fsc = fourier_shell_correlation(map_1, map_2, weights)
        found = {
            key: resolution_A(fsc, threshold, box_px, pixel_size_A) if pixel_size_A else None
            for key, threshold in FSC_THRESHOLDS.items()
        }
        return {"fsc": [round(float(value), 6) for value in fsc], **found}

    masked, mask_problem = None, None
    try:
        masked = described(torch.from_numpy(mask.open().images.astype("f4"))) if mask is not None else None
    except CryobridgeError as error:
        mask_problem = str(error)
    return {
        **described(None),
        "box_A": box_px * pixel_size_A if pixel_size_A else None,
        "nyquist_A": 2 * pixel_size_A if pixel_size_A else None,
        "mask": str(mask.path) if mask is not None else None,
        "masked": masked,
        "mask_problem": mask_problem,
    }


def half_map_facts(half_maps: HalfMaps | None) -> Facts:
    """Return a line for the half maps as they are, and one for them under the mask."""
    if half_maps is None:
        return []
    if "problem" in half_maps:
        return [("half maps", f"no FSC: {half_maps['problem']}")]
    facts = [("FSC, no mask", _resolution_text(half_maps, half_maps["nyquist_A"]))]
    if half_maps["masked"] is not None:
        facts.append((f"FSC, {_MASK}", _resolution_text(half_maps["masked"], half_maps["nyquist_A"])))
    elif half_maps["mask_problem"] is not None:
        facts.append((f"FSC, {_MASK}", f"none: {half_maps['mask_problem']}"))
    return facts


def _resolution_text(found: dict[str, Any], nyquist_A: float | None) -> str:
    if nyquist_A is None:
        return "no resolution: the voxel size is not in the header"
    known = [f"{found[key]:.3g} Å at {threshold}" for key, threshold in FSC_THRESHOLDS.items() if found[key]]
    above = [str(threshold) for key, threshold in FSC_THRESHOLDS.items() if not found[key]]
    if above:
        lowest = min(found["fsc"][1:], default=1.0)
        known.append(f"not below {' or '.join(above)} up to Nyquist ({nyquist_A:g} Å); lowest {lowest:.3g}")
    return ", ".join(known)
