"""The adaptation curve on disk: its numbers, and a figure that needs nothing and is the same every day."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree

import pytest
from PIL import Image

pytest.importorskip("torch")

from radllm_backend.errors import RadllmError
from radllm_backend.learning.adaptation import AdaptationCurve, curve_points
from radllm_backend.reports.adaptation import write_adaptation

MODELS = ("LoRA, adapted", "LoRA, from scratch", "logistic regression", "random forest")


@pytest.fixture(scope="module")
def curve() -> AdaptationCurve:
    """Four models at two sizes in two repeats; their AUCs are made up."""
    trials = [
        {"model": model, "size": size, "repeat": repeat, "auc": 0.5 + place / 20 + size / 100 + repeat / 50}
        for repeat in (0, 1)
        for size in (6, 12)
        for place, model in enumerate(MODELS)
    ]
    made = AdaptationCurve.model_validate(
        {
            "source": "a.csv",
            "target": "b.csv",
            "shared": ["original_glcm_Contrast"],
            "only_source": [],
            "only_target": ["mass_shape"],
            "source_lesions": 40,
            "left_out": 0,
            "test_lesions": [20, 20],
            "points": [],
            "trials": trials,
            "options": {},
            "base_model": "tiny-llama",
            "base_sha256": "0" * 64,
            "command": "radllm adaptation-curve a.csv b.csv",
            "hardware": "two cores",
            "versions": {"torch": "2.9"},
        }
    )
    return made.model_copy(update={"points": curve_points(made.trials)})


FILES = ("adaptation.json", "adaptation.csv", "adaptation.svg", "adaptation.png")


@pytest.fixture
def written(curve, tmp_path):
    write_adaptation(tmp_path / "new" / "folder", curve)
    return tmp_path / "new" / "folder"


def test_numbers_and_figure_are_written(written, curve):
    assert {path.name for path in written.iterdir()} == set(FILES)
    assert AdaptationCurve.model_validate(json.loads((written / "adaptation.json").read_text())) == curve
    rows = list(csv.DictReader((written / "adaptation.csv").open()))
    assert [float(row["auc"]) for row in rows] == [trial.auc for trial in curve.trials]
    assert list(rows[0]) == ["model", "labelled_lesions", "repeat", "auc"]
    with Image.open(written / "adaptation.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1440, 920))
        assert len(picture.getcolors(picture.width * picture.height)) > 100


def test_the_drawing_is_one_file_that_needs_nothing_and_says_nothing_of_the_day(written):
    text = (written / "adaptation.svg").read_text()
    xml.etree.ElementTree.fromstring(text)
    assert "<text" not in text  # shapes: no font is needed
    for word in ("<script", "<image", "@import", "dc:date", "Matplotlib"):
        assert word not in text, word


def test_the_same_curve_gives_the_same_bytes_whatever_the_users_settings(written, curve, tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "none"}):
        write_adaptation(tmp_path / "again", curve)
        assert matplotlib.rcParams["font.size"] == 30
    for name in FILES:
        assert (written / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_strange_file_name_is_a_name(curve, tmp_path):
    write_adaptation(tmp_path, curve.model_copy(update={"source": "a_{$x^2.csv", "target": "<b>&.csv"}))
    xml.etree.ElementTree.fromstring((tmp_path / "adaptation.svg").read_text())


def test_a_folder_that_cannot_be_is_one_sentence(curve, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RadllmError, match="cannot be written to out .*choose another folder"):
        write_adaptation(tmp_path / "file" / "out", curve)
