"""The inputs that are kept: one archive a reader, of what reached new code and of what once made a reader fail."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

FOLDER = Path(__file__).with_name("corpus")
_MAX_FILE_BYTES = 6 << 10
_MAX_READER_BYTES = 40 << 10
_MAX_FILES = 60


def archive_of(name):
    """Return the archive of a reader's inputs."""
    return FOLDER / f"{name.replace(' ', '_')}.zip"


def kept_inputs(name):
    """Return the inputs that are kept for a reader."""
    path = archive_of(name)
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(item) for item in sorted(archive.namelist())]


def keep(name, found, faults=()):
    """Write a reader's archive anew: all that ever failed, and the smallest of the others within bounds."""
    path = archive_of(name)
    old = {}
    if path.exists():
        with zipfile.ZipFile(path) as archive:
            old = {item: archive.read(item) for item in archive.namelist()}
    kept = {item: data for item, data in old.items() if item.startswith("fault-")}
    kept |= {f"fault-{_digest(data)}": data for data in faults if len(data) <= _MAX_FILE_BYTES}
    total = 0
    ordered = sorted({*found, *(data for item, data in old.items() if item.startswith("new-"))}, key=len)
    for data in ordered[:_MAX_FILES]:
        total += len(data)
        if total > _MAX_READER_BYTES or len(data) > _MAX_FILE_BYTES:
            break
        kept[f"new-{_digest(data)}"] = data
    FOLDER.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for item, data in sorted(kept.items()):
            archive.writestr(zipfile.ZipInfo(item, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)


def _digest(data):
    return hashlib.sha1(data).hexdigest()[:12]
