"""The wording of notes and warnings, in one file: `wording.txt`. Other tests assert codes.

    UPDATE_WORDING=1 python -m pytest tests/test_wording.py

writes it anew. A code that no run below shows is then listed at its end: add a run that shows it where that is easy.
"""

import ast
import os
import pickle
import re
from functools import cache
from pathlib import Path

import numpy as np

import cryobridge
import cryobridge.cli.app  # it knows how options are typed
from converge_jobs import save_kept_iterations, write_iteration
from coords_files import location, save_micrographs
from cryobridge.cli.build import flag
from cryobridge.errors import shown
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.selection.choose import select_files
from helpers import noise_images, particle_columns, save_cs, save_mrc, save_star

SNAPSHOT = Path(__file__).with_name("wording.txt")
SOURCE = Path(cryobridge.__file__).parent
NOT_SHOWN = "No run of the test shows:"
N = 4
UID = "000000000000000000007"
POSES = {"rlnAngleRot": [10] * N, "rlnAngleTilt": [20] * N, "rlnAnglePsi": [30] * N}
LENS = {"rlnVoltage": [300] * N, "rlnSphericalAberration": [2.7] * N, "rlnAmplitudeContrast": [0.1] * N}
SIZES = {"rlnImagePixelSize": [1.5] * N, "rlnImageSize": [16] * N}
DEFOCUS = {"rlnDefocusU": [12000, 13000, 14000, 15000], "rlnDefocusV": [11000] * N, "rlnDefocusAngle": [5] * N}


def refined(name, **changes):
    columns = particle_columns([f"J1/extract/{UID}_a.mrc"] * N, range(N)) | {
        "blob/sign": np.full(N, 1, "f4"),
        "alignments3D/pose": np.linspace(-1, 1, 3 * N).reshape(N, 3).astype("f4"),
        "alignments3D/shift": np.ones((N, 2), "f4"),
        "alignments3D/psize_A": np.full(N, 1.5, "f4"),
        "alignments3D/class": np.array([0, 0, 1, 2], "u4"),
    }
    return save_cs(Path(name), columns | changes)


def located(name, **changes):
    columns = {
        "uid": np.arange(N, dtype="u8") + 2**63,
        "location/micrograph_path": np.array(["J2/a.mrc"] * N),
        "location/micrograph_shape": np.tile(np.array([400, 600], "u4"), (N, 1)),
        "location/center_x_frac": np.linspace(0.1, 0.6, N, dtype="f4"),
        "location/center_y_frac": np.linspace(0.2, 0.9, N, dtype="f4"),
    }
    return save_cs(Path(name), columns | changes)


def star(name, **changes):
    names = [f"{row + 1:06d}@Extract/a.mrcs" for row in range(N)]
    columns = {"rlnImageName": names, **LENS, **SIZES, **DEFOCUS, "rlnClassNumber": [1, 1, 2, 4], **changes}
    return save_star(Path(name), "particles", {key: value for key, value in columns.items() if value is not None})


def stack(name):
    return save_mrc(Path(name), noise_images(N, 16), 1.5)


def dump(name, value):
    Path(name).write_bytes(pickle.dumps(value))
    return Path(name)


def convert_from_cryosparc():
    refined("alone/J5_003_particles.cs", **{"blob/sign": np.full(N, -1, "f4")})
    yield convert("alone/J5_003_particles.cs", "a.star", classes=(0, 1, 7))
    yield convert("alone/J5_003_particles.cs", "p", to="pickles", classes=(0,))
    yield convert("alone/J5_003_particles.cs", "p", to="pickles", overwrite=True)
    stack(f"J1/extract/{UID}_a.mrc")
    refined("J5/J5_003_particles.cs")
    located("J5/J5_passthrough_particles.cs")
    yield convert("J5", "b.star")
    yield convert("J5/J5_passthrough_particles.cs", "c.star")
    yield convert("J5", "d.star", link_stacks="links")
    stack(f"here/J1/extract/{UID}_a.mrc")
    refined("here/J6_particles.cs", **{"blob/path": np.array([f">J1/extract/{UID}_a.mrc"] * N)})
    located("here/J6_passthrough_particles.cs", uid=np.arange(N, dtype="u8"))
    yield convert("here/J6_particles.cs", "far/e.star", strip_prefix="J1")
    refined("other.cs", **{"alignments3D/pose": np.full((N, 3), 0.5, "f4"), "ctf/scale": np.ones(N, "f4")})
    yield convert(["J5/J5_003_particles.cs", "other.cs"], "f.star")
    refined("few/J8_particles.cs")
    located("few/J8_passthrough_particles.cs", uid=np.arange(N, dtype="u8") + 2**63 + 1)
    yield convert("few/J8_particles.cs", "i.star")
    zeros = {"location/center_x_frac": np.zeros(N, "f4"), "location/center_y_frac": np.zeros(N, "f4")}
    refined("zero/J7_particles.cs")
    located("zero/J7_passthrough_particles.cs", **zeros)
    yield convert("zero/J7_particles.cs", "g.star")
    flat = {"alignments3D/pose": np.tile(np.array([0, 0, 0.5], "f4"), (N, 1)), "blob/shape": np.zeros((N, 2), "u4")}
    refined("flat.cs", **flat, **{"ctf/tilt_A": np.ones((N, 2), "f4")})
    yield convert("flat.cs", "h.star", aberrations=True)


def convert_around_other_centres():
    refined("J5/J5_003_particles.cs")
    located("J5/J5_passthrough_particles.cs", **{"location/micrograph_psize_A": np.full(N, 1.5, "f4")})
    yield convert("J5", "a.star", center_A=(0, 0, 30), symmetry="D2")
    yield convert("J5", "b.star", center_A=(0, 1, 30), symmetry="D2")
    refined("J6/J6_003_particles.cs")
    located("J6/J6_passthrough_particles.cs")
    save_mrc(Path("J2/a.mrc"), np.zeros((1, 400, 600), "i1"), 0.9)
    yield convert("J6", "c.star", recenter=True)


def convert_from_relion():
    Path("default_pipeline.star").touch()
    stack("Extract/a.mrcs")
    place = {"rlnMicrographName": ["m.mrc"] * N, "rlnCoordinateX": [10] * N, "rlnCoordinateY": [20] * N}
    star("a.star", **POSES, **place, rlnRandomSubset=[0, 1, 2, 1])
    yield convert("a.star", "a.cs")
    yield convert("a.star", "b.star", link_stacks="links")
    yield convert("a.star", "c.cs", link_stacks="links", contrast="bright")
    star("um.star", rlnDefocusU=[1.2] * N, rlnDefocusV=[1.1] * N)
    yield convert("um.star", "d.star")
    star("nm.star", rlnImagePixelSize=[0.15] * N)
    yield convert("nm.star", "e.star")
    star("sizes.star", rlnImageSize=None)
    yield convert("sizes.star", "f.star")
    text = star("more.star").read_text()
    Path("more.star").write_text(text + "\ndata_mine\n\n_note there\n\n")
    yield convert("more.star", "g.star")


def convert_from_pickles():
    images = stack("p.mrcs")
    poses = dump("poses.pkl", (np.tile(np.eye(3, dtype="f4"), (N, 1, 1)), np.zeros((N, 2), "f4")))
    table = np.array([[32, 0.75, 12000, 11000, 5, 300, 2.7, 0.1, 0]] * N, "f4")
    yield convert([images, poses, dump("ctf.pkl", table), dump("ind.pkl", np.array([0, 2]))], "a.star")


def select_rows():
    stack("Extract/a.mrcs")
    star("a.star")
    yield select_files("a.star", "b.star", rows=[2, 0])
    yield select_files("a.star", "c.star", classes=(1, 3))
    yield select_files("a.star", "d.star", kmeans=dump("k.pkl", np.array([0, 1, 0, 1])), clusters=(1,))
    yield select_files("a.star", "e.star", attach_class="k.pkl")
    np.save("z.npy", np.ones((N, 2)))
    yield select_files("a.star", "f.star", attach_latent="z.npy")
    star("project/p.star", rlnImageName=[f"{row + 1:06d}@Own/p.mrcs" for row in range(N)])
    stack("project/Own/p.mrcs")
    yield select_files("project/p.star", "far/g.star", where="rlnDefocusU > 12500")
    refined("J5/J5_003_particles.cs", **{"blob/path": np.array(["J1/elsewhere/a.mrc"] * N)})
    two_d = {"alignments2D/class": np.arange(N, dtype="u4"), "alignments2D/pose": np.zeros(N, "f4")}
    located("J5/J5_passthrough_particles.cs", **two_d)
    yield select_files("J5/J5_003_particles.cs", "h.cs", like="b.star")
    yield select_files("b.star", "j.star", like="a.star")
    yield select_files("J5/J5_003_particles.cs", "i.cs", classes=(0,))
    star("small/s.star", rlnImageName=[f"{row + 1:06d}@s.mrcs" for row in range(N)])
    lines = [f"{row + 1:06d}@s.mrcs,{row},J1/elsewhere/a.mrc,{row},{2**63 + row}" for row in range(N)]
    Path("small/s_sources.csv").write_text("\n".join(["image,source_row,source_file,source_slice,uid", *lines, ""]))
    yield select_files("small/s.star", "small/t.star", like="h.cs")


def select_run():
    from recovar_runs import simulate_run

    run = simulate_run(Path("recovar"))
    yield select_files(None, "a.star", run=run.out, zdim=2, clusters=(0,))
    shuffled = Path("shuffled.star")
    shuffled.write_text(run.particles.read_text().replace("@particles", "@/elsewhere/particles"))
    yield select_files(shuffled, "b.star", run=run.out, clusters=(0,))
    # The file ends with the last particle that the run used; its images have other names.
    lines = run.particles.read_text().rstrip().splitlines()
    used = "\n".join(lines[: len(lines) - 30 + run.rows[-1] + 1])
    Path("used.star").write_text(re.sub(r"@\S+", "@other.mrcs", used) + "\n\n")
    labels = next(run.analysis.rglob("kmeans_result.pkl"))
    yield select_files("used.star", "c.star", kmeans=labels, clusters=(0,))


def find_coordinates():
    stems = ["a", "a", "a", "b"]
    columns = location(stems, [(0.2, 0.3), (0.4, 0.5), (0.6, 0.8), (0.7, 0.4)])
    save_micrographs(Path("m.star"), stems)
    yield cryobridge.coords(save_cs(Path("p.cs"), columns), "m.star", "named")
    renamed = {name.replace("center_", "at_").replace("_frac", ""): values for name, values in columns.items()}
    save_cs(Path("renamed.cs"), renamed)
    yield cryobridge.coords("renamed.cs", "m.star", "inferred")
    yield cryobridge.coords("renamed.cs", "m.star", "placed", nudge=False)
    scores = {"pick_stats/ncc_score": np.linspace(0.1, 0.4, N, dtype="f4"), "pick_stats/angle_rad": np.zeros(N, "f4")}
    yield cryobridge.coords(save_cs(Path("scored.cs"), columns | scores), "m.star", "CtfFind/job003")
    save_micrographs(Path("more.star"), [*stems, "c"])
    yield cryobridge.coords("p.cs", "more.star", "more", picks_only=True)


def watch_classes():
    assignments = [dict.fromkeys(range(60), 1) | dict.fromkeys(range(n), 2) for n in (30, 20, 10, 5, 4)]
    for number, classes in enumerate(assignments, 1):
        write_iteration(Path("Class3D/job004"), number, classes)
    yield cryobridge.converge("Class3D/job004", dry_run=True)
    write_iteration(Path("job"), 1, assignments[0])
    write_iteration(Path("job"), 3, assignments[1], figures=False)
    write_iteration(Path("job"), 3, assignments[2], run_name="run_ct1")
    yield cryobridge.converge("job", dry_run=True)
    few = {particle: number for particle, number in assignments[2].items() if particle % 7}
    for number, classes in enumerate((assignments[0], few, assignments[2]), 1):
        write_iteration(Path("absent"), number, classes)
    yield cryobridge.converge("absent", dry_run=True)
    save_kept_iterations(Path("J2"), assignments)
    yield cryobridge.converge("J2", dry_run=True)


def make_stacks():
    stack("Extract/a.mrcs")
    star("a.star", **POSES)
    yield cryobridge.stacks("a.star", "a", dry_run=True)
    yield cryobridge.stacks("a.star", "a", dry_run=True, part="1/2")
    star("unknown.star", rlnImagePixelSize=None, rlnAmplitudeContrast=None)
    yield cryobridge.stacks("unknown.star", "b", dry_run=True)
    star("other.star", rlnImagePixelSize=[2.5] * N)
    yield cryobridge.stacks("other.star", "c", dry_run=True)
    names = [f"{row + 1:06d}@Extract/{name}.mrcs" for row, name in enumerate(["a", "a", "gone", "a"])]
    star("gone.star", rlnImageName=names)
    yield cryobridge.stacks("gone.star", "d", dry_run=True, on_missing="skip")
    yield cryobridge.stacks([("a.star", "Extract/a.mrcs")], "e", dry_run=True)
    star("mixed.star", rlnVoltage=[300, 200] * (N // 2))
    yield cryobridge.stacks("mixed.star", "f", dry_run=True, split_optics=True)


def make_images_smaller():
    stack("Extract/a.mrcs")
    star("a.star")
    yield cryobridge.downsample("a.star", "a", box_px=8, dry_run=True)
    yield cryobridge.downsample("a.star", "b", box_px=16, dry_run=True)
    dump("Extract/poses.pkl", (np.tile(np.eye(3, dtype="f4"), (N, 1, 1)), np.zeros((N, 2), "f4")))
    yield cryobridge.downsample("Extract/a.mrcs", "c", box_px=8, dry_run=True)
    stack(f"J1/extract/{UID}_a.mrc")
    refined("J5/J5_003_particles.cs", **{"blob/sign": np.full(N, -1, "f4")})
    located("J5/J5_passthrough_particles.cs")
    yield cryobridge.downsample("J5", "d", box_px=8, dry_run=True)


def inspect_files():
    star("none.star")
    yield cryobridge.inspect("none.star")
    values = np.array([1e4, np.nan, np.inf, 1.2], "f4")
    refined("J5/J5_003_particles.cs", uid=np.zeros(N, "u8"), **{"ctf/df1_A": values})
    yield cryobridge.inspect("J5/J5_003_particles.cs")
    write_iteration(Path("Class3D/job004"), 1, dict.fromkeys(range(6), 1))
    write_iteration(Path("Class3D/job004"), 4, dict.fromkeys(range(6), 1), figures=False)
    Path("Class3D/job004/run_it004_optimiser.star").touch()
    yield cryobridge.inspect("Class3D/job004")
    images = stack("cut.mrcs")
    images.write_bytes(images.read_bytes()[:-300])
    yield cryobridge.inspect(images)
    glued = star("glued.star").read_text().replace("_rlnImageName #1", "_rlnImageName#1").replace("\n", "\r\n")
    Path("glued.star").write_text(glued, newline="")
    yield cryobridge.inspect("glued.star")
    Path("J7").mkdir()
    Path("J7/job.json").write_text("{")
    refined("J7/J7_003_particles.cs")
    yield cryobridge.inspect("J7")


CASES = (
    convert_from_cryosparc,
    convert_around_other_centres,
    convert_from_relion,
    convert_from_pickles,
    select_rows,
    select_run,
    find_coordinates,
    watch_classes,
    make_stacks,
    make_images_smaller,
    inspect_files,
)


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def codes_in_source():
    """The codes of messages that the source makes."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if path.is_relative_to(SOURCE / "cli"):
            continue
        for node in ast.walk(tree_of(path)):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1
            if is_call and node.func.id in {"note", "warning"} and isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
    return found


def snapshot(messages):
    """The text of the file: each code with its texts, then the codes of the source that no run shows."""
    texts = {}
    for message in messages:
        texts.setdefault((message.code, message.severity), {})[shown(message.text, flag)] = None
    lines = []
    for (code, severity), said in sorted(texts.items()):
        lines += [f"{code} ({severity})", *(f"    {text}" for text in said), ""]
    absent = sorted(codes_in_source() - {code for code, _ in texts})
    return "\n".join([*lines, NOT_SHOWN, *(f"    {code}" for code in absent), ""])


def test_the_wording_is_as_it_was(tmp_path, monkeypatch):
    messages = []
    for case in CASES:
        folder = tmp_path / case.__name__
        folder.mkdir()
        monkeypatch.chdir(folder)
        for report in case():
            messages += getattr(report, "all_messages", report.messages)  # those of columns too
    now = snapshot(messages).replace(str(tmp_path), "/data")
    if os.environ.get("UPDATE_WORDING"):
        SNAPSHOT.write_text(now, encoding="utf-8")
    # Which codes are not shown is for the reader of the file: a new one fails no test.
    before = SNAPSHOT.read_text(encoding="utf-8").partition(NOT_SHOWN)[0]
    assert now.partition(NOT_SHOWN)[0] == before, "UPDATE_WORDING=1 writes tests/wording.txt anew"


def test_codes_are_words_with_hyphens():
    assert not [code for code in codes_in_source() if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)]


def test_texts_are_sentences_without_full_stop():
    said = [line for line in SNAPSHOT.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]
    assert not [line for line in said if line.endswith((".", " ")) and not line.endswith(("..", " ."))]
    assert not [line for line in said if "\x1f" in line]


# Nouns that are counted in texts, with a verb that may follow.
_COUNTED = re.compile(
    r" (particles|rows|images|stacks|files|picks|micrographs|groups|columns|classes|values|copies|iterations|sections"
    r"|uids|labels|centres|tasks|inputs|matrices|bytes)\b"
)
# Lines of other programs, and numbers that are never one.
_NEVER_ONE = (
    "demo/truth.py",  # simulated data are many
    "converge/tables.py",  # to the letter as reliosparc wrote it
    "converge/verdict.py",
    "formats/arrays.py",
    "formats/cryosparc/csdat.py",
    "options.py",
    "formats/mrc.py",
    "formats/table.py",
    "formats/relion/star_text.py",
    "formats/recovar/input.py",
    "selection/parts.py",
    "stacks/parts.py",
    "stacks/shares.py",
)


def plurals_without_counting(path):
    """Texts that have a number and a plural, whatever the number; a condition around them is taken for a guard."""
    tree = tree_of(path)
    guarded = {id(part) for node in ast.walk(tree) if isinstance(node, ast.IfExp) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr) or id(node) in guarded:
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            is_number = isinstance(value, ast.FormattedValue) and value.format_spec is not None
            is_number = is_number and ast.unparse(value.format_spec) == "f','"
            if is_number and isinstance(text, ast.Constant) and _COUNTED.match(text.value):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}: {text.value[:60]}"


def test_one_particle_is_no_particles():
    """What is counted goes through `counted` or `part_of`, which know that one particle *is*."""
    paths = [path for path in SOURCE.rglob("*.py") if not path.as_posix().endswith(_NEVER_ONE)]
    assert not [found for path in paths for found in plurals_without_counting(path)]
