"""A small simulated cryo-EM project, to try every command on and to test them against what is true.

Its names are loaded when they are first used: the command line needs the options alone for its help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryobridge.demo.project import DemoProject, plan_demo, simulate_project
    from cryobridge.demo.truth import TrueMicrographs, TrueParticles, Truth

__all__ = ["DemoProject", "TrueMicrographs", "TrueParticles", "Truth", "plan_demo", "simulate_project"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = "truth" if name.startswith("Tru") else "project"
    return getattr(import_module(f"{__name__}.{place}"), name)
