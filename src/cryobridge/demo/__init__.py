"""A small simulated cryo-EM project, to try every command on and to test them against what is true."""

from cryobridge.demo.project import DemoProject, simulate_project
from cryobridge.demo.truth import TrueMicrographs, TrueParticles, Truth

__all__ = ["DemoProject", "TrueMicrographs", "TrueParticles", "Truth", "simulate_project"]
