"""From a data set's folder to an evaluation report, by the commands that a user gives, for each published layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from radllm_backend.features.table import read_table
from Testing.support.command_line import succeed
from Testing.support.dataset_trees import (
    breast_us_cases,
    cbis_rows,
    inbreast_images,
    vindr_rows,
    write_breast_us,
    write_cbis,
    write_cbis_tables,
    write_inbreast,
    write_vindr,
)

# Two dozen lesions that one feature tells apart are what statistics warn of.
pytestmark = [
    pytest.mark.usefixtures("lean"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning"),
]


def evaluated(tmp_path: Path, table: Path, *given: str) -> dict:
    """What the report says of a table of lesions."""
    report = tmp_path / "report"
    columns = ["--target", "label", "--group", "patient"]
    few = ["--no-language", "--folds", "2", "--inner-folds", "2", "--seeds", "1"]
    succeed("evaluate", table, *columns, *few, "-o", report, *given)
    assert (report / "evaluation.html").read_text().startswith("<!DOCTYPE html>")
    return json.loads((report / "evaluation.json").read_text())


@pytest.mark.parametrize(
    ("name", "tree", "settings", "given", "judged"),
    [
        ("vindr-mammo", lambda root: write_vindr(root, vindr_rows(12)), "mammography", ("--split", "split"), 8),
        ("inbreast", lambda root: write_inbreast(root, inbreast_images(8)), "mammography", (), 16),
        ("cbis-ddsm", lambda root: write_cbis(root, cbis_rows(12)), "mammography", ("--split", "split"), 8),
        ("breast-us", lambda root: write_breast_us(root, breast_us_cases(12)), "breast-ultrasound", (), 12),
    ],
    ids=["vindr-mammo", "inbreast", "cbis-ddsm", "breast-us"],
)
@pytest.mark.long
def test_from_folder_to_report(tmp_path, name, tree, settings, given, judged):
    manifest, table = tmp_path / "manifest.csv", tmp_path / "features.csv"
    succeed("dataset", name, tree(tmp_path / name), "-o", manifest)
    succeed("extract", "--manifest", manifest, "--settings", settings, "-o", table)
    assert len(read_table(table).features) == {"mammography": 67, "breast-ultrasound": 102}[settings]
    card = evaluated(tmp_path, table, *given)
    assert (card["lesions"], card["descriptors"]) == (judged, 0)
    # Smooth and spiculated masses: something can be learned, so a row that got another's features would show.
    assert max(model["auc"]["value"] for model in card["models"]) > 0.8


def test_tables_alone_to_a_report(tmp_path):
    tables = tmp_path / "cbis"
    write_cbis_tables(tables, cbis_rows(24))
    table = tmp_path / "descriptors.csv"
    succeed("dataset", "cbis-ddsm", tables, "-o", table, "--tables-only")
    card = evaluated(tmp_path, table, "--modality", "MG", "--split", "split")
    assert (card["features"], card["descriptors"], card["lesions"]) == (0, 7, 16)
    assert max(model["auc"]["value"] for model in card["models"]) == 1  # the shape tells them apart
