"""The tables of a batch: a line for each lesion, in both formats alike, and nothing of one that cannot be written."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from radllm_backend.batch.results import Results
from radllm_backend.batch.tables import write_exports
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import read_table
from Testing.batch.rows import OF_RUN, VALUES, filled_results


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Results]:
    with filled_results(tmp_path) as results:
        yield results


def test_the_csv_is_a_feature_table_with_a_line_for_each_lesion(filled: Results, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_exports(tmp_path, filled, *OF_RUN)
    table = read_table(tmp_path / "results.csv")
    assert len(table) == 6
    assert table.features == tuple(VALUES.values)
    assert sorted(table.columns["status"]) == ["done"] * 5 + ["failed"]
    assert table.lesions()[0] == "Generated: lesion"
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    rows = {one.key: one for one in filled.rows(*OF_RUN)}
    for line in lines:
        one = rows[line["key"]]
        assert line["reason"] == one.reason
        assert (float(line["probability"]) if line["probability"] else None) == one.probability
        assert line["cautions"] == ";".join(one.cautions)
    assert not list(tmp_path.glob(".*.partial"))


def test_the_parquet_file_says_the_same(filled: Results, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_exports(tmp_path, filled, *OF_RUN)
    table = parquet.read_table(tmp_path / "results.parquet")
    assert table.num_rows == 6
    rows = list(filled.rows(*OF_RUN))
    assert table["probability"].to_pylist() == [one.probability for one in rows]
    assert table["key"].to_pylist() == [one.key for one in rows]
    spheric = [one.features.values["original_shape2D_Sphericity"] if one.features else None for one in rows]
    assert table["original_shape2D_Sphericity"].to_pylist() == spheric


def test_an_export_that_cannot_be_written_leaves_nothing(filled: Results, tmp_path: Path) -> None:
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(RadllmError, match="results.csv cannot be written"):
        write_exports(tmp_path, filled, *OF_RUN)
    assert not list(tmp_path.glob(".*.partial"))
