"""Every method as a bundle: what it learned comes back from the disk, and says the same of the same lesions."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import skops.io

from Testing.support.command_line import radllm, succeed

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from radllm_backend import Features, Model
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import read_table
from radllm_backend.language import base_models
from radllm_backend.language.prompt import Readout
from radllm_backend.language.reader import NumpyReader
from radllm_backend.learning.methods import METHODS, bundled_methods
from radllm_backend.learning.options import CrossValidation, TrainingOptions
from radllm_backend.learning.study import Fold, Study
from radllm_backend.models.bundle import CARD, read_bundle
from radllm_backend.models.heads import ESTIMATOR, NUMBERS
from radllm_backend.models.reference import NEIGHBOURS
from Testing.support.cohorts import lesions

pytestmark = pytest.mark.usefixtures("lean")
OPTIONS = ["--features", "3", "--folds", "0", "--epochs", "1", "--rank", "2", "--scale-free"]
FILES = {
    "lora": {"adapter.safetensors"},
    "fusion": {NUMBERS},
    "fusion-averaged": {NUMBERS},
    "fusion-lda": {NUMBERS},
    "fusion-svm": {ESTIMATOR},
    "fusion-forest": {ESTIMATOR},
    "fusion-boosting": {ESTIMATOR},
    "fusion-lora": {"adapter.safetensors", NUMBERS},
    "weighted": {NUMBERS},
    "frozen": {NUMBERS},
    "frozen-averaged": {NUMBERS},
}
SHALLOW = {f"{method}-one-layer": method for method in ("fusion-lda", "fusion-svm", "weighted", "frozen")}
"""Bundles that read fewer layers than the base model has."""
EVERY_BUNDLE = {**{method: method for method in FILES}, **SHALLOW}
"""By name, the method."""


def quiet(what: str, done: float) -> None:
    pass


def train(table, base, output, *more):
    return succeed("train", table, "--target", "label", "--group", "patient", "--base-model", base, "-o", output, *more)


@pytest.fixture(scope="module")
def bundles(
    lean: None, phantom_table: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("methods")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder / "cache"))
        for name, method in EVERY_BUNDLE.items():
            more = ("--layers", "1") if name in SHALLOW else ()
            train(phantom_table, tiny_base, folder / name, "--method", method, *OPTIONS, *more)
    return {name: folder / name for name in EVERY_BUNDLE}


def test_every_method_is_among_them():
    assert list(FILES) == bundled_methods()


@pytest.mark.parametrize("name", EVERY_BUNDLE)
def test_a_bundle_holds_what_its_method_needs_and_nothing_else(bundles, name):
    files = FILES[EVERY_BUNDLE[name]]
    assert {path.name for path in bundles[name].iterdir()} == {CARD, "README.md", NEIGHBOURS, *files}
    assert read_bundle(bundles[name]).card.parts() == sorted(files)


@pytest.mark.parametrize("name", EVERY_BUNDLE)
def test_the_bundle_says_what_the_fitted_method_says(bundles, name, phantom_table, tiny_base, tmp_path, monkeypatch):
    """Fitted once more, in memory, it judges three lesions as held-out ones; the bundle reads its numbers from disk."""
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    from radllm_backend.learning.build import _lesions
    from radllm_backend.learning.plan import LabelledTable, TrainingPlan

    labelled = LabelledTable.of(phantom_table, "label", "patient", None)
    layers = 1 if name in SHALLOW else None
    options = TrainingOptions(features=3, folds=0, epochs=1, rank=2, scale_free=True, layers=layers)
    base = base_models.locate(tiny_base)
    cohort = _lesions(TrainingPlan(labelled=labelled, base=base, options=options, output=tmp_path / "none"))
    study = Study(lesions=cohort, modality="US", base=base, options=options, work=tmp_path)
    everyone = np.arange(len(cohort))
    fold = Fold(study, 0, 0, (everyone, everyone[:3]))
    expected = METHODS[EVERY_BUNDLE[name]].learn(fold).scores
    predictions = Model.load(bundles[name], tiny_base).predict_many(labelled.table.rows()[:3], explain=False)
    assert [one.logit for one in predictions] == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("name", SHALLOW)
def test_a_model_of_fewer_layers_says_so_and_has_no_others_in_memory(bundles, name, phantom_table, tiny_base):
    assert read_bundle(bundles[name]).card.layers == 1
    model = Model.load(bundles[name], tiny_base)
    assert model.reader.depth == 2
    with pytest.raises(RadllmError, match="This model reads at most 1 layer of its base model, and not 2"):
        model.reader.embed(["text"], [Readout(2, "last")])
    row = read_table(phantom_table).rows()[0]
    shallow = NumpyReader(base_models.locate(tiny_base)).embed([model.read(row).prompt], [Readout(1, "last")])
    assert np.array_equal(model.embed([row]), shallow[Readout(1, "last")])
    assert len(model.predict(row).neighbours) > 0


@pytest.mark.parametrize("method", ["lora", "fusion-lora"])
def test_an_adapter_reads_all_layers(bundles, method, phantom_table, tiny_base, tmp_path):
    assert read_bundle(bundles[method]).card.layers is None
    words = ("--target", "label", "--group", "patient", "--base-model", tiny_base, "-o", tmp_path / "model")
    finished = radllm("train", phantom_table, *words, "--method", method, "--layers", "1", *OPTIONS)
    assert finished.code == 1
    assert f"The method {method} trains an adapter of all layers: leave --layers out." in finished.error
    assert not list(tmp_path.iterdir())


def test_more_layers_than_the_base_model_has_are_refused_before_anything_is_trained(phantom_table, tiny_base, tmp_path):
    words = ("--target", "label", "--group", "patient", "--base-model", tiny_base, "-o", tmp_path / "model")
    finished = radllm("train", phantom_table, *words, "--method", "fusion", "--layers", "3", *OPTIONS)
    assert finished.code == 1
    assert "The base model has 2 layers, and 3 cannot be read: ask for fewer." in finished.error
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_name_no_model_can_have_is_refused_before_anything_is_trained(
    phantom_table, tiny_base, tmp_path
):
    words = ("--target", "label", "--group", "patient", "--base-model", tiny_base, "-o", tmp_path / "my model")
    finished = radllm("train", phantom_table, *words, "--method", "fusion", *OPTIONS)
    assert finished.code == 1
    assert finished.error.startswith("radllm: A model cannot be named 'my model', as its folder would be: ")
    assert len(finished.error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["fusion", "fusion-svm", "fusion-forest", "weighted"])
def test_one_lesion_and_many_get_the_same_score_and_effects(bundles, method, phantom_table, tiny_base):
    model = Model.load(bundles[method], tiny_base)
    rows = read_table(phantom_table).rows()[:4]
    many = model.predict_many(rows, explain=True)
    assert many[2] == model.predict(rows[2])
    assert any(share.effect for share in many[2].features)


def test_an_estimator_with_another_type_inside_is_refused_and_nothing_of_it_runs(bundles, tmp_path, tiny_base):
    folder = Path(shutil.copytree(bundles["fusion-svm"], tmp_path / "evil"))
    ran = tmp_path / "ran"
    content = skops.io.dumps(Evil(str(ran)))
    (folder / ESTIMATOR).write_bytes(content)
    card = json.loads((folder / CARD).read_text())
    card["files"][ESTIMATOR] = hashlib.sha256(content).hexdigest()
    (folder / CARD).write_text(json.dumps(card))
    features = Features(values={row["feature"]: row["mean"] for row in card["features"]})
    with pytest.raises(RadllmError, match="holds objects that no model needs"):
        Model.load(folder, tiny_base).predict(features)
    assert not ran.exists()


class Evil:
    """Touches a file when it is rebuilt."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __setstate__(self, state) -> None:
        Path(state["path"]).touch()


# --- descriptors ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of descriptors alone: irregular masses are malignant, mostly."""
    lines = ["lesion,label,patient,modality_column,descriptor_mass_shape,descriptor_breast_density"]
    for number in range(48):
        malignant = number % 2
        shape = ("oval", "irregular")[malignant if number % 12 else 1 - malignant]
        label = ("benign", "malignant")[malignant]
        lines.append(f"lesion{number},{label},patient{number},x,{shape},{number % 3 + 1 if number % 5 else ''}")
    path = tmp_path_factory.mktemp("described") / "described.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def descriptor_model(lean: None, described: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("descriptors") / "shapes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder.parent / "cache"))
        more = ("--method", "fusion", "--modality", "MG", "--folds", "2", "--by", "breast_density")
        train(described, tiny_base, folder, *more)
    return folder


def test_a_model_of_descriptors_reads_them_and_no_image(descriptor_model, tiny_base, phantom_folder, tmp_path):
    finished = succeed(
        "describe", "mass_shape=IRREGULAR", "breast_density=2", "--model", descriptor_model,
        "--base-model", tiny_base, "-o", tmp_path / "out",
    )  # fmt: skip
    assert "Mass Shape" in finished.output
    prediction = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert "The 'Mass Shape' is irregular." in prediction["prompt"]
    assert prediction["descriptors"][0]["value"] == "irregular"
    assert prediction["descriptors"][0]["effect"] != 0
    assert "irregular" in (tmp_path / "out" / "report.html").read_text()
    files = [phantom_folder / f"0{part}.png" for part in ("", "_mask")]
    refused = radllm("classify", *files, "--model", descriptor_model, "--base-model", tiny_base, "-o", tmp_path / "no")
    assert refused.code == 1
    assert "use radllm describe" in refused.error


def test_predict_reads_a_table_of_descriptors(descriptor_model, described, tiny_base, tmp_path):
    succeed("predict", descriptor_model, described, "--base-model", tiny_base, "-o", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert len(rows) == 48
    by_shape = {shape: float(rows[number]["probability"]) for shape, number in (("oval", 2), ("irregular", 1))}
    assert by_shape["oval"] < by_shape["irregular"]


def test_its_card_reports_by_descriptor_and_before_and_after_calibration(descriptor_model):
    card = read_bundle(descriptor_model).card
    assert {group.name.split(": ")[0] for group in card.subgroups} == {"Breast Density"}
    assert sum(group.lesions for group in card.subgroups) == 48
    check = card.calibration_check
    assert check.ece_after.low <= check.ece_after.value <= check.ece_after.high
    text = (descriptor_model / "README.md").read_text()
    assert "expected calibration error" in text
    assert "irregular 28" in text


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["mass_shape=lobulated", "breast_density=2"], "descriptor-new"),
        (["breast_density=2"], "descriptor-missing"),
    ],
)
def test_a_term_that_no_training_lesion_had_is_a_caution(descriptor_model, tiny_base, tmp_path, words, code):
    succeed("describe", *words, "--model", descriptor_model, "--base-model", tiny_base, "-o", tmp_path / "out")
    prediction = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert [caution["code"] for caution in prediction["cautions"] if caution["code"].startswith("desc")] == [code]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mass_shape"], "is no descriptor: write it as mass_shape=oval"),
        (["mass_shape=nice"], "cannot be 'nice'"),
        (["colour=red"], "no descriptor 'colour'"),
        (["mass_shape=oval", "mass_shape=round"], "given twice"),
        (["halo=yes"], "does not read halo: leave it out; it reads mass_shape, breast_density"),
    ],
)
def test_bad_descriptors_end_with_one_sentence(descriptor_model, tiny_base, tmp_path, words, sentence):
    more = ("--model", descriptor_model, "--base-model", tiny_base, "-o", tmp_path / "out")
    finished = radllm("describe", *words, *more)
    assert finished.code == 1
    assert sentence in finished.error
    assert not (tmp_path / "out").exists()


# --- adaptation of a bundle -----------------------------------------------------------------------------------------


def test_adapt_continues_a_model_on_other_features(bundles, phantom_table, tiny_base, tmp_path):
    table = read_table(phantom_table)
    known = [row.feature for row in read_bundle(bundles["lora"]).card.features]
    others = [name for name in table.features if name not in known[1:]][:12]
    lines = list(csv.DictReader(phantom_table.open()))
    names = ["lesion", "label", "patient", *dict.fromkeys([known[0], *others]), "extraction"]
    with (tmp_path / "other.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    finished = succeed(
        "adapt", bundles["lora"], tmp_path / "other.csv", "--target", "label", "--group", "patient",
        "--base-model", tiny_base, "-o", tmp_path / "adapted", "--features", "3", "--folds", "2", "--epochs", "1",
    )  # fmt: skip
    assert "AUC" in finished.output
    card = read_bundle(tmp_path / "adapted").card
    assert card.features[0].feature == known[0]
    assert len(card.features) == 3
    assert not {row.feature for row in card.features[1:]} & set(known[1:])
    assert card.training.origin.sha256 == read_bundle(bundles["lora"]).sha256
    assert card.training.command.startswith("radllm adapt lora other.csv")
    assert "It continues the model lora" in (tmp_path / "adapted" / "README.md").read_text()


def test_a_frozen_model_cannot_be_adapted(bundles, phantom_table, tiny_base, tmp_path):
    finished = radllm(
        "adapt", bundles["fusion"], phantom_table, "--target", "label", "--group", "patient",
        "--base-model", tiny_base, "-o", tmp_path / "adapted",
    )  # fmt: skip
    assert finished.code == 1
    assert "no adapter to continue" in finished.error


def test_an_evaluation_goes_into_the_card(phantom_table, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    from radllm_backend.learning.compared_models import classical, of_method
    from radllm_backend.learning.plan import EvaluationPlan, LabelledTable
    from radllm_backend.learning.study import evaluate_table

    plan = EvaluationPlan(
        labelled=LabelledTable.of(phantom_table, "label", "patient", None),
        base=base_models.locate(tiny_base),
        options=TrainingOptions(features=3, scale_free=True),
        work=tmp_path / "work",
        command="radllm evaluate",
        division=CrossValidation(folds=2, inner_folds=2, seeds=1),
    )
    scorecard, _ = evaluate_table(plan, [classical("LDA", select=False), of_method("fusion")], quiet)
    (tmp_path / "evaluation.json").write_text(scorecard.model_dump_json())
    more = ("--method", "fusion", "--evaluation", tmp_path / "evaluation.json", *OPTIONS)
    train(phantom_table, tiny_base, tmp_path / "model", *more)
    summary = read_bundle(tmp_path / "model").card.evaluations[0]
    assert {row.model for row in summary.trials} == {"LDA, all features", "fusion, concatenated, logistic regression"}
    text = (tmp_path / "model" / "README.md").read_text()
    assert "What else was tried" in text
    assert re.search(r"The best fusion, .* (is at least|\*\*is not) as good as", text)


def test_a_method_that_is_none_is_named(phantom_table, tiny_base, tmp_path):
    finished = radllm(
        "train", phantom_table, "--target", "label", "--group", "patient", "--base-model", tiny_base,
        "-o", tmp_path / "model", "--method", "magic",
    )  # fmt: skip
    assert finished.code == 1
    assert "There is no method 'magic': use one of lora, fusion" in finished.error


def test_hidden_states_do_not_depend_on_what_is_read_with_them(bundles, phantom_table, tiny_base):
    model = Model.load(bundles["fusion"], tiny_base)
    rows = read_table(phantom_table).rows()[:5]
    assert np.array_equal(model.embed(rows)[3], model.embed(rows[3:4])[0])
    assert not np.array_equal(model.embed(rows, "mean"), model.embed(rows))


def test_a_cohort_without_features_or_descriptors_is_refused(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    cohort = lesions(count=20).with_features([])
    base, options = base_models.locate(tiny_base), TrainingOptions(features=2)
    study = Study(lesions=cohort, modality="US", base=base, options=options, work=tmp_path)
    fold = Fold(study, 0, 0, (np.arange(20), np.arange(0)))
    with pytest.raises(RadllmError, match="neither a usable feature nor a descriptor"):
        METHODS["fusion"].learn(fold)
