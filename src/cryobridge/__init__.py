"""cryobridge carries cryo-EM particles between cryoSPARC, RELION, CryoLike and RECOVAR/cryoDRGN.

The names below are the whole interface; each is loaded when it is first used, so that importing cryobridge is fast.

>>> import cryobridge as cb
>>> particles = cb.read("J4")
>>> report = cb.convert("J4", "particles.star")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryobridge.version import __version__

if TYPE_CHECKING:
    from cryobridge import adaptors as adaptors
    from cryobridge.dataset.batches import collate as collate
    from cryobridge.dataset.particles import ParticleDataset as ParticleDataset
    from cryobridge.dataset.sampler import MicrographSampler as MicrographSampler
    from cryobridge.demo.project import simulate_project as simulate_project
    from cryobridge.errors import CryobridgeError as CryobridgeError
    from cryobridge.formats.open import open_images as open_images
    from cryobridge.formats.open import open_table as open_table
    from cryobridge.formats.open import read as read
    from cryobridge.formats.recovar.run import open_recovar as open_recovar
    from cryobridge.fourier.ctf import ctf_batches as ctf_batches
    from cryobridge.fourier.ctf import ctf_images as ctf_images
    from cryobridge.fourier.grid import PolarGrid as PolarGrid
    from cryobridge.fourier.polar import PolarTransform as PolarTransform
    from cryobridge.jobs.converge.converge import converge as converge
    from cryobridge.jobs.convert.convert import convert as convert
    from cryobridge.jobs.convert.write import write as write
    from cryobridge.jobs.coords.coords import coords as coords
    from cryobridge.jobs.exposures.micrographs import micrographs as micrographs
    from cryobridge.jobs.inspection.describe import inspect as inspect
    from cryobridge.jobs.merge.merge import merge as merge
    from cryobridge.jobs.reconstruction.backproject import backproject as backproject
    from cryobridge.jobs.selection.choose import select as select
    from cryobridge.jobs.selection.choose import select_files as select_files
    from cryobridge.jobs.stacks.api import downsample as downsample
    from cryobridge.jobs.stacks.api import stacks as stacks
    from cryobridge.jobs.stacks.api import write_grid as write_grid
    from cryobridge.model.particles import ParticleSet as ParticleSet
    from cryobridge.report import Message as Message
    from cryobridge.report import Report as Report

# Where each name comes from.
_PUBLIC = {
    "CryobridgeError": "cryobridge.errors",
    "Message": "cryobridge.report",
    "MicrographSampler": "cryobridge.dataset.sampler",
    "ParticleDataset": "cryobridge.dataset.particles",
    "ParticleSet": "cryobridge.model.particles",
    "PolarGrid": "cryobridge.fourier.grid",
    "PolarTransform": "cryobridge.fourier.polar",
    "Report": "cryobridge.report",
    "backproject": "cryobridge.jobs.reconstruction.backproject",
    "collate": "cryobridge.dataset.batches",
    "converge": "cryobridge.jobs.converge.converge",
    "convert": "cryobridge.jobs.convert.convert",
    "coords": "cryobridge.jobs.coords.coords",
    "ctf_batches": "cryobridge.fourier.ctf",
    "ctf_images": "cryobridge.fourier.ctf",
    "downsample": "cryobridge.jobs.stacks.api",
    "inspect": "cryobridge.jobs.inspection.describe",
    "merge": "cryobridge.jobs.merge.merge",
    "micrographs": "cryobridge.jobs.exposures.micrographs",
    "open_images": "cryobridge.formats.open",
    "open_recovar": "cryobridge.formats.recovar.run",
    "open_table": "cryobridge.formats.open",
    "read": "cryobridge.formats.open",
    "select": "cryobridge.jobs.selection.choose",
    "select_files": "cryobridge.jobs.selection.choose",
    "simulate_project": "cryobridge.demo.project",
    "stacks": "cryobridge.jobs.stacks.api",
    "write": "cryobridge.jobs.convert.write",
    "write_grid": "cryobridge.jobs.stacks.api",
}
__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "adaptors":
        return import_module("cryobridge.adaptors")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cryobridge' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
