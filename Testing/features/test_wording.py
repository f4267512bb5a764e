"""Findings in plain words, and that they are true."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import percentileofscore

from radllm_backend.datasets.phantoms import make_phantom
from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import extract
from radllm_backend.features.names import FAMILIES
from radllm_backend.features.wording import _WORDS, finding, findings, percentile
from radllm_backend.imaging.lesion import Lesion

ALL = [f"original_{family}_{name}" for family, names in FAMILIES.items() for name in names]
SPHERICITY = "original_shape2D_Sphericity"
numbers = st.floats(-1e6, 1e6)


@given(st.lists(st.integers(-5, 5), min_size=101, max_size=101).map(sorted), st.integers(-6, 6))
def test_the_percentile_is_scipys_mean_rank(quantiles, value):
    assert percentile(quantiles, value) == pytest.approx(percentileofscore(quantiles, value, "mean"))


def test_a_value_below_or_above_all_training_lesions_is_at_the_end():
    assert percentile([1.0, 2.0, 3.0], 0.0) == 0
    assert percentile([1.0, 2.0, 3.0], 4.0) == 100
    assert percentile([1.0, 2.0, 3.0], 2.0) == 50


@pytest.mark.parametrize(
    ("feature", "position", "clause"),
    [
        (SPHERICITY, 4.2, "irregular shape: sphericity lower than 95% of the training lesions"),
        (SPHERICITY, 93.0, "round shape: sphericity higher than 90% of the training lesions"),
        (SPHERICITY, 50.0, "sphericity within the middle of the training lesions"),
        (SPHERICITY, 20.0, "sphericity within the middle of the training lesions"),
        (SPHERICITY, 80.0, "sphericity within the middle of the training lesions"),
        (SPHERICITY, 0.0, "irregular shape: sphericity lower than 99% of the training lesions"),
        (SPHERICITY, 100.0, "round shape: sphericity higher than 99% of the training lesions"),
        (SPHERICITY, 5.0, "irregular shape: sphericity lower than 95% of the training lesions"),
        (SPHERICITY, 100 - 94.99999999999999, "irregular shape: sphericity lower than 95% of the training lesions"),
        (
            "original_glcm_JointEntropy",
            99.5,
            "heterogeneous texture: joint entropy higher than 99% of the training lesions",
        ),
        ("original_firstorder_Mean", 12.0, "dark lesion: mean lower than 85% of the training lesions"),
        ("original_shape_Sphericity", 12.0, "irregular shape: sphericity (3D) lower than 85% of the training lesions"),
        ("original_glcm_Imc1", 2.0, "informational measure of correlation 1 lower than 95% of the training lesions"),
        ("log-sigma-3-5-mm-3D_firstorder_Mean", 97.0, "LoG 3.5 mm mean higher than 95% of the training lesions"),
        ("wavelet-HH_glcm_JointEntropy", 50.0, "wavelet HH joint entropy within the middle of the training lesions"),
    ],
)
def test_clauses(feature, position, clause):
    assert finding(feature, position) == clause


@given(st.sampled_from(ALL), st.lists(numbers, min_size=101, max_size=101).map(sorted), numbers)
def test_what_a_clause_says_of_the_training_lesions_is_true(feature, quantiles, value):
    clause = finding(feature, percentile(quantiles, value))
    found = re.search(r"(lower|higher) than (\d+)% of the training lesions$", clause)
    if not found:
        assert clause.endswith("within the middle of the training lesions")
        return
    # Ties count half in a percentile, so that "lower than" can only be exact to those.
    beyond = np.array(quantiles) >= value if found[1] == "lower" else np.array(quantiles) <= value
    assert 80 <= int(found[2]) <= 100 * beyond.mean()
    assert int(found[2]) in (80, 85, 90, 95, 99)


@given(st.sampled_from(ALL), st.floats(0, 100), st.floats(0, 0.5e-7))
def test_floating_point_noise_does_not_change_the_words(feature, position, noise):
    steps = [0, 1, 5, 10, 15, 20, 80, 85, 90, 95, 99, 100]
    if all(abs(position - step) > 1e-6 for step in steps) and position + noise <= 100:
        assert finding(feature, position) == finding(feature, position + noise)


@pytest.mark.parametrize("position", [-0.1, 100.1, float("nan")])
def test_a_percentile_lies_between_0_and_100(position):
    with pytest.raises(ValueError, match="between 0 and 100"):
        finding(SPHERICITY, position)


@given(st.text(max_size=60), st.floats(0, 100))
def test_nothing_but_a_canonical_name_has_a_finding(text, position):
    with pytest.raises(RadllmError, match="not a PyRadiomics feature name"):
        finding(text + "!", position)


def test_only_what_stands_out_is_told_and_the_strongest_first():
    told = findings(
        {
            "original_firstorder_Mean": 85.0,
            SPHERICITY: 3.0,
            "original_glcm_JointEntropy": 50.0,
            "original_glcm_Contrast": 97.0,
            "original_glcm_Imc1": 79.9,
        }
    )
    assert told == [
        "irregular shape: sphericity lower than 95% of the training lesions",
        "rough texture: contrast (GLCM) higher than 95% of the training lesions",
        "bright lesion: mean higher than 85% of the training lesions",
    ]
    assert findings({SPHERICITY: 50.0}) == []


def test_the_curated_words_belong_to_features_that_exist():
    assert {f"original_{feature}" for feature in _WORDS} <= set(ALL)


def words(feature: str, low: bool) -> str:
    return finding(feature, 0 if low else 100).split(":")[0]


def test_a_round_smooth_lesion_and_an_irregular_one_get_the_words_for_it():
    """PyRadiomics' values of two synthetic lesions, whose appearance is known, decide which word is which."""
    pytest.importorskip("radiomics")
    oval, spiculated = (lesion_features(kind) for kind in ("oval", "spiculated"))
    lower = spiculated[SPHERICITY] < oval[SPHERICITY]
    assert words(SPHERICITY, low=lower) == "irregular shape"
    ratio = "original_shape2D_PerimeterSurfaceRatio"
    assert words(ratio, low=spiculated[ratio] < oval[ratio]) == "outline long for its area"


def test_the_words_for_brightness_and_its_spread_are_on_pyradiomics_side():
    pytest.importorskip("radiomics")
    noise = np.random.default_rng(0).uniform(-1, 1, (64, 64))
    levels = {
        "bright": ({"mean": 180, "spread": 20}, {"mean": 60, "spread": 20}),
        "wide range": ({"mean": 120, "spread": 90}, {"mean": 120, "spread": 10}),
    }
    for word, (more, less) in levels.items():
        high, low = (textured(framed(level["mean"] + level["spread"] * noise)) for level in (more, less))
        told = [f"original_{feature}" for feature, both in _WORDS.items() if both[1].startswith(word)]
        assert len(told) >= 2
        assert all(high[feature] > low[feature] for feature in told)


def framed(pixels):
    """Black and white outside the mask, so that scaling by the whole image changes nothing."""
    pixels[0], pixels[1] = 0, 255
    return pixels


def test_a_large_lesion_has_the_larger_values_where_the_words_say_large():
    pytest.importorskip("radiomics")
    pixels = np.random.default_rng(0).uniform(0, 255, (64, 64)).astype(np.float32)
    rows, columns = np.indices(pixels.shape) - 32
    large, small = (measured(pixels, ((rows / 2) ** 2 + columns**2 < radius**2).astype(np.uint8)) for radius in (14, 7))
    sizes = ("large lesion", "long lesion", "wide lesion", "long outline")
    told = [f"original_{feature}" for feature, both in _WORDS.items() if both[1] in sizes]
    assert all(large[feature] > small[feature] for feature in told if feature in large)
    elongation = "original_shape2D_Elongation"
    circle = measured(pixels, (rows**2 + columns**2 < 100).astype(np.uint8))
    assert words(elongation, low=large[elongation] < circle[elongation]) == "elongated shape"


def lesion_features(kind: str) -> dict[str, float]:
    phantom = make_phantom(kind, seed=3, size=(200, 160))
    return measured(phantom.image, phantom.mask // 255)


def textured(pixels) -> dict[str, float]:
    mask = np.zeros(pixels.shape, np.uint8)
    mask[8:-8, 8:-8] = 1
    return measured(pixels.astype(np.float32), mask)


def measured(pixels, mask) -> dict[str, float]:
    import SimpleITK as sitk

    pair = sitk.GetImageFromArray(pixels), sitk.GetImageFromArray(mask)
    for image in pair:
        image.SetSpacing((0.1, 0.1))
    return extract(Lesion.from_images(*pair), "breast-ultrasound").values


def test_each_word_for_texture_is_on_the_side_where_pyradiomics_puts_such_a_texture():
    """Pure noise is rough, fine and heterogeneous; the same noise smoothed over is not."""
    pytest.importorskip("radiomics")
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(0).normal(size=(64, 64))
    rough = textured(100 + 20 * noise)
    smooth = textured(100 + 20 * gaussian_filter(noise, 4) / gaussian_filter(noise, 4).std())
    for side in ("rough texture", "fine texture"):
        told = [f"original_{feature}" for feature, both in _WORDS.items() if side in both]
        told = [feature for feature in told if feature in rough]
        assert len(told) >= 3
        for feature in told:
            assert words(feature, low=rough[feature] < smooth[feature]) == side, feature


def test_each_word_for_heterogeneity_is_on_the_side_where_pyradiomics_puts_it():
    """Two grey levels in two halves are homogeneous; many of them everywhere are not."""
    pytest.importorskip("radiomics")
    noise = np.random.default_rng(0).normal(size=(64, 64))
    halves = np.where(np.arange(64) < 32, 50.0, 150.0) * np.ones((64, 1))
    many, few = textured(100 + 20 * noise), textured(halves)
    told = [f"original_{feature}" for feature, both in _WORDS.items() if "heterogeneous texture" in both]
    for feature in (feature for feature in told if feature in many):
        assert words(feature, low=many[feature] < few[feature]) == "heterogeneous texture", feature
