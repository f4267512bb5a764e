"""Each head by its formula, worked out beside it, and back from the file that it is kept in."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import skops.io
from pydantic import ValidationError
from safetensors.numpy import load, save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from radllm_backend.errors import RadllmError
from radllm_backend.language.prompt import Readout
from radllm_backend.models.calibration import Calibration
from radllm_backend.models.heads import (
    ESTIMATOR,
    NUMBERS,
    EstimatorHead,
    HeadReference,
    LinearHead,
    WeightedMean,
    head_file,
    log_odds,
    read_head,
    readout_of,
    side_by_side,
    weighted_mean,
)

LESIONS, COLUMNS, HIDDEN = 40, 3, 5
RANDOM = np.random.default_rng(0)
DESIGN = RANDOM.normal(size=(LESIONS, COLUMNS))
LAST, MEAN = Readout(4, "last"), Readout(4, "mean")
EMBEDDINGS = {readout: RANDOM.normal(size=(LESIONS, HIDDEN)).astype(np.float32) for readout in (LAST, MEAN)}
LABELS = (DESIGN[:, 0] + EMBEDDINGS[MEAN][:, 0] > 0).astype(int)
CALIBRATIONS = (Calibration(slope=0.5, intercept=-1.0, fitted_on=9), Calibration(slope=2.0, intercept=0.3, fitted_on=9))


def linear(readout=MEAN, seed=1) -> LinearHead:
    random = np.random.default_rng(seed)
    return LinearHead(readout, random.normal(size=COLUMNS), random.normal(size=HIDDEN), float(random.normal()))


def mean_of_two(weight=0.3) -> WeightedMean:
    return WeightedMean(weight, linear(LAST, 1), linear(LAST, 2), CALIBRATIONS)


def with_estimator(classifier=LogisticRegression, **options) -> EstimatorHead:
    estimator = classifier(**options)
    return EstimatorHead("logistic regression", MEAN, estimator.fit(side_by_side(DESIGN, EMBEDDINGS[MEAN]), LABELS))


HEADS = {"linear": linear, "weighted mean": mean_of_two, "estimator": with_estimator}


def kept(head, folder: Path) -> HeadReference:
    """Its part of the card, its file written."""
    reference, content = head_file(head)
    (folder / reference.file).write_bytes(content)
    return reference


# --- what it says ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", [LAST, MEAN])
def test_a_linear_head_is_a_weighted_sum_and_an_intercept(readout):
    head = linear(readout)
    for row, (features, hidden) in enumerate(zip(DESIGN, EMBEDDINGS[readout].tolist(), strict=True)):
        expected = math.fsum([*(features * head.features), *(hidden * head.embedding), head.intercept])
        assert head.logits(DESIGN, EMBEDDINGS)[row] == pytest.approx(expected, abs=1e-12)


def test_half_precision_hidden_states_are_summed_in_double_precision():
    head = LinearHead(LAST, np.zeros(0), np.ones(4096), 0.0)
    states = np.full((1, 4096), 0.1, np.float16)
    assert head.logits(np.zeros((1, 0)), {LAST: states})[0] == pytest.approx(4096 * float(np.float16(0.1)), abs=1e-9)


def test_a_weighted_mean_mixes_the_two_calibrated_probabilities():
    head = mean_of_two(0.3)
    language, classical = (
        1 / (1 + np.exp(-(one.slope * part.logits(DESIGN, EMBEDDINGS) + one.intercept)))
        for one, part in zip(CALIBRATIONS, (head.language, head.classical), strict=True)
    )
    mixed = 0.3 * language + 0.7 * classical
    assert head.logits(DESIGN, EMBEDDINGS) == pytest.approx(np.log(mixed / (1 - mixed)), abs=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_the_log_odds_of_a_mean(weight):
    first, second = np.array([0.2, 0.5, 0.9]), np.array([0.4, 0.5, 0.1])
    mixed = [weight * one + (1 - weight) * other for one, other in zip(first, second, strict=True)]
    expected = [math.log(probability / (1 - probability)) for probability in mixed]
    assert weighted_mean(weight, first, second) == pytest.approx(expected, abs=1e-12)


def test_a_mean_of_certainties_stays_finite_and_one_in_a_million_away_from_them():
    certain = np.array([0.0, 1.0])
    assert weighted_mean(0.5, certain, certain) == pytest.approx([math.log(1e-6), -math.log(1e-6)], abs=1e-5)
    assert weighted_mean(0.5, np.array([2e-6]), np.array([2e-6])) == pytest.approx([math.log(2e-6)], abs=1e-5)


def test_an_estimator_reads_the_features_first_and_then_the_hidden_states():
    head = with_estimator()
    both = side_by_side(DESIGN, EMBEDDINGS[MEAN])
    assert both.dtype == np.float64
    assert np.array_equal(both[:, :COLUMNS], DESIGN)
    assert np.array_equal(both[:, COLUMNS:], EMBEDDINGS[MEAN])
    assert head.logits(DESIGN, EMBEDDINGS) == pytest.approx(head.estimator.decision_function(both), abs=0)


# --- how sure a vote can be -----------------------------------------------------------------------------------------


class Votes:
    """A classifier whose probabilities are given."""

    def __init__(self, *malignant: float) -> None:
        self.malignant = np.array(malignant)

    def predict_proba(self, design):
        return np.column_stack([1 - self.malignant, self.malignant])


def test_a_vote_without_a_dissenter_is_one_in_a_thousand_from_certain():
    """The trees of a forest agree on most of the lesions that they were trained on: that is not certainty."""
    forest = RandomForestClassifier(5, bootstrap=False, random_state=0).fit(DESIGN, LABELS)
    assert set(forest.predict_proba(DESIGN)[:, 1]) == {0.0, 1.0}
    most = math.log(0.999 / 0.001)
    assert log_odds(forest, DESIGN) == pytest.approx(np.where(LABELS == 1, most, -most), abs=1e-12)
    neighbours = KNeighborsClassifier(1).fit(DESIGN, LABELS)
    assert log_odds(neighbours, DESIGN) == pytest.approx(np.where(LABELS == 1, most, -most), abs=1e-12)


def test_a_vote_with_a_dissenter_is_as_sure_as_it_says():
    votes = (0.002, 0.25, 0.5, 0.9, 0.998)
    expected = [math.log(share / (1 - share)) for share in votes]
    assert log_odds(Votes(*votes), np.zeros((5, 1))) == pytest.approx(expected, abs=1e-12)
    assert log_odds(Votes(1e-9, 1 - 1e-9), np.zeros((2, 1))) == pytest.approx([-math.log(999), math.log(999)])


def test_a_decision_function_is_taken_as_it_is():
    regression = LogisticRegression().fit(DESIGN, LABELS)
    scores = log_odds(regression, 100 * DESIGN)
    assert scores.tolist() == regression.decision_function(100 * DESIGN).tolist()
    assert abs(scores).max() > math.log(999)


def test_no_lesions_have_no_scores():
    assert log_odds(Votes(), np.zeros((0, 3))).shape == (0,)


# --- on disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_comes_back_as_it_was(kind, tmp_path):
    head = HEADS[kind]()
    reference = HeadReference.model_validate_json(kept(head, tmp_path).model_dump_json())
    back = read_head(reference, tmp_path, 4, COLUMNS)
    assert type(back) is type(head)
    assert readout_of(back, 4) == readout_of(head, 4)
    assert np.array_equal(back.logits(DESIGN, EMBEDDINGS), head.logits(DESIGN, EMBEDDINGS))
    assert kept(back, tmp_path) == reference


def test_the_card_says_what_the_file_holds():
    assert head_file(linear(MEAN))[0] == HeadReference(kind="linear", pooling="mean")
    assert head_file(mean_of_two(0.3))[0] == HeadReference(
        kind="weighted mean", pooling="last", weight=0.3, calibrations=CALIBRATIONS
    )
    assert head_file(with_estimator())[0] == HeadReference(kind="logistic regression", pooling="mean")


def test_the_file_of_each_kind():
    files = {kind: HeadReference(kind=kind, pooling="last").file for kind in ("linear", "weighted mean", "any forest")}
    assert files == {"linear": NUMBERS, "weighted mean": NUMBERS, "any forest": ESTIMATOR}
    assert (NUMBERS, ESTIMATOR) == ("fusion.safetensors", "fusion.skops")


def test_numbers_are_kept_by_name_in_double_precision():
    head = LinearHead(LAST, np.arange(3, dtype=np.float32), np.arange(10, dtype=np.float32)[::2], 2)
    tensors = load(head_file(head)[1])
    assert {name: (one.dtype, one.tolist()) for name, one in tensors.items()} == {
        "features": (np.float64, [0.0, 1.0, 2.0]),
        "embedding": (np.float64, [0.0, 2.0, 4.0, 6.0, 8.0]),
        "intercept": (np.float64, [2.0]),
    }
    parts = ("features", "embedding", "intercept")
    both = {f"{which}.{part}" for which in ("language", "classical") for part in parts}
    assert set(load(head_file(mean_of_two())[1])) == both


def test_the_hidden_state_that_a_head_reads():
    assert readout_of(None, 30) == Readout(30, "last")
    assert [readout_of(linear(readout), 30) for readout in (LAST, MEAN)] == [LAST, MEAN]
    assert readout_of(WeightedMean(0.5, linear(MEAN), linear(LAST), CALIBRATIONS), 30) == MEAN
    assert readout_of(with_estimator(), 30) == MEAN


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_card_with_another_share_is_malformed(weight):
    with pytest.raises(ValidationError):
        HeadReference(kind="weighted mean", pooling="last", weight=weight)


# --- files that do not fit ------------------------------------------------------------------------------------------


def refusal(reference: HeadReference, folder: Path) -> str:
    with pytest.raises(RadllmError) as caught:
        read_head(reference, folder, 4, COLUMNS)
    return str(caught.value)


def test_numbers_under_other_names(tmp_path):
    reference = kept(linear(), tmp_path)
    save_file({"features": np.zeros(3)}, tmp_path / NUMBERS)
    assert (
        refusal(reference, tmp_path) == "The file fusion.safetensors does not fit its model card: get the model anew."
    )


@pytest.mark.parametrize("lacking", ["weight", "calibrations"])
def test_a_weighted_mean_needs_its_weight_and_its_calibrations(tmp_path, lacking):
    reference = kept(mean_of_two(), tmp_path)
    said = refusal(reference.model_copy(update={lacking: None}), tmp_path)
    assert said == "The file fusion.safetensors does not fit its model card: get the model anew."


def test_a_weighted_mean_is_no_linear_head_and_the_other_way_round(tmp_path):
    for head, kind in ((linear(), "weighted mean"), (mean_of_two(), "linear")):
        reference = kept(head, tmp_path).model_copy(update={"kind": kind, "weight": 0.5, "calibrations": CALIBRATIONS})
        assert "does not fit its model card" in refusal(reference, tmp_path)


def test_an_estimator_that_is_cut_short(tmp_path):
    reference = kept(with_estimator(), tmp_path)
    (tmp_path / ESTIMATOR).write_bytes((tmp_path / ESTIMATOR).read_bytes()[:200])
    assert refusal(reference, tmp_path) == "The file fusion.skops does not fit its model card: get the model anew."


def test_an_estimator_with_anything_but_known_classes_is_refused(tmp_path):
    (tmp_path / ESTIMATOR).write_bytes(skops.io.dumps(Votes(0.5)))
    said = refusal(HeadReference(kind="a forest", pooling="last"), tmp_path)
    assert said == "The file fusion.skops holds objects that no model needs: do not use this model."


def test_trees_are_known_classes(tmp_path):
    head = with_estimator(RandomForestClassifier, n_estimators=2, random_state=0)
    back = read_head(kept(head, tmp_path), tmp_path, 4, COLUMNS)
    assert np.array_equal(back.logits(DESIGN, EMBEDDINGS), head.logits(DESIGN, EMBEDDINGS))


@pytest.mark.parametrize("head", [linear(), mean_of_two()])
@pytest.mark.parametrize("columns", [COLUMNS - 1, COLUMNS + 1])
def test_a_card_with_other_features_than_the_head_is_refused(head, columns, tmp_path):
    with pytest.raises(RadllmError, match=r"fusion.safetensors does not fit its model card"):
        read_head(kept(head, tmp_path), tmp_path, 4, columns)
