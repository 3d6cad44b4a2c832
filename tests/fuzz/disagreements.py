"""Tables with columns of unexpected kinds, and files that disagree, given to commands: one case for each number."""

from __future__ import annotations

import json
import random
import shutil
import zlib

import numpy as np

from cryobridge.errors import CryobridgeError
from fuzz import seeds

N = seeds.N


def number_of(data):
    """Return the number of a case: what the input says, else one that depends on its bytes."""
    return int(data[:18]) if data.isdigit() else zlib.crc32(data)


def as_inputs(*numbers):
    """Return a function that gives the inputs of the numbers."""
    return lambda: [str(number).encode() for number in numbers]


# Columns of unexpected kinds


def _full(value, dtype, *shape):
    return lambda: np.full((N, *shape), value, dtype)


KINDS = (
    _full(b"text", "S4"),
    _full(b"", "S1"),
    _full(b"\xff\xfe\x1b[31m", "S8"),
    _full("text", "<U4"),
    _full("\ud800", "<U1"),
    _full(1 + 2j, "<c8"),
    _full(complex("nan"), "<c16"),
    _full(True, "?"),
    _full(2**64 - 1, "<u8"),
    _full(2**63, ">u8"),
    _full(-(2**63), "<i8"),
    _full(-1, "i1"),
    _full(65504, "<f2"),
    _full(np.nan, "<f2"),
    _full(np.nan, "<f4"),
    _full(np.inf, "<f4"),
    _full(-np.inf, "<f8", 3),
    _full(1e308, "<f8"),
    _full(5e-324, "<f8", 2),
    _full(0, "<f4", 0),
    _full(1, "<f4", 5),
    _full(1, "<f4", 2, 2),
    _full(b"ab", "V2"),
    lambda: np.array(["2020-01-01", "NaT", "1677-09-22"], "<M8[ns]"),
    lambda: np.array([0, np.nan, np.inf], "<f8"),
)
# The same number of texts, for STAR files.
TEXTS = (
    *("text", '""', "\x1b[31m", "'a b'", "\u202e", "1+2j", "nan", "True", "18446744073709551615"),
    *("9223372036854775808", "-9223372036854775808", "-1", "65504", "-nan", "None", "inf", "-inf", "1e308", "5e-324"),
    *("1e400", "[1,2,3]", "[]", "9" * 400, "2020-01-01", "0"),
)
_MORE = {
    "blob/sign": np.ones(N, "<f4"),
    "ctf/type": np.array([b"spline"] * N),
    "ctf/scale": np.ones(N, "<f4"),
    "ctf/bfactor": np.zeros(N, "<f4"),
    "ctf/tilt_A": np.zeros((N, 2), "<f4"),
    "ctf/shift_A": np.zeros((N, 2), "<f4"),
    "ctf/trefoil_A": np.zeros((N, 2), "<f4"),
    "ctf/tetra_A": np.zeros((N, 4), "<f4"),
    "ctf/anisomag": np.zeros((N, 4), "<f4"),
    "location/micrograph_uid": np.arange(N, dtype="<u8"),
    "location/exp_group_id": np.ones(N, "<u4"),
    "location/micrograph_path": np.array([b"J1/m.mrc"] * N),
    "location/micrograph_shape": np.full((N, 2), 64, "<u4"),
    "location/micrograph_psize_A": np.full(N, 1.5, "<f4"),
    "location/center_x_frac": np.full(N, 0.5, "<f4"),
    "location/center_y_frac": np.full(N, 0.25, "<f4"),
    "alignments3D/error": np.zeros(N, "<f4"),
    "alignments3D/alpha": np.ones(N, "<f4"),
    "alignments3D/class_posterior": np.ones(N, "<f4"),
    "alignments2D/pose": np.zeros(N, "<f4"),
    "alignments2D/shift": np.zeros((N, 2), "<f4"),
    "alignments2D/class": np.zeros(N, "<u4"),
    "alignments2D/psize_A": np.full(N, 1.5, "<f4"),
    "pick_stats/ncc_score": np.ones(N, "<f4"),
}


def _all_columns():
    return seeds.cs_columns() | _MORE


CS_NAMES = tuple(_all_columns())
STAR_NAMES = tuple(line.split()[0].decode() for line in seeds.STAR_PARTICLES.splitlines() if line.startswith(b"_rln"))
N_KINDS = len(KINDS) * (len(CS_NAMES) + len(STAR_NAMES))

# Each of these cases ended in an error of Python's, or a warning of NumPy's, before what it found was mended.
ONCE_AT_FAULT = (77, 79, 91, 117, 120, 167, 292, 380, 450, 517, 581, 607, 730, 806, 825, 842, 1194, 1317, 1367, 1592)


def lay_out_kind(folder, data):
    """Write a table with one column of another kind; return its path and the name of the column."""
    which, kind = divmod(number_of(data) % N_KINDS, len(KINDS))
    _write_stacks(folder)
    if which < len(CS_NAMES):
        columns = _all_columns()
        columns[CS_NAMES[which]] = KINDS[kind]()
        path = folder / "a.cs"
        path.write_bytes(seeds.cs_npy(columns))
        return path, CS_NAMES[which]
    label = STAR_NAMES[which - len(CS_NAMES)]
    path = folder / "a.star"
    path.write_bytes(_with_text(seeds.STAR_PARTICLES, label, TEXTS[kind]))
    return path, label.removeprefix("_")


def _with_text(star, label, text):
    lines, labels = star.decode().split("\n"), []
    for at, line in enumerate(lines):
        if line.startswith("_rln"):
            labels.append(line.split()[0])
        elif not line.strip():
            labels = labels if line == "" and label in labels and not lines[at - 1].strip() else []
        elif label in labels:
            words = line.replace('"m 2.mrc"', "m2.mrc").split(" ")
            words[labels.index(label)] = text
            lines[at] = " ".join(words)
    return "\n".join(lines).encode()


def read_kind(case):
    """Read, convert, select and describe a table."""
    from cryobridge.jobs.convert.convert import convert
    from cryobridge.jobs.selection.choose import select_files

    path, column = case
    out = path.parent / "out"
    conditions = (f"`{column}` = 1", f"`{column}` < 18446744073709551616", f"`{column}` != 'text'")
    _each(
        out,
        lambda: _read(path),
        lambda: _describe(path),
        lambda: convert(path, out / "a.star", verify=True),
        lambda: convert(path, out / "a.cs", verify=True),
        lambda: convert(path, out / "pickles", to="pickles", verify=True),
        *[lambda where=where: select_files(path, out / path.name, where=where, dry_run=True) for where in conditions],
        lambda: select_files(path, out / path.name, random=2, verify=path.suffix == ".star"),
    )


def _each(out, *operations):
    """Try operations; each may refuse with a sentence. If all do, so does this."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    refusals = []
    for operation in operations:
        try:
            operation()
        except CryobridgeError as error:
            assert str(error)
            refusals.append(error)
    if len(refusals) == len(operations):
        raise refusals[0]


def _read(path):
    from cryobridge.formats.open import open_particles, read

    columns = open_particles(path).columns
    try:
        columns.read(columns.names)
    except CryobridgeError as error:
        assert str(error)
    read(path)


def _describe(path):
    from cryobridge.errors import UsageError
    from cryobridge.jobs.inspection.describe import inspect

    try:
        report = inspect(path, rows=2)
    except UsageError:  # rows are for tables
        report = inspect(path)
    json.dumps(report.to_json(), allow_nan=False)


# Files that disagree


class _Files:
    """Files that belong together, before they are written."""

    def __init__(self):
        columns = _all_columns()
        self.main = {name: array for name, array in columns.items() if name == "uid" or name.startswith("blob/")}
        self.passthrough = {name: array for name, array in columns.items() if not name.startswith("blob/")}
        self.csg = seeds.CSG.decode()
        self.star = seeds.STAR_PARTICLES.decode()
        self.stacks = {"J1/a.mrc": (N, 16, 16), "J1/b.mrc": (N, 16, 16), "a.mrcs": (N, 16, 16), "b.mrcs": (N, 16, 16)}
        self.rotations = np.stack([np.eye(3, dtype="f4")] * N)
        self.shifts = np.zeros((N, 2), "f4")
        self.ctf = np.tile(np.array([16, 1.5, 1e4, 1e4, 0, 300, 2.7, 0.1, 0], "f4"), (N, 1))

    def write(self, folder):
        (folder / "particles.cs").write_bytes(_table(self.main))
        (folder / "passthrough_particles.cs").write_bytes(_table(self.passthrough))
        (folder / "a.csg").write_text(self.csg)
        (folder / "a.star").write_text(self.star)
        _write_stacks(folder, self.stacks)
        import pickle

        (folder / "poses.pkl").write_bytes(pickle.dumps((self.rotations, self.shifts)))
        (folder / "ctf.pkl").write_bytes(pickle.dumps(self.ctf))


def _table(columns):
    n_rows = min(len(array) for array in columns.values())
    table = np.empty(n_rows, [(name, array.dtype, array.shape[1:]) for name, array in columns.items()])
    for name, array in columns.items():
        table[name] = array[:n_rows]
    return seeds.npy(table)


_MRC = {}


def _write_stacks(folder, stacks=None):
    stacks = {"J1/a.mrc": (N, 16, 16), "J1/b.mrc": (N, 16, 16), "J1/m.mrc": (1, 64, 64)} if stacks is None else stacks
    shutil.rmtree(folder, ignore_errors=True)
    for name, shape in stacks.items():
        if shape not in _MRC:
            _MRC[shape] = seeds.mrc(shape)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_MRC[shape])


def _other_uids(files, rng):
    table = rng.choice((files.main, files.passthrough))
    start = rng.choice((0, 1, 2**63 - 1, 2**63 + 1, 2**64 - N))
    table["uid"] = np.arange(N, dtype="<u8") + np.uint64(start)


def _repeated_uids(files, rng):
    rng.choice((files.main, files.passthrough))["uid"] = np.full(N, 2**63 + rng.randrange(N), "<u8")


def _other_order(files, rng):
    table, step = rng.choice((files.main, files.passthrough)), rng.choice((-1, 2))
    table |= {name: array[::step] for name, array in table.items()}


def _fewer_rows(files, rng):
    table, n_rows = rng.choice((files.main, files.passthrough)), rng.randrange(N)
    table |= {name: array[:n_rows] for name, array in table.items()}


def _no_column(files, rng):
    table = rng.choice((files.main, files.passthrough))
    if len(table) > 1:
        del table[rng.choice(list(table))]


def _column_in_both(files, rng):
    name = rng.choice(list(files.passthrough))
    files.main[name] = rng.choice(KINDS)()


def _other_kind(files, rng):
    table = rng.choice((files.main, files.passthrough))
    table[rng.choice(list(table))] = rng.choice(KINDS)()


def _elsewhere(files, rng):
    old = rng.choice((">particles.cs", ">passthrough_particles.cs"))
    names = ("a.star", "a.csg", "J1/a.mrc", "J1", "..", "", "missing.cs", "../../etc/passwd", "particles.cs", "a" * 300)
    files.csg = files.csg.replace(old, rng.choice(("", ">")) + rng.choice((*names, "/dev/zero", "passthrough_*.cs")))


def _other_counts(files, rng):
    files.csg = files.csg.replace("num_items: 3", f"num_items: {rng.choice((0, -1, 2, 4, 10**30, 'x', [], '.nan'))}", 1)


def _other_slots(files, rng):
    old = rng.choice(("blob:", "ctf:", "particle.blob", "particle.ctf", "results:", "group:", "type: particle"))
    files.csg = files.csg.replace(old, rng.choice(("alignments3D:", "x:", "volume.blob", "exposure", "'':", "null:")))


def _beyond(files, rng):
    if "blob/idx" in files.main:
        dtype = rng.choice(("<u4", "<i4", "<i8", "<u8"))
        bound = np.iinfo(dtype).max
        files.main["blob/idx"] = np.array([0, 1, rng.choice((N, 10**6, bound))], dtype)


def _beyond_in_star(files, rng):
    files.star = files.star.replace("000002@", rng.choice(("4@", "0@", "-1@", "99999999999999999999@", "@", "x@", "")))


def _other_shapes(files, rng):
    for _ in range(rng.choice((1, 2))):
        box = rng.choice((1, 2, 15, 16, 17, 32))
        files.stacks[rng.choice(list(files.stacks))] = (rng.choice((1, 2, N, 5)), box, rng.choice((box, box, 8)))


def _other_box(files, rng):
    shape = rng.choice(([0, 0], [16, 17], [15, 15], [2**32 - 1] * 2, [1, 1]))
    files.main["blob/shape"] = np.tile(np.array(shape, "<u4"), (N, 1))


def _no_stack(files, rng):
    files.stacks.pop(rng.choice(list(files.stacks)))


def _other_path(files, rng):
    paths = (b"", b"J1", b"/dev/zero", b">J1/a.mrc", b"../a.mrc", b"a.star", b"J1/a.mrc\n", b"\xff.mrc", b"a" * 300)
    files.main["blob/path"] = np.array([b"J1/a.mrc", rng.choice(paths), b"J1/b.mrc"])


def _other_optics(files, rng):
    old = rng.choice((" 16\n", "\n1 opticsGroup1", "m1.mrc 1", " 1.5 ", "300.0", "_rlnImageSize #7\n", " 0.1 "))
    files.star = files.star.replace(old, rng.choice((" 0\n", " 17\n", "\n2 x", "m1.mrc 7", " -1 ", " nan ", " x ", "")))


def _other_pickles(files, rng):
    name = rng.choice(("rotations", "shifts", "ctf"))
    array = getattr(files, name)
    shapes = (array.reshape(len(array), -1), array[:2], array[:0], array[..., :1], np.repeat(array, 2, 0), array[:1, 0])
    kinds = (
        array.astype("c8"),
        array.astype("U4"),
        array * np.nan,
        array.astype("f2"),
        array.astype(bool),
        array / 0.1,
    )
    setattr(files, name, rng.choice((*shapes, *kinds)))


CHANGES = (
    *(_other_uids, _repeated_uids, _other_order, _fewer_rows, _no_column, _column_in_both, _other_kind, _elsewhere),
    *(_other_counts, _other_slots, _beyond, _beyond_in_star, _other_shapes, _other_box, _no_stack, _other_path),
    *(_other_optics, _other_pickles),
)
N_CASES = 2**31


def lay_out_case(folder, data):
    """Write files that belong together, with one to three changes that make them disagree."""
    rng = random.Random(number_of(data))
    files = _Files()
    for change in rng.sample(CHANGES, rng.choice((1, 1, 2, 3))):
        change(files, rng)
    _write_stacks(folder, {})
    folder.mkdir(exist_ok=True)
    files.write(folder)
    return folder, rng


def read_case(case):
    """Give files to three commands that chance chooses."""
    from cryobridge.jobs.convert.convert import convert
    from cryobridge.jobs.selection.choose import select_files

    folder, rng = case
    out = folder / "out"
    pickles = [folder / "a.mrcs", folder / "poses.pkl", folder / "ctf.pkl"]
    tables = [folder / "a.csg", folder / "particles.cs", folder / "a.star"]
    inputs = [*tables, [folder / "particles.cs", folder / "passthrough_particles.cs"], pickles, folder]
    table = rng.choice(tables)
    options = {"verify": rng.random() < 0.5, "copy": rng.random() < 0.3, "datadir": folder}
    if rng.random() < 0.5:
        options.pop("datadir")
    operations = (
        lambda: _read(table),
        lambda: _describe(rng.choice((*tables, *pickles, folder))),
        lambda: convert(rng.choice(inputs), out / "b.star", **options),
        lambda: convert(rng.choice(inputs), out / "b.cs", **options),
        lambda: convert(rng.choice(inputs), out / "pickles", to="pickles", **options),
        lambda: select_files(table, out / table.with_suffix(".cs").name, random=1),
        lambda: select_files(table, out / table.name, rows=folder / "rows.txt", dry_run=True),
        lambda: select_files(folder / "a.csg", out / "c.csg", like=rng.choice(tables[1:])),
    )
    (folder / "rows.txt").write_text(rng.choice(("0\n2\n", "3\n", "-1\n", "18446744073709551616\n", "")))
    _each(out, *rng.sample(operations, 3))
