"""Particles as other packages for methods take them, matched to RELION's image in wavelength, sign, angle and pose.

>>> from cryobridge.adaptors import to_torch_ctf
>>> ctf = to_torch_ctf(cb.read("J4")).images()

Each name is loaded when it is first used, and each package when it is needed: a package that is not installed is an
error that says how it is. What the packages compute is compared with RELION's programs by ``make interop``
(docs/interop.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryobridge.adaptors.cryosparc_dataset import from_cryosparc_tools as from_cryosparc_tools
    from cryobridge.adaptors.cryosparc_dataset import to_cryosparc_tools as to_cryosparc_tools
    from cryobridge.adaptors.image_source import to_aspire as to_aspire
    from cryobridge.adaptors.jax_dataset import to_cryospax as to_cryospax
    from cryobridge.adaptors.pickled_files import to_cryodrgn as to_cryodrgn
    from cryobridge.adaptors.pickled_files import to_recovar as to_recovar
    from cryobridge.adaptors.torch_arguments import to_torch_ctf as to_torch_ctf

# The module of each name.
_PUBLIC = {
    "from_cryosparc_tools": "cryosparc_dataset",
    "to_aspire": "image_source",
    "to_cryodrgn": "pickled_files",
    "to_cryospax": "jax_dataset",
    "to_cryosparc_tools": "cryosparc_dataset",
    "to_recovar": "pickled_files",
    "to_torch_ctf": "torch_arguments",
}
__all__ = [*_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
