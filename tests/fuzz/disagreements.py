"""Tables with columns of unexpected kinds, and files that disagree, given to commands: one case for each number."""

from __future__ import annotations

import json
import random
import shutil
import warnings
import zlib

import numpy as np

import converge_jobs
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


def all_columns():
    return seeds.cs_columns() | _MORE


# What `coords` and `converge` read beside particles, after the rest so that the numbers of cases stay.
_FILAMENTS = {
    "filament/filament_uid": np.arange(N, dtype="<u8"),
    "filament/position_A": np.zeros(N, "<f4"),
    "filament/arc_length_A": np.zeros(N, "<f4"),
    "alignments2D/class_posterior": np.ones(N, "<f4"),
    "micrograph_blob/psize_A": np.full(N, 1.5, "<f4"),
}
MICROGRAPHS = b"""
data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnMicrographPixelSize #5
_rlnMicrographOriginalPixelSize #6
1 opticsGroup1 300.0 2.7 1.5 1.5

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
J1/m.mrc 1

"""
_RELION_JOB = {
    "optimiser": converge_jobs.optimiser_text(1, 25, rlnDoAutoRefine=1, rlnHasConverged=0).encode(),
    "model": converge_jobs.model_text({0: 1, 1: 2, 2: 1}).encode(),
}


def _labels(star):
    return tuple(dict.fromkeys(line.split()[0].decode() for line in star.splitlines() if line.startswith(b"_rln")))


CS_NAMES = tuple(all_columns())
STAR_NAMES = _labels(seeds.STAR_PARTICLES)
# The table, and which of its columns is of another kind.
COLUMNS = (
    *(("cs", name) for name in CS_NAMES),
    *(("star", name) for name in STAR_NAMES),
    *(("cs", name) for name in _FILAMENTS),
    *(("micrographs", name) for name in _labels(MICROGRAPHS)),
    *((kind, name) for kind, text in _RELION_JOB.items() for name in _labels(text)),
)
N_KINDS = len(KINDS) * len(COLUMNS)

# Each of these cases ended in an error of Python's, or a warning of NumPy's, before what it found was mended.
ONCE_AT_FAULT = (
    *(77, 79, 91, 117, 120, 167, 292, 380, 450, 517, 581, 607, 730, 806, 825, 842, 1194, 1317, 1367, 1592),
    *(290, 1159, 1197, 1292),  # of datasets and maps
    *(5, 13, 108, 111, 112, 113, 115, 940, 980, 995, 999, 1192, 1193, 1591, 1613, 1615, 1624, 1713),
)


def lay_out_kind(folder, data):
    """Write a table with one column of another kind; return its path and the name of the column."""
    which, kind = divmod(number_of(data) % N_KINDS, len(KINDS))
    table, name = COLUMNS[which]
    star, texts = seeds.STAR_PARTICLES, {}
    columns = usual = all_columns() | (_FILAMENTS if name in _FILAMENTS else {})
    if table == "cs":
        columns = usual | {name: KINDS[kind]()}
    elif table == "star":
        star = with_text(star, name, TEXTS[kind])
    else:
        texts[table] = with_text(MICROGRAPHS if table == "micrographs" else _RELION_JOB[table], name, TEXTS[kind])
    return write_table(folder, columns, usual, star, texts, "star" if table in {"star", *_RELION_JOB} else "cs"), name


def write_table(folder, columns, usual, star, texts, kind):
    """Write a table, the micrographs that it names, and a job of two iterations of which it is the second."""
    texts = {"micrographs": MICROGRAPHS, **_RELION_JOB} | texts
    _write_stacks(folder)
    (folder / "micrographs.star").write_bytes(texts["micrographs"])
    job, path = folder / "job", folder / f"a.{kind}"
    job.mkdir()
    if kind == "cs":
        first, second, data = "J2_000_particles.cs", "J2_001_particles.cs", seeds.cs_npy(columns)
        (job / first).write_bytes(seeds.cs_npy(usual))
    else:
        first, second, data = "run_it000_data.star", "run_it001_data.star", star
        (job / first).write_bytes(seeds.STAR_PARTICLES)
        (job / "run_it001_optimiser.star").write_bytes(texts["optimiser"])
        (job / "run_it001_model.star").write_bytes(texts["model"])
    (job / second).write_bytes(data)
    path.write_bytes(data)
    return path


def with_text(star, label, text):
    """Return a STAR file with another text in all places of a label."""
    lines, labels = star.decode().split("\n"), []
    for at, line in enumerate(lines):
        words = line.replace('"m 2.mrc"', "m2.mrc").split()
        if line.startswith("data_"):
            labels = []
        elif line.startswith("_rln") and not words[-1].startswith("#"):
            lines[at] = f"{words[0]} {text}" if words[0] == label else line
        elif line.startswith("_rln"):
            labels.append(words[0])
        elif words and label in labels:
            words[labels.index(label)] = text
            lines[at] = " ".join(words)
    return "\n".join(lines).encode()


def read_kind(case):
    """Give a table to every command."""
    path, column = case
    each(path.parent / "out", *operations_on_table(path, column).values())


def operations_on_table(path, column):
    """Return what reads, converts, selects from and describes a table with images, and the job beside it."""
    from cryobridge.jobs.convert.convert import convert
    from cryobridge.jobs.selection.choose import select_files

    out = path.parent / "out"
    conditions = (f"`{column}` = 1", f"`{column}` < 18446744073709551616", f"`{column}` != 'text'")
    return {
        "read": lambda: _read(path),
        "inspect": lambda: describe(path),
        "to star": lambda: convert(path, out / "a.star", verify=True),
        "to cs": lambda: convert(path, out / "a.cs", verify=True),
        "to pickles": lambda: convert(path, out / "pickles", to="pickles", verify=True),
        **{f"where {at}": _chosen_where(path, out, where) for at, where in enumerate(conditions)},
        "select": lambda: select_files(path, out / path.name, random=2, verify=path.suffix == ".star", overwrite=True),
        **_on_images_and_jobs(path, path.parent / "job", path.parent / "micrographs.star", out),
        **for_methods(path, out),
    }


def _chosen_where(path, out, where):
    from cryobridge.jobs.selection.choose import select_files

    return lambda: select_files(path, out / path.name, where=where, dry_run=True, overwrite=True)


def _on_images_and_jobs(path, job, micrographs, out):
    from cryobridge.jobs.converge.converge import converge
    from cryobridge.jobs.coords.coords import coords
    from cryobridge.jobs.stacks.api import downsample, stacks

    of_relion = {"settled": out / "settled.star"} if any(job.glob("*.star")) else {}
    return {
        "stacks": lambda: stacks(path, out / "fourier", plots=False, device="cpu", n_inplanes=8),
        "downsample": lambda: downsample(path, out / "small", box_px=8),
        "coords": lambda: coords(path, micrographs, out / "picks", drop_outside=True, relion_project=path.parent),
        "converge": lambda: converge(job, out / "converge", plots=False, **of_relion),
    }


def for_methods(path, out):
    """Return what gives particles to a method and takes its results back."""
    import cryobridge as cb

    return {
        "dataset": lambda: cb.ParticleDataset(path)[:],
        "dataset with CTF": lambda: cb.ParticleDataset(path, ctf="image", box_px=8, on_missing="skip")[::2],
        "results": lambda: cb.write(_with_results(path), out / f"results{path.suffix}"),
        "cryodrgn": lambda: _for_cryodrgn(path, out / "cryodrgn"),
        "map": lambda: cb.backproject(path, box_px=8),
    }


def _for_cryodrgn(path, folder):
    import cryobridge as cb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # by which adaptors say what others have no place for
        cb.adaptors.to_cryodrgn(cb.read(path), folder)


def _with_results(path):
    import cryobridge as cb

    particles = cb.read(path)
    n = len(particles)
    order = np.arange(n)[::-1]
    found = {"latent": np.ones((n, 2), "f4"), "cluster": order, "batch": ["a"] * n, "half_set": order % 2 + 1}
    return particles.with_columns(row=order, **found)


def each(out, *operations):
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


def describe(path):
    from cryobridge.errors import UsageError
    from cryobridge.jobs.inspection.describe import inspect

    try:
        report = inspect(path, rows=2)
    except UsageError:  # rows are for tables
        report = inspect(path)
    json.dumps(report.to_json(), allow_nan=False)


# Files that disagree


class Files:
    """Files that belong together, before they are written."""

    def __init__(self):
        columns = all_columns()
        self.main = {name: array for name, array in columns.items() if name == "uid" or name.startswith("blob/")}
        self.passthrough = {name: array for name, array in columns.items() if not name.startswith("blob/")}
        self.csg = seeds.CSG.decode()
        self.star = seeds.STAR_PARTICLES.decode()
        self.micrographs = MICROGRAPHS.decode()
        self.stacks = dict(_STACKS)
        self.rotations = np.stack([np.eye(3, dtype="f4")] * N)
        self.shifts = np.zeros((N, 2), "f4")
        self.ctf = np.tile(np.array([16, 1.5, 1e4, 1e4, 0, 300, 2.7, 0.1, 0], "f4"), (N, 1))

    def write(self, folder):
        _write_stacks(folder, self.stacks)  # which clears the folder first
        (folder / "particles.cs").write_bytes(table_bytes(self.main))
        (folder / "passthrough_particles.cs").write_bytes(table_bytes(self.passthrough))
        (folder / "a.csg").write_text(self.csg)
        (folder / "a.star").write_text(self.star)
        import pickle

        (folder / "micrographs.star").write_text(self.micrographs)
        (folder / "job").mkdir()
        (folder / "job" / "J2_000_particles.cs").write_bytes(table_bytes(self.passthrough))
        uids = {name: array for name, array in self.main.items() if name == "uid"}
        (folder / "job" / "J2_001_particles.cs").write_bytes(table_bytes(self.passthrough | uids))
        (folder / "poses.pkl").write_bytes(pickle.dumps((self.rotations, self.shifts)))
        (folder / "ctf.pkl").write_bytes(pickle.dumps(self.ctf))


def table_bytes(columns):
    n_rows = min(len(array) for array in columns.values())
    table = np.empty(n_rows, [(name, array.dtype, array.shape[1:]) for name, array in columns.items()])
    for name, array in columns.items():
        table[name] = array[:n_rows]
    return seeds.npy(table)


_MRC = {}
_STACKS = dict.fromkeys(("J1/a.mrc", "J1/b.mrc", "a.mrcs", "b.mrcs"), (N, 16, 16)) | {"J1/m.mrc": (1, 64, 64)}


def _write_stacks(folder, stacks=None):
    stacks = _STACKS if stacks is None else stacks
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
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


def _other_micrographs(files, rng):
    old = rng.choice(("J1/m.mrc 1", " #1\nJ1/m.mrc", "data_micrographs", " 1.5 ", "\n1 opticsGroup1"))
    new = ("J1/n.mrc 1", "J1/m.mrc 2", "J1/m.mrc 1\nJ9/m.mrc 1", " 0 ", "", "data_particles", "\n2 x")
    files.micrographs = files.micrographs.replace(old, rng.choice(new))


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
    *(_other_optics, _other_micrographs, _other_pickles),
)
N_CASES = 2**31
CASES_ONCE_AT_FAULT = (2094633, 31104525, 33408563, 62418496)


def lay_out_case(folder, data):
    """Write files that belong together, with one to three changes that make them disagree."""
    rng = random.Random(number_of(data))
    files = Files()
    for change in rng.sample(CHANGES, rng.choice((1, 1, 2, 3))):
        change(files, rng)
    files.write(folder)
    return folder, rng


def read_case(case):
    """Give files to three commands that chance chooses, and to what methods are given."""
    folder, rng = case
    tables, sources = inputs_in(folder)
    options = {"verify": rng.random() < 0.5}
    if rng.random() < 0.3:
        options |= {"copy": rng.random() < 0.5, "link_stacks": folder / "out" / "stacks"}
    if rng.random() < 0.5:
        options["datadir"] = folder
    (folder / "rows.txt").write_text(rng.choice(("0\n2\n", "3\n", "-1\n", "18446744073709551616\n", "")))
    table = rng.choice(tables)
    operations = operations_on_files(folder, table, rng.choice((*sources, folder)), options)
    # The last one was added later: what a number stood for stays.
    chosen = [*rng.sample(list(operations.values()), 3), rng.choice(list(for_methods(table, folder / "out").values()))]
    each(folder / "out", *chosen)


def inputs_in(folder):
    """Return the tables in a folder of files, and what can be converted there."""
    tables = [folder / "a.csg", folder / "particles.cs", folder / "a.star"]
    pickles = [folder / "a.mrcs", folder / "poses.pkl", folder / "ctf.pkl"]
    return tables, [*tables, [folder / "particles.cs", folder / "passthrough_particles.cs"], pickles]


def operations_on_files(folder, table, source, options):
    """Return what describes, converts, and selects from files that belong together."""
    from cryobridge.jobs.convert.convert import convert
    from cryobridge.jobs.selection.choose import select_files

    out = folder / "out"
    chosen = {"rows": folder / "rows.txt", "dry_run": True, "overwrite": True}
    unlinked = {name: value for name, value in options.items() if name not in {"copy", "link_stacks"}}
    described = [source] if not isinstance(source, list) else source
    return {
        "read": lambda: _read(table),
        "inspect": lambda: [describe(path) for path in described],
        "to star": lambda: convert(source, out / "b.star", **options),
        "to cs": lambda: convert(source, out / "b.cs", **unlinked),
        "to pickles": lambda: convert(source, out / "pickles", to="pickles", **unlinked),
        "select": lambda: select_files(table, out / f"chosen{table.suffix}", random=1),
        "rows": lambda: select_files(table, out / f"chosen{table.suffix}", **chosen),
        "like": lambda: select_files(folder / "a.csg", out / "like.csg", like=table),
        **_on_images_and_jobs(table, folder / "job", folder / "micrographs.star", out),
    }
