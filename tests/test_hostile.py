"""Files that are broken, absurd or meant to do harm: nothing is run, written elsewhere, or takes memory without end."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import struct
import warnings
import zipfile

import lz4.block
import numpy as np
import pytest

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.pickle_data import load_pickle
from fuzz import disagreements, exposures, mutate, seeds
from fuzz.corpus import kept_inputs
from fuzz.readers import READERS, Reader, one_file
from fuzz.worker import Trial
from helpers import (
    noise_images,
    particle_columns,
    run,
    run_in_terminal,
    save_cs,
    save_mrc,
    save_star,
)

_MIB = 1 << 20
# What the program needs by itself, with all packages imported, is about 250 MiB.
_MEMORY_MIB = 500
_LONG_LINE_BYTES = (1024 if os.environ.get("CRYOBRIDGE_TEST_LONG_LINE") else 65) * _MIB


def measured(*words):
    """Run the program and return exit code, both outputs, and its peak memory in MiB."""
    done = run(*words)
    return done.returncode, done.stdout, done.stderr, getattr(done, "peak_MiB", 0)


def save(path, data):
    path.write_bytes(data)
    return path


# Files that ask for code


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return os.system, (self.text,)


def pickle_that_runs(canary):
    return pickle.dumps({"rotations": Command(f"touch {canary}")})


def pickle_that_builds(canary):
    return b"\x80\x02csubprocess\nPopen\n(]X\x05\x00\x00\x00toucha" + _text(canary) + b"at\x81."


def old_pickle_that_runs(canary):
    return f"(S'touch {canary}'\nios\nsystem\n.".encode()


def torch_file_that_runs(canary):
    import io

    import torch

    file = io.BytesIO()
    torch.save({"a": torch.zeros(2), "b": Command(f"touch {canary}")}, file)
    return file.getvalue()


def old_torch_file_that_runs(canary):
    import io

    import torch

    file = io.BytesIO()
    torch.save(Command(f"touch {canary}"), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def group_that_runs(canary):
    return f"group:\n  name: x\nresults: !!python/object/apply:os.system ['touch {canary}']\n".encode()


def array_that_runs(canary):
    return seeds.npy(np.array([Command(f"touch {canary}")], dtype=object))


def archive_that_runs(canary):
    import io

    file = io.BytesIO()
    np.savez(file, a=np.array([Command(f"touch {canary}")], dtype=object))
    return file.getvalue()


def _text(text):
    data = str(text).encode()
    return b"X" + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize(
    ("name", "make", "word"),
    [
        ("a.pkl", pickle_that_runs, "system"),
        ("a.pkl", pickle_that_builds, "subprocess.Popen"),
        ("a.pkl", old_pickle_that_runs, "os.system"),
        ("a.pt", torch_file_that_runs, "system"),
        ("a.pt", old_torch_file_that_runs, "system"),
        ("a.csg", group_that_runs, "more than plain data"),
        ("a.npy", array_that_runs, "Python objects"),
        ("a.npz", archive_that_runs, "system"),
    ],
)
def test_no_code_in_a_file_is_run(tmp_path, name, make, word):
    canary = tmp_path / "canary"
    path = save(tmp_path / name, make(canary))
    _, output, errors, memory = measured("inspect", path)
    assert word in output + errors
    assert "Traceback" not in errors
    assert not canary.exists()
    assert memory < _MEMORY_MIB


# Files that claim or unfold to more than there is


def _npy_header(shape, descr="'<f8'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode()


def pickled_terabyte():
    shape, claimed = b"K\x04\x85", b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85"
    data = pickle.dumps(np.zeros(4, "u1"), 2)
    assert data.count(shape) == 1
    return data.replace(shape, claimed)


def pickle_of_a_terabyte_of_text():
    return b"\x80\x04\x8e" + (10**12).to_bytes(8, "little") + b"abc."


def pickle_that_nests():
    return b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b"."


def pickle_that_unfolds():
    value = [1]
    for _ in range(40):
        value = [value, value]
    return pickle.dumps(value)


def pickle_in_itself():
    return b"\x80\x02]q\x00h\x00a."


def zip_bomb():
    import io

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        member.write(_npy_header((300 << 17,)))
        for _ in range(300):
            member.write(bytes(_MIB))
    return file.getvalue()


def stream_of_overlapping_texts():
    # Every offset into one text of 100 kB gives another text: 5 GB in all.
    n = 100_000
    head = json.dumps({"length": n, "dtype": [["uid", "<u8"], ["a/path", "|O"]], "compression": None}).encode()
    numbers = np.arange(n, dtype="<u8").tobytes()
    out = b"\x95CSDAT" + struct.pack("<I", len(head)) + head
    return out + 2 * (struct.pack("<I", len(numbers)) + numbers) + b"x" * n + b"\0"


def stream_bomb():
    head = json.dumps(
        {"length": 10**11, "dtype": [["uid", "<u8"]], "compression": "lz4", "compressed_fields": ["uid"]}
    ).encode()
    data = lz4.block.compress(bytes(_MIB), store_size=False)
    return b"\x95CSDAT" + struct.pack("<I", len(head)) + head + struct.pack("<I", len(data)) + data + b"\0"


def yaml_bomb():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return ("group:\n  name: x\n" + "\n".join(lines) + "\nresults: *a11\n").encode()


def packed_image_of_zeros():
    header = bytearray(seeds.mrc((1, 1, 1))[:1024])
    header[0:12] = struct.pack("<3i", 1024, 1024, 300)
    file = bytearray(gzip.compress(bytes(header), 1, mtime=0))
    return bytes(file) + gzip.compress(bytes(16 * _MIB), 1, mtime=0) * 75


def image_of_many_sections():
    data = bytearray(seeds.mrc((1, 4, 4)))
    data[0:12] = struct.pack("<3i", 1 << 20, 1 << 20, (1 << 31) - 1)
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.pkl", pickled_terabyte, "claims"),
        ("a.pkl", pickle_of_a_terabyte_of_text, "not a pickle file, or a damaged one"),
        ("a.pkl", pickle_that_nests, "nested more than 100 deep"),
        ("a.pkl", pickle_that_unfolds, "unfold to very many items"),
        ("a.pkl", pickle_in_itself, "contains itself"),
        ("a.npy", lambda: _npy_header((10**12,)) + bytes(64), "cut off"),
        ("a.npy", lambda: _npy_header((2**32, 2**32)) + bytes(64), "cut off"),
        ("a.npy", lambda: _npy_header((-1,)) + bytes(64), "damaged"),
        ("a.npy", lambda: _npy_header((0, 2**70)), "damaged"),
        ("a.npy", lambda: _npy_header((True, 2)) + bytes(16), "damaged"),
        ("a.npy", lambda: _npy_header((2, 3), "'0b1'") + bytes(16), "damaged"),
        ("a.npy", lambda: _npy_header((2,), "'3f4'") + bytes(24), "damaged"),
        ("a.cs", lambda: _npy_header((10**12,), [("uid", "<u8")]) + bytes(64), "truncated"),
        ("a.cs", lambda: _npy_header((-3,), [("uid", "<u8")]) + bytes(64), "shape"),
        ("a.cs", lambda: _npy_header((2**64,), [("uid", "<u8")]) + bytes(64), "shape"),
        ("a.cs", lambda: _npy_header((2**60,), [("uid", "<u8", (0,))]), "hold nothing"),
        ("a.cs", stream_bomb, "can't hold"),
        ("a.cs", stream_of_overlapping_texts, "over each other"),
        ("a.npz", zip_bomb, "zip bomb"),
        ("a.csg", yaml_bomb, "unfold without bound"),
        ("a.mrc.gz", packed_image_of_zeros, "would unpack to"),
        ("a.mrc", image_of_many_sections, "cut off"),
    ],
)
def test_what_a_file_claims_takes_no_memory(tmp_path, name, make, words):
    path = save(tmp_path / name, make())
    code, output, errors, memory = measured("inspect", path)
    assert words in output + errors
    assert code == (1 if "Error: " in errors else 0)
    assert "Traceback" not in errors
    assert "unexpected" not in errors
    assert memory < _MEMORY_MIB


@pytest.mark.parametrize(
    "head", ["data_x\n_a ", "data_x\nloop_\n_a #1\n", "data_x\nloop_\n_a #1\n1\n", "data_x\nloop_\n_"]
)
def test_a_line_without_end_in_a_star_file_is_refused(tmp_path, head):
    path = tmp_path / "a.star"
    with path.open("wb") as file:
        file.write(head.encode())
        for _ in range(_LONG_LINE_BYTES // _MIB):
            file.write(b"y" * _MIB)
    code, _, errors, memory = measured("inspect", path)
    path.unlink()
    assert code == 1
    assert "longer than 64 MB" in errors
    assert memory < _MEMORY_MIB


@pytest.mark.parametrize("kind", ["S4096", "U4096"])
def test_long_texts_take_the_memory_of_their_letters(tmp_path, kind):
    n_rows = 80_000_000 // np.dtype(kind).itemsize
    columns = particle_columns(["a.mrc"] * n_rows, np.arange(n_rows))
    columns["blob/path"] = np.array(columns["blob/path"], "S5")
    fields = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    table = np.zeros(n_rows, [*fields, ("note/text", kind)])
    for name, values in columns.items():
        table[name] = values
    table["note/text"] = [f"{row} " * 500 for row in range(n_rows)]
    path = tmp_path / "a.cs"
    with path.open("wb") as file:
        np.save(file, table)
    del table
    for words in (
        ["inspect", path],
        ["select", path, "--where", "blob/idx>5", "-o", tmp_path / "some.cs"],
        ["convert", path, "-o", tmp_path / "all.cs"],
    ):
        code, output, errors, memory = measured(*words)
        assert (code, words[0], memory < _MEMORY_MIB) == (0, words[0], True), errors
        if words[0] == "inspect":
            assert "note/text is a text of up to" in output + errors


# Numbers that are none

_ABSURD = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 0.0, -0.0]


def _absurd_files(folder):
    n = len(_ABSURD)
    poses = {"alignments3D/pose": np.tile(np.array(_ABSURD, "f4")[:, None], 3), "alignments3D/shift": np.zeros((n, 2))}
    columns = particle_columns(["a.mrc"] * n, np.arange(n))
    names = [name for name, values in columns.items() if values is not None and np.asarray(values).dtype.kind == "f"]
    columns |= {name: np.array(_ABSURD, np.asarray(columns[name]).dtype) for name in names} | poses
    words = ["nan", "inf", "-inf", "1e308", "-1.7e308", "1e-320", "0", "-0"]
    labels = [
        "DefocusU",
        "DefocusV",
        "DefocusAngle",
        "Voltage",
        "AngleRot",
        "AngleTilt",
        "AnglePsi",
        "OriginXAngst",
        "ImagePixelSize",
    ]
    star = {"rlnImageName": [f"{k + 1}@a.mrcs" for k in range(n)], **{f"rln{label}": words for label in labels}}
    huge = np.array([1.7976931348623157e308, -1.7e308, np.nan, np.inf, 5e-324, 0])
    np.savez(folder / "a.npz", a=huge, b=huge[2:].astype("f4"), c=1j * np.array([1e308, 1]))
    np.save(folder / "wide.npy", np.array([1e308, 1, 2], np.longdouble) ** 8)
    return [
        save_cs(folder / "a.cs", columns),
        save_star(folder / "a.star", "particles", star),
        save_mrc(folder / "a.mrcs", np.resize(np.array(_ABSURD, "f4"), (3, 8, 8)), 1.5),
        save(folder / "a.pkl", pickle.dumps({"a": huge, "b": [float("nan"), float("inf")], "c": float("-inf")})),
        folder / "a.npz",
        folder / "wide.npy",
    ]


@pytest.mark.filterwarnings("ignore:overflow")
def test_numbers_that_are_none_are_reported_and_never_printed_as_json(tmp_path):
    paths = _absurd_files(tmp_path)
    shown = run("inspect", "--rows", "2", *paths[:2])
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "2 infinite values" in shown.stdout
    done = run("inspect", "--json", *paths)
    assert (done.returncode, done.stderr) == (0, "")

    def refuse(word):
        raise AssertionError(word)

    found = {item["path"]: item for item in json.loads(done.stdout, parse_constant=refuse)}
    assert len(found) == len(paths)
    for item in found.values():
        message = [problem for field in item["fields"] for problem in field["problems"]]
        assert any("NaN" in text or "infinite" in text for text in message), item["path"]
    drawn = run("inspect", tmp_path / "a.npz", "--plot", tmp_path / "a.png")
    assert (drawn.returncode, drawn.stderr.count("Warning")) == (0, 0)


def test_the_largest_numbers_fall_into_bins():
    from cryobridge.formats.table import Column
    from cryobridge.jobs.inspection.stats import summarise_values

    largest = np.finfo(np.float64).max
    values = np.array([-largest, -largest, 0.0, largest])
    summary = summarise_values(Column("a", "f8"), values)
    assert (summary.histogram[0], sum(summary.histogram), summary.histogram[-1]) == (2, 4, 1)
    assert summary.median == -largest / 2
    both = summarise_values(Column("a", "f8"), np.array([largest, largest / 2]))
    assert both.median == 0.75 * largest


# Names

_EVIL = "a\nb\x1b]0;owned\x07\x1b[38;5;213mc\x9b38;5;213md\u202ee[bold]f"


def _assert_shown_safely(text):
    """Assert that nothing of what the names hold reaches the terminal as it is."""
    assert "\x1b]" not in text
    assert "\x1b[38;5;213" not in text
    assert not {"\x07", "\x9b", "\u202e"} & set(text)


def _evil_files(folder):
    columns = particle_columns([_EVIL + ".mrc"] * 3, [0, 1, 2])
    picks = {
        "uid": np.arange(3, dtype="u8"),
        "location/micrograph_path": [_EVIL + ".mrc"] * 3,
        "location/micrograph_shape": np.full((3, 2), 64, "u4"),
        "location/center_x_frac": np.full(3, 0.5, "f4"),
        "location/center_y_frac": np.full(3, 0.5, "f4"),
    }
    line = _EVIL.replace("\n", "")
    star = f"data_\n\nloop_\n_rlnImageName #1\n_rln{line} #2\n_rlnMicrographName #3\n1@{line}.mrcs 5 {line}\n"
    job = {"spec": {"type": _EVIL, "outputs": {_EVIL: {"title": _EVIL, "results": []}}}, "title": _EVIL, "uid": _EVIL}
    (folder / "J1").mkdir()
    (folder / "J1" / "job.json").write_text(json.dumps(job))
    group = {"group": {"title": _EVIL, "type": _EVIL}, "results": {_EVIL: {"metafile": ">" + _EVIL, "type": _EVIL}}}
    np.savez(folder / "a.npz", **{_EVIL: np.arange(3)})
    return {
        "cs": save_cs(folder / "a.cs", {**columns, f"{_EVIL}/x": np.arange(3)}),
        "picks": save_cs(folder / "picks.cs", picks),
        "star": save(folder / "a.star", star.encode()),
        "broken": save(folder / f"{line}.star", b"data_\nfoo\n"),
        "pickle": save(folder / "a.pkl", pickle.dumps({_EVIL: np.arange(3), "text": _EVIL})),
        "code": save(folder / "b.pkl", f"c{line}\nsystem\n(tR.".encode("latin-1", "replace")),
        "job": folder / "J1",
        "group": save(folder / "a.csg", json.dumps(group, indent=1).replace('{"', '{ "').encode()),
        "npz": folder / "a.npz",
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_of_any_kind_reach_the_terminal_as_text(tmp_path):
    files = _evil_files(tmp_path)
    _, shown = run_in_terminal("inspect", "--rows", "1", *(files[name] for name in ("cs", "star")))
    _assert_shown_safely(shown)
    assert "\\x1b]0;owned\\x07" in shown
    _, others = run_in_terminal("inspect", *(path for name, path in files.items() if name not in {"cs", "star"}))
    _assert_shown_safely(others)
    assert "belongs to no block" in " ".join(others.split())


def test_names_of_any_kind_are_text_in_pipes_and_json(tmp_path):
    files = _evil_files(tmp_path)
    done = run("inspect", "--json", *files.values())
    _assert_shown_safely(done.stderr)
    assert not any(ord(char) < 32 and char != "\n" for char in done.stdout)
    assert "Traceback" not in done.stderr
    micrographs = save_star(tmp_path / "ctf.star", "micrographs", {"rlnMicrographName": ["m.mrc"]})
    for words in (
        ("inspect", "--paths", files["cs"]),
        ("inspect", files["star"], files["job"], files["group"]),
        ("convert", files["cs"], "-o", tmp_path / "out.star"),
        ("convert", files["star"], "-o", tmp_path / "out.cs"),
        ("select", files["star"], "--class", "1", "-o", tmp_path / "selected.star"),
        ("stacks", "cs", files["cs"], "-o", tmp_path / "stacks"),
        ("coords", files["picks"], micrographs, "-y", "-o", tmp_path / "coords"),
    ):
        done = run(*words)
        text = done.stdout + done.stderr
        assert not any(ord(char) < 32 and char != "\n" for char in text), words
        assert "unexpected" not in text, text
        _assert_shown_safely(text)


# Places outside the output folder


def _everything(folder):
    """Return what lies in a folder: names, and sizes and times of what is no folder."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        found[path.relative_to(folder)] = (
            None if path.is_dir() and not path.is_symlink() else (stat.st_size, stat.st_mtime_ns)
        )
    return found


@pytest.fixture
def project(tmp_path):
    """A project whose metadata name images and micrographs by paths that lead out of it."""
    outside = tmp_path / "outside"
    save_mrc(outside / "evil.mrc", noise_images(3, 16), 1.5)
    save_mrc(outside / "deep" / "evil.mrc", noise_images(3, 16, seed=1), 1.5)
    inside = tmp_path / "project" / "J1"
    names = ["../outside/evil.mrc", str(outside / "deep" / "evil.mrc"), "../outside/evil.mrc"]
    more = {
        "location/micrograph_path": ["../../outside/m.mrc", str(outside / "n.mrc"), "../../outside/m.mrc"],
        "location/micrograph_shape": np.full((3, 2), 64, "u4"),
        "location/center_x_frac": np.full(3, 0.5, "f4"),
        "location/center_y_frac": np.full(3, 0.5, "f4"),
        "alignments2D/class": np.array([0, 1, 1], "u4"),
        "alignments2D/pose": np.zeros(3, "f4"),
        "alignments2D/shift": np.zeros((3, 2), "f4"),
    }
    save_cs(inside / "J1_particles.cs", {**particle_columns(names, [0, 1, 2]), **more})
    save_star(
        inside / "ctf.star", "micrographs", {"rlnMicrographName": ["../../outside/m.mrc", str(outside / "n.mrc")]}
    )
    return inside


def test_nothing_is_written_outside_the_output_folder(project, tmp_path):
    particles = project / "J1_particles.cs"
    work = tmp_path / "work"
    work.mkdir()
    before = {path: what for path, what in _everything(tmp_path).items() if "work" not in path.parts}
    for words in (
        ("coords", particles, project / "ctf.star", "-y", "-o", work / "coords"),
        ("stacks", "cs", particles, "-o", work / "stacks", "--plots"),
        ("convert", particles, "-o", work / "a.star", "--link-stacks", work / "links"),
        ("convert", particles, "-o", work / "b.star", "--link-stacks", work / "copies", "--copy"),
        ("convert", particles, "-o", work / "pickles", "--to", "pickles"),
        ("stacks", "downsample", particles, "-D", "8", "-o", work / "small"),
        ("select", particles, "--split-by-class", work / "classes"),
    ):
        done = run(*words, cwd=work)
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr
    after = {path: what for path, what in _everything(tmp_path).items() if "work" not in path.parts}
    assert after == before
    assert len(list(work.glob("coords/Raw_data/*.star"))) == 2
    assert list(work.glob("stacks/fft/*.pt"))


def test_no_link_in_an_output_folder_leads_its_files_elsewhere(project, tmp_path):
    particles = project / "J1_particles.cs"
    victim = tmp_path / "victim"
    save_star(victim / "kept_autopick.star", "", {"rlnCoordinateX": [1]})
    (victim / "particles_fourier_stack_000000.pt").write_bytes(b"not ours")
    work = tmp_path / "work"
    for folder, inner in (("stacks", "fft"), ("plots", "plots"), ("coords", "Raw_data")):
        (work / folder).mkdir(parents=True)
        (work / folder / inner).symlink_to(victim)
    (work / "classes").mkdir()
    for name in ("class_001.star", "class_000.cs", "class_001.cs", "J1_particles_class_000.cs"):
        (work / "classes" / name).symlink_to(victim / "new")
    (work / "a.star").symlink_to(victim / "new.star")
    before = _everything(victim)
    stacks = run("stacks", "cs", particles, "-o", work / "stacks", "--overwrite")
    assert stacks.returncode == 1
    assert "a link that leads out of the output folder" in stacks.stderr
    plots = run("stacks", "cs", particles, "-o", work / "plots", "--plots", "--overwrite")
    assert "a link that leads out of the output folder" in plots.stderr
    assert run("coords", particles, project / "ctf.star", "-y", "-o", work / "coords", "--overwrite").returncode == 0
    run("select", particles, "--split-by-class", work / "classes", "--overwrite")
    assert run("convert", particles, "-o", work / "a.star", "--overwrite").returncode == 0
    assert not (work / "a.star").is_symlink()
    assert _everything(victim) == before


# Fuzzing


@pytest.mark.parametrize("name", READERS)
def test_inputs_that_are_kept_are_read_or_refused(tmp_path, name):
    _try(READERS[name], tmp_path, kept_inputs(name))


@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_read_or_refused(tmp_path, name):
    reader, rng = READERS[name], random.Random(8)
    valid = reader.seeds()
    _try(reader, tmp_path, valid)
    # Where an input is a case, it is for commands rather than for one reader; `make fuzz` tries many more.
    n_changed = 10 if reader.n_cases else 60
    _try(reader, tmp_path, (mutate.changed(reader, valid, rng.choice(valid), rng) for _ in range(n_changed)))


def _try(reader, folder, inputs):
    (folder / "files").mkdir(exist_ok=True)
    for data in inputs:
        try:
            reader.read(reader.lay_out(folder / "files", data))
        except CryobridgeError as error:
            assert str(error)


# What each command refuses of files that nothing was changed in, for another reason each.
_REFUSED = {("cs", "where 2"), ("star", "where 2"), ("star", "coords")}


@pytest.mark.parametrize("kind", ["cs", "star"])
def test_every_command_takes_the_table_that_columns_of_other_kinds_are_put_into(tmp_path, kind):
    columns = disagreements.all_columns()
    path = disagreements.write_table(tmp_path / "files", columns, columns, seeds.STAR_PARTICLES, {}, kind)
    column = {"cs": "blob/idx", "star": "rlnClassNumber"}[kind]
    (path.parent / "out").mkdir()
    assert _refused(disagreements.operations_on_table(path, column), kind) <= _REFUSED


@pytest.mark.parametrize("place", range(5))
def test_every_command_takes_the_files_that_are_made_to_disagree(tmp_path, place):
    folder = tmp_path / "files"
    disagreements.Files().write(folder)
    (folder / "rows.txt").write_text("0\n2\n")
    (folder / "out").mkdir()
    tables, sources = disagreements.inputs_in(folder)
    options = {"verify": True, "copy": True, "link_stacks": folder / "out" / "stacks"}
    table = tables[place % len(tables)]
    operations = disagreements.operations_on_files(folder, table, sources[place], options)
    assert _refused(operations, table.suffix.removeprefix(".")) <= _REFUSED


def test_every_command_takes_the_exposures_that_are_made_to_disagree(tmp_path):
    folder = tmp_path / "files"
    exposures.Files().write(folder)
    (folder / "out").mkdir()
    assert _refused(exposures.operations(folder, {}), "exposures") == set()


def _refused(operations, kind):
    refused = set()
    for name, operation in operations.items():
        try:
            operation()
        except CryobridgeError:
            refused.add((kind, name))
    return refused


def test_the_harness_keeps_what_ends_otherwise_than_it_should(tmp_path):
    def read(path):
        text = path.read_text()
        if text == "refused":
            raise FormatError("no", path=path)
        if text == "warned":
            warnings.warn("odd", stacklevel=1)
        return 1 / len(text)

    trial = Trial(Reader("x", list, read, one_file("a")), tmp_path, 100)
    for data in (b"read", b"refused", b"", b"", b"warned"):
        trial(data)
    tally = trial.tally
    assert (tally.tried, tally.read, tally.refused) == (5, 1, 1)
    kept = {place.split()[0]: (tmp_path / name).read_bytes() for place, name in tally.faults.items()}
    assert kept == {"ZeroDivisionError": b"", "UserWarning": b"warned"}


# What fuzzing and reading found


def test_a_number_without_digits_in_a_group_is_refused(tmp_path):
    from cryobridge.formats.cryosparc.csg import read_csg

    with pytest.raises(FormatError, match="not YAML"):
        read_csg(save(tmp_path / "a.csg", b"group:\n  name: x\nresults:\n  blob: !!int ''\n"))


def test_numbers_beyond_64_bits_are_no_counts(tmp_path):
    from cryobridge.formats.cryosparc.csg import read_csg
    from cryobridge.formats.listing import list_folder
    from cryobridge.formats.pickles import read_indices
    from cryobridge.formats.recovar.model import read_model

    text = seeds.CSG.replace(b"num_items: 3", b"num_items: 0x" + b"f" * 5000)
    assert {slot.num_items for slot in read_csg(save(tmp_path / "a.csg", text)).slots} == {None}
    with pytest.raises(FormatError, match="whole numbers"):
        read_indices(save(tmp_path / "ind.pkl", pickle.dumps([1, 2**70])))
    save(tmp_path / "metadata.json", b'{"voxel_size": 1' + b"0" * 400 + b"}")
    assert read_model(list_folder(tmp_path), []).voxel_size_A is None


def test_a_job_that_names_impossible_files_is_described(tmp_path):
    from cryobridge.jobs.inspection.describe import inspect

    slot = {"name": "blob", "dtype": "particle.blob", "metafiles": ["a\0b.cs"], "versions": [0], "num_items": [3]}
    long = {**slot, "metafiles": ["x" * 5000 + ".cs"]}
    for result in (slot, long):
        spec = {"type": "x", "outputs": {"particles": {"type": "particle", "results": [result]}}}
        save(tmp_path / "job.json", json.dumps({"uid": "J1", "spec": spec}).encode())
        assert inspect(tmp_path).rows is None


def test_half_precision_columns_are_read(tmp_path):
    from cryobridge.formats.cryosparc.particles import read_particles_cs

    columns = particle_columns(["a.mrc"] * 3, [0, 1, 2])
    columns["ctf/cs_mm"] = columns["ctf/cs_mm"].astype("f2")
    particles = read_particles_cs(save_cs(tmp_path / "a.cs", columns))
    assert particles.per_particle("spherical_aberration_mm") == pytest.approx([2.7] * 3, rel=1e-3)


def test_old_names_of_types_and_odd_escapes_raise_no_warnings(tmp_path):
    from cryobridge.formats.cryosparc.cs import open_cs
    from cryobridge.formats.pickle_data import scan_pickles_in

    path = save(tmp_path / "a.cs", _npy_header((1,), "[('a/path', '|a4')]") + b"abcd")
    assert open_cs(path).read(["a/path"])["a/path"][0] == "abcd"
    assert scan_pickles_in(b"(cos\nsys\\tem\n.") is not None


def test_numbers_that_trap_in_pickles_raise_no_warnings(tmp_path):
    from cryobridge.formats.pickles import classify_pickle, read_ctf, read_poses

    trap = np.frombuffer(b"\x01\0\x80\x7f" * 36, "<f4")  # NaN that signals, which NumPy warns of
    for value in (trap.reshape(18, 2), trap[:18].reshape(2, 9), trap[:18].reshape(2, 3, 3)):
        path = save(tmp_path / "a.pkl", pickle.dumps(value))
        assert classify_pickle(value) in {"unknown", "poses"}
        for read in (read_poses, read_ctf):
            with pytest.raises(FormatError):
                read(path)


def test_text_that_is_no_text_is_refused(tmp_path):
    from cryobridge.formats.arrays import read_npy, read_npz

    broken = np.frombuffer(b"a\0\0\0\xff\xff\xff\x7f", "<U1")
    np.savez(tmp_path / "a.npz", a=broken)
    np.save(tmp_path / "a.npy", broken)
    with pytest.raises(FormatError, match="no character"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(FormatError, match="no character"):
        read_npz(tmp_path / "a.npz")["a"]
    with pytest.raises(FormatError, match="no character"):
        load_pickle(save(tmp_path / "a.pkl", pickle.dumps(broken)))


def test_huge_whole_numbers_in_pickles_are_described(tmp_path):
    from cryobridge.jobs.inspection.describe import inspect

    report = inspect(save(tmp_path / "a.pkl", pickle.dumps({"a": 1 << 50_000, "b": [1 << 50_000]})))
    assert report.fields[0].example == "a number of 50,001 bits"


def test_times_without_a_unit_are_reported_by_their_type(tmp_path):
    from cryobridge.jobs.inspection.describe import inspect

    save(tmp_path / "a.npy", _npy_header((2,), "'<M8'") + struct.pack("<2q", 5, 6))
    assert inspect(tmp_path / "a.npy").fields[0].shape == (2,)


def test_iterations_out_of_order_are_described(tmp_path):
    from cryobridge.formats.relion.branches import branches_of
    from cryobridge.formats.relion.names import iteration_problems, sort_iterations

    names = [f"run{run}_it{number:03d}_data.star" for run, number in (("", 0), ("_ct5", 2), ("_ct3", 4), ("", 7))]
    iterations, _, _ = sort_iterations(tmp_path, names)
    chain = branches_of(iterations).chain
    assert isinstance(iteration_problems(iterations, chain), list)


def test_an_archive_whose_parts_lie_outside_it_is_damaged(tmp_path):
    from cryobridge.formats.arrays import read_npz

    data = bytearray(seeds.npzs()[0])
    end = data.rindex(b"PK\x05\x06")
    data[end + 16 : end + 20] = b"\xff\xff\xff\x7f"
    with pytest.raises(FormatError, match="damaged"):
        read_npz(save(tmp_path / "a.npz", bytes(data))).describe()
