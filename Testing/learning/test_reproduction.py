"""The paper's experiment as one command, on generated trees in the layouts of its data sets."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from PIL import Image, PngImagePlugin

from radllm_backend.datasets import manifest as manifests
from radllm_backend.features.table import read_rows, read_table
from radllm_backend.learning import reproduction
from radllm_backend.learning import study as evaluation
from radllm_backend.learning.compared_models import classical, of_method
from radllm_backend.learning.reproduction import ADAPTED_FROM_VINDR, INBREAST_ALONE, PAPER_FIGURES, Reproduction
from radllm_backend.learning.reproduction_data import Sources, measure_data_sets
from radllm_backend.records import Estimate
from radllm_backend.reports.reproduction import reproduction_html, reproduction_text
from Testing.support.command_line import radllm, succeed
from Testing.support.dataset_trees import inbreast_images, vindr_rows, write_inbreast, write_vindr

pytestmark = pytest.mark.usefixtures("lean")


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> tuple[Path, Path]:
    """VinDr-Mammo and INbreast, each with one mass that the label rule does not know, and with one that is no mass."""
    folder = tmp_path_factory.mktemp("trees")
    rows = vindr_rows(12)
    rows[0]["finding_birads"] = ""
    rows.append({**rows[1], "finding_categories": "['Asymmetry']"})
    images = inbreast_images(10)
    images[0]["birads"] = "2"
    images[1]["rois"].append(("Asymmetry", images[1]["rois"][0][1]))
    return write_vindr(folder / "vindr", rows), write_inbreast(folder / "inbreast", images)


def command(trees, base, output, *more) -> list[object]:
    vindr, inbreast = trees
    quick = ["--features", "4", "--epochs", "2", "--learning-rate", "0.01", "--inner-folds", "2"]
    given = ["--vindr", vindr, "--inbreast", inbreast, "--base-model", base, "-o", output]
    return ["reproduce", "ra2025", *given, *quick, *more]


@pytest.fixture(scope="module")
def finished(lean, trees, tiny_base, tmp_path_factory):
    """The command's end and its output folder."""
    output = tmp_path_factory.mktemp("reproduced") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield succeed(*command(trees, tiny_base, output)), output


@pytest.fixture(scope="module")
def content(finished) -> dict:
    return json.loads((finished[1] / "reproduction.json").read_text())


def test_67_features_of_the_masses_and_what_was_left_out(finished):
    for name, lesions in (("vindr-mammo", 23), ("inbreast", 19)):
        table = read_table(finished[1] / name / "features.csv")
        assert (len(table), len(table.features), table.descriptors) == (lesions, 67, ())
        assert len((finished[1] / name / "left-out.txt").read_text().splitlines()) == 1


def test_the_published_split_and_halves_of_the_patients(finished, trees):
    published = {
        row["study_id"]: row["split"] for row in read_rows(trees[0] / "finding_annotations.csv", ("study_id", "split"))
    }
    table = read_table(finished[1] / "vindr-mammo" / "features.csv")
    assert table.column("split") == [published[patient] for patient in table.column("patient")]
    table = read_table(finished[1] / "inbreast" / "features.csv")
    parts = {(patient, part) for patient, part in zip(table.column("patient"), table.column("split"), strict=True)}
    assert len(parts) == 10  # no patient in both
    assert sorted(part for _, part in parts) == ["test"] * 5 + ["training"] * 5


def test_the_papers_figures_stand_beside_the_runs(finished, content):
    vindr, inbreast = content["stages"]
    assert (vindr["paper"], inbreast["paper"]) == (
        {"accuracy": 0.671, "test_lesions": "235"},
        {"accuracy": 0.839, "test_lesions": "about 55"},
    )
    assert (vindr["model"], inbreast["model"]) == ("LoRA head", ADAPTED_FROM_VINDR)
    assert (vindr["test_lesions"], vindr["training_lesions"], vindr["left_out"], vindr["dropped"]) == (8, 15, 1, 0)
    page = (finished[1] / "reproduction.html").read_text()
    for figure in ("0.671", "235", "0.839", "about 55"):
        assert figure in finished[0].output
        assert figure in page
    assert finished[0].output.startswith((finished[1] / "reproduction.txt").read_text())
    assert "http:" not in page
    assert "https:" not in page
    for stage in content["stages"]:
        accuracy = next(one for one in stage["models"] if one["model"] == stage["model"])["accuracy"]
        written = f"{accuracy['value']:.3f} ({accuracy['low']:.3f} to {accuracy['high']:.3f})"
        inside = accuracy["low"] <= stage["paper"]["accuracy"] <= accuracy["high"]
        sentence = f"accuracy {written}; the paper's {stage['paper']['accuracy']:.3f} is "
        assert sentence + ("within" if inside else "outside") in finished[0].output


def test_baselines_learn_from_the_same_lesions(content):
    vindr, inbreast = ({model["model"] for model in stage["models"]} for stage in content["stages"])
    for name in ("logistic regression (L2)", "LDA", "k-NN", "SVM", "random forest", "gradient boosting"):
        assert f"{name}, selected features" in vindr & inbreast
    assert inbreast - vindr == {ADAPTED_FROM_VINDR, INBREAST_ALONE}
    assert vindr - inbreast == {"LoRA head"}


def test_the_adapted_model_keeps_the_features_it_knows(content):
    vindr, inbreast = content["stages"]
    assert len(vindr["features"]) == 4
    assert inbreast["features"] == vindr["features"]


def test_each_data_set_has_its_whole_evaluation(finished, content):
    for name, stage in zip(("vindr-mammo", "inbreast"), content["stages"], strict=True):
        card = json.loads((finished[1] / name / "evaluation.json").read_text())
        assert card["split"] == "split"
        assert card["models"] == stage["models"]
        assert (finished[1] / name / "evaluation.html").is_file()
        assert card["command"].startswith("radllm reproduce ra2025 --vindr vindr --inbreast inbreast")


def scatter(mask: Path) -> None:
    """Leave pixels without a neighbour, as somebody's brush might: there is no texture between them."""
    with Image.open(mask) as picture:
        pixels, about = np.array(picture), PngImagePlugin.PngInfo()
        for name in ("Recipe", "Kind"):
            about.add_text(name, picture.info[name])
    pixels[::2] = pixels[:, ::2] = False
    Image.fromarray(pixels).save(mask, pnginfo=about)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_lesions_without_every_feature_are_dropped_and_unreadable_ones_left_out(trees, tmp_path):
    vindr, inbreast = spoil(trees, tmp_path)
    first, second = measure_data_sets(Sources(vindr, inbreast), tmp_path / "out", 0, lambda what, done: None)
    assert (len(first.table), first.left_out, first.dropped) == (23, 1, 0)
    scatter(tmp_path / "out" / "vindr-mammo" / "masks" / f"{first.table.column('lesion')[0]}.png")
    cut = sorted((inbreast / "AllDICOMs").iterdir())[4]
    cut.write_bytes(cut.read_bytes()[:-4000])
    first, second = measure_data_sets(Sources(vindr, inbreast), tmp_path / "out", 0, lambda what, done: None)
    assert (len(first.table), first.left_out, first.dropped) == (22, 1, 1)
    assert (len(second.table), second.left_out, second.dropped) == (18, 2, 0)
    assert np.isfinite(first.lesions.values).all()
    assert "a feature has no value" in (tmp_path / "out" / "vindr-mammo" / "left-out.txt").read_text()
    assert cut.name in (tmp_path / "out" / "inbreast" / "left-out.txt").read_text()


def test_the_same_command_computes_nothing_again(finished, trees, tiny_base, content, monkeypatch):
    steps = []
    monkeypatch.setattr(manifests, "extract", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(evaluation, "fit_writer", lambda *_: pytest.fail("judged again"))
    monkeypatch.setattr("radllm_backend.learning.fit._Run._epoch", lambda run: steps.append(run))
    again = succeed(*command(trees, tiny_base, finished[1]))
    assert again.output == finished[0].output
    assert steps == []
    assert json.loads((finished[1] / "reproduction.json").read_text()) == content


def test_it_goes_on_after_a_crash(trees, tiny_base, finished, monkeypatch):
    """Without what the second data set left, the first one's work is not done again."""
    output = finished[1]
    shutil.rmtree(output / "inbreast" / "work")
    for path in (*output.glob("reproduction.*"), output / "inbreast" / "evaluation.json"):
        path.unlink()
    learned = []
    original = evaluation.fit
    monkeypatch.setattr(evaluation, "fit", lambda *given: learned.append(given[0]) or original(*given))
    measured = []
    extract = manifests.extract
    monkeypatch.setattr(manifests, "extract", lambda *given: measured.append(1) or extract(*given))
    again = succeed(*command(trees, tiny_base, output))
    assert again.output == finished[0].output
    assert len(measured) == 19  # INbreast's only
    assert [len(lesions) for lesions in learned].count(15) == 1  # the start, from its checkpoint


def test_another_start_is_another_study(trees, tiny_base, tmp_path, monkeypatch):
    """Where VinDr-Mammo changed, what was continued from it is continued anew."""
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    quick = [classical("LDA", select=False), of_method("lora")]
    monkeypatch.setattr(reproduction, "compared_models", lambda: quick)
    continued = []
    original = evaluation.fit
    monkeypatch.setattr(evaluation, "fit", lambda *given: continued.append(given[-1]) or original(*given))
    vindr, inbreast = spoil(trees, tmp_path)
    succeed(*command((vindr, inbreast), tiny_base, tmp_path / "out"))
    assert len([start for start in continued if start]) == 1
    table = vindr / "finding_annotations.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines[:2], *lines[3:]]))
    succeed(*command((vindr, inbreast), tiny_base, tmp_path / "out"))
    first, second = (start for start in continued if start)
    assert first.sha256 != second.sha256


def test_whether_the_papers_figure_lies_in_the_interval_is_said(content):
    whole = Reproduction.model_validate(content)
    stage = whole.stages[0]
    sentences = []
    for accuracy in (Estimate(value=0.5, low=0.4, high=0.6), Estimate(value=0.5, low=0.4, high=0.671)):
        models = [model.model_copy(update={"accuracy": accuracy}) for model in stage.models]
        changed = whole.model_copy(update={"stages": [stage.model_copy(update={"models": models})]})
        sentences.append(reproduction_text(changed).splitlines()[1])
        assert html.escape(sentences[-1]) in reproduction_html(changed).replace("&#39;", "&#x27;")
    assert "the paper's 0.671 is outside this interval" in sentences[0]
    assert "the paper's 0.671 is within this interval" in sentences[1]


def spoil(trees, tmp_path) -> tuple[Path, Path]:
    copies = tmp_path / "vindr", tmp_path / "inbreast"
    for tree, copy in zip(trees, copies, strict=True):
        shutil.copytree(tree, copy)
    return copies


def no_test_part(vindr: Path, _inbreast: Path) -> None:
    table = vindr / "finding_annotations.csv"
    table.write_text(table.read_text().replace(",test\n", ",training\n"))


def one_class(vindr: Path, _inbreast: Path) -> None:
    table = vindr / "finding_annotations.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line.replace("BI-RADS 3", "BI-RADS 4") if "test" in line else line for line in lines))


def few_patients(_vindr: Path, inbreast: Path) -> None:
    table = inbreast / "INbreast.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:5]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda vindr, _: shutil.rmtree(vindr),
            "There is no finding_annotations.csv in .*vindr: give the folder of VinDr",
        ),
        (
            lambda _, inbreast: shutil.rmtree(inbreast),
            "There is no INbreast.csv in .*inbreast: give the folder of INbreast",
        ),
        (lambda vindr, _: shutil.rmtree(vindr / "images"), "vindr holds no lesion that can be used: .* download it"),
        (no_test_part, "The test part of VinDr-Mammo has 0 benign and 0 malignant lesions that can be used"),
        (one_class, "The test part of VinDr-Mammo has 0 benign and 8 malignant lesions"),
        (few_patients, "INbreast cannot be halved: Benign lesions come from 1 patient and malignant ones from 1"),
    ],
    ids=["no VinDr-Mammo", "no INbreast", "no images", "no test part", "one class", "few patients"],
)
def test_bad_input_is_one_sentence(trees, tiny_base, tmp_path, monkeypatch, change, sentence):
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluation, "evaluate_models", lambda *_: pytest.fail("learned"))
    copies = spoil(trees, tmp_path)
    change(*copies)
    ended = radllm(*command(copies, tiny_base, tmp_path / "out"))
    assert (ended.code, ended.output) == (1, "")
    last = ended.error.splitlines()[-1]
    assert last.startswith("radllm: ")
    assert re.search(sentence, last), last
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--base-model", "nowhere"], "There is no base model nowhere"),
        (["--epochs", "0"], "option 'epochs' is wrong"),
        (["--inbreast-benign", "3,4"], "calls BI-RADS 4 benign and malignant"),
        (["--mask", "circle"], "circle"),
    ],
)
def test_a_wrong_option_writes_nothing(trees, tiny_base, tmp_path, monkeypatch, more, sentence):
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    ended = radllm(*command(trees, tiny_base, tmp_path / "out", *more))
    assert ended.code != 0
    assert sentence in ended.error
    assert not (tmp_path / "out").exists()


def test_the_papers_figures_are_those_of_the_design():
    design = Path(__file__).resolve().parents[3] / "shared" / "DESIGN.md"
    if not design.is_file():
        pytest.skip("the design is not here")
    text = " ".join(design.read_text().split())
    vindr, inbreast = PAPER_FIGURES["VinDr-Mammo"], PAPER_FIGURES["INbreast"]
    assert f"accuracy {vindr.accuracy} on VinDr-Mammo (n={vindr.test_lesions} test)" in text
    assert f"{inbreast.accuracy} on INbreast ({inbreast.test_lesions} test)" in text
