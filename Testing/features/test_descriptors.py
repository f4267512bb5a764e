"""The radiologist's words against the data sets that use them."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import (
    VOCABULARIES,
    canonical,
    descriptor_name,
    indicator_names,
    indicators,
    terms,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CBIS = SHARED / "cbis-ddsm"
BREAST_US = SHARED / "breast-us" / "cases.csv"
JOINERS = [" ", "-", "_", " and ", " AND ", "&", " - ", "  "]

CBIS_COLUMNS = {
    "abnormality type": "lesion_type",
    "mass shape": "mass_shape",
    "mass margins": "mass_margins",
    "calc type": "calcification_type",
    "calc distribution": "calcification_distribution",
    "breast_density": "breast_density",
    "breast density": "breast_density",
    "subtlety": "subtlety",
    "assessment": "birads_assessment",
}
BREAST_US_COLUMNS = {
    "Shape": "mass_shape",
    "Margin": "mass_margins",
    "Echogenicity": "echogenicity",
    "Posterior_features": "posterior_features",
    "Halo": "halo",
    "Calcifications": "ultrasound_calcifications",
    "Skin_thickening": "skin_thickening",
    "BIRADS": "birads_assessment",
}


def combined_values():
    """(descriptor, its terms in any order, the same written in any way that is tolerated)."""

    def of(descriptor):
        vocabulary = VOCABULARIES[descriptor]
        free = [term for term in vocabulary.terms if term != "none"] if vocabulary.several else vocabulary.terms
        most = 4 if vocabulary.several else 1
        chosen = st.lists(st.sampled_from(free), min_size=1, max_size=most, unique=True)
        return st.tuples(st.just(descriptor), chosen)

    def written(drawn):
        descriptor, chosen = drawn
        joiners = st.lists(st.sampled_from(JOINERS), min_size=len(chosen), max_size=len(chosen))
        cases = st.lists(st.sampled_from([str.upper, str.lower, str.title]), min_size=len(chosen), max_size=len(chosen))
        inside = st.sampled_from([" ", "_", "-"])
        text = st.tuples(joiners, cases, inside).map(
            lambda ways: "".join(
                case(term).replace(" ", ways[2]) + (joiner if number < len(chosen) - 1 else "")
                for number, (term, joiner, case) in enumerate(zip(chosen, ways[0], ways[1], strict=True))
            )
        )
        return st.tuples(st.just(descriptor), st.just(chosen), text)

    return st.sampled_from(sorted(VOCABULARIES)).flatmap(of).flatmap(written)


@given(combined_values())
def test_case_separators_and_order_do_not_matter(drawn):
    descriptor, chosen, text = drawn
    ordered = tuple(term for term in VOCABULARIES[descriptor].terms if term in chosen)
    assert terms(descriptor, text) == ordered
    assert canonical(descriptor, text) == " and ".join(ordered)
    assert canonical(descriptor, canonical(descriptor, text)) == canonical(descriptor, text)


def cells(path, columns):
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield from ((columns[name], cell) for name, cell in row.items() if name in columns)


@pytest.mark.skipif(not CBIS.is_dir(), reason="the tables of CBIS-DDSM are not here")
@pytest.mark.parametrize("kind", ["mass", "calc"])
def test_every_value_of_cbis_ddsm_is_read_as_its_own_words(kind):
    found = set(cells(CBIS / f"{kind}_case_description_train_set.csv", CBIS_COLUMNS))
    assert len({descriptor for descriptor, _ in found}) == 6
    for descriptor, cell in found:
        value = canonical(descriptor, cell)
        if descriptor == "breast_density":
            assert value == VOCABULARIES[descriptor].terms[int(cell) - 1]
        elif cell == "N/A" or (descriptor, cell) == ("subtlety", "0"):
            assert value == ""
        else:
            cell = re.sub(r"LUCENT_CENTER\b", "LUCENT_CENTERED", cell)
            assert set(terms(descriptor, cell)) == {part.lower().replace("_", " ") for part in cell.split("-")}
            assert value == canonical(descriptor, cell)


@pytest.mark.skipif(not BREAST_US.is_file(), reason="the table of BrEaST is not here")
def test_every_value_of_breast_us_is_read():
    found = set(cells(BREAST_US, BREAST_US_COLUMNS))
    assert {descriptor for descriptor, _ in found} == set(BREAST_US_COLUMNS.values())
    assert all(canonical(descriptor, cell) for descriptor, cell in found)


@pytest.mark.parametrize(
    ("descriptor", "text", "value"),
    [
        ("mass_shape", "IRREGULAR-ARCHITECTURAL_DISTORTION", "irregular and architectural distortion"),
        ("mass_margins", "SPICULATED-ILL_DEFINED", "ill defined and spiculated"),
        (
            "mass_margins",
            "not circumscribed - spiculated&indistinct",
            "not circumscribed and indistinct and spiculated",
        ),
        ("mass_margins", "N/A", ""),
        ("calcification_type", "PLEOMORPHIC-PLEOMORPHIC", "pleomorphic"),
        ("calcification_type", "ROUND_AND_REGULAR-LUCENT_CENTER", "round and regular and lucent centered"),
        ("calcification_type", "LUCENT_CENTERED", "lucent centered"),
        ("calcification_type", "Large rod-like", "large rodlike"),
        ("calcification_distribution", "grouped", "clustered"),
        ("breast_density", "3", "heterogeneously dense"),
        ("breast_density", "B", "scattered areas of fibroglandular density"),
        ("birads_assessment", "4A", "4a"),
        ("echogenicity", "complex cystic/solid", "complex cystic and solid"),
        ("posterior_features", "no", "none"),
        ("posterior_features", "combined", "combined pattern"),
        ("halo", "yes", "present"),
        ("ultrasound_calcifications", "in a mass", "in a mass"),
        ("skin_thickening", "not available", ""),
        ("subtlety", "0", ""),
        ("lesion_type", "  ", ""),
    ],
)
def test_words(descriptor, text, value):
    assert canonical(descriptor, text) == value


@pytest.mark.parametrize(
    ("descriptor", "text"),
    [
        ("mass_shape", "blob"),
        ("mass_shape", "irregular blob"),
        ("mass_shape", "irregular."),
        ("mass_shape", "irregular and"),
        ("mass_shape", "and irregular"),
        ("mass_shape", "irregularoval"),
        ("mass_shape", "irregular, oval"),
        ("mass_shape", "spiculated"),
        ("breast_density", "1-2"),
        ("breast_density", "5"),
        ("subtlety", "6"),
        ("subtlety", "3.0"),
        ("birads_assessment", "4d"),
        ("ultrasound_calcifications", "none and intraductal"),
    ],
)
def test_an_unknown_word_names_the_column_the_value_and_the_allowed_terms(descriptor, text):
    with pytest.raises(RadllmError) as raised:
        canonical(descriptor, text)
    assert f"'descriptor_{descriptor}' cannot be '{text}'" in str(raised.value)
    assert all(term in str(raised.value) for term in VOCABULARIES[descriptor].terms)


@given(st.sampled_from(sorted(VOCABULARIES)), st.text(max_size=60))
def test_nothing_but_terms_comes_out(descriptor, text):
    try:
        value = canonical(descriptor, text)
    except RadllmError:
        return
    assert value == " and ".join(term for term in VOCABULARIES[descriptor].terms if term in terms(descriptor, value))


def test_no_spelling_means_two_terms():
    for vocabulary in VOCABULARIES.values():
        assert len(set(vocabulary.terms)) == len(vocabulary.terms)
        assert not set(vocabulary.terms) & set(vocabulary.alternates)
        assert set(vocabulary.alternates.values()) <= set(vocabulary.terms)
        assert all(word == " ".join(word.lower().split()) for word in (*vocabulary.terms, *vocabulary.alternates))


def test_every_descriptor_has_its_own_title():
    titles = sorted(descriptor_name(name) for name in VOCABULARIES)
    assert all(one != other for one, other in pairwise(titles))


def test_an_unknown_descriptor_is_told_the_known_ones():
    with pytest.raises(RadllmError, match="no descriptor 'mass_size': the known ones are lesion_type, mass_shape"):
        descriptor_name("mass_size")


def test_indicators_are_one_where_a_lesion_has_a_term_and_zero_where_nothing_was_given():
    names = ("mass_shape", "halo")
    matrix = indicators(names, np.array([["oval and lymph node", "present"], ["", "absent"], ["irregular", ""]]))
    columns = indicator_names(names)
    told = [{column for column, flag in zip(columns, row, strict=True) if flag} for row in matrix]
    assert told == [
        {"Mass Shape: oval", "Mass Shape: lymph node", "Halo: present"},
        {"Halo: absent"},
        {"Mass Shape: irregular"},
    ]
    assert set(np.unique(matrix)) == {0.0, 1.0}


def test_indicators_of_no_descriptor_have_no_column():
    assert indicators((), np.empty((3, 0), dtype=str)).shape == (3, 0)
    assert indicators(("halo",), np.empty((0, 1), dtype=str)).shape == (0, 2)
