"""Every command opens the same files of the same input: members, rows and columns."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError
from cryobridge.formats import open as opening
from cryobridge.formats.cryosparc.csg import read_csg, write_csg
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.open import open_particles
from cryobridge.formats.write import write_as_read
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.convert.plan import plan_convert
from cryobridge.jobs.coords.picks import read_picks
from cryobridge.jobs.inspection.describe import inspect
from cryobridge.jobs.selection.choose import select_files
from cryobridge.jobs.selection.options import SelectOptions
from cryobridge.jobs.selection.plan import plan_select
from cryobridge.jobs.selection.write import SelectJob
from cryobridge.jobs.stacks.cropping.inputs import read_downsample_input
from cryobridge.jobs.stacks.inputs import files_input, open_for_stacks
from cryobridge.jobs.stacks.options import DownsampleOptions
from helpers import noise_images, particle_columns, save_cs, save_mrc, save_star, texts

N = 6
MAIN, PASSED, RENAMED = "J5_003_particles.cs", "J5_passthrough_particles.cs", "mine.cs"
SLOTS = ("blob", "ctf", "alignments3D", "location")


def computed(uid=None):
    columns = particle_columns(["J1/extract/a.mrc"] * N, range(N))
    columns |= {
        "alignments3D/pose": np.linspace(-2, 2, 3 * N).reshape(N, 3).astype("f4"),
        "alignments3D/shift": np.zeros((N, 2), "f4"),
        "alignments3D/psize_A": np.full(N, 1.5, "f4"),
    }
    return columns if uid is None else columns | {"uid": uid}


def located(rows=slice(None)):
    order = np.arange(N)[::-1][rows]
    n = len(order)
    return {
        "uid": order.astype("u8") + 2**63,
        "location/micrograph_path": np.array(["J2/motioncorrected/a.mrc"] * n),
        "location/micrograph_shape": np.tile(np.array([400, 600], "u4"), (n, 1)),
        "location/micrograph_psize_A": np.full(n, 0.75, "f4"),
        "location/center_x_frac": np.linspace(0.1, 0.6, N, dtype="f4")[order],
        "location/center_y_frac": np.linspace(0.2, 0.9, N, dtype="f4")[order],
    }


def group(folder, passed):
    slots = {slot: (f"particle.{slot}", passed if slot == "location" else MAIN) for slot in SLOTS}
    write_csg(folder / "J5_particles.csg", slots, N, title="Mine")
    return folder / "J5_particles.csg"


def job_json(folder, passed):
    def result(slot):
        file, is_passed = (passed, True) if slot == "location" else (MAIN, False)
        return {
            **{"name": slot, "type": f"particle.{slot}", "group_name": "particles", "passthrough": is_passed},
            **{"metafiles": [f"J5/{file}"], "versions": [3], "num_items": [N]},
        }

    content = {"uid": "J5", "output_result_groups": [{"name": "particles", "type": "particle"}]}
    content["output_results"] = [result(slot) for slot in SLOTS]
    (folder / "job.json").write_text(json.dumps(content))


@pytest.fixture
def job(tmp_path):
    save_mrc(tmp_path / "J1" / "extract" / "a.mrc", noise_images(N, 16), 1.5)
    save_cs(tmp_path / "J5" / MAIN, computed())
    save_cs(tmp_path / "J5" / "J5_002_particles.cs", computed())
    save_cs(tmp_path / "J5" / PASSED, located())
    return tmp_path / "J5"


def renamed(job):
    (job / PASSED).rename(job / RENAMED)
    return RENAMED


# What each input is, and which files are joined.
def by_names(job):
    return job / MAIN, (MAIN, PASSED)


def older_iteration(job):
    return job / "J5_002_particles.cs", ("J5_002_particles.cs", PASSED)


def passthrough(job):
    return job / PASSED, (MAIN, PASSED)


def result_group(job):
    return group(job, renamed(job)), (MAIN, RENAMED)


def file_of_a_group(job):
    group(job, renamed(job))
    return job / MAIN, (MAIN, RENAMED)


def job_by_names(job):
    return job, (MAIN, PASSED)


def job_described(job):
    job_json(job, renamed(job))
    return job, (MAIN, RENAMED)


def file_of_a_described_job(job):
    job_json(job, renamed(job))
    return job / MAIN, (MAIN, RENAMED)


def group_of_an_absent_file(job):
    group(job, "gone.cs")
    return job / MAIN, (MAIN, PASSED)


def cut_group(job):
    path = group(job, PASSED)
    path.write_bytes(path.read_bytes()[:90])
    return job / MAIN, (MAIN, PASSED)


def cut_passthrough(job):
    (job / PASSED).write_bytes((job / PASSED).read_bytes()[:-9])
    return job / MAIN, (MAIN,)


def selection(job):
    select_files(job / MAIN, job.parent / "S" / "sub.cs", where="uid > 0")
    return job.parent / "S" / "sub.cs", ("sub.cs", "sub_passthrough.cs")


INPUTS = (
    *(by_names, older_iteration, passthrough, result_group, file_of_a_group, job_by_names, job_described),
    *(file_of_a_described_job, group_of_an_absent_file, cut_group, cut_passthrough, selection),
)
COMMANDS = {
    "convert": lambda path, out: plan_convert(path, out / "a.star"),
    "select": lambda path, out: plan_select(path, out / "a.cs", SelectOptions(random=2)),
    "select --like": lambda path, out: plan_select(path, out / "a.cs", SelectOptions(like=path)),
    "coords": lambda path, _: read_picks(path),
    "stacks": lambda path, _: open_for_stacks(path, "cryosparc"),
    "downsample": lambda path, _: read_downsample_input(path, ImageSearch(path), DownsampleOptions(box_px=8)),
    "inspect": lambda path, _: inspect(path),
}


@pytest.mark.parametrize("make", INPUTS, ids=lambda make: make.__name__)
def test_every_command_sees_the_same_members_rows_and_columns(job, tmp_path, monkeypatch, make):
    path, names = make(job)
    seen = []
    original = opening._opened
    monkeypatch.setattr(opening, "_opened", lambda *words: seen.append(original(*words)) or seen[-1])
    expected = {
        name for name in names for name in np.load((job.parent / "S" if make is selection else job) / name).dtype.names
    }
    for command, call in COMMANDS.items():
        seen.clear()
        try:
            call(path, tmp_path / "out")
        except CryobridgeError:
            assert make is cut_passthrough  # coordinates are in it
        assert seen or make is passthrough, command  # inspect describes that file itself
        for files in seen:
            assert tuple(table.path.name for table, _ in files.members) == names, command
            assert (files.n_rows, len(files), dict(files.left_out)) == (N, N, {}), command
            assert set(files.columns.names) == expected, command


@pytest.mark.parametrize(
    ("make", "named"),
    [(group_of_an_absent_file, "gone.cs"), (cut_group, "J5_particles.csg"), (cut_passthrough, PASSED)],
)
def test_files_that_could_not_be_read_are_named_by_every_command(job, tmp_path, make, named):
    path, _ = make(job)
    plan = plan_select(path, tmp_path / "out" / "a.cs", SelectOptions(where="uid > 0"))
    found = [open_particles(path).messages, plan.report().warnings, open_for_stacks(path, "cryosparc").messages]
    found.append(convert(path, tmp_path / "a.star").warnings)
    found.append(read_downsample_input(path, ImageSearch(path), DownsampleOptions(box_px=8)).messages)
    if make is not cut_passthrough:
        found.append(read_picks(path).messages)
    for messages in found:
        assert any(named in message.text for message in messages if message.severity == "warning")
    SelectJob(plan).run()
    assert read_csg(tmp_path / "out" / "a.csg").problems == ()


def test_a_passthrough_that_only_the_group_names_gives_convert_its_coordinates(job, tmp_path):
    path, _ = file_of_a_group(job)
    convert(path, tmp_path / "a.star")
    assert open_particles(tmp_path / "a.star").particles.locations.coordinate_px[0, 0] == pytest.approx(60)


def test_a_group_may_be_given_along_with_its_members(job, tmp_path):
    path = group(job, PASSED)
    report = convert([path, job / PASSED], tmp_path / "a.star")
    assert report.rows_out == N
    assert (tmp_path / "a.star").read_text() == _converted(path, tmp_path / "b.star")


def _converted(path, output):
    convert(path, output)
    return output.read_text()


def test_each_slot_of_a_group_comes_from_its_own_file_whichever_file_is_named(job):
    old = computed() | {"location/center_x_frac": np.full(N, 0.5, "f4")}
    save_cs(job / MAIN, old)
    path = group(job, PASSED)
    for given in (path, job / MAIN):
        table = open_particles(given).columns
        assert table.read(["location/center_x_frac"])["location/center_x_frac"][0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("lost", "use"),
    [
        ("blob", lambda group, out: convert(group, out / "a.star")),
        ("ctf", lambda group, out: convert(group, out / "a.star")),
        ("blob", lambda group, out: plan_select(group, out / "a.cs", SelectOptions(where="blob/idx > 3"))),
        ("ctf", lambda group, out: files_input(open_for_stacks(group), ImageSearch(group))),
        ("blob", lambda group, out: read_downsample_input(group, ImageSearch(group), DownsampleOptions(box_px=8))),
    ],
)
def test_what_fails_by_results_that_a_group_lost_names_the_group(lost, use, job, tmp_path):
    file = group(job, PASSED)
    content = yaml.safe_load(file.read_text())
    del content["results"][lost]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(CryobridgeError) as caught:
        use(file, tmp_path)
    hint = f"{file}: the group is damaged: it names no {lost}, which {MAIN} has; they are not read. Export the group"
    assert hint in caught.value.hint


def test_rows_that_are_lost_are_counted_or_refused(job, tmp_path):
    save_cs(job / PASSED, located(slice(0, 4)))
    files = open_particles(job / MAIN)
    assert (files.n_rows, len(files), files.file_rows.tolist()) == (N, 4, [2, 3, 4, 5])
    assert files.left_out == {"uid not in the joined files": 2}
    with pytest.raises(MissingDataError, match=f"2 of 6 uids are not in {PASSED}"):
        files.require_all_rows()
    # Who needs nothing of it keeps all rows, and says so.
    files = open_for_stacks(job / MAIN, "cryosparc")
    assert len(files) == N
    assert any(PASSED in note and "lacks 2 of its uids" in note for note in texts(files.messages))
    assert len(read_picks(job / MAIN)) == 4


def test_rows_of_a_passthrough_file_are_counted_in_it(job, tmp_path):
    np.save(tmp_path / "ind.npy", np.array([0, 1]))
    plan = plan_select(job / PASSED, tmp_path / "a.cs", SelectOptions(rows=tmp_path / "ind.npy"))
    SelectJob(plan).run()
    assert np.load(tmp_path / "a.cs")["uid"].tolist() == sorted(located()["uid"][:2].tolist())


def test_a_file_by_itself(job):
    files = open_particles(job / PASSED, join=False)
    assert [table.path.name for table, _ in files.members] == [PASSED]


def relion_columns():
    columns = {"rlnImageName": [f"{n + 1:06d}@Extract/job002/a.mrcs" for n in range(N)]}
    columns |= {"rlnVoltage": [300] * N, "rlnSphericalAberration": [2.7] * N, "rlnAmplitudeContrast": [0.1] * N}
    columns |= {"rlnDefocusU": [10000] * N, "rlnDefocusV": [9900] * N, "rlnDefocusAngle": [30] * N}
    columns |= {"rlnImagePixelSize": [1.5] * N, "rlnImageSize": [16] * N}
    return columns | {"rlnClassNumber": [1 + n % 2 for n in range(N)]}


@pytest.fixture
def relion_job(tmp_path):
    folder = tmp_path / "relion" / "Class2D" / "job004"
    save_mrc(tmp_path / "relion" / "Extract" / "job002" / "a.mrcs", noise_images(N, 16), 1.5)
    for number in (19, 20):
        save_star(folder / f"run_it{number:03d}_data.star", "particles", relion_columns())
    (folder / "RELION_JOB_EXIT_SUCCESS").touch()
    return folder


def test_a_relion_job_is_taken_wherever_cryosparcs_are_and_which_file_is_said(relion_job, tmp_path):
    last = "Class2D/job004: the particles are those of run_it020_data.star, the last iteration (20)"
    report = convert(relion_job, tmp_path / "x.cs")
    assert report.rows_out == N
    assert last in map(str, report.notes)
    plan = plan_select(relion_job, tmp_path / "a.star", SelectOptions(classes=(1,)))
    assert (plan.report().rows_out, last in texts(plan.report().notes)) == (3, True)
    assert last in texts(open_for_stacks(relion_job, "relion").messages)
    found = read_downsample_input(relion_job, ImageSearch(relion_job), DownsampleOptions(box_px=8))
    assert last in texts(found.messages)
    assert inspect(relion_job).kind == "relion job"
    with pytest.raises(UsageError, match="this is a RELION job"):
        read_picks(relion_job)
    save_star(relion_job / "run_data.star", "particles", relion_columns())
    notes = texts(open_particles(relion_job).messages)
    assert "Class2D/job004: the particles are those of run_data.star" in notes


def test_an_output_of_ours_is_taken_for_the_particles_in_it(tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"program": "cryobridge"}))
    save_star(tmp_path / "particles.128.star", "particles", relion_columns())
    files = open_particles(tmp_path)
    assert (files.program, len(files), files.metadata.name) == ("relion", N, "particles.128.star")


def test_a_stack_and_its_pickles_in_any_order(relion_job, tmp_path):
    stack = tmp_path / "relion" / "Extract" / "job002" / "a.mrcs"
    convert(relion_job / "run_it020_data.star", tmp_path / "p", to="pickles")
    files = open_particles(tmp_path / "p" / "ctf.pkl", stack)
    assert (files.program, files.table, len(files.particles)) == ("pickles", None, N)
    assert open_particles(stack).particles.ctf is None


def test_exposures_are_no_particles(tmp_path):
    n = 4
    columns = {
        "uid": np.arange(n, dtype="u8"),
        "micrograph_blob/path": [f"S4/motioncorrected/{row}.mrc" for row in range(n)],
        "ctf/df1_A": np.full(n, 9000, "f4"),
    }
    with pytest.raises(UsageError, match="these are 4 exposures, not particles"):
        convert(save_cs(tmp_path / "exposures.cs", columns), tmp_path / "a.star")


def test_what_is_no_particle_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(UsageError, match="not a particle file, but npy"):
        open_particles(tmp_path / "a.npy")
    (tmp_path / "a.csg").write_text(yaml.safe_dump({"results": {}, "group": {}}))
    with pytest.raises(FormatError):
        open_particles(tmp_path / "a.csg")


def test_particles_know_their_files_until_they_are_changed(job, relion_job, tmp_path):
    particles = open_particles(job / MAIN).particles
    rows = np.array([4, 1, 3])
    outputs = write_as_read(particles.take(np.arange(1, N)).take(rows - 1), tmp_path / "a.cs")
    assert [path.name for path in outputs] == ["a.cs", "a_passthrough.cs", "a.csg"]
    before, after = (open_particles(path).columns for path in (job / MAIN, tmp_path / "a.csg"))
    assert set(before.names) == set(after.names)
    for name in ("uid", "alignments3D/pose", "location/center_x_frac"):
        assert after.read([name])[name].tolist() == before.read([name])[name][rows].tolist()
    star = open_particles(relion_job).particles
    write_as_read(star.take(rows), tmp_path / "a.star")
    assert open_particles(tmp_path / "a.star").particles.images.index.tolist() == rows.tolist()
    changed = replace(particles, class_number=np.ones(N, int))
    for given, path in ((changed, "b.cs"), (particles, "b.star")):
        with pytest.raises(UsageError):
            write_as_read(given, tmp_path / path)
