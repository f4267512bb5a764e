"""The text that the model reads."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.errors import RadllmError
from radllm_backend.features import descriptors
from radllm_backend.features.descriptors import VOCABULARIES
from radllm_backend.features.names import FAMILIES, display_name
from radllm_backend.features.wording import finding, percentile
from radllm_backend.language.prompt import TEMPLATE_VERSION, PromptTemplate, format_value

NAMES = [f"original_{family}_{name}" for family, names in FAMILIES.items() for name in names]
finite = st.floats(allow_nan=False, allow_infinity=False)
PAIR = ("original_shape2D_Sphericity", "original_glszm_ZonePercentage")
RISING = tuple(number / 10 for number in range(-50, 51))


def test_the_sentence_of_the_paper():
    template = PromptTemplate("MG", PAIR)
    assert TEMPLATE_VERSION == 1
    assert template.render([0.985, 0.196]) == (
        "Classify benign or malignant of this mammography based on given standardized radiomic features. "
        "The 'Sphericity' feature is measured at 0.985. The 'Zone Percentage' feature is measured at 0.196."
    )


@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=12, unique=True).flatmap(
        lambda names: st.tuples(st.just(names), st.lists(finite, min_size=len(names), max_size=len(names)))
    )
)
def test_only_the_template_the_names_and_the_numbers_are_in_the_text(drawn):
    names, values = drawn
    text = PromptTemplate("US", tuple(names)).render(values)
    instruction, *sentences = re.split(r" (?=The ')", text)
    assert instruction == (
        "Classify benign or malignant of this breast ultrasound based on given standardized radiomic features."
    )
    for name, value, sentence in zip(names, values, sentences, strict=True):
        found = re.fullmatch(r"The '(.+)' feature is measured at (-?\d+\.\d{3})\.", sentence)
        assert found
        assert found[1] == display_name(name)
        assert abs(float(found[2]) - value) <= 0.0005 + 1e-9 * abs(value)


@given(finite)
def test_a_value_has_three_decimals_and_no_negative_zero(value):
    text = format_value(value, NAMES[0])
    assert re.fullmatch(r"-?\d+\.\d{3}", text)
    assert text != "-0.000"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_never_reaches_the_text(value):
    with pytest.raises(RadllmError, match="no finite value"):
        PromptTemplate("US", (NAMES[0],)).render([value])


@pytest.mark.parametrize(
    ("modality", "features", "sentence"),
    [
        ("XA", (NAMES[0],), "no prompt for the modality 'XA'"),
        ("US", (), "at least one feature"),
        ("US", (NAMES[0], NAMES[0]), "names one twice"),
        ("US", ("Patient Smith",), "not a PyRadiomics feature name"),
        ("US", ("descriptor_halo",), "not a PyRadiomics feature name"),
    ],
)
def test_an_unfit_template_is_refused(modality, features, sentence):
    with pytest.raises(RadllmError, match=sentence):
        PromptTemplate(modality, features)


def test_the_number_of_values_must_fit():
    with pytest.raises(RadllmError, match="needs 1 value and got 2"):
        PromptTemplate("US", (NAMES[0],)).render([1, 2])


def test_the_descriptors_come_after_the_features():
    template = PromptTemplate("MG", PAIR, ("mass_shape", "mass_margins", "breast_density"))
    assert template.render([0.985, -2], ["IRREGULAR-ARCHITECTURAL_DISTORTION", "", "2"]) == (
        "Classify benign or malignant of this mammography based on given standardized radiomic features and "
        "radiological findings. The 'Sphericity' feature is measured at 0.985. The 'Zone Percentage' feature is "
        "measured at -2.000. The 'Mass Shape' is irregular and architectural distortion. The 'Breast Density' is "
        "scattered areas of fibroglandular density."
    )


def test_a_prompt_of_descriptors_alone():
    template = PromptTemplate("US", (), ("echogenicity", "subtlety"))
    assert template.render([], ["hypoechoic", "5"]) == (
        "Classify benign or malignant of this breast ultrasound based on given radiological findings. "
        "The 'Echogenicity' is hypoechoic. The 'Subtlety (1 subtle to 5 obvious)' is 5."
    )


def test_generic_names_are_numbers_that_stay_with_their_descriptor():
    template = PromptTemplate("MG", PAIR, ("mass_shape", "mass_margins"), "generic")
    assert template.render([0.985, 0.196], ["", "spiculated"]) == (
        "Classify benign or malignant of this mammography based on given standardized radiomic features and "
        "radiological findings. The 'Feature 1' feature is measured at 0.985. The 'Feature 2' feature is measured at "
        "0.196. The 'Feature 4' is spiculated."
    )


def test_findings_in_place_of_numbers():
    template = PromptTemplate("MG", PAIR, ("mass_shape",), "findings", (RISING, RISING))
    assert template.render([-4.55, 0.01], ["oval"]) == (
        "Classify benign or malignant of this mammography based on given standardized radiomic features and "
        "radiological findings. Irregular shape: sphericity lower than 95% of the training lesions. Zone percentage "
        "within the middle of the training lesions. The 'Mass Shape' is oval."
    )


@given(st.sampled_from(NAMES), finite)
def test_a_finding_in_the_prompt_is_knowledges_own(name, value):
    text = PromptTemplate("CT", (name,), (), "findings", (RISING,)).render([value])
    clause = finding(name, percentile(RISING, value))
    assert text.partition("features. ")[2].lower() == f"{clause}.".lower()


TITLES = "|".join(
    re.escape(words)
    for words in [*map(display_name, NAMES), *map(descriptors.descriptor_name, VOCABULARIES), "Feature 1", "Feature 2"]
)
TERMS = "|".join(
    re.escape(term)
    for term in sorted({term for own in VOCABULARIES.values() for term in own.terms}, key=len, reverse=True)
)
CLOSED = re.compile(
    r"Classify benign or malignant of this (mammography|breast ultrasound|CT|MRI) based on given "
    r"(standardized radiomic features|radiological findings|standardized radiomic features and radiological findings)\."
    rf"( The '({TITLES})' feature is measured at -?\d+\.\d{{3}}\.)*"
    rf"( The '({TITLES})' is ({TERMS})( and ({TERMS}))*\.)*"
)
texts = st.text(max_size=30)


def sometimes(real):
    """A real word, an arbitrary one, or a real one with something arbitrary around it."""
    return st.sampled_from(real) | texts | st.tuples(texts, st.sampled_from(real), texts).map("".join)


@settings(max_examples=1000)
@given(
    modality=sometimes(["MG", "US"]),
    features=st.lists(sometimes(NAMES), max_size=1),
    named=st.lists(sometimes(sorted(VOCABULARIES)), max_size=1),
    style=sometimes(["numbers", "generic"]),
    value=st.floats(),
    category=sometimes(["oval", "4", "yes", "ill defined", "N/A"]),
)
def test_whatever_is_passed_in_no_other_word_reaches_the_text(modality, features, named, style, value, category):
    try:
        text = PromptTemplate(modality, tuple(features), tuple(named), style).render(
            [value] * len(features), [category] * len(named)
        )
    except RadllmError:
        return
    assert CLOSED.fullmatch(text)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"descriptors": ("mass_size",)}, "no descriptor 'mass_size': the known ones are lesion_type"),
        ({"descriptors": ("halo", "halo")}, "names one twice"),
        ({"style": "poem"}, "no prompt style 'poem': use numbers, findings, generic"),
        ({"style": "findings"}, "needs 101 rising training quantiles"),
        ({"style": "findings", "quantiles": (RISING[:-1],)}, "needs 101 rising training quantiles"),
        ({"style": "findings", "quantiles": (RISING[::-1],)}, "needs 101 rising training quantiles"),
        ({"style": "findings", "quantiles": (RISING, RISING)}, "needs 101 rising training quantiles"),
        ({"style": "findings", "quantiles": ((*RISING[:-1], math.inf),)}, "needs 101 rising training quantiles"),
    ],
)
def test_an_unfit_style_or_descriptor_is_refused(more, sentence):
    with pytest.raises(RadllmError, match=sentence):
        PromptTemplate("US", (NAMES[0],), **more)


@pytest.mark.parametrize("style", ["numbers", "generic", "findings"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_style_says_anything_of_a_value_that_is_not_finite(style, value):
    with pytest.raises(RadllmError, match="no finite value"):
        PromptTemplate("US", (NAMES[0],), (), style, (RISING,)).render([value])


def test_the_number_of_descriptors_must_fit():
    with pytest.raises(RadllmError, match="needs 0 descriptors and got 1"):
        PromptTemplate("US", (NAMES[0],)).render([1], ["oval"])
    with pytest.raises(RadllmError, match="needs 1 descriptors and got 0"):
        PromptTemplate("US", (NAMES[0],), ("halo",)).render([1])
