"""Tables of lesions: what is read, what is written, and that both agree."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import VOCABULARIES, canonical
from radllm_backend.features.table import read_table, write_table
from radllm_backend.records import Features

SPHERICITY = "original_shape2D_Sphericity"


@pytest.fixture
def table(tmp_path):
    def write(*lines):
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_descriptors_are_read_in_their_one_spelling(table):
    read = read_table(
        table(
            f"lesion,descriptor_mass_shape,{SPHERICITY},label,descriptor_breast_density",
            "a,ROUND-OVAL,0.5,benign,1",
            "b, oval and round ,0.6,malignant,N/A",
            "c,,,benign,D",
        )
    )
    assert read.features == (SPHERICITY,)
    assert read.descriptors == ("mass_shape", "breast_density")
    assert read.categories.tolist() == [
        ["round and oval", "almost entirely fatty"],
        ["round and oval", ""],
        ["", "extremely dense"],
    ]
    assert list(read.columns) == ["lesion", "label"]
    assert [row.descriptors for row in read.rows()] == [
        {"mass_shape": "round and oval", "breast_density": "almost entirely fatty"},
        {"mass_shape": "round and oval", "breast_density": ""},
        {"mass_shape": "", "breast_density": "extremely dense"},
    ]
    assert [row.values[SPHERICITY] for row in read.rows()] == [0.5, 0.6, None]


def test_a_table_may_have_descriptors_alone(table):
    read = read_table(table("label,descriptor_halo", "benign,yes", "malignant,no"))
    assert read.features == ()
    assert read.values.shape == (2, 0)
    assert len(read) == 2
    assert read.categories.tolist() == [["present"], ["absent"]]
    assert [row.values for row in read.rows()] == [{}, {}]


def test_a_table_may_have_features_alone(table):
    read = read_table(table(SPHERICITY, "0.5", "0.25"))
    assert read.descriptors == ()
    assert read.categories.shape == (2, 0)
    assert read.values.tolist() == [[0.5], [0.25]]
    assert [row.descriptors for row in read.rows()] == [{}, {}]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["label", "benign"], "no column with a PyRadiomics feature name .* nor a descriptor"),
        (
            ["descriptor_mass_size", "9"],
            "table.csv has a column 'descriptor_mass_size': There is no descriptor .* halo",
        ),
        (["descriptor_halo", "yes", "maybe"], "Line 3 of table.csv: 'descriptor_halo' cannot be 'maybe': .* present"),
        (["descriptor_halo,descriptor_halo", "yes,no"], "two columns 'descriptor_halo'"),
    ],
)
def test_an_unfit_table_is_told_what_to_do(table, lines, sentence):
    with pytest.raises(RadllmError, match=sentence):
        read_table(table(*lines))


def values_of(descriptor):
    vocabulary = VOCABULARIES[descriptor]
    most = 3 if vocabulary.several and "none" not in vocabulary.terms else 1
    return st.lists(st.sampled_from(vocabulary.terms), max_size=most).map(
        lambda chosen: canonical(descriptor, " and ".join(chosen))
    )


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=False, allow_infinity=False) | st.none(),
            st.fixed_dictionaries({name: values_of(name) for name in ("mass_margins", "calcification_type", "halo")}),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read_again(tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    rows = [Features(values={SPHERICITY: value}, descriptors=given) for value, given in drawn]
    write_table(path, [({"lesion": str(number)}, row) for number, row in enumerate(rows)])
    read = read_table(path)
    assert read.rows() == rows
    assert read.lesions() == [str(number) for number in range(len(rows))]


def test_a_row_without_a_descriptor_leaves_its_cell_empty(tmp_path):
    path = tmp_path / "table.csv"
    write_table(
        path,
        [
            ({"lesion": "a"}, Features(values={SPHERICITY: 0.5}, descriptors={"halo": "present"})),
            ({"lesion": "b"}, Features(values={SPHERICITY: 0.25})),
        ],
    )
    with path.open(newline="") as file:
        assert next(csv.reader(file)) == ["lesion", "descriptor_halo", SPHERICITY, "extraction"]
    assert read_table(path).categories.tolist() == [["present"], [""]]


def test_a_manifests_own_descriptor_column_is_not_written_twice(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, [({"descriptor_halo": "no"}, Features(values={}, descriptors={"halo": "present"}))])
    assert read_table(path).categories.tolist() == [["present"]]


def test_a_manifests_descriptor_column_becomes_a_descriptor(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, [({"descriptor_mass_shape": "LOBULATED-OVAL"}, Features(values={SPHERICITY: 1.0}))])
    assert read_table(path).rows()[0].descriptors == {"mass_shape": "oval and lobulated"}


def test_an_empty_cell_of_a_feature_is_not_a_number(table):
    read = read_table(table(f"{SPHERICITY},descriptor_halo", ",yes", "1,"))
    assert math.isnan(read.values[0, 0])
    assert read.values.dtype == np.float64
