"""The uncertain band: what it promises of each class, exactly and in simulation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from radllm_backend.errors import RadllmError
from radllm_backend.models.conformal import (
    DEFAULT_CONFIDENCE,
    HIGHEST_CONFIDENCE,
    LOWEST_CONFIDENCE,
    MOST_SCORES,
    ConformalReference,
    band,
)

probabilities = st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 0.2, 0.5, 1.0])
confidences = st.floats(LOWEST_CONFIDENCE, HIGHEST_CONFIDENCE) | st.sampled_from([0.5, 0.75, 0.8, 0.9, 0.95, 0.99])


def several(least: int, **more):
    return st.lists(probabilities, min_size=least, max_size=30, **more)


def reference(benign, malignant) -> ConformalReference:
    return ConformalReference(benign=sorted(benign), malignant=sorted(malignant))


def allowed(lesions: int, confidence: float) -> int:
    """How many of so many lesions, each judged by the others, may be called the other class."""
    return math.floor(lesions * (1 - confidence) + 1e-9)


def without_each(lesions):
    return [(lesion, lesions[:index] + lesions[index + 1 :]) for index, lesion in enumerate(lesions)]


# --- the promise ----------------------------------------------------------------------------------------------------


@given(several(1), several(2), confidences)
def test_of_exchangeable_lesions_no_more_are_called_the_other_class_than_promised(others, own, confidence):
    """Each lesion in turn is the new one: for exchangeable lesions that is all that can happen, equally likely."""
    called_benign = [lesion < band(reference(others, rest), confidence).low for lesion, rest in without_each(own)]
    called_malignant = [lesion > band(reference(rest, others), confidence).high for lesion, rest in without_each(own)]
    assert sum(called_benign) <= allowed(len(own), confidence)
    assert sum(called_malignant) <= allowed(len(own), confidence)


@given(several(2, unique=True), confidences)
def test_the_band_is_no_wider_than_the_promise_needs(own, confidence):
    """Where the classes lie the wrong way round, the edges are those of the class itself, and as many are called."""
    always, never = [0.0] * 200, [1.0] * 200
    called_benign = [lesion < band(reference(never, rest), confidence).low for lesion, rest in without_each(own)]
    called_malignant = [lesion > band(reference(rest, always), confidence).high for lesion, rest in without_each(own)]
    assert sum(called_benign) == sum(called_malignant) == allowed(len(own), confidence)


@pytest.mark.parametrize("distance", [0.3, 1.2, 3.5])
@pytest.mark.parametrize("confidence", [0.6, 0.8, 0.95])
def test_in_simulation_each_class_is_called_the_other_as_rarely_as_promised(distance, confidence):
    """Also where the model separates the classes so well that the edges change places."""
    random = np.random.default_rng(1)
    benign, malignant = (
        1 / (1 + np.exp(-random.normal(place, 1, (2000, count + 1)))) for place, count in ((0, 60), (distance, 35))
    )
    wrong = np.zeros(2)
    for others, own in zip(benign, malignant, strict=True):
        found = band(reference(others[1:], own[1:]), confidence)
        wrong += others[0] > found.high, own[0] < found.low
    assert (wrong / 2000 <= 1 - confidence + 3 * math.sqrt(confidence * (1 - confidence) / 2000)).all()


# --- its edges ------------------------------------------------------------------------------------------------------


def test_edges_in_a_worked_example():
    """Nine lesions a class at 0.8: the second smallest malignant and the eighth smallest benign probability."""
    tenths = [number / 10 for number in range(1, 10)]
    found = band(reference(tenths, tenths), 0.8)
    assert (found.low, found.high, found.confidence) == (0.2, 0.8, 0.8)
    assert found.holds(0.2)
    assert found.holds(0.8)
    assert not found.holds(0.19)
    assert not found.holds(0.81)


def test_ranks_are_not_lost_to_floating_point():
    """10 · (1 - 0.9) is 0.9999999999999998, and means the smallest one; 10 · 0.7 is 7."""
    tenths = [number / 10 for number in range(1, 10)]
    assert band(reference([0.0], tenths), 0.9).high == pytest.approx(1)
    assert band(reference([1.0] * 99, tenths), 0.9).low == 0.1
    assert band(reference(tenths, [0.0] * 99), 0.7).high == 0.7


def test_few_lesions_can_be_sure_of_nothing():
    found = band(reference([0.1, 0.2, 0.3], [0.7, 0.8, 0.9]), DEFAULT_CONFIDENCE)
    assert (found.low, found.high) == (0, 1)
    assert band(reference([0.4], [0.6]), 0.5).confidence == 0.5


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_where_the_classes_lie_apart_only_what_lies_between_is_uncertain(confidence):
    found = band(reference(np.linspace(0, 0.2, 50), np.linspace(0.8, 1, 40)), confidence)
    assert (found.low, found.high, found.confidence) == (0.2, 0.8, confidence)


@given(several(1), several(1), confidences, confidences)
def test_more_confidence_is_a_wider_band(benign, malignant, one, other):
    """Where the classes overlap. Where they lie apart it is the gap between them, which the wider ones reach into."""
    narrow, wide = (band(reference(benign, benign), confidence) for confidence in sorted((one, other)))
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    gap, wide = (band(reference(benign, malignant), confidence) for confidence in sorted((one, other)))
    assert max(gap.low, wide.low) <= min(gap.high, wide.high)


def test_a_good_model_calls_few_lesions_uncertain_and_fewer_where_less_confidence_is_asked():
    random = np.random.default_rng(0)
    benign, malignant = (1 / (1 + np.exp(-random.normal(place, 1, 200))) for place in (-1.4, 1.4))
    bands = [band(reference(benign, malignant), confidence) for confidence in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)]
    shares = [np.mean([found.holds(one) for one in (*benign, *malignant)]) for found in bands]
    assert shares == sorted(shares)
    assert shares[2] < 0.03 < 0.2 < shares[-1]


def sets(reference, confidence):
    """From where on the set of a lesion holds 'malignant' and up to where 'benign', in whole numbers of lesions."""
    alpha, benign, malignant = 1 - confidence, reference.benign, reference.malignant
    below = math.floor((len(malignant) + 1) * alpha)
    above = math.ceil((len(benign) + 1) * confidence)
    from_malignant = malignant[below - 1] if below else 0.0
    return from_malignant, benign[above - 1] if above <= len(benign) else 1.0


def defined(own, asked):
    """Of the confidences from the one asked for upwards, the last before the edges lie the right way round."""
    steps = {Fraction(rank, len(own.benign) + 1) for rank in range(len(own.benign) + 2)}
    steps |= {1 - Fraction(rank, len(own.malignant) + 1) for rank in range(len(own.malignant) + 2)}
    higher = sorted(step for step in steps if asked < step <= 1)
    edges = [sets(own, confidence) for confidence in (asked, *higher)]
    crossed = list(itertools.takewhile(lambda pair: pair[0] > pair[1], edges))
    return sorted(crossed[-1] if crossed else edges[0])


@given(several(1), several(1), st.integers(10, 19))
def test_the_band_by_its_definition_in_exact_fractions(benign, malignant, twentieths):
    own, asked = reference(benign, malignant), Fraction(twentieths, 20)
    found = band(own, float(asked))
    assert [found.low, found.high] == defined(own, asked)
    assert found.confidence == float(asked)


def test_also_of_few_lesions_against_many_and_of_tied_ones():
    random = np.random.default_rng(0)
    for _ in range(300):
        sizes = random.choice([1, 2, 3, 9, 25], 2)
        benign, malignant = (
            np.clip(random.normal(place, 0.2, size), 0, 1).round(random.integers(1, 4)).tolist()
            for place, size in zip((0.3, 0.7), sizes, strict=True)
        )
        own, asked = reference(benign, malignant), Fraction(int(random.integers(10, 20)), 20)
        found = band(own, float(asked))
        assert [found.low, found.high] == defined(own, asked)


@pytest.mark.parametrize("confidence", [0.49, 0.995, 0.0, 1.0, -0.8, 80, float("nan")])
def test_other_confidences_are_refused(confidence):
    with pytest.raises(
        RadllmError, match=r"^The confidence \S+ is not between 0.5 and 0.99: give a share such as 0.8.$"
    ):
        band(reference([0.1], [0.9]), confidence)


# --- the reference --------------------------------------------------------------------------------------------------


def test_a_reference_sorts_each_class():
    found = ConformalReference.from_scores(np.array([0.9, 0.2, 0.4, 0.1, 0.7]), np.array([1, 0, 1, 0, 0]))
    assert (found.benign, found.malignant) == ([0.1, 0.2, 0.7], [0.4, 0.9])


def test_lesions_of_one_class_are_no_reference():
    for label in (0, 1):
        with pytest.raises(RadllmError) as caught:
            ConformalReference.from_scores(np.array([0.9, 0.2]), np.full(2, label))
        assert str(caught.value) == (
            "An uncertain band needs benign and malignant lesions: add lesions of the other class."
        )


@pytest.mark.parametrize("benign", [[], [0.2, 0.1], [-0.1], [1.1], [float("nan")], [0.5] * (MOST_SCORES + 1)])
def test_a_card_with_another_reference_is_malformed(benign):
    with pytest.raises(ValidationError):
        ConformalReference(benign=benign, malignant=[0.5])


@given(st.integers(MOST_SCORES - 1, 4 * MOST_SCORES), st.integers(0, 10**6), confidences)
def test_fewer_quantiles_are_on_the_cautious_side(lesions, seed, confidence):
    """Each class by itself: what would be in its set with all its lesions stays there."""
    scores = np.random.default_rng(seed).random(lesions)
    most, least = ([1.0] * MOST_SCORES, [0.0] * MOST_SCORES)
    as_benign, as_malignant = (
        ConformalReference.from_scores(np.append(scores, 0.5), np.append(np.full(lesions, label), 1 - label))
        for label in (0, 1)
    )
    assert len(as_benign.benign) == len(as_malignant.malignant) == min(lesions, MOST_SCORES)
    ascending = np.sort(scores)
    to_benign = band(reference(as_benign.benign, least), confidence).high
    assert to_benign >= ascending[math.ceil((lesions + 1) * confidence - 1e-9) - 1]
    from_malignant = band(reference(most, as_malignant.malignant), confidence).low
    rank = math.floor((lesions + 1) * (1 - confidence) + 1e-9)
    assert from_malignant <= ascending[rank - 1]
    assert to_benign - ascending[math.ceil((lesions + 1) * confidence) - 1] < 0.02


# --- in a model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictions(tiny_model, tiny_base, phantom_table):
    pytest.importorskip("torch")
    from radllm_backend import Model
    from radllm_backend.features.table import read_table

    model = Model.load(tiny_model, tiny_base)
    lesions = read_table(phantom_table).rows()
    found = {share: model.predict_many(lesions, explain=False, confidence=share) for share in (0.5, 0.8, 0.99)}
    return model, lesions, found


def test_a_model_calls_what_lies_in_its_band_uncertain_and_nothing_else(predictions):
    model, _, by_confidence = predictions
    for confidence, found in by_confidence.items():
        for one in found:
            assert one.band == band(model.card.conformal, confidence).around(model.card.threshold)
            expected = "likely benign" if one.probability < one.band.low else "likely malignant"
            assert one.call == ("uncertain" if one.band.holds(one.probability) else expected)
            assert (one.call == "uncertain") == ("uncertain" in [caution.code for caution in one.cautions])


def test_the_confidence_changes_the_band_and_no_probability(predictions):
    *_, by_confidence = predictions
    assert len({tuple(one.probability for one in found) for found in by_confidence.values()}) == 1
    assert len({found[0].band for found in by_confidence.values()}) > 1


def test_the_threshold_is_always_inside(predictions):
    *_, by_confidence = predictions
    assert all(one.band.holds(one.threshold) for found in by_confidence.values() for one in found)


def test_a_model_refuses_a_confidence_before_it_reads(predictions):
    model, lesions, _ = predictions
    with pytest.raises(RadllmError, match="The confidence 0.3 is not between"):
        model.predict(lesions[0], confidence=0.3)
