"""A batch over a whole DICOM database gives each lesion what classifying that lesion alone gives it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import SimpleITK as sitk

pytest.importorskip("torch")
pytest.importorskip("radiomics")
pytest.importorskip("distributed")
pytest.importorskip("highdicom", reason="needs highdicom")

from radllm_backend import Lesion, extract
from radllm_backend.batch.candidates import Candidate, Found
from radllm_backend.batch.cluster import Place
from radllm_backend.batch.results import Row
from radllm_backend.batch.run import run_batch
from radllm_backend.batch.scoring import BatchPlan
from radllm_backend.batch.sources import find_in_database
from radllm_backend.errors import RadllmError
from radllm_backend.imaging.image_files import read_image
from radllm_backend.models.model import Model
from radllm_backend.models.prediction import Prediction
from Testing.support.batch_cases import kept
from Testing.support.dicom_archive import BLOCK, write_archive
from Testing.support.dicom_databases import write_database


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Forty studies: MG, US, CT and MR, with segments, contours, and much that is broken."""
    folder = tmp_path_factory.mktemp("database")
    written = write_archive(folder)
    write_database(folder, written.files, remote=written.remote)
    return find_in_database(folder)


@pytest.mark.parametrize(("fixture", "dimension"), [("self_contained_model", 2), ("volume_model", 3)])
@pytest.mark.long
def test_batch_and_single_classify_agree_on_every_lesion(
    fixture: str, dimension: int, database: Found, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch
) -> None:
    folder: Path = request.getfixturevalue(fixture)
    monkeypatch.setenv("RADLLM_CACHE", str(folder.parent / "cache"))
    model = Model.load(folder)
    plan = BatchPlan(found=database, model=model, output=tmp_path / "out", place=Place(workers=2, memory="1GB"))
    summary = run_batch(plan)
    rows = {row.key: row for row in kept(tmp_path / "out", model)}
    assert rows.keys() == {candidate.key for candidate in database.candidates}
    assert summary.left_out == len(database.refusals)
    done = 0
    for number, candidate in enumerate(database.candidates):
        done += agrees(rows[candidate.key], candidate, model, tmp_path / str(number))
    assert done == summary.done
    flat = [candidate for candidate in database.candidates if candidate.modality in ("MG", "US")]
    assert done == (len(flat) if dimension == 2 else len(database.candidates) - len(flat))


def agrees(row: Row, candidate: Candidate, model: Model, work: Path) -> bool:
    """Whether there is a result; it, or the reason why there is none, is that of the image and a mask of its own."""
    alone = result_of(lesion_of(candidate, work), model)
    if isinstance(alone, str):
        assert row.reason == alone
        return False
    assert row.probability == pytest.approx(alone.probability, abs=1e-6)
    assert row.prediction is not None
    assert row.prediction.model_copy(update={"extraction": alone.extraction}) == alone
    return True


def result_of(lesion: Lesion, model: Model) -> Prediction | str:
    try:
        return model.predict(extract(lesion, model.settings), explain=False)
    except RadllmError as error:
        return str(error)


def lesion_of(candidate: Candidate, work: Path) -> Lesion:
    """As `radllm classify IMAGE MASK` reads it: a file or a folder, and a mask drawn on its grid."""
    work.mkdir()
    image = Path(candidate.image[0])
    if len(candidate.image) > 1:
        image = work / "series"
        image.mkdir()
        for file in candidate.image:
            os.symlink(file, image / Path(file).name)
    pixels = read_image(image).pixels
    drawn = sitk.GetImageFromArray(BLOCK if pixels.GetDimension() == 3 else BLOCK[1])
    drawn.CopyInformation(pixels)
    mask = work / "mask.nrrd"
    sitk.WriteImage(drawn, mask)
    return Lesion.from_files(image, mask, modality=candidate.modality)
