"""The text that the model reads."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radllm_backend.errors import RadllmError
from radllm_backend.feature_names import FAMILIES, display_name
from radllm_backend.prompt import PromptTemplate, format_value

NAMES = [f"original_{family}_{name}" for family, names in FAMILIES.items() for name in names]
finite = st.floats(allow_nan=False, allow_infinity=False)


def test_the_sentence_of_the_paper():
    template = PromptTemplate("MG", ("original_shape2D_Sphericity", "original_glszm_ZonePercentage"))
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
    ],
)
def test_an_unfit_template_is_refused(modality, features, sentence):
    with pytest.raises(RadllmError, match=sentence):
        PromptTemplate(modality, features)


def test_the_number_of_values_must_fit():
    with pytest.raises(RadllmError, match="needs 1 values and got 2"):
        PromptTemplate("US", (NAMES[0],)).render([1, 2])
