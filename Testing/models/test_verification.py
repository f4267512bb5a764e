"""A prediction comes out again, or the first thing that differs is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from Testing.support import tiny_models
from Testing.support.command_line import Finished, radllm, succeed

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from radllm_backend import Features, Lesion, Model, extract
from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import load_settings
from radllm_backend.models import verification
from radllm_backend.models.bundle import ADAPTER, read_bundle, write_bundle
from radllm_backend.models.prediction import SCHEMA_VERSION, Prediction
from radllm_backend.models.shipped import shipped_models
from radllm_backend.models.verification import model_of, read_prediction

BREAST_US = Path(__file__).resolve().parents[3] / "shared" / "data" / "breast-us" / "images"
READING = ("--spacing", "0.08", "--modality", "US")


@pytest.fixture(scope="module")
def sample(phantom_folder: Path) -> tuple[Path, Path]:
    return phantom_folder / "3.png", phantom_folder / "3_mask.png"


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path) -> Model:
    return Model.load(tiny_model, tiny_base)


@pytest.fixture(scope="module")
def lesion(sample: tuple[Path, Path]) -> Lesion:
    return Lesion.from_files(*sample, spacing=0.08, modality="US")


@pytest.fixture(scope="module")
def prediction(lesion: Lesion, model: Model) -> Prediction:
    return model.predict(extract(lesion, model.settings))


@pytest.fixture(scope="module")
def record(sample, tiny_model, tiny_base, tmp_path_factory) -> Path:
    """The prediction.json of a lesion."""
    folder = tmp_path_factory.mktemp("classified")
    succeed("classify", *sample, "--model", tiny_model, "--base-model", tiny_base, *READING, "-o", folder)
    return folder / "prediction.json"


@pytest.fixture
def repeat(record, sample, tiny_model, tiny_base) -> Callable[..., Finished]:
    """Runs ``radllm verify``, with anything in the place of what is right."""

    def run(*more, prediction=record, image=sample[0], mask=sample[1], model=tiny_model, base=tiny_base) -> Finished:
        options = ("--model", model, "--base-model", base)
        return radllm("verify", prediction, image, mask, *options, *(more or READING))

    return run


def refused(finished: Finished) -> str:
    """The sentence of a verification that failed, with nothing else said."""
    assert finished.code == 1
    assert finished.output == ""
    (sentence,) = finished.error.splitlines()
    assert sentence.endswith(".")
    return sentence


def edited(prediction: Prediction, **changes: Any) -> Prediction:
    return prediction.model_copy(update=changes)


def first(prediction: Prediction, lesion: Lesion, model: Model) -> str:
    found = verification.repeat(prediction, lesion, model).first
    return str(found) if found else ""


# --- the same again -------------------------------------------------------------------------------------------------


def test_the_same_files_match(repeat, prediction):
    finished = repeat()
    assert finished.code == 0, finished.error
    assert finished.output.startswith("match: prediction.json comes out again")
    assert repr(prediction.probability) in finished.output
    assert "Note" not in finished.output


def test_the_same_lesion_in_another_format_matches(repeat, sample, tmp_path):
    for path in sample:
        pixels = sitk.ReadImage(str(path))
        pixels.SetSpacing((0.08, 0.08))
        sitk.WriteImage(pixels, str(tmp_path / f"{path.stem}.nrrd"))
    assert repeat(image=tmp_path / "3.nrrd", mask=tmp_path / "3_mask.nrrd").code == 0


@pytest.mark.parametrize("option", [("--confidence", "0.6"), ("--stability",)])
def test_confidence_and_stability_are_no_difference(repeat, sample, tiny_model, tiny_base, tmp_path, option):
    succeed("classify", *sample, "--model", tiny_model, "--base-model", tiny_base, *READING, *option, "-o", tmp_path)
    assert repeat(prediction=tmp_path / "prediction.json").code == 0


@pytest.fixture(scope="module")
def described_model(phantom_table: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads features and a descriptor."""
    folder = tmp_path_factory.mktemp("described")
    heading, *rows = phantom_table.read_text().splitlines()
    shapes = ("oval", "irregular and lobulated")
    lines = [f"{heading},descriptor_mass_shape", *(f"{row},{shapes[n % 2]}" for n, row in enumerate(rows))]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder / "cache"))
        tiny_models.train_self_contained(folder / "table.csv", tiny_base, folder / "model")
    return folder / "model"


def test_descriptors_are_given_to_the_model_again(described_model, tiny_base, sample, repeat, tmp_path):
    succeed(
        "classify", *sample, "--model", described_model, "--base-model", tiny_base, *READING,
        "--descriptor", "mass_shape=LOBULATED-IRREGULAR", "-o", tmp_path,
    )  # fmt: skip
    record = tmp_path / "prediction.json"
    assert json.loads(record.read_text())["descriptors"][0]["value"]
    assert repeat(prediction=record, model=described_model).code == 0
    content = json.loads(record.read_text())
    content["descriptors"][0]["value"] = "oval"
    record.write_text(json.dumps(content))
    assert "the first difference is the prompt" in refused(repeat(prediction=record, model=described_model))


def test_a_lesion_in_a_volume(volume_model, monkeypatch):
    monkeypatch.setenv("RADLLM_CACHE", str(volume_model.parent / "cache"))
    model = Model.load(volume_model)
    ball = sitk.GaussianSource(sitk.sitkFloat32, [24, 24, 16], [6, 6, 6], [12, 12, 8])
    lesion = Lesion.from_images(sitk.AdditiveGaussianNoise(ball, 5, 0, 1), ball > 150, modality="CT")
    prediction = model.predict(extract(lesion, model.settings))
    assert verification.repeat(prediction, lesion, model).first is None
    smaller = Lesion.from_images(lesion.image, sitk.BinaryErode(lesion.mask, [1, 1, 1]), modality="CT")
    assert first(prediction, smaller, model).startswith("the mask")


@pytest.mark.skipif(
    not BREAST_US.is_dir() or "breast-us" not in shipped_models(), reason="needs the images in ../shared/data/breast-us"
)
def test_a_shipped_model_is_found_by_its_name(smollm2, tmp_path):
    files = BREAST_US / "case003.png", BREAST_US / "case003_tumor.png"
    model = Model.load("breast-us")
    prediction = model.predict(extract(Lesion.from_files(*files), model.settings), explain=False)
    (tmp_path / "prediction.json").write_text(prediction.model_dump_json())
    assert "match: " in succeed("verify", tmp_path / "prediction.json", *files).output


# --- the first difference -------------------------------------------------------------------------------------------


def test_a_pixel_of_the_image(repeat, sample, tmp_path):
    image = sitk.ReadImage(str(sample[0]))
    image[0, 0] = image[0, 0] ^ 1
    sitk.WriteImage(image, str(tmp_path / "image.png"))
    sentence = refused(repeat(image=tmp_path / "image.png"))
    assert "prediction.json does not come out again: the first difference is the image (recorded " in sentence
    assert "give the image it was made from" in sentence


def test_a_pixel_of_the_mask(repeat, sample, tmp_path, lesion):
    mask = sitk.ReadImage(str(sample[1]))
    left, top = lesion.geometry.bounding_box[:2]
    mask[left - 1, top - 1] = 255
    sitk.WriteImage(mask, str(tmp_path / "mask.png"))
    assert "the first difference is the mask (recorded" in refused(repeat(mask=tmp_path / "mask.png"))


def test_the_first_of_two_differences(repeat, phantom_folder, lesion):
    found = refused(repeat(image=phantom_folder / "5.png", mask=phantom_folder / "5_mask.png"))
    assert "the first difference is the image (" in found
    assert lesion.image_sha256[:12] in found


def test_pixel_spacing_and_modality(repeat):
    found = refused(repeat("--modality", "US"))
    assert "the pixel spacing (recorded 0.08 x 0.08 mm, now unknown): set it with --spacing" in found
    found = refused(repeat("--spacing", "0.08"))
    assert "the modality (recorded US, now unknown): set it with --modality" in found


def test_a_setting(lesion, model, tiny_model, tiny_base, tmp_path):
    others = load_settings("breast-ultrasound").to_dict()
    others["setting"] = {**others["setting"], "binWidth": 7}
    card = read_bundle(tiny_model).card.model_copy(update={"settings": others})
    files = {name: (tiny_model / name).read_bytes() for name in card.files}
    write_bundle(tmp_path / "tiny", card, files)
    other = Model.load(tmp_path / "tiny", tiny_base)
    made = other.predict(extract(lesion, other.settings))
    assert verification.repeat(made, lesion, other).first is None
    assert first(made, lesion, model).startswith("the extraction settings (recorded ")


def test_another_model_of_the_same_name(prediction, lesion, tiny_model, tiny_base, tmp_path):
    card = read_bundle(tiny_model).card
    files = {name: (tiny_model / name).read_bytes() for name in card.files}
    write_bundle(tmp_path / "tiny", card.model_copy(update={"threshold": 0.4}), files)
    found = first(prediction, lesion, Model.load(tmp_path / "tiny", tiny_base))
    assert found.startswith(f"the model (recorded {prediction.model.sha256[:12]}, now ")


@pytest.mark.parametrize("kind", [ADAPTER, "neighbours", "README.md"])
def test_a_byte_of_a_file_of_the_model(repeat, tiny_model, tmp_path, kind):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    (path,) = [path for path in folder.iterdir() if path.name.startswith(kind)]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert f"The file {path.name} of the model tiny was changed or damaged" in refused(repeat(model=folder))


def test_another_base_model(repeat, tiny_copy, prediction, lesion, model):
    config = json.loads((tiny_copy / "config.json").read_text())
    (tiny_copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert "is not the one the model tiny was trained on" in refused(repeat(base=tiny_copy))
    other = prediction.model.model_copy(update={"base_sha256": "0" * 64})
    assert first(edited(prediction, model=other), lesion, model).startswith("the base model (recorded 000000000000")


def test_a_feature_value_with_both_values(prediction, lesion, model):
    share = prediction.features[1]
    shares = [*prediction.features]
    shares[1] = share.model_copy(update={"value": share.value * 1.00001})
    changed = edited(prediction, features=shares, logit=9.0)
    assert first(changed, lesion, model) == (
        f"the feature {share.feature} (recorded {shares[1].value!r}, now {share.value!r})"
    )
    shares[1] = share.model_copy(update={"value": share.value * (1 + 1e-12)})
    assert first(edited(prediction, features=shares), lesion, model) == ""
    assert "now" in first(edited(prediction, features=shares[1:]), lesion, model)
    unknown = share.model_copy(update={"feature": "original_colour"})
    found = first(edited(prediction, features=[*shares, unknown]), lesion, model)
    assert found == f"the feature original_colour (recorded {share.value!r}, now none)"


def test_versions_alone_are_a_note_and_with_other_numbers_the_first_difference(
    prediction, lesion, model, repeat, tmp_path
):
    older = edited(prediction, versions={**prediction.versions, "tokenizers": "0.1"})
    found = verification.repeat(older, lesion, model)
    assert found.first is None
    (note,) = found.versions
    assert (note.part, note.recorded) == ("the version of tokenizers", "0.1")
    assert first(edited(older, logit=prediction.logit + 1), lesion, model).startswith("the version of tokenizers")
    (tmp_path / "prediction.json").write_text(older.model_dump_json())
    finished = repeat(prediction=tmp_path / "prediction.json")
    assert finished.code == 0
    assert "Note, although the numbers agree: the version of tokenizers (recorded 0.1, now " in finished.output
    measured = edited(
        prediction, extraction=prediction.extraction.model_copy(update={"versions": {"pyradiomics": "2.0"}})
    )
    assert {"the version of pyradiomics", "the version of SimpleITK"} <= {
        one.part for one in verification.repeat(measured, lesion, model).versions
    }


CHANGES = {
    "the prompt": {"prompt": lambda one: one.prompt.replace("benign", "bening", 1), "logit": lambda one: 0.0},
    "the score": {"logit": lambda one: one.logit + 2e-6, "probability": lambda one: 0.5},
    "the probability": {"probability": lambda one: one.probability - 2e-6, "call": lambda one: "uncertain"},
    "the threshold": {"threshold": lambda one: one.threshold / 2},
    "the uncertain band": {"band": lambda one: one.band.model_copy(update={"low": 0.0}), "cautions": lambda one: []},
    "the call": {"call": lambda one: "uncertain" if one.call != "uncertain" else "likely benign"},
    "the cautions": {"cautions": lambda one: []},
}


@pytest.mark.parametrize("part", CHANGES)
def test_what_the_model_makes_of_the_values(part, prediction, lesion, model):
    changed = edited(prediction, **{name: change(prediction) for name, change in CHANGES[part].items()})
    assert first(changed, lesion, model).startswith(f"{part} (recorded ")


def test_a_difference_below_the_tolerance_is_none(prediction, lesion, model):
    changed = edited(prediction, logit=prediction.logit + 5e-7, probability=prediction.probability - 5e-7)
    assert first(changed, lesion, model) == ""


# --- what is no such prediction -------------------------------------------------------------------------------------


def test_a_prediction_without_an_image(prediction, lesion, model):
    values = Features(values={share.feature: share.value for share in prediction.features})
    with pytest.raises(RadllmError, match="from a table or from descriptors alone"):
        verification.repeat(model.predict(values, explain=False), lesion, model)


def test_a_model_that_is_not_shipped_has_to_be_given(record, sample, prediction):
    sentence = refused(radllm("verify", record, *sample, *READING))
    assert "The prediction was made with the model tiny, which is not a shipped one: give its folder" in sentence
    for name in shipped_models():
        assert model_of(edited(prediction, model=prediction.model.model_copy(update={"name": name}))) == name


@pytest.mark.parametrize("version", [1, 2, SCHEMA_VERSION + 1, "3", None])
def test_a_prediction_of_another_schema_version(repeat, record, tmp_path, version):
    other = tmp_path / "prediction.json"
    other.write_text(json.dumps({**json.loads(record.read_text()), "schema_version": version}))
    sentence = refused(repeat(prediction=other))
    assert (
        f"prediction.json has the schema version {version} and this radllm repeats version {SCHEMA_VERSION}" in sentence
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b"{}", "holds no prediction: give the prediction.json that radllm classify wrote"),
        (
            b'{"schema_version": %d, "probability": 0.5, "prompt": ""}' % SCHEMA_VERSION,
            "is malformed (call): get it anew",
        ),
    ],
)
def test_a_file_that_is_something_else(repeat, tmp_path, content, words):
    (tmp_path / "prediction.json").write_bytes(content)
    assert words in refused(repeat(prediction=tmp_path / "prediction.json"))


def test_a_card_of_a_model_and_a_missing_file_are_no_prediction(repeat, tiny_model, tmp_path):
    assert "model.json holds no prediction" in refused(repeat(prediction=tiny_model / "model.json"))
    assert "cannot be read" in refused(repeat(prediction=tmp_path / "nowhere.json"))


@pytest.mark.parametrize("change", [{"probability": 2}, {"logit": float("nan")}, {"features": 3}, {"more": 1}])
def test_a_malformed_prediction(record, tmp_path, change):
    other = tmp_path / "prediction.json"
    other.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    with pytest.raises(RadllmError, match=f"malformed .{next(iter(change))}"):
        read_prediction(other)
