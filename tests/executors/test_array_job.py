import pytest

from cryobridge.errors import UsageError
from cryobridge.executors.array_job import Part, all_in_a_task

SLURM = {
    "SLURM_ARRAY_TASK_ID": "5",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "3",
    "SLURM_ARRAY_TASK_MAX": "6",
    "SLURM_ARRAY_TASK_STEP": "1",
}
BY_THREES = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_MAX": "10",
    "SLURM_ARRAY_TASK_STEP": "3",
}
# --array=3,7, as when two parts that failed are submitted again
LIST = SLURM | {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MAX": "7"}


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("0/1", {}, Part(0, 1)),
        ("2/3", SLURM, Part(2, 3)),
        ("array", SLURM, Part(2, 4)),
        ("array", BY_THREES, Part(2, 4)),
        ("array/16", LIST, Part(7, 16)),
        ("array/16", {"PBS_ARRAY_INDEX": "0"}, Part(0, 16)),
        ("array", {"LSB_JOBINDEX": "1", "LSB_JOBINDEX_END": "8"}, Part(0, 8)),
        ("array/8", {"LSB_JOBINDEX": "8"}, Part(7, 8)),
    ],
)
def test_parts_are_counted_from_0_however_a_batch_system_counts_its_tasks(text, environment, part):
    assert Part.of(text, environment) == part


@pytest.mark.parametrize(
    ("text", "environment", "why"),
    [
        ("3/3", {}, "no part 3 of 3"),
        ("1/0", {}, "no part 1 of 0"),
        ("1", {}, "is no part"),
        ("-1/3", {}, "is no part"),
        ("array", {}, "no task of an array job"),
        ("array", {"LSB_JOBINDEX": "0"}, "no task of an array job"),
        ("array", {"PBS_ARRAY_INDEX": "2"}, "does not say how many"),
        ("array", LIST, "not numbered evenly"),
        ("array/4", {"PBS_ARRAY_INDEX": "4"}, "no part 4 of 4"),
    ],
)
def test_what_is_no_part_is_refused_with_what_to_give(text, environment, why):
    with pytest.raises(UsageError, match=why) as caught:
        Part.of(text, environment)
    assert caught.value.option == "part"
    assert caught.value.hint


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_each_task_is_in_one_part_and_parts_are_alike_in_size(count):
    tasks = list(range(13))
    parts = [Part(number, count) for number in range(count)]
    shares = [part.of_tasks(tasks) for part in parts]
    assert sorted(task for share in shares for task in share) == tasks
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for place, task in enumerate(tasks):
        assert task in parts[0].that_has(place).of_tasks(tasks)


@pytest.mark.parametrize(
    ("environment", "is_warned"),
    [
        ({}, False),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}, True),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1"}, False),
        ({"PBS_ARRAY_INDEX": "0"}, True),
        ({"LSB_JOBINDEX": "0"}, False),
        ({"LSB_JOBINDEX": "2", "LSB_JOBINDEX_END": "8"}, True),
    ],
)
def test_a_task_of_an_array_job_that_makes_all_stacks_is_warned(environment, is_warned):
    messages = all_in_a_task(environment)
    assert [message.code for message in messages] == ["array-without-part"] * is_warned
    assert all("part='array'" in str(message) for message in messages)
