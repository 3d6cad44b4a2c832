import bz2
import gzip
import io
import math
import os
import struct
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_header import decide_kind, read_header
from cryobridge.formats.mrc_write import MrcStackWriter, copy_changed, write_mrc_stack, write_mrc_volume
from helpers import texts

STAMPS = {"<": b"\x44\x44\0\0", ">": b"\x11\x11\0\0"}
DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def mrc_bytes(data, mode, order="<", **changes):
    """An MRC file put together from byte offsets of the standard, independently of the adapter and of mrcfile."""
    nz, ny, nx = data.shape
    values = {
        0: ("3i", (nx, ny, nz)),
        12: ("i", (mode,)),
        28: ("3i", changes.get("grid", (nx, ny, nz))),
        40: ("3f", changes.get("cell", (2.0 * nx, 2.0 * ny, 2.0 * nz))),
        64: ("3i", changes.get("axes", (1, 2, 3))),
        76: ("3f", changes.get("statistics", (0, -1, -2))),
        88: ("2i", (changes.get("ispg", 0), changes.get("nsymbt", 0))),
        208: ("4s", (changes.get("map", b"MAP "),)),
        212: ("4s", (changes.get("stamp", STAMPS[order]),)),
        216: ("f", (-1,)),
    }
    header = bytearray(1024)
    for offset, (codes, numbers) in values.items():
        struct.pack_into(order + codes, header, offset, *numbers)
    extended = bytes(changes.get("extended", 0))
    return bytes(header) + extended + data.astype(order + DTYPES.get(mode, "f4")).tobytes()


@pytest.fixture
def data():
    return np.random.default_rng(1).integers(0, 100, (5, 4, 6)).astype(np.float32)


@pytest.fixture
def write(tmp_path, data):
    def _write(name="a.mrc", mode=2, order="<", content=data, **changes):
        path = tmp_path / name
        path.write_bytes(mrc_bytes(content, mode, order, **changes))
        return path

    return _write


# Reading


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", DTYPES)
def test_every_mode_is_read_in_both_byte_orders(write, data, mode, order):
    file = open_mrc(write(mode=mode, order=order))
    assert file.problems == ()
    assert file.images.dtype == np.dtype(order + DTYPES[mode])
    np.testing.assert_array_equal(file.images, data)
    images = file.read(range(5))
    assert images.dtype == np.float32
    assert images.dtype.isnative
    np.testing.assert_array_equal(images, data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", [0, 2])
def test_a_wrong_machine_stamp_does_not_hide_the_byte_order(write, data, mode, order):
    other = {"<": ">", ">": "<"}[order]
    stamps = [bytes(4), b"\xff\xff\xff\xff"] + ([STAMPS[other]] if mode == 2 else [])
    for stamp in stamps:
        file = open_mrc(write(mode=mode, order=order, stamp=stamp))
        np.testing.assert_array_equal(file.read([4]), data[[4]])
        assert any("machine stamp" in problem for problem in texts(file.problems))


def test_the_stamp_that_relion_and_cryosparc_write_is_accepted(write):
    assert read_header(write(stamp=b"\x44\x41\0\0")).problems == ()


def test_a_missing_identifier_is_a_note(write, data):
    file = open_mrc(write(map=bytes(4)))
    assert texts(file.problems) == ["the identifier 'MAP' is missing from its header"]
    np.testing.assert_array_equal(file.images, data)


@pytest.mark.parametrize("cell", [(0, 0, 0), (math.nan,) * 3, (-1, -1, -1), (math.inf,) * 3])
def test_an_unusable_cell_means_no_pixel_size(write, cell):
    header = read_header(write(cell=cell))
    assert header.pixel_size_xyz_A == (None, None, None)
    assert header.pixel_size_A is None
    assert texts(header.problems) == ["there is no pixel size in its header"]


def test_pixel_sizes_are_cell_over_grid_along_each_axis(write):
    header = read_header(write(cell=(12, 8, 3), grid=(6, 4, 1)))
    assert header.pixel_size_xyz_A == (2, 2, 3)
    assert header.pixel_size_A == 2
    unequal = read_header(write(cell=(12, 10, 3), grid=(6, 4, 1)))
    assert unequal.pixel_size_A is None
    assert "2 × 2.5" in texts(unequal.problems)[0]


def test_undefined_statistics_are_legal(write):
    assert read_header(write(statistics=(0, -1, -2))).problems == ()


def test_bytes_after_the_data_are_a_note(write, data):
    path = write()
    path.write_bytes(path.read_bytes() + b"tail")
    file = open_mrc(path)
    assert texts(file.problems) == ["4 bytes follow the data; ignored"]
    np.testing.assert_array_equal(file.images, data)


def test_an_extended_header_is_skipped(write, data):
    file = open_mrc(write(nsymbt=128, extended=128))
    assert file.problems == ()
    np.testing.assert_array_equal(file.read([3]), data[[3]])


@pytest.mark.parametrize("nsymbt", [-5, 128, 2**31 - 1])
def test_an_extended_header_that_is_not_there_is_a_note(write, data, nsymbt):
    file = open_mrc(write(nsymbt=nsymbt))
    assert "extended header" in texts(file.problems)[0]
    np.testing.assert_array_equal(file.images, data)


def test_permuted_axes_and_unsigned_bytes_are_notes(write):
    assert "(3, 2, 1)" in texts(read_header(write(axes=(3, 2, 1))).problems)[0]
    path = write(mode=0)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<2i", raw, 152, 1146047817, 0)
    path.write_bytes(raw)
    assert "unsigned" in texts(read_header(path).problems)[0]


@settings(max_examples=30)
@given(indices=st.lists(st.integers(0, 11), max_size=30))
def test_images_come_in_the_order_asked_for(tmp_path_factory, indices):
    stack = np.arange(12 * 6, dtype=np.float32).reshape(12, 2, 3)
    path = tmp_path_factory.getbasetemp() / "ordered.mrcs"
    if not path.exists():
        write_mrc_stack(path, stack, 1.0)
    np.testing.assert_array_equal(open_mrc(path).read(np.array(indices, np.uint32)), stack[indices])


def test_shuffled_images_are_read_in_file_order_and_neighbours_at_once(write, monkeypatch):
    file = open_mrc(write())
    runs = []
    original = type(file)._read_run
    monkeypatch.setattr(
        type(file), "_read_run", lambda self, f, first, n: runs.append((first, len(n))) or original(self, f, first, n)
    )
    file.read([4, 0, 1, 3])
    assert runs == [(0, 2), (3, 2)]


@pytest.fixture
def large_stack(tmp_path):
    """30 GB by its header and length, a few kB on the disk."""
    path = tmp_path / "large.mrcs"
    shape = (114_441, 256, 256)
    header = bytearray(mrc_bytes(np.empty((1, 1, 1)), 2)[:1024])
    struct.pack_into("<3i", header, 0, *shape[::-1])
    image = np.full((256, 256), 7, "<f4")
    with path.open("wb") as file:
        file.write(header)
        file.seek(1024 + 9000 * image.nbytes)
        file.write(image.tobytes())
        file.truncate(1024 + shape[0] * image.nbytes)
    return path


def test_one_image_of_a_large_stack_costs_one_image(large_stack):
    image_bytes = 256 * 256 * 4
    assert large_stack.stat().st_size > 30e9
    tracemalloc.start()
    try:
        file = open_mrc(large_stack)
        read = file.read([9000])
        mapped = np.array(file.images[9000])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (read == 7).all()
    assert (mapped == 7).all()
    assert peak < 5 * image_bytes


STATM = Path("/proc/self/statm")


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from /proc")
def test_reading_through_a_large_stack_keeps_nothing_resident(large_stack):
    def resident():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    file = open_mrc(large_stack)
    file.read(range(40))
    before = resident()
    for first in range(0, 2000, 40):
        file.read(range(first, first + 40))
    assert resident() - before < 40 * 256 * 256 * 4 * 3


def test_an_index_beyond_the_end_names_file_index_and_sections(write):
    path = write()
    with pytest.raises(MissingDataError, match=r"section 9 .* has 5 sections") as caught:
        open_mrc(path).read([0, 9, 7])
    assert caught.value.path == str(path)
    assert caught.value.count == 2
    assert "0 or 1" in caught.value.hint
    with pytest.raises(MissingDataError, match=r"section -1 "):
        open_mrc(path).read([0, -1])


@pytest.mark.parametrize("wrong", [[[0, 1]], [0.5], ["a"]])
def test_indices_are_whole_numbers_in_one_dimension(write, wrong):
    with pytest.raises(UsageError):
        open_mrc(write()).read(wrong)


def test_reading_no_image_is_not_an_error(write):
    assert open_mrc(write()).read([]).shape == (0, 4, 6)


# Compressed files


@pytest.mark.parametrize("codec", [gzip, bz2])
def test_compressed_files_are_read(write, data, codec):
    path = write("a.mrcs")
    packed = path.with_name("b.mrcs.x")
    packed.write_bytes(codec.compress(path.read_bytes()))
    assert read_header(packed).whole_sections is None
    file = open_mrc(packed)
    np.testing.assert_array_equal(file.images, data)
    np.testing.assert_array_equal(file.read([4, 0, 4]), data[[4, 0, 4]])


@pytest.mark.parametrize("codec", [gzip, bz2])
def test_the_header_of_a_damaged_compressed_file_is_still_read(tmp_path, codec):
    noise = np.random.default_rng(0).normal(size=(40, 64, 64)).astype(np.float32)
    packed = codec.compress(mrc_bytes(noise, 2))
    path = tmp_path / "cut.mrc.gz"
    path.write_bytes(packed[: len(packed) * 3 // 4] if codec is gzip else packed[:-100])
    if codec is gzip:
        assert read_header(path).nz == 40
        with pytest.raises(FormatError, match=r"cut off: (2[0-9]|3[0-9]) whole sections of 40"):
            open_mrc(path)
    else:
        with pytest.raises(FormatError, match=r"cut off|damaged"):
            open_mrc(path)


def test_a_compressed_file_that_claims_more_than_memory_is_refused(tmp_path, data):
    raw = bytearray(mrc_bytes(data, 2))
    struct.pack_into("<3i", raw, 0, 4096, 4096, 10_000)
    path = tmp_path / "bomb.mrc.gz"
    path.write_bytes(gzip.compress(raw))
    assert read_header(path).nz == 10_000
    with pytest.raises(FormatError, match="GiB of memory") as caught:
        open_mrc(path)
    assert "gunzip" in caught.value.hint


@pytest.mark.parametrize("name", ["a.mrcs.gz", "a.mrcs.bz2"])
def test_the_extension_before_the_compression_counts(write, name):
    path = write("plain")
    packed = path.with_name(name)
    packed.write_bytes((gzip if name.endswith("gz") else bz2).compress(path.read_bytes()))
    assert decide_kind(read_header(packed)).reason == "the extension .mrcs is for stacks"


# Damaged and foreign files


def test_cut_off_data_are_refused_with_the_number_of_whole_sections(write):
    path = write()
    path.write_bytes(path.read_bytes()[: 1024 + 3 * 4 * 6 * 4 + 50])
    header = read_header(path)
    assert (header.nz, header.whole_sections) == (5, 3)
    assert "3 whole sections of 5" in texts(header.problems)[0]
    with pytest.raises(FormatError, match="3 whole sections of 5") as caught:
        open_mrc(path)
    assert caught.value.count == 2
    assert "again" in caught.value.hint


def test_a_file_that_shrinks_after_opening_is_an_error(write):
    path = write()
    file = open_mrc(path)
    path.write_bytes(path.read_bytes()[:1100])
    with pytest.raises(FormatError, match="shorter"):
        file.read([4])
    path.unlink()
    with pytest.raises(FormatError, match="can't be read"):
        file.read([0])


@pytest.mark.parametrize(("mode", "what"), [(101, "4-bit"), (4, "complex"), (3, "complex")])
def test_modes_that_are_not_read_are_named_and_their_header_is_shown(write, mode, what):
    path = write(mode=mode)
    header = read_header(path)
    assert (header.mode, header.dtype, header.whole_sections, header.section_bytes) == (mode, None, None, 0)
    with pytest.raises(FormatError, match=f"mode {mode} .*{what}"):
        open_mrc(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"short", "too few"),
        (b"data_particles\nloop_\n_rlnImageName #1\n" * 40, "a text file"),
        (bytes(2000), "not an MRC file"),
        (np.random.default_rng(0).bytes(4000), "not an MRC file"),
        (b"\x1f\x8b not gzip at all", "damaged"),
        (b"BZh9 not bzip2 at all", "damaged"),
    ],
)
def test_what_is_no_mrc_file_is_refused_with_a_remedy(tmp_path, content, message):
    path = tmp_path / "x.mrc"
    path.write_bytes(content)
    for reader in (read_header, open_mrc):
        with pytest.raises(FormatError, match=message) as caught:
            reader(path)
        assert caught.value.path == str(path)
        assert caught.value.hint


def test_folders_and_absent_files_are_refused_with_a_remedy(tmp_path):
    for path, message in ((tmp_path, "folder"), (tmp_path / "none.mrc", "No such file")):
        with pytest.raises(FormatError, match=message) as caught:
            open_mrc(path)
        assert caught.value.hint


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(write):
    path = write()
    path.chmod(0)
    with pytest.raises(FormatError, match="Permission"):
        open_mrc(path)


@settings(max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_header_raises_anything_but_a_format_error(tmp_path_factory, changes):
    raw = bytearray(mrc_bytes(np.ones((2, 3, 4)), 2))
    for position, byte in changes:
        raw[position] = byte
    path = tmp_path_factory.getbasetemp() / "fuzzed.mrc"
    path.write_bytes(raw)
    try:
        images = open_mrc(path).read([0])
    except FormatError as error:
        assert error.hint
    else:
        assert images.ndim == 3


# Stack or volume


@pytest.mark.parametrize(
    ("name", "shape", "ispg", "mz", "kind", "certain"),
    [
        ("a.mrcs", (4, 4, 4), 1, 4, "stack", True),
        ("a.MRCS", (4, 4, 4), 1, 4, "stack", True),
        ("a.map", (9, 4, 4), 0, 1, "volume", True),
        ("a.mrc", (4, 4, 4), 1, 4, "volume", True),
        ("a.mrc", (4, 4, 4), 0, 4, "ambiguous", False),
        ("a.mrc", (4, 4, 4), 0, 1, "stack", False),
        ("a.mrc", (9, 4, 4), 0, 1, "stack", True),
        ("a.mrc", (9, 4, 4), 0, 9, "stack", False),
        ("a.mrc", (9, 4, 4), 1, 9, "stack", False),
        ("a.mrc", (9, 4, 5), 1, 9, "volume", False),
        ("a.mrc", (9, 4, 5), 0, 9, "ambiguous", False),
        ("a.mrc", (1, 4, 5), 0, 1, "stack", True),
    ],
)
def test_stack_or_volume_is_decided_with_a_reason(write, name, shape, ispg, mz, kind, certain):
    header = read_header(write(name, content=np.ones(shape), ispg=ispg, grid=(shape[2], shape[1], mz), cell=(1, 1, 1)))
    decided = decide_kind(header)
    assert (decided.kind, decided.certain) == (kind, certain)
    assert decided.reason
    assert ("probably" in decided.reason or "ambiguous" in decided.reason) <= (not certain)


def test_metadata_outweighs_name_and_header(write):
    header = read_header(write("a.map", ispg=1))
    assert decide_kind(header, referenced_as="stack").kind == "stack"
    assert decide_kind(header, max_index=3).kind == "stack"
    assert "number 3" in decide_kind(header, max_index=3).reason
    assert decide_kind(read_header(write("a.mrcs")), referenced_as="volume").kind == "volume"


# Real files


@pytest.mark.parametrize(
    ("name", "shape", "pixel_size_A", "kind", "certain"),
    [
        ("real/empiar_10076_7.mrc", (7, 320, 320), None, "stack", False),
        ("real/relion31.mrcs", (5, 256, 256), 1.0, "stack", True),
        ("real/EMD-3197.map", (20, 20, 20), 11.4, "volume", True),
        ("recovar_run/particles/particles.32.mrcs", (600, 32, 32), 17.0, "stack", True),
        ("recovar_run/out/output/volumes/mean.mrc", (32, 32, 32), 17.0, "volume", True),
        ("cryolike_reference/paired_star/A.mrc", (7, 32, 32), 1.5, "stack", True),
    ],
)
def test_real_files_read_as_mrcfile_reads_them(reference_data, name, shape, pixel_size_A, kind, certain):
    path = reference_data / name
    file = open_mrc(path)
    assert file.images.shape == shape
    assert file.header.n_sections == shape[0]
    assert file.header.pixel_size_A == (None if pixel_size_A is None else pytest.approx(pixel_size_A, rel=1e-6))
    decided = decide_kind(file.header)
    assert (decided.kind, decided.certain) == (kind, certain), decided.reason
    with (
        pytest.warns() if name == "real/relion31.mrcs" else nullcontext(),
        mrcfile.open(path, permissive=True) as other,
    ):
        np.testing.assert_array_equal(file.read(range(shape[0])), other.data.astype(np.float32))


def test_the_real_stack_whose_header_says_volume_is_reported_from_one(reference_data):
    header = read_header(reference_data / "real/empiar_10076_7.mrc")
    assert header.ispg == 1
    assert "although its header says volume" in decide_kind(header).reason
    assert decide_kind(header, max_index=6).certain
    assert texts(header.problems) == ["there is no pixel size in its header"]


# Writing


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, 2), (np.float16, 12), (np.float64, 2), (">f4", 2), ("i2", 2)])
def test_a_written_stack_is_valid_and_reads_back(tmp_path, data, dtype, mode):
    path = tmp_path / "a.mrcs"
    write_mrc_stack(path, data.astype(dtype), 1.31)
    if mode == 2:  # mrcfile adds up float16 in float16, which overflows
        assert mrcfile.validate(path, print_file=io.StringIO())
    with mrcfile.open(path) as other:
        header = other.header
        assert (int(header.mode), int(header.ispg), int(header.mz)) == (mode, 0, 1)
        assert other.is_image_stack()
        assert bytes(header.machst) == STAMPS["<"]
        assert other.voxel_size.x == pytest.approx(1.31, rel=1e-6)
        np.testing.assert_array_equal(other.data, data)
        assert float(header.dmin) == data.min()
        assert float(header.dmax) == data.max()
        assert float(header.dmean) == pytest.approx(data.mean(dtype=float), rel=1e-6)
        assert float(header.rms) == pytest.approx(data.std(dtype=float), rel=1e-6)
    file = open_mrc(path)
    assert file.problems == ()
    assert file.header.pixel_size_A == pytest.approx(1.31, rel=1e-6)
    np.testing.assert_array_equal(file.read(range(5)), data)


def test_a_written_volume_is_valid_and_known_as_one(tmp_path):
    volume = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    path = tmp_path / "v.mrc"
    write_mrc_volume(path, volume, 2.5)
    assert mrcfile.validate(path, print_file=io.StringIO())
    with mrcfile.open(path) as other:
        assert other.is_volume()
        assert (int(other.header.ispg), int(other.header.mz)) == (1, 8)
        assert other.voxel_size.z == pytest.approx(2.5)
    assert decide_kind(read_header(path)).kind == "volume"
    assert read_header(path).pixel_size_xyz_A == (2.5, 2.5, 2.5)


def test_a_stack_is_written_image_by_image_and_appears_when_complete(tmp_path, data):
    path = tmp_path / "a.mrcs"
    with MrcStackWriter(path, (4, 6), 1.0, n_images=5) as stack:
        stack.append(data[0])
        stack.append(data[1:])
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrcs"]
    with mrcfile.open(path) as other:
        np.testing.assert_array_equal(other.data, data)
        assert float(other.header.rms) == pytest.approx(data.std(dtype=float), rel=1e-6)


def test_statistics_of_a_large_offset_are_exact(tmp_path):
    images = (1e4 + np.random.default_rng(0).normal(size=(20, 16, 16))).astype(np.float32)
    write_mrc_stack(tmp_path / "a.mrcs", images, 1.0)
    with mrcfile.open(tmp_path / "a.mrcs") as other:
        assert float(other.header.rms) == pytest.approx(images.std(dtype=float), rel=1e-6)


def test_statistics_of_images_with_nan_are_marked_undetermined(tmp_path, data):
    data[2, 1, 1] = np.nan
    write_mrc_stack(tmp_path / "a.mrcs", data, 1.0)
    with mrcfile.open(tmp_path / "a.mrcs") as other:
        header = other.header
        assert header.dmax < header.dmin
        assert header.dmean < header.dmax
        assert header.rms < 0


def test_an_interrupted_stack_leaves_the_older_file_and_nothing_else(tmp_path, data):
    path = tmp_path / "a.mrcs"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt), MrcStackWriter(path, (4, 6), 1.0) as stack:
        stack.append(data)
        raise KeyboardInterrupt
    for n_images, images in ((7, data), (None, data[:0])):
        with (
            pytest.raises(CryobridgeError, match="images were written"),
            MrcStackWriter(path, (4, 6), 1.0, n_images=n_images) as stack,
        ):
            stack.append(images)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrcs"]
    assert path.read_bytes() == b"older"


def test_what_does_not_fit_is_not_written(tmp_path, data):
    path = tmp_path / "a.mrcs"
    for images in (data[:, :2], data.astype(complex), data[0, 0]):
        with pytest.raises(UsageError), MrcStackWriter(path, (4, 6), 1.0) as stack:
            stack.append(images)
    for pixel_size_A in (0, -1, math.nan):
        with pytest.raises(UsageError, match="pixel size"):
            write_mrc_stack(path, data, pixel_size_A)
    with pytest.raises(UsageError, match="dimensions"):
        write_mrc_volume(path, data[0], 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path, data):
    with pytest.raises(CryobridgeError, match="can't be written") as caught:
        write_mrc_stack(tmp_path / "no" / "a.mrcs", data, 1.0)
    assert "folder exists" in caught.value.hint


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("dtype", "mode"), [("f4", 2), ("f2", 12), ("i2", 2), ("i1", 2), ("u2", 2)])
def test_a_changed_copy_keeps_the_header_and_counts_anew(dtype, mode, order, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0 if dtype == "u2" else -100, 100, (5, 8, 6)).astype(dtype)
    with mrcfile.new(tmp_path / "a.mrcs") as file:
        file.set_data(pixels)
        file.set_image_stack()
        file.set_extended_header(np.frombuffer(b"more" * 20, "V80"))
        file.header.exttyp = b"MRCO"
        file.voxel_size = 1.25
        file.add_label("by somebody")
    if order == ">":
        swap(tmp_path / "a.mrcs")

    def negate(chosen, images):
        return np.where(np.isin(chosen, [1, 3])[:, None, None], images, -images)

    copy_changed(tmp_path / "a.mrcs", tmp_path / "b.mrcs", negate)
    expected = -pixels.astype("f8")
    expected[[1, 3]] *= -1
    if dtype != "f2":  # of which mrcfile takes the statistics in half precision
        assert mrcfile.validate(tmp_path / "b.mrcs", print_file=io.StringIO())
    with mrcfile.open(tmp_path / "a.mrcs") as before, mrcfile.open(tmp_path / "b.mrcs") as copy:
        np.testing.assert_array_equal(copy.data.astype("f8"), expected)
        assert (int(copy.header.mode), bytes(copy.extended_header)) == (mode, b"more" * 20)
        for name in before.header.dtype.names:
            if name not in {"mode", "dmin", "dmax", "dmean", "rms"}:
                assert before.header[name].tolist() == copy.header[name].tolist()
        statistics = [float(copy.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
    np.testing.assert_allclose(
        statistics, [expected.min(), expected.max(), expected.mean(), expected.std()], rtol=1e-5, atol=1e-5
    )


def swap(path):
    """Write a file in the other byte order."""
    with mrcfile.open(path) as file:
        header, extended, data = file.header.copy(), bytes(file.extended_header), file.data
        big = header.astype(header.dtype.newbyteorder(">"))
        big.machst = [0x11, 0x11, 0, 0]
        content = big.tobytes() + extended + data.astype(data.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(content)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e30, np.inf, np.nan])
def test_pixels_whose_square_is_beyond_all_numbers_raise_no_warning(tmp_path, value):
    images = np.ones((2, 6, 8), "f4")
    images[1, 2, 3] = value
    write_mrc_stack(tmp_path / "a.mrcs", images, 1.5)
    np.testing.assert_array_equal(open_mrc(tmp_path / "a.mrcs").images, images)
