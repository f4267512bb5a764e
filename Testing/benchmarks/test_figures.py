"""The tables of Resources/Benchmarks are what the commands beside them gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.comparison import Comparison, table

FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Benchmarks"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
FILES = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_its_table_is_that_of_the_rounds(file: Path) -> None:
    measured = json.loads(file.read_text(encoding="utf-8"))
    comparisons = [Comparison.model_validate(one) for one in measured["comparisons"]]
    assert f"{measured['machine']}\n\n{table(comparisons)}" in PAGE
    assert {one.subject for one in comparisons} == {file.stem}
    assert all(len(one.values) >= 3 for one in comparisons)
