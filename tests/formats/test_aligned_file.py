"""Large files are written in aligned blocks, past the system's cache where that can be; the bytes are the same."""

import errno
import fcntl
import os
import sys

import numpy as np
import pytest

from cryobridge.formats import aligned_file
from cryobridge.formats.aligned_file import AlignedFile

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no O_DIRECT")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(aligned_file, "_BLOCK_BYTES", 8192)


def written(path):
    """Write pieces that fill some blocks and a part of one, then change the beginning; return what should be there."""
    content = np.random.default_rng(1).bytes(50_001)
    file = AlignedFile(path)
    for first, last in ((0, 100), (100, 8192), (8192, 8193), (8193, 40_000), (40_000, 40_000), (40_000, 50_001)):
        assert file.write(content[first:last]) == last - first
        assert file.tell() == last
    file.seek(10)
    file.write(b"head")
    file.seek(len(content))
    file.write(b"tail")
    file.close()
    return content[:10] + b"head" + content[14:] + b"tail"


@linux
def test_whole_blocks_go_past_the_cache(tmp_path, monkeypatch):
    if not takes_direct_blocks(tmp_path):
        pytest.skip("this file system has no O_DIRECT")
    flags = []
    pwrite = os.pwrite

    def noted(descriptor, content, place):
        flags.append((len(content), bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)))
        return pwrite(descriptor, content, place)

    monkeypatch.setattr(os, "pwrite", noted)
    assert (tmp_path / "a").write_bytes(written(tmp_path / "b")) == 50_005
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert flags == [(8192, True)] * 6 + [(50_001 - 6 * 8192, False), (4, False), (4, False)]


def takes_direct_blocks(folder):
    try:
        os.close(os.open(folder / "direct", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


@linux
@pytest.mark.parametrize("refused_by", ["fcntl", "pwrite"])
def test_a_file_system_that_takes_no_direct_blocks_gets_the_same_bytes(refused_by, tmp_path, monkeypatch):
    flags_of, pwrite = fcntl.fcntl, os.pwrite

    def refuse(is_direct):
        if is_direct:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def set_flags(descriptor, command, *flags):
        refuse(command == fcntl.F_SETFL and flags[0] & os.O_DIRECT)
        return flags_of(descriptor, command, *flags)

    def put(descriptor, content, place):
        refuse(flags_of(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
        return pwrite(descriptor, content, place)

    if refused_by == "fcntl":
        monkeypatch.setattr(fcntl, "fcntl", set_flags)
    else:
        monkeypatch.setattr(os, "pwrite", put)
    expected = written(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == expected


def test_short_writes_are_gone_on_with(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, place: pwrite(descriptor, content[:4097], place))
    expected = written(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == expected


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    file = AlignedFile(tmp_path / "a")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.write(bytes(10_000))
    file.close()
