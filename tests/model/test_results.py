"""Results of a method, in an order of its own, become columns of the particles that they belong to."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.model.particles import Labels, ParticleSet

N = 6
UID = np.array([2**64 - 1, 2**63, 2**63 - 1, 0, 1, 2**40], np.uint64)  # over all 64 bits
ORDER = np.array([3, 0, 5, 2, 1, 4])
LATENT = np.arange(2.0 * N).reshape(N, 2)


def particles(**parts):
    return ParticleSet(N, Path("a.cs"), **{"uid": UID, **parts})


def shuffled(values):
    return values[ORDER]


@pytest.mark.parametrize(
    "uid",
    [
        UID[ORDER],
        UID[ORDER].view(np.int64),
        torch.from_numpy(UID[ORDER].view(np.int64)),
        UID[ORDER].tolist(),
        UID[ORDER].astype(">u8"),
    ],
    ids=["uint64", "int64", "tensor", "list", "big-endian"],
)
def test_results_in_any_order_come_to_their_particles_by_uid(uid):
    found = particles().with_columns(latent=LATENT[ORDER], cluster=ORDER, score=ORDER / 2, uid=uid)
    assert found.uid.tolist() == UID.tolist()
    assert found.latent.tolist() == LATENT.tolist()
    assert found.cluster.tolist() == list(range(N)) and found.class_number.tolist() == list(range(1, N + 1))
    assert found.columns["score"].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


@pytest.mark.parametrize("row", [ORDER, torch.from_numpy(ORDER), ORDER.astype(np.uint32), ORDER.tolist()])
def test_results_in_any_order_come_to_their_particles_by_row(row):
    found = particles(uid=None).with_columns(latent=LATENT[ORDER], name=Labels.of("abcdef").take(ORDER), row=row)
    assert found.latent.tolist() == LATENT.tolist()
    assert found.columns["name"].to_numpy().tolist() == list("abcdef")


def test_without_uid_or_row_the_order_is_that_of_the_set():
    assert particles().with_columns(cluster=[2, 0, 1, 1, 0, 2]).cluster.tolist() == [2, 0, 1, 1, 0, 2]
    with pytest.raises(UsageError, match="cluster: 4 values for 6 particles") as caught:
        particles().with_columns(cluster=[0, 1, 2, 3])
    assert "by uid= or row=" in caught.value.hint


def test_tensors_come_from_where_they_are():
    model = torch.nn.Linear(2, 2, dtype=torch.float32)
    z = model(torch.ones(N, 2))
    assert z.requires_grad
    np.testing.assert_array_equal(particles().with_columns(latent=z).latent, z.detach().double().numpy())
    half = z.to(torch.bfloat16)
    np.testing.assert_array_equal(particles().with_columns(latent=half).latent, half.detach().double().numpy())
    one = particles().with_columns(latent=np.arange(N), cluster=torch.arange(N, dtype=torch.uint8))
    assert one.latent.shape == (N, 1) and one.class_number.dtype == np.int64


def test_a_certain_class_has_the_probability_1():
    classified = particles(class_number=np.ones(N, np.int64), class_posterior=np.full(N, 0.5))
    assert classified.with_columns(cluster=[1] * N).class_posterior.tolist() == [1] * N
    assert particles().with_columns(cluster=[1] * N).class_posterior is None


def test_particles_without_a_result_are_an_error_unless_they_are_to_be_left_out():
    some = {"latent": LATENT[ORDER[:4]], "uid": UID[ORDER[:4]]}
    with pytest.raises(MissingDataError, match="2 of 6 particles have no result") as caught:
        particles().with_columns(**some)
    assert (caught.value.count, caught.value.rows) == (2, (1, 4))
    assert "unmatched='drop'" in caught.value.hint
    found = particles().with_columns(**some, unmatched="drop")
    assert found.uid.tolist() == UID[[0, 2, 3, 5]].tolist()
    assert found.latent.tolist() == LATENT[[0, 2, 3, 5]].tolist()
    with pytest.raises(MissingDataError, match="6 of 6 particles have no result"):
        particles().with_columns(cluster=[], uid=[], unmatched="drop")


def test_noise_and_what_is_no_number_is_no_result():
    latent = LATENT.copy()
    for number in (np.inf, 1e39, np.nan):  # cryoSPARC's numbers end at 3e38
        latent[2, 1] = number
        with pytest.raises(
            MissingDataError, match="1 of 6 particles has no result, 1 of them with a negative label or"
        ):
            particles().with_columns(latent=latent)
    found = particles().with_columns(latent=latent, cluster=[0, 1, 0, -1, 0, 1], unmatched="drop")
    assert found.uid.tolist() == UID[[0, 1, 4, 5]].tolist()
    assert found.cluster.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("more", "message", "count"),
    [
        ({"uid": [*UID[:3], 7, 8, 9]}, "3 of 6 uids are not in the set: 7, 8, 9", 3),
        ({"uid": UID[[0, 1, 2, 3, 3, 0]]}, "2 particles have several values: uid 0, say", 2),
        ({"row": [0, 1, 2, 3, 4, 4]}, "1 particle has several values: row 4, say", 1),
        ({"row": [0, 1, 2, 3, 4, 6]}, "1 of 6 rows is not in the set, which has rows 0 to 5: 6, say", 1),
        ({"row": [0, 1, 2, 3, -2, -1]}, "2 of 6 rows are not in the set, which has rows 0 to 5: -2, say", 2),
        ({"row": [0, 1]}, "6 values, row= names 2 particles", None),
        ({"uid": UID.astype(np.float64)}, r"whole numbers \(n,\) are needed, not float64 of shape \(6,\)", None),
        ({"uid": np.arange(N, dtype=np.int32)}, "uids have 64 bits, these are int32", None),
        ({"row": np.arange(N), "uid": UID}, "by uid or by row, not by both", None),
        ({"unmatched": "keep"}, "'keep' is not known", None),
    ],
)
def test_particles_that_are_named_wrongly_are_counted(more, message, count):
    with pytest.raises(UsageError, match=message) as caught:
        particles().with_columns(cluster=[0] * N, **more)
    assert caught.value.count == count and caught.value.hint


def test_uids_tell_particles_apart_or_are_refused():
    with pytest.raises(UsageError, match="the particles have no uid"):
        particles(uid=None).with_columns(cluster=[0], uid=[1])
    with pytest.raises(UsageError, match="the set has 1 uid more than once"):
        particles(uid=np.array([1, 2, 3, 4, 5, 5], np.uint64)).with_columns(cluster=[0], uid=[1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latent": np.zeros((N, 2, 2))}, r"a table of numbers is needed, not an array of \(6, 2, 2\)"),
        ({"latent": np.zeros((N, 0))}, "a table of numbers"),
        ({"latent": [["a", "b"]] * N}, "numbers are needed"),
        ({"latent": np.zeros((N, 2), complex)}, "numbers are needed"),
        ({"cluster": [0.5] * N}, "whole numbers are needed"),
        ({"cluster": np.full(N, np.nan)}, "whole numbers are needed"),
        ({"cluster": np.zeros((N, 1), int)}, "one value a particle is needed"),
    ],
)
def test_values_of_another_kind_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        particles().with_columns(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score": np.ones(N, complex)}, "score: one value a particle is needed"),
        ({"score": [[1], [1, 2]] * 3}, "score: one value a particle is needed"),
        ({"latent": [[1], [1, 2]] * 3}, "latent: a table of numbers is needed"),
        ({"ctf": np.ones(N)}, "'ctf' is no name for a column"),
        ({"my score": np.ones(N)}, "my score: 'my score' is no name for a column"),
        ({"cluster": [0] * N, "class_number": [1] * N}, "cluster: it is the class, which is given twice"),
    ],
)
def test_columns_that_can_not_be_are_refused_at_once(values, message):
    with pytest.raises(UsageError) as caught:
        particles().with_columns(**values)
    assert message in str(caught.value)


def test_a_table_for_notebooks_has_the_coordinates():
    found = particles().with_columns(latent=LATENT).to_pandas()
    assert found["latent_2"].tolist() == LATENT[:, 1].tolist()
    assert "2 of each" in particles().with_columns(latent=LATENT)._repr_html_()


def test_sets_are_put_together_with_their_coordinates_where_they_have_as_many():
    first, second = (
        particles().with_columns(latent=LATENT),
        particles(uid=UID + np.uint64(2)).with_columns(latent=-LATENT),
    )
    assert (first + second).latent.tolist() == [*LATENT.tolist(), *(-LATENT).tolist()]
    for other in (particles(), particles().with_columns(latent=LATENT[:, :1])):
        both = first + other
        assert both.latent is None
        assert "latent coordinates" in " ".join(map(str, both.messages))
