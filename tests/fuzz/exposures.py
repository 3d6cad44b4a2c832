"""Exposures with columns of unexpected kinds, and ones that disagree with their files, given to `micrographs`."""

from __future__ import annotations

import random
import shutil
from functools import cache

import numpy as np

import exposure_files
import movie_files
from cryobridge.model.particles import Labels
from fuzz import seeds
from fuzz.disagreements import KINDS, TEXTS, describe, each, number_of, table_bytes, with_text

N = seeds.N
NY, NX, FRAMES = exposure_files.NY, exposure_files.NX, exposure_files.FRAMES
MICROGRAPHS = b"""
data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnMicrographPixelSize #6
_rlnMicrographOriginalPixelSize #7
_rlnBeamTiltX #8
_rlnBeamTiltY #9
1 opticsGroup1 300.0 2.7 0.1 0.8 0.4 0.0 0.0

data_micrographs

loop_
_rlnMicrographName #1
_rlnMicrographNameNoDW #2
_rlnMicrographMovieName #3
_rlnMicrographGainName #4
_rlnMicrographMetadata #5
_rlnOpticsGroup #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
_rlnPhaseShift #10
_rlnCtfFigureOfMerit #11
_rlnCtfMaxResolution #12
_rlnAccumMotionTotal #13
a.mrc b.mrc a.tif gain.mrc motion.star 1 10000.0 9900.0 10.0 0.0 0.1 4.0 12.0
b.mrc a.mrc b.tif gain.mrc motion.star 1 11000.0 9900.0 10.0 0.0 0.1 4.0 12.0

"""
MOTION = b"""
# version 30001

data_general

_rlnImageSizeX                128
_rlnImageSizeY                 96
_rlnImageSizeZ                  3
_rlnMicrographMovieName     a.tif
_rlnMicrographGainName   gain.mrc
_rlnMicrographBinning        2.0
_rlnMicrographOriginalPixelSize 0.4
_rlnMicrographDoseRate        5.0
_rlnMicrographPreExposure     0.0
_rlnVoltage                 300.0
_rlnMicrographStartFrame        1
_rlnMotionModelVersion          1
_rlnEERUpsampling               1
_rlnEERGrouping                10

data_global_shift

loop_
_rlnMicrographFrameNumber #1
_rlnMicrographShiftX #2
_rlnMicrographShiftY #3
1 0.0 0.0
2 1.0 -0.5
3 -9999.0 -9999.0

data_local_motion_model

loop_
_rlnMotionModelCoeffsIdx #1
_rlnMotionModelCoeff #2
""" + b"".join(b"%d 0.001\n" % place for place in range(36))


def rigid(n_frames=FRAMES):
    return np.linspace([0.0, 0.0], [3.0, -2.0], n_frames)[np.newaxis]


def spline():
    return np.random.default_rng(2).normal(0, 0.5, (2, 4, 5, 6))


def columns():
    """Return the columns of exposures, texts as bytes."""
    found = exposure_files.exposure_columns(N)
    return {
        name: np.array([text.encode() for text in values.to_numpy()]) if isinstance(values, Labels) else values
        for name, values in found.items()
    }


def exposures_cs():
    return table_bytes(columns())


# Columns of unexpected kinds

# The file, and which of its columns is of another kind.
COLUMNS = (
    *(("cs", name) for name in columns()),
    *(
        (kind, line.split()[0].decode())
        for kind, text in (("micrographs", MICROGRAPHS), ("motion", MOTION))
        for line in text.splitlines()
        if line.startswith(b"_rln")
    ),
)
N_KINDS = len(KINDS) * len(COLUMNS)
# Each of these ended in an error of Python's, or a warning of NumPy's, before what it found was mended.
ONCE_AT_FAULT = (92, 2167, 2265)


class Files:
    """Exposures and the files that they name, before these are written."""

    def __init__(self):
        self.columns = columns()
        names = [name.decode() for name in self.columns["movie_blob/path"].tolist()]
        averages = self.columns["micrograph_blob/path"].tolist() + self.columns["micrograph_blob_non_dw/path"].tolist()
        rigids, splines = (self.columns[f"{kind}_motion/path"].tolist() for kind in ("rigid", "spline"))
        self.files = dict.fromkeys(names, _movie((FRAMES, 2 * NY, 2 * NX)))
        self.files |= dict.fromkeys((name.decode() for name in averages), _image((NY, NX)))
        self.files |= {name.decode(): seeds.npy(rigid()) for name in rigids}
        self.files |= {name.decode(): seeds.npy(spline()) for name in splines}
        self.files |= {"J1/imported/gain.mrc": _image((2 * NY, 2 * NX))}
        self.files |= dict.fromkeys(("a.mrc", "b.mrc"), _image((NY, NX)))
        self.files |= {"motion.star": MOTION, "micrographs.star": MICROGRAPHS}
        self.options = {}

    def named(self, column, rng):
        """Return the name of one of the files that a column names."""
        return rng.choice([name for name in self.columns[column].tolist() if name]).decode("utf-8", "replace")

    def write(self, folder):
        shutil.rmtree(folder, ignore_errors=True)
        for name, data in ({"exposures.cs": table_bytes(self.columns)} | self.files).items():
            if data is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


@cache
def _image(shape, dtype="f4"):
    return seeds.mrc((1, *shape), dtype)


@cache
def _movie(shape):
    return seeds.tiff(*np.random.default_rng(3).poisson(4.0, shape).astype("u1"))


def lay_out_kind(folder, data):
    """Write exposures, a list of micrographs, and metadata of motion, of which one has a column of another kind."""
    which, kind = divmod(number_of(data) % N_KINDS, len(KINDS))
    file, name = COLUMNS[which]
    files = Files()
    if file == "cs":
        files.columns[name] = KINDS[kind]()
    else:
        files.files[f"{file}.star"] = with_text(files.files[f"{file}.star"], name, TEXTS[kind])
    files.write(folder)
    return folder


def read_kind(folder):
    each(folder / "out", *operations(folder, {}).values())


def operations(folder, options):
    """Return what takes exposures to RELION, takes lists of micrographs back, and describes all of them."""
    from cryobridge.jobs.exposures.micrographs import micrographs

    out, project = folder / "out", folder / "exposures.cs"
    job = out / "MotionCorr" / "job001"
    return {
        "to relion": lambda: micrographs(project, job, **options),
        "once more": lambda: micrographs(project, job, overwrite=True, **options),
        "back": lambda: micrographs(job, out / "back.cs"),
        "to cryosparc": lambda: micrographs(folder / "micrographs.star", out / "of_star.cs"),
        "exposures": lambda: describe(project),
        "list": lambda: describe(folder / "micrographs.star"),
        "motion": lambda: describe(folder / "motion.star"),
        "folder": lambda: describe(job),
    }


# Exposures that disagree with their files


def _other_kind(files, rng):
    files.columns[rng.choice(list(files.columns))] = rng.choice(KINDS)()


def _no_column(files, rng):
    del files.columns[rng.choice(list(files.columns))]


def _other_numbers(files, rng):
    """Put other numbers into one column, where they could stand."""
    names = [name for name, values in files.columns.items() if values.dtype.kind in "uif" and name != "uid"]
    name = rng.choice(names)
    values = files.columns[name].copy()
    if values.dtype.kind == "f":
        chosen = rng.choice((0, -1, np.nan, np.inf, 1e-30, 1e30, 0.4, 300, 3e38))
    else:
        chosen = rng.choice((0, 1, 2, 3, FRAMES - 1, FRAMES + 1, 100, 10**6, np.iinfo(values.dtype).max))
    values[rng.choice((0, slice(None), slice(1, None)))] = chosen
    files.columns[name] = values


_SHAPES = ("movie_blob/shape", "micrograph_blob/shape", "gain_ref_blob/shape", "rigid_motion/frame_end")


def _other_sizes(files, rng):
    name = rng.choice([name for name in _SHAPES if name in files.columns] or list(files.columns))
    values = files.columns[name].copy()
    if values.dtype.kind == "u" and values.size:
        values[..., rng.randrange(values.shape[-1])] = rng.choice((0, 1, 2 * NY, 3 * NX, 10**5, 2**31, 2**32 - 1))
    files.columns[name] = values


def _other_names(files, rng):
    texts = [name for name, values in files.columns.items() if values.dtype.kind == "S"]
    name = rng.choice(texts or ["micrograph_blob/path"])
    other = (
        b"",
        b"J1",
        b"/dev/zero",
        b">a.mrc",
        b"../a.mrc",
        b"motion.star",
        b"a b.mrc",
        b"a\nb.mrc",
        b"\xff",
        b"a" * 300,
    )
    other += (b"J1/imported/gain.mrc", b"exposures.cs", b"J1/imported", b"'a\".mrc", b"#.mrc")
    values = files.columns[name].tolist() if name in files.columns else [b""] * N
    values[rng.randrange(N)] = rng.choice((*other, values[-1]))
    files.columns[name] = np.array(values)


def _other_movie(files, rng):
    shape = rng.choice(((FRAMES + 1, 2 * NY, 2 * NX), (1, 2 * NY, 2 * NX), (FRAMES, NY, NX), (2, 2 * NX, 2 * NY)))
    page = {"width": 2 * NX, "height": 2 * NY}
    events = [{**page, "compression": 65001}] * rng.choice((1, FRAMES, 10 * FRAMES, 10 * FRAMES + 3))
    kinds = (
        lambda: _movie(shape),
        lambda: _image((2 * NY, 2 * NX)),
        lambda: seeds.mrc((FRAMES, 2 * NY, 2 * NX), rng.choice(("i1", "u2", "f2"))),
        lambda: movie_files.tiff_bytes([{**page, "compression": rng.choice((1, 5, 7, 34712))}] * FRAMES),
        lambda: movie_files.tiff_bytes(events, is_big=True),
        lambda: movie_files.tiff_bytes([{"width": 4 * NX, "height": 4 * NY, "compression": 65000}] * 40, is_big=True),
        lambda: _movie((FRAMES, 2 * NY, 2 * NX))[: rng.randrange(10_000)],
        lambda: b"text",
    )
    made = rng.choice(kinds)()
    names = [files.named("movie_blob/path", rng)] if rng.random() < 0.5 else [*files.files]
    files.files |= {name: made for name in names if name.endswith(".tif")}


def _other_trajectory(files, rng):
    kind = rng.choice(("rigid", "spline"))
    name = files.named(f"{kind}_motion/path", rng)
    array = rigid() if kind == "rigid" else spline()
    huge = rng.choice((np.nan, np.inf, -9999, 1e5, 1e300, 3e38))
    shapes = (
        array[0],
        array[np.newaxis],
        array[:, :-1],
        array[..., :1],
        array[:0],
        np.repeat(array, 2, 1),
        array[:, :1],
    )
    dtypes = rng.choice(("f2", "f4", ">f4", "i2", "u1", "c8", "S4", "?", "U3", "g"))
    with np.errstate(all="ignore"):
        arrays = (*shapes, array.astype(dtypes), np.where(array > 0.3, huge, array), array * huge, array + 0 * huge)
    long = np.zeros((2, *rng.sample((1, 2, 30_000), 3)), "f4")
    data = seeds.npy(rng.choice((*arrays, long)))
    changes = (data, data[: rng.randrange(len(data))], seeds.npy(np.array([None])), b"", None, MOTION)
    files.files[name] = rng.choice((data, data, data, *changes))


def _other_gain(files, rng):
    gain = np.random.default_rng(4).normal(1, 0.1, (2 * NY, 2 * NX)).astype("f4")
    kinds = (gain[:, ::-1].T, gain * 0, gain * np.nan, gain[:1], gain * -1, gain.astype("u1"), gain.astype("u2"))
    made = seeds.tiff(np.ascontiguousarray(rng.choice(kinds)))
    colours = seeds.tiff(np.zeros((2 * NY, 2 * NX, 3), "u1"))
    name = f"J1/imported/gain.{rng.choice(('mrc', 'tif', 'gain', 'dm4', 'raw'))}"
    choices = (made, made, made[: rng.randrange(len(made))], colours, b"text", seeds.mrc((2, NY, NX)), None)
    files.files[name] = rng.choice(choices)
    if rng.random() < 0.8:
        files.columns["gain_ref_blob/path"] = np.array([name.encode()] * N)


def _other_average(files, rng):
    column = rng.choice(("micrograph_blob/path", "micrograph_blob_non_dw/path"))
    if column not in files.columns or files.columns[column].dtype.kind != "S":
        return
    shape = rng.choice(((NY, NX), (NX, NY), (1, 1), (2 * NY, 2 * NX)))
    made = _image(shape, rng.choice(("f2", "f4", "i1", "i2", "c8")))
    choices = (made, made, made[: rng.randrange(len(made))], seeds.mrc((3, NY, NX)), b"", None)
    files.files[files.named(column, rng)] = rng.choice(choices)


def _beam_shifts(files, rng):
    """Name movies as EPU or SerialEM do, with the files that these write beside them."""
    stems = [f"J1/imported/FoilHole_{n}_Data_1_2_20230405_060708" for n in range(N)]
    if rng.random() < 0.5:
        stems = [f"J1/imported/g_000{n}_X+1Y-{n}-1" for n in range(N)]
    value = rng.choice(("0.5", "nan", "1e400", "-1e308", "", "x"))
    xml = "<a><microscopeData><optics><BeamShift><_x>{}</_x><_y>1</_y></BeamShift></optics></microscopeData></a>"
    mdoc = "T = t\n\n[ZValue = 0]\nImageShift = {} 2\nSubFramePath = {}.tif\n"
    for stem in stems:
        ending = rng.choice(("_Fractions.tif", "_fractions.tif", ".tif"))
        files.files |= {
            f"{stem}{ending}": _movie((FRAMES, 2 * NY, 2 * NX)),
            f"{stem}.xml": xml.format(value).encode(),
            f"{stem}.tif.mdoc": mdoc.format(value, stem.rpartition("/")[2]).encode(),
        }
    files.columns["movie_blob/path"] = np.array([f"{stem}{ending}".encode() for stem in stems])
    files.options["optics_from"] = rng.choice(("afis", "epu", "serialem", "regex:X(.)", "micrographs.star"))


def _other_list(files, rng):
    _, label = rng.choice([column for column in COLUMNS if column[0] == "micrographs"])
    files.files["micrographs.star"] = with_text(files.files["micrographs.star"], label, rng.choice(TEXTS))


def _other_motion(files, rng):
    old = rng.choice(
        (b" 3\n", b"-9999.0", b"\n2 1.0", b"data_global_shift", b"35 0.001\n", b" 128\n", b"_rlnMotionModelVersion")
    )
    new = (b"", b" 0\n", b" 1000000000\n", b"\n3 nan", b" -1\n", b"data_x", b" x\n", b"\n2 1e999", b"7 1\n")
    files.files["motion.star"] = MOTION.replace(old, rng.choice(new))


CHANGES = (
    *(
        _other_kind,
        _no_column,
        _other_numbers,
        _other_sizes,
        _other_names,
        _other_movie,
        _other_trajectory,
        _other_gain,
    ),
    *(_other_average, _beam_shifts, _other_list, _other_motion),
)
_CHOICES = {
    "copy": (True, False),
    "flip_y": (True, False),
    "float16": ("rewrite", "keep"),
    "on_missing": ("skip", "skip", "error"),
    "relion": ("3.1", "5"),
    "lists": (("ctf",), ("movies", "corrected"), None),
    "motion": (True, True, False),
    "motion_unit": ("px", "A"),
    "motion_rows": ("reversed", "stored"),
    "motion_zero": ("first", "stored"),
    "gain_turn": ("metadata", "pixels"),
    "dose_per_frame": (1.0, 1e-9, 1e9),
    "pre_exposure": (0.0, 5.0, 1e9),
}
CASES_ONCE_AT_FAULT = ()


def lay_out_case(folder, data):
    """Write exposures with one to three changes that make them disagree with their files."""
    rng = random.Random(number_of(data))
    files = Files()
    for change in rng.sample(CHANGES, rng.choice((1, 1, 2, 3))):
        try:
            change(files, rng)
        except (KeyError, IndexError, AttributeError):  # what it would change is gone, or no text any more
            continue
    files.write(folder)
    for name in rng.sample(list(_CHOICES), rng.choice((0, 1, 2, 4))):
        files.options[name] = rng.choice(_CHOICES[name])
    if files.options.get("optics_from") == "micrographs.star":
        files.options["optics_from"] = folder / "micrographs.star"
    return folder, files.options


def read_case(case):
    folder, options = case
    each(folder / "out", *operations(folder, options).values())
