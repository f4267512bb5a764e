"""The reports of a batch's lesions: made of what the workers send, byte for byte those of a lesion alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from Testing.support.batch_cases import READ, READ_BY_WORKERS, candidate, found, kept, plan, read_generated
from Testing.support.command_line import succeed

pytest.importorskip("torch")
pytest.importorskip("radiomics")
pytest.importorskip("distributed")
pytest.importorskip("pyarrow")

from radllm_backend.batch import lesions
from radllm_backend.batch.cluster import Place
from radllm_backend.batch.run import run_batch
from radllm_backend.batch.worker import Measurement, measure_lesions, settings_text
from radllm_backend.models.model import Model
from radllm_backend.reports.files import EPOCH, write_reports
from radllm_backend.reports.key_image import key_image

ONE = Place(workers=1, memory="1GB")
FILES = {"prediction.json", "features.csv", "report.html", "report.pdf", "key-image.png"}


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path) -> Model:
    return Model.load(tiny_model, tiny_base)


@pytest.fixture(autouse=True)
def at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EPOCH, "1764092400")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_workers_read_images_and_the_reports_are_those_of_the_lesion(model: Model, tmp_path: Path) -> None:
    chosen = plan(model, tmp_path / "out", found(3), reports=True, read=READ_BY_WORKERS, place=ONE)
    assert run_batch(chosen).done == 3
    for row in kept(tmp_path / "out", model):
        assert row.number is not None
        assert row.prediction is not None
        assert row.features is not None
        alone, lesion = tmp_path / str(row.number), read_generated(candidate(row.number))
        write_reports(alone, row.prediction, row.features, lesion, model.card)
        assert contents(chosen.report_folder(row.key)) == contents(alone)
        assert set(contents(alone)) == FILES


def test_the_command_writes_what_classify_writes(
    phantom_folder: Path, tiny_model: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> None:
        raise AssertionError("The scoring process reads an image.")

    heading, *lines = (phantom_folder / "manifest.csv").read_text().splitlines()
    manifest = phantom_folder / "one.csv"
    manifest.write_text("\n".join([heading, *(line for line in lines if ",3_mask.png," in line)]))
    by_model = ("--model", tiny_model, "--base-model", tiny_base)
    lesion = (phantom_folder / "3.png", phantom_folder / "3_mask.png", "--modality", "US", "--spacing", "0.08")
    succeed("classify", *lesion, *by_model, "-o", tmp_path / "single")
    monkeypatch.setattr(lesions, "read_lesion", refuse)
    given = ("--workers", 1, "--reports", "--explain")
    succeed("batch", "--manifest", manifest, *by_model, "-o", tmp_path / "out", *given)
    (folder,) = (tmp_path / "out" / "lesions").iterdir()
    assert contents(folder) == contents(tmp_path / "single")
    assert set(contents(folder)) == FILES


@pytest.mark.parametrize("pictures", [True, False])
def test_a_picture_travels_only_where_it_is_asked_for(model: Model, pictures: bool) -> None:
    chosen = candidate(1)
    (answer,) = measure_lesions([chosen.model_dump_json()], settings_text(model.settings), READ, pictures=pictures)
    picture = Measurement.model_validate_json(answer).picture
    assert picture == (key_image(read_generated(chosen)) if pictures else None)
