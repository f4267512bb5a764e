"""How a target's lesions are divided for the adaptation curve: whole patients, in proportion, halves if it can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions
from radllm_backend.learning.adaptation import Cohort, divide
from Testing.support.cohorts import NAMES, lesions


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(6, 25), st.integers(0, 10**6), st.floats(0.2, 0.6))
def test_a_division_keeps_patients_whole_and_samples_in_proportion(each, patients, seed, share):
    random = np.random.default_rng(seed)
    groups = np.repeat([f"patient {number}" for number in range(patients)], each)
    labels = (random.random(len(groups)) < share).astype(int)
    labels[: 2 * each], labels[-2 * each :] = 0, 1
    data = Cohort("b.csv", Lesions(NAMES[:1], random.normal(size=(len(groups), 1)), labels, groups), "US")
    try:
        division = divide(data, (8, len(groups) // 3 + 4), seed)
    except RadllmError:
        return  # too few of a class; test_adaptation says which
    labelled, judges = division.labelled, division.judges
    assert sorted([*labelled, *judges]) == list(range(len(groups)))
    assert not set(groups[labelled]) & set(groups[judges])
    assert set(labels[judges]) == {0, 1}
    for size in range(1, len(labelled) + 1):
        assert abs(labels[labelled[:size]].sum() - size * labels[labelled].mean()) <= 1


def test_a_division_is_near_to_halves_as_long_as_the_largest_sample_fits():
    data = Cohort("b.csv", lesions(60), "US")
    assert [len(divide(data, (4, most), 0).judges) for most in (30, 31, 41, 54)] == [30, 20, 15, 6]


def test_another_seed_divides_anew_and_the_same_one_does_not():
    data = Cohort("b.csv", lesions(60), "US")
    first, again, other = (divide(data, (10,), seed) for seed in (3, 3, 4))
    assert (first.labelled == again.labelled).all()
    assert (np.sort(first.judges) != np.sort(other.judges)).any()
