"""Counts and sizes in words."""

from __future__ import annotations

from cryobridge.report import counted


def size_text(n_bytes: int) -> str:
    """Return a size in bytes with the unit that suits it."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else counted(n_bytes, "byte")
        size /= 1000
    return f"{size:.3g} TB"
