"""Selection on data whose answer is known, and the same answers as other software where there is some."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.feature_selection import f_classif, mutual_info_classif
from sklearn.utils import get_tags

from radllm_backend.errors import RadllmError
from radllm_backend.features.selection import (
    RadiomicsSelector,
    l1_selected,
    mrmr,
    select_features,
    uncorrelated,
    usable_columns,
)


def lesions(count=200):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    strong = labels + random.normal(0, 0.8, count)
    copy = strong + random.normal(0, 0.01, count)
    weak = labels + random.normal(0, 1.0, count)
    noise = random.normal(size=count)
    return np.column_stack([noise, strong, copy, weak]), labels


def ring(count=400):
    """Malignant where the first feature is far from its mean on either side: the F statistic sees nothing of that."""
    random = np.random.default_rng(1)
    values = random.normal(size=(count, 4))
    labels = (np.abs(values[:, 0]) > 0.7).astype(int)
    values[:, 1] += 0.6 * labels
    return values, labels


def test_a_copy_of_a_taken_feature_comes_after_a_weaker_one_of_its_own():
    values, labels = lesions()
    order = mrmr(values, labels, 3)
    assert order[0] in (1, 2)
    assert order[1] == 3


def test_units_do_not_matter():
    values, labels = lesions()
    scaled = values * [1e-6, 1e3, 1, 1e9] + [5, -3, 0, 1e6]
    assert mrmr(scaled, labels, 4) == mrmr(values, labels, 4)
    assert uncorrelated(scaled, labels, 0.9) == uncorrelated(values, labels, 0.9)
    assert l1_selected(scaled, labels, 0.1) == l1_selected(values, labels, 0.1)


def test_constant_and_incomplete_columns_are_never_taken():
    values, labels = lesions()
    spoiled = np.column_stack([values, np.full(len(labels), 3.0), np.where(labels == 1, np.nan, 0.0)])
    assert usable_columns(spoiled).tolist() == [True] * 4 + [False] * 2
    assert set(mrmr(spoiled, labels, 4)) == {0, 1, 2, 3}
    with pytest.raises(RadllmError, match="only 4 of the given ones differ"):
        mrmr(spoiled, labels, 5)


def test_too_few_features_are_said_with_their_numbers():
    values, labels = lesions()
    with pytest.raises(RadllmError) as caught:
        mrmr(values, labels, 5)
    assert str(caught.value) == (
        "5 features are wanted, and only 4 of the given ones differ between the training lesions: "
        "ask for fewer or extract more."
    )


def test_what_is_rounding_noise_hangs_on_the_size_of_the_values():
    random = np.random.default_rng(0)
    noise = random.uniform(-1, 1, 50)
    noise /= noise.std()
    sizes = (1e-12, 1.0, 1e9)
    shaky = np.column_stack([size * (1 + 1e-10 * noise) for size in sizes])
    steady = np.column_stack([size * (1 + 1e-8 * noise) for size in sizes])
    assert not usable_columns(shaky).any()
    assert usable_columns(steady).all()
    around_zero = np.column_stack([np.zeros(50), 1e-31 * noise, 1e-38 * np.sign(noise), 1e-41 * noise])
    assert usable_columns(around_zero).tolist() == [False, True, True, False]
    assert usable_columns(np.column_stack([-size * (1 + 1e-8 * noise) for size in sizes])).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the deviation of nothing
def test_without_lesions_no_column_is_usable():
    assert usable_columns(np.empty((0, 3))).tolist() == [False] * 3


def test_a_column_with_a_gap_says_nothing_of_the_others():
    values, _ = lesions()
    values[3, 0], values[5, 2] = np.nan, np.inf
    assert usable_columns(values).tolist() == [False, True, False, True]


def test_by_name_and_with_one_column():
    values, labels = lesions()
    assert select_features(["a"], values[:, :1], labels, 1) == ["a"]
    assert select_features(list("abcd"), values, labels, 2)[1] == "d"


def test_mutual_information_finds_what_the_f_statistic_cannot():
    values, labels = ring()
    assert mrmr(values, labels, 1) == [1]
    assert mrmr(values, labels, 1, "mutual information") == [0]
    assert mrmr(values, labels, 4, "mutual information") == mrmr(values, labels, 4, "mutual information")


@pytest.mark.parametrize("relevance", ["F statistic", "mutual information"])
def test_each_step_takes_the_largest_quotient(relevance):
    random = np.random.default_rng(5)
    labels = np.arange(120) % 2
    values = random.normal(size=(120, 6)) @ random.normal(size=(6, 6)) + labels[:, None] * [0.9, 0.5, 0, 0.3, 0.2, 0.7]
    taken = mrmr(values, labels, 6, relevance, seed=3)
    useful = (
        f_classif(values, labels)[0]
        if relevance == "F statistic"
        else mutual_info_classif(values, labels, random_state=3)
    )
    for step, now in enumerate(taken):
        quotients = {
            other: useful[other]
            / np.mean([abs(np.corrcoef(values[:, other], values[:, before])[0, 1]) for before in taken[:step]] or [1])
            for other in set(range(6)) - set(taken[:step])
        }
        assert now == max(quotients, key=quotients.get)


def plain_mrmr(values, labels, redundancy):
    """Ding and Peng's quotient for every column, one pair of columns at a time, with any summary of the redundancy."""
    columns = range(values.shape[1])
    benign, malignant = values[labels == 0], values[labels == 1]
    within = sum(((group - group.mean(axis=0)) ** 2).sum(axis=0) for group in (benign, malignant))
    between = sum(len(group) * (group.mean(axis=0) - values.mean(axis=0)) ** 2 for group in (benign, malignant))
    strength = between / (within / (len(labels) - 2))

    def correlation(one, other):
        first, second = (values[:, column] - values[:, column].mean() for column in (one, other))
        return abs(first @ second) / (first @ first * (second @ second)) ** 0.5

    taken = [max(columns, key=lambda column: strength[column])]
    while len(taken) < len(columns):
        left = [column for column in columns if column not in taken]
        taken.append(
            max(left, key=lambda column: strength[column] / redundancy([correlation(column, one) for one in taken]))
        )
    return taken


def test_the_redundancy_is_the_mean_over_those_already_taken():
    """One sample rarely tells the mean from the largest correlation: of sixty some do."""
    told_apart = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        labels = np.arange(120) % 2
        shifts = random.uniform(0, 1, 6)
        values = random.normal(size=(120, 6)) @ random.normal(size=(6, 6)) + labels[:, None] * shifts
        expected = plain_mrmr(values, labels, np.mean)
        assert mrmr(values, labels, 6) == expected
        told_apart += plain_mrmr(values, labels, max) != expected
    assert told_apart >= 5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.3, 0.6, 0.9, 0.99]))
def test_of_what_stays_nothing_correlates_and_all_that_goes_had_a_stronger_double(seed, columns, limit):
    random = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    values = random.normal(size=(40, columns)) @ random.normal(size=(columns, columns)) + labels[:, None] * 0.4
    values[:, 0] = np.exp(values[:, -1])
    kept = uncorrelated(values, labels, limit)
    strength = f_classif(values, labels)[0]

    def correlation(first, second):
        pair = values[:, [first, second]]
        return max(abs(np.corrcoef(pair, rowvar=False)[0, 1]), abs(spearmanr(pair).statistic))

    assert kept == sorted(kept)
    assert all(correlation(one, other) < limit for one in kept for other in kept if one < other)
    for gone in set(range(columns)) - set(kept):
        assert any(correlation(gone, one) >= limit - 1e-12 and strength[one] >= strength[gone] for one in kept)


def test_of_many_equal_features_the_first_stays():
    random = np.random.default_rng(0)
    labels = np.arange(100) % 2
    tripled = np.repeat(random.normal(size=(100, 20)) + labels[:, None] * random.uniform(0, 1, 20), 3, axis=1)
    assert uncorrelated(tripled, labels, 0.95) == list(range(0, 60, 3))


def test_of_two_equal_features_the_earlier_stays_even_if_one_is_curved():
    values, labels = lesions()
    strong = values[:, 1]
    assert uncorrelated(np.column_stack([strong, strong]), labels, 0.95) == [0]
    cubed = np.sign(strong) * np.abs(strong) ** 7  # rank correlation 1, Pearson's well below
    assert abs(np.corrcoef(strong, cubed)[0, 1]) < 0.9
    assert uncorrelated(np.column_stack([cubed, strong]), labels, 0.95) == [1]


def lasso_support(values, labels, inverse_penalty, steps=2000):
    """Which coefficients of a balanced L1 logistic regression are not 0, by proximal gradient descent.

    A. Beck and M. Teboulle, SIAM J Imaging Sci 2 (2009) 183. As in liblinear the intercept is penalised too.
    """
    columns = np.column_stack([(values - values.mean(axis=0)) / values.std(axis=0), np.ones(len(labels))])
    sides = 2 * labels - 1
    weights = inverse_penalty * len(labels) / 2 / np.where(labels == 1, labels.sum(), (1 - labels).sum())
    length = 4 / (weights.max() * np.linalg.norm(columns, 2) ** 2)
    coefficients = np.zeros(columns.shape[1])
    for _ in range(steps):
        slope = -columns.T @ (weights * sides / (1 + np.exp(sides * (columns @ coefficients))))
        moved = coefficients - length * slope
        coefficients = np.sign(moved) * np.maximum(np.abs(moved) - length, 0)
    return np.flatnonzero(coefficients[:-1]).tolist()


STRENGTHS = (0.03, 0.05, 0.1)


@pytest.mark.parametrize("seed", range(3))
def test_l1_keeps_what_the_lasso_keeps_also_where_one_class_is_rare(seed):
    random = np.random.default_rng(seed)
    labels = (np.arange(120) % 6 == 0).astype(int)
    values = random.normal(size=(120, 10)) * 3 + 7 + labels[:, None] * random.uniform(0, 4, 10)
    kept = [l1_selected(values, labels, strength) for strength in STRENGTHS]
    assert kept == [lasso_support(values, labels, strength) for strength in STRENGTHS]
    assert len(kept[0]) < len(kept[-1])


def test_l1_keeps_more_under_a_weaker_penalty_and_never_nothing():
    values, labels = lesions()
    counts = [len(l1_selected(values, labels, strength)) for strength in (1e-6, 0.03, 10.0)]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert l1_selected(values, labels, 1e-6) in ([1], [2])
    assert 0 not in l1_selected(values, labels, 0.03)


@pytest.mark.parametrize("method", ["mrmr", "mrmr-mi", "l1", "all"])
def test_a_selector_gives_the_columns_of_its_support_and_can_be_cloned(method):
    values, labels = lesions()
    selector = RadiomicsSelector(method, count=2).fit(values, labels)
    assert np.array_equal(selector.transform(values), values[:, selector.get_support()])
    # Of the two doubles one has gone.
    assert selector.get_support()[1:3].sum() <= 1
    assert np.array_equal(clone(selector).fit(values, labels).get_support(), selector.get_support())


def test_a_selector_without_the_filter_is_mrmr():
    values, labels = lesions()
    for count in (1, 2, 3, 4):
        support = RadiomicsSelector(count=count, correlation=None).fit(values, labels).get_support(indices=True)
        assert support.tolist() == sorted(mrmr(values, labels, count))


def test_a_selector_that_is_asked_for_too_many_gives_what_there_is():
    values, labels = lesions()
    assert RadiomicsSelector(count=99).fit(values, labels).get_support().sum() == 3


def test_a_selector_drops_what_many_lesions_lack_and_leaves_other_gaps_as_they_are():
    values, labels = lesions()
    values[:50, 1] = np.nan  # a quarter: too many
    values[::10, 2] = np.nan
    selector = RadiomicsSelector("all", correlation=None).fit(values, labels)
    assert selector.get_support().tolist() == [True, False, True, True]
    assert np.isnan(selector.transform(values)[::10, 1]).all()
    assert RadiomicsSelector("all", correlation=None, missing=0.3).fit(values, labels).get_support().all()


def test_a_selector_says_where_no_feature_is_left():
    _, labels = lesions()
    for useless in (np.full((len(labels), 2), np.nan), np.ones((len(labels), 2))):
        with pytest.raises(RadllmError) as caught:
            RadiomicsSelector().fit(useless, labels)
        assert str(caught.value) == (
            "No feature varies between the training lesions and is known of enough of them: "
            "leave the feature columns out of the table or extract others."
        )


# --- what a selector passes on --------------------------------------------------------------------------------------


def support(values, labels, *given, **more):
    return RadiomicsSelector(*given, **more).fit(values, labels).get_support(indices=True).tolist()


def test_what_a_selector_does_unless_told_otherwise():
    defaults = {"method": "mrmr", "count": 8, "correlation": 0.95, "missing": 0.2, "inverse_penalty": 0.1, "seed": 0}
    assert RadiomicsSelector().get_params() == defaults
    tags = get_tags(RadiomicsSelector())
    assert tags.input_tags.allow_nan
    assert tags.target_tags.required


def test_a_selector_that_takes_all_does_not_count():
    values, labels = lesions()
    assert support(values, labels, "all", count=1, correlation=None) == [0, 1, 2, 3]


def test_a_selector_of_mutual_information_finds_what_the_f_statistic_cannot():
    values, labels = ring()
    assert [support(values, labels, method, count=1) for method in ("mrmr", "mrmr-mi")] == [[1], [0]]


def test_a_selector_passes_the_penalty_on():
    values, labels = lesions()
    for strength in (1e-6, 0.03, 10.0):
        kept = support(values, labels, "l1", correlation=None, inverse_penalty=strength)
        assert kept == l1_selected(values, labels, strength)


def test_a_selector_passes_the_seed_on():
    """Many equal values: how the noise breaks ties between neighbours decides which feature seems to say more."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    values = random.integers(0, 4, size=(60, 8)).astype(float)
    assert mrmr(values, labels, 2, "mutual information") == mrmr(values, labels, 2, "mutual information", seed=0)
    by_seed = [support(values, labels, "mrmr-mi", count=2, correlation=None, seed=seed) for seed in range(4)]
    assert by_seed == [sorted(mrmr(values, labels, 2, "mutual information", seed)) for seed in range(4)]
    assert len(set(map(tuple, by_seed))) > 1


def test_a_feature_may_lack_just_the_share_that_is_allowed():
    values, labels = lesions()
    values[:40, 1] = np.nan  # 40 of 200
    assert 1 in support(values, labels, "all", correlation=None, missing=0.2)
    values[40, 1] = np.nan
    assert 1 not in support(values, labels, "all", correlation=None, missing=0.2)


def test_what_is_missing_counts_as_the_median_and_not_as_the_mean():
    """Of a skewed feature the mean lies where few lesions do."""
    random = np.random.default_rng(7)
    labels = np.arange(200) % 2
    values = np.exp(2 * random.normal(size=(200, 5)) + labels[:, None] * random.uniform(0, 2, 5))
    values[(labels == 0) & (random.random(200) < 0.38), :2] = np.nan
    by_median, by_mean = (
        [mrmr(np.where(np.isnan(values), middle(values, axis=0), values), labels, count) for count in (1, 2, 3)]
        for middle in (np.nanmedian, np.nanmean)
    )
    found = [support(values, labels, count=count, correlation=None, missing=0.5) for count in (1, 2, 3)]
    assert found == [sorted(kept) for kept in by_median] != [sorted(kept) for kept in by_mean]


def test_a_table_of_objects_is_read_as_numbers():
    values, labels = lesions()
    objects = values.astype(object)
    objects[3, 0] = None
    numbers = objects.astype(float)
    assert support(objects, labels, count=2) == support(numbers, labels, count=2)
