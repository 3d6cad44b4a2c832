"""The version, in a module of its own, so that all can know it."""

__version__ = "0.2.0"
