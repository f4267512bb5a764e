"""How alike the selections of several folds are: by hand, by Kuncheva's index, by its formula and in simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from radllm_backend.learning.metrics import selection_stability


def kuncheva(selections, candidates):
    """Kuncheva's index, which Nogueira's is where all selections are equally large: by pairs of selections."""
    size = len(selections[0])
    agreement = [
        (len(set(one) & set(other)) * candidates - size**2) / (size * (candidates - size))
        for one, other in itertools.combinations(selections, 2)
    ]
    return np.mean(agreement)


def test_stability_is_kunchevas_index_where_all_selections_are_equally_large():
    random = np.random.default_rng(1)
    names = [f"feature {number}" for number in range(12)]
    selections = [random.choice(names, 4, replace=False, p=np.arange(1, 13) / 78).tolist() for _ in range(15)]
    assert selection_stability("model", selections, names).index == pytest.approx(kuncheva(selections, 12))


def test_stability_of_selections_of_several_sizes_by_its_formula():
    found = selection_stability("model", [["a"], ["a", "b"], ["a", "c", "d"]], list("abcde"))
    # Unbiased variances of a to e: 0, 1/3, 1/3, 1/3, 0; mean size 2 of 5.
    assert found.index == pytest.approx(1 - (1 / 5) / (2 / 5 * 3 / 5))
    assert found.frequency == {
        "a": 1.0,
        "b": pytest.approx(1 / 3),
        "c": pytest.approx(1 / 3),
        "d": pytest.approx(1 / 3),
    }
    assert list(found.frequency) == list("abcd")


def test_the_same_selection_each_time_is_stable_and_a_random_one_is_not():
    random = np.random.default_rng(2)
    names = [str(number) for number in range(40)]
    same = selection_stability("model", [names[:8]] * 10, names)
    assert (same.index, same.low, same.high) == pytest.approx((1, 1, 1))
    chance = selection_stability("model", [random.choice(names, 8, replace=False).tolist() for _ in range(200)], names)
    assert abs(chance.index) < 0.01
    assert chance.low < 0 < chance.high + 0.01


def test_the_interval_of_stability_covers_the_truth_95_times_in_100():
    random = np.random.default_rng(3)
    names = [str(number) for number in range(20)]
    shares = np.repeat([0.9, 0.6, 0.1], [3, 4, 13])
    truth = 1 - (shares * (1 - shares)).mean() / (shares.mean() * (1 - shares.mean()))
    covered = []
    for _ in range(600):
        draws = random.random((60, 20)) < shares
        found = selection_stability("model", [list(itertools.compress(names, drawn)) for drawn in draws], names)
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def plain_interval(selections, candidates):
    """Nogueira's index and its interval, uncut: one selection and one feature at a time."""
    times, features = len(selections), len(candidates)
    shares = {name: sum(name in own for own in selections) / times for name in candidates}
    middle = sum(len(own) for own in selections) / times
    expected = middle / features * (1 - middle / features)
    variances = [times / (times - 1) * share * (1 - share) for share in shares.values()]
    index = 1 - sum(variances) / features / expected
    parts = [
        (
            sum(shares[name] for name in own) / features
            - len(own) * middle / features**2
            + index / 2 * (2 * len(own) * middle / features**2 - len(own) / features - middle / features + 1)
        )
        / expected
        for own in selections
    ]
    spread = 4 / times**2 * sum((part - sum(parts) / times) ** 2 for part in parts)
    return index, index - 1.959963985 * spread**0.5, index + 1.959963985 * spread**0.5


def test_the_interval_of_stability_by_its_formula_is_cut_at_minus_one_and_one():
    random = np.random.default_rng(5)
    cut = [0, 0]
    for number in range(400):
        names = list("abcdef")[: random.integers(3, 7)]
        alike = number % 2  # every other time equally many features, and mostly the same ones
        times = random.integers(2, 6)
        sizes = [random.integers(1, len(names))] * times if alike else random.integers(1, len(names), size=times)
        weights = np.exp(4 * alike * random.normal(size=len(names)))
        chances = weights / weights.sum()
        selections = [random.choice(names, size, replace=False, p=chances).tolist() for size in sizes]
        found = selection_stability("model", selections, names)
        index, low, high = plain_interval(selections, names)
        assert found.index == pytest.approx(index)
        assert (found.low, found.high) == pytest.approx((max(low, -1), min(high, 1)), abs=1e-7)
        cut[0] += low < -1.001
        cut[1] += high > 1.001
    assert min(cut) > 0


def test_features_chosen_equally_often_stand_in_the_tables_order():
    names = [f"feature {number}" for number in range(60)]
    found = selection_stability("model", [names[::2], names[::2], names[1::4], names[::2]], names)
    assert list(found.frequency) == [*names[::2], *names[1::4]]
