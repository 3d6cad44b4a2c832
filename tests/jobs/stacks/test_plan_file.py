import resource

import numpy as np

import cryobridge as cb
from cryobridge.jobs.shared_options import ImageSearchOptions
from cryobridge.jobs.stacks.inputs import read_stack_input
from cryobridge.jobs.stacks.options import StackOptions
from cryobridge.jobs.stacks.plan_file import read_plan, stored_plan
from cryobridge.jobs.stacks.polar.plan import plan_stacks
from helpers import noise_images, particle_columns, save_cs, save_mrc


def test_a_plan_of_more_stacks_than_a_process_may_open_files_comes_back(tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(4, 16), 1.5)
    particles = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 300, np.arange(300) % 4, box_px=16))
    plan = plan_stacks(read_stack_input(particles, ImageSearchOptions()), StackOptions(batch_size=1, plots=False))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with stored_plan(plan, tmp_path) as (place, fingerprint):
            read = read_plan(place, fingerprint)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [task.number for task in read.tasks] == list(range(300))
    for task, same in zip(plan.tasks, read.tasks, strict=True):
        assert same.rows.dtype == task.rows.dtype
        assert np.array_equal(same.rows, task.rows)
    assert read.descriptor == plan.descriptor
    assert not place.exists()


def test_a_plan_that_a_killed_run_left_goes_when_all_stacks_are_there_too(tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(4, 16), 1.5)
    particles = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 4, np.arange(4), box_px=16))
    options = {"batch_size": 2, "plots": False, "device": "cpu"}
    cb.stacks(particles, tmp_path / "out", **options)
    # Killed between the last stack and the record of the folder.
    record = tmp_path / "out" / "job.json"
    record.write_text(record.read_text().replace('"completed"', '"running"'))
    left = tmp_path / "out" / ".plan-0123456789abcdef"
    left.mkdir()
    (left / "plan.json").write_text("{}")
    assert cb.stacks(particles, tmp_path / "out", resume=True, **options).stacks_kept == 2
    assert not left.exists()
