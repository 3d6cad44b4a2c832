"""What is known of each particle, as tensors: poses, CTF, optics, half sets, classes and identities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cryobridge.model.particles import Labels, ParticleSet
from cryobridge.report import part_of, warning

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.report import Message

# What items call a quantity, and where a particle set has it.
VALUES = {
    "rotation": "poses.matrix",
    "shift_A": "poses.shift_A",
    "defocus_u_A": "ctf.defocus_u_A",
    "defocus_v_A": "ctf.defocus_v_A",
    "defocus_angle_rad": "ctf.defocus_angle_rad",
    "phase_shift_rad": "ctf.phase_shift_rad",
    "bfactor_A2": "ctf.bfactor_A2",
    "scale": "ctf.scale",
    "ctf_shift_A": "ctf.shift_A",
    "voltage_kV": "optics.voltage_kV",
    "spherical_aberration_mm": "optics.spherical_aberration_mm",
    "amplitude_contrast": "optics.amplitude_contrast",
    "pixel_size_A": "optics.pixel_size_A",
    "half_set": "half_set",
    "class": "class_number",
    "uid": "uid",
}
# Of which 0 means that they are not known.
_POSITIVE = ("voltage_kV", "pixel_size_A", "half_set", "class")
# Without these there is no CTF image.
_OF_CTF = (
    "defocus_u_A",
    "defocus_v_A",
    "defocus_angle_rad",
    "voltage_kV",
    "spherical_aberration_mm",
    "amplitude_contrast",
    "pixel_size_A",
)


@dataclass(frozen=True, eq=False)
class ItemValues:
    """The values of the items of a dataset.

    Parameters
    ----------
    particles
        The set, with the pixel size of its images as they are stored.
    at
        (n,) the row of ``particles`` of each item.
    rows
        (n,) the number that the item has for that row.
    scale
        How many times larger the pixels of the items are.
    n_unknown
        Of how many items the values are not known that they all do without.
    """

    particles: ParticleSet
    at: Rows
    rows: Rows
    scale: float
    n_unknown: dict[str, int]

    @classmethod
    def of(cls, particles: ParticleSet, rows: Rows, scale: float) -> ItemValues:
        """Return the values of some rows of a set; those that are not known of all of them are absent."""
        n_unknown = {name: n for name in VALUES if (n := _n_unknown(particles, rows, name))}
        return cls(particles, rows, rows, scale, n_unknown)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def names(self) -> list[str]:
        """Which values items have."""
        return [name for name in VALUES if name not in self.n_unknown] + ["row"]

    @property
    def absent(self) -> dict[str, str]:
        """Which values items have not, and why."""
        n_items, name = len(self), self.particles.source.name
        return {
            value: f"{name} has none" if n == n_items else part_of(n, n_items, "particle", "lack it", of_one="lacks it")
            for value, n in self.n_unknown.items()
        }

    def why_no_ctf(self) -> str:
        """Say why there is no CTF image; empty where there is one."""
        return next((f"{name}: {why}" for name, why in self.absent.items() if name in _OF_CTF), "")

    def tensors(self, places: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the values of some items: float32 and int64, (n, …)."""
        at, optics_index = self.at[places], self.particles.optics_index
        group = at if optics_index is None else optics_index[at]
        found = {}
        for name, values, of_optics in self._columns:
            chosen = values.take(group if of_optics else at, axis=0)  # of matrices much faster than [...]
            with np.errstate(over="ignore"):  # what single precision can't hold is infinite
                found[name] = torch.from_numpy(chosen.astype(np.float32) if chosen.dtype.kind == "f" else chosen)
        found["row"] = torch.from_numpy(self.rows.take(places))
        return found

    @cached_property
    def _columns(self) -> list[tuple[str, NDArray[Any], bool]]:
        """The values that items have, by their names, and whether they are of optics groups; no copies."""
        columns = []
        for name, part in VALUES.items():
            if name in self.n_unknown:
                continue
            values: NDArray[Any] = self.particles.get(part)
            if name == "pixel_size_A":
                with np.errstate(over="ignore"):  # such a size is infinite
                    values = values * self.scale
            if values.dtype.kind != "f":  # torch can't compute with unsigned numbers
                values = values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64, copy=False)
            columns.append((name, values, part.startswith("optics.")))
        return columns

    def of_these_alone(self) -> ItemValues:
        """Return the same with no more in memory than the items need, to be sent to another process."""
        p, at = self.particles, self.at
        images = p.images
        assert images is not None
        few = ParticleSet(
            p.n_rows,
            p.source,
            uid=p.uid,
            images=replace(images, path=Labels(images.path.codes, ())),
            optics=p.optics,
            optics_index=p.optics_index,
            ctf=p.ctf,
            poses=p.poses,
            half_set=p.half_set,
            class_number=p.class_number,
        )
        return replace(self, particles=few.take(at), at=np.arange(len(at)))


def _n_unknown(particles: ParticleSet, rows: Rows, name: str) -> int:
    """Return of how many items a value is not known."""
    part = VALUES[name]
    values = particles.get(part)
    of_optics = part.startswith("optics.")
    if values is None or (of_optics and particles.optics_index is None):
        return len(rows)
    is_known = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if name in _POSITIVE:
        is_known &= values > 0
    if of_optics:
        is_known = is_known[particles.optics_index]
    return len(rows) - int(np.count_nonzero(is_known[rows]))


def partly_absent(values: ItemValues) -> list[Message]:
    """Return a warning of values that only some of the particles have, and that all items therefore do without."""
    partly = [f"{name} ({values.absent[name]})" for name, n in values.n_unknown.items() if n < len(values)]
    if not partly:
        return []
    text = f"items have no {', '.join(partly)}; choose rows that have it"
    return [warning("values-absent", text, option="rows")]
