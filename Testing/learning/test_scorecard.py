"""Scorecards: outcomes of folds summed up, each figure beside one worked out another way."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions
from radllm_backend.learning import scorecard as scorecards
from radllm_backend.learning.intervals import null_estimate
from radllm_backend.learning.metrics import (
    brier,
    calibration_curve,
    decision_curve,
    delong_interval,
    delong_test,
    expected_calibration_error,
    holm,
    patient_bootstrap,
    roc_points,
)
from radllm_backend.learning.scorecard import THRESHOLDS, Outcome, Scorecard, out_of_fold_rows, summarise
from radllm_backend.records import Estimate

FEATURES = tuple(f"original_firstorder_{name}" for name in ("Mean", "Median", "Minimum", "Maximum", "Energy"))
DESCRIPTION = {
    "table": "lesions.csv",
    "table_sha256": "0" * 64,
    "target": "pathology",
    "group": "patient",
    "modality": "US",
    "folds": 3,
    "inner_folds": 2,
    "seeds": [4, 1],
    "split": None,
    "shuffled_labels": False,
    "base_model": None,
    "base_sha256": None,
    "versions": {"numpy": "2"},
    "hardware": "two cores",
    "command": "radllm evaluate lesions.csv",
    "started": "2026-01-31",
}


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(scorecards, "BOOTSTRAP_ROUNDS", 300)


@pytest.fixture(scope="module")
def cohort():
    """90 lesions of 60 patients, 34 of them malignant."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat([0, 1], [56, 34]))
    groups = np.array([f"patient {index % 60}" for index in range(90)])
    return Lesions(FEATURES, random.normal(size=(90, 5)), labels, groups)


def outcomes_of(cohort, model, family="classical", distance=1.5, seeds=(4, 1), selected=(), rows=None):
    """Three folds a seed of a model whose scores lie so far apart on average, in no order of rows."""
    outcomes = []
    for seed in seeds:
        random = np.random.default_rng([seed, *model.encode()])
        order = random.permutation(len(cohort) if rows is None else rows)
        for fold, held_out in enumerate(np.array_split(order, 3)):
            scores = random.normal(distance * cohort.labels[held_out])
            outcomes.append(
                Outcome(
                    model=model,
                    family=family,
                    seed=seed,
                    fold=fold,
                    rows=held_out.tolist(),
                    labels=cohort.labels[held_out].tolist(),
                    scores=scores.tolist(),
                    probabilities=(1 / (1 + np.exp(0.7 - scores))).tolist(),
                    threshold=0.4 + 0.1 * fold,
                    selected=list(selected),
                    chosen={"C": 0.1 * fold},
                    seconds=1.5,
                )
            )
    return outcomes


@pytest.fixture(scope="module")
def outcomes(cohort):
    return [
        *outcomes_of(cohort, "weak", distance=0.6),
        *outcomes_of(cohort, "strong", distance=1.6, selected=FEATURES[:2]),
        *outcomes_of(cohort, "LoRA head", "lora", distance=1.2, seeds=(4,)),
        *outcomes_of(cohort, "fusion", "fusion", distance=2.0),
    ]


@pytest.fixture
def card(outcomes, cohort):
    return summarise(outcomes, cohort, **DESCRIPTION)


def pooled(outcomes, model, seed, field="scores"):
    """A field of every lesion in the table's order, each from the fold that held it out."""
    found = {}
    for outcome in outcomes:
        if (outcome.model, outcome.seed) == (model, seed):
            found.update(zip(outcome.rows, getattr(outcome, field), strict=True))
    return np.array([found[row] for row in sorted(found)])


def named(card, model):
    return next(result for result in card.models if result.model == model)


def test_the_heading_counts_lesions_patients_and_features(card, cohort):
    assert (card.lesions, card.malignant, card.patients) == (90, 34, 60)
    assert (card.features, card.descriptors, card.seeds, card.table) == (5, 0, [4, 1], "lesions.csv")
    assert [result.model for result in card.models] == ["weak", "strong", "LoRA head", "fusion"]
    assert [result.seeds for result in card.models] == [2, 2, 1, 2]
    assert card.treat_all[0] == pytest.approx(34 / 90 - 56 / 90 / 99)


def test_a_scorecard_survives_json(card):
    assert Scorecard.model_validate_json(card.model_dump_json()) == card
    assert json.loads(card.model_dump_json())["schema_version"] == 1


def test_the_auc_is_the_mean_over_seeds_of_the_pooled_scores(card, outcomes, cohort):
    result = named(card, "strong")
    by_seed = [roc_auc_score(cohort.labels, pooled(outcomes, "strong", seed)) for seed in (4, 1)]
    assert result.auc_by_seed == pytest.approx(by_seed)
    assert result.auc.value == pytest.approx(np.mean(by_seed))


def test_the_interval_is_that_of_the_mean_over_seeds_with_the_same_patients_drawn(card, outcomes, cohort):
    counts = patient_bootstrap(cohort.groups, cohort.labels, 300)
    rounds = {
        model: [
            np.mean(
                [roc_auc_score(cohort.labels, pooled(outcomes, model, seed), sample_weight=drawn) for seed in (4, 1)]
            )
            for drawn in counts
        ]
        for model in ("strong", "fusion")
    }
    auc, difference = named(card, "fusion").auc, named(card, "fusion").difference
    assert (auc.low, auc.high) == pytest.approx(tuple(np.percentile(rounds["fusion"], [2.5, 97.5])))
    surplus = np.subtract(rounds["fusion"], rounds["strong"])
    assert (difference.low, difference.high) == pytest.approx(tuple(np.percentile(surplus, [2.5, 97.5])))


def test_calls_are_made_at_the_threshold_of_their_own_fold(card, outcomes, cohort):
    expected = []
    for seed in (4, 1):
        calls = np.empty(90)
        for outcome in outcomes:
            if (outcome.model, outcome.seed) == ("weak", seed):
                calls[outcome.rows] = [probability >= outcome.threshold for probability in outcome.probabilities]
        expected.append(balanced_accuracy_score(cohort.labels, calls))
    result = named(card, "weak")
    assert result.balanced_accuracy.value == pytest.approx(np.mean(expected))
    assert result.balanced_accuracy.value == pytest.approx((result.sensitivity.value + result.specificity.value) / 2)


def test_probabilities_are_judged_and_curves_are_of_the_first_seed(card, outcomes, cohort):
    result, labels = named(card, "weak"), cohort.labels
    probabilities = [pooled(outcomes, "weak", seed, "probabilities") for seed in (4, 1)]
    assert result.brier.value == pytest.approx(np.mean([brier(labels, one) for one in probabilities]))
    errors = [expected_calibration_error(labels, one) for one in probabilities]
    assert result.ece.value == pytest.approx(np.mean(errors))
    first = pooled(outcomes, "weak", 4)
    assert result.auc_delong == delong_interval(labels, first)
    assert result.roc == roc_points(labels, first)
    assert result.calibration == calibration_curve(labels, probabilities[0])
    assert result.net_benefit == decision_curve(labels, probabilities[0], THRESHOLDS)
    assert (result.seconds, result.chosen[:3]) == (9, [{"C": 0.0}, {"C": 0.1}, {"C": 0.2}])


def test_every_interval_holds_its_value(card):
    figures = ("auc", "auc_delong", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece")
    for result, figure in itertools.product(card.models, figures):
        estimate = getattr(result, figure)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_the_best_baseline_is_classical_even_where_others_are_better(card):
    assert card.best_baseline == "strong"
    assert named(card, "fusion").auc.value > named(card, "strong").auc.value
    assert named(card, "strong").difference is None
    assert named(card, "strong").p_value is None
    assert named(card, "strong").p_holm is None


def test_the_others_are_compared_with_it_on_the_seeds_that_both_ran_on(card, outcomes, cohort):
    lora, strong = (pooled(outcomes, model, 4) for model in ("LoRA head", "strong"))
    difference = roc_auc_score(cohort.labels, lora) - roc_auc_score(cohort.labels, strong)
    assert named(card, "LoRA head").difference.value == pytest.approx(difference)
    assert named(card, "LoRA head").p_value == pytest.approx(delong_test(cohort.labels, lora, strong))


def test_p_values_are_corrected_for_the_number_of_models(card):
    compared = [result for result in card.models if result.p_value is not None]
    assert [result.p_holm for result in compared] == holm([result.p_value for result in compared])
    assert len(compared) == 3


def test_a_model_that_equals_the_baseline_differs_by_exactly_nothing(outcomes, cohort):
    twin = [
        outcome.model_copy(update={"model": "twin", "family": "frozen"})
        for outcome in outcomes
        if outcome.model == "strong"
    ]
    difference = named(summarise([*outcomes, *twin], cohort, **DESCRIPTION), "twin")
    assert (difference.difference.value, difference.difference.low, difference.difference.high) == (0, 0, 0)
    assert (difference.p_value, difference.p_holm) == (1, 1)


def test_guesses_have_intervals_that_hold_one_half(cohort):
    guesses = [outcomes_of(cohort, f"guess {number}", distance=0) for number in range(20)]
    card = summarise(list(itertools.chain(*guesses)), cohort, **DESCRIPTION)
    assert sum(result.auc.low <= 0.5 <= result.auc.high for result in card.models) >= 17
    assert all(result.p_holm is None or result.p_holm > 0.05 for result in card.models)


def test_of_a_locked_split_only_the_test_part_counts(cohort):
    tested = np.flatnonzero(np.arange(90) % 3 == 0)
    outcomes = outcomes_of(cohort, "strong", rows=tested)
    card = summarise(outcomes, cohort, **{**DESCRIPTION, "split": "part"})
    labels = cohort.labels[tested]
    assert (card.lesions, card.malignant) == (30, labels.sum())
    assert card.patients == len(set(cohort.groups[tested]))
    expected = [roc_auc_score(labels, pooled(outcomes, "strong", seed)) for seed in (4, 1)]
    assert card.models[0].auc_by_seed == pytest.approx(expected)


def test_a_lesion_judged_twice_or_not_at_all_is_refused(outcomes, cohort):
    with pytest.raises(RadllmError, match="“fusion” did not judge every lesion once with seed 1"):
        summarise(outcomes[:-1], cohort, **DESCRIPTION)
    with pytest.raises(RadllmError, match="“fusion” did not judge"):
        summarise([*outcomes, outcomes[-1]], cohort, **DESCRIPTION)


def test_without_a_model_to_compare_with_it_says_so(outcomes, cohort):
    others = [outcome for outcome in outcomes if outcome.family != "classical"]
    with pytest.raises(RadllmError, match="No classical model"):
        summarise(others, cohort, **DESCRIPTION)
    elsewhere = [outcome for outcome in outcomes if (outcome.family == "lora") or outcome.seed == 1]
    with pytest.raises(RadllmError, match="“LoRA head” and “strong” have no seed in common"):
        summarise(elsewhere, cohort, **DESCRIPTION)


def test_the_table_of_lesions_is_complete_and_names_no_patient(outcomes, cohort):
    comma = [outcome.model_copy(update={"model": 'SVM, "all" features'}) for outcome in outcomes[:1]]
    lines = out_of_fold_rows([*outcomes, *comma])
    rows = list(csv.DictReader(lines))
    assert len(rows) == 7 * 90 + 30
    assert rows[-1]["model"] == 'SVM, "all" features'
    assert not any("patient" in line for line in lines)
    for row in rows:
        assert int(row["label"]) == cohort.labels[int(row["row"])]
        assert int(row["called"]) == (float(row["probability"]) >= float(row["threshold"]))
    ours = [float(row["score"]) for row in rows if row["model"] == "fusion"]
    assert ours == [score for outcome in outcomes if outcome.model == "fusion" for score in outcome.scores]


# --- stability of the selection -------------------------------------------------------------------------------------


def test_only_models_that_select_have_a_stability(card):
    (only,) = card.stability
    assert (only.model, only.index) == ("strong", pytest.approx(1))
    assert only.frequency == {FEATURES[0]: 1, FEATURES[1]: 1}


def test_an_empty_selection_means_every_feature(cohort):
    outcomes = outcomes_of(cohort, "strong", selected=FEATURES[:2])
    outcomes[0] = outcomes[0].model_copy(update={"selected": []})
    (found,) = summarise(outcomes, cohort, **DESCRIPTION).stability
    assert found.frequency[FEATURES[4]] == pytest.approx(1 / 6)


def test_a_single_selection_has_no_stability(cohort):
    outcomes = outcomes_of(cohort, "strong", selected=FEATURES[:2], seeds=(4,))
    merged = outcomes[0].model_copy(
        update={
            field: list(itertools.chain(*(getattr(one, field) for one in outcomes)))
            for field in ("rows", "labels", "scores", "probabilities")
        }
    )
    assert summarise([merged], cohort, **DESCRIPTION).stability == []


# --- shuffled labels ------------------------------------------------------------------------------------------------


def test_the_interval_of_dealings_holds_what_they_differ_by_and_how_many_models_are_looked_at():
    areas = [0.42, 0.5, 0.55, 0.49]
    one, many = null_estimate(areas, 1), null_estimate(areas, 20)
    low, high = stats.ttest_1samp(areas, 0.5).confidence_interval(0.95)
    assert one.value == pytest.approx(0.49)
    assert (one.low, one.high) == pytest.approx((low, high))
    assert (many.low, many.high) == pytest.approx(stats.ttest_1samp(areas, 0.5).confidence_interval(1 - 0.05 / 20))
    assert null_estimate([0.0, 1.0], 20) == Estimate(value=0.5, low=0.0, high=1.0)


def test_each_seed_is_judged_by_its_own_labels(outcomes, cohort):
    swapped = [
        one.model_copy(update={"labels": [1 - label for label in one.labels]}) if one.seed == 1 else one
        for one in outcomes
    ]
    card = summarise(swapped, cohort, **{**DESCRIPTION, "shuffled_labels": True})
    truth = summarise(outcomes, cohort, **DESCRIPTION)
    for model, true in zip(card.models, truth.models, strict=True):
        first, *others = true.auc_by_seed
        assert model.auc_by_seed == pytest.approx([first, *(1 - area for area in others)])
    expected = null_estimate(named(card, "strong").auc_by_seed, len(card.models))
    assert named(card, "strong").auc == expected


@pytest.mark.parametrize(("labels", "draws"), [("true", 1), ("shuffled", 2)])
def test_patients_are_drawn_once_for_all_seeds_with_the_same_labels(labels, draws, outcomes, cohort, monkeypatch):
    flipped = 1 if labels == "shuffled" else None
    dealt = [
        one.model_copy(update={"labels": [1 - label for label in one.labels]}) if one.seed == flipped else one
        for one in outcomes
    ]
    begun, generator = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: begun.append(seed) or generator(seed))
    summarise(dealt, cohort, **DESCRIPTION)
    assert begun == [0] * draws
