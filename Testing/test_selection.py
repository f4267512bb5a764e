"""mRMR on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from radllm_backend.errors import RadllmError
from radllm_backend.selection import mrmr, select_features, usable_columns


def lesions(count=200):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    strong = labels + random.normal(0, 0.8, count)
    copy = strong + random.normal(0, 0.01, count)
    weak = labels + random.normal(0, 1.0, count)
    noise = random.normal(size=count)
    return np.column_stack([noise, strong, copy, weak]), labels


def test_a_copy_of_a_taken_feature_comes_after_a_weaker_one_of_its_own():
    values, labels = lesions()
    order = mrmr(values, labels, 3)
    assert order[0] in (1, 2)
    assert order[1] == 3


def test_units_do_not_matter():
    values, labels = lesions()
    scaled = values * [1e-6, 1e3, 1, 1e9] + [5, -3, 0, 1e6]
    assert mrmr(scaled, labels, 4) == mrmr(values, labels, 4)


def test_constant_and_incomplete_columns_are_never_taken():
    values, labels = lesions()
    spoiled = np.column_stack([values, np.full(len(labels), 3.0), np.where(labels == 1, np.nan, 0.0)])
    assert usable_columns(spoiled).tolist() == [True] * 4 + [False] * 2
    assert set(mrmr(spoiled, labels, 4)) == {0, 1, 2, 3}
    with pytest.raises(RadllmError, match="Only 4 features vary"):
        mrmr(spoiled, labels, 5)


def test_by_name_and_with_one_column():
    values, labels = lesions()
    assert select_features(["a"], values[:, :1], labels, 1) == ["a"]
    assert select_features(list("abcd"), values, labels, 2)[1] == "d"
