"""What a card says of its model on lesions that it has not seen: figures of the same resampled patients."""

from __future__ import annotations

import numpy as np
import pytest

from radllm_backend.features.cohort import Lesions
from radllm_backend.learning.metrics import area_under_curve, brier, patient_bootstrap
from radllm_backend.learning.performance import OutOfFold, calibration_check, performances, subgroups
from radllm_backend.learning.scorecard import BOOTSTRAP_ROUNDS, Outcome

COUNT = 60


@pytest.fixture(scope="module")
def lesions() -> Lesions:
    """Sixty lesions of forty patients, of three shapes."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat([0, 1], [36, 24]))
    groups = np.array([f"patient {index % 40}" for index in range(COUNT)])
    shapes = np.array([["oval"], ["round"], ["irregular"]] * (COUNT // 3))
    return Lesions(
        ("original_firstorder_Mean",), random.normal(size=(COUNT, 1)), labels, groups, ("mass_shape",), shapes
    )


@pytest.fixture(scope="module")
def outcomes(lesions: Lesions) -> list[Outcome]:
    """Of the model and a weaker one, in three folds."""
    random, found = np.random.default_rng(1), []
    for model, distance in (("weak", 0.5), ("own", 2.0)):
        scores = random.normal(distance * lesions.labels)
        for fold in range(3):
            rows = np.arange(fold, COUNT, 3)
            found.append(
                Outcome(
                    model=model,
                    family="classical",
                    seed=0,
                    fold=fold,
                    rows=rows.tolist(),
                    labels=lesions.labels[rows].tolist(),
                    scores=scores[rows].tolist(),
                    probabilities=[0.5] * len(rows),
                    threshold=0.5,
                    selected=[],
                    chosen={},
                    seconds=0,
                )
            )
    return found


def interval(rounds: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(rounds, [2.5, 97.5])
    return low, high


def test_intervals_are_those_of_the_bootstrap_of_patients(lesions: Lesions, outcomes: list[Outcome]) -> None:
    judged = OutOfFold.pooled(outcomes, "own", lesions)
    counts = patient_bootstrap(lesions.groups, lesions.labels, BOOTSTRAP_ROUNDS)
    own, weak = performances(judged, lesions)
    assert (own.model, own.difference, weak.model) == ("own", None, "weak")
    areas = {name: area_under_curve(lesions.labels, judged.scores[name], counts) for name in ("own", "weak")}
    assert own.auc == area_under_curve(lesions.labels, judged.scores["own"])
    assert own.auc_interval == interval(areas["own"])
    assert weak.difference_interval == interval(areas["weak"] - areas["own"])
    before = calibration_check(judged, lesions).brier_before
    raw = 1 / (1 + np.exp(-judged.logits))
    assert (before.low, before.high) == pytest.approx(interval(brier(lesions.labels, raw, counts)), abs=1e-12)


def test_a_subgroup_is_drawn_from_its_own_patients(lesions: Lesions, outcomes: list[Outcome]) -> None:
    judged = OutOfFold.pooled(outcomes, "own", lesions)
    found = subgroups(judged, lesions, "mass_shape")
    assert [group.lesions for group in found] == [20, 20, 20]
    rows = np.flatnonzero(lesions.categories[:, 0] == "oval")
    part = lesions.take(rows)
    counts = patient_bootstrap(part.groups, part.labels, BOOTSTRAP_ROUNDS)
    expected = interval(area_under_curve(part.labels, judged.logits[rows], counts))
    (oval,) = [group for group in found if group.name.endswith("oval")]
    assert oval.performance[0].auc_interval == expected


def test_a_card_draws_its_patients_once(lesions: Lesions, outcomes: list[Outcome], monkeypatch) -> None:
    begun, generator = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: begun.append(seed) or generator(seed))
    judged = OutOfFold.pooled(outcomes, "own", lesions)
    performances(judged, lesions)
    calibration_check(judged, lesions)
    assert begun == [0]
    subgroups(judged, lesions, "mass_shape")
    assert begun == [0] * 4  # once for each shape
